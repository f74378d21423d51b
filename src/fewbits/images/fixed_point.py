"""Networks in whole numbers: the same result on every machine, thread count and instruction set.

Values are multiples of 2^-10, weights of 2^-14, all held as float64. Sums of their products stay below 2^52 (checked
when a network is built), where float64 is exact: so the order of summation, fused multiplications and the library that
multiplies matrices make no difference. What rounds is written out below, and is an operation that IEEE 754 rounds in
one way only.

docs/payload/image.md has the formulas.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, pad, unfold

from fewbits.errors import Corrupt
from fewbits.images.gdn import Gdn

VALUE = 1 << 10  # WIRE: what a value is a multiple of, inverted
WEIGHT = 1 << 14  # WIRE: likewise a weight
MOST = float(1 << 20)  # WIRE: the greatest magnitude of a value, counted in 2^-10
_MOST_SUM = float(1 << 52)
_COLUMNS = 1 << 23  # numbers that a convolution has in columns at a time
_MOST_NORM = float(1 << 32)  # WIRE: of what divides or multiplies, counted in 2^-24


def counted(values: Tensor, unit: int) -> Tensor:
    """Return the nearest multiples of 1 / unit, counted, float64; half goes up."""
    return torch.floor(values.detach().cpu().double() * unit + 0.5)


class Convolution(NamedTuple):
    """A convolution (or a transposed one), its weights (out, in, k, k) or (in, out, k, k) and biases counted."""

    weight: Tensor
    bias: Tensor  # in 2^-24
    size: int
    stride: int
    padding: int
    is_transposed: bool

    def __call__(self, values: Tensor) -> Tensor:
        """Return the results (1, out, h, w) of values (1, in, h, w); a few rows at a time, which bounds memory."""
        sums = self._transposed(values) if self.is_transposed else self._plain(values)
        # WIRE NUMERICS: whole numbers below 2^52 up to here; the quotient by a power of two is exact, and so is floor.
        return _cut(torch.floor((sums + self.bias[:, None, None] + WEIGHT / 2) / WEIGHT))

    def _plain(self, values: Tensor) -> Tensor:
        height, width = (side // self.stride for side in values.shape[2:])
        values, weight = pad(values, [self.padding] * 4), self.weight.flatten(1)
        strips: list[Tensor] = []
        for first, last in self._strips(height, width):
            rows = values[:, :, first * self.stride : (last - 1) * self.stride + self.size]
            columns = unfold(rows, self.size, stride=self.stride)[:, :, : (last - first) * width]
            strips.append((weight @ columns).reshape(1, -1, last - first, width))
        return torch.cat(strips, 2)

    def _transposed(self, values: Tensor) -> Tensor:
        height, width = values.shape[2:]
        weight, stride = self.weight.flatten(1).T, self.stride
        reach = [(side - 1) * stride + self.size for side in (height, width)]
        # The output is `stride` times as large as the input, and may go on where no kernel reaches.
        sizes = [max(reach[axis], self.padding + stride * side) for axis, side in enumerate((height, width))]
        sums = values.new_zeros(1, len(self.bias), *sizes)
        for first, last in self._strips(height, width):
            columns = weight @ values[:, :, first:last].flatten(2)
            rows = (last - 1 - first) * stride + self.size
            strip = fold(columns, (rows, reach[1]), self.size, stride=stride)
            sums[:, :, first * stride : first * stride + rows, : reach[1]] += strip
        inside = [slice(self.padding, self.padding + stride * side) for side in (height, width)]
        return sums[:, :, inside[0], inside[1]]

    def _strips(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        inputs = len(self.bias) if self.is_transposed else self.weight.shape[1]
        step = max(1, _COLUMNS // (inputs * self.size**2 * width))
        for first in range(0, height, step):
            yield first, min(height, first + step)


class Normalisation(NamedTuple):
    """Divisive normalisation, or its counterpart: gamma (channels, channels) and beta (channels,), counted."""

    gamma: Tensor
    beta: Tensor  # in 2^-24
    inverse: bool

    def __call__(self, values: Tensor) -> Tensor:
        """Return the results, of the shape of values (1, channels, h, w)."""
        norm = (self.gamma @ values.abs().flatten(2)).reshape(values.shape) + self.beta[:, None, None]
        norm = norm.clamp(1, _MOST_NORM)
        unit = VALUE * WEIGHT
        # WIRE NUMERICS: products below 2^53 are exact; IEEE 754 rounds a quotient in one way.
        if self.inverse:
            return _cut(torch.floor((values * norm + unit / 2) / unit))
        return _cut(torch.floor(values * unit / norm + 0.5))


class Rectification(NamedTuple):
    """ReLU."""

    def __call__(self, values: Tensor) -> Tensor:
        """Return values with 0 in place of what is below."""
        return values.clamp(min=0)


Layer = Convolution | Normalisation | Rectification


@dataclass(frozen=True)
class FixedPoint:
    """A network in whole numbers.

    Law: equal inputs give equal outputs, whatever computes them.
    """

    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, network: nn.Sequential) -> "FixedPoint":
        """Count a network's weights.

        Raises:
            Corrupt: sums could be beyond 2^52, where they are exact no more.
        """
        return cls(tuple(_layers(network)))

    def __call__(self, values: Tensor) -> Tensor:
        """Return the output (1, out, h, w) for an input (1, in, h, w), both float64, counted in 2^-10."""
        for layer in self.layers:
            values = layer(values)
        return values


def _layers(network: nn.Sequential) -> Iterator[Layer]:
    for layer in network:
        match layer:
            case nn.Conv2d() | nn.ConvTranspose2d():
                is_transposed = isinstance(layer, nn.ConvTranspose2d)
                weight = counted(layer.weight, WEIGHT)
                assert layer.bias is not None
                bias = counted(layer.bias, VALUE * WEIGHT)
                _check(weight.abs().sum((0, 2, 3) if is_transposed else (1, 2, 3)), bias)
                size, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
                assert isinstance(padding, int)
                yield Convolution(weight, bias, size, stride, padding, is_transposed)
            case Gdn():
                # NUMERICS: squares of float32 numbers are exact in float64.
                gamma = counted(layer.gamma_root.detach().double().square(), WEIGHT)
                beta = counted(layer.beta_root.detach().double().square() + 2.0**-6, VALUE * WEIGHT)
                _check(gamma.sum(1), beta)
                yield Normalisation(gamma, beta, layer.inverse)
            case nn.ReLU():
                yield Rectification()
            case _:
                raise TypeError(f"no exact form of {type(layer).__name__}")


def _check(weights: Tensor, bias: Tensor) -> None:
    largest = (weights * MOST + bias.abs() + WEIGHT).max()
    if not bool(largest < _MOST_SUM):  # nor if it is no number
        raise Corrupt("a codec's networks have weights too large to be computed with exactly.")


def _cut(values: Tensor) -> Tensor:
    return values.clamp(-MOST, MOST)
