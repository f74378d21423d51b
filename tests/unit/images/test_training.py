"""Training a codec: runs that resume, what they learn, and what is refused."""

from pathlib import Path

import pytest
import torch

from fewbits import images
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.images.training import Crops
from tests.golden.photos import SMALL, photo

PHOTOS = [photo(48, 64, seed).movedim(-1, 0).contiguous() for seed in range(4)]
CONFIG = images.CodecConfig(rounding="soft", **SMALL)
SHORT = images.TrainingConfig(steps=6, batch=2, side=64, every=2)


def states_equal(one: images.Codec, other: images.Codec) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_run_that_resumes_is_the_run_that_never_stopped(tmp_path: Path) -> None:
    whole = images.train(PHOTOS, CONFIG, SHORT)
    path, steps = tmp_path / "state.pt", []

    def stop(what: str, done: int, total: int) -> None:
        steps.append(done)
        if len(steps) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images.train(PHOTOS, CONFIG, SHORT, checkpoint=path, progress=stop)
    torch.rand(7)  # whatever else draws
    resumed = images.train(PHOTOS, CONFIG, SHORT, checkpoint=path, progress=stop)
    assert steps == [1, 2, 3, 4, 5, 5, 6]
    assert states_equal(resumed, whole)
    assert not states_equal(whole, images.train(PHOTOS, CONFIG, SHORT._replace(seed=1)))


@pytest.mark.parametrize("rounding", ["noise", "straight_through", "universal", "soft"])
@pytest.mark.parametrize("entropy_model", ["hyperprior", "factorized"])
def test_the_loss_falls_and_every_parameter_learns(rounding: str, entropy_model: str) -> None:
    config = images.CodecConfig(entropy_model, rounding, **SMALL | {"trades": (0.01,)})
    torch.manual_seed(0)
    before = images.train(PHOTOS, config, SHORT._replace(steps=1))
    after = images.train(PHOTOS, config, SHORT._replace(steps=80, learning_rate=3e-3))
    pixels = torch.stack([photo(64, 64, 50 + seed) for seed in range(3)]).movedim(-1, 1).float()

    def loss(codec: images.Codec) -> float:
        torch.manual_seed(1)
        with torch.no_grad():
            draw = codec(pixels, 0)
        return float(draw.bits.mean() / 4096 + 0.01 * (draw.pixels - pixels).square().mean())

    assert loss(after) < 0.9 * loss(before)
    for (name, first), second in zip(before.named_parameters(), after.parameters(), strict=True):
        assert not torch.equal(first, second), name


def test_crops_are_joined_where_images_are_small() -> None:
    generator = torch.Generator().manual_seed(0)
    crops = Crops(PHOTOS, 128)
    assert crops.crop == 32
    assert crops.draw(3, generator).shape == (3, 3, 128, 128)
    # Every crop is of some image: its values are among theirs.
    marked = [torch.full((3, 40, 50), value, dtype=torch.uint8) for value in (10, 200)]
    assert set(Crops(marked, 64).draw(5, generator).unique().tolist()) == {10.0, 200.0}


@pytest.mark.parametrize("photos", [[], [torch.zeros(3, 31, 500, dtype=torch.uint8)]])
def test_no_images_or_too_small_ones_are_refused(photos: list[torch.Tensor]) -> None:
    with pytest.raises(InvalidArgument, match="train on"):
        images.train(photos, CONFIG, SHORT)


def test_checkpoints_of_other_runs_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    images.train(PHOTOS, CONFIG, SHORT, checkpoint=path)
    with pytest.raises(InvalidArgument, match="other settings"):
        images.train(PHOTOS, CONFIG, SHORT._replace(steps=9), checkpoint=path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(Corrupt, match="checkpoint"):
        images.train(PHOTOS, CONFIG, SHORT, checkpoint=path)
    assert path.read_bytes() == data[: len(data) // 2]


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    with pytest.raises(InvalidArgument, match="no finite number"):
        images.train(PHOTOS, CONFIG, SHORT._replace(steps=300, learning_rate=1e9))


@pytest.mark.parametrize(
    "setting",
    [
        {"entropy_model": "other"},
        {"rounding": "hard"},
        {"trades": ()},
        {"trades": (0.1, 0.01)},
        {"trades": (-1.0, 1.0)},
        {"trades": (float("nan"),)},
        {"widths": (0,)},
        {"latents": 0},
        {"latents": 5000},
        {"widths": (8,) * 7},
        {"family": "cauchy"},
        {"level_bits": 9},
        {"least_scale": 0.01},
        {"least_scale": float("nan")},
        {"sharpness": 0.5},
    ],
)
def test_settings_that_mean_nothing_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        images.CodecConfig(**setting)


def test_the_least_scale_suits_the_rounding_unless_it_is_said() -> None:
    found = [
        images.CodecConfig(rounding=rounding).least_scale for rounding in ("soft", "universal", "straight_through")
    ]
    assert found == [0.1, 0.02, 0.02]
    assert images.CodecConfig(rounding="soft", least_scale=0.02).least_scale == 0.02


def test_settings_go_through_json() -> None:
    import json

    for config in (CONFIG, images.CodecConfig()):
        assert images.CodecConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
