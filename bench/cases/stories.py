"""stories260k, a language model of 260,032 weights, at an eighth of its file and less; judged by its perplexity."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import Options
from .comparison import Tensors, fewbits_row, rival_rows
from .inputs import load_fewbits, need
from .row import Figure, Row
from .story_model import NUM_TRAINING, Stories, checkpoint, story_module

takes_rivals = True

SHARES = (8, 10, 12)  # of the file
CALIBRATED_SHARES, CALIBRATED = (6, 7, 8, 10, 12), 10  # with text to look at; of which something is asked
TUNED, LONG = 600, 2400  # steps that levels are trained
TRAINED, TRAINING_RATE = 350, 1e-3  # steps of the original on that text, for comparison, at a rate that falls to 0
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
    if not options.rivals_only and options.wants("labelled"):
        said = {"steps": TRAINED, "rate": TRAINING_RATE, "seed": options.seed}
        trained = _trained(tensors, stories.training_batches(options.seed))
        yield Row("original, trained on the text", {"size": path.stat().st_size, **stories.quality(trained)}, (), said)
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
        for recipe, kind, shares, given in _recipes(stories, tensors, options.seed):
            if options.rivals_only or not options.wants(recipe):
                continue
            for share in shares:
                source = path if given["inputs"] is None else story_module(tensors)
                has_text = not isinstance(given["inputs"], str | None)
                yield row(kind, source, share, CALIBRATED if has_text else SHARES[0], given)
    yield from rival_rows(options.rivals, tensors, stories.quality)


def _recipes(
    stories: Stories, tensors: Tensors, seed: int
) -> Iterator[tuple[str, str, tuple[int, ...], dict[str, Any]]]:
    """Recipes, what their rows are called, sizes, and what is given: text to look at; text to train on as well, for the
    outputs as they were, by their squared error or divergence, or for what comes next; nothing; the module, whose text
    it makes itself."""
    batches = stories.calibration()
    given: dict[str, Any] = {"inputs": batches, "inputs_are": f"{len(batches)} windows of TinyStories"}
    yield "calibrated", "calibrated ", CALIBRATED_SHARES, given | {"measure": "probabilities"}
    said = f"{NUM_TRAINING} windows of TinyStories, in batches of 12 x 128 and 6 x 256 tokens"
    given = {"inputs": stories.training_batches(seed), "inputs_are": said, "measure": "probabilities", "tune": TUNED}
    yield "tuned", "tuned ", SHARES, given
    yield "labelled", "tuned for what comes next ", SHARES, given | {"loss": _cross_entropy}
    yield "checkpoint", "", SHARES, {"inputs": None}
    yield "module", "module ", SHARES, {"inputs": "synthetic"}
    yield "module_tuned", "module tuned ", SHARES, {"inputs": "synthetic", "tune": TUNED}
    said += ", and what the original makes of them"
    inputs = _with_own_outputs(tensors, given["inputs"])
    given |= {"inputs": inputs, "inputs_are": said, "loss": _divergence, "tune": LONG}
    yield "divergence", "tuned by divergence ", (CALIBRATED,), given


def _cross_entropy(logits: Any, ids: Any) -> Any:
    """What a language model loses on token ids (B, T), of its logits (B, T, K), in nats a token."""
    import torch

    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def _with_own_outputs(tensors: Tensors, batches: list[Any]) -> list[Any]:
    """Batches of token ids, each with the logarithms of the probabilities that the original gives, (B, T, K)."""
    import torch

    Labelled = load_fewbits("Labelled").Labelled
    module = story_module(tensors)
    with torch.no_grad():
        return [Labelled(batch, module(batch).log_softmax(-1)) for batch in batches]


def _divergence(logits: Any, targets: Any) -> Any:
    """How far probabilities are from those that they should be, in nats a token (Kullback-Leibler)."""
    import torch

    found = logits.log_softmax(-1)
    return torch.nn.functional.kl_div(found, targets, log_target=True, reduction="none").sum(-1).mean()


def _trained(tensors: Tensors, batches: list[Any]) -> Tensors:
    """The original's tensors after training on batches: what text alone gives, whatever the bits."""
    import torch

    module = story_module(tensors)
    optimizer = torch.optim.Adam(module.parameters(), TRAINING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TRAINED)
    for batch in itertools.islice(itertools.cycle(batches), TRAINED):
        optimizer.zero_grad()
        _cross_entropy(module(batch), batch).backward()
        optimizer.step()
        schedule.step()
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}
