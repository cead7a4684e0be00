"""What the fan-out decides, on an executor that needs no cluster and whose clock is ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tlrun.calls import SIMULATE, Call, CallResult, ClusterLost, Executor, Task
from tlrun.fan_out import Failure, Job, Progress, Steps, fan_out


class Lost(Exception):
    """Raised by a call here: its worker is lost."""


class Here(Executor):
    """Runs each task when it is waited for, the best of each pool first."""

    def __init__(self, **pools: int) -> None:
        self._pools = pools or {"rest": 2}
        self.waiting: dict[str, list[Task]] = {pool: [] for pool in self._pools}
        self.clock = 0.0
        self.ran: list[str] = []
        self.most: dict[str, int] = dict.fromkeys(self._pools, 0)
        self.gone = False

    def pools(self) -> Mapping[str, int]:
        return self._pools

    def pool_of(self, name: str) -> str:
        return name if name in self._pools else "rest"

    def submit(self, task: Task) -> None:
        tasks = self.waiting[task.pool]
        tasks.append(task)
        tasks.sort(key=lambda t: -t.priority)
        self.most[task.pool] = max(self.most[task.pool], len(tasks))

    def wait(self, seconds: float) -> list[CallResult]:
        if self.gone:
            raise ClusterLost("the scheduler has gone")
        found = []
        for pool, tasks in self.waiting.items():
            for _ in range(self._pools[pool]):
                if tasks:
                    found.append(self._run(tasks.pop(0)))
        self.clock += 1.0 if found else seconds
        return found

    def _run(self, task: Task) -> CallResult:
        self.ran.append(task.key.rpartition("-")[0])
        try:
            return CallResult(task.key, task.call.function(*task.call.args), seconds=1, occupied=1)
        except Lost as error:
            return CallResult(task.key, error=error, lost=True, seconds=1)
        except Exception as error:
            return CallResult(task.key, error=error, host="node7", log="said this", seconds=1)

    def cancel(self, keys: Iterable[str]) -> None:
        for tasks in self.waiting.values():
            tasks[:] = [task for task in tasks if task.key not in keys]

    def now(self) -> float:
        return self.clock


def echo(x: Any) -> Any:
    return x


def sample(
    name: str, tilts: int = 3, tilt: Callable[[Any], Any] = echo, last: Callable[[Any], Any] = echo
) -> Job:
    def steps() -> Steps:
        yield [Call(echo, name)]
        images = yield [Call(tilt, k).needs(pool=SIMULATE) for k in range(tilts)]
        return (yield [Call(last, len(images))])[0]

    return Job(name, steps)


def flaky(error: Exception, times: int) -> Callable[[Any], Any]:
    left = [times]

    def call(x: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error
        return x

    return call


def test_the_last_cause_and_all_others_are_kept() -> None:
    told: list[Failure] = []
    here = Here()
    bad = sample("bad", last=flaky(ValueError("too\nbad"), 99))
    summary = fan_out([bad, sample("good")], here, retries=2, on_failure=told.append)
    assert summary.results == {"good": 3}
    [failure] = summary.failures
    assert told == [failure]
    assert (failure.name, failure.error, failure.attempts) == ("bad", "ValueError: too bad", 3)
    assert failure.causes == ("ValueError: too bad (on node7)",) * 3
    assert (failure.host, failure.log, failure.kind) == ("node7", "said this", "call")
    assert summary.progress is not None
    assert summary.progress.retried == 2
    assert here.clock > 0.5 + 2.0  # it waited before each new attempt


def test_what_is_lost_with_its_worker_is_no_failure_until_it_is_again_and_again() -> None:
    assert fan_out([sample("a", last=flaky(Lost("gone"), 2))], Here(), retries=2).results == {"a": 3}
    summary = fan_out([sample("a", last=flaky(Lost("gone"), 99)), sample("b")], Here(), retries=2)
    assert [f.error for f in summary.failures] == ["Lost: gone"]
    assert summary.failures[0].attempts == 3
    assert summary.results == {"b": 3}
    # a lost worker and an error are counted apart
    both = [Lost("gone"), ValueError("x"), Lost("gone"), ValueError("x")]

    def mixed(x: Any) -> Any:
        if both:
            raise both.pop()
        return x

    assert fan_out([sample("c", last=mixed)], Here(), retries=2).results == {"c": 3}


def test_suspects_are_tried_a_few_at_a_time() -> None:
    here = Here(rest=16)
    flying: list[int] = []

    def killer(x: Any) -> Any:
        flying.append(1 + sum(len(tasks) for tasks in here.waiting.values()))
        if len(flying) <= 16:
            raise Lost("all at once")
        return x

    summary = fan_out([sample("a", tilts=16, tilt=killer)], here, retries=2)
    assert summary.results == {"a": 16}
    assert max(flying[16:]) <= 2


def test_two_pools_each_have_their_window_and_packing_does_not_run_away() -> None:
    here = Here(rest=1, simulate=2)
    begun: list[int] = []
    jobs = [sample(f"s{k}", tilts=10) for k in range(30)]
    summary = fan_out(jobs, here, on_progress=lambda p: begun.append(p.items_begun))
    assert summary.done == 30
    assert here.most == {"rest": 2, "simulate": 4}
    assert max(begun) <= 2 + 4
    started = [key for key in here.ran if key.startswith("echo-s") and "-2-" in key]
    assert len(started) == 300


def test_the_first_samples_are_whole_early() -> None:
    here, done = Here(rest=4), []
    fan_out(
        [sample(f"s{k}", tilts=10) for k in range(20)], here, on_result=lambda *_: done.append(here.clock)
    )
    assert done[0] < here.clock / 4
    assert done[9] < 0.65 * here.clock


def test_once_asked_to_stop_it_finishes_what_has_images() -> None:
    here = Here()
    asked = [False]

    def look(progress: Progress) -> None:
        asked[0] = asked[0] or progress.calls_done.get("echo", 0) > 8

    jobs = [sample(f"s{k}", tilts=4) for k in range(50)]
    summary = fan_out(jobs, here, stop=lambda: asked[0], on_progress=look)
    assert summary.stopped == "interrupted"
    assert not summary.failures
    assert 1 <= summary.done <= 4
    assert summary.progress is not None
    assert summary.progress.stopping
    assert summary.progress.items_begun == 0


def test_asked_to_stop_when_nothing_is_left_to_begin_it_is_done() -> None:
    jobs = [sample(f"s{k}", tilts=4) for k in range(2)]
    asked: list[bool] = []

    def look(progress: Progress) -> None:
        if progress.calls_done.get("echo", 0) > 7:  # both have images
            asked.append(True)

    summary = fan_out(jobs, Here(), stop=lambda: bool(asked), on_progress=look)
    assert summary.progress is not None
    assert summary.progress.stopping
    assert (summary.done, summary.stopped) == (2, "")


def test_what_every_attempt_would_raise_is_not_tried_again() -> None:
    here = Here()
    jobs = [sample("wrong", last=flaky(TypeError("wrong"), 99)), sample("shaky", last=flaky(OSError(), 2))]
    summary = fan_out(jobs, here, retries=2, hopeless=lambda error: isinstance(error, TypeError))
    assert [(f.name, f.attempts) for f in summary.failures] == [("wrong", 1)]
    assert summary.results == {"shaky": 3}
    assert not summary.stopped


def test_an_error_after_which_nothing_is_worth_trying_stops_at_once() -> None:
    full = sample("full", last=flaky(OSError(28, "No space left on device"), 99))
    jobs = [full, *(sample(f"s{k}") for k in range(40))]
    summary = fan_out(jobs, Here(), fatal=lambda error: isinstance(error, OSError))
    assert [f.attempts for f in summary.failures] == [1]
    assert "No space left" in summary.stopped
    assert summary.done < 8


def test_many_failures_in_a_row_stop_it() -> None:
    jobs = [sample(f"s{k}", last=flaky(ValueError("all wrong"), 99)) for k in range(50)]
    summary = fan_out(jobs, Here(), retries=0, most_in_a_row=5)
    assert 5 <= len(summary.failures) <= 9
    assert summary.stopped == "5 in a row failed, the last by ValueError: all wrong"


def test_a_scheduler_that_goes_ends_it_with_a_sentence() -> None:
    here = Here()

    def look(progress: Progress) -> None:
        here.gone = progress.items_done >= 2

    summary = fan_out([sample(f"s{k}") for k in range(10)], here, on_progress=look)
    assert summary.stopped == "the scheduler has gone"
    assert 2 <= summary.done < 10


def test_results_need_not_be_kept_and_bytes_are_counted() -> None:
    summary = fan_out(
        [sample(f"s{k}") for k in range(4)], Here(), keep_results=False, measure=lambda n: n * 100
    )
    assert (summary.done, summary.results) == (4, {})
    assert summary.progress is not None
    assert summary.progress.bytes_written == 4 * 300
    assert summary.progress.calls_done == {"echo": 4 * 5}
    assert summary.progress.busy == 0.0
    assert summary.progress.occupied_seconds == 20


def test_a_key_of_two_runs_is_never_the_same() -> None:
    keys: list[list[str]] = []
    for _ in range(2):
        here = Here()
        submitted: list[str] = []
        original = here.submit
        here.submit = lambda task, s=submitted, o=original: (s.append(task.key), o(task))[1]  # type: ignore[method-assign,misc]
        fan_out([sample("s")], here)
        keys.append(submitted)
    assert len({*keys[0], *keys[1]}) == 10


def test_other_calls_of_an_item_that_is_given_up_are_dropped() -> None:
    here = Here(rest=1)
    fan_out([sample("bad", tilts=10, tilt=flaky(ValueError("no"), 99))], here, retries=0)
    assert len([key for key in here.ran if "-2-" in key]) <= 2
    assert not here.waiting["rest"]
