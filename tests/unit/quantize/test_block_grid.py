"""Grids are found where weights have been quantised in blocks, whatever the format, and nowhere else."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fewbits.quantize.block_grid import BlockGrid, Layout, find_layout, read_grid, values_of
from fewbits.quantize.weights import Weights, rounded_bits
from fewbits.tensors import bits_of, dtype_name

ROWS, COLUMNS = 96, 512


def gaussian(seed: int = 0) -> Tensor:
    return torch.from_numpy((np.random.default_rng(seed).standard_normal((ROWS, COLUMNS)) * 0.02).astype(np.float32))


def four_bits_with_a_minimum(weight: Tensor) -> Tensor:
    """Blocks of 32: a float16 scale and minimum each, as in GGUF's Q4_1."""
    blocks = weight.reshape(-1, 32)
    low = blocks.amin(1, keepdim=True).half().float()
    scale = ((blocks.amax(1, keepdim=True) - low) / 15).half().float()
    return (scale * ((blocks - low) / scale + 0.5).floor().clamp(0, 15) + low).reshape(weight.shape)


def four_bits_about_zero(weight: Tensor) -> Tensor:
    """Blocks of 32: levels -8 to 7 times a float16 scale, below 0 where the largest weight is above it, as in Q4_0."""
    blocks = weight.reshape(-1, 32)
    largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    scale = (largest / -8).half().float()
    return (scale * ((blocks / scale + 8.5).floor().clamp(0, 15) - 8)).reshape(weight.shape)


def eight_bits(weight: Tensor) -> Tensor:
    """Blocks of 32: levels -127 to 127 times a float16 scale, as in Q8_0."""
    blocks = weight.reshape(-1, 32)
    scale = (blocks.abs().amax(1, keepdim=True) / 127).half().float()
    return (scale * (blocks / scale).round().to(torch.int8).float()).reshape(weight.shape)


def blocks_in_blocks(weight: Tensor) -> Tensor:
    """Blocks of 32 in blocks of 256, whose scales and minima are of 6 bits times a float16 one, as in Q4_K."""
    blocks = weight.reshape(-1, 8, 32)
    low = blocks.amin(2, keepdim=True).clamp(max=0)
    scale = (blocks.amax(2, keepdim=True) - low) / 15
    of_scales = (scale.amax(1, keepdim=True) / 63).half().float()
    of_minima = (-low.amin(1, keepdim=True) / 63).half().float()
    scale, minimum = of_scales * (scale / of_scales).round(), of_minima * (-low / of_minima).round()
    return (scale * ((blocks + minimum) / scale).round().clamp(0, 15) - minimum).reshape(weight.shape)


