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
    """Format a number of bytes as Dask does, e.g. ``1.20 GiB``; a GiB is 2³⁰ bytes."""
    from dask.utils import format_bytes  # here, so that --help does not wait for it

    return format_bytes(round(n_bytes))


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
