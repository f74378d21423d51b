"""Training through a module: what attach changes, what it leaves, and what a loop gets from it."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import fewbits
from fewbits.encode import decode
from fewbits.errors import InvalidArgument
from fewbits.methods.epr import Epr, EprConfig
from fewbits.nn.attach import Attached, attach, attached_of


class Tied(nn.Module):
    """Shares a tensor between layers, and a layer between names; has buffers, and parameters of odd kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.middle = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 10, bias=False)
        self.head.weight = self.embedding.weight
        self.again = self.middle
        self.empty = nn.Parameter(torch.zeros(0))
        self.frozen = nn.Parameter(torch.tensor([0.1, 0.2]), requires_grad=False)
        self.count = nn.Parameter(torch.arange(3), requires_grad=False)
        self.register_buffer("passing", torch.ones(2), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.again(self.middle(self.embedding(tokens)))))


TOKENS = torch.arange(10)


@pytest.fixture(autouse=True)
def _seeded_and_on_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small networks lose time to threads, on a busy machine most of it
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def train(module: nn.Module, attached: Attached, inputs: Tensor, labels: Tensor, steps: int, lr: float) -> None:
    """Run an ordinary loop."""
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    attached.check(optimizer)
    for _ in range(steps):
        loss = cross_entropy(module(inputs), labels) + attached.rate_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_training_lowers_bits_while_fitting() -> None:
    inputs = torch.randn(512, 16)
    labels = (inputs[:, 0] > 0).long() + 2 * (inputs[:, 1] > 0).long()
    module = perceptron()
    attached = attach(module, Epr(), rate_weight=0.3)
    module.eval()(inputs)
    before = float(attached.bits())
    train(module.train(), attached, inputs, labels, 300, 2e-2)
    accuracy = float((module.eval()(inputs).argmax(1) == labels).float().mean())
    assert float(attached.bits()) < 0.8 * before
    assert accuracy > 0.95


def test_rate_loss_is_the_rate_weight_times_bits_a_weight_of_the_same_draw() -> None:
    module = perceptron()
    attached = attach(module, Epr(), rate_weight=3.0)
    module(torch.randn(2, 16))
    num_weights = 16 * 32 + 32 + 32 * 4 + 4
    assert attached.representation.num_weights == num_weights
    expected = 3 * attached.bits() / num_weights
    assert torch.equal(attached.rate_loss(), expected) and torch.equal(attached.rate_loss(), expected)


def test_rate_loss_before_any_forward_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="run the attached module first"):
        attach(perceptron(), Epr(), rate_weight=1.0).rate_loss()


def test_rate_loss_of_a_forward_without_gradients_is_refused() -> None:
    module = perceptron()
    attached = attach(module, Epr(), rate_weight=1.0)
    with torch.no_grad():
        module(torch.randn(2, 16))
        attached.rate_loss()
    with pytest.raises(InvalidArgument, match="no_grad"):
        attached.rate_loss()
    module.eval()(torch.randn(2, 16))
    attached.rate_loss()


def test_an_optimizer_made_before_attach_is_refused() -> None:
    module = perceptron()
    early = torch.optim.Adam(module.parameters())
    attached = attach(module, Epr(), rate_weight=1.0)
    with pytest.raises(InvalidArgument, match="none of the latents"):
        attached.check(early)
    attached.check(torch.optim.Adam(module.parameters()))


def test_parameters_are_the_latents_and_each_gets_a_gradient() -> None:
    module = perceptron()
    attached = attach(module, Epr(), rate_weight=1.0)
    training = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
    assert training == {id(parameter) for parameter in attached.representation.parameters()}
    (module(torch.randn(8, 16)).square().sum() + attached.rate_loss()).backward()
    for parameter in attached.representation.parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all())


def test_one_draw_serves_a_whole_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    module = perceptron()
    attached = attach(module, Epr(), rate_weight=1.0)
    draws = 0
    forward = attached.representation.forward

    def counted() -> object:
        nonlocal draws
        draws += 1
        return forward()

    monkeypatch.setattr(attached.representation, "forward", counted)
    module(torch.randn(2, 16))
    assert draws == 1


