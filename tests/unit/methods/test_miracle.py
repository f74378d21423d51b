"""MIRACLE: its config, its size, what is sent and when, and the life of its representation."""

import copy
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewbits
from fewbits.channel.mrc import Mrc
from fewbits.encode import decode
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.method import Source
from fewbits.methods.miracle import Miracle, MiracleConfig, MiracleRepresentation
from fewbits.methods.miracle.payload import decode_part
from fewbits.quantize.parameter_decoders import step_of

SMALL = MiracleConfig(bits=7)


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": 0.1 * torch.randn(12, 20, generator=generator),
        "half": torch.randn(30, generator=generator).to(torch.float16),
        "zeros": torch.zeros(9),
        "steps": torch.arange(4),
    }


def represented(
    config: MiracleConfig = SMALL, *, rate_weight: float = 1.0, seed: int = 3, of: dict[str, Tensor] | None = None
) -> MiracleRepresentation:
    return Miracle(config).represent(Source(of or tensors()), rate_weight=rate_weight, seed=seed)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 5))


def train(representation: MiracleRepresentation, num_steps: int = 3) -> None:
    torch.manual_seed(2)
    optimizer = torch.optim.SGD([p for p in representation.parameters() if p.requires_grad], lr=0.05)
    for _ in range(num_steps):
        optimizer.zero_grad()
        values, bits = representation.train()()
        (30 * (values["weight"] - 1).square().sum() + 1e-4 * bits).backward()
        optimizer.step()
        representation.update()


# settings

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no bits": ({"bits": 0}, "bits"),
    "25 bits": ({"bits": 25}, "bits"),
    "half a bit": ({"bits": 7.5}, "bits"),
    "bits that are true": ({"bits": True}, "bits"),
    "negative blocks": ({"num_blocks": -1}, "num_blocks"),
    "half a block": ({"num_blocks": 2.5}, "num_blocks"),
    "negative slack": ({"slack": -0.5}, "slack"),
    "slack of all bits": ({"bits": 7, "slack": 7}, "slack"),
    "slack that is no number": ({"slack": math.nan}, "slack"),
    "slack in words": ({"slack": "1"}, "slack"),
    "another parameterisation": ({"parameterisation": "variance"}, "parameterisation"),
    "other candidates": ({"candidates": "some"}, "candidates"),
    "ordered without own candidates": ({"simulator": "orc"}, "simulator"),
    "a sample that is neither": ({"pick": "median"}, "pick"),
    "the likeliest of ordered candidates": ({"pick": "likeliest", "simulator": "orc", "candidates": "own"}, "pick"),
    "a simulator that is not for blocks": ({"simulator": "tree", "candidates": "own"}, "simulator"),
    "shared by none": ({"share": {"*": 0}}, "share"),
    "shared by too many": ({"share": {"*": 65537}}, "share"),
    "live that is one number": ({"live": {"*": 4}}, "live"),
    "nothing live": ({"live": {"*": [4, 0]}}, "live"),
    "a prior of 0": ({"first_priors": {"*": 0.0}}, "first_priors"),
    "a negative prior": ({"first_priors": {"*": -1.0}}, "first_priors"),
    "an infinite prior": ({"first_priors": {"*": math.inf}}, "first_priors"),
    "a prior that is no number": ({"first_priors": {"*": math.nan}}, "first_priors"),
    "no penalty": ({"first_penalty": 0.0}, "first_penalty"),
    "a negative penalty rate": ({"penalty_rate": -1e-4}, "penalty_rate"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_settings_that_are_not_possible_are_refused_by_name(what: str) -> None:
    settings, name = REFUSED[what]
    with pytest.raises(InvalidArgument, match=name):
        MiracleConfig(**settings)


@pytest.mark.parametrize("live", [[12], [13, 20], [12, 20, 1]])
def test_live_sizes_that_do_not_suit_a_tensor_are_refused(live: Sequence[int]) -> None:
    with pytest.raises(InvalidArgument, match="'weight'"):
        represented(MiracleConfig(bits=7, live={"weight": live}))


@pytest.mark.parametrize("rate_weight", [-1.0, math.inf, math.nan])
def test_a_rate_weight_that_is_not_possible_is_refused(rate_weight: float) -> None:
    with pytest.raises(InvalidArgument, match="rate_weight"):
        represented(rate_weight=rate_weight)


def test_the_package_has_it_by_name() -> None:
    assert fewbits.Miracle is Miracle and fewbits.MiracleConfig is MiracleConfig
    assert {"Miracle", "MiracleConfig"} <= set(fewbits.__all__)


# size


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        MiracleConfig(bits=6, slack=1.5, share={"weight": 3}),
        MiracleConfig(bits=8, num_blocks=5, candidates="lattice", live={"weight": [7, 20]}),
        MiracleConfig(bits=7, parameterisation="deviation", candidates="own", first_priors={"zeros": 0.3}),
    ],
)
@pytest.mark.parametrize("rate_weight", [0.0, 0.01, 1.0, 1e9])
def test_a_file_takes_what_its_survey_says(config: MiracleConfig, rate_weight: float) -> None:
    source = Source(tensors())
    method = Miracle(config)
    expected = method.survey(source).bits(rate_weight) / 8
    chunks = list(method.encode(source, rate_weight=rate_weight, seed=3))
    written = sum(len(chunk.payload) for chunk in chunks)
    num_tensors = sum(len(chunk.tensors) for chunk in chunks)
    assert expected - num_tensors - 8 <= written <= expected + num_tensors + 8
    part = decode_part(chunks[0].payload, [spec.shape for spec in chunks[0].tensors])
    assert len(part.indices) == (config.num_blocks or len(part.indices))


