"""Hidden units: every group found is one that may be permuted and pruned, and what is not sure is left alone."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from fewbits.chunk import Chunk
from fewbits.errors import InvalidArgument
from fewbits.method import Reconstruction, Representation, Source
from fewbits.nn.attach import attach
from fewbits.nn.units import UnitGroup, Use, dead_units, permuted, unit_groups

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _seeded_and_on_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 with every tensor random: norms and biases too, which start alike for all units."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_(generator=generator)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.1)
    return module


def output(module: nn.Module, state: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
    """What the module gives in eval() with other tensors."""
    with torch.no_grad():
        return functional_call(copy.deepcopy(module).eval(), dict(state), inputs)


def names_of(groups: tuple[UnitGroup, ...]) -> list[list[str]]:
    """The tensors of each group, sorted, an input axis marked."""
    return [sorted(use.name + (" in" if use.axis else "") for use in group.uses) for group in groups]


def check_groups(module: nn.Module, *inputs: Tensor, input_ranks: tuple[int, ...] = ()) -> tuple[UnitGroup, ...]:
    """Assert of a filled module that its groups may be permuted and that zeroing dead units changes nothing."""
    groups = unit_groups(module, input_ranks=input_ranks)
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())  # each once, by its first name
    state = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    before = output(module, state, *inputs)
    assert bool(before.isfinite().all())
    generator = np.random.default_rng(0)
    everything = dict(state)
    for group in groups:
        order = np.roll(np.arange(group.size), 1) if group.size < 3 else generator.permutation(group.size)
        alone = dict(state)
        for use in group.uses:
            everything[use.name] = permuted(everything[use.name], use, order)
            alone[use.name] = permuted(alone[use.name], use, order)
        torch.testing.assert_close(output(module, alone, *inputs), before)
    torch.testing.assert_close(output(module, everything, *inputs), before)
    for group in groups:
        check_dead(module, group, state, *inputs)
    return groups


def with_dead_units(group: UnitGroup, state: State, kind: str) -> tuple[State, NDArray[np.bool_]]:
    """The state with every other unit dead in one way; and which those are."""
    chosen = np.arange(group.size) % 2 == 0
    state = {name: tensor.clone() for name, tensor in state.items()}
    for use in group.uses:
        index = torch.from_numpy(np.repeat(chosen, use.repeat))
        along = state[use.name].movedim(use.axis, 0)  # a view
        if (use.role == "consumer") == (kind == "unread"):
            if kind == "rectified" and use.role == "vector" and not use.name.endswith("running_var"):
                along[index] = -along[index].abs() - 0.5
            else:
                along[index] = 0
    return state, chosen


def zeroed(group: UnitGroup, state: State, dead: NDArray[np.bool_]) -> State:
    """The state with all entries of some units 0."""
    state = {name: tensor.clone() for name, tensor in state.items()}
    for use in group.uses:
        state[use.name].movedim(use.axis, 0)[torch.from_numpy(np.repeat(dead, use.repeat))] = 0
    return state


def check_dead(module: nn.Module, group: UnitGroup, state: State, *inputs: Tensor) -> None:
    """Assert that units made dead are found exactly if the group allows it, and that zeroing those found is free."""
    for kind, allowed in (("unread", True), ("silent", group.removable), ("rectified", group.rectified)):
        some, chosen = with_dead_units(group, state, kind)
        found = dead_units(group, some)
        vectors = any(use.role == "vector" for use in group.uses)
        if kind != "rectified" or vectors or not group.removable:
            np.testing.assert_array_equal(found, chosen if allowed else np.zeros_like(chosen))
        torch.testing.assert_close(output(module, zeroed(group, some, found), *inputs), output(module, some, *inputs))


class FunctionalLeNet(nn.Module):
    """As in the wild: functions and methods of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 5), nn.Conv2d(4, 6, 5)
        self.fc1, self.fc2 = nn.Linear(6 * 16, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.size(0)
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(self.conv2(x), kernel_size=2).relu_()
        x = x.view(batch, -1)
        x = functional.dropout(torch.relu(self.fc1(x)), 0.5, self.training)
        return functional.log_softmax(self.fc2(x), dim=1)


def sequential_lenet() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 5), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
        *(nn.Flatten(), nn.Linear(6 * 16, 9), nn.ReLU(), nn.Linear(9, 3)),
    )


