"""load, open, decompress: into modules, devices and dtypes, other formats; bare files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import fewbits
from fewbits.errors import InvalidArgument, TooLarge
from tests.laws import sources


class Network(nn.Module):
    """A small network with tied weights, a norm with buffers, and a frozen parameter."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.encoder = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.decoder = nn.Linear(width, width)
        self.decoder.weight = self.encoder.weight
        self.decoder.bias.requires_grad_(False)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.fewbits"


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def untouched(module: nn.Module) -> dict[str, tuple[Tensor, int]]:
    return {name: (tensor.clone(), tensor._version) for name, tensor in module.state_dict(keep_vars=True).items()}


def assert_untouched(module: nn.Module, before: dict[str, tuple[Tensor, int]]) -> None:
    for name, tensor in module.state_dict(keep_vars=True).items():
        assert torch.equal(tensor, before[name][0])
        assert tensor._version == before[name][1]


@pytest.mark.parametrize("bare", [False, True])
def test_a_module_is_filled_in_place(bare: bool, network: Network, path: Path) -> None:
    fewbits.compress(network, path, lossless=True, bare=bare)
    torch.manual_seed(1)
    receiver = Network()
    places = {name: tensor.data_ptr() for name, tensor in receiver.state_dict().items()}
    assert fewbits.load(path, into=receiver) is receiver
    assert_same(receiver.state_dict(), network.state_dict())
    assert {name: tensor.data_ptr() for name, tensor in receiver.state_dict().items()} == places
    assert receiver.decoder.weight is receiver.encoder.weight
    assert receiver.encoder.weight.requires_grad and not receiver.decoder.bias.requires_grad


def test_a_state_dict_comes_back_in_order_with_its_ties(network: Network, path: Path) -> None:
    fewbits.compress(network, path, lossless=True)
    loaded = fewbits.load(path)
    assert_same(loaded, network.state_dict())
    assert loaded["decoder.weight"] is loaded["encoder.weight"]
    assert not any(tensor.requires_grad for tensor in loaded.values())


def test_equal_copies_come_back_as_tensors_of_their_own(path: Path) -> None:
    tensors = {"a": torch.arange(30.0), "b": torch.arange(30.0)}
    report = fewbits.compress(tensors, path, lossless=True)
    assert [tensor.name for tensor in report.tensors] == ["a"]
    loaded = fewbits.load(path)
    loaded["a"].zero_()
    assert torch.equal(loaded["b"], torch.arange(30.0))


def test_a_lossy_file_loads_the_same_values_through_every_door(network: Network, path: Path, tmp_path: Path) -> None:
    fewbits.compress(network, path, bits=3.0)
    loaded = fewbits.load(path)
    assert_same(fewbits.load(path, into=Network()).state_dict(), loaded)
    with fewbits.open(path) as archive:
        assert_same({name: archive[name] for name in archive}, loaded)
    for suffix in ("safetensors", "pt"):
        fewbits.decompress(path, tmp_path / f"back.{suffix}")
    assert_same(torch.load(tmp_path / "back.pt", weights_only=True), loaded)
    back = load_file(tmp_path / "back.safetensors")
    assert_same({name: back[name] for name in loaded}, loaded)


def test_device_and_dtype(network: Network, path: Path) -> None:
    fewbits.compress(network, path, lossless=True)
    loaded = fewbits.load(path, device="cpu", dtype=torch.bfloat16)
    assert loaded["encoder.weight"].dtype == torch.bfloat16
    assert loaded["norm.num_batches_tracked"].dtype == torch.int64
    assert loaded["decoder.weight"] is loaded["encoder.weight"]
    receiver = fewbits.load(path, into=Network(), dtype=torch.float64)
    assert receiver.encoder.weight.dtype == torch.float64
    assert torch.equal(receiver.encoder.weight, network.encoder.weight.double())
    half = Network().half()
    assert fewbits.load(path, into=half).encoder.weight.dtype == torch.float16


def test_names_that_do_not_fit_are_named_and_the_module_is_untouched(network: Network, path: Path) -> None:
    fewbits.compress(network, path, lossless=True)
    receiver = Network()
    receiver.extra = nn.Linear(2, 2)
    del receiver.norm
    before = untouched(receiver)
    with pytest.raises(InvalidArgument) as caught:
        fewbits.load(path, into=receiver)
    for name in ("'extra.weight'", "'extra.bias'", "'norm.weight'"):
        assert name in str(caught.value)
    assert_untouched(receiver, before)


def test_a_shape_that_does_not_fit_is_named_and_the_module_is_untouched(network: Network, path: Path) -> None:
    fewbits.compress(network, path, lossless=True)
    receiver = Network(13)
    before = untouched(receiver)
    with pytest.raises(InvalidArgument, match=r"'encoder.weight'.*\(12, 12\).*\(13, 13\)"):
        fewbits.load(path, into=receiver)
    assert_untouched(receiver, before)


