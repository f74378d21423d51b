"""Make the 192 probability tables that format 1 ships as constants.

Run once, before the first release: `python recipes/shipped_tables.py > src/fewbits/models/shipped_tables.csv`. The CSV
is the truth from then on (it is part of the file format); this says where its numbers came from. A table depends on exp
and erfc in the last place, so another machine need not reproduce it, and no decoder ever runs this.
"""

import math

TOTAL = 8192
MAX_K = 31
FAMILIES = ("laplace", "gaussian", "generalized gaussian 1/2")


def tail(family: int, mean_abs: float, t: float) -> float:
    """P(|X| > t) of the zero-mean density of a family with a given mean absolute value."""
    if family == 0:
        return math.exp(-t / mean_abs)
    if family == 1:
        return math.erfc(t / (mean_abs * math.sqrt(math.pi)))
    root = math.sqrt(6 * t / mean_abs)
    return (1 + root) * math.exp(-root)


def integer_table(family: int, mean_abs: float) -> tuple[int, list[int]]:
    """Return (escape, [f0, f1, …, fK]): the integer table of least redundancy that greedy steps find."""
    edges = [tail(family, mean_abs, k + 0.5) for k in range(MAX_K + 2)]
    mass = [1 - edges[0]] + [(edges[k - 1] - edges[k]) / 2 for k in range(1, MAX_K + 1)]
    # A value is worth its one slot when escaping it (about 10 bits dearer) would cost more: p * 8192 > 0.15.
    num = 1 + max((k for k in range(1, MAX_K + 1) if mass[k] * TOTAL > 0.15), default=0)
    ideal = [p * TOTAL for p in mass[:num]] + [edges[num - 1] * TOTAL]
    weight = [1] + [2] * (num - 1) + [1]
    slots = [max(1, round(x)) for x in ideal]

    def cost(i: int, step: int) -> float:
        """Redundancy added a slot when entry i changes by step."""
        if slots[i] + step < 1:
            return math.inf
        return -ideal[i] * math.log((slots[i] + step) / slots[i]) / abs(step)

    while (excess := sum(w * s for w, s in zip(weight, slots, strict=True)) - TOTAL) != 0:
        step = -1 if excess > 0 else 1
        free = [i for i in range(len(slots)) if weight[i] <= abs(excess)]
        best = min(free, key=lambda i: cost(i, step))
        slots[best] += step
    return slots[-1], slots[:-1]


def main() -> None:
    """Print the CSV."""
    for family in range(len(FAMILIES)):
        for scale in range(64):
            escape, slots = integer_table(family, 2 ** ((scale - 32) / 8))
            print(",".join(map(str, [family, scale, escape, *slots])))


if __name__ == "__main__":
    main()
