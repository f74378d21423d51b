"""ResNet-20 for CIFAR-10 at a tenth of its checkpoint's size; judged on 1,000 lossless test images."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import Options
from .comparison import Tensors, beside_rows, fewbits_row, rival_rows
from .inputs import data_file, data_loaders, need
from .recipe_runs import module_of
from .row import Figure, Measured, Row

takes_rivals = True

MAX_POINTS_LOST = 1.5
CALIBRATION, CALIBRATED_SHARES = 512, (16, 12, 20)  # training images; of the module tried on them
MODULE_SHARES, MODULE_POINTS_LOST = (12, 13, 16), 1.0  # of the module, tried on random images; asked of the first


def rows(options: Options) -> Iterator[Row]:
    """Measure the original, fewbits at a tenth of its file, then the rivals; all on the same images."""
    need("safetensors", "torch")
    from safetensors.numpy import load_file

    checkpoint = data_file("models/cifar10_resnet20.safetensors")
    source_size = checkpoint.stat().st_size
    tensors = load_file(checkpoint)
    images, labels = data_loaders().cifar10_test1k()
    original = predictions(tensors, images)

    def quality(decoded: Tensors) -> dict[str, Measured]:
        found = predictions(decoded, images)
        accuracy = 100 * float((found == labels).mean())
        return {
            "accuracy": round(accuracy, 6),  # per cent
            "points_lost": round(100 * float((original == labels).mean()) - accuracy, 6),
            "same_predictions": float((found == original).mean()),
            "num_images": len(labels),
        }

    yield Row("original", {"size": source_size, **quality(tensors)})
    if not options.rivals_only:
        budget = source_size // 10
        asked = (Figure("size", "<=", budget), Figure("points_lost", "<=", MAX_POINTS_LOST))
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "resnet20.fewbits"
            yield fewbits_row(
                "fewbits 1/10",
                checkpoint,
                tensors,
                quality,
                path,
                budget=budget,
                seed=options.seed,
                asked=asked,
            )
            common = {"source": checkpoint, "tensors": tensors, "quality": quality, "seed": options.seed}
            for share in (13, 16):  # how it degrades: nothing is asked of these rows
                yield fewbits_row(f"fewbits 1/{share}", path=path, budget=source_size // share, **common)
            common["source"] = _network(tensors)
            for share in MODULE_SHARES:
                asked = (Figure("points_lost", "<=", MODULE_POINTS_LOST),) if share == MODULE_SHARES[0] else ()
                yield fewbits_row(
                    f"fewbits module 1/{share}",
                    path=path,
                    budget=source_size // share,
                    inputs="synthetic",
                    asked=asked,
                    **common,
                )
            seen, _ = data_loaders().cifar10_train()
            chosen = np.random.RandomState(options.seed).permutation(len(seen))[:CALIBRATION]
            batches = list(_planes(seen[chosen]).split(32))
            for share in CALIBRATED_SHARES:
                asked = (Figure("points_lost", "<=", MODULE_POINTS_LOST),) if share == CALIBRATED_SHARES[0] else ()
                yield fewbits_row(
                    f"fewbits calibrated 1/{share}",
                    path=path,
                    budget=source_size // share,
                    inputs=batches,
                    inputs_are=f"{CALIBRATION} training images",
                    asked=asked,
                    **common,
                )
    yield from beside_rows(rival_rows(options.rivals, tensors, quality), checkpoint, tensors, quality, options.seed)


def predictions(tensors: Tensors, images: np.ndarray) -> np.ndarray:
    """Return the class, (N,) int64, that these weights give to each of (N, 32, 32, 3) uint8 images."""
    import torch

    network = _network(tensors)
    with torch.inference_mode():
        batches = _planes(images).split(250)
        return torch.cat([network(batch).argmax(1) for batch in batches]).numpy()


def _planes(images: np.ndarray) -> Any:
    """Images (N, 32, 32, 3) uint8 as the network reads them."""
    import torch

    return module_of("cifar10").inputs_of(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).contiguous()


def _network(tensors: Tensors) -> Any:
    """ResNet-20 with these weights, in eval()."""
    import torch

    network = module_of("models").ResNet20()
    state = {name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}
    # Strict but for the batch counters, which this checkpoint does not have and evaluation does not use.
    result = network.load_state_dict(state, strict=False)
    absent = [name for name in result.missing_keys if not name.endswith("num_batches_tracked")]
    if absent or result.unexpected_keys:
        raise RuntimeError("the checkpoint's names are not those of ResNet-20.")
    return network.eval()