def test_damage_leaves_the_module_untouched(network: Network, path: Path) -> None:
    fewbits.compress(network, path, lossless=True)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    receiver = Network()
    before = untouched(receiver)
    with pytest.raises(fewbits.Corrupt):
        fewbits.load(path, into=receiver)
    assert_untouched(receiver, before)


def test_a_bare_file_needs_the_module_it_was_written_from(network: Network, path: Path, tmp_path: Path) -> None:
    fewbits.compress(network, path, bits=3.0, bare=True)
    for attempt in (
        lambda: fewbits.load(path),
        lambda: fewbits.open(path),
        lambda: fewbits.decompress(path, tmp_path / "back.pt"),
    ):
        with pytest.raises(InvalidArgument, match="bare"):
            attempt()
    untied, renamed = Network(), nn.Sequential(Network())
    untied.norm = nn.BatchNorm1d(12, affine=False)
    for other in (Network(13), untied, renamed, Network().half()):
        before = untouched(other)
        with pytest.raises(InvalidArgument, match="another module"):
            fewbits.load(path, into=other)
        assert_untouched(other, before)
    fewbits.verify(path)
    assert fewbits.info(path).bare


def test_a_bare_file_gives_the_values_of_a_full_one(path: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, full = nn.Linear(20, 30), tmp_path / "full.fewbits"
    fewbits.compress(module, path, bits=3.0, bare=True)
    fewbits.compress(module, full, bits=3.0)
    assert_same(fewbits.load(path, into=nn.Linear(20, 30)).state_dict(), fewbits.load(full))
    assert path.stat().st_size < full.stat().st_size


def test_the_limit_is_kept_before_memory_is_taken(path: Path) -> None:
    fewbits.compress({"a": torch.zeros(5000)}, path, lossless=True)
    with pytest.raises(TooLarge, match="20000 bytes"):
        fewbits.load(path, limit=19_999)
    with pytest.raises(TooLarge):
        fewbits.open(path, limit=19_999)
    assert fewbits.load(path, limit=20_000)["a"].numel() == 5000


def test_one_tensor_is_read_without_the_others(path: Path) -> None:
    fewbits.compress(sources.large(), path, lossless=True)
    data = bytearray(path.read_bytes())
    with fewbits.container.Reader(path) as reader:
        positions = {entry.spec.name: i for i, entry in enumerate(reader.header.tensors)}
        part = reader.parts[reader.parts_of(positions["dense"])[0]]
    data[part.offset] ^= 1
    path.write_bytes(data)
    with fewbits.open(path) as archive:
        assert torch.equal(archive["sparse"], sources.large()["sparse"])
        with pytest.raises(fewbits.Corrupt, match="'dense'"):
            archive["dense"]
        assert "dense" in archive and "none" not in archive and len(archive) == 3
        assert archive.spec("bias").shape == (300,)
        with pytest.raises(InvalidArgument, match="'none'"):
            archive["none"]


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_dtypes_that_safetensors_cannot_hold_are_named_and_pt_holds_them(path: Path, tmp_path: Path) -> None:
    tensors = {"fine": torch.ones(3), "wide": torch.ones(3, dtype=torch.complex128)}
    fewbits.compress(tensors, path, lossless=True)
    with pytest.raises(InvalidArgument, match=r"'wide' has the dtype complex128.*\.pt"):
        fewbits.decompress(path, tmp_path / "back.safetensors")
    assert not (tmp_path / "back.safetensors").exists()
    fewbits.decompress(path, tmp_path / "back.pt")
    assert_same(torch.load(tmp_path / "back.pt", weights_only=True), tensors)


def test_every_dtype_that_save_file_writes_comes_back_identical(path: Path, tmp_path: Path) -> None:
    tensors = {}
    for name, tensor in sources.every_dtype().items():
        try:
            save_file({name: tensor}, tmp_path / "probe.safetensors")
        except Exception:
            continue
        tensors[name] = tensor
    assert len(tensors) > 12
    source, back = tmp_path / "m.safetensors", tmp_path / "back.safetensors"
    save_file(tensors, source)
    fewbits.compress(source, path, lossless=True)
    fewbits.decompress(path, back)
    assert back.read_bytes() == source.read_bytes()


def test_ties_are_kept_in_pt_and_copied_in_safetensors(network: Network, path: Path, tmp_path: Path) -> None:
    fewbits.compress(network, path, lossless=True)
    fewbits.decompress(path, tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back["decoder.weight"].data_ptr() == back["encoder.weight"].data_ptr()
    fewbits.decompress(path, tmp_path / "back.safetensors")
    assert torch.equal(load_file(tmp_path / "back.safetensors")["decoder.weight"], network.encoder.weight)
