"""The levels of a matrix as latents: started from the weights, rounded straight-through, priced by their own models."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.chunk import Loss, TensorSpec
from fewbits.methods.sic.payload import Written
from fewbits.methods.sic.quantiser import Candidate, fitted, side_bits
from fewbits.models.fit import bits_of_each
from fewbits.plan import tile_rows
from fewbits.quantize.columns import levels_by_column, levels_by_model
from fewbits.quantize.noise import straight_through_round
from fewbits.quantize.weights import Weights, distortion_of_bits
from fewbits.tensors import bits_of

_INSIDE = 0.48  # steps from its level that a latent starts at most: it rounds to the level that was found
_REACH = 64  # levels that have a price of their own, either way
_MOST_LEVEL = 1 << 20
_DEAREST = 40.0  # bits: what no model has seen is far, not beyond everything


class MatrixLatents(nn.Module):
    """A matrix (R, n), or a tile of one, coded without a trellis: steps, scales and classes stay, levels are trained.

    latents: (R, n) float32, in steps. Each starts at its weight, as far as that is within the level's own cell, so that
    it leaves its cell towards the weight first.
    """

    models: Tensor
    shifts: Tensor
    steps: Tensor
    row_scales: Tensor
    costs: Tensor

    def __init__(self, spec: TensorSpec, span: tuple[int, int] | None, written: Written, weights: Tensor) -> None:
        """Take what is written of a matrix, and its weights, (R n,) of its dtype, which are kept to compare with."""
        super().__init__()
        self.spec, self.span = spec, span
        self._weights, self._written = weights.detach(), written
        values, shape = written.matrix.values, tile_rows(spec, span or (0, spec.num_elements))
        models = values.models.of(values.codes)
        ordered = levels_by_column(models, written.levels)
        levels, models = (self._in_places(each) for each in (ordered, models.astype(np.int32)))
        scales = np.empty_like(values.row_scales)
        scales[values.places] = values.row_scales
        found = {"models": models, "shifts": values.shifts, "steps": values.steps, "row_scales": scales[:, None]}
        for name, array in found.items():
            self.register_buffer(name, torch.from_numpy(array).to(weights.device))
        start = torch.from_numpy(levels).to(weights.device, torch.float32)
        off = self._weights.float().reshape(shape) / (self.steps * self.row_scales) - start
        self.latents = nn.Parameter(start + off.clamp(-_INSIDE, _INSIDE))
        self.register_buffer("costs", torch.zeros(0))
        self.refit()

    def forward(self) -> Tensor:
        """Return the values (R n,) of the rounded latents, in the dtype of the weights; gradients pass the rounding."""
        levels = straight_through_round(self.latents, self.latents.new_tensor(_MOST_LEVEL))
        kinds = levels.detach().clamp(-2, 2).add(2).int()
        points = levels + self.shifts.flatten()[self.models * 5 + kinds]
        return (points * self.steps * self.row_scales).flatten().to(self._weights.dtype)

    def bits(self) -> Tensor:
        """Return what the latents cost, () float32, between two levels by their distance to both."""
        below = self.latents.detach().floor().clamp(-_REACH, _REACH - 1)
        places = self.models * self.costs.shape[1] + (below + _REACH).int()
        low, high = self.costs.flatten()[places], self.costs.flatten()[places + 1]
        return (low + (self.latents - below).clamp(0, 1) * (high - low)).sum()

    def refit(self) -> float:
        """Fit models to the levels as they are now; return what they cost in bits."""
        written = self._now()
        models, costs = fitted(written.levels, written.matrix.values.counts)
        at = np.arange(-_REACH, _REACH + 1)
        priced = [np.minimum(bits_of_each(model, at), _DEAREST) for model in models]
        self.costs = torch.from_numpy(np.stack(priced).astype(np.float32)).to(self.latents.device)
        return sum(costs)

    def finished(self) -> Candidate | None:
        """Return what is written of the levels now, and its loss; None if a value is not finite."""
        written = self._now()
        models, costs = fitted(written.levels, written.matrix.values.counts)
        matrix = replace(written.matrix, models=tuple(models))
        decoded = torch.empty_like(self._weights, device="cpu")
        if not matrix.values.write(Weights(bits_of(decoded), self.spec.dtype), written.levels):
            return None
        before = Weights(bits_of(self._weights.cpu()), self.spec.dtype)
        error, energy = distortion_of_bits(before, Weights(bits_of(decoded), self.spec.dtype))[1:]
        bits = sum(costs) + side_bits(matrix, costs)
        return Candidate(Written(matrix, written.levels), Loss(error, energy, bits))

    def _now(self) -> Written:
        values = self._written.matrix.values
        levels = self.latents.detach().round().clamp(-_MOST_LEVEL, _MOST_LEVEL).int().cpu().numpy()
        ordered = np.ascontiguousarray(levels[values.places].T)
        return Written(self._written.matrix, levels_by_model(values.models, values.codes, ordered))

    def _in_places(self, ordered: NDArray[Any]) -> NDArray[Any]:
        """A matrix (n, R) in the order of its classes as one (R, n) in its own."""
        places = np.empty(ordered.T.shape, ordered.dtype)
        places[self._written.matrix.values.places] = ordered.T
        return places
