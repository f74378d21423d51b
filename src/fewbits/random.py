"""Randomness that both sides share: Philox words, uniforms, normals, permutations (docs/format.md, section 12).

Every word is addressed: by the file's seed, a purpose, a stream (a block, a part), an item (a candidate, an element)
and a place in the item. So any of them is computed alone, by any thread, on any machine. Floats follow by operations
that IEEE 754 rounds exactly (+ - × ÷ √ in float64, one after the other), in the order written here.

What is written out here in NumPy is the specification; `fewbits._core` gives the same bits, many times faster.

Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", Philox4x32-10.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.errors import InvalidArgument
from fewbits.native import core

# WIRE: what a stream is for; never reused.
CANDIDATES, DITHER, PERMUTATION, PRIVATE, SIGNS, WIDTHS = 1, 2, 3, 4, 5, 6
MOST_PLACES = 1 << 26  # WIRE: words of an item: a counter has 24 bits for every four of them

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)  # WIRE
_WEYL = 0x9E3779B9, 0xBB67AE85  # WIRE
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_SEEDS = (1 << 64) - 1

# WIRE: rational approximations of the normal quantile, lowest power first, within 1e-8 of it for p >= 1e-19. Central:
# in 0.180625 - (p - 1/2)^2, of the quantile divided by p - 1/2. Tail: in sqrt(-log p), of the quantile's magnitude.
_CENTRAL = (3.38713287231, 72.1460238865, 437.513200088, 740.727890816, 167.226635028)
_CENTRAL_BELOW = (1.0, 24.305284591, 180.154917370, 432.258056941, 227.293426862)
_TAIL = (-3.16203212366, -10.7141886583, 5.17742233429, 11.9524461529, 3.17957122982, 0.170951999740)
_TAIL_BELOW = (1.0, 7.43423808699, 8.76448985153, 2.24969741887, 0.120869960879)
_CENTRE, _EDGE = 0.425, 0.180625
_SQRT_2, _LOG_2 = 1.4142135623730951, 0.6931471805599453
_ATANH = tuple(1 / (2 * k + 1) for k in range(10))  # WIRE


class Stream(NamedTuple):
    """Words of one purpose: of a block of a file, say.

    seed: of the file, 0 … 2^64 - 1; number: of the stream, 0 … 2^32 - 1.
    """

    seed: int
    purpose: int
    number: int = 0

    def words(self, items: NDArray[np.integer], num_places: int) -> NDArray[np.uint32]:
        """Return the first words of some items (N,), integers from 0 to 2^64 - 1: (N, num_places) uint32."""
        return words(self.seed, self.purpose, np.asarray(self.number), np.asarray(items), num_places)

    def sequence(self, start: int, count: int) -> NDArray[np.uint32]:
        """Return words of consecutive elements, four to an item, (count,) uint32."""
        first, last = start // 4, -(-(start + count) // 4)
        return self.words(np.arange(first, last, dtype=np.uint64), 4).reshape(-1)[start - 4 * first :][:count]


def words(
    seed: int, purpose: int, numbers: NDArray[np.integer], items: NDArray[np.integer], num_places: int
) -> NDArray[np.uint32]:
    """Return the first words of items of many streams.

    WIRE: word j of an item is word j mod 4 of the block whose counter is the item's lower and upper 32 bits, the
    stream's number, and 2^24 times the purpose plus j div 4; the key is the seed.

    Args:
        numbers, items: (...) integers of shapes that broadcast, from 0 to 2^32 - 1 and to 2^64 - 1.
        num_places: words of each item.

    Returns:
        (..., num_places) uint32.

    Raises:
        InvalidArgument: an item has not so many words.
    """
    if num_places > MOST_PLACES:
        raise InvalidArgument(f"an item has {MOST_PLACES} words, not {num_places}.")
    native = core()
    if native is None:
        return _words(seed, purpose, numbers, items, num_places)
    if np.size(numbers) != 1:
        numbers, items = np.broadcast_arrays(numbers, items)
    found = np.empty((*np.broadcast_shapes(np.shape(numbers), np.shape(items)), num_places), np.uint32)
    flat_numbers, flat_items = (
        np.require(each, dtype, ["C", "A"]).reshape(-1) for each, dtype in ((numbers, np.uint32), (items, np.uint64))
    )
    native.random_words(seed & _SEEDS, purpose, flat_numbers, flat_items, num_places, found)
    return found


def _words(
    seed: int, purpose: int, numbers: NDArray[np.integer], items: NDArray[np.integer], num_places: int
) -> NDArray[np.uint32]:
    number, item = (each[..., None] for each in np.broadcast_arrays(numbers, items))
    item = item.astype(np.uint64)
    group = np.arange(-(-num_places // 4), dtype=np.uint64) + np.uint64(purpose << 24)
    counter = np.broadcast_arrays(item & _LOW, item >> np.uint64(32), number.astype(np.uint64), group)
    found = np.stack(philox(seed, counter), -1).astype(np.uint32)
    return found.reshape(*found.shape[:-2], 4 * len(group))[..., :num_places]


def lattice(numbers: Stream, items: NDArray[np.integer], num_places: int) -> NDArray[np.uint32]:
    """Return words that fill space more evenly than random ones: item times the root of a prime, plus a random shift.

    WIRE: word j of item k is k A + S modulo 2^32, A the first 32 binary places of the root of the j-th prime's
    fraction, S word j of item 0 of the stream.

    Args:
        numbers: the stream that shifts come from.
        items: (N,) integers from 0 to 2^32 - 1.
        num_places: words of each item, at most 4,096.

    Returns:
        (N, num_places) uint32.

    Source: Richtmyer 1951, sequences of the multiples of quadratic irrationals.
    """
    shifts = numbers.words(np.zeros(1, np.uint64), num_places)
    roots = np.array([math.isqrt(prime << 64) & 0xFFFFFFFF for prime in _primes(num_places)], np.uint32)
    with np.errstate(over="ignore"):
        return np.asarray(items).astype(np.uint32)[:, None] * roots + shifts


@functools.cache
def _primes(count: int) -> tuple[int, ...]:
    if count > 4096:
        raise InvalidArgument(f"a lattice has at most 4,096 dimensions, not {count}.")
    sieve = np.ones(40_000, np.bool_)
    sieve[:2] = False
    for k in range(2, 200):
        sieve[k * k :: k] &= not sieve[k]
    return tuple(int(prime) for prime in np.flatnonzero(sieve)[:count])


def philox(seed: int, counter: tuple[NDArray[np.uint64], ...]) -> tuple[NDArray[np.uint64], ...]:
    """Return the four output words of Philox4x32-10, each uint64 below 2^32, of four words of counters of one shape.

    Args:
        seed: the key, its lower 32 bits first.
        counter: (...) uint64 below 2^32 each.
    """
    a, b, c, d = counter
    key = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
    for _ in range(_ROUNDS):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            (second >> np.uint64(32)) ^ b ^ np.uint64(key[0]),
            second & _LOW,
            (first >> np.uint64(32)) ^ d ^ np.uint64(key[1]),
            first & _LOW,
        )
        key = [(word + step) & 0xFFFFFFFF for word, step in zip(key, _WEYL, strict=True)]
    return a, b, c, d


def uniforms(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return (word + 1/2) / 2^32, (...) float64, exact, strictly between 0 and 1."""
    return (words.astype(np.float64) + 0.5) * 2.0**-32


