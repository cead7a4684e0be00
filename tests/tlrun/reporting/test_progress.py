"""What people and programs are told of a run: the real fan-out with workers that only take imagined time."""

from __future__ import annotations

import heapq
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from catalogs.errors import InputError
from catalogs.progress import ProgressLine
from tlgen.recipes.recipe_file import read_recipe
from tlgen.recipes.samples import SampleSpec, expand
from tlgen.runs import costs as costs_of_samples
from tlgen.simulate.engine import engine, in_calls
from tlgen.tilts.scheme import tilt_series
from tlrun.calls import Call, CallResult, Executor, Task
from tlrun.fan_out import Job, Steps, fan_out
from tlrun.fan_out_report import Progress
from tlrun.reporting.display import Display, account, busy
from tlrun.reporting.estimate import Work, costs, seconds_left, share_done
from tlrun.reporting.journal import Journal


def pack(seconds: float) -> None: ...


def simulate_tilt(seconds: float) -> None: ...


def finish(seconds: float) -> None: ...


def breaks(seconds: float) -> None:
    raise ValueError("broken")


class Imagined(Executor):
    """Workers that take as long as a call's argument says, from 10 % less to 10 % more."""

    def __init__(self, workers: int, seed: int) -> None:
        self._workers, self._rng = workers, np.random.default_rng(seed)
        self._clock, self._idle = 0.0, workers
        self._waiting: list[tuple[int, int, Task]] = []
        self._running: list[tuple[float, int, Task, float]] = []
        self._n = 0

    def pools(self) -> Mapping[str, int]:
        return {"rest": self._workers}

    def pool_of(self, name: str) -> str:
        return "rest"

    def now(self) -> float:
        return self._clock

    def submit(self, task: Task) -> None:
        self._n += 1
        heapq.heappush(self._waiting, (-task.priority, self._n, task))
        self._start()

    def _start(self) -> None:
        while self._idle and self._waiting:
            _, n, task = heapq.heappop(self._waiting)
            seconds = task.call.args[0] * self._rng.uniform(0.9, 1.1)
            heapq.heappush(self._running, (self._clock + seconds, n, task, seconds))
            self._idle -= 1

    def wait(self, seconds: float) -> list[CallResult]:
        if not self._running or self._running[0][0] > self._clock + seconds:
            self._clock += seconds
            return []
        self._clock, _, task, took = heapq.heappop(self._running)
        self._idle += 1
        self._start()
        try:
            task.call.function(*task.call.args)
        except ValueError as error:
            return [CallResult(task.key, error=error, seconds=took, occupied=took)]
        return [CallResult(task.key, seconds=took, occupied=took)]

    def cancel(self, keys: Iterable[str]) -> None:
        self._waiting = [entry for entry in self._waiting if entry[2].key not in keys]


Sample = tuple[str, float, float, int, float]  # what it is like; seconds to pack, a tilt, tilts, to finish


def job(name: str, sample: Sample) -> Job:
    like, packing, tilt, tilts, finishing = sample

    def steps() -> Steps:
        yield [Call(pack, packing).needs(like=like)]
        yield [Call(simulate_tilt, tilt).needs(like=like) for _ in range(tilts)]
        return (yield [Call(finish, finishing).needs(like=like)])[0]

    return Job(name, steps)


def work_of(samples: list[Sample], wrong: Mapping[str, float]) -> list[Work]:
    """List the calls, with guesses that are in another unit, and wrong besides."""
    found: dict[str, Work] = {}
    for like, packing, tilt, tilts, finishing in samples:
        for function, number, seconds in (
            ("pack", 1, packing),
            ("simulate_tilt", tilts, tilt),
            ("finish", 1, finishing),
        ):
            group = f"{function} {like}"
            before = found[group].calls if group in found else 0
            found[group] = Work(group, before + number, 0.01 * seconds * wrong.get(like, 1.0))
    return list(found.values())


