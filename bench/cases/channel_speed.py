"""Speed of scoring candidates: one thread beside NumPy, in turns; all blocks of LeNet5 on all threads."""

import os
from collections.abc import Callable, Iterator
from typing import Any

from .row import Figure, Row
from .timing import Action, interleaved, timed

NUM_BLOCKS, DIM = 621, 40  # of LeNet5 as MIRACLE's authors have it: 24,830 values
BITS, BITS_BESIDE, BLOCKS_BESIDE = 20, 14, 8  # log2 of candidates; fewer of both where NumPy takes part
REPEATS = 5


def rows(seed: int) -> Iterator[Row]:
    """Time choosing among a table's candidates, and among those of each block's own stream."""
    yield from _beside_numpy(seed)
    yield from _all_blocks(seed)


def _beside_numpy(seed: int) -> Iterator[Row]:
    """One thread against NumPy: written out for the same numbers, and by a matrix product, for nearly the same."""
    from fewbits.channel.scores import candidate_table, select_from_stream, select_from_table

    a, b, numbers = _targets(BLOCKS_BESIDE, seed)
    count = 1 << BITS_BESIDE
    table = candidate_table(seed, 0, count, DIM, "philox")
    wanted = select_from_table(seed, numbers, table, a, b, 1)
    by_table = {
        "core": lambda _: select_from_table(seed, numbers, table, a, b, 1),
        "numpy": _in_numpy(lambda: select_from_table(seed, numbers, table, a, b, 1)),
        "product": lambda _: _by_product(table, a, b, seed),
    }
    settings = {"blocks": BLOCKS_BESIDE, "candidates": count, "dim": DIM, "threads": 1, "repeats": REPEATS}
    yield _compared("table", by_table, wanted, settings)
    wanted = select_from_stream(seed, numbers, count, a, b, 1)
    by_stream = {
        "core": lambda _: select_from_stream(seed, numbers, count, a, b, 1),
        "numpy": _in_numpy(lambda: select_from_stream(seed, numbers, count, a, b, 1)),
        "product": lambda _: _own_by_product(count, a, b, seed),
    }
    yield _compared("own candidates", by_stream, wanted, settings)


def _compared(name: str, calls: dict[str, Callable[[Any], Any]], wanted: Any, settings: dict[str, Any]) -> Row:
    def right(found: Any) -> bool:
        return bool((found == wanted).all())

    actions = {
        each: Action(call, after=right if each != "product" else lambda found: True) for each, call in calls.items()
    }
    times = interleaved(actions, REPEATS)
    measured = {
        "times_numpy": times["core"].over(times["numpy"]),
        "times_numpy_product": times["core"].over(times["product"]),
        "seconds": times["core"].seconds(),
        "equal": times["core"].right and times["numpy"].right,
    }
    asked = (Figure("times_numpy", ">=", 5), Figure("equal", "is", True))
    return Row(f"fewbits scoring, {name}", measured, asked, settings)


def _all_blocks(seed: int) -> Iterator[Row]:
    from fewbits.channel.mrc import Mrc
    from fewbits.native import num_threads

    a, b, numbers = _targets(NUM_BLOCKS, seed)
    settings = {"blocks": NUM_BLOCKS, "candidates": 1 << BITS, "dim": DIM, "threads": num_threads()}
    for kind, most in (("shared", 60), ("lattice", 60), ("own", 300)):
        simulator = Mrc(1 << BITS, candidates=kind)
        target, proposal = _gaussians(a, b)
        message, seconds = timed(lambda: simulator.encode(target, proposal, seed=seed, numbers=numbers))  # noqa: B023
        measured = {"wall_seconds": seconds.wall, "cpu_seconds": seconds.cpu, "greatest": int(message.indices.max())}
        yield Row(f"fewbits LeNet5's blocks, {kind}", measured, (Figure("wall_seconds", "<=", most),), settings)


def _targets(num_blocks: int, seed: int) -> tuple[Any, Any, Any]:
    """Blocks' a and b (num_blocks, DIM) float32 as scores have them, half a bit a number; their streams' numbers."""
    import numpy as np

    generator = np.random.default_rng(seed)
    sd = np.exp(generator.normal(-0.35, 0.15, (num_blocks, DIM)))
    mean = generator.normal(0, 1, (num_blocks, DIM)) * np.sqrt(np.maximum(1 - sd**2, 0.05))
    return ((1 - sd**-2) / 2).astype(np.float32), (mean / sd**2).astype(np.float32), np.arange(num_blocks)


def _gaussians(a: Any, b: Any) -> tuple[Any, Any]:
    import numpy as np

    from fewbits.channel.distributions import Gaussian

    precision = 1 - 2 * a.astype(np.float64)
    return Gaussian(b / precision, precision**-0.5), Gaussian(np.zeros(DIM), 1.0)


def _in_numpy(call: Callable[[], Any]) -> Callable[[Any], Any]:
    """The call where the core's twin serves."""

    def run(_: Any) -> Any:
        before = os.environ.get("FEWBITS_ISA")
        os.environ["FEWBITS_ISA"] = "numpy"
        try:
            return call()
        finally:
            del os.environ["FEWBITS_ISA"]
            if before is not None:
                os.environ["FEWBITS_ISA"] = before

    return run


def _by_product(table: Any, a: Any, b: Any, seed: int) -> Any:
    """The same by BLAS, whose sums are in no order that is the same everywhere."""
    import numpy as np

    scores = a @ (table * table) + b @ table
    return (scores + np.random.default_rng(seed).gumbel(size=scores.shape)).argmax(1)


def _own_by_product(count: int, a: Any, b: Any, seed: int) -> Any:
    """The same with NumPy's own normal numbers, which are not promised to stay as they are."""
    import numpy as np

    chosen = []
    for block in range(len(a)):
        generator = np.random.Generator(np.random.Philox([seed, block]))
        z = generator.standard_normal((len(a[block]), count), np.float32)
        chosen.append(_by_product(z, a[block, None], b[block, None], seed)[0])
    return np.array(chosen)
