"""What errors of weights cost, as gradients tell: against Jacobians, and against errors that are tried."""

import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewbits import InvalidArgument
from fewbits.method import Curvature
from fewbits.nn import curvature_sums
from fewbits.nn.curvatures import curvatures


class Tokens(nn.Module):
    """Each place is read by itself, and all of them are felt together."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh()).sin().mean(1)


class Images(nn.Module):
    """Convolutions of several kinds, one of which is changed in place, one of which has groups."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, stride=2, padding_mode="circular")
        self.grouped = nn.Conv2d(8, 8, 3, groups=4)
        self.norm = nn.BatchNorm2d(8)
        self.line = nn.Conv1d(8, 6, 3, padding="same", dilation=2)
        self.dense = nn.Linear(6, 7)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm(self.grouped(self.relu(self.conv(images)))).tanh()
        return self.dense(self.relu(self.line(hidden.flatten(2))).mean(2))


class Words(nn.Module):
    """A language model, tied or not, with positions that all sentences share, and a head that is not used."""

    def __init__(self, tied: bool = False, functional: bool = False) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(400, 16, padding_idx=0), nn.Embedding(9, 16)
        self.body, self.head, self.unused = nn.Linear(16, 16), nn.Linear(16, 400, bias=False), nn.Linear(16, 2)
        if tied:
            self.head.weight = self.words.weight
        self.functional = functional

    def forward(self, ids: Tensor) -> Any:
        hidden = self.words(ids) + self.positions(torch.arange(ids.shape[1])[None])
        hidden = self.body(hidden).tanh()
        return nn.functional.linear(hidden, self.words.weight) if self.functional else self.head(hidden)


def curvature_of(found: dict[str, float | Curvature], name: str) -> Curvature:
    value = found[name]
    assert isinstance(value, Curvature)
    assert value.inputs.dtype in (np.float32, np.float64) and value.outputs.dtype == np.float64
    assert np.array_equal(value.inputs, value.inputs.T) and np.linalg.eigvalsh(value.inputs).min() > 0
    assert value.outputs.min() > 0 and value.outputs.sum() == pytest.approx(1)
    return value


def cost(curvature: Curvature, error: Tensor) -> float:
    matrix = error.flatten(1).double().numpy()
    return float(((matrix @ curvature.inputs) * matrix).sum(1) @ curvature.outputs)


def undamped(inputs: Any) -> Any:
    return inputs - np.eye(len(inputs)) * (np.trace(inputs) / 1.01 * 0.01 / len(inputs))


def by_jacobians(net: nn.Module, name: str, x: Tensor) -> tuple[Any, Any, Any]:
    """The means over samples of W'ᵀ W' (n, n) and of the diagonal of W' W'ᵀ (R,), all v taken at once; and what each
    sample feels of it, (B,)."""

    def output(value: Tensor, sample: Tensor) -> Tensor:
        return torch.func.functional_call(net, {name: value}, (sample[None],))[0]

    jacobian = torch.func.vmap(torch.func.jacrev(output), (None, 0))(net.get_parameter(name).detach(), x)
    jacobian = jacobian.detach() / net(x).detach().square().sum().div(len(x)).sqrt()  # (B, outputs, R, n)
    sums = (torch.einsum(of, jacobian, jacobian) for of in ("born,borm->nm", "born,born->r", "born,born->b"))
    inputs, outputs, felt = (each.numpy() for each in sums)
    return inputs / len(x), outputs / len(x), felt


@pytest.mark.parametrize("places", [2, 40])  # the weight has 5 rows of 4: few, and many
def test_factors_are_those_of_the_jacobian(places: int) -> None:
    torch.manual_seed(0)
    net, x = Tokens(), torch.randn(5, places, 4)
    with torch.no_grad():
        reads = {"first.weight": x, "second.weight": net.first(x).tanh()}
    found = curvatures(net, [x.repeat(3000, 1, 1)])  # v is another in each
    for name, read in reads.items():
        inputs, outputs, felt = by_jacobians(net, name, x)
        alike = read * torch.from_numpy(felt).div(read.square().sum((1, 2))).sqrt()[:, None, None]
        expected = (inputs + torch.einsum("btn,btm->nm", alike, alike).numpy() / len(x)) / 2
        curvature = curvature_of(found, name)
        assert np.trace(curvature.inputs) == pytest.approx(1.01 * np.trace(inputs), rel=0.03)
        assert np.linalg.norm(undamped(curvature.inputs) - expected) < 0.03 * np.linalg.norm(expected)
        assert curvature.outputs == pytest.approx(outputs / outputs.sum(), rel=0.05)


