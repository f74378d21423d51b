"""The C++ tests of the compiled core, under AddressSanitizer and UndefinedBehaviorSanitizer."""

import pytest

from tests.native.build import run


@pytest.mark.slow  # a minute of compiling; .ci/run runs it
def test_the_core_holds_its_propositions_under_sanitizers() -> None:
    printed = run("test_core")
    assert "inner loops: scalar" in printed
    assert "inner loops: avx512" in printed  # emulated, where the machine has none
    assert printed.endswith("propositions hold\n")
