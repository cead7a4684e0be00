"""Formats times and numbers of bytes in the same way for all programs."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Format a time, e.g. ``45 s``, ``3 min 20 s``, ``25 min``, ``2 h 05 min`` or ``3.5 days``."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 0.95 or seconds <= 0 else f"{seconds:.1g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{seconds / 86400:.1f} days"


def size(n_bytes: float) -> str:
    """Format a number of bytes, e.g. ``1.2 GB``; a GB is 10⁹ bytes, as in the settings."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
