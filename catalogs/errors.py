"""The one error that a user is meant to read."""


class InputError(Exception):
    """Something that the user gave is wrong.

    The message is one sentence that names the file or the key, says what is wrong and what to do.
    The command-line programs print it without a traceback and exit with status 2.
    """
