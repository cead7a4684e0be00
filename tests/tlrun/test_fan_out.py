"""The fan-out, on a real cluster of worker processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from catalogs.errors import InputError
from tlrun.cluster.connect import open_cluster
from tlrun.fan_out import Call, Job, Progress, Steps, fan_out


def double(x: int) -> int:
    return 2 * x


def fail_until(marker: Path, tries: int) -> str:
    count = int(marker.read_text()) if marker.exists() else 0
    marker.write_text(str(count + 1))
    if count < tries:
        raise ValueError(f"try {count}")
    return f"succeeded at try {count}"


def die_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        os.kill(os.getppid(), signal.SIGKILL)
    return "lived"


def two_steps(x: int) -> Job:
    def steps() -> Steps:
        doubled = yield [Call(double, x + k) for k in range(3)]
        return (yield [Call(double, sum(doubled))])[0]

    return Job(f"item-{x}", steps)


def one_step(name: str, call: Call) -> Job:
    def steps() -> Steps:
        return (yield [call])[0]

    return Job(name, steps)


def test_steps_get_the_results_of_the_step_before_in_order(client: Any) -> None:
    seen: list[Progress] = []
    summary = fan_out([two_steps(x) for x in range(5)], client, on_progress=seen.append)
    assert summary.results == {f"item-{x}": 2 * (2 * (3 * x + 3)) for x in range(5)}
    assert not summary.failures
    last = seen[-1]
    assert (last.items_done, last.items_failed, last.items_begun, last.running) == (5, 0, 0, 0)
    assert last.calls_done == {"double": 20}
    assert last.call_seconds["double"] > 0
    assert last.workers == 2


def test_jobs_are_drawn_as_places_fall_free(client: Any) -> None:
    drawn: list[int] = []
    finished: list[str] = []
    ahead: list[int] = []

    def jobs() -> Any:
        for x in range(12):
            drawn.append(x)
            ahead.append(len(drawn) - len(finished))
            yield one_step(f"lazy-{x}", Call(double, x))

    fan_out(jobs(), client, window=3, on_result=lambda name, _: finished.append(name))
    assert len(finished) == 12
    assert max(ahead) <= 4


def test_jobs_that_began_come_before_new_ones(client: Any) -> None:
    finished: list[str] = []
    ahead: list[int] = []

    def jobs() -> Any:
        for x in range(10):
            ahead.append(x - len(finished))
            yield two_steps(20 + x)

    fan_out(jobs(), client, window=2, on_result=lambda n, _: finished.append(n))
    assert len(finished) == 10
    assert max(ahead) <= 1  # two at a time, whichever of them is slow, are finished before a third begins


def test_a_call_that_raises_is_tried_again(client: Any, tmp_path: Path) -> None:
    job = one_step("shaky", Call(fail_until, tmp_path / "count", 2))
    assert fan_out([job], client, retries=2).results == {"shaky": "succeeded at try 2"}


def test_a_failure_is_reported_and_stops_no_other(client: Any, tmp_path: Path) -> None:
    bad = one_step("bad", Call(fail_until, tmp_path / "count", 99))
    summary = fan_out([bad, two_steps(40)], client, retries=1)
    assert list(summary.results) == ["item-40"]
    [failure] = summary.failures
    assert failure.name == "bad"
    assert failure.error == "ValueError: try 1"
    assert "fail_until" in failure.details


def test_an_error_between_the_steps_fails_that_job_only(client: Any) -> None:
    def steps() -> Steps:
        yield [Call(double, 1)]
        raise KeyError("between")

    summary = fan_out([Job("between", steps), two_steps(50)], client)
    assert [f.name for f in summary.failures] == ["between"]
    assert list(summary.results) == ["item-50"]


def test_a_job_without_calls_is_done_at_once(client: Any) -> None:
    def steps() -> Steps:
        yield []
        return "nothing to do"

    assert fan_out([Job("empty", steps)], client).results == {"empty": "nothing to do"}


def test_a_call_that_kills_its_worker_is_tried_again_on_another(tmp_path: Path) -> None:
    with open_cluster("local:2") as client:
        jobs = [one_step("killer", Call(die_once, tmp_path / "died")), two_steps(60)]
        summary = fan_out(jobs, client)
    assert summary.results["killer"] == "lived"
    assert not summary.failures


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def kill_worker() -> None:
    os.kill(os.getppid(), signal.SIGKILL)


def test_poison_is_given_up_with_its_cause_and_stops_no_other(client: Any) -> None:
    jobs = [
        one_step("hangs", Call(time.sleep, 1000).needs(time_limit=1)),
        one_step("dies", Call(die, signal.SIGSEGV)),
        one_step("too-large", Call(double, 1).needs(memory=10**15)),
        *(two_steps(x) for x in range(70, 75)),
    ]
    summary = fan_out(jobs, client, retries=1)
    assert len(summary.results) == 5
    failures = {failure.name: failure for failure in summary.failures}
    assert failures["hangs"].error == "TimeLimit: it was stopped after 1 s"
    assert failures["dies"].error == "ChildDied: its process was ended by SIGSEGV"
    assert "Fatal Python error: Segmentation fault" in failures["dies"].log
    assert "it needs 909.49 TiB of memory" in failures["too-large"].error
    assert {failure.attempts for failure in failures.values()} == {2}
    assert failures["hangs"].host == os.uname().nodename


@pytest.mark.slow
def test_what_kills_its_workers_is_found_out_and_nobody_else_blamed() -> None:
    with open_cluster("local:2") as client:
        jobs = [one_step("killer", Call(kill_worker)), *(two_steps(x) for x in range(80, 90))]
        summary = fan_out(jobs, client, retries=1)
    assert [failure.name for failure in summary.failures] == ["killer"]
    assert summary.failures[0].error.startswith("WorkerLost: the workers that it ran on were lost")
    assert len(summary.results) == 10


def test_two_clusters_of_one_run(client: Any) -> None:
    with open_cluster("local:1") as other:

        def steps() -> Steps:
            here = yield [Call(os.getpid)]
            there = yield [Call(os.getpid).needs(pool="simulate") for _ in range(4)]
            return (*here, *there)

        pools = {"rest": client, "simulate": other}
        results = fan_out([Job(f"two-{k}", steps) for k in range(4)], pools).results.values()
    assert len({pid for result in results for pid in result[1:]}) == 1  # the one worker's child
    assert not {result[0] for result in results} & {result[1] for result in results}


def test_a_scheduler_that_does_not_answer_is_refused() -> None:
    with (
        pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        open_cluster("tcp://127.0.0.1:9"),
    ):
        pass
