"""The paper's list of distractors."""

from __future__ import annotations

import csv
from pathlib import Path

from catalogs.distractors import paper_distractors


def test_the_papers_list() -> None:
    listed = paper_distractors()
    assert len(listed) == 100
    assert next(iter(listed)) == "3qm1"
    assert set(listed.values()) == {1, 2, 3, 4, 5}
    assert all(len(entry) == 4 and entry == entry.lower() and entry[0].isdigit() for entry in listed)


def test_it_is_what_the_original_uses(shared: Path) -> None:
    with (shared / "structures" / "frequencies.csv").open(newline="") as file:
        ids, frequencies = list(csv.reader(file))[:2]
    assert paper_distractors() == dict(zip(ids, map(int, frequencies), strict=True))
