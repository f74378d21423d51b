"""What can be set."""

from dataclasses import dataclass

from fewbits.method import MethodConfig


@dataclass(frozen=True)
class EcsqConfig(MethodConfig):
    """Settings of entropy-coded quantisation: what may be tried; what is kept is decided by measured size and error.

    rate_distortion: find levels with the rate in view. centroids: shift reconstruction points to their level's mean.
    row_classes: let rows of different scale have models of their own. trellis: let two quantisers take turns.
    blockwise: let weights that were quantised in blocks before be coded as such.
    """

    rate_distortion: bool = True
    centroids: bool = True
    row_classes: bool = True
    trellis: bool = True
    blockwise: bool = True
