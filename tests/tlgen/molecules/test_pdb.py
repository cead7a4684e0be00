"""Structures by PDB id: the cache, and a server on this machine in place of the PDB's."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from catalogs.errors import InputError
from tlgen import api
from tlgen.cli import tlgen
from tlgen.molecules import pdb
from tlgen.molecules.structures import FACTS, load_structure, locate, name_of, shipped
from tlgen.recipes.recipe_file import read_recipe

#: A port that nothing listens on.
NOWHERE = "http://127.0.0.1:9"


class Server:
    """What a server of entries answers: path -> (status, body, promised length)."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, bytes, int | None]]] = {}
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                waiting = server.answers.get(self.path, [(404, b"", None)])
                status, body, length = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/download"

    def give(self, entry: str, body: bytes, *, status: int = 200, length: int | None = None) -> None:
        self.answers.setdefault(f"/download/{entry}.cif.gz", []).append((status, body, length))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    it = Server()
    monkeypatch.setenv("TLGEN_PDB_URL", it.url)
    monkeypatch.setenv("TLGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=it.http.serve_forever, args=(0.01,))
    thread.start()
    yield it
    it.http.shutdown()
    thread.join()
    it.http.server_close()


@pytest.fixture(scope="module")
def entry() -> bytes:
    """An mmCIF file as the PDB sends it."""
    import gemmi

    structure = gemmi.read_structure(str(shipped()["1ubi"]))
    structure.setup_entities()
    return gzip.compress(structure.make_mmcif_document().as_string().encode(), mtime=0)


def test_what_a_pdb_id_is() -> None:
    assert pdb.pdb_id("4V5D") == "4v5d"
    assert pdb.pdb_id("pdb_00004v5d") == "4v5d"
    assert pdb.pdb_id("PDB_10004V5D") == "pdb_10004v5d"
    for word in ("ribo", "0abc", "4v5", "4v5d.cif", "4v5dd", "", "my protein"):
        assert pdb.pdb_id(word) is None


def test_an_entry_is_fetched_once_and_kept_with_its_checksum(server: Server, entry: bytes) -> None:
    server.give("9zzz", entry)
    molecule = load_structure("9ZZZ")
    ours = load_structure("1ubi")
    assert (molecule.name, molecule.n_atoms) == ("9zzz", ours.n_atoms)
    assert load_structure("pdb_00009zzz").digest == molecule.digest
    assert server.asked == ["/download/9zzz.cif.gz"]
    path = locate("9zzz")
    assert path == pdb.cache_folder() / "9zzz.cif.gz"
    assert path.read_bytes() == entry
    assert molecule.source == hashlib.sha256(entry).hexdigest()
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", f"{path.name}.sha256"], cwd=path.parent, check=True
    )
    assert sorted(p.name for p in path.parent.iterdir()) == ["9zzz.cif.gz", "9zzz.cif.gz.sha256"]


def test_installed_packages_come_before_the_network(server: Server) -> None:
    assert locate("4v5d") == shipped()["4v5d"]
    assert server.asked == []


def test_a_file_put_there_by_hand_is_taken_as_it_is(server: Server) -> None:
    pdb.cache_folder().mkdir()
    for name in ("9AAA.pdb", "9bbb.ent.gz", "9ccc.cif"):
        (pdb.cache_folder() / name).write_bytes(b"")
        assert locate(name[:4].lower()).name == name
    assert name_of(locate("9bbb")) == "9bbb"
    assert server.asked == []


def test_a_changed_file_is_fetched_anew(server: Server, entry: bytes) -> None:
    server.give("9zzz", entry)
    path = locate("9zzz")
    path.write_bytes(entry[:-100])
    assert locate("9zzz").read_bytes() == entry
    assert len(server.asked) == 2


