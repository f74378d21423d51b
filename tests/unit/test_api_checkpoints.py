"""compress takes checkpoints as they come: layouts of convolutions, adapters, fused, tied, integer, half precision."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import fewbits
from fewbits.tensors import bits_of
from tests.laws import sources


def checkpoint() -> dict[str, Tensor]:
    """Tensors of every layout that common layers have."""
    rng = sources.generator(51)
    query_key_value = sources.normal(rng, 192, 64) * torch.tensor([1.0, 0.1, 0.01]).repeat_interleave(64)[:, None]
    return {
        "conv1d": sources.normal(rng, 32, 16, 5),
        "conv2d": sources.normal(rng, 24, 16, 3, 3),
        "conv3d": sources.normal(rng, 8, 4, 3, 3, 3),
        "grouped": sources.normal(rng, 32, 4, 3, 3),
        "depthwise": sources.normal(rng, 64, 1, 3, 3),
        "transposed": sources.normal(rng, 16, 8, 4, 4),
        "channels last": sources.normal(rng, 16, 16, 3, 3).contiguous(memory_format=torch.channels_last),
        "fused qkv": query_key_value,
        "lora_A": sources.normal(rng, 8, 256, scale=0.02),
        "lora_B": torch.zeros(256, 8),
        "half": sources.normal(rng, 48, 64, dtype="float16"),
        "brain": sources.normal(rng, 48, 64, dtype="bfloat16"),
        "double": sources.normal(rng, 48, 64, dtype="float64"),
        "int8 weight": torch.from_numpy(rng.integers(-128, 128, (64, 64))).to(torch.int8),
        "packed int4": torch.from_numpy(rng.integers(0, 256, (64, 32))).to(torch.uint8),
        "float8": sources.normal(rng, 32, 32).to(torch.float8_e4m3fn),
        "mask": torch.ones(16, 16, dtype=torch.bool).tril(),
        "num_batches_tracked": torch.tensor(1234),
        "scale": torch.tensor(0.07),
    }


KEPT = ("int8 weight", "packed int4", "float8", "mask", "num_batches_tracked", "lora_B")


def test_every_layout_comes_back_and_what_is_quantised_already_is_kept(tmp_path: Path) -> None:
    before, path = checkpoint(), tmp_path / "file.fewbits"
    report = fewbits.compress(before, path, bits=4.0)
    after = fewbits.load(path)
    assert list(after) == list(before)
    errors = {tensor.name: tensor.relative_error for tensor in report.tensors}
    for name, tensor in before.items():
        assert (after[name].dtype, after[name].shape) == (tensor.dtype, tensor.shape)
        if name in KEPT:
            assert bits_of(after[name]).tobytes() == bits_of(tensor).tobytes(), name
            assert errors[name] == 0
        elif tensor.ndim:
            # Against the source as it was given, halves as halves.
            difference = (after[name].double() - tensor.double()).norm() / tensor.double().norm()
            assert errors[name] == pytest.approx(float(difference), rel=1e-3, abs=1e-6), name
            assert 0 < difference < 0.2, name


def test_tied_embeddings_are_stored_once_and_come_back_tied(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(200, 32)
            self.body = nn.Linear(32, 32)
            self.head = nn.Linear(32, 200, bias=False)
            self.head.weight = self.words.weight

    path = tmp_path / "file.fewbits"
    report = fewbits.compress(Model(), path, bits=4.0)
    assert report.num_weights <= 200 * 32 + 32 * 32 + 32
    received = fewbits.load(path, into=Model())
    assert received.head.weight is received.words.weight
    loaded = fewbits.load(path)
    assert loaded["head.weight"].data_ptr() == loaded["words.weight"].data_ptr()


def test_a_file_of_halves_is_held_against_halves(tmp_path: Path) -> None:
    halves = {name: tensor for name, tensor in checkpoint().items() if tensor.dtype in (torch.float16, torch.bfloat16)}
    source = tmp_path / "halves.safetensors"
    save_file(halves, source)
    report = fewbits.compress(source, tmp_path / "file.fewbits", bits=3.0)
    assert report.source_size == source.stat().st_size
    assert report.bits_per_weight <= 3.0
    assert {name: tensor.dtype for name, tensor in fewbits.load(tmp_path / "file.fewbits").items()} == {
        name: tensor.dtype for name, tensor in halves.items()
    }