def test_batches_count_by_their_samples() -> None:
    torch.manual_seed(1)
    net, batches = nn.Linear(6, 50, bias=False), [torch.randn(300, 6), 10 * torch.randn(100, 6) + 5]
    curvature = curvature_of(curvatures(net, batches), "weight")
    expected = np.zeros((6, 6))
    for x in batches:
        energy = net(x).detach().square().sum()
        expected += (50 / 400) * len(x) * (x.T @ x / energy).numpy()
    # What a sample of one place feels lies along what it read: both halves are alike.
    assert np.linalg.norm(undamped(curvature.inputs) - expected) < 0.04 * np.linalg.norm(expected)
    assert curvature.outputs == pytest.approx(np.full(50, 1 / 50), rel=0.4)


@pytest.mark.parametrize("places", [1, 3, 50])
def test_both_ways_agree(places: int) -> None:
    torch.manual_seed(2)
    x, g = torch.randn(9, places, 4).double(), torch.randn(9, places, 6).double()
    each = [a.T @ b for a, b in zip(g, x, strict=True)]
    for add in (curvature_sums.add_by_weight, curvature_sums.add_by_places):
        inputs = torch.ones(4, 4).double()
        felt = add(inputs, x, g)
        assert torch.allclose(inputs, 1 + sum(w.T @ w for w in each))
        assert torch.allclose(felt, torch.stack([w.square().sum(1) for w in each]))


def test_what_is_held_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    net, x = Images(), torch.randn(20, 3, 12, 10)
    whole = curvatures(net, [x])
    monkeypatch.setattr(curvature_sums, "_MOST", 1)
    for name, value in curvatures(net, [x]).items():
        if isinstance(value, Curvature):
            assert value.inputs == pytest.approx(curvature_of(whole, name).inputs, rel=1e-3, abs=1e-5)