SMALL, LARGE, OTHER = (
    ("small", 5.0, 2.0, 41, 8.0),
    ("large", 30.0, 12.0, 41, 60.0),
    ("other", 5.0, 20.0, 61, 8.0),
)


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize(
    ("samples", "wrong"),
    [
        ([SMALL] * 60, {}),
        ([SMALL, LARGE] * 20, {"large": 0.3}),
        ([SMALL] * 60 + [LARGE] * 20, {"large": 1.1}),  # at a tenth, no large one has begun
        # one of each comes first
        ([LARGE, SMALL, OTHER] + [LARGE] * 9 + [SMALL] * 39 + [OTHER] * 4, {"small": 0.9, "other": 0.9}),
    ],
)
def test_the_time_left_is_right_after_a_tenth_of_the_work(
    samples: list[Sample], wrong: dict[str, float], workers: int
) -> None:
    work = work_of(samples, wrong)
    total = sum(tilt * n + packing + finishing for _, packing, tilt, n, finishing in samples)
    seen: list[Progress] = []
    executor = Imagined(workers, seed=workers)
    fan_out([job(f"s{k}", s) for k, s in enumerate(samples)], executor, on_progress=seen.append)
    end = executor.now()
    checked = 0
    for progress in seen:
        done = sum(progress.call_seconds.values()) / total
        left = seconds_left(work, len(samples), progress)
        if left is None:  # most of the rest is like nothing that has finished: it may cost whatever
            assert any(not progress.calls_done.get(each.group) for each in work)
            assert done < 0.6
            continue
        assert abs(share_done(work, progress) - done) < 0.15 or done < 0.05
        if 0.1 <= done <= 0.5:
            assert left == pytest.approx(end - progress.seconds, rel=0.2)
            checked += 1
        elif done > 0.5:  # little is left: what counts is when it ends
            assert progress.seconds + left == pytest.approx(end, rel=0.1)
    assert checked > 10


#: What the demo's calls took on two cores, s: packing, a tilt, finishing; by the engine.
DEMO = {"multislice": (2.6, 0.25, 7.8), "parakeet": (1.5, 9.0, 1.0)}


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("loading", [0.0, 8.0, 20.0])
def test_the_demo_is_told_a_time_that_stays_true(workers: int, loading: float) -> None:
    """The first time that was told was once 77 minutes, of 15; and at half of the time the bar said 34 %."""
    todo = costs_of_samples.one_of_each_first(expand(read_recipe("demo"), {}))
    work = costs_of_samples.work(todo)
    fresh = dict.fromkeys((pack, simulate_tilt, finish), workers)

    def call(function: Callable[[float], None], seconds: float, like: str) -> Call:
        extra = loading if fresh[function] > 0 else 0.0  # each worker loads and compiles what it calls first
        fresh[function] -= 1
        return Call(function, seconds + extra).needs(like=like)

    def job_of(spec: SampleSpec) -> Job:
        packing, tilt, finishing = DEMO[spec.acquisition.engine]
        series = tilt_series(spec.acquisition)
        parts = in_calls(engine(spec.acquisition.engine), spec.acquisition, spec.shape, series)

        def steps() -> Steps:
            yield [call(pack, packing, costs_of_samples.like(spec))]
            yield [call(simulate_tilt, tilt * len(part), costs_of_samples.like(spec)) for part in parts]
            return (yield [call(finish, finishing, costs_of_samples.like(spec))])[0]

        return Job(spec.sample_id, steps)

    seen: list[Progress] = []
    executor = Imagined(workers, seed=workers)
    fan_out([job_of(spec) for spec in todo], executor, on_progress=seen.append)
    end = executor.now()
    named = [replace(each, group=each.group.replace("simulate_tilts", "simulate_tilt")) for each in work]
    told = [(p.seconds, seconds_left(named, len(todo), p)) for p in seen if p.seconds < 0.9 * end]
    first = next(at for at, left in told if left is not None)
    assert first < 0.5 * end
    for at, left in told:
        if left is not None:
            assert 0.6 < (at + left) / end < 1.6, (at, left, end)
    half = next(p for p in seen if p.seconds >= 0.5 * end)
    assert 0.42 < share_done(named, half) < 0.62


def progress(**changes: object) -> Progress:
    facts: dict[str, object] = {
        "seconds": 100.0,
        "items_done": 1,
        "items_failed": 0,
        "items_begun": 2,
        "calls_done": {"pack a": 3, "simulate_tilt a": 45, "finish a": 1},
        "call_seconds": {"pack a": 30.0, "simulate_tilt a": 135.0, "finish a": 5.0},
        "occupied_seconds": 175.0,
        "retried": 0,
        "running": 2,
        "workers": 2,
        "worker_seconds": 200.0,
        "bytes_written": 12_300_000,
        "failures": (),
        "stopping": False,
    }
    return Progress(**(facts | changes))  # type: ignore[arg-type]


