"""Descent on two factors: it finds factors that are there, and its special cases are what others make of them."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import SparsePCA

from fewbits.methods.qswd.clusters import lloyd, nearest
from fewbits.methods.qswd.descent import (
    ONE,
    Pair,
    Problem,
    Sparsity,
    descend,
    normalised,
    principal,
    rotate,
    sparsest_rotation,
    threshold,
    with_examples,
)

Matrix = NDArray[np.float64]


def relative_error(problem: Problem, pair: Pair) -> float:
    return float(np.linalg.norm(pair.product() - problem.vectors) / np.linalg.norm(problem.vectors))


def factored(seed: int, height: int, rank: int, count: int, share: float) -> tuple[Matrix, int]:
    """A product of small whole numbers, one factor sparse; and how many of its values are not 0."""
    rng = np.random.default_rng(seed)
    codebook = rng.integers(-7, 8, (height, rank)).astype(np.float64)
    sizes = rng.integers(1, 8, (rank, count)) * rng.choice([-1, 1], (rank, count))
    sparse = np.where(rng.random((rank, count)) < share, sizes, 0)
    product = codebook @ sparse
    return product * (60 / np.abs(product).max()), int(np.count_nonzero(sparse))


@pytest.mark.parametrize(
    ("height", "rank", "count", "share"), [(16, 12, 600, 0.2), (12, 12, 600, 0.2), (32, 16, 1000, 0.25)]
)
def test_factors_that_are_there_are_found_from_random_starts(height: int, rank: int, count: int, share: float) -> None:
    vectors, present = factored(0, height, rank, count, share)
    problem = Problem.of(vectors)
    components = principal(problem, rank, rotated=False)
    found = 0
    for seed in range(10):
        start = np.linalg.qr(np.random.default_rng(seed).standard_normal((rank, rank)))[0]
        pair = rotate(components, sparsest_rotation(components.coefficients, start))
        pair = descend(problem, pair, Sparsity(most=present), turns=60)
        assert np.count_nonzero(pair.coefficients) <= present
        found += relative_error(problem, pair) < 0.01
    assert found >= 8


def test_without_sparsity_it_is_the_truncated_svd() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((24, 200)) * np.linspace(20, 1, 24)[:, None]
    problem = Problem.of(vectors)
    _, singular, _ = np.linalg.svd(vectors, full_matrices=False)
    for rank in (2, 6, 15):
        best = float(np.sqrt(np.square(singular[rank:]).sum() / np.square(singular).sum()))
        assert relative_error(problem, principal(problem, rank, rotated=False)) <= 1.01 * best
        # From anywhere, descent without a limit gets there.
        start = normalised(Pair(np.rint(ONE * rng.standard_normal((24, rank))), np.zeros((rank, 200))))
        pair = descend(problem, start, Sparsity(), turns=80)
        assert relative_error(problem, pair) <= 1.01 * best


def test_one_hot_coefficients_are_k_means() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((4, 3000)) + 3 * rng.integers(-1, 2, (4, 3000))
    problem = Problem.of(vectors)
    start = problem.vectors[:, rng.permutation(3000)[:40]]
    centres = lloyd(problem.vectors, start, 300)
    error = np.square(problem.vectors - centres[:, nearest(problem.vectors, centres)]).sum()
    theirs = KMeans(40, init=start.T, n_init=1, max_iter=300, tol=0).fit(problem.vectors.T)
    # Both are where turns end from one start; roundings send them different ways, not far.
    assert 0.95 * theirs.inertia_ < error <= 1.01 * theirs.inertia_


def test_without_quantisation_it_is_no_worse_than_sparse_pca() -> None:
    vectors, _ = factored(3, 16, 6, 60, 0.3)
    vectors = vectors + 0.5 * np.random.default_rng(4).standard_normal(vectors.shape)
    theirs = SparsePCA(6, alpha=0.5, ridge_alpha=1e-6, random_state=0, max_iter=50, method="cd").fit(vectors)
    # Its components are sparse: these are our coefficients, and its codes our codebook.
    codes = np.linalg.lstsq(theirs.components_.T, (vectors - vectors.mean(axis=0)).T, rcond=None)[0].T
    error = float(np.linalg.norm(codes @ theirs.components_ - (vectors - vectors.mean(axis=0))))
    present = int(np.count_nonzero(theirs.components_))
    problem = Problem.of(vectors - vectors.mean(axis=0))
    pair = descend(problem, principal(problem, 6), Sparsity(most=present), turns=60)
    ours = float(np.linalg.norm(pair.product() / problem.fine - (vectors - vectors.mean(axis=0))))
    assert np.count_nonzero(pair.coefficients) <= present
    assert ours <= 1.01 * error


def test_errors_count_by_the_covariance_of_inputs() -> None:
    rng = np.random.default_rng(5)
    matrix = 4 * rng.standard_normal((16, 40))
    mixed = rng.standard_normal((40, 40)) * np.geomspace(1, 30, 40)
    covariance = mixed.T @ mixed
    problem = Problem.of(matrix)

    def weighed(pair: Pair) -> float:
        error = pair.product() / problem.fine - matrix
        return float(np.trace(error @ covariance @ error.T))

    start = principal(problem, 8)
    plain = descend(problem, start, Sparsity(most=160), turns=40)
    aware = descend(problem.weighted(covariance), start, Sparsity(most=160), turns=40)
    assert weighed(aware) < 0.7 * weighed(plain)


def test_a_rotation_makes_coefficients_sparse_and_keeps_the_product() -> None:
    vectors, _ = factored(6, 12, 8, 500, 0.2)
    problem = Problem.of(vectors)
    plain, turned = principal(problem, 8, rotated=False), principal(problem, 8)
    assert relative_error(problem, turned) < relative_error(problem, plain) + 2e-3

    def peakedness(pair: Pair) -> float:
        scaled = pair.coefficients / np.sqrt(np.square(pair.coefficients).mean(axis=1, keepdims=True))
        return float((scaled**4).mean())

    assert peakedness(turned) > 1.3 * peakedness(plain)


@pytest.mark.parametrize("most", [0, 1, 7, 60, 100])
def test_no_more_is_kept_than_asked(most: int) -> None:
    problem = Problem.of(np.random.default_rng(7).standard_normal((5, 20)) * 9)
    pair = descend(problem, principal(problem, 3), Sparsity(most=most), turns=5)
    assert np.count_nonzero(pair.coefficients) <= most
    assert np.isfinite(pair.codebook).all()


def test_thresholds() -> None:
    values = np.array([[4.0, -9.0, 1.0, 0.0]])
    assert threshold(values, Sparsity(least=0.5), 8) == 4
    assert threshold(values, Sparsity(most=2), 8) == 4
    assert threshold(values, Sparsity(most=0), 8) == np.inf
    assert threshold(values, Sparsity(most=9), 8) == 0


def test_columns_are_added_up_to_the_number_of_vectors() -> None:
    problem = Problem.of(np.random.default_rng(8).standard_normal((3, 5)) * 9)
    pair = with_examples(problem, principal(problem, 3), 50)
    assert pair.codebook.shape == (3, 8)
    assert np.abs(np.sqrt(np.square(pair.codebook).sum(axis=0)) / ONE - 1).max() < 0.01


def test_vectors_of_nothing_have_factors_of_nothing() -> None:
    problem = Problem.of(np.zeros((4, 10)))
    pair = descend(problem, principal(problem, 4), Sparsity(least=0.6), turns=3)
    assert not pair.product().any()


def test_large_vectors_keep_sums_exact() -> None:
    problem = Problem.of(np.random.default_rng(9).standard_normal((8, 100)) * 1e5)
    assert np.abs(problem.vectors).max() < 2.0**20
    assert problem.fine == 1
