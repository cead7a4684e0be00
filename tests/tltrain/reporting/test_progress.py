import io
import sys

import pytest

import catalogs.progress
from catalogs.progress import ProgressLine
from tltrain.reporting import progress
from tltrain.reporting.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(catalogs.progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_whole_line_now_and_then(clock, monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stdout", log)
    with ProgressLine("training", 200, "steps") as line:
        shown = Progress(first=0, last=200, batch=8, line=line, waited=0.5, score="val F1 0.812")
        for step in range(1, 121):
            clock[0] += 0.25
            if shown.due():
                shown.show(step, loss=0.25)
    lines = log.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0] == (
        "  training 60/200 steps; 15 s, about 35 s left; "
        "loss 0.250  val F1 0.812  32.0 patches/s  waited 3.3 %"
    )


def test_steps_before_this_start_do_not_count(clock):
    told = []

    class Line(catalogs.progress.Silent):
        def update(self, done, note="", *, total=None):
            told.append((done, note))

    shown = Progress(first=50, last=200, batch=8, line=Line())
    for step in range(51, 71):
        clock[0] += 0.25
        if shown.due():
            shown.show(step, loss=0.25)
    assert len(told) == 20
    assert told[-1][0] == 70
    assert "32.0 patches/s" in told[-1][1]


def test_what_went_before_a_restart_does_not_count(clock):
    shown = Progress(first=0, last=10, batch=2, waited=3)
    clock[0] += 30
    shown.restart(1)
    clock[0] += 4
    shown.waited += 1
    assert shown.wait_share == pytest.approx(0.25)
    assert shown.rate(5) == pytest.approx(4 * 2 / 4)
