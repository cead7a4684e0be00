"""Renders HTML pages from templates. All content is escaped, and pages need no other files.

The templates lie in ``templates/``: ``page.html`` is the frame of every page, ``parts.html`` holds the parts
that pages share (cards, tables, figures), and each kind of page has one template of its own.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def page(template: str, **content: Any) -> str:
    """Fill a template of :mod:`catalogs.pages` with content; return a complete HTML page.

    Parameters
    ----------
    template
        Name of the file, e.g. ``picking.html``.
    **content
        Variables of the template. Everything is escaped, except ``Markup``.

    Raises
    ------
    jinja2.UndefinedError
        If a variable of the template is missing.
    """
    return _environment().get_template(template).render(content)


def part(template: str, **content: Any) -> Markup:
    """Fill the template of a part of a page, such as a chart, for use in other templates."""
    return Markup(page(template, **content).strip())


def share(value: float | None, digits: int = 2) -> str:
    """Write a share, by default with two digits, or n/a if there is none."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.{digits}f}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("catalogs.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["share"] = share
    return environment
