"""Sums over samples by which curvatures are told: of what layers read, and of gradients at what they make."""

from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.method import Curvature
from fewbits.nn.outputs import full
from fewbits.nn.unfolding import unfolded

_DAMPING = 0.01  # of the mean of a diagonal: samples say little of directions that hardly any of them has
_LEAST_ROW = 0.02  # of the mean of rows
_PRIOR = 3 / 10_000  # uses a sample of each row of a table, beside those that were seen
_SHRINKAGE = 5  # uses with the mean gradient of a table, beside those of a row
_MOST = 2**22  # elements that are held at once for a layer: 16 MB
_BLOCK = 256  # rows
_DIRECTIONS = 4
_COUPLINGS = 96  # directions along which rows' errors are known to meet: as much memory as so many columns, twice
_LEAST_COUPLED, _MOST_COUPLED = 64, 1 << 13  # rows
_LEAST_RANK = 1e-6  # of the mean of a diagonal
_SAME = 0.05  # relative difference of equal gradients at most, as half precision rounds

# Directions that some sums look along now: they are as large as the sums, and all weights of as many rows share them.
_KNOWN: WeakValueDictionary[tuple[int, int, torch.device, torch.dtype], Tensor] = WeakValueDictionary()


class Call(NamedTuple):
    """Of a layer in a batch: what it read."""

    layer: Any
    read: Tensor


class Probe:
    """A weight's gradient (R, n) in a batch, as calls of its layers make it, seen along a few directions.

    directions: (n, 4); seen: (R, 4).
    """

    def __init__(self, like: Tensor) -> None:
        rows, width = like.shape
        self.directions = torch.randn(width, _DIRECTIONS, generator=torch.Generator().manual_seed(0)).to(like)
        self.seen = like.new_zeros(rows, _DIRECTIONS)

    def is_all_of(self, gradient: Tensor) -> bool:
        """Tell whether calls make all of the gradient (R, n), as far as half precision tells it."""
        expected = gradient @ self.directions
        # True where it is no number, which sums say as well
        return not bool((self.seen - expected).norm() > _SAME * expected.norm())


