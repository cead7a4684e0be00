"""Command-line options for how particles are found and which of them count.

They are used by every command that localises. Importing this module loads neither NumPy nor numba.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from catalogs.console import Choice, Renamed
from catalogs.errors import InputError

if TYPE_CHECKING:
    from tlpick.network.localisation.localise import Options

if TYPE_CHECKING:
    _Parameter = click.ParamType[Any]
else:
    _Parameter = click.ParamType

_Command = TypeVar("_Command", bound=Callable[..., Any])


def localising(command: _Command) -> _Command:
    """Add the options of localising to a command; :func:`localising_options` turns them into ``Options``."""
    for option in reversed(_LOCALISING):
        command = option(command)
    return command


def thresholding(command: _Command) -> _Command:
    """Add ``--precision`` and the options of :func:`cutting` to a command."""
    for option in reversed(_THRESHOLDING):
        command = option(command)
    return command


def cutting(command: _Command) -> _Command:
    """Add the options that :func:`tlpick.evaluation.pick_selection.asked_cut` reads."""
    for option in reversed(_CUTTING):
        command = option(command)
    return command


_LOCALISING = (
    click.option(
        "--localise",
        "method",
        metavar="[meanshift|components|peaks]",
        default="meanshift",
        show_default=True,
        help="How particles are found: mean shift with the class's radius, connected components (touching "
        "ones are split), peaks of the probability, or a method of an installed package.",
    ),
    click.option(
        "--min-size",
        multiple=True,
        metavar="[CLASS=]SHARE",
        help="Drop picks smaller than this share of a particle's volume; for one class with CLASS=. "
        "[default: 0.1]",
    ),
    click.option(
        "--max-size",
        multiple=True,
        metavar="[CLASS=]SHARE",
        help="Drop picks larger than this many volumes of a particle; for one class with CLASS=.",
    ),
    click.option(
        "--min-separation",
        cls=Renamed,
        former=["--exclusion"],
        type=click.FloatRange(0),
        default=0.5,
        show_default=True,
        help="Of two picks that are nearer than this share of the sum of their radii, keep only the better "
        "one, also if their classes differ; 0 keeps all.",
    ),
    click.option(
        "--border",
        type=Choice(["flag", "drop"]),
        default="flag",
        show_default=True,
        help="Flag or drop picks within a radius of the volume's faces.",
    ),
)


class _Share(_Parameter):
    """A share between 0 and 1, or ``off``."""

    name = "SHARE|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Read it."""
        if value == "off" or isinstance(value, float):
            return value
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if not 0 < share < 1:
            self.fail(f"{value!r} is not a share of wrong picks; give a number between 0 and 1, or off")
        return share


_CUTTING = (
    click.option(
        "--fdr",
        type=_Share(),
        help="Keep picks of which this share is expected to be wrong, by decoys (false discovery rate); "
        "off keeps all. By default, the expected F1 or F2 is maximised.",
    ),
    click.option(
        "--top", type=click.IntRange(1), metavar="N", help="Keep the N best of each class and tomogram."
    ),
    click.option("--min-score", type=click.FloatRange(0, 1), help="Keep the picks with at least this score."),
)

_THRESHOLDING = (
    click.option(
        "--precision",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Keep the picks with this expected precision, according to the model's calibration.",
    ),
    *_CUTTING,
)


def localising_options(
    method: str = "meanshift",
    min_size: Sequence[str] = (),
    max_size: Sequence[str] = (),
    min_separation: float = 0.5,
    border: str = "flag",
) -> Options:
    """Turn the options into those of :func:`tlpick.network.localisation.localise.localise`.

    Raises
    ------
    InputError
        If a size is not a number or negative, or the smallest is larger than the largest.
    """
    from tlpick.network.localisation.localise import LOCALISERS, Options

    LOCALISERS.check(method)
    least, most = _sizes("--min-size", min_size), _sizes("--max-size", max_size)
    lowest, highest = least.pop("", 0.1), most.pop("", None)
    sizes = {name: (least.get(name, lowest), most.get(name, highest)) for name in sorted({*least, *most})}
    for name, (low, high) in {"": (lowest, highest), **sizes}.items():
        if high is not None and low > high:
            of = f" of {name}" if name else ""
            raise InputError(
                f"--min-size{of} is {low:g}, more than --max-size{of}, {high:g}; no pick could be both"
            )
    return Options(
        method=method,
        min_size=lowest,
        max_size=highest,
        sizes=sizes,
        min_separation=min_separation,
        border=border,  # type: ignore[arg-type]
    )


def pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    """Read repeated options A=B.

    Raises
    ------
    InputError
        If one is not a pair, or A appears twice.
    """
    found: dict[str, str] = {}
    for text in given:
        ours, equals, theirs = text.partition("=")
        if not (ours and equals and theirs):
            raise InputError(f"{option} {text} is not a pair of names; give one such as tomo-1=held-out-000")
        if found.setdefault(ours, theirs) != theirs:
            raise InputError(f"{option} names {ours} twice; give it one name")
    return found


def _sizes(option: str, given: Sequence[str]) -> dict[str, float]:
    """Read CLASS=SHARE, or SHARE under an empty name."""
    sizes = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not value >= 0:
            raise InputError(
                f"{option} {text} is not a size; give a share of a particle's volume "
                "such as 0.1, or CLASS=0.1"
            )
        sizes[name] = value
    return sizes
