"""The report: it stands alone, says what is true, and a real browser opens it without a complaint."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from catalogs import particles
from catalogs.volumes import write_mrc

Run = Callable[..., Any]


class Page(HTMLParser):
    """Collects what a page refers to, and checks that its tags close."""

    void = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.classes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "srcset", "xlink:href", "data"):
                self.links.append(value or "")
            if name == "class":
                self.classes.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(path: Path) -> tuple[str, Page]:
    text = path.read_text()
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.links
    assert all(link.startswith("data:") for link in page.links)
    for outside in ("http:", "https:", "@import", "url(h", "<script src"):
        assert outside not in text
    return text, page


def test_the_report_of_a_run_stands_alone(picked: Path) -> None:
    text, page = read(picked / "report.html")
    assert "<h1>ball in tomo-1</h1>" in text
    assert "8 picks" in text
    assert page.classes.count("pick plain c0") >= 8
    assert not any(kind.startswith("truth") for kind in page.classes)
    for part in ("Scores", "Nearest neighbours", "Sizes", "ball: best and worst", "How it was made"):
        assert f"<h2>{part}</h2>" in text
    assert page.classes.count("crop") == 8
    assert "localising (method meanshift, min_size 0.1" in text


def test_the_report_of_a_score_shows_right_and_wrong(
    tlpick: Run, picked: Path, make_balls: Run, tmp_path: Path
) -> None:
    truth = make_balls("tomo-1").truth
    moved = truth.assign(x=truth["x"] + np.where(truth.index == 0, 200.0, 0.0))
    particles.write(moved, tmp_path / "truth.csv", voxel_size=10.0, shape=(40, 66, 59))
    tlpick("score", picked, tmp_path / "truth.csv")
    text, page = read(picked / "report.html")
    assert {"pick paired c0", "pick alone c0", "truth paired c0", "truth alone c0"} <= set(page.classes)
    assert (page.classes.count("crop right"), page.classes.count("crop wrong")) == (7, 1)
    assert "prefers-color-scheme: dark" in text
    assert "7 of 8 particles found, 1 of 8 picks false" in text
    assert "One tomogram says nothing about how others would score" in text
    for name in ("SHREC'21", "CZII", "DeePiCt", "octopi", "DeepFinder", "box IoU 0.6"):
        assert name in unescape(text)


def test_the_report_does_without_the_tomogram(
    tlpick: Run, picked: Path, make_balls: Run, tmp_path: Path
) -> None:
    truth = make_balls("tomo-1").truth
    particles.write(truth, tmp_path / "truth.csv", voxel_size=10.0, shape=(40, 66, 59))
    (tmp_path / "tomo-1.mrc").unlink()
    assert tlpick("score", picked, tmp_path / "truth.csv").status == 0
    text = (picked / "report.html").read_text()
    assert "No slices: there is no volume" in text
    assert 'class="crop' not in text


def test_names_cannot_break_the_page(tlpick: Run, picked: Path) -> None:
    run = json.loads((picked / "run.json").read_text())
    run["failed"] = [{"path": "x", "error": "<script>alert(1)</script> & more"}]
    (picked / "run.json").write_text(json.dumps(run))
    assert tlpick("report", picked).status == 0
    text, _ = read(picked / "report.html")
    assert "<script>alert" not in text
    assert "1 tomogram failed and is not in what follows" in text


def test_report_refuses_what_is_no_run(tlpick: Run, tmp_path: Path) -> None:
    refused = tlpick("report", tmp_path)
    assert refused.status == 2
    assert "is not the folder of a run: it has no run.json" in refused.err


CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

# Moves the first slider, hides the first class, and says in the title what became of it.
ACT = """
<script>
const slider = document.querySelector('.depth input');
slider.value = 0;
slider.dispatchEvent(new Event('input'));
const slabs = [...document.querySelectorAll('.stack')[0].querySelectorAll('.slab')];
const shown = slabs.map(slab => slab.style.display === '');
const box = document.querySelector('[data-toggle=c0]') ?? document.createElement('input');
box.checked = false;
box.dispatchEvent(new Event('change'));
const circle = document.querySelector('.orthoview .c0');
const moved = document.querySelector('.z-right').getAttribute('transform');
const wide = document.documentElement.scrollWidth <= window.innerWidth;
document.title = JSON.stringify({
  first: shown[0], others: shown.slice(1).some(Boolean),
  hidden: !box.dataset.toggle || getComputedStyle(circle).display === 'none',
  moved, wide, images: [...document.images].every(i => i.naturalWidth > 0),
  slider: !slider.closest('label').hidden
});
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on this machine")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_opens_the_report_without_a_complaint(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path, width: int
) -> None:
    assert CHROMIUM is not None
    tables = []
    for name in ("tomo-1", "tomo-2"):
        balls = make_balls(name)
        write_mrc(tmp_path / f"{name}.mrc", balls.data, 10.0)
        tables.append(balls.truth)
    truth = pd.concat(tables, ignore_index=True)
    particles.write(truth, tmp_path / "truth.csv", voxel_size=10.0, shape=(40, 66, 59))
    to = tmp_path / "picks"
    assert tlpick("run", ball_model, *tmp_path.glob("*.mrc"), "--to", to).status == 0
    for what in ("run", "score"):
        if what == "score":
            assert tlpick("score", to, tmp_path / "truth.csv").status == 0
        text = (to / "report.html").read_text()
        (tmp_path / "page.html").write_text(text.replace("</body>", ACT + "</body>"))
        done = subprocess.run(
            [
                CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},2000",
                "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
                "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom",
                (tmp_path / "page.html").as_uri(),
            ],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        assert said == []  # neither errors of scripts nor requests that the page's policy refused
        [title] = re.findall(r"<title>(\{.*?\})</title>", done.stdout)
        seen = json.loads(title.replace("&quot;", '"'))
        assert re.fullmatch(r"translate\(-\d+(\.\d+)? 0\)", seen.pop("moved"))
        assert seen == {
            "first": True, "others": False, "hidden": True, "wide": True, "images": True, "slider": True
        }  # fmt: skip


