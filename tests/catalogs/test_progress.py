"""The progress line of a log file: what it says of the time that is left."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from rich.console import Console

from catalogs import progress
from catalogs.amounts import duration
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
    assert third == "  segmented: 21/100 %; 52 s, about 71 s left"


def test_an_estimate_does_not_jump_after_a_slow_start(said):
    steady = said(200, [(5.0 + k, k) for k in range(1, 200)])
    told = [line for line in steady if "about" in line]
    assert told
    for line in told:
        done = int(line.split()[1].split("/")[0])
        assert line.endswith(f", about {duration(200 - done)} left")


@pytest.mark.parametrize("width", [24, 40, 60, 80, 200])
def test_a_picture_fits_the_window_and_drops_what_matters_least(width):
    text = io.StringIO()
    console = Console(file=text, width=width, highlight=False)
    words = ["3/13 structures", "2 min left"]
    notes = ["loss 0.123  F1 0.93 of ribosome", "12 patches/s", "1 min spent"]
    console.print(progress.two_rows("structures and their variants", 3 / 13, words, notes, width))
    rows = text.getvalue().rstrip("\n").split("\n")
    assert len(rows) == 2
    assert max(map(len, rows)) <= width
    assert "3/13" in rows[0]
    assert ("2 min left" in rows[0]) == (width >= 60)
    assert ("━" in rows[0]) == (width >= 80)


def test_a_terminal_shows_a_picture_and_a_pipe_plain_lines(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from catalogs.progress import ProgressLine\n"
        "with ProgressLine('structures and their variants', 13, 'structures') as line:\n"
        "    line.update(3, 'ribosome')\n"
    )
    piped = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    assert (piped.stdout, piped.stderr) == ("", "")
    lead, follow = pty.openpty()
    fcntl.ioctl(follow, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    run = subprocess.Popen(
        [sys.executable, program], stdout=follow, stderr=follow, env=environment | {"TERM": "xterm"}
    )
    os.close(follow)
    said = b""
    with contextlib.suppress(OSError):  # the terminal is gone when the program has ended
        while part := os.read(lead, 4096):
            said += part
    os.close(lead)
    assert run.wait() == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode()).replace("\r", "\n")
    rows = [row for row in plain.split("\n") if row.strip()]
    assert re.search(r"^  structures and their variants [━╸╺]+ 3/13 structures$", plain, re.MULTILINE)
    assert max(map(len, rows)) <= 60
