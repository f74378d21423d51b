"""The header: records to deterministic CBOR and back, every rule checked (`docs/format.md`, section 3)."""

import math
import zlib
from collections.abc import Sequence
from typing import Any

import cbor2

from fewbits.chunk import DTYPE_NAMES, DTYPES, TensorSpec
from fewbits.container.format import (
    MAX_BYTES_OF_TENSOR,
    MAX_DIMENSIONS,
    MAX_HEADER_ITEMS,
    Header,
    MethodEntry,
    TensorEntry,
    TensorLoss,
)
from fewbits.errors import Corrupt, TooLarge

MAX_DEPTH = 64  # of nested arrays and maps
MAX_INFLATION = 1032  # deflate cannot expand more: 258 bytes for 2 bits


def encode_item(value: object) -> bytes:
    """Return the deterministic CBOR of a value (RFC 8949, section 4.2.1)."""
    return cbor2.dumps(value, canonical=True)


def header_elements(header: Header) -> list[Any]:
    """Return the header's six elements, ready for CBOR."""
    losses = header.losses
    return [
        [_tensor_element(entry) for entry in header.tensors],
        [[method.id, method.payload_version, dict(method.config)] for method in header.methods],
        header.seed,
        header.rate_weight,
        None if losses is None else [_loss_element(loss) for loss in losses],
        None if header.metadata is None else dict(header.metadata),
    ]


def _tensor_element(entry: TensorEntry) -> list[Any]:
    if entry.target is not None:
        return [entry.spec.name, entry.target, entry.shared]
    return [entry.spec.name, DTYPES[entry.spec.dtype].code, list(entry.spec.shape)]


def _loss_element(loss: TensorLoss | None) -> list[Any] | None:
    if loss is None:
        return None
    return [loss.relative_error, loss.bits, loss.note] if loss.note else [loss.relative_error, loss.bits]


