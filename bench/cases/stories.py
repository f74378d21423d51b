"""stories260k, a language model of 260,032 weights, at an eighth of its file and less; judged by its perplexity."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import Options
from .comparison import fewbits_row, rival_rows
from .inputs import need
from .row import Figure, Row
from .story_model import NUM_TRAINING, Stories, checkpoint, story_module

takes_rivals = True

SHARES = (8, 10, 12)  # of the file
CALIBRATED_SHARES, CALIBRATED = (6, 7, 8, 10, 12), 10  # with text to look at; of which something is asked
TUNED_SHARES, TUNED = (8, 10, 12), 600  # with more text, and levels trained for so many steps
MOST_PERPLEXITY = 1.03  # times the original's, at an eighth, or with text at a tenth


def rows(options: Options) -> Iterator[Row]:
    """Measure the original, the bare checkpoint and the module at three sizes, then the rivals."""
    need("safetensors", "torch")
    from safetensors.numpy import load_file

    path = checkpoint()
    tensors, stories = load_file(path), Stories()
    original = stories.quality(tensors)
    most = MOST_PERPLEXITY * float(original["perplexity"])
    yield Row("original", {"size": path.stat().st_size, **original})
    scratch = tempfile.TemporaryDirectory()

    def row(name: str, source: Any, share: int, judged: int, given: dict[str, Any]) -> Row:
        """A file of a share of the original; of that of one share something is asked."""
        file, budget = Path(scratch.name) / "stories.fewbits", path.stat().st_size // share
        asked = (Figure("perplexity", "<=", round(most, 4)),) if share == judged else ()
        return fewbits_row(
            f"fewbits {name}1/{share}",
            source,
            tensors,
            stories.quality,
            file,
            budget=budget,
            seed=options.seed,
            asked=asked,
            **given,
        )

    with scratch:
        for kind, given in () if options.rivals_only else _with_text(stories, options.seed):
            shares = TUNED_SHARES if "tune" in given else CALIBRATED_SHARES
            for share in shares:
                yield row(kind, story_module(tensors), share, CALIBRATED, given)
        for share in () if options.rivals_only else SHARES:
            for inputs in (None, "synthetic"):
                source = story_module(tensors) if inputs else path
                yield row("module " if inputs else "", source, share, SHARES[0], {"inputs": inputs})
    yield from rival_rows(options.rivals, tensors, stories.quality)


def _with_text(stories: Stories, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Text to look at, and text to train on as well."""
    batches = stories.calibration()
    said = f"{len(batches)} windows of TinyStories"
    yield "calibrated ", {"inputs": batches, "inputs_are": said, "measure": "probabilities"}
    batches = stories.training_batches(seed)
    said = f"{NUM_TRAINING} windows of TinyStories, in batches of 12 x 128 and 6 x 256 tokens"
    yield "tuned ", {"inputs": batches, "inputs_are": said, "measure": "probabilities", "tune": TUNED}
