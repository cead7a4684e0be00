"""The page where a person accepts and rejects picks: what is on it, and what a browser does with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalogs import particles
from catalogs.volumes import open_volume, write_mrc
from tlpick.batch.run_folder import read_picks
from tlpick.output import curation
from tlpick.output.curation import EDGE, choice, projections, sheets, write_curation

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture
def run(tlpick: Any, ball_model: Path, make_balls: Any, tmp_path: Path) -> Path:
    """The folder of a run over one tomogram."""
    balls = make_balls("tomo-1")
    write_mrc(tmp_path / "tomo-1.mrc", balls.data, 10.0)
    assert tlpick("run", ball_model, tmp_path / "tomo-1.mrc", "--to", tmp_path / "picks").status == 0
    return tmp_path / "picks"


def on_page(page: Path) -> list[list[Any]]:
    [text] = re.findall(r'<script type="application/json" id="picks">(.*?)</script>', page.read_text())
    rows: list[list[Any]] = json.loads(text)
    return rows


def test_a_run_leaves_the_page_with_all_its_picks(tlpick: Any, run: Path) -> None:
    rows = on_page(run / "curate.html")
    every = particles.read(run / "particles.star")
    assert len(rows) == len(every) > 2
    np.testing.assert_allclose(
        sorted(row[3:6] for row in rows), sorted(every[["x", "y", "z"]].to_numpy().tolist()), atol=0.01
    )
    assert 'href="curate.html"' in (run / "report.html").read_text()
    (run / "curate.html").unlink()
    again = tlpick("report", run)
    assert f"accept or reject picks in a browser: {run / 'curate.html'}" in again.out
    assert on_page(run / "curate.html") == rows


def test_without_its_tomogram_there_is_no_page(run: Path) -> None:
    (run.parent / "tomo-1.mrc").unlink()
    assert write_curation(read_picks(str(run))) is None
    assert not (run / "curate.html").exists()


def test_of_too_many_picks_the_best_are_shown(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curation, "MOST", 2)
    write_curation(read_picks(str(run)))
    rows = on_page(run / "curate.html")
    assert len(rows) == 2
    scores = particles.read(run / "particles.star")["score"].sort_values(ascending=False)
    np.testing.assert_allclose([row[6] for row in rows], scores[:2], atol=1e-4)
    assert "more picks are not shown" in (run / "curate.html").read_text()


def test_picks_around_the_cut_come_first_by_nearness() -> None:
    table = particles.make(
        x=np.arange(6.0), y=[0.0] * 6, z=[0.0] * 6, score=[0.9, 0.8, 0.62, 0.6, 0.3, np.nan]
    )
    made = choice(table.assign(kept=[True] * 3 + [False] * 3))
    assert [pick.kept for pick in made] == [True, True, True, False, False, False]
    assert sorted(range(6), key=lambda k: made[k].near) == [2, 3, 1, 0, 4, 5]
    assert made[5].score is None


def test_a_particle_is_seen_from_three_sides(tmp_path: Path) -> None:
    """A rod along x: a bar from z and from y, a dot from x; and at a corner it is still drawn."""
    data = np.zeros((40, 50, 60), np.float32)
    data[20, 25, 20:41] = 10
    write_mrc(tmp_path / "rod.mrc", data, 10.0)
    volume = open_volume(tmp_path / "rod.mrc")
    picture = projections(volume, {"x": 300.0, "y": 250.0, "z": 200.0}, 80.0, 10.0)
    assert picture.shape == (EDGE, 3 * EDGE)
    along_z, along_y, along_x = (picture[:, k * EDGE : (k + 1) * EDGE] > 150 for k in range(3))
    for bar in (along_z, along_y):
        rows, columns = np.nonzero(bar)
        assert np.ptp(columns) > 3 * np.ptp(rows)
    rows, columns = np.nonzero(along_x)
    assert abs(np.ptp(columns) - np.ptp(rows)) <= 1
    assert projections(volume, {"x": 0.0, "y": 490.0, "z": 0.0}, 80.0, 10.0).shape == (EDGE, 3 * EDGE)


def test_pictures_are_put_on_sheets_in_order() -> None:
    pictures = [
        np.full((EDGE, 3 * EDGE), k % 200, np.uint8) for k in range(curation.COLUMNS * curation.ROWS + 3)
    ]
    assert len(sheets(pictures)) == 2


# Accepts two picks, rejects one, undoes, sorts, downloads; says in the title what became of it.
ACT = """
<script>
const press = key => document.dispatchEvent(new KeyboardEvent('keydown', { key }));
const before = document.getElementById('counts').textContent;
press('a'); press('r'); press('a'); press('u');
document.querySelectorAll('.pick')[2].click();
document.querySelectorAll('.pick')[2].click();
const text = list();
document.getElementById('shown').value = 'rejected';
document.getElementById('shown').dispatchEvent(new Event('change'));
const title = () => document.title = JSON.stringify({
  before, counts: document.getElementById('counts').textContent, text,
  nodes: document.querySelectorAll('.pick').length,
  greys: new Set(document.querySelector('canvas').getContext('2d').getImageData(0, 0, 120, 40).data).size,
  wide: document.documentElement.scrollWidth <= window.innerWidth
});
addEventListener('load', title); // the pictures are there
</script>
"""


def browse(page: Path, tmp_path: Path, width: int = 1280) -> dict[str, Any]:
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},1200",
            "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    [title] = re.findall(r"<title>(\{.*?\})</title>", done.stdout, re.DOTALL)
    seen: dict[str, Any] = json.loads(title.replace("&quot;", '"').replace("&amp;", "&"))
    return seen


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on this machine")
def test_a_browser_accepts_rejects_undoes_and_remembers(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text((run / "curate.html").read_text().replace("</body>", ACT + "</body>"))
    n = len(on_page(page))
    seen = browse(page, tmp_path)
    assert seen["before"] == f"0 accepted, 0 rejected, {n} undecided"
    assert seen["counts"] == f"1 accepted, 2 rejected, {n - 3} undecided"
    assert seen["nodes"] == 2
    assert seen["greys"] > 20  # a picture is painted
    assert seen["wide"]
    (tmp_path / "curated.csv").write_text(seen["text"])
    table = particles.read(tmp_path / "curated.csv")
    assert sorted(table["verdict"]) == ["accepted", "rejected", "rejected"]
    assert set(table["class_name"]) == {"ball"}
    # the same page, opened again: what was decided is still there, before anything is pressed
    again = browse(page, tmp_path, width=390)
    assert again["before"] == seen["counts"]
    assert again["wide"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on this machine")
def test_thousands_of_picks_are_shown_a_page_at_a_time(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    text = (run / "curate.html").read_text()
    few = on_page(run / "curate.html")
    rows = [few[k % len(few)] for k in range(5000)]
    found = re.search(r'(<script type="application/json" id="picks">).*?(</script>)', text)
    assert found is not None
    text = text[: found.end(1)] + json.dumps(rows) + text[found.start(2) :]
    act = ACT.replace("'rejected';", "'all';")
    page.write_text(text.replace("</body>", act + "</body>"))
    seen = browse(page, tmp_path)
    assert seen["counts"].endswith("4997 undecided")
    assert seen["nodes"] == 120


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on this machine")
def test_it_answers_at_once_with_as_many_picks_as_it_shows() -> None:
    """Loosely, since other programs may run; benchmarks/curate.py has the bars and prints the figures."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    benchmarks = Path(__file__).parents[3] / "benchmarks"
    done = subprocess.run(
        [sys.executable, "curate.py", "--tries", "1"],
        cwd=benchmarks, capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": ".."},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["picks"] == curation.MOST
    for name in ("accept", "reject", "undo", "turn", "sort", "filter"):
        assert figures[f"{name}_s"] < 1, figures
