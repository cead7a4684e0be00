"""Formats times and numbers of bytes in the same way for all programs."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Format a time, e.g. ``45 s``, ``3 min``, ``2 h 05 min`` or ``3.5 days``."""
    if seconds < 99.5:
        return f"{seconds:.2g} s" if 0 < seconds < 0.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{seconds / 86400:.1f} days"


def data_size(n_bytes: float) -> str:
    """Format a number of bytes, e.g. ``1.2 GB``; a GB is 10⁹ bytes, as in the settings."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} PB"
