"""Start Keras and what it runs on, without the notes that TensorFlow writes into the middle of a progress."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

# TensorFlow writes these from C++ while it is loaded, whatever the log level
_NOTES = (
    "absl::InitializeLog()",
    "oneDNN custom operations",
    "This TensorFlow binary",
    "To enable the following",
)


def start_keras() -> None:
    """Import Keras; errors and warnings of the import still reach the user."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _without_notes():
        import keras  # noqa: F401


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Hold back what is written to the file descriptor of stderr, and pass on what is no mere note."""
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if not any(note in line for note in _NOTES):
                    print(line, file=sys.stderr)
