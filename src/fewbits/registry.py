"""Where each method id lives; importing this imports no method and no torch."""

from importlib import import_module
from typing import TYPE_CHECKING

from fewbits.errors import Incompatible

if TYPE_CHECKING:
    from fewbits.method import Method

# id -> (code in bare files, module, class). WIRE: ids and codes are never reused.
METHODS: dict[str, tuple[int, str, str]] = {
    "lossless": (1, "fewbits.methods.lossless", "Lossless"),
    "ecsq": (2, "fewbits.methods.ecsq", "Ecsq"),
    "epr": (3, "fewbits.methods.epr", "Epr"),
    "miracle": (4, "fewbits.methods.miracle", "Miracle"),
    "image": (5, "fewbits.images.method", "Image"),
    "qswd": (6, "fewbits.methods.qswd", "Qswd"),
    "sic": (7, "fewbits.methods.sic", "Sic"),
    "blockwise": (8, "fewbits.methods.blockwise", "Blockwise"),
}
IDS_BY_CODE: dict[int, str] = {code: id for id, (code, _, _) in METHODS.items()}


def method_class(id: str) -> "type[Method]":
    """Return the class of a method id.

    Raises:
        Incompatible: this version of fewbits has no such method.
    """
    if id not in METHODS:
        raise Incompatible(f"this file needs the method {id!r}, which this version of fewbits does not have.")
    _, module, name = METHODS[id]
    return getattr(import_module(module), name)
