"""The live line of a training: rewritten in place on a terminal, a line every 10 s in a log file."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

#: Seconds between two lines.
TERMINAL, LOG = 0.2, 10.0
#: Steps that must be done before the time that is left is told.
FEW = 5


@dataclass
class Progress:
    """Counts steps and says how a training is doing.

    Attributes
    ----------
    first, last
        Number of steps done at the start and to be done in the end.
    batch
        Patches of a step.
    out
        Where the line goes.
    waited
        Seconds that the training has waited for data.
    paused
        Seconds that it has spent on validation.
    score
        What validation said last, in words.
    """

    first: int
    last: int
    batch: int
    out: TextIO = field(default_factory=lambda: sys.stderr)
    waited: float = 0.0
    paused: float = 0.0
    score: str = ""
    _started: float = field(default_factory=lambda: time.monotonic())
    _shown: float = field(default_factory=lambda: time.monotonic())

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    @property
    def wait_share(self) -> float:
        """Share of the time of all steps spent waiting for data."""
        return self.waited / max(self.seconds - self.paused, 1e-9)

    def rate(self, step: int) -> float:
        """Patches a second since the start, without the time that validation took."""
        return (step - self.first) * self.batch / max(self.seconds - self.paused, 1e-9)

    def restart(self, step: int) -> None:
        """Count from here: what went before says nothing about what is to come."""
        self.first, self.waited, self.paused, self._started = step, 0.0, 0.0, time.monotonic()

    def due(self) -> bool:
        """Tell whether it is time for a line."""
        return time.monotonic() - self._shown >= (TERMINAL if self.out.isatty() else LOG)

    def show(self, step: int, loss: float) -> None:
        """Write the line."""
        self._shown = time.monotonic()
        done = step - self.first
        left = self.seconds / max(done, 1) * (self.last - step)
        text = "  ".join(
            part
            for part in (
                f"step {step:{len(str(self.last))}d}/{self.last}",
                f"loss {loss:.3f}",
                self.score,
                f"{self.rate(step):.1f} patches/s",
                f"waited {100 * self.wait_share:.1f} %",
                f"{duration(left)} left" if done >= FEW or step == self.last else "",
            )
            if part
        )
        # \r returns to the start of the line, \x1b[K clears what a longer line left behind it; a line that is
        # wider than the window would be left behind at each turn
        width = shutil.get_terminal_size().columns - 1
        self.out.write(f"\r{text[:width]}\x1b[K" if self.out.isatty() else f"{text}\n")
        self.out.flush()

    def close(self) -> None:
        """End the line on a terminal."""
        if self.out.isatty():
            self.out.write("\n")
            self.out.flush()


def duration(seconds: float) -> str:
    """Say a time: ``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
