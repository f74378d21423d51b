"""The door to the compiled core, and the environment that steers it: FEWBITS_ISA and FEWBITS_THREADS.

Every function of the core has a twin written out in NumPy, which is the specification. Where `core()` is None the
twin serves: the same bytes, many times slower.
"""

import functools
import multiprocessing
import os
import re
import warnings
import zlib

from fewbits.errors import InvalidArgument

ISAS = ("numpy", "scalar", "avx2", "avx512")

_LONG = 1 << 14  # bytes from which a CRC is worth asking for the core: what only looks at a header loads none

_isa_in_use = ""  # what the compiled core was told last; "" is its best, with which it starts


# The return types of the next two are inferred: they are the module itself, typed by _core.pyi, which an annotation
# cannot say (ModuleType has none of its functions).
@functools.cache
def _compiled():
    """Import the compiled core; None where there is none, which is said once."""
    try:
        import fewbits._core as compiled
    except ImportError as error:
        if multiprocessing.parent_process() is None:  # workers leave it to the process that started them
            warnings.warn(
                f"fewbits has no compiled core here ({error}), so its NumPy coder serves: the same bytes, "
                "many times slower.",
                RuntimeWarning,
                stacklevel=3,
            )
        return None
    return compiled


def core():
    """Return the compiled core, set to the instruction set that FEWBITS_ISA names now; None where NumPy is to serve.

    Raises:
        InvalidArgument: FEWBITS_ISA names no instruction set, or one that is not to be had here.
    """
    global _isa_in_use
    isa = forced_isa()
    if isa == "numpy":
        return None
    compiled = _compiled()
    if compiled is not None and isa != _isa_in_use:
        available = compiled.available_isas()
        if isa and isa not in available:
            raise InvalidArgument(
                f"FEWBITS_ISA is {isa!r}, which this machine or this build of fewbits lacks; "
                f"it has {', '.join(available)}."
            )
        compiled.use_isa(isa)
        _isa_in_use = isa
    return compiled


def forced_isa() -> str:
    """Return the value of FEWBITS_ISA: "numpy" for the written-out coder, "" (the best there is) where it is unset.

    It is checked where there is no compiled core too, so that a typing error is found on every machine.

    Raises:
        InvalidArgument: it names no instruction set that fewbits knows.
    """
    isa = os.environ.get("FEWBITS_ISA", "")
    if isa and isa not in ISAS:
        raise InvalidArgument(f"FEWBITS_ISA is {isa!r}; it must be one of {', '.join(ISAS)}, or unset.")
    return isa


def num_threads() -> int:
    """Return how many threads the core may use: FEWBITS_THREADS, or else the processors this process may run on.

    Raises:
        InvalidArgument: FEWBITS_THREADS is not a whole number from 1 on.
    """
    text = os.environ.get("FEWBITS_THREADS", "")
    if text:
        if not re.fullmatch("0*[1-9][0-9]{0,8}", text):
            raise InvalidArgument(f"FEWBITS_THREADS is {text!r}; it must be a whole number from 1 on, or unset.")
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def crc32(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """Return zlib's CRC-32 of bytes, continued from `value`; of many bytes by the core, which is several times faster.

    Raises:
        InvalidArgument: as `core`.
    """
    compiled = core() if len(data) >= _LONG else None
    return zlib.crc32(data, value) if compiled is None else compiled.crc32(data, value)


def release_memory() -> None:
    """Give memory that is free back to the system, after much of it was used: what comes next has other sizes."""
    compiled = core()
    if compiled is not None:
        compiled.release_memory()


def check_environment() -> None:
    """Check FEWBITS_ISA and FEWBITS_THREADS before any work is done.

    Raises:
        InvalidArgument: one of them asks for what is not to be had.
    """
    core()
    num_threads()
