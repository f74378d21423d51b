"""A second implementation of what readers derive from the seed, written from docs/format.md, section 12, alone.

It shares no code with fewbits. Integers are Python's or 64 bits wide; floats are float64, each operation by itself.
"""

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CANDIDATES, PERMUTATIONS, SIGNS = 1, 3, 5
A = [3.38713287231, 72.1460238865, 437.513200088, 740.727890816, 167.226635028]
B = [1.0, 24.305284591, 180.154917370, 432.258056941, 227.293426862]
C = [-3.16203212366, -10.7141886583, 5.17742233429, 11.9524461529, 3.17957122982, 0.170951999740]
D = [1.0, 7.43423808699, 8.76448985153, 2.24969741887, 0.120869960879]
LOW = np.uint64(0xFFFFFFFF)


def philox(a: Array, b: Array, c: Array, d: Array, k0: int, k1: int) -> list[Array]:
    """Philox4x32-10 of counters (N,) uint64 below 2^32."""
    thirty_two = np.uint64(32)
    for _ in range(10):
        p = np.uint64(0xD2511F53) * a
        q = np.uint64(0xCD9E8D57) * c
        a, b, c, d = (q >> thirty_two) ^ b ^ np.uint64(k0), q & LOW, (p >> thirty_two) ^ d ^ np.uint64(k1), p & LOW
        k0 = (k0 + 0x9E3779B9) % (1 << 32)
        k1 = (k1 + 0xBB67AE85) % (1 << 32)
    return [a, b, c, d]


def words(seed: int, purpose: int, stream: int, item: int, count: int) -> Array:
    """Words 0 … count - 1 of one item, (count,) uint64."""
    groups = np.arange((count + 3) // 4, dtype=np.uint64)
    a, b = np.full((2, groups.size), item % (1 << 32), np.uint64)
    b[:] = item >> 32
    c, d = np.full(groups.size, stream, np.uint64), np.uint64(purpose << 24) + groups
    found = philox(a, b, c, d, seed % (1 << 32), seed >> 32)
    return np.stack(found, 1).reshape(-1)[:count]


def sequence(seed: int, purpose: int, stream: int, count: int) -> Array:
    """Elements 0 … count - 1, (count,) uint64: the first four words of one item after the other."""
    items = np.arange((count + 3) // 4, dtype=np.uint64)
    c, d = np.full(items.size, stream, np.uint64), np.full(items.size, purpose << 24, np.uint64)
    found = philox(items & LOW, items >> np.uint64(32), c, d, seed % (1 << 32), seed >> 32)
    return np.stack(found, 1).reshape(-1)[:count]


def permutation(seed: int, stream: int, count: int) -> Array:
    """Positions in the order of their words: by word, then by position."""
    return np.lexsort((np.arange(count), sequence(seed, PERMUTATIONS, stream, count)))


def lattice_words(seed: int, purpose: int, stream: int, item: int, count: int) -> Array:
    shifts = words(seed, purpose, stream, 0, count).tolist()
    found = [(item * root + shift) % (1 << 32) for root, shift in zip(roots(), shifts, strict=False)]
    if len(found) < count:
        raise ValueError("an item of a lattice has 4096 words")
    return np.array(found, np.uint64)


@cache
def roots() -> list[int]:
    """The integer part of 2^32 times the square root of each of the first 4096 primes, modulo 2^32."""
    primes: list[int] = []
    number = 2
    while len(primes) < 4096:
        if all(number % prime for prime in primes if prime * prime <= number):
            primes.append(number)
        number += 1
    return [math.isqrt(prime << 64) % (1 << 32) for prime in primes]


def horner(coefficients: list[float], x: Array) -> Array:
    total = np.full(x.shape, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x
        total = total + coefficient
    return total


def logarithm(x: Array) -> Array:
    m, e = np.frexp(x)
    small = m < 0.7071067811865476
    m = np.where(small, 2 * m, m)
    e = np.where(small, e - 1, e).astype(np.float64)
    y = (m - 1) / (m + 1)
    return e * 0.6931471805599453 + (2 * y) * horner([1 / (2 * k + 1) for k in range(10)], y * y)


def normals(of: Array) -> Array:
    """The normal numbers of words, (N,) float64."""
    p = (of.astype(np.float64) + 0.5) * 2.0**-32
    q = p - 0.5
    central = np.abs(q) <= 0.425
    r = 0.180625 - q * q
    middle = q * (horner(A, r) / horner(B, r))
    s = np.sqrt(-logarithm(np.where(q < 0, p, 1 - p)))
    tail = horner(C, s) / horner(D, s)
    return np.where(central, middle, np.where(q < 0, -tail, tail))
