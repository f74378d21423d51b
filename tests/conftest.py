"""What all tests share: reproducible hypothesis runs, and the folder of real data where there is one."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Derandomised: two runs of one commit test the same examples. No deadline: a busy machine is not a failure.
settings.register_profile("reproducible", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "reproducible"))


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
