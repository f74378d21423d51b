"""The entropy coder: bytes against entropy of eight tiny streams and five long ones, and speed beside its rivals.

Speed is measured in `coder_speed`; the rivals always run, in the same run.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from . import Options
from .coder_speed import MOST_SYMBOLS, SpeedSource, speed_rows
from .inputs import need
from .row import Absent, Figure, Measured, Row

takes_rivals = False

NUM_DRAWS = 20
STREAMS, STREAM_LENGTH = 8, 500
SCALES = (0.35, 1.6)  # of the tiny streams' Laplace distributions, drawn log-uniformly
TINY_BOUND = 1.5  # % over entropy
NUM_SYMBOLS = 64 << 20  # of a long stream
BLOCK = 1 << 22  # symbols drawn at a time
SPEED_FAMILIES = (("laplace", 2.0), ("laplace", 0.3), ("gaussian", 4.5))  # the figures are asked of the first


class Source(NamedTuple):
    """A zero-mean distribution rounded to integers, its entropy in bits, and the % over it allowed."""

    family: str
    bits: float
    bound: float


LONG = (
    Source("laplace", 0.3, 1.1),
    Source("laplace", 2.0, 0.3),
    Source("gaussian", 4.5, 0.2),
    Source("gaussian", 7.0, 0.5),
    Source("gaussian", 10.0, 0.5),
)


def rows(options: Options) -> Iterator[Row]:
    """Measure the tiny streams, then each long one, then speed; every stream is decoded and compared."""
    need("fewbits", "scipy")
    yield _tiny_row(options.seed)
    for number, source in enumerate(LONG):
        yield _long_row(source, options.num_symbols or NUM_SYMBOLS, np.random.default_rng([options.seed, 1 + number]))
    yield from speed_rows(options, _speed_sources(options))


def _speed_sources(options: Options) -> Iterator[SpeedSource]:
    """Draw the synthetic symbols whose coding is timed, int8."""
    for number, (family, bits) in enumerate(SPEED_FAMILIES):
        generator = np.random.default_rng([options.seed, 1 + len(LONG) + number])
        values = drawn(Source(family, bits, 0.0), min(options.num_symbols or NUM_SYMBOLS, MOST_SYMBOLS), generator)
        symbols = np.clip(values, -128, 127).astype(np.int8)
        settings = {"family": family, "bits": bits, "clipped_share": float(np.mean(symbols != values))}
        yield SpeedSource(f"{family} {bits} bit", [symbols], judged=number == 0, settings=settings)


def _tiny_row(seed: int) -> Row:
    """Eight streams of 500 Laplace symbols in one single-lane body, models and all, mean of 20 draws.

    Entropy is what the true distributions would spend on the very symbols drawn: the empirical entropy of 500
    symbols knows each stream's own histogram for nothing, and is measured beside it.
    """
    generator = np.random.default_rng([seed, 0])
    sizes, entropies, empirical, exact = [], [], [], True
    for _ in range(NUM_DRAWS):
        scales = np.exp(generator.uniform(*np.log(SCALES), STREAMS))
        streams = [np.rint(generator.laplace(0, scale, STREAM_LENGTH)).astype(np.int64) for scale in scales]
        payload = encoded(streams, wide=False)
        exact &= decodes_to(payload, streams)
        sizes.append(len(payload))
        entropies.append(sum(_true_bits(x, scale) for x, scale in zip(streams, scales, strict=True)) / 8)
        empirical.append(sum(empirical_bits(x) for x in streams) / 8)
    size, entropy = float(np.mean(sizes)), float(np.mean(entropies))
    measured: dict[str, Measured] = {
        "size": size,
        "entropy_bytes": entropy,
        "over_entropy_percent": 100 * (size / entropy - 1),
        "over_empirical_percent": 100 * (size / float(np.mean(empirical)) - 1),
        "decoded_exactly": exact,
    }
    asked = (Figure("over_entropy_percent", "<=", TINY_BOUND), Figure("decoded_exactly", "is", True))
    return Row(f"fewbits {STREAMS} x {STREAM_LENGTH} laplace", measured, asked, {"draws": NUM_DRAWS})


def _long_row(source: Source, num_symbols: int, generator: np.random.Generator) -> Row:
    """One long stream in 32-lane chunks, against the zero-order empirical entropy of the symbols drawn."""
    values = drawn(source, num_symbols, generator)
    entropy = empirical_bits(values) / 8
    start = time.perf_counter()
    payload = encoded([values], wide=True)
    encode_seconds = time.perf_counter() - start
    start = time.perf_counter()
    exact = decodes_to(payload, [values])
    measured: dict[str, Measured] = {
        "size": len(payload),
        "entropy_bytes": entropy,
        "bits_per_symbol": 8 * len(payload) / num_symbols,
        "over_entropy_percent": 100 * (len(payload) / entropy - 1),
        "decoded_exactly": exact,
        "encode_seconds": encode_seconds,
        "decode_seconds": time.perf_counter() - start,
    }
    asked = (Figure("over_entropy_percent", "<=", source.bound), Figure("decoded_exactly", "is", True))
    settings = {"symbols": num_symbols, "family": source.family, "bits": source.bits}
    return Row(f"fewbits {source.family} {source.bits} bit", measured, asked, settings)


def encoded(streams: list[np.ndarray], *, wide: bool) -> bytes:
    """Describe and encode arrays of integers, each with one fitted model, as a payload does."""
    try:
        from fewbits.coder.body import encode_body
        from fewbits.coder.integers import CodedArray
        from fewbits.models.descriptions import write_models
        from fewbits.models.fit import fit_values
    except ImportError as error:
        raise Absent(f"the installed fewbits has no {error.name}.") from error
    models = [fit_values(stream).models for stream in streams]
    arrays = [CodedArray(stream, chosen) for stream, chosen in zip(streams, models, strict=True)]
    return b"".join([*map(write_models, models), encode_body(arrays, wide=wide)])


def decodes_to(payload: bytes, streams: list[np.ndarray]) -> bool:
    """Decode a payload of `encoded` from its bytes alone, given the streams' lengths, and compare."""
    from fewbits.coder.body import decode_body
    from fewbits.coder.integers import ArraySpec
    from fewbits.models.descriptions import read_models

    specs, position = [], 0
    for stream in streams:
        models, position = read_models(payload, position)
        specs.append(ArraySpec(1, stream.size, models))
    decoded = decode_body(payload[position:], specs)
    return all(np.array_equal(array.ravel(), x) for array, x in zip(decoded, streams, strict=True))


