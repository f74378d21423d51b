"""Coding one set of tensors with fewbits or a rival, and measuring what came back."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .inputs import load_fewbits
from .row import Figure, Measured, Row

if TYPE_CHECKING:
    from rivals import Rival

Tensors = Mapping[str, np.ndarray]
Quality = Callable[[Tensors], dict[str, Measured]]


def relative_error(tensors: Tensors, decoded: Tensors) -> float:
    """‖W − Ŵ‖ / ‖W‖ over all floating tensors together."""
    error = energy = 0.0
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f":
            wide = tensor.astype(np.float64)
            error += float(((decoded[name] - wide) ** 2).sum())
            energy += float((wide**2).sum())
    return (error / energy) ** 0.5 if energy else 0.0


def bit_exact(tensors: Tensors, decoded: Tensors) -> bool:
    """Whether names, dtypes, shapes and every bit are the same."""
    return set(tensors) == set(decoded) and all(
        (tensor.dtype, tensor.shape) == (decoded[name].dtype, decoded[name].shape)
        and tensor.tobytes() == decoded[name].tobytes()
        for name, tensor in tensors.items()
    )


def fewbits_row(
    name: str,
    source: Any,
    tensors: Tensors,
    quality: Quality,
    path: Path,
    *,
    budget: str | int,
    seed: int,
    asked: tuple[Figure, ...] = (),
    inputs: Any = None,
    inputs_are: str = "",
    measure: Any = None,
    tune: int = 0,
    loss: Any = None,
    least_error: bool = False,
) -> Row:
    """Compress a checkpoint to a budget; measure the file and what it decodes to.

    source: its path; or a module, where there are inputs. path: where the file is written; the caller may go on using
    it. inputs_are: what a row says of inputs that are batches; measure: of their outputs; tune: steps that levels are
    trained, maybe for a loss. least_error: all squared errors count alike, which gives the least relative error of the
    whole model.
    """
    fewbits = load_fewbits("compress", "load")
    energies = {key: float((t.astype(np.float64) ** 2).sum()) for key, t in tensors.items() if t.dtype.kind == "f"}
    statistics = {key: energy for key, energy in energies.items() if energy > 0} if least_error else None
    start = time.perf_counter()
    given = {"inputs": inputs, "measure": measure, "statistics": statistics, "tune": tune, "loss": loss}
    report = fewbits.compress(source, path, budget=budget, seed=seed, **given)
    encode_seconds = time.perf_counter() - start
    start = time.perf_counter()
    decoded = {key: tensor.numpy() for key, tensor in fewbits.load(path).items()}
    decode_seconds = time.perf_counter() - start
    size = path.stat().st_size
    measured: dict[str, Measured] = {
        "size": size,
        "relative_error": relative_error(tensors, decoded),
        **quality(decoded),
        "worst_tensor": report.worst_tensor,
        "estimated_bits": report.estimated_bits,
        "actual_bits": report.actual_bits,
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
    }
    settings = {"budget": budget, "seed": seed} | ({} if inputs is None else {"inputs": inputs_are or inputs})
    settings |= {"statistics": "energies"} if least_error else {}
    settings |= {"tune": tune} if tune else {}
    settings |= {"loss": loss.__name__.strip("_")} if loss is not None else {}
    return Row(name, measured, asked, settings)


def beside_rows(
    rows: Iterator[Row], source: Any, tensors: Tensors, quality: Quality, seed: int, asked_of: str = "nncodec"
) -> Iterator[Row]:
    """Give rows of rivals on; after each of one rival, fewbits at its size, whose relative error is to be no more."""
    for row in rows:
        yield row
        if row.name.startswith(asked_of):
            size, error = row.measured["size"], row.measured["relative_error"]
            with tempfile.TemporaryDirectory() as folder:
                yield fewbits_row(
                    f"fewbits, least error, at the size of {row.name}",
                    source,
                    tensors,
                    quality,
                    Path(folder) / "beside.fewbits",
                    budget=int(size),
                    seed=seed,
                    asked=(Figure("relative_error", "<=", error),),
                    least_error=True,
                )


def rival_rows(rivals: tuple["Rival", ...], tensors: Tensors, quality: Quality) -> Iterator[Row]:
    """Code the tensors with each rival, to a real file and back."""
    for rival in rivals:
        measured, decoded = _through(rival, tensors)
        left_out = sorted(set(tensors) - set(decoded))
        if left_out:
            measured["left_out"] = len(left_out)
        if rival.lossless:
            measured["bit_exact"] = bit_exact(tensors, decoded)
        else:
            # What a rival cannot hold counts as kept, at no cost: the comparison leans its way.
            decoded = {name: decoded.get(name, tensor) for name, tensor in tensors.items()}
            measured["relative_error"] = relative_error(tensors, decoded)
            measured |= quality(decoded)
        yield Row(rival.name, measured, versions=rival.versions())


def _through(rival: "Rival", tensors: Tensors) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    before = {name: tensor.copy() for name, tensor in tensors.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rival"
        start = time.perf_counter()
        rival.encode(tensors, path)
        encode_seconds = rival.own_seconds or time.perf_counter() - start
        start = time.perf_counter()
        decoded = rival.decode(path)
        decode_seconds = rival.own_seconds or time.perf_counter() - start
        size = path.stat().st_size
        decoded = {name: np.array(tensor) for name, tensor in decoded.items()}  # off the file, which goes now
    if not bit_exact(before, tensors):
        raise RuntimeError(f"the adapter of {rival.name} modified its input.")
    return {"size": size, "encode_seconds": encode_seconds, "decode_seconds": decode_seconds}, decoded
