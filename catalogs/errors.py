"""The one error that a user is meant to read."""

from __future__ import annotations

import re

#: A parameter in a message: `name`, or `name=value`. Command lines write their own flag in its place.
PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]*))?`")


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message is one sentence that names the file or the parameter, says what is wrong and what to do. It
    names parameters in backquotes, as Python has them: ``give it as `voxel_size` ``. The command-line
    programs write their flags instead, print it without a traceback and exit with status 2.

    Parameters
    ----------
    message
        The sentence.
    parameter
        Which parameter is wrong or missing; None: the first that the sentence names in backquotes, if any.

    Attributes
    ----------
    parameter
        Name of the parameter; None if a file or something else is at fault.
    """

    def __init__(self, message: str = "", *, parameter: str | None = None) -> None:
        super().__init__(message)
        named = PARAMETER.search(message)
        self.parameter = parameter or (named[1] if named else None)


class IncompleteError(RuntimeError):
    """Some of many items failed; the others are done, and the same call goes on with those that are not."""