def empirical_bits(values: np.ndarray) -> float:
    """Zero-order entropy of the sample times its length, in bits."""
    counts = np.bincount(values - values.min())
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / values.size)).sum())


def drawn(source: Source, num_symbols: int, generator: np.random.Generator) -> np.ndarray:
    """Draw (num_symbols,) int64 symbols whose distribution has the source's entropy."""
    from scipy.optimize import brentq

    def excess(log_scale: float) -> float:
        scale = float(np.exp(log_scale))
        k = np.arange(-int(40 * scale) - 2, int(40 * scale) + 3)
        p = _probabilities(source.family, k, scale)
        return float(-(p[p > 0] * np.log2(p[p > 0])).sum()) - source.bits

    scale = float(np.exp(brentq(excess, np.log(0.05), np.log(2.0 ** (source.bits + 1)))))
    draw: Callable[..., np.ndarray] = generator.laplace if source.family == "laplace" else generator.normal
    values = np.empty(num_symbols, np.int64)
    for start in range(0, num_symbols, BLOCK):
        block = values[start : start + BLOCK]
        block[:] = np.rint(draw(0, scale, block.size))
    return values


def _true_bits(values: np.ndarray, scale: float) -> float:
    """What a Laplace distribution of this scale, rounded, spends on the values, in bits."""
    return float(-np.log2(_probabilities("laplace", values, scale)).sum())


def _probabilities(family: str, k: np.ndarray, scale: float) -> np.ndarray:
    """Probability that a value of the family rounds to each of the integers k.

    NUMERICS: by the upper tail of |k|, so that far values keep their small probabilities.
    """
    from scipy.stats import laplace, norm

    upper_tail = (laplace if family == "laplace" else norm)(scale=scale).sf
    near = np.abs(k)
    return upper_tail(near - 0.5) - upper_tail(near + 0.5)
