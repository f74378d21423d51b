"""The laws that every method in the registry keeps; its inputs are in `<id>_inputs.py`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import fewbits
from fewbits.chunk import Chunk
from fewbits.container import Reader, file_bytes
from fewbits.encode import decode
from fewbits.errors import Incompatible, InvalidArgument
from fewbits.registry import METHODS, method_class
from fewbits.sources import entries_of, read_checkpoint
from fewbits.tensors import bits_of
from tests.laws.inputs import CASES, IDS, SEED, chunks_of, coded, inputs_of, method_of, source_of

# torch says so once whenever a complex32 tensor is made.
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


def bits(tensor: Tensor) -> bytes:
    return bits_of(tensor).tobytes()


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert bits(found) == bits(expected)


def whole_file(chunks: Sequence[Chunk], tensors: Mapping[str, Tensor]) -> bytes:
    entries = entries_of(tensors, copies=False)
    return file_bytes(chunks=chunks, tensors=entries, seed=SEED, rate_weight=None, metadata=None)


@pytest.mark.parametrize("id", IDS)
def test_the_registry_and_the_class_agree(id: str) -> None:
    code, _, _ = METHODS[id]
    cls = method_class(id)
    assert (cls.id, cls.code) == (id, code)
    assert cls.payload_version >= 1
    assert inputs_of(id).configs[0] == cls.config_type()


@pytest.mark.parametrize(("id", "name"), CASES)
def test_what_is_encoded_comes_back_with_its_dtype_and_shape_at_every_rate(id: str, name: str) -> None:
    inputs = inputs_of(id)
    tensors = inputs.sources[name]()
    for rate_weight in inputs.rate_weights:
        decoded = decode(coded(id, name, rate_weight))
        assert set(decoded) == set(tensors)
        for key, tensor in tensors.items():
            assert (decoded[key].dtype, decoded[key].shape) == (tensor.dtype, tensor.shape)
            if id == "lossless" or not inputs.is_lossy(tensor) or not tensor.isfinite().all():
                assert_same(decoded[key], tensor)
            else:
                assert decoded[key].isfinite().all()


@pytest.mark.parametrize(("id", "name"), [case for case in CASES if case[1] != "tiled"])
def test_every_config_encodes_every_source(id: str, name: str) -> None:
    inputs = inputs_of(id)
    tensors = inputs.sources[name]()
    for config in inputs.configs:
        chunks = chunks_of(method_of(id, config), tensors, inputs.rate_weights[-1])
        decoded = decode(chunks)
        assert {key: (value.dtype, value.shape) for key, value in decoded.items()} == {
            key: (value.dtype, value.shape) for key, value in tensors.items()
        }
        assert all(chunk.config == config.to_json() for chunk in chunks if chunk.method == id)


@pytest.mark.parametrize(("id", "name"), CASES)
def test_estimated_bits_are_the_bytes_written(id: str, name: str) -> None:
    for rate_weight in inputs_of(id).rate_weights:
        chunks = coded(id, name, rate_weight)
        written = sum(len(chunk.payload) for chunk in chunks)
        estimated = sum(loss.bits for chunk in chunks for loss in chunk.losses) / 8
        assert all(len(chunk.losses) == len(chunk.tensors) for chunk in chunks)
        assert abs(written - estimated) <= 0.01 * written + 16, f"at rate weight {rate_weight}"


@pytest.mark.parametrize(("id", "name"), [case for case in CASES if case[1] in ("network", "edges", "large")])
def test_a_survey_predicts_the_size_and_falls_as_the_rate_weight_rises(id: str, name: str) -> None:
    inputs = inputs_of(id)
    tensors = inputs.sources[name]()
    method = method_of(id)
    survey = method.survey(source_of(id, tensors))
    predicted = [survey.bits(rate_weight) / 8 for rate_weight in inputs.rate_weights]
    assert predicted == sorted(predicted, reverse=True)
    if name == "network":
        written = [sum(len(chunk.payload) for chunk in coded(id, name, rate)) for rate in inputs.rate_weights]
        for size, expected in zip(written, predicted, strict=True):
            assert abs(size - expected) <= 0.2 * size + 200


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("name", ["network", "views", "every dtype", "edges", "large"])
def test_units_encoded_apart_give_the_chunks_of_the_whole(id: str, name: str) -> None:
    inputs = inputs_of(id)
    method, tensors, rate_weight = method_of(id), inputs.sources[name](), inputs.rate_weights[-1]
    whole = source_of(id, tensors)
    together = coded(id, name, rate_weight)
    specs = [entry.spec for entry in entries_of(tensors, copies=False)]
    units = method.units(specs)
    assert sorted(spec.name for unit in units for spec in unit) == sorted(tensors)
    apart = {}
    for unit in reversed(units):
        own = {spec.name: tensors[spec.name] for spec in unit}
        source = source_of(id, own, num_weights=whole.rate_divisor)
        apart[unit] = list(method.encode(source, rate_weight=rate_weight, seed=SEED))
    key = sorted([c.tensors, c.span or (), c.payload] for c in together)
    assert sorted([c.tensors, c.span or (), c.payload] for unit in units for c in apart[unit]) == key


@pytest.mark.parametrize(("id", "name"), CASES)
def test_any_part_decodes_alone_and_in_any_order(id: str, name: str, tmp_path: Path) -> None:
    inputs = inputs_of(id)
    tensors = inputs.sources[name]()
    chunks = coded(id, name, inputs.rate_weights[-1])
    assert name != "tiled" or all(chunk.span is not None for chunk in chunks)
    expected = decode(chunks)
    for index in np.random.default_rng(0).permutation(len(chunks)):
        chunk = chunks[index]
        for key, tensor in method_class(chunk.method).from_config({}).decode(chunk).items():
            start, stop = chunk.span or (0, tensor.numel())
            assert bits(tensor) == bits(expected[key].reshape(-1)[start:stop])
    path = tmp_path / "m.fewbits"
    path.write_bytes(whole_file(chunks, tensors))
    with fewbits.open(path) as archive:
        for key in reversed(list(archive)):
            assert_same(archive[key], expected[key])
    with Reader(path) as reader:
        order = np.random.default_rng(1).permutation(len(reader.parts)).tolist()
        shuffled = decode(reader.read_chunk(part) for part in order)
    for key, tensor in expected.items():
        assert_same(shuffled[key], tensor)


@pytest.mark.parametrize("id", IDS)
def test_a_config_goes_through_json_unchanged(id: str) -> None:
    for config in inputs_of(id).configs:
        written = json.loads(json.dumps(config.to_json()))
        assert type(config).from_json(written) == config
        assert method_class(id).from_config(written).config == config
        with pytest.raises(InvalidArgument, match="no_such_setting"):
            method_class(id).from_config({**written, "no_such_setting": 1})


@pytest.mark.parametrize("id", IDS)
def test_an_unknown_id_or_payload_version_is_incompatible_and_named(id: str, tmp_path: Path) -> None:
    inputs = inputs_of(id)
    tensors = {"weight": inputs.sources["network"]()["attention.weight"]}
    chunks = [chunk for chunk in chunks_of(method_of(id), tensors, inputs.rate_weights[-1]) if chunk.method == id]
    path = tmp_path / "m.fewbits"
    for changes, needed in (({"method": "no_such_method"}, "no_such_method"), ({"payload_version": 99}, "99")):
        data = whole_file([chunk._replace(**changes) for chunk in chunks], tensors)
        path.write_bytes(data)
        with pytest.raises(Incompatible, match=needed):
            fewbits.load(path)
        with fewbits.open(path) as archive, pytest.raises(Incompatible, match=needed):
            archive["weight"]
        fewbits.info(path)  # what the file says of itself is still to be had
        fewbits.verify(path)


@pytest.mark.parametrize(("id", "name"), CASES)
def test_the_source_is_left_as_it_was(id: str, name: str) -> None:
    inputs = inputs_of(id)
    tensors = inputs.sources[name]()
    before = {key: (bits(t), t.data_ptr(), t.stride(), t._version) for key, t in tensors.items()}
    method = method_of(id)
    source = source_of(id, tensors)
    method.survey(source)
    list(method.encode(source, rate_weight=inputs.rate_weights[0], seed=SEED))
    after = {key: (bits(t), t.data_ptr(), t.stride(), t._version) for key, t in tensors.items()}
    assert after == before


@pytest.mark.parametrize("id", IDS)
def test_decoded_tensors_do_not_share_memory_with_the_source(id: str) -> None:
    inputs = inputs_of(id)
    tensors = inputs.sources["network"]()
    for key, tensor in decode(chunks_of(method_of(id), tensors, inputs.rate_weights[0])).items():
        assert tensor.untyped_storage().data_ptr() != tensors[key].untyped_storage().data_ptr()
        assert tensor.is_contiguous()
        assert not tensor.requires_grad


@pytest.mark.parametrize("id", IDS)
def test_a_modules_parameters_are_left_as_they_were(id: str) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.BatchNorm1d(30), torch.nn.Linear(30, 20))
    module[2].weight = torch.nn.Parameter(module[0].weight.detach().T)
    module(torch.randn(4, 20)).sum().backward()
    before = {key: (bits(t), t.data_ptr(), t._version) for key, t in module.state_dict(keep_vars=True).items()}
    gradients = [parameter.grad.clone() for parameter in module.parameters()]
    checkpoint = read_checkpoint(module)
    source = source_of(id, checkpoint.stored, module)
    method = method_of(id)
    method.survey(source)
    list(method.encode(source, rate_weight=inputs_of(id).rate_weights[-1], seed=SEED))
    after = {key: (bits(t), t.data_ptr(), t._version) for key, t in module.state_dict(keep_vars=True).items()}
    assert after == before
    for parameter, gradient in zip(module.parameters(), gradients, strict=True):
        assert parameter.requires_grad
        assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("id", IDS)
def test_the_seed_is_in_every_chunk_and_the_same_call_gives_the_same_chunks(id: str) -> None:
    inputs = inputs_of(id)
    tensors = inputs.sources["network"]()
    first = chunks_of(method_of(id), tensors, inputs.rate_weights[-1])
    torch.manual_seed(5)
    torch.rand(3)
    again = chunks_of(method_of(id), tensors, inputs.rate_weights[-1])
    assert all(chunk.seed == SEED for chunk in first)
    assert [chunk.payload for chunk in again] == [chunk.payload for chunk in first]
