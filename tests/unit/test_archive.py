"""Tensors of an open file decoded to memory of the caller's."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import fewbits
from fewbits import plan
from fewbits.errors import Corrupt, InvalidArgument

TILE = 1 << 17  # elements of a tile here: large tensors take NumPy's coder long


@pytest.fixture
def tensors(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    monkeypatch.setattr(plan, "TILE", TILE)
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(40, 50, generator=generator)
    return {
        "large": torch.randn(2, TILE // 2 + 100, generator=generator),  # of several parts
        "a": shared,
        "tied": shared,
        "copy": shared.clone(),
        "half": torch.randn(300, generator=generator).bfloat16(),
        "complex": torch.randn(20, dtype=torch.complex64, generator=generator),
        "steps": torch.tensor(7),
        "nothing": torch.zeros(0, 3),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.fewbits"


def like(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of other values, each in memory of its own."""
    return {name: torch.full_like(tensor, 3) for name, tensor in tensors.items()}


@pytest.mark.parametrize("isa", ["numpy", ""])
@pytest.mark.parametrize("lossless", [True, False])
def test_every_tensor_is_decoded_to_where_it_is_wanted(
    isa: str, lossless: bool, tensors: dict[str, Tensor], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewbits.compress(tensors, path, lossless=True) if lossless else fewbits.compress(tensors, path, bits=4.0)
    monkeypatch.setenv("FEWBITS_ISA", isa)
    expected, targets = fewbits.load(path), like(tensors)
    with fewbits.open(path) as archive:
        archive.read_into(targets)
    for name, tensor in expected.items():
        assert torch.equal(targets[name], tensor), name


def test_some_are_decoded_and_the_rest_is_not_read(tensors: dict[str, Tensor], path: Path) -> None:
    fewbits.compress(tensors, path, lossless=True)
    data = bytearray(path.read_bytes())
    with fewbits.open(path) as archive:
        spans = {part.tensors: part for part in archive._reader.parts}
        offset = next(part.offset for tensors, part in spans.items() if tensors == (0,))
    data[offset + 100] ^= 1  # in a part of "large"
    path.write_bytes(data)
    parameter = torch.nn.Parameter(torch.zeros(40, 50))
    copy = torch.nn.Parameter(torch.zeros(40, 50))
    with fewbits.open(path) as archive:
        archive.read_into({"tied": parameter, "copy": copy})
        assert torch.equal(parameter, tensors["a"]) and torch.equal(copy, tensors["a"])
        with pytest.raises(Corrupt, match="'large'"):
            archive.read_into({"large": torch.zeros_like(tensors["large"])})


def test_views_of_one_buffer_are_filled(path: Path) -> None:
    tensors = {"a": torch.arange(12.0).view(3, 4), "b": torch.arange(5)}
    fewbits.compress(tensors, path, lossless=True)
    octets = torch.zeros(48 + 40, dtype=torch.uint8)
    with fewbits.open(path) as archive:
        archive.read_into({"a": octets[:48].view(torch.float32).view(3, 4), "b": octets[48:].view(torch.int64)})
    assert octets.numpy().tobytes() == b"".join(tensor.numpy().tobytes() for tensor in tensors.values())


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("b", torch.zeros(40, 50), "no tensor named 'b'"),
        ("a", torch.zeros(50, 40), r"\(40, 50\) in the file, and not float32 \(50, 40\)"),
        ("a", torch.zeros(40, 50, dtype=torch.float64), "float32 .* in the file, and not float64"),
        ("a", torch.zeros(50, 40).T, "contiguous"),
        ("a", torch.zeros(40, 50, device="meta"), "meta device"),
        ("a", torch.zeros(40, 50).numpy(), "not a tensor"),
    ],
)
def test_a_target_that_cannot_be_decoded_to_is_refused_before_any_is(
    name: str, target: Tensor, message: str, path: Path
) -> None:
    fewbits.compress({"first": torch.ones(3), "a": torch.randn(40, 50)}, path, lossless=True)
    first = torch.zeros(3)
    with fewbits.open(path) as archive, pytest.raises(InvalidArgument, match=message):
        archive.read_into({"first": first, name: target})
    assert not first.any()
