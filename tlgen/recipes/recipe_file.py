"""Find recipe files by name or path, merge those that extend others, and validate them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

import catalogs
from catalogs import user_warnings
from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.schema import parse_tilt_series
from catalogs.yaml_files import read_yaml
from tlgen.molecules.pdb import given_folders
from tlgen.recipes.drawn import ACQUISITION_UNITS
from tlgen.recipes.recipe import Distractor, DistractorSet, Recipe, Structure

_EXTENDS = "extends"
_OF_SERIES = ".mdoc, .tlt, .star, .tomostar, .xml or .aln"


def shipped_recipes() -> dict[str, Path]:
    """List the recipes that come with the program, by name."""
    folder = Path(catalogs.__file__).parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_recipe(name_or_path: str) -> Recipe:
    """Read and validate a recipe.

    Parameters
    ----------
    name_or_path
        A YAML file, or the name of a recipe that comes with the program. ``extends: NAME`` in it starts from
        another recipe: mappings are merged key by key, any other value replaces the old one, and null removes
        it. If the file names targets, they replace those of the other recipe; a target without structures
        takes the structures and other keys of the target with this name in the other recipe.

    Returns
    -------
    Recipe
        The recipe; paths of structure files in it are absolute, or they are names.

    Raises
    ------
    InputError
        There is no such recipe, it is not YAML, or a key or value in it is wrong.
    """
    return _validated(*_load(name_or_path, ()))


def read_content(content: Mapping[str, Any], folder: Path) -> Recipe:
    """Validate the content of a recipe as if it were read from a file in a folder.

    Raises
    ------
    InputError
        As :func:`read_recipe`.
    """
    return _validated(*_with_base(dict(content), folder / f"{content['name']}.yaml", ()))


def _validated(content: dict[str, Any], paths: list[Path]) -> Recipe:
    """Make the recipe of a merged content, with absolute paths; ``paths`` are its files, the last first."""
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{paths[0]}: {in_words(error, Recipe)}.") from error
    recipe = _with_absolute_files(recipe, [path.parent for path in paths])
    return _with_tilts_in_words(recipe, paths)


def new_recipe(template: str, path: Path) -> str:
    """Write a copy of a shipped recipe, with its comments, under another name.

    Parameters
    ----------
    template
        Name of a recipe that comes with the program.
    path
        File to write, ``.yaml`` or ``.yml``; its stem becomes the recipe's name.

    Returns
    -------
    str
        The recipe's name.

    Raises
    ------
    InputError
        There is no such recipe, the file exists, or its name is not valid for a recipe.
    """
    shipped = shipped_recipes()
    if template not in shipped:
        raise InputError(
            f"there is no recipe {template!r}{nearest(template, shipped)}; tlgen recipes lists them"
        )
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{path} must end in .yaml; give another name")
    if path.exists():
        raise InputError(f"{path} already exists; remove it or give another name")
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", path.stem).strip("-.")
    if not name:
        raise InputError(f"{path} does not give the recipe a valid name; use letters and digits")
    text, n = re.subn(r"(?m)^name:.*$", f"name: {name}", shipped[template].read_text(), count=1)
    assert n == 1, f"the shipped recipe {template} has no name"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


def json_schema() -> dict[str, Any]:
    """Describe recipe files as JSON schema: every key with its type, unit and meaning.

    Null removes a key of the extended recipe, so it is allowed everywhere. The schema cannot check that all
    required keys exist; :func:`read_recipe` does.
    """
    schema = Recipe.model_json_schema()
    for model in (schema, *schema["$defs"].values()):
        model["required"] = ["name"] if model is schema else []
        for name, field in model.get("properties", {}).items():
            model["properties"][name] = _or_null(field)
        for choice in model.get("anyOf", ()):  # a structure as one word and as a mapping
            choice.pop("required", None)
    targets = schema["properties"]["targets"]["anyOf"][0]
    targets["additionalProperties"] = _or_null(targets["additionalProperties"])
    schema["properties"]["distractors"]["anyOf"].append({"type": "string"})  # the paper's list, or a folder
    schema["title"] = "Recipe of a template-learning corpus"
    schema["properties"][_EXTENDS] = {
        "type": "string",
        "description": "Another recipe, by name or path, that this one changes.",
    }
    return schema


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    outer: dict[str, Any] = {
        word: field[word] for word in ("description", "unit", "default") if word in field
    }
    inner = {word: value for word, value in field.items() if word not in outer}
    return {**outer, "anyOf": [inner, {"type": "null"}]}


def in_words(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Describe the first problem in one sentence.

    Parameters
    ----------
    error
        Error of pydantic.
    model
        Model that was validated; it is used to suggest the nearest key for an unknown one.
    """
    # if a key is misspelt, the right one is missing, too
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    # pydantic adds parts for unions and validators to the path, which are not keys of the user
    where = [
        str(part) for part in first["loc"] if not re.search(r"[\[(]|^(Distractor|DistractorSet)$", str(part))
    ]
    if first["type"] == "extra_forbidden":
        beside = _keys_beside(model, where[:-1]) if model else []
        return f"unknown key {'.'.join(where)}{nearest(where[-1], beside)}"
    if first["type"] == "missing":
        return f"the key {'.'.join(where)} is missing"
    message = first["msg"].removeprefix("Value error, ")
    if message.startswith("unknown key "):
        return "unknown key " + ".".join([*where, message.removeprefix("unknown key ")])
    if re.match(r"\w+: ", message) and message.split(":")[0] in ACQUISITION_UNITS:
        return ".".join([*where, message])
    if first["type"] in ("string_type", "model_type") and isinstance(first["input"], float | int | date):
        message = f"YAML reads this as {first['input']!s} and not as a name; write it in quotes"
    return f"{'.'.join(where)}: {message}" if where else message