IMAGES = torch.randn(3, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
ROWS = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
MAPS = torch.randn(3, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


def test_perceptron() -> None:
    module = filled(nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 5), nn.Sigmoid(), nn.Linear(5, 2)))
    first, second = check_groups(module, ROWS)
    assert first == UnitGroup(
        7,
        (Use("0.weight", 0, 1, "producer"), Use("0.bias", 0, 1, "vector"), Use("2.weight", 1, 1, "consumer")),
        removable=True,
        rectified=True,
    )
    assert (second.size, second.removable, second.rectified) == (5, False, False)


@pytest.mark.parametrize("make", [sequential_lenet, FunctionalLeNet])
def test_lenet(make: Callable[[], nn.Module]) -> None:
    groups = check_groups(filled(make()), IMAGES)
    assert [group.size for group in groups] == [4, 6, 9]
    assert all(group.removable and group.rectified for group in groups)
    flattened = groups[1].uses[2]
    assert (flattened.axis, flattened.repeat, flattened.role) == (1, 16, "consumer")


class Block(nn.Module):
    """A residual block; with another width or stride, a projection on the shortcut."""

    def __init__(self, inner: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inner, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = (
            nn.Sequential(nn.Conv2d(inner, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        out += self.shortcut(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.blocks = nn.Sequential(Block(5, 5, 1), Block(5, 6, 2))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(functional.relu(self.norm(self.conv(x))))
        return self.head(x.mean(dim=(2, 3)))


def test_resnet_joins_what_is_added() -> None:
    groups = check_groups(filled(ResNet()), MAPS)
    assert not any(group.removable or group.rectified for group in groups)  # norms in between
    stream = ["blocks.0.conv1.weight in", "blocks.0.conv2.weight", "blocks.1.conv1.weight in", "conv.weight"]
    weights = [[name for name in names if "conv" in name] for names in names_of(groups)]
    assert stream in weights
    assert any("head.weight in" in names and "blocks.1.shortcut.0.weight" in names for names in names_of(groups))
    assert len(groups) == 4


class Residual(nn.Module):
    """Without norms; `early` rectifies the stream before it is added to, not after."""

    def __init__(self, early: bool) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        self.early = early

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        if self.early:
            x = torch.relu(x)
        x = x + self.fc2(torch.relu(x))
        return self.fc3(x if self.early else torch.relu(x))


def test_residual_units_are_rectified_only_if_that_comes_last() -> None:
    (late,) = check_groups(filled(Residual(early=False)), ROWS)
    (early,) = check_groups(filled(Residual(early=True)), ROWS)
    assert late.removable and late.rectified
    assert early.removable and not early.rectified


class InPlace(nn.Module):
    """Adds to memory that others still hold: what was rectified no longer is."""

    def __init__(self, under_another_name: bool) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 2)
        self.under_another_name = under_another_name

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        held = hidden.relu_()
        summed = hidden if self.under_another_name else held
        summed += self.fc2(x)
        return self.fc3(held)


@pytest.mark.parametrize("under_another_name", [False, True])
def test_in_place_sums_are_seen_by_those_who_hold_the_memory(under_another_name: bool) -> None:
    (group,) = check_groups(filled(InPlace(under_another_name)), ROWS)
    assert group.removable and not group.rectified


def test_norm_over_flattened_channels_repeats_too() -> None:
    module = nn.Sequential(nn.Conv1d(4, 5, 3), nn.Flatten(), nn.BatchNorm1d(30), nn.LeakyReLU(), nn.Linear(30, 2))
    (group,) = check_groups(filled(module), MAPS[:, :, 0])
    assert {(use.name, use.repeat) for use in group.uses} >= {("2.running_mean", 6), ("2.weight", 6), ("4.weight", 6)}


def test_norm_over_a_linear_needs_the_rank() -> None:
    module = filled(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)))
    assert unit_groups(module) == ()
    assert unit_groups(module, input_ranks=(3,)) == ()
    (group,) = check_groups(module, ROWS, input_ranks=(2,))
    assert len(group.uses) == 7 and not group.removable
    flat = filled(nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)))
    assert len(check_groups(flat, ROWS)) == 1