def test_weights_read_after_an_optimizer_step_are_new() -> None:
    module = perceptron()
    attached = attach(module, Epr(), rate_weight=1.0)
    module(torch.randn(2, 16))
    before = module[0].weight.detach().clone()
    with torch.no_grad():
        attached.representation.get_parameter("tensors.0.latents").add_(1)
    assert not torch.equal(module[0].weight, before)


def test_a_draw_ends_with_a_forward_that_fails() -> None:
    module = perceptron()
    attached = attach(module, Epr(), rate_weight=1.0)
    with pytest.raises(RuntimeError):
        module(torch.randn(2, 3))
    before = module[0].weight.detach().clone()
    with torch.no_grad():
        attached.representation.get_parameter("tensors.0.latents").add_(1)
    assert not torch.equal(module[0].weight, before)


def test_in_eval_the_module_computes_with_what_a_file_decodes_to(tmp_path: Path) -> None:
    module, inputs = perceptron(), torch.randn(64, 16)
    receiver = copy.deepcopy(module)
    attached = attach(module, Epr(), rate_weight=0.1)
    train(module, attached, inputs, torch.randint(4, (64,)), 5, 1e-2)
    outputs = module.eval()(inputs)
    for bare in (False, True):
        fewbits.save(module, tmp_path / "m.fewbits", bare=bare, keep_units=True)
        assert torch.equal(fewbits.load(tmp_path / "m.fewbits", into=receiver).eval()(inputs), outputs)
    values = attached.representation.eval()().values
    assert torch.equal(functional_call(receiver, dict(values), (inputs,)), outputs)


def sparse_perceptron() -> tuple[nn.Sequential, Attached]:
    """An attached perceptron most of whose weights are 0, with dead units of every sort among the live ones."""
    module = perceptron()
    with torch.no_grad():
        for layer in (module[0], module[2]):
            layer.weight *= (torch.rand(layer.weight.shape) < 0.3) * 4
        module[0].weight[5:9], module[0].bias[5:9] = 0, -0.5  # they never fire
        module[2].weight[:, 20:24] = 0  # nothing reads them
    return module, attach(module, Epr(EprConfig(first_steps={"*": 0.25})), rate_weight=0.1)