def _keys_beside(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """List the known keys at a path, by following the models."""
    models: list[type[BaseModel]] = [model]
    for part in path:
        fields = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        if fields:
            models = [m for annotation in fields for m in _models_in(annotation)]
    return [name for m in models for name in m.model_fields]


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif not isinstance(annotation, UnionType | type) or get_args(annotation):
        for part in get_args(annotation):
            yield from _models_in(part)


def _load(name_or_path: str, seen: tuple[Path, ...]) -> tuple[dict[str, Any], list[Path]]:
    """Read a recipe and those that it extends; returns the merged content and the files, the last first."""
    path = shipped_recipes().get(name_or_path, Path(name_or_path))
    if seen and not path.is_file():
        path = seen[-1].parent / name_or_path
    if not path.is_file():
        known = ", ".join(shipped_recipes())
        who = f"{seen[-1]} extends {name_or_path}, and " if seen else ""
        raise InputError(f"{who}there is no recipe {name_or_path}; give a YAML file or one of: {known}.")
    if path.resolve() in [other.resolve() for other in seen]:
        raise InputError(f"{path} extends itself, through {seen[-1]}; remove one `extends`.")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a recipe: it must have keys such as name, targets and samples.")
    return _with_base(content, path, seen)


def _with_base(
    content: dict[str, Any], path: Path, seen: tuple[Path, ...]
) -> tuple[dict[str, Any], list[Path]]:
    """Merge the content of a file into the recipe that it extends."""
    base = content.pop(_EXTENDS, None)
    if base is None:
        return content, [path]
    if not isinstance(base, str):
        raise InputError(f"{path}: extends must be the name or path of a recipe, not {base!r}.")
    below, paths = _load(base, (*seen, path))
    return _extended(below, content), [path, *paths]


def _extended(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge a recipe into the one that it extends; if it names targets, they replace the others."""
    merged, named, old = _merged(below, above), above.get("targets"), below.get("targets")
    if not isinstance(named, dict) or not isinstance(old, dict):
        return merged
    gone = old.keys() - named.keys()
    merged["targets"] = {name: target for name, target in merged["targets"].items() if name not in gone}
    packing, own = merged.get("packing"), above.get("packing")
    if isinstance(packing, dict) and isinstance(packing.get("ratio"), dict):
        # the ratio of the other recipe has classes that no longer exist
        said = own.get("ratio") if isinstance(own, dict) else None
        kept = packing["ratio"].keys() - (gone - (said.keys() if isinstance(said, dict) else set()))
        ratio = {name: part for name, part in packing["ratio"].items() if name in kept}
        merged["packing"] = {**packing, "ratio": ratio}
    return merged


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            lower = merged.get(key)
            merged[key] = _merged(lower if isinstance(lower, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def _with_absolute_files(recipe: Recipe, folders: Sequence[Path]) -> Recipe:
    """Look for files beside the recipe, then beside those that it extends; maps in the user's folders too."""

    def found(name: str | None, more: Sequence[Path] = ()) -> str | None:
        for folder in [*folders, *more] if name else ():
            if (folder / str(name)).exists():
                return str((folder / str(name)).resolve())
        return name

    def resolve(entry: Structure | DistractorSet) -> Any:
        if isinstance(entry, DistractorSet):
            return entry.model_copy(update={"folder": found(entry.folder)})
        return entry.model_copy(update={"file": found(entry.file), "map": found(entry.map, given_folders())})

    def detector(words: Mapping[str, Any]) -> dict[str, Any]:
        """Find a detector's file, or each of a list."""
        word = words.get("detector")
        more = [found(each) for each in word] if isinstance(word, list) else found(word)
        return {**words, "detector": more} if word else dict(words)

    targets = {
        name: target.model_copy(update={"structures": [resolve(s) for s in target.structures]})
        for name, target in recipe.targets.items()
    }
    distractors: list[Distractor | DistractorSet] = [resolve(d) for d in recipe.distractors]
    samples = {
        name: group.model_copy(
            update={"acquisition": detector(group.acquisition), "grid": detector(group.grid)}
        )
        for name, group in recipe.samples.items()
    }
    return recipe.model_copy(
        update={
            "targets": targets,
            "distractors": distractors,
            "acquisition": detector(recipe.acquisition),
            "samples": samples,
        }
    )


def _with_tilts_in_words(recipe: Recipe, paths: Sequence[Path]) -> Recipe:
    """Replace the names of tilt-series files by their content: the recipe does not need them later."""
    from tlgen.tilts import series_files

    def words(value: str) -> list[str]:
        if not value.partition("#")[0].lower().endswith(series_files.SUFFIXES):
            return [value]
        beside = (str(path.parent / value) for path in paths)
        found = next((each for each in beside if Path(each.partition("#")[0]).is_file()), value)
        read = series_files.read_series(found)
        for each in read:
            if not each.ordered:
                taken = f"{found} {each.doubt}: for {each.name}, the order of the file is used"
                if recipe.reconstruction.dose_weighting:
                    raise InputError(
                        f"{paths[0]}: reconstruction.dose_weighting needs the order of the tilts, and "
                        f"{found} "
                        f"{each.doubt}; write them as text in the order in which they were taken"
                    )
                user_warnings.warn(
                    f"{taken}; if this is wrong, write the tilts as text in the order in which they "
                    "were taken"
                )
        return [each.in_words() for each in read]

    def resolved(drawn: dict[str, Any], *, listed: bool) -> dict[str, Any]:
        if "tilt_series" not in drawn:
            return drawn
        given = drawn["tilt_series"]
        listed = listed or isinstance(given, list)
        found = [word for value in (given if isinstance(given, list) else [given]) for word in words(value)]
        for word in filter(None, found):
            try:
                parse_tilt_series(word)
            except ValueError as error:
                raise InputError(f"{paths[0]}: acquisition.{error}, and no {_OF_SERIES} file.") from error
        return {**drawn, "tilt_series": found if listed or len(found) > 1 else found[0]}

    groups = {
        name: group.model_copy(
            update={
                "acquisition": resolved(group.acquisition, listed=False),
                "grid": resolved(group.grid, listed=True),
            }
        )
        for name, group in recipe.samples.items()
    }
    return recipe.model_copy(
        update={"acquisition": resolved(recipe.acquisition, listed=False), "samples": groups}
    )
