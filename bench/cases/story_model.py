"""The language model stories260k, its tokens, and its perplexity on the first windows of TinyStories."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .comparison import Tensors
from .inputs import data_file, data_loaders
from .row import Measured

WINDOW, NUM_WINDOWS = 900, 100  # characters of whole lines, at most; windows that are read
NUM_CALIBRATION, NUM_TRAINING = 256, 1072  # further windows, to look at, or to train on
TRAINING_BATCHES = ((12, 128), (6, 256))  # windows and tokens, in turns
_HEADS, _KEY_HEADS, _HEAD_WIDTH = 8, 4, 8
_BASE, _EPSILON = 10_000.0, 1e-5
_START = 1  # the token before every text


def story_module(tensors: Tensors) -> Any:
    """Return the network, which takes token ids (B, T) int64 and gives logits (B, T, 512) float32."""
    import torch
    from torch import nn

    class Norm(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + _EPSILON) * self.weight

    class Attention(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.wq, self.wo = (nn.Linear(width, width, bias=False) for _ in range(2))
            self.wk, self.wv = (nn.Linear(width, _KEY_HEADS * _HEAD_WIDTH, bias=False) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch, length, _ = x.shape
            q = _rotated(self.wq(x).view(batch, length, _HEADS, _HEAD_WIDTH)).transpose(1, 2)
            k = _rotated(self.wk(x).view(batch, length, _KEY_HEADS, _HEAD_WIDTH)).transpose(1, 2)
            v = self.wv(x).view(batch, length, _KEY_HEADS, _HEAD_WIDTH).transpose(1, 2)
            k, v = (each.repeat_interleave(_HEADS // _KEY_HEADS, 1) for each in (k, v))
            read = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.wo(read.transpose(1, 2).reshape(batch, length, -1))

    class FeedForward(nn.Module):
        def __init__(self, width: int, hidden: int) -> None:
            super().__init__()
            self.w1, self.w3 = (nn.Linear(width, hidden, bias=False) for _ in range(2))
            self.w2 = nn.Linear(hidden, width, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.w2(nn.functional.silu(self.w1(x)) * self.w3(x))

    class Block(nn.Module):
        def __init__(self, width: int, hidden: int) -> None:
            super().__init__()
            self.attention, self.feed_forward = Attention(width), FeedForward(width, hidden)
            self.attention_norm, self.ffn_norm = Norm(width), Norm(width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.attention(self.attention_norm(x))
            return x + self.feed_forward(self.ffn_norm(x))

    class Model(nn.Module):
        def __init__(self, words: int, width: int, hidden: int, layers: int) -> None:
            super().__init__()
            self.tok_embeddings = nn.Embedding(words, width)
            self.layers = nn.ModuleList(Block(width, hidden) for _ in range(layers))
            self.norm = Norm(width)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.tok_embeddings(tokens)
            for layer in self.layers:
                x = layer(x)
            return self.norm(x) @ self.tok_embeddings.weight.T

    def _rotated(x: torch.Tensor) -> torch.Tensor:
        """Turn pairs of neighbours by their position's angles."""
        frequencies = _BASE ** (-torch.arange(0, _HEAD_WIDTH, 2) / _HEAD_WIDTH)
        angles = torch.arange(x.shape[1])[:, None] * frequencies
        turned = (
            torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
            * torch.polar(torch.ones_like(angles), angles)[:, None]
        )
        return torch.view_as_real(turned).flatten(-2)

    words, width = tensors["tok_embeddings.weight"].shape
    hidden = tensors["layers.0.feed_forward.w1.weight"].shape[0]
    layers = sum(name.endswith("attention_norm.weight") for name in tensors)
    module = Model(words, width, hidden, layers)
    module.load_state_dict({name: torch.tensor(tensor) for name, tensor in tensors.items()})
    return module.eval()


class Stories:
    """Windows of text as tokens, and what a network makes of them."""

    def __init__(self) -> None:
        vocabulary = data_loaders().tok512(data_file("models/stories260k-tok512.bin"))
        text = data_file("text/tinystories-train-head.txt").read_text(encoding="utf-8").replace("\n\n", "\n")
        windows = list(_windows(text, NUM_WINDOWS + NUM_TRAINING))
        self._tokens = [_encoded(window, vocabulary) for window in windows[:NUM_WINDOWS]]
        self._vocabulary, self._others = vocabulary, windows[NUM_WINDOWS:]

    def calibration(self) -> list[Any]:
        """Return the windows after those that are judged, (1, T) int64 each."""
        import torch

        return [torch.tensor(self._encoded(window)[:-1])[None] for window in self._others[:NUM_CALIBRATION]]

    def training_batches(self, seed: int) -> list[Any]:
        """Return the windows after those that are judged, cut to pieces of two lengths, mixed, (B, T) int64 each."""
        import torch

        texts, batches = [self._encoded(window) for window in self._others], list[list[Any]]()
        for count, length in TRAINING_BATCHES:
            pieces = [
                tokens[:length] if start == 0 else [_START, *tokens[start : start + length - 1]]
                for tokens in texts
                for start in range(0, len(tokens) - 1, length)
            ]
            whole = torch.tensor([piece for piece in pieces if len(piece) == length])
            order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
            batches.append(list(whole[order].split(count)))
        return [batch for pair in zip(*batches, strict=False) for batch in pair]

    def _encoded(self, window: str) -> list[int]:
        return _encoded(window, self._vocabulary)

    def quality(self, tensors: Tensors) -> dict[str, Measured]:
        """Return the perplexity of a checkpoint."""
        import torch

        module = story_module(tensors)
        nats, count = 0.0, 0
        with torch.no_grad():
            for tokens in self._tokens:
                ids = torch.tensor(tokens)[None]
                logits = module(ids[:, :-1])[0]
                nats += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
                count += ids.shape[1] - 1
        return {"perplexity": float(np.exp(nats / count)), "num_tokens": count}


def _windows(text: str, most: int) -> Iterator[str]:
    """The first windows: whole lines, joined up to WINDOW characters."""
    window, found = "", 0
    for line in text.splitlines(keepends=True):
        if window and len(window) + len(line) > WINDOW:
            yield window.rstrip("\n")
            found += 1
            if found == most:
                return
            window = ""
        window += line


def _encoded(text: str, vocabulary: list[tuple[bytes, float]]) -> list[int]:
    """Tokens of a text: of its characters, the pair with the best union is joined until none has one."""
    ids = {piece: token for token, (piece, _) in reversed(list(enumerate(vocabulary)))}
    tokens = [ids[b" "]]
    for character in text:
        piece = character.encode()
        tokens += [ids[piece]] if piece in ids else [byte + 3 for byte in piece]
    while True:
        pairs = [ids.get(vocabulary[a][0] + vocabulary[b][0]) for a, b in pairwise(tokens)]
        scores = [-np.inf if pair is None else vocabulary[pair][1] for pair in pairs]
        place = int(np.argmax(scores)) if scores else 0
        if not scores or scores[place] == -np.inf:
            return [_START, *tokens]
        joined = pairs[place]
        assert joined is not None
        tokens[place : place + 2] = [joined]


def checkpoint() -> Path:
    """Return the published checkpoint."""
    return data_file("models/stories260k.safetensors")
