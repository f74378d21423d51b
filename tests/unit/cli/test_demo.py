"""The demo: its data, its page, and one whole run."""

import json
import time
from pathlib import Path

import pytest
import torch

from fewbits.cli.digits import (
    DATA_FILE,
    MAX_PIXEL,
    DigitsNetwork,
    _trained,
    accuracy,
    load_digits,
    trained_network,
)


def test_data_take_less_than_15_kb() -> None:
    assert DATA_FILE.stat().st_size < 15_000


def test_halves_have_all_images_once() -> None:
    train, test = load_digits()
    assert (len(train.labels), len(test.labels)) == (1_297, 500)
    assert train.images.shape == (1_297, 64)
    assert train.images.min() >= 0 and train.images.max() == 1
    assert set(test.labels.tolist()) == set(range(10))
    pixels = torch.cat([train.images, test.images]) * MAX_PIXEL
    assert pixels.unique().tolist() == [0, 1, 2, 3, 4]


def test_a_second_training_gives_the_same_network_and_leaves_torchs_numbers_alone() -> None:
    state = torch.get_rng_state()
    first, again = trained_network().state_dict(), _trained.__wrapped__().state_dict()
    assert all(torch.equal(first[name], weight) for name, weight in again.items())
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_have_all_bits_of_float32() -> None:
    for weight in trained_network().state_dict().values():
        words = weight.flatten().view(torch.int32)
        ones = (words[:, None] >> torch.arange(18) & 1).double().mean(0)  # of each low bit of the mantissa
        assert (ones - 0.5).abs().max() < 4 * 0.5 / len(words) ** 0.5


def test_network_is_trained() -> None:
    _, test = load_digits()
    assert accuracy(trained_network(), test) == pytest.approx(0.98, abs=0.012)
    torch.manual_seed(0)
    assert accuracy(DigitsNetwork(), test) < 0.5


def test_page_shows_every_file(tmp_path: Path) -> None:
    from fewbits.cli.demo import FRAMING, DemoResult, Point
    from fewbits.cli.demo_page import best, rows, write_page

    points = [Point(method="original", setting="float32", size=128_000, bits_per_weight=32.0, accuracy=0.98)]
    for method, setting, size, right in [
        ("lossless", "every bit", 100_000, 0.98),
        ("ecsq", "4 bits", 16_000, 0.975),
        ("ecsq", "1 bit", 4_000, 0.5),
        ("epr", "λ = 1", 2_000, 0.96),
    ]:
        content = (("a.weight", size - 300.0), ("a.bias", 100.0), (FRAMING, 200.0))
        bits = size / 4_000
        points.append(
            Point(
                method=method,
                setting=setting,
                size=size,
                bits_per_weight=bits,
                accuracy=right,
                tensor_bytes=content,
            )
        )
    result = DemoResult(points=tuple(points), num_weights=32_000, num_test=500, seconds=1.0)
    assert best(result).setting == "4 bits"
    write_page(result, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for row in rows(result):
        assert row[2] in page
    assert "epr, λ = 1: 2,000 B, 96.0%" in page
    assert page.count("<svg") == 2
    assert "https:" not in page and "http:" not in page


def test_demo_runs_offline_and_the_trained_method_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fewbits.cli.main import main

    monkeypatch.chdir(tmp_path)
    start = time.process_time()
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--json"])
    assert not stop.value.code
    values = json.loads(capsys.readouterr().out)
    original, lossless, *coded = values["points"]
    assert 0.75 * original["size"] < lossless["size"] < 0.9 * original["size"]  # as of weights that training left
    assert lossless["accuracy"] == original["accuracy"]
    assert all(p["size"] == pytest.approx(sum(p["tensor_bytes"].values())) for p in [lossless, *coded])
    good = [p for p in coded if p["accuracy"] >= original["accuracy"] - 0.01]
    smallest = min(good, key=lambda p: p["size"])
    assert smallest["method"] == "epr"
    # Asked are 60 s on two idle cores; processor time says so whatever else the machine does.
    assert time.process_time() - start < 60
    assert (tmp_path / "fewbits-demo.html").stat().st_size > 10_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fewbits-demo.html"]
