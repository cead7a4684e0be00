"""The table of samples: one pandas row per record; also as xarray, and split by columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from catalogs.console import nearest
from catalogs.corpus import conditions
from catalogs.errors import InputError
from catalogs.schema import Acquisition, SampleRecord, units
from catalogs.seeds import digest

if TYPE_CHECKING:
    import xarray as xr

#: Columns in order; the index is ``sample_id``.
COLUMNS = [
    *("name", "path", "split", "created", "seed", *Acquisition.model_fields),
    *("shape_z", "shape_y", "shape_x", "n_tilts", "n_particles", "n_distractors", "structures"),
    *("occupancy", "centre", "spread", "cpu_seconds", "n_bytes"),
]

#: Unit of each column that has one.
UNITS = {
    **units(Acquisition),
    **dict.fromkeys(("shape_z", "shape_y", "shape_x"), "voxel"),
    "cpu_seconds": "s",
    "n_bytes": "byte",
}


def as_table(records: Iterable[SampleRecord]) -> pd.DataFrame:
    """Make the table of samples.

    Returns
    -------
    pandas.DataFrame
        One row a sample, index ``sample_id``: name, path (as in the record), split, created, seed, every
        field of :class:`~catalogs.schema.Acquisition`, ``shape_z``, ``shape_y``, ``shape_x``, n_tilts,
        n_particles, n_distractors, ``structures`` (names, comma-separated), occupancy, ``centre`` and
        ``spread`` of the grey values, ``cpu_seconds`` and n_bytes.
    """
    known = list(records)
    ids = pd.Index([record.sample_id for record in known], name="sample_id", dtype=object)
    return pd.DataFrame([_row(record) for record in known], columns=COLUMNS, index=ids)


def join(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate tables in the order of sample ids; empty ones do not affect the types of columns."""
    filled = [table for table in tables if len(table)]
    if not filled:
        return tables[0]
    return (pd.concat(filled) if len(filled) > 1 else filled[0]).sort_index()


def select(samples: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """Select the rows for which a condition holds; None: all.

    Raises
    ------
    InputError
        If the condition is wrong; the message names the nearest column.
    """
    if where is None:
        return samples
    return samples[conditions.rows_where(samples, where)]


def known_columns(samples: pd.DataFrame, names: Sequence[str], what: str) -> list[str]:
    """Return the names if all are columns of the table or ``sample_id`` (InputError otherwise).

    Parameters
    ----------
    samples
        The table.
    names
        Names that the user gave.
    what
        The option for which they were given.
    """
    known = ["sample_id", *samples.columns]
    for name in names:
        if name not in known:
            raise InputError(
                f"{what} names {name!r}, which is not a column of the corpus{nearest(name, known)}"
            )
    return list(names)


def to_xarray(samples: pd.DataFrame) -> xr.Dataset:
    """Turn the table into a dataset: one variable per column over the dimension ``sample``.

    The coordinate ``sample`` contains the ids; variables with a unit have the attribute ``units``.
    """
    import xarray as xr

    variables = {
        name: ("sample", samples[name].to_numpy(), {"units": UNITS[name]} if name in UNITS else {})
        for name in samples.columns
    }
    ids = np.asarray(samples.index, dtype=object)
    return xr.Dataset(variables, coords={"sample": ("sample", ids)})


def split(
    samples: pd.DataFrame,
    by: str | Sequence[str],
    shares: Mapping[str, float],
    hold_out: str | None,
    seed: int,
) -> dict[str, pd.DataFrame]:
    """Split the table; see :meth:`catalogs.corpus.catalog.Catalog.split`."""
    columns = known_columns(samples, [by] if isinstance(by, str) else list(by), "split(by=...)")
    total = sum(shares.values())
    if not shares or total <= 0 or min(shares.values()) < 0:
        raise InputError("the shares of a split must be positive numbers, such as {'train': 0.8, 'val': 0.2}")
    held = select(samples, hold_out).index if hold_out else samples.index[:0]
    rest = samples[~samples.index.isin(held)]

    if columns == ["split"]:  # the split of the recipe
        names = rest["split"].to_numpy(object)
        parts = {name: rest[names == name] for name in dict.fromkeys([*shares, *sorted(set(names))])}
    else:
        edges = np.cumsum([share / total for share in shares.values()])
        keys = rest.index if columns == ["sample_id"] else _keys(rest, columns)
        places = np.array([_place(seed, key) for key in keys], np.float64)
        where = np.minimum(np.searchsorted(edges, places, side="right"), len(edges) - 1)
        parts = {name: rest[where == k] for k, name in enumerate(shares)}
    if hold_out:
        parts["test"] = join([parts.get("test", rest.iloc[:0]), samples.loc[held]])
    return parts


def _keys(samples: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Hash the values of some columns of each row; equal rows get equal keys."""
    table = samples.reset_index()[list(columns)]
    return [digest([_plain(value) for value in row]) for row in table.itertuples(index=False)]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _place(seed: int, key: str) -> float:
    """Turn a key into a number from 0 to 1 that does not depend on other samples."""
    hashed = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(hashed) / 2**64


def _row(record: SampleRecord) -> dict[str, Any]:
    flat = {name: getattr(record, name) for name in ("name", "path", "split", "created", "seed")}
    flat |= record.acquisition.__dict__  # flat already; model_dump would be slow
    flat |= dict(zip(("shape_z", "shape_y", "shape_x"), record.shape, strict=True))
    flat |= {name: getattr(record, name) for name in ("n_tilts", "n_particles", "n_distractors")}
    flat["structures"] = ",".join(sorted(record.structures))
    flat["occupancy"] = record.occupancy
    flat |= {"centre": record.intensity.centre, "spread": record.intensity.spread}
    flat |= {"cpu_seconds": sum(record.seconds.values()), "n_bytes": record.n_bytes}
    return flat
