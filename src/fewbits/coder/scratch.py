"""Memory that is used again from part to part while a file is decoded: fresh pages take longer than what is done in
them."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import local

import numpy as np
from numpy.typing import NDArray


class Scratch:
    """An array for each thread and each use of it, until nobody holds this."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._held = local()

    @contextmanager
    def lent(self) -> Generator[None]:
        """Let `scratch_array` take its arrays from here, in this thread."""
        token = _lender.set(self)
        try:
            yield
        finally:
            _lender.reset(token)

    def array(self, size: int, use: str) -> NDArray[np.int32]:
        """Return this thread's array (N,) int32 for a use, the one that it had before if that is large enough."""
        held: NDArray[np.int32] | None = getattr(self._held, use, None)
        if held is None or held.size < size:
            held = np.empty(size, np.int32)
            setattr(self._held, use, held)
        return held[:size]


_lender: ContextVar[Scratch | None] = ContextVar("scratch", default=None)


def scratch_array(size: int, use: str = "levels") -> NDArray[np.int32]:
    """Return an array (N,) int32, of any values; where memory is lent, the thread's last one for this use is gone."""
    lender = _lender.get()
    return np.empty(size, np.int32) if lender is None else lender.array(size, use)