def test_units_along_another_axis_are_left_alone() -> None:
    wide = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5))
    (group,) = check_groups(filled(wide), MAPS)  # the Linear reads rows of pixels, as many as there are channels
    assert group.uses[0].name == "2.weight"
    unbatched = nn.Sequential(nn.Conv2d(4, 9, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    assert unit_groups(filled(unbatched), input_ranks=(3,)) == ()


def test_depthwise_filters_go_with_their_channels() -> None:
    module = nn.Sequential(
        *(nn.Conv2d(4, 6, 1), nn.ReLU6(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU6(), nn.Conv2d(6, 5, 1)),
        *(nn.ReLU(), nn.Conv2d(5, 5, 3, groups=5), nn.Conv2d(5, 3, 1)),
    )
    first, second = check_groups(filled(module), MAPS)
    assert first.removable and first.rectified
    assert second.removable and not second.rectified
    assert Use("2.weight", 0, 1, "vector") in first.uses
    grouped = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 2, 1))
    assert unit_groups(filled(grouped)) == ()
    doubled = nn.Sequential(nn.Conv2d(4, 6, 1), nn.Conv2d(6, 12, 3, groups=6), nn.Conv2d(12, 2, 1))
    assert unit_groups(filled(doubled)) == ()


class Dense(nn.Module):
    """Joins by concatenation; only what is made and read between is a group."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(4, 4, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 3, padding=1)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, torch.relu(self.conv1(x))], 1)
        x = torch.cat([x, self.conv3(torch.relu(self.conv2(x)))], 1)
        return self.head(x)


def test_concatenated_channels_are_left_alone() -> None:
    (group,) = check_groups(filled(Dense()), MAPS)
    assert names_of((group,)) == [["conv2.bias", "conv2.weight", "conv3.weight in"]]


class Encoder(nn.Module):
    """A transformer's layer written out; the hidden units of its feed-forward part are a group, no others are."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(6), nn.LayerNorm(6)
        self.fc1, self.fc2 = nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, x, x)[0])
        return self.norm2(x + self.fc2(functional.gelu(self.fc1(x))))


def test_transformer() -> None:
    (group,) = check_groups(filled(Encoder()), ROWS.expand(2, 5, 6))
    assert names_of((group,)) == [["fc1.bias", "fc1.weight", "fc2.weight in"]]
    assert group.removable and not group.rectified  # GELU
    layer = nn.TransformerEncoderLayer(6, 2, 10, batch_first=True)
    assert unit_groups(nn.Sequential(nn.Linear(6, 6), layer, nn.Linear(6, 6), nn.Linear(6, 2)).double()) != ()
    assert unit_groups(layer) == () and unit_groups(nn.Sequential(nn.Linear(6, 6), layer)) == ()


