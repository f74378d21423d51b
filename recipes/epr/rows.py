"""The settings of each row: frozen before the test set is looked at; chosen on the validation split."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GRID = {"kind": "grid", "size": [14, 14], "image": [28, 28], "margin": 2}


@dataclass(frozen=True)
class Row:
    """How one row is trained.

    network: "lenet300" or "lenet5" (recipes/models.py).
    nats_per_bit: what a bit may cost of the mean cross-entropy.
    first_steps, decoders, groups: of EprConfig, by tensor.
    units: hidden units that training starts with; the file holds the whole network, the others zero.
    shifts: whether training images are shifted by up to a pixel.
    refine: training images of the rate-distortion pass that follows; 0 for none.
    rate, rounding: of EprConfig; sharpness rises for nine tenths of the steps.
    distil: the teacher's part of the task loss.
    budget: bytes of the file's parts to steer to instead; nats_per_bit is where the search starts.
    """

    network: str
    units: tuple[int, ...]
    nats_per_bit: float
    steps: int
    first_steps: Mapping[str, float]
    batch: int = 128
    latent_rate: float = 2e-2
    decoder_rate: float = 4e-3
    density_rate: float = 1e-3
    warm_up: float = 0.2
    flat: float = 0.4
    average: float = 0.995
    shifts: bool = True
    refine: int = 50_000
    rate: str = "adaptive"
    rounding: str = "straight_through"
    distil: float = 0.0
    budget: int = 0
    decoders: Mapping[str, Any] = field(default_factory=dict[str, Any])
    groups: Mapping[str, str] = field(default_factory=dict[str, str])


_LENET300 = {"fc1.weight": 0.25, "*.weight": 0.15, "*": 0.1}
_ON_GRID = {"fc1.weight": 0.0625, "*.weight": 0.15, "*": 0.1}
_LENET5 = {"conv1.weight": 0.25, "fc2.weight": 0.25, "*.weight": 0.15, "*": 0.1}
_DFT = {"conv1.weight": "dft", "conv2.weight": "dft"}

ROWS: dict[str, Row] = {
    "lenet300": Row("lenet300", (300, 100), 1.4e-5, 40_000, _LENET300),
    "lenet300_basis": Row(
        "lenet300", (300, 100), 2.0e-5, 40_000, _ON_GRID, refine=20_000, decoders={"fc1.weight": GRID}
    ),
    "lenet300_1pct": Row(
        "lenet300", (300, 100), 8.5e-6, 40_000, _ON_GRID, decoders={"fc1.weight": GRID}, refine=0, distil=0.7
    ),
    "lenet5": Row("lenet5", (8, 16, 40), 1.6e-5, 12_000, _LENET5, refine=30_000, decoders=_DFT),
    # The paper's own: densities that are learned, one a group, no augmentation, no pass at the end. Which layers are a
    # group is as its port has it; learning rates are ours, it gives none.
    "lenet300_paper": Row(
        "lenet300",
        (300, 100),
        2.5e-6,
        10_000,
        _LENET300,
        shifts=False,
        refine=0,
        rate="deep_factorized",
        groups={"fc[12].weight": "hidden", "*.bias": "biases"},
    ),
    "lenet5_paper": Row(
        "lenet5",
        (8, 16, 40),
        5e-6,
        10_000,
        _LENET5,
        shifts=False,
        refine=0,
        rate="deep_factorized",
        decoders=_DFT,
        groups={"conv?.weight": "kernels", "fc?.weight": "dense", "*.bias": "biases"},
    ),
    # Both kinds of decoders at one price of a bit, for comparison.
    "lenet5_scalar": Row("lenet5", (8, 16, 40), 1.7e-5, 24_000, _LENET5, batch=64, refine=20_000),
    "lenet5_dft": Row("lenet5", (8, 16, 40), 1.7e-5, 24_000, _LENET5, batch=64, refine=20_000, decoders=_DFT),
    # What the task sees of latents: beside "lenet5_scalar", in half its steps.
    **{
        f"lenet5_{rounding}": Row(
            "lenet5", (8, 16, 40), 1.7e-5, 12_000, _LENET5, batch=64, refine=20_000, rounding=rounding
        )
        for rounding in ("straight_through", "soft", "universal")
    },
    "lenet5_07pct": Row("lenet5", (10, 20, 60), 5.5e-6, 12_000, _LENET5, refine=0),
}
