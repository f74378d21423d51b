"""A tensor as latents behind a parameter decoder, with what their rate is: what `epr` trains, and what it writes."""

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.chunk import Loss, TensorSpec
from fewbits.errors import InvalidArgument
from fewbits.models.entropy_model import EntropyModel
from fewbits.nn.latent_rounding import LatentRounding
from fewbits.quantize.noise import add_uniform_noise, straight_through_round
from fewbits.quantize.parameter_decoders import Grid, Kernels, ParameterDecoder, Scalar, dft, nearest_code, step_of
from fewbits.quantize.rounding import ordered_sum
from fewbits.tensors import LARGEST, rounded_to, values_of

_MOST_LEVEL = 1 << 24  # integers up to here are exact in float32
_LOG_STEP_REACH = 86.0  # NUMERICS: exp of it and of its negative are normal float32 numbers, and steps a file can hold


class DensityOf(Protocol):
    """Makes the entropy model of a tensor's latents."""

    def __call__(self, latents: Tensor) -> EntropyModel:
        """Return the model of these latents, as they are at first."""
        ...


class DecoderChoice(NamedTuple):
    """What turns latents into a tensor's values; size, image and margin are for grids (`parameter_decoders.Grid`)."""

    kind: str = "scalar"  # or "dft", "matrix", "grid"
    size: tuple[int, int] = (1, 1)
    image: tuple[int, int] = (1, 1)
    margin: int = 0


