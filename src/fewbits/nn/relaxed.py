"""One training step's view of latents: relaxed values and bits, in one pass where the compiled core can.

The simple path is `LatentTensor.relaxed`. The fused one gives the same values, and bits that differ by how they are
summed; it is for straight-through rounding and the adaptive rate on a CPU, where dozens of small operations would take
longer than a small network.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewbits.models.adaptive_counts import AdaptiveCounts
from fewbits.native import core
from fewbits.nn.latent_rounding import LatentRounding
from fewbits.nn.latent_tensor import LatentTensor, step_of_log


def relaxed(latents: Sequence[LatentTensor], rounding: LatentRounding) -> tuple[list[Tensor], Tensor]:
    """Return each tensor's values in training, in its shape and dtype, and the bits () float32 of all latents.

    Args:
        latents: at least one, not committed.
    """
    is_plain = rounding.kind == "straight_through" and not torch.compiler.is_compiling()
    if not is_plain or core() is None or not all(map(_is_fusable, latents)):
        draws = [one.relaxed(rounding) for one in latents]
        device = draws[0][1].device
        return [values for values, _ in draws], torch.stack([bits.to(device) for _, bits in draws]).sum()
    # All steps at once, and limits as plain numbers: each small operation on a tensor takes microseconds.
    scalars = [one for one in latents if one.is_scalar]
    scales = iter(step_of_log(torch.stack([one.log_step for one in scalars])) if scalars else ())
    steps = [next(scales) if one.is_scalar else one.step() for one in latents]
    one_each = torch.ones(())
    shown = torch.stack([step if one.is_scalar else one_each for one, step in zip(latents, steps, strict=True)])
    limits = [
        one.scalar_limit(step) if one.is_scalar else float(one.limit(steps[i]))
        for i, (one, step) in enumerate(zip(latents, shown.tolist(), strict=True))
    ]
    densities = [one.density for one in latents]
    *values, bits = _Relaxed.apply(densities, limits, shown, *(one.latents for one in latents))
    return [
        (each if one.is_scalar else one.synthesised(each, step)).to(one.dtype)
        for one, each, step in zip(latents, values, steps, strict=True)
    ], bits


def _is_fusable(one: LatentTensor) -> bool:
    held = one.latents
    plain = held.device.type == "cpu" and held.dtype == torch.float32 and held.is_contiguous()
    return plain and type(one.density) is AdaptiveCounts


class _Relaxed(torch.autograd.Function):
    """Levels × scale of several latents, and all their bits; gradients pass the rounding as if it were not there."""

    @staticmethod
    def forward(
        ctx: Any, densities: Sequence[AdaptiveCounts], limits: Sequence[float], scales: Tensor, *latents: Tensor
    ) -> tuple[Tensor, ...]:
        native, num_threads = core(), torch.get_num_threads()
        assert native is not None
        ctx.scales = scales.tolist()
        bits = 0.0
        values, slopes = [torch.empty_like(one) for one in latents], [torch.empty_like(one) for one in latents]
        further = torch.stack([density.further for density in densities]).tolist()
        zeros = torch.stack([density.total_zero for density in densities])
        for i, one in enumerate(latents):
            first = densities[i].first.numpy()
            bits += native.relax(
                one.numpy(),
                first,
                further[i],
                ctx.scales[i],
                limits[i],
                num_threads,
                values[i].numpy(),
                slopes[i].numpy(),
            )
        ctx.save_for_backward(*values, *slopes)
        return (*values, zeros.sum() + bits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        native, num_threads = core(), torch.get_num_threads()
        assert native is not None
        count = len(ctx.scales)
        values, slopes = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        bits_gradient = float(grad_outputs[count])
        gradients = [torch.empty_like(one) for one in values]
        scale_gradients = [
            native.relax_backward(
                values[i].numpy(),
                grad_outputs[i].contiguous().numpy(),
                slopes[i].numpy(),
                scale,
                bits_gradient,
                num_threads,
                gradients[i].numpy(),
            )
            / scale
            for i, scale in enumerate(ctx.scales)
        ]
        return None, None, torch.tensor(scale_gradients), *gradients
