"""What all tests share: reproducible hypothesis runs, the folder of real data, and the instruction sets to force."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from fewbits.native import core

# Derandomised: two runs of one commit test the same examples. No deadline: a busy machine is not a failure.
settings.register_profile("reproducible", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "reproducible"))

# Images name their codecs by a hash; processes that tests start must find them, too.
os.environ["FEWBITS_CODECS"] = str(Path(__file__).resolve().parent / "golden" / "codecs")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's top folder."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data and pretrained weights named by FEWBITS_DATA; skips where it is not set."""
    folder = os.environ.get("FEWBITS_DATA")
    if folder is None:
        pytest.skip("FEWBITS_DATA does not name a data folder")
    return Path(folder)


@pytest.fixture(params=["numpy", "scalar", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set in turn, forced; skips those that this machine or this build lacks."""
    compiled = core()
    if request.param not in ("numpy", *(compiled.available_isas() if compiled else ())):
        pytest.skip(f"{request.param} cannot run here")
    monkeypatch.setenv("FEWBITS_ISA", request.param)
    return request.param
