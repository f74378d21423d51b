"""The laws of methods whose latents are trained: commit is final, bits are honest, gradients are finite."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from fewbits.encode import decode
from fewbits.errors import InvalidArgument
from fewbits.method import Representation, Source, TrainableMethod
from fewbits.registry import method_class
from tests.laws import sources
from tests.laws.inputs import IDS, SEED, inputs_of
from tests.laws.test_laws import assert_same, bits

TRAINABLE = tuple(id for id in IDS if issubclass(method_class(id), TrainableMethod))
SOURCES = {"network": sources.network, "edges": sources.edges, "large": sources.large, "numbers": sources.numbers}


# Every source with the default settings, and one with all others.
CASES = [(id, name, 0) for id in TRAINABLE for name in SOURCES]
CASES += [(id, "network", config) for id in TRAINABLE for config in range(1, len(inputs_of(id).configs))]


def represent(id: str, tensors: Mapping[str, Tensor], rate_weight: float, config: int = 0) -> Representation:
    method = method_class(id)(inputs_of(id).configs[config])
    assert isinstance(method, TrainableMethod)
    return method.represent(Source(tensors), rate_weight=rate_weight, seed=SEED)


def trained(id: str, tensors: Mapping[str, Tensor], rate_weight: float, config: int = 0) -> Representation:
    """A representation after a few steps of stochastic gradient descent towards the source, with the rate."""
    torch.manual_seed(0)
    representation = represent(id, tensors, rate_weight, config).train()
    optimizer = torch.optim.SGD(representation.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        loss(representation, tensors).backward()
        torch.nn.utils.clip_grad_norm_(representation.parameters(), 1.0)
        optimizer.step()
        representation.update()
    return representation


def loss(representation: Representation, tensors: Mapping[str, Tensor]) -> Tensor:
    values, size = representation()
    distortion = sum(
        ((values[name].double() - tensor.double()) / tensor.double().abs().max().clamp(min=0.1)).square().sum()
        for name, tensor in tensors.items()
        if name in representation.names
    )
    return distortion + representation.rate_weight * size / representation.num_weights


def test_some_method_is_trainable() -> None:
    assert "epr" in TRAINABLE


@pytest.mark.parametrize(("id", "name", "config"), CASES)
def test_commit_is_final(id: str, name: str, config: int) -> None:
    tensors = SOURCES[name]()
    representation = trained(id, tensors, 0.1, config)
    committed: list[tuple[str, Tensor, bytes]] = []  # a tensor, which of its elements, and what they are
    steps = list(representation.steps)
    # Of very many steps all but a few at once: each that is left is looked at again after every other one.
    if len(steps) > 40:
        representation.commit_all(steps[6:-2])
        steps = [*steps[:6], *steps[-2:]]
    for step in steps:
        representation.commit(step)
        # What is trained on after a commit must not move what was committed.
        with torch.no_grad():
            for parameter in representation.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.01)
        representation.update()
        for mode in (True, False) if len(tensors) < 10 else (False,):
            values = representation.train(mode)().values
            for key, where, expected in committed:
                assert bits(values[key][where]) == expected
        values = representation.eval()().values
        committed += [(key, where, bits(values[key][where])) for key, where in representation.settled(step).items()]
    decoded = decode(representation.chunks())
    assert set(decoded) == set(tensors)
    assert any(where.any() for _, where, _ in committed) or not steps
    for key, where, expected in committed:
        assert bits(decoded[key][where]) == expected
    for key, tensor in representation.eval()().values.items():
        assert_same(decoded[key], tensor)


@pytest.mark.parametrize(("id", "name", "config"), CASES)
def test_evaluation_gives_what_decoding_will_give_and_its_size(id: str, name: str, config: int) -> None:
    tensors = SOURCES[name]()
    for rate_weight in inputs_of(id).rate_weights[1:] if name != "large" else (0.3,):
        representation = trained(id, tensors, rate_weight, config).eval()
        with torch.no_grad():
            values, size = representation()
        chunks = list(representation.chunks())
        decoded = decode(chunks)
        for key, value in values.items():
            assert (value.dtype, value.shape) == (tensors[key].dtype, tensors[key].shape)
            assert_same(decoded[key], value)
        written = sum(len(chunk.payload) for chunk in chunks)
        assert abs(written - float(size) / 8) <= 0.01 * written + 16, f"at rate weight {rate_weight}"


@pytest.mark.parametrize("id", TRAINABLE)
def test_encoding_without_training_is_representing_and_committing(id: str) -> None:
    tensors = sources.network()
    method = method_class(id)()
    encoded = list(method.encode(Source(tensors), rate_weight=0.1, seed=SEED))
    represented = list(represent(id, tensors, 0.1).eval().chunks())
    if type(method).encode is not TrainableMethod.encode:  # what it leaves to others it may leave to some that train
        encoded, represented = ([chunk for chunk in chunks if chunk.method == id] for chunks in (encoded, represented))
    assert encoded
    assert encoded == represented


ALL_CONFIGS = [(id, config) for id in TRAINABLE for config in range(len(inputs_of(id).configs))]


@pytest.mark.parametrize(("id", "config"), ALL_CONFIGS)
def test_gradients_reach_every_parameter(id: str, config: int) -> None:
    network = sources.network()
    tensors = {name: network[name].float() for name in ("embedding", "attention.weight", "conv.weight")}
    tensors["bias"] = torch.linspace(-1, 1, 33)
    representation = represent(id, tensors, 0.1, config).train()
    loss(representation, {key: tensor + 0.1 for key, tensor in tensors.items()}).backward()
    names = [name for name, parameter in representation.named_parameters() if parameter.requires_grad]
    assert names
    for name, parameter in representation.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("id", "config"), ALL_CONFIGS)
@pytest.mark.parametrize("name", ["edges", "half-integers", "zeros", "huge"])
def test_gradients_are_finite_at_the_edges(id: str, config: int, name: str) -> None:
    tensors = {
        "edges": sources.edges(),
        "half-integers": {"weight": torch.arange(-40, 41) / 2},
        "zeros": {"weight": torch.zeros(9, 9), "empty": torch.zeros(0, 3)},
        "huge": {"weight": torch.tensor([1e30, -1e30, 1e-30, 0.0] * 9), "half": torch.full((9,), 6e4).half()},
    }[name]
    representation = represent(id, tensors, 0.1, config).train()
    values, size = representation()
    parts = [values[name].double().tanh().sum() for name in representation.names]
    total = sum(parts, torch.zeros(())) + size
    assert total.requires_grad or not representation.names
    if total.requires_grad:
        total.backward()
    assert size.isfinite()
    for key, parameter in representation.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), key
    assert all(values[name].isfinite().all() for name in representation.names)


@pytest.mark.parametrize("id", TRAINABLE)
def test_the_source_is_read_and_not_kept(id: str) -> None:
    tensors = sources.network()
    before = {key: (bits(tensor), tensor._version) for key, tensor in tensors.items()}
    representation = trained(id, tensors, 0.1)
    list(representation.chunks())
    assert {key: (bits(tensor), tensor._version) for key, tensor in tensors.items()} == before
    memory = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    for value in representation().values.values():
        assert value.untyped_storage().data_ptr() not in memory


@pytest.mark.parametrize("id", TRAINABLE)
def test_an_unknown_step_or_a_wrong_rate_weight_is_an_invalid_argument(id: str) -> None:
    representation = represent(id, sources.numbers(), 0.1)
    with pytest.raises(InvalidArgument, match="no_such_step"):
        representation.commit("no_such_step")
    for rate_weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidArgument):
            represent(id, sources.numbers(), rate_weight)
