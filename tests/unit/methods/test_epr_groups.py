"""EPR's groups: tensors that share a decoder and, if it is learned, a density."""

import copy

import pytest
import torch
from torch import Tensor

import fewbits
from fewbits.encode import decode
from fewbits.errors import InvalidArgument
from fewbits.method import Source
from fewbits.methods.epr import Epr, EprConfig, EprRepresentation
from fewbits.nn.latent_tensor import LatentTensor

SIZES = {"a.weight": (20, 30, 5, 5), "b.weight": (10, 20, 5, 5), "c.weight": (40, 50), "a.bias": (20,), "b.bias": (10,)}
KERNELS = {"a.weight": "kernels", "b.weight": "kernels"}


def tensors(scale: float = 1.0) -> dict[str, Tensor]:
    """Normal tensors of the sizes above, each one larger than the one before."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: scale * (i + 1) * torch.randn(size, generator=generator) for i, (name, size) in enumerate(SIZES.items())
    }


def represented(config: EprConfig, source: Source | None = None) -> EprRepresentation:
    return Epr(config).represent(source or Source(tensors()), rate_weight=1.0, seed=0)


def by_name(representation: EprRepresentation) -> dict[str, LatentTensor]:
    return {one.spec.name: one for one in representation.latent_tensors()}


@pytest.mark.parametrize("kind", ["dft", "matrix"])
@pytest.mark.parametrize("rate", ["deep_factorized", "laplace", "adaptive"])
def test_a_group_has_one_decoder_and_one_learned_density(kind: str, rate: str):
    found = by_name(represented(EprConfig(rate=rate, decoders={"[ab].weight": kind}, groups=KERNELS)))
    a, b, c = found["a.weight"], found["b.weight"], found["c.weight"]
    assert a.log_step is b.log_step and a.log_step is not c.log_step
    assert (a.matrix is b.matrix) == (kind == "matrix")
    assert (a.density is b.density) == (rate != "adaptive")
    assert a.density is not c.density


def test_the_first_step_of_a_group_is_the_least_of_its_tensors():
    alone = {name: one.exact_step() for name, one in by_name(represented(EprConfig())).items()}
    assert alone["a.weight"] != alone["b.weight"]
    found = by_name(represented(EprConfig(groups=KERNELS)))
    assert found["a.weight"].exact_step() == found["b.weight"].exact_step() == min(alone["a.weight"], alone["b.weight"])
    assert found["c.weight"].exact_step() == alone["c.weight"]
    given = EprConfig(groups={"*": "all"}, first_steps={"c.weight": 0.125, "*": 0.5})
    assert {one.exact_step() for one in by_name(represented(given)).values()} == {0.125}


def test_a_survey_knows_of_groups():
    source, apart, together = Source(tensors()), EprConfig(), EprConfig(groups={"*": "all"})
    assert Epr(together).survey(source).bits(1.0) > 1.01 * Epr(apart).survey(source).bits(1.0)  # the step is the least


def test_both_tensors_train_the_shared_step_and_density():
    config = EprConfig(rate="deep_factorized", groups=KERNELS)
    representation = represented(config).train()
    names = [name for name, _ in representation.named_parameters()]
    assert sum(name.endswith("log_step") for name in names) == 4  # of kernels, c.weight and two biases
    values, bits = representation()
    found = by_name(representation)
    shared = [found["a.weight"].log_step, *found["a.weight"].density.parameters()]
    alone = [torch.autograd.grad(values[name].sum(), shared[0], retain_graph=True)[0] for name in KERNELS]
    both = torch.autograd.grad(sum(values[name].sum() for name in KERNELS), shared[0], retain_graph=True)[0]
    assert torch.allclose(both, alone[0] + alone[1]) and all(float(each.abs()) > 0 for each in alone)
    assert all(float(each.abs().sum()) > 0 for each in torch.autograd.grad(bits, shared[1:]))


def test_values_and_state_survive_copies_and_files():
    config = EprConfig(rate="deep_factorized", decoders={"[ab].weight": "matrix"}, groups=KERNELS)
    representation = represented(config)
    optimizer = torch.optim.Adam(representation.parameters(), lr=0.05)
    for _ in range(3):
        values, bits = representation.train()()
        optimizer.zero_grad()
        (sum(each.square().mean() for each in values.values()) + 1e-5 * bits).backward()
        optimizer.step()
        representation.update()
    other = represented(config)
    other.load_state_dict(representation.state_dict())
    assert by_name(other)["a.weight"].matrix is by_name(other)["b.weight"].matrix
    copied = copy.deepcopy(representation)
    assert by_name(copied)["a.weight"].log_step is by_name(copied)["b.weight"].log_step
    shown = representation.eval()().values
    written = list(copied.chunks())
    assert [chunk.payload for chunk in written] == [chunk.payload for chunk in other.chunks()]
    for name, tensor in decode(written).items():
        assert torch.equal(tensor, shown[name])


def test_encoding_units_apart_gives_what_encoding_the_whole_gives():
    # Together these are more than one unit of encoding: a group does not reach beyond it.
    source = {name: torch.randn(2048, 1100, generator=torch.Generator().manual_seed(i)) for i, name in enumerate("abc")}
    source["b"] *= 3
    method = Epr(EprConfig(groups={"*": "all"}))
    specs = [one.spec for one in by_name(represented(method.settings, Source(source))).values()]
    units = method.units(specs)
    assert len(units) > 1
    weights = sum(each.numel() for each in source.values())
    apart = [
        chunk
        for unit in units
        for chunk in method.encode(
            Source({spec.name: source[spec.name] for spec in unit}, num_weights=weights), rate_weight=1.0, seed=0
        )
    ]
    assert apart == list(method.encode(Source(source), rate_weight=1.0, seed=0))


def test_training_goes_on_from_a_file_in_groups(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.ReLU(), torch.nn.Linear(20, 10))
    method = Epr(EprConfig(rate="laplace", groups={"*.weight": "weights"}))
    fewbits.attach(network, method, rate_weight=1.0)
    fewbits.save(network, tmp_path / "a.fewbits")
    again = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.ReLU(), torch.nn.Linear(20, 10))
    fewbits.load(tmp_path / "a.fewbits", into=again, keep_latents=True)
    steps = [module.parametrizations for module in again if isinstance(module, torch.nn.Linear)]
    assert len(steps) == 2
    fewbits.save(again, tmp_path / "b.fewbits")
    assert (tmp_path / "a.fewbits").read_bytes() == (tmp_path / "b.fewbits").read_bytes()


@pytest.mark.parametrize(
    ("groups", "decoders"),
    [({"*.weight": "all"}, {"a.weight": "dft"}), ({"*": "all"}, {"a.weight": "matrix", "b.weight": "dft"})],
)
def test_tensors_that_cannot_share_a_decoder_are_named(groups: dict[str, str], decoders: dict[str, str]):
    with pytest.raises(InvalidArgument, match=r"'a.weight' and '[bc].weight' are of one group"):
        represented(EprConfig(groups=groups, decoders=decoders))


def test_kernels_of_two_sizes_cannot_share_a_basis():
    source = {"a": torch.randn(2, 2, 5, 5), "b": torch.randn(2, 2, 3, 3)}
    with pytest.raises(InvalidArgument, match="cannot share"):
        represented(EprConfig(groups={"*": "all"}, decoders={"*": "dft"}), Source(source))


@pytest.mark.parametrize("group", [3, None, ["a"]])
def test_a_group_is_a_name(group: object):
    with pytest.raises(InvalidArgument, match=r"EprConfig\.groups"):
        EprConfig(groups={"*": group})  # pyright: ignore
