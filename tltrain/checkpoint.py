"""The state of an unfinished training, in one file that is replaced in one step."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class State:
    """Where a training stands.

    Attributes
    ----------
    fingerprint
        Of the settings and the samples: a training goes on only from a state of its own.
    step
        Steps done; also the number of the next batch of the stream.
    seconds
        Spent on them.
    history
        One entry a validation: step, loss and voxel F1 of each class.
    best_step
        Where ``best`` was taken.
    best_score
        Its mean F1; None before the first validation.
    variables, optimizer, best
        Values of the network's variables, of the optimizer's, and of the network's at its best score.
    """

    fingerprint: str
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = 0
    best_score: float | None = None
    variables: list[NDArray[Any]] = field(default_factory=list)
    optimizer: list[NDArray[Any]] = field(default_factory=list)
    best: list[NDArray[Any]] = field(default_factory=list)


_ARRAYS = ("variables", "optimizer", "best")


def save(path: Path, state: State) -> None:
    """Write a state, whole or not at all."""
    facts = {name: value for name, value in asdict(state).items() if name not in _ARRAYS}
    arrays = {f"{name}-{k}": value for name in _ARRAYS for k, value in enumerate(getattr(state, name))}
    facts["lengths"] = {name: len(getattr(state, name)) for name in _ARRAYS}
    data = io.BytesIO()
    np.savez(data, facts=np.array(json.dumps(facts)), **arrays)
    unfinished = path.with_suffix(".tmp")
    with open(unfinished, "wb") as file:
        file.write(data.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def load(path: Path, fingerprint: str) -> State | None:
    """Read the state of a training, or None if there is none or it is another training's."""
    try:
        with open(path, "rb") as file, np.load(file) as stored:
            facts = json.loads(str(stored["facts"]))
            lengths = facts.pop("lengths")
            facts |= {name: [stored[f"{name}-{k}"] for k in range(lengths[name])] for name in _ARRAYS}
    except (FileNotFoundError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        return None
    state = State(**facts)
    return state if state.fingerprint == fingerprint else None


def values(variables: Sequence[Any]) -> list[NDArray[Any]]:
    """Copy the values of Keras variables."""
    from keras import ops

    return [np.array(ops.convert_to_numpy(variable.value)) for variable in variables]


def assign(variables: Sequence[Any], stored: Sequence[NDArray[Any]]) -> None:
    """Give Keras variables their stored values back."""
    for variable, value in zip(variables, stored, strict=True):
        variable.assign(value)
