"""Parameter decoders: from levels to weights, exactly (docs/payload/epr.md).

A row of levels times its steps gives coefficients; a basis, if there is one, turns them into a kernel or an image. All
arithmetic is float32 in a fixed order, so that every machine gets the same bits. The bases are real numbers rounded
once: computed here in decimal arithmetic of 40 digits, never by a C library's cosine.

Source: Oktay et al. 2020 (arXiv:1906.06624), section 2; differs: the DFT is packed into as many real, orthonormal
coefficients as the kernel has elements, and layers that read images may have a smooth basis.
"""

import decimal
import math
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STEPS_PER_OCTAVE = 16  # WIRE: a step is 2^(code / 16)
MOST_CODE = 2000  # WIRE: of a step, either way: 2^125
MOST_KERNEL = 1024  # WIRE: elements of a kernel with a basis
MOST_BASIS_WORK = 1 << 14  # WIRE: greatest product of an image's longer side and its grid's

_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
_CONTEXT = decimal.Context(prec=40)


def step_of(code: int) -> np.float32:
    """Return the step of a code: 2^(code / 16), rounded to float32."""
    octave, part = divmod(code, STEPS_PER_OCTAVE)
    return np.ldexp(_mantissas()[part], octave)


def nearest_code(step: float) -> int:
    """Return the code of the step nearest to a positive one, by ratio."""
    return max(-MOST_CODE, min(MOST_CODE, round(STEPS_PER_OCTAVE * math.log2(step))))


@lru_cache(maxsize=1)
def _mantissas() -> NDArray[np.float32]:
    with decimal.localcontext(_CONTEXT):
        powers = [Decimal(2) ** (Decimal(part) / STEPS_PER_OCTAVE) for part in range(STEPS_PER_OCTAVE)]
    return np.array([float(power) for power in powers]).astype(np.float32)


class Dft(NamedTuple):
    """The orthonormal real DFT of an h × w kernel.

    basis: (h w, h w) float32, a row for each coefficient, lowest frequencies first; classes: (h w,) int64, the
    frequency of each coefficient, counted from 0: a cosine and its sine share one.
    """

    basis: NDArray[np.float32]
    classes: NDArray[np.int64]


@lru_cache(maxsize=16)
def dft(height: int, width: int) -> Dft:
    """Return the packed real DFT of kernels of a size.

    Frequencies (u, v) and (-u, -v) are one: the kernel's phase u y / h + v x / w, in turns. They are sorted by
    u^2 w^2 + v^2 h^2 with u and v nearest to 0, then by u, then by v; a frequency that is its own negative has a cosine
    only, every other one a cosine, then a sine.
    """
    found: dict[tuple[int, int], tuple[int, int, int]] = {}
    for u in range(height):
        for v in range(width):
            twins = []
            for a, b in ((u, v), (-u % height, -v % width)):
                near = (a - height if 2 * a > height else a), (b - width if 2 * b > width else b)
                twins.append((near[0] ** 2 * width**2 + near[1] ** 2 * height**2, -near[0], -near[1]))
            first = min(twins)
            found[(-first[1], -first[2])] = first
    order = sorted(found, key=lambda pair: found[pair])
    y, x = np.divmod(np.arange(height * width), width)
    rows: list[NDArray[np.float32]] = []
    classes: list[int] = []
    for index, (u, v) in enumerate(order):
        turns = (u * y * width + v * x * height) % (height * width)
        alone = (2 * u) % height == 0 and (2 * v) % width == 0
        cosines, sines = _waves(height * width, 1 if alone else 2)
        rows.append(cosines[turns])
        classes.append(index)
        if not alone:
            rows.append(sines[turns])
            classes.append(index)
    return Dft(np.stack(rows), np.array(classes, np.int64))


