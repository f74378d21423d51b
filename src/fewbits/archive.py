"""A `.fewbits` file opened for reading: tensors by name, each decoded when asked for."""

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from fewbits.chunk import Chunk, Loss, TensorSpec
from fewbits.container.format import TensorEntry, TensorLoss, fingerprint_of
from fewbits.container.reader import Reader
from fewbits.encode import Unread, decode, decode_parts
from fewbits.errors import InvalidArgument
from fewbits.method import TrainableMethod
from fewbits.nn.factored import Factored, replaceable, values_of_tiles
from fewbits.quantize.factors import Factors
from fewbits.registry import method_class
from fewbits.sources import entries_of
from fewbits.tensors import spec_of


class Archive(Mapping[str, Tensor]):
    """Tensors of a file by name, in the source's order; a context manager.

    Reading one tensor reads, checks and decodes only the parts that hold it.
    """

    def __init__(self, path: str | os.PathLike[str], *, limit: int | None = None) -> None:
        """Open a file (see `fewbits.open`)."""
        self._reader = Reader(path, limit=limit)
        self._positions = {entry.spec.name: i for i, entry in enumerate(self.entries)}

    @property
    def entries(self) -> tuple[TensorEntry, ...]:
        """Names, dtypes, shapes and aliases of all tensors."""
        return self._reader.header.tensors

    @property
    def metadata(self) -> Mapping[str, str] | None:
        """The source's own metadata."""
        return self._reader.header.metadata

    def spec(self, name: str) -> TensorSpec:
        """Return a tensor's name, dtype and shape without decoding it."""
        return self.entries[self._position(name)].spec

    def _position(self, name: str) -> int:
        if name not in self._positions:
            raise InvalidArgument(f"the file has no tensor named {name!r}.")
        return self._positions[name]

    def __getitem__(self, name: str) -> Tensor:
        """Decode one tensor.

        Raises:
            InvalidArgument: there is no such tensor.
            Corrupt, Truncated, Incompatible: as the file is.
        """
        position = self._position(name)
        target = self.entries[position].target
        stored = self.entries[position if target is None else target].spec.name
        parts = self._reader.parts_of(position)
        return decode_parts(_unread(self._reader, parts))[stored]

    def __contains__(self, name: object) -> bool:
        return name in self._positions

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)

    def read_all(self) -> dict[str, Tensor]:
        """Decode everything, each part once; ties are one tensor, equal copies are tensors of their own."""
        return _all_tensors(self._reader, self.entries)

    def read_into(self, tensors: Mapping[str, Tensor]) -> None:
        """Decode to tensors of the caller's, such as views of mapped memory; parts that hold none of them are not read.

        Args:
            tensors: by name, some or all of the file's, on the CPU, contiguous, of its shapes and dtypes; no two of
                them in the same memory. After an error they hold anything.

        Raises:
            InvalidArgument: the file has no such tensor, or one cannot be decoded to; all are checked first.
            Corrupt, Truncated, Incompatible: as the file is.
        """
        for name, tensor in tensors.items():
            _check_target(self.spec(name), tensor)
        wanted: dict[str, Tensor] = {}  # by the name of what is stored
        copies: list[tuple[str, Tensor]] = []
        for name, tensor in tensors.items():
            entry = self.entries[self._positions[name]]
            stored = name if entry.target is None else self.entries[entry.target].spec.name
            if stored in wanted:
                copies.append((stored, tensor))
            else:
                wanted[stored] = tensor
        parts = sorted({part for name in wanted for part in self._reader.parts_of(self._positions[name])})
        decode_parts(_unread(self._reader, parts), wanted)
        for stored, tensor in copies:
            tensor.detach().copy_(wanted[stored])

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_target(spec: TensorSpec, tensor: Tensor) -> None:
    """Check that a tensor can be decoded to.

    Raises:
        InvalidArgument: it cannot.
    """
    found = spec_of(spec.name, tensor)
    if found != spec:
        raise InvalidArgument(
            f"tensor {spec.name!r} is {spec.dtype} {spec.shape} in the file, and not {found.dtype} {found.shape}."
        )
    if tensor.device.type != "cpu" or not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        raise InvalidArgument(f"tensor {spec.name!r} can only be decoded to contiguous memory of the CPU.")


def read_tensors(
    path: str | os.PathLike[str], *, into: nn.Module | None = None, limit: int | None = None
) -> dict[str, Tensor]:
    """Decode all tensors of a file; a bare file takes names, shapes and ties from `into`.

    Raises:
        Corrupt, Truncated, Incompatible, TooLarge, InvalidArgument: as for `fewbits.load`.
    """
    if into is None:
        with Archive(path, limit=limit) as archive:
            return archive.read_all()
    entries = _entries_of_module(into)
    with _reader_for(path, entries, limit) as reader:
        return _all_tensors(reader, entries if reader.bare else reader.header.tensors)


def _entries_of_module(module: nn.Module) -> tuple[TensorEntry, ...]:
    return entries_of(module.state_dict(keep_vars=True), copies=False)


