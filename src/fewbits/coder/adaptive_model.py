"""The model of the adaptive stream: from integers to binary decisions, each with its probability (docs/format.md, 9.4).

For each decision there are several estimates of its odds: how often it was 1 in this row, in this column, beside such
neighbours. A mixer adds them up as weighted logarithms, and its weights follow the gradient of the code length. All is
integer arithmetic: a decoder learns the same from what it has decoded, and so has the same probabilities everywhere.

WIRE: every number here changes the bytes.
"""

import bisect
import functools
import math
from typing import NamedTuple

from fewbits.coder.binary import Coder
from fewbits.errors import Corrupt

MOST_MAGNITUDE = 2**31 - 1
HALF = 1 << 15  # a probability, in 1/65536

# 1024 log2(1 + i / 16), and 65536 / (1 + 2^(-i / 2)), rounded.
_LOGARITHMS = (0, 90, 174, 254, 330, 402, 470, 536, 599, 659, 717, 773, 827, 879, 929, 977, 1024)
_PROBABILITIES = (
    *(32768, 38390, 43691, 48418, 52429, 55691, 58254, 60214, 61681, 62762, 63550, 64119, 64528, 64820),
    *(65028, 65176, 65281, 65355, 65408, 65446, 65472, 65491, 65504, 65513, 65520, 65525, 65528),
)

# First weights in 1/256: for plain layers, for kernels, for images.
_DENSITY_WEIGHTS = (
    (572, 228, -248, 820, 53, 51, 45, -93, -17, -3, 148, -550),
    (-396, 44, 101, -420, 142, 56, 46, 59, 58, -7, 109, -430),
    (-258, 99, -55, -935, -46, 108, 44, 84, 107, 131, 140, -540),
)
_SIGN_WEIGHTS = (
    (-87, 60, 110, 81, -177, -62),
    (216, -3, 31, 83, -40, -180),
    (105, 62, 149, 220, -65, -684),
)
_MAGNITUDE_WEIGHTS = (
    (-17, 139, 25, 218, -39, -180, -74),
    (125, 53, 7, 259, -38, -67, -50),
    (109, 92, 90, 2, 18, -88, -62),
)
_MOST_WEIGHT = 8 << 16

# How much, in 64ths of a decision, estimates have of what they are blended with; how fast weights move.
_ROW_WEIGHT = 7822
_COLUMNS_WEIGHT = 2694
_COLUMN_WEIGHT = 293
_SLICE_WEIGHT = 35872
_KERNEL_WEIGHT = 108
_CONTEXT_WEIGHT = 639
_LINK_WEIGHT = 4081
_SIGN_WEIGHT = 86
_COLUMN_SIGN_WEIGHT = 269
_ROW_SIGN_WEIGHT = 877
_MAGNITUDE_WEIGHT = 449
_ROW_MAGNITUDE_WEIGHT = 449
_COLUMN_MAGNITUDE_WEIGHT = 115
_CARRIED_WEIGHT = 25
_DENSITY_RATE = 73
_SIGN_RATE = 187
_MAGNITUDE_RATE = 340
_HIT = 64
_CONTEXT_LIMIT = 192 * _HIT
_DENSITY_LIMIT = 1023 * _HIT
_FIRST_LEVEL = (1062, 711)

_PLACE_BOUNDS = (0, 2, 5, 10, 20, 80, 200)
_COUNT_BOUNDS = (0, 1, 2, 3, 6, 10, 15)
_WINDOW_BOUNDS = (0, 2, 4, 6, 9, 12, 16)
_SLOPE_BOUNDS = (0, 2, 4, 8, 16, 32)
_AVERAGE_BOUNDS = (0, 4, 6, 8, 11, 15, 20)
_NEAR_BOUNDS = (0, 2, 4, 8)
_WINDOW_WEIGHTS = (4, 4, 2, 2, 2, 2, 1, 1, 1, 2)
_CLAMP = 15  # what contexts see of a magnitude
_UNARY_LEVELS = 16  # a magnitude above it is an escape
_IMAGE = 64  # places of a slice from which on it counts as an image


