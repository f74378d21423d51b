"""Channel simulation: bits above the divergence, and candidates, of every simulator; bits are read from coded bytes."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from . import Options, channel_speed
from .inputs import load_fewbits, need
from .row import Figure, Measured, Row

takes_rivals = False

DRAWS, DRAWS_CURVE, BATCH = 20_000, 2_000, 1_000
STATES, CONCENTRATION, NUM_TARGETS, NUM_CANDIDATES = 8192, 0.01, 4, 1024
CURVE, CURVE_GREEDY, CURVE_TREE = 12, 8, 16  # bits; greedy rejection sampling takes a step of Python a candidate
SLACK, CAP = 4, 1 << 17  # log2 of candidates beyond the information, where their number is fixed; where it is not


class Coded(NamedTuple):
    """A batch of samples as they would be in a file.

    size: bytes of indices and cells; zipf_size, delta_size: the same with the Zipf exponent of the paper's bound, and
        with Elias's delta code, where `size` is of what is shortest, a table of the batch's own included.
    values: what they decode to; candidates: (draws,) looked at; capped: share of searches that ended at the cap.
    """

    size: int
    zipf_size: int
    delta_size: int
    values: Any
    candidates: Any
    capped: float


def rows(options: Options) -> Iterator[Row]:
    """Measure the cases with figures and speeds, then a curve for each simulator."""
    need("torch")
    load_fewbits()
    yield from _gaussian_rows(options.seed)
    yield from _plane_rows(options.seed)
    yield from _categorical_rows(options.seed)
    yield from _tree_rows(options.seed)
    yield from channel_speed.rows(options.seed)
    for name, (make, most) in _curves().items():
        for information in range(1, most + 1):
            yield _curve_row(name, make, information, options.seed)


def _gaussian_rows(seed: int) -> Iterator[Row]:
    """One dimension, sd 0.01, 6.64 bits."""
    from fewbits.channel.hybrid import Hybrid
    from fewbits.channel.pfr import Pfr

    target, proposal = _gaussians(0.01, DRAWS, seed)
    settings = {"sd": 0.01, "draws": DRAWS, "seed": seed}
    hybrid = Hybrid.fitting(target, proposal)
    coded = coded_samples(hybrid, target, proposal, seed)
    asked = (Figure("bits", "<=", 9.0), Figure("median_candidates", "<=", 6))
    cells = settings | {"cells": hybrid.num_cells.tolist()}
    yield Row("fewbits hybrid 1-D", _measured(coded, target, proposal), asked, cells)
    yield Row("fewbits hybrid 1-D, Elias delta", _measured(coded, target, proposal, delta=True), (), cells)
    coded = coded_samples(Pfr(), target, proposal, seed)
    yield Row("fewbits pfr 1-D", _measured(coded, target, proposal), (Figure("bits", "<=", 10.0),), settings)
    yield Row("fewbits pfr 1-D, Elias delta", _measured(coded, target, proposal, delta=True), (), settings)


def _plane_rows(seed: int) -> Iterator[Row]:
    """Two dimensions, sd 1, means with sd 40 and 20: 9.65 bits."""
    import numpy as np

    from fewbits.channel.distributions import Gaussian
    from fewbits.channel.hybrid import Hybrid

    spread = np.array([40.0, 20.0])
    mean = np.random.default_rng(seed).normal(0, 1, (DRAWS, 2)) * spread
    target, proposal = Gaussian(mean, 1.0), Gaussian(np.zeros(2), np.sqrt(spread**2 + 1))
    simulator = Hybrid.fitting(target, proposal)
    measured = _measured(coded_samples(simulator, target, proposal, seed), target, proposal)
    asked = (Figure("bits", "<=", 12.4), Figure("median_candidates", "<=", 25))
    yield Row("fewbits hybrid 2-D", measured, asked, {"draws": DRAWS, "cells": simulator.num_cells.tolist()})


def _categorical_rows(seed: int) -> Iterator[Row]:
    """Four targets of 8,192 states against equal probabilities: bits, and distance of 20,000 draws each from them."""
    import numpy as np

    from fewbits.channel.distributions import Counts
    from fewbits.channel.mrc import Mrc
    from fewbits.channel.orc import Orc
    from fewbits.channel.pfr import Pfr

    targets = np.random.default_rng(seed).dirichlet(np.full(STATES, CONCENTRATION), NUM_TARGETS)
    proposal = Counts.uniform(STATES)
    exact = float(np.mean([_distance(_exact_draws(target, seed), target) for target in targets]))
    settings = {"states": STATES, "targets": NUM_TARGETS, "draws": DRAWS, "candidates": NUM_CANDIDATES, "seed": seed}
    ordered = math.nan
    for name, simulator in (
        ("orc", Orc(NUM_CANDIDATES)),
        ("pfr cut", Pfr(NUM_CANDIDATES)),
        ("mrc", Mrc(NUM_CANDIDATES)),
    ):
        measured = _categorical(simulator, targets, proposal, seed) | {"exact_draws_total_variation": exact}
        asked: tuple[Figure, ...] = ()
        if name == "orc":
            ordered = float(measured["total_variation"])
            asked = (Figure("bits", "<=", 7.7), Figure("total_variation", "<=", 0.065))
        elif name == "pfr cut":
            measured["orc_less_pfr_total_variation"] = ordered - float(measured["total_variation"])
            asked = (Figure("orc_less_pfr_total_variation", ">=", 0.0),)
        yield Row(f"fewbits {name} categorical", measured, asked, settings)


def _categorical(simulator: Any, targets: Any, proposal: Any, seed: int) -> dict[str, Measured]:
    """Bits and total variation, means over targets."""
    import numpy as np

    from fewbits.channel.distributions import Categorical

    sizes, distances, divergences, candidates = [], [], [], []
    for number, target in enumerate(targets):
        parts = []
        for start in range(0, DRAWS, BATCH):
            batch = Categorical(np.broadcast_to(target, (BATCH, STATES)))
            streams = number * DRAWS + start + np.arange(BATCH)
            message = simulator.encode(batch, proposal, seed=seed, numbers=streams)
            parts.append((message, simulator.decode(message, proposal, seed=seed, numbers=streams)))
        indices = np.concatenate([message.indices for message, _ in parts])
        candidates += [message.num_candidates for message, _ in parts]
        sizes.append(len(_index_bytes(simulator, indices, None)))
        distances.append(_distance(np.concatenate([values for _, values in parts]), target))
        divergences.append(float((target * np.log2(np.maximum(target, 1e-300) * STATES)).sum()))
    divergence, bits = float(np.mean(divergences)), 8 * float(np.mean(sizes)) / DRAWS
    return {
        "bits": bits,
        "divergence": divergence,
        "bits_above": bits - divergence,
        "median_candidates": float(np.median(np.concatenate(candidates))),
        "mean_candidates": float(np.mean(np.concatenate(candidates))),
        "total_variation": float(np.mean(distances)),
    }


def _distance(values: Any, probabilities: Any) -> float:
    import numpy as np

    return float(np.abs(np.bincount(values, minlength=STATES) / len(values) - probabilities).sum() / 2)


def _exact_draws(target: Any, seed: int) -> Any:
    import numpy as np

    return np.random.default_rng(seed + 1).choice(STATES, DRAWS, p=target)


def _tree_rows(seed: int) -> Iterator[Row]:
    """One dimension, sd 2^-12: 12 bits."""
    from fewbits.channel.tree import Tree

    target, proposal = _gaussians(2.0**-12, DRAWS, seed)
    measured = _measured(coded_samples(Tree(), target, proposal, seed), target, proposal)
    asked = (Figure("mean_candidates", "<=", 16), Figure("bits", "<=", 18.5))
    yield Row("fewbits tree 1-D 12 bit", measured, asked, {"sd": 2.0**-12, "draws": DRAWS, "seed": seed})


def _curves() -> dict[str, tuple[Callable[[Any, Any, int], Any], int]]:
    """For each curve how to make the simulator, of targets, proposal and bits, and its last point in bits."""
    from fewbits.channel.greedy import Greedy
    from fewbits.channel.hybrid import Hybrid
    from fewbits.channel.mrc import Mrc
    from fewbits.channel.orc import Orc
    from fewbits.channel.pfr import Pfr
    from fewbits.channel.tree import Tree

    return {
        "mrc": (lambda target, proposal, bits: Mrc(1 << bits + SLACK), CURVE),
        "orc": (lambda target, proposal, bits: Orc(1 << bits + SLACK), CURVE),
        "pfr": (lambda target, proposal, bits: Pfr(CAP), CURVE),
        "greedy": (lambda target, proposal, bits: Greedy(1 << bits + SLACK), CURVE_GREEDY),
        "hybrid": (lambda target, proposal, bits: Hybrid.fitting(target, proposal, cap=CAP), CURVE),
        "tree": (lambda target, proposal, bits: Tree(), CURVE_TREE),
    }


def _curve_row(name: str, make: Callable[[Any, Any, int], Any], information: int, seed: int) -> Row:
    target, proposal = _gaussians(2.0**-information, DRAWS_CURVE, seed)
    simulator = make(target, proposal, information)
    measured = _measured(coded_samples(simulator, target, proposal, seed), target, proposal)
    settings = {"sd": 2.0**-information, "draws": DRAWS_CURVE, "seed": seed, "cap": simulator.cap}
    return Row(f"fewbits curve {name} {information} bit", {"information": information} | measured, (), settings)


def _gaussians(sd: float, draws: int, seed: int) -> tuple[Any, Any]:
    """Targets in one dimension whose samples together are standard normal, the proposal."""
    import numpy as np

    from fewbits.channel.distributions import Gaussian

    mean = np.random.default_rng(seed).normal(0, math.sqrt(1 - sd * sd), (draws, 1))
    return Gaussian(mean, sd), Gaussian(np.zeros(1), 1.0)


def coded_samples(simulator: Any, target: Any, proposal: Any, seed: int) -> Coded:
    """Send a sample of each target, read the bytes and check that they give the encoder's candidates."""
    import numpy as np

    from fewbits.channel.index_code import DELTA, decode_indices, exponent_for
    from fewbits.channel.problem import problem_of

    messages = []
    for start in range(0, len(target.mean), BATCH):
        rows = slice(start, start + BATCH)
        part = target.mapped(lambda each, rows=rows: each[rows])
        messages.append(simulator.encode(part, proposal, seed=seed, numbers=np.arange(len(target.mean))[rows]))
    message = type(messages[0])(*(np.concatenate(each) for each in zip(*messages, strict=True)))
    indices, cells = message.indices, mixed_radix(message.offsets, getattr(simulator, "num_cells", ()))
    data = _index_bytes(simulator, indices, None)
    if not _is_fixed(simulator) and (decode_indices(data, len(indices), simulator.cap) != indices).any():
        raise RuntimeError("indices do not come back from their bytes.")
    told = float(problem_of(target, proposal).divergence.mean()) / math.log(2) - getattr(simulator, "cell_bits", 0.0)
    zipf, delta = (_index_bytes(simulator, indices, each) for each in (exponent_for(max(told, 0.0)), DELTA))
    return Coded(
        len(data) + len(cells),
        len(zipf) + len(cells),
        len(delta) + len(cells),
        simulator.decode(message, proposal, seed=seed),
        message.num_candidates,
        float(message.capped.mean()),
    )


