"""Image payloads whose checksums are right and whose contents are not: latents beyond bounds, sizes that lie."""

import tracemalloc

import numpy as np
import pytest
import torch

from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.leb128 import write_uint
from fewbits.encode import decode
from fewbits.errors import Corrupt, Incompatible, TooLarge
from fewbits.images import open_codec
from fewbits.images.frozen import FrozenCodec
from tests.golden.photos import codec_path, digest_of, photo

NAMES = ("hyperprior-soft", "factorized-universal")


def part(
    name: str, body: bytes, *, shape: tuple[int, ...] = (70, 90, 3), dtype: str = "uint8", quality: int = 0
) -> Chunk:
    spec = TensorSpec("photo", dtype, shape)
    return Chunk("image", 1, {}, 0, (spec,), bytes.fromhex(digest_of(name)) + bytes([quality]) + body)


def body_of(codec: FrozenCodec) -> bytes:
    return codec.encode(photo(70, 90), 0, 0, 0).data


@pytest.mark.parametrize("value", [1 << 15, -(1 << 15), (1 << 15) + 1, -(1 << 15) - 1, 1 << 62, -(1 << 63)])
@pytest.mark.parametrize("name", NAMES)
def test_latents_are_bounded(name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = open_codec(codec_path(name))
    encode = codec._coder.encode

    def bent(values: np.ndarray, numbers: np.ndarray) -> bytes:
        changed = values.copy()
        if not codec.has_hyper or numbers.max() >= codec._first_scale:  # of latents, not of hyper-latents
            changed[len(values) // 2] = value
        return encode(changed, numbers)

    monkeypatch.setattr(codec._coder, "encode", bent)
    chunk = part(name, body_of(codec))
    if abs(value) <= 1 << 15:
        assert decode([chunk])["photo"].dtype == torch.uint8
    else:
        with pytest.raises(Corrupt, match="beyond all bounds"):
            decode([chunk])


@pytest.mark.parametrize("name", NAMES)
def test_bytes_cut_off_and_bytes_too_many_are_corrupt(name: str) -> None:
    body = body_of(open_codec(codec_path(name)))
    for changed in (b"", body[:1], body[: len(body) // 2], body[:-1], body + b"\0"):
        with pytest.raises(Corrupt):
            decode([part(name, changed)])


def test_hyper_latents_of_another_size_are_corrupt() -> None:
    for size in (0, 5, 1 << 40, (1 << 64) - 1):
        with pytest.raises(Corrupt):
            decode([part("hyperprior-soft", write_uint(size) + bytes(40))])


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3), (4, 4), (4, 4, 2), (4, 4, 4), (4, 4, 3, 1), (48,), ()])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_tensors_that_are_no_image_are_corrupt(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(Corrupt, match="photo"):
        decode([part("hyperprior-soft", b"", shape=shape, dtype=dtype)])


def test_tiles_of_broken_rows_are_corrupt() -> None:
    chunk = part("hyperprior-soft", b"", shape=(64, 10, 3))
    for span in ((0, 31), (15, 45), (1, 1920)):
        with pytest.raises(Corrupt, match="broken rows"):
            decode([chunk._replace(span=span)])


def test_qualities_and_codecs_that_are_not_there() -> None:
    with pytest.raises(Corrupt, match="quality 2"):
        decode([part("hyperprior-soft", b"", quality=2)])
    chunk = part("hyperprior-soft", b"")
    with pytest.raises(Incompatible, match="00" * 16):
        decode([chunk._replace(payload=bytes(16) + chunk.payload[16:])])
    with pytest.raises(Corrupt, match="too short"):
        decode([chunk._replace(payload=chunk.payload[:16])])


@pytest.mark.parametrize("shape", [(1 << 24, 1, 1), (1, 1 << 24, 1), (1 << 20, 1, 3)])
def test_narrow_images_that_padding_makes_huge_are_too_large(shape: tuple[int, ...]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="whole steps"):
            decode([part("hyperprior-soft", b"", shape=shape)])
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_a_part_of_many_pixels_and_no_bytes_is_refused_before_it_is_computed() -> None:
    lying = part("hyperprior-soft", write_uint(3) + bytes(6), shape=(2048, 2048, 3))
    with pytest.raises(Corrupt):
        decode([lying])
