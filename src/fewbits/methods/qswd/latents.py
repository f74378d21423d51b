"""The factors of a tensor, or of one of its tiles, as latents: what `qswd` trains, and what it writes.

    W = step · C · diag(2^exponent) · Z         C, Z in training: straight-through rounded

PAPER: end-to-end fine-tuning through both quantisers, of which the abstract tells; how is our reading.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.chunk import Loss, TensorSpec
from fewbits.errors import InvalidArgument
from fewbits.methods.qswd.payload import Coded, coded, coded_shape
from fewbits.models.adaptive_counts import AdaptiveCounts, Layout
from fewbits.models.fit import best_fit
from fewbits.nn.latent_tensor import DecoderChoice, LatentTensor
from fewbits.quantize.factors import Factors
from fewbits.quantize.rounding import ordered_sum
from fewbits.tensors import rounded_to, values_of

_LOG_REACH = 30.0  # NUMERICS: of the step's ratio to the first one, so that neither is lost in training


class Held(NamedTuple):
    """Factors as they would be written now, with their description, what they lost, and the values they stand for."""

    factors: Factors
    coded: Coded
    loss: Loss
    values: Tensor  # (rows, columns), of the tensor's dtype


class FactorLatents(nn.Module):
    """Codebook and coefficients of a matrix (rows, columns) as latents, and their step; the exponents stay.

    With one-hot coefficients (vector quantisation) the codebook trains, and the indices stay.
    """

    scales: Tensor
    mask: Tensor
    indices: Tensor
    first_step: Tensor

    def __init__(
        self,
        spec: TensorSpec,
        span: tuple[int, int] | None,
        shape: tuple[int, int],
        factors: Factors,
        loss: Loss | None,
        decay: float,
        device: torch.device,
    ) -> None:
        """Start from factors, in latents that are exactly their numbers.

        Args:
            span: of the tensor's elements that these are, where they are a tile.
            shape: rows and columns of their product.
            loss: what is known to have been lost by them.
            decay: of the latents' moving average; 0 for none.

        Raises:
            InvalidArgument: the product is beyond the tensor's dtype.
        """
        super().__init__()
        self.spec, self.span, self.shape = spec, span, shape
        self.dtype: torch.dtype = getattr(torch, spec.dtype)
        self._start, self._loss = factors, loss
        array = coded_shape(factors.tiling, factors.rank, *shape)
        self.codebook = _latents(f"{spec.name}: codebook", factors.codebook.T, decay, device)
        self.codebook.requires_grad_(not factors.is_scalar)
        self.codebook.log_step.requires_grad_(False)
        self.coefficients: LatentTensor | None = None
        if factors.one_hot:
            held = torch.from_numpy(factors.coefficients.copy()).to(device)
            self.register_buffer("indices", held)
        else:
            self.coefficients = _latents(
                f"{spec.name}: coefficients", factors.coefficients.reshape(array), decay, device
            )
            self.coefficients.log_step.requires_grad_(False)
            self.register_buffer("mask", self.coefficients.latents.detach() != 0)
        exponents = torch.from_numpy(np.ldexp(np.float32(1), factors.exponents))
        self.register_buffer("scales", exponents.to(device))
        self.register_buffer("first_step", torch.tensor(factors.step, dtype=torch.float32, device=device))
        self.log_ratio = nn.Parameter(torch.zeros((), device=device))
        self._held: Held | None = None
        written = self.held().coded
        self.side_bits = 8.0 * len(written.description)  # and of what does not train
        if factors.one_hot:
            self.side_bits += best_fit(factors.coefficients[None], None).bits

    def latent_tensors(self) -> list[LatentTensor]:
        """Return both factors' latents, or the codebook's alone."""
        return [self.codebook] if self.coefficients is None else [self.codebook, self.coefficients]

    def step(self) -> Tensor:
        """Return the product's step, () float32."""
        return self.first_step * self.log_ratio.clamp(-_LOG_REACH, _LOG_REACH).exp()

    def product(self, codebook: Tensor, coefficients: Tensor | None, *, masked: bool = False) -> Tensor:
        """Return the matrix (rows, columns) of factors, rounded or not: float arithmetic, to train with.

        Args:
            codebook: (rank, height). coefficients: as they are coded; None where they are one-hot.
            masked: coefficients that were 0 at first do not count.
        """
        scaled = codebook.T * self.scales
        if coefficients is None:
            sums = scaled.index_select(1, self.indices)
        else:
            if masked:
                coefficients = coefficients * self.mask
            sums = scaled @ coefficients.reshape(self.scales.numel(), -1)
        tiling = self._start.tiling
        along, across = tiling.grid(*self.shape)
        blocks = sums.reshape(tiling.height, along, across)
        order = (1, 0, 2) if tiling.side == "rows" else (1, 2, 0)
        return blocks.permute(order).reshape(self.shape) * self.step()

    def factors(self) -> Factors:
        """Return the factors that would be written now.

        Raises:
            InvalidArgument: training has left one of them without a number that a file can hold.
        """
        start = self._start
        codebook = np.ascontiguousarray(self.codebook.integers()[0].T)
        step = float(np.float32(self.step().detach().cpu().numpy()))
        coefficients = start.coefficients
        if self.coefficients is not None:
            coefficients = self.coefficients.integers()[0].reshape(start.rank, -1)
        found = Factors(start.tiling, step, codebook, start.exponents, coefficients, start.one_hot)
        if not (0 < step < math.inf and found.is_exact()):
            raise InvalidArgument(f"tensor {self.spec.name!r} has factors beyond what a file holds: training diverged.")
        return found

    def held(self) -> Held:
        """Return what would be written now; nothing is done again unless something has changed.

        Raises:
            InvalidArgument: training has diverged.
        """
        now = self.factors()
        if self._held is None or not _equal(self._held.factors, now):
            values = rounded_to(now.values(*self.shape).ravel(), self.spec.dtype)
            if not bool(values.isfinite().all()):
                raise InvalidArgument(f"tensor {self.spec.name!r} has a product beyond its dtype: training diverged.")
            written = coded(now, *self.shape)
            self._held = Held(now, written, self._loss_of(now, values, written.bits), values.reshape(self.shape))
        return self._held

    @torch.no_grad()
    def _loss_of(self, factors: Factors, values: Tensor, bits: float) -> Loss:
        """What rounding lost, against the product before it; at the start, what is known."""
        if self._loss is not None and _equal(self._start, factors):
            return self._loss._replace(bits=bits)
        codebook, coefficients = self.codebook.evaluated(), None
        if self.coefficients is not None:
            coefficients = self.coefficients.evaluated()
        before = values_of(self.product(codebook, coefficients).reshape(-1).cpu())
        after = values_of(values)
        return Loss(ordered_sum((after - before) ** 2), ordered_sum(before * before), bits)

    def commit(self) -> None:
        """Make the factors final."""
        self.held()
        for latents in self.latent_tensors():
            latents.commit()
        self.requires_grad_(False)


def _latents(name: str, levels: NDArray[np.int64], decay: float, device: torch.device) -> LatentTensor:
    """Latents of step 1, at whole numbers (rows, n); each row is counted alone, as it is coded."""
    start = torch.from_numpy(levels.astype(np.float32)).to(device)
    spec = TensorSpec(name, "float32", tuple(start.shape))
    rows, columns = start.shape

    def density(latents: Tensor) -> AdaptiveCounts:
        return AdaptiveCounts(latents, Layout(rows, 1, columns))

    return LatentTensor(spec, start, DecoderChoice(), 1.0, density, decay)


def _equal(a: Factors, b: Factors) -> bool:
    same = a.step == b.step and np.array_equal(a.codebook, b.codebook)
    return same and np.array_equal(a.coefficients, b.coefficients)
