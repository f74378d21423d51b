"""The file: chunks to bytes and back. Knows chunks, not methods; needs no torch."""

from fewbits.container.format import Header, MethodEntry, Part, TensorEntry, TensorLoss, fingerprint_of
from fewbits.container.inspect import Info, TensorInfo, info, verify
from fewbits.container.reader import Reader
from fewbits.container.writer import file_bytes, write_file

__all__ = [
    "write_file",
    "file_bytes",
    "Reader",
    "info",
    "verify",
    "Info",
    "TensorInfo",
    "Header",
    "TensorEntry",
    "MethodEntry",
    "TensorLoss",
    "Part",
    "fingerprint_of",
]
