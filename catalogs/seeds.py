"""Random generators: one for each (corpus seed, sample, stage), without global state."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def digest(value: Any, length: int = 16) -> str:
    """Hash a JSON-like value.

    Parameters
    ----------
    value
        Anything that :func:`json.dumps` takes; keys are sorted, so their order does not matter.
    length
        Hexadecimal digits to return.

    Returns
    -------
    str
        The first ``length`` hexadecimal digits of its BLAKE2b hash.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode()).hexdigest()[:length]


def seed(*words: str | int) -> int:
    """Turn words such as ``(corpus seed, sample id, "pack")`` into a 63-bit seed."""
    return int(digest(list(words)), 16) >> 1


def generator(*words: str | int) -> np.random.Generator:
    """Make the random generator of one stage; the same words give the same numbers on every machine."""
    return np.random.default_rng(seed(*words))
