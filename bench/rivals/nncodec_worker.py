"""Program run beside NNCodec, in its own Python; it uses nothing of this repository.

    nncodec_worker.py version
    nncodec_worker.py encode SOURCE.safetensors TARGET QP OPT_QP
    nncodec_worker.py decode SOURCE TARGET.safetensors

The last line it prints is JSON. NNCodec imports a model zoo that coding does not use (torchvision, opencv,
pandas and more); placeholders stand in for those packages, so that the coder itself runs unchanged.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import time
import types
from importlib.metadata import version
from pathlib import Path

UNUSED = frozenset(
    (
        *("cv2", "flwr", "h5py", "matplotlib", "pandas", "ptflops", "sentencepiece", "sklearn"),
        *("torchmetrics", "torchvision", "tqdm", "wandb"),
    )
)


class Placeholder:
    """Accepts being called, subclassed and asked for any attribute; does nothing."""

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return self

    def __mro_entries__(self, bases):
        return (object,)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Placeholder()


class PlaceholderModule(types.ModuleType):
    """A module in which every public name is a placeholder."""

    __path__ = ()

    def __getattr__(self, name):
        return getattr(Placeholder(), name)


class PlaceholderImporter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Comes first in `sys.meta_path`: the same code runs whether those packages are installed or not."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in UNUSED:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return PlaceholderModule(spec.name)

    def exec_module(self, module):
        pass


def encode(source, target, qp, opt_qp):
    """Encode a safetensors file; return the seconds that the coder took."""
    import nncodec.nn as nn
    from safetensors.numpy import load_file

    tensors = load_file(source)
    options = {"qp": int(qp), "verbose": False}
    if int(opt_qp):
        options["opt_qp"] = True
    start = time.perf_counter()
    stream = nn.encode(tensors, options)
    seconds = time.perf_counter() - start
    Path(target).write_bytes(stream)
    return seconds


def decode(source, target):
    """Decode to a safetensors file; return the seconds that the coder took."""
    import nncodec.nn as nn
    import numpy as np
    from safetensors.numpy import save_file

    # A bytearray: given bytes, NNCodec prints the whole stream and exits.
    stream = bytearray(Path(source).read_bytes())
    start = time.perf_counter()
    tensors = nn.decode(stream)
    seconds = time.perf_counter() - start
    save_file({name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}, target)
    return seconds


def main(verb, *arguments):
    sys.meta_path.insert(0, PlaceholderImporter())
    if verb == "version":
        import nncodec.nn  # noqa: F401  (must be importable, not only installed)

        answer = {name: version(name) for name in ("nncodec", "numpy", "torch")}
        answer = {
            "nncodec": answer["nncodec"],
            "nncodec's numpy": answer["numpy"],
            "nncodec's torch": answer["torch"],
        }
    else:
        answer = {"seconds": {"encode": encode, "decode": decode}[verb](*arguments)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
