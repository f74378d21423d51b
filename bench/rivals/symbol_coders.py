"""Entropy coders of int8 symbols, for the speed rows of the case `coder`: one class a program, at one setting.

Each is called as its own documentation says, on what its interface takes. The conversion to that form is not timed,
nor is the model where the program is handed one; zipnn and zstd are handed bytes and count symbols themselves.
"""

import contextlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import installed, missing

Symbols = NDArray[np.int8]
BLOCK = 4096  # symbols


class SymbolCoder(Protocol):
    """One program on one array of symbols.

    Laws: `matches(decode(stream))` says whether every symbol came back, for `stream = encode(copy_of_input())`.
    """

    name: str
    package: str
    most_symbols: int  # a slow program takes this many only

    def start(self, symbols: Symbols) -> None:
        """Take (n,) symbols, or as many of them as are not too slow, and prepare everything that is not timed.

        Raises:
            ImportError: the package is installed and cannot be imported.
        """
        ...

    @property
    def num_symbols(self) -> int:
        """How many symbols were taken: `most_symbols` at most."""
        ...

    def copy_of_input(self) -> Any:
        """Return the input in the program's own form: a fresh copy, as some programs reorder it in place."""
        ...

    def encode(self, given: Any) -> Any:
        """Encode; timed."""
        ...

    def size(self, stream: Any) -> int:
        """Return the bytes of a stream."""
        ...

    def copy_of_stream(self, stream: Any) -> Any:
        """Return a stream in the form that `decode` takes; fresh, for the same reason."""
        ...

    def decode(self, stream: Any) -> Any:
        """Decode; timed."""
        ...

    def matches(self, decoded: Any) -> bool:
        """Compare with the symbols given."""
        ...


class _Base:
    """What most programs share."""

    package = ""
    most_symbols = 1 << 62

    def start(self, symbols: Symbols) -> None:
        self._symbols = spread(symbols, self.most_symbols)

    @property
    def num_symbols(self) -> int:
        return self._symbols.size

    def copy_of_input(self) -> Any:
        return self._symbols.tobytes()

    def size(self, stream: Any) -> int:
        return len(stream)

    def copy_of_stream(self, stream: Any) -> Any:
        return stream

    def matches(self, decoded: Any) -> bool:
        return np.array_equal(np.frombuffer(decoded, np.int8), self._symbols)


class Zipnn(_Base):
    """ZipNN's Huffman coder, one thread; its setting for one-byte floats is the one that takes bytes as they are."""

    name, package = "zipnn", "zipnn"

    def start(self, symbols: Symbols) -> None:
        from zipnn import ZipNN

        super().start(symbols)
        self._program = ZipNN(method="HUFFMAN", input_format="byte", bytearray_dtype="float8_e4m3fn", threads=1)

    def copy_of_input(self) -> bytearray:
        return bytearray(self._symbols)

    def encode(self, given: bytearray) -> bytes:
        return self._program.compress(given)

    def copy_of_stream(self, stream: bytes) -> bytearray:
        return bytearray(stream)

    def decode(self, stream: bytearray) -> bytearray:
        return self._program.decompress(stream)


class Zstd(_Base):
    """Zstandard at one level."""

    package = "zstandard"

    def __init__(self, level: int, most_symbols: int) -> None:
        self.name, self._level, self.most_symbols = f"zstd -{level}", level, most_symbols

    def start(self, symbols: Symbols) -> None:
        import zstandard

        super().start(symbols)
        self._compressor, self._decompressor = zstandard.ZstdCompressor(level=self._level), zstandard.ZstdDecompressor()

    def encode(self, given: bytes) -> bytes:
        return self._compressor.compress(given)

    def decode(self, stream: bytes) -> bytes:
        return self._decompressor.decompress(stream)


class Constriction(_Base):
    """constriction's range or ANS coder with a categorical model of the very symbols' frequencies."""

    package = "constriction"
    most_symbols = 4 << 20

    def __init__(self, coder: str) -> None:
        self.name, self._is_range = f"constriction {coder}", coder == "range"

    def start(self, symbols: Symbols) -> None:
        import constriction

        super().start(symbols)
        self._low, counts = _counts(self._symbols)
        stream = constriction.stream
        self._model = stream.model.Categorical(counts / counts.sum(), perfect=False)
        ranges = stream.queue.RangeEncoder, stream.queue.RangeDecoder
        self._encoder, self._decoder = ranges if self._is_range else (stream.stack.AnsCoder, stream.stack.AnsCoder)

    def copy_of_input(self) -> NDArray[np.int32]:
        return self._symbols.astype(np.int32) - self._low

    def encode(self, given: NDArray[np.int32]) -> NDArray[np.uint32]:
        coder = self._encoder()
        (coder.encode if self._is_range else coder.encode_reverse)(given, self._model)
        return coder.get_compressed()

    def size(self, stream: NDArray[np.uint32]) -> int:
        return stream.nbytes

    def decode(self, stream: NDArray[np.uint32]) -> NDArray[np.int32]:
        return self._decoder(stream).decode(self._model, self._symbols.size)

    def matches(self, decoded: NDArray[np.int32]) -> bool:
        return np.array_equal(decoded + self._low, self._symbols)


