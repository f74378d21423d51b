"""The native decoder among damaged bodies, sanitized: a few inputs here, 10^7 by tests/hostile/fuzz/run.py."""

import pytest

from tests.native.build import run


@pytest.mark.slow  # a minute of compiling; .ci/run runs it
@pytest.mark.parametrize(
    ("fuzzer", "inputs"),
    [
        ("fuzz_decode_body", 30_000),
        ("fuzz_round_trip", 150),
        ("fuzz_decode_adaptive", 5_000),
        ("fuzz_decode_columns", 5_000),
    ],
)
def test_no_input_crashes_the_core_or_makes_its_loops_differ(fuzzer: str, inputs: int) -> None:
    assert run(fuzzer, "1", str(inputs)) == f"{inputs} inputs, no failure\n"
