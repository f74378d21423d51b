"""Settings by tensor: patterns of names, as in a shell."""

import fnmatch
from collections.abc import Mapping
from typing import Any


def matching(patterns: Mapping[str, Any], name: str) -> Any:
    """Return the first entry whose pattern matches a tensor's name; None if none does."""
    return next((value for pattern, value in patterns.items() if fnmatch.fnmatchcase(name, pattern)), None)
