"""The constants and records of a `.fewbits` file, and its first bytes (`docs/format.md`, sections 2 to 5)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

from fewbits.chunk import DTYPES, TensorSpec
from fewbits.coder.leb128 import MAX_BYTES, read_uint, write_uint
from fewbits.errors import Corrupt, Incompatible, TooLarge, Truncated

# WIRE: all of these.
MAGIC = b"\x89FWB"
FORMAT = 1
FLAG_BARE = 1
FLAG_DEFLATED = 2
SIZE_CAP = 1 << 26  # bytes of a header or an index
CHECK_SIZE = 4  # bytes of a CRC

# Enough for every prelude below: the magic, format and flags, then at most three uints, or a CRC and two.
PRELUDE_SIZE_MAX = len(MAGIC) + 2 + 3 * MAX_BYTES

MAX_BYTES_OF_TENSOR = (1 << 63) - 1  # empty dimensions counted as 1: what 64-bit strides in bytes can hold
MAX_DIMENSIONS = 64  # NumPy's own bound
MAX_GROUPS = 1024  # each looks at all tensors that are left
MAX_PART_ELEMENTS = 1 << 24  # bounds the memory that decoding one part takes
MAX_HEADER_ITEMS = 1 << 21  # CBOR items: a header of 64 KiB, deflated, could else take gigabytes once parsed


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of the file: stored if `target` is None, else an alias of the earlier tensor at `target`.

    An alias has its target's dtype and shape. `shared` tells a tie (one memory) from an equal copy.
    """

    spec: TensorSpec
    target: int | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """A method that parts refer to by its position in the header; `config` is a record, JSON values."""

    id: str
    payload_version: int
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TensorLoss:
    """What a stored tensor lost and cost.

    relative_error: ||W - W_hat|| / ||W||, 0 for an exact tensor, infinite if only ||W|| is 0.
    bits: its share of its payload.
    note: why it was kept exactly, or empty.
    """

    relative_error: float
    bits: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """What the file says about its tensors. `losses` has one entry a tensor, None for an alias."""

    tensors: tuple[TensorEntry, ...]
    methods: tuple[MethodEntry, ...]
    seed: int
    rate_weight: float | None = None
    losses: tuple[TensorLoss | None, ...] | None = None
    metadata: Mapping[str, str] | None = None

    @property
    def decoded_bytes(self) -> int:
        """Bytes of memory that all decoded tensors take; tied tensors count once, copies each."""
        return sum(entry.spec.num_bytes for entry in self.tensors if not entry.shared)


class Part(NamedTuple):
    """One checksummed payload of the file.

    method: position in `Header.methods`. tensors: positions in `Header.tensors`.
    span: range (start, stop) of a tile's elements, else None. offset, size: bytes in the file.
    check: CRC of the payload; None in the bare profile.
    """

    method: int
    tensors: tuple[int, ...]
    span: tuple[int, int] | None
    offset: int
    size: int
    check: int | None


@dataclass(frozen=True, slots=True)
class Prelude:
    """The fields of the file before its header, or before its index in the bare profile; sizes in bytes."""

    bare: bool
    size: int  # of the prelude itself
    index_size: int
    header_size: int = 0
    header_raw_size: int | None = None  # None: the header is not deflated
    fingerprint: int = 0  # bare only
    seed: int = 0  # bare only


def fingerprint_of(tensors: Iterable[TensorSpec]) -> int:
    """Return the CRC of a module's tensor list: all names, ties included, in `state_dict` order."""
    check = 0
    for name, dtype, shape in tensors:
        head = name.encode() + b"\0" + bytes([DTYPES[dtype].code]) + write_uint(len(shape))
        check = crc32(head + b"".join(map(write_uint, shape)), check)
    return check


def read_prelude(start: bytes) -> Prelude:
    """Read the prelude from the first `PRELUDE_SIZE_MAX` bytes of the file, or all of a shorter file.

    Raises:
        Corrupt: this is no fewbits file, or a field is not in its shortest form.
        Incompatible: the format number or a flag is not known.
        Truncated: the file ends within the prelude.
        TooLarge: a declared size is above the cap.
    """
    if start[: len(MAGIC)] != MAGIC[: len(start)]:
        raise Corrupt("this is not a fewbits file: it does not start with the magic at byte offset 0.")
    if len(start) < len(MAGIC) + 2:
        raise Truncated(f"the file ends at byte offset {len(start)}, within its first {len(MAGIC) + 2} bytes.")
    number, flags = start[len(MAGIC)], start[len(MAGIC) + 1]
    if number != FORMAT:
        raise Incompatible(f"the file has format {number}; this version of fewbits reads format {FORMAT}.")
    if flags & ~(FLAG_BARE | FLAG_DEFLATED):
        raise Incompatible(f"the file has flags {flags:#04x}, which this version of fewbits does not know.")
    position = len(MAGIC) + 2
    if flags & FLAG_BARE:
        if flags & FLAG_DEFLATED:
            raise Corrupt("the file is bare and has a deflated header, which contradict (byte offset 5).")
        if len(start) < position + CHECK_SIZE:
            raise Truncated(f"the file ends at byte offset {len(start)}, within its fingerprint.")
        module = int.from_bytes(start[position : position + CHECK_SIZE], "little")
        seed, position = _read_prelude_uint(start, position + CHECK_SIZE)
        index_size, position = _read_size(start, position, "index")
        return Prelude(True, position, index_size, fingerprint=module, seed=seed)
    header_size, position = _read_size(start, position, "header")
    header_raw_size = None
    if flags & FLAG_DEFLATED:
        header_raw_size, position = _read_size(start, position, "inflated header")
    index_size, position = _read_size(start, position, "index")
    return Prelude(False, position, index_size, header_size, header_raw_size)


def _read_size(start: bytes, position: int, what: str) -> tuple[int, int]:
    size, end = _read_prelude_uint(start, position)
    if size > SIZE_CAP:
        raise TooLarge(f"the {what} declared at byte offset {position} has {size} bytes, above the cap of {SIZE_CAP}.")
    return size, end


def _read_prelude_uint(start: bytes, position: int) -> tuple[int, int]:
    rest = start[position : position + MAX_BYTES]
    if len(rest) < MAX_BYTES and all(byte & 0x80 for byte in rest):
        raise Truncated(f"the file ends at byte offset {len(start)}, within its first fields.")
    return read_uint(start, position)