def test_the_report_shows_what_was_not_kept_and_the_mean(picked: Path) -> None:
    """The slider and the curve know all picks, the pictures those around the cut."""
    text, page = read(picked / "report.html")
    assert "<h2>How many</h2>" in text
    assert "8 picks, about" in unescape(text)
    assert page.classes.count("raw") > page.classes.count("crop")
    assert len(set(re.findall(r'data-step="(\d+)"', text))) == 8
    assert "<h2>The mean of the picks</h2>" in text
    assert "tomo-1: random places (8)" in text


def test_pictures_around_the_cut_and_means_are_of_the_places(tmp_path: Path) -> None:
    from tlpick.output.gallery import SHOWN, gallery
    from tlpick.output.mean_pictures import _averages

    volume = np.zeros((40, 60, 60), np.float32)
    rng = np.random.default_rng(0)
    n = 3 * SHOWN
    xyz = rng.uniform(100, 480, (n, 3)) * [1, 1, 0.6]
    for x, y, z in np.rint(xyz / 10).astype(int):
        volume[z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3] -= 5
    volume += rng.standard_normal(volume.shape, np.float32)
    write_mrc(tmp_path / "t.mrc", volume, 10.0)
    table = particles.make(
        tomogram="t", class_name="ball", label=1, x=xyz[:, 0], y=xyz[:, 1], z=xyz[:, 2],
        score=np.linspace(0.9, 0.3, n),
    )  # fmt: skip
    table = table.assign(kept=np.arange(n) < 2 * SHOWN, title="t")
    strips = gallery(table, 40.0, {"t": str(tmp_path / "t.mrc")}, {"t": 10.0})
    assert [strip.title for strip in strips] == [
        "Best 20", "Last that are kept", "First that are not kept", "Worst of all 20",
    ]  # fmt: skip
    assert len(strips[1].crops) == SHOWN // 2
    assert strips[1].crops[-1].score > strips[2].crops[0].score
    assert "projection of 80 Å, Gaussian of 7 Å" in strips[0].crops[0].words
    assert strips[0].crops[0].image != strips[0].crops[0].raw

    from catalogs.volumes import open_volume

    found, chance, spacing = _averages(open_volume(tmp_path / "t.mrc"), table, 40.0, 10.0, {})
    middle = len(found) // 2
    assert spacing == 10.0
    assert found[middle, middle, middle] < chance.min() - 0.5
