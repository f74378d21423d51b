"""stories260k, a language model of 260,032 weights, at an eighth of its file and less; judged by its perplexity."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

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
    if not options.rivals_only:
        with tempfile.TemporaryDirectory() as scratch:
            batches = stories.calibration()
            for share in CALIBRATED_SHARES:
                yield fewbits_row(
                    f"fewbits calibrated 1/{share}",
                    story_module(tensors),
                    tensors,
                    stories.quality,
                    Path(scratch) / "stories.fewbits",
                    budget=path.stat().st_size // share,
                    seed=options.seed,
                    inputs=batches,
                    inputs_are=f"{len(batches)} windows of TinyStories",
                    measure="probabilities",
                    asked=(Figure("perplexity", "<=", round(most, 4)),) if share == CALIBRATED else (),
                )
            batches = stories.training_batches(options.seed)
            for share in TUNED_SHARES:
                yield fewbits_row(
                    f"fewbits tuned 1/{share}",
                    story_module(tensors),
                    tensors,
                    stories.quality,
                    Path(scratch) / "stories.fewbits",
                    budget=path.stat().st_size // share,
                    seed=options.seed,
                    inputs=batches,
                    inputs_are=f"{NUM_TRAINING} windows of TinyStories, in batches of 12 x 128 and 6 x 256 tokens",
                    measure="probabilities",
                    tune=TUNED,
                    asked=(Figure("perplexity", "<=", round(most, 4)),) if share == CALIBRATED else (),
                )
            for share in SHARES:
                for inputs in (None, "synthetic"):
                    yield fewbits_row(
                        f"fewbits {'module ' if inputs else ''}1/{share}",
                        story_module(tensors) if inputs else path,
                        tensors,
                        stories.quality,
                        Path(scratch) / "stories.fewbits",
                        budget=path.stat().st_size // share,
                        seed=options.seed,
                        inputs=inputs,
                        asked=(Figure("perplexity", "<=", round(most, 4)),) if share == SHARES[0] else (),
                    )
    yield from rival_rows(options.rivals, tensors, stories.quality)
