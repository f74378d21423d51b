"""The instruction set that the coder is told to use: the environment variable FEWBITS_ISA."""

import os

from fewbits.errors import InvalidArgument

ISAS = ("scalar", "avx2", "avx512")


def forced_isa() -> str | None:
    """Return the value of FEWBITS_ISA, None if it is unset or empty.

    The NumPy coder serves each of them with the same bytes; the value is checked all the same, so that a typing
    error is found on every machine.

    Raises:
        InvalidArgument: it names no instruction set that fewbits knows.
    """
    isa = os.environ.get("FEWBITS_ISA", "")
    if isa and isa not in ISAS:
        raise InvalidArgument(f"FEWBITS_ISA is {isa!r}; it must be one of {', '.join(ISAS)}, or unset.")
    return isa or None
