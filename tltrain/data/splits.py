"""Choose the samples of a corpus for training and for validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from catalogs.corpus import sample_table
from catalogs.errors import InputError
from catalogs.schema import SampleRecord

if TYPE_CHECKING:
    from catalogs.corpus.catalog import Catalog

#: Share of the sets of parameter values that :func:`split_samples` holds out.
HELD_OUT = 0.1


class Selection(NamedTuple):
    """Samples by id; none is in both parts, and none is of the split ``test``."""

    train: list[SampleRecord]
    val: list[SampleRecord]


def split_samples(
    catalog: Catalog,
    where: str | None = None,
    hold_out: str | None = None,
    *,
    by: Sequence[str] = (),
    seed: int = 0,
) -> Selection:
    """Choose the samples to train on and to validate on.

    Samples of the split ``test`` are never touched, and those of the split ``val`` never trained on.

    Parameters
    ----------
    catalog
        The corpus.
    where
        A query; only samples that meet it are used for training. None: all.
    hold_out
        A query such as ``"defocus > 4"``; samples that meet it are used for validation and not for training,
        whatever ``where`` says. So the values of these columns in validation do not occur in training.
    by
        Columns such as ``("defocus", "dose")``: samples with equal values stay together, and a tenth of the
        sets of values (at least one) is held out. Not together with ``hold_out``.
    seed
        Seed of the choice of these sets.

    Returns
    -------
    Selection
        Without ``hold_out`` and ``by``, the samples of the split ``val`` are used for validation.

    Raises
    ------
    InputError
        If a query or a column is wrong, nothing is left to train on or nothing is held out, or the voxel
        sizes differ.
    """
    if hold_out is not None and by:
        raise InputError("`hold_out` and `hold_out_by` exclude each other; give one of them")
    samples = catalog.samples
    asked = sample_table.select(samples, where)
    usable = samples[samples["split"] != "test"]
    if hold_out is not None:
        held = sample_table.select(usable, hold_out)
        said = f'`hold_out` "{hold_out}"'
    elif by:
        columns = sample_table.known_columns(samples, by, "`hold_out_by`")
        held = _dealt_out(usable, columns, seed)
        said = f"`hold_out_by={','.join(columns)}`"
    else:
        held, said = usable[usable["split"] == "val"], ""
    train = asked[(asked["split"] == "train") & ~asked.index.isin(held.index)]
    if not len(train):
        raise InputError(_nothing_to_train_on(catalog, where, said, asked, held))
    if said and not len(held):
        raise InputError(
            f"{said} holds out no sample of the corpus {catalog.url}, so there would be no validation; "
            "tlgen ls shows what there is"
        )
    sizes = sorted({float(size) for size in train["voxel_size"]})
    if len(sizes) > 1:
        listed = " and ".join(f"{size:g}" for size in sizes)
        raise InputError(
            f"the chosen samples of the corpus {catalog.url} have voxels of {listed} Å and a network learns "
            f'one size; choose by `where` "voxel_size == {sizes[0]:g}"'
        )
    held = held[held["voxel_size"] == sizes[0]]
    if said and not len(held):
        raise InputError(
            f"{said} holds out only samples of other voxels than {sizes[0]:g} Å; add a condition"
        )
    return Selection(_records(catalog, train), _records(catalog, held))


def _dealt_out(samples: pd.DataFrame, columns: Sequence[str], seed: int) -> pd.DataFrame:
    """Hold out a tenth of the sets of values, at least one."""
    held = samples.iloc[:0]
    for percent in range(round(100 * HELD_OUT), 100):
        shares = {"train": 100 - percent, "val": percent}
        held = sample_table.split(samples, columns, shares, None, seed)["val"]
        if len(held):
            break
    return held


def _records(catalog: Catalog, chosen: pd.DataFrame) -> list[SampleRecord]:
    ids = set(chosen.index)
    return [record for record in catalog.records() if record.sample_id in ids]


def _nothing_to_train_on(
    catalog: Catalog, where: str | None, said: str, asked: pd.DataFrame, held: pd.DataFrame
) -> str:
    """Explain why no sample is left."""
    wish = f'fits `where` "{where}"' if where else "can be trained on"
    n_held = int(asked.index.isin(held.index).sum()) if said else 0
    if n_held:
        kept = f"; {said} holds out {n_held} of the {len(asked)} that fit"
    elif len(asked):
        kept = f"; the {len(asked)} that fit are kept for validation and test"
    else:
        kept = ""
    return (
        f"no sample of the corpus {catalog.url} with the split 'train' {wish}{kept}; "
        "tlgen ls shows what there is"
    )