def normals(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return the normal quantiles of words' uniform numbers, (...) float64."""
    native = core()
    if native is None:
        return _normal_quantile(uniforms(words))
    words = np.require(words, np.uint32, ["C", "A"])
    found = np.empty(words.shape, np.float64)
    native.random_normals(words, found)
    return found


def normal_quantile(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the number below which a standard normal one is with probability p.

    WIRE NUMERICS: every operation in this order, in float64, none fused with another.

    Args:
        p: (...) float64 between 1e-19 and 1 - 2^-53.

    Returns:
        (...) float64, within 1e-8.
    """
    native = core()
    if native is None:
        return _normal_quantile(np.asarray(p, np.float64))
    p = np.require(p, np.float64, ["C", "A"])
    found = np.empty(p.shape, np.float64)
    native.normal_quantiles(p, found)
    return found


def _normal_quantile(p: NDArray[np.float64]) -> NDArray[np.float64]:
    q = p - 0.5
    r = _EDGE - q * q
    central = q * (_polynomial(_CENTRAL, r) / _polynomial(_CENTRAL_BELOW, r))
    s = np.sqrt(-_log(np.where(q < 0, p, 1.0 - p)))
    tail = _polynomial(_TAIL, s) / _polynomial(_TAIL_BELOW, s)
    return np.where(np.abs(q) <= _CENTRE, central, np.where(q < 0, -tail, tail))


def log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return natural logarithms, the same bits everywhere, which those of C libraries are not.

    x is 2^e m with m between sqrt(1/2) and sqrt(2), and log m = 2 atanh((m - 1) / (m + 1)), ten terms of its series.

    Args:
        x: (...) float64, normal numbers above 0.
    """
    native = core()
    if native is None:
        return _log(np.asarray(x, np.float64))
    x = np.require(x, np.float64, ["C", "A"])
    found = np.empty(x.shape, np.float64)
    native.random_logs(x, found)
    return found


def _log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    mantissa, exponent = np.frexp(x)  # from 1/2 to 1
    low = mantissa < _SQRT_2 / 2
    mantissa, exponent = np.where(low, 2 * mantissa, mantissa), exponent - low
    y = (mantissa - 1.0) / (mantissa + 1.0)
    return exponent * _LOG_2 + 2.0 * y * _polynomial(_ATANH, y * y)


def _polynomial(coefficients: tuple[float, ...], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Horner's rule, from the highest power down."""
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def permutation(seed: int, number: int, size: int) -> NDArray[np.int64]:
    """Return a permutation of 0 … size - 1, (size,): the order of as many words, equal ones as they come."""
    words = Stream(seed, PERMUTATION, number).sequence(0, size).astype(np.uint64)
    # Sorted with their places below them: quicker than sorting places by words.
    return (np.sort(words << np.uint64(32) | np.arange(size, dtype=np.uint64)) & _LOW).astype(np.int64)