class Geometry(NamedTuple):
    """How an array of latents is laid out: (rows, slices * height * width).

    Rows are output units, slices input channels; height x width is the kernel, or the image that a dense layer reads.
    A plain dense layer has 1 x 1; a vector is one row of slices.
    """

    rows: int
    slices: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """How many elements there are."""
        return self.rows * self.slices * self.height * self.width


@functools.lru_cache(maxsize=1 << 16)
def _logarithm(x: int) -> int:
    """Return log2 of x >= 1 in units of 1/1024, linear between sixteenths of an octave."""
    octave = x.bit_length() - 1
    place = (x << 16 >> octave) - 65536
    below, fraction = place >> 12, place & 4095
    return octave * 1024 + _LOGARITHMS[below] + ((_LOGARITHMS[below + 1] - _LOGARITHMS[below]) * fraction >> 12)


def _squash(log_odds: int) -> int:
    size = min(abs(log_odds), 13 * 1024 - 1)
    below, fraction = size >> 9, size & 511
    p = _PROBABILITIES[below] + (((_PROBABILITIES[below + 1] - _PROBABILITIES[below]) * fraction + 256) >> 9)
    return p if log_odds >= 0 else 65536 - p


def _bucket(x: int, bounds: tuple[int, ...]) -> int:
    """Return how many bounds are below x."""
    return bisect.bisect_left(bounds, x)


# Counts of decisions that were 0 and 1, in 64ths. As a list they are kept and added to.
_Counts = tuple[int, int] | list[int]


def _probability(counts: _Counts) -> int:
    return (counts[1] << 16) // (counts[0] + counts[1])


def _stretch(counts: _Counts) -> int:
    return _logarithm(counts[1]) - _logarithm(counts[0])


def _blend(counts: _Counts, weight: int, probability: int) -> tuple[int, int]:
    """Return counts with `weight` 64ths of a decision more, of this probability."""
    ones = weight * probability >> 16
    return counts[0] + weight - ones + 1, counts[1] + ones + 1


def _hit(counts: list[int], bit: int, limit: int) -> None:
    counts[bit] += _HIT
    if counts[0] + counts[1] > limit:
        counts[0], counts[1] = (counts[0] + 1) >> 1, (counts[1] + 1) >> 1


def _counters(*shape: int) -> list[list[int]]:
    return [[0, 0] for _ in range(math.prod(shape))]


class _Mixer:
    """Weights in 1/65536, learned by descent on the code length."""

    def __init__(self, weights: tuple[int, ...]) -> None:
        self._weights = [256 * weight for weight in weights]

    def code(self, coder: Coder, bit: int, base: int, deviations: list[int], rate: int) -> int:
        """Code a decision with these log odds added to those of the base."""
        total = (base << 16) + sum(map(int.__mul__, self._weights, deviations))
        probability = _squash(total >> 16)
        bit = coder.code(bit, probability)
        push = ((bit << 16) - probability) * rate
        for i, deviation in enumerate(deviations):
            weight = self._weights[i] + ((push * deviation + (1 << 23)) >> 24)
            self._weights[i] = max(-_MOST_WEIGHT, min(_MOST_WEIGHT, weight))
        return bit


class _Kind:
    """What is learned of one kind of layer, and kept from array to array."""

    def __init__(self, kind: int) -> None:
        self.density = [_Mixer(_DENSITY_WEIGHTS[kind]) for _ in range(6)]
        self.sign = _Mixer(_SIGN_WEIGHTS[kind])
        self.magnitude = [_Mixer(_MAGNITUDE_WEIGHTS[kind]) for _ in range(3)]
        self.pattern, self.above, self.window, self.progress, self.far = map(_counters, (24, 24, 8, 64, 12))
        self.sign_pair, self.sign_slope, self.sign_before, self.sign_sum = map(_counters, (9, 13, 9, 13))
        self.magnitude_average, self.magnitude_last, self.magnitude_near = map(_counters, (64, 64, 40))


