"""Texts that a language model makes itself, and modules that are none."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewbits
from fewbits.nn import sampling
from fewbits.nn.inputs import FEW, MANY, SOME, synthetic_inputs

WORDS = 12


class Counter(nn.Module):
    """A language model that counts: after id k comes k + 1, or rarely another."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.reads = nn.Embedding(WORDS, WORDS), list[int]()
        nn.init.eye_(self.words.weight)

    def logits(self, ids: Tensor) -> Tensor:
        self.reads.append(ids.shape[1])
        return 6 * self.words(ids).roll(1, -1)

    def forward(self, ids: Tensor) -> Any:
        return self.logits(ids)


class Cached(Counter):
    """The same, which keeps what it has read."""

    def forward(self, ids: Tensor, past_key_values: Tensor | None = None) -> Any:
        read = ids if past_key_values is None else torch.cat([past_key_values, ids], 1)
        logits = self.logits(read)[:, -ids.shape[1] :]
        self.reads[-1] = ids.shape[1]
        return {"logits": logits, "past_key_values": read}


class Forgetful(Cached):
    """One whose cache is no use."""

    def forward(self, ids: Tensor, past_key_values: Tensor | None = None) -> Any:
        output = super().forward(ids)
        return output if past_key_values is None else {**output, "logits": -output["logits"]}


class Both(Counter):
    """Each token sees those after it."""

    def logits(self, ids: Tensor) -> Tensor:
        return super().logits(ids).flip(1).cumsum(1).flip(1)


class Short(Counter):
    """Takes 24 tokens at most."""

    def logits(self, ids: Tensor) -> Tensor:
        if ids.shape[1] > 24:
            raise ValueError("too long")
        return super().logits(ids)


class Summary(Counter):
    """Gives one row of numbers for all tokens."""

    def logits(self, ids: Tensor) -> Tensor:
        return super().logits(ids).mean(1)


class Hidden(Counter):
    """Gives fewer numbers than there are words, and does not call them logits."""

    def logits(self, ids: Tensor) -> Tensor:
        return super().logits(ids)[..., :4]


class Named(Counter):
    """Gives logits of some of its words, and says so."""

    def forward(self, ids: Tensor) -> Any:
        return {"logits": self.logits(ids)[..., : WORDS - 2]}


@pytest.mark.parametrize("kind", [Counter, Cached, Forgetful])
def test_a_language_model_reads_what_it_would_write(kind: type[Counter]) -> None:
    module = kind()
    made = synthetic_inputs(module, seed=5, amount=SOME)
    assert made.are_sampled and [batch.shape for batch in made.batches] == [(16, 64)] * 8
    texts = torch.cat(made.batches)
    steps = (texts[:, 1:] - texts[:, :-1]) % WORDS
    assert float((steps == 1).float().mean()) > 0.9
    assert texts[:, 0].unique().numel() == WORDS  # texts begin anywhere
    again = synthetic_inputs(kind(), seed=5, amount=SOME).batches
    assert all(one.equal(other) for one, other in zip(made.batches, again, strict=True))
    assert not synthetic_inputs(kind(), seed=6).batches[0].equal(made.batches[0])
    assert (module.reads[-1] == 1) == (kind is Cached)


class Tagger(Counter):
    """Gives a few classes for each word, and calls them logits."""

    def forward(self, ids: Tensor) -> Any:
        return {"logits": self.logits(ids)[..., :3]}


@pytest.mark.parametrize("kind", [Both, Short, Summary, Hidden, Tagger])
def test_others_read_random_tokens(kind: type[Counter]) -> None:
    made = synthetic_inputs(kind(), seed=5)
    assert not made.are_sampled and [batch.shape[1] for batch in made.batches] == [8, 12, 16, 24]


def test_a_vocabulary_may_have_words_that_are_never_written() -> None:
    made = synthetic_inputs(Named(), seed=5)
    assert made.are_sampled and int(made.batches[0][:, 1:].max()) < WORDS - 2


def test_large_modules_without_a_cache_make_fewer_texts() -> None:
    work, cpu = WORDS * WORDS * 64 * 65 / 2, torch.device("cpu")
    counts = [
        len(sampling.sampled_tokens(Counter().eval(), WORDS, cpu, 0, 64, most, 1 << 30, None) or ())
        for most in (0, 31.9 * work, 32 * work, float("inf"))
    ]
    assert counts == [1, 1, 2, 4]
    assert FEW.num_texts < SOME.num_texts < MANY.num_texts


def test_batches_of_a_large_vocabulary_are_small() -> None:
    amount = FEW._replace(most_logits=5 * 64 * WORDS)
    assert [len(batch) for batch in synthetic_inputs(Counter(), 5, amount).batches] == [5, 5, 5, 1]
    assert SOME.most_logits < MANY.most_logits


def test_errors_of_what_is_told_of_progress_are_its_own() -> None:
    class Stopped(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        synthetic_inputs(Counter(), progress=stop)


def test_curvatures_of_a_language_model_are_of_probabilities_of_its_own_text() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(40, 16), nn.Linear(16, 40))
    made = synthetic_inputs(module, 3, SOME)
    assert made.are_sampled
    found = fewbits.curvatures(module, "synthetic", seed=3)
    given = fewbits.curvatures(module, made.batches, measure="probabilities", seed=3)
    for name, value in found.items():
        other = given[name]
        if isinstance(value, float):
            assert value == other
        else:
            assert not isinstance(other, float) and (value.inputs == other.inputs).all()


def test_a_report_says_that_text_was_sampled(tmp_path: Any) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(64, 32), nn.Linear(32, 64))
    stages: list[str] = []
    report = fewbits.compress(module, tmp_path / "n.fewbits", bits=3.0, progress=lambda what, *_: stages.append(what))
    assert "text that the module made itself" in report.notes[-1] and "sampling" in stages
