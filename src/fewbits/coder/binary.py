"""Binary decisions to bytes and back, by ranges of 32 bits (docs/format.md, section 9.4).

The interval of all that may follow is [low, low + range) of a 32-bit window; a decision that is 1 keeps the lower part
of it, in proportion to its probability. The stream is the shortest number in the last interval, and no other is
accepted: decoding and encoding again gives the same bytes.
"""

import math

from fewbits.errors import Corrupt, InvalidArgument

# WIRE. A decision costs at least 1/45,446 of a byte, because probabilities are 8/65536 or more.
DECISIONS_PER_BYTE = 45_500
SLACK_BYTES = 64


def decision_limit(size: int) -> int:
    """Return how many decisions a stream of `size` bytes may hold."""
    return (size + SLACK_BYTES) * DECISIONS_PER_BYTE


class Encoder:
    """Codes decisions into bytes."""

    def __init__(self) -> None:
        """Start with nothing coded."""
        self._low, self._range, self._decisions = 0, 1 << 32, 0
        self._bytes = bytearray()

    def code(self, bit: int, probability: int) -> int:
        """Code a decision that is 1 with probability / 65536, 8 … 65528."""
        self._decisions += 1
        bound = self._range * probability >> 16
        if bit:
            self._range = bound
        else:
            self._low += bound
            self._range -= bound
        while self._range < 1 << 24:
            self._range <<= 8
            self._put(self._low >> 24)
            self._low = (self._low & 0xFFFFFF) << 8
        return bit

    def _put(self, byte: int) -> None:
        """Append a byte; what is above 255 is carried into those before, of which one has room: all is below 1."""
        place = len(self._bytes) - 1
        while byte > 255 and self._bytes[place] == 255:
            self._bytes[place] = 0
            place -= 1
        if byte > 255:
            self._bytes[place] += 1
        self._bytes.append(byte & 255)

    def finish(self) -> bytes:
        """Return the shortest bytes which, followed by zeros, lie in the interval; of these the least.

        Raises:
            InvalidArgument: they are so few that the decoder would refuse so many decisions.
        """
        unit = 1 << 32
        while (value := -(-self._low // unit) * unit) >= self._low + self._range:
            unit >>= 8
        self._put(value >> 24)
        data = bytes(self._bytes + (value & 0xFFFFFF).to_bytes(3, "big")).rstrip(b"\0")
        if self._decisions > decision_limit(len(data)):
            raise InvalidArgument("arrays cost too few bits for an adaptive stream: it would be refused.")
        return data


class Decoder:
    """Decodes decisions; of the interval's low end it knows how far the stream lies above it."""

    def __init__(self, data: bytes) -> None:
        """Start at the front of a stream.

        Raises:
            Corrupt: its last byte is 0.
        """
        if data.endswith(b"\0"):
            raise Corrupt("an adaptive stream ends with a zero byte.")
        self._data = data
        self._above_low = int.from_bytes(data[:4].ljust(4, b"\0"), "big")
        self._range, self._consumed, self._decisions = 1 << 32, 4, 0

    def code(self, bit: int, probability: int) -> int:
        """Decode a decision; `bit` is not looked at.

        Raises:
            Corrupt: it is one more than so few bytes may hold.
        """
        self._decisions += 1
        if self._decisions > decision_limit(len(self._data)):
            raise Corrupt("an adaptive stream has too few bytes for its integers.")
        bound = self._range * probability >> 16
        bit = int(self._above_low < bound)
        if bit:
            self._range = bound
        else:
            self._above_low -= bound
            self._range -= bound
        while self._range < 1 << 24:
            self._range <<= 8
            byte = self._data[self._consumed] if self._consumed < len(self._data) else 0
            self._above_low = self._above_low << 8 | byte
            self._consumed += 1
        return bit

    def check_end(self) -> None:
        """Check that `Encoder.finish` would have given these bytes.

        Raises:
            Corrupt: it would not. They are the least of their length if less than a unit of the last byte's place lies
                between them and the interval's low end; no shorter ones do if the next multiple of 256 units is out.
        """
        size = len(self._data)
        unit = 1 << 8 * max(0, self._consumed - size)
        last = self._data[-1] if size else 0
        shortest = size == 0 or (self._above_low < unit and (256 - last) * unit + self._above_low >= self._range)
        if size > self._consumed or not shortest:
            raise Corrupt("an adaptive stream does not end where its integers do.")


class Meter:
    """Adds up what decisions cost, in bits."""

    def __init__(self) -> None:
        """Start at 0."""
        self.bits = 0.0

    def code(self, bit: int, probability: int) -> int:
        """Add the cost of a decision."""
        self.bits += 16 - math.log2(probability if bit else 65536 - probability)
        return bit


Coder = Encoder | Decoder | Meter
