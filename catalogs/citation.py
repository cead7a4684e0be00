"""How to cite the program: ``CITATION.cff`` as a sentence, as BibTeX, or as the file itself."""

from __future__ import annotations

from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from catalogs.console import DISTRIBUTION
from catalogs.errors import InputError

FILE = "CITATION.cff"
#: How a citation can be shown.
FORMS = ("text", "bibtex", "cff")


def cite(form: str = "text") -> str:
    """Return the citation of the method's paper.

    Parameters
    ----------
    form
        One of :data:`FORMS`: a line of text, a BibTeX entry, or the whole file in the Citation File Format.

    Raises
    ------
    ValueError
        If the form is unknown.
    InputError
        If the file is missing from the installation.
    """
    text = _read()
    if form == "cff":
        return text.rstrip()
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    work: dict[str, Any] = yaml.safe_load(text)["preferred-citation"]
    return _bibtex(work) if form == "bibtex" else _line(work)


def _read() -> str:
    """Read the file from the top of a checkout, or from an installed wheel."""
    checkout = Path(str(files("catalogs"))).parent / FILE
    if checkout.is_file():
        return checkout.read_text(encoding="utf-8")
    brought = distribution(DISTRIBUTION).read_text(f"licenses/{FILE}")
    if brought is None:
        raise InputError(f"{FILE} is not in this installation; install template-learning again")
    return brought


def _line(work: dict[str, Any]) -> str:
    names = [f"{author['family-names']}, {author['given-names']}" for author in work["authors"]]
    where = f"{work['journal']}. https://doi.org/{work['doi']}"
    return f"{'; '.join(names)} ({work['year']}). {work['title']}. {where}"


def _bibtex(work: dict[str, Any]) -> str:
    names = [f"{author['family-names']}, {author['given-names']}" for author in work["authors"]]
    fields = {
        "author": " and ".join(names),
        "title": f"{{{work['title']}}}",
        "journal": work["journal"],
        "year": work["year"],
        "doi": work["doi"],
    }
    key = f"{work['authors'][0]['family-names'].lower()}{work['year']}"
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@article{{{key},", *lines, "}"])
