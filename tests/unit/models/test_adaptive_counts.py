"""The adaptive rate: code lengths from counts of rows, columns and slices, and their slope between integers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fewbits.models.adaptive_counts import AdaptiveCounts, Layout

LAYOUTS = [Layout(1, 40, 1), Layout(6, 8, 1), Layout(5, 4, 9), Layout(1, 1, 1), Layout(3, 1, 7)]


def sparse(layout: Layout, seed: int, density: float = 0.3) -> Tensor:
    """Integers (rows, slices × inner), mostly 0, some of them of magnitudes up to 3 or so."""
    generator = torch.Generator().manual_seed(seed)
    shape = (layout.rows, layout.slices * layout.inner)
    magnitudes = (3 * torch.rand(shape, generator=generator)).ceil()
    signs = 1 - 2 * torch.randint(2, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < density, signs * magnitudes, 0.0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_total_is_the_sum_of_the_bits(layout: Layout) -> None:
    values = sparse(layout, 0)
    model = AdaptiveCounts(values, layout)
    for seen in (values, values + 0.3, 2 * torch.randn(values.shape), torch.zeros_like(values)):
        bits = model.bits(seen)
        assert bits.shape == seen.shape and bool((bits >= 0).all())
        torch.testing.assert_close(model.total_bits(seen), bits.sum())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_linear_between_integers_and_symmetric(layout: Layout) -> None:
    values = sparse(layout, 1)
    model = AdaptiveCounts(values, layout)
    for low in range(5):
        ends = [model.bits(torch.full_like(values, float(low + up))) for up in (0, 1)]
        for part in (0.0, 0.25, 0.9, 1.0):
            between = model.bits(torch.full_like(values, low + part))
            torch.testing.assert_close(between, (1 - part) * ends[0] + part * ends[1])
            torch.testing.assert_close(model.bits(torch.full_like(values, -low - part)), between)
        assert bool((ends[1] > ends[0]).all())


@given(st.sampled_from(LAYOUTS), st.integers(0, 2**31), st.floats(0, 1))
def test_gradients_are_finite_differences(layout: Layout, seed: int, density: float) -> None:
    model = AdaptiveCounts(sparse(layout, seed, density), layout)
    generator = torch.Generator().manual_seed(seed)
    # Away from the integers, where the slope jumps, by more than the difference's width.
    whole = torch.randint(-4, 4, (layout.rows, layout.slices * layout.inner), generator=generator)
    values = (whole + 0.1 + 0.8 * torch.rand(whole.shape, generator=generator)).requires_grad_()
    (gradient,) = torch.autograd.grad(3 * model.total_bits(values), values)
    with torch.no_grad():
        difference = (model.bits(values + 0.05) - model.bits(values - 0.05)) / 0.1
    torch.testing.assert_close(gradient, 3 * difference, rtol=1e-3, atol=2e-3)
    assert bool((gradient.sign() == values.sign()).all())  # nothing is free: all are drawn to 0
    assert bool((gradient.abs() >= 3 * 0.2 - 1e-6).all())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_derivatives_of_the_sum_of_bits_and_of_the_total_agree(layout: Layout) -> None:
    model = AdaptiveCounts(sparse(layout, 2), layout)
    values = (torch.randn(layout.rows, layout.slices * layout.inner) * 2).requires_grad_()
    (of_total,) = torch.autograd.grad(model.total_bits(values), values)
    (of_sum,) = torch.autograd.grad(model.bits(values).sum(), values)
    torch.testing.assert_close(of_total, of_sum)


def test_at_a_magnitude_of_1_the_slope_is_that_of_the_next_step() -> None:
    model = AdaptiveCounts(sparse(Layout(4, 5, 1), 9), Layout(4, 5, 1))
    for magnitude, slope in ((0.999, model.first), (1.0, model.further), (1.001, model.further)):
        values = torch.full((4, 5), -magnitude, requires_grad=True)
        (gradient,) = torch.autograd.grad(model.total_bits(values), values)
        assert torch.equal(gradient, -slope.expand(4, 5))


def test_at_zero_there_is_no_pull_and_far_away_it_is_finite() -> None:
    model = AdaptiveCounts(torch.tensor([[0.0, 1.0, 0.0]]), Layout(1, 3, 1))
    values = torch.tensor([[0.0, 1e30, -1e30]], requires_grad=True)
    total = model.total_bits(values)
    total.backward()
    assert values.grad is not None and bool(total.isfinite())
    assert values.grad[0, 0] == 0 and values.grad[0, 1] == -values.grad[0, 2] == model.further > 0


def clipped(probability: Tensor) -> Tensor:
    return probability.clamp(5e-4, 0.9)


def test_a_vector_is_counted_as_a_whole() -> None:
    values = torch.tensor([0.0, 0.4, -1.0, 2.6, 0.0, 0.0])  # rounds to two that are not 0: of magnitudes 1 and 3
    model = AdaptiveCounts(values, Layout(1, 6, 1))
    present = (2 + 1) / (6 + 2)
    goes_on = (2 + 0.5) / (2 + 3 + 1)
    expected = [-math.log2(1 - present), 1 - math.log2(present) - math.log2(1 - goes_on)]
    expected += [expected[1] - math.log2(goes_on), expected[1] - 2 * math.log2(goes_on)]
    for magnitude, bits in enumerate(expected):
        found = model.bits(torch.full((6,), -float(magnitude)))
        torch.testing.assert_close(found, torch.full((6,), bits))


def test_a_matrix_is_counted_by_rows_and_columns() -> None:
    values = sparse(Layout(7, 9, 1), 3)
    model = AdaptiveCounts(values, Layout(7, 9, 1))
    present = (values != 0).float()
    probability = clipped((present.sum(1, keepdim=True) + 0.3) * (present.sum(0) + 0.3) / (present.sum() + 1))
    torch.testing.assert_close(model.bits(torch.zeros(7, 9)), -torch.log2(1 - probability))
    torch.testing.assert_close(model.zero, -torch.log2(1 - probability))


def test_slices_are_counted_each_and_shrunk_to_row_times_slice() -> None:
    layout = Layout(4, 5, 9)
    values = sparse(layout, 4)
    model = AdaptiveCounts(values, layout)
    present = (values != 0).float().reshape(4, 5, 9)
    by_row = (present.sum((1, 2)) + 0.3) / 45
    by_slice = (present.sum((0, 2)) + 0.3) / 36
    expected = (by_row[:, None] * by_slice / ((present.sum() + 1) / 180)).clamp(1e-3, 0.9)
    probability = clipped((present.sum(2) + 3 * expected) / 12)
    torch.testing.assert_close(model.zero, -torch.log2(1 - probability).repeat_interleave(9, 1))


def test_weak_rows_and_columns_pay_more_for_what_they_have() -> None:
    values = torch.zeros(10, 10)
    values[:5, :5] = 1
    values[9, 9] = 1
    one = AdaptiveCounts(values, Layout(10, 10, 1)).first
    assert one[9, 9] > one[0, 9] > one[0, 0] and one[9, 9] > one[9, 0] > one[0, 0]


@pytest.mark.parametrize("layout", [Layout(1, 4000, 1), Layout(60, 80, 1), Layout(20, 20, 9)])
def test_integers_cost_about_their_entropy(layout: Layout) -> None:
    values = sparse(layout, 5, 0.1)
    _, counts = values.unique(return_counts=True)
    entropy = -float((counts * (counts / values.numel()).log2()).sum())
    assert float(AdaptiveCounts(values, layout).total_bits(values)) == pytest.approx(entropy, rel=0.12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_refreshing_is_counting_anew(layout: Layout) -> None:
    one, other = sparse(layout, 6), sparse(layout, 7, 0.8) + 0.2
    model = AdaptiveCounts(one, layout)
    model.refresh(other)
    expected = AdaptiveCounts(other, layout)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, expected.get_buffer(name)), name
    assert set(model.state_dict()) == {"zero", "first", "further", "total_zero"}


@pytest.mark.parametrize("fill", [0.0, 1.0, -40.0, 1e6])
def test_counts_of_one_value_only_are_finite(fill: float) -> None:
    for layout in LAYOUTS:
        values = torch.full((layout.rows, layout.slices * layout.inner), fill)
        model = AdaptiveCounts(values, layout)
        assert all(bool(buffer.isfinite().all()) and bool((buffer >= 0).all()) for buffer in model.buffers())


def test_latents_keep_their_shape() -> None:
    values = torch.randn(3, 4, 2, 2)
    model = AdaptiveCounts(values, Layout(3, 4, 4))
    assert model.bits(values).shape == model.first.shape == values.shape


def test_a_draw_goes_backward_after_a_refresh() -> None:
    values = sparse(Layout(4, 5, 1), 8).add(0.3).requires_grad_()
    model = AdaptiveCounts(values, Layout(4, 5, 1))
    (expected,) = torch.autograd.grad(model.total_bits(values), values)
    total = model.total_bits(values)
    model.refresh(torch.full((4, 5), 3.0))
    (found,) = torch.autograd.grad(total, values)
    assert torch.equal(found, expected)
    assert not torch.equal(torch.autograd.grad(model.total_bits(values), values)[0], expected)


def test_nothing_costs_nothing() -> None:
    for shape, layout in (((0,), Layout(1, 0, 1)), ((0, 5), Layout(0, 5, 1)), ((3, 0, 2, 2), Layout(3, 0, 4))):
        values = torch.zeros(shape, requires_grad=True)
        model = AdaptiveCounts(values, layout)
        total = model.total_bits(values)
        total.backward()
        model.refresh(values)
        assert float(total.detach()) == 0 and model.bits(values).shape == shape


def test_it_takes_values_without_noise_and_trains_nothing() -> None:
    model = AdaptiveCounts(torch.zeros(3), Layout(1, 3, 1))
    assert not model.takes_noise and not list(model.parameters())