class Compressai(_Base):
    """CompressAI's rANS, which takes and gives Python lists."""

    name, package = "compressai.ans", "compressai"
    most_symbols = 1 << 19

    def start(self, symbols: Symbols) -> None:
        super().start(symbols)
        coder = _compressai_ans()
        low, counts = _counts(self._symbols)
        # The last value of a table stands for all beyond it: one more, which never occurs.
        table = _cumulative(np.append(counts, 0)).tolist()
        self._encoder, self._decoder = coder.RansEncoder(), coder.RansDecoder()
        self._list = self._symbols.tolist()
        self._tables = [0] * len(self._list), [table], [len(table)], [low]

    def copy_of_input(self) -> list[int]:
        return self._list

    def encode(self, given: list[int]) -> bytes:
        return self._encoder.encode_with_indexes(given, *self._tables)

    def decode(self, stream: bytes) -> list[int]:
        return self._decoder.decode_with_indexes(stream, *self._tables)

    def matches(self, decoded: list[int]) -> bool:
        return decoded == self._list


class Torchac(_Base):
    """torchac, which wants the cumulative distribution of every symbol and compiles itself when first imported."""

    name, package = "torchac", "torchac"
    most_symbols = 1 << 17
    _most_probabilities = 1 << 23  # of all symbols together, 4 bytes each

    def start(self, symbols: Symbols) -> None:
        import torch

        with contextlib.redirect_stdout(sys.stderr):  # its compiler's messages
            try:
                import torchac
            except (RuntimeError, OSError) as error:
                raise ImportError(f"it cannot compile itself ({str(error).splitlines()[0]})") from error
        self._torchac = torchac
        self._low, counts = _counts(symbols)
        self.most_symbols = min(Torchac.most_symbols, self._most_probabilities // (counts.size + 1))
        super().start(symbols)
        symbols = self._symbols
        table = torch.from_numpy(_cumulative(counts) / 65536.0).to(torch.float32)
        self._distributions = table.expand(symbols.size, counts.size + 1)
        self._given = torch.from_numpy(symbols.astype(np.int16) - np.int16(self._low))

    def copy_of_input(self) -> Any:
        return self._given

    def encode(self, given: Any) -> bytes:
        return self._torchac.encode_float_cdf(self._distributions, given, check_input_bounds=False)

    def decode(self, stream: bytes) -> Any:
        return self._torchac.decode_float_cdf(self._distributions, stream)

    def matches(self, decoded: Any) -> bool:
        return bool((decoded == self._given).all())


def spread(symbols: Symbols, most: int) -> Symbols:
    """Return at most so many symbols, in blocks from all over the array: its parts may differ in what they hold."""
    if symbols.size <= most:
        return symbols
    blocks = symbols[: symbols.size // BLOCK * BLOCK].reshape(-1, BLOCK)
    chosen = np.linspace(0, len(blocks) - 1, max(1, most // BLOCK)).astype(np.int64)
    return blocks[chosen].reshape(-1)


def coders() -> tuple[SymbolCoder, ...]:
    """Return every program; zstd's level 19 is slow to encode."""
    return (
        Zipnn(),
        Constriction("range"),
        Constriction("ANS"),
        Zstd(1, 16 << 20),
        Zstd(19, 1 << 19),
        Compressai(),
        Torchac(),
    )


def absent(coder: SymbolCoder) -> str | None:
    """Return why a program cannot run here, as far as that shows without importing it; or None."""
    return missing(coder.package)


def versions(coder: SymbolCoder) -> dict[str, str]:
    """Return the version of a program's package."""
    return installed(coder.package)


def _counts(symbols: Symbols) -> tuple[int, NDArray[np.float64]]:
    """Return the least symbol, and how often each from it to the greatest occurs."""
    low = int(symbols.min())
    return low, np.bincount(symbols.astype(np.int64) - low).astype(np.float64)


def _cumulative(counts: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return cumulative frequencies of 16 bits, 0 … 65536, none of them nothing."""
    frequencies = np.maximum(1, np.round(counts * (65536 / counts.sum()))).astype(np.int64)
    frequencies[np.argmax(frequencies)] += 65536 - frequencies.sum()
    return np.concatenate([[0], np.cumsum(frequencies)])


def _compressai_ans() -> Any:
    """Load CompressAI's coder alone: the package's own import needs torchvision, pandas and more, and old numpy."""
    found = importlib.util.find_spec("compressai")
    folders = (found.submodule_search_locations or []) if found else []
    for path in (path for folder in folders for path in Path(folder).glob("ans.*")):
        if path.suffix in (".so", ".pyd"):
            spec = importlib.util.spec_from_file_location("compressai.ans", path)
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise ImportError("the package compressai has no compiled `ans`")
