"""A payload of one matrix, which the compiled core decodes without a stop: as it is written out, or not at all."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.integers import IntegerModel
from fewbits.encode import decode
from fewbits.errors import FewbitsError
from fewbits.methods.sic import payload as sic_payload
from fewbits.methods.sic.payload import PAYLOAD_VERSION, Matrix, Written, payload_of
from fewbits.models.fit import fit_values
from fewbits.native import core

COMPILED = core()
pytestmark = pytest.mark.skipif(COMPILED is None, reason="there is no compiled core")
NATIVE = COMPILED.available_isas() if COMPILED is not None else []
DTYPES = ("float32", "float16", "bfloat16", "float64")


def chunk_of(
    rng: np.random.Generator, shape: tuple[int, int], num_paths: int, dtype: str = "float32", far: int = 0, **given: int
) -> Chunk:
    """A part of one matrix with that many levels beyond a byte; `given`: its least step code, and d₀ of all models."""
    rows, columns = shape
    classes = np.stack([rng.integers(-9, 9, 5), rng.integers(-3, 4, 5)], 1).astype(np.int32)
    corrections = rng.integers(-128, 128, (4, 4)).astype(np.int8)
    corrections[:, 0] = given.get("correction", corrections[0, 0])
    matrix = Matrix(
        num_paths,
        classes,
        rng.integers(0, 5, rows),
        given.get("step", -20) + rng.integers(0, 9, columns).astype(np.int32),
        rng.integers(-2, 9, columns).astype(np.int32),
        corrections,
        (IntegerModel(None),) * 6,
    )
    count = rows * columns
    # Of the first models nearly all levels are 0.
    levels = np.rint(rng.standard_normal(count) * np.linspace(0.3, 9, count)).astype(np.int32)
    levels[rng.choice(count, far, replace=False)] = rng.choice([-128, 128, 200, -40_000, 1 << 29], far)
    parts = np.split(levels, np.cumsum(matrix.values.counts)[:-1])
    models = tuple(fit_values(part if part.size else np.zeros(1, np.int32)).models.models[0] for part in parts)
    payload = payload_of([Written(replace(matrix, models=models), levels)], wide=bool(rng.integers(2)))
    return Chunk("sic", PAYLOAD_VERSION, {}, 7, (TensorSpec("weight", dtype, shape),), payload)


def outcome(chunk: Chunk, isa: str) -> Tensor | type[FewbitsError]:
    """The bytes of what a part decodes to, or the error: which of several faults is found first may differ."""
    with mock.patch.dict("os.environ", {"FEWBITS_ISA": isa}):
        try:
            return decode([chunk])["weight"].view(torch.uint8)
        except FewbitsError as error:
            return type(error)


def check_equal(chunk: Chunk) -> Tensor | type[FewbitsError]:
    expected = outcome(chunk, "numpy")
    for isa in NATIVE:
        found = outcome(chunk, isa)
        if isinstance(found, Tensor) and isinstance(expected, Tensor):
            assert torch.equal(found, expected)
        else:
            assert found is expected
    return expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_paths", [0, 1, 2, 4, 8, 32])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (40, 9), (65, 33), (600, 20), (9, 530)])
def test_a_matrix_is_what_is_written_out(shape: tuple[int, int], num_paths: int, dtype: str) -> None:
    rng = np.random.default_rng(shape[1] + num_paths)
    assert isinstance(check_equal(chunk_of(rng, shape, num_paths, dtype)), Tensor)


@pytest.mark.parametrize("num_paths", [0, 1, 8])
@pytest.mark.parametrize("far", [1, 30, 300])
@pytest.mark.parametrize("dtype", DTYPES)
def test_levels_may_be_far_from_0(num_paths: int, far: int, dtype: str) -> None:
    chunk = chunk_of(np.random.default_rng(far), (70, 30), num_paths, dtype, far)
    with mock.patch("fewbits.methods.sic.written_of", side_effect=sic_payload.written_of) as written_of:
        check_equal(chunk)
    # The core leaves it to others if more than 72 are: one in 256, and 64.
    assert written_of.call_count == (1 if far < 72 else 1 + len(NATIVE))


@pytest.mark.parametrize("given", [{"correction": -64}, {"step": -1000}, {"step": 880}, {"correction": 127}])
@pytest.mark.parametrize("num_paths", [0, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_may_be_0_or_subnormal_or_out_of_range(given: dict[str, int], num_paths: int, dtype: str) -> None:
    """With d₀ = −64 a level of 0 stands for 0, and for −0 where it is mirrored."""
    found = check_equal(chunk_of(np.random.default_rng(1), (50, 40), num_paths, dtype, 5, **given))
    if given == {"correction": -64} and num_paths and dtype == "float32":
        assert isinstance(found, Tensor)
        assert (found.view(torch.int32) == -(1 << 31)).sum() > 10


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_payload_is_refused_or_read_as_it_is_written_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chunk = chunk_of(rng, (24, 11), int(rng.choice([0, 1, 4])), far=seed % 3)
    for _ in range(25):
        damaged = bytearray(chunk.payload)
        for _ in range(int(rng.integers(1, 3))):
            place = int(rng.integers(len(damaged) if rng.integers(2) else min(len(damaged), 60)))
            damaged[place] = int(rng.integers(256))
        check_equal(chunk._replace(payload=bytes(damaged)[: len(damaged) - int(rng.integers(9) == 0)]))


def test_the_core_decodes_and_the_rest_is_left_to_others() -> None:
    rng = np.random.default_rng(0)
    with mock.patch.object(sic_payload, "read_uint", side_effect=AssertionError):
        assert isinstance(outcome(chunk_of(rng, (300, 20), 4, far=20), NATIVE[-1]), Tensor)
    with mock.patch.object(sic_payload, "TILE", 6000), mock.patch("fewbits.methods.sic.written_of") as written_of:
        written_of.side_effect = InterruptedError
        with pytest.raises(InterruptedError):
            outcome(chunk_of(rng, (300, 21), 4), NATIVE[-1])
