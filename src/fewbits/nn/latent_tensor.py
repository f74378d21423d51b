"""A tensor as latents × step, with their density: what is trained in a scalar decoder, and what is coded of it."""

import math
import struct
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.chunk import Loss, TensorSpec
from fewbits.coder.body import framing_bits
from fewbits.coder.integers import CodedArray
from fewbits.errors import InvalidArgument
from fewbits.models.descriptions import write_models
from fewbits.models.fit import fit_values
from fewbits.models.laplace import Laplace
from fewbits.plan import SMALL, tiles
from fewbits.quantize.noise import add_uniform_noise, straight_through_round
from fewbits.quantize.rounding import ordered_sum, reconstruct
from fewbits.tensors import LARGEST, rounded_to, values_of

SIDE_BITS = 48  # a tensor's step and model, about
_MOST_LEVEL = 1 << 24  # integers up to here are exact in float32
_LOG_STEP_REACH = 80.0  # NUMERICS: exp of it and of its negative are normal float32 numbers


class Coded(NamedTuple):
    """One tensor or tile ready to be written."""

    description: bytes
    array: CodedArray
    bits: float


def code_levels(levels: NDArray[np.int64], step: float) -> Coded:
    """Choose the integer model of levels (N,), N at least 1, and count what they cost with it."""
    fit = fit_values(levels)
    description = struct.pack("<f", step) + write_models(fit.models)
    return Coded(description, CodedArray(levels, fit.models), fit.bits + 32)


def spans_of(spec: TensorSpec) -> list[tuple[int, int]]:
    """The ranges of elements of a tensor that are coded apart."""
    return tiles(spec) if spec.num_elements >= SMALL else [(0, spec.num_elements)]


class LatentTensor(nn.Module):
    """One tensor as latents × step, with their density: trained together, then final."""

    def __init__(self, spec: TensorSpec, tensor: Tensor, first_step: float) -> None:
        """Start from a tensor's values; the parameters are on its device."""
        super().__init__()
        self.spec = spec
        self._dtype = tensor.dtype
        self._range = min(float(torch.finfo(tensor.dtype).max), LARGEST)
        self.log_step = nn.Parameter(torch.tensor(math.log(first_step), device=tensor.device))
        with torch.no_grad():
            scaled = torch.from_numpy(values_of(tensor) / float(self.step())).to(torch.float32)
        self.latents = nn.Parameter(scaled.to(tensor.device).reshape(tensor.shape))
        self.density = Laplace(float(scaled.abs().mean())).to(tensor.device)
        self._final: tuple[NDArray[np.int32], float] | None = None
        self._counted: tuple[NDArray[np.int32], float] | None = None

    def step(self) -> Tensor:
        """Return the quantiser's step: () float32."""
        return self.log_step.clamp(-_LOG_STEP_REACH, _LOG_STEP_REACH).exp()

    @property
    def committed(self) -> bool:
        """Whether the levels and the step are final."""
        return self._final is not None

    def relaxed(self) -> tuple[Tensor, Tensor]:
        """Return straight-through values, and the bits () of the latents with noise; both differentiable."""
        values = straight_through_round(self.latents, self._limit()) * self.step()
        return values.to(self._dtype), self.density.bits(add_uniform_noise(self.latents)).sum() + SIDE_BITS

    def _limit(self) -> Tensor:
        """Greatest level whose value the dtype holds: () float32."""
        return (self._range / self.step().detach()).floor().clamp(max=_MOST_LEVEL)

    @torch.no_grad()
    def integers(self) -> tuple[NDArray[np.int64], float]:
        """Return the levels (N,) and the step that would be written now.

        Raises:
            InvalidArgument: training has left a latent or the step without a value.
        """
        if self._final is not None:
            return self._final[0].astype(np.int64), self._final[1]
        rounded = straight_through_round(self.latents.float(), self._limit().float())
        if not bool(rounded.isfinite().all()):
            raise InvalidArgument(f"tensor {self.spec.name!r} has latents that are not numbers: its training diverged.")
        return rounded.reshape(-1).cpu().numpy().astype(np.int64), float(self.step().float())

    def exact(self) -> tuple[Tensor, float]:
        """Return what decoding would give now, and the bits it would take."""
        levels, step = self.integers()
        # Evaluation loops ask again and again: the tables are fitted again only when a level has changed.
        if self._counted is None or not np.array_equal(self._counted[0], levels):
            spans = spans_of(self.spec)
            bits = sum(code_levels(levels[start:stop], step).bits for start, stop in spans)
            if self.spec.num_elements >= SMALL:
                bits += len(spans) * framing_bits(bits / len(spans))
            self._counted = (levels.astype(np.int32), bits)
        values = rounded_to(reconstruct(levels, step, None), self.spec.dtype)
        return values.reshape(self.spec.shape).to(self.latents.device), self._counted[1]

    def commit(self) -> None:
        """Make the levels and the step final; the parameters no longer train."""
        if self._final is None:
            levels, step = self.integers()
            self._final = (levels.astype(np.int32), step)
            self.requires_grad_(False)

    def loss_of(self, levels: NDArray[np.int64], step: float, start: int, bits: float) -> Loss:
        """Measure what rounding to these levels (N,) lost, from element `start` on, against the latents before it."""
        before = values_of(self.latents.detach().reshape(-1)[start : start + levels.size]) * step
        after = values_of(rounded_to(reconstruct(levels, step, None), self.spec.dtype))
        return Loss(ordered_sum((after - before) ** 2), ordered_sum(before * before), bits)
