"""A trained checkpoint to a byte budget, and back into the module: no data, no retraining."""

import tempfile
from pathlib import Path

import torch
from torch import nn

import fewbits

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
x = torch.randn(4, 3, 8, 8)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "net.fewbits"
    report = fewbits.compress(net, path, budget="3kB")
    print(*report.lines(), sep="\n")

    received = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    fewbits.load(path, into=received)
    with torch.no_grad():
        print("outputs moved by", float((received(x) - net(x)).norm() / net(x).norm()))

    with fewbits.open(path) as file:  # one tensor, without decoding the rest
        print("3.bias", file["3.bias"].shape, file.spec("3.bias").dtype)

    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    try:
        fewbits.load(path)
    except fewbits.Corrupt as error:
        print("refused:", error)
