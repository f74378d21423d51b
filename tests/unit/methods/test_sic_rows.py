"""Rows whose errors meet: what they weigh, what is fed back, and what it gains in whole files."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fewbits.encode import decode
from fewbits.method import Curvature, Source
from fewbits.methods.sic import Sic, SicConfig
from fewbits.methods.sic.rows import RowMetric


def coupled(rows: int, columns: int, num_couplings: int = 4, share: float = 0.9, seed: int = 0) -> Curvature:
    """A curvature whose rows' errors meet along a few directions, so much of each."""
    rng = np.random.default_rng(seed)
    couplings = rng.standard_normal((rows, num_couplings))
    couplings *= np.sqrt(share) / np.linalg.norm(couplings, axis=1, keepdims=True)
    outputs = 2.0 ** rng.uniform(-2, 2, rows)
    inputs = 0.8 ** np.abs(np.subtract.outer(np.arange(columns), np.arange(columns))) / columns
    return Curvature(inputs, outputs / outputs.sum(), couplings.astype(np.float32))


def rows_of(known: Curvature) -> NDArray[np.float64]:
    """H, written out."""
    assert known.couplings is not None
    roots = np.sqrt(known.outputs)[:, None] * known.couplings.astype(np.float64)
    dense = roots @ roots.T
    np.fill_diagonal(dense, known.outputs)
    return dense


def loss(found: torch.Tensor, weight: torch.Tensor, known: Curvature) -> float:
    errors = (found.double() - weight.double()).numpy()
    return float(np.einsum("rs,ri,ij,sj->", rows_of(known), errors, known.inputs, errors, optimize=True))


@pytest.mark.parametrize("segment", [1, 32, 40])
def test_rows_weigh_what_is_left_when_all_later_ones_have_answered(segment: int) -> None:
    known, rng = coupled(100, 8), np.random.default_rng(1)
    metric = RowMetric.of(known, columns=0.1, energy=1.0, step=0.03)
    order = rng.permutation(100)
    assert metric.doubt > 0.1 * metric.alone.mean()
    dense = (np.diag(metric.alone + metric.doubt) + metric.felt @ metric.felt.T)[np.ix_(order, order)]
    weights = metric.weights(order, segment)[order]
    scales = 2.0 ** rng.uniform(-1, 1, 100)
    feedback = metric.feedback(order, segment, scales)
    errors = rng.standard_normal(100)  # in units of the scales
    in_order = scales[order]
    for start in range(0, 100, segment):
        stop = min(start + segment, 100)
        own, after = np.arange(start, stop), np.arange(stop, 100)
        inner = np.linalg.solve(dense[np.ix_(after, after)], dense[np.ix_(after, own)])
        left = dense[np.ix_(own, own)] - dense[np.ix_(own, after)] @ inner
        np.testing.assert_allclose(weights[start:stop], np.diag(left) - metric.doubt, rtol=1e-6)
        # What rows would best have, all later ones with them, once those before have their errors.
        to_come = np.arange(start, 100)
        wanted = -np.linalg.solve(
            dense[np.ix_(to_come, to_come)], dense[np.ix_(to_come, np.arange(start))] @ (in_order * errors)[:start]
        )
        sums = feedback.felt[:start].T @ errors[:start].astype(np.float32)
        found = -feedback.shares[:, start:stop].T @ sums * in_order[start:stop]
        np.testing.assert_allclose(found, wanted[: stop - start], rtol=1e-3, atol=1e-5)


def test_what_errors_cost_is_by_all_of_the_rows() -> None:
    known, rng = coupled(70, 6), np.random.default_rng(2)
    metric, errors = RowMetric.of(known, 0.1, 1.0, 0.01), rng.standard_normal((70, 6))
    dense = np.diag(metric.alone) + metric.felt @ metric.felt.T
    assert metric.cost(errors) == pytest.approx(np.einsum("rs,ri,si->", dense, errors, errors))
    half = metric.some(slice(None, None, 2))
    np.testing.assert_array_equal(half.alone, metric.alone[::2])
    np.testing.assert_array_equal(half.felt, metric.felt[::2])


@pytest.mark.parametrize("trellis", [True, False])
@pytest.mark.parametrize("rate_weight", [0.001, 0.03])
def test_feedback_down_a_column_gains(trellis: bool, rate_weight: float) -> None:
    known = coupled(192, 24)
    weight = torch.randn(192, 24, generator=torch.Generator().manual_seed(3))
    costs: dict[bool, float] = {}
    for row_feedback in (False, True):
        config = SicConfig(trellis=trellis, row_feedback=row_feedback)
        source = Source({"weight": weight}, None, {"weight": known})
        chunks = list(Sic(config).encode(source, rate_weight=rate_weight, seed=0))
        assert {chunk.method for chunk in chunks} == {"sic"}
        bits = 8 * sum(len(chunk.payload) for chunk in chunks) / weight.numel()
        costs[row_feedback] = loss(decode(chunks)["weight"], weight, known) * 4**bits  # at equal bits
    assert costs[True] < 0.75 * costs[False]


@pytest.mark.parametrize("row_weights", [True, False])
@pytest.mark.parametrize("couplings", [True, False])
def test_without_couplings_or_weights_of_rows_nothing_is_fed_back(row_weights: bool, couplings: bool) -> None:
    known = coupled(96, 20)
    known = known if couplings else known._replace(couplings=None)
    weight = torch.randn(96, 20, generator=torch.Generator().manual_seed(4))
    payloads: list[bytes] = []
    for row_feedback in (False, True):
        config = SicConfig(row_weights=row_weights, row_feedback=row_feedback)
        source = Source({"weight": weight}, None, {"weight": known})
        (chunk,) = Sic(config).encode(source, rate_weight=0.01, seed=0)
        payloads.append(bytes(chunk.payload))
    assert (payloads[0] == payloads[1]) == (not (row_weights and couplings))


def test_few_rows_are_coded_as_if_their_errors_did_not_meet() -> None:
    weight = torch.randn(40, 20, generator=torch.Generator().manual_seed(5))
    known = coupled(40, 20)
    found: list[bytes] = []
    for each in (known, known._replace(couplings=None)):
        (chunk,) = Sic().encode(Source({"weight": weight}, None, {"weight": each}), rate_weight=0.01, seed=0)
        found.append(bytes(chunk.payload))
    assert found[0] == found[1]
