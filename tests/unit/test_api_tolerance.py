"""The smallest file with an error, or a user's score, within bounds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import fewbits
from fewbits import InvalidArgument


def classifier() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network that knows its examples."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 5))
    images = torch.randn(400, 20)
    labels = (images @ torch.randn(20, 5)).argmax(1)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net.eval(), images, labels


def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    return float((net(images).argmax(1) == labels).float().mean())


@pytest.mark.parametrize("tolerance", [0.0025, 0.02, 0.2])
def test_the_file_is_the_smallest_whose_score_stays(tolerance: float, tmp_path: Path) -> None:
    net, images, labels = classifier()
    calls: list[nn.Module] = []

    def score(module: nn.Module) -> float:
        calls.append(module)
        assert not torch.is_grad_enabled()
        return accuracy(module, images, labels)

    before = {name: value.clone() for name, value in net.state_dict().items()}
    report = fewbits.compress(net, tmp_path / "n.fewbits", evaluate=score, tolerance=tolerance)
    assert all(module is not net for module in calls) and len(calls) <= 21
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    own = accuracy(net, images, labels)
    loaded, _, _ = classifier()
    kept = accuracy(fewbits.load(tmp_path / "n.fewbits", into=loaded), images, labels)
    assert kept >= own - tolerance
    assert f"the score is {kept:.6g}, the source's {own:.6g}; it was asked for {len(calls)} times" in report.notes[0]
    assert report.rate_weight is not None


def test_more_tolerance_takes_fewer_bytes(tmp_path: Path) -> None:
    net, images, labels = classifier()
    sizes = [
        fewbits.compress(
            net, tmp_path / "n.fewbits", evaluate=lambda m: accuracy(m, images, labels), tolerance=tolerance
        ).size
        for tolerance in (0.0, 0.02, 0.3)
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[2] < 0.8 * sizes[0]


def test_a_state_dict_is_scored_by_its_tensors_ties_and_all(tmp_path: Path) -> None:
    weight = torch.randn(40, 30)
    state = {"a": weight, "b": weight, "count": torch.tensor(3)}

    def score(tensors: dict[str, Tensor]) -> Tensor:
        assert set(tensors) == set(state) and tensors["a"].equal(tensors["b"]) and int(tensors["count"]) == 3
        return -(tensors["a"] - weight).square().mean().sqrt()

    fewbits.compress(state, tmp_path / "n.fewbits", evaluate=score, tolerance=0.1)
    found = float((fewbits.load(tmp_path / "n.fewbits")["a"] - weight).square().mean().sqrt())
    assert 0.09 < found <= 0.1


@pytest.mark.parametrize("most", [0.3, 0.02])
def test_no_tensor_has_more_error_than_is_allowed(most: float, tmp_path: Path) -> None:
    net, _, _ = classifier()
    report = fewbits.compress(net, tmp_path / "n.fewbits", max_error=most)
    assert 0.9 * most < report.worst_error <= most
    assert report.size < fewbits.compress(net, tmp_path / "n.fewbits", max_error=most / 4).size


def test_what_no_lossy_file_meets_loses_nothing(tmp_path: Path) -> None:
    net, _, _ = classifier()
    exact = {name: value.clone() for name, value in net.state_dict().items()}
    report = fewbits.compress(
        net,
        tmp_path / "n.fewbits",
        evaluate=lambda m: float(all(value.equal(exact[name]) for name, value in m.state_dict().items())),
        tolerance=0.0,
    )
    assert report.worst_error == 0.0
    loaded = fewbits.load(tmp_path / "n.fewbits")
    assert all(value.equal(exact[name]) for name, value in loaded.items())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"evaluate": lambda _: float("nan")}, "finite number"),
        ({"evaluate": lambda _: "good"}, "return a number"),
        ({"evaluate": lambda _: 1.0, "tolerance": -0.1}, "tolerance"),
        ({"evaluate": lambda _: 1.0, "tolerance": float("nan")}, "tolerance"),
        ({"max_error": 0.0}, "max_error"),
        ({"max_error": float("nan")}, "max_error"),
        ({"max_error": 0.1, "budget": 100}, "give one of"),
        ({}, "give one of"),
    ],
)
def test_what_means_nothing_is_refused(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=said):
        fewbits.compress(nn.Linear(40, 40), tmp_path / "n", **given)
    assert not (tmp_path / "n").exists()


def test_an_error_of_the_score_reaches_the_caller_and_leaves_nothing(tmp_path: Path) -> None:
    def fails(_: nn.Module) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fewbits.compress(nn.Linear(4, 4), tmp_path / "n", evaluate=fails)
    assert not list(tmp_path.iterdir())


def test_a_score_that_is_lost_at_some_rates_is_no_reason_to_stop(tmp_path: Path) -> None:
    weight = torch.randn(64, 64)

    def score(tensors: dict[str, Tensor]) -> float:
        error = float((tensors["w"] - weight).square().mean())
        return float("nan") if error > 0.01 else -error

    fewbits.compress({"w": weight}, tmp_path / "n.fewbits", evaluate=score, tolerance=1.0)
    assert 0.008 < float((fewbits.load(tmp_path / "n.fewbits")["w"] - weight).square().mean()) <= 0.01