class Recurrent(nn.Module):
    """Runs one layer over its own output, from a layer of the same width."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.step, self.head = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.start(x))
        for _ in range(3):
            x = torch.relu(self.step(x))
        return self.head(x)


def test_a_layer_that_is_called_again_joins_its_inputs_and_outputs() -> None:
    (group,) = check_groups(filled(Recurrent()), ROWS)
    assert {(use.name, use.axis) for use in group.uses} >= {("step.weight", 0), ("step.weight", 1), ("head.weight", 1)}


def tied(part: str) -> nn.Module:
    """A perceptron, of which a tensor is shared in some way."""
    module = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).double()
    if part == "weight":
        module[4].weight = module[2].weight
    elif part == "bias":
        module[0].bias = module[4].bias
    elif part == "memory":
        whole = torch.randn(12, 6, dtype=torch.float64)
        module[0].weight, module[4].weight = nn.Parameter(whole[:6]), nn.Parameter(whole[5:11])
    return module


@pytest.mark.parametrize(("part", "left"), [("weight", []), ("bias", ["2.weight"]), ("memory", []), ("", ["0", "2"])])
def test_tied_tensors_are_left_alone(part: str, left: list[str]) -> None:
    groups = check_groups(filled(tied(part)), ROWS)
    assert len(groups) == len(left)
    assert all(group.uses[0].name.startswith(name) for group, name in zip(groups, left, strict=True))


def test_a_module_of_two_names_goes_by_the_first() -> None:
    class Aliased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 2)
            self.again = self.fc1

        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(torch.relu(self.again(x)))

    (group,) = unit_groups(filled(Aliased()))
    assert names_of((group,)) == [["fc1.bias", "fc1.weight", "fc2.weight in"]]


def test_a_norm_without_epsilon_is_left_alone() -> None:
    # A unit that nothing reads would become 0 / 0 by its removal.
    module = nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, eps=0), nn.Conv2d(5, 2, 3))
    assert unit_groups(filled(module)) == ()


class Perceptron(nn.Module):
    """Linear, something, Linear."""

    def __init__(self, between: Callable[["Perceptron", Tensor], Tensor]) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 6), nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.ones(6))
        self.register_buffer("shift", torch.ones(6))
        self.loose = torch.ones(6)
        self.between = between
        self.kept: object = None

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.between(self, self.fc1(x)))


def keep(module: Perceptron, x: Tensor) -> Tensor:
    module.kept = x
    return x


def swallow(module: Perceptron, x: Tensor) -> Tensor:
    try:
        return x.flip(1) if module.shift.sum() > 0 else x
    except Exception:
        return x


def write_in_place(module: Perceptron, x: Tensor) -> Tensor:
    x[:, 0] = 0
    return x


def add_in_place(module: Perceptron, x: Tensor) -> Tensor:
    y = x.view(-1)
    y += torch.arange(y.size(0))
    return x


def read_weights(module: Perceptron, x: Tensor) -> Tensor:
    first = next(iter(module._parameters.values()))
    assert first is not None
    return x * float(first.detach().sum())


UNSURE: dict[str, Callable[[Perceptron, Tensor], Tensor]] = {
    "softmax": lambda module, x: x.softmax(1),
    "cumsum": lambda module, x: x.cumsum(1),
    "indexing": lambda module, x: x[:, [1, 0, 2, 3, 4, 5]],
    "flip": lambda module, x: x.flip(1),
    "transpose": lambda module, x: x.transpose(0, 1),
    "a parameter a unit": lambda module, x: x * module.scale,
    "a buffer a unit": lambda module, x: x + module.shift,
    "a tensor that is no buffer": lambda module, x: x + module.loose,
    "a tensor made on the way": lambda module, x: x + torch.arange(6),
    "reading its own weights": lambda module, x: x + module.fc1.weight[0],
    "reading its own bias": lambda module, x: x + module.fc1.bias,
    "reading weights aside": read_weights,
    "reshaping": lambda module, x: x.view(-1, 3).reshape(-1, 6),
    "reshaping to rows": lambda module, x: x.view(-1, 6),
    "flattening rows": lambda module, x: x.flatten(),
    "pooling over units": lambda module, x: functional.max_pool1d(x, 3, 1, 1),
    "sum over units": lambda module, x: x + x.sum(-1, keepdim=True),
    "control flow": lambda module, x: x if x.sum() > 0 else x.flip(1),
    "control flow that is caught": swallow,
    "asking for the type": lambda module, x: x.flip(1) if isinstance(x, Tensor) else x,
    "asking torch for the type": lambda module, x: x.flip(1) if torch.is_tensor(x) else x,
    "keeping it": keep,
    "writing in place": write_in_place,
    "adding in place to a view": add_in_place,
    "out": lambda module, x: torch.mul(x, 2, out=x),
    "normalising": lambda module, x: functional.layer_norm(x, (6,)),
    "dividing": lambda module, x: x / x.size(1),
    "norm by hand": lambda module, x: functional.batch_norm(x, module.shift, module.shift),
    "a mode": lambda module, x: x.flip(1) if module.training else x,
    "the other mode": lambda module, x: x if module.training else x.flip(1),
}


@pytest.mark.parametrize("between", UNSURE.values(), ids=UNSURE.keys())
@pytest.mark.parametrize("training", [True, False])
def test_what_is_not_sure_is_left_alone(between: Callable[[Perceptron, Tensor], Tensor], training: bool) -> None:
    module = Perceptron(between).train(training)
    before = {name: dict(vars(part)) for name, part in module.named_modules()}
    assert unit_groups(module) == ()
    assert {name: dict(vars(part)) for name, part in module.named_modules()} == before


SURE: dict[str, tuple[Callable[[Perceptron, Tensor], Tensor], bool, bool]] = {
    "nothing": (lambda module, x: x, True, False),
    "relu": (lambda module, x: x.relu(), True, True),
    "clamp from 0": (lambda module, x: x.clamp(0, 1), True, True),
    "clamp around 0": (lambda module, x: torch.relu(torch.clamp(x, min=-1, max=1)), True, True),
    "clamp above 0": (lambda module, x: torch.relu(x.clamp(min=0.5)), False, False),
    "hardtanh": (lambda module, x: functional.hardtanh(x, 0.0, 1.0), True, True),
    "abs, then relu": (lambda module, x: x.abs().relu(), True, False),
    "neg, then relu": (lambda module, x: torch.relu(-x), True, False),
    "tanh": (lambda module, x: torch.tanh(x), True, False),
    "sigmoid": (lambda module, x: x.sigmoid(), False, False),
    "scaled": (lambda module, x: torch.relu(x) * 0.5, True, True),
    "scaled, then relu": (lambda module, x: torch.relu(x * -0.5), True, False),
    "moved": (lambda module, x: torch.relu(x) + 1, False, False),
    "moved in place": (lambda module, x: (x.add_(1), x)[1], False, False),
    "reciprocal": (lambda module, x: 1 / (x * x + 3), False, False),
    "swish by hand": (lambda module, x: x * torch.sigmoid(x), False, False),
    "squared": (lambda module, x: x * x, True, False),
    "gated by relu": (lambda module, x: x * torch.relu(x), True, True),
    "difference": (lambda module, x: torch.relu(x) - x, True, False),
    "cast": (lambda module, x: x.float().to(torch.float64), True, False),
    "the same in all modes": (lambda module, x: functional.dropout(x, 0.5, module.training), True, False),
}


@pytest.mark.parametrize(("between", "removable", "rectified"), SURE.values(), ids=SURE.keys())
def test_what_treats_units_alike_carries_over(
    between: Callable[[Perceptron, Tensor], Tensor], removable: bool, rectified: bool
) -> None:
    (group,) = check_groups(filled(Perceptron(between)), ROWS)
    assert (group.removable, group.rectified) == (removable, rectified)


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.flatten(1),
        lambda x: x.flatten(-3),
        lambda x: torch.flatten(x, start_dim=1),
        lambda x: x.flatten(2).flatten(1),
        lambda x: x.flatten(1, 2).flatten(1),
        lambda x: x.view(x.size(0), -1),
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.reshape((len_of(x), -1)),
        lambda x: torch.reshape(x, (x.size()[0], -1)),
    ],
)
def test_flattening_channels(flatten: Callable[[Tensor], Tensor]) -> None:
    class Flattened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(4, 5, 3), nn.Linear(5 * 36, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(flatten(torch.relu(self.conv(x))))

    (group,) = check_groups(filled(Flattened()), MAPS)
    assert group.uses[-1] == Use("fc.weight", 1, 36, "consumer")


def len_of(x: Tensor) -> int:
    batch, _, _, _ = x.shape
    return batch


@pytest.mark.parametrize(
    "reduce",
    [
        lambda x: x.mean((2, 3)),
        lambda x: x.mean([-2, -1], keepdim=True).flatten(1),
        lambda x: x.sum(-1).sum(-1),
        lambda x: torch.amax(x, dim=(2, 3)),
        lambda x: functional.adaptive_avg_pool2d(x, 1).flatten(1),
        lambda x: functional.adaptive_max_pool2d(x, (1, 1)).flatten(1),
        lambda x: functional.avg_pool2d(x, 6).view(x.size(0), -1),
    ],
)
def test_pooling_over_places(reduce: Callable[[Tensor], Tensor]) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(4, 5, 3), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(reduce(torch.relu(self.conv(x))))

    module = filled(Pooled())
    (group,) = check_groups(module, MAPS)
    assert group.uses[-1] == Use("fc.weight", 1, 1, "consumer")


class Mapped(nn.Module):
    """A convolution that keeps the extent, something, and Linear layers; as many channels as rows and columns."""

    def __init__(self, after: Callable[["Mapped", Tensor], Tensor], size: int) -> None:
        super().__init__()
        self.conv, self.over_columns, self.fc = nn.Conv2d(4, 8, 3, padding=1), nn.Linear(8, 8), nn.Linear(size, 2)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.after(self, torch.relu(self.conv(x))))


@pytest.mark.parametrize(
    ("after", "size"),
    [
        (lambda module, x: x.view(6, -1), 256),
        (lambda module, x: x.view(x.size(1), -1), 192),
        (lambda module, x: x.reshape(-1, 64), 64),
        (lambda module, x: x.mean(1).flatten(1), 64),
        (lambda module, x: x.mean(0), 8),
        (lambda module, x: x.flatten(2).transpose(1, 2).flatten(1), 512),
        (lambda module, x: (x + module.over_columns(x)).flatten(1), 512),
        (lambda module, x: (x * module.over_columns(x)).mean((2, 3)), 8),
        (lambda module, x: functional.max_pool2d(x, 8, return_indices=True)[0].flatten(1), 8),
        (lambda module, x: x.squeeze().flatten(1), 512),
    ],
)
def test_axes_that_change_places_are_left_alone(after: Callable[[Mapped, Tensor], Tensor], size: int) -> None:
    module = filled(Mapped(after, size))
    output(module, {}, MAPS)  # it does run
    assert unit_groups(module) == ()


def test_sums_along_different_axes_are_left_alone() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.columns, self.fc = nn.Conv2d(4, 8, 3, padding=1), nn.Linear(8, 8), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(x) + self.columns(x.mean(1, keepdim=True)))

    module = filled(Crossed())
    output(module, {}, MAPS)
    assert unit_groups(module) == ()


def test_flattening_over_places_that_come_first_is_left_alone() -> None:
    module = nn.Sequential(nn.Linear(6, 4), nn.Flatten(), nn.Linear(20, 2))
    assert unit_groups(module) == () and unit_groups(module, input_ranks=(3,)) == ()
    assert len(check_groups(filled(nn.Sequential(*module[:2], nn.Linear(4, 2))), ROWS, input_ranks=(2,))) == 1


def test_weights_that_are_read_elsewhere_are_left_alone() -> None:
    class Penalised(Perceptron):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), self.fc1.weight[0].abs().sum()

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.head(self.norm(self.conv(x))), self.norm.running_mean[0]

    assert unit_groups(Penalised(lambda module, x: x)) == () and unit_groups(Normed()) == ()


def test_depthwise_filters_of_units_below_zero_may_turn_them() -> None:
    module = nn.Sequential(
        *(nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 2, 1)),
    )
    (group,) = check_groups(filled(module), MAPS)
    assert group.removable and not group.rectified


class NeverDrawn(Representation):
    """Fails when it is asked for values: finding units must not run what is behind the weights."""

    steps, rate_weight, num_weights = (), 0.0, 1

    def forward(self) -> Reconstruction:
        raise AssertionError

    def commit(self, step: str) -> None:
        raise AssertionError

    def chunks(self) -> Iterator[Chunk]:
        raise AssertionError


class AttachNeverDrawn:
    def represent(self, source: Source, *, rate_weight: float, seed: int) -> Representation:
        return NeverDrawn()


@pytest.mark.parametrize("make", [sequential_lenet, FunctionalLeNet, ResNet, lambda: tied("bias"), lambda: tied("")])
def test_an_attached_module_has_the_groups_of_the_plain_one(make: Callable[[], nn.Module]) -> None:
    module = make()
    plain = unit_groups(module)
    attach(module, AttachNeverDrawn(), rate_weight=1.0)  # pyright: ignore[reportArgumentType]
    assert plain and unit_groups(module) == plain


def test_what_is_parametrised_or_hooked_otherwise() -> None:
    module = filled(sequential_lenet())
    parametrizations.weight_norm(module[3])
    groups = unit_groups(module)
    assert names_of(groups)[0] == ["0.bias", "0.weight", "3.weight in"] and len(groups) == 3
    module[0].register_forward_hook(lambda layer, inputs, result: result.flip(1))
    assert [group.uses[0].name for group in unit_groups(module)] == ["3.weight", "7.weight"]
    module[7].forward = lambda x: x[:, :9]
    assert unit_groups(module) == ()
    seen: list[object] = []
    inner = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    module = nn.Sequential(inner, nn.Linear(4, 2))
    assert len(unit_groups(module)) == 2
    inner.register_forward_hook(lambda layer, inputs, result: seen.append(result))
    assert unit_groups(module) == () and not seen


def test_a_parametrisation_on_a_module_that_is_no_layer_hides_it() -> None:
    class Owner(Perceptron):
        def __init__(self) -> None:
            super().__init__(lambda module, x: torch.relu(x))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.scale

    assert len(unit_groups(Owner())) == 1
    module = nn.Sequential(Owner(), nn.Linear(6, 5), nn.Linear(5, 5))
    parametrize.register_parametrization(module[0], "scale", nn.Identity())
    assert names_of(unit_groups(module)) == [["1.bias", "1.weight", "2.weight in"]]


def test_no_groups_without_a_graph_or_without_units() -> None:
    class Optional(Perceptron):
        def forward(self, x: Tensor, shuffle: Tensor | None = None) -> Tensor:
            return self.fc2(self.fc1(x).flip(1) if shuffle is None else self.fc1(x))

    class Failing(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError

    assert unit_groups(Optional(lambda module, x: x)) == ()
    assert unit_groups(Failing(lambda module, x: x)) == ()
    for module in (nn.Module(), nn.Identity(), nn.Linear(3, 2), nn.LSTM(3, 2), nn.ReLU(), nn.Sequential()):
        assert unit_groups(module) == ()
    with pytest.warns(UserWarning, match="no-op"):
        assert unit_groups(nn.Sequential(nn.Linear(3, 0), nn.Linear(0, 2))) == ()


def test_units_that_come_out_are_left_alone() -> None:
    class Features(Perceptron):
        def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
            hidden = self.fc1(x)
            return {"all": [self.fc2(hidden), hidden]}

    assert unit_groups(Features(lambda module, x: x)) == ()


def test_a_layer_whose_weight_is_not_what_it_says_is_left_alone() -> None:
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    module[0].weight = nn.Parameter(torch.zeros(4, 6))
    assert unit_groups(module) == ()


def test_convolutions_of_one_and_three_dimensions() -> None:
    one = nn.Sequential(nn.Conv1d(4, 5, 3), nn.AvgPool1d(2), nn.ReLU(), nn.Conv1d(5, 2, 1, padding_mode="circular"))
    assert check_groups(filled(one), MAPS[:, :, 0])[0].rectified is False  # a mean in windows may have a divisor
    three = nn.Sequential(
        *(nn.Conv3d(4, 5, 1), nn.BatchNorm3d(5), nn.MaxPool3d(2), nn.GELU(), nn.Flatten(), nn.Linear(5 * 16, 2)),
    )
    (group,) = check_groups(filled(three), MAPS[:, :, :, :, None].expand(3, 4, 8, 8, 2))
    assert group.uses[-1].repeat == 16


LAYERS = ("linear", "relu", "sigmoid", "tanh", "dropout", "norm", "residual", "gate", "flip", "again")


class Drawn(nn.Module):
    """A network of randomly chosen layers, over (N, 4, 6, 6) or (N, 4)."""

    def __init__(self, kinds: list[tuple[str, int]], images: bool) -> None:
        super().__init__()
        self.kinds, self.images = kinds, images
        width, self.layers = 4, nn.ModuleList()
        for kind, size in kinds:
            if kind == "linear":
                self.layers.append(self.affine(width, size))
                width = size
            else:
                norm = nn.BatchNorm2d(width) if images else nn.BatchNorm1d(width)
                self.layers.append(norm if kind == "norm" else self.affine(width, width))
        self.head = nn.Linear(width * (36 if images else 1), 2)

    def affine(self, inner: int, outer: int) -> nn.Module:
        return nn.Conv2d(inner, outer, 3, padding=1) if self.images else nn.Linear(inner, outer)

    def forward(self, x: Tensor) -> Tensor:
        for (kind, _), layer in zip(self.kinds, self.layers, strict=True):
            if kind in ("linear", "norm"):
                x = layer(x)
            elif kind == "residual":
                x = x + layer(torch.relu(x))
            elif kind == "gate":
                x = torch.relu(layer(x)) * x
            elif kind == "again":
                x = layer(torch.tanh(layer(x)))
            elif kind == "flip":
                x = x.flip(1)
            else:
                x = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "dropout": nn.Identity()}[kind](
                    x
                )
        return self.head(torch.flatten(x, 1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(LAYERS), st.integers(1, 5)), max_size=8), st.booleans())
def test_groups_of_any_network_may_be_permuted_and_pruned(kinds: list[tuple[str, int]], images: bool) -> None:
    module = filled(Drawn(kinds, images))
    inputs = MAPS[:, :, :6, :6] if images else MAPS[:, :, 0, 0]
    check_groups(module, inputs, input_ranks=(inputs.ndim,))


GROUP = UnitGroup(
    3,
    (Use("a", 0, 1, "producer"), Use("b", 0, 1, "vector"), Use("c", 1, 2, "consumer")),
    removable=True,
    rectified=False,
)


def test_permuting_moves_all_indices_of_a_unit() -> None:
    table = np.arange(12).reshape(2, 6)
    moved = permuted(table, GROUP.uses[2], [2, 0, 1])
    np.testing.assert_array_equal(moved, [[4, 5, 0, 1, 2, 3], [10, 11, 6, 7, 8, 9]])
    tensor = permuted(torch.from_numpy(table).bfloat16(), GROUP.uses[2], np.array([2, 0, 1], np.uint8))
    assert tensor.dtype == torch.bfloat16 and torch.equal(tensor.long(), torch.from_numpy(moved))
    np.testing.assert_array_equal(table, np.arange(12).reshape(2, 6))
    assert permuted(np.zeros((0, 2)), GROUP.uses[0], []).shape == (0, 2)


@pytest.mark.parametrize(
    "order", [[0, 1], [0, 1, 2, 3], [0, 1, 1], [0, 1, 3], [-1, 0, 1], [0.0, 1.0, 2.0], [[0, 1, 2]], 0]
)
def test_orders_that_are_no_permutation_are_refused(order: object) -> None:
    with pytest.raises(InvalidArgument):
        permuted(np.zeros((2, 6)), GROUP.uses[2], order)  # pyright: ignore[reportArgumentType]


def test_tensors_that_do_not_run_over_the_units_are_refused() -> None:
    whole = {"a": np.ones((3, 2)), "b": np.ones(3), "c": np.ones((2, 6))}
    assert not dead_units(GROUP, whole).any()
    for name, wrong in (("a", np.ones((4, 2))), ("b", np.ones(())), ("c", np.ones((6, 2))), ("c", np.ones(6))):
        with pytest.raises(InvalidArgument, match=f"'{name}'"):
            dead_units(GROUP, whole | {name: wrong})
    with pytest.raises(InvalidArgument, match="'b'"):
        dead_units(GROUP, {"a": whole["a"]})
    with pytest.raises(InvalidArgument, match="axis 1"):
        permuted(torch.zeros(6), GROUP.uses[2], [0, 1, 2])


def test_dead_units_of_integers_and_of_what_is_no_number() -> None:
    rows = torch.tensor([[0, 0], [0, 1], [0, 0]])
    columns = np.array([[1, 0, 0, 0, 1, 1]], np.int8)
    tensors = {"a": rows, "b": np.array([0, 5, -1]), "c": columns}
    np.testing.assert_array_equal(dead_units(GROUP, tensors), [True, True, False])
    nothing = math.nan * torch.ones(3)
    np.testing.assert_array_equal(dead_units(GROUP, tensors | {"b": nothing}), [False, True, False])
    certain = UnitGroup(3, GROUP.uses, removable=False, rectified=True)
    np.testing.assert_array_equal(dead_units(certain, tensors), [True, True, True])
    np.testing.assert_array_equal(dead_units(certain, tensors | {"b": nothing}), [False, True, False])
    unsure = UnitGroup(3, GROUP.uses, removable=False, rectified=False)
    np.testing.assert_array_equal(dead_units(unsure, tensors), [False, True, False])