def _is_fixed(simulator: Any) -> bool:
    """Whether a simulator's indices are all alike, so that they take a fixed number of bits."""
    return type(simulator).__name__ == "Mrc"


def _index_bytes(simulator: Any, indices: Any, exponent: int | None) -> bytes:
    import numpy as np

    from fewbits.channel.index_code import encode_indices
    from fewbits.coder.bits import pack_raw

    if _is_fixed(simulator):
        return pack_raw(indices.astype(np.uint64), (simulator.cap - 1).bit_length())
    return encode_indices(indices, simulator.cap, exponent)


def mixed_radix(offsets: Any, num_cells: Any) -> bytes:
    """Return offsets (draws, dim) as the bytes of one integer with num_cells (dim,) as its radices."""
    value, most = 0, 0
    for row in offsets.tolist():
        for offset, cells in zip(row, num_cells, strict=True):
            value, most = value * int(cells) + offset, most * int(cells) + int(cells) - 1
    return value.to_bytes((most.bit_length() + 7) // 8, "little")


def _measured(coded: Coded, target: Any, proposal: Any, *, delta: bool = False) -> dict[str, Measured]:
    """Bits and divergence, both means over samples; candidates; and the samples' spread: 1 where they have no bias."""
    import numpy as np

    from fewbits.channel.problem import problem_of

    problem = problem_of(target, proposal)
    divergence = float(problem.divergence.mean()) / math.log(2)
    size = coded.delta_size if delta else coded.size
    bits = 8 * size / problem.size
    return {
        "size": size,
        "bits": bits,
        "divergence": divergence,
        "bits_above": bits - divergence,
        "zipf_bits": 8 * coded.zipf_size / problem.size,
        "median_candidates": float(np.median(coded.candidates)),
        "mean_candidates": float(np.mean(coded.candidates)),
        "capped": coded.capped,
        "spread": float((((coded.values - target.mean) / target.sd) ** 2).mean()),
    }
