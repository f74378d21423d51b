"""A search for better latents: never worse, decoded as any other file, and without a trace where it is not asked."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fewbits import images
from fewbits.errors import InvalidArgument
from fewbits.images.measures import psnr
from fewbits.models.location_scale import standard_bits
from fewbits.models.table_set import IndexedCoder, TableSet
from tests.golden.photos import CONFIGS, codec_path, photo


def worth(coded: images.Coded, pixels: int, trade: float) -> float:
    """Bits a pixel, and what the error is worth of them."""
    return coded.actual_bits / pixels + trade * 255**2 / 10 ** (coded.psnr / 10)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_refined_file_is_worth_more_and_decodes_to_what_its_encoder_saw(name: str, tmp_path: Path) -> None:
    image, path = photo(96, 130, seed=3), tmp_path / "x.fewbits"
    codec = images.open_codec(codec_path(name))
    for quality, trade in enumerate(codec.config.trades):
        plain, better = (images.save(image, path, codec=codec, quality=quality, refine=steps) for steps in (0, 30))
        assert worth(better, 96 * 130, trade) < worth(plain, 96 * 130, trade)
        assert better.size == path.stat().st_size
        assert psnr(images.load(path), image) == pytest.approx(better.psnr)


def test_a_search_that_finds_nothing_better_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(search: object, steps: int, seed: int) -> torch.Tensor:
        return torch.full((8 * 4 * 4,), 7)

    monkeypatch.setattr("fewbits.images.frozen.refined", worse)
    codec = images.open_codec(codec_path("hyperprior-soft"))
    assert codec.config.latents == 8 and codec.step == 32
    for steps in (0, 5):
        images.save(photo(32, 32), tmp_path / f"{steps}.fewbits", codec=codec, quality=0, refine=steps)
    assert (tmp_path / "0.fewbits").read_bytes() == (tmp_path / "5.fewbits").read_bytes()


def test_one_machine_finds_the_same_again_whatever_torch_has_drawn(tmp_path: Path) -> None:
    for run in range(2):
        torch.manual_seed(run)
        before = torch.get_rng_state()
        with torch.set_grad_enabled(bool(run)):
            images.save(photo(70, 70), tmp_path / f"{run}.fewbits", codec=codec_path("hyperprior-soft"), refine=6)
        assert torch.get_rng_state().equal(before)
    assert (tmp_path / "0.fewbits").read_bytes() == (tmp_path / "1.fewbits").read_bytes()


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_images_and_alpha_are_refined_too(channels: int, tmp_path: Path) -> None:
    image = torch.cat([photo(40, 50, 2), photo(40, 50, 5)[..., :1]], -1)[..., :channels]
    images.save(image, tmp_path / "x.fewbits", codec=codec_path("hyperprior-soft"), refine=5)
    found = images.load(tmp_path / "x.fewbits")
    assert found.shape == image.shape
    assert channels == 1 or found[..., 3].equal(image[..., 3])


@pytest.mark.parametrize("steps", [-1, 2.5, True, "3"])
def test_steps_that_mean_nothing_are_refused(steps: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="steps of a search"):
        images.save(photo(8, 8), tmp_path / "x", codec=codec_path("hyperprior-soft"), refine=steps)  # pyright: ignore
    assert not (tmp_path / "x").exists()


def test_bits_of_each_value_sum_to_those_of_all() -> None:
    def between(lower: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
        scales = torch.tensor([0.3, 40.0])
        return standard_bits("gaussian", lower / scales, upper / scales)

    coder = IndexedCoder(TableSet.of_density(between, 2, torch.tensor([-0.5])))
    values = np.array([0, 1, -9, 4000, -(2**40), 3, -80])
    numbers = np.array([0, 0, 0, 1, 1, 1, 1])
    each = coder.bits_of_each(values, numbers)
    assert each.sum() == pytest.approx(coder.bits(values, numbers))
    assert each[0] < 1 < each[2] and each[4] > 40