def integers_by_row(weight: Tensor) -> Tensor:
    """int8 with a float32 scale for each output, its product rounded to float32."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round().to(torch.int8).float() * scale


def four_bits_in_half(weight: Tensor) -> Tensor:
    """Groups of 128 with a scale and a zero point, products rounded to float16."""
    groups = weight.reshape(-1, 128)
    low = groups.amin(1, keepdim=True)
    scale = ((groups.amax(1, keepdim=True) - low) / 15).half()
    zero = (-low / scale.float()).round()
    levels = ((groups / scale.float()).round() + zero).clamp(0, 15) - zero
    return ((levels + 0.0).half() * scale).reshape(weight.shape)


def microscaled(weight: Tensor) -> Tensor:
    """Blocks of 32 with a power of 2 each and values of 4 bits, as in MXFP4; blocks are of very different sizes."""
    blocks = weight.reshape(-1, 32) * torch.from_numpy(2.0 ** np.random.default_rng(1).integers(-9, 9, (ROWS * 16, 1)))
    scale = torch.exp2(torch.floor(torch.log2(blocks.abs().amax(1, keepdim=True))) - 2)
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    nearest = values[((blocks / scale).abs()[..., None] - values).abs().argmin(-1)]
    return (torch.where(blocks < 0, -nearest, nearest + 0.0) * scale + 0.0).float().reshape(weight.shape)


def ternary(weight: Tensor) -> Tensor:
    """Three values a row."""
    scale = weight.abs().mean(1, keepdim=True).half().float()
    return (weight / scale).round().clamp(-1, 1).to(torch.int8).float() * scale


def binary(weight: Tensor) -> Tensor:
    """Two values a row, neither of them 0."""
    return torch.where(weight > 0, 1.0, -1.0) * weight.abs().mean(1, keepdim=True)


Quantise = Callable[[Tensor], Tensor]
FORMATS: list[tuple[Quantise, Layout]] = [
    (four_bits_with_a_minimum, Layout(32, False)),
    (four_bits_about_zero, Layout(32, True)),
    (eight_bits, Layout(32, True)),
    (blocks_in_blocks, Layout(32, False)),
    (integers_by_row, Layout(COLUMNS, True)),
    (four_bits_in_half, Layout(128, True)),
    (microscaled, Layout(32, True)),
    (ternary, Layout(COLUMNS, True)),
    (binary, Layout(COLUMNS, False)),
]


def weights_of(tensor: Tensor) -> Weights:
    return Weights(bits_of(tensor), dtype_name(tensor.dtype))


def grid_of(tensor: Tensor) -> BlockGrid | None:
    weights = weights_of(tensor)
    layout = find_layout(weights, len(tensor))
    return layout and read_grid(weights, layout)


@pytest.mark.parametrize(("quantise", "layout"), FORMATS)
def test_what_was_quantised_in_blocks_comes_back_to_the_bit(quantise: Quantise, layout: Layout) -> None:
    tensor = quantise(gaussian())
    weights = weights_of(tensor)
    assert find_layout(weights, ROWS) == layout
    grid = read_grid(weights, layout)
    assert grid is not None
    assert grid.exact is not None
    assert np.abs(grid.levels).max() <= 256
    again = values_of(grid.levels, *grid.exact)
    assert rounded_bits(again.ravel(), weights.dtype).tobytes() == weights.bits.tobytes()


@pytest.mark.parametrize(("quantise", "layout"), FORMATS)
def test_scales_and_offsets_say_where_levels_are(quantise: Quantise, layout: Layout) -> None:
    tensor = quantise(gaussian())
    grid = grid_of(tensor)
    assert grid is not None
    offsets = 0 if grid.offsets is None else grid.offsets[:, None]
    off = grid.levels * grid.scales[:, None] + offsets - tensor.double().numpy().reshape(grid.levels.shape)
    assert (grid.offsets is None) == layout.is_signed
    assert np.abs(off / grid.scales[:, None]).max() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_that_were_not_quantised_have_no_grid(dtype: torch.dtype) -> None:
    for seed in range(20):
        assert find_layout(weights_of(gaussian(seed).to(dtype)), ROWS) is None
    assert find_layout(weights_of(gaussian().to(dtype).float()), ROWS) is None  # of few bits, but on no even grid


def test_one_block_without_a_grid_is_noticed() -> None:
    tensor = four_bits_with_a_minimum(gaussian())
    values = tensor[50, 32:64].unique()
    tensor[50, 37] += 0.37 * (values[1:] - values[:-1]).amin()
    weights = weights_of(tensor)
    layout = find_layout(weights, ROWS)
    assert layout == Layout(32, False)  # as the sample says
    assert read_grid(weights, layout) is None


def test_a_grid_may_be_known_and_not_to_the_bit() -> None:
    """Zeros of both signs, as rounding weights leaves them, are not those of one scale."""
    scale = gaussian().abs().amax(1, keepdim=True) / 7
    grid = grid_of((gaussian() / scale).round() * scale)
    assert grid is not None
    assert grid.exact is None


def test_blocks_of_equal_values_have_a_scale_of_0_and_are_exact() -> None:
    tensor = four_bits_with_a_minimum(gaussian())
    tensor[::3, :64] = 0.5
    tensor[1::3, 32:64] = 0
    grid = grid_of(tensor)
    assert grid is not None
    assert grid.exact is not None
    again = values_of(grid.levels, *grid.exact)
    assert again.tobytes() == tensor.numpy().tobytes()


@pytest.mark.parametrize("value", [0.0, -0.0, 3.5])
def test_a_tensor_of_one_value_is_nothing_for_blocks(value: float) -> None:
    assert find_layout(weights_of(torch.full((64, 64), value)), 64) is None


@pytest.mark.parametrize("shape", [(64, 15), (64, 17), (3, 20_001), (0, 32), (64, 0)])
def test_rows_that_are_too_short_or_too_long_have_none(shape: tuple[int, int]) -> None:
    tensor = torch.arange(shape[0] * shape[1]).reshape(shape) % 7 * 0.25
    layout = find_layout(weights_of(tensor), shape[0])
    assert layout is None or layout.length == shape[1] == 17


def test_values_that_are_not_finite_have_none() -> None:
    tensor = four_bits_with_a_minimum(gaussian())
    tensor[::2, ::5] = float("nan")
    assert find_layout(weights_of(tensor), ROWS) is None
