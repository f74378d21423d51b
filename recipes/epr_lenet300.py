"""LeNet-300-100 on MNIST with the small EPR: trained against its own code length, coded, decoded, and scored.

Goes through the contract by hand: represent -> forward -> commit -> chunks -> decode. The last 5,000 training images
are kept apart for validation; the official 10,000 test images are scored once, after decoding. Training images are
shifted by up to a pixel either way. One thread; three to five minutes.

    FEWBITS_DATA=<folder> python recipes/epr_lenet300.py [--steps 6000] [--rate-weight 1] [--seed 0]
"""

import argparse
import gzip
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, pad

from fewbits.container.writer import file_bytes
from fewbits.encode import decode
from fewbits.method import Source
from fewbits.methods.epr import Epr, EprConfig, EprRepresentation
from fewbits.sources import entries_of

BATCH = 128
NUM_VALIDATION = 5000
LATENT_RATE, STEP_RATE, DENSITY_RATE = 2e-2, 4e-3, 1e-2  # Adam's, at the start; latents are in units of the step
FLAT, RAMP = 0.4, 0.2  # fractions of training before the cosine begins, and in which the rate's weight rises
# He's initial weights in coarse steps: a network that starts near its final rate never has to be thinned out.
CONFIG = EprConfig(step_factor=3.0, zero_step=0.1)


def lenet_300_100(generator: torch.Generator) -> nn.Sequential:
    """The network, 266,610 weights, with He's initial values and zero biases."""
    network = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.Linear):
                layer.weight.normal_(0, math.sqrt(2 / layer.in_features), generator=generator)
                layer.bias.zero_()
    return network


def mnist(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 28, 28) uint8 and labels (N,) int64 of "train" or "t10k"."""
    arrays: list[Tensor] = []
    for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
        octets = gzip.decompress((folder / "mnist" / f"{split}-{kind}-ubyte.gz").read_bytes())
        arrays.append(torch.from_numpy(np.frombuffer(octets, np.uint8, offset=header).copy()))
    return arrays[0].reshape(-1, 28, 28), arrays[1].long()


def inputs_of(images: Tensor) -> Tensor:
    """Images (B, 28, 28) uint8 as rows (B, 784) of 0 … 1."""
    return images.reshape(-1, 784).float() / 255


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift images (B, 28, 28) by -1, 0 or 1 pixel in both directions, the same for the whole batch."""
    down, right = torch.randint(3, (2,), generator=generator).tolist()
    return pad(images, (1, 1, 1, 1))[:, down : down + 28, right : right + 28]


def error(network: nn.Module, tensors: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> float:
    """Per cent of images that the network with these tensors gets wrong."""
    with torch.no_grad():
        logits = functional_call(network, dict(tensors), (inputs_of(images),))
    return 100 * float((logits.argmax(1) != labels).float().mean())


def optimizer_of(latents: EprRepresentation) -> torch.optim.Optimizer:
    """Adam with a learning rate each for latents, steps and densities."""
    groups: dict[str, list[nn.Parameter]] = {"latents": [], "log_step": [], "log_scale": []}
    for name, parameter in latents.named_parameters():
        groups[name.rpartition(".")[2]].append(parameter)
    rates = {"latents": LATENT_RATE, "log_step": STEP_RATE, "log_scale": DENSITY_RATE}
    return torch.optim.Adam([{"params": params, "lr": rates[name]} for name, params in groups.items()])


def train(
    network: nn.Module, latents: EprRepresentation, images: Tensor, labels: Tensor, steps: int, seed: int
) -> None:
    """Train the latents, their steps and densities together."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = optimizer_of(latents.train())
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: max(0.01, 0.5 + 0.5 * math.cos(math.pi * max(0.0, t / steps - FLAT) / (1 - FLAT)))
    )
    batches: list[Tensor] = []
    for t in range(steps):
        batches = batches or list(torch.randperm(len(labels), generator=generator).split(BATCH))
        batch = batches.pop()
        draw = latents()
        logits = functional_call(network, dict(draw.values), (inputs_of(shifted(images[batch], generator)),))
        rate_loss = latents.rate_weight * draw.bits / latents.num_weights
        loss = cross_entropy(logits, labels[batch]) + min(1.0, t / (RAMP * steps)) * rate_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
        if (t + 1) % 1000 == 0:
            print(f"step {t + 1}: loss {loss.item():.3f}, {draw.bits.item() / 8:.0f} B while relaxed", flush=True)


def main() -> None:
    """Train, code, decode and score one network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rate-weight", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    folder = Path(os.environ["FEWBITS_DATA"])
    images, labels = mnist(folder, "train")
    network = lenet_300_100(torch.Generator().manual_seed(options.seed))
    source = Source({name: parameter.detach() for name, parameter in network.named_parameters()}, network)
    latents = Epr(CONFIG).represent(source, rate_weight=options.rate_weight, seed=options.seed)

    start = time.monotonic()
    train(network, latents, images[:-NUM_VALIDATION], labels[:-NUM_VALIDATION], options.steps, options.seed)
    seconds = time.monotonic() - start

    for step in latents.steps:
        latents.commit(step)
    expected = latents.eval()()
    chunks = list(latents.chunks())
    decoded = decode(chunks)
    assert all(torch.equal(decoded[name], value) for name, value in expected.values.items())
    tensors = {name: decoded[name] for name in network.state_dict()}
    entries = entries_of(tensors)
    file = {
        bare: len(
            file_bytes(chunks=chunks, tensors=entries, seed=options.seed, rate_weight=None, metadata=None, bare=bare)
        )
        for bare in (False, True)
    }
    payload = sum(len(chunk.payload) for chunk in chunks)
    validation = error(network, decoded, images[-NUM_VALIDATION:], labels[-NUM_VALIDATION:])
    test = error(network, decoded, *mnist(folder, "t10k"))
    print(f"payload {payload} B (expected {float(expected.bits) / 8:.0f} B), file {file[False]} B, bare {file[True]} B")
    print(
        f"error of the decoded network: validation {validation:.2f} %, test {test:.2f} %; {seconds:.0f} s of training"
    )


if __name__ == "__main__":
    main()