def test_a_changed_file_is_not_used_without_a_network(
    server: Server, entry: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.give("9zzz", entry)
    path = locate("9zzz")
    path.write_bytes(entry + b"more")
    monkeypatch.setenv("TLGEN_PDB_URL", NOWHERE)
    with pytest.raises(InputError, match=rf"'9zzz' cannot be fetched .*{path} has changed since"):
        locate("9zzz")


def test_what_comes_is_tried_again_until_it_is_whole(server: Server, entry: bytes) -> None:
    server.give("9zzz", b"busy", status=503)
    server.give("9zzz", entry[: len(entry) // 2], length=len(entry))  # the line is cut
    server.give("9zzz", entry)
    assert locate("9zzz").read_bytes() == entry
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"", "the PDB has no entry '9zzz' .*check the id, or give the path"),
        (
            503,
            b"",
            r"'9zzz' cannot be fetched from .*9zzz.cif.gz \(503 Service Unavailable\); with a network",
        ),
        (200, b"<html>log in to the hotel's network</html>", "what was received is not a complete gzip file"),
        (200, gzip.compress(b"data_nothing"), "what came holds no atoms"),
    ],
)
def test_what_cannot_be_fetched_is_refused_in_one_sentence(
    server: Server, status: int, body: bytes, words: str
) -> None:
    server.give("9zzz", body, status=status)
    with pytest.raises(InputError, match=words) as caught:
        load_structure("9zzz")
    assert "\n" not in str(caught.value)
    assert not pdb.cache_folder().exists()


def test_without_a_network_the_user_learns_where_to_put_the_file(
    server: Server, monkeypatch: pytest.MonkeyPatch, entry: bytes
) -> None:
    monkeypatch.setenv("TLGEN_PDB_URL", NOWHERE)
    target = pdb.cache_folder() / "9zzz.cif.gz"
    with pytest.raises(
        InputError, match=rf"structure '9zzz' cannot be fetched.*put the entry's mmCIF file at {target}"
    ):
        load_structure("9zzz")
    target.parent.mkdir()
    target.write_bytes(entry)
    assert load_structure("9zzz").n_atoms == load_structure("1ubi").n_atoms


def test_a_cache_that_cannot_be_written_is_named(
    server: Server, entry: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.give("9zzz", entry)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TLGEN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match=r"9zzz.cif.gz cannot be written .*set TLGEN_CACHE"):
        locate("9zzz")


def test_the_usual_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TLGEN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert pdb.cache_folder() == Path("/somewhere/template-learning/pdb")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert pdb.cache_folder() == Path.home() / ".cache/template-learning/pdb"


# ------------------------------------------------------------------------ many at once, folders of others


def recipe_of(folder: Path, *names: str) -> Path:
    import yaml

    content = {
        "name": "many", "shape": [16, 16, 16], "samples": {"train": {"number": 1}},
        "targets": {"a": {"structures": [names[0]], "count": 1, "variants": {"number": 0}}},
        "distractors": [{"file": name, "count": 1} for name in names[1:]],
    }  # fmt: skip
    (folder / "many.yaml").write_text(yaml.safe_dump(content))
    return folder / "many.yaml"


def ask(*words: str | Path) -> Result:
    return CliRunner().invoke(tlgen, [str(word) for word in words])


def test_all_missing_structures_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLGEN_PDB_URL", NOWHERE)
    monkeypatch.setenv("TLGEN_CACHE", str(tmp_path / "cache"))
    path = recipe_of(tmp_path, "9aaa", "9bbb", "1ubi", "9ccc")
    refused = ask("plan", path, "--to", tmp_path / "corpus")
    assert isinstance(refused.exception, InputError)
    for word in (
        "3 structures are not here",
        "9aaa, 9bbb, 9ccc",
        "tlgen fetch RECIPE",
        "--structures FOLDER",
    ):
        assert word in str(refused.exception)
    assert "\n" not in str(refused.exception)
    refused = ask(
        "plan", recipe_of(tmp_path, "lost/a.pdb", "lost/b.cif", "9ccc"), "--to", tmp_path / "corpus"
    )
    assert "a.pdb: there is no such" in str(refused.exception)
    assert "b.cif: there is no such" in str(refused.exception)


