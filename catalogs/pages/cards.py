"""Cards at the top of a page, each with one number in large print."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A number in large print.

    Attributes
    ----------
    label, value
        Name of the number, and the number as text.
    unit
        Unit, in small print.
    kind
        CSS class for the colour.
    meter
        Share between 0 and 1, drawn as a bar; None: no bar.
    note
        Text below the number.
    """

    label: str
    value: str
    unit: str = ""
    kind: str = ""
    meter: float | None = None
    note: str = ""
