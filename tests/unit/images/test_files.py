"""Images to files and back: any size and kind, any codec, and what is refused."""

import hashlib
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import fewbits
from fewbits import images
from fewbits.chunk import TensorSpec
from fewbits.errors import Corrupt, Incompatible, InvalidArgument, TooLarge, Truncated
from fewbits.images import shelf
from fewbits.images.measures import psnr
from fewbits.images.method import bands
from tests.golden.photos import CONFIGS, codec_path, digest_of, photo

pil = pytest.importorskip("PIL.Image", reason="needs the extra `images`")
CODEC = codec_path("hyperprior-soft")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No codec is known, and no folder of them."""
    monkeypatch.delenv("FEWBITS_CODECS")
    monkeypatch.setattr(shelf, "_known", {})


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shape", [(64, 64), (1, 1), (2, 3), (1, 200), (130, 65)])
def test_a_photo_comes_back_alike_and_costs_what_is_said(name: str, shape: tuple[int, int], tmp_path: Path) -> None:
    image, path = photo(*shape, seed=3), tmp_path / "x.fewbits"
    coded = images.save(image, path, codec=codec_path(name), quality=0, seed=9)
    assert coded.size == path.stat().st_size
    assert coded.bits_per_pixel == 8 * coded.size / (shape[0] * shape[1])
    assert abs(coded.actual_bits - coded.estimated_bits) <= 0.01 * coded.actual_bits + 128
    found = images.load(path)
    assert (found.shape, found.dtype) == (image.shape, torch.uint8)
    assert psnr(found, image) == pytest.approx(coded.psnr)
    assert coded.psnr > 15
    assert fewbits.load(path)["image"].equal(found)
    fewbits.verify(path)


def test_more_quality_costs_more_and_loses_less(tmp_path: Path) -> None:
    low, high = (images.save(photo(96, 96), tmp_path / "x.fewbits", codec=CODEC, quality=q) for q in (0, 1))
    assert low.size < high.size
    assert low.psnr < high.psnr


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_grey_and_alpha(channels: int, tmp_path: Path) -> None:
    image = torch.cat([photo(40, 50, 2), photo(40, 50, 5)[..., :1]], -1)
    image = image[..., [1, 3]] if channels == 2 else image[..., :channels] if channels != 1 else image[..., 1:2]
    images.save(image, tmp_path / "x.fewbits", codec=CODEC, quality=1)
    found = images.load(tmp_path / "x.fewbits")
    assert found.shape == image.shape
    if channels in (2, 4):
        assert found[..., -1].equal(image[..., -1])
    colours = channels - (channels in (2, 4))
    assert psnr(found[..., :colours], image[..., :colours]) > 15
    flat = image[..., 0]
    images.save(flat, tmp_path / "y.fewbits", codec=CODEC)
    assert images.load(tmp_path / "y.fewbits").shape == (40, 50, 1)


def test_two_seeds_give_two_files_and_both_decode(tmp_path: Path) -> None:
    image, found = photo(70, 70), []
    for seed in (1, 2):
        images.save(image, tmp_path / f"{seed}.fewbits", codec=CODEC, quality=1, seed=seed)
        found.append(images.load(tmp_path / f"{seed}.fewbits"))
    assert (tmp_path / "1.fewbits").read_bytes() != (tmp_path / "2.fewbits").read_bytes()
    assert not found[0].equal(found[1])
    assert all(psnr(each, image) > 20 for each in found)


def test_a_file_holds_no_time_and_no_path(tmp_path: Path) -> None:
    for name in ("a", "b"):
        images.save(photo(50, 50), tmp_path / f"{name}.fewbits", codec=CODEC)
    assert (tmp_path / "a.fewbits").read_bytes() == (tmp_path / "b.fewbits").read_bytes()


def test_it_is_decoded_alike_in_other_hands(isa: str, tmp_path: Path) -> None:
    """By any coder and any number of threads: pixels are equal (golden files hold them for all machines)."""
    images.save(photo(90, 80, 8), tmp_path / "x.fewbits", codec=CODEC, quality=1)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(images.load(tmp_path / "x.fewbits"))
    finally:
        torch.set_num_threads(threads)
    digest = hashlib.sha256(found[0].numpy().tobytes()).hexdigest()
    assert found[1].equal(found[0])
    assert digest == "81c8b61a63dd989f1c62d048a65023b946aee3737f6d4d632ee327402afcfeeb"


def test_large_images_go_band_by_band(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(height: int, width: int) -> list[int]:
        return [last - first for first, last in bands(TensorSpec("image", "uint8", (height, width, 3)), 64)]

    assert rows(512, 768) == [512]
    assert set(rows(30_000, 30_000)) == {128, 30_000 % 128}
    assert rows(30_000, 1) == [30_000]
    assert rows(200_000, 1) == [65_536, 65_536, 65_536, 3392]  # of 64 columns, when padded
    assert rows(70, 1 << 17) == [42, 28]
    assert rows(30, 1 << 18) == [21, 9]
    monkeypatch.setattr("fewbits.plan.TILE", 4096)
    image = photo(200, 60, 1)
    images.save(image, tmp_path / "x.fewbits", codec=CODEC, quality=1)
    info = fewbits.info(tmp_path / "x.fewbits")
    assert info.num_parts == 4
    assert psnr(images.load(tmp_path / "x.fewbits"), image) > 20


@pytest.mark.slow
def test_sides_of_30000_pixels_take_bounded_memory(tmp_path: Path) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    image = photo(128, 300).repeat(1, 100, 1)
    for shaped in (image, image.transpose(0, 1).contiguous()):
        images.save(shaped, tmp_path / "x.fewbits", codec=CODEC)
        assert psnr(images.load(tmp_path / "x.fewbits"), shaped) > 15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3_000_000  # kB


BAD: dict[str, tuple[Tensor, str]] = {
    "no rows": (torch.zeros(0, 5, 3, dtype=torch.uint8), "at least one pixel"),
    "no columns": (torch.zeros(5, 0, 3, dtype=torch.uint8), "at least one pixel"),
    "16 bit": (torch.zeros(5, 5, 3, dtype=torch.int16), "8 bit"),
    "float": (torch.zeros(5, 5, 3), "8 bit"),
    "NaN": (torch.full((5, 5, 3), math.nan), "not all its values are finite"),
    "five channels": (torch.zeros(5, 5, 5, dtype=torch.uint8), "1 to 4 channels"),
    "a batch": (torch.zeros(1, 5, 5, 3, dtype=torch.uint8), "1 to 4 channels"),
    "rows too long": (torch.zeros(1, (1 << 20) + 1, 1, dtype=torch.uint8), "too wide"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_image_is_refused_and_nothing_written(what: str, tmp_path: Path) -> None:
    image, sentence = BAD[what]
    with pytest.raises(InvalidArgument, match=sentence):
        images.save(image, tmp_path / "x.fewbits", codec=CODEC)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quality", [-1, 2, 300, True, 1.0])
def test_a_quality_that_is_not_there_is_refused(quality: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="qualit"):
        images.save(photo(9, 9), tmp_path / "x.fewbits", codec=CODEC, quality=quality)
    assert not list(tmp_path.iterdir())


def test_palettes_greys_and_transparency_of_files(tmp_path: Path) -> None:
    picture = pil.fromarray(photo(40, 60).numpy())
    kinds = {"P": 3, "L": 1, "1": 1, "RGB": 3, "RGBA": 4, "LA": 2, "CMYK": 3}
    for mode, channels in kinds.items():
        path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
        picture.convert(mode).save(path)
        images.encode(path, tmp_path / "x.fewbits", codec=CODEC)
        assert images.load(tmp_path / "x.fewbits").shape == (40, 60, channels)
    with_hole = picture.convert("P")
    with_hole.info["transparency"] = 3
    with_hole.save(tmp_path / "hole.png")
    images.encode(tmp_path / "hole.png", tmp_path / "x.fewbits", codec=CODEC)
    alpha = np.array(pil.open(tmp_path / "hole.png").convert("RGBA"))[..., 3]
    assert np.array_equal(images.load(tmp_path / "x.fewbits")[..., 3].numpy(), alpha)


def test_image_files_that_are_refused(tmp_path: Path) -> None:
    pil.fromarray(np.zeros((5, 5), np.uint16)).save(tmp_path / "deep.png")
    pil.fromarray(np.zeros((5, 5), np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "none.png").write_bytes(b"not an image")
    pil.fromarray(photo(40, 60).numpy()).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    for name, kind, sentence in (
        ("deep.png", InvalidArgument, "more than 8 bits"),
        ("float.tif", InvalidArgument, "more than 8 bits"),
        ("none.png", InvalidArgument, "no image"),
        ("missing.png", InvalidArgument, "no file"),
        ("cut.png", Corrupt, "cannot be decoded"),
    ):
        with pytest.raises(kind, match=sentence):
            images.encode(tmp_path / name, tmp_path / "x.fewbits", codec=CODEC)
        assert not (tmp_path / "x.fewbits").exists()


def test_pillows_limit_is_put_back_and_does_not_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pil, "MAX_IMAGE_PIXELS", 100)
    pil.fromarray(photo(40, 60).numpy()).save(tmp_path / "x.png")
    images.encode(tmp_path / "x.png", tmp_path / "x.fewbits", codec=CODEC)
    assert pil.MAX_IMAGE_PIXELS == 100
    with pytest.raises(InvalidArgument):
        images.encode(tmp_path / "x.fewbits", tmp_path / "y.fewbits", codec=CODEC)
    assert pil.MAX_IMAGE_PIXELS == 100


def test_decoding_to_files(tmp_path: Path) -> None:
    images.save(photo(30, 40), tmp_path / "x.fewbits", codec=CODEC)
    images.decode(tmp_path / "x.fewbits", tmp_path / "x.png")
    assert np.array_equal(np.array(pil.open(tmp_path / "x.png")), images.load(tmp_path / "x.fewbits").numpy())
    images.decode(tmp_path / "x.fewbits", tmp_path / "x.jpg")
    for name in ("x", "x.abc"):
        with pytest.raises(InvalidArgument, match="cannot be written"):
            images.decode(tmp_path / "x.fewbits", tmp_path / name)
        assert not (tmp_path / name).exists()
    fewbits.compress({"weight": torch.ones(3)}, tmp_path / "w.fewbits", lossless=True)
    with pytest.raises(InvalidArgument, match="holds no image"):
        images.decode(tmp_path / "w.fewbits", tmp_path / "y.png")
    with pytest.raises(TooLarge):
        images.load(tmp_path / "x.fewbits", limit=100)


def test_a_codec_that_is_not_at_hand_is_named(nowhere: None, tmp_path: Path) -> None:
    (tmp_path / "codecs").mkdir()
    (tmp_path / "photos").mkdir()
    codec, path = tmp_path / "codecs" / "any name.fewbits", tmp_path / "photos" / "x.fewbits"
    shutil.copy(CODEC, codec)
    images.save(photo(30, 40), path, codec=codec)
    shelf._known.clear()
    for load in (images.load, fewbits.load):
        with pytest.raises(Incompatible, match=digest_of("hyperprior-soft")):
            load(path)
    with pytest.raises(Incompatible, match=digest_of("hyperprior-soft")):
        images.load(path, codec=codec_path("hyperprior-noise"))
    fewbits.verify(path)  # and its own record is still to be had
    assert fewbits.info(path).methods[0].config["codec"] == digest_of("hyperprior-soft")
    expected = images.load(path, codec=codec)
    shelf._known.clear()
    shutil.copy(codec, path.parent / "beside.fewbits")
    (path.parent / "damaged.fewbits").write_bytes(codec.read_bytes()[:-9])
    assert images.load(path).equal(expected)


def test_codecs_in_folders_of_the_environment(nowhere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images.save(photo(30, 40), tmp_path / "x.fewbits", codec=CODEC)
    shelf._known.clear()
    monkeypatch.setenv("FEWBITS_CODECS", f"{tmp_path / 'nowhere'}:{CODEC.parent}")
    assert fewbits.load(tmp_path / "x.fewbits")["image"].shape == (30, 40, 3)


def test_every_damaged_bit_and_every_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.fewbits"
    images.save(photo(20, 30), path, codec=CODEC)
    data = path.read_bytes()
    for position in range(0, 8 * len(data), 7):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises((Corrupt, Truncated, Incompatible, TooLarge)):
            images.load(path)
    for size in range(0, len(data), 11):
        path.write_bytes(data[:size])
        with pytest.raises((Corrupt, Truncated)):
            images.load(path)


def test_codec_files_that_are_none(tmp_path: Path) -> None:
    for name in ("missing.fewbits", "a folder"):
        (tmp_path / "a folder").mkdir(exist_ok=True)
        with pytest.raises(InvalidArgument, match="cannot be read"):
            images.open_codec(tmp_path / name)
    fewbits.compress({"weight": torch.ones(3)}, tmp_path / "w.fewbits", lossless=True)
    with pytest.raises(InvalidArgument, match="no codec"):
        images.open_codec(tmp_path / "w.fewbits")
    tensors = fewbits.load(CODEC)
    with fewbits.open(CODEC) as archive:
        metadata = archive.metadata
    assert metadata is not None
    for name, broken in {
        "gains": tensors["gains"] * 0,
        "offsets": tensors["offsets"] + 2000,
        "scale_offsets": tensors["scale_offsets"][:, 1:],
        "synthesis.0.weight": tensors["synthesis.0.weight"][1:],
        "tables.low": tensors["tables.low"][1:],
        "hyper_gains": tensors["hyper_gains"].long(),
        "synthesis.0.bias": tensors["synthesis.0.bias"].double(),
        "tables.shift": tensors["tables.shift"] + 33,
    }.items():
        path = tmp_path / f"{name}.fewbits"
        fewbits.compress(tensors | {name: broken}, path, lossless=True, metadata=metadata)
        with pytest.raises(Corrupt):
            images.open_codec(path)
    for text in ("{", "[]", '{"no_such_setting": 1}', '{"trades": []}', '{"sharpness": "x"}', '{"level_bits": 3.0}'):
        path = tmp_path / "settings.fewbits"
        fewbits.compress(tensors, path, lossless=True, metadata={"fewbits.codec": text})
        with pytest.raises(Corrupt, match="settings"):
            images.open_codec(path)
