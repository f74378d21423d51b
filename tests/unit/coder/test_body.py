"""Bodies: arrays in, the same arrays out; and no damage that is not named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.coder import body
from fewbits.coder.body import decode_body, encode_body
from fewbits.coder.integers import ArraySpec, CodedArray, IntegerModel, ModelSet
from fewbits.coder.leb128 import write_uint
from fewbits.coder.table import Table
from fewbits.errors import Corrupt, FewbitsError, InvalidArgument
from fewbits.models.fit import fit_rows, fit_values
from fewbits.models.shipped import shipped_table
from tests.unit.coder.samples import INT64, arrays

NEARLY_CERTAIN = Table(0, (8191,), 1)


def spec_of(array: CodedArray) -> ArraySpec:
    if array.classes is None:
        return ArraySpec(1, array.values.size, array.models)
    return ArraySpec(*array.values.shape, array.models)


def laplace(rows: int, columns: int, seed: int = 0) -> CodedArray:
    generator = np.random.default_rng(seed)
    values = np.rint(generator.laplace(0, 1 + np.arange(rows)[:, None], (rows, columns))).astype(np.int64)
    fit = fit_rows(values, np.arange(rows) % 3)
    assert fit is not None
    return CodedArray(values, fit.models, fit.classes)


@given(st.lists(arrays(), min_size=1, max_size=4), st.booleans())
def test_bodies_round_trip(coded: list[CodedArray], wide: bool) -> None:
    decoded = decode_body(encode_body(coded, wide=wide), [spec_of(array) for array in coded])
    for array, back in zip(coded, decoded, strict=True):
        assert back.ravel().tolist() == array.values.ravel().tolist()


@given(st.lists(INT64, min_size=1, max_size=20), st.booleans())
def test_what_is_fitted_to_any_integers_codes_them(values: list[int], wide: bool) -> None:
    array = np.array([values], np.int64)
    coded = CodedArray(array, fit_values(array).models)
    assert decode_body(encode_body([coded], wide=wide), [spec_of(coded)])[0].tolist() == [values]


def test_several_chunks_round_trip() -> None:
    values = np.random.default_rng(0).integers(-(2**40), 2**40, (1, 300_000))
    coded = CodedArray(values, ModelSet((IntegerModel(shipped_table(120), 36),)))
    encoded = encode_body([coded], wide=True)
    assert encoded[3] > 1  # chunks
    assert np.array_equal(decode_body(encoded, [spec_of(coded)])[0], values)


BODIES = {
    "narrow": ([laplace(6, 40)], False),
    "wide": ([laplace(6, 40)], True),
    "narrow with escapes": (
        [CodedArray(laplace(2, 50).values, ModelSet((IntegerModel(shipped_table(2), 1, 1),)))],
        False,
    ),
    "wide with escapes": (
        [CodedArray(laplace(2, 50).values, ModelSet((IntegerModel(shipped_table(2), 1, 1),)))],
        True,
    ),
    "mixed": (
        [
            laplace(3, 33),
            CodedArray(np.arange(9)[None], ModelSet((IntegerModel(None, 4),))),
            CodedArray(np.zeros((1, 0), np.int64), ModelSet((IntegerModel(shipped_table(30)),))),
        ],
        True,
    ),
}


@pytest.mark.parametrize("kind", BODIES)
def test_every_truncation_and_a_byte_more_are_corrupt(kind: str) -> None:
    coded, wide = BODIES[kind]
    encoded, specs = encode_body(coded, wide=wide), [spec_of(array) for array in coded]
    for data in (*(encoded[:size] for size in range(len(encoded))), encoded + b"\0"):
        with pytest.raises(Corrupt):
            decode_body(data, specs)


@pytest.mark.parametrize("kind", BODIES)
def test_damaged_bytes_give_corrupt_or_integers(kind: str) -> None:
    coded, wide = BODIES[kind]
    encoded, specs = encode_body(coded, wide=wide), [spec_of(array) for array in coded]
    generator = np.random.default_rng(1)
    for at in [*range(min(len(encoded), 60)), *generator.integers(0, len(encoded), 200).tolist()]:
        for byte in {0, 1, 0x7F, 0x80, 0xFF, encoded[at] ^ 1, encoded[at] ^ 0x40, int(generator.integers(256))}:
            damaged = encoded[:at] + bytes([byte]) + encoded[at + 1 :]
            for data in (damaged, encoded[:at] + bytes([byte]) + encoded[at:], encoded[:at] + encoded[at + 1 :]):
                try:
                    decode_body(data, specs)
                except FewbitsError as error:
                    assert isinstance(error, Corrupt)


@given(st.binary(max_size=40), st.integers(0, 300), st.integers(0, 300), st.sampled_from(["one", "classes", "raw"]))
def test_any_bytes_give_corrupt_or_integers(data: bytes, rows: int, columns: int, kind: str) -> None:
    one = IntegerModel(shipped_table(20))
    models = {
        "one": ModelSet((one,)),
        "classes": ModelSet((one, IntegerModel(None, 3), IntegerModel(NEARLY_CERTAIN, 63, -1)), one),
        "raw": ModelSet((IntegerModel(None, 1, 5),)),
    }[kind]
    if kind != "classes":
        rows, columns = 1, rows * columns
    for layout in (b"", b"\0", b"\1"):
        try:
            decode_body(layout + data, [ArraySpec(rows, columns, models)])
        except FewbitsError as error:
            assert isinstance(error, Corrupt)


@pytest.mark.parametrize("sizes", [(2**64 - 1, 41), (2**63, 2**63), (0, 40), (39,), (41,), (40, 1), (33, 7), ()])
def test_chunks_that_lie_about_their_symbols_are_corrupt(sizes: tuple[int, ...]) -> None:
    fields = b"".join(write_uint(size) + b"\0\0" for size in sizes)
    encoded = b"\1\0\0" + write_uint(len(sizes)) + fields + (b"\0\0\1\0" * 32) * len(sizes)
    with pytest.raises(Corrupt):
        decode_body(encoded, [ArraySpec(1, 40, ModelSet((IntegerModel(shipped_table(20)),)))])


def test_classes_of_an_array_without_elements_are_corrupt() -> None:
    one = IntegerModel(shipped_table(20))
    for shape in ((0, 5), (5, 0), (0, 0)):
        with pytest.raises(Corrupt):
            decode_body(b"\0\0\0", [ArraySpec(*shape, ModelSet((one, one), IntegerModel(None)))])


def test_a_class_index_out_of_range_is_corrupt() -> None:
    one = IntegerModel(None, 0, 7)
    for index in (-1, 2, 2**62):
        with pytest.raises(Corrupt, match="class"):
            decode_body(b"\0\0\0", [ArraySpec(3, 1, ModelSet((one, one), IntegerModel(None, 0, index)))])


def test_a_few_bytes_stand_for_45440_symbols_each_and_no_more() -> None:
    model = ModelSet((IntegerModel(NEARLY_CERTAIN),))
    most = 45_440 * (3 + 64)
    assert decode_body(b"\0\0\0", [ArraySpec(1, most, model)])[0].size == most
    with pytest.raises(Corrupt, match="too short"):
        decode_body(b"\0\0\0", [ArraySpec(1, most + 1, model)])


def test_an_encoder_takes_chunks_where_symbols_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_MOST_SYMBOLS_PER_BYTE", 100)
    monkeypatch.setenv("FEWBITS_ISA", "numpy")  # whose limit was lowered
    models = ModelSet((IntegerModel(NEARLY_CERTAIN),))
    most = 100 * (3 + 64)
    assert encode_body([CodedArray(np.zeros((1, most), np.int64), models)], wide=False) == b"\0\0\0"
    beyond = CodedArray(np.zeros((1, most + 1), np.int64), models)
    encoded = encode_body([beyond], wide=False)
    assert encoded[0] == 1
    assert not decode_body(encoded, [spec_of(beyond)])[0].any()


def test_class_indices_that_cost_nothing_beyond_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_MOST_SYMBOLS_PER_BYTE", 100)
    one = IntegerModel(None)
    classes = np.zeros(100 * 68 + 1, np.int64)
    array = CodedArray(classes[:, None], ModelSet((one, one), IntegerModel(NEARLY_CERTAIN)), classes)
    with pytest.raises(InvalidArgument):
        encode_body([array], wide=True)
