"""A file's parts, each read and checked alone; nothing is believed before it is checked."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from threading import Lock
from types import TracebackType
from typing import BinaryIO, Self

from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.leb128 import Bytes, read_uint
from fewbits.container.format import (
    CHECK_SIZE,
    PRELUDE_SIZE_MAX,
    Header,
    MethodEntry,
    Part,
    Prelude,
    TensorEntry,
    read_prelude,
)
from fewbits.container.header import inflate, parse_header
from fewbits.container.index import IndexEntry, claim, read_entries
from fewbits.errors import Corrupt, Incompatible, InvalidArgument, TooLarge, Truncated
from fewbits.native import crc32
from fewbits.registry import IDS_BY_CODE

DEFAULT_LIMIT = 1 << 30  # bytes of decoded tensors; a larger file may have DEFAULT_RATIO times its size
DEFAULT_RATIO = 1024  # two orders beyond any real model: what expands more is a bomb until someone vouches for it
BLOCK_SIZE = 1 << 20  # bytes read at a time where only their CRC is wanted

Source = str | os.PathLike[str] | bytes | BinaryIO


class Reader:
    """An open file. Construction reads and checks all but the payloads (of a bare file, those as well).

    Several threads may read at the same time; `close` when none does.

    Attributes:
        size: bytes of the file.
        bare: whether the file has the bare profile.
        header: its tensors, methods and records; of a bare file, what is known of them.
        parts: in the file's order.
        fingerprint: of the module that a bare file was written from; None for other files.
        header_size: bytes of the header as stored.
        header_raw: the header's CBOR, inflated; empty for a bare file.
        limit: bytes that all decoded tensors may take together.
    """

    size: int
    bare: bool
    header: Header
    parts: tuple[Part, ...]
    fingerprint: int | None
    header_size: int
    header_raw: bytes
    limit: int

    def __init__(
        self,
        source: Source,
        *,
        specs: Sequence[TensorSpec] | None = None,
        fingerprint: int | None = None,
        limit: int | None = None,
    ) -> None:
        """Open a path, the bytes of a file, or a seekable binary file that starts at offset 0 and stays open.

        Args:
            source: where the bytes are.
            specs: of the receiving module's stored tensors, in order; needed for bare files only.
            fingerprint: of the receiving module (`format.fingerprint_of`); needed for bare files only.
            limit: bytes that all decoded tensors may take together; by default 2^30, or 1024 times the
                file's size if that is more.

        Raises:
            Corrupt, Incompatible, Truncated, TooLarge: as section 10 of `docs/format.md` says.
            InvalidArgument: the path cannot be read, or a bare file has no module, or another one.
        """
        self._open(source, limit)
        try:
            prelude, claims = self._read_first_section()
            if prelude.bare:
                if specs is None or fingerprint is None:
                    raise InvalidArgument("this is a bare file: it needs into=, the module that receives it.")
                if fingerprint != prelude.fingerprint:
                    raise InvalidArgument(
                        "this bare file is for another module: the names, shapes or dtypes of into= differ."
                    )
                self._claim_bare(claims, specs)
        except BaseException:
            self.close()
            raise

    @classmethod
    def peek(cls, source: Source, *, limit: int | None = None) -> Self:
        """Open a file to look at or verify, bare files without their module included.

        A bare file's header then has no tensors, its parts claim none, and no chunk can be read.

        Raises:
            Corrupt, Incompatible, Truncated, TooLarge, InvalidArgument: as for the constructor.
        """
        reader = cls.__new__(cls)
        reader._open(source, limit)
        try:
            reader._read_first_section()
        except BaseException:
            reader.close()
            raise
        return reader

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, unless the caller opened it."""
        if self._owned:
            self._file.close()

    def read_chunk(self, part: int) -> Chunk:
        """Read part number `part`, checked; the chunk has no losses (see `header.losses`).

        Raises:
            Corrupt: the payload fails its checksum; names the tensor and the byte offset.
            Truncated: the file has become shorter since it was opened.
            InvalidArgument: there is no such part, or the file is bare and was only peeked at.
        """
        if not 0 <= part < len(self.parts):
            raise InvalidArgument(f"the file has {len(self.parts)} parts and no part {part}.")
        method, tensors, span, offset, size, check = self.parts[part]
        if not tensors:
            raise InvalidArgument("this is a bare file: its parts need into=, the module that receives them.")
        payload = self._view(offset, size)
        if check is not None and crc32(payload) != check:
            raise self._damage(part)
        entry = self.header.methods[method]
        specs = tuple(self.header.tensors[position].spec for position in tensors)
        return Chunk(entry.id, entry.payload_version, entry.config, self.header.seed, specs, payload, span)

    def parts_of(self, tensor: int) -> tuple[int, ...]:
        """Return the numbers of the parts that hold a tensor, by its position; an alias has its target's.

        Raises:
            InvalidArgument: there is no such tensor.
        """
        if not 0 <= tensor < len(self.header.tensors):
            raise InvalidArgument(f"the file has {len(self.header.tensors)} tensors and no tensor {tensor}.")
        if self._parts_by_tensor is None:
            by_tensor: dict[int, list[int]] = {}
            for number, part in enumerate(self.parts):
                for position in part.tensors:
                    by_tensor.setdefault(position, []).append(number)
            self._parts_by_tensor = by_tensor
        target = self.header.tensors[tensor].target
        return tuple(self._parts_by_tensor[tensor if target is None else target])

    def check(self) -> int:
        """Check every payload's CRC, taking little memory; return the bytes of the file, all checked now.

        Raises:
            Corrupt: a payload fails its checksum; names the tensor and the byte offset.
            Truncated: the file has become shorter since it was opened.
        """
        if not self.bare:  # a bare file's only check was made when it was opened
            for number, part in enumerate(self.parts):
                if self._crc(part.offset, part.size) != part.check:
                    raise self._damage(number)
        return self.size

    def _open(self, source: Source, limit: int | None) -> None:
        self._owned = isinstance(source, (str, os.PathLike, bytes))
        self._lock = Lock()
        self._reads_at = isinstance(source, (str, os.PathLike)) and hasattr(os, "pread")
        self._parts_by_tensor: dict[int, list[int]] | None = None
        self.fingerprint, self.header_size, self.header_raw = None, 0, b""
        self._whole = source if isinstance(source, bytes) else None
        if isinstance(source, bytes):
            self._file: BinaryIO = BytesIO(source)
        elif isinstance(source, (str, os.PathLike)):
            try:
                self._file = open(source, "rb")  # noqa: SIM115  close() closes it
            except (OSError, ValueError) as error:
                reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
                raise InvalidArgument(f"cannot read {str(source)!r}: {reason.lower()}.") from error
        else:
            self._file = source
        try:
            self.size = self._file.seek(0, os.SEEK_END)
        except OSError as error:
            with suppress(OSError):
                self.close()
            raise InvalidArgument("cannot read a file that cannot seek, such as a pipe.") from error
        self.limit = max(DEFAULT_LIMIT, DEFAULT_RATIO * self.size) if limit is None else limit

    def _read_first_section(self) -> tuple[Prelude, list[IndexEntry]]:
        prelude = read_prelude(self._read(0, min(PRELUDE_SIZE_MAX, self.size)))
        self.bare = prelude.bare
        return prelude, self._read_bare(prelude) if prelude.bare else self._read_full(prelude)

    def _read_full(self, prelude: Prelude) -> list[IndexEntry]:
        index_start = prelude.size + prelude.header_size
        end = index_start + prelude.index_size
        self._require_size(end + CHECK_SIZE, "its header and index")
        section = self._read(0, end)
        if crc32(section).to_bytes(CHECK_SIZE, "little") != self._read(end, CHECK_SIZE):
            raise Corrupt(f"the header and index fail their checksum at byte offset {end}.")
        stored = section[prelude.size : index_start]
        raw_size = prelude.header_raw_size
        self.header_raw = stored if raw_size is None else inflate(stored, raw_size)
        self.header_size = prelude.header_size
        self.header = parse_header(self.header_raw)
        declared = self.header.decoded_bytes
        if declared > self.limit:
            raise TooLarge(
                f"the file declares {declared} bytes of tensors, above the limit of {self.limit}:"
                " if you trust it, raise the limit (limit= or --limit)."
            )
        entries = read_entries(section, index_start, checks=True)
        self.parts = claim(entries, self.header.tensors, len(self.header.methods), end + CHECK_SIZE)
        self._require_end(end + CHECK_SIZE + sum(part.size for part in self.parts))
        return entries

    def _read_bare(self, prelude: Prelude) -> list[IndexEntry]:
        start = prelude.size + prelude.index_size
        self._require_size(start, "its index")
        section = self._read(0, start)
        num_methods, position = read_uint(section, prelude.size)
        if num_methods > prelude.index_size:
            raise Corrupt(f"the index at byte offset {prelude.size} has no room for {num_methods} methods.")
        codes: list[tuple[int, int]] = []
        for _ in range(num_methods):
            code, position = read_uint(section, position)
            version, position = read_uint(section, position)
            codes.append((code, version))
        entries = read_entries(section, position, checks=False)
        payload_end = start + sum(entry.size for entry in entries)
        self._require_end(payload_end + CHECK_SIZE)
        if self._crc(0, payload_end).to_bytes(CHECK_SIZE, "little") != self._read(payload_end, CHECK_SIZE):
            raise Corrupt(f"the file fails its checksum at byte offset {payload_end}.")
        for code, _ in codes:
            if code not in IDS_BY_CODE:
                raise Incompatible(f"this file needs the method with code {code}, which this fewbits does not have.")
        methods = tuple(MethodEntry(IDS_BY_CODE[code], version, {}) for code, version in codes)
        self.header = Header((), methods, prelude.seed)
        self.fingerprint = prelude.fingerprint
        self.parts = tuple(_unclaimed(entries, start))
        return entries

    def _claim_bare(self, entries: Sequence[IndexEntry], specs: Sequence[TensorSpec]) -> None:
        header = self.header
        self.header = Header(tuple(map(TensorEntry, specs)), header.methods, header.seed)
        start = self.parts[0].offset if self.parts else self.size - CHECK_SIZE
        self.parts = claim(entries, self.header.tensors, len(header.methods), start)

    def _require_size(self, size: int, what: str) -> None:
        if self.size < size:
            raise Truncated(f"the file ends at byte offset {self.size}, within {what} (to {size}).")

    def _require_end(self, end: int) -> None:
        self._require_size(end, "its payloads")
        if self.size > end:
            raise Corrupt(f"the file should end at byte offset {end}, and {self.size - end} bytes follow.")

    def _damage(self, number: int) -> Corrupt:
        part = self.parts[number]
        name = repr(self.header.tensors[part.tensors[0]].spec.name)
        others = f" and {len(part.tensors) - 1} others" if len(part.tensors) > 1 else ""
        return Corrupt(f"the payload of {name}{others} at byte offset {part.offset} fails its checksum.")

    def _view(self, offset: int, size: int) -> Bytes:
        """Give a part of bytes that are held anyway as a view, and read any other file."""
        if self._whole is None or self._file.closed or offset + size > self.size:
            return self._read(offset, size)
        return memoryview(self._whole)[offset : offset + size]

    def _read(self, offset: int, size: int) -> bytes:
        data = self._read_some(offset, size)
        if len(data) == size:
            return data
        pieces, end = [data], offset + len(data)
        while end < offset + size:  # a system may give less than it was asked for: Linux, beyond 2 GiB
            pieces.append(self._read_some(end, offset + size - end))
            if not pieces[-1]:
                raise Truncated(f"the file ends at byte offset {end}, before {offset + size}.")
            end += len(pieces[-1])
        return b"".join(pieces)

    def _read_some(self, offset: int, size: int) -> bytes:
        """Read into one object at once; of a file that this opened, without waiting for other threads that read."""
        if self._reads_at:
            return os.pread(self._file.fileno(), size, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)

    def _crc(self, offset: int, size: int) -> int:
        check = 0
        for start in range(offset, offset + size, BLOCK_SIZE):
            check = crc32(self._read(start, min(BLOCK_SIZE, offset + size - start)), check)
        return check


def _unclaimed(entries: Sequence[IndexEntry], offset: int) -> Iterator[Part]:
    for entry in entries:
        yield Part(entry.method, (), None, offset, entry.size, None)
        offset += entry.size
