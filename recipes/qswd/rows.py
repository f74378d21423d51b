"""The settings of each row: one choice for all families, by trial runs of "sparse" on validation images alone."""

from dataclasses import dataclass

# By word: bits a weight, epochs, what training starts from in units of that size, and what a bit costs at first. In so
# few steps a rate shows only if bits are dear from the start.
SIZES = {"half": (0.5, 2, 1.5, 7e-5), "one": (1.0, 2, 1.4, 3e-5), "two": (2.0, 1, 1.3, 2e-5)}
FAMILIES = ("sparse", "vq", "svd", "epr")


@dataclass(frozen=True)
class Row:
    """How one row starts, and how it is trained.

    family: of QswdConfig; or "epr": latents of the weights themselves.
    bits: of the whole file, for each of the network's weights.
    epochs: of 40,000 images.
    start: what the file that training starts from takes, in units of what the row's may. Indices of "vq" stay as they
        are: it starts from its own size, and bits cost little. For the others it is the rate that makes them fit.
    nats_per_bit: what a bit may cost of the mean cross-entropy, at first; then the budget decides.
    """

    family: str
    bits: float
    epochs: int
    start: float
    nats_per_bit: float
    batch: int = 128
    latent_rate: float = 2e-2
    decoder_rate: float = 2e-3
    warm_up: float = 0.02
    average: float = 0.99
    mask_share: float = 0.3  # of the steps, in which coefficients that were 0 stay 0
    refine: int = 1000  # training images of the rate-distortion pass that follows


ROWS = {
    f"{family}_{word}": Row(family, bits, epochs, *((1.0, 1e-6) if family == "vq" else (start, price)))
    for word, (bits, epochs, start, price) in SIZES.items()
    for family in FAMILIES
}
