import importlib
import os

import click
import pytest

from catalogs import console
from catalogs.console import refuse_url, without_greetings
from catalogs.errors import InputError


@pytest.mark.parametrize("url", ["s3://bucket/picks", "s3:/bucket/picks", "gs://bucket/m.tlm"])
def test_a_bucket_is_no_place_on_a_disk(url):
    with pytest.raises(InputError, match=r"`to=.*`: this is written to a disk; give a path"):
        refuse_url(url)


@pytest.mark.parametrize("path", ["picks", "/data/picks", "a:b", "file:///data/picks", "C:/picks"])
def test_paths_are_places_on_a_disk(path):
    refuse_url(path)


def test_notes_are_dropped_and_all_else_is_passed_on(capfd):
    with without_greetings():
        os.write(2, b"I0000 port.cc] oneDNN custom operations are on. You may see slightly different\n")
        os.write(2, b"W0000 no GPU was found\n")
    assert capfd.readouterr().err == "W0000 no GPU was found\n"


def test_an_error_is_not_swallowed(capfd):
    def break_down():
        with without_greetings():
            os.write(2, b"libsomething.so: not found\n")
            raise ImportError("broken")

    with pytest.raises(ImportError, match="broken"):
        break_down()
    assert capfd.readouterr().err == "libsomething.so: not found\n"


@pytest.fixture
def program() -> click.Group:
    group = console.program("tlx", "Does something.")

    @group.command()
    @click.option("--format", cls=console.Renamed, former=["--as"], help="Which.")
    @click.option("--kind", type=console.Choice(["ramp", "exact"]), default="ramp", show_default=True)
    def make(format: str | None, kind: str) -> None:
        """Make it."""
        click.echo(f"{format} {kind}")

    return group


@pytest.mark.parametrize(
    ("arguments", "status", "out", "err"),
    [
        ([], 0, "Usage: tlx [OPTIONS]", ""),
        (["make", "--format", "a"], 0, "a ramp\n", ""),
        (["make", "--as", "a", "--kind", "exact"], 0, "a exact\n", ""),
        (["make", "--kind", "rump"], 2, "", "is not one of ramp, exact; did you mean 'ramp'?"),
        (["make", "--knd", "ramp"], 2, "", "tlx: no such option --knd; did you mean '--kind'?"),
        (["make", "--ass", "ramp"], 2, "", "tlx: no such option --ass\n"),
        (["mak"], 2, "", "mak"),
    ],
)
def test_a_program_says_what_it_can_do_and_what_was_probably_meant(
    program: click.Group,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    out: str,
    err: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["tlx", *arguments])
    with pytest.raises(SystemExit) as stop:
        console.run(program)
    said = capsys.readouterr()
    assert (stop.value.code, out in said.out, err in said.err) == (status, True, True), said
    assert not said.err.startswith("tlx: Usage")


def test_an_old_name_of_an_option_is_not_shown(program: click.Group) -> None:
    shown = program.commands["make"].get_help(click.Context(program.commands["make"]))
    assert "--format TEXT" in shown
    assert "--as" not in shown
    assert "[ramp|exact]" in shown


def test_the_help_lists_commands_in_sections_and_cuts_nothing() -> None:
    group = console.program("tlx", "Does something.", {"Make": ["make", "again"]})

    @group.command()
    def other() -> None:
        """Do something else."""

    @group.command()
    def again() -> None:
        """Make everything again that was made before, and say of each thing whether it is as it was then."""

    @group.command()
    def make() -> None:
        """Make it."""

    shown = group.get_help(click.Context(group, info_name="tlx", terminal_width=60))
    listed = shown[shown.index("Make:") :]
    assert " ".join(listed.split()) == (
        "Make: make Make it. again Make everything again that was made before, and say of each thing whether "
        "it is as it was then. Commands: other Do something else."
    )
    assert max(map(len, shown.splitlines())) <= 60


@pytest.mark.parametrize("name", ["tlgen", "tltrain", "tlpick"])
def test_sections_name_commands_that_there_are_once(name: str) -> None:
    group = getattr(importlib.import_module(f"{name}.cli"), name)
    named = [command for commands in group.sections.values() for command in commands]
    assert set(named) <= set(group.commands)
    assert len(set(named)) == len(named)
