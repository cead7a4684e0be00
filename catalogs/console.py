"""How the command-line programs start, speak and fail; the same for all of them."""

from __future__ import annotations

import contextlib
import difflib
import errno
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from catalogs import notes
from catalogs.errors import PARAMETER, InputError

DISTRIBUTION = "template-learning"
_LIBRARIES = (("NumPy", "numpy"), ("Zarr", "zarr"), ("Dask", "dask"), ("Keras", "keras"))
#: The packages whose log a program shows.
_OURS = ("catalogs", "tlrun", "tlgen", "tltrain", "tlpick")
#: Parameters that command lines call otherwise.
_OTHERWISE = {"format": "source_format", "spherical_aberration": "cs"}
F = TypeVar("F", bound=Callable[..., Any])
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_click_echo = click.echo
_URL = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+:/")

# TensorFlow writes these from C++ while it starts, before any log level counts.
_GREETINGS = (
    "absl::InitializeLog()",
    "oneDNN custom operations are on",
    "This TensorFlow binary is optimized",
    "To enable the following instructions",
)


def program(name: str, summary: str, sections: Mapping[str, Sequence[str]] | None = None) -> click.Group:
    """Make the group of commands that a console script runs, with ``--version`` and ``--debug``.

    Parameters
    ----------
    name
        What the user types, e.g. ``tlgen``.
    summary
        One sentence for ``--help``.
    sections
        Titles and the commands under them, in the order of ``--help``; other commands come last.

    Returns
    -------
    click.Group
        Commands are added to it with ``@group.command()``.
    """

    @click.group(
        name=name,
        cls=_Program,
        help=summary,
        context_settings={"help_option_names": ["-h", "--help"]},
        invoke_without_command=True,
    )
    @click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_tell_version,
        help="Show the version, and those of what it computes with.",
    )
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @click.pass_context
    def group(context: click.Context, debug: bool) -> None:
        if debug:
            os.environ["TL_DEBUG"] = "1"
        if context.invoked_subcommand is None:  # who asks for nothing wants to know what there is
            click.echo(context.get_help())

    if isinstance(group, _Program):
        group.sections = sections or {}
    return group


def _tell_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Print what a question about a fault should say first, and exit."""
    if not value or context.resilient_parsing:
        return
    import platform

    from catalogs.machine import backends, chosen_backend

    click.echo(f"{context.command.name}, version {version(DISTRIBUTION)}")
    libraries = ", ".join(f"{label} {version(name)}" for label, name in _LIBRARIES)
    click.echo(f"Python {platform.python_version()}, {libraries}")
    found, chosen = backends(), chosen_backend()
    told = [f"{name} {number}{' (in use)' * (name == chosen)}" for name, number in found.items()]
    click.echo(f"backends of Keras: {', '.join(told) or 'none'}")
    if found and chosen not in found:
        click.echo(f"KERAS_BACKEND is {chosen}, which is not installed")
    context.exit()


class _Program(click.Group):
    """A group whose commands show what the libraries log, and say in flags what they say of parameters."""

    sections: Mapping[str, Sequence[str]] = MappingProxyType({})

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands section by section, the first sentence of each whole."""
        named = {name for names in self.sections.values() for name in names}
        others = [name for name in self.commands if name not in named]
        for title, names in [*self.sections.items(), ("Commands", others)]:
            if names:
                with formatter.section(title):
                    formatter.write_dl(
                        [(name, self.commands[name].get_short_help_str(limit=1000)) for name in names]
                    )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        with shown_log(str(self.name)):
            try:
                return super().invoke(ctx)
            except InputError as error:
                command = self.get_command(ctx, ctx.invoked_subcommand or "")
                error.args = (in_flags(str(error), command), *error.args[1:])
                raise


@contextlib.contextmanager
def shown_log(program: str) -> Iterator[None]:
    """Print what our libraries log meanwhile: bare sentences, warnings on standard error.

    Notes (:mod:`catalogs.notes`) begin with ``program: warning:``.
    """
    ours = [(logging.getLogger(name), _Printer()) for name in _OURS]
    ours.append((logging.getLogger(notes.LOGGER), _Printer(f"{program}: warning: ")))
    before = [(logger.level, logger.propagate) for logger, _ in ours]
    for logger, handler in ours:
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
    try:
        yield
    finally:
        for (logger, handler), (level, propagate) in zip(ours, before, strict=True):
            logger.setLevel(level)
            logger.propagate = propagate
            logger.removeHandler(handler)


