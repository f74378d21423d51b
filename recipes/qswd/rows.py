"""The settings of each row: chosen on validation images, before the others are looked at."""

from dataclasses import dataclass

EPOCHS = 2
BITS = {"half": 0.5, "one": 1.0, "two": 2.0}
FAMILIES = ("sparse", "vq", "svd", "epr")


@dataclass(frozen=True)
class Row:
    """How one row starts, and how it is trained.

    family: of QswdConfig; or "epr": latents of the weights themselves.
    bits: of the whole file, for each of the network's weights.
    start: what the file that training starts from takes, in units of what the row's may. Indices of "vq" stay as they
        are, so that it starts from its own size; for the others it is the rate that makes them fit.
    epochs: of 40,000 images.
    nats_per_bit: what a bit may cost of the mean cross-entropy, at first; then the budget decides.
    """

    family: str
    bits: float
    start: float = 1.15
    epochs: int = EPOCHS
    batch: int = 128
    latent_rate: float = 1e-2
    decoder_rate: float = 2e-3
    nats_per_bit: float = 2e-6
    warm_up: float = 0.1
    average: float = 0.99
    mask_share: float = 0.3  # of the steps, in which coefficients that were 0 stay 0
    refine: int = 1000  # training images of the rate-distortion pass that follows


ROWS = {
    f"{family}_{word}": Row(family, bits, start=1.0 if family == "vq" else 1.15)
    for word, bits in BITS.items()
    for family in FAMILIES
}
