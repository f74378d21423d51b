"""Reading what is to be compressed: a state dict, a module, a safetensors file or folder, a .pt file."""

import json
import os
import pickle
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fewbits.chunk import TensorSpec
from fewbits.container.format import TensorEntry
from fewbits.errors import InvalidArgument
from fewbits.native import crc32
from fewbits.tensors import bits_of, spec_of

SourceLike: TypeAlias = nn.Module | Mapping[str, Tensor] | str | os.PathLike[str]

_INDEX = "model.safetensors.index.json"
_TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_GLANCE = 16  # elements


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name in order, how they are tied, and where they came from.

    entries: one a tensor; aliases for ties and for equal copies. num_bytes: size of the files, or of the memory.
    """

    tensors: Mapping[str, Tensor]
    entries: tuple[TensorEntry, ...]
    metadata: Mapping[str, str] | None
    num_bytes: int
    module: nn.Module | None = None

    @property
    def stored(self) -> dict[str, Tensor]:
        """The tensors that are no alias."""
        return {entry.spec.name: self.tensors[entry.spec.name] for entry in self.entries if entry.target is None}


def read_checkpoint(source: SourceLike) -> Checkpoint:
    """Read all tensors of a source.

    Raises:
        InvalidArgument: there is nothing to read, no tensor in it, or a tensor that cannot be stored.
    """
    if isinstance(source, nn.Module):
        return _checkpoint(source.state_dict(keep_vars=True), None, None, source)
    if isinstance(source, Mapping):
        return _checkpoint(source, None, None, None)
    path = Path(source)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise InvalidArgument(f"{str(path)!r} does not exist.")
    if path.suffix in _TORCH_SUFFIXES:
        return _checkpoint(_read_torch(path), None, path.stat().st_size, None)
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
        return _checkpoint(tensors, metadata, path.stat().st_size, None)
    raise InvalidArgument(
        f"{str(path)!r} is none of: a .safetensors file, a folder of them, a {', '.join(_TORCH_SUFFIXES)} file."
    )


def entries_of(tensors: Mapping[str, Tensor], *, copies: bool = True) -> tuple[TensorEntry, ...]:
    """Describe tensors; those that share memory with an earlier one, or (with `copies`) have equal bits, as aliases.

    Raises:
        InvalidArgument: a name is not text that UTF-8 holds, or a tensor cannot be stored.
    """
    entries: list[TensorEntry] = []
    by_memory: dict[object, int] = {}
    by_bits: dict[object, int] = {}
    specs = [spec_of(_checked_name(name), tensor) for name, tensor in tensors.items()]
    alike = Counter((spec.dtype, spec.shape) for spec in specs)
    sketches = [
        _sketch(tensor, spec) if copies and alike[spec.dtype, spec.shape] > 1 else None
        for spec, tensor in zip(specs, tensors.values(), strict=True)
    ]
    sketched = Counter(sketches)
    for position, (spec, tensor, sketch) in enumerate(zip(specs, tensors.values(), sketches, strict=True)):
        memory = _memory_key(tensor, spec)
        bits = (sketch, crc32(bits_of(tensor).data)) if sketch is not None and sketched[sketch] > 1 else None
        if memory in by_memory:
            entries.append(TensorEntry(spec, by_memory[memory], True))
        elif bits in by_bits and _same_bits(tensor, tensors[entries[by_bits[bits]].spec.name]):
            entries.append(TensorEntry(spec, by_bits[bits], False))
        else:
            entries.append(TensorEntry(spec))
            if memory is not None:
                by_memory[memory] = position
            if bits is not None:
                by_bits.setdefault(bits, position)
    return tuple(entries)


def _checkpoint(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None,
    num_bytes: int | None,
    module: nn.Module | None,
) -> Checkpoint:
    if not tensors:
        raise InvalidArgument("the source has no tensors.")
    entries = entries_of(tensors)
    held = sum(entry.spec.num_bytes for entry in entries if not entry.shared)
    return Checkpoint(tensors, entries, metadata, held if num_bytes is None else num_bytes, module)


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise InvalidArgument(f"the tensor name {name!r} is not text.")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"the tensor name {name!r} cannot be written in UTF-8.") from error
    return name


def _memory_key(tensor: Tensor, spec: TensorSpec) -> object:
    """What tensors that are one in memory have in common; None for what has no memory."""
    if not spec.num_bytes:
        return None
    place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.stride()))
    return (*place, tensor.device, spec.dtype, spec.shape, tensor.is_conj(), tensor.is_neg())


def _sketch(tensor: Tensor, spec: TensorSpec) -> tuple[str, tuple[int, ...], bytes] | None:
    """A few bits of a tensor: those of equal bits have them in common; None where an alias costs more than the tensor.

    Where sketches are equal a checksum, which reads every bit, tells tensors apart, and where that is equal the bits.
    """
    if spec.num_bytes <= 8:
        return None
    bits = bits_of(tensor)
    middle = bits.size // 2
    return (spec.dtype, spec.shape, bits[:_GLANCE].tobytes() + bits[middle : middle + _GLANCE].tobytes())


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return np.array_equal(bits_of(a), bits_of(b))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            metadata = file.metadata()
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"{str(path)!r} cannot be read as safetensors: {error}.") from error
    return {name: found[name] for name in header if name in found}, metadata


def _read_folder(folder: Path) -> Checkpoint:
    """Read a sharded checkpoint by its index, or the one safetensors file of a folder."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if not indices:
        files = sorted(folder.glob("*.safetensors"))
        if len(files) != 1:
            raise InvalidArgument(
                f"the folder {str(folder)!r} has {len(files)} .safetensors files and no index ({_INDEX})."
            )
        tensors, metadata = _read_safetensors(files[0])
        return _checkpoint(tensors, metadata, files[0].stat().st_size, None)
    index = indices[0]
    try:
        shard_of = json.loads(index.read_text("utf-8"))["weight_map"]
        if not all(isinstance(shard, str) for shard in shard_of.values()):
            raise TypeError("a shard is not named by text")
        shards = sorted(set(shard_of.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"{str(index)!r} is not a safetensors index.") from error
    loaded: dict[str, dict[str, Tensor]] = {}
    merged: dict[str, str] = {}
    for shard in shards:
        path = folder / shard
        if Path(shard).name != shard or not path.is_file():
            raise InvalidArgument(f"the shard {shard!r}, named by {index.name}, is missing.")
        loaded[shard], found = _read_safetensors(path)
        merged |= found or {}
    lost = [name for name, shard in shard_of.items() if name not in loaded[shard]]
    if lost:
        raise InvalidArgument(f"the shard {shard_of[lost[0]]!r} does not have the tensor {lost[0]!r}.")
    size = sum((folder / shard).stat().st_size for shard in shards)
    return _checkpoint({name: loaded[shard][name] for name, shard in shard_of.items()}, merged or None, size, None)


def _read_torch(path: Path) -> Mapping[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise InvalidArgument(
            f"{str(path)!r} cannot be read with weights_only=True, so it is not read at all."
        ) from error
    # Training frameworks put the state dict beside optimizer state and counters.
    if isinstance(found, Mapping) and not all(isinstance(value, Tensor) for value in found.values()):
        found = next((found[key] for key in ("state_dict", "model", "model_state_dict") if key in found), found)
    if not isinstance(found, Mapping):
        raise InvalidArgument(f"{str(path)!r} holds a {type(found).__name__}, not a state dict.")
    other = [key for key, value in found.items() if not isinstance(value, Tensor)]
    if other:
        raise InvalidArgument(f"{str(path)!r} has the entry {other[0]!r}, which is not a tensor.")
    return found