def test_units_are_written_in_an_order_that_codes_shorter_and_compute_the_same(tmp_path: Path) -> None:
    module, attached = sparse_perceptron()
    inputs, receiver = torch.randn(64, 16), perceptron()
    outputs = module.eval()(inputs)
    kept, sorted_ = attached.finished(keep_units=True), attached.finished()
    sizes = [sum(len(chunk.payload) for chunk in finished.chunks) for finished in (kept, sorted_)]
    assert sizes[1] < sizes[0] and attached.num_bytes() == sizes[1]
    for name, value in attached.plain_state().items():
        assert torch.equal(kept.tensors[name], value), name
    weight, bias, readers = (sorted_.tensors[name] for name in ("0.weight", "0.bias", "2.weight"))
    live = weight.count_nonzero(1) + (bias != 0)
    assert bool((live[:-1] >= live[1:]).all())
    dead = slice(24, None)  # of 32 at least eight are dead, and lie at the end
    assert not weight[dead].any() and not bias[dead].any() and not readers[:, dead].any()
    # The module itself is left alone, and each loaded one computes what it does.
    assert torch.equal(module(inputs), outputs)
    for bare in (False, True):
        path = tmp_path / "m.fewbits"
        fewbits.save(module, path, bare=bare)
        loaded = fewbits.load(path, into=receiver).eval()
        assert all(torch.equal(value, sorted_.tensors[name]) for name, value in loaded.state_dict().items())
        torch.testing.assert_close(loaded(inputs), outputs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep_units", [False, True])
def test_saving_again_gives_the_same_bytes(tmp_path: Path, keep_units: bool) -> None:
    module, attached = sparse_perceptron()
    train(module, attached, torch.randn(64, 16), torch.randint(4, (64,)), 5, 1e-2)
    one, two = tmp_path / "one.fewbits", tmp_path / "two.fewbits"
    fewbits.save(module, one, keep_units=keep_units)
    module(torch.randn(2, 16))
    fewbits.save(module, two, keep_units=keep_units)
    assert one.read_bytes() == two.read_bytes()


def test_finished_is_the_plain_state_and_training_goes_on() -> None:
    module = Tied()
    order = list(module.state_dict())
    attached = attach(module, Epr(), rate_weight=0.1)
    train(module, attached, TOKENS, TOKENS, 5, 1e-2)
    state, (tensors, chunks) = attached.plain_state(), attached.finished(keep_units=True)
    decoded = decode(chunks)
    assert list(state) == list(tensors) == order
    assert set(decoded) == set(order) - set(attached.ties)
    for name, value in state.items():
        assert torch.equal(decoded[attached.ties.get(name, name)], value) and torch.equal(tensors[name], value), name
    assert module.train()(TOKENS).requires_grad and attached.rate_loss().requires_grad


def test_bits_in_eval_are_the_bytes_of_the_represented_parts() -> None:
    module = Tied()
    attached = attach(module, Epr(), rate_weight=0.01)
    module.eval()(TOKENS)
    chunks = attached.finished(keep_units=True).chunks
    exact = attached.representation.eval()().bits
    assert torch.equal(attached.bits(), exact)
    assert float(exact) == 8 * sum(len(chunk.payload) for chunk in chunks if chunk.method == "epr")


def test_shared_parameters_are_represented_once_and_stay_shared(tmp_path: Path) -> None:
    module = Tied()
    receiver = copy.deepcopy(module)
    attached = attach(module, Epr(), rate_weight=0.1)
    assert attached.representation.steps == (
        "embedding.weight", "middle.weight", "middle.bias", "norm.weight", "norm.bias"
    )  # fmt: skip
    assert attached.ties == {
        "head.weight": "embedding.weight", "again.weight": "middle.weight", "again.bias": "middle.bias"
    }  # fmt: skip
    state = attached.plain_state()
    assert state["head.weight"] is state["embedding.weight"]
    train(module, attached, TOKENS, TOKENS, 5, 1e-2)
    fewbits.save(module, tmp_path / "m.fewbits", keep_units=True)
    fewbits.load(tmp_path / "m.fewbits", into=receiver)
    assert receiver.head.weight is receiver.embedding.weight
    assert torch.equal(receiver.eval()(TOKENS), module.eval()(TOKENS))


def test_buffers_and_frozen_parameters_are_kept_exactly() -> None:
    module = Tied()
    attached = attach(module, Epr(), rate_weight=100.0)
    train(module, attached, TOKENS, TOKENS, 3, 1e-2)
    decoded = decode(chunk for chunk in attached.finished(keep_units=True).chunks if chunk.method == "lossless")
    assert {"norm.running_mean", "norm.num_batches_tracked", "frozen", "count"} <= set(decoded)
    assert torch.equal(decoded["norm.running_mean"], module.norm.running_mean)
    assert torch.equal(decoded["frozen"], torch.tensor([0.1, 0.2]))


@pytest.mark.parametrize("names", [None, ["middle.weight"], ["head.weight", "frozen"]])
def test_detach_leaves_the_module_as_it_was_with_decoded_values(names: list[str] | None) -> None:
    module = Tied()
    parameters = dict(module.named_parameters(remove_duplicate=False))
    trained = {name: parameter.requires_grad for name, parameter in parameters.items()}
    order, kinds = list(module.state_dict()), [type(part) for part in module.modules()]
    attached = attach(module, Epr(), rate_weight=0.1, names=names)
    outputs = module.eval()(TOKENS)
    attached.detach()
    assert torch.equal(module(TOKENS), outputs)
    assert list(module.state_dict()) == order and [type(part) for part in module.modules()] == kinds
    for name, parameter in module.named_parameters(remove_duplicate=False):
        assert parameter is parameters[name] and parameter.requires_grad == trained[name]
    assert attached_of(module) is None and not module._forward_pre_hooks and not module._forward_hooks
    attach(module, Epr(), rate_weight=0.1)


def test_the_callers_tensors_are_not_overwritten() -> None:
    module = perceptron()
    held = module[0].weight.detach()
    before = held.clone()
    train(module, attach(module, Epr(), rate_weight=1.0), torch.randn(8, 16), torch.zeros(8, dtype=torch.long), 3, 1e-1)
    assert torch.equal(held, before)


def test_names_choose_what_is_represented() -> None:
    module = perceptron()
    attached = attach(module, Epr(), rate_weight=1.0, names=["2.weight"])
    assert attached.representation.steps == ("2.weight",)
    assert isinstance(module[0].weight, nn.Parameter)


@pytest.mark.parametrize(
    ("names", "message"), [(["middle"], "'middle'"), (["count"], "'count'"), ([], "no parameter to represent")]
)
def test_names_that_cannot_be_represented_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        attach(Tied(), Epr(), rate_weight=1.0, names=names)


def test_attaching_twice_is_refused() -> None:
    module = perceptron()
    attach(module[0], Epr(), rate_weight=1.0)
    for whole in (module[0], module):
        with pytest.raises(InvalidArgument, match="already"):
            attach(whole, Epr(), rate_weight=1.0)
    with pytest.raises(InvalidArgument, match="part of this module"):
        attached_of(module)


def test_a_copy_of_an_attached_module_has_latents_of_its_own() -> None:
    module = perceptron()
    attached = attach(module, Epr(), rate_weight=1.0)
    module(torch.randn(2, 16))
    twin = copy.deepcopy(module)
    other = attached_of(twin)
    assert other is not None and other is not attached
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert not torch.equal(twin[0].weight, module[0].weight)
    twin(torch.randn(2, 16))
    assert other.rate_loss().requires_grad


def test_a_checkpoint_of_an_attached_module_restores_training() -> None:
    module, other = perceptron(), perceptron()
    attach(module, Epr(), rate_weight=1.0)
    attach(other, Epr(), rate_weight=1.0)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.eval()(torch.ones(1, 16)), module.eval()(torch.ones(1, 16)))


