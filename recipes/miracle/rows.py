"""The settings of each row: frozen before the test set is looked at; chosen on the validation split."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """How one row of LeNet5 is trained.

    units: hidden units that there are; the file holds the whole network, the others zero.
    budget: bytes of the file's one part.
    bits, slack, parameterisation, candidates, pick: of MiracleConfig.
    steps: of training before the first block is sent; fall: share of them after which learning rates fall.
    blocks_at_once, steps_between: how many blocks are sent together, and training steps from one such to the next.
    mean_rate, spread_rate, prior_rate: learning rates of posterior means, of what else a posterior has, of priors;
        sending_rate: what they are multiplied with when the first block is sent, from where they fall to 0.
    batch: images a step.
    shifts: whether training images are shifted by up to a pixel.
    """

    units: tuple[int, int, int]
    budget: int
    bits: int = 18
    slack: float = 0.0
    parameterisation: str = "divergence"
    candidates: str = "shared"
    pick: str = "likeliest"
    steps: int = 12_000
    fall: float = 0.5
    blocks_at_once: int = 8
    steps_between: int = 60
    batch: int = 128
    mean_rate: float = 1e-2
    spread_rate: float = 3e-2
    prior_rate: float = 5e-3
    sending_rate: float = 0.2
    shifts: bool = True


ROWS: dict[str, Row] = {
    "lenet5_small": Row((5, 10, 24), 1570, steps=24_000, steps_between=80),
    "lenet5_accurate": Row((7, 14, 34), 3120, steps=16_000, steps_between=40),
    # The first choice, seeds 0 to 2: fits its training images far better than others.
    "lenet5_accurate_wide": Row((8, 16, 40), 3120, steps=16_000, steps_between=40),
    "lenet5_best": Row((4, 9, 20), 1110, steps=24_000, steps_between=100, spread_rate=1e-2),
}
