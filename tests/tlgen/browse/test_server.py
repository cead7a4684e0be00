"""The server of ``tlgen browse``: who may ask, what it answers, and that nothing leads out of the corpus."""

from __future__ import annotations

import http.client
import io
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from tlgen.browse import in_neuroglancer, server
from tlgen.commands import browse as command

SHAPE = (24, 40, 36)  # as the fixture makes it
FIRST = f"{0:016x}"


def get(
    served: Any, path: str, *, method: str = "GET", token: bool = True, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """Ask as a browser with the cookie does."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    cookie = {"Cookie": f"tlgen-browse-{served.port}={served.browser.token}"} if token else {}
    connection.request(method, path, headers={**cookie, **headers})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def answer(served: Any, path: str) -> Any:
    response, body = get(served, path)
    assert response.status == 200, body
    return json.loads(body)


def picture(served: Any, path: str) -> Image.Image:
    response, body = get(served, path)
    assert response.status == 200, body
    assert response.headers["Content-Type"] == "image/png"
    return Image.open(io.BytesIO(body))


# ------------------------------------------------------------------------------------------ who may ask


@pytest.mark.parametrize(
    "path", ["/", "/api/table", f"/thumbnail/{FIRST}.png", "/static/page.js", "/nowhere"]
)
def test_without_the_token_everything_is_refused(served: Any, path: str) -> None:
    for query in ("", "?token=", "?token=wrong", f"?token={served.browser.token[:-1]}"):
        response, body = get(served, path + query, token=False)
        assert response.status == 403
        assert "token" in json.loads(body)["error"]
        assert "Set-Cookie" not in response.headers


def test_the_address_gives_a_cookie_that_opens_the_rest(served: Any) -> None:
    response, body = get(served, f"/?token={served.browser.token}", token=False)
    assert response.status == 200
    assert b"<!doctype html>" in body
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert get(served, "/api/table", token=False, Cookie=cookie.split(";")[0])[0].status == 200


def test_other_names_for_this_machine_are_refused(served: Any) -> None:
    response, body = get(served, "/api/table", Host=f"evil.example:{served.port}")
    assert response.status == 403
    assert "address" in json.loads(body)["error"]
    assert get(served, "/api/table", Host=f"localhost:{served.port}")[0].status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_it_only_reads(served: Any, method: str) -> None:
    assert get(served, "/api/table", method=method)[0].status in (403, 405)


def test_only_this_machine_is_listened_to(served: Any) -> None:
    with server.listen(None)[0] as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
        assert listening.getsockname()[1] != served.port


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py", "/static/..%2fserver.py", "/static/%2e%2e/server.py", "/static/.html",
        "/static//etc/passwd", "/../../etc/passwd", "/thumbnail/../corpus.json",
        "/sample/..%2f..%2fcorpus.json",
        f"/plane/{FIRST}/..%2f..%2f/z/0.png", f"/plane/{FIRST}/tomogram/z/..%2f0.png",
        f"/thumbnail/{FIRST}%00.png",
        f"/plane/{FIRST}/particles/z/0.png", f"/plane/{FIRST}/tomogram/z/9999999999.png",
    ],
)  # fmt: skip
def test_no_address_leads_out_of_the_corpus(served: Any, path: str) -> None:
    response, body = get(served, path)
    assert response.status == 404
    assert json.loads(body) == {"error": "there is no such page"}


# --------------------------------------------------------------------------------------------- answers


def test_the_table(served: Any, catalog: Catalog) -> None:
    content = answer(served, "/api/table")
    assert (content["name"], content["rows"], content["url"]) == ("little", 40, catalog.url)
    columns = {column["name"]: column for column in content["columns"]}
    assert "path" not in columns
    assert columns["dose"]["values"] == [90.0 + k for k in range(40)]
    assert (columns["dose"]["unit"], columns["dose"]["parameter"]) == ("e/Å²", True)
    assert columns["voltage"]["value"] == 300
    assert columns["split"]["words"] == ["test", "train"]
    assert columns["split"]["codes"][:4] == [1, 1, 0, 1]
    assert columns["phase_plate"]["words"] == ["False", "True"]
    assert columns["seed"]["words"][0] == str(2**62)  # JavaScript would round it
    assert columns["engine"]["value"] == "multislice"


def test_a_condition_chooses_as_where_does(served: Any, catalog: Catalog) -> None:
    where = "dose%20%3C%20100%20and%20split%20==%20'train'"
    found = answer(served, f"/api/select?where={where}")
    names = catalog.query("dose < 100 and split == 'train'")["name"].tolist()
    assert [f"train-{row:03d}" for row in found["rows"]] == names
    assert len(answer(served, "/api/select?where=")["rows"]) == 40
    response, body = get(served, "/api/select?where=dos%20%3C%2090")
    assert response.status == 400
    assert "did you mean 'dose'" in json.loads(body)["error"]
    assert get(served, "/api/select?where=__import__('os').getcwd()")[0].status == 400


def test_planes_are_those_of_the_volume(served: Any) -> None:
    z, y, x = SHAPE
    grey = np.asarray(picture(served, f"/plane/{FIRST}/tomogram/z/12.png"))
    assert grey.shape == (y, x)
    assert grey[20, 10] < 60 < 100 < grey[:10].mean()  # the ball is dark
    assert picture(served, f"/plane/{FIRST}/tomogram/y/20.png").size == (x, z)
    assert picture(served, f"/plane/{FIRST}/tomogram/x/10.png").size == (z, y)
    for volume in ("classes", "instances"):
        shown = np.asarray(picture(served, f"/plane/{FIRST}/{volume}/x/10.png").convert("RGBA"))
        assert shown[20, 12, 3] == 255
        assert shown[2, 2, 3] == 0
    response, body = get(served, f"/plane/{FIRST}/tomogram/z/{z}.png")
    assert (response.status, "no plane 24" in json.loads(body)["error"]) == (400, True)
    assert get(served, f"/plane/{FIRST}/density/z/0.png")[0].status == 400
    assert get(served, f"/plane/{'f' * 16}/tomogram/z/0.png")[0].status == 400


def test_large_volumes_are_read_in_slabs_of_a_bounded_memory(
    served: Any, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlgen.browse.planes._WHOLE", 0)
    monkeypatch.setattr("tlgen.browse.planes.CHUNK", 8)
    planes = server.Planes(catalog, kept=30_000)
    for axis, index in (("z", 23), ("y", 0), ("x", 35), ("y", 39), ("z", 7)):
        expected = get(served, f"/plane/{FIRST}/tomogram/{axis}/{index}.png")[1]
        assert planes.png(FIRST, "tomogram", axis, index) == expected
        assert sum(slab.nbytes for slab in planes._slabs.values()) <= 30_000


def test_a_sample(served: Any, catalog: Catalog) -> None:
    facts = answer(served, f"/api/sample/{FIRST}")
    assert facts["shape"] == list(SHAPE)
    assert facts["volumes"] == ["tomogram", "classes", "instances"]
    assert [(each["name"], each["count"]) for each in facts["classes"]] == [
        ("ribosome", 1),
        ("distractor", 1),
    ]
    assert facts["particles"]["x"] == [100.0, 250.0]
    assert facts["particles"]["structure"] == ["4v5d", "1pwc"]
    assert facts["record"]["seconds"] == {"simulate": 3.0, "pack": 0.5}
    assert catalog.sample_url(FIRST) in facts["napari"]
    parameters = {each["name"]: each for each in facts["parameters"]}
    assert (parameters["dose"]["value"], parameters["dose"]["unit"]) == (90.0, "e/Å²")


def test_tilt_images(served: Any) -> None:
    assert picture(served, f"/tilt/{FIRST}/4.png").size == (36, 40)
    assert "no tilt image 5" in json.loads(get(served, f"/tilt/{FIRST}/5.png")[1])["error"]
    assert "not kept" in json.loads(get(served, f"/tilt/{1:016x}/0.png")[1])["error"]
    assert answer(served, f"/api/sample/{1:016x}")["tilts"]["images"] is False


def test_samples_that_come_meanwhile_are_told_apart(tmp_path: Path, write: Any, catalog: Catalog) -> None:
    growing = Catalog.create(tmp_path / "corpus", classes=catalog.classes, recipe={}, name="growing")
    for number in (0, 2):
        write(growing, number)
    browser = server.Browser(growing)
    table, found = json.loads(browser.table()), json.loads(browser.select("dose > 91"))
    assert (table["rows"], found["rows"], found["version"]) == (2, [1], table["version"])
    assert json.loads(browser.table())["version"] == table["version"]
    write(growing, 1)
    assert json.loads(browser.select("dose > 91"))["rows"] == [1]  # of the table that the page has
    again = json.loads(browser.table())
    assert again["rows"] == 3
    assert again["version"] == json.loads(browser.select(""))["version"] != table["version"]


def test_a_corpus_in_a_store_of_objects(write: Any, catalog: Catalog) -> None:
    stored = Catalog.create("memory://browse/corpus", classes=catalog.classes, recipe={}, name="stored")
    sample_id = write(stored, 0)
    browser, here = server.Browser(stored), server.Planes(catalog)
    assert json.loads(browser.table())["rows"] == 1
    assert browser.planes.png(sample_id, "tomogram", "y", 3) == here.png(FIRST, "tomogram", "y", 3)
    assert browser.planes.tilt(sample_id, 2) == here.tilt(FIRST, 2)
    assert stored.thumbnail(sample_id) == catalog.thumbnail(FIRST)


def test_a_damaged_sample_is_told_in_a_sentence(tmp_path: Path, write: Any, catalog: Catalog) -> None:
    damaged = Catalog.create(tmp_path / "corpus", classes=catalog.classes, recipe={}, name="damaged")
    sample_id = write(damaged, 0)
    next(Path(damaged.sample_url(sample_id)).glob("0/c/0/0/0")).unlink()
    with pytest.raises(InputError, match="is damaged"):
        server.Browser(damaged).planes.png(sample_id, "tomogram", "z", 0)


def test_thumbnails(served: Any, catalog: Catalog) -> None:
    response, body = get(served, f"/thumbnail/{FIRST}.png")
    assert (response.status, body) == (200, catalog.thumbnail(FIRST))
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


# ---------------------------------------------------------------------------------------- neuroglancer


def test_neuroglancer_opens_a_sample(served: Any) -> None:
    pytest.importorskip("neuroglancer", reason="the extra neuroglancer is not installed")
    response, _ = get(served, f"/neuroglancer/{FIRST}")
    assert response.status == 302
    address = response.headers["Location"]
    assert address.startswith("http://127.0.0.1:")
    [viewer] = in_neuroglancer._open
    assert [layer.name for layer in viewer.state.layers] == ["tomogram", "instances"]
    assert viewer.state.dimensions.scales.tolist() == pytest.approx([1e-9] * 3)
    host = http.client.HTTPConnection(address.split("/")[2], timeout=30)
    host.request("GET", "/" + address.split("/", 3)[3])
    assert host.getresponse().status == 200
    host.close()


def test_without_its_package_there_is_a_sentence(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_neuroglancer, "find_spec", lambda _: None)
    response, body = get(served, f"/neuroglancer/{FIRST}")
    assert response.status == 400
    assert "template-learning[neuroglancer]" in json.loads(body)["error"]


# ----------------------------------------------------------------------------------------- the command


def test_a_port_that_is_taken_is_refused(catalog: Catalog, tlgen: Any, served: Any) -> None:
    status, _, said = tlgen("browse", catalog.url, "--port", served.port, "--no-browser")
    assert status == 2
    assert said.count("\n") == 1
    assert f"port {served.port} cannot be used" in said
    assert "--port" in said


def test_a_corpus_of_a_newer_version_is_refused(tmp_path: Path, tlgen: Any, catalog: Catalog) -> None:
    newer = Catalog.create(tmp_path / "corpus", classes=catalog.classes, recipe={}, name="newer")
    file = Path(newer.url) / "corpus.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 99}))
    status, _, said = tlgen("browse", newer.url, "--no-browser")
    assert (status, said.count("\n")) == (2, 1)
    assert "99" in said


def test_what_is_no_corpus_is_refused(tmp_path: Path, tlgen: Any) -> None:
    status, _, said = tlgen("browse", tmp_path, "--no-browser")
    assert (status, "no corpus" in said) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_no_text_browser_is_started_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not command.has_screen()
    monkeypatch.setenv("DISPLAY", ":0")
    assert command.has_screen()


def test_the_command_serves_until_ctrl_c(catalog: Catalog) -> None:
    program = Path(sys.executable).parent / "tlgen"
    with subprocess.Popen(
        [program, "browse", catalog.url, "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # where the tests run in the background, Ctrl-C is ignored, and a program inherits that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        assert running.stdout is not None
        assert "40 samples" in running.stdout.readline()
        address = running.stdout.readline().strip()
        host, port = address.split("/")[2].split(":")
        with socket.create_connection((host, int(port)), timeout=30):
            pass
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
        assert (running.returncode, said) == (0, "")
