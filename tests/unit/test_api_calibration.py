"""`compress` with inputs: better files, an honest note, and one clear sentence where inputs are none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewbits
from fewbits import Curvature, InvalidArgument
from fewbits.calibration import Calibration


class Net(nn.Module):
    """Two layers that read correlated inputs, a head that nothing uses, and a norm."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(width, 48), nn.LayerNorm(48), nn.Linear(48, 20)
        self.unused = nn.Linear(20, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.norm(self.first(x))))


def _batches(count: int, size: int = 40, noise: float = 0.1) -> list[Tensor]:
    mixed = torch.randn(4, 24) * torch.tensor([[4.0], [2.0], [1.0], [0.5]])
    return [torch.randn(size, 4) @ mixed + noise * torch.randn(size, 24) for _ in range(count)]


@pytest.fixture
def net() -> Net:
    torch.manual_seed(3)
    return Net().eval()


def _loss(net: nn.Module, path: Path, x: Tensor) -> float:
    with torch.no_grad():
        return float((fewbits.load(path, into=Net()).eval()(x) - net(x)).square().sum() / net(x).square().sum())


def test_inputs_make_better_files_of_the_same_size(net: Net, tmp_path: Path) -> None:
    torch.manual_seed(4)
    *batches, held_out = _batches(9)
    path, losses = tmp_path / "n.fewbits", list[float]()
    for given in ({}, {"inputs": batches, "method": "ecsq"}, {"inputs": batches}):
        fewbits.compress(net, path, bits=3.0, **given)
        losses.append(_loss(net, path, held_out))
    assert losses[2] < 0.6 * losses[1] < losses[0]


def test_the_report_says_which_error_of_outputs_to_expect(net: Net, tmp_path: Path) -> None:
    torch.manual_seed(4)
    batches = _batches(16, noise=2.0)
    report = fewbits.compress(net, tmp_path / "n.fewbits", bits=4.0, inputs=iter(batches))
    (note,) = report.notes
    expected, found = (float(word) for word in note.split() if word[0].isdigit())
    assert 0.5 < found / expected < 2
    assert found == pytest.approx(_loss(net, tmp_path / "n.fewbits", torch.cat(batches[:4])), rel=0.2)
    methods = {tensor.name: tensor.method for tensor in report.tensors}
    assert methods["first.weight"] == "sic" and methods["unused.weight"] == "ecsq"


def test_an_alarm_where_the_curvatures_do_not_fit(net: Net, tmp_path: Path) -> None:
    torch.manual_seed(5)
    quiet = [0.01 * torch.randn(1, 24)]  # one input says nothing of most directions

    def batches() -> Iterator[Tensor]:
        yield from [30 * batch for batch in _batches(3, 1)]
        yield from quiet * 200

    class Loud(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).pow(2))

    report = fewbits.compress(Loud(), tmp_path / "n.fewbits", bits=3.0, inputs=batches())
    assert len(report.notes) == 1


def test_curvatures_serve_many_files(net: Net, tmp_path: Path) -> None:
    torch.manual_seed(4)
    batches = _batches(6)
    costs = fewbits.curvatures(net, batches)
    once, twice = tmp_path / "1.fewbits", tmp_path / "2.fewbits"
    fewbits.compress(net, once, bits=3.0, statistics=costs)
    fewbits.compress(net, twice, bits=3.0, inputs=batches)
    assert once.read_bytes() == twice.read_bytes()
    assert fewbits.compress(net, once, max_error=0.1, statistics=costs).worst_error <= 0.1


def test_synthetic_inputs_and_a_measure(net: Net, tmp_path: Path) -> None:
    report = fewbits.compress(net, tmp_path / "n.fewbits", bits=3.0, inputs="synthetic", method="sic")
    assert {"sic", "ecsq"} <= {tensor.method for tensor in report.tensors}
    first = fewbits.compress(
        net, tmp_path / "n.fewbits", bits=3.0, inputs="synthetic", method="sic", measure=lambda output: output[:, :1]
    )
    errors = {tensor.name: tensor.relative_error for tensor in first.tensors}
    before = {tensor.name: tensor.relative_error for tensor in report.tensors}
    assert errors["second.weight"] > before["second.weight"]  # of which all rows but one do not matter


def test_synthetic_inputs_move_errors_where_they_are_tokens(net: Net, tmp_path: Path) -> None:
    words = nn.Sequential(nn.Embedding(40, 16), nn.Linear(16, 20))
    for module, method in ((net, "ecsq"), (words, "sic")):
        report = fewbits.compress(module, tmp_path / "n.fewbits", bits=4.0, inputs="synthetic")
        assert method in {tensor.method for tensor in report.tensors if len(tensor.shape) == 2}
        assert ("sic" in {tensor.method for tensor in report.tensors}) == (method == "sic")