def test_functional_call_with_other_latents_computes_with_them() -> None:
    module = perceptron()
    attach(module, Epr(), rate_weight=1e-3)
    inputs = torch.randn(4, 16)
    before = module.eval()(inputs)
    others = {name: torch.zeros_like(value) for name, value in module.named_parameters() if name.endswith("latents")}
    assert torch.equal(functional_call(module, others, (inputs,)), torch.zeros(4, 4))
    assert torch.equal(module(inputs), before)


def test_part_of_a_module_in_eval_does_not_stop_training() -> None:
    module = Tied().train()
    attached = attach(module, Epr(), rate_weight=1.0)
    module.embedding.eval()
    module(TOKENS)
    assert attached.rate_loss().requires_grad


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_modules_compute_with_the_represented_weights(kind: type[nn.Module]) -> None:
    module, inputs = kind(3, 4), torch.randn(5, 2, 3)
    attached = attach(module, Epr(EprConfig(step_factor=100.0)), rate_weight=1.0)
    module(inputs)[0].sum().backward()
    assert attached.representation.get_parameter("tensors.0.latents").grad is not None
    outputs = module.eval()(inputs)[0]
    attached.detach()
    assert torch.equal(module(inputs)[0], outputs)


def test_attention_computes_with_the_represented_weights() -> None:
    module, inputs = nn.MultiheadAttention(4, 2), torch.randn(3, 2, 4)
    attached = attach(module, Epr(), rate_weight=1.0)
    module(inputs, inputs, inputs)[0].sum().backward()
    with torch.no_grad():
        outputs = module.eval()(inputs, inputs, inputs)[0]
        attached.detach()
        torch.testing.assert_close(module(inputs, inputs, inputs)[0], outputs)
