"""How well a sentence encoder still works: drift of its embeddings, agreement with human scores."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from .comparison import Tensors
from .inputs import data_file, data_loaders
from .row import Measured

MAX_LENGTH = 128  # tokens a sentence, as the model's own evaluation truncates
MAX_BATCH_TOKENS = 4096
TRAINING_TOKENS = 512  # of a batch of the train split: what a batch takes is held at once
ELSEWHERE = 300  # sentences of WikiText-2


class SentenceEmbedding:
    """The model, every different sentence of the STS benchmark's dev split, and the original's embeddings.

    A batch holds sentences of one length only: no padding, so no attention mask, and an embedding depends on
    which sentences share its batch by no more than float rounding.

    tensors: the checkpoint, by name, as NumPy arrays.
    """

    def __init__(self, folder: Path, *, elsewhere: bool = False) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported
        import torch
        import transformers
        from safetensors.numpy import load_file

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self._torch, self._folder = torch, folder
        self._model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
        self._parameters = dict(self._model.named_parameters())
        self.tensors: dict[str, np.ndarray] = load_file(folder / "model.safetensors")

        pairs = data_loaders().stsb(data_file("stsb/stsb-en-dev.csv"))
        sentences = sorted({first for first, _, _ in pairs} | {second for _, second, _ in pairs})
        position = {sentence: index for index, sentence in enumerate(sentences)}
        self._first = np.array([position[first] for first, _, _ in pairs])
        self._second = np.array([position[second] for _, second, _ in pairs])
        self._scores = np.array([score for _, _, score in pairs])
        self._tokenizer, self._sentences = transformers.AutoTokenizer.from_pretrained(folder), sentences
        self._batches = _batches(self._tokens(sentences))
        self._original = self._embed(self._batches)
        self._elsewhere = _batches(self._tokens(_wikitext(ELSEWHERE))) if elsewhere else []
        self._original_elsewhere = self._embed(self._elsewhere) if elsewhere else None

    def fresh_module(self) -> Any:
        """Return the model as published, which no measurement writes to."""
        import transformers

        return transformers.AutoModel.from_pretrained(self._folder, attn_implementation="eager").eval()

    def training_batches(self, count: int, seed: int = 3) -> list[dict[str, Any]]:
        """Return sentences of the train split as the model reads them, none in dev; each batch of one length."""
        torch, known = self._torch, set(self._sentences)
        pairs = data_loaders().stsb(data_file("stsb/stsb-en-train.csv"))
        sentences = sorted(({first for first, _, _ in pairs} | {second for _, second, _ in pairs}) - known)
        chosen = np.random.RandomState(seed).permutation(len(sentences))[:count]
        batches = _batches(self._tokens([sentences[i] for i in chosen]), TRAINING_TOKENS)
        ids = [torch.from_numpy(tokens) for _, tokens in batches]
        return [{"input_ids": each, "attention_mask": torch.ones_like(each)} for each in ids]

    def embedding_of(self, output: Any) -> Any:
        """Return the embeddings that an output of the model stands for: what is measured."""
        return self._torch.nn.functional.normalize(output.last_hidden_state.mean(1), dim=1)

    def _tokens(self, sentences: list[str]) -> list[list[int]]:
        return self._tokenizer(sentences, truncation=True, max_length=MAX_LENGTH)["input_ids"]

    def original_quality(self) -> dict[str, Measured]:
        """Return the quality of the checkpoint itself."""
        return self._measures(self._original)

    def quality(self, decoded: Tensors) -> dict[str, Measured]:
        """Return drift (1 − mean cosine to the original's embeddings, all sentences) and Spearman's ρ."""
        with self._torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(self._torch.from_numpy(np.array(decoded[name], np.float32)))
        measures = self._measures(self._embed(self._batches))
        if self._original_elsewhere is not None:
            cosines = (self._embed(self._elsewhere) * self._original_elsewhere).sum(1)
            measures["drift_elsewhere"] = float(1 - cosines.mean())
        return measures

    def _measures(self, embeddings: np.ndarray) -> dict[str, Measured]:
        from scipy.stats import spearmanr

        cosines = (embeddings * self._original).sum(1)
        similarity = (embeddings[self._first] * embeddings[self._second]).sum(1)
        return {
            "drift": float(1 - cosines.mean()),
            "spearman": float(spearmanr(similarity, self._scores).statistic),
            "num_sentences": len(self._sentences),
        }

    def _embed(self, batches: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Return (sentences, width) float64: mean of the token states, scaled to length 1."""
        torch = self._torch
        result: np.ndarray | None = None
        with torch.inference_mode():
            for indices, tokens in batches:
                ids = torch.from_numpy(tokens)
                states = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
                embeddings = torch.nn.functional.normalize(states.mean(1).double(), dim=1).numpy()
                if result is None:
                    result = np.zeros((sum(len(rows) for rows, _ in batches), embeddings.shape[1]))
                result[indices] = embeddings
        assert result is not None
        return result


def _wikitext(count: int) -> list[str]:
    """Sentences of WikiText-2, of 41 to 199 characters."""
    text = data_file("text/wikitext2-raw-test-part1.txt").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if len(line) > 60 and not line.strip().startswith("=")]
    sentences = [part.strip() for line in lines for part in line.split(" . ") if 40 < len(part) < 200]
    return [sentences[i] for i in np.random.RandomState(1).permutation(len(sentences))[:count]]


def _batches(tokens: list[list[int]], most: int = MAX_BATCH_TOKENS) -> list[tuple[np.ndarray, np.ndarray]]:
    """Group sentences of equal length: (indices, token ids) with at most so many tokens each."""
    by_length: dict[int, list[int]] = {}
    for index, sentence in enumerate(tokens):
        by_length.setdefault(len(sentence), []).append(index)
    batches = []
    for length, indices in sorted(by_length.items()):
        size = max(1, most // length)
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            batches.append((np.array(chosen), np.array([tokens[i] for i in chosen], np.int64)))
    return batches