@pytest.mark.parametrize("budget", [60, 100, 200])
def test_a_budget_is_met_before_training_and_missed_by_little(budget: int, tmp_path: Path) -> None:
    """Through `attach` and `save`: the doors that take a method (`compress` takes none)."""
    module = network()
    latents = fewbits.attach(module, Miracle(SMALL), budget=budget)
    assert 0.9 * budget - 2 <= latents.num_bytes() <= budget
    module(torch.zeros(1, 20))
    report = fewbits.save(module, tmp_path / "m.fewbits", bare=True)
    assert report.size <= budget + 40  # what is not of the parts


def test_a_budget_below_all_rate_weights_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="too small"):
        fewbits.attach(network(), Miracle(SMALL), budget=5)


# what is sent


@pytest.mark.parametrize(
    "config",
    [
        MiracleConfig(bits=8, slack=4.0, candidates="own"),
        MiracleConfig(bits=8, slack=4.0, candidates="shared"),
        MiracleConfig(bits=8, slack=4.0, candidates="lattice"),
        MiracleConfig(bits=8, slack=4.0, candidates="own", simulator="orc"),
        MiracleConfig(bits=8, slack=4.0, candidates="own", simulator="pfr"),
    ],
    ids=["own", "shared", "lattice", "orc", "pfr"],
)
def test_what_is_sent_has_the_posteriors_mean_and_spread(config: MiracleConfig) -> None:
    """Over 150 seeds of the candidates: errors in units of the posterior's spread have mean 0 and variance near 1."""
    values = {"weight": torch.linspace(-1, 1, 24)}
    errors: list[np.ndarray[Any, Any]] = []
    for seed in range(150):
        representation = represented(config, rate_weight=0.0, seed=seed, of=values)
        group = representation._groups()[0]
        with torch.no_grad():
            mean, sd, _ = group.posterior()
            group.send(torch.arange(group.blocks.num_blocks))
            present = group.present
            errors.append(((group.sent_values - mean) / sd)[present].numpy())
    found = np.concatenate(errors)
    assert abs(found.mean()) < 5 / math.sqrt(len(found)) + 0.01
    # At 4 bits of slack minimal random coding is too spread out by about a twelfth.
    assert 0.9 < found.var() < 1.3


def test_values_that_are_shared_are_equal_but_for_their_signs_and_dead_ones_are_0() -> None:
    config = MiracleConfig(bits=7, candidates="own", share={"weight": 4}, live={"weight": [9, 13]})
    value = represented(config).eval()().values["weight"]
    inside = value[:9, :13].abs()
    counts = np.unique(inside.numpy(), return_counts=True)[1]
    assert len(counts) == 30 and counts.max() == 4 and counts.sum() == 117
    assert (value[:9, :13] > 0).any() and (value[:9, :13] < 0).any()
    assert not value[9:].any() and not value[:, 13:].any()
    drawn = represented(config).train()().values["weight"]
    assert not drawn[9:].any() and not drawn[:, 13:].any()
    assert len(np.unique(drawn[:9, :13].detach().abs().numpy())) == 30