class LatentTensor(nn.Module):
    """One tensor's latents, the steps and basis of its decoder, and its entropy model: trained together, then final.

    latents: of the tensor's shape; for kernels (O, I, h w), for a grid (rows, grid height × grid width).
    """

    average: Tensor

    def __init__(
        self,
        spec: TensorSpec,
        tensor: Tensor,
        choice: DecoderChoice,
        first_step: float,
        density: DensityOf,
        decay: float,
    ) -> None:
        """Start from a tensor's values; the parameters are on its device.

        Args:
            decay: of the latents' moving average, which is what is written; 0 for none.

        Raises:
            InvalidArgument: the decoder is not for such a tensor.
        """
        super().__init__()
        self.spec, self.choice = spec, choice
        self.dtype, self._decay = tensor.dtype, decay
        self._range = min(float(torch.finfo(tensor.dtype).max), LARGEST)
        self._set_bases(tensor)
        device = tensor.device
        num_steps = int(dft(*spec.shape[2:]).classes[-1]) + 1 if choice.kind == "dft" else 1
        first = torch.full((num_steps,) if num_steps > 1 else (), math.log(first_step))
        self.log_step = nn.Parameter(first.to(device))
        with torch.no_grad():
            # By a step of the element's own precision: a value on a half must not become one beside it.
            step = float(torch.tensor(math.log(first_step)).exp())
            scaled = torch.from_numpy(np.asarray(self._analysed(values_of(tensor)) / step)).to(torch.float32).to(device)
        self.latents = nn.Parameter(scaled)
        self.density = density(scaled).to(device)
        self.register_buffer("average", scaled.clone() if decay else torch.zeros(0, device=device))
        self.averages = False  # whether the average has been told of any latents
        self._final: tuple[NDArray[np.int32], ParameterDecoder] | None = None
        self._recorded: tuple[NDArray[np.int64], ParameterDecoder, Loss] | None = None

    def _set_bases(self, tensor: Tensor) -> None:
        kind, shape, device = self.choice.kind, self.spec.shape, tensor.device
        gain = 1.0  # greatest sum of a basis's magnitudes at one element
        if kind in ("dft", "matrix"):
            if len(shape) != 4:
                raise InvalidArgument(f"tensor {self.spec.name!r} has no kernels: decoder {kind!r} needs (O, I, h, w).")
            basis = dft(*shape[2:])
            gain = float(np.abs(basis.basis).sum(0).max())
            self.register_buffer("classes", torch.from_numpy(basis.classes).to(device), persistent=False)
            if kind == "matrix":
                self.matrix = nn.Parameter(torch.from_numpy(basis.basis.copy()).to(device))
            else:
                self.register_buffer("matrix", torch.from_numpy(basis.basis).to(device), persistent=False)
        elif kind == "grid":
            if len(shape) != 2 or shape[1] != math.prod(self.choice.image):
                raise InvalidArgument(
                    f"tensor {self.spec.name!r} has no rows of {' × '.join(map(str, self.choice.image))} elements."
                )
            down, across = self._grid((0,)).bases()
            gain = float(down.sum(1).max() * across.sum(1).max())
            self.register_buffer("down", torch.from_numpy(down).to(device), persistent=False)
            self.register_buffer("across", torch.from_numpy(across).to(device), persistent=False)
        elif kind != "scalar":
            raise InvalidArgument(f"there is no decoder {kind!r}: choose scalar, dft, matrix or grid.")
        self._gain = gain

    def share(self, other: "LatentTensor") -> None:
        """Use another tensor's decoder and, if it is learned, its density: one set of parameters for both.

        Raises:
            InvalidArgument: its decoder is not for such a tensor, or is on another device.
        """
        kernels = self.choice.kind in ("dft", "matrix")
        if self.choice != other.choice or (kernels and self.spec.shape[2:] != other.spec.shape[2:]):
            raise InvalidArgument(
                f"tensors {other.spec.name!r} and {self.spec.name!r} are of one group and cannot share a decoder."
            )
        if self.latents.device != other.latents.device:
            raise InvalidArgument(
                f"tensors {other.spec.name!r} and {self.spec.name!r} are of one group and on two devices."
            )
        self.log_step = other.log_step
        if self.choice.kind == "matrix":
            self.matrix = other.matrix
        if next(self.density.parameters(), None) is not None:
            self.density = other.density

    def _grid(self, codes: tuple[int, ...]) -> Grid:
        return Grid(codes, self.choice.size, self.choice.image, self.choice.margin)

    def _analysed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coefficients of a tensor's values (N,), in the shape of the latents; those of least squared error."""
        shape = self.spec.shape
        if self.choice.kind in ("dft", "matrix"):
            basis = dft(*shape[2:]).basis.astype(np.float64)
            return values.reshape(shape[0], shape[1], -1) @ basis.T
        if self.choice.kind == "grid":
            down, across = (np.linalg.pinv(basis.astype(np.float64)) for basis in self._grid((0,)).bases())
            images = values.reshape(shape[0], *self.choice.image)
            return (down @ images @ across.T).reshape(shape[0], -1)
        return values.reshape(shape)

    def step(self) -> Tensor:
        """Return the quantiser's step, () float32, or that of each frequency."""
        return step_of_log(self.log_step)

    def _held(self) -> tuple[Tensor, ...]:
        """What has a value for each latent: the latents, and their average if there is one."""
        return (self.latents, self.average) if self._decay else (self.latents,)

    def evaluated(self) -> Tensor:
        """Return what is rounded for evaluation and for files, as the latents: the average, once there is one."""
        return self.average if self.averages else self.latents

    @property
    def is_trained(self) -> bool:
        """Whether the latents are neither final nor fixed from the start."""
        return self.latents.requires_grad

    @property
    def committed(self) -> bool:
        """Whether the levels and the decoder are final."""
        return self._final is not None

    def relaxed(self, rounding: LatentRounding) -> tuple[Tensor, Tensor]:
        """Return the values of relaxed levels, and the bits () of the latents as their entropy model sees them."""
        steps = self.step()
        values = self.synthesised(rounding(self.latents, self.limit(steps)), steps)
        noisy = add_uniform_noise(self.latents) if self.density.takes_noise else self.latents
        return values.to(self.dtype), self.density.total_bits(noisy)

    @property
    def is_scalar(self) -> bool:
        """Whether a value is a level times the step."""
        return self.choice.kind == "scalar"

    def synthesised(self, levels: Tensor, steps: Tensor) -> Tensor:
        """Return values of levels, rounded or not, in the tensor's shape: float arithmetic, to train and to record."""
        if self.is_scalar:
            return levels * steps
        if self.choice.kind == "grid":
            grid = (levels * steps).reshape(-1, *self.choice.size)
            return (self.down @ (grid @ self.across.T)).reshape(self.spec.shape)  # pyright: ignore
        scaled = levels * (steps[self.classes] if steps.ndim else steps)  # pyright: ignore
        return (scaled @ self.matrix).reshape(self.spec.shape)

    def limit(self, steps: Tensor) -> Tensor:
        """Return the greatest level whose value the dtype holds: () float32."""
        gain = self._gain
        if self.choice.kind == "matrix":
            gain = self.matrix.detach().abs().sum(0).max()
        # NUMERICS: sums over a basis round; the matrix that is written is rounded, too.
        slack = 1.0 if self.choice.kind == "scalar" else 1.01
        return (self._range / (slack * gain * steps.detach().max())).floor().clamp(max=_MOST_LEVEL)

    def scalar_limit(self, step: float) -> float:
        """Return `limit` of a scalar decoder, for a step above 0 or one that is not a number."""
        if not step > 0:
            return math.nan
        # NUMERICS: a quotient of floats is rounded in float64 without harm to its rounding in float32.
        return float(math.floor(np.float32(min(self._range / step, float(_MOST_LEVEL)))))

    @torch.no_grad()
    def integers(self) -> tuple[NDArray[np.int64], ParameterDecoder]:
        """Return the levels, in the shape of the latents, and the decoder that would be written now.

        Raises:
            InvalidArgument: training has left a latent, a step or the basis without a value.
        """
        if self._final is not None:
            return self._final[0].astype(np.int64), self._final[1]
        decoder = self._decoder(self.step().float())
        rounded = self.evaluated().float()
        if decoder is not None:  # the limit is that of the steps as they are written
            steps = torch.tensor([float(step_of(code)) for code in decoder.step_codes], device=rounded.device)
            rounded = straight_through_round(rounded, self.limit(steps))
        if not bool(rounded.isfinite().all()) or decoder is None:
            raise InvalidArgument(f"tensor {self.spec.name!r} has latents that are not numbers: its training diverged.")
        return rounded.cpu().numpy().astype(np.int64), decoder

    def _decoder(self, steps: Tensor) -> ParameterDecoder | None:
        if not bool(steps.isfinite().all()):
            return None
        codes = tuple(nearest_code(float(step)) for step in steps.reshape(-1))
        if self.choice.kind == "scalar":
            return Scalar(codes)
        if self.choice.kind == "grid":
            return self._grid(codes)
        size = (self.spec.shape[2], self.spec.shape[3])
        if self.choice.kind == "dft":
            return Kernels(codes, size)
        matrix = self.matrix.detach().cpu().numpy().astype(np.float16)
        return Kernels(codes, size, matrix.astype("<f2").tobytes()) if np.isfinite(matrix).all() else None

    def exact_step(self) -> float:
        """Return the step that would be written now, the first one of several."""
        return float(step_of(self.integers()[1].step_codes[0]))

    def exact(self) -> Tensor:
        """Return what decoding would give now, with the source's shape, dtype and device."""
        levels, decoder = self.integers()
        values = rounded_to(decoded_values(levels, decoder), self.spec.dtype)
        return values.reshape(self.spec.shape).to(self.latents.device)

    def commit(self) -> None:
        """Make the levels and the decoder final; the parameters no longer train."""
        if self._final is None:
            levels, decoder = self.integers()
            self._final = (levels.astype(np.int32), decoder)
            self.requires_grad_(False)

    @torch.no_grad()
    def set_levels(self, levels: NDArray[np.int64]) -> None:
        """Put latents and their average at other levels, of the same shape; where a level stays, so do both."""
        old, _ = self.integers()
        moved = torch.from_numpy(old != levels).to(self.latents.device)
        new = torch.from_numpy(levels.astype(np.float32)).to(self.latents.device)
        for held in self._held():
            held.copy_(torch.where(moved, new, held))

    @torch.no_grad()
    def start(self, levels: NDArray[np.int64], decoder: ParameterDecoder, loss: Loss | None) -> None:
        """Start from what a file has: levels, in any shape, a decoder as chosen, and what was lost if that is known."""
        levels = levels.reshape(self.latents.shape)
        for held in self._held():
            held.copy_(torch.from_numpy(levels.astype(np.float32)))
        self.log_step.copy_(_log_steps(decoder).reshape(self.log_step.shape))
        if isinstance(decoder, Kernels) and decoder.matrix is not None:
            self.matrix.copy_(torch.from_numpy(decoder.basis))
        self.density.refresh(self.latents)
        self._recorded = None if loss is None else (levels, decoder, loss)

    @torch.no_grad()
    def settle(self) -> None:
        """Put the latents at the levels, and the steps and the basis where a file would have them."""
        if self.committed:
            return
        levels, decoder = self.integers()
        recorded = self._recorded
        self.start(levels, decoder, None)
        self._recorded = recorded

    @torch.no_grad()
    def reorder(self, axis: int, order: Tensor, repeat: int) -> None:
        """Put the units of an axis, each of `repeat` consecutive indices, in another order."""
        count = self.latents.shape[axis]
        indices = torch.arange(count, device=self.latents.device).reshape(-1, repeat)[order].reshape(-1)
        for held in self._held():
            held.copy_(held.index_select(axis, indices))
        self.density.refresh(self.latents)

    def loss_of(self, values: NDArray[np.float32], start: int, bits: float) -> Loss:
        """Measure what rounding lost in the decoded elements (N,) from `start` on, against the latents before it."""
        after = values_of(rounded_to(values, self.spec.dtype))
        if self._recorded is not None:  # as long as nothing has changed, what the file says was lost still is
            levels, decoder, loss = self._recorded
            now = self.integers()
            if decoder == now[1] and np.array_equal(levels, now[0]):
                return loss._replace(bits=bits)
        with torch.no_grad():
            unrounded = self.synthesised(self.evaluated().float(), self.step().float())
            before = values_of(unrounded.reshape(-1)[start : start + values.size])
        return Loss(ordered_sum((after - before) ** 2), ordered_sum(before * before), bits)


def step_of_log(log_step: Tensor) -> Tensor:
    """Return the quantiser's step (...) of its logarithm (...)."""
    return log_step.clamp(-_LOG_STEP_REACH, _LOG_STEP_REACH).exp()


def _log_steps(decoder: ParameterDecoder) -> Tensor:
    return torch.tensor([math.log(float(step_of(code))) for code in decoder.step_codes])


def decoded_values(levels: NDArray[np.signedinteger], decoder: ParameterDecoder) -> NDArray[np.float32]:
    """Return the float32 values that levels, in the shape of the latents, stand for.

    Law: exact on every machine (docs/payload/epr.md).
    """
    rows = levels if isinstance(decoder, Scalar) else levels.reshape(-1, levels.shape[-1])
    return np.ascontiguousarray(decoder.decode(rows))