def test_a_module_that_fails_when_it_is_compared_leaves_no_file(tmp_path: Path) -> None:
    class Once(Net):
        runs = 0

        def forward(self, x: Tensor) -> Tensor:
            Once.runs += 1
            if Once.runs > 2:
                raise RuntimeError("once is enough")
            return super().forward(x)

    with pytest.raises(RuntimeError, match="once is enough"):
        fewbits.compress(Once(), tmp_path / "n.fewbits", bits=3.0, inputs=_batches(2))
    assert not list(tmp_path.iterdir())


def test_curvatures_that_are_given_count_beside_synthetic_inputs(net: Net, tmp_path: Path) -> None:
    given = {"first.weight": Curvature(np.eye(24), np.full(48, 1 / 48))}
    report = fewbits.compress(net, tmp_path / "n.fewbits", bits=3.0, inputs="synthetic", statistics=given)
    assert {tensor.name: tensor.method for tensor in report.tensors}["first.weight"] == "sic"


class Words(nn.Module):
    """Reads token ids, or refuses all there are."""

    def __init__(self, least: int = 0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.words, self.head, self.least = nn.Embedding(60, 24), nn.Linear(24, 30), least

    def forward(self, ids: Tensor) -> Tensor:
        if bool((ids < self.least).any()):
            raise ValueError("such ids are not known")
        return self.head(self.words(ids).mean(1))


@pytest.mark.parametrize("source", [Net, Words])
def test_a_module_is_tried_on_synthetic_inputs(source: type[nn.Module], tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.fewbits" for name in ("auto", "synthetic", "none", "state")}
    module = source()
    report = fewbits.compress(module, files["auto"], bits=3.0)
    assert "from random inputs" in report.notes[-1]
    fewbits.compress(module, files["synthetic"], bits=3.0, inputs="synthetic")
    assert fewbits.compress(module, files["none"], bits=3.0, inputs=None).notes == ()
    fewbits.compress(module.state_dict(), files["state"], bits=3.0)
    auto, synthetic, none, state = (path.read_bytes() for path in files.values())
    assert auto == synthetic != none == state


def test_a_module_that_takes_no_synthetic_inputs_is_compressed_all_the_same(tmp_path: Path) -> None:
    one, other = tmp_path / "one.fewbits", tmp_path / "other.fewbits"
    report = fewbits.compress(Words(least=61), one, bits=3.0)
    fewbits.compress(Words(), other, bits=3.0, inputs=None)
    assert one.read_bytes() == other.read_bytes() and "tried on no inputs: no synthetic input fits" in report.notes[-1]
    for given in ({"measure": "probabilities"}, {"method": "sic"}, {"inputs": "synthetic"}, {"tune": 5}):
        with pytest.raises(InvalidArgument, match="no synthetic input fits"):
            fewbits.compress(Words(least=61), tmp_path / "third.fewbits", bits=3.0, **given)


def test_statistics_that_are_given_stand_alone(tmp_path: Path) -> None:
    one, other = tmp_path / "one.fewbits", tmp_path / "other.fewbits"
    for path, given in ((one, {}), (other, {"inputs": None})):
        assert not fewbits.compress(Words(), path, bits=3.0, statistics={"head.weight": 2.0}, **given).notes
    assert one.read_bytes() == other.read_bytes()


def _stopped() -> Iterator[Tensor]:
    yield torch.randn(4, 24)
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs": []}, "there is no input to try."),
        ({"inputs": [torch.randn(4, 23)]}, "the module does not take batch 1: RuntimeError."),
        ({"inputs": [{"y": torch.randn(4, 24)}]}, "the module does not take batch 1: TypeError."),
        ({"inputs": [torch.full((4, 24), float("nan"))]}, "the module's outputs must be"),
        ({"inputs": "made up"}, 'inputs are batches, or "synthetic"'),
        ({"inputs": [torch.randn(4, 24)], "measure": "logits"}, "what is measured is a function"),
        ({"inputs": [torch.randn(4, 24)], "measure": "probabilities", "method": "ecsq"}, "'ecsq' takes no curvatures"),
        ({"measure": "probabilities", "inputs": None}, "there are no inputs="),
        ({"measure": "logits"}, "'ecsq' takes no curvatures: measure= must be a function"),
        ({"method": "sic", "inputs": None}, "'sic' must know what errors cost"),
        ({"inputs": [torch.randn(4, 24, device="meta")]}, "the module does not take batch 1"),
    ],
)
def test_inputs_that_are_none(net: Net, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message.replace("(", r"\(")):
        fewbits.compress(net, tmp_path / "n.fewbits", bits=3.0, **given)
    assert not list(tmp_path.iterdir())


