"""Names of tomograms and classes as names of files: any name gets a file of its own, in the folder meant."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable

from catalogs.errors import InputError

_LONGEST = 180  # bytes; file systems take 255, and endings and marks of what is unfinished are added


def file_name(name: str, reserved: Collection[str] = ()) -> str:
    """Make a name that a file can have; most names are ones already and stay as they are.

    Others lose what leads to another folder or what no file can hold, and get a short hash of the whole
    name, so that ``a/b`` and ``a-b`` stay two.

    Parameters
    ----------
    name
        Of a tomogram or a class.
    reserved
        Names that are taken for something else in the same folder.

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
    """Make names that files can have, each once: name -> name of its file.

    Raises
    ------
    InputError
        If two names would have one file, or one is empty.
    """
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        file = file_name(name, reserved)
        other = next((theirs for theirs, taken in found.items() if taken == file), None)
        if other is not None:
            raise InputError(f"{other!r} and {name!r} would have one file, {file}; rename one")
        found[name] = file
    return found
