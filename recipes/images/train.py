"""Train an image codec on the patches of a data folder: `python recipes/images/train.py ROW --data DATA --out FILE`.

Of the photos that the patches are of, the last four are left out: what is chosen is chosen by them. A checkpoint is
left beside the file, and a run that stopped goes on from it.
"""

import argparse
import importlib.util
import json
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch

from fewbits import images

HELD_OUT = 4  # photos
CONFIG = images.CodecConfig()
# By row: what the codec is. All have one training, but for what their names say.
ROWS = {
    rounding: replace(CONFIG, rounding=rounding) for rounding in ("noise", "straight_through", "universal", "soft")
} | {"factorized": replace(CONFIG, entropy_model="factorized")}
# The cells of soft rounding differ more from level to level; with scales below .1 it trains worse (rows of both).
ROWS["soft"] = replace(ROWS["soft"], level_bits=5, least_scale=0.1)
TRAINING = images.TrainingConfig(steps=6000)  # half an hour
STEPS = {"straight_through": 14000}  # of the one that is measured beside other codecs


def loaders(data: Path) -> ModuleType:
    """Return the data folder's own `load.py`."""
    spec = importlib.util.spec_from_file_location("recipe_data", data / "load.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def photos(data: Path) -> list[torch.Tensor]:
    """Return the patches to train on, (3, 128, 128) uint8 each."""
    patches, photo = loaders(data).patches()
    kept = photo < photo.max() + 1 - HELD_OUT
    return list(torch.from_numpy(patches[kept]).permute(0, 3, 1, 2).contiguous())


def main() -> None:
    """Train, or go on training, and write the codec's file, with a word on the run beside it."""
    parser = argparse.ArgumentParser(description="Train an image codec of a row.")
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--data", type=Path, required=True, help="the folder with patches/ in it")
    parser.add_argument("--out", type=Path, required=True, help="the codec's file; the state goes beside it")
    parser.add_argument("--steps", type=int, help="of training, in place of the row's own")
    parser.add_argument("--bits", type=float, default=7.0, help="a weight of the networks in the file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()

    def told(what: str, done: int, total: int) -> None:
        if done % 500 == 0:
            print(f"{done} of {total} steps, {time.monotonic() - start:.0f} s", flush=True)

    steps = options.steps or STEPS.get(options.row, TRAINING.steps)
    training, state = TRAINING._replace(steps=steps), options.out.with_suffix(".pt")
    codec = images.train(photos(options.data), ROWS[options.row], training, checkpoint=state, progress=told)
    report = images.save_codec(codec, options.out, bits=options.bits)
    said = {"row": options.row, "steps": steps, "bytes": report.size, "seconds": time.monotonic() - start}
    options.out.with_suffix(".json").write_text(json.dumps(said) + "\n", encoding="utf8")
    print(f"{options.out}: {report.size:,} B")


if __name__ == "__main__":
    main()