def test_nothing_is_promised_before_anything_is_done() -> None:
    work = [Work("pack a", 4)]
    assert seconds_left(work, 4, progress(items_done=0, calls_done={}, call_seconds={})) is None
    assert seconds_left(work, 4, progress(workers=0)) is None
    assert seconds_left(work, 4, progress(stopping=True)) is None
    assert seconds_left(work, 1, progress()) == 0.0


def test_a_guess_that_is_far_too_high_promises_nothing_and_is_replaced_by_one_call() -> None:
    # the demo: Parakeet's tilts are few, and guessed a hundred times as long as they take
    work = [Work("simulate_tilt a", 200, 0.01), Work("simulate_tilt b", 40, 1.0)]
    done = {"simulate_tilt a": 50}
    spent = {"simulate_tilt a": 50.0}
    longest = {"simulate_tilt a": 5.0}
    known = progress(calls_done=done, call_seconds=spent, longest_call=longest)
    assert seconds_left(work, 10, known) is None
    one = progress(
        calls_done=done | {"simulate_tilt b": 1},
        call_seconds=spent | {"simulate_tilt b": 6.0},
        longest_call=longest | {"simulate_tilt b": 6.0},
        worker_seconds=60.0,
    )
    assert costs(work, one)["simulate_tilt b"] == 6.0
    left = seconds_left(work, 10, one)
    assert left is not None
    assert 150 < left < 400
    assert share_done(work, one) == pytest.approx(52 / 424, abs=0.03)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_window_gets_no_line_that_is_wider(width: int) -> None:
    text = io.StringIO()
    console = Console(file=text, width=width, highlight=False, soft_wrap=True)
    display = Display("simulating", [Work("simulate_tilt a", 90)], 5, unit="tilts", console=console)
    with console.capture() as captured:
        console.print(display._picture(progress(calls_done={"simulate_tilt a": 45})), soft_wrap=False)
    lines = captured.get().rstrip("\n").split("\n")
    assert len(lines) == 2
    assert max(map(len, lines)) <= width
    assert "50 %" in lines[0]
    assert "1 of 5" in lines[0]


def test_a_line_in_a_log_promises_nothing_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("catalogs.progress.time.monotonic", lambda: now[0])
    with ProgressLine("structures", 4, "structures") as line:
        for done in (0, 1, 2):
            now[0] += 20
            line.update(done)
    assert capsys.readouterr().out.splitlines() == [
        "  structures 0/4 structures; 20 s",
        "  structures 1/4 structures; 40 s",
        "  structures 2/4 structures; 60 s, about 40 s left",
    ]


def test_what_has_not_been_timed_costs_its_guess_in_the_measure_of_what_has() -> None:
    work = [Work("simulate_tilt a", 90, 1.5), Work("simulate_tilt b", 10, 6.0), Work("reconstruct b", 2, 1.0)]
    found = costs(work, progress())
    assert found["simulate_tilt a"] == 3.0
    assert found["simulate_tilt b"] == 12.0
    assert found["reconstruct b"] == pytest.approx(2.0)


def shown(work: list[Work], items: int, *, terminal: bool) -> tuple[Display, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, highlight=False, soft_wrap=True)
    return Display("simulating", work, items, unit="tilts", console=console), text


