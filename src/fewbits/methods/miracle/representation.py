"""Posteriors over a source's tensors: what `miracle` trains, evaluates exactly, sends block by block, and writes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.chunk import Chunk, Loss
from fewbits.errors import InvalidArgument
from fewbits.method import Reconstruction, Representation, Source
from fewbits.methods.lossless import code_bits
from fewbits.methods.miracle.group import MiracleGroup
from fewbits.methods.miracle.payload import LIMITS, encode_part, tensors_of
from fewbits.plan import group_network
from fewbits.quantize.rounding import ordered_sum
from fewbits.tensors import bits_of, from_bits, lossy_values, rounded_to, spec_of, values_of

if TYPE_CHECKING:
    from fewbits.methods.miracle import Miracle

_LN2 = float(np.log(2))


class MiracleRepresentation(Representation):
    """Posteriors over a source's floating point tensors; what cannot be coded lossily stays as it is."""

    def __init__(self, method: "Miracle", source: Source, *, rate_weight: float, seed: int) -> None:
        """Start the posteriors from the source's tensors, which are read and not kept."""
        super().__init__()
        self.rate_weight, self.num_weights = rate_weight, source.rate_divisor
        self._method, self._seed = method, seed
        self._specs = [spec_of(name, tensor) for name, tensor in source.tensors.items()]
        self._exact: dict[str, tuple[Tensor, str]] = {}
        self._devices: dict[str, tuple[torch.device, torch.dtype]] = {}
        values: dict[str, NDArray[np.float64]] = {}
        for spec in self._specs:
            tensor = source.tensors[spec.name].detach()
            found, note = lossy_values(spec, tensor)
            if found is not None:
                values[spec.name] = found
                self._devices[spec.name] = tensor.device, tensor.dtype
            else:
                self._exact[spec.name] = (from_bits(bits_of(tensor).copy(), spec.dtype, spec.shape), note)
        plans = method.plans(self._specs, values, source, rate_weight, seed)
        starting = {s.spec.name for p in plans for s, start in zip(p.slots, p.starts, strict=True) if start is not None}
        self._names = tuple(spec.name for spec in self._specs if spec.name in starting)
        self._slots = [plan.slots for plan in plans]
        self.groups = nn.ModuleList()
        for plan in plans:
            group = MiracleGroup(plan.starts, [slot.piece for slot in plan.slots], plan.num_blocks, seed, method.group)
            self.groups.append(group.to(self._devices[plan.slots[0].spec.name][0]))
        self._values, self._trained = values, False  # what is lost is measured against these until they are trained
        self._exact_bits = sum(
            code_bits(bits_of(tensor), spec_of(name, tensor)).bits for name, (tensor, _) in self._exact.items()
        )
        self._encoded: dict[int, tuple[tuple[int, ...], list[NDArray[np.float32]], bytes]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that have a posterior: those of zeros have none."""
        return self._names

    @property
    def steps(self) -> tuple[str, ...]:  # pyright: ignore
        """The blocks, "group:block"."""
        return tuple(
            f"{index}:{block}" for index, group in enumerate(self._groups()) for block in range(group.blocks.num_blocks)
        )

    def _groups(self) -> list[MiracleGroup]:
        return [group for group in self.groups if isinstance(group, MiracleGroup)]

    @property
    def open_steps(self) -> tuple[str, ...]:
        """The blocks that are not sent yet."""
        sent = [flag for group in self._groups() for flag in group.sent.tolist()]
        return tuple(step for step, done in zip(self.steps, sent, strict=True) if not done)

    def forward(self) -> Reconstruction:
        """Return a sample of the posterior and its divergence in train(); in eval() what decode would give now."""
        if not self.training:
            encoded = [self._now(index) for index in range(len(self.groups))]
            bits = torch.tensor(self._exact_bits + 8.0 * sum(len(payload) for _, payload in encoded))
            return Reconstruction(self._gathered([self._as_tensors(values) for values, _ in encoded]), bits)
        drawn: list[list[Tensor]] = []
        bits, steering = torch.tensor(self._exact_bits), torch.zeros(())
        for group in self._groups():
            tensors, per_block = group.draw()
            drawn.append(tensors)
            sent = float(group.sent.sum()) * group.settings.bits
            bits = bits.to(per_block.device) + per_block.sum().detach() / _LN2 + sent
            steering = (
                steering.to(per_block.device) + (group.penalties.clone() * per_block).sum()
            )  # they move before the backward
        if not self._method.settings.by_divergence and self.rate_weight > 0:
            # The divergence of each block at its own price: what `rate_loss` multiplies is divided out.
            scaled = steering * self.num_weights / self.rate_weight
            bits = bits + (scaled - scaled.detach())
        return Reconstruction(self._gathered(drawn), bits)

    def _gathered(self, tensors: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
        """The source's tensors, in its order, of those of the groups."""
        pieces: dict[str, list[Tensor]] = {}
        for slots, found in zip(self._slots, tensors, strict=True):
            for slot, tensor in zip(slots, found, strict=True):
                pieces.setdefault(slot.spec.name, []).append(tensor)
        values: dict[str, Tensor] = {}
        for spec in self._specs:
            if spec.name in self._exact:
                values[spec.name] = self._exact[spec.name][0]
                continue
            parts = pieces[spec.name]
            whole = parts[0] if len(parts) == 1 else torch.cat([part.reshape(-1) for part in parts])
            device, dtype = self._devices[spec.name]
            limit = float(LIMITS[spec.dtype])
            whole = whole.clamp(-limit, limit)
            values[spec.name] = whole.reshape(spec.shape).to(device=device, dtype=dtype)
        return values

    def _as_tensors(self, values: Sequence[NDArray[np.float32]]) -> list[Tensor]:
        return [torch.from_numpy(value) for value in values]

    @torch.no_grad()
    def _now(self, index: int) -> tuple[list[NDArray[np.float32]], bytes]:
        """A group's decoded tensors and payload if all its blocks were sent now; remembered until something changes."""
        group = self._groups()[index]
        state = (*(parameter._version for parameter in group.parameters()), int(group.sent.sum()))
        before = self._encoded.get(index)
        if before is not None and before[0] == state:
            return before[1], before[2]
        part = group.part()
        still = torch.nonzero(~group.sent).reshape(-1)
        if len(still):
            part.indices[still.cpu().numpy()] = group.picked(still)
        dtypes = [slot.spec.dtype for slot in self._slots[index]]
        self._encoded[index] = state, tensors_of(part, dtypes, self._seed), encode_part(part)
        return self._encoded[index][1], self._encoded[index][2]

    def update(self) -> None:
        """Move the penalties of blocks, where their divergence is held by them."""
        self._trained = True
        for group in self._groups():
            group.steer()

    def owner_of(self, name: str) -> str:
        """Return the first tensor of the group that a parameter is of."""
        return self._slots[int(name.split(".")[1])][0].spec.name

    def parameter_kind(self, name: str) -> str:
        """Return what a parameter is: latents, or the priors, which belong to the decoder."""
        return "decoders" if name.endswith("log_priors") else "latents"

    def least_bytes(self) -> int:
        """Return the bytes of priors and of one number a group."""
        return sum(4 + 3 * len(slots) for slots in self._slots) + int(self._exact_bits / 8)

    def commit(self, step: str) -> None:
        """Send a block: its values are final."""
        self.commit_all((step,))

    def commit_all(self, steps: Sequence[str]) -> None:
        """Send several blocks at once.

        Raises:
            InvalidArgument: there is no such block.
        """
        chosen: dict[int, list[int]] = {}
        for step in steps:
            first, _, second = step.partition(":")
            known = first.isdecimal() and second.isdecimal() and int(first) < len(self.groups)
            if not known or int(second) >= self._groups()[int(first)].blocks.num_blocks:
                raise InvalidArgument(f"there is no step named {step!r} to commit.")
            chosen.setdefault(int(first), []).append(int(second))
        for index, blocks in chosen.items():
            group = self._groups()[index]
            group.send(torch.tensor(blocks, device=group.sent.device))

    def settled(self, step: str) -> Mapping[str, Tensor]:
        """Return which elements of which tensors a step settles, bool each."""
        first, second = map(int, step.split(":"))
        group = self._groups()[first]
        inside = torch.zeros(group.present.shape, device=group.present.device)
        inside[second] = 1.0
        marks = group.tensors_of_values(inside.reshape(-1)[group.places])
        found = [[torch.zeros(slot.shape) for slot in slots] for slots in self._slots]
        found[first] = marks
        gathered = self._gathered(found)
        return {name: gathered[name] != 0 for name in self.names}

    def chunks(self) -> Iterator[Chunk]:
        """Yield the finished parts; tensors kept exactly come as parts of the lossless method."""
        for index, group in enumerate(self._groups()):
            group.send(torch.nonzero(~group.sent).reshape(-1))
            yield self._chunk(index)
        for unit in group_network(self._specs):
            exact = [(spec, *self._exact[spec.name]) for spec in unit if spec.name in self._exact]
            if exact:
                yield from self._method.lossless.encode_unit(exact, self._seed)

    def _chunk(self, index: int) -> Chunk:
        slots, (values, payload) = self._slots[index], self._now(index)
        total = sum(max(1, slot.piece.num_values) for slot in slots)
        losses: list[Loss] = []
        means = self._groups()[index].sent_targets()
        for slot, value, mean in zip(slots, values, means, strict=True):
            before = mean if self._trained else self._values[slot.spec.name][slot.start : slot.start + value.size]
            after = values_of(rounded_to(value.reshape(-1), slot.spec.dtype))
            share = 8 * len(payload) * max(1, slot.piece.num_values) / total
            losses.append(Loss(ordered_sum((after - before) ** 2), ordered_sum(before * before), share))
        method = self._method
        specs = tuple(slot.spec for slot in slots)
        span = slots[0].span
        id, version, config = method.id, method.payload_version, method.config.to_json()
        return Chunk(id, version, config, self._seed, specs, payload, span=span, losses=tuple(losses))

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self._encoded = {}