def deflate(raw: bytes) -> bytes:
    """Return the raw deflate stream of the header, smallest setting."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(raw) + compressor.flush()


def inflate(stored: bytes, raw_size: int) -> bytes:
    """Inflate the header, never beyond its declared size.

    Raises:
        Corrupt: the stream is damaged, or does not end exactly where and how it is declared to.
    """
    if raw_size > MAX_INFLATION * len(stored):
        raise Corrupt(f"the header declares {raw_size} bytes, more than {len(stored)} bytes can inflate to.")
    inflater = zlib.decompressobj(-15)
    try:
        raw = inflater.decompress(stored, raw_size + 1)
    except zlib.error as error:
        raise Corrupt("the header's deflate stream is damaged.") from error
    if len(raw) != raw_size or not inflater.eof or inflater.unused_data:
        raise Corrupt(f"the header does not inflate to exactly the {raw_size} bytes that it declares.")
    return raw


def parse_header(raw: bytes) -> Header:
    """Read a header from its CBOR.

    Raises:
        Corrupt: the CBOR is not deterministic, or a rule of section 3 is broken; names the tensor or
            the byte offset in the inflated header.
        TooLarge: the header has too many items, or a tensor too many dimensions or bytes.
    """
    check_items(raw)
    try:
        elements: Any = cbor2.loads(raw)
    except (cbor2.CBORDecodeError, UnicodeDecodeError) as error:
        raise Corrupt("the header is not valid CBOR.") from error
    if encode_item(elements) != raw:
        raise Corrupt("the header is not in deterministic CBOR.")
    if type(elements) is not list or len(elements) != 6:
        raise Corrupt("the header is not an array of six elements.")
    tensors, methods, seed, rate_weight, losses, metadata = elements
    _require(type(seed) is int and seed >= 0, "the header's seed is not an unsigned integer.")
    _require(
        rate_weight is None or (type(rate_weight) is float and math.isfinite(rate_weight) and rate_weight >= 0),
        "the header's rate_weight is not a finite float of at least 0, or null.",
    )
    entries = _parse_tensors(tensors)
    return Header(
        tensors=entries,
        methods=_parse_methods(methods),
        seed=seed,
        rate_weight=rate_weight,
        losses=None if losses is None else _parse_losses(losses, entries),
        metadata=None if metadata is None else _parse_metadata(metadata),
    )


def check_items(raw: bytes) -> None:
    """Walk over one CBOR item and all it holds without building it: JSON's types only, no bytes after it.

    Tags are refused before any library acts on them (a tagged 5-byte number can stand for gigabytes).

    Raises:
        Corrupt: another type, a length that is indefinite or not in its shortest form, a map key that is
            not text, text that is not UTF-8, nesting that is too deep, or not exactly one item.
        TooLarge: more than `MAX_HEADER_ITEMS` items.
    """
    position, end = 0, len(raw)
    items = 1  # read or declared so far; counted when declared, so that a bomb costs no walk through it
    # Of each open array or map: items to come, and whether it is a map.
    open_items: list[tuple[int, bool]] = []
    left, in_map = 1, False
    while True:
        while left == 0:
            if not open_items:
                if position != end:
                    raise Corrupt(f"bytes follow the header's CBOR at byte offset {position} of the header.")
                return
            left, in_map = open_items.pop()
        if position >= end:
            raise Corrupt(f"the header's CBOR runs past its end at byte offset {end} of the header.")
        major, info = raw[position] >> 5, raw[position] & 31
        is_key = in_map and left % 2 == 0
        if major in (2, 6) or (major == 7 and info not in (20, 21, 22, 25, 26, 27)) or (is_key and major != 3):
            raise Corrupt(f"the CBOR item at byte offset {position} of the header is of a refused type.")
        if info > 27:
            raise Corrupt(f"the CBOR item at byte offset {position} of the header has no definite length.")
        follow = 1 << info - 24 if info >= 24 else 0
        argument = int.from_bytes(raw[position + 1 : position + 1 + follow], "big") if follow else info
        start, position = position, position + 1 + follow
        left -= 1
        if follow and major != 7 and argument < (24 if follow == 1 else 1 << 4 * follow):
            raise Corrupt(f"the CBOR item at byte offset {start} of the header is not in its shortest form.")
        if major == 3:
            _check_utf8(raw[position : position + argument], start)
            position += argument
        if position > end or (major in (4, 5) and argument > end - position):
            raise Corrupt(f"the CBOR item at byte offset {start} of the header runs past its end.")
        if major in (4, 5):
            if len(open_items) >= MAX_DEPTH:
                raise Corrupt(f"the CBOR item at byte offset {start} of the header is nested too deep.")
            open_items.append((left, in_map))
            left, in_map = argument * (major - 3), major == 5
            items += left
            if items > MAX_HEADER_ITEMS:
                raise TooLarge(f"the header has more than {MAX_HEADER_ITEMS} items.")


def _check_utf8(text: bytes, start: int) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise Corrupt(f"the text at byte offset {start} of the header is not UTF-8.") from error


def check_shape(shape: Sequence[int], itemsize: int) -> bool:
    """Return whether a tensor of this shape is small enough, its empty dimensions counted as 1."""
    return len(shape) <= MAX_DIMENSIONS and math.prod(size for size in shape if size) * itemsize <= MAX_BYTES_OF_TENSOR


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise Corrupt(sentence)


def _parse_tensors(elements: Any) -> tuple[TensorEntry, ...]:
    _require(type(elements) is list, "the header's tensors are not an array.")
    entries: list[TensorEntry] = []
    names: set[str] = set()
    for position, element in enumerate(elements):
        if type(element) is not list or len(element) != 3:
            raise Corrupt(f"tensor entry {position} is not an array of three elements.")
        name, number, shape = element
        if type(name) is not str or type(number) is not int or type(shape) not in (list, bool):
            raise Corrupt(f"tensor entry {position} has elements of the wrong types.")
        if name in names:
            raise Corrupt(f"the header names the tensor {name!r} twice.")
        names.add(name)
        if type(shape) is bool:
            if not 0 <= number < position or entries[number].target is not None:
                raise Corrupt(f"the alias {name!r} does not stand for an earlier stored tensor.")
            target = entries[number].spec
            entries.append(TensorEntry(TensorSpec(name, target.dtype, target.shape), number, shape))
            continue
        if number not in DTYPE_NAMES:
            raise Corrupt(f"the tensor {name!r} has the dtype code {number}, which does not exist.")
        if any(type(size) is not int or size < 0 for size in shape):
            raise Corrupt(f"the tensor {name!r} has a dimension that is not an unsigned integer.")
        dtype = DTYPE_NAMES[number]
        if not check_shape(shape, DTYPES[dtype].itemsize):
            raise TooLarge(f"the tensor {name!r} has more dimensions or bytes than any machine can hold.")
        entries.append(TensorEntry(TensorSpec(name, dtype, tuple(shape))))
    return tuple(entries)


def _parse_methods(elements: Any) -> tuple[MethodEntry, ...]:
    _require(type(elements) is list, "the header's methods are not an array.")
    for position, element in enumerate(elements):
        fields: list[Any] = element if type(element) is list else []
        _require(
            [type(field) for field in fields] == [str, int, dict] and fields[1] >= 0,
            f"method entry {position} of the header is not a text, an unsigned integer and a map.",
        )
    return tuple(MethodEntry(*element) for element in elements)


def _parse_losses(elements: Any, entries: tuple[TensorEntry, ...]) -> tuple[TensorLoss | None, ...]:
    _require(
        type(elements) is list and len(elements) == len(entries),
        "the header's losses are not an array of one entry a tensor.",
    )
    losses: list[TensorLoss | None] = []
    for element, entry in zip(elements, entries, strict=True):
        name = entry.spec.name
        if entry.target is not None:
            _require(element is None, f"the loss record of the alias {name!r} is not null.")
            losses.append(None)
            continue
        fields: list[Any] = element if type(element) is list else []
        _require(
            [type(field) for field in fields] in ([float, int], [float, int, str])
            and fields[0] >= 0  # no NaN
            and fields[1] >= 0,
            f"the loss record of the tensor {name!r} is not an error, bits and at most a note.",
        )
        losses.append(TensorLoss(*fields))
    return tuple(losses)


def _parse_metadata(element: Any) -> dict[str, str]:
    _require(
        type(element) is dict and all(type(value) is str for value in element.values()),
        "the header's metadata is not a map of text to text.",
    )
    return element
