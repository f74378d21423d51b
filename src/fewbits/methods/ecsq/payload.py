"""What a payload says of a tensor before its integers (docs/payload/ecsq.md)."""

import struct
from typing import NamedTuple

from fewbits.chunk import Chunk
from fewbits.coder.integers import ArraySpec, ModelSet
from fewbits.errors import Corrupt
from fewbits.models.descriptions import read_models, write_models
from fewbits.payload import check_version, element_ranges, part_of, read_step
from fewbits.plan import tile_rows
from fewbits.quantize.elements import QuantisedElements, TrellisElements
from fewbits.quantize.rounding import Centroids
from fewbits.quantize.trellis import NO_CORRECTIONS, Corrections
from fewbits.quantize.weights import Weights
from fewbits.tensors import LOSSY_DTYPES

PAYLOAD_VERSION = 1
_CENTROIDS, _TRELLIS = 1, 2  # WIRE: bits of the flags byte


class Points(NamedTuple):
    """What levels stand for: multiples of a step, or the values of a trellis; either corrected or not."""

    step: float
    centroids: Centroids | None = None
    corrections: Corrections | None = None  # of a trellis

    def to_bytes(self) -> bytes:
        """Write the fields before the models."""
        head = struct.pack("<f", self.step)
        if self.corrections is None:
            return head + (bytes([_CENTROIDS]) + struct.pack("<3b", *self.centroids) if self.centroids else bytes(1))
        if not any(self.corrections):
            return head + bytes([_TRELLIS])
        return head + bytes([_TRELLIS | _CENTROIDS]) + struct.pack("<4b", *self.corrections)


class Described(NamedTuple):
    """One tensor, or tile, of a payload."""

    name: str
    dtype: str
    points: Points
    array: ArraySpec

    def elements(self, weights: Weights) -> QuantisedElements | TrellisElements:
        """What turns the integers into weights."""
        step, centroids, corrections = self.points
        if corrections is not None:
            return TrellisElements(weights, self.name, step, corrections)
        return QuantisedElements(weights, self.name, step, centroids)


def description(points: Points, models: ModelSet) -> bytes:
    """Describe a tensor."""
    return points.to_bytes() + write_models(models)


def described(chunk: Chunk) -> tuple[list[Described], int]:
    """Read a payload's descriptions; returns them and the position after them.

    Raises:
        Corrupt, Incompatible: as for `Ecsq.decode`.
    """
    check_version(chunk, PAYLOAD_VERSION)
    position = 0
    found: list[Described] = []
    for spec, span in element_ranges(chunk):
        if spec.dtype not in LOSSY_DTYPES:
            raise Corrupt(f"tensor {spec.name!r} of dtype {spec.dtype} cannot have an ecsq payload.")
        step, position = read_step(chunk.payload, position, spec)
        flags, position = part_of(chunk.payload, position, 1)
        if flags[0] > _CENTROIDS | _TRELLIS:
            raise Corrupt(f"tensor {spec.name!r} has unknown ecsq flags.")
        corrected, is_trellis = flags[0] & _CENTROIDS, flags[0] & _TRELLIS
        fields, position = part_of(chunk.payload, position, (4 if is_trellis else 3) * corrected)
        if is_trellis:
            points = Points(step, corrections=struct.unpack("<4b", fields) if corrected else NO_CORRECTIONS)
        else:
            points = Points(step, centroids=struct.unpack("<3b", fields) if corrected else None)
        models, position = read_models(chunk.payload, position)
        rows, row_length = tile_rows(spec, span)
        if models.class_model is None:
            rows, row_length = 1, rows * row_length
        found.append(Described(spec.name, spec.dtype, points, ArraySpec(rows, row_length, models)))
    return found, position


def steps_of(chunk: Chunk) -> dict[str, float]:
    """Return the steps of a part's tensors, by name.

    Raises:
        Corrupt, Incompatible: as for `Ecsq.decode`.
    """
    return {each.name: each.points.step for each in described(chunk)[0]}
