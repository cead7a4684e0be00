"""The cards at the top of a page: one figure each, in large print."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A figure in large print.

    Attributes
    ----------
    label, value
        What it is, and the figure in words.
    unit
        Beside the figure, in small print.
    kind
        CSS class of its colour.
    meter
        A share between 0 and 1 that is drawn as a bar; None: none.
    note
        Below the figure.
    """

    label: str
    value: str
    unit: str = ""
    kind: str = ""
    meter: float | None = None
    note: str = ""
