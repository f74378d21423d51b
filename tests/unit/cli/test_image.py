"""`fewbits image`: a codec from a folder, a photo there and back, and the comparison."""

import json
from pathlib import Path

import numpy as np
import pytest

from fewbits import images
from fewbits.cli import image as commands
from fewbits.cli.main import main
from tests.golden.photos import SMALL, codec_path, photo

pil = pytest.importorskip("PIL.Image", reason="needs the extra `images`")


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        pil.fromarray(photo(180, 190, seed).numpy()).save(folder / f"{seed}.png")
    return folder


def test_three_commands_from_a_folder_to_a_decoded_photo(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(images.CodecConfig.__init__, "__defaults__", _defaults())
    codec, coded, back = tmp_path / "codec.fewbits", tmp_path / "x.fewbits", tmp_path / "x.png"
    assert run("image", "train", photos, "-o", codec, "--steps", 3, "--checkpoint", tmp_path / "state.pt") == 0
    assert run("image", "encode", photos / "1.png", "-o", coded, "--codec", codec, "-q", 1) == 0
    assert run("image", "encode", photos / "1.png", "-o", coded, "--codec", codec, "-q", 1, "--refine", 3) == 0
    assert run("image", "decode", coded, "-o", back) == 0
    assert np.array(pil.open(back)).shape == (180, 190, 3)
    said = capsys.readouterr().out
    assert f"{codec.stat().st_size:,} B" in said and f"{coded.stat().st_size:,} B" in said and "PSNR" in said


def _defaults() -> tuple[object, ...]:
    """Of a small codec: the default one takes minutes."""
    names = list(images.CodecConfig.__dataclass_fields__)
    return tuple(SMALL.get(name, getattr(images.CodecConfig, name)) for name in names)


def test_bench_compares_and_draws(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    few = {"JPEG": ({"subsampling": "4:2:0", "optimize": True}, (5, 30, 95)), "WEBP": ({}, (5, 90))}
    monkeypatch.setattr("fewbits.images.comparison.PEERS", few)
    codec = codec_path("hyperprior-soft")
    assert run("image", "bench", photos, "--codec", codec, "-o", page, "--json") == 0
    points = json.loads(capsys.readouterr().out)
    assert [(point["codec"], point["setting"]) for point in points] == [
        ("fewbits", 0), ("fewbits", 1), ("JPEG", 5), ("JPEG", 30), ("JPEG", 95), ("WEBP", 5), ("WEBP", 90),
    ]  # fmt: skip
    assert all(0 < point["bits_per_pixel"] < 24 and point["psnr"] > 15 for point in points)
    text = page.read_text("utf-8")
    assert text.count("<svg") == 2 and "MS-SSIM" in text and "http" not in text.replace("http://www.w3.org", "")
    assert run("image", "bench", photos, "--codec", codec, "-o", page) == 0
    assert "BD-rate" in capsys.readouterr().out
    pil.fromarray(photo(40, 50).numpy()).save(photos / "small.png")  # too small for MS-SSIM
    assert run("image", "bench", photos, "--codec", codec, "-o", page, "--json") == 0
    assert all(point["ms_ssim"] is None for point in json.loads(capsys.readouterr().out))
    assert page.read_text("utf-8").count("<svg") == 1


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["image", "train", "nowhere", "-o", "c.fewbits"], 2, "no folder"),
        (["image", "train", ".", "-o", "c.fewbits"], 2, "no image"),
        (["image", "encode", "x.png", "-o", "x.fewbits", "-c", "none.fewbits"], 2, "no file"),
        (["image", "encode", "x.png", "-o", "x.fewbits"], 2, "--codec"),
        (["image", "decode", "x.fewbits", "-o", "x.png"], 2, "x.fewbits"),
        (["image", "train", ".", "-o", "c.fewbits", "--rounding", "hard"], 2, "rounding"),
    ],
)
def test_bad_calls_end_with_a_sentence(
    words: list[str],
    code: int,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == code
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_json_has_null_for_what_is_no_finite_number() -> None:
    values = {"codec": "JPEG", "setting": 5, "psnr": float("inf"), "ms_ssim": float("nan"), "bits_per_pixel": 0.5}
    assert commands.finite(values) == values | {"psnr": None, "ms_ssim": None}


def test_importing_the_commands_needs_no_torch() -> None:
    import subprocess
    import sys

    program = f"import sys, {commands.__name__}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
