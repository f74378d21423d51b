"""The posterior over one part's weights, in blocks: trained, drawn from, and sent block by block."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.channel.distributions import Gaussian
from fewbits.channel.mrc import Mrc
from fewbits.channel.orc import Orc
from fewbits.channel.pfr import Pfr
from fewbits.channel.simulator import ChannelSimulator
from fewbits.methods.miracle.layout import Blocks, Piece, sharing_of
from fewbits.methods.miracle.payload import Part, block_values
from fewbits.methods.miracle.posterior import (
    divergence_of,
    forward_channel,
    of_divergence,
    raw_means_of,
)
from fewbits.quantize.parameter_decoders import nearest_code, step_of
from fewbits.tensors import values_of

_LN2 = math.log(2)
_LEAST_SHARE = 1e-4  # of a block's divergence, that a weight starts with, relative to an equal share


class Settings(NamedTuple):
    """What a group needs to know of the method's settings; see `MiracleConfig`."""

    bits: int
    slack: float
    by_divergence: bool
    first_penalty: float
    penalty_rate: float
    candidates: str
    simulator: str
    pick: str


class Start(NamedTuple):
    """What one tensor starts from: its values by sharing (n,) float64, their prior's sd, and bits for each value."""

    piece: Piece
    values: NDArray[np.float64]
    prior: float
    bits: float


class Posterior(NamedTuple):
    """Means, standard deviations and divergences (nats) of the values in blocks, (B, width) each, in prior units."""

    means: Tensor
    sds: Tensor
    divergences: Tensor


