"""The contract every method fulfils: how tensors are made cheap, and how they come back.

A method is built from a frozen config that goes through JSON unchanged. It knows the Lagrangian
multiplier (`rate_weight`) and never files, budgets or workers: those live in `fewbits.api`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.chunk import Chunk, TensorSpec
from fewbits.errors import InvalidArgument
from fewbits.quantize.factors import Factors

_SOME_ROWS = 1024  # of a matrix, at once


class Curvature(NamedTuple):
    """What an error E (R, n) of a weight costs: sum over rows r, s of H[r, s] * E_r inputs E_sᵀ.

    In relative squared error of the module's outputs. H[r, r] is outputs[r], and H[r, s] the root of outputs[r] *
    outputs[s] times couplings[r] @ couplings[s]; without couplings 0. Source: Kronecker factors, Martens & Grosse 2015
    (K-FAC, arXiv:1503.05671), of which the second is a diagonal and what a few directions say beside it.

    inputs: (n, n) float32 or float64, symmetric and positive definite; n the elements of a row.
    outputs: (R,) float64, positive, of sum 1.
    couplings: (R, K) float32, the sum of squares of a row 1 at most; how errors of rows meet at the outputs.
    """

    inputs: NDArray[np.floating]
    outputs: NDArray[np.float64]
    couplings: NDArray[np.float32] | None = None

    def cost(self, before: Tensor, after: Tensor) -> float:
        """Return what it costs that a weight became another, in relative squared error of the module's outputs.

        Args:
            before: (R, …), floating point, n elements a row, on the CPU.
            after: the same.
        """
        inputs, outputs = torch.from_numpy(self.inputs), torch.from_numpy(self.outputs)
        couplings = torch.zeros(len(outputs), 0) if self.couplings is None else torch.from_numpy(self.couplings)
        couplings = couplings * outputs.sqrt().to(couplings)[:, None]
        total, met = 0.0, couplings.new_zeros(couplings.shape[1], len(inputs))
        for start in range(0, len(outputs), _SOME_ROWS):
            rows = slice(start, start + _SOME_ROWS)
            full = torch.promote_types(after.dtype, torch.float32)
            error = after[rows].to(full).sub(before[rows]).flatten(1)
            alone = outputs[rows] - couplings[rows].double().square().sum(1)
            total += float(((error @ inputs.to(error)) * error).sum(1).double() @ alone)
            met.addmm_(couplings[rows].T, error.to(met))
        return total + float(((met @ inputs.to(met)) * met).double().sum())

    def of_rows(self, start: int, stop: int) -> "Curvature":
        """The same of some of the rows."""
        couplings = None if self.couplings is None else self.couplings[start:stop]
        return Curvature(self.inputs, self.outputs[start:stop], couplings)


@dataclass(frozen=True)
class Source:
    """What is to be coded, and what is known about it.

    Tensors are the caller's: never modified. `statistics` may hold, by tensor name, a sensitivity
    (float): the increase of the loss per unit of relative squared error of that tensor; the same of its rows, an
    array (R,) float64: per unit of a row's squared error relative to the whole tensor's energy; the covariance of its
    layer's inputs, an array (n, n) float64, n the elements of a row; or a Curvature.
    """

    tensors: Mapping[str, Tensor]
    module: nn.Module | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    num_weights: int | None = None  # coded weights of the whole, where this is a part of it

    @property
    def rate_divisor(self) -> int:
        """Number of coded weights that `rate_weight` is divided by, at least 1."""
        if self.num_weights is not None:
            return self.num_weights
        return max(1, sum(tensor.numel() for tensor in self.tensors.values() if tensor.is_floating_point()))


@dataclass(frozen=True)
class MethodConfig:
    """Base of the methods' configs: frozen, all fields JSON values.

    Law: `Config.from_json(config.to_json()) == config`.
    """

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dict of JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from `to_json`'s dict.

        Raises:
            InvalidArgument: a key is not a field of this config.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise InvalidArgument(f"{cls.__name__} has no setting named {', '.join(unknown)}.")
        return cls(**values)


class Survey(Protocol):
    """What the search for a budget needs to know of a source: the expected size at any rate weight."""

    def bits(self, rate_weight: float) -> float:
        """Expected bits of the source's payloads, within some per cent; falls as rate_weight rises."""
        ...