def test_zeros_stay_so_unless_they_are_given_a_prior() -> None:
    assert not represented().eval()().values["zeros"].any()
    given = represented(MiracleConfig(bits=7, first_priors={"zeros": 0.5}))
    assert "zeros" in given.names and given.eval()().values["zeros"].any()


def test_priors_are_frozen_once_a_block_is_sent() -> None:
    representation = represented()
    group = representation._groups()[0]
    assert group.log_priors.requires_grad
    representation.commit("0:0")
    assert not group.log_priors.requires_grad
    sent = group.sent_values[0].clone()
    codes = group.prior_codes()
    train(representation)
    assert group.prior_codes() == codes and torch.equal(group.sent_values[0], sent)
    part = decode_part(next(representation.chunks()).payload, [t.shape for t in list(tensors().values())[:3]])
    assert [code for code in part.priors if code is not None] == codes
    torch.testing.assert_close(group.priors(), torch.tensor([float(step_of(code)) for code in codes]))


def test_what_is_committed_is_final_and_the_rest_is_trained_on() -> None:
    representation = represented()
    representation.commit_all(("0:1", "0:3"))
    marks = {name: where.clone() for name, where in representation.settled("0:1").items()}
    before = representation.eval()().values["weight"].clone()
    train(representation)
    values = representation.eval()().values["weight"]
    assert torch.equal(values[marks["weight"]], before[marks["weight"]])
    assert not torch.equal(values, before)
    assert not {"0:1", "0:3"} & set(representation.open_steps)
    assert torch.equal(decode(representation.chunks())["weight"], values)
    assert not representation.open_steps


@pytest.mark.parametrize("step", ["0:999", "1:0", "0", "a:b", "0:-1", ""])
def test_a_step_that_there_is_not_is_refused(step: str) -> None:
    with pytest.raises(InvalidArgument, match="no step"):
        represented().commit(step)


def test_a_run_goes_on_from_its_state_in_the_middle_of_sending() -> None:
    first = represented()
    train(first)
    first.commit_all(("0:0", "0:2"))
    train(first)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    second = represented()
    second.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert second.open_steps == first.open_steps
    for representation in (first, second):
        train(representation)
    assert [chunk.payload for chunk in first.chunks()] == [chunk.payload for chunk in second.chunks()]


def test_a_copy_shares_the_table_of_candidates_and_nothing_else() -> None:
    representation = represented()
    representation.eval()()
    copied = copy.deepcopy(representation)
    own, other = (each._groups()[0] for each in (representation, copied))
    assert isinstance(own._simulator, Mrc) and own._simulator._table is not None
    assert other._simulator is own._simulator
    copied.commit("0:0")
    assert not own.sent.any() and other.sent.sum() == 1
    assert own.raw_means.data_ptr() != other.raw_means.data_ptr()


# files


def test_a_trained_module_comes_back_bit_by_bit(tmp_path: Path) -> None:
    module = network()
    fewbits.attach(module, Miracle(SMALL), budget=150)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    inputs = torch.randn(16, 20)
    for _ in range(3):
        optimizer.zero_grad()
        module(inputs).square().mean().backward()
        optimizer.step()
    expected = module.eval()(inputs)
    fewbits.save(module, tmp_path / "m.fewbits", bare=True)
    loaded = fewbits.load(tmp_path / "m.fewbits", into=network()).eval()
    assert torch.equal(loaded(inputs), expected)


@pytest.mark.parametrize("bare", [False, True])
def test_a_file_of_another_module_is_refused(bare: bool, tmp_path: Path) -> None:
    module = network()
    fewbits.attach(module, Miracle(SMALL), budget=150)
    fewbits.save(module, tmp_path / "m.fewbits", bare=bare)
    other = nn.Sequential(nn.Linear(20, 11), nn.ReLU(), nn.Linear(11, 5))
    before = [value.clone() for value in other.state_dict().values()]
    with pytest.raises(InvalidArgument):
        fewbits.load(tmp_path / "m.fewbits", into=other)
    assert all(torch.equal(*pair) for pair in zip(before, other.state_dict().values(), strict=True))


def test_a_payload_of_another_version_or_dtype_is_refused() -> None:
    chunk = next(Miracle(SMALL).encode(Source(tensors()), rate_weight=1.0, seed=3))
    with pytest.raises(fewbits.Incompatible):
        decode([chunk._replace(payload_version=2)])
    specs = (chunk.tensors[0]._replace(dtype="int32"), *chunk.tensors[1:])
    with pytest.raises(Corrupt, match="int32"):
        decode([chunk._replace(tensors=specs)])
