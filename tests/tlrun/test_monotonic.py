"""Dask sends what it has to send, also when somebody sets the clock back."""

import subprocess
import sys
import time

import pytest

from tlrun.monotonic import now

SCRIPT = """
import asyncio, sys, time

real, back = time.time, [0.0]
time.time = lambda: real() - back[0]  # before anything else can get hold of it

from distributed.batched import BatchedSend
from tlrun.monotonic import use_monotonic_clock

if sys.argv[1] == "monotonic":
    use_monotonic_clock()
    use_monotonic_clock()
sent = []

class Comm:
    def closed(self):
        return False

    async def write(self, messages, **_):
        sent.extend(messages)
        return 1

    def abort(self):
        pass

async def send():
    stream = BatchedSend(interval="50 ms")
    stream.start(Comm())
    stream.send("first")
    while not sent:
        await asyncio.sleep(0)
    stream.send("second")  # waits until 50 ms after the first
    back[0] = 2 * 86400.0
    for _ in range(60):
        if len(sent) == 2:
            break
        await asyncio.sleep(0.05)
    print(*sent)

asyncio.run(send())
"""


def test_it_is_the_time_of_day_as_long_as_nobody_sets_the_clock():
    assert now() == pytest.approx(time.time(), abs=1)


def test_a_clock_that_is_set_back_between_two_messages_holds_nothing_up():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "monotonic"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "first second\n", done.stderr
