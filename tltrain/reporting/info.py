"""Describe a model file for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from catalogs.model_file import ModelCard

#: Old names of settings in cards -> their new names.
_NAMES_NOW = {
    "shares": "sampling",
    "tolerated": "max_damaged",
    "shell": "background_shell",
    "mix": "simulated_share",
}
#: Levels of a small curve, lowest first.
_BLOCKS = "▁▂▃▄▅▆▇█"
#: Characters of it.
_WIDTH = 40


def lines(card: ModelCard) -> Iterator[str]:
    """Describe a model, line by line.

    Parameters
    ----------
    card
        Of the model.

    Yields
    ------
    str
    """
    training, source = card.training, card.provenance
    yield f"{card.name}: {card.task} of tomograms of {card.voxel_size:g} Å a voxel, protein {card.contrast}"
    yield ""
    yield from _classes(card)
    yield ""
    facts = {
        "network": f"{card.network}, {card.n_parameters:,} parameters, receptive field {card.halo} voxels to "
        "each side",
        "grey values": card.normalisation,
        "made": card.created,
        "corpus": _with(source.get("corpus"), source.get("corpus_digest"), "digest"),
        "recipe": (source.get("recipe") or {}).get("name"),
        "samples": _samples(source),
        "weights": source.get("weights"),
        "fine-tuned": _tuned(training.get("fine_tuning")),
        "trained": _trained(training),
        "settings": _listed(training.get("settings")),
        "calibrated": ", ".join(card.calibration),
        "versions": _listed(source.get("software")),
        "format": f"version {card.format_version}",
    }
    width = max(len(word) for word in facts)
    for word, value in facts.items():
        if value:
            yield f"{word:{width}}  {value}"
    yield from _curves(training.get("history") or [], width)


def _classes(card: ModelCard) -> Iterator[str]:
    """Make a table of the classes."""
    picks, voxels = card.training.get("picks") or {}, card.training.get("voxel_f1") or {}
    rows = [("class", "value", "radius Å", "threshold", "F1 of picks", "F1 of voxels")]
    for info in card.classes:
        rows.append(
            (
                info.name + ("" if info.is_particle else " (no particle)"),
                str(info.label),
                f"{info.radius:g}",
                _number(card.thresholds.get(info.name)),
                _number((picks.get(info.name) or {}).get("f1")),
                _number(voxels.get(info.name)),
            )
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        first, *others = row
        yield "  ".join(
            [f"{first:{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(others, widths[1:], strict=True))]
        )


def _trained(training: Mapping[str, Any]) -> str:
    if "best_step" not in training:
        return f"by {training['by']}" if "by" in training else ""
    settings = training.get("settings") or {}
    words = [
        f"{training.get('steps', settings.get('steps'))} steps, best of step {training['best_step']}",
        f"{training['seconds']:.0f} s",
        f"{training['patches_per_second']:g} patches/s",
        f"{100 * training['wait_share']:.1f} % waiting for data",
    ]
    if training.get("stopped"):
        words.append(f"stopped: {training['stopped']}")
    return ", ".join(words)


def _tuned(tuning: Mapping[str, Any] | None) -> str:
    if tuning is None:
        return ""
    counts = ", ".join(f"{n} of {name}" for name, n in tuning["annotations"].items())
    words = [f"from {tuning['parent_name']} ({tuning['parent']}) on {counts}"]
    for key, name in (("held_out", "held-out"), ("simulated", "simulated")):
        known = [tuning[when][key]["f1"] for when in ("before", "after") if key in tuning[when]]
        if known:
            words.append(f"F1 on {name} tomograms {' to '.join(f'{f1:.3f}' for f1 in known)}")
    return "; ".join(words)


def _curves(history: list[Mapping[str, Any]], width: int) -> Iterator[str]:
    """Draw the training curve in characters."""
    loss = [row["loss"] for row in history if row.get("loss") is not None]
    if len(loss) > 1:
        yield f"{'loss':{width}}  {_spark(loss)}  {loss[0]:.3g} to {loss[-1]:.3g}"
    for key, title in (("picks", "picks"), ("f1", "voxels")):
        means = []
        for row in history:
            values = [v["f1"] if isinstance(v, Mapping) else v for v in (row.get(key) or {}).values()]
            known = [value for value in values if value is not None]
            if known:
                means.append(sum(known) / len(known))
        if len(means) > 1:
            yield f"{'F1 ' + title:{width}}  {_spark(means)}  {means[0]:.3f} to {means[-1]:.3f}"


def _spark(values: list[float]) -> str:
    shown = [values[k * len(values) // _WIDTH] for k in range(_WIDTH)] if len(values) > _WIDTH else values
    low, high = min(shown), max(shown)
    steps = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((v - low) / (high - low) * steps) if high > low else 0] for v in shown)


def _samples(source: Mapping[str, Any]) -> str:
    if "train" not in source:
        return ""
    return f"{len(source['train'])} to train on, {len(source.get('val', []))} to validate on"


def _with(value: Any, more: Any, word: str) -> str:
    return "" if not value else f"{value} ({word} {more})" if more else str(value)


def _listed(values: Mapping[str, Any] | None) -> str:
    """Write names and values; empty ones are left out, and nested ones are in brackets."""
    return ", ".join(
        f"{_NAMES_NOW.get(name, name)} {_said(value)}"
        for name, value in (values or {}).items()
        if value not in (None, [], "", 0.0)
    )


def _said(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    if value.keys() == {"probability", "strength"}:  # of an augmentation, as it is given on the command line
        return f"{value['probability']:g}:{value['strength']:g}"
    return f"({_listed(value)})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
