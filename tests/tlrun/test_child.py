"""A call's own process: what it returns, how it is stopped, how it dies, and what is said of that."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tlrun.child import Child, ChildDied, TimeLimit


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.close()


def call(child: Child, function: Any, *args: Any, time_limit: float | None = 60) -> Any:
    answer = child.call(pickle.dumps((function, args, {})), time_limit)
    value = pickle.loads(answer.blob)
    if not answer.ok:
        raise value
    return value


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone_soon(pid: int) -> bool:
    for _ in range(100):
        if not alive(pid):
            return True
        time.sleep(0.1)
    return False


def divide(a: int, b: int) -> float:
    print("dividing")
    return a / b


def hang(file: str) -> None:
    """Start a process and wait for ever, in this function of telling name."""
    other = subprocess.Popen(["sleep", "1000"])
    Path(file).write_text(str(other.pid))
    time.sleep(1000)


def die(number: int) -> None:
    os.write(2, b"last words\n")
    os.kill(os.getpid(), number)


class Odd(Exception):
    """An error that cannot be made from what it keeps."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def raise_odd() -> None:
    raise Odd(1, 2)


def test_one_process_serves_many_calls(child: Child) -> None:
    first = call(child, os.getpid)
    assert call(child, divide, 6, 3) == 2.0
    assert call(child, os.getpid) == first != os.getpid()
    assert os.getsid(first) == first  # Ctrl-C in a terminal does not reach it


def test_an_error_comes_back_with_its_traceback(child: Child) -> None:
    answer = child.call(pickle.dumps((divide, (1, 0), {})), 60)
    assert not answer.ok
    assert isinstance(pickle.loads(answer.blob), ZeroDivisionError)
    assert "in divide" in answer.details
    assert "dividing" in child.log()
    assert call(child, divide, 1, 1) == 1  # the process lives on
    with pytest.raises(RuntimeError, match="Odd: 1 and 2"):
        call(child, raise_odd)
    with pytest.raises(SystemExit):
        call(child, sys.exit, 3)


def test_what_hangs_is_killed_with_all_that_it_started(child: Child, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    call(child, divide, 1, 1)  # it has imported this module
    with pytest.raises(TimeLimit, match="stopped after 5 s"):
        call(child, hang, str(file), time_limit=5)
    assert gone_soon(int(file.read_text()))
    assert "in hang" in child.log()  # where it was
    assert call(child, divide, 6, 3) == 2.0


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV")])
def test_what_dies_says_how_and_its_last_words(child: Child, number: int, name: str) -> None:
    with pytest.raises(ChildDied, match=f"ended by {name}"):
        call(child, die, number)
    assert "last words" in child.log()
    with pytest.raises(ChildDied, match="ended with status 7"):
        call(child, os._exit, 7)
    assert child.log() == ""
    assert call(child, divide, 6, 3) == 2.0


def crash() -> None:
    import numpy  # noqa: F401 - its modules, among others, are listed after the stack
    import scipy.ndimage  # noqa: F401

    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def test_what_a_crash_says_is_where_it_was_not_what_was_loaded(child: Child) -> None:
    with pytest.raises(ChildDied):
        call(child, crash)
    said = child.log()
    assert said.startswith("last words")
    assert "Fatal Python error: Segmentation fault" in said
    assert "in crash" in said
    assert "Extension modules" not in said


def test_one_thread_each(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")  # who asks for more gets it
    got = [call(child, os.getenv, f"{pool}_NUM_THREADS") for pool in ("OMP", "NUMBA", "OPENBLAS", "MKL")]
    assert got == ["1", "1", "1", "3"]


PARENT = """
import pickle, sys, time
from tlrun.child import Child
from os import getpid
child = Child()
print(pickle.loads(child.call(pickle.dumps((getpid, (), {})), 60).blob), flush=True)
child.call(pickle.dumps((time.sleep, (1000,), {})), None)
"""


def test_it_does_not_outlive_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone_soon(pid)
