"""Store the state of an unfinished training in one file, which is replaced in one step."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.atomic_write import write_bytes


@dataclass
class State:
    """The state of a training.

    Attributes
    ----------
    fingerprint
        Hash of the settings and the samples: a training continues only from its own state.
    step
        Steps done; also the number of the next batch of the stream.
    seconds
        Spent on them.
    history
        Entries with the step and the mean loss since the last one; some with what validation found.
    losses
        Of the steps since the last entry of the history.
    best_step
        Step at which ``best`` was taken.
    best_score
        Its validation score; None before the first validation.
    top_score, top_error
        The largest score so far, and the standard error of its first number.
    stale
        Number of validations since the best one.
    stopped
        Why the training ended before its last step; empty if it did not.
    variables, optimizer, best
        Values of the network's variables, of the optimizer's, and of the network's at its best score.
    """

    fingerprint: str
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best_step: int = 0
    best_score: list[float] | None = None
    top_score: list[float] | None = None
    top_error: float = 0.0
    stale: int = 0
    stopped: str = ""
    variables: list[NDArray[Any]] = field(default_factory=list)
    optimizer: list[NDArray[Any]] = field(default_factory=list)
    best: list[NDArray[Any]] = field(default_factory=list)


_ARRAYS = ("variables", "optimizer", "best")


def save(path: Path, state: State) -> None:
    """Write a state, completely or not at all."""
    facts = {each.name: getattr(state, each.name) for each in fields(state) if each.name not in _ARRAYS}
    arrays = {f"{name}-{k}": value for name in _ARRAYS for k, value in enumerate(getattr(state, name))}
    facts["lengths"] = {name: len(getattr(state, name)) for name in _ARRAYS}
    data = io.BytesIO()
    np.savez(data, facts=np.array(json.dumps(facts)), **arrays)
    try:
        write_bytes(path, data.getbuffer(), durable=True)
    except OSError as error:
        error.filename = error.filename or str(path)  # the error does not name the file
        raise


def load(path: Path, fingerprint: str) -> State | None:
    """Read the state of a training; None if there is none or it belongs to another training."""
    try:
        with open(path, "rb") as file, np.load(file) as stored:
            facts = json.loads(str(stored["facts"]))
            lengths = facts.pop("lengths")
            facts |= {name: [stored[f"{name}-{k}"] for k in range(lengths[name])] for name in _ARRAYS}
            state = State(**facts)
    except (FileNotFoundError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError):
        return None
    return state if state.fingerprint == fingerprint else None


def values(variables: Sequence[Any]) -> list[NDArray[Any]]:
    """Copy the values of Keras variables."""
    from keras import ops

    return [np.array(ops.convert_to_numpy(variable.value)) for variable in variables]


def assign(variables: Sequence[Any], stored: Sequence[NDArray[Any]]) -> None:
    """Give Keras variables their stored values back."""
    for variable, value in zip(variables, stored, strict=True):
        variable.assign(value)
