"""The table of samples in the compact, column-wise form that the page receives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from catalogs.corpus import sample_table
from catalogs.schema import Acquisition, SampleRecord

_EXACT = 2**53  # JavaScript represents integers exactly up to this one
_MEANING = {
    "occupancy": SampleRecord.model_fields["occupancy"].description,
    "n_particles": SampleRecord.model_fields["n_particles"].description,
    "cpu_seconds": "What it took to make, on one core.",
    "centre": "Median of the tomogram's grey values.",
    "spread": "Half of the distance from the 16th to the 84th percentile of the grey values.",
}


def columns(samples: pd.DataFrame) -> list[dict[str, Any]]:
    """Convert the table of samples to values for JSON.

    Parameters
    ----------
    samples
        The table from :mod:`catalogs.corpus.sample_table`.

    Returns
    -------
    list of dict
        For each column: ``name``, ``unit``, ``about``, ``parameter`` (whether it is a parameter of the
        acquisition), and its values. These are ``value`` if all are equal, ``values`` for numbers (None
        where one is missing), or ``codes``, which are indices into ``words``.
    """
    known = samples.drop(columns="path").reset_index()
    return [_described(str(name), known[name]) for name in known.columns]


def _described(name: str, column: pd.Series[Any]) -> dict[str, Any]:
    field = Acquisition.model_fields.get(name)
    return {
        "name": name,
        "unit": sample_table.UNITS.get(name, ""),
        "about": (field.description if field is not None else _MEANING.get(name)) or "",
        "parameter": field is not None,
        **_values(column),
    }


def _values(column: pd.Series[Any]) -> dict[str, Any]:
    numbers = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if numbers and not (pd.api.types.is_integer_dtype(column) and (column.abs() > _EXACT).any()):
        values = column.to_numpy()
        plain = [None if number != number or abs(number) == np.inf else number for number in values.tolist()]
        same = len(plain) > 0 and all(number == plain[0] for number in plain)
        return {"value": plain[0]} if same else {"values": plain}
    words, codes = np.unique(column.astype(str).to_numpy(str), return_inverse=True)
    if len(words) == 1:
        return {"value": str(words[0])}
    return {"codes": codes.tolist(), "words": words.tolist()}
