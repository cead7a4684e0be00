"""The training loop: batches, steps, validations, checkpoints. It can be killed at any moment.

The loop does not depend on corpora and networks. `fit` gives it the patches of a corpus, fine-tuning those of
annotated tomograms. Any object that yields batches by number can be the stream, and any function that
evaluates a network can validate. Started again from its last checkpoint, it takes the same steps as if it had
never stopped.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from catalogs.errors import InputError
from catalogs.progress import Progress as ProgressBar
from catalogs.progress import Silent
from tltrain.reporting.progress import Progress
from tltrain.training import checkpoint
from tltrain.training.checkpoint import State
from tltrain.training.learner import Batch, Learner


class Stream(Protocol):
    """The batches of a training."""

    @property
    def batch(self) -> int:
        """Patches of a batch."""

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield batch number ``start`` and all that follow, always the same ones."""


#: Seconds between two checkpoints, and number of entries in the history.
CHECKPOINT_EVERY, ENTRIES = 30.0, 200


@dataclass(frozen=True)
class ValidationResult:
    """The result of a validation.

    Attributes
    ----------
    score
        The network with the largest score is kept; the first number decides, then the next.
    error
        Standard error of the first number: later networks that come so near to the largest are kept instead.
    words
        For the line of progress.
    facts
        Facts for the history, as JSON.
    stop
        Why the training must end here; empty: it continues.
    """

    score: tuple[float, ...]
    words: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    stop: str = ""
    error: float = 0.0


#: Evaluates a network.
Validate = Callable[[Any], ValidationResult]
#: Called with each new entry of the history, and after the last step.
Watch = Callable[[State], None]


@dataclass(frozen=True)
class TrainingSchedule:
    """The schedule of a training.

    Attributes
    ----------
    steps
        Largest number of batches.
    validate_every
        Steps between two validations; there is one after the last step in any case.
    record_every
        Steps over which an entry of the history is averaged.
    patience
        The training ends after this many validations without a better score; None: never.
    save_every
        Seconds between two checkpoints.
    """

    steps: int
    validate_every: int
    record_every: int
    patience: int | None = None
    save_every: float = CHECKPOINT_EVERY


def schedule_of(
    steps: int, validate_every: int | None, validations: int, patience: int | None = None
) -> TrainingSchedule:
    """Make a schedule with this many validations, unless their distance is given."""
    return TrainingSchedule(
        steps=steps,
        validate_every=validate_every or math.ceil(steps / validations),
        record_every=math.ceil(steps / ENTRIES),
        patience=patience,
        save_every=CHECKPOINT_EVERY,
    )


def train(
    learner: Learner,
    stream: Stream,
    state: State,
    schedule: TrainingSchedule,
    file: Path,
    *,
    validate: Validate | None = None,
    watch: Sequence[Watch] = (),
    shown: ProgressBar = Silent,
) -> Progress:
    """Take the remaining steps, and keep ``state`` up to date in memory and on disk.

    Parameters
    ----------
    learner
        The network with its optimizer; their values are set from ``state``.
    stream
        The batches, from number ``state.step`` on.
    state
        Of this training, from :func:`tltrain.training.checkpoint.load`, or a new one.
    schedule
        Number of steps, validations and checkpoints.
    file
        File for the state, which contains the best network so far as ``state.best``.
    validate
        Decides which network is best; None: the last one is.
    watch
        Called with every new entry of ``state.history``.
    shown
        Shows the progress.

    Returns
    -------
    Progress
        With the rate, and the share of the time that was spent waiting for data.

    Raises
    ------
    InputError
        If the loss is no longer a number.
    KeyboardInterrupt
        If the user, or a cluster that stops the job (SIGTERM), interrupts it; the state is saved.
    """
    if state.variables:
        learner.restore(state)
    line = shown("training", schedule.steps, "steps")
    progress = Progress(first=state.step, last=schedule.steps, batch=stream.batch, line=line)
    progress.score = next((row["words"] for row in reversed(state.history) if row.get("words")), "")
    begun, before, started = state.step, state.seconds, time.monotonic()
    saved = started
    batches = learner.feed(stream, state.step) if _goes_on(state, schedule) else iter(())
    with _interrupts() as asked_to_stop, contextlib.closing(_Closable(batches)), line:
        while _goes_on(state, schedule):
            asked = time.monotonic()
            batch = next(batches)
            progress.waited += time.monotonic() - asked
            loss = learner.step(batch)
            state.step += 1
            state.losses.append(loss)
            state.seconds = before + time.monotonic() - started
            if state.step == begun + 1:  # the first step compiled the network and waited for the first blocks
                progress.restart(state.step)
            if not math.isfinite(loss):
                raise InputError(
                    f"the training diverged at step {state.step}: its loss is {loss}; lower `learning_rate`"
                )
            last = state.step == schedule.steps  # the validation after it reports more
            if validate is None if last else progress.due():
                progress.show(state.step, sum(state.losses) / len(state.losses))
            told = _remember(learner, state, schedule, validate, progress)
            if told:
                for each in watch:
                    each(state)
            decided = told and (state.best_step == state.step or bool(state.stopped))
            if decided or asked_to_stop.is_set() or time.monotonic() - saved >= schedule.save_every:
                learner.save_to(state)
                checkpoint.save(file, state)
                saved = time.monotonic()
            if asked_to_stop.is_set():
                raise KeyboardInterrupt
    return progress


def _goes_on(state: State, schedule: TrainingSchedule) -> bool:
    return state.step < schedule.steps and not state.stopped


def _remember(
    learner: Learner, state: State, schedule: TrainingSchedule, validate: Validate | None, progress: Progress
) -> bool:
    """Add an entry to the history if it is time for one; returns whether it was."""
    last = state.step == schedule.steps
    validated = validate is not None and (last or state.step % schedule.validate_every == 0)
    if not (validated or last or state.step % schedule.record_every == 0):
        return False
    row: dict[str, Any] = {
        "step": state.step,
        "loss": sum(state.losses) / len(state.losses),
        "learning_rate": learner.learning_rate,
        "seconds": round(state.seconds, 2),
    }
    state.losses = []
    state.history.append(row)
    if validated and validate is not None:
        begun = time.monotonic()
        with learner.averaged() as network:
            outcome = validate(network)
            row |= {"words": outcome.words, "score": list(outcome.score), **outcome.facts}
            score = list(outcome.score)
            # a network that counted before the first step, as in fine-tuning, is the one to beat
            known = state.top_score or state.best_score
            better = known is None or score > known
            if better:
                state.top_score, state.top_error = score, outcome.error
            top, error = state.top_score or known or score, state.top_error
            # what is as good for all that can be told: the later one has learned from more
            if score >= top or (error > 0 and score[0] >= top[0] - error):
                state.best_step, state.best_score = state.step, score
                state.best = checkpoint.values(network.variables)
            state.stale = 0 if better else state.stale + 1
        progress.score = outcome.words
        progress.paused += time.monotonic() - begun
        progress.show(state.step, row["loss"])
        if outcome.stop:
            state.stopped = outcome.stop
        elif schedule.patience is not None and state.stale >= schedule.patience and not last:
            state.stopped = f"no better score in {state.stale} validations"
    return True


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Delay Ctrl-C, and SIGTERM from a cluster, until the current step is complete.

    A second signal is not delayed; then the last checkpoint counts.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(_number: int, _frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Closable:
    """An iterator of batches whose threads end when the training does."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches

    def close(self) -> None:
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