def told_and_found(net: nn.Module, x: Tensor) -> Iterator[tuple[str, float, float]]:
    """What errors of 1 % of each weight are said to cost, and cost."""
    net.eval()

    clean = net(x).detach()
    for name, value in curvatures(net, x.split(len(x) // 150)).items():
        weight, told, found = net.get_parameter(name).data, 0.0, 0.0
        held = weight.clone()
        # Errors at right angles: of a small weight, all that there are.
        basis = torch.linalg.qr(torch.randn(held.numel(), min(held.numel(), 150)))[0]
        for error in 0.01 * held.norm() * basis.T.reshape(-1, *held.shape):
            weight.copy_(held + error)
            with torch.no_grad():
                found += float((net(x) - clean).square().sum() / clean.square().sum())
            weight.copy_(held)
            if isinstance(value, Curvature):
                told += cost(value, error)
            else:
                told += value * float(error.square().sum() / held.square().sum())
        yield name, told, found


@pytest.mark.parametrize("kind", ["mlp", "tokens", "images", "words"])
def test_what_an_error_costs_is_told(kind: str) -> None:
    torch.manual_seed(4)
    net, shape = {
        "mlp": (
            nn.Sequential(nn.Linear(20, 30), nn.GELU(), nn.Linear(30, 30), nn.Tanh(), nn.Linear(30, 9)),
            (1000, 20),
        ),
        "tokens": (Tokens(), (2000, 6, 4)),
        "images": (Images(), (450, 3, 12, 10)),
        "words": (Words(), (300, 9)),
    }[kind]
    for each in net.parameters():  # no vector is all ones, or zeros
        each.data += 0.1 * torch.randn(each.shape)
    x = torch.randint(1, 400, shape) if kind == "words" else torch.randn(shape)
    for name, told, found in told_and_found(net, x):
        if name.startswith("unused"):
            assert told == found == 0
        else:
            assert told == pytest.approx(found, rel=0.2), name


def test_rows_of_a_table_cost_by_their_use() -> None:
    torch.manual_seed(5)
    net = nn.Sequential(nn.Embedding(50, 8, padding_idx=3), nn.Linear(8, 8), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4))
    ids = torch.where(torch.rand(1000, 6) < 0.5, 7, torch.randint(10, 50, (1000, 6)))
    ids[:, 0] = 3
    outputs = curvature_of(curvatures(net, [ids]), "0.weight").outputs
    assert outputs[7] > 10 * outputs[10:].mean()
    assert outputs[:7] == pytest.approx(outputs[0])  # never used, or padding: 3 uses in 10,000 samples
    assert outputs[0] == pytest.approx(3e-4 / 5, rel=0.1)  # of 5 uses a sample that are felt


def test_what_all_samples_share_counts_once_a_sample() -> None:
    torch.manual_seed(6)
    net, ids = Words(), torch.randint(1, 400, (1600, 9))
    outputs = curvature_of(curvatures(net, ids.split(4)), "positions.weight").outputs
    assert outputs.max() < 2.5 * outputs.min()


def test_the_costs_of_tied_weights_are_added() -> None:
    torch.manual_seed(7)
    tied, apart, ids = Words(tied=True), Words(), torch.randint(1, 400, (60, 9))
    apart.load_state_dict(tied.state_dict())
    one, other = curvatures(tied, [ids]), curvatures(apart, [ids])
    assert "head.weight" not in one
    both, (words, head) = (
        curvature_of(one, "words.weight"),
        (curvature_of(other, f"{n}.weight") for n in ("words", "head")),
    )
    assert both.inputs == pytest.approx(words.inputs + head.inputs, rel=1e-4, abs=1e-6 * float(np.trace(both.inputs)))
    costs = [np.trace(each.inputs) for each in (words, head)]
    assert both.outputs == pytest.approx((costs[0] * words.outputs + costs[1] * head.outputs) / sum(costs), rel=1e-4)


def test_a_layer_that_is_called_twice_costs_both() -> None:
    class Twice(nn.Module):
        def __init__(self, second: nn.Linear | None) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.second = second or self.first

        def forward(self, x: Tensor) -> Tensor:
            return self.second(input=self.first(x).tanh())

    torch.manual_seed(8)
    apart = Twice(nn.Linear(6, 6))
    apart.second.load_state_dict(apart.first.state_dict())
    twice = Twice(None)
    twice.first.load_state_dict(apart.first.state_dict())
    x = torch.randn(50, 6)
    one, other = curvatures(twice, [x]), curvatures(apart, [x])
    costs = [np.trace(curvature_of(other, f"{name}.weight").inputs) for name in ("first", "second")]
    assert np.trace(curvature_of(one, "first.weight").inputs) == pytest.approx(sum(costs))
    assert set(one) == {"first.weight", "first.bias"}


def test_a_weight_that_is_used_otherwise_is_told_by_its_gradient() -> None:
    torch.manual_seed(9)
    ids = torch.randint(1, 400, (60, 9))
    assert isinstance(curvatures(Words(functional=True), [ids])["words.weight"], Curvature)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)  # whose projection's forward is never called
    x = torch.randn(20, 5, 8)
    found = curvatures(attention, [{"query": x, "key": x, "value": x}], measure=lambda output: output[0])
    assert all(isinstance(value, Curvature) for name, value in found.items() if name.endswith("weight"))

    class Doubled(nn.Embedding):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    assert isinstance(curvatures(Doubled(9, 4), [torch.arange(9)])["weight"], Curvature)


def test_the_gradient_of_a_batch_tells_what_samples_do() -> None:
    class Functional(nn.Module):
        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.weight = layer.weight

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(nn.functional.linear(x, self.weight))

    torch.manual_seed(14)
    layer, x = nn.Linear(5, 7, bias=False), torch.randn(20, 5) * torch.tensor([3.0, 1, 1, 1, 0.3])
    by_layer = curvature_of(curvatures(nn.Sequential(layer, nn.Tanh()), [x] * 300), "0.weight")
    by_gradient = curvature_of(curvatures(Functional(layer), [x] * 300), "weight")
    assert np.trace(by_gradient.inputs) == pytest.approx(np.trace(by_layer.inputs), rel=0.1)
    np.testing.assert_allclose(by_gradient.outputs, by_layer.outputs, rtol=0.2)
    assert np.diag(by_gradient.inputs)[0] > 2 * np.diag(by_gradient.inputs)[1]


