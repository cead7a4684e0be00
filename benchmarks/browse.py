"""How soon the page of ``tlgen browse`` is there, and how soon a condition has chosen among its samples.

    python benchmarks/browse.py

makes the index of a corpus of 10,000 samples that are only records, serves it, opens it in headless
Chromium and measures there: ``first_paint_s`` from the request of the page until its table and charts are
painted, ``filter_s`` from the moment that the condition is entered until they are painted anew. Medians of
some tries; each looks for new samples. The ``..._cpu_s`` are CPU seconds of the page's main thread, which do
not depend on what else the machine does. Needs Chromium and the package playwright.

    python benchmarks/browse.py --pictures demo/corpus

writes the pictures of docs/browsing.md from a corpus that is there.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.corpus import snapshot
from catalogs.corpus.catalog import Catalog
from catalogs.machine import machine
from catalogs.schema import Acquisition, ClassInfo, Intensity, SampleRecord
from catalogs.seeds import digest

CONDITIONS = ("dose < 100 and split == 'train'", "defocus > 3 or tilt_max < 50", "n_particles > 40")
WINDOW = {"width": 1400, "height": 900}
#: When the last of the paints that a condition, or the start, called for was done, and how long it took.
LAST = (
    "(({startTime, duration}) => [startTime + duration, duration])"
    "(performance.getEntriesByName('filter').at(-1))"
)


def records(number: int) -> dict[str, SampleRecord]:
    """Make records of samples whose parameters are drawn as a recipe draws them."""
    rng = np.random.default_rng(0)
    found = {}
    for k in range(number):
        sample_id = digest(k)
        acquisition = Acquisition(
            dose=round(rng.uniform(80, 140), 2),
            defocus=round(rng.uniform(1.5, 5), 3),
            tilt_min=-float(rng.choice([40, 50, 60])),
            tilt_max=float(rng.choice([40, 50, 60])),
            tilt_step=float(rng.choice([1.0, 2.0, 3.0])),
            ice_density=round(rng.uniform(0.9, 0.96), 3),
            amplitude_contrast=round(rng.uniform(0.05, 0.1), 3),
            energy_spread=round(rng.uniform(2, 3), 3),
            phase_plate=bool(rng.random() < 0.2),
            tilt_scheme=str(rng.choice(["dose_symmetric", "bidirectional"])),
            engine=str(rng.choice(["multislice", "parakeet"])),
            damage=round(rng.uniform(0.05, 0.1), 3),
        )
        found[sample_id] = SampleRecord(
            sample_id=sample_id,
            name=f"train-{k:05d}",
            path=f"samples/{sample_id[:2]}/{sample_id}-{k:06x}.zarr",
            split=str(rng.choice(["train", "val", "test"], p=[0.8, 0.1, 0.1])),
            created="2026-01-01T00:00:00+00:00",
            seed=k,
            acquisition=acquisition,
            shape=(200, 512, 512),
            n_tilts=41,
            n_particles=int(rng.integers(10, 80)),
            n_distractors=int(rng.integers(200, 900)),
            class_counts={"ribosome": 10},
            structures={"4v5d": "0" * 32, "1e10": "1" * 32},
            occupancy=round(rng.uniform(0.1, 0.3), 4),
            intensity=Intensity(centre=0.0, spread=1.0),
            seconds={"simulate": round(rng.uniform(100, 900), 2)},
            software={"template-learning": "0.1.0"},
            checksums={"zarr.json": "0" * 32},
            n_objects=50,
            n_bytes=int(rng.integers(10**7, 10**8)),
        )
    return found


def corpus_of(folder: Path, number: int) -> str:
    """Write a corpus that has an index and no sample."""
    classes = [ClassInfo(name="ribosome", label=1, radius=108.0)]
    catalog = Catalog.create(folder / "corpus", classes=classes, recipe={}, name="benchmark")
    catalog._store.create("index/index-00000001.parquet", snapshot.encode(None, frozenset(), records(number)))
    return catalog.url


@contextmanager
def served(url: str) -> Iterator[str]:
    """Serve a corpus; yields the address."""
    command = [str(Path(sys.executable).parent / "tlgen"), "browse", url, "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
        finally:
            server.terminate()


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium; yields what opens pages."""
    from playwright.sync_api import sync_playwright

    program = next(path for name in ("chromium", "google-chrome") if (path := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def measure(url: str, tries: int) -> dict[str, Any]:
    """Open the page some times and filter in it."""
    paints, filters, cpu = [], [], {"first_paint": [], "filter": []}
    with served(url) as address, chromium() as browser:
        for _ in range(tries):
            page = browser.new_page(viewport=WINDOW)
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            page.goto(address)
            page.wait_for_selector("body[data-painted='1']", timeout=60_000)
            used = main_thread(session)
            cpu["first_paint"].append(used)
            paints.append(page.evaluate(LAST)[0] / 1000)
            for number, condition in enumerate(CONDITIONS, start=2):
                used = main_thread(session)
                enter(page, condition, number)
                cpu["filter"].append(main_thread(session) - used)
                filters.append(page.evaluate(LAST)[1] / 1000)
                assert " of " in str(page.text_content("#count"))
            page.close()
    return {
        "first_paint_s": round(statistics.median(paints), 3),
        "first_paint_worst_s": round(max(paints), 3),
        "filter_s": round(statistics.median(filters), 3),
        "filter_worst_s": round(max(filters), 3),
        **{f"{name}_cpu_s": round(statistics.median(values), 3) for name, values in cpu.items()},
    }


def main_thread(session: Any) -> float:
    """CPU seconds that the main thread of a page has used."""
    found = session.send("Performance.getMetrics")["metrics"]
    return float(next(metric["value"] for metric in found if metric["name"] == "TaskDuration"))


def enter(page: Any, condition: str, number: int) -> None:
    """Enter a condition and wait for the paint of that number."""
    page.fill("#where", condition)
    page.press("#where", "Enter")
    page.wait_for_selector(f"body[data-painted='{number}']")


def photograph(url: str, folder: Path) -> None:
    """Write a picture of the page of a corpus, and one of a sample's page."""
    with served(url) as address, chromium() as browser:
        page = browser.new_page(viewport=WINDOW)
        page.goto(address)
        page.wait_for_selector("body[data-painted='1']", timeout=60_000)
        enter(page, "dose > 100 and split == 'train'", 2)
        page.wait_for_timeout(1500)  # thumbnails
        page.screenshot(path=folder / "browse-corpus.png")
        page.click("#table .row .cell:nth-child(2) a")
        page.wait_for_selector("main:not([hidden])", timeout=60_000)
        page.select_option("#labels", "classes")
        page.check("#particles")
        page.wait_for_timeout(2500)  # planes
        page.set_viewport_size({"width": 1100, "height": 1500})
        page.wait_for_timeout(1500)
        page.screenshot(path=folder / "browse-sample.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument(
        "--pictures", metavar="CORPUS", help="write the pictures of the documentation instead"
    )
    options = parser.parse_args()
    if options.pictures:
        photograph(options.pictures, Path(__file__).parents[1] / "docs" / "images")
        return
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(corpus_of(Path(folder), options.samples), options.tries)
    print(f"\n{options.samples} samples in headless Chromium         median    worst     CPU    bar")
    for name, said, bar in (("first_paint", "first paint", 2), ("filter", "a condition", 0.3)):
        print(
            f"  {said:40} {figures[f'{name}_s']:6.2f} s {figures[f'{name}_worst_s']:6.2f} s"
            f"{figures[f'{name}_cpu_s']:6.2f} s {bar:4} s"
        )
    print(json.dumps({"samples": options.samples, **figures, **machine().figures()}))


if __name__ == "__main__":
    main()
