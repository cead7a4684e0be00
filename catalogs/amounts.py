"""Formats and reads times and numbers of bytes in the same way for all programs."""

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


def read_data_size(text: object) -> int:
    """Read a number of bytes: ``4GB``, ``16 GiB``, ``800M``; a GB is 10⁹ bytes, a GiB 2³⁰.

    Raises
    ------
    ValueError
        If it is not an amount of memory, or not above 0.
    """
    from dask.utils import parse_bytes

    words = str(text).strip()
    try:
        n_bytes = round(parse_bytes(words)) if words[:1] in set("0123456789.") else 0  # it takes GB for 1 GB
    except (ValueError, OverflowError):
        n_bytes = 0
    if n_bytes <= 0:
        raise ValueError(f"{text!r} is not an amount of memory; give one such as 4GB or 800MB")
    return n_bytes
