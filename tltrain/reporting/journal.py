"""Write a page, a table, and events for TensorBoard beside the model.

Everything is made from the history in the state and written again each time, so a training that was killed
and continued from an earlier step leaves no duplicate lines.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogs.atomic_write import replacing, write_text
from tltrain.reporting.page import Facts, page
from tltrain.training.checkpoint import State
from tltrain.training.validation import Preview

#: Seconds between two updates, unless there is a new validation.
EVERY = 10.0

PAGE, TABLE, EVENTS = "training.html", "history.csv", "tensorboard"


@dataclass
class Journal:
    """The folder of a training.

    Attributes
    ----------
    folder
        Folder for all files.
    facts
        What the page shows besides the curves.
    previews
        Planes from the last validation.
    """

    folder: Path
    facts: Facts
    previews: Sequence[Preview] = ()
    _written: float = -math.inf

    def __call__(self, state: State) -> None:
        """Update the files if there is something new."""
        validated = bool(state.history) and "score" in state.history[-1]
        if validated or time.monotonic() - self._written >= EVERY:
            self.write(state)

    def write(self, state: State, *, done: bool = False) -> None:
        """Write everything; a finished page no longer reloads itself."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / TABLE, table(state))
        write_text(self.folder / PAGE, page(state, self.facts, self.previews, done=done))
        if done or (state.history and "score" in state.history[-1]):
            events(self.folder / EVENTS, state)
        self._written = time.monotonic()


def journal_of(target: Path) -> Path:
    """Return the folder of a training's page and table, beside the model."""
    return target.with_name(f"{target.stem}.training")


def scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers in an entry of the history, such as ``picks/ribosome/f1``."""
    for name, value in row.items():
        if name in ("step", "score", "words"):
            continue
        if isinstance(value, Mapping):
            yield from ((f"{name}/{inner}", number) for inner, number in scalars(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)


def table(state: State) -> str:
    """Write the history as CSV, a row for each entry; missing values are empty."""
    rows = [{"step": row["step"], **dict(scalars(row))} for row in state.history]
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["step"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: _short(value) for name, value in row.items()} for row in rows])
    return text.getvalue()


def events(folder: Path, state: State) -> None:
    """Write the history for TensorBoard, if Keras runs on TensorFlow.

    The file is a TFRecord of TensorFlow's ``Event`` messages, as written by its summary writer. That writer
    is not used, because it requires the package ``tensorboard``, which only readers of the file need.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    messages = tf.compat.v1
    begun = time.time() - state.seconds
    file = folder / "events.out.tfevents.0.training"
    with replacing(file) as unfinished, tf.io.TFRecordWriter(str(unfinished)) as writer:
        writer.write(messages.Event(wall_time=begun, file_version="brain.Event:2").SerializeToString())
        for row in state.history:
            values = [
                messages.Summary.Value(tag=name, simple_value=value)
                for name, value in scalars(row)
                if name != "seconds"
            ]
            event = messages.Event(
                wall_time=begun + row.get("seconds", 0.0),
                step=row["step"],
                summary=messages.Summary(value=values),
            )
            writer.write(event.SerializeToString())


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
