"""The progress line of a log file: what it says of the time that is left."""

import re

import pytest

from catalogs import progress
from catalogs.progress import ProgressLine


@pytest.fixture
def said(monkeypatch, capsys):
    """Show a line at imagined times, and return what it says."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    def run(total, updates):
        clock[0] = 0.0
        with ProgressLine("segmented:", total, "%") as line:
            for seconds, done in updates:
                clock[0] = seconds
                line.update(done)
        return capsys.readouterr().out.splitlines()

    return run


def test_nothing_is_said_of_the_rest_before_anything_is_known(said):
    """The first per cent took 34 s because the network was compiled: the rest will not."""
    first, second, third = said(100, [(16.0, 0), (34.0, 1), (36.0, 2), (52.0, 21)])
    assert first == "  segmented: 0/100 %; 16 s"
    assert second == "  segmented: 1/100 %; 34 s"
    assert third == "  segmented: 21/100 %; 52 s, about 1 min 11 s left"


def seconds(words):
    found = re.match(r"(?:(\d+) min )?(\d+) s left", words)
    return 60 * int(found[1] or 0) + int(found[2])


def test_an_estimate_does_not_jump_after_a_slow_start(said):
    steady = said(200, [(5.0 + k, k) for k in range(1, 200)])
    left = [seconds(line.split("about ")[1]) for line in steady if "about" in line]
    assert left
    for line, rest in zip([line for line in steady if "about" in line], left, strict=True):
        done = int(line.split()[1].split("/")[0])
        assert rest == pytest.approx(200 - done)
