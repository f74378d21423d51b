"""Blocks of layers, computed again on the way back, so that what is in them is held of one at a time."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["block_by_block"]


@contextmanager
def block_by_block(module: nn.Module) -> Generator[None]:
    """Let each entry of a module's lists of layers keep only what it reads until gradients reach it.

    Caches of keys and values, which a second pass would fill twice, are off meanwhile. A block that does not do the
    same when it is called again makes the way back raise `torch.utils.checkpoint.CheckpointError`.
    """
    caching = list({id(each): each for each in _configs(module) if each.use_cache is True}.values())
    blocks = list(_blocks(module))
    try:
        for config in caching:
            config.use_cache = False
        for block in blocks:
            again = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
            block.__dict__["forward"] = _Again(block.__dict__.get("forward"), again)
        yield
    finally:
        for config in caching:
            config.use_cache = True
        for block in blocks:
            wrapped = block.__dict__.pop("forward", None)
            if isinstance(wrapped, _Again) and wrapped.own is not None:
                block.__dict__["forward"] = wrapped.own


class _Again:
    """A block's forward; `own` is what stood in its place in the block itself, where something did."""

    def __init__(self, own: Any, call: Any) -> None:
        self.own, self._call = own, call

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._call(*arguments, **named)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The entries of lists of two and more; not of lists within them."""
    for part in module.children():
        if isinstance(part, nn.ModuleList) and len(part) > 1:
            yield from {id(block): block for block in part}.values()
        else:
            yield from _blocks(part)


def _configs(module: nn.Module) -> Iterator[Any]:
    """What parts say of how they are to be run, as Hugging Face's do."""
    for part in module.modules():
        config = getattr(part, "config", None)
        if hasattr(config, "use_cache"):
            yield config
