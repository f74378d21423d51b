"""Finished parts to the bytes of a file; the same chunks in any order give the same bytes."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence

from fewbits.chunk import DTYPES, Chunk
from fewbits.coder.leb128 import write_uint
from fewbits.container.atomic import check_target, write_atomic
from fewbits.container.format import (
    CHECK_SIZE,
    FLAG_BARE,
    FLAG_DEFLATED,
    FORMAT,
    MAGIC,
    SIZE_CAP,
    Header,
    MethodEntry,
    Part,
    TensorEntry,
    fingerprint_of,
)
from fewbits.container.header import check_items, check_shape, deflate, encode_item, header_elements
from fewbits.container.index import write_entries
from fewbits.container.loss import total_losses
from fewbits.container.placement import Placed, place
from fewbits.errors import FewbitsError, InvalidArgument
from fewbits.native import core, crc32
from fewbits.registry import METHODS


def write_file(
    path: str | os.PathLike[str],
    *,
    chunks: Iterable[Chunk],
    tensors: Sequence[TensorEntry],
    seed: int,
    rate_weight: float | None,
    metadata: Mapping[str, str] | None,
    bare: bool = False,
    fingerprint: int | None = None,
) -> int:
    """Write a file, whole or not at all; return its size in bytes.

    Arguments as for `file_bytes`. `chunks` may be a generator: the target is checked before it starts.

    Raises:
        InvalidArgument: as `file_bytes`, or the path cannot be written to.
        OSError: the system failed to write, e.g. the disk is full; the old file is untouched.
    """
    check_target(path)
    return write_atomic(path, _pieces(chunks, tensors, seed, rate_weight, metadata, bare, fingerprint))


def file_bytes(
    *,
    chunks: Iterable[Chunk],
    tensors: Sequence[TensorEntry],
    seed: int,
    rate_weight: float | None,
    metadata: Mapping[str, str] | None,
    bare: bool = False,
    fingerprint: int | None = None,
) -> bytes:
    """Return the bytes of a file.

    Args:
        chunks: the parts, in any order; together they hold every stored tensor exactly once, each with
            the losses of all its tensors, or none of them with any.
        tensors: all tensors in the source's order, aliases after what they stand for.
        seed: the file's seed, below 2^64; every chunk must have been encoded with it.
        rate_weight: the Lagrangian multiplier that was used, a record.
        metadata: the source's own.
        bare: write the bare profile, which keeps no names, shapes, losses, configuration or metadata.
        fingerprint: bare only: of the receiving module; by default that of `tensors`.

    Raises:
        InvalidArgument: the chunks do not hold the tensors as said above, or something cannot be stored.
    """
    pieces = _pieces(chunks, tensors, seed, rate_weight, metadata, bare, fingerprint)
    compiled = core()
    return b"".join(pieces) if compiled is None else compiled.join(pieces)


def _pieces(
    chunks: Iterable[Chunk],
    tensors: Sequence[TensorEntry],
    seed: int,
    rate_weight: float | None,
    metadata: Mapping[str, str] | None,
    bare: bool,
    fingerprint: int | None,
) -> list[bytes]:
    _check_tensors(tensors)
    if not 0 <= seed < 1 << 64:
        raise InvalidArgument(f"the seed {seed} is not an unsigned 64-bit integer.")
    if rate_weight is not None and not (math.isfinite(rate_weight) and rate_weight >= 0):
        raise InvalidArgument(f"rate_weight is {rate_weight}; it must be finite and at least 0.")
    placed = place(chunks, tensors, seed)
    methods, parts = _tables(placed, bare)
    payloads = [bytes(item.chunk.payload) for item in placed]
    if bare:
        if metadata:
            raise InvalidArgument("a bare file cannot keep metadata; write a full file, or pass none.")
        module = fingerprint_of(entry.spec for entry in tensors) if fingerprint is None else fingerprint
        if any(entry.target is not None and not entry.shared for entry in tensors):
            raise InvalidArgument("a bare file cannot say that tensors are equal copies: store each of them.")
        return _bare_pieces(methods, write_entries(parts, tensors, checks=False), seed, module, payloads)
    if fingerprint is not None:
        raise InvalidArgument("a fingerprint belongs to bare files only.")
    header = Header(
        tensors=tuple(tensors),
        methods=methods,
        seed=seed,
        rate_weight=None if rate_weight is None else float(rate_weight),
        losses=total_losses([(item.positions, item.chunk) for item in placed], tensors),
        metadata=metadata,
    )
    return _full_pieces(_encode_header(header), write_entries(parts, tensors, checks=True), payloads)


def _full_pieces(raw: bytes, index: bytes, payloads: list[bytes]) -> list[bytes]:
    deflated = deflate(raw)
    is_deflated = len(deflated) + len(write_uint(len(raw))) < len(raw)
    header = deflated if is_deflated else raw
    _check_size(len(raw), "header")
    _check_size(len(index), "index")
    first = b"".join(
        [
            MAGIC,
            bytes([FORMAT, FLAG_DEFLATED if is_deflated else 0]),
            write_uint(len(header)),
            write_uint(len(raw)) if is_deflated else b"",
            write_uint(len(index)),
            header,
            index,
        ]
    )
    return [first, crc32(first).to_bytes(CHECK_SIZE, "little"), *payloads]


def _bare_pieces(
    methods: Sequence[MethodEntry], entries: bytes, seed: int, module: int, payloads: list[bytes]
) -> list[bytes]:
    index = write_uint(len(methods))
    for method in methods:
        if method.id not in METHODS:
            raise InvalidArgument(f"the method {method.id!r} has no code, so a bare file cannot hold it.")
        index += write_uint(METHODS[method.id][0]) + write_uint(method.payload_version)
    index += entries
    _check_size(len(index), "index")
    first = MAGIC + bytes([FORMAT, FLAG_BARE]) + module.to_bytes(CHECK_SIZE, "little")
    pieces = [first + write_uint(seed) + write_uint(len(index)) + index, *payloads]
    check = 0
    for piece in pieces:
        check = crc32(piece, check)
    return [*pieces, check.to_bytes(CHECK_SIZE, "little")]


def _check_size(size: int, what: str) -> None:
    if size > SIZE_CAP:
        raise InvalidArgument(f"the {what} takes {size} bytes; a file has room for {SIZE_CAP}: split the model.")


def _check_tensors(tensors: Sequence[TensorEntry]) -> None:
    """Refuse what `header.parse_header` would refuse in a file."""
    names: set[str] = set()
    for position, (spec, target, _) in enumerate((entry.spec, entry.target, entry.shared) for entry in tensors):
        if not spec.name.isascii():
            _check_text(spec.name, f"the name of tensor {position}")
        if spec.name in names:
            raise InvalidArgument(f"the tensor name {spec.name!r} occurs twice.")
        names.add(spec.name)
        if spec.dtype not in DTYPES:
            raise InvalidArgument(f"the tensor {spec.name!r} has the dtype {spec.dtype}, which no file can hold.")
        if any(size < 0 for size in spec.shape) or not check_shape(spec.shape, DTYPES[spec.dtype].itemsize):
            raise InvalidArgument(f"the tensor {spec.name!r} has a shape that no file can hold.")
        if target is None:
            continue
        if not 0 <= target < position or tensors[target].target is not None:
            raise InvalidArgument(f"the alias {spec.name!r} does not stand for an earlier stored tensor.")
        if tensors[target].spec[1:] != spec[1:]:
            raise InvalidArgument(f"the alias {spec.name!r} differs in dtype or shape from what it stands for.")


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{what} is not Unicode text: it has no UTF-8 form.") from error


def _tables(placed: Sequence[Placed], bare: bool) -> tuple[tuple[MethodEntry, ...], list[Part]]:
    """Return the methods in order of first use, and the parts (offsets 0: no table holds them)."""
    methods: dict[tuple[str, int, bytes], int] = {}
    entries: list[MethodEntry] = []
    parts: list[Part] = []
    for positions, chunk in placed:
        config = b"" if bare else _encode_config(chunk)
        key = (chunk.method, chunk.payload_version, config)
        if key not in methods:
            methods[key] = len(entries)
            entries.append(MethodEntry(chunk.method, chunk.payload_version, {} if bare else chunk.config))
        if chunk.span is not None and chunk.span[0] and parts[-1].method != methods[key]:
            raise InvalidArgument(f"the tiles of the tensor {chunk.tensors[0].name!r} differ in method or config.")
        check = None if bare else crc32(chunk.payload)
        parts.append(Part(methods[key], positions, chunk.span, 0, len(chunk.payload), check))
    return tuple(entries), parts


def _encode_config(chunk: Chunk) -> bytes:
    try:
        encoded = encode_item(dict(chunk.config))
        check_items(encoded)
    except (FewbitsError, UnicodeEncodeError, TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"the config of the method {chunk.method!r} is not a JSON object.") from error
    return encoded


def _encode_header(header: Header) -> bytes:
    for key, value in (header.metadata or {}).items():
        _check_text(key + value, "an entry of the metadata")
    try:
        encoded = encode_item(header_elements(header))
        check_items(encoded)
    except FewbitsError as error:
        raise InvalidArgument(f"the file cannot be written: {error}") from error
    return encoded
