"""Tables of words, and how often each of their rows is used where no text says it (docs/decisions/0015)."""

from collections import Counter

import torch
from torch import Tensor, nn

_FEWEST_WORDS = 1000  # of a vocabulary


def word_tables(module: nn.Module) -> dict[str, int]:
    """Return names and rows of the tables that are read by a word's number and by nothing else."""
    users = Counter(id(weight) for _, weight in module.named_parameters(remove_duplicate=False))
    return {
        f"{name}.weight" if name else "weight": part.num_embeddings
        for name, part in module.named_modules()
        if isinstance(part, nn.Embedding) and part.num_embeddings >= _FEWEST_WORDS and users[id(part.weight)] == 1
    }


def use_of_words(count: int, exponent: float) -> Tensor:
    """Return how often each of the words of a vocabulary is used, (count,) float64 of mean 1: rank ** -exponent.

    Vocabularies are mostly sorted by how frequent words are; Zipf's law has the exponent 1.
    """
    use = torch.arange(1, count + 1, dtype=torch.float64) ** -exponent
    return use / use.mean()
