"""Progress of a training: steps, their rate, and time spent waiting."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from catalogs.progress import Line, Silent

#: Seconds between two reports at least.
OFTEN = 0.2


@dataclass
class Progress:
    """Counts steps and reports the progress of a training.

    Attributes
    ----------
    first, last
        Number of steps done at the start and to be done in the end.
    batch
        Patches of a step.
    line
        Progress line to update.
    waited
        Seconds that the training has waited for data.
    paused
        Seconds that it has spent on validation.
    score
        Result of the last validation, in words.
    """

    first: int
    last: int
    batch: int
    line: Line = field(default_factory=Silent)
    waited: float = 0.0
    paused: float = 0.0
    score: str = ""
    _started: float = field(default_factory=lambda: time.monotonic())
    _shown: float = field(default_factory=lambda: time.monotonic())

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def wait_share(self) -> float:
        """Share of the time of all steps spent waiting for data."""
        return self.waited / max(self.seconds - self.paused, 1e-9)

    def rate(self, step: int) -> float:
        """Patches per second since the start, without the time for validation."""
        return (step - self.first) * self.batch / max(self.seconds - self.paused, 1e-9)

    def restart(self, step: int) -> None:
        """Start counting again; the time before is not typical."""
        self.first, self.waited, self.paused, self._started = step, 0.0, 0.0, time.monotonic()

    def due(self) -> bool:
        """Tell whether it is time for a report."""
        return time.monotonic() - self._shown >= OFTEN

    def show(self, step: int, loss: float) -> None:
        """Report the steps done, the loss and the score."""
        self._shown = time.monotonic()
        words = (
            f"loss {loss:.3f}",
            self.score,
            f"{self.rate(step):.1f} patches/s",
            f"waited {100 * self.wait_share:.1f} %",
        )
        self.line.update(step, "  ".join(filter(None, words)))
