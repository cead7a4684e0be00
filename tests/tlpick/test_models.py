"""Models by name: those of the program, of a folder, of a web server; checksums; and what is refused."""

from __future__ import annotations

import functools
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import tlpick as api
from catalogs import model_sources
from catalogs.errors import InputError
from catalogs.model_file import read_card
from catalogs.model_sources import find_model, is_own, listed, shipped, write_index

NOWHERE = "http://127.0.0.1:9"  # a port that nothing listens on


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TLPICK_MODELS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def lab(random_model: Path, tmp_path: Path) -> Path:
    """A folder with two models, one of them described."""
    folder = tmp_path / "lab"
    folder.mkdir()
    shutil.copy(random_model, folder / "filament.tlm")
    shutil.copy(random_model, folder / "capsid-2.tlm")
    (folder / "capsid-2.md").write_text("# capsid-2\n\nEmpty capsids at 10 Å.\n\nIt knows no full ones.\n")
    write_index(folder)
    return folder


@pytest.fixture
def web(lab: Path) -> Iterator[str]:
    """The same folder on a web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(lab))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_is_shipped_is_whole_and_described():
    models = listed([shipped()])
    assert "ribosome" in {each.name for each in models}
    for each in models:
        card = read_card(each.file())  # its checksum fits
        words = each.words()
        assert words is not None
        for part in ("Trained on", "Tested on", "What it cannot do", "tlgen run"):
            assert part in words
        assert all(info.name in words for info in card.classes)
        assert each.file().stat().st_size < 5e6
        assert not is_own(each.file())


def test_the_python_api_takes_a_name():
    model = api.load_model("ribosome")
    assert model.card.voxel_size == 10
    assert Path(model.path).parent == Path(shipped())


def test_a_file_goes_before_a_name(random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(random_model, tmp_path / "ribosome")
    assert find_model("ribosome") == Path("ribosome")
    assert is_own("ribosome")


def test_the_list_and_a_description(tlpick: Any, lab: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TLPICK_MODELS", str(lab))
    done = tlpick("models")
    assert done.status == 0
    assert "Empty capsids at 10 Å." in done.out
    assert f"[{lab}]" in done.out
    assert "ribosome" in done.out
    told = tlpick("models", "capsid-2")
    assert "It knows no full ones." in told.out
    assert str(lab / "capsid-2.tlm") in told.out
    only = tlpick("models", "--from", lab)
    assert "70S" not in only.out  # those of the program are not asked for
    refused = tlpick("models", "capsid")
    assert (refused.status, "did you mean 'capsid-2'?" in refused.err) == (2, True)


def test_a_model_of_a_lab_picks_by_its_name(
    tlpick: Any, lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TLPICK_MODELS", str(lab))
    assert find_model("filament") == lab / "filament.tlm"
    missing = tlpick("run", "filament", tmp_path / "none.mrc", "--to", tmp_path / "picks")
    assert missing.status == 2
    assert "none.mrc" in missing.err  # the model was found; the tomogram is not there


def test_a_model_of_a_web_server_comes_once(
    web: str, lab: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TLPICK_MODELS", web)
    file = find_model("capsid-2")
    assert file.read_bytes() == (lab / "capsid-2.tlm").read_bytes()
    assert file.is_relative_to(cache)
    assert not is_own(file)
    (lab / "capsid-2.tlm").unlink()  # it is here now
    assert find_model("capsid-2") == file
    checksum = json.loads((lab / "models.json").read_text())["models"][0]["sha256"]
    assert find_model(f"{web}/capsid-2.tlm#sha256={checksum}") == file


def test_a_broken_download_is_refused_and_not_kept(web: str, lab: Path, cache: Path):
    (lab / "capsid-2.tlm").write_bytes(b"half of it")
    with pytest.raises(InputError, match="does not have its checksum"):
        listed([web])[0].file()
    assert not list(cache.rglob("*.tlm"))


def test_a_file_that_changed_in_a_folder_is_refused(lab: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TLPICK_MODELS", str(lab))
    find_model("filament")
    (lab / "filament.tlm").write_bytes(b"something else")
    with pytest.raises(InputError, match=r"not the file that models\.json names"):
        find_model("filament")


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        ("[]", "is not a list of models"),
        (
            '{"models": [{"name": "../a", "file": "a.tlm", "sha256": "' + "0" * 64 + '"}]}',
            "is not a list of models",
        ),
        ('{"models": [{"name": "a", "file": "../../a.tlm", "sha256": "' + "0" * 64 + '"}]}', "is not a list"),
        ('{"models": [{"name": "a", "file": "a.tlm"}]}', "is not a list of models"),
        ("{" * 100_000, "is not a list of models"),
    ],
)
def test_an_odd_index_is_refused(tmp_path: Path, index: str, sentence: str):
    (tmp_path / "models.json").write_text(index)
    with pytest.raises(InputError, match=sentence):
        listed([str(tmp_path)])


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("ribsome", "did you mean 'ribosome'"),
        ("mine.tlm", "there is no model mine.tlm"),
        (f"{NOWHERE}/a.tlm", "needs its checksum"),
        (f"{NOWHERE}/a.tlm#sha256=12", "needs its checksum"),
        (f"{NOWHERE}/a.tlm#sha256={'0' * 64}", "check the address and the network"),
    ],
)
def test_what_is_no_model_is_said_in_a_sentence(tlpick: Any, tmp_path: Path, word: str, sentence: str):
    done = tlpick("run", word, tmp_path / "t.mrc", "--to", tmp_path / "picks")
    assert done.status == 2
    assert sentence in done.err
    assert not (tmp_path / "picks").exists()


def test_a_server_that_has_it_not(web: str):
    with pytest.raises(InputError, match="the server answers 404"):
        find_model(f"{web}/other.tlm#sha256={'0' * 64}")


def test_an_empty_folder_is_no_source(tlpick: Any, tmp_path: Path):
    done = tlpick("models", "--index", tmp_path)
    assert (done.status, "not a folder with models" in done.err) == (2, True)
    with pytest.raises(InputError, match=r"it has no models\.json"):
        listed([str(tmp_path)])


def test_a_shipped_model_is_never_changed(tlpick: Any, tmp_path: Path):
    before = model_sources.listed([shipped()])[0].file().stat()
    done = tlpick("calibrate", "ribosome", tmp_path)
    assert done.status == 2
    assert "--to" in done.err
    after = model_sources.listed([shipped()])[0].file().stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