class MiracleGroup(nn.Module):
    """The values of one part in blocks of equal divergence.

    raw_means, spreads: (B, width) float32; spreads are shares of a block's divergence, as logits, or log standard
    deviations. log_priors: (T,) float32, of the tensors' priors' standard deviations.
    """

    places: Tensor
    owners: Tensor
    present: Tensor
    indices: Tensor
    sent: Tensor
    sent_values: Tensor
    sent_means: Tensor
    penalties: Tensor

    def __init__(
        self, starts: Sequence[Start | None], pieces: Sequence[Piece], num_blocks: int, seed: int, settings: Settings
    ) -> None:
        """Start a posterior; a tensor of zeros has no start."""
        super().__init__()
        self.pieces, self.seed, self.settings = tuple(pieces), seed, settings
        self._kept = [start is not None for start in starts]
        found = [start for start in starts if start is not None]
        num_values = sum(start.piece.num_values for start in found)
        self.blocks = Blocks.of(num_values, num_blocks, seed)
        places = torch.from_numpy(self.blocks.places())
        owners = torch.repeat_interleave(
            torch.arange(len(found)), torch.tensor([start.piece.num_values for start in found], dtype=torch.int64)
        )
        inside = places.clamp(min=0)
        self.register_buffer("present", places >= 0, persistent=False)
        self.register_buffer("owners", owners[inside], persistent=False)
        # Where in the blocks each value is: the inverse of `places`.
        order = torch.empty(num_values, dtype=torch.int64)
        flat = torch.arange(places.numel()).reshape(places.shape)
        order[places[places >= 0]] = flat[places >= 0]
        self.register_buffer("places", order, persistent=False)
        self.log_priors = nn.Parameter(torch.tensor([math.log(start.prior) for start in found]))
        self._start(found, inside)
        self.register_buffer("indices", torch.zeros(num_blocks, dtype=torch.int64))
        self.register_buffer("sent", torch.zeros(num_blocks, dtype=torch.bool))
        self.register_buffer("sent_values", torch.zeros(places.shape))
        self.register_buffer("sent_means", torch.zeros(places.shape))
        self._any_sent = False  # the same as a Python bool: a GPU need not be waited for
        self.register_buffer("penalties", torch.full((num_blocks,), settings.first_penalty))
        for index, piece in enumerate(self.pieces):
            sharing = sharing_of(piece, seed, index) if self._kept[index] else None
            if sharing is not None:
                self.register_buffer(f"value_of_{index}", torch.from_numpy(sharing.value), persistent=False)
                self.register_buffer(f"sign_of_{index}", torch.from_numpy(sharing.sign), persistent=False)
        self._simulator = _simulator(settings)

    def _start(self, starts: Sequence[Start], inside: Tensor) -> None:
        means, log_sds = list[Tensor](), list[Tensor]()
        for start in starts:
            mean, log_sd = forward_channel(torch.from_numpy(start.values / start.prior), start.bits)
            means.append(mean)
            log_sds.append(log_sd)
        none = torch.zeros(0, dtype=torch.float64)
        mean, log_sd = torch.cat([none, *means])[inside], torch.cat([none, *log_sds])[inside]
        # Each block's divergence is its budget; what a value's own would be says how it is shared.
        wanted = torch.where(self.present, divergence_of(mean, log_sd), 0.0)
        equal = self.budget / self.present.sum(1, keepdim=True).clamp(min=1)
        scale = self.budget / wanted.sum(1, keepdim=True).clamp(min=1e-12)
        shares = (wanted * scale).clamp(min=_LEAST_SHARE) / equal
        logits = shares.clamp(min=_LEAST_SHARE).log()
        divergences = self._shared(logits, self.present)
        raw_means = raw_means_of(mean, divergences)
        if self.settings.by_divergence:
            self.raw_means = nn.Parameter(raw_means.float())
            self.spreads = nn.Parameter(logits.float())
            return
        mean, sd = of_divergence(raw_means, divergences.clamp(min=1e-12))
        self.raw_means = nn.Parameter(mean.float())
        self.spreads = nn.Parameter(sd.log().float())

    @property
    def budget(self) -> float:
        """Nats that a block's divergence is to have."""
        return (self.settings.bits - self.settings.slack) * _LN2

    def _shared(self, logits: Tensor, present: Tensor) -> Tensor:
        shares = torch.softmax(torch.where(present, logits, -torch.inf), 1)
        return self.budget * torch.where(present, shares, 0.0)

    def posterior(self, chosen: Tensor | slice = slice(None)) -> Posterior:
        """Return the posterior of some blocks as it is trained, by default of all."""
        raw_means, spreads, present = self.raw_means[chosen], self.spreads[chosen], self.present[chosen]
        if self.settings.by_divergence:
            divergences = self._shared(spreads, present)
            means, sds = of_divergence(raw_means, divergences.clamp(min=1e-12))
            return Posterior(means, sds, divergences)
        divergences = divergence_of(raw_means, spreads)
        return Posterior(raw_means, spreads.exp(), torch.where(present, divergences, 0.0))

    def priors(self) -> Tensor:
        """Return the priors' standard deviations, (T,): as they are trained, or as they are sent once a block is."""
        if self.is_open:
            return self.log_priors.exp()
        steps = [float(step_of(code)) for code in self.prior_codes()]
        return torch.tensor(steps, dtype=torch.float32, device=self.log_priors.device)

    @property
    def is_open(self) -> bool:
        """Whether no block has been sent yet."""
        return not self._any_sent

    def prior_codes(self) -> list[int]:
        """Return the codes of the priors' standard deviations."""
        return [nearest_code(float(prior)) for prior in self.log_priors.detach().double().exp()]

    def draw(self) -> tuple[list[Tensor], Tensor]:
        """Return a sample of each tensor, and the divergence of the open blocks (B,) in nats."""
        mean, sd, divergences = self.posterior()
        drawn = mean + sd * torch.randn_like(mean)
        in_prior = torch.where(self.sent[:, None], self.sent_values, drawn)
        values = in_prior * self.priors()[self.owners]
        per_block = torch.where(self.sent, 0.0, divergences.sum(1))
        return self.tensors_of_values(values.reshape(-1)[self.places]), per_block

    def tensors_of_values(self, values: Tensor) -> list[Tensor]:
        """The tensors that values (N,) make."""
        tensors, start = list[Tensor](), 0
        for index, (piece, kept) in enumerate(zip(self.pieces, self._kept, strict=True)):
            if not kept:
                tensors.append(values.new_zeros(piece.shape))
                continue
            own = values[start : start + piece.num_values]
            start += piece.num_values
            if piece.share > 1:
                own = own[getattr(self, f"value_of_{index}")] * getattr(self, f"sign_of_{index}")
            elements = own[: piece.num_live].reshape(piece.live)
            if piece.live != piece.shape:
                whole = elements.new_zeros(piece.shape)
                whole[tuple(slice(size) for size in piece.live)] = elements
                elements = whole
            tensors.append(elements)
        return tensors

    @torch.no_grad()
    def picked(self, chosen: Tensor) -> NDArray[np.int64]:
        """Return the numbers of candidates that stand for some blocks (A,), as the posterior is now."""
        mean, sd, _ = self.posterior(chosen)
        present = self.present[chosen]
        # Of what is not present a candidate says nothing: its target is the prior.
        means = torch.where(present, mean, 0.0).double().cpu().numpy()
        sds = torch.where(present, sd, 1.0).double().cpu().numpy()
        message = self._simulator.encode(
            Gaussian(means, sds), Gaussian(np.zeros(means.shape[1]), 1.0), seed=self.seed, numbers=chosen.cpu().numpy()
        )
        return message.indices

    @torch.no_grad()
    def send(self, chosen: Tensor) -> None:
        """Make blocks (A,) final."""
        chosen = chosen[~self.sent[chosen]]
        if not len(chosen):
            return
        self.sent_means[chosen] = self.posterior(chosen).means
        self.indices[chosen] = torch.from_numpy(self.picked(chosen)).to(self.indices.device)
        self.sent[chosen] = self._any_sent = True
        self.log_priors.requires_grad_(False)
        values = block_values(self.part(), self.blocks.width, self.seed, chosen.cpu().numpy())
        self.sent_values[chosen] = torch.from_numpy(values).to(self.sent_values)
        if bool(self.sent.all()):
            self.requires_grad_(False)

    def part(self) -> Part:
        """Return the part as it is sent so far; open blocks have the number 0."""
        codes = iter(self.prior_codes())
        priors = tuple(next(codes) if kept else None for kept in self._kept)
        settings, indices = self.settings, self.indices.cpu().numpy().copy()
        return Part(self.pieces, priors, settings.candidates, settings.bits, settings.simulator != "mrc", indices)

    @torch.no_grad()
    def sent_targets(self) -> list[NDArray[np.float64]]:
        """Return the elements (L,) that blocks stood for when they were sent: what is lost is measured against them."""
        values = (self.sent_means * self.priors()[self.owners]).reshape(-1)[self.places]
        return [values_of(tensor) for tensor in self.tensors_of_values(values)]

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self._any_sent = bool(self.sent.any())

    def steer(self) -> None:
        """Raise the penalty of open blocks above their budget, and lower that of the others.

        PAPER: Havasi et al. 2019, section 3.3: by a factor 1 + epsilon, after each step.
        """
        if self.settings.by_divergence:
            return
        with torch.no_grad():
            above = self.posterior().divergences.sum(1) > self.budget
            factor = 1 + self.settings.penalty_rate
            self.penalties.mul_(torch.where(above, factor, 1 / factor))


def _simulator(settings: Settings) -> ChannelSimulator:
    if settings.simulator == "orc":
        return Orc(1 << settings.bits)
    if settings.simulator == "pfr":
        return Pfr(1 << settings.bits)
    return Mrc(1 << settings.bits, candidates=settings.candidates, likeliest=settings.pick == "likeliest")
