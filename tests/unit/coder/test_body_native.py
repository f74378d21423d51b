"""The compiled coder gives the bytes, the integers and the refusals of the one written out in NumPy."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewbits.coder.body import decode_body, decode_into, decode_rows, encode_body
from fewbits.coder.elements import Elements, Integers
from fewbits.coder.fields import FieldElements
from fewbits.coder.integers import ArraySpec, CodedArray, IntegerModel, ModelSet
from fewbits.coder.leb128 import read_uints, write_uint
from fewbits.coder.table import Table
from fewbits.errors import Corrupt, FewbitsError, InvalidArgument
from fewbits.models.fit import fit_rows
from fewbits.models.shipped import shipped_table
from fewbits.native import core
from fewbits.quantize.elements import QuantisedElements
from fewbits.quantize.weights import Weights
from tests.unit.coder.samples import arrays, symbols_of, tables

COMPILED = core()
pytestmark = pytest.mark.skipif(COMPILED is None, reason="there is no compiled core")
NATIVE = COMPILED.available_isas() if COMPILED is not None else []
FLAT = Table(-31, (8192 // 64,) * 63, 8192 // 64)


@contextmanager
def isa(name: str) -> Iterator[None]:
    with mock.patch.dict(os.environ, {"FEWBITS_ISA": name}):
        yield


def spec_of(array: CodedArray) -> ArraySpec:
    if array.classes is None:
        return ArraySpec(1, array.values.size, array.models)
    return ArraySpec(*array.values.shape, array.models)


def check_equal(coded: list[CodedArray], wide: bool) -> bytes:
    """Compare both directions on every instruction set; returns the body."""
    with isa("numpy"):
        expected = encode_body(coded, wide=wide)
        assert encode_body(coded, wide=wide, head=b"head") == b"head" + expected
    behind = memoryview(b"head" + expected)[4:]
    specs = [spec_of(array) for array in coded]
    for name in NATIVE:
        with isa(name):
            assert encode_body(coded, wide=wide) == expected
            assert encode_body(coded, wide=wide, head=b"head") == b"head" + expected
            for num_threads, data, dtype in ((1, expected, np.int64), (3, behind, np.int64), (2, expected, np.int8)):
                values = [np.empty(array.values.size, dtype) for array in coded]
                decode_into(data, specs, [Integers(each) for each in values], num_threads=num_threads)
                for array, each in zip(coded, values, strict=True):
                    assert np.array_equal(each, array.values.ravel().astype(dtype))
    return expected


@given(st.lists(arrays(), min_size=1, max_size=4), st.booleans())
def test_bodies_are_the_same_bytes(coded: list[CodedArray], wide: bool) -> None:
    check_equal(coded, wide)


@given(tables(), st.integers(1, 5000), st.integers(0, 2**32))
def test_wide_rows_of_any_length_are_the_same_bytes(table: Table, count: int, seed: int) -> None:
    symbols = symbols_of(table, count, seed).astype(np.int64)
    values = symbols + table.low  # the escape symbol stands for the first value beyond
    check_equal([CodedArray(values[None], ModelSet((IntegerModel(table),)))], wide=True)


@given(st.lists(arrays(), min_size=1, max_size=4), st.booleans())
def test_rows_are_decoded_one_after_the_other(coded: list[CodedArray], wide: bool) -> None:
    rows = [CodedArray(array.values.reshape(1, -1), ModelSet(array.models.models[:1])) for array in coded]
    rows.insert(1, CodedArray(np.zeros((1, 0), np.int64), ModelSet((IntegerModel(shipped_table(3)),))))
    with isa("numpy"):
        try:
            body = encode_body(rows, wide=wide)
        except InvalidArgument:  # the first class's model need not have symbols for the others' values
            return
    models = [row.models.models[0] for row in rows]
    lengths = np.array([row.values.size for row in rows])
    expected = np.concatenate([row.values.ravel() for row in rows]).astype(np.int32)
    for name in ("numpy", *NATIVE):
        with isa(name):
            assert np.array_equal(decode_rows(body, models, lengths), expected)
            with pytest.raises(Corrupt):
                decode_rows(body + bytes(1), models, lengths)
            with pytest.raises(Corrupt, match="too short"):
                decode_rows(body, [*models, IntegerModel(FLAT)], np.append(lengths, 1 << 60))
            with pytest.raises(Corrupt, match="raw bits"):
                decode_rows(body, [*models, IntegerModel(None, 63)], np.append(lengths, 1 << 40))


def test_many_rows_of_many_classes_are_the_same_bytes() -> None:
    generator = np.random.default_rng(5)
    for rows, columns in [(300, 100), (64, 384), (1000, 3), (7, 5000)]:
        scales = np.exp(generator.uniform(-3, 4, rows))
        values = np.rint(generator.laplace(0, scales[:, None], (rows, columns))).astype(np.int64)
        values[generator.integers(0, rows, 5), generator.integers(0, columns, 5)] = 2**40  # escapes
        fit = fit_rows(values, np.rint(2 * np.log2(scales)).astype(np.int64))
        assert fit is not None
        for dtype in (np.int64, np.int32) if abs(values).max() < 2**31 else (np.int64,):
            check_equal([CodedArray(values.astype(dtype), fit.models, fit.classes)], wide=True)


def test_more_tables_than_are_kept_expanded_are_the_same_bytes() -> None:
    generator = np.random.default_rng(3)
    arrays = [
        CodedArray(generator.integers(-20, 20, (1, 30_000), np.int64), ModelSet((IntegerModel(shipped_table(code)),)))
        for code in range(60, 150)
    ]
    assert check_equal(arrays, wide=True)[3] > 3  # chunks


@pytest.mark.parametrize("count", [600_000, 1_000_000])
@pytest.mark.parametrize("shift", [0, 3])
def test_several_chunks_are_the_same_bytes(count: int, shift: int) -> None:
    values = np.random.default_rng(count).integers(-31 << shift, 31 << shift, (1, count), np.int32)
    body = check_equal([CodedArray(values, ModelSet((IntegerModel(FLAT, shift),)))], wide=True)
    assert body[3] > 3  # chunks


def test_more_chunks_than_go_in_lockstep_are_a_multiple_and_the_same_bytes() -> None:
    values = np.random.default_rng(9).integers(-31, 32, (1, 1_600_000), np.int32)
    body = check_equal([CodedArray(values, ModelSet((IntegerModel(FLAT),)))], wide=True)
    assert body[3] == 12  # chunks: nine of CHUNK_BITS would hold it


@pytest.mark.parametrize("row_length", [1000, 999, 5000])
def test_chunks_end_with_short_rows_and_are_more_beside_raw_bits(row_length: int) -> None:
    rows = 600_000 // row_length
    generator = np.random.default_rng(row_length)
    values = np.rint(generator.laplace(0, 4000, (rows, row_length))).astype(np.int32)
    fit = fit_rows(values, np.arange(rows) % 3)
    assert fit is not None
    body = check_equal([CodedArray(values, fit.models, fit.classes)], wide=True)
    sizes, position = read_uints(body, 1, 3)  # of the single lane, of its escapes, and the number of chunks
    chunks, _ = read_uints(body, position, 3 * sizes[2])
    assert sizes[2] == 6  # three of CHUNK_BITS would hold the symbols
    assert all(count % row_length == 0 for count in chunks[::3]) == (row_length < 4096)


@pytest.mark.parametrize("chunk", [0, 1])
def test_a_stream_takes_no_words_but_its_own(chunk: int) -> None:
    values = np.random.default_rng(1).integers(-31, 32, (1, 300_000))
    array = CodedArray(values, ModelSet((IntegerModel(FLAT),)))
    body = check_equal([array], wide=True)
    sizes, position = read_uints(body, 1, 3)  # of the single lane, of its escapes, and the number of chunks
    chunks, position = read_uints(body, position, 3 * sizes[2])
    assert sizes[2] == 2
    # Its last word is said to be the first two bytes of its escapes: all symbols are still what they were.
    chunks[3 * chunk + 1] -= 1
    chunks[3 * chunk + 2] += 2
    damaged = body[:1] + b"".join(write_uint(each) for each in (*sizes, *chunks)) + body[position:]
    for name in ("numpy", *NATIVE):
        with isa(name), pytest.raises(Corrupt, match="too few words"):
            decode_body(damaged, [spec_of(array)])


def test_integers_of_32_bits_code_like_those_of_64() -> None:
    generator = np.random.default_rng(2)
    for table, shift, centre in [(shipped_table(90), 0, 0), (shipped_table(120), 20, 7), (FLAT, 0, 2**31 - 40)]:
        values = generator.integers(-(2**31), 2**31, 3000)
        values[:1000] = centre + generator.integers(-70, 70, 1000)
        models = ModelSet((IntegerModel(table, shift, centre),))
        for dtype in (np.int32, np.uint32):
            narrow = values.astype(dtype)
            wide = encode_body([CodedArray(narrow.astype(np.int64)[None], models)], wide=True)
            assert encode_body([CodedArray(narrow[None], models)], wide=True) == wide


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
@pytest.mark.parametrize("shift", [1, 3, 4, 5, 9, 16, 22, 24, 25, 28, 29, 31, 57])
def test_raw_bits_are_the_same_bytes_wherever_a_table_lies(shift: int, dtype: type) -> None:
    """A table at either end of the numbers and around 0, rows of whole eights and others, values in it and all over."""
    generator = np.random.default_rng(shift)
    ends = np.iinfo(dtype)
    span = min(63 << shift, 1 << 61)
    least, most = max(int(ends.min), -(1 << 62)), min(int(ends.max), 1 << 62)
    for centre in (0, 5, -(1 << 30), least, most - span, most, 1 << 31, (1 << 32) - span):
        for low, row_length in ((-31, 8), (0, 40), (3, 16), (0, 13), (-(1 << 30) >> shift, 384)):
            first = centre + (low << shift)
            if abs(first) > 1 << 62:
                continue
            values = generator.integers(ends.min, ends.max, (6, row_length), dtype, endpoint=True)
            near = first + generator.integers(-3, span, values.shape)
            inside = (near >= ends.min) & (near <= ends.max) & (np.arange(row_length) % 5 > 0)
            values[inside] = near[inside].astype(dtype)
            models = tuple(IntegerModel(Table(low, FLAT.frequencies, FLAT.escape), s, centre) for s in (shift, 0, 2))
            classes = np.array([0, 1, 2, 0, 0, 1])
            check_equal([CodedArray(values, ModelSet(models, IntegerModel(FLAT)), classes)], wide=row_length > 16)


def outcome(data: bytes, specs: list[ArraySpec]) -> list[NDArray[np.int64]] | None:
    """What a body decodes to; None if it is refused."""
    try:
        return decode_body(data, specs)
    except Corrupt:
        return None


@settings(max_examples=200)
@given(arrays(), st.booleans(), st.data())
def test_both_coders_refuse_the_same_damage(coded: CodedArray, wide: bool, data: st.DataObject) -> None:
    with isa("numpy"):
        body = bytearray(encode_body([coded], wide=wide))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    damaged = bytes(body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body)
    with isa("numpy"):
        expected = outcome(damaged, [spec_of(coded)])
    for name in NATIVE:
        with isa(name):
            found = outcome(damaged, [spec_of(coded)])
        assert (found is None) == (expected is None)
        assert expected is None or found is None or np.array_equal(found[0], expected[0])


def same_elements(body: bytes, spec: ArraySpec, make: type, *arguments: object) -> list[tuple[bytes, str]]:
    """The bytes, or the error, that a body decodes to by each coder."""
    found: list[tuple[bytes, str]] = []
    for name in ["numpy", *NATIVE]:
        elements, bits = make(spec.num_rows * spec.row_length, *arguments)
        try:
            with isa(name):
                decode_into(body, [spec], [elements])
            found.append((bits.tobytes(), ""))
        except FewbitsError as error:
            found.append((b"", f"{type(error).__name__}: {error}"))
    return found


def quantised(size: int, dtype: str, step: float, centroids: object) -> tuple[Elements, NDArray[np.unsignedinteger]]:
    bits = np.zeros(size, {"float32": "u4", "float64": "u8"}.get(dtype, "u2"))
    return QuantisedElements(Weights(bits, dtype), "w", step, centroids), bits  # pyright: ignore


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("step", [0.37, 3e-39, 1.1754944e-38, 7.1e-8, 600.0, 2.9e36])
@pytest.mark.parametrize("centroids", [None, (3, -5, 127), (-128, 0, 1)])
@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize("wide", [False, True])
def test_quantised_values_have_the_same_bits(
    dtype: str, step: float, centroids: object, shift: int, wide: bool
) -> None:
    generator = np.random.default_rng(1)
    values = np.rint(generator.laplace(0, 6 << shift, 5000)).astype(np.int64)[None]
    values[0, 77] = 5000 << shift  # an escape, or too much for the dtype
    models = ModelSet((IntegerModel(shipped_table(50), shift),))
    with isa("numpy"):
        body = encode_body([CodedArray(values, models)], wide=wide)
    found = same_elements(body, ArraySpec(1, 5000, models), quantised, dtype, step, centroids)
    assert len(set(found)) == 1


def fields(size: int, width: int, signed: bool, drops: bytes) -> tuple[Elements, NDArray[np.unsignedinteger]]:
    bits = np.zeros(size, f"u{width}")
    return FieldElements(bits, "w", signed=signed, drops=drops), bits


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("drop", [0, 3])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("fitting", [False, True])
def test_fields_have_the_same_bits(width: int, signed: bool, drop: int, wide: bool, fitting: bool) -> None:
    bits = 8 * width - drop - (0 if fitting else -1)
    generator = np.random.default_rng(width)
    values = generator.integers(0, 2 ** min(bits, 63), 3000).astype(np.int64)
    if width == 8:
        values ^= -(2**63)
    for shift in {0, max(0, bits - 7), bits // 2}:
        models = ModelSet((IntegerModel(FLAT, shift, int(np.median(values))),))
        with isa("numpy"):
            body = encode_body([CodedArray(values[None], models)], wide=wide)
        found = same_elements(body, ArraySpec(1, 3000, models), fields, width, signed, bytes([drop]))
        assert len(set(found)) == 1
        assert fitting == (found[0][1] == "") or bits > 63


def test_a_value_outside_of_a_table_without_an_escape_is_refused() -> None:
    models = ModelSet((IntegerModel(Table(0, (4096, 4096), 0)),))
    for name in NATIVE:
        with isa(name), pytest.raises(FewbitsError, match="no escape"):
            encode_body([CodedArray(np.array([[0, 1, 2]]), models)], wide=True)


def test_subnormal_results_survive_a_process_that_flushes_them() -> None:
    values = np.array([[-1, 0, 1]])
    models = ModelSet((IntegerModel(FLAT),))
    body = encode_body([CodedArray(values, models)], wide=True)
    elements, bits = quantised(3, "float32", 1.2e-38, (-128, 0, 0))
    if not torch.set_flush_denormal(True):
        pytest.skip("this machine cannot flush subnormal numbers")
    try:
        decode_into(body, [ArraySpec(1, 3, models)], [elements])
    finally:
        torch.set_flush_denormal(False)
    assert bits.view(np.float32).tolist() == [-np.float32(0.6e-38), 0.0, np.float32(0.6e-38)]
