"""Sources that every method meets: shapes, dtypes, values and memory layouts as real checkpoints have them."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from fewbits.chunk import DTYPES
from fewbits.method import Curvature
from fewbits.tensors import LOSSY_DTYPES, dtype_name

TILE = 30_000  # elements of a tile in the law suite: the golden files have tiles of 2^20


def generator(seed: int) -> Generator:
    """The same numbers in every run."""
    return np.random.default_rng(seed)


def normal(rng: Generator, *shape: int, scale: float = 1.0, dtype: str = "float32") -> Tensor:
    """Gaussian values."""
    values = torch.from_numpy(rng.standard_normal(shape) * scale)
    return values.to(getattr(torch, dtype))


def random_bits(rng: Generator, dtype: str, *shape: int) -> Tensor:
    """Any bits at all: NaN payloads, infinities and denormals among them; `bool` is 0 or 1."""
    count = int(np.prod(shape, dtype=np.int64)) * DTYPES[dtype].itemsize
    octets = rng.integers(0, 2 if dtype == "bool" else 256, count, dtype=np.uint8)
    return torch.from_numpy(octets).view(getattr(torch, dtype)).reshape(shape)


def network() -> dict[str, Tensor]:
    """A small network: matrices, a convolution, norms, biases, counters; one row is much larger than the rest."""
    rng = generator(1)
    rows = np.exp2(rng.uniform(-3, 3, (64, 1)))
    weight = torch.from_numpy((rng.standard_normal((64, 48)) * rows).astype(np.float32))
    return {
        "embedding": normal(rng, 100, 32, scale=0.02),
        "attention.weight": weight,
        "conv.weight": normal(rng, 12, 8, 3, 3, scale=0.1, dtype="float16"),
        "norm.weight": 1 + normal(rng, 64, scale=0.05, dtype="bfloat16"),
        "norm.bias": torch.zeros(64),
        "head.bias": normal(rng, 10, scale=0.3, dtype="float64"),
        "num_batches": torch.tensor(731),
        "position_ids": torch.arange(64).reshape(1, 64),
    }


def large() -> dict[str, Tensor]:
    """Tensors large enough for 32 lanes (65,536 elements and more), one at a low rate, and a small one beside them."""
    rng = generator(2)
    sparse = normal(rng, 256, 257) * torch.from_numpy(rng.random((256, 257)) < 0.02)
    return {"dense": normal(rng, 257, 256, scale=0.04), "sparse": sparse, "bias": normal(rng, 300)}


def tiled() -> dict[str, Tensor]:
    """Tensors of several tiles of `TILE` elements: one whose rows fit into a tile, one of a single row."""
    rng = generator(3)
    return {"matrix": normal(rng, 70, 1000, scale=0.1), "row": normal(rng, 70_001, dtype="float16")}


def sparse() -> dict[str, Tensor]:
    """Pruned tensors: rows of all densities, rows without any, negative zeros, NaN and infinities among the rest."""
    rng = generator(8)
    density = np.exp2(-rng.uniform(0, 9, (96, 1))) * (np.arange(96) % 7 > 0)[:, None]
    weight = normal(rng, 96, 200) * torch.from_numpy(rng.random((96, 200)) < density)  # negative zeros where it drops
    pruned = torch.where(torch.from_numpy(rng.random((96, 200)) < density), normal(rng, 96, 200), 0.0)
    pruned[1, :4] = torch.tensor([float("nan"), -float("nan"), float("inf"), -0.0])
    counts = torch.from_numpy(rng.integers(-(2**40), 2**40, (50, 60)) * (rng.random((50, 60)) < 0.03))
    return {
        "negative zeros": weight,
        "pruned": pruned,
        "positive": pruned.abs().to(torch.float16),
        "narrow": pruned.to(torch.bfloat16).to(torch.float32),
        "double": pruned.to(torch.float64),
        "complex": torch.complex(pruned[:20], torch.zeros(20, 200)),
        "large": torch.where(torch.from_numpy(rng.random((257, 260)) < 0.05), normal(rng, 257, 260), 0.0),
        "counts": counts,
        "flags": torch.from_numpy(rng.random((96, 200)) < density),
        "one of many": torch.eye(64)[:1],
        "quarter of zeros": torch.tensor([0, 3, -5, 7] * 16, dtype=torch.int32),
        "just below": torch.tensor([0, 9, -8, 7] * 15 + [1, 0, 0], dtype=torch.int32),
    }


def every_dtype() -> dict[str, Tensor]:
    """All dtypes that a file can hold, filled with random bits."""
    rng = generator(4)
    return {dtype: random_bits(rng, dtype, 5, 33) for dtype in DTYPES}


def edges() -> dict[str, Tensor]:
    """Values and shapes at the ends of their ranges."""
    rng = generator(5)
    tiny = torch.tensor([2.0**-149, -(2.0**-140), 2.0**-127, 0.0, -0.0] * 20)
    outliers = normal(rng, 40, 40)
    outliers[3, 4], outliers[7, 7] = 1e30, -2e25
    return {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0),
        "empty rows": torch.zeros(4, 0, dtype=torch.float16),
        "no rows": torch.zeros(0, 7, dtype=torch.int16),
        "one": torch.tensor([-0.0]),
        "constant": torch.full((50, 3), 0.1),
        "zeros": torch.zeros(600),
        "all NaN": torch.full((33,), float("nan")),
        "one NaN": torch.cat([normal(rng, 99), torch.tensor([float("nan")])]),
        "one Inf": torch.cat([normal(rng, 99), torch.tensor([-float("inf")])]),
        "denormals": tiny,
        "outliers": outliers,
        "greatest": torch.tensor([3.4028235e38, -3.4028235e38, 1.0] * 30),
        "float16 greatest": torch.tensor([65504.0, -65504.0, 60000.0, 1.0] * 30, dtype=torch.float16),
        "bfloat16 greatest": torch.tensor([3.38e38, 1.0, -3.38e38] * 30, dtype=torch.bfloat16),
        "float64 greatest": torch.tensor([1.7e308, -1e-300, 0.0] * 30, dtype=torch.float64),
        "int64 ends": torch.tensor([-(2**63), 2**63 - 1, 0, -1]),
        "uint64 ends": torch.from_numpy(np.array([0, 2**64 - 1, 2**63], np.uint64)),
        "flags": torch.arange(40) % 3 == 0,
        "five dimensions": normal(rng, 2, 3, 1, 4, 5),
    }


def matrix_edges() -> dict[str, Tensor]:
    """The edges, and matrices: of one column, of few rows, all alike, with rows and columns of zeros, not finite."""
    rng = generator(10)
    holes, broken = normal(rng, 40, 30), normal(rng, 30, 20)
    holes[:, 4:9], holes[11:20] = 0, 0
    broken[3, 4] = float("nan")
    return edges() | {
        "column": normal(rng, 300, 1),
        "short": normal(rng, 15, 40),
        "small": normal(rng, 16, 15),
        "alike": torch.full((20, 30), -0.5, dtype=torch.float16),
        "zero matrix": torch.zeros(20, 30),
        "holes": holes,
        "broken": broken,
        "tiny": normal(rng, 20, 20, scale=1e-40),
        "far": normal(rng, 20, 20, scale=1e37, dtype="float64"),
    }


def views() -> dict[str, Tensor]:
    """Tensors that are not plain memory: transposed, strided, expanded, conjugate and negated views."""
    rng = generator(6)
    base = normal(rng, 24, 36)
    complex_values = torch.complex(normal(rng, 6, 7), normal(rng, 6, 7))
    return {
        "transposed": base.T,
        "strided": base[::2, 1::3],
        "expanded": normal(rng, 1, 16).expand(8, 16),
        "channels last": normal(rng, 2, 3, 4, 5).to(memory_format=torch.channels_last),
        "conjugate": complex_values.conj(),
        "negative": complex_values.conj().imag,
        "real part": complex_values.real,
    }


def on_grid(tensor: Tensor, length: int, num_levels: int, *, offsets: bool) -> Tensor:
    """The values that a tensor has after quantisation in blocks of a length, with scales and offsets of float16."""
    values = tensor.float().reshape(-1, length)
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    if offsets:
        scales, least = ((high - low) / (num_levels - 1)).half().float(), low.half().float()
        levels = torch.round((values - least) / scales).clamp(0, num_levels - 1)
        found = scales * levels + least
    else:
        most = num_levels // 2 - 1
        scales = (torch.maximum(-low, high) / most).half().float()
        found = scales * (torch.round(values / scales).clamp(-most, most) + 0.0)
    return found.reshape(tensor.shape).to(tensor.dtype)


def numbers() -> Mapping[str, Tensor]:
    """A lone tensor."""
    return {"weight": normal(generator(7), 33, 41)}


def curvature(tensor: Tensor) -> Curvature:
    """What errors of a matrix cost: its inputs are correlated, of several scales, and its rows matter unequally.

    Whole numbers by powers of 2, so that no sum depends on its order. To lose the whole matrix costs 1, about.
    """
    rows, columns = tensor.shape[0], tensor[0].numel()
    rng = generator(rows * columns + rows)
    mixed = rng.integers(-7, 8, (columns, columns // 2 + 4)) * 2.0 ** rng.integers(-2, 3, (columns, 1))
    inputs = mixed @ mixed.T + np.diag(np.diag(mixed @ mixed.T)) / 64
    outputs = 2.0 ** rng.integers(-3, 4, rows)
    loss = float(tensor.detach().double().square().mean()) * float(np.trace(inputs))
    unit = math.floor(math.log2(loss)) if 0 < loss < math.inf else 0
    couplings = rng.integers(-1, 2, (rows, 3)).astype(np.float32) / 2
    return Curvature(inputs * 2.0**-unit, outputs / outputs.sum(), couplings)


def curvatures(tensors: Mapping[str, Tensor]) -> dict[str, Curvature]:
    """Curvatures of all matrices among tensors that may be coded lossily, whatever their values."""
    return {
        name: curvature(tensor)
        for name, tensor in tensors.items()
        if dtype_name(tensor.dtype) in LOSSY_DTYPES and tensor.ndim >= 2 and tensor.numel()
    }
