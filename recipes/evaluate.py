"""Score a compressed network of the rows: its bytes, and the errors of what it decodes to.

    python recipes/evaluate.py FILE --data DIR [--json]

The network is told by the file's fingerprint or its tensors: one of recipes/models.py. Images are those that its data
set's recipe keeps apart (recipes/mnist.py, recipes/cifar10.py).
"""

import argparse
import json
import sys
from pathlib import Path

import cifar10
import mnist
from models import NETWORKS
from torch import nn

import fewbits

# What each network is scored on, and the parts of it.
DATA = {"lenet300": mnist, "lenet5": mnist, "resnet20": cifar10}
PARTS = {mnist: ("validation", "test"), cifar10: ("validation", "test", "test1k")}


def load(path: Path) -> tuple[str, nn.Module]:
    """Load a file into the network that it fits; returns its name and it.

    Raises:
        InvalidArgument: it fits none of them.
    """
    refusals: list[str] = []
    for name, network in NETWORKS.items():
        try:
            return name, fewbits.load(path, into=network())
        except fewbits.InvalidArgument as error:
            refusals.append(f"{name}: {error}")
    raise fewbits.InvalidArgument(f"{str(path)!r} fits none of the recipes' networks. {' '.join(refusals)}")


def main() -> int:
    """Print one line, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds mnist/ or cifar10/")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        name, network = load(options.file)
    except fewbits.FewbitsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = {
        "file": options.file.name,
        "network": name,
        "bytes": options.file.stat().st_size,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    data = DATA[name]
    for part in PARTS[data]:
        found[f"{part}_error_percent"] = round(data.error_of(network, data.read(options.data, part)), 2)
    found["times_smaller"] = round(4 * found["parameters"] / found["bytes"], 1)
    if options.json:
        print(json.dumps(found))
    else:
        errors = ", ".join(f"{part} error {found[f'{part}_error_percent']} %" for part in reversed(PARTS[data]))
        size = f"{found['bytes']:,} B ({found['times_smaller']}x smaller than float32)"
        print(f"{found['file']}: {name}, {size}, {errors}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
