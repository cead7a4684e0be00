"""Find models by name, in the program and in other folders and URLs; checksums are verified.

A source of models is a folder or the URL of a folder (``https://``, or ``doi:`` for a Zenodo record). Its
``models.json``, which :func:`write_index` writes, lists its models. ``$TLPICK_MODELS`` lists further sources,
separated by spaces.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import catalogs
from catalogs.atomic_write import write_text
from catalogs.console import nearest
from catalogs.errors import InputError

INDEX = "models.json"
#: Suffixes of model files; an index lists only files with the first one.
SUFFIXES = (".tlm", ".keras")

_URL = re.compile(r"(https?|doi):", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Entry(_Strict):
    """A model in the index of a source."""

    name: str = Field(pattern=_NAME)
    file: str = Field(pattern=_NAME)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    summary: str = Field("", max_length=500, description="What it finds, in one line.")
    card: str | None = Field(None, pattern=_NAME, description="File that describes it (Markdown).")


class _Index(_Strict):
    format_version: int = 1
    models: list[Entry]


class Listed(BaseModel):
    """A model that can be found by its name."""

    model_config = ConfigDict(frozen=True)

    entry: Entry
    source: str

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.entry.name

    def file(self) -> Path:
        """Find the model's file on this machine; it is fetched if it is elsewhere.

        Raises
        ------
        InputError
            The file cannot be fetched, or its checksum is not the one in the index.
        """
        return _brought(f"{self.source.rstrip('/')}/{self.entry.file}", self.entry.sha256)

    def words(self) -> str | None:
        """Read the model's description (Markdown); None if there is none.

        Raises
        ------
        InputError
            The description cannot be read or fetched.
        """
        if self.entry.card is None:
            return None
        place = f"{self.source.rstrip('/')}/{self.entry.card}"
        path = _brought(place, None)
        try:
            return path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{place} cannot be read ({error})") from error


def shipped() -> str:
    """Return the folder of the models that come with the program."""
    return str(Path(catalogs.__file__).parent / "models")


def sources() -> list[str]:
    """List the sources in which models are searched: first the user's, then the program's."""
    return [*os.environ.get("TLPICK_MODELS", "").split(), shipped()]


def listed(places: Iterable[str] | None = None) -> list[Listed]:
    """List the models of some sources; if two have the same name, the first is used.

    Parameters
    ----------
    places
        Folders or URLs; by default :func:`sources`.

    Raises
    ------
    InputError
        A source cannot be reached, or its index is not valid.
    """
    found: dict[str, Listed] = {}
    for place in sources() if places is None else places:
        for entry in read_index(place).models:
            found.setdefault(entry.name, Listed(entry=entry, source=place))
    return list(found.values())


def find_model(word: str | os.PathLike[str]) -> Path:
    """Find a model's file by its path, its name, or its URL.

    Parameters
    ----------
    word
        The path of a file; the name of a model that :func:`listed` returns; or a URL with the file's
        checksum, ``https://lab.org/mine.tlm#sha256=...``. A file takes precedence over a name.

    Raises
    ------
    InputError
        There is no such model, it cannot be fetched, or its checksum does not match.
    """
    text = os.fspath(word)
    if _URL.match(text):
        address, _, checksum = text.partition("#sha256=")
        if not _SHA256.fullmatch(checksum.lower()):
            raise InputError(
                f"{address}: a model from elsewhere needs its checksum; write {address}#sha256=... as "
                "`sha256sum` prints it"
            )
        return _brought(address, checksum.lower())
    path = Path(text).expanduser()
    if path.exists() or len(path.parts) != 1 or path.suffix in SUFFIXES:
        return path  # a missing file is reported when it is opened
    known = {each.name: each for each in listed()}
    if text in known:
        return known[text].file()
    raise InputError(
        f"there is no model {text}{nearest(text, known)}; give a file, or one of {', '.join(sorted(known))}"
    )


def is_own(path: str | os.PathLike[str]) -> bool:
    """Whether a model's file is the user's own: it did not come with the program and was not fetched."""
    place = Path(path).resolve()
    return not any(place.is_relative_to(Path(folder).resolve()) for folder in (shipped(), _cache()))


def read_index(place: str) -> _Index:
    """Read the index of a source.

    Raises
    ------
    InputError
        There is no index, or it is not valid.
    """
    where = f"{place.rstrip('/')}/{INDEX}"
    path = _brought(where, None)
    try:
        return _Index.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            f"{place} is not a source of models: it has no {INDEX}; `tlpick models --index FOLDER` writes one"
        ) from error
    except (OSError, ValidationError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise InputError(f"{where} is not a list of models ({reason})") from error


def write_index(folder: str | os.PathLike[str]) -> list[Entry]:
    """Write the index of a folder of models, so that it becomes a source.

    A model is named after its file. ``NAME.md`` in the same folder describes it; the first line of this file
    that is neither empty nor a heading is the summary.

    Raises
    ------
    InputError
        There is no such folder, it contains no models, or a file is not a model.
    """
    from catalogs.model_file import read_card

    place = Path(folder)
    files = sorted(place.glob(f"*{SUFFIXES[0]}")) if place.is_dir() else []
    if not files:
        raise InputError(f"{place} is not a folder with models (files that end in {SUFFIXES[0]})")
    entries = []
    for file in files:
        card = read_card(file)
        words = file.with_suffix(".md")
        summary = f"{', '.join(info.name for info in card.classes)}; {card.voxel_size:g} Å"
        if words.is_file():
            lines = (line.strip() for line in words.read_text().splitlines())
            summary = next((line for line in lines if line and not line.startswith("#")), summary)
        try:
            entries.append(
                Entry(
                    name=file.stem,
                    file=file.name,
                    sha256=_digest(file),
                    summary=summary[:500],
                    card=words.name if words.is_file() else None,
                )
            )
        except ValidationError as error:
            raise InputError(
                f"{file}: the name of a model may have letters, digits, dots, dashes, underscores; rename it"
            ) from error
    text = _Index(models=entries).model_dump_json(indent=1, exclude_none=True)
    try:
        write_text(place / INDEX, text + "\n")
    except OSError as error:
        raise InputError(f"{place / INDEX} cannot be written ({error.strerror or error})") from error
    return entries


def _brought(place: str, checksum: str | None) -> Path:
    """Find a file in a folder, or fetch it from a URL; InputError if its checksum does not match."""
    if not _URL.match(place):
        path = Path(place).expanduser()
        if checksum is not None and _seen_digest(path) not in (checksum, None):
            raise InputError(
                f"{path} is not the file that {INDEX} names: it was changed or is damaged; write the list "
                f"anew (`tlpick models --index {path.parent}`) if that was meant"
            )
        return path
    return _fetched(place, checksum)


def _fetched(url: str, checksum: str | None) -> Path:
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    folder = _cache() / hashlib.sha256(url.rpartition("/")[0].encode()).hexdigest()[:16]
    name = url.rpartition("/")[2]
    if not re.match(_NAME, name):
        raise InputError(f"{url} names no file")
    if checksum is None:  # an index or a description may have changed, so it is fetched again
        (folder / name).unlink(missing_ok=True)
    try:
        known = f"sha256:{checksum}" if checksum else None
        return Path(pooch.retrieve(url, known_hash=known, fname=name, path=folder))
    except requests.HTTPError as error:
        code = error.response.status_code if error.response is not None else "an error"
        raise InputError(f"{url} cannot be fetched: the server answers {code}") from error
    except requests.RequestException as error:
        raise InputError(
            f"{url} cannot be fetched ({type(error).__name__}); check the address and the network"
        ) from error
    except ValueError as error:
        if "hash" in str(error):
            raise InputError(
                f"{url}: what came does not have its checksum: the download is broken, or it is another file"
            ) from error
        raise InputError(f"{url} cannot be fetched ({error})") from error
    except OSError as error:
        raise InputError(f"{url} cannot be kept in {folder} ({error.strerror or error})") from error


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "template-learning" / "models"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seen_digest(path: Path) -> str | None:
    """Compute the checksum of a file, again only if the file changed; None if there is no file."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return _remembered(path, seen.st_mtime_ns, seen.st_size)


@functools.lru_cache(maxsize=32)
def _remembered(path: Path, _changed: int, _size: int) -> str:
    return _digest(path)
