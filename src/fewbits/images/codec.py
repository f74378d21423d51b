"""An image codec: its networks and densities, as they are trained.

What codes an image is made of it in integers (`fewbits.images.frozen`). Method: docs/methods/image.md.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fewbits.errors import InvalidArgument
from fewbits.images.rounding import ROUNDINGS, quantized
from fewbits.images.transforms import (
    analysis,
    hyper_analysis,
    hyper_synthesis,
    start_from_components,
    synthesis,
)
from fewbits.method import MethodConfig
from fewbits.models.deep_factorized import DeepFactorized
from fewbits.models.scale_indexed import LEAST_SCALE, PER_OCTAVE, ScaleIndexed, index_of
from fewbits.quantize.sharpness import Sharpness
from fewbits.quantize.universal import MOST_LEVEL_BITS

ENTROPY_MODELS = ("factorized", "hyperprior")
PIXELS = 64.0  # WIRE: grey levels a unit of the networks' input and output, which is 0 at 128
SCALE_STEPS, SCALE_MIDDLE = 8.0, 16.0  # WIRE: numbers of scales a unit of the hyper-synthesis, and at 0
_MOST_CHANNELS, _MOST_LAYERS, _MOST_QUALITIES = 4096, 6, 256
_SOFT_LEAST_SCALE = 0.1
_MIDDLE_TRADE = 0.013  # where latents start with a gain of 1.5


@dataclass(frozen=True)
class CodecConfig(MethodConfig):
    """What a codec is, before it is trained.

    entropy_model: "hyperprior" (means and scales, sent as hyper-latents) or "factorized" (a density a channel).
    rounding: one of `fewbits.images.rounding.ROUNDINGS`.
    sharpness: of soft rounding, at last.
    trades: one for each quality, ascending: what a squared grey level of error a pixel is worth, in bits a pixel.
    widths, latents, hyper_width, hyper_latents: channels of the networks.
    family: of the latents' densities given the hyper-latents.
    level_bits: log2 of the dither's levels, where there is a dither.
    least_scale: of those densities, in steps; 0 for what suits the rounding, .1 for "soft" and .02 for others.
    """

    entropy_model: str = "hyperprior"
    rounding: str = "straight_through"
    sharpness: float = 10.0
    trades: tuple[float, ...] = (0.0015, 0.0032, 0.0067, 0.013, 0.025)
    widths: tuple[int, ...] = (64, 96)
    latents: int = 192
    hyper_width: int = 48
    hyper_latents: int = 32
    family: str = "gaussian"
    level_bits: int = 4
    least_scale: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InvalidArgument: one is not what its line above says.
        """
        for name, value, known in (
            ("entropy_model", self.entropy_model, ENTROPY_MODELS),
            ("rounding", self.rounding, ROUNDINGS),
        ):
            if value not in known:
                raise InvalidArgument(f"CodecConfig.{name} must be one of {', '.join(known)}, not {value!r}.")
        trades = tuple(self.trades)
        if not trades or any(not 0 < trade < math.inf for trade in trades) or list(trades) != sorted(set(trades)):
            raise InvalidArgument("CodecConfig.trades must be numbers above 0, each greater than the one before.")
        for name in ("widths", "latents", "hyper_width", "hyper_latents", "level_bits"):
            value = getattr(self, name)
            counts = value if name == "widths" else [value]
            if any(isinstance(count, bool) or not isinstance(count, int) or count < 1 for count in counts):
                raise InvalidArgument(f"CodecConfig.{name} must be whole numbers of at least 1, not {value!r}.")
            if any(count > _MOST_CHANNELS for count in counts):
                raise InvalidArgument(f"CodecConfig.{name} must be at most {_MOST_CHANNELS}, not {value!r}.")
        if len(self.widths) > _MOST_LAYERS or len(trades) > _MOST_QUALITIES:
            raise InvalidArgument(f"a codec has at most {_MOST_LAYERS} widths and {_MOST_QUALITIES} trades.")
        if self.level_bits > MOST_LEVEL_BITS:
            raise InvalidArgument(f"CodecConfig.level_bits is at most {MOST_LEVEL_BITS}, not {self.level_bits}.")
        if not 1 <= self.sharpness < math.inf:
            raise InvalidArgument(f"CodecConfig.sharpness must be a finite number of at least 1, not {self.sharpness}.")
        if self.least_scale == 0:
            # With less soft rounding trains worse, and universal quantisation better (docs/methods/image.md).
            object.__setattr__(self, "least_scale", _SOFT_LEAST_SCALE if self.rounding == "soft" else LEAST_SCALE)
        ScaleIndexed(self.family, self.least_scale)
        # JSON has lists only.
        object.__setattr__(self, "trades", trades)
        object.__setattr__(self, "widths", tuple(self.widths))

    @property
    def step(self) -> int:
        """Pixels a side of a latent."""
        return 4 << len(self.widths)


