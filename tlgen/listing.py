"""``tlgen ls``: the samples of a corpus as a table."""

from __future__ import annotations

from collections.abc import Iterator

from catalogs.catalog import Catalog

_COLUMNS = {
    "name": "{}",
    "split": "{}",
    "engine": "{}",
    "dose": "{:.1f}",
    "defocus": "{:.2f}",
    "tilt_max": "{:.0f}",
    "tilt_step": "{:.1f}",
    "ice_density": "{:.2f}",
    "n_particles": "{}",
    "n_distractors": "{}",
    "occupancy": "{:.3f}",
}


def listing(url: str, where: str | None, paths: bool) -> Iterator[str]:
    """Yield the lines to print.

    Parameters
    ----------
    url
        Of the corpus.
    where
        A query over the columns of :attr:`catalogs.catalog.Catalog.samples`; all samples without it.
    paths
        Yield only the URL of each sample.

    Raises
    ------
    InputError
        There is no corpus, or the query is wrong.
    """
    catalog = Catalog.open(url)
    samples = catalog.query(where).sort_values("name")
    if paths:
        yield from (catalog.sample_url(str(sample_id)) for sample_id in samples.index)
        return
    rows = [["sample_id", *_COLUMNS]]
    rows += [
        [str(sample_id), *(form.format(row[column]) for column, form in _COLUMNS.items())]
        for sample_id, row in samples.iterrows()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
    size = samples["n_bytes"].sum() / 1e6
    yield f"{len(samples)} samples, {samples['n_particles'].sum()} target particles, {size:.1f} MB"