def test_a_number_is_the_loss_a_unit_of_relative_squared_error() -> None:
    torch.manual_seed(10)
    net, x = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4)), torch.randn(3, 5)
    value = net.get_parameter("0.bias").detach()
    jacobian = torch.func.jacrev(lambda bias: torch.func.functional_call(net, {"0.bias": bias}, (x,)))(value)
    expected = jacobian.square().mean(2).sum() * value.square().sum() / net(x).square().sum()
    assert curvatures(net, [x] * 400)["0.bias"] == pytest.approx(float(expected.detach()), rel=0.1)


def test_what_no_gradient_reaches_costs_nothing() -> None:
    net = Words()
    found = curvatures(net, [torch.randint(1, 400, (4, 9))], measure=lambda logits: logits[..., :0].sum() + 1)
    assert set(found.values()) == {0.0}
    found = curvatures(net, [torch.randint(1, 400, (4, 9))])
    assert found["unused.weight"] == found["unused.bias"] == 0.0
    assert list(found) == [name for name, _ in net.named_parameters()]


class Logits(Words):
    def forward(self, ids: Tensor, form: str = "mapping") -> Any:
        logits = super().forward(ids)
        if form == "object":
            return SimpleNamespace(logits=logits, cache=object())
        return {"loss": torch.tensor(3.0), "logits": logits[..., :1] if form == "one" else logits, "ids": ids}


def test_what_matters_can_be_said() -> None:
    torch.manual_seed(11)
    net, ids = Logits(), torch.randint(1, 400, (50, 9))
    raw = curvatures(net, [ids], measure=lambda output: output["logits"])["body.bias"]
    roots = curvatures(net, [ids], measure=lambda output: output["logits"].softmax(-1).sqrt())["body.bias"]
    assert roots != pytest.approx(raw, rel=0.01)
    assert curvatures(net, [ids])["body.bias"] == pytest.approx(roots, rel=1e-4)
    assert curvatures(net, [(ids, "object")])["body.bias"] == pytest.approx(roots, rel=1e-4)
    assert curvatures(net, [{"ids": ids}], measure="probabilities")["body.bias"] == pytest.approx(roots, rel=1e-4)
    # One logit has no probabilities, and others than those of a class or a word are none.
    one = curvatures(net, [(ids, "one")])["body.bias"]
    assert one == curvatures(net, [(ids, "one")], measure=lambda output: output["logits"])["body.bias"]
    plain = Words()
    plain.load_state_dict(net.state_dict())
    assert curvatures(plain, [ids])["body.bias"] == raw
    assert curvatures(plain, [ids], measure="probabilities")["body.bias"] == pytest.approx(roots, rel=1e-4)


def test_the_cost_of_probabilities_is_half_of_their_divergence() -> None:
    torch.manual_seed(16)
    net, x = nn.Sequential(nn.Linear(8, 30), nn.Tanh(), nn.Linear(30, 10)), torch.randn(2000, 8)
    curvature = curvature_of(curvatures(net, [x], measure="probabilities"), "2.weight")
    told, divergence = 0.0, 0.0
    with torch.no_grad():
        weight, clean = net[2].weight.clone(), net(x).log_softmax(-1)
        for error in 0.02 * torch.randn(30, 10, 30):
            net[2].weight.copy_(weight + error)
            divergence += float((clean.exp() * (clean - net(x).log_softmax(-1))).sum(1).mean())
            told += cost(curvature, error)
    assert told == pytest.approx(divergence / 2, rel=0.1)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    "options", [{}, {"padding": 2, "stride": 2}, {"padding": "same", "dilation": 2}, {"padding": "valid"}]
)
def test_convolutions_of_every_kind_have_both_factors(mode: str, options: dict[str, Any]) -> None:
    torch.manual_seed(17)
    for kind, shape in ((nn.Conv1d, (4, 3, 11)), (nn.Conv2d, (4, 3, 11, 9))):
        net = kind(3, 5, 3, padding_mode=mode, **options)
        # A number is all that it would have if what it reads and makes did not give its gradient.
        curvature = curvature_of(curvatures(net, [torch.randn(shape)]), "weight")
        assert curvature.inputs.shape == (net.weight[0].numel(),) * 2 and curvature.outputs.shape == (5,)


