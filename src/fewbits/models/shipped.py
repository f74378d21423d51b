"""The probability tables that the format ships as constants (docs/format.md, section 6)."""

from functools import lru_cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.table import Table

NUM_SHIPPED = 192  # three families of 64 scales; a table's code is its line in shipped_tables.csv
NUM_SCALES = 64
LAPLACE, GAUSSIAN, HEAVY_TAILED = 0, 64, 128  # first code of each family
REACH = 31  # greatest value of any shipped table


@lru_cache(maxsize=1)
def _lines() -> list[list[int]]:
    text = resources.files("fewbits.models").joinpath("shipped_tables.csv").read_text("ascii")
    return [[int(field) for field in line.split(",")] for line in text.splitlines()]


@lru_cache(maxsize=NUM_SHIPPED)
def shipped_table(code: int) -> Table:
    """Return the shipped table of a code, 0 … 191: family = code // 64, scale = code % 64."""
    escape, centre, *positive = _lines()[code][2:]
    return Table(-len(positive), (*reversed(positive), centre, *positive), escape)


@lru_cache(maxsize=1)
def shipped_codes() -> dict[Table, int]:
    """The code of every shipped table; of equal tables the lowest."""
    return {shipped_table(code): code for code in reversed(range(NUM_SHIPPED))}


@lru_cache(maxsize=1)
def shipped_costs() -> NDArray[np.float64]:
    """(63, 192) cost of the values -31 … 31 under each shipped table, in 1/65536 bit; escapes with their code.

    NUMERICS: float64 holding integers, so that products with counts are exact in any order of summation.
    """
    costs = np.zeros((2 * REACH + 1, NUM_SHIPPED))
    value = np.abs(np.arange(-REACH, REACH + 1))
    for code in range(NUM_SHIPPED):
        table = shipped_table(code)
        inside = value <= table.last
        costs[inside, code] = table.costs
        beyond = value[~inside] - table.last  # distance + 1
        costs[~inside, code] = table.escape_cost + 65536 * 2 * np.array([int(d).bit_length() for d in beyond])
    return costs
