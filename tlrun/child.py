"""A child process that runs calls one after the other and can be killed at any time.

A thread cannot be stopped, and a crash in a library kills its whole process. So a worker hands each call to
a child process. The child stays for the next call, because importing libraries and reading structures take
seconds. It is killed, with all processes that it started, when a call takes too long. It ends when the thread
that started it ends, and the kernel kills it first when memory runs out.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import Pipe as pipe
from typing import Any

from catalogs.amounts import duration

#: A worker is one thread: BLAS, FFT and numba must not start one thread per core in each process.
_POOLS = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "NUMBA")
ONE_THREAD = {f"{pool}_NUM_THREADS": "1" for pool in _POOLS}
_TAIL = 4000  # characters of the log that are kept when a call fails
_MODULES = re.compile(r"^Extension modules: .*\n?", re.MULTILINE)  # a long line after a crash
_TO_SAY_WHERE = 0.3  # seconds for a process that hangs to write its stack
_PR_SET_PDEATHSIG = 1


class TimeLimit(Exception):
    """A call took too long and was stopped."""


class ChildDied(Exception):
    """The process of a call ended before the call was finished."""


@dataclass(frozen=True)
class Answer:
    """Answer of a child: whether the call returned, the pickled result or error, and the traceback."""

    ok: bool
    blob: bytes
    details: str
    seconds: float


class Child:
    """The child process of one thread, started when it is first needed and again after it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._log: Any = None

    def call(self, payload: bytes, time_limit: float | None) -> Answer:
        """Run a pickled ``(function, args, kwargs)``.

        Raises
        ------
        TimeLimit
            It took longer than ``time_limit`` seconds.
        ChildDied
            Its process died; the message gives the signal or the exit status.
        """
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._connection is not None
        self._log.seek(0)
        self._log.truncate()
        try:
            self._connection.send_bytes(payload)
            if not self._connection.poll(time_limit):
                self._stop(say_where=True)
                assert time_limit is not None
                raise TimeLimit(f"it was stopped after {duration(time_limit)}")
            answer = pickle.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError) as error:
            self._stop()
            raise ChildDied(_how(self._process.returncode)) from error
        except BaseException:  # this thread itself is being stopped
            self._stop()
            raise
        assert isinstance(answer, Answer)
        return answer

    def log(self) -> str:
        """Return the end of what the last call printed."""
        if self._log is None:
            return ""
        self._log.seek(0)
        text: str = self._log.read().decode(errors="replace")
        return _MODULES.sub("", text)[-_TAIL:].strip()

    def close(self) -> None:
        """End the process."""
        self._stop()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _start(self) -> None:
        self._stop()
        ours, theirs = pipe()
        self._log = self._log or tempfile.TemporaryFile(prefix="tlrun-log-")  # noqa: SIM115 - lives as long as this
        paths = [path for path in sys.path if path]
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from tlrun.child import main; main()",
                str(theirs.fileno()),
                str(os.getpid()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # only the driver gets Ctrl-C, and the whole group can be killed
            env={**ONE_THREAD, **os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))},
        )
        theirs.close()
        self._connection = ours

    def _stop(self, *, say_where: bool = False) -> None:
        process = self._process
        if process is None:
            return
        if say_where and process.poll() is None:
            process.send_signal(signal.SIGUSR1)  # its stack goes to the log
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_TO_SAY_WHERE)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if process.returncode is None or not say_where:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_of_thread = threading.local()


def child_of_this_thread() -> Child:
    """Return the child of the calling thread. It runs one call at a time, as MULTEM needs."""
    if not hasattr(_of_thread, "child"):
        _of_thread.child = Child()
    child: Child = _of_thread.child
    return child


def _how(returncode: int) -> str:
    if returncode >= 0:
        return f"its process ended with status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    hint = "; the kernel does this when memory runs out" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{hint}"


# ---------------------------------------------------------------------------------------- in the child


def main() -> None:
    """Run calls until the parent is gone."""
    number, parent = int(sys.argv[1]), int(sys.argv[2])
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before this was set
        return
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    connection = Connection(number)
    while True:
        try:
            payload = connection.recv_bytes()
        except EOFError:
            return
        answer = _run(payload)
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send_bytes(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))


def _run(payload: bytes) -> Answer:
    started = time.perf_counter()
    try:
        function, args, kwargs = pickle.loads(payload)
        started = time.perf_counter()
        value = function(*args, **kwargs)
        seconds = time.perf_counter() - started
        return Answer(True, pickle.dumps(value, pickle.HIGHEST_PROTOCOL), "", seconds)
    except BaseException as error:
        seconds = time.perf_counter() - started
        return Answer(False, _pickled(error), "".join(traceback.format_exception(error)), seconds)


def _pickled(error: BaseException) -> bytes:
    """Pickle an error. One that cannot be unpickled is replaced by a plain error with the same message."""
    with contextlib.suppress(Exception):
        blob = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
        if str(pickle.loads(blob)) == str(error):
            return blob
    return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
