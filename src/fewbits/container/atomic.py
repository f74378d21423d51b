"""Write a file whole or not at all: beside the target under another name, synced, renamed."""

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fewbits.errors import InvalidArgument

# What the caller's path is to blame for; anything else (a full disk, a failing one) passes through as it is.
_PATH_ERRORS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}


def check_target(path: str | os.PathLike[str]) -> Path:
    """Return the real path that writing to `path` will replace; symbolic links are followed.

    Call it before long work: it finds what can be found wrong without writing.

    Raises:
        InvalidArgument: the folder does not exist or cannot be written to, or `path` is no regular file.
    """
    try:
        target = Path(os.path.realpath(path))
        found = os.stat(target) if os.path.lexists(target) else None
        folder_found = os.stat(target.parent)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"cannot write {str(path)!r}: {_reason(error)}.") from error
    if found is not None and not stat.S_ISREG(found.st_mode):
        what = "it is a folder" if stat.S_ISDIR(found.st_mode) else "it is not a regular file"
        raise InvalidArgument(f"cannot write {str(path)!r}: {what}.")
    if not stat.S_ISDIR(folder_found.st_mode):
        raise InvalidArgument(f"cannot write {str(path)!r}: {str(target.parent)!r} is not a folder.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InvalidArgument(f"cannot write {str(path)!r}: the folder cannot be written to.")
    return target


def write_atomic(path: str | os.PathLike[str], pieces: Iterable[bytes]) -> int:
    """Write the pieces one after the other to `path`; return the file's size in bytes.

    On any failure the old file is as it was and nothing is left beside it. An existing file's permissions
    are kept. Of two writers at the same moment each writes a complete file, and the last to finish wins.

    Raises:
        InvalidArgument: the path cannot be written to.
        OSError: the system failed to write, e.g. the disk is full.
    """
    target = check_target(path)
    temporary = target.parent / f".{os.getpid()}-{os.urandom(8).hex()}.fewbits.tmp"
    try:
        size = _write_new(temporary, pieces)
        with suppress(FileNotFoundError):
            os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno in _PATH_ERRORS:
            raise InvalidArgument(f"cannot write {str(path)!r}: {_reason(error)}.") from error
        raise
    _sync_folder(target.parent)
    return size


def _write_new(path: Path, pieces: Iterable[bytes]) -> int:
    size = 0
    with open(path, "xb") as file:
        for piece in pieces:
            file.write(piece)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return size


def _sync_folder(folder: Path) -> None:
    """Make the renaming survive a power cut, where the system lets a folder be synced."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: OSError | ValueError) -> str:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return (reason or "the system refuses").lower()
