"""Bars on a terminal, nothing in a pipe."""

import io
import sys

import pytest

import fewbits


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_bars_with_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with fewbits.progress_bar() as progress:
        assert progress is not None
        for done in (1, 2, 3, 1, 2, 3):  # a stage that comes twice, as in a search
            progress("encode", done, 3)
        progress("[curvatures]", 1, 2)
    shown = terminal.getvalue()
    assert "encode" in shown and "3/3" in shown and "[curvatures]" in shown and "1/2" in shown
    assert "-:--:--" in shown or "0:00:00" in shown


def test_a_pipe_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with fewbits.progress_bar() as progress:
        assert progress is None
