"""Turns names of tomograms and classes into safe and distinct file names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable

from catalogs.errors import InputError

_LONGEST = 180  # bytes; file systems allow 255, and endings are added


def file_name(name: str, reserved: Collection[str] = ()) -> str:
    """Turn a name into a file name; most names can stay as they are.

    In other names, characters that lead to another folder or that files cannot have are replaced, and a short
    hash of the whole name is added, so that ``a/b`` and ``a-b`` stay distinct.

    Parameters
    ----------
    name
        Name of a tomogram or a class.
    reserved
        Names that have another use in the same folder.

    Raises
    ------
    InputError
        If the name is empty.
    """
    if not name:
        raise InputError("no file can be named after ''; give the tomogram a name")
    raw = name.encode("utf-8", "surrogatepass")
    odd = (
        name.startswith((".", "-")) or name.endswith(" ") or not name.isprintable() or set(name) & set("/\\")
    )
    if not odd and len(raw) <= _LONGEST and name not in reserved:
        return name
    kept = re.sub(r"[^\w.+=@-]+", "-", name.encode("ascii", "ignore").decode()).lstrip(".-")[:80]
    return f"{kept or 'name'}-{hashlib.blake2b(raw, digest_size=4).hexdigest()}"


def file_names(names: Iterable[str], reserved: Collection[str] = ()) -> dict[str, str]:
    """Turn names into distinct file names: name -> file name.

    Raises
    ------
    InputError
        If two names would get the same file, or one is empty.
    """
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        file = file_name(name, reserved)
        other = next((theirs for theirs, taken in found.items() if taken == file), None)
        if other is not None:
            raise InputError(f"{other!r} and {name!r} would have one file, {file}; rename one")
        found[name] = file
    return found