class _Line:
    """Counts of a column, or of a row as far as it is coded."""

    def __init__(self) -> None:
        self.density, self.sign, self.magnitude = _counters(3)


class _Neighbours:
    """Values beside an element as contexts see them; 0 outside of its slice and for what comes later."""

    def __init__(self, rows: list[list[int]], at: int, stride: int, slice_stride: int) -> None:
        now, before = rows[0], rows[1]
        up, two = at - stride, at - 2 * stride
        self.left, self.up = now[at - 1], now[up]
        self.corners, self.two_away = (now[up - 1], now[up + 1]), (now[at - 2], now[two])
        self.knights = (now[up - 2], now[up + 2], now[two - 1], now[two + 1])
        # Among the 24 places within three lines and columns that are coded.
        lines = [now[i - 3 : i + 4] for i in (up, two, two - stride)] + [now[at - 3 : at]]
        self.nonzeros = sum(len(line) - line.count(0) for line in lines)
        self.before, self.before_two = before[at], rows[2][at]
        self.before_around = before[at - 1], before[at + 1], before[up], before[at + stride]
        self.slice_before = now[at - slice_stride] if at >= slice_stride else 0


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


class Model:
    """Codes arrays; what is learned stays for the next one."""

    def __init__(self, coder: Coder) -> None:
        """Start with nothing learned."""
        self._coder = coder
        self._kinds = [_Kind(kind) for kind in range(3)]
        self._density = [_HIT, _HIT]  # of the array's elements that are coded
        self._levels: list[list[int]] = [list(_FIRST_LEVEL) for _ in range(8)]
        self._escapes = _counters(31)
        self._units: list[list[list[int]]] = []  # of each array coded, the densities of its rows

    def code(self, geometry: Geometry, values: list[int]) -> list[int]:
        """Code an array that is not empty; returns its values, which a decoder is not given."""
        self._begin(geometry)
        per_row = geometry.size // geometry.rows
        densities: list[list[int]] = []
        coded: list[int] = []
        for row in range(geometry.rows):
            coded += self._code_row(values[row * per_row : (row + 1) * per_row])
            densities.append(self._row.density)
            self._rows = [self._rows[2], *self._rows[:2]]  # the oldest is written over
        self._units.append(densities)
        return coded

    def _begin(self, geometry: Geometry) -> None:
        _, self._slices, self._height, self._width = geometry
        places = self._height * self._width
        self._plain = places == 1
        self._kind = self._kinds[0 if self._plain else 1 if places < _IMAGE else 2]
        if self._plain:  # one slice of height 1
            self._slices, self._width = self._width, self._slices
        # Zeros around each slice: three lines above, one below, three columns a side.
        self._stride = self._width + 6
        self._slice_stride = (self._height + 4) * self._stride
        size = self._slices * self._slice_stride
        self._columns = [_Line() for _ in range(size)]
        self._slice_densities = _counters(self._slices)
        self._rows = [[0] * size for _ in range(3)]  # this one, the last, the one before it
        self._density = list(_blend((0, 0), _CARRIED_WEIGHT, _probability(self._density)))
        # The last array with as many rows as this one has slices is most likely the layer whose outputs it reads.
        linked = [units for units in self._units if len(units) == geometry.slices > 1]
        self._linked = linked[-1] if linked else None
        zeros, ones = (1 + sum(unit[bit] for unit in self._linked or ()) for bit in (0, 1))
        while zeros + ones >= 1 << 31:
            zeros, ones = (zeros + 1) >> 1, (ones + 1) >> 1
        self._linked_density = zeros, ones

    def _code_row(self, values: list[int]) -> list[int]:
        self._row, self._last = _Line(), 0
        coded: list[int] = []
        given = iter(values)
        for slice_index in range(self._slices):
            self._slice = slice_index
            self._kernel, self._kernel_nonzeros = [0, 0], 0
            for place in range(self._height * self._width):
                self._place = place
                y, x = divmod(place, self._width)
                self._at = self._slice * self._slice_stride + (y + 3) * self._stride + x + 3
                value = self._code_element(next(given, 0))
                coded.append(value)
                seen = max(-_CLAMP, min(_CLAMP, value))
                self._rows[0][self._at] = seen
                self._last = seen or self._last
        return coded

    def _code_element(self, value: int) -> int:
        near = _Neighbours(self._rows, self._at, self._stride, self._slice_stride)
        values = near.left, near.up, *near.corners, *near.two_away, *near.knights
        window = list(zip(_WINDOW_WEIGHTS, values, strict=True))
        weight = sum(w for w, v in window if v)
        if not self._code_nonzero(int(value != 0), near, weight):
            return 0
        negative = self._code_sign(int(value < 0), near, sum(w * v for w, v in window))
        average = 4 * sum(w * abs(v) for w, v in window) // weight if weight else 0
        magnitude = self._code_magnitude(abs(value), near, average)
        return -magnitude if negative else magnitude

    def _code_nonzero(self, nonzero: int, near: _Neighbours, weight: int) -> int:
        kind, surroundings = self._kind, _bucket(weight, _WINDOW_BOUNDS)
        pattern = (
            (near.left != 0) + 2 * (near.up != 0) + 4 * sum(v != 0 for v in near.corners) + 12 * any(near.two_away)
        )
        around = min(sum(v != 0 for v in near.before_around), 2)
        above = (near.before != 0) + 2 * (near.before_two != 0) + 4 * around + 12 * (near.left != 0)
        progress = 8 * _bucket(self._place, _PLACE_BOUNDS) + _bucket(self._kernel_nonzeros, _COUNT_BOUNDS)
        far = kind.far[min(near.nonzeros, 11)]
        contexts = kind.pattern[pattern], kind.above[above], kind.window[surroundings], kind.progress[progress], far
        column, density = self._columns[self._at].density, _probability(self._density)
        row = _blend(self._row.density, _ROW_WEIGHT, density)
        columns = _blend(self._columns_around(), _COLUMNS_WEIGHT, density)
        estimates = [
            row,
            _blend(column, _COLUMN_WEIGHT, _probability(columns)),
            columns,
            _blend(self._slice_densities[self._slice], _SLICE_WEIGHT, density),
            _blend(self._kernel, _KERNEL_WEIGHT, _probability(row)),
            *(_blend(context, _CONTEXT_WEIGHT, density) for context in contexts),
        ]
        base = _stretch(self._density)
        deviations = [_stretch(estimate) - base for estimate in estimates] + [self._linked_deviation(), 256]
        self._line_deviations = deviations[:2]
        mixer = kind.density[min(surroundings, 5)]
        nonzero = mixer.code(self._coder, nonzero, base, deviations, _DENSITY_RATE)
        for counts in (self._row.density, column, self._slice_densities[self._slice], self._kernel, self._density):
            _hit(counts, nonzero, _DENSITY_LIMIT)
        for counts in contexts:
            _hit(counts, nonzero, _CONTEXT_LIMIT)
        self._kernel_nonzeros += nonzero
        return nonzero

    def _columns_around(self) -> tuple[int, int]:
        """Sum over the column and its neighbours in the slice, this row's as far as it is coded."""
        middles = self._at - self._stride, self._at, self._at + self._stride
        around = [line.density for middle in middles for line in self._columns[middle - 1 : middle + 2]]
        return sum(zeros for zeros, _ in around), sum(ones for _, ones in around)

    def _linked_deviation(self) -> int:
        """Return how much denser than its layer the unit is that this column reads."""
        if self._linked is None:
            return 0
        unit = self._linked[self._place if self._plain else self._slice]
        blended = _blend(unit, _LINK_WEIGHT, _probability(self._linked_density))
        return _stretch(blended) - _stretch(self._linked_density)

    def _code_sign(self, negative: int, near: _Neighbours, slope: int) -> int:
        kind, left, up = self._kind, _sign(near.left), _sign(near.up)
        contexts = (
            (kind.sign_pair[3 * left + up + 4], _SIGN_WEIGHT),
            (kind.sign_slope[6 + _sign(slope) * _bucket(abs(slope), _SLOPE_BOUNDS)], _SIGN_WEIGHT),
            (kind.sign_before[3 * _sign(near.slice_before) + _sign(self._last) + 4], _SIGN_WEIGHT),
            (kind.sign_sum[6 + 2 * left + 2 * up + sum(map(_sign, near.corners))], _SIGN_WEIGHT),
            (self._columns[self._at].sign, _COLUMN_SIGN_WEIGHT),
            (self._row.sign, _ROW_SIGN_WEIGHT),
        )
        deviations = [_stretch(_blend(counts, weight, HALF)) for counts, weight in contexts]
        negative = kind.sign.code(self._coder, negative, 0, deviations, _SIGN_RATE)
        for counts, _ in contexts:
            _hit(counts, negative, _CONTEXT_LIMIT)
        return negative

    def _code_magnitude(self, magnitude: int, near: _Neighbours, average: int) -> int:
        kind, column = self._kind, self._columns[self._at].magnitude
        sizes = 2 * (abs(near.left) + abs(near.up)) + sum(map(abs, near.corners)) + sum(map(abs, near.two_away))
        average, last = _bucket(average, _AVERAGE_BOUNDS), min(abs(self._last), 7)
        nearby = _bucket(sizes, _NEAR_BOUNDS)
        for level in range(1, _UNARY_LEVELS + 1):
            i = min(level, 8) - 1
            contexts = (
                (kind.magnitude_average[8 * i + average], _MAGNITUDE_WEIGHT),
                (kind.magnitude_last[8 * i + last], _MAGNITUDE_WEIGHT),
                (kind.magnitude_near[5 * i + nearby], _MAGNITUDE_WEIGHT),
                (self._row.magnitude, _ROW_MAGNITUDE_WEIGHT),
                (column, _COLUMN_MAGNITUDE_WEIGHT),
            )
            base, all_of_level = _stretch(self._levels[i]), _probability(self._levels[i])
            deviations = [_stretch(_blend(counts, weight, all_of_level)) - base for counts, weight in contexts]
            deviations += self._line_deviations
            mixer = kind.magnitude[min(level, 3) - 1]
            more = mixer.code(self._coder, int(magnitude > level), base, deviations, _MAGNITUDE_RATE)
            for counts in (self._levels[i], *(counts for counts, _ in contexts)):
                _hit(counts, more, _CONTEXT_LIMIT)
            if not more:
                return level
        return _UNARY_LEVELS + self._code_escape(magnitude - _UNARY_LEVELS)

    def _code_escape(self, excess: int) -> int:
        """Code an excess >= 1: its bit length in unary, which is learned, then its bits after the first."""
        for length, counts in enumerate(self._escapes):
            more = self._coder.code(int(excess >> length > 1), _probability(_blend(counts, 2 * _HIT, HALF)))
            _hit(counts, more, _CONTEXT_LIMIT)
            if not more:
                break
        else:
            raise Corrupt("an adaptive stream has an integer of 2^31 or more.")
        read = 1
        for i in reversed(range(length)):
            read = 2 * read + self._coder.code(excess >> i & 1, HALF)
        if read > MOST_MAGNITUDE - _UNARY_LEVELS:
            raise Corrupt("an adaptive stream has an integer of 2^31 or more.")
        return read