class Product:
    """Sums over samples of a weight (R, n) by which X (T, n) is multiplied, with gradients G (T, R): W' = Gᵀ X.

    inputs: (n, n), of W'ᵀ W' and, scaled to the same trace, Xᵀ X; outputs: (R,), of the diagonal of W' W'ᵀ.
    met: (R, K), of Gᵀ G Ω, G scaled to the same trace; alike: (R,), of the diagonal of Gᵀ G. Ω: (R, K), random.
    """

    def __init__(self, like: Tensor) -> None:
        rows, width = like.shape
        self.inputs, self.outputs = like.new_zeros(width, width), like.new_zeros(rows)
        self.directions = _directions(like)
        self.met, self.alike = torch.zeros_like(self.directions), like.new_zeros(rows)

    def add(self, call: Call, gradient: Tensor, scale: float, samples: int, probe: Probe | None) -> None:
        """Add a call, its gradient still to be scaled, in a batch of so many samples; and let the probe see W'."""
        layer, read = call.layer, call.read
        if gradient.ndim < (2 if isinstance(layer, nn.Linear) else layer.weight.ndim):
            read, gradient = read.unsqueeze(0), gradient.unsqueeze(0)
        rows, width = len(self.outputs), len(self.inputs)
        places = gradient.numel() // (len(gradient) * rows)
        by_weight = places * rows * width + rows * width**2 < 2 * places**2 * (rows + width) + places * width**2
        held = places * (3 * width + 2 * rows) + (rows * width if by_weight else 2 * places**2)
        step = max(1, _MOST // held)
        for some, felt in zip(read.split(step), gradient.split(step), strict=True):
            x, g = _matrices(layer, full(some), full(felt))
            x, g = (x * scale, g) if width < rows else (x, g * scale)
            felt = (add_by_weight if by_weight else add_by_places)(self.inputs, x, g)
            self.outputs += felt.sum(0)
            self._add_met(g, felt.sum(1))
            if probe is not None:
                probe.seen.addmm_(g.flatten(0, 1).T, x.flatten(0, 1) @ probe.directions)
            # PAPER: K-FAC has Xᵀ X alone. W'ᵀ W' knows which of it is felt, but not what else will be: half of each.
            energy = x.square().sum((1, 2)).clamp(min=torch.finfo(x.dtype).tiny)
            read_alike = (x * (felt.sum(1) / energy).sqrt()[:, None, None]).flatten(0, 1)
            self.inputs.addmm_(read_alike.T, read_alike)

    def _add_met(self, g: Tensor, felt: Tensor) -> None:
        """Add gradients (B, T, R) of samples that are felt so much, (B,)."""
        if self.met.numel():
            energy = g.square().sum((1, 2)).clamp(min=torch.finfo(g.dtype).tiny)
            alike = (g * (felt / energy).sqrt()[:, None, None]).flatten(0, 1)
            self.met.addmm_(alike.T, alike @ self.directions)
            self.alike += alike.square().sum(0)

    def factors(self, samples: int) -> Curvature:
        """Return the curvature, of so many samples; what is summed is used up."""
        outputs = array_of(self.outputs) / samples
        floored = np.maximum(outputs, _LEAST_ROW * outputs.mean())
        couplings = _couplings(*(array_of(each) for each in (self.directions, self.met, self.alike)))
        return Curvature(_damped(self.inputs, 2 * samples), floored / floored.sum(), couplings)


class Table:
    """Sums over samples of a table (R, n) whose rows are read by their number, with a gradient g (n,) of each use.

    inputs: (n, n), of g gᵀ; felt: (R,), of |g|² of a row's uses; counts: (R,), of its uses.
    """

    def __init__(self, like: Tensor) -> None:
        rows, width = like.shape
        self.inputs, self.felt, self.counts = like.new_zeros(width, width), like.new_zeros(rows), like.new_zeros(rows)

    def add(self, call: Call, gradient: Tensor, scale: float, samples: int, probe: Probe | None) -> None:
        """Add a call, its gradient still to be scaled, in a batch of so many samples; and let the probe see g."""
        uses = samples if len(gradient) == 1 else 1  # all samples share it, as they do positions
        ids, g = call.read.flatten(), full(gradient).reshape(-1, len(self.inputs)) * scale
        if call.layer.padding_idx is not None:
            kept = ids != call.layer.padding_idx
            ids, g = ids[kept], g[kept]
        self.inputs.addmm_(g.T, g)
        self.felt.index_add_(0, ids, g.square().sum(1))
        self.counts.index_add_(0, ids, self.counts.new_full(ids.shape, uses))
        if probe is not None:
            probe.seen.index_add_(0, ids, g @ probe.directions)

    def factors(self, samples: int) -> Curvature:
        """Return the curvature, of so many samples; what is summed is used up."""
        felt, counts = array_of(self.felt), array_of(self.counts)
        relative = (felt * counts.sum() / felt.sum() + _SHRINKAGE) / (counts + _SHRINKAGE)
        outputs = (counts / samples + _PRIOR) * relative
        return Curvature(_damped(self.inputs, counts.sum() / outputs.sum()), outputs / outputs.sum())


class Whole:
    """Sums over batches of a weight's whole gradient (R, n), whatever it is used for: with v independent from sample to
    sample, the products of different samples' gradients vanish on average.

    inputs: (n, n), of W'ᵀ W'; outputs: (R,), of the diagonal of W' W'ᵀ.
    """

    def __init__(self, like: Tensor) -> None:
        rows, width = like.shape
        self.inputs, self.outputs = like.new_zeros(width, width), like.new_zeros(rows)

    def add(self, gradient: Tensor) -> None:
        """Add a batch's gradient (R, n), scaled."""
        self.inputs.addmm_(gradient.T, gradient)
        self.outputs += gradient.square().sum(1)

    def factors(self, samples: int) -> Curvature:
        """Return the curvature, of so many samples; what is summed is used up."""
        outputs = array_of(self.outputs) / samples
        floored = np.maximum(outputs, _LEAST_ROW * outputs.mean())
        return Curvature(_damped(self.inputs, samples), floored / floored.sum())


def add_by_weight(inputs: Tensor, x: Tensor, g: Tensor) -> Tensor:
    """Add W'ᵀ W' of all samples to `inputs` (n, n); return the diagonals of W' W'ᵀ (B, R), where W' = Gᵀ X.

    For many places T: by their number, it takes least time. x: (B, T, n); g: (B, T, R).
    """
    weights = g.mT @ x
    rows = weights.flatten(0, 1)
    inputs.addmm_(rows.T, rows)
    return weights.square_().sum(2)


def add_by_places(inputs: Tensor, x: Tensor, g: Tensor) -> Tensor:
    """Do the same as `add_by_weight`, for few places."""
    inputs.addmm_(x.flatten(0, 1).T, ((g @ g.mT) @ x).flatten(0, 1))
    return ((x @ x.mT) @ g).mul_(g).sum(1)


def _matrices(layer: nn.Linear | nn.Conv1d | nn.Conv2d, read: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """What a weight is multiplied by, (B, T, n), and the gradients of the products, (B, T, R)."""
    if isinstance(layer, nn.Linear):
        return read.reshape(len(read), -1, read.shape[-1]), gradient.reshape(len(read), -1, gradient.shape[-1])
    padding = layer._reversed_padding_repeated_twice  # pyright: ignore[reportPrivateUsage]
    kernel, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    if isinstance(layer, nn.Conv1d):  # an image of one line
        read, padding = read.unsqueeze(2), [*padding, 0, 0]
        kernel, dilation, stride = (1, *kernel), (1, *dilation), (1, *stride)
    columns, _ = unfolded(read, kernel, dilation=dilation, stride=stride, padding=padding, mode=layer.padding_mode)
    return columns.unflatten(1, (len(read), -1)).permute(1, 2, 0), gradient.flatten(2).mT


def _directions(like: Tensor) -> Tensor:
    """Random directions (R, K) to look along at how errors of rows meet; the same for all weights of as many rows."""
    rows = len(like)
    count = min(_COUPLINGS, rows // 2) if _LEAST_COUPLED <= rows <= _MOST_COUPLED else 0
    key = rows, count, like.device, like.dtype
    found = _KNOWN.get(key)
    if found is None:
        found = torch.randn(rows, count, generator=torch.Generator().manual_seed(0)).to(like)
        _KNOWN[key] = found
    return found


def _couplings(
    directions: NDArray[np.float64], met: NDArray[np.float64], alike: NDArray[np.float64]
) -> NDArray[np.float32] | None:
    """F (R, K) of H ≈ F Fᵀ, by H Ω and the diagonal of H, relative to its root; None of rows that nothing reaches.

    Source: Nyström's approximation from one pass, Tropp et al. 2017 (arXiv:1706.05736).
    """
    if not met.size or not alike.any():
        return None
    inner = directions.T @ met
    inner = (inner + inner.T) / 2
    # NUMERICS: what rounding leaves of a rank that is not there must not be divided by.
    inner[np.diag_indices_from(inner)] += _LEAST_RANK * np.trace(inner) / len(inner)
    try:
        factor = np.linalg.solve(np.linalg.cholesky(inner), met.T).T
    except np.linalg.LinAlgError:
        return None
    relative = factor / np.sqrt(np.maximum(alike, np.finfo(np.float64).tiny))[:, None]
    norms = np.linalg.norm(relative, axis=1, keepdims=True)
    return (relative / np.maximum(1, norms)).astype(np.float32)


def _damped(sums: Tensor, divisor: float) -> NDArray[np.floating]:
    """Sums (n, n) by a divisor, made symmetric to the last bit, and more on the diagonal; in their own memory."""
    matrix = sums.cpu().div_(divisor)
    size = len(matrix)
    for start in range(0, size, _BLOCK):  # no second one of a matrix that may be large
        stop = start + _BLOCK
        matrix[start:stop, start:].add_(matrix[start:, start:stop].T.clone()).div_(2)
        matrix[start:, start:stop] = matrix[start:stop, start:].T.clone()
    matrix.diagonal().add_(_DAMPING * float(matrix.trace()) / size)
    return matrix.numpy()


def array_of(tensor: Tensor) -> NDArray[np.float64]:
    """Return a tensor as an array."""
    return tensor.double().cpu().numpy()
