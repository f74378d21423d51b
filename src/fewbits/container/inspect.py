"""What a file says about itself, and whether it is whole: neither decodes anything nor needs torch."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fewbits.container.format import FORMAT, MethodEntry
from fewbits.container.header import encode_item, header_elements
from fewbits.container.reader import Reader


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file.

    method: id of the method that holds it. bits: its recorded share of its payload, an estimate.
    size: bytes of its own payloads; None if it shares one. relative_error: ||W - W_hat|| / ||W||.
    alias_of: name of the tensor it stands for; then method, bits, size and relative_error are None.
    shared: for an alias, whether the two share memory.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    method: str | None
    bits: int | None
    size: int | None
    relative_error: float | None
    note: str
    alias_of: str | None
    shared: bool


@dataclass(frozen=True)
class Info:
    """What a file says about itself; sizes in bytes. What a bare file does not say is None or empty.

    decoded_bytes: of all tensors in memory; ratio: decoded_bytes / size.
    overhead: where the bytes go: `payload`; the header's items `names_and_shapes`, `metadata`,
    `configuration` (the methods) and `losses`, each as encoded before deflate; `other`, which is the framing
    of the format (first fields, seed, rate_weight, index, checks). Their sum less `deflate_saving` is `size`.
    """

    size: int
    format: int
    bare: bool
    seed: int
    rate_weight: float | None
    methods: tuple[MethodEntry, ...]
    metadata: Mapping[str, str] | None
    tensors: tuple[TensorInfo, ...]
    num_parts: int
    decoded_bytes: int | None
    ratio: float | None
    overhead: Mapping[str, int]
    deflate_saving: int

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values; an infinite relative error (of a tensor of zeros) becomes None."""
        values = asdict(self)
        for tensor in values["tensors"]:
            if tensor["relative_error"] is not None and not math.isfinite(tensor["relative_error"]):
                tensor["relative_error"] = None
            tensor["shape"] = list(tensor["shape"])
        for name in ("methods", "tensors"):
            values[name] = list(values[name])
        return {**values, "num_tensors": len(self.tensors)}


def info(path: str | os.PathLike[str], *, limit: int | None = None) -> Info:
    """Return what a file says about itself; its payloads are not read (of a bare file, they are).

    Raises:
        Corrupt, Incompatible, Truncated, TooLarge, InvalidArgument: as `Reader`.
    """
    with Reader.peek(path, limit=limit) as reader:
        header = reader.header
        payload = sum(part.size for part in reader.parts)
        named = {"names_and_shapes": 0, "metadata": 0, "configuration": 0, "losses": 0}
        if not reader.bare:
            tensors, methods, _, _, losses, metadata = map(len, map(encode_item, header_elements(header)))
            named = {
                "names_and_shapes": tensors,
                "metadata": metadata,
                "configuration": methods,
                "losses": losses,
            }
        saving = len(reader.header_raw) - reader.header_size
        other = reader.size - payload - (sum(named.values()) - saving)
        decoded_bytes = None if reader.bare else header.decoded_bytes
        return Info(
            size=reader.size,
            format=FORMAT,
            bare=reader.bare,
            seed=header.seed,
            rate_weight=header.rate_weight,
            methods=header.methods,
            metadata=header.metadata,
            tensors=_tensor_infos(reader),
            num_parts=len(reader.parts),
            decoded_bytes=decoded_bytes,
            ratio=None if decoded_bytes is None else decoded_bytes / reader.size,
            overhead={**named, "payload": payload, "other": other},
            deflate_saving=saving,
        )


def verify(path: str | os.PathLike[str], *, limit: int | None = None) -> int:
    """Check every byte of a file against its checksums; return how many there are.

    Raises:
        Corrupt, Incompatible, Truncated, TooLarge, InvalidArgument: as `Reader` and `Reader.check`.
    """
    with Reader.peek(path, limit=limit) as reader:
        return reader.check()


def _tensor_infos(reader: Reader) -> tuple[TensorInfo, ...]:
    header = reader.header
    infos: list[TensorInfo] = []
    for position, entry in enumerate(header.tensors):
        name, dtype, shape = entry.spec
        if entry.target is not None:
            target = header.tensors[entry.target].spec.name
            infos.append(TensorInfo(name, dtype, shape, None, None, None, None, "", target, entry.shared))
            continue
        parts = [reader.parts[number] for number in reader.parts_of(position)]
        size = sum(part.size for part in parts) if len(parts[0].tensors) == 1 else None
        method = header.methods[parts[0].method].id
        loss = None if header.losses is None else header.losses[position]
        bits = None if loss is None else loss.bits
        error = None if loss is None else loss.relative_error
        note = "" if loss is None else loss.note
        infos.append(TensorInfo(name, dtype, shape, method, bits, size, error, note, None, False))
    return tuple(infos)
