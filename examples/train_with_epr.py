"""A training loop whose loss counts the bits of the weights; the file comes from what was trained."""

import tempfile
from pathlib import Path

import torch
from torch import nn

import fewbits


def network() -> nn.Module:
    """Return a small perceptron."""
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))


torch.manual_seed(0)
x = torch.randn(512, 20)
y = (x[:, 0] * x[:, 1] > 0).long()  # two of the twenty inputs matter: the other weights need no bits

net = network()
latents = fewbits.attach(net, fewbits.Epr(), rate_weight=1)
optimizer = torch.optim.Adam(net.parameters(), lr=0.04)  # after attach, so that it holds the latents
for step in range(300):
    loss = nn.functional.cross_entropy(net(x), y) + latents.rate_loss()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step}: loss {loss.item():.3f}, {latents.bits().item():.0f} bits")

with tempfile.TemporaryDirectory() as folder:
    report = fewbits.save(net, Path(folder) / "net.fewbits")
    received = fewbits.load(Path(folder) / "net.fewbits", into=network())
    accuracy = float((received(x).argmax(1) == y).float().mean())
    print(f"{report.size} B instead of {report.source_size} B, accuracy {accuracy:.3f}")
