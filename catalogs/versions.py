"""Format versions: older versions are converted when they are read, newer ones are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from catalogs.errors import InputError
from catalogs.schema import FORMAT_VERSION, SampleRecord


class NewerFormat(InputError):
    """The file was written by a newer version of this program; it is not damaged."""


def require_known(version: int, where: str) -> None:
    """Refuse a format version that this program does not know.

    Parameters
    ----------
    version
        As the file states it.
    where
        Path or URL of the file.

    Raises
    ------
    NewerFormat
        If it is newer than :data:`~catalogs.schema.FORMAT_VERSION`.
    """
    if version > FORMAT_VERSION:
        raise NewerFormat(
            f"{where} has format version {version}, this program reads up to {FORMAT_VERSION};"
            " update this program"
        )


def parse_record(data: bytes | str, where: str) -> SampleRecord:
    """Read a record of this or an older format version.

    Parameters that a later version has added to :class:`~catalogs.schema.Acquisition` get their defaults. So
    the default of a new parameter must describe what was done before the parameter existed.

    Parameters
    ----------
    data
        JSON.
    where
        Path or URL of the file, for the message.

    Raises
    ------
    NewerFormat
        If it was written by a newer version of this program.
    InputError
        If it is not a record.
    """
    try:
        content = json.loads(data)
        version = int(content["format_version"])
        require_known(version, where)
        for older in range(version, FORMAT_VERSION):
            content = _UPGRADES[older](content)
        # as text again, because a list in JSON may stand for a tuple
        return SampleRecord.model_validate_json(data if version == FORMAT_VERSION else json.dumps(content))
    except InputError:
        raise
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{where} is not the record of a sample; tlgen repair removes it, and tlgen run makes the sample"
            " again"
        ) from error


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    # format_version stays, because it describes the layout of the group
    return {**content, "n_objects": len(content["checksums"])}


#: Version -> function that converts the JSON of a record to the next version.
_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
