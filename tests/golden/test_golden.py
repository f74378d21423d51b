"""Law 8: files of every released payload version still decode to the stored tensors, by both decoders."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import fewbits
from fewbits.coder.rans import decode_wide
from fewbits.registry import METHODS, method_class
from tests.golden import blockwise_decoder, independent_decoder, shared_randomness, sic_decoder
from tests.golden.files import FOLDER, Golden, described, digest, golden_paths
from tests.golden.independent_decoder import Cursor, Levels, decode_file

# torch says so once whenever a complex32 tensor is made.
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
PATHS = golden_paths()
NEVER_RELEASED = {("epr", 1), ("sic", 1)}
# WIRE: SHA-256 of the constants; another table is another format.
SHIPPED_TABLES = "8e2f78d763b33596b148ea3b27da7262c3fd70c3769608479b1dd47d81374777"


@pytest.mark.parametrize("id", METHODS)
def test_every_payload_version_has_its_golden_files(id: str) -> None:
    versions = range(1, method_class(id).payload_version + 1)
    for version in (version for version in versions if (id, version) not in NEVER_RELEASED):
        found = [path.stem for path in PATHS if path.stem.startswith(f"{id}-{version}-")]
        assert found, f"no golden file of {id}, payload version {version}: make golden ID={id}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_product_decodes_it_to_the_stored_tensors(path: Path, isa: str) -> None:
    golden = Golden.read(path)
    fewbits.verify(path)
    loaded = fewbits.load(path, into=golden.receiver())
    tensors = loaded if isinstance(loaded, dict) else loaded.state_dict()
    assert list(tensors) == list(golden.tensors)
    assert {name: described(tensor) for name, tensor in tensors.items()} == golden.tensors


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_second_decoder_gives_the_same_bytes(path: Path) -> None:
    golden = Golden.read(path)
    arrays = decode_file(path.read_bytes(), module_tensors=golden.module)
    assert {name: digest(array) for name, array in arrays.items()} == {
        name: known["sha256"] for name, known in golden.tensors.items()
    }


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_holds_the_method_and_version_of_its_name(path: Path) -> None:
    id, version, _ = path.stem.split("-", 2)
    assert (id, int(version)) in [(method.id, method.payload_version) for method in fewbits.info(path).methods]


# miracle has integers by the dozen only, and golden images are small.
@pytest.mark.parametrize("id", [id for id in METHODS if id not in ("miracle", "image")])
def test_some_golden_file_has_several_chunks_of_32_lanes_in_a_part(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_ISA", "numpy")
    path = next(path for path in PATHS if path.stem.startswith(f"{id}-") and path.stem.endswith("-models"))
    with mock.patch("fewbits.coder.body.decode_wide", wraps=decode_wide) as spy:
        fewbits.load(path)
    assert max(len(call.args[0]) for call in spy.call_args_list) > 1


def test_golden_files_are_small() -> None:
    assert all(path.stat().st_size < 40_000 for path in PATHS)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 500_000


def test_every_golden_file_has_its_tensors_beside_it_and_nothing_else_is_there() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {path.name for path in PATHS} | {path.with_suffix(".json").name for path in PATHS}


def test_the_second_decoder_shares_no_code_with_the_package(repository: Path) -> None:
    names = ("independent_decoder", "adaptive_decoder", "blockwise_decoder", "image_decoder", "shared_randomness")
    names = (*names, "sic_decoder")
    own = {f"import {name}{end}" for name in names for end in ("", " as base")}
    own |= {"from tests.golden import " + tail for tail in ("independent_decoder as base", "shared_randomness")}
    own |= {
        "from tests.golden import adaptive_decoder, blockwise_decoder, image_decoder, shared_randomness, sic_decoder"
    }
    for name in names:
        source = (repository / f"tests/golden/{name}.py").read_text("utf-8")
        imports = [line.strip() for line in source.splitlines() if line.lstrip().startswith(("import ", "from "))]
        others = [line for line in imports if line not in own]
        assert not any("fewbits" in line or "tests" in line or "torch" in line for line in others)


def test_the_second_decoder_runs_as_a_program(repository: Path) -> None:
    program = repository / "tests/golden/independent_decoder.py"
    path = next(path for path in PATHS if path.stem == "lossless-1-network")
    run = subprocess.run([sys.executable, program, path], capture_output=True, text=True, check=True, cwd=path.parent)
    assert [line.split("\t")[0] for line in run.stdout.splitlines()] == list(Golden.read(path).tensors)


def test_the_golden_files_of_epr_visit_both_coders_and_every_decoder() -> None:
    seen: set[tuple[int, int]] = set()

    def read_levels(c: Cursor, coder: int, *rest: Any) -> Levels:
        first = c.data[c.position]
        seen.update({(coder, first & 7), *((coder, flag) for flag in (8, 16, 32, 64) if first & flag)})
        return read(c, coder, *rest)

    read = independent_decoder.read_levels
    with mock.patch.object(independent_decoder, "read_levels", read_levels):
        for path in PATHS:
            if path.stem.startswith("epr-2-"):
                decode_file(path.read_bytes(), module_tensors=Golden.read(path).module)
    assert seen == {(coder, kind) for coder in (0, 1) for kind in (*range(5), 8, 16)} | {(1, 32), (1, 64)}


def test_the_golden_files_of_miracle_visit_every_kind_of_candidates_and_every_flag() -> None:
    kinds: set[int] = set()
    flags: set[int] = set()
    codes: set[int] = set()

    def read_dealt(c: Cursor, *rest: Any) -> Any:
        kinds.add(c.data[0])
        flags.add(c.data[c.position])
        return dealt(c, *rest)

    def read_indices(c: Cursor, count: int, *rest: Any) -> Any:
        codes.update({c.data[c.position]} if count else set())
        return indices(c, count, *rest)

    dealt, indices = independent_decoder.read_dealt, independent_decoder.read_indices
    with (
        mock.patch.object(independent_decoder, "read_dealt", read_dealt),
        mock.patch.object(independent_decoder, "read_indices", read_indices),
    ):
        for path in PATHS:
            if path.stem.startswith("miracle-1-") and not path.stem.endswith("-low-entropy"):  # which is slow
                decode_file(path.read_bytes(), module_tensors=Golden.read(path).module)
    assert kinds == {0, 1, 2, 4} and flags == {0, 1, 2, 3, 4}
    assert {0, 17, 63, 64, 65} <= codes


LEAST_NORMAL = {"float32": 1 << 23, "float16": 1 << 10, "bfloat16": 1 << 7, "float64": 1 << 52}  # its bits


def kinds_of_sic(matrix: sic_decoder.Matrix, bits: Any) -> dict[str, bool]:
    """What the page has beside the usual, and whether this matrix has it."""
    sums = matrix.side[1].q.view(np.int64)[:, None] + matrix.rows_codes()[1]
    last = len(matrix.models) - 1
    sign = 1 << matrix.tensor.width - 1
    magnitudes = bits & bits.dtype.type(sign - 1)
    return {
        "a tile": bits.size < matrix.tensor.elements,
        "more than two dimensions": len(matrix.tensor.shape) > 2,
        "classes of other scales and models": len(matrix.classes) > 1 and bool(np.ptp(matrix.classes, 0).all()),
        "rows out of the coded order": matrix.order() != list(range(matrix.rows)),
        "models below the first": bool((sums < 0).any()),
        "models above the last": bool((sums > last).any()),
        "one model": last == 0,
        "a model without levels": any(array.q.size == 0 for array in matrix.levels),
        "integers of more than 32 bits": any((array.q.view(np.int64) < -(1 << 31)).any() for array in matrix.levels),
        "the greatest correction": bool(matrix.corrections.max() == 127),
        "the least correction": bool(matrix.corrections.min() == -128),
        "no corrections of the last models": bool(matrix.corrections.any() and not matrix.corrections[-1].any()),
        "subnormal values": bool(((magnitudes > 0) & (magnitudes < LEAST_NORMAL[matrix.tensor.dtype])).any()),
        "negative zeros": bool((bits == sign).any()),
    }


def test_the_golden_files_of_sic_visit_all_of_its_page() -> None:
    paths: set[int] = set()
    dtypes: set[str] = set()
    kinds: dict[str, bool] = {}

    def values(matrix: sic_decoder.Matrix) -> Any:
        bits = found(matrix)
        paths.add(matrix.paths)
        dtypes.add(matrix.tensor.dtype)
        for kind, there in kinds_of_sic(matrix, bits).items():
            kinds[kind] = kinds.get(kind, False) or there
        return bits

    found = sic_decoder.Matrix.values
    with mock.patch.object(sic_decoder.Matrix, "values", values):
        for path in PATHS:
            if path.stem.startswith("sic-2-"):
                decode_file(path.read_bytes(), module_tensors=Golden.read(path).module)
    assert paths == {0, 1, 2, 4, 8, 16, 32}
    assert dtypes == set(independent_decoder.QUANTISED)
    assert [kind for kind, there in kinds.items() if not there] == []


def kinds_of_blockwise(blocks: blockwise_decoder.Blocks, bits: Any) -> dict[str, bool]:
    """What the page has, and whether these blocks have it."""
    tensor, (levels, *sides) = blocks.tensor, blocks.arrays
    sign = 1 << tensor.width - 1
    magnitudes = bits & bits.dtype.type(sign - 1)
    is_exact, columns = bool(blocks.heads), tensor.rows[1]
    side_values = [blockwise_decoder.signed(side) for side in sides]
    signed_heads = [bool(head & blockwise_decoder.SIGNED) for head in blocks.heads]
    drops = [head & blockwise_decoder.DROPPED for head in blocks.heads]
    models = [array.models[0] for array in blocks.arrays]
    least_normal = LEAST_NORMAL[tensor.dtype]
    return {
        f"{'float32' if is_exact else 'whole'}, {'with' if len(sides) == 2 else 'without'} offsets": True,
        f"{tensor.dtype}, {'float32' if is_exact else 'whole'}": True,
        "whole rows": blocks.length == columns > 1,
        "parts of rows": 1 < blocks.length < columns,
        "blocks of one element": blocks.length == 1,
        "a tile": bits.size < tensor.elements and bits.size % columns == 0,
        "a tile that is not of whole rows": bits.size < tensor.elements and bits.size % columns > 0,
        "one dimension": len(tensor.shape) == 1,
        "no dimension": len(tensor.shape) == 0,
        "more than two dimensions": len(tensor.shape) > 2,
        "the least unit": blocks.unit == blockwise_decoder.UNITS[0],
        "the greatest unit": blocks.unit == blockwise_decoder.UNITS[1],
        "the least shift": blocks.shift == blockwise_decoder.SHIFTS[0],
        "the greatest shift": blocks.shift == blockwise_decoder.SHIFTS[1],
        "no shift of scales and offsets": not is_exact and blocks.shift == 0 and len(sides) == 2,
        "as many units as there may be": not is_exact and bool(np.abs(side_values[0]).max() == (1 << 31) - 1),
        "scales below 0": not is_exact and bool(side_values[0].min() < 0),
        "offsets below 0": not is_exact and len(sides) == 2 and bool(side_values[1].min() < 0),
        "signed scales": signed_heads[:1] == [True],
        "unsigned scales": signed_heads[:1] == [False],
        "signed offsets": signed_heads[1:] == [True],
        "unsigned offsets": signed_heads[1:] == [False],
        "a sign among the magnitude": any(
            bool(((side.q & np.uint64(0xFFFFFFFF)) >> np.uint64(31 - drop)).any())
            for side, drop, signed in zip(sides, drops, signed_heads, strict=False)
            if not signed
        ),
        "bits dropped": max(drops, default=0) > 0,
        "no bits dropped": min(drops, default=1) == 0,
        "negative zeros": bool((bits == sign).any()),
        "subnormal values": bool(((magnitudes > 0) & (magnitudes < least_normal)).any()),
        f"subnormal values of {tensor.dtype}": bool(((magnitudes > 0) & (magnitudes < least_normal)).any()),
        "raw bits of levels": models[0].table is None and models[0].shift > 0,
        "raw bits of scales or offsets": any(model.table is None and model.shift > 0 for model in models[1:]),
        "a constant": any(model.table is None and model.shift == 0 for model in models),
        "tables": any(model.table is not None for model in models),
        "a shifted table": any(model.table is not None and model.shift > 0 for model in models),
        "escapes": any(
            bool(((h := array.h.view(np.int64)) < model.table.lo).any() or (h >= model.table.lo + model.table.n).any())
            for array, model in zip(blocks.arrays, models, strict=True)
            if model.table is not None
        ),
        "integers of more than 32 bits": bool(levels.q.view(np.int64).max() >= 1 << 32),
    }


def test_the_golden_files_of_blockwise_visit_all_of_its_page() -> None:
    kinds: dict[str, bool] = {}
    counts: set[int] = set()

    def values(blocks: blockwise_decoder.Blocks) -> Any:
        bits = found(blocks)
        for kind, there in kinds_of_blockwise(blocks, bits).items():
            kinds[kind] = kinds.get(kind, False) or there
        return bits

    def decode_blockwise(c: Cursor, tensors: Any, pieces: Any) -> Any:
        counts.add(len(pieces))
        return decode(c, tensors, pieces)

    found, decode = blockwise_decoder.Blocks.values, blockwise_decoder.decode_blockwise
    with (
        mock.patch.object(blockwise_decoder.Blocks, "values", values),
        mock.patch.object(blockwise_decoder, "decode_blockwise", decode_blockwise),
    ):
        for path in PATHS:
            if path.stem.startswith("blockwise-1-"):
                decode_file(path.read_bytes(), module_tensors=Golden.read(path).module)
    assert [kind for kind, there in kinds.items() if not there] == ["subnormal values of float64"]  # it has none
    assert {1, 2} <= counts
    assert {f"{kind}, {tail} offsets" for kind in ("float32", "whole") for tail in ("with", "without")} <= set(kinds)
    assert {f"{kind}, {tail}" for kind in independent_decoder.QUANTISED for tail in ("float32", "whole")} <= set(kinds)


def test_the_second_decoder_gives_the_examples_of_the_pages_on_randomness() -> None:
    words = [762420552, 1286847753, 1836709937, 4160232153, 3860895491, 1800725864]
    assert shared_randomness.words(0x0123456789ABCDEF, 1, 7, 5, 6).tolist() == words
    assert shared_randomness.permutation(1, 2, 10).tolist() == [4, 9, 2, 8, 6, 5, 1, 0, 3, 7]
    normals = shared_randomness.normals(np.array([0, 1, 0x12000000, 1 << 31, 3 << 30, (1 << 32) - 1]))
    page = [-6.337957753455156, -6.166429516784993, -1.4734675769498753]
    assert normals.tolist() == [*page, 2.9180993810772906e-10, 0.6744897505674962, 6.337957753455156]
    cursor = Cursor(bytes.fromhex("1406000300012751d00e"), "the example")
    assert independent_decoder.read_indices(cursor, 6, 1024) == [0, 3, 1, 9, 0, 122]


def test_the_shipped_tables_have_never_changed(repository: Path) -> None:
    data = (repository / "src/fewbits/models/shipped_tables.csv").read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHIPPED_TABLES
