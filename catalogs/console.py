"""What all command-line programs share: how they start, print and report errors."""

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

from catalogs import user_warnings
from catalogs.errors import PARAMETER, InputError

DISTRIBUTION = "template-learning"
_LIBRARIES = (("NumPy", "numpy"), ("Zarr", "zarr"), ("Dask", "dask"), ("Keras", "keras"))
#: The packages whose log a program shows.
_OURS = ("catalogs", "tlrun", "tlgen", "tltrain", "tlpick")
#: Parameters that have another name on the command line.
_OTHERWISE = {"format": "source_format", "spherical_aberration": "cs"}
F = TypeVar("F", bound=Callable[..., Any])
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_click_echo = click.echo
_URL = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+:/")

# TensorFlow prints these from C++ while it starts, before any log level is in force.
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
        Titles and the commands below them, in the order of ``--help``; other commands come last.

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
        help="Show the version, and the versions of the libraries that it computes with.",
    )
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @click.pass_context
    def group(context: click.Context, debug: bool) -> None:
        if debug:
            os.environ["TL_DEBUG"] = "1"
        if context.invoked_subcommand is None:  # without a command, show the help
            click.echo(context.get_help())

    if isinstance(group, _Program):
        group.sections = sections or {}
    return group


def _tell_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Print the versions that a bug report should give, and exit."""
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
    """A group whose commands print the log of the libraries, with flags in place of parameter names."""

    sections: Mapping[str, Sequence[str]] = MappingProxyType({})

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands section by section, with the whole first sentence of each."""
        named = {name for names in self.sections.values() for name in names}
        others = [name for name in self.commands if name not in named]
        for title, names in [*self.sections.items(), ("Commands", others)]:
            if names:
                with formatter.section(title):
                    formatter.write_dl(
                        [(name, self.commands[name].get_short_help_str(limit=1000)) for name in names]
                    )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        with shown_log(str(self.name)):
            try:
                return super().invoke(ctx)
            except InputError as error:
                command = self.get_command(ctx, ctx.invoked_subcommand or "")
                error.args = (in_flags(str(error), command), *error.args[1:])
                raise


@contextlib.contextmanager
def shown_log(program: str) -> Iterator[None]:
    """Print the log of our libraries during the context: plain sentences, warnings on standard error.

    Notes (:mod:`catalogs.user_warnings`) begin with ``program: warning:``.
    """
    ours = [(logging.getLogger(name), _Printer()) for name in _OURS]
    ours.append((logging.getLogger(user_warnings.LOGGER), _Printer(f"{program}: warning: ")))
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
    """Prints log records in the same way as other output."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self._prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        context = click.get_current_context(silent=True)
        text = in_flags(record.getMessage(), context.command if context is not None else None)
        click.echo(self._prefix + text, err=record.levelno >= logging.WARNING)


def in_flags(text: str, command: click.Command | None) -> str:
    """Replace parameters in a sentence by the flags of a command.

    Parameters
    ----------
    text
        Sentence with parameters in backquotes, as in :class:`catalogs.errors.InputError`.
    command
        The command; parameters for which it has no flag stay as they are.

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
    """An option with former names, which still work for one version and are not shown.

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
    """One of several words; the error for a misspelt word names the nearest one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it."""
        words = [str(word) for word in self.choices]
        if value not in words:
            self.fail(f"{value!r} is not one of {', '.join(words)}{nearest(str(value), words)}", param, ctx)
        return str(value)


def model_file(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Find the file of a model that is named by path, by name, or by a URL with its checksum."""
    from catalogs.model_sources import find_model

    return None if value is None else os.fspath(find_model(value))


def model_argument() -> Callable[[F], F]:
    """Make the argument ``MODEL`` of what works with a trained network."""
    return click.argument("model", metavar="MODEL", callback=model_file)


def refuse_url(value: str | os.PathLike[str]) -> None:
    """Refuse the URL of a bucket where only a path on a disk will do (InputError)."""
    if _URL.match(os.fspath(value)):
        raise InputError(f"`to={value}`: this is written to a disk; give a path, and copy it then")


def to_disk(*names: str, **more: Any) -> Callable[[F], F]:
    """Make an option ``--to`` that takes a path on a disk, and no URL of a bucket.

    Parameters
    ----------
    names
        Name of the parameter, if it is not ``to``.
    more
        Further arguments of ``click.option``.
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
    except click.ClickException as error:  # wrong usage: click's own message
        status = _refuse(group, error.format_message(), error)
    except InputError as error:
        status = _refuse(group, str(error), error)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{group.name}: interrupted; what was finished is kept", err=True)
        status = 130
    except BrokenPipeError:  # the reader of our output (head, less) has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at exit
        status = 0
    except Exception as error:
        if os.environ.get("TL_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" that holds {error.filename}" if error.filename else ""
            told = f"the disk{where} is full; free some space and give the same command again; it will go on"
            click.echo(f"{group.name}: {told}", err=True)
            sys.exit(1)
        text = f"unexpected {type(error).__name__}: {error} (run {group.name} --debug ... for the traceback)"
        click.echo(f"{group.name}: {text}", err=True)
        status = 1
    sys.exit(status if isinstance(status, int) else 0)


def shown(text: str) -> str:
    """Escape control characters, which names in other people's files may contain."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _echo(message: Any = None, *args: Any, **words: Any) -> None:
    """Print as click does, with control characters escaped."""
    _click_echo(shown(message) if isinstance(message, str) else message, *args, **words)


def _options(command: click.Command) -> list[str]:
    """List the options of a command, without former names."""
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
    """Suggest the nearest known word: ``"; did you mean 'dose'?"``, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def tell_unusual(quantity: str, value: float, called: str) -> None:
    """Warn on stderr if a value of :data:`catalogs.usual_values.USUAL` is unusual."""
    from catalogs.usual_values import doubt

    if (words := doubt(quantity, value, called=called)) is not None:
        click.echo(f"unusual: {words}", err=True)


def counted(number: int, thing: str) -> str:
    """Count things in words: ``1 tomogram``, ``2 tomograms``."""
    return f"{number} {thing}{'s' * (number != 1)}"


@contextlib.contextmanager
def without_greetings() -> Iterator[None]:
    """Drop the messages that TensorFlow prints on stderr when it starts; other output comes afterwards.

    The file descriptor itself is redirected, because these messages do not pass through Python.
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
                    sys.stderr.write(f"{line}\n")  # other output goes to stderr after all
