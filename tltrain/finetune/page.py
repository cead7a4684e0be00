"""Content of the page of a fine-tuning: the page of any training, with other scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tltrain.finetune.annotated_tomograms import PreprocessedTomogram
from tltrain.finetune.settings import FineTuning
from tltrain.finetune.training_material import Material
from tltrain.reporting.page import Facts, Measure

#: What a fine-tuning looks for, where there is anything to look at.
MEASURES = (
    Measure("F1 of picks", "on annotated tomograms held out", ("held_out", "classes")),
    Measure("F1 of picks", "on simulated tomograms", ("simulated", "classes")),
)


def facts_of(
    target: Path,
    model: str,
    lead: str,
    material: Material,
    tomograms: Sequence[PreprocessedTomogram],
    settings: FineTuning,
) -> Facts:
    """Collect what the page shows besides curves.

    Parameters
    ----------
    target, model
        Files of the tuned model and of the one before.
    lead
        One sentence about the training.
    material, tomograms, settings
        Of the training.

    Returns
    -------
    Facts
    """
    usual, chosen = asdict(FineTuning()), asdict(settings)
    words = [f"{name.replace('_', ' ')} {value}" for name, value in chosen.items() if value != usual[name]]
    table = {"Model": str(target), "Tuned from": model}
    if material.simulation is not None:
        table["Corpus"] = material.simulation.catalog.url
    table["Tomograms"] = ", ".join(each.name for each in tomograms)
    table["Settings"] = ", ".join(words) or "the defaults"
    return Facts(
        title=target.stem,
        lead=lead[0].upper() + lead[1:],
        classes=list(material.channels),
        steps=settings.steps,
        batch=settings.batch,
        table=table,
        measures=MEASURES,
    )
