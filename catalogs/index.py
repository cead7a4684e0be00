"""The index of a corpus: one small JSON record a sample, which is also what makes the sample exist."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pydantic import ValidationError

from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.schema import FORMAT_VERSION, Acquisition, SampleRecord
from catalogs.store import Store, in_parallel

COMMITS = "commits"


def commit_key(sample_id: str) -> str:
    """Key of a sample's record."""
    return f"{COMMITS}/{sample_id[:2]}/{sample_id}.json"


def commit_keys(store: Store) -> list[str]:
    """List the keys of all records."""
    keys = store.sizes(COMMITS)
    return sorted(key for key in keys if key.endswith(".json") and not key.rsplit("/", 1)[-1].startswith("."))


def unfinished_keys(store: Store) -> list[str]:
    """List what writers that died left beside the records."""
    return sorted(key for key in store.sizes(COMMITS) if key.rsplit("/", 1)[-1].startswith("."))


def read_record(store: Store, key: str) -> SampleRecord:
    """Read one record.

    Raises
    ------
    FileNotFoundError
        If there is none.
    InputError
        If it is damaged, or was written by a newer version of this program.
    """
    data = store.read(key)
    try:
        version = int(json.loads(data)["format_version"])
        if version > FORMAT_VERSION:
            raise InputError(
                f"{store.at(key)} has format version {version}, this program reads {FORMAT_VERSION};"
                " update this program"
            )
        return SampleRecord.model_validate_json(data)
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{store.at(key)} is not the record of a sample; move it away to make the sample again"
        ) from error


def read_records(store: Store, known: Mapping[str, SampleRecord]) -> dict[str, SampleRecord]:
    """Read all records, many at a time; a record never changes, so the known ones are not read again.

    Parameters
    ----------
    store
        Of the corpus.
    known
        Records by key.

    Returns
    -------
    dict
        Records by key, sorted.
    """
    keys = commit_keys(store)
    new = [key for key in keys if key not in known]
    read = dict(zip(new, in_parallel(lambda key: read_record(store, key), new), strict=True))
    return {key: known[key] if key in known else read[key] for key in keys}


def as_table(records: Sequence[SampleRecord], urls: Sequence[str]) -> pd.DataFrame:
    """Make the table of samples that people query.

    Returns
    -------
    pandas.DataFrame
        One row a sample, index ``sample_id``: name, path (the full path or URL), split, created, seed,
        every field of :class:`~catalogs.schema.Acquisition`, ``shape_z``, ``shape_y``, ``shape_x``,
        n_tilts, n_particles, n_distractors, ``structures`` (names, comma-separated), occupancy,
        ``centre`` and ``spread`` of the grey values, ``cpu_seconds`` and n_bytes.
    """
    rows = [_row(record, url) for record, url in zip(records, urls, strict=True)]
    ids = pd.Index([record.sample_id for record in records], name="sample_id", dtype=object)
    return pd.DataFrame(rows, columns=_COLUMNS, index=ids)


def select(samples: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """Keep the rows of :func:`as_table` for which an expression holds; all for None.

    Raises
    ------
    InputError
        If the expression is wrong; the sentence names the nearest column.
    """
    if where is None:
        return samples
    try:
        chosen = samples.eval(where, engine="python")
    except pd.errors.UndefinedVariableError as error:
        word = str(error).split("'")[1]
        near = nearest(word, samples.columns)
        raise InputError(f"the selection {where!r} names {word!r}, no column of the corpus{near}") from error
    except Exception as error:  # the expression may do anything that Python can
        raise InputError(f"the selection {where!r} cannot be understood ({error})") from error
    if not isinstance(chosen, pd.Series) or chosen.dtype != bool:
        raise InputError(f"the selection {where!r} is no condition; write one such as dose < 100")
    return samples[chosen]


_COLUMNS = [
    *("name", "path", "split", "created", "seed", *Acquisition.model_fields),
    *("shape_z", "shape_y", "shape_x", "n_tilts", "n_particles", "n_distractors", "structures"),
    *("occupancy", "centre", "spread", "cpu_seconds", "n_bytes"),
]


def _row(record: SampleRecord, url: str) -> dict[str, Any]:
    flat = record.model_dump(include=set(_COLUMNS)) | record.acquisition.model_dump()
    flat |= dict(zip(("shape_z", "shape_y", "shape_x"), record.shape, strict=True))
    flat |= record.intensity.model_dump()
    flat["path"] = url
    flat["structures"] = ",".join(sorted(record.structures))
    flat["cpu_seconds"] = sum(record.seconds.values())
    return flat
