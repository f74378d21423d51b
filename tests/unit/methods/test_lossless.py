"""What `lossless` costs where a figure is promised, and which transform it chooses."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fewbits.chunk import Chunk
from fewbits.encode import decode
from fewbits.method import Source
from fewbits.methods.lossless import Lossless

SPARSE_FLOATS, SPARSE_INTEGERS = 4, 5


def coded(tensor: Tensor) -> list[Chunk]:
    """The parts of one tensor, checked to bring every bit back."""
    chunks = list(Lossless().encode(Source({"weight": tensor}), rate_weight=0.0, seed=0))
    back = decode(chunks)["weight"]
    assert back.dtype == tensor.dtype
    assert torch.equal(back.view(torch.uint8), tensor.view(torch.uint8))
    return chunks


def bits_per_weight(chunks: list[Chunk], tensor: Tensor) -> float:
    return 8 * sum(len(chunk.payload) for chunk in chunks) / tensor.numel()


def transforms(chunks: list[Chunk]) -> set[int]:
    return {chunk.payload[0] for chunk in chunks}


def pruned(zeros: float, *shape: int) -> Tensor:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(shape) * (rng.random(shape) >= zeros)
    return torch.from_numpy(values.astype(np.float32)) + 0.0  # + 0.0 makes the negative zeros positive


def test_nine_zeros_in_ten_floats_take_less_than_5_bits_a_weight() -> None:
    weight = pruned(0.9, 512, 512)
    chunks = coded(weight)
    assert transforms(chunks) == {SPARSE_FLOATS}
    assert bits_per_weight(chunks, weight) < 3.2  # 0.47 for the mask, 2.6 for a tenth of a float


def test_ninety_nine_zeros_in_a_hundred_integers_take_less_than_half_a_bit() -> None:
    rng = np.random.default_rng(1)
    counts = torch.from_numpy(rng.integers(-1000, 1000, (512, 512)) * (rng.random((512, 512)) < 0.01))
    chunks = coded(counts)
    assert transforms(chunks) == {SPARSE_INTEGERS}
    assert bits_per_weight(chunks, counts) < 0.25


def test_rows_of_different_density_form_classes_of_the_mask() -> None:
    rng = np.random.default_rng(2)
    density = np.exp2(-rng.uniform(0, 10, (256, 1)))
    weight = pruned(0.0, 256, 512) * torch.from_numpy(rng.random((256, 512)) < density) + 0.0
    shuffled = weight.ravel()[torch.from_numpy(rng.permutation(weight.numel()))].reshape(weight.shape)
    assert bits_per_weight(coded(weight), weight) < bits_per_weight(coded(shuffled), shuffled) - 0.1


def test_floats_without_a_sign_pay_none() -> None:
    weight = pruned(0.8, 300, 300)
    saved = bits_per_weight(coded(weight), weight) - bits_per_weight(coded(weight.abs()), weight)
    assert saved == pytest.approx(0.2, abs=0.02)


def test_large_matrices_with_rows_of_narrower_precision_take_no_more_than_if_all_was_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(3)
    scales = np.exp2(rng.integers(-2, 2, (1100, 1))).astype(np.float32)
    weight = torch.from_numpy(rng.standard_normal((1100, 1000), np.float32) * scales)
    weight[::5] = weight[::5].bfloat16().float()
    at_once = bits_per_weight(coded(weight), weight)
    monkeypatch.setattr("fewbits.methods.lossless._LARGE", weight.numel() + 1)
    assert at_once <= bits_per_weight(coded(weight), weight)
    assert at_once < bits_per_weight(coded(torch.from_numpy(rng.standard_normal((1100, 1000), np.float32))), weight) - 3


@pytest.mark.parametrize(
    "tensor",
    [
        pruned(0.1, 100, 100),  # too few zeros
        pruned(0.9, 7, 9),  # too few elements
        -torch.zeros(100, 100),  # negative zeros are not zero bits
        torch.zeros(100, 100),  # a constant is cheaper
        torch.zeros(100, 100, dtype=torch.int64),
        torch.arange(4).repeat(64),  # small integers code their zeros as well as a mask does
    ],
    ids=["dense", "small", "negative zeros", "zeros", "integer zeros", "small integers"],
)
def test_a_mask_is_only_used_where_it_pays(tensor: Tensor) -> None:
    assert not transforms(coded(tensor)) & {SPARSE_FLOATS, SPARSE_INTEGERS}
