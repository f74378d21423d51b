"""What a call of `compress` encodes, and what a reader gets of it."""

from functools import reduce
from operator import or_

import pytest
import torch

from fewbits.job import Job
from fewbits.method import Source
from fewbits.methods.ecsq import Ecsq
from fewbits.sources import read_checkpoint


def test_tensors_come_some_at_a_time_as_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewbits.plan.TILE", 1 << 15)
    generator = torch.Generator().manual_seed(1)
    large = torch.randn(1024, 256, generator=generator)
    checkpoint = read_checkpoint(
        {"a": large, "tied": large, "copy": large.clone(), "b": large[:3] + 1, "c": large[3:5]}
    )
    job = Job(checkpoint, Source(checkpoint.stored, None, {}, large.numel()), Ecsq(), 0, False, None, None)
    encoded = job.encoded(job.method, 1e-3)
    assert sum(chunk.tensors[0].name == "a" for chunk in encoded.chunks) > 1  # tiles
    some = list(encoded.some_tensors(checkpoint.entries))
    assert [sorted(each) for each in some] == [["a", "copy", "tied"], ["b", "c"]]
    together = encoded.tensors(checkpoint.entries)
    joined = reduce(or_, some)
    assert together.keys() == joined.keys() == checkpoint.tensors.keys()
    assert all(torch.equal(together[name], joined[name]) for name in together)
