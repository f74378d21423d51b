"""What the golden files hold: for each method a set of small cases that together visit all of its payload page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from fewbits.chunk import Chunk
from fewbits.container import TensorEntry, file_bytes
from fewbits.images.method import ImageConfig
from fewbits.method import MethodConfig, Source
from fewbits.methods.epr import EprConfig
from fewbits.methods.miracle import MiracleConfig
from fewbits.methods.qswd import QswdConfig
from fewbits.methods.sic import SicConfig
from fewbits.plan import TILE
from fewbits.registry import METHODS, method_class
from fewbits.sources import entries_of
from fewbits.tensors import LOSSY_DTYPES
from tests.golden import handmade, handmade_blockwise, handmade_sic, photos
from tests.laws import sources

SEED = handmade.SEED


@dataclass(frozen=True)
class Case:
    """One golden file; `module` is what a bare one belongs to."""

    data: bytes
    module: nn.Module | None = None


def written(
    chunks: Sequence[Chunk],
    entries: Sequence[TensorEntry],
    *,
    metadata: Mapping[str, str] | None = None,
    bare: bool = False,
) -> bytes:
    rate_weight = None if bare else 0.25
    return file_bytes(chunks=chunks, tensors=entries, seed=SEED, rate_weight=rate_weight, metadata=metadata, bare=bare)


@contextmanager
def small_chunks(bits: int) -> Iterator[None]:
    """Chunks of about so many bits: by the coder written out in NumPy, as the compiled one has its own constant."""
    with mock.patch("fewbits.coder.chunks.CHUNK_BITS", bits), mock.patch.dict("os.environ", FEWBITS_ISA="numpy"):
        yield


def encoded(
    id: str,
    tensors: Mapping[str, Tensor],
    rate_weight: float,
    *,
    config: MethodConfig | None = None,
    metadata: Mapping[str, str] | None = None,
    bare: bool = False,
) -> bytes:
    """A file made by the method itself, in chunks of about 4 KiB, so that a small file has several."""
    entries = entries_of(tensors, copies=not bare)
    stored = {entry.spec.name: tensors[entry.spec.name] for entry in entries if entry.target is None}
    with small_chunks(1 << 15) if id != "miracle" else nullcontext():  # it has no chunks, and is slow in NumPy
        known = sources.curvatures(stored) if id == "sic" else {}
        source = Source(stored, None, known)
        chunks = list(method_class(id)(config).encode(source, rate_weight=rate_weight, seed=SEED))
    return written(chunks, entries, metadata=metadata, bare=bare)


def handmade_file(id: str) -> bytes:
    with small_chunks(1 << 13):
        return of_chunks(handmade.chunks_of(id))


def of_chunks(chunks: Sequence[Chunk]) -> bytes:
    entries = dict.fromkeys(TensorEntry(spec) for chunk in chunks for spec in chunk.tensors)  # tiles have one
    return written(chunks, list(entries))


def shared_tensors() -> dict[str, Tensor]:
    """Ties, equal copies, views of one memory, empty and 0-dimensional tensors, names in any script."""
    rng = sources.generator(31)
    weight = sources.normal(rng, 12, 20)
    return {
        "weight": weight,
        "Gewicht, gebunden": weight,
        "copy": weight.clone(),
        "重み": weight[:6],
        "scalar": torch.tensor(2.5),
        "scalar copy": torch.tensor(2.5),
        "counter": torch.tensor(7),
        "empty": torch.zeros(0, 5),
        "empty copy": torch.zeros(0, 5),
        "": torch.arange(30, dtype=torch.int16),
        "same as the unnamed one": torch.arange(30, dtype=torch.int16),
    }


def low_entropy() -> dict[str, Tensor]:
    """Large tensors of few bits: rows of differing precision and scale, so that rows form classes."""
    rng = sources.generator(32)
    levels = rng.geometric(0.6, (66, 1000)) * rng.choice([-1.0, 1.0], (66, 1000)) * (rng.random((66, 1000)) < 0.05)
    levels *= np.where(np.arange(66) % 3 == 0, 1.0, 0.01171875)[:, None]
    levels[:5] = 0
    return {"rows": torch.from_numpy(levels.astype(np.float32)), "bias": sources.normal(rng, 66)}


def tiled(name: str) -> dict[str, Tensor]:
    """A tensor of a few elements more than a tile, mostly zeros: of whole rows, or of a single row."""
    rng = sources.generator(33)
    values = {"matrix": np.zeros((TILE // 1024 + 2, 1024), np.float32), "row": np.zeros(TILE + 77, np.float16)}[name]
    values.ravel()[rng.integers(0, values.size, 150)] = rng.choice([-1.5, 0.5, 1.0], 150)
    values.ravel()[-1] = 1.0
    return {name: torch.from_numpy(values)}


def module() -> nn.Module:
    """A receiver of bare files: two tied tensors, an integer buffer, an empty one."""
    rng = sources.generator(34)
    made = nn.Module()
    made.register_parameter("weight", nn.Parameter(sources.normal(rng, 9, 13, scale=0.2)))
    made.register_parameter("tied", made.weight)
    made.register_parameter("bias", nn.Parameter(sources.normal(rng, 9, dtype="float16")))
    made.register_buffer("steps", torch.tensor(12345))
    made.register_buffer("nothing", torch.zeros(0, 3))
    return made


def bare(id: str, rate_weight: float) -> Case:
    made = module()
    return Case(encoded(id, made.state_dict(keep_vars=True), rate_weight, bare=True), made)


def trellises() -> Case:
    """Every dtype: rows of two scales, in tiles and in chunks of 32 lanes, outliers, few bits and many."""
    rng = sources.generator(39)
    scales = np.where(np.arange(45) % 2 == 0, 1.0, 0.25)[:, None]
    rows = torch.from_numpy(rng.standard_normal((45, 67)) * scales)
    rows[7, 11], rows[30, 2] = 90.0, -55.0
    tensors = {
        "rows": rows.float(),
        "tiles": sources.normal(rng, 70, 41, dtype="bfloat16"),
        "few bits": sources.normal(rng, 1501, scale=0.2, dtype="float16"),
        "many bits": sources.normal(rng, 1033, scale=40.0, dtype="float64"),
    }
    with small_parts("ecsq"):
        return Case(encoded("ecsq", tensors, 0.1))


@contextmanager
def small_parts(id: str) -> Iterator[None]:
    """Tiles and bodies in 32 lanes of what is small."""
    constants = {
        "fewbits.plan.TILE": 1500,
        "fewbits.plan.SMALL": 2000,
        f"fewbits.methods.{id}.LEAST_WIDE_BITS": 1 << 11,
    }
    with ExitStack() as stack:
        for name, value in constants.items():
            stack.enter_context(mock.patch(name, value))
        yield


def trained_network(dtype: str = "float32") -> dict[str, Tensor]:
    """A network as training against the rate leaves it: most weights 0, units dead, not only the last ones."""
    rng = sources.generator(35)

    def weight(*shape: int, live: int) -> Tensor:
        present = rng.random(shape) < 0.15
        present[live:] = False
        present[:, 3] = False
        return (sources.normal(rng, *shape, dtype="float64") * torch.from_numpy(present)).to(getattr(torch, dtype))

    return {
        "conv1.weight": weight(6, 4, 5, 5, live=5),
        "conv1.bias": sources.normal(rng, 6, dtype=dtype)
        * torch.tensor([1, 1, 1, 0, 1, 0], dtype=getattr(torch, dtype)),
        "conv2.weight": weight(8, 6, 3, 3, live=6),
        "conv3.weight": weight(4, 8, 3, 3, live=4),
        "fc1.weight": weight(10, 4 * 16, live=7),
        "fc1.bias": torch.zeros(10, dtype=getattr(torch, dtype)),
        "reads images": weight(6, 7 * 9, live=5),
        "fc2.weight": weight(5, 10, live=5),
        "temperature": torch.tensor(0.75, dtype=getattr(torch, dtype)),
    }


def epr_network(decoders: Mapping[str, Any], dtype: str = "float32", *, tables: bool = False) -> Case:
    """A trained network with some decoders, by either coder."""
    config = EprConfig(decoders=decoders, first_steps={"*.weight": 0.3, "*": 0.2})
    made = partial(encoded, "epr", trained_network(dtype), 1.0, config=config)
    return in_tables(lambda: Case(made())) if tables else Case(made())


def in_tables(case: Callable[[], Case]) -> Case:
    """A case whose integers are too many for a slow adaptive decoder."""
    with mock.patch("fewbits.methods.epr.payload._MOST_ADAPTIVE", -1):
        return case()


GRID = {"kind": "grid", "size": [4, 5], "image": [7, 9], "margin": 1}
EPR_CASES: dict[str, Callable[[], Case]] = {
    "adaptive": lambda: epr_network({}),
    "decoders": lambda: epr_network({"conv1.weight": "dft", "conv[23].weight": "matrix", "reads*": GRID}),
    "decoders-tables": lambda: epr_network(
        {"conv[23].weight": "dft", "conv1.weight": "matrix", "reads*": GRID}, tables=True
    ),
    "float16": lambda: epr_network({"conv?.weight": "dft", "reads*": GRID}, "float16"),
    "bfloat16": lambda: epr_network({"conv?.weight": "matrix", "reads*": GRID}, "bfloat16"),
    "float64": lambda: epr_network({"conv?.weight": "dft"}, "float64"),
    "payloads": lambda: Case(of_chunks(handmade.epr_chunks())),
}


def miracle_network(config: MiracleConfig, dtype: str = "float32", rate_weight: float = 0.5) -> Case:
    return Case(encoded("miracle", trained_network(dtype), rate_weight, config=config))


CODED = MiracleConfig(bits=8, slack=3.0, candidates="own", simulator="orc", first_priors={"fc1.bias": 0.5})
LIVE = {"conv1.weight": [5, 4, 5, 5], "fc1.weight": [7, 64], "reads*": [5, 60]}
MIRACLE_CASES: dict[str, Callable[[], Case]] = {
    "own": lambda: miracle_network(MiracleConfig(bits=10, candidates="own", share={"*.weight": 3}, live=LIVE)),
    "lattice": lambda: miracle_network(MiracleConfig(bits=9, candidates="lattice", live=LIVE), "float16"),
    "sharing": lambda: miracle_network(MiracleConfig(bits=12, share={"reads*": 1000, "*": 2}), "bfloat16"),
    "coded": lambda: miracle_network(CODED, "float64"),
    "coded-few": lambda: miracle_network(CODED, rate_weight=30.0),
    "payloads": lambda: Case(of_chunks(handmade.miracle_chunks())),
}


def qswd_network(config: QswdConfig, dtype: str, rate_weight: float = 0.3) -> Case:
    rng = sources.generator(36)
    tensors = {
        "conv": sources.normal(rng, 12, 40, 3, 3, dtype=dtype),
        "dense": sources.normal(rng, 24, 48, dtype=dtype),
        "bias": sources.normal(rng, 24, dtype=dtype),
    }
    return Case(encoded("qswd", tensors, rate_weight, config=config))


def qswd_dtypes() -> Case:
    """Every dtype; those that are coded lossily large enough for factors."""
    rng = sources.generator(38)
    tensors = {key: tensor[:3, :11] for key, tensor in sources.every_dtype().items()}
    return Case(encoded("qswd", tensors | {key: sources.normal(rng, 9, 33, dtype=key) for key in LOSSY_DTYPES}, 0.1))


def in_small_chunks(made: Callable[[], list[Chunk]], bits: int = 1 << 13) -> Case:
    with small_chunks(bits):
        return Case(of_chunks(made()))


def linear_bare(id: str, inputs: int, outputs: int, rate_weight: float) -> Case:
    """A receiver with a weight that is large enough for what the method does."""
    rng, made = sources.generator(37), nn.Linear(inputs, outputs)
    with torch.no_grad():
        made.weight.copy_(sources.normal(rng, outputs, inputs))
        made.bias.copy_(sources.normal(rng, outputs))
    return Case(encoded(id, made.state_dict(keep_vars=True), rate_weight, bare=True), made)


TILINGS = (("rows", 4), ("columns", 9), ("columns", 12))
QSWD_CASES: dict[str, Callable[[], Case]] = {
    "kernels": lambda: qswd_network(QswdConfig(tilings=(("columns", 9),)), "float32"),
    "tilings": lambda: qswd_network(QswdConfig(tilings=TILINGS, ranks=(3, 8)), "float16"),
    "svd": lambda: qswd_network(QswdConfig(family="svd"), "bfloat16", 3.0),
    "vq": lambda: qswd_network(QswdConfig(family="vq", ranks=(2, 7, 30)), "float64", 3.0),
    "bare": lambda: linear_bare("qswd", 48, 24, 0.3),
    "dtypes": qswd_dtypes,
    "models": lambda: in_small_chunks(handmade.qswd_chunks),
}


def matrices(seed: int, *shapes: tuple[int, ...], dtypes: Sequence[str] = LOSSY_DTYPES) -> dict[str, Tensor]:
    """Matrices whose columns are of several scales."""
    rng = sources.generator(seed)
    made: dict[str, Tensor] = {}
    for place, shape in enumerate(shapes):
        scales = torch.from_numpy(2.0 ** rng.integers(-3, 2, shape[1:]))
        weight = sources.normal(rng, *shape, scale=0.3, dtype="float64") * scales
        made["×".join(map(str, shape))] = weight.to(getattr(torch, dtypes[place % len(dtypes)]))
    return made


def sic_dtypes() -> Case:
    """Every dtype; those that are coded lossily large enough for columns."""
    tensors = {key: tensor[:3, :11] for key, tensor in sources.every_dtype().items()}
    return Case(encoded("sic", tensors | matrices(43, *((20 + k, 16) for k in range(4))), 0.1))


def sic_tiles() -> Case:
    """Rows in tiles, each in chunks of 32 lanes; a matrix in a single tile, and one that is small."""
    with small_parts("sic"):
        return Case(encoded("sic", matrices(40, (420, 9), (200, 11), (40, 3, 4)), 1e-3))


def sic_paths() -> Case:
    """As many rows as make the encoder choose each number of paths."""
    rows = [(192 << k) + 5 for k in range(6)]
    alike = SicConfig(column_models=False, row_weights=False)  # rows, whose classes would be most of the file
    return Case(encoded("sic", matrices(41, *((count, 2) for count in rows)), 3.0, config=alike))


ALL_OFF = SicConfig(feedback=False, column_steps=False, column_models=False, row_weights=False, trellis=False)
SIC_CASES: dict[str, Callable[[], Case]] = {
    "dtypes": sic_dtypes,
    "edges": lambda: Case(encoded("sic", sources.matrix_edges(), 0.1)),
    "tiles": sic_tiles,
    "paths": sic_paths,
    "rounded": lambda: Case(encoded("sic", matrices(44, (40, 30), (30, 5, 3)), 0.1, config=SicConfig(trellis=False))),
    "plain": lambda: Case(encoded("sic", matrices(45, (40, 30), (30, 5, 3)), 0.1, config=ALL_OFF)),
    "bare": lambda: linear_bare("sic", 24, 20, 0.1),
    "models": lambda: in_small_chunks(handmade_sic.sic_chunks),
}


def on_blocks(rng: np.random.Generator, dtype: str, shape: tuple[int, int], length: int, *, offsets: bool) -> Tensor:
    """A matrix that was quantised in blocks once: few scales, offsets and levels, so that little is written."""
    levels = rng.integers(-1, 2, (shape[0] * shape[1] // length, length))
    scales = (0.125 + np.arange(7) / 64)[rng.integers(0, 7, (len(levels), 1))]
    if offsets:
        values = levels * (rng.random(levels.shape) < 0.05) * scales + rng.integers(-4, 5, (len(levels), 1)) / 16
    else:
        scales[1::2] *= -1
        values = levels * scales  # of which zeros are below 0, if scales are
    return torch.from_numpy(values.reshape(shape)).to(getattr(torch, dtype))


def grids(*dtypes: str) -> dict[str, Tensor]:
    """A group of matrices, every second one without offsets: of blocks, and of whole rows."""
    rng = sources.generator(46)
    return {
        dtype: on_blocks(rng, dtype, (32, 32), 32 if place % 2 else 16, offsets=place % 2 == 0)
        for place, dtype in enumerate(dtypes)
    }


def blockwise_tiles() -> Case:
    """Rows in two tiles."""
    with small_parts("blockwise"):
        rows = on_blocks(sources.generator(47), "float32", (64, 32), 16, offsets=True)
        return Case(encoded("blockwise", {"rows": rows}, 0.0))


def blockwise_bare() -> Case:
    """A receiver whose weight is on a grid."""
    made = nn.Linear(32, 32, bias=False)
    with torch.no_grad():
        made.weight.copy_(on_blocks(sources.generator(48), "float32", (32, 32), 32, offsets=False))
    return Case(encoded("blockwise", made.state_dict(keep_vars=True), 0.0, bare=True), made)


BLOCKWISE_CASES: dict[str, Callable[[], Case]] = {
    "exact": lambda: Case(encoded("blockwise", grids("float16", "float64") | {"bias": torch.tensor([1.5, 0.3])}, 0.0)),
    "coarse": lambda: Case(encoded("blockwise", grids("bfloat16"), 1.0)),
    "tiles": blockwise_tiles,
    "bare": blockwise_bare,
    "models": lambda: in_small_chunks(handmade_blockwise.blockwise_chunks, 1 << 9),
}


def image(codec: str, quality: int, tensors: Mapping[str, Tensor]) -> Case:
    return Case(encoded("image", tensors, 0.0, config=ImageConfig(photos.digest_of(codec), quality)))


def tiled_image() -> Case:
    with mock.patch("fewbits.plan.TILE", 4096):
        return image("hyperprior-soft", 1, {"tall": photos.photo(150, 40, 2)})


IMAGE_CASES: dict[str, Callable[[], Case]] = {
    "hyperprior-soft": lambda: image("hyperprior-soft", 1, {"image": photos.photo(100, 140)}),
    "hyperprior-noise": lambda: image("hyperprior-noise", 0, {"image": photos.photo(65, 33)}),
    "factorized-universal": lambda: image("factorized-universal", 1, {"image": photos.photo(48, 70)}),
    "factorized-straight": lambda: image("factorized-straight", 0, {"image": photos.photo(41, 40)[..., 1:2]}),
    "beside-others": lambda: image(
        "hyperprior-soft",
        0,
        {"image": photos.photo(1, 1), "alpha": photos.photo(9, 9)[..., 0], "weight": torch.ones(3)},
    ),
    "tiles": tiled_image,
}


def cases_of(id: str) -> dict[str, Callable[[], Case]]:
    """The cases of a method, by name; the same for every method but where its page has more."""
    if id == "image":  # it knows images only; the others' cases are not for it
        return IMAGE_CASES
    if id == "blockwise":  # of the others' cases, none has a grid
        return BLOCKWISE_CASES
    rate = 0.0 if id == "lossless" else 0.1
    metadata = {"format": "pt", "licence": "none", "ключ": "значение"}
    small_dtypes = {key: tensor[:3, :11] for key, tensor in sources.every_dtype().items()}
    cases: dict[str, Callable[[], Case]] = {
        "network": lambda: Case(encoded(id, sources.network(), rate)),
        "dtypes": lambda: Case(encoded(id, small_dtypes, rate)),
        "edges": lambda: Case(encoded(id, sources.edges(), rate)),
        "shared": lambda: Case(encoded(id, shared_tensors(), rate, metadata=metadata)),
        "low-entropy": lambda: Case(encoded(id, low_entropy(), 3 * rate)),
        "tiles": lambda: Case(encoded(id, tiled("row" if id == "ecsq" else "matrix"), 0.01 * rate)),
        "models": lambda: Case(handmade_file(id)),
        "bare": lambda: bare(id, rate),
    }
    if id == "ecsq":
        cases["trellis"] = trellises
    if id == "lossless":
        few_rows = {key: tensor[:36] for key, tensor in sources.sparse().items()}
        cases["sparse"] = lambda: Case(encoded(id, few_rows, rate))
        cases["masks"] = lambda: Case(of_chunks(handmade.mask_chunks()))
    else:
        if id == "epr":
            slow = {name: cases[name] for name in ("low-entropy", "tiles")}
            cases |= {name: partial(in_tables, case) for name, case in slow.items()} | EPR_CASES
        if id == "qswd":
            cases |= QSWD_CASES
        if id == "sic":
            cases = {name: cases[name] for name in cases if name != "shared"} | SIC_CASES  # it has no matrix for it
        if id == "miracle":
            # Its tiles are among its payloads, and it has none of the bodies that models are for.
            cases = {name: cases[name] for name in cases if name not in ("tiles", "models")} | MIRACLE_CASES
        cases["coarse"] = lambda: Case(encoded(id, sources.network(), 100 * rate))
        cases["fine"] = lambda: Case(encoded(id, {"weight": sources.numbers()["weight"]}, 1e-9))
    return cases


IDS = tuple(METHODS)
