"""The error that users see when something that they gave is wrong."""

from __future__ import annotations

import re

#: A parameter in a message: `name`, or `name=value`. Command lines write their own flag in its place.
PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]*))?`")


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message is one sentence that names the file or the parameter, what is wrong and what to do. It names
    parameters in backquotes, as in Python: ``give it as `voxel_size` ``. The command-line programs write
    their flags instead, print the message without a traceback and exit with status 2.

    Parameters
    ----------
    message
        The sentence.
    parameter
        The wrong or missing parameter; None: the first one in backquotes, if any.

    Attributes
    ----------
    parameter
        Name of the parameter; None if the cause is a file or something else.
    """

    def __init__(self, message: str = "", *, parameter: str | None = None) -> None:
        super().__init__(message)
        named = PARAMETER.search(message)
        self.parameter = parameter or (named[1] if named else None)


class IncompleteError(RuntimeError):
    """Some of many items failed. The others are done; the same call tries the failed ones again."""