def test_inputs_need_a_module_and_something_to_lose(net: Net, tmp_path: Path) -> None:
    batches = [torch.randn(4, 24)]
    with pytest.raises(InvalidArgument, match="the source is none"):
        fewbits.compress(net.state_dict(), tmp_path / "n.fewbits", bits=3.0, inputs=batches)
    with pytest.raises(InvalidArgument, match="leave inputs= out"):
        fewbits.compress(net, tmp_path / "n.fewbits", lossless=True, inputs=batches)


def test_an_interruption_leaves_nothing_behind(net: Net, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fewbits.compress(net, tmp_path / "n.fewbits", bits=3.0, inputs=_stopped())
    assert not list(tmp_path.iterdir())
    assert all(value.requires_grad and value.grad is None for value in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("curvature", "message"),
    [
        (Curvature(np.eye(23), np.ones(48)), "must be finite, of 24 columns and 48 rows"),
        (Curvature(np.eye(24), np.ones(47)), "must be finite, of 24 columns and 48 rows"),
        (Curvature(np.eye(24) * np.nan, np.ones(48)), "must be finite"),
        (Curvature(np.diag([0.0] + 23 * [1.0]), np.ones(48)), "above 0 for each column and row"),
        (Curvature(np.eye(24), -np.ones(48)), "above 0 for each column and row"),
        (
            Curvature(np.eye(24), np.ones(48), np.zeros((47, 2), np.float32)),
            "'first.weight' must be of 48 rows",
        ),
        (Curvature(np.eye(24), np.ones(48), np.zeros(48, np.float32)), "'first.weight' must be of 48 rows"),
        (Curvature(np.eye(24), np.ones(48), np.full((48, 2), 0.8, np.float32)), "squares adding up to 1 at most"),
        (Curvature(np.eye(24), np.ones(48), np.full((48, 2), np.nan, np.float32)), "squares adding up to 1 at most"),
    ],
)
def test_curvatures_that_are_none(net: Net, tmp_path: Path, curvature: Curvature, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        fewbits.compress(net, tmp_path / "n.fewbits", bits=3.0, statistics={"first.weight": curvature})
    assert not list(tmp_path.iterdir())


def test_a_method_that_takes_no_curvatures_says_so(net: Net, tmp_path: Path) -> None:
    given = {"first.weight": Curvature(np.eye(24), np.ones(48))}
    with pytest.raises(InvalidArgument, match="which 'ecsq' has no use for"):
        fewbits.compress(net, tmp_path / "n.fewbits", bits=3.0, statistics=given, method="ecsq")


def test_few_inputs_leave_singular_covariances_that_are_coded(net: Net, tmp_path: Path) -> None:
    report = fewbits.compress(net, tmp_path / "n.fewbits", bits=3.0, inputs=[torch.randn(1, 24)])
    assert report.overall_error < 1
    singular = {"first.weight": Curvature(np.ones((24, 24)), np.full(48, 1 / 48))}
    fewbits.compress(net, tmp_path / "n.fewbits", bits=3.0, statistics=singular)
    assert all(bool(value.isfinite().all()) for value in fewbits.load(tmp_path / "n.fewbits").values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_module_in_half_precision(net: Net, tmp_path: Path, dtype: torch.dtype) -> None:
    half = net.to(dtype)
    batches = [batch.to(dtype) for batch in _batches(4)]
    report = fewbits.compress(half, tmp_path / "n.fewbits", bits=4.0, inputs=batches)
    assert {value.dtype for value in fewbits.load(tmp_path / "n.fewbits").values()} == {dtype}
    assert 0 < report.overall_error < 0.3


def test_errors_of_rows_that_meet_are_foretold_together(net: Net) -> None:
    rng, weight = np.random.default_rng(0), net.first.weight.detach()
    couplings = 0.5 * rng.uniform(-1, 1, (48, 3)).astype(np.float32)
    inputs, outputs = np.eye(24) + 0.2, rng.uniform(0.5, 1, 48)
    calibration = Calibration(net, None, {"first.weight": Curvature(inputs, outputs, couplings)}, [])
    errors = 0.1 * rng.standard_normal((48, 24))
    roots = np.sqrt(outputs)[:, None] * couplings
    rows = roots @ roots.T
    np.fill_diagonal(rows, outputs)
    expected = np.einsum("rs,ri,ij,sj->", rows, errors, inputs, errors)
    assert calibration.expected([{"first.weight": weight + torch.from_numpy(errors).float()}]) == pytest.approx(
        expected, rel=1e-4
    )
