"""Writes both pages of a run: the report, and the page where picks are accepted and rejected."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from tlpick.batch.run_folder import read_picks
from tlpick.output.curation import write_curation
from tlpick.output.report import write_report

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pages:
    """Paths of the pages of a run.

    Attributes
    ----------
    report
        Pictures, charts and settings.
    curation
        Where picks are accepted and rejected; None if no pick can be shown.
    """

    report: Path
    curation: Path | None


def write_pages(folder: str | os.PathLike[str]) -> Pages:
    """Write the pages of a run's folder from its content, and log where they are.

    The picks are read once for both.

    Raises
    ------
    InputError
        If it is not the folder of a run.
    """
    picks = read_picks(os.fspath(folder))
    curation = write_curation(picks)  # first, because the report links to it
    report = write_report(picks)
    _log.info(f"report: {report}")
    if curation is not None:
        _log.info(f"accept or reject picks in a browser: {curation}")
    return Pages(report, curation)