class Method(ABC):
    """How tensors are made cheap.

    Laws: `decode` gives the same bits on every machine; `encode` depends on the source, the config,
    `rate_weight` and the seed only, and leaves the source's tensors untouched.
    """

    id: ClassVar[str]  # WIRE: written to files, never reused
    code: ClassVar[int]  # WIRE: the id in bare files, never reused
    payload_version: ClassVar[int]  # WIRE: a change needs a new golden file
    config_type: ClassVar[type[MethodConfig]]
    takes_covariances: ClassVar[bool] = False  # whether a statistic may be the covariance of a layer's inputs
    takes_row_sensitivities: ClassVar[bool] = False  # whether it may be of each row; others are given their mean
    takes_curvatures: ClassVar[bool] = False  # whether it may be a Curvature
    config: MethodConfig

    @abstractmethod
    def __init__(self, config: Any = None) -> None:
        """Build the method from a config of its `config_type`, or from the default one."""

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Self:
        """Build the method from its config's JSON values.

        Raises:
            InvalidArgument: a value is not one of its settings.
        """
        return cls(cls.config_type.from_json(values))

    @abstractmethod
    def units(self, specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
        """Split tensors into what must be encoded together; a pure function of the specs.

        Law: encoding the units apart, in any order, gives the chunks that encoding the source gives.
        """

    @abstractmethod
    def survey(self, source: Source) -> Survey:
        """Gather the statistics that predict the size at any rate weight, in one pass over the tensors."""

    @abstractmethod
    def encode(self, source: Source, *, rate_weight: float, seed: int) -> Iterator[Chunk]:
        """Yield the finished parts of all tensors in the source, minimising

            distortion + rate_weight * bits / (number of coded weights).

        Raises:
            InvalidArgument: a tensor cannot be coded by this method.
        """

    @abstractmethod
    def decode(
        self, chunk: Chunk, *, into: Mapping[str, Tensor] | None = None, num_threads: int = 1
    ) -> Mapping[str, Tensor]:
        """Return the chunk's tensors by name, on the CPU; for a tile, its elements as one dimension.

        Args:
            into: by name, contiguous tensors on the CPU to decode into, which are then those returned; of the dtype
                and the number of elements that the chunk has. After an error they hold anything.
            num_threads: that decoding this one chunk may use.

        Raises:
            Corrupt: the payload breaks a rule of its page in `docs/payload/`.
            Incompatible: the chunk's payload version is not known.
        """

    def factors_of(self, chunk: Chunk) -> Mapping[str, Factors]:
        """Return by name those of a part's tensors that are factors, of which a layer may be computed; by default none.

        Raises:
            Corrupt, Incompatible: as for `decode`.
        """
        return {}


class Reconstruction(NamedTuple):
    """One draw of a representation.

    values: by tensor name, each with its source tensor's shape, dtype and device.
    bits: () float, expected size of this draw in bits, all of it; differentiable in train().
    """

    values: Mapping[str, Tensor]
    bits: Tensor


class Representation(nn.Module, ABC):
    """A method bound to one source; its parameters are the latents and what is learned with them.

    Laws: after `commit(step)`, `forward()` gives for that step exactly the bits that decoding the
    chunks gives; in eval, `bits` is within 1 % + 16 bytes a file of the bytes written.
    """

    steps: tuple[str, ...]
    rate_weight: float
    num_weights: int  # coded weights: the divisor of `rate_loss`

    @abstractmethod
    def forward(self) -> Reconstruction:
        """Return values and bits of one draw: relaxed in train(), what decode gives in eval()."""

    def update(self) -> None:
        """Take note of a training step: averages, counts. `attach` calls it; without it, call it once a step."""

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that are represented; by default each is a step of its own."""
        return self.steps

    def settled(self, step: str) -> Mapping[str, Tensor]:
        """Return which elements of which tensors a step makes final, a bool tensor each; by default all of one."""
        values = self().values
        return {step: torch.ones(values[step].shape, dtype=torch.bool)}

    def owner_of(self, name: str) -> str:
        """Return the tensor that one of the representation's own parameters is of; the parameter's name if of none."""
        return name

    def least_bytes(self) -> int:
        """Return what the parts of a file take at least, however little is coded: no budget can be below."""
        return 0

    def parameter_kind(self, name: str) -> str:
        """Return what one of the representation's own parameters is: "latents", "decoders" or "densities"."""
        return "latents"

    def tidy(self, groups: Sequence[Any], others: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Bring hidden units into an order that codes shorter, in place, for the same function; dead ones come last.

        Args:
            groups: the hidden units of the module that is represented (`fewbits.nn.units.UnitGroup`).
            others: its tensors that are not represented; they are not modified.

        Returns:
            `others`, with their units in the same order.
        """
        return others

    @abstractmethod
    def commit(self, step: str) -> None:
        """Make one step final.

        Raises:
            InvalidArgument: there is no such step.
        """

    def commit_all(self, steps: Sequence[str]) -> None:
        """Make several steps final at once.

        Raises:
            InvalidArgument: there is no such step.
        """
        for step in steps:
            self.commit(step)

    @abstractmethod
    def chunks(self) -> Iterator[Chunk]:
        """Yield the finished parts; commits what is not committed yet."""


class TrainableMethod(Method):
    """A method whose latents can be trained: EPR, MIRACLE, QSWD with fine-tuning."""

    resumes_from: ClassVar[tuple[str, ...]] = ()  # ids of methods whose parts `resumed` takes beside its own

    @abstractmethod
    def represent(self, source: Source, *, rate_weight: float, seed: int) -> Representation:
        """Bind the method to a source, its latents started from the source's tensors."""

    def rate_weight_within(self, source: Source, budget: int) -> float | None:
        """Return the rate weight at which the parts of a file take at most so many bytes, where that is known already.

        None where only training shows it: the rate weight is then steered.

        Raises:
            InvalidArgument: no rate weight takes so few.
        """
        return None

    @classmethod
    def resumed(cls, chunks: Sequence[Chunk]) -> Self:
        """Build the method that parts were made with, so that its representations start from their very latents.

        Args:
            chunks: of this method and those it resumes from, with their losses where these are known.

        Raises:
            InvalidArgument: the method's latents cannot be trained on.
            Corrupt, Incompatible: as for `decode`.
        """
        raise InvalidArgument(f"the latents of {cls.id!r} cannot be trained on.")

    def encode(self, source: Source, *, rate_weight: float, seed: int) -> Iterator[Chunk]:
        """Represent and commit without training."""
        with torch.no_grad():
            yield from self.represent(source, rate_weight=rate_weight, seed=seed).eval().chunks()
