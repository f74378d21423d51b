"""Law 8: files of every released payload version still decode to the stored tensors, by both decoders."""

import hashlib
from pathlib import Path
from unittest import mock

import pytest

import fewbits
from fewbits.coder.rans import decode_wide
from fewbits.registry import METHODS, method_class
from tests.golden.files import FOLDER, Golden, described, digest, golden_paths
from tests.golden.independent_decoder import decode_file

# torch says so once whenever a complex32 tensor is made.
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
PATHS = golden_paths()
# WIRE: SHA-256 of the constants; another table is another format.
SHIPPED_TABLES = "8e2f78d763b33596b148ea3b27da7262c3fd70c3769608479b1dd47d81374777"


@pytest.mark.parametrize("id", METHODS)
def test_every_payload_version_has_its_golden_files(id: str) -> None:
    for version in range(1, method_class(id).payload_version + 1):
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


@pytest.mark.parametrize("id", METHODS)
def test_some_golden_file_has_several_chunks_of_32_lanes_in_a_part(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_ISA", "numpy")
    path = next(path for path in PATHS if path.stem.startswith(f"{id}-") and path.stem.endswith("-models"))
    with mock.patch("fewbits.coder.body.decode_wide", wraps=decode_wide) as spy:
        fewbits.load(path)
    assert max(len(call.args[0]) for call in spy.call_args_list) > 1


def test_golden_files_are_small() -> None:
    assert all(path.stat().st_size < 40_000 for path in PATHS)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 400_000


def test_every_golden_file_has_its_tensors_beside_it_and_nothing_else_is_there() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {path.name for path in PATHS} | {path.with_suffix(".json").name for path in PATHS}


def test_the_second_decoder_shares_no_code_with_the_package(repository: Path) -> None:
    source = (repository / "tests/golden/independent_decoder.py").read_text("utf-8")
    imports = [line for line in source.splitlines() if line.lstrip().startswith(("import ", "from "))]
    assert not any("fewbits" in line or "tests" in line or "torch" in line for line in imports)


def test_the_shipped_tables_have_never_changed(repository: Path) -> None:
    data = (repository / "src/fewbits/models/shipped_tables.csv").read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHIPPED_TABLES
