"""How tensors are cut into parts: a pure function of their specs (docs/format.md, section 4).

Small tensors share a part, and a single-lane stream: 32 lanes and a part of its own would cost each about 100 bytes.
Large ones are cut into tiles that can be encoded, checked and read alone.
"""

from collections.abc import Sequence

from fewbits.chunk import TensorSpec

SMALL = 1 << 16  # elements below which a tensor is small
NETWORK = 1 << 22  # weights up to which a trained network is one part
POOL = 1 << 20  # elements of a group of small tensors at most
TILE = 1 << 22  # elements of a tile, about: at 2 bits eight chunks, enough for decoders that run four in lockstep


def group_small(specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
    """Group small tensors, in order, up to POOL elements a group; every other tensor stands alone.

    Tensors of floating point dtypes and others never share a group, so that a lossy method's group stays one part.
    """
    units: list[tuple[TensorSpec, ...]] = []
    for floating in (True, False):
        pool: list[TensorSpec] = []
        size = 0
        for spec in specs:
            if spec.dtype.startswith(("float", "bfloat")) != floating:
                continue
            if spec.num_elements >= SMALL:
                units.append((spec,))
                continue
            if pool and size + spec.num_elements > POOL:
                units.append(tuple(pool))
                pool, size = [], 0
            pool.append(spec)
            size += spec.num_elements
        if pool:
            units.append(tuple(pool))
    return units


def group_network(specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
    """Keep a network's tensors of floating point together, up to NETWORK elements; else as `group_small`.

    For methods that train whole networks: what describes one tensor helps with the next.
    """
    floating = tuple(spec for spec in specs if spec.dtype.startswith(("float", "bfloat")))
    if sum(spec.num_elements for spec in floating) > NETWORK:
        return group_small(specs)
    others = [spec for spec in specs if spec not in floating]
    return ([floating] if floating else []) + group_small(others)


def is_group(unit: Sequence[TensorSpec]) -> bool:
    """Whether a unit is coded as a group, in one lane; else it is one large tensor."""
    return len(unit) > 1 or unit[0].num_elements < SMALL


def tiles(spec: TensorSpec) -> list[tuple[int, int]]:
    """Ranges of elements that a tensor is cut into: whole rows where a row fits, at least one range."""
    row = spec.num_elements // max(1, spec.num_rows)
    stride = TILE // row * row if 0 < row <= TILE else TILE
    return [(start, min(start + stride, spec.num_elements)) for start in range(0, spec.num_elements, stride)] or [
        (0, 0)
    ]


def tile_rows(spec: TensorSpec, span: tuple[int, int]) -> tuple[int, int]:
    """Rows and row length of a range of elements: whole rows of the tensor, or one row (docs/format.md, section 8)."""
    row = spec.num_elements // spec.num_rows if spec.num_rows else 0
    start, stop = span
    if row and start % row == 0 and stop % row == 0:
        return (stop - start) // row, row
    return 1, stop - start


def tile_shape(spec: TensorSpec, span: tuple[int, int] | None) -> tuple[int, ...]:
    """Return the shape of what a part has of a tensor: all of it, whole rows, or a vector of elements."""
    if span is None:
        return spec.shape
    row = spec.num_elements // max(1, spec.num_rows)
    if len(spec.shape) >= 2 and row and span[0] % row == 0 and span[1] % row == 0:
        return ((span[1] - span[0]) // row, *spec.shape[1:])
    return (span[1] - span[0],)
