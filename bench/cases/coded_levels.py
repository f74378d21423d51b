"""The levels in a `.fewbits` file of method ecsq, as int8: real quantised tensors for the coders to work on."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Levels(NamedTuple):
    """Levels of all lossily coded tensors, one array a tensor or tile, and the share that had to be clipped."""

    arrays: tuple[NDArray[np.int8], ...]
    clipped: float


def compressed_levels(checkpoint: Path, bits: float, seed: int, scratch: Path) -> Levels:
    """Compress a checkpoint at so many bits a weight, and return the levels in the file."""
    import fewbits

    path = scratch / "levels.fewbits"
    fewbits.compress(checkpoint, path, bits=bits, seed=seed)
    return levels_of(path)


def levels_of(path: Path) -> Levels:
    """Return the levels in a file, from -128 to 127."""
    from fewbits.container.reader import Reader

    arrays: list[NDArray[np.int8]] = []
    num_clipped = 0
    with Reader(path) as reader:
        for part in range(len(reader.parts)):
            chunk = reader.read_chunk(part)
            for wide in _levels_of_chunk(chunk) if chunk.method == "ecsq" else []:
                narrow = np.clip(wide, -128, 127)
                num_clipped += int(np.count_nonzero(narrow != wide))
                arrays.append(narrow.astype(np.int8))
    return Levels(tuple(arrays), num_clipped / sum(array.size for array in arrays))


def _levels_of_chunk(chunk) -> list[NDArray[np.int64]]:
    """Read a payload as docs/payload/ecsq.md says, and stop before the levels become weights."""
    from fewbits.coder.body import decode_body
    from fewbits.methods.ecsq.payload import described

    tensors, position = described(chunk)
    return [values.reshape(-1) for values in decode_body(chunk.payload[position:], [each.array for each in tensors])]
