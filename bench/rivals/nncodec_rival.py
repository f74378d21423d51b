"""NNCodec (ISO/IEC 15938-17), run by the Python that FEWBITS_NNCODEC_PYTHON names."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from . import Tensors

WORKER = Path(__file__).with_name("nncodec_worker.py")
VARIABLE = "FEWBITS_NNCODEC_PYTHON"


class Nncodec:
    """One quantisation parameter, with or without NNCodec's own allocation over layers (opt_qp).

    NNCodec refuses what is not float32: such tensors are left out.
    """

    lossless = False

    def __init__(self, qp: int, opt_qp: bool = False) -> None:
        self.qp, self.opt_qp = qp, opt_qp
        self.name = f"nncodec qp {qp}" + (" opt_qp" if opt_qp else "")
        self.own_seconds: float | None = None

    def available(self) -> str | None:
        if not os.environ.get(VARIABLE):
            return f"{VARIABLE} does not name a Python that has nncodec"
        try:
            self._run("version")
        except (OSError, RuntimeError) as error:
            return f"the Python of {VARIABLE} does not run nncodec ({str(error).strip().splitlines()[-1]})"
        return None

    def versions(self) -> dict[str, str]:
        return self._run("version")

    def encode(self, tensors: Tensors, path: Path) -> None:
        from safetensors.numpy import save_file

        coded = {name: tensor for name, tensor in tensors.items() if tensor.dtype == np.float32}
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source.safetensors"
            save_file(coded, source)
            answer = self._run("encode", str(source), str(path.absolute()), str(self.qp), str(int(self.opt_qp)))
        self.own_seconds = answer["seconds"]

    def decode(self, path: Path) -> dict[str, np.ndarray]:
        from safetensors.numpy import load_file

        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "decoded.safetensors"
            self.own_seconds = self._run("decode", str(path.absolute()), str(target))["seconds"]
            return load_file(target)

    def _run(self, *arguments: str) -> dict:
        """Run the worker; its last line of output is JSON."""
        python = os.environ[VARIABLE]
        if os.path.dirname(python):
            python = os.path.abspath(python)  # not resolved: a virtual environment's Python is a link
        # NNCodec leaves a copy of each stream in the current folder: let that be one that goes.
        with tempfile.TemporaryDirectory() as folder:
            command = [python, str(WORKER), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or f"exit code {done.returncode}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def variants() -> tuple[Nncodec, ...]:
    """Return points of its rate-distortion curves, with its own allocation and without."""
    own = (Nncodec(qp, opt_qp=True) for qp in (-32, -28, -24, -20))
    return (*own, *(Nncodec(qp) for qp in (-32, -28, -24, -20)))
