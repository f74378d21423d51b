"""What can be compressed: state dicts, modules, safetensors files and folders, .pt files; and what cannot."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import fewbits
from fewbits.errors import InvalidArgument
from fewbits.sources import entries_of, read_checkpoint

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2, 3]), "c": torch.ones(2, dtype=torch.bfloat16)}


def sharded(folder: Path) -> Path:
    """The tensors above in two shards with an index."""
    save_file({"b": TENSORS["b"]}, folder / "model-1.safetensors", {"format": "pt"})
    save_file({"a": TENSORS["a"], "c": TENSORS["c"]}, folder / "model-2.safetensors", {"format": "pt"})
    shards = {"b": "model-1.safetensors", "a": "model-2.safetensors", "c": "model-2.safetensors"}
    index = {"metadata": {"total_size": 52}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    return folder


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_a_safetensors_file_keeps_order_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file(TENSORS, path, {"format": "pt", "licence": "CC0"})
    checkpoint = read_checkpoint(path)
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert list(checkpoint.tensors) == [name for name in header if name != "__metadata__"]
    assert checkpoint.metadata == {"format": "pt", "licence": "CC0"}
    assert checkpoint.num_bytes == path.stat().st_size
    assert_same(dict(checkpoint.tensors), TENSORS)


def test_a_sharded_folder_has_the_tensors_of_a_single_file(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(sharded(tmp_path))
    assert_same(dict(checkpoint.tensors), TENSORS)
    assert checkpoint.metadata == {"format": "pt"}


def test_a_folder_with_one_file_needs_no_index(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "any.safetensors")
    assert_same(dict(read_checkpoint(tmp_path).tensors), TENSORS)


@pytest.mark.parametrize("nesting", [None, "state_dict", "model", "model_state_dict"])
def test_a_pt_file_is_read_wherever_the_state_dict_is(nesting: str | None, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(TENSORS if nesting is None else {nesting: TENSORS, "epoch": 3}, path)
    assert_same(dict(read_checkpoint(path).tensors), TENSORS)


def test_a_module_keeps_its_ties_and_buffers() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    module[2].weight = module[0].weight
    checkpoint = read_checkpoint(module)
    assert list(checkpoint.tensors) == list(module.state_dict())
    aliases = {entry.spec.name: entry for entry in checkpoint.entries if entry.target is not None}
    assert aliases["2.weight"].shared
    assert checkpoint.entries[aliases["2.weight"].target].spec.name == "0.weight"


def test_views_of_one_memory_are_ties_only_if_they_are_the_same_view() -> None:
    base = torch.randn(6, 6)
    tensors = {"base": base, "same": base.view(6, 6), "part": base[:3], "transposed": base.T, "copy": base.clone()}
    kinds = {entry.spec.name: (entry.target, entry.shared) for entry in entries_of(tensors)}
    assert kinds == {
        "base": (None, False),
        "same": (0, True),
        "part": (None, False),
        "transposed": (None, False),
        "copy": (0, False),
    }


def test_zeros_of_either_sign_are_no_copies() -> None:
    tensors = {"zeros": torch.zeros(9), "negative zeros": -torch.zeros(9)}
    assert [entry.target for entry in entries_of(tensors)] == [None, None]


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "an empty state dict": (dict, "no tensors"),
    "an empty module": (nn.ReLU, "no tensors"),
    "a value that is no tensor": (lambda: {"a": torch.ones(2), "epoch": 3}, "'epoch'"),
    "a name that is no text": (lambda: {3: torch.ones(2)}, "3"),
    "a name that is not UTF-8": (lambda: {"a\udc80": torch.ones(2)}, "UTF-8"),
    "a sparse tensor": (lambda: {"s": torch.eye(3).to_sparse()}, "'s'.*dense"),
    "a tensor without values": (lambda: {"m": torch.empty(3, device="meta")}, "'m'.*meta"),
    "a path that does not exist": (lambda: "no/such/file.safetensors", "does not exist"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_source_that_cannot_be_stored_is_named(what: str) -> None:
    make, words = BAD[what]
    with pytest.raises(InvalidArgument, match=words):
        read_checkpoint(make())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_quantized_tensor_has_an_unknown_dtype() -> None:
    quantized = torch.quantize_per_tensor(torch.randn(4), 0.1, 0, torch.quint8)
    with pytest.raises(InvalidArgument, match="'q' has the dtype quint8"):
        read_checkpoint({"q": quantized})


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    for name in ("model.onnx", "model", "model.fewbits"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(InvalidArgument, match="none of"):
            read_checkpoint(tmp_path / name)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.pth", "m.bin", "m.ckpt"])
@pytest.mark.parametrize("data", [b"", b"x", b"\xff" * 100, b"PK\x03\x04" + bytes(50), b"\x80\x04N."])
def test_a_damaged_checkpoint_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidArgument, match=name):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("value", [3, [torch.ones(2)], {"layers": [1, 2]}, {"state_dict": {"a": 3}}])
def test_a_pt_file_without_a_state_dict_is_refused(value: object, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "m.pt")
    with pytest.raises(InvalidArgument):
        read_checkpoint(tmp_path / "m.pt")


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_a_pt_file_that_would_run_code_is_refused_and_runs_none(kind: str, tmp_path: Path) -> None:
    path, trap = tmp_path / "m.pt", tmp_path / "trap"
    if kind == "torch":
        torch.save({"a": torch.ones(2), "b": Malicious(trap)}, path)
    else:
        path.write_bytes(pickle.dumps({"a": Malicious(trap)}))
    with pytest.raises(InvalidArgument, match="weights_only"):
        fewbits.compress(path, tmp_path / "m.fewbits", lossless=True)
    assert not trap.exists()
    assert not (tmp_path / "m.fewbits").exists()


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (sharded(tmp_path) / "model-2.safetensors").unlink()
    with pytest.raises(InvalidArgument, match=r"model-2\.safetensors.*missing"):
        read_checkpoint(tmp_path)


def test_a_shard_that_lacks_a_tensor_is_named_with_it(tmp_path: Path) -> None:
    save_file({"a": TENSORS["a"]}, sharded(tmp_path) / "model-2.safetensors")
    with pytest.raises(InvalidArgument, match=r"model-2\.safetensors.*'c'"):
        read_checkpoint(tmp_path)


def test_a_shard_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file(TENSORS, tmp_path / "outside.safetensors")
    index = {"weight_map": dict.fromkeys(TENSORS, "../outside.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidArgument, match="missing"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', '{"weight_map": {}}']
)
def test_an_index_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(InvalidArgument):
        read_checkpoint(tmp_path)


def test_a_folder_without_an_index_and_with_several_files_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no index"):
        read_checkpoint(tmp_path)
    for name in "ab":
        save_file(TENSORS, tmp_path / f"{name}.safetensors")
    with pytest.raises(InvalidArgument, match=r"2 \.safetensors files and no index"):
        read_checkpoint(tmp_path)
