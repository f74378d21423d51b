"""Blocks that are computed again on the way back: the same curvatures, and the module as it was."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewbits import InvalidArgument
from fewbits.method import Curvature
from fewbits.nn.blocks import block_by_block
from fewbits.nn.curvatures import curvatures


class Block(nn.Module):
    """A residual block; `unlike` numbers the calls in which it does something else."""

    def __init__(self, unlike: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(6, 20), nn.Linear(20, 6)
        self.unlike, self.num_calls = unlike, 0

    def forward(self, x: Tensor, *, scale: float) -> Tensor:
        self.num_calls += 1
        hidden = self.wide(x)
        if self.num_calls in self.unlike:
            hidden = hidden.sinh().asinh()
        return x + scale * self.narrow(hidden.tanh())


class Net(nn.Module):
    """Blocks in a list, or one after the other; the first reads what has no gradient."""

    def __init__(self, listed: bool = True, unlike: tuple[int, ...] = ()) -> None:
        super().__init__()
        blocks = [Block(), Block(unlike), Block()]
        self.blocks = nn.ModuleList(blocks) if listed else nn.ModuleDict({str(i): b for i, b in enumerate(blocks)})
        self.config = SimpleNamespace(use_cache=True)
        self.cached: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.cached.append(self.config.use_cache)
        blocks: Any = self.blocks.values() if isinstance(self.blocks, nn.ModuleDict) else self.blocks
        for block in blocks:
            x = block(x, scale=0.5)
        return x


def nets(**options: Any) -> tuple[Net, Net]:
    torch.manual_seed(0)
    listed, plain = Net(**options), Net(listed=False)
    plain.load_state_dict(listed.state_dict())
    return listed, plain


def check_same(found: dict[str, float | Curvature], expected: dict[str, float | Curvature]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        other = found[name]
        if isinstance(value, Curvature):
            assert isinstance(other, Curvature)
            assert (value.couplings is None) == (other.couplings is None)
            for one, two in zip(value, other, strict=True):
                assert one is None or np.allclose(one, two, rtol=1e-4, atol=1e-6 * float(np.abs(one).max()))
        else:
            assert other == pytest.approx(value, rel=1e-4)


def test_curvatures_are_the_same_block_by_block() -> None:
    listed, plain = nets()
    batches = [torch.randn(30, 6), torch.randn(20, 6)]
    check_same(curvatures(listed, batches), curvatures(plain, batches))
    assert [block.num_calls for block in listed.blocks] == [4, 4, 4]  # pyright: ignore[reportGeneralTypeIssues]
    assert plain.blocks["1"].num_calls == 2  # pyright: ignore[reportIndexIssue]


def test_a_block_that_is_not_twice_alike_is_held() -> None:
    listed, plain = nets(unlike=(2,))
    batches = [torch.randn(30, 6), torch.randn(20, 6)]
    found, expected = curvatures(listed, batches), curvatures(plain, batches)
    assert [block.num_calls for block in listed.blocks] == [3, 4, 4]  # pyright: ignore[reportGeneralTypeIssues]
    for name, value in expected.items():  # of another v: what was added by the first try would double it
        other = found[name]
        if isinstance(value, Curvature):
            assert isinstance(other, Curvature)
            assert np.trace(other.inputs) == pytest.approx(np.trace(value.inputs), rel=0.4)


def test_a_later_batch_that_is_not_twice_alike_is_refused() -> None:
    listed, _ = nets(unlike=(4,))
    with pytest.raises(InvalidArgument, match="batch 2 twice alike"):
        curvatures(listed, [torch.randn(30, 6), torch.randn(20, 6)])
    assert listed.config.use_cache and "forward" not in listed.blocks[0].__dict__


def test_the_module_is_as_it_was() -> None:
    listed, _ = nets()

    def own(x: Tensor, scale: float) -> Tensor:
        return scale * x

    listed.blocks[1].forward = own
    with pytest.raises(KeyboardInterrupt), block_by_block(listed):
        assert not listed.config.use_cache
        assert listed.blocks[1](torch.ones(2, 6), scale=2.0).equal(2 * torch.ones(2, 6))
        raise KeyboardInterrupt
    assert listed.config.use_cache
    assert [block.__dict__.get("forward") for block in listed.blocks] == [None, own, None]
    curvatures(listed, [torch.randn(30, 6)])
    assert listed.cached == [False]
