"""Score a compressed MNIST network: its bytes, and the errors of what it decodes to.

    python recipes/evaluate.py FILE --data DIR [--json]

The network is told by the file's fingerprint or its tensors: LeNet300 or LeNet5 (recipes/models.py).
"""

import argparse
import json
import sys
from pathlib import Path

import mnist
from models import NETWORKS
from torch import nn

import fewbits


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
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds mnist/")
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
        "validation_error_percent": round(mnist.error_of(network, mnist.read(options.data, "validation")), 2),
        "test_error_percent": round(mnist.error_of(network, mnist.read(options.data, "test")), 2),
    }
    found["times_smaller"] = round(4 * found["parameters"] / found["bytes"], 1)
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['file']}: {name}, {found['bytes']:,} B ({found['times_smaller']}x smaller than float32), test"
            f" error {found['test_error_percent']} %, validation error {found['validation_error_percent']} %"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