class Draw(NamedTuple):
    """One draw of a codec: pixels (B, 3, H, W) float in grey levels, and expected bits of each image, (B,)."""

    pixels: Tensor
    bits: Tensor
    hyper_bits: Tensor


class Codec(nn.Module):
    """Networks and densities for some qualities; a quality is a gain a channel, before quantisation.

    Law: in train() a draw is relaxed as its rounding says; in eval() it is, in distribution, what a file will hold.

    Source: Minnen et al. 2018 (arXiv:1809.02736), without the context model; one network for all rates by gains, as in
    Cui et al. 2021 (arXiv:2003.02012).
    """

    def __init__(self, config: CodecConfig | None = None, *, sharpness_steps: int = 0) -> None:
        """Build a codec with random networks; sharpness rises in so many steps."""
        super().__init__()
        self.config = config = config or CodecConfig()
        qualities, latents = len(config.trades), config.latents
        self.analysis = analysis(config.widths, latents)
        self.synthesis = synthesis(config.widths, latents)
        gains = 1.5 * (torch.tensor(config.trades) / _MIDDLE_TRADE).sqrt()
        self.log_gains = nn.Parameter(gains.log()[:, None].repeat(1, latents))
        channels = latents
        self.has_hyper = config.entropy_model == "hyperprior"
        if self.has_hyper:
            self.hyper_analysis = hyper_analysis(latents, config.hyper_width, config.hyper_latents)
            self.hyper_synthesis = hyper_synthesis(config.hyper_latents, config.hyper_width, latents)
            self.hyper_log_gains = nn.Parameter(torch.full((qualities, config.hyper_latents), 0.0))
            self.conditional = ScaleIndexed(config.family, config.least_scale)
            channels = config.hyper_latents
        self.priors = nn.ModuleList(DeepFactorized(channels, scale=2.0) for _ in range(qualities))
        self.sharpness = Sharpness(1.0, config.sharpness, sharpness_steps)

    def prior(self, quality: int) -> DeepFactorized:
        """Return the densities of what has a prior a channel: hyper-latents, or else latents."""
        found = self.priors[quality]
        assert isinstance(found, DeepFactorized)
        return found

    @torch.no_grad()
    def start_from(self, images: Tensor) -> None:
        """Start where a block transform of images (B, 3, H, W) in grey levels is, each latent with its own scale."""
        units = images / PIXELS - 128 / PIXELS
        start_from_components(self.analysis, self.synthesis, units)
        if self.has_hyper:
            spread = self.analysis(units).std((0, 2, 3))
            last = self.hyper_synthesis[-1]
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            last.bias[self.config.latents :] = (index_of(spread) - SCALE_MIDDLE) / SCALE_STEPS

    def forward(self, pixels: Tensor, quality: int) -> Draw:
        """Return a draw of images (B, 3, H, W) float in grey levels, whose sides the networks' steps divide."""
        config = self.config
        quantize = partial(
            quantized,
            config.rounding,
            sharpness=self.sharpness(),
            level_bits=config.level_bits,
            training=self.training,
        )
        latents = self.analysis(pixels / PIXELS - 128 / PIXELS)
        gain = self.log_gains[quality].exp()[:, None, None]

        def prior_bits(lower: Tensor, upper: Tensor) -> Tensor:
            ends = (end.movedim(1, -1) for end in (lower, upper))
            return self.prior(quality).interval_bits(*ends).movedim(-1, 1)

        if not self.has_hyper:
            seen = quantize(latents * gain, prior_bits)
            decoded, hyper_bits = seen.values / gain, torch.zeros(len(pixels), device=pixels.device)
        else:
            hyper_gain = self.hyper_log_gains[quality].exp()[:, None, None]
            hyper = quantize(self.hyper_analysis(latents) * hyper_gain, prior_bits)
            hyper_bits = hyper.bits.flatten(1).sum(1)
            means, scales = self.hyper_synthesis(hyper.values / hyper_gain).chunk(2, 1)
            index = (
                SCALE_STEPS * scales + SCALE_MIDDLE + self.log_gains[quality][:, None, None] * PER_OCTAVE / math.log(2)
            )

            def bits(lower: Tensor, upper: Tensor) -> Tensor:
                return self.conditional.interval_bits(lower, upper, index)

            seen = quantize((latents - means) * gain, bits)
            decoded = seen.values / gain + means
        found = self.synthesis(decoded) * PIXELS + 128
        return Draw(found, hyper_bits + seen.bits.flatten(1).sum(1), hyper_bits)
