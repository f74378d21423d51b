"""A second reader of docs/format.md, sections 12 and 13: plain integers and floats, and the constants of the page."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from fewbits.channel.index_code import octave_table
from fewbits.channel.simulator import Message
from fewbits.random import Stream, lattice, permutation
from tests.unit.channel.samples import Case, cases

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "format.md").read_text("utf-8")
RANDOMNESS = PAGE[PAGE.index("## 12 ") : PAGE.index("## 13 ")].replace("−", "-")
INDICES = PAGE[PAGE.index("## 13 ") : PAGE.index("## 14 ")]
SEED, SIZE = 0x0123456789ABCDEF, 12
CASES = cases(np.random.default_rng(9), SIZE)


def word(purpose: int, number: int, item: int, place: int, seed: int = SEED) -> int:
    a, b, c, d = item % 2**32, item >> 32, number, 2**24 * purpose + place // 4
    k0, k1 = seed % 2**32, seed >> 32
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ k0, q % 2**32, (p >> 32) ^ d ^ k1, p % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return (a, b, c, d)[place % 4]


def polynomial(coefficients: list[float], x: float) -> float:
    total = coefficients[-1]
    for each in coefficients[-2::-1]:
        total = total * x + each
    return total


def logarithm(x: float) -> float:
    m, e = math.frexp(x)
    if m < 0.7071067811865476:
        m, e = 2 * m, e - 1
    y = (m - 1) / (m + 1)
    return e * 0.6931471805599453 + (2 * y) * polynomial([1 / (2 * k + 1) for k in range(10)], y * y)


def columns() -> list[list[float]]:
    """A, B, C and D of the page's table, lowest power first."""
    rows = [re.findall(r"-?\d[\d.]*", line) for line in re.findall(r"^\| \d \|(.*)\|$", RANDOMNESS, re.MULTILINE)]
    assert [len(row) for row in rows] == [4, 4, 4, 4, 4, 1]
    table = [[float(row[column]) for row in rows[:5]] for column in range(4)]
    table[2].append(float(rows[5][0]))
    return table


A, B, C, D = columns()


def quantile(p: float) -> float:
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        return q * (polynomial(A, r) / polynomial(B, r))
    s = math.sqrt(-logarithm(p if q < 0 else 1 - p))
    found = polynomial(C, s) / polynomial(D, s)
    return -found if q < 0 else found


def value(case: Case, message: Message, row: int, number: int) -> list[float]:
    """A sample by the page's table of candidates."""
    name, index = type(case.simulator).__name__, int(message.indices[row])
    if hasattr(case.proposal, "counts"):
        ends = np.cumsum(case.proposal.counts).tolist()
        return [next(state for state, end in enumerate(ends) if end > word(1, number, index, 0))]
    found: list[float] = []
    for j in range(case.proposal.low.shape[-1]):
        if name == "Tree":
            depth = (index + 1).bit_length() - 1
            u = (word(1, number, index + 1, 0) + 0.5) * 2.0**-32
            share = min(2.0**-depth * ((index + 1 - 2**depth) + u), 1 - 2.0**-53)
        else:
            share = (word(1, number, index, j) + 0.5) * 2.0**-32
        if name == "Hybrid":
            share = (int(message.offsets[row, j]) + share) / int(case.simulator.num_cells[j])
        if hasattr(case.proposal, "mean"):
            mean, sd = (
                float(np.broadcast_to(each, case.proposal.low.shape)[j])
                for each in (case.proposal.mean, case.proposal.sd)
            )
            found.append(mean + sd * quantile(share))
        else:
            found.append(
                float(case.proposal.low[j]) + (float(case.proposal.high[j]) - float(case.proposal.low[j])) * share
            )
    return found


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_samples_are_those_of_the_page(case: Case) -> None:
    numbers = np.random.default_rng(3).integers(0, 1 << 32, SIZE)
    message = case.simulator.encode(case.target, case.proposal, seed=SEED, numbers=numbers)
    values = case.simulator.decode(message, case.proposal, seed=SEED, numbers=numbers).reshape(SIZE, -1)
    assert values.tolist() == [value(case, message, row, int(numbers[row])) for row in range(SIZE)]


def test_tails_of_the_quantile_are_those_of_the_page() -> None:
    for bits in ("00000000", "00000001", "12000000", "80000000", "C0000000", "FFFFFFFF"):
        told = re.search(rf"\| {bits} \| (\S+) \|", RANDOMNESS)
        assert told and float(told[1]) == quantile((int(bits, 16) + 0.5) * 2.0**-32)


def test_lattice_and_permutation_are_those_of_the_page() -> None:
    primes = [2, 3, 5, 7, 11, 13]
    items = [0, 1, 77, 2**32 - 1]
    wanted = [
        [(i * (math.isqrt(p << 64) % 2**32) + word(1, 8, 0, j)) % 2**32 for j, p in enumerate(primes)] for i in items
    ]
    assert lattice(Stream(SEED, 1, 8), np.array(items), 6).tolist() == wanted
    places = sorted(range(101), key=lambda e: word(3, 2, e // 4, e % 4))
    assert permutation(SEED, 2, 101).tolist() == places
    example = re.search(r"seed 1, stream 2, n = 10: ([\d ]+)\.", RANDOMNESS)
    assert example and example[1].split() == [
        str(e) for e in sorted(range(10), key=lambda e: word(3, 2, e // 4, e % 4, 1))
    ]
    assert str([word(1, 7, 5, j) for j in range(6)])[1:-1] in RANDOMNESS


def test_tables_of_octaves_are_those_of_the_page() -> None:
    ratios = [int(each) for line in re.findall(r"^    ([\d ]+)$", INDICES, re.MULTILINE) for each in line.split()]
    heights = re.search(r"^H = ([\d, ]+)\.", INDICES, re.MULTILINE)
    assert len(ratios) == 64 and heights
    harmonic = [int(each) for each in heights[1].split(",")]
    assert len(harmonic) == 15
    for cap in (2, 3, 1024, 1500, (1 << 31) - 5, (1 << 63) - 1):
        size = cap.bit_length()
        for code in range(65):
            h, weights = 2**32, list[int]()
            for c in range(size):
                weights.append(
                    2 ** (62 - 2 * (c + 1).bit_length()) if code == 64 else harmonic[min(c, 14)] * h // 2**16
                )
                h = h * ratios[code % 64] // 2**16
            weights[-1] = weights[-1] * (cap - 2 ** (size - 1) + 1) // 2 ** (size - 1)
            table = [1 + (8192 - size) * weight // sum(weights) for weight in weights]
            table[0] += 8192 - sum(table)
            assert octave_table(code, cap).frequencies == tuple(table)