def test_samples_that_a_module_merges_with_time_count_as_often() -> None:
    class Merged(nn.Linear):
        merge = True

        def __init__(self) -> None:
            super().__init__(6, 30)
            self.inner = nn.Linear(6, 6)

        def forward(self, input: Tensor) -> Tensor:
            hidden = self.inner(input.flatten(0, 1)) if self.merge else self.inner(input).flatten(0, 1)
            return super().forward(hidden).unflatten(0, input.shape[:2])

    torch.manual_seed(18)
    net, x = Merged(), torch.randn(500, 5, 6)
    merged = curvature_of(curvatures(net, [x]), "inner.weight")
    net.merge = False
    apart = curvature_of(curvatures(net, [x]), "inner.weight")
    assert np.linalg.norm(merged.inputs - apart.inputs) < 0.1 * np.linalg.norm(apart.inputs)


def test_layers_of_one_sample_without_a_batch() -> None:
    torch.manual_seed(12)
    for net, x in (
        (nn.Linear(4, 5), torch.randn(4)),
        (nn.Conv2d(2, 5, 3), torch.randn(2, 6, 7)),
        (nn.Conv1d(2, 5, 3), torch.randn(2, 9)),
    ):
        weight = curvature_of(curvatures(net, [x]), "weight")
        batched = curvature_of(curvatures(net, [x[None]]), "weight")
        assert weight.inputs == pytest.approx(batched.inputs, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_say_the_same(dtype: torch.dtype) -> None:
    torch.manual_seed(13)
    net, x = Tokens(), torch.randn(200, 6, 4)
    full = curvatures(net, [x])
    found = curvatures(net.to(dtype), [x.to(dtype)])
    for name in ("first.weight", "second.weight"):
        one, other = curvature_of(full, name), curvature_of(found, name)
        assert np.linalg.norm(one.inputs - other.inputs) < 0.03 * np.linalg.norm(one.inputs)
        assert one.outputs == pytest.approx(other.outputs, rel=0.05)
    assert found["first.bias"] == pytest.approx(full["first.bias"], rel=0.1)


class Everything(nn.Module):
    """All that a run may change: dropout, running statistics, frozen weights, gradients, hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.drop, self.norm = nn.Embedding(50, 8, sparse=True), nn.Dropout(0.5), nn.BatchNorm1d(8)
        self.dense = nn.Linear(8, 3)

    def forward(self, ids: Tensor, scale: float = 1.0) -> Any:
        assert not self.norm.training
        return [(self.dense(self.norm(self.drop(self.words(ids).mean(1)))) * scale, ids), None]


@pytest.mark.parametrize("stops", [False, True])
def test_a_module_is_left_as_it_was(stops: bool) -> None:
    torch.manual_seed(14)
    net = Everything().train()
    net.drop.eval()
    net.words.weight.requires_grad_(False)
    net.dense.weight.grad = torch.ones(3, 8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes, state = [part.training for part in net.modules()], torch.get_rng_state()

    def measure(output: Any) -> Tensor:
        if stops:
            raise KeyboardInterrupt
        return output[0][0]

    with torch.no_grad():
        if stops:
            with pytest.raises(KeyboardInterrupt):
                curvatures(net, "synthetic", measure=measure)
            with pytest.raises(InvalidArgument):
                curvatures(net, [torch.full((2, 2), 77)])
        else:
            found = curvatures(net, "synthetic", measure=measure, seed=3)
            again = curvatures(net, "synthetic", measure=measure, seed=3)
            for name in ("words.weight", "dense.weight"):
                one, other = curvature_of(found, name), curvature_of(again, name)
                assert (one.inputs == other.inputs).all() and (one.outputs == other.outputs).all()
            assert not torch.is_grad_enabled()
    assert [part.training for part in net.modules()] == modes
    assert [name for name, value in net.named_parameters() if not value.requires_grad] == ["words.weight"]
    assert net.words.weight.grad is None and net.dense.bias.grad is None
    assert net.dense.weight.grad.equal(torch.ones(3, 8))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    assert torch.get_rng_state().equal(state)


def test_batches_are_read_one_at_a_time() -> None:
    held: list[weakref.ref[Tensor]] = []
    told: list[tuple[str, int, int]] = []

    def batches() -> Iterator[Tensor]:
        for number in range(5):
            assert len(told) == number
            assert all(each() is None for each in held[:-1])
            batch = torch.randn(3, 4)
            held.append(weakref.ref(batch))
            yield batch
            del batch

    net = nn.Linear(4, 2)
    curvatures(net, batches(), progress=lambda *said: told.append(said))
    assert told == [("curvatures", done, done + 1) for done in range(1, 6)]
    told.clear()
    curvatures(net, [torch.randn(3, 4)] * 2, progress=lambda *said: told.append(said))
    assert told == [("curvatures", 1, 2), ("curvatures", 2, 2)]


class Detached(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).detach()


class Overwritten(nn.Linear):
    """Its gradient needs what is no more."""

    def forward(self, input: Tensor) -> Tensor:
        grown = super().forward(input).exp()
        result = grown * 1
        grown.zero_()
        return result


class Steep(nn.Module):
    """Its outputs are finite, its gradients are not."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x) * 0).sqrt() + 1


@pytest.mark.parametrize(
    ("net", "inputs", "measure", "said"),
    [
        (nn.Linear(3, 2), [], None, "no input to try"),
        (nn.Linear(3, 2), "real", None, 'or "synthetic"'),
        (nn.Linear(3, 2), [torch.ones(2, 3)], "logits", 'or "probabilities"'),
        (nn.Linear(3, 2), [torch.ones(2, 3)], lambda output: output.long(), "floating point"),
        (nn.Linear(3, 2), [torch.full((2, 3), torch.nan)], None, "finite"),
        (nn.Linear(3, 2), [torch.ones(2, 3)], lambda output: output * 0, "not all 0"),
        (Detached(3, 2), [torch.ones(2, 3)], None, "no gradient reaches"),
        (Overwritten(3, 2), [torch.ones(2, 3)], None, "cannot be differentiated: RuntimeError"),
        (Steep(), [torch.ones(2, 3)], None, "'inner.weight'.*not finite"),
        (nn.Linear(3, 2), [torch.ones(2, 3), torch.ones(2, 4)], None, "does not take batch 2: RuntimeError"),
        (nn.Linear(3, 2), [{"x": torch.ones(2, 3)}], None, "does not take batch 1: TypeError"),
        (nn.LSTM(3, 2), [torch.ones(2, 3)], "probabilities", "has no logits"),
        (nn.Bilinear(3, 4, 5), "synthetic", None, "no synthetic input"),
    ],
)
def test_what_cannot_be_told_is_refused(net: nn.Module, inputs: Any, measure: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        curvatures(net, inputs, measure=measure)


def test_how_errors_of_rows_meet_is_known_along_some_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 80, bias=False), nn.Linear(80, 3, bias=False))
    net.requires_grad_(False)
    for weight in net.parameters():
        weight.copy_(torch.randn(weight.shape, generator=generator))
    found = curvatures(net, [torch.randn(50, 6, generator=generator) for _ in range(40)])
    known = found["0.weight"]
    assert isinstance(known, Curvature) and known.couplings is not None
    assert known.couplings.shape == (80, 40) and known.couplings.dtype == np.float32
    # The second layer makes 3 outputs of 80 rows: gradients lie in 3 directions, which are all that is to be known.
    second = net[1].weight.double().numpy()
    expected = second.T @ second
    expected /= np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(known.couplings @ known.couplings.T, expected, atol=0.1)
    few = found["1.weight"]
    assert isinstance(few, Curvature) and few.couplings is None


def test_rows_without_gradients_do_not_meet() -> None:
    net = nn.Sequential(nn.Linear(6, 80, bias=False), nn.Linear(80, 3, bias=False))
    with torch.no_grad():
        net[1].weight[:, 40:] = 0
    found = curvatures(net, [torch.randn(20, 6)])["0.weight"]
    assert isinstance(found, Curvature) and found.couplings is not None
    assert np.isfinite(found.couplings).all() and not found.couplings[40:].any()
    assert (np.square(found.couplings).sum(1) <= 1.001).all()
