"""The memory of a host, shared out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from tlrun import memory
from tlrun.memory import TooLarge, host_memory, reserved, share_of


def test_what_the_host_does_not_have_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(
            TooLarge, match=r"needs 8\.85 GiB of memory, and .* has 8\.38 GiB for calls; make the box smaller"
        ),
        reserved(9_500_000_000, folder=tmp_path, total=10_000_000_000),
    ):
        pass
    assert not list(tmp_path.glob("*.bytes"))


def test_what_does_not_fit_beside_others_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_LOOK_AGAIN", 0.01)
    order: list[str] = []

    def second() -> None:
        with reserved(50, folder=tmp_path, total=100):
            order.append("second")

    with reserved(45, folder=tmp_path, total=100), reserved(40, folder=tmp_path, total=100):
        thread = Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert not list(tmp_path.glob("*.bytes"))


def held(folder: Path) -> int:
    return sum(n for _, n in memory._entries(folder))


def test_a_cluster_keeps_to_its_share_whatever_others_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_LOOK_AGAIN", 0.01)
    with reserved(500, folder=tmp_path, total=1000):  # another run on this host
        for name, value in share_of(100).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(TooLarge), reserved(95, folder=tmp_path, total=1000):  # more than 90 % of it
            pass
        order: list[str] = []

        def second() -> None:
            with reserved(50, folder=tmp_path, total=1000):
                order.append("second")

        with reserved(60, folder=tmp_path, total=1000):
            assert held(tmp_path) == 560
            thread = Thread(target=second)
            thread.start()
            time.sleep(0.1)
            order.append("first")
        thread.join(30)
        assert order == ["first", "second"]
    assert not list(tmp_path.glob("*.bytes"))


HOLD = """
import sys, time
from pathlib import Path
from tlrun.memory import reserved
with reserved(80, folder=Path(sys.argv[1]), total=100):
    print("has it", flush=True)
    time.sleep(1000)
"""


def test_what_a_dead_process_held_is_free(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "has it\n"
    assert held(tmp_path) == 80
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with reserved(80, folder=tmp_path, total=100):
        assert held(tmp_path) == 80


def test_limits_of_control_groups_count(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    (root / "slurm" / "job").mkdir(parents=True)
    own.write_text("0::/slurm/job\n")
    (root / "slurm" / "memory.max").write_text("5000\n")
    (root / "slurm" / "job" / "memory.max").write_text("max\n")
    assert list(memory._limits(own, root)) == [5000]
    (root / "memory" / "slurm").mkdir(parents=True)
    (root / "memory" / "slurm" / "memory.limit_in_bytes").write_text("700")
    own.write_text("5:cpu,cpuacct:/x\n4:memory:/slurm\n")
    assert list(memory._limits(own, root)) == [700]
    assert list(memory._limits(tmp_path / "none", root)) == []
    assert 0 < host_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
