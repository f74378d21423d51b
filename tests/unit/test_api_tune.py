"""Levels that are trained: a better file of the same size, or the file as it would have been."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewbits
from fewbits import InvalidArgument


class Net(nn.Module):
    """Two tied tables and a body, with a norm whose averages are buffers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.body, self.norm = nn.Embedding(60, 32), nn.Linear(32, 64), nn.BatchNorm1d(64)
        self.back, self.head = nn.Linear(64, 32), nn.Linear(32, 60, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.body(self.words(ids)).mT).mT)
        return self.head(self.back(hidden).cumsum(1))


@pytest.fixture
def net() -> Net:
    net = Net()
    for _ in range(3):
        net(torch.randint(60, (40, 9)))
    return net.eval()


def batches(count: int) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    found: list[Any] = [torch.randint(60, (24, 9), generator=generator) for _ in range(count)]
    found[1], found[2] = {"ids": found[1]}, (found[2],)
    return found


def loss_of(net: Net, path: Path) -> float:
    ids = torch.randint(60, (200, 9), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before, after = net(ids), fewbits.load(path, into=Net()).eval()(ids)
    return float((after - before).square().sum() / before.square().sum())


@pytest.mark.parametrize("target", [{"budget": 1500}, {"bits": 1.5}])
def test_trained_levels_make_outputs_better_at_the_same_size(net: Net, target: dict[str, Any], tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    stages: list[tuple[str, int, int]] = []
    sizes: dict[int, int] = {}
    for tune in (0, 150):
        path = tmp_path / f"{tune}.fewbits"
        report = fewbits.compress(
            net, path, inputs=batches(16), tune=tune, progress=lambda *each: stages.append(each), **target
        )
        sizes[tune] = report.size
        assert report.bits_per_weight <= target.get("bits", 8.0)
    assert loss_of(net, tmp_path / "150.fewbits") < 0.7 * loss_of(net, tmp_path / "0.fewbits")
    assert sizes[150] <= min(target.get("budget", 1 << 20), 1.005 * sizes[0])
    assert ("tune", 150, 150) in stages and "levels were trained for 150 steps" in report.notes[0]
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    assert not any(value.requires_grad is False or value.grad is not None for value in net.parameters())


def test_the_report_says_what_trained_levels_lost(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "n.fewbits"
    report = fewbits.compress(net, path, bits=1.5, inputs=batches(16), tune=60)
    loaded = fewbits.load(path)
    for tensor in report.tensors:
        before, after = net.state_dict()[tensor.name], loaded[tensor.name]
        if before.is_floating_point() and before.ndim > 1:
            assert float((after - before).norm() / before.norm()) == pytest.approx(tensor.relative_error, rel=1e-3)
    assert report.actual_bits == pytest.approx(report.estimated_bits, rel=0.01, abs=128)


def test_the_same_call_makes_the_same_file(net: Net, tmp_path: Path) -> None:
    for name in ("one", "other"):
        fewbits.compress(net, tmp_path / name, bits=2.0, inputs=iter(batches(9)), tune=20, seed=3)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_levels_that_gain_nothing_are_not_kept(net: Net, tmp_path: Path) -> None:
    plain, trained = tmp_path / "plain.fewbits", tmp_path / "trained.fewbits"
    fewbits.compress(net, plain, bits=6.0, inputs=batches(8))
    report = fewbits.compress(net, trained, bits=6.0, inputs=batches(8), tune=1)  # the trellis alone is better
    assert "they are not kept" in report.notes[0] and plain.read_bytes() == trained.read_bytes()


def test_synthetic_inputs_can_be_trained_on(net: Net, tmp_path: Path) -> None:
    report = fewbits.compress(net, tmp_path / "n.fewbits", bits=2.0, tune=30)
    assert "levels were trained for 30 steps" in report.notes[0]


def _labelled(count: int) -> list[Any]:
    """Batches of which the net is to tell the next id's remainder, which it was never taught."""
    generator = torch.Generator().manual_seed(5)
    found = [torch.randint(60, (24, 9), generator=generator) for _ in range(count)]
    return [fewbits.Labelled(ids if i % 2 else {"ids": ids}, (7 * ids) % 60) for i, ids in enumerate(found)]


def _cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())


def test_levels_are_trained_for_a_loss(net: Net, tmp_path: Path) -> None:
    own, given = tmp_path / "own.fewbits", tmp_path / "given.fewbits"
    settings: dict[str, Any] = {"bits": 3.0, "tune": 100, "measure": "probabilities"}
    fewbits.compress(net, own, inputs=_labelled(16), **settings)
    report = fewbits.compress(net, given, inputs=_labelled(16), loss=_cross_entropy, **settings)
    (note,) = report.notes  # outputs are to differ: nothing is said of their error
    assert "the loss is" in note and "not kept" not in note
    fresh = _labelled(17)[-1]
    losses = [
        float(_cross_entropy(fewbits.load(path, into=Net()).eval()(**fresh.inputs), fresh.target).detach())
        for path in (own, given)
    ]
    assert losses[1] < losses[0] - 0.1
    assert given.stat().st_size <= 1.01 * own.stat().st_size


def test_a_loss_without_targets_gets_the_batch(net: Net, tmp_path: Path) -> None:
    seen: list[bool] = []

    def loss(output: Tensor, batch: Any) -> Tensor:
        ids = batch[0] if isinstance(batch, tuple) else batch["ids"] if isinstance(batch, dict) else batch
        seen.append(output.shape[:2] == ids.shape)
        return 1000 * _cross_entropy(output, ids)  # in whatever unit

    report = fewbits.compress(net, tmp_path / "n.fewbits", bits=3.0, inputs=batches(9), tune=60, loss=loss)
    assert seen and all(seen) and 2.9 < report.bits_per_weight <= 3.0


def test_a_loss_that_is_none_is_refused(net: Net, tmp_path: Path) -> None:
    for loss, message in (
        (lambda *_: 1.0, "loss= must return"),
        (lambda output, _: output.detach().sum(), "do not depend"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            fewbits.compress(net, tmp_path / "n", bits=3.0, inputs=batches(9), tune=5, loss=loss)
    with pytest.raises(InvalidArgument, match="loss= is what tune= trains for"):
        fewbits.compress(net, tmp_path / "n", bits=3.0, inputs=batches(9), loss=_cross_entropy)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tune": -1, "bits": 2.0}, "tune must be a number of steps"),
        ({"tune": True, "bits": 2.0}, "tune must be a number of steps"),
        ({"tune": 5, "max_error": 0.1}, "tune= goes with budget= or bits="),
        ({"tune": 5, "lossless": True}, "tune= goes with budget= or bits="),
        ({"tune": 5, "bits": 2.0, "inputs": None}, "tune= needs a module, and inputs="),
        ({"tune": 5, "bits": 2.0, "inputs": batches(7)}, "at least 8 batches"),
        ({"tune": 5, "bits": 2.0, "inputs": batches(9), "method": "ecsq"}, "not of 'ecsq'"),
    ],
)
def test_what_cannot_be_trained_is_refused(net: Net, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message.replace("(", r"\(")):
        fewbits.compress(net, tmp_path / "n.fewbits", **given)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_has_nothing_to_train_on(net: Net, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="tune= needs a module"):
        fewbits.compress(net.state_dict(), tmp_path / "n.fewbits", bits=2.0, tune=5)