def _reader_for(path: str | os.PathLike[str], entries: tuple[TensorEntry, ...], limit: int | None) -> Reader:
    """Open a file that a module with these entries is to receive: a bare one knows no others."""
    specs = [entry.spec for entry in entries if entry.target is None]
    return Reader(path, specs=specs, fingerprint=fingerprint_of(entry.spec for entry in entries), limit=limit)


class Latents(NamedTuple):
    """What of a file can be trained on: parts of a method and of those that it resumes from.

    Parts have their losses where the file has them.
    """

    method: str
    chunks: tuple[Chunk, ...]
    seed: int
    rate_weight: float | None


def read_latents(path: str | os.PathLike[str], into: nn.Module, *, limit: int | None = None) -> Latents:
    """Read the parts of a file that are not lossless; `into` is the module that it fits.

    Raises:
        InvalidArgument: there are none, or no one method can go on from them all.
        Corrupt, Truncated, Incompatible, TooLarge: as for `fewbits.load`.
    """
    with _reader_for(path, _entries_of_module(into), limit) as reader:
        header = reader.header
        chunks = [reader.read_chunk(part) for part in range(len(reader.parts))]
        losses = header.losses
        by_name = {
            entry.spec.name: loss for entry, loss in zip(header.tensors, losses or (), strict=False) if loss is not None
        }
    trained = [
        chunk._replace(losses=tuple(_loss_of(by_name[spec.name]) for spec in chunk.tensors))
        if all(spec.name in by_name for spec in chunk.tensors)
        else chunk
        for chunk in chunks
        if chunk.method != "lossless"
    ]
    methods = {chunk.method for chunk in trained}
    able = [id for id in methods if methods <= {id, *_resumed_by(id)}]
    if len(able) != 1:
        raise InvalidArgument(f"the file {os.fspath(path)!r} has no latents of one method to keep.")
    return Latents(able[0], tuple(trained), header.seed, header.rate_weight)


def _loss_of(recorded: TensorLoss) -> Loss:
    """A loss with a file's relative error: of the sums only their ratio is in it, which an energy of 1 gives back."""
    return Loss(recorded.relative_error**2, 1.0, 0.0, recorded.note)


def _resumed_by(id: str) -> tuple[str, ...]:
    kind = method_class(id)
    return kind.resumes_from if issubclass(kind, TrainableMethod) else ()


def read_factored(
    path: str | os.PathLike[str], *, into: nn.Module | None = None, limit: int | None = None
) -> dict[str, Tensor | Factored]:
    """Read a file whose factors stay factors, where `into` has layers for them and nothing shares them.

    Raises:
        Corrupt, Truncated, Incompatible, TooLarge, InvalidArgument: as for `fewbits.load`.
    """
    entries = None if into is None else _entries_of_module(into)
    with Reader(path, limit=limit) if entries is None else _reader_for(path, entries, limit) as reader:
        known = entries if entries is not None and reader.bare else reader.header.tensors
        shared = {known[entry.target].spec.name for entry in known if entry.target is not None}
        wanted = {entry.spec.name for entry in known} if into is None else replaceable(into)
        found: dict[str, list[tuple[int, Factors]]] = {}
        rest: list[Chunk] = []
        for part in range(len(reader.parts)):
            chunk = reader.read_chunk(part)
            own = (wanted - shared) & {spec.name for spec in chunk.tensors}
            factors = method_class(chunk.method)().factors_of(chunk) if own else {}
            kept = own & set(factors)
            if len(kept) < len(chunk.tensors):
                rest.append(chunk)
            for name in kept:
                found.setdefault(name, []).append((chunk.span[0] if chunk.span else 0, factors[name]))
    decoded = decode(rest)
    tensors: dict[str, Tensor | Factored] = {}
    for entry in known:
        spec = entry.spec
        if spec.name in found:
            tiles = [factors for _, factors in sorted(found[spec.name], key=lambda tile: tile[0])]
            dtype = getattr(torch, spec.dtype)
            if all(map(Factored.holds, tiles)):
                tensors[spec.name] = Factored(tiles, spec.shape, dtype)
            else:
                tensors[spec.name] = values_of_tiles(tiles, spec.shape, dtype)
        elif entry.target is None:
            tensors[spec.name] = decoded[spec.name]
        else:
            target = decoded[known[entry.target].spec.name]
            tensors[spec.name] = target if entry.shared else target.clone()
    return tensors


def _unread(reader: Reader, parts: Iterable[int]) -> list[Unread]:
    return [Unread(reader.parts[part].size, partial(reader.read_chunk, part)) for part in parts]


def _all_tensors(reader: Reader, entries: tuple[TensorEntry, ...]) -> dict[str, Tensor]:
    decoded = decode_parts(_unread(reader, range(len(reader.parts))))
    tensors: dict[str, Tensor] = {}
    for entry in entries:
        if entry.target is None:
            tensors[entry.spec.name] = decoded[entry.spec.name]
        else:
            target = decoded[entries[entry.target].spec.name]
            tensors[entry.spec.name] = target if entry.shared else target.clone()
    return tensors
