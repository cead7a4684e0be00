"""The table of samples: as xarray, and divided the same way every time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.corpus import sample_table
from catalogs.corpus.catalog import Catalog, Sample
from catalogs.errors import InputError
from catalogs.seeds import digest

MakeSample = Callable[..., Sample]
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def table(n: int) -> pd.DataFrame:
    """Make the columns that matter here: 6 values of defocus, 4 of dose."""
    return pd.DataFrame(
        {
            "defocus": [1.0 + k % 6 for k in range(n)],
            "dose": [60.0 + 20 * (k // 6 % 4) for k in range(n)],
            "split": ["test" if k % 5 == 0 else "train" for k in range(n)],
        },
        index=pd.Index([digest(k) for k in range(n)], name="sample_id", dtype=object),
    ).sort_index()


def parts(samples: pd.DataFrame, by: str | list[str] = "sample_id", seed: int = 0) -> dict[str, set[str]]:
    return {
        name: set(part.index) for name, part in sample_table.split(samples, by, SHARES, None, seed).items()
    }


def test_of_an_empty_corpus(corpus: Catalog) -> None:
    tree = corpus.to_xarray()
    assert tree["samples"].sizes["sample"] == 0
    assert "volumes" not in tree
    assert {name: len(part) for name, part in corpus.split().items()} == dict.fromkeys(SHARES, 0)


def test_shares_are_met_and_every_sample_is_in_one_part() -> None:
    found = parts(table(3000))
    assert sum(map(len, found.values())) == len(set().union(*found.values())) == 3000
    assert [round(len(found[name]) / 3000, 1) for name in SHARES] == [0.8, 0.1, 0.1]
    assert parts(table(3000)) == found
    assert parts(table(3000), seed=1) != found


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 80), st.integers(0, 80), st.integers(0, 5), st.sampled_from(["sample_id", "dose", "both"])
)
def test_more_samples_move_none(n: int, more: int, seed: int, by: str) -> None:
    columns = ["dose", "defocus"] if by == "both" else by
    before, after = parts(table(n), columns, seed), parts(table(n + more), columns, seed)
    for name in SHARES:
        assert before[name] <= after[name]


def test_samples_of_equal_parameters_stay_together() -> None:
    samples = table(600)
    found = sample_table.split(samples, ["dose", "defocus"], SHARES, None, 0)
    sets = [set(zip(part["dose"], part["defocus"], strict=True)) for part in found.values()]
    assert sum(map(len, sets)) == len(set().union(*sets)) == 24
    assert sum(len(part) > 0 for part in found.values()) > 1


def test_held_out_samples_are_in_test_alone() -> None:
    found = sample_table.split(table(600), "sample_id", {"train": 9, "val": 1}, "defocus > 5", 0)
    assert list(found) == ["train", "val", "test"]
    assert (found["test"]["defocus"] == 6).all()
    assert len(found["test"]) == 100
    assert (found["train"]["defocus"] < 6).all()
    assert sum(map(len, found.values())) == 600


def test_the_recipes_own_division() -> None:
    found = sample_table.split(table(50), "split", SHARES, None, 0)
    assert {name: len(part) for name, part in found.items()} == {"train": 40, "val": 0, "test": 10}


def test_a_corpus_is_divided(corpus: Catalog, make_sample: MakeSample) -> None:
    for k in range(4):
        corpus.write(make_sample(k, shape=(9, 14, 11), dose=80.0 + 20 * (k // 2)))
    found = corpus.split("dose", shares={"train": 1, "test": 1}, seed=3)
    assert sorted(len(part) for part in found.values()) in ([0, 4], [2, 2])
    assert np.concatenate([part["path"] for part in found.values()]).tolist()
    assert corpus.split(where="dose > 90", shares={"all": 1})["all"]["dose"].tolist() == [100.0, 100.0]


def test_refusals(corpus: Catalog, make_sample: MakeSample) -> None:
    corpus.write(make_sample(0, shape=(9, 14, 11)))
    with pytest.raises(InputError, match=r"split\(by=...\) names 'doze'.*did you mean 'dose'"):
        corpus.split("doze")
    for shares in ({}, {"train": 0}, {"train": 1, "val": -1}):
        with pytest.raises(InputError, match="shares of a split must be positive"):
            corpus.split(shares=shares)
    with pytest.raises(InputError, match="is not a condition"):
        corpus.split(hold_out="dose + 1")
