"""The page of ``tlgen browse`` in a browser: filter, open, switch labels, slide."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on this machine"),
]
FIRST = f"{0:016x}"
#: Grey value and redness of the pixel in the middle of the ball, in the section across z.
PIXEL = """
([column, row]) => {
  const canvas = document.querySelector('[data-axis=z] canvas');
  const scale = canvas.width / 36;
  const at = [Math.round((column + .5) * scale), Math.round((row + .5) * scale)];
  return [...canvas.getContext('2d').getImageData(...at, 1, 1).data].slice(0, 3);
}
"""


@pytest.fixture
def page(served: Any) -> Iterator[Any]:
    """A page of a browser; whatever it complains of fails the test."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    complaints: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1300, "height": 900})
        opened.on("console", lambda message: complaints.append(message.text))  # refused addresses, too
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.complaints = complaints
        yield opened
        browser.close()
    # that this test reads pixels is its own affair
    assert [words for words in complaints if "willReadFrequently" not in words] == []


def at_rest(page: Any, times: int) -> None:
    page.wait_for_selector(f"body[data-painted='{times}']", timeout=60_000)


def names(page: Any) -> list[str]:
    return [link.text_content() for link in page.query_selector_all("#table .row .cell:nth-child(2)")]


def test_samples_are_filtered_sorted_and_drawn(page: Any, served: Any) -> None:
    page.goto(served.address)
    at_rest(page, 1)
    assert page.text_content("#count") == "40 samples"
    assert names(page)[:3] == ["train-000", "train-001", "train-002"]
    assert len(names(page)) < 40  # only those in sight
    page.wait_for_selector("#table img")
    assert page.eval_on_selector("#table img", "image => image.decode().then(() => image.naturalWidth)") == 36
    page.fill("#where", "dose > 110 and split == 'train'")
    page.press("#where", "Enter")
    at_rest(page, 2)
    assert page.text_content("#count") == "19 of 40 samples"
    assert names(page)[0] == "train-021"
    for _ in range(2):  # upwards, then downwards
        page.click("#table .head button:has-text('dose')")
    assert names(page)[0] == "train-039"
    assert "where=dose+" in page.url or "where=dose%20" in page.url
    page.reload()
    at_rest(page, 1)
    assert page.text_content("#count") == "19 of 40 samples"
    page.click("#clear")
    at_rest(page, 2)
    assert page.text_content("#count") == "40 samples"
    page.eval_on_selector("#table", "box => { box.scrollTop = box.scrollHeight }")
    page.wait_for_selector("#table .row >> text=train-039")


def test_a_wrong_condition_is_explained(page: Any, served: Any) -> None:
    page.goto(served.address)
    at_rest(page, 1)
    page.fill("#where", "doze > 1")
    page.press("#where", "Enter")
    page.wait_for_selector("#error:has-text('did you mean')")
    assert page.text_content("#count") == "40 samples"
    assert "400" in page.complaints.pop()  # the browser's own line of the answer


def test_dragging_over_the_points_chooses_samples(page: Any, served: Any) -> None:
    page.goto(served.address)
    at_rest(page, 1)
    page.select_option("#across", "dose")
    page.select_option("#up", "defocus")
    edge = page.query_selector("#pair").bounding_box()
    page.mouse.move(edge["x"] + 60, edge["y"] + 40)
    page.mouse.down()
    page.mouse.move(edge["x"] + edge["width"] / 2, edge["y"] + edge["height"] - 20)
    page.mouse.up()
    at_rest(page, 2)
    where = page.input_value("#where")
    assert where.startswith("dose <= 1")  # beyond the edges nothing is asked for
    assert "and" not in where
    assert 10 < int(page.text_content("#count").split()[0]) < 30


def test_a_sample_is_opened_labelled_and_slid_through(page: Any, served: Any) -> None:
    page.goto(served.address)
    at_rest(page, 1)
    page.click("#table >> text=train-000")
    page.wait_for_selector("main:not([hidden])")
    assert page.text_content("h1") == "train-000"
    page.wait_for_selector("[data-axis=z] output:has-text('12 ·')")
    bare = page.evaluate(PIXEL, [10, 20])
    assert max(bare) - min(bare) == 0  # grey
    page.select_option("#labels", "classes")
    page.wait_for_timeout(500)
    labelled = page.evaluate(PIXEL, [10, 20])
    assert max(labelled) - min(labelled) > 30  # in the colour of the class
    outside = page.evaluate(PIXEL, [30, 35])
    assert max(outside) - min(outside) == 0
    page.evaluate(
        "document.querySelector('[data-axis=z] input').value = 23;"
        "document.querySelector('[data-axis=z] input').dispatchEvent(new Event('input'))"
    )
    page.wait_for_selector("[data-axis=z] output:has-text('23 ·')")
    away = page.evaluate(PIXEL, [10, 20])
    assert max(away) - min(away) == 0  # above the ball
    page.check("#particles")
    page.wait_for_timeout(300)
    assert page.text_content("#legend li") == "1 ribosome"
    assert "4v5d" in page.text_content("#structures")
    assert "3 s" in page.text_content("#costs")
    assert "napari-ome-zarr" in page.text_content("#napari")
    page.wait_for_selector("#tilts output:has-text('0°')")
    page.click("#back")
    at_rest(page, 1)


def test_a_browser_without_webgl_is_told_so(page: Any, served: Any) -> None:
    page.add_init_script(
        "const real = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...more) {"
        " return kind.startsWith('webgl') ? null : real.call(this, kind, ...more); };"
    )
    page.goto(f"{served.url}/sample/{FIRST}?token={served.browser.token}")
    page.wait_for_selector("main:not([hidden])")
    assert "WebGL" in page.text_content("#without")
    assert page.get_attribute("#neuroglancer", "href") is None


def test_a_corpus_without_samples(page: Any, served_without_samples: Any) -> None:
    page.goto(served_without_samples.address)
    at_rest(page, 1)
    assert page.text_content("#count") == "0 samples"
    assert "no samples yet" in page.text_content("#constant")


def test_without_the_token_the_page_stays_closed(page: Any, served: Any) -> None:
    response = page.request.get(f"{served.url}/")
    assert response.status == 403
    assert "token" in response.json()["error"]
