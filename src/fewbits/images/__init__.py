"""Images by a learned codec: train one, write its file, code photos with it. Method: docs/methods/image.md.

>>> from fewbits import images  # doctest: +SKIP
>>> images.save_codec(images.train(photos), "photos.fewbits")  # doctest: +SKIP
>>> images.encode("beach.png", "beach.fewbits", codec="photos.fewbits", quality=3)  # doctest: +SKIP
>>> images.decode("beach.fewbits", "beach.png")  # doctest: +SKIP
"""

from fewbits.images.codec import Codec, CodecConfig
from fewbits.images.files import Coded, decode, encode, load, save
from fewbits.images.shelf import open_codec, save_codec
from fewbits.images.training import TrainingConfig, train

__all__ = [
    "train",
    "TrainingConfig",
    "Codec",
    "CodecConfig",
    "save_codec",
    "open_codec",
    "encode",
    "decode",
    "save",
    "load",
    "Coded",
]
