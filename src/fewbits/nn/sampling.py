"""Token ids that a language model makes itself, one after the other: text like that it was trained on.

Source: Liu et al. 2023 (LLM-QAT, arXiv:2305.17888), section 2.1; differs: all tokens after the first are drawn from the
model's own distribution, none is the most probable one.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.progress import Progress

_LENGTH = 64  # tokens of a text
_TEXTS = 16  # of a batch at most
_MOST_AT_ONCE = 8  # batches that are made together
_TRIED, _SAME = 8, 1e-3  # tokens that a model is tried on; of the greatest logit, what rounding may differ by
_HELD = 1 << 22  # logits that are made in one step, unless a batch has more


@torch.no_grad()
def sampled_tokens(
    module: nn.Module,
    vocabulary: int,
    device: torch.device,
    seed: int,
    num_texts: int,
    most_work: float,
    most_logits: int,
    progress: Progress | None,
) -> list[Tensor] | None:
    """Return texts that a language model makes, batches (16, 64) int64 of token ids; None if the module is none.

    One is what gives logits over its vocabulary for each token, from which later tokens are unknown. The first token of
    a text is any; the others are drawn from the softmax of the logits. Where an output has `past_key_values`, they are
    handed on as a keyword argument; else texts are read again for each token.

    Args:
        vocabulary: ids are 0 … vocabulary - 1.
        device: where the module reads ids.
        num_texts: a multiple of 16.
        most_work: multiplications of weights, beyond which there are fewer texts, 16 at least.
        most_logits: of a batch, which whoever reads it has several times: of a large vocabulary batches are smaller.
    """
    sampler = _Sampler(module, vocabulary, device, torch.Generator().manual_seed(seed))
    texts: list[Tensor] = []
    try:
        if not sampler.is_language_model():
            return None
    except Exception:  # whatever a stranger's module says: it is none of those that are known here
        return None
    reads = _LENGTH if sampler.is_caching else _LENGTH * (_LENGTH + 1) / 2  # tokens a text
    work = reads * sum(weight.numel() for weight in module.parameters())
    num_texts = max(1, int(min(num_texts, most_work / work)) // _TEXTS) * _TEXTS
    at_once = sampler.num_at_once()
    for start in range(0, num_texts, at_once):
        try:
            texts.append(sampler.texts(min(at_once, num_texts - start)))
        except Exception:  # for which texts may be too long
            return None
        if progress is not None:
            progress("sampling", min(start + at_once, num_texts), num_texts)
    return list(torch.cat(texts).split(max(1, min(_TEXTS, most_logits // (_LENGTH * vocabulary)))))


class _Sampler:
    """Draws tokens from a module."""

    def __init__(self, module: nn.Module, vocabulary: int, device: torch.device, generator: torch.Generator) -> None:
        self._module, self._vocabulary, self._device, self._generator = module, vocabulary, device, generator
        self.is_caching = False

    def is_language_model(self) -> bool:
        """Tell whether each token has logits, and does not change those before it; try whether there is a cache."""
        ids = self._any(2, _TRIED)
        output = self._module(ids)
        logits = self._logits(output, ids)
        if logits is None:
            return False
        other = ids.clone()
        other[:, -1] = (ids[:, -1] + 1) % self._vocabulary
        changed = self._logits(self._module(other), other)
        allowed = _SAME * float(logits.abs().amax())
        if changed is None or not _are_alike(changed[:, :-1], logits[:, :-1], allowed):
            return False
        if (cache := _cache(self._module(ids[:, :-1]))) is not None:
            last = self._logits(self._module(ids[:, -1:], past_key_values=cache), ids[:, -1:])
            self.is_caching = last is not None and _are_alike(last, logits[:, -1:], allowed)
        return True

    def num_at_once(self) -> int:
        """Return how many texts to make together."""
        logits = self._vocabulary * (1 if self.is_caching else _LENGTH)
        return _TEXTS * min(max(_HELD // (_TEXTS * logits), 1), _MOST_AT_ONCE)

    def texts(self, count: int) -> Tensor:
        """Return texts (count, 64)."""
        texts = self._any(count, 1)
        cache: Any = None
        while texts.shape[1] < _LENGTH:
            read = texts if cache is None else texts[:, -1:]
            output = self._module(read) if cache is None else self._module(read, past_key_values=cache)
            logits = self._logits(output, read)
            assert logits is not None
            cache = _cache(output) if self.is_caching else None
            shares = logits[:, -1].float().softmax(-1).cpu()
            drawn = torch.multinomial(shares, 1, generator=self._generator)
            texts = torch.cat([texts, drawn.to(self._device)], 1)
        return texts

    def _any(self, count: int, length: int) -> Tensor:
        return torch.randint(self._vocabulary, (count, length), generator=self._generator).to(self._device)

    def _logits(self, output: Any, ids: Tensor) -> Tensor | None:
        """The logits (B, T, K) of ids (B, T), if an output has such: K is the vocabulary, or close if named."""
        named: Any = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
        logits = output if named is None else named
        if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.shape[:-1] != ids.shape:
            return None
        size, most = logits.shape[-1], self._vocabulary
        # Fewer are those of a vocabulary that was padded; many fewer are classes of something else.
        return logits if size == most or (named is not None and most // 2 <= size < most) else None


def _cache(output: Any) -> Any:
    """What an output keeps of the tokens that were read, as Hugging Face's models do."""
    return output.get("past_key_values") if isinstance(output, Mapping) else getattr(output, "past_key_values", None)


def _are_alike(one: Tensor, other: Tensor, allowed: float) -> bool:
    return float((one - other).abs().amax()) <= allowed
