"""What the kernel of a convolution covers, place by place: a convolution is a matrix product with that."""

from typing import Any

from torch import Tensor, nn


def unfolded(
    inputs: Tensor, kernel: Any, *, dilation: Any, stride: Any, padding: list[int], mode: str
) -> tuple[Tensor, list[int]]:
    """Return a column for each place, images (B, I, H, W) side by side, (I · h · w, B · places), and places a side.

    Args:
        kernel, dilation, stride: (2,) each, as `nn.Conv2d` has them.
        padding: left, right, above, below.
        mode: of padding, as `nn.Conv2d` names it.
    """
    padded = nn.functional.pad(inputs, padding, mode="constant" if mode == "zeros" else mode)
    sides = [
        (size - d * (k - 1) - 1) // s + 1
        for size, k, d, s in zip(padded.shape[2:], kernel, dilation, stride, strict=True)
    ]
    columns = nn.functional.unfold(padded, kernel, dilation, 0, stride)
    return columns.movedim(0, 1).flatten(1), sides
