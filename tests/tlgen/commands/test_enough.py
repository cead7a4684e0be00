"""How much is enough: what ``tlgen new`` and the docs say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tlgen.commands.enough import SIZES, table

Tlgen = Callable[..., tuple[int, str, str]]


def test_a_new_recipe_says_how_much_is_enough_and_what_it_takes(tmp_path: Path, tlgen: Tlgen) -> None:
    status, out, err = tlgen("new", tmp_path / "mine.yaml")
    assert (status, err) == (0, "")
    assert "how much is enough; times were measured on" in out
    assert "tlgen plan says" in out
    for size in SIZES:
        corpus, training = size.times
        assert f"  {size.name}\n    samples      {size.boxes}: {corpus}\n" in out
        assert f"    tltrain fit  {size.options}: {training}\n" in out


def test_larger_sizes_take_longer_and_the_docs_say_the_same() -> None:
    assert all(size.corpus > 0 and size.training > 0 for size in SIZES)
    totals = [size.corpus + size.training for size in SIZES]
    assert totals == sorted(totals)
    rows = table().splitlines()
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:]] == [size.name for size in SIZES]
    page = Path(__file__).parents[3] / "docs" / "own-protein.md"
    assert "{{ how much is enough }}" in page.read_text()
