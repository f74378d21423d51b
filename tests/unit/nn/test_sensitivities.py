"""What an error of a tensor costs, as trying it finds; and the random inputs that it is tried on."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewbits
from fewbits import InvalidArgument
from fewbits.nn.inputs import synthetic_inputs
from fewbits.quantize.rounding import sensitivity_by_size


class TwoPaths(nn.Module):
    """The output hears one path a hundred times as loudly as the other, and a third not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.loud, self.quiet, self.unheard = (nn.Linear(16, 16, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        self.unheard(x)
        return 10 * self.loud(x) + 0.1 * self.quiet(x)


def test_what_is_felt_more_counts_more_and_nothing_less_than_a_share_of_what_its_size_says() -> None:
    torch.manual_seed(0)
    net, by_size = TwoPaths(), sensitivity_by_size(256)
    found = fewbits.sensitivities(net, [torch.randn(64, 16)])
    # Their relative errors are 1 and 10^-4 of the output's; the third is not felt, and not in the mean of both.
    assert found["loud.weight"] == pytest.approx(100 * by_size, rel=0.3)
    assert found["quiet.weight"] == found["unheard.weight"] == pytest.approx(0.5 * by_size)


def test_where_nothing_is_felt_nothing_is_said() -> None:
    class Constant(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return torch.ones(3)

    assert fewbits.sensitivities(Constant(4, 4), [torch.randn(2, 4)]) == {}


def test_bits_go_where_outputs_feel_them(tmp_path: Any) -> None:
    torch.manual_seed(1)
    net, x = TwoPaths().eval(), torch.randn(200, 16)

    def error(**given: Any) -> float:
        fewbits.compress(net, tmp_path / "n.fewbits", bits=3.0, method="ecsq", **given)
        with torch.no_grad():
            return float((fewbits.load(tmp_path / "n.fewbits", into=TwoPaths())(x) - net(x)).square().mean())

    assert error(inputs="synthetic") < 0.2 * error(inputs=None)
    assert error(inputs=[torch.randn(50, 16)]) < 0.2 * error(inputs=None)
    # What is known counts before what is found out.
    known = {"loud.weight": 1e-9}
    assert error(inputs="synthetic", statistics=known) > error(inputs=None)


class Classifier(nn.Module):
    """With all that a run may change: dropout, running statistics, a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(8, 50, bias=False)
        self.out.weight = self.words.weight

    def forward(self, ids: Tensor, scale: float = 1.0) -> dict[str, Any]:
        assert not self.norm.training
        hidden = self.norm(self.drop(self.words(ids).mean(1)))
        return {"logits": self.out(hidden) * scale, "more": [hidden, (ids, None)], "ids": ids}


def test_a_module_is_left_as_it_was() -> None:
    net = Classifier().train()
    net.drop.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [part.training for part in net.modules()]
    state = torch.get_rng_state()
    found = fewbits.sensitivities(net, "synthetic", seed=3)
    assert set(found) == {"words.weight"}  # a tie counts once, and vectors by their size
    assert all(value > 0 for value in found.values())
    assert [part.training for part in net.modules()] == modes
    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    assert fewbits.sensitivities(net, "synthetic", seed=3) == found


def test_batches_are_tensors_tuples_or_mappings_and_what_matters_can_be_said() -> None:
    torch.manual_seed(2)
    net, ids = Classifier(), torch.randint(50, (20, 5))
    plain = fewbits.sensitivities(net, [ids])
    assert fewbits.sensitivities(net, [(ids, 1.0)]) == plain == fewbits.sensitivities(net, [{"ids": ids}])
    logits = fewbits.sensitivities(net, [ids], measure=lambda output: output["logits"])
    assert logits == plain  # of one weight there is nothing to compare
    told: list[tuple[str, int, int]] = []
    fewbits.sensitivities(net, iter([ids]), progress=lambda *said: told.append(said))
    assert told == [("sensitivities", 1, 1)]


def test_an_error_in_the_middle_leaves_the_module_as_it_was() -> None:
    net, calls = TwoPaths().train(), [0]
    before = net.loud.weight.detach().clone()

    def stops(output: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return output

    with pytest.raises(KeyboardInterrupt):
        fewbits.sensitivities(net, [torch.randn(4, 16)], measure=stops)
    assert net.loud.weight.equal(before) and net.training


@pytest.mark.parametrize(
    ("net", "inputs", "said"),
    [
        (TwoPaths(), [], "no input to try"),
        (TwoPaths(), "real", 'or "synthetic"'),
        (TwoPaths(), [torch.full((2, 16), torch.nan)], "finite"),
        (nn.Embedding(4, 4), [torch.zeros(2, dtype=torch.int64)], "finite"),
        (nn.Sequential(nn.Flatten(), nn.ReLU()), "synthetic", "no synthetic input"),
        (nn.Bilinear(3, 4, 5), "synthetic", "no synthetic input"),
    ],
)
def test_what_cannot_be_tried_is_refused(net: nn.Module, inputs: Any, said: str) -> None:
    measure = (lambda output: output.long()) if isinstance(net, nn.Embedding) else None
    with pytest.raises(InvalidArgument, match=said):
        fewbits.sensitivities(net, inputs, measure=measure)


def test_only_a_module_has_inputs(tmp_path: Any) -> None:
    with pytest.raises(InvalidArgument, match="module"):
        fewbits.compress(TwoPaths().state_dict(), tmp_path / "n", bits=2.0, inputs="synthetic")
    with pytest.raises(InvalidArgument, match="keeps every bit"):
        fewbits.compress(TwoPaths(), tmp_path / "n", lossless=True, inputs="synthetic")
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nn.Linear(7, 3), (64, 7)),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), (16, 3, 32, 32)),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 2)), (16, 1, 28, 28)),
    ],
)
def test_synthetic_inputs_are_of_the_kind_and_size_that_a_module_reads(net: nn.Module, shape: tuple[int, ...]) -> None:
    (found,), are_sampled = synthetic_inputs(net, seed=1)
    assert found.shape == shape
    assert float(found.std()) == pytest.approx(1, abs=0.1)
    assert not are_sampled
    same, other = (synthetic_inputs(net, seed=seed).batches[0] for seed in (1, 2))
    assert same.equal(found) and not other.equal(found)
    assert synthetic_inputs(net.bfloat16()).batches[0].dtype == torch.bfloat16


class Sentences(nn.Module):
    """A table of words, one of positions, and a head that may be the table of words again; all words see each other."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(8000, 64), nn.Embedding(64, 64)
        self.body, self.head = nn.Linear(64, 64), nn.Linear(64, 8000, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        read = self.words(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.head(self.body(read + read.mean(1, keepdim=True)))


def test_rows_of_a_table_of_words_count_by_how_often_they_are_used() -> None:
    torch.manual_seed(3)
    found = fewbits.sensitivities(Sentences(), "synthetic")
    rows = found["words.weight"]
    assert isinstance(rows, Tensor) and rows.shape == (8000,)
    assert float(rows[99] / rows[999]) == pytest.approx(10**0.7)
    assert all(isinstance(found[name], float) for name in ("positions.weight", "body.weight", "head.weight"))
    tied = fewbits.sensitivities(Sentences(tied=True), "synthetic")
    assert isinstance(tied["words.weight"], float)


def test_frequent_words_are_finer(tmp_path: Any) -> None:
    torch.manual_seed(4)
    net, path = Sentences(), tmp_path / "file.fewbits"
    report = fewbits.compress(net, path, bits=3.0, inputs="synthetic")
    assert 2.9 <= report.bits_per_weight <= 3.0
    words = net.words.weight.detach()
    errors = (fewbits.load(path)["words.weight"] - words).square().mean(1)
    assert errors[:500].mean() < 0.6 * errors[7500:].mean()
    assert len(fewbits.info(path).tensors) == len(net.state_dict())
    # The whole tensor's error is recorded once, over all of its runs of rows.
    recorded = next(t.relative_error for t in fewbits.info(path).tensors if t.name == "words.weight")
    assert recorded == pytest.approx(float(errors.mean().sqrt() / words.square().mean().sqrt()), rel=4e-3)
