"""Tensors that stay factors, and layers that compute from them: `fewbits.load(…, keep_factors=True)`.

    y = W x,    W's blocks = C Z        rows:     u = Z x,   y = C u       block by block of outputs
                                        columns:  t = Cᵀ x,  y = Zᵀ t      block by block of inputs

Z is held as a bit an element and, for each that is not 0, half a byte, or a byte in rows that need it: at two bits a
weight a tenth of float32. Products are ordinary float arithmetic: what is exact is the factors.

Surprise: factors do not train; gradients reach inputs and biases only.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fewbits.errors import InvalidArgument
from fewbits.native import core
from fewbits.nn.unfolding import unfolded
from fewbits.quantize.factors import Factors

_PADDING = 16  # bytes behind the values, which the core may read
_BLOCK = 64  # rows that the simple path makes dense at a time, at most
_SHARE = 4  # and at most this part of all rows: the whole is never there
_MOST_ONE_HOT = 1 << 26  # elements of one-hot coefficients that are made sparse


class SparseLevels(nn.Module):
    """A sparse matrix (rows, columns) of whole numbers, -128 … 127.

    bits: (rows, ceil(columns / 8)) uint8, an element's bit 1 where it is not 0, the least significant first.
    wide: (rows,) uint8, 1 where the row's values are a byte each; else they are half a byte each, -8 … 7.
    starts: (rows + 1,) int32, the byte where a row's values start.
    values: (bytes + 16,) uint8.
    """

    bits: Tensor
    wide: Tensor
    starts: Tensor
    values: Tensor

    def __init__(self, matrix: NDArray[np.int64]) -> None:
        """Pack a matrix (rows, columns) of numbers that it can hold."""
        super().__init__()
        self.rows, self.columns = matrix.shape
        present = matrix != 0
        wide = (matrix.min(axis=1, initial=0) < -8) | (matrix.max(axis=1, initial=0) > 7)
        counts = present.sum(axis=1)
        sizes = np.where(wide, counts, (counts + 1) // 2)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        row, column = np.nonzero(present)
        kept, place = matrix[row, column], np.arange(row.size) - np.repeat(np.cumsum(counts) - counts, counts)
        values = np.zeros(int(starts[-1]) + _PADDING, np.uint8)
        is_wide = wide[row]
        values[starts[row[is_wide]] + place[is_wide]] = kept[is_wide] & 255
        for half in (0, 1):
            mine = ~is_wide & (place % 2 == half)
            values[starts[row[mine]] + place[mine] // 2] |= ((kept[mine] & 15) << (4 * half)).astype(np.uint8)
        bits = np.packbits(present, axis=1, bitorder="little")
        arrays = (bits, wide.astype(np.uint8), starts.astype(np.int32), values)
        for name, array in zip(("bits", "wide", "starts", "values"), arrays, strict=True):
            self.register_buffer(name, torch.from_numpy(array))

    @staticmethod
    def holds(matrix: NDArray[np.int64]) -> bool:
        """Whether all numbers are within reach."""
        return int(matrix.min(initial=0)) >= -128 and int(matrix.max(initial=0)) <= 127

    def dense(self, rows: Tensor | slice) -> Tensor:
        """Return some rows, by their indices (k,) or a range of them: (k, columns) float32, on the matrix's device."""
        eight = torch.arange(8, dtype=torch.uint8, device=self.bits.device)
        present = (self.bits[rows][:, :, None] >> eight & 1).flatten(1)[:, : self.columns]
        place = present.cumsum(1, dtype=torch.int64) - 1
        wide = self.wide[rows][:, None].bool()
        byte = self.starts[:-1][rows][:, None] + torch.where(wide, place, place // 2)
        held = self.values[byte.clamp(min=0)].int()
        halves = ((held >> 4 * (place % 2).int() & 15) ^ 8) - 8
        found = torch.where(wide, (held ^ 128) - 128, halves)
        return torch.where(present.bool(), found, 0).float()

    def forward(self, matrix: Tensor) -> Tensor:
        """Return the product with a matrix (columns, m) float: (rows, m) of its dtype; the gradient is its."""
        return _Multiply.apply(matrix, self)

    def blocks(self) -> list[slice]:
        """Return ranges of rows that may be dense at a time."""
        height = max(1, min(_BLOCK, self.rows // _SHARE))
        return [slice(start, min(start + height, self.rows)) for start in range(0, self.rows, height)]

    def multiplied(self, matrix: Tensor) -> Tensor:
        """The product, without a gradient: by the core on a CPU, else some rows at a time."""
        native = core()
        plain = matrix.device.type == "cpu" and matrix.dtype == torch.float32
        if native is None or not plain or torch.compiler.is_compiling():
            return torch.cat([self.dense(block).to(matrix.dtype) @ matrix for block in self.blocks()])
        out = torch.empty(self.rows, matrix.shape[1])
        native.multiply_sparse(
            self.bits.numpy(),
            self.starts.numpy(),
            self.wide.numpy(),
            self.values.numpy(),
            self.columns,
            matrix.contiguous().numpy(),
            torch.get_num_threads(),
            out.numpy(),
        )
        return out

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        # What the core reads by must be sound, wherever it comes from.
        if not self._is_sound():
            raise InvalidArgument("the state of a sparse matrix has other values than bits.")

    def _is_sound(self) -> bool:
        """Whether each row has as many values as bits, and no bit behind its last column."""
        bits, starts, wide, values = (each.cpu().numpy() for each in (self.bits, self.starts, self.wide, self.values))
        native = core()
        if native is not None:
            return native.is_sparse_sound(bits, starts, wide, values, self.columns)
        present = np.unpackbits(bits, axis=1, bitorder="little")
        counts = present.sum(axis=1, dtype=np.int64)
        ends = np.cumsum(np.where(wide != 0, counts, (counts + 1) // 2))
        expected = np.concatenate([[0], ends])
        fits = int(expected[-1]) + _PADDING <= values.size
        return fits and not present[:, self.columns :].any() and np.array_equal(starts, expected)


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, levels: SparseLevels) -> Tensor:
        ctx.levels = levels
        return levels.multiplied(matrix.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # pyright: ignore
        (gradient,), levels = grad_outputs, ctx.levels
        total = gradient.new_zeros(levels.columns, gradient.shape[1])
        for block in levels.blocks():
            total += levels.dense(block).to(gradient.dtype).T @ gradient[block]
        return total, None


class FactoredTile(nn.Module):
    """Factors of some rows of a matrix: a codebook (height, rank) float32, step and exponents in it, and levels."""

    codebook: Tensor

    def __init__(self, factors: Factors, columns: int) -> None:
        """Hold the factors of a matrix (rows, columns)."""
        super().__init__()
        coefficients, self.rank = factors.coefficients, factors.rank
        if factors.one_hot:
            coefficients = np.zeros((self.rank, factors.coefficients.size), np.int64)
            coefficients[factors.coefficients, np.arange(factors.coefficients.size)] = 1
        self.side, self.height = factors.tiling
        rows = coefficients.shape[1] * self.height // columns
        self.num_rows = rows
        along, across = factors.tiling.grid(rows, columns)
        # Block by block, and of each all columns of the codebook.
        order = (1, 0, 2) if self.side == "rows" else (1, 2, 0)
        blocks = coefficients.reshape(self.rank, along, across).transpose(order)
        self.levels = SparseLevels(
            np.ascontiguousarray(blocks).reshape(-1, across if self.side == "rows" else across * self.rank)
        )
        scaled = factors.scaled_codebook() * factors.step
        self.register_buffer("codebook", torch.from_numpy(scaled.astype(np.float32)))

    def multiply(self, matrix: Tensor) -> Tensor:
        """Return the product of these rows and a matrix (n, m): (rows, m)."""
        codebook, count = self.codebook.to(matrix.dtype), matrix.shape[1]
        if self.side == "rows":
            products = self.levels(matrix).reshape(-1, self.rank, count)
            return (products * codebook if self.rank == self.height == 1 else codebook @ products).reshape(-1, count)
        blocks = matrix.reshape(-1, self.height, count)
        return self.levels((codebook.T @ blocks).reshape(-1, count))

    def looked_up(self, indices: Tensor) -> Tensor:
        """Return the rows of indices (N,), (N, n) float32."""
        if self.side == "columns":
            found = self.levels.dense(indices).reshape(len(indices), -1, self.rank)
            return (found @ self.codebook.T).reshape(len(indices), -1)
        own = indices // self.height * self.rank
        found = self.levels.dense((own[:, None] + torch.arange(self.rank, device=own.device)).flatten())
        found = found.reshape(len(indices), self.rank, -1)
        return torch.einsum("nk,nkc->nc", self.codebook[indices % self.height], found)


class Factored(nn.Module):
    """One tensor as its factors, tile by tile; shape and dtype are the tensor's."""

    def __init__(self, tiles: Sequence[Factors], shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Hold the factors of tiles, which follow each other."""
        super().__init__()
        self.shape, self.dtype = shape, dtype
        columns = math.prod(shape[1:])
        self.tiles = nn.ModuleList(FactoredTile(each, columns) for each in tiles)
        self._ends = np.cumsum([tile.num_rows for tile in self._each()])

    @staticmethod
    def holds(factors: Factors) -> bool:
        """Whether a tile's levels are within reach: at some eight bits a weight there is nothing to gain."""
        if factors.one_hot:
            return factors.rank * factors.coefficients.size <= _MOST_ONE_HOT
        return SparseLevels.holds(factors.coefficients)

    def _each(self) -> list[FactoredTile]:
        return [tile for tile in self.tiles if isinstance(tile, FactoredTile)]

    def multiply(self, matrix: Tensor) -> Tensor:
        """Return the product of the tensor's matrix (R, n) and a matrix (n, m) float: (R, m) of its dtype."""
        products = [tile.multiply(matrix) for tile in self._each()]
        return products[0] if len(products) == 1 else torch.cat(products)

    def looked_up(self, indices: Tensor) -> Tensor:
        """Return rows of the tensor's matrix, (N, n) of its dtype, for indices (N,)."""
        found = torch.zeros(len(indices), math.prod(self.shape[1:]), dtype=self.dtype, device=indices.device)
        start = 0
        for tile, end in zip(self._each(), self._ends.tolist(), strict=True):
            mine = (indices >= start) & (indices < end)
            if bool(mine.any()):
                found[mine] = tile.looked_up(indices[mine] - start).to(found.dtype)
            start = end
        return found

    def dense(self) -> Tensor:
        """Return the tensor: what a file decodes to, to float tolerance."""
        device = next(self.buffers()).device
        whole = self.multiply(torch.eye(math.prod(self.shape[1:]), device=device))
        return whole.reshape(self.shape).to(self.dtype)


def values_of_tiles(tiles: Sequence[Factors], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor of tiles' factors, exactly as a file decodes."""
    columns = math.prod(shape[1:])
    pieces = [
        factors.values(factors.coefficients.shape[-1] * factors.tiling.height // columns, columns) for factors in tiles
    ]
    return torch.from_numpy(np.concatenate(pieces)).to(dtype).reshape(shape)


# ---- layers


class FactoredLinear(nn.Module):
    """`nn.Linear` from factors: (..., in_features) to (..., out_features)."""

    def __init__(self, layer: nn.Linear, weight: Factored) -> None:
        """Compute as a layer does, with its bias, and factors in place of its weight."""
        super().__init__()
        self.weight = weight
        self.bias: Tensor | None = layer.bias
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's outputs."""
        flat = inputs.reshape(-1, self.in_features)
        outputs = self.weight.multiply(flat.T.contiguous()).T.reshape(*inputs.shape[:-1], self.out_features)
        return outputs if self.bias is None else outputs + self.bias


class FactoredConv2d(nn.Module):
    """`nn.Conv2d` without groups from factors, of any stride, padding and dilation."""

    def __init__(self, layer: nn.Conv2d, weight: Factored) -> None:
        """Compute as a layer does, with its bias, and factors in place of its weight."""
        super().__init__()
        self.weight = weight
        self.bias: Tensor | None = layer.bias
        self.kernel_size, self.dilation, self.stride = layer.kernel_size, layer.dilation, layer.stride
        self.padding_mode = layer.padding_mode
        self.padding = layer._reversed_padding_repeated_twice  # pyright: ignore[reportPrivateUsage]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's outputs, (B, O, H, W), for inputs (B, I, h, w); or both without B."""
        if inputs.ndim == 3:
            return self.forward(inputs[None])[0]
        columns, sides = unfolded(
            inputs,
            self.kernel_size,
            dilation=self.dilation,
            stride=self.stride,
            padding=self.padding,
            mode=self.padding_mode,
        )
        outputs = self.weight.multiply(columns).reshape(-1, len(inputs), *sides).movedim(1, 0)
        return outputs if self.bias is None else outputs + self.bias[:, None, None]


class FactoredEmbedding(nn.Module):
    """`nn.Embedding` from factors: rows are made as they are asked for."""

    def __init__(self, layer: nn.Embedding, weight: Factored) -> None:
        """Look up as a layer does, from factors in place of its weight."""
        super().__init__()
        self.weight = weight

    def forward(self, indices: Tensor) -> Tensor:
        """Return the rows of indices (...), (..., embedding_dim)."""
        different, places = torch.unique(indices, return_inverse=True)
        return self.weight.looked_up(different)[places]


_KINDS = ((nn.Linear, FactoredLinear), (nn.Conv2d, FactoredConv2d), (nn.Embedding, FactoredEmbedding))


def replaceable(module: nn.Module) -> set[str]:
    """Return the names of the weights whose layers have a form with factors, and which no other layer shares.

    Convolutions with groups have none: each group would need a product with all rows.
    """
    count: dict[int, int] = {}
    for _, value in module.named_parameters(remove_duplicate=False):
        count[id(value)] = count.get(id(value), 0) + 1
    found: set[str] = set()
    for name, layer in module.named_modules(remove_duplicate=False):
        # Of a subclass nobody knows what its forward does with its weight.
        if not name or not isinstance(layer, nn.Linear | nn.Conv2d | nn.Embedding):
            continue
        if all(type(layer) is not known for known, _ in _KINDS) or count.get(id(layer.weight)) != 1:
            continue
        changes_itself = isinstance(layer, nn.Embedding) and layer.max_norm is not None
        if not changes_itself and not (isinstance(layer, nn.Conv2d) and layer.groups != 1):
            found.add(f"{name}.weight")
    return found


def replace(module: nn.Module, factored: Mapping[str, Factored]) -> None:
    """Put layers that compute from factors, by the names of their weights, in the place of a module's own."""
    for name, weight in factored.items():
        path = name.removesuffix(".weight")
        layer = module.get_submodule(path)
        kind = next(made for known, made in _KINDS if type(layer) is known)
        parent, _, place = path.rpartition(".")
        setattr(module.get_submodule(parent), place, kind(layer, weight))  # pyright: ignore


def held_bytes(module: nn.Module) -> int:
    """Return the bytes of a module's parameters and buffers, factors as they are held."""
    return sum(each.numel() * each.element_size() for each in (*module.parameters(), *module.buffers()))
