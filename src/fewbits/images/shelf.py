"""The codecs at hand, by the content of their files: an image names its codec by a hash, not by a path."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from fewbits import api
from fewbits.errors import Corrupt, FewbitsError, Incompatible, InvalidArgument
from fewbits.images.codec import Codec, CodecConfig
from fewbits.images.frozen import FrozenCodec, tensors_of
from fewbits.report import Report

FOLDERS = "FEWBITS_CODECS"  # environment variable: folders that codec files are looked for in
DIGEST_SIZE = 16  # WIRE: bytes of a codec file's SHA-256 that an image holds
_KEY = "fewbits.codec"  # of the metadata of a codec's file: its settings as JSON
_BITS = 7.0  # a weight of a codec's networks
_known: dict[bytes, FrozenCodec] = {}
_lock = Lock()


def save_codec(codec: Codec, path: str | os.PathLike[str], *, bits: float = _BITS, seed: int = 0) -> Report:
    """Write a codec's file: its networks by `ecsq`, at so many bits a weight, its integers exactly.

    Raises:
        InvalidArgument: the target is not usable.
        OSError: the system failed to write.
    """
    metadata = {_KEY: json.dumps(codec.config.to_json(), sort_keys=True)}
    return api.compress(tensors_of(codec), path, bits=bits, seed=seed, metadata=metadata)


def open_codec(path: str | os.PathLike[str]) -> FrozenCodec:
    """Read a codec's file; from then on images that name it are decoded in this process.

    Raises:
        InvalidArgument: there is no such file, or it is no codec's.
        Corrupt, Truncated, Incompatible: as the file is.
    """
    try:
        digest = hashlib.sha256(Path(path).read_bytes()).digest()[:DIGEST_SIZE]
    except OSError as error:
        raise InvalidArgument(f"{os.fspath(path)!r} cannot be read.") from error
    with _lock:
        if digest in _known:
            return _known[digest]
    with api.open(path) as archive:
        text = (archive.metadata or {}).get(_KEY)
        if text is None:
            raise InvalidArgument(f"{os.fspath(path)!r} is no codec: train one with `fewbits image train`.")
        tensors = archive.read_all()
    try:
        config = CodecConfig.from_json(json.loads(text))
    except (InvalidArgument, TypeError, ValueError) as error:
        raise Corrupt(f"{os.fspath(path)!r} has settings that no codec has.") from error
    codec = FrozenCodec(config, tensors, digest)
    with _lock:
        return _known.setdefault(digest, codec)


def find_codec(digest: bytes, folders: Sequence[str | os.PathLike[str]] = ()) -> FrozenCodec:
    """Return the codec of a hash: one that was opened before, or a file in these folders or those of FEWBITS_CODECS.

    Raises:
        Incompatible: it is not at hand; the hash is named.
    """
    named = [folder for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]
    with _lock:
        if digest in _known:
            return _known[digest]
    for folder in (*folders, *named):
        for path in sorted(Path(folder).glob("*.fewbits")):
            if _is_codec(path) and hashlib.sha256(path.read_bytes()).digest()[:DIGEST_SIZE] == digest:
                return open_codec(path)
    wanted = digest.hex()
    raise Incompatible(
        f"this image needs a codec that is not at hand: the file whose SHA-256 begins with {wanted}; "
        f"put it beside the image, into a folder that {FOLDERS} names, or name it."
    )


def _is_codec(path: Path) -> bool:
    try:
        return _KEY in (api.info(path).metadata or {})
    except (FewbitsError, OSError):  # what is not to be read is not what is looked for
        return False