@lru_cache(maxsize=32)
def _waves(size: int, power: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines of k / size turns, (size,) float32 each, times sqrt(power / size)."""
    with decimal.localcontext(_CONTEXT):
        scale = (Decimal(power) / size).sqrt()
        cosines = [float(scale * _cosine(Decimal(k) / size)) for k in range(size)]
        sines = [float(scale * _cosine(Decimal(k) / size - Decimal("0.25"))) for k in range(size)]
    return np.array(cosines).astype(np.float32), np.array(sines).astype(np.float32)


def _cosine(turns: Decimal) -> Decimal:
    """The cosine of an angle in turns, from its series."""
    turns -= turns.to_integral_value()
    if abs(turns) == Decimal("0.25"):
        return Decimal(0)  # WIRE: the series would leave some 1e-41 of it, which float32 has
    angle = 2 * _PI * turns
    square = -angle * angle
    term = total = Decimal(1)
    k = 0
    while abs(term) > Decimal("1e-38"):
        k += 2
        term *= square / (k * (k - 1))
        total += term
    return total


@lru_cache(maxsize=16)
def bumps(size: int, count: int, margin: int) -> NDArray[np.float32]:
    """Return `count` Gaussian bumps over `size` pixels, (size, count) float32.

    Centres divide what lies within the margins evenly; the standard deviation is size / (2 count); scaled so that the
    bumps at a pixel sum to 1 on average.
    """
    with decimal.localcontext(_CONTEXT):
        # Distances from a pixel to a centre are whole numbers of 1 / (2 count): most of them occur many times.
        pixels = range(count - 2 * count * margin, 2 * count * size + count - 2 * count * margin, 2 * count)
        centres = range(size - 2 * margin, 2 * count * (size - 2 * margin), 2 * (size - 2 * margin))
        height_of = {distance: _height(distance, size) for distance in {abs(x - c) for x in pixels for c in centres}}
        heights = [[height_of[abs(x - c)] for c in centres] for x in pixels]
        mean = sum((sum(row, Decimal(0)) for row in heights), Decimal(0)) / size
        return np.array([[float(height / mean) for height in row] for row in heights]).astype(np.float32)


def _height(distance: int, size: int) -> Decimal:
    """Return a bump's height at a distance from its centre, in units of which its standard deviation is `size`."""
    exponent = Decimal(distance * distance) / (2 * size * size)
    # A centre is within half a pixel of a pixel, so the mean is above 1 / 512: what is less than e^-115 becomes 0.
    return (-exponent).exp() if exponent < 115 else Decimal(0)


@dataclass(frozen=True)
class Scalar:
    """Weight = level × step."""

    step_codes: tuple[int, ...]  # one

    def decode(self, levels: NDArray[np.signedinteger]) -> NDArray[np.float32]:
        """Return the weights, any shape, float32."""
        # WIRE NUMERICS: what is not finite is the caller's to refuse.
        with np.errstate(over="ignore", under="ignore"):
            return levels.astype(np.float32) * step_of(self.step_codes[0])


@dataclass(frozen=True)
class Kernels:
    """Kernels from coefficients by a basis: the DFT, with a step for each frequency, or a learned matrix with one.

    matrix: None for the DFT; else h w rows of h w float16, little-endian, a row for each coefficient.
    """

    step_codes: tuple[int, ...]
    size: tuple[int, int]
    matrix: bytes | None = None

    @property
    def basis(self) -> NDArray[np.float32]:
        """The basis, (h w, h w) float32."""
        if self.matrix is None:
            return dft(*self.size).basis
        return np.frombuffer(self.matrix, "<f2").astype(np.float32).reshape(math.prod(self.size), -1)

    def steps(self) -> NDArray[np.float32]:
        """Return the step of each coefficient, (h w,) float32."""
        steps = np.array([step_of(code) for code in self.step_codes], np.float32)
        if self.matrix is not None:
            return np.broadcast_to(steps, (math.prod(self.size),))
        return steps[dft(*self.size).classes]

    def decode(self, levels: NDArray[np.signedinteger]) -> NDArray[np.float32]:
        """Return the kernels of levels (N, h w): (N, h w) float32."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return _combined(levels.astype(np.float32) * self.steps(), self.basis)


@dataclass(frozen=True)
class Grid:
    """Images from a grid of smooth bumps: weights of a layer that reads images."""

    step_codes: tuple[int, ...]  # one
    size: tuple[int, int]  # of the grid
    image: tuple[int, int]
    margin: int

    def bases(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the bumps of the two axes: (height, grid height) and (width, grid width) float32."""
        return bumps(self.image[0], self.size[0], self.margin), bumps(self.image[1], self.size[1], self.margin)

    def decode(self, levels: NDArray[np.signedinteger]) -> NDArray[np.float32]:
        """Return the images of levels (N, grid height × grid width): (N, height × width) float32."""
        down, across = self.bases()
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            coefficients = levels.astype(np.float32) * step_of(self.step_codes[0])
            rows = _combined(coefficients.reshape(-1, self.size[1]), np.ascontiguousarray(across.T))
            columns = rows.reshape(-1, self.size[0], self.image[1]).transpose(0, 2, 1).reshape(-1, self.size[0])
            images = _combined(np.ascontiguousarray(columns), np.ascontiguousarray(down.T))
            return (
                images.reshape(-1, self.image[1], self.image[0]).transpose(0, 2, 1).reshape(-1, math.prod(self.image))
            )


def _combined(coefficients: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum of coefficients (N, n) times basis rows (n, m), the first coefficient first: (N, m) float32.

    NUMERICS: no matrix product, whose order and fused operations differ between machines.
    """
    total = coefficients[:, :1] * basis[0]
    for k in range(1, basis.shape[0]):
        total += coefficients[:, k : k + 1] * basis[k]
    return total


ParameterDecoder = Scalar | Kernels | Grid
