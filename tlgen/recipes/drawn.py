"""Parameters of an acquisition in a recipe: one value, a list to choose from, or a range to draw from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from catalogs.console import nearest
from catalogs.schema import Acquisition
from catalogs.usual_values import USUAL, impossible
from tlgen.recipes.units import in_unit

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Range:
    """A value drawn uniformly for each sample: ``{min: 2, max: 4}``."""

    min: float
    max: float


def _drawn(value: Any, unit: str) -> Any:
    """Read a parameter of the acquisition: a value, a list to choose from, or a range; units are optional."""
    value = in_unit(value, unit)
    if isinstance(value, Scalar):
        return value
    if isinstance(value, list) and value and all(isinstance(v, Scalar) for v in value):
        return [in_unit(v, unit) for v in value]
    if isinstance(value, Range):
        return value
    if isinstance(value, dict) and set(value) == {"min", "max"}:
        low, high = (in_unit(value[end], unit) for end in ("min", "max"))
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high)):
            raise ValueError("min and max must be numbers")
        if low > high:
            raise ValueError("min must not be larger than max")
        return Range(low, high)
    raise ValueError(f"give a value, a list to choose from or {{min: , max: }}, not {value!r}")


#: Quality of Parakeet's engine -> the parameters that the word stands for. They were chosen with the
#: measurements of ``benchmarks/quality.py``; docs/simulation.md shows them.
QUALITIES: dict[str, dict[str, Any]] = {
    "paper": {"slice_thickness": 3.0, "padding": 100},
    "balanced": {"slice_thickness": 5.0, "padding": 64},
    "draft": {"slice_thickness": 10.0, "padding": 32},
}

#: Keys of an acquisition that stand for other keys -> their description and unit.
_SHORT: dict[str, dict[str, Any]] = {
    "tilt_range": {"description": "Stands for tilt_min and tilt_max.", "unit": "°"},
    "quality": {
        "description": "Stands for slice_thickness and padding, where these are not given: "
        + "; ".join(
            f"{word}: {values['slice_thickness']:g} Å and {values['padding']} Å"
            for word, values in QUALITIES.items()
        )
        + ".",
    },
}

#: Keys of an acquisition -> their units, including keys that stand for others.
ACQUISITION_UNITS: dict[str, str] = {
    **{
        name: str(extra.get("unit", "")) if isinstance(extra := field.json_schema_extra, dict) else ""
        for name, field in Acquisition.model_fields.items()
    },
    **{name: field.get("unit", "") for name, field in _SHORT.items()},
}


def _each_drawn(words: Any, read: Callable[[Any, str], Any]) -> Any:
    if not isinstance(words, dict):
        return words
    found = {}
    for key, value in words.items():
        if key not in ACQUISITION_UNITS:
            raise ValueError(f"unknown key {key}{nearest(str(key), ACQUISITION_UNITS)}")
        try:
            if key == "tilt_series":
                _refuse_bare_angles(value)
            found[key] = read(value, ACQUISITION_UNITS[key])
            if key == "quality":
                _check_quality(found[key])
            elif key in Acquisition.model_fields and key != "tilt_series":  # may name a file
                _check_alone(key, found[key])
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    return found


def _refuse_bare_angles(value: Any) -> None:
    if not all(isinstance(text, str) for text in _listed(value)):
        raise ValueError('write the tilts as text, such as "0 3 -3 6" or "0:3 3:3 -3:3.2", or name a file')


def _check_alone(key: str, value: Any) -> None:
    """Refuse a value, a choice or an end of a range that is impossible for the parameter."""
    field = Acquisition.model_fields[key]
    kind: Any = Annotated[field.annotation, field]
    one = TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))
    for each in (value.min, value.max) if isinstance(value, Range) else _listed(value):
        try:
            one.validate_python(each)
        except ValidationError as error:
            words = [told["msg"] for told in error.errors()]
            for own in (
                word.removeprefix("Value error, ") for word in words if word.startswith("Value error")
            ):
                raise ValueError(own) from error
            wanted = (word.removeprefix("Input should be ") for word in words)
            raise ValueError(f"must be {' or '.join(wanted)}, not {each}") from error
        if key == "engine":
            _check_engine(str(each))
        if key in USUAL and (no := impossible(key, float(each))) is not None:
            raise ValueError(no)


def _check_engine(name: str) -> None:
    """Refuse an unknown engine (ValueError)."""
    from tlgen.simulate.engine import ENGINES

    if name not in ENGINES:
        raise ValueError(f"must be one of {', '.join(ENGINES)}, not {name}{nearest(name, ENGINES)}")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _check_quality(value: Any) -> None:
    for word in _listed(value):
        if word not in QUALITIES:
            raise ValueError(f"{word!r} is not one of {', '.join(QUALITIES)}{nearest(str(word), QUALITIES)}")


def _combined(value: Any, unit: str) -> list[Any]:
    if not isinstance(value, list) or not value or not all(isinstance(v, Scalar) for v in value):
        raise ValueError(f"give a list of the values to combine, not {value!r}")
    return [in_unit(v, unit) for v in value]


def _schema_of_parameters(*forms: dict[str, Any]) -> WithJsonSchema:
    """Describe a mapping from parameters of the acquisition, with descriptions, to these forms."""
    described = Acquisition.model_json_schema()["properties"]
    described |= _SHORT
    told = ("description", "unit", "default")
    parameters = {
        key: {**{word: field[word] for word in told if word in field}, "anyOf": list(forms)}
        for key, field in described.items()
    }
    return WithJsonSchema({"type": "object", "properties": parameters, "additionalProperties": False})


_ONE: dict[str, Any] = {"type": ["number", "string", "boolean"]}
_LIST = {"type": "array", "items": _ONE, "minItems": 1}
_ENDS = {
    "type": "object",
    "properties": {"min": _ONE, "max": _ONE},
    "required": ["min", "max"],
    "additionalProperties": False,
}

#: Parameters of the acquisition by name: one value for all samples, a list to choose from, or a range.
Drawn = Annotated[
    dict[str, Any],
    BeforeValidator(lambda words: _each_drawn(words, _drawn)),
    _schema_of_parameters(_ONE, _LIST, _ENDS),
]
#: Parameters of the acquisition by name: all values, which are combined with each other.
Grid = Annotated[
    dict[str, list[Any]],
    BeforeValidator(lambda words: _each_drawn(words, _combined)),
    _schema_of_parameters(_LIST),
]
