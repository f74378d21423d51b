"""The settings of `qswd`."""

from dataclasses import dataclass
from typing import Any

from fewbits.errors import InvalidArgument
from fewbits.method import MethodConfig
from fewbits.quantize.tiling import SIDES

FAMILIES = ("sparse", "svd", "vq")


@dataclass(frozen=True)
class QswdConfig(MethodConfig):
    """What factors may be, and how they train; which ones a tensor has is decided by error and measured bits.

    family: "sparse" (both factors quantised, one sparse), or one of its special cases: "svd" (no sparsity), "vq" (of a
        vector's coefficients one is 1, the others 0: k-means).
    tilings: sides and heights that are tried, [["rows", 16], ["columns", 9]]; by default those that suit a tensor.
    ranks: that are tried; by default those that suit it.
    turns: of the descent.
    mask_steps: training steps in which coefficients that were 0 at first stay 0; then they are free.
    average: decay of the latents' moving average in training, which is what is evaluated and written; 0 for none.
    refresh: training steps from one count of the rate to the next.
    """

    family: str = "sparse"
    tilings: tuple[tuple[str, int], ...] = ()
    ranks: tuple[int, ...] = ()
    turns: int = 12
    mask_steps: int = 200
    average: float = 0.995
    refresh: int = 50

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InvalidArgument: one is not what its line above says.
        """
        if self.family not in FAMILIES:
            raise InvalidArgument(f"QswdConfig.family must be one of {', '.join(FAMILIES)}, not {self.family!r}.")
        values = self.to_json()  # whatever JSON holds, not what the annotations say
        for tiling in values["tilings"]:
            plain = isinstance(tiling, list | tuple) and len(tiling) == 2 and tiling[0] in SIDES
            if not plain or not _is_count(tiling[1]):
                raise InvalidArgument(f"QswdConfig.tilings has {tiling!r}, which is no side and height.")
        for rank in values["ranks"]:
            if not _is_count(rank):
                raise InvalidArgument(f"QswdConfig.ranks must be whole numbers of at least 1, not {rank!r}.")
        for name, least in (("turns", 1), ("mask_steps", 0), ("refresh", 1)):
            if not _is_count(values[name], least):
                raise InvalidArgument(
                    f"QswdConfig.{name} must be a whole number of at least {least}, not {values[name]!r}."
                )
        average = values["average"]
        if isinstance(average, bool) or not isinstance(average, int | float) or not 0 <= average < 1:
            raise InvalidArgument(f"QswdConfig.average must be 0 or more and less than 1, not {average!r}.")
        # JSON has lists only.
        object.__setattr__(self, "tilings", tuple((side, height) for side, height in self.tilings))
        object.__setattr__(self, "ranks", tuple(self.ranks))


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
