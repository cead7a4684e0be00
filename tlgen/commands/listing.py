"""``tlgen ls``: the samples of a corpus as a table, as CSV or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from catalogs.amounts import data_size
from catalogs.corpus import failures
from catalogs.corpus.catalog import Catalog
from catalogs.corpus.sample_table import known_columns

if TYPE_CHECKING:
    import pandas as pd

#: Columns that are shown by default; they fit a terminal of 80 columns.
DEFAULT = ("name", "split", "engine", "dose", "defocus", "tilt_max", "n_particles", "occupancy")
_FORMATS = {
    "dose": "{:.0f}",
    "defocus": "{:.2f}",
    "tilt_min": "{:.0f}",
    "tilt_max": "{:.0f}",
    "tilt_step": "{:.1f}",
    "ice_density": "{:.2f}",
    "occupancy": "{:.3f}",
}


def listing(
    url: str,
    where: str | None = None,
    paths: bool = False,
    *,
    columns: str | None = None,
    sort: str = "name",
    form: str = "table",
) -> Iterator[str]:
    """Yield the lines to print.

    Parameters
    ----------
    url
        Of the corpus.
    where
        A query over the columns of :attr:`catalogs.corpus.catalog.Catalog.samples`; None: all samples.
    paths
        Yield only the URL of each sample.
    columns
        Columns to show, comma-separated; ``all`` for all of them.
    sort
        Columns to sort by, comma-separated; a minus before a name reverses the order.
    form
        ``table``, ``csv`` or ``json`` (one object a line).

    Raises
    ------
    InputError
        There is no corpus, or the query or a column is wrong.
    """
    samples = _sorted(Catalog.open(url).query(where), sort)
    if paths:
        yield from samples["path"]
        return
    table = samples.reset_index()
    if columns == "all" or (columns is None and form != "table"):
        wanted = list(table.columns)
    elif columns is None:
        wanted = list(DEFAULT)
    else:
        wanted = known_columns(samples, _words(columns), "--columns")
    if form == "csv":
        yield from table[wanted].to_csv(index=False, lineterminator="\n").splitlines()
    elif form == "json":
        yield from (json.dumps(row, ensure_ascii=False) for row in table[wanted].to_dict("records"))
    else:
        yield from _aligned(table[wanted])
        size, targets = data_size(samples["n_bytes"].sum()), samples["n_particles"].sum()
        more = "" if columns else "; --columns all shows every column"
        yield f"{len(samples)} samples, {targets} target particles, {size}{more}"


def failed_items(url: str, *, as_json: bool = False) -> Iterator[str]:
    """Yield a line for each sample or structure of the corpus at ``url`` that failed; as JSON, all details.

    Raises
    ------
    InputError
        There is no corpus.
    """
    found = failures.read(Catalog.open(url).url)
    if as_json:
        yield from (json.dumps(content, ensure_ascii=False) for content in found)
        return
    for content in found:
        tried = f"{content['attempts']} attempt{'s' * (content['attempts'] != 1)}"
        place = f" on {content['host']}" if content["host"] else ""
        yield f"{content['id']}  {content['name']}  {content['step']}, {tried}{place}: {content['error']}"
    yield f"{len(found)} failed"


def _sorted(samples: pd.DataFrame, sort: str) -> pd.DataFrame:
    words = _words(sort)
    names = known_columns(samples, [word.removeprefix("-") for word in words], "--sort")
    upwards = [not word.startswith("-") for word in words]
    return samples.sort_values([*names, "sample_id"], ascending=[*upwards, True])


def _aligned(table: pd.DataFrame) -> Iterator[str]:
    def cell(name: str, value: Any) -> str:
        form = _FORMATS.get(name, "{:g}" if isinstance(value, float) else "{}")
        return form.format(value)

    body = [[cell(name, value) for value in table[name].tolist()] for name in table.columns]
    words = [[str(name), *cells] for name, cells in zip(table.columns, body, strict=True)]
    padded = [[word.ljust(max(map(len, column))) for word in column] for column in words]
    for row in zip(*padded, strict=True):
        yield "  ".join(row).rstrip()


def _words(text: str) -> Sequence[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
