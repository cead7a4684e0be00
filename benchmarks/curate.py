"""How soon the page where picks are accepted and rejected answers, with as many picks as it shows.

    python benchmarks/curate.py

makes the page of 5,000 picks, each with a picture of its own, opens the file in headless Chromium and
measures there: from a key or a choice until the result is painted. Medians of some tries, and the worst.
Needs Chromium and the package playwright.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from browse import WINDOW, chromium

from catalogs.machine import machine
from catalogs.seeds import generator
from tlpick.output.curation import EDGE, Pick, curation_page

#: What is measured, in words; and the longest that it may take, s.
MEASURED = {
    "open": ("the page is opened", 2.0),
    "accept": ("A: accept", 0.1),
    "reject": ("R: reject", 0.1),
    "undo": ("U: undo", 0.1),
    "turn": ("Page Down: next page", 0.1),
    "sort": ("sort by nearness to the cut", 0.3),
    "filter": ("show the undecided ones", 0.3),
    "reload": ("the page is opened again", 2.0),
}
#: Runs something in the page, and says how long it took until the result was painted, in ms.
TIMED = """([kind, value]) => new Promise(done => {
  const begun = performance.now();
  if (kind === 'key') document.dispatchEvent(new KeyboardEvent('keydown', { key: value }));
  else {
    const select = document.getElementById(kind);
    select.value = value;
    select.dispatchEvent(new Event('change'));
  }
  requestAnimationFrame(() => { const port = new MessageChannel();
    port.port1.onmessage = () => done(performance.now() - begun); port.port2.postMessage(0); });
})"""
#: Opening: until the first page of picks was painted, ms.
OPENED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def page_of(number: int) -> str:
    """Make a page of picks in noise."""
    rng = generator(0, "curate")
    picks, pictures = [], []
    order = rng.permutation(number)
    for k in range(number):
        x, y, z = (round(float(value), 2) for value in rng.uniform(0, 10_000, 3))
        score = round(1 - k / number, 4)
        picks.append(Pick(f"TS_{k % 40:02d}", "ribosome", 1, x, y, z, score, k < number // 2, int(order[k])))
        pictures.append(rng.integers(0, 255, (EDGE, 3 * EDGE), np.uint8))
    return curation_page("Accept and reject: ribosome", picks, pictures)


def measure(file: Path, tries: int, number: int) -> dict[str, list[float]]:
    """Do everything some times; seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in MEASURED}

    def act(name: str, page: Any, kind: str, value: str) -> None:
        seconds[name].append(page.evaluate(TIMED, [kind, value]) / 1000)

    with chromium() as browser:
        for _ in range(tries):
            page = browser.new_page(viewport=WINDOW)
            page.goto(file.as_uri())
            page.wait_for_selector(".pick")
            seconds["open"].append(page.evaluate(OPENED) / 1000)
            for _ in range(10):
                act("accept", page, "key", "a")
                act("reject", page, "key", "r")
                act("accept", page, "key", "a")
                act("undo", page, "key", "u")
            act("turn", page, "key", "PageDown")
            act("sort", page, "order", "near")
            act("filter", page, "shown", "open")
            # a key decides on the next pick; undoing does not step back
            decided = f"10 accepted, 10 rejected, {number - 20} undecided"
            assert page.text_content("#counts") == decided, page.text_content("#counts")
            page.reload()
            page.wait_for_selector(".pick")
            seconds["reload"].append(page.evaluate(OPENED) / 1000)
            assert page.text_content("#counts") == decided
            page.evaluate("localStorage.clear()")
            page.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--picks", type=int, default=5000)
    parser.add_argument("--tries", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "curate.html"
        file.write_text(page_of(options.picks))
        size = file.stat().st_size
        seconds = measure(file, options.tries, options.picks)
    figures: dict[str, Any] = {"picks": options.picks, "bytes": size}
    print(f"\n{options.picks} picks, a file of {size / 1e6:.0f} MB            median    worst     bar")
    for name, (words, bar) in MEASURED.items():
        median, worst = statistics.median(seconds[name]), max(seconds[name])
        figures |= {f"{name}_s": round(median, 4), f"{name}_worst_s": round(worst, 4)}
        print(f"  {words:40} {median:6.3f} s {worst:6.3f} s {bar:5.1f} s")
    print(json.dumps(figures | machine().figures()))


if __name__ == "__main__":
    main()
