"""The errors a caller can act on; everything fewbits raises on purpose is one of these.

Each message is one sentence that names the tensor or the byte offset, never a tensor's contents.
"""


class FewbitsError(Exception):
    """Base of all errors that fewbits raises on purpose."""


class Incompatible(FewbitsError):
    """The file needs a newer fewbits, or a method that is not installed: upgrade."""


class Corrupt(FewbitsError):
    """The file is damaged, or not a fewbits file: get another copy."""


class Truncated(FewbitsError):
    """The file ends too early: feed more bytes."""


class TooLarge(FewbitsError):
    """The file declares more than the given limit: raise the limit if the file is trusted."""


class InvalidArgument(FewbitsError, ValueError):
    """The call asks for something impossible: change the call."""