class _Printer(logging.Handler):
    """Prints records as the programs always print."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self._prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        context = click.get_current_context(silent=True)
        text = in_flags(record.getMessage(), context.command if context is not None else None)
        click.echo(self._prefix + text, err=record.levelno >= logging.WARNING)


def in_flags(text: str, command: click.Command | None) -> str:
    """Write the flags of a command where a sentence names parameters.

    Parameters
    ----------
    text
        With parameters in backquotes, as :class:`catalogs.errors.InputError` has them.
    command
        Whose flags; a parameter that it does not have stays as it is.

    Returns
    -------
    str
        Such as ``give it with --voxel-size`` for ``give it with `voxel_size` ``.
    """
    flags: dict[str, str] = {}
    for parameter in command.params if command is not None else ():
        if isinstance(parameter, click.Option):
            former = getattr(parameter, "former", ())
            longest = max((name for name in parameter.opts if name not in former), key=len)
            names = [parameter.name or "", *(opt.lstrip("-").replace("-", "_") for opt in parameter.opts)]
            flags |= dict.fromkeys(names, longest)

    flags |= {
        python: flags[ours] for python, ours in _OTHERWISE.items() if ours in flags and python not in flags
    }

    def flag(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        if name not in flags:
            return found[0]
        return flags[name] if value is None else f"{flags[name]} {value}"

    return PARAMETER.sub(flag, text)


class Renamed(click.Option):
    """An option that had another name, which still works for one version and is not shown.

    Parameters
    ----------
    former
        The old names.
    """

    def __init__(self, declarations: Sequence[str], former: Sequence[str] = (), **more: Any) -> None:
        super().__init__([*declarations, *former], **more)
        self.former = tuple(former)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Leave the old names out."""
        every = self.opts
        self.opts = [name for name in every if name not in self.former]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every


if TYPE_CHECKING:
    _Choice = click.Choice[str]
else:
    _Choice = click.Choice


class Choice(_Choice):
    """One of several words; of a misspelt one the nearest is named."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it."""
        words = [str(word) for word in self.choices]
        if value not in words:
            self.fail(f"{value!r} is not one of {', '.join(words)}{nearest(str(value), words)}", param, ctx)
        return str(value)


def refuse_url(value: str | os.PathLike[str]) -> None:
    """Refuse the URL of a bucket for what is written to a disk only (InputError)."""
    if _URL.match(os.fspath(value)):
        raise InputError(f"`to={value}`: this is written to a disk; give a path, and copy it then")


def to_disk(*names: str, **more: Any) -> Callable[[F], F]:
    """Make the option ``--to`` of what is written to a disk only; it takes the URL of no bucket.

    Parameters
    ----------
    names
        Of the parameter, if it is not ``to``.
    more
        As ``click.option`` takes them.
    """

    def refused(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value is not None:
            refuse_url(value)
        return value

    return click.option("--to", *names, callback=refused, **more)


def run(group: click.Group) -> None:
    """Run a program and exit: 0 done, 1 something failed, 2 bad input, 130 interrupted."""
    click.echo = _echo
    try:
        status = group.main(prog_name=group.name, standalone_mode=False)
    except click.exceptions.Exit as stop:
        status = stop.exit_code
    except click.NoSuchOption as error:
        known = _options(error.ctx.command) if error.ctx is not None else []
        status = _refuse(
            group, f"no such option {error.option_name}{nearest(error.option_name, known)}", error
        )
    except click.ClickException as error:  # bad usage: click's own words, in our shape
        status = _refuse(group, error.format_message(), error)
    except InputError as error:
        status = _refuse(group, str(error), error)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{group.name}: interrupted; what was finished is kept", err=True)
        status = 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        status = 0
    except Exception as error:
        if os.environ.get("TL_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" that holds {error.filename}" if error.filename else ""
            told = f"the disk{where} is full; make room, and give the same command again: it goes on"
            click.echo(f"{group.name}: {told}", err=True)
            sys.exit(1)
        text = f"unexpected {type(error).__name__}: {error} (run {group.name} --debug ... for the traceback)"
        click.echo(f"{group.name}: {text}", err=True)
        status = 1
    sys.exit(status if isinstance(status, int) else 0)


def shown(text: str) -> str:
    """Write out the characters that would steer a terminal; names in other people's files may hold them."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _echo(message: Any = None, *args: Any, **words: Any) -> None:
    """Print as click does, in all programs, whatever a name holds."""
    _click_echo(shown(message) if isinstance(message, str) else message, *args, **words)


def _options(command: click.Command) -> list[str]:
    """List the options of a command, without names that they had before."""
    return [
        name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
        if name not in getattr(parameter, "former", ())
    ]


def _refuse(group: click.Group, text: str, error: Exception) -> int:
    if os.environ.get("TL_DEBUG"):
        raise error
    click.echo(f"{group.name}: {text}", err=True)
    return 2


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known word was probably meant: ``"; did you mean 'dose'?"``, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def tell_unusual(quantity: str, value: float, called: str) -> None:
    """Say on stderr what is unusual about a value of :data:`catalogs.plausible.USUAL`, if anything is."""
    from catalogs.plausible import doubt

    if (words := doubt(quantity, value, called=called)) is not None:
        click.echo(f"unusual: {words}", err=True)


def counted(number: int, thing: str) -> str:
    """Say how many: ``1 tomogram``, ``2 tomograms``."""
    return f"{number} {thing}{'s' * (number != 1)}"


@contextlib.contextmanager
def without_greetings() -> Iterator[None]:
    """Drop what TensorFlow says on stderr wherever it starts; what is said besides comes afterwards.

    The file descriptor itself is turned aside, since the greetings do not pass through Python.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with tempfile.TemporaryFile() as aside:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            aside.seek(0)
            for line in aside.read().decode(errors="replace").splitlines():
                if not any(words in line for words in _GREETINGS):
                    sys.stderr.write(f"{line}\n")  # it was on its way there
