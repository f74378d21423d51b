"""What one process encodes another decodes, to the bit, on every instruction set."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fewbits.channel.simulator import Message
from tests.unit.channel.samples import bare, cases

NUM_BATCHES, SIZE = 20, 4  # of 13 kinds of cases each: 1,040 samples
PROGRAM = """
import sys
from tests.unit.channel.test_processes import decoded
print(decoded(sys.argv[1]))
"""


def encoded(path: Path) -> None:
    """Write random messages; targets, proposals, seeds and streams differ from batch to batch."""
    arrays: dict[str, np.ndarray] = {}
    for batch in range(NUM_BATCHES):
        rng = np.random.default_rng(batch)
        for name, case in cases(rng, SIZE).items():
            seed, numbers = int(rng.integers(0, 1 << 63)) * 2 + 1, rng.integers(0, 1 << 32, SIZE)
            message = case.simulator.encode(case.target, case.proposal, seed=seed, numbers=numbers)
            values = case.simulator.decode(message, case.proposal, seed=seed, numbers=numbers)
            arrays |= {f"{batch} {name} indices": message.indices, f"{batch} {name} offsets": message.offsets}
            arrays[f"{batch} {name} values"] = values
    np.savez(path, **arrays)


def decoded(path: str) -> str:
    """Read messages and return a checksum of their samples."""
    total = hashlib.sha256()
    with np.load(path) as arrays:
        for batch in range(NUM_BATCHES):
            rng = np.random.default_rng(batch)
            for name, case in cases(rng, SIZE).items():
                seed, numbers = int(rng.integers(0, 1 << 63)) * 2 + 1, rng.integers(0, 1 << 32, SIZE)
                indices, offsets = (arrays[f"{batch} {name} {each}"] for each in ("indices", "offsets"))
                message = bare(Message(indices, offsets, indices, indices))
                values = case.simulator.decode(message, case.proposal, seed=seed, numbers=numbers)
                total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("channel") / "messages.npz"
    encoded(path)
    return path


def test_a_thousand_cases_decode_to_the_same_bits_elsewhere(messages: Path, isa: str, repository: Path) -> None:
    total, count = hashlib.sha256(), 0
    with np.load(messages) as arrays:
        for name in arrays.files:
            if name.endswith(" values"):
                total.update(arrays[name].tobytes())
                count += len(arrays[name])
    assert count >= 1000
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, messages],
        cwd=repository,
        env=os.environ | {"FEWBITS_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == total.hexdigest()