def test_a_recipe_is_fetched_for_a_machine_without_a_network(
    server: Server, entry: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.give("9aaa", entry)
    server.give(
        "9bbb", gzip.compress(gzip.decompress(entry), 1, mtime=0)
    )  # another file, or it is named twice
    path, folder = recipe_of(tmp_path, "9aaa", "9bbb", "1ubi"), tmp_path / "carried"
    fetched = ask("fetch", path, "--to", folder)
    assert fetched.exit_code == 0, fetched.exception
    assert sorted(file.name for file in folder.iterdir()) == [
        "9aaa.cif.gz", "9aaa.cif.gz.sha256", "9bbb.cif.gz", "9bbb.cif.gz.sha256",
    ]  # fmt: skip
    assert ask("fetch", path, "--to", folder).exit_code == 0
    assert f"9aaa: {folder / '9aaa.cif.gz'}" in fetched.output
    found = api.fetch_structures(read_recipe(str(path)), folder)
    assert found["9aaa"] == folder / "9aaa.cif.gz"
    assert found["1ubi"] == shipped()["1ubi"]
    assert len(server.asked) == 2  # what is there is not fetched again

    monkeypatch.setenv("TLGEN_PDB_URL", NOWHERE)
    with pytest.raises(InputError, match="cannot be fetched"):
        locate("9aaa")
    monkeypatch.setenv("TLGEN_STRUCTURES", f"/nowhere:{folder}")
    assert locate("9AAA") == folder / "9aaa.cif.gz"
    assert locate("9bbb.cif.gz") == folder / "9bbb.cif.gz"
    monkeypatch.delenv("TLGEN_STRUCTURES")
    from tlgen.runs.prepare_structures import preparations

    recipe = read_recipe(str(path))
    monkeypatch.setenv("TLGEN_STRUCTURES", str(folder))
    # what travels to other nodes names the file
    assert [p.structure.source for p in preparations(recipe)] == [
        str(folder / "9aaa.cif.gz"), str(folder / "9bbb.cif.gz"), "1ubi",
    ]  # fmt: skip
    monkeypatch.delenv("TLGEN_STRUCTURES")
    told = ask("variants", path, "--structures", folder, "--to", tmp_path / "variants")
    assert "cannot be fetched" not in str(told.exception)
    assert "TLGEN_STRUCTURES" not in os.environ
    lost = ask("plan", path, "--structures", tmp_path / "lost", "--to", tmp_path / "corpus")
    assert "there is no such folder" in str(lost.exception)


def test_fetching_goes_on_after_one_that_is_not_there(server: Server, entry: bytes, tmp_path: Path) -> None:
    server.give("9bbb", entry)
    refused = ask("fetch", recipe_of(tmp_path, "9aaa", "9bbb"), "--to", tmp_path / "carried")
    assert "the PDB has no entry '9aaa'" in str(refused.exception)
    assert (tmp_path / "carried" / "9bbb.cif.gz").is_file()


def test_the_list_says_what_each_is(tmp_path: Path) -> None:
    listed = ask("structures").output
    assert "4v5d         2,094 kDa      217 Å  70S ribosome" in listed
    assert set(FACTS) == set(shipped())
    told = ask("structures", "1ubi", shipped()["3enl"]).output.splitlines()
    assert [line.split()[0] for line in told] == ["name", "1ubi", "3enl"]
    for line in told[1:]:
        facts = FACTS[line.split()[0]]
        assert float(line.split()[1]) == pytest.approx(facts.mass, rel=0.05)
        assert float(line.split()[3]) == pytest.approx(facts.diameter, abs=1)


@pytest.mark.slow
def test_the_list_is_right() -> None:
    for name, facts in FACTS.items():
        molecule = load_structure(name, assembly="asymmetric" if name == "6qt9" else "first")
        assert molecule.mass / 1e3 == pytest.approx(facts.mass, rel=0.06)  # of 8 kDa
        assert 2 * molecule.radius == pytest.approx(facts.diameter, abs=1)