def test_a_log_gets_plain_lines_and_few_of_them() -> None:
    display, text = shown([Work("simulate_tilt a", 100_000, pieces=200_000)], 10_000, terminal=False)
    with display:
        for second in range(0, 100_000, 5):
            display.update(progress(seconds=float(second), items_done=second // 10))
            display.done(f"train-{second}", f"train-{second} is made")
    lines = text.getvalue().splitlines()
    assert "\x1b" not in text.getvalue()
    of_run = [line for line in lines if line.startswith("  simulating: ")]
    assert 20 < len(of_run) < 250
    assert len(lines) < 12_000
    assert of_run[0].startswith(
        "  simulating: 1 of 10000 samples; 6 tilts/s; 100 % of 2 workers busy; 11.73 MiB written"
    )
    assert "left" in of_run[-1]
    assert any("(and " in line for line in lines)


def test_a_terminal_gets_one_picture_that_is_drawn_anew() -> None:
    display, text = shown([Work("simulate_tilt a", 90), Work("pack a", 10)], 5, terminal=True)
    failure = [progress(items_failed=1, retried=2)]
    with display:
        display.update(progress())
        display.done("train-000", "train-000 [dose] is made")
        display.update(failure[0])
    said = text.getvalue()
    assert "train-000 [dose] is made" in said
    assert "1 of 5 samples" in said
    assert "1 failed" in said
    assert "2 tried again" in said


def test_the_journal_tells_the_whole_run(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    samples = [SMALL, SMALL]
    work = work_of(samples, {})

    def bad() -> Steps:
        yield [Call(breaks, 1.0)]

    text = io.StringIO()
    with (
        Journal(str(path)) as journal,
        Display(
            "simulating",
            work,
            3,
            unit="tilts",
            journal=journal,
            console=Console(file=text),
        ) as display,
    ):
        summary = fan_out(
            [*(job(f"s{k}", s) for k, s in enumerate(samples)), Job("bad", bad)],
            Imagined(2, seed=0),
            retries=0,
            on_progress=display.update,
            on_result=lambda name, _: display.done(name, name, n_bytes=7),
            on_failure=lambda failure: display.failed(failure, "bad-one"),
        )
        journal.write("end", items_done=summary.done, items_failed=len(summary.failures), stopped="")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    events = [entry["event"] for entry in entries]
    assert events[0] == "begin"
    assert entries[0]["calls"]["simulate_tilt small"] == 82
    assert events.count("done") == 2
    [failed] = [entry for entry in entries if entry["event"] == "failed"]
    assert (failed["item"], failed["error"], failed["step"]) == ("bad-one", "ValueError: broken", "breaks")
    last = [entry for entry in entries if entry["event"] == "progress"][-1]
    assert (last["items_done"], last["items_failed"], last["seconds_left"]) == (2, 1, 0.0)
    assert last["calls_done"]["simulate_tilt small"] == 82
    assert 0.5 < last["busy"] <= 1
    assert "bad-one failed: ValueError: broken" in text.getvalue()


def test_a_journal_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`log_json=.*nowhere/run.jsonl` cannot be written"):
        Journal(str(tmp_path / "nowhere" / "run.jsonl"))


def test_a_journal_on_a_full_disk_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with Journal("/dev/full") as journal:
        journal.write("begin", items=3)
        journal.write("end")
    assert caplog.messages == [
        "  `log_json=/dev/full` ends here: it cannot be written (No space left on device)"
    ]


def test_the_account_adds_up() -> None:
    lines = account(progress(), 2)
    assert any(line.split() == ["simulate_tilt", "a", "45", "3", "s", "2", "min"] for line in lines)
    assert lines[-1].startswith(
        "  1 of 2 made, 0 failed, 0 tried again; 11.73 MiB written in 2 min, workers 88 % busy"
    )
    assert busy(progress(worker_seconds=0.0)) == 0.0


def test_what_a_first_call_loads_and_compiles_is_not_expected_again() -> None:
    work = [Work("pack a", 8, 2.0), Work("pack b", 4, 4.0), Work("simulate_tilt a", 80, 1.0)]
    seen = progress(
        calls_done={"pack a": 1, "simulate_tilt a": 11},
        call_seconds={"pack a": 20.0, "simulate_tilt a": 40.0},
        longest_call={"pack a": 20.0, "simulate_tilt a": 10.0},
    )
    assert costs(work, seen) == {"pack a": 6.0, "pack b": 12.0, "simulate_tilt a": 3.0}
    more = progress(
        calls_done={"pack a": 3, "simulate_tilt a": 11},
        call_seconds={"pack a": 28.0, "simulate_tilt a": 40.0},
        longest_call={"pack a": 20.0, "simulate_tilt a": 10.0},
    )
    assert costs(work, more) == {"pack a": 4.0, "pack b": 8.0, "simulate_tilt a": 3.0}
    # one call is better than nothing
    alone = progress(calls_done={"pack a": 1}, call_seconds={"pack a": 20.0}, longest_call={"pack a": 20.0})
    assert costs(work, alone)["pack a"] == 20.0
