"""What one call of fewbits adds to a process's memory at its peak: a module, and the program that it runs.

    peak_memory.py compress SOURCE TARGET ARGUMENTS      (ARGUMENTS: JSON of compress's keyword arguments)
    peak_memory.py load SOURCE

The program prints JSON: bytes that are resident once fewbits and torch are imported, and the peak above that.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def peak_of(verb: str, *arguments: str) -> dict[str, Any]:
    """Run the program in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    import fewbits

    source = str(Path(fewbits.__file__).parent.parent)
    known = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, known] if known else [source])}
    command = [sys.executable, str(Path(__file__).resolve()), verb, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip() or f"exit code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def available() -> str | None:
    """Return why peaks cannot be measured here, or None."""
    if Path("/proc/self/status").is_file():
        return None
    try:
        import resource  # noqa: F401
    except ImportError:
        return "this system does not tell a process its peak memory"
    return None


def main(verb: str, *arguments: str) -> None:
    """Do what the command line says and print what it took."""
    import fewbits

    after_import = _resident()
    calls: dict[str, Callable[[], Any]] = {
        "compress": lambda: fewbits.compress(arguments[0], arguments[1], **json.loads(arguments[2])),
        "load": lambda: fewbits.load(arguments[0]),
    }
    _ = fewbits.compress, fewbits.load  # `import fewbits` puts off what it needs: torch is imported here
    before, exact = mark()
    result = calls[verb]()
    print(json.dumps({"import_bytes": after_import, "torch_bytes": before, "above": peak() - before, "exact": exact}))
    del result


def mark() -> tuple[int, bool]:
    """Return the bytes to measure from, and whether the peak is counted from here on.

    Where Linux lets a process clear its peak, they are the resident ones now, without what is free: that would hide as
    much of what comes. Else they are the peak so far, and what importing needed for a moment hides as much.
    """
    from fewbits.native import release_memory

    release_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak(), False
    return _resident(), True


def _resident() -> int:
    """Return the bytes resident now, or at the peak where the system does not say."""
    return _status("VmRSS") or peak()


def peak() -> int:
    """Return the greatest number of bytes resident so far.

    By /proc where there is one: `ru_maxrss` of a process that another one started counts the memory of that one.
    """
    own = _status("VmHWM")
    if own is not None:
        return own
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


def _status(field: str) -> int | None:
    path = Path("/proc/self/status")
    if not path.is_file():
        return None
    found = [line for line in path.read_text().splitlines() if line.startswith(f"{field}:")]
    return 1024 * int(found[0].split()[1]) if found else None


if __name__ == "__main__":
    # Run as a program, this folder would come first and its `resnet.py` and so on hide packages of such names.
    sys.path.remove(str(Path(__file__).resolve().parent))
    main(*sys.argv[1:])
