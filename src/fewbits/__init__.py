"""fewbits: neural networks, and the data they look at, in as few bits as possible.

The public names, in reading order. Importing this is quick: each name loads what it needs when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fewbits.api import attach, compress, decompress, load, open, save
    from fewbits.archive import Archive
    from fewbits.container.inspect import Info, info, verify
    from fewbits.errors import Corrupt, FewbitsError, Incompatible, InvalidArgument, TooLarge, Truncated
    from fewbits.method import Curvature, Method, Representation, Source, TrainableMethod
    from fewbits.methods.blockwise import Blockwise, BlockwiseConfig
    from fewbits.methods.ecsq import Ecsq, EcsqConfig
    from fewbits.methods.epr import Epr, EprConfig
    from fewbits.methods.lossless import Lossless, LosslessConfig
    from fewbits.methods.miracle import Miracle, MiracleConfig
    from fewbits.methods.qswd import Qswd, QswdConfig
    from fewbits.methods.sic import Sic, SicConfig
    from fewbits.nn.covariances import input_covariances
    from fewbits.nn.curvatures import curvatures
    from fewbits.nn.inputs import Labelled
    from fewbits.nn.sensitivities import sensitivities
    from fewbits.progress import progress_bar
    from fewbits.report import Report

_HOMES = {
    # a checkpoint to a file and back
    "compress": "api",
    "decompress": "api",
    "load": "api",
    "open": "api",
    "info": "container.inspect",
    "verify": "container.inspect",
    "input_covariances": "nn.covariances",
    "curvatures": "nn.curvatures",
    "Curvature": "method",
    "sensitivities": "nn.sensitivities",
    "Labelled": "nn.inputs",
    "progress_bar": "progress",
    # a training loop
    "attach": "api",
    "save": "api",
    # methods and their settings
    "Lossless": "methods.lossless",
    "LosslessConfig": "methods.lossless",
    "Blockwise": "methods.blockwise",
    "BlockwiseConfig": "methods.blockwise",
    "Ecsq": "methods.ecsq",
    "EcsqConfig": "methods.ecsq",
    "Epr": "methods.epr",
    "EprConfig": "methods.epr",
    "Miracle": "methods.miracle",
    "MiracleConfig": "methods.miracle",
    "Qswd": "methods.qswd",
    "QswdConfig": "methods.qswd",
    "Sic": "methods.sic",
    "SicConfig": "methods.sic",
    # the contracts
    "Method": "method",
    "TrainableMethod": "method",
    "Representation": "method",
    "Source": "method",
    # what comes back
    "Report": "report",
    "Info": "container.inspect",
    "Archive": "archive",
    "FewbitsError": "errors",
    "Incompatible": "errors",
    "Corrupt": "errors",
    "Truncated": "errors",
    "TooLarge": "errors",
    "InvalidArgument": "errors",
}

__all__ = [
    "Archive",
    "Blockwise",
    "BlockwiseConfig",
    "Corrupt",
    "Curvature",
    "Ecsq",
    "EcsqConfig",
    "Epr",
    "EprConfig",
    "FewbitsError",
    "Incompatible",
    "Info",
    "InvalidArgument",
    "Labelled",
    "Lossless",
    "LosslessConfig",
    "Method",
    "Miracle",
    "MiracleConfig",
    "Qswd",
    "QswdConfig",
    "Report",
    "Representation",
    "Sic",
    "SicConfig",
    "Source",
    "TooLarge",
    "TrainableMethod",
    "Truncated",
    "attach",
    "compress",
    "curvatures",
    "decompress",
    "info",
    "input_covariances",
    "load",
    "open",
    "progress_bar",
    "save",
    "sensitivities",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"fewbits.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
