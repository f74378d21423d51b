"""How `fewbits info` lays out what a file says about itself."""

import json

from fewbits.container.inspect import Info, TensorInfo

COLUMNS = ("tensor", "dtype", "shape", "method", "bytes", "bits/weight", "rel. error", "note")
RIGHT = (4, 5, 6)


def facts(path: str, info: Info) -> list[tuple[str, str]]:
    """Return what concerns the whole file as (what, how much) pairs."""
    found = [("file", path), ("size", f"{info.size:,} B")]
    if info.decoded_bytes is not None and info.ratio is not None:
        found.append(("decoded", f"{info.decoded_bytes:,} B ({info.ratio:.2f} times as much)"))
    profile = ", bare profile: names and shapes are the module's" if info.bare else ""
    found.append(("format", f"{info.format}{profile}"))
    found.append(("holds", f"{len(info.tensors):,} tensors in {info.num_parts:,} parts"))
    for method in info.methods:
        config = f" {json.dumps(method.config, ensure_ascii=False)}" if method.config else ""
        found.append(("method", f"{method.id}, payload version {method.payload_version}{config}"))
    found.append(("seed", str(info.seed)))
    if info.rate_weight is not None:
        found.append(("rate weight", f"{info.rate_weight:.6g}"))
    spent = ", ".join(f"{name.replace('_', ' ')} {size:,}" for name, size in info.overhead.items() if size)
    saved = f" (less {info.deflate_saving:,} by deflating)" if info.deflate_saving else ""
    found.append(("bytes", spent + saved))
    found += [(f"metadata {key}", value) for key, value in (info.metadata or {}).items()]
    return found


def rows(info: Info) -> list[tuple[str, ...]]:
    """Return one row of `COLUMNS` a tensor; "~" marks a share of a payload, which is an estimate."""
    return [_row(tensor) for tensor in info.tensors]


def _row(tensor: TensorInfo) -> tuple[str, ...]:
    shape = "×".join(map(str, tensor.shape)) or "scalar"
    if tensor.alias_of is not None:
        relation = "tied to" if tensor.shared else "a copy of"
        return (tensor.name, tensor.dtype, shape, "", "", "", "", f"{relation} {tensor.alias_of}")
    size = bits = None
    if tensor.size is not None:
        size, bits = f"{tensor.size:,}", 8.0 * tensor.size
    elif tensor.bits is not None:
        size, bits = f"~{tensor.bits / 8:,.0f}", float(tensor.bits)
    count = 1
    for dimension in tensor.shape:
        count *= dimension
    rate = f"{bits / count:.3f}" if bits is not None and count else "-"
    error = "-" if tensor.relative_error is None else f"{tensor.relative_error:.4g}"
    return (tensor.name, tensor.dtype, shape, tensor.method or "-", size or "-", rate, error, tensor.note)
