"""Ranks several models by how many of their picks seem to be right, without labels."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalogs import particles
from catalogs.errors import InputError
from catalogs.file_names import file_name
from catalogs.model_file import ModelCard, read_card
from catalogs.progress import Line, Progress, progress_of
from tlpick.batch.files import ALL, DECOYS, RESERVED
from tlpick.batch.pipeline import Picked, Settings, pick_tomogram
from tlpick.evaluation.right_picks import RightPicks, right_picks
from tlpick.network.tomograms.inputs import Selection, expand, named


@dataclass(frozen=True)
class RankedModel:
    """A model, and estimates of how many of its picks are right.

    Attributes
    ----------
    model
        Its file.
    right
        Estimates for all tomograms and classes together.
    stands_out
        Number of tomograms in which picks of a class are better than those in noise.
    unlike
        Names of the tomograms that are unlike its training data.
    """

    model: str
    right: RightPicks
    stands_out: int = 0
    unlike: list[str] = field(default_factory=list)


def rank_models(
    models: Sequence[str],
    arguments: Sequence[str],
    folder: str | None = None,
    settings: Settings | None = None,
    *,
    progress: bool | Progress = False,
) -> list[RankedModel]:
    """Pick tomograms with several models, and rank the models by the estimated number of right picks.

    Models are ranked by the number from the comparison with the mirror image, if it tells anything with any
    of them, and otherwise, or where it is the same, by the number from decoys.

    Parameters
    ----------
    models
        Paths of two or more model files.
    arguments
        Tomograms, or sources of them; see :func:`tlpick.network.tomograms.inputs.expand`.
    folder
        Folder for the picks, one folder for each model; finished ones are not picked again. None: picks are
        not kept.
    settings
        Settings of the picking; at least one decoy is made.
    progress
        True shows a bar; or a :class:`catalogs.progress.Progress`.

    Returns
    -------
    list of RankedModel
        The best first.

    Raises
    ------
    InputError
        If there are fewer than two models, they have no class in common or different names for their files,
        or a tomogram cannot be picked.
    """
    settings = settings or Settings()
    if len(set(models)) < 2:
        raise InputError("give two or more different models to choose from")
    if settings.decoys == 0:
        raise InputError("models are compared by decoys; leave out `decoys` 0")
    names = [Path(model).stem for model in models]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"several models have the name {min(twice)}; rename their files")
    classes = _common([read_card(model) for model in models])
    with contextlib.ExitStack() as stack:
        top = Path(folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="tlpick-check-")))
        found = [
            estimate(
                model, arguments, str(top / file_name(name, RESERVED)), classes, settings, progress=progress
            )
            for model, name in zip(models, names, strict=True)
        ]
    return sorted(found, key=lambda each: (-each.right.by_mirror, -each.right.by_decoys))


def _common(cards: Sequence[ModelCard]) -> list[str]:
    """List the classes of particles that all models have."""
    first, *others = ([info.name for info in card.classes if info.is_particle] for card in cards)
    common = [name for name in first if all(name in other for other in others)]
    if not common:
        raise InputError("the models have no class of particles in common, so they cannot be compared")
    return common


def estimate(
    model: str,
    arguments: Sequence[str],
    folder: str,
    classes: Sequence[str],
    settings: Settings,
    *,
    progress: bool | Progress = False,
) -> RankedModel:
    """Pick tomograms with one model, and estimate how many picks of some classes are right.

    Parameters
    ----------
    model
        Path of the model file.
    arguments
        Tomograms, or sources of them; see :func:`tlpick.network.tomograms.inputs.expand`.
    folder
        Folder for the picks; finished tomograms are not picked again.
    classes
        Names of the classes that count.
    settings
        Settings of the picking; at least one decoy is made.
    progress
        True shows a bar; or a :class:`catalogs.progress.Progress`.

    Returns
    -------
    RankedModel

    Raises
    ------
    InputError
        If a tomogram cannot be picked.
    """
    tomograms, wrong = expand(arguments, Selection(voxel_size=read_card(model).voxel_size))
    if wrong:
        raise wrong[0][1]
    total, clear, unlike = RightPicks(), 0, []
    for tomogram in named(tomograms):
        with progress_of(progress)(f"{Path(model).stem}, {tomogram.name}:", 100, "%") as line:

            def show(done: int, planes: int, line: Line = line) -> None:
                line.update(100 * done // planes)

            picked = pick_tomogram(model, tomogram, folder, settings, show).result
        assert isinstance(picked, Picked), "pick_tomogram raises"
        place = Path(folder) / file_name(picked.name, RESERVED)
        table, chance = particles.read(place / ALL), particles.read(place / DECOYS)
        for name in classes:
            clear_here = picked.stands_out.get(name, False)
            total += right_picks(table, chance, name, picked.decoys, clear_here)
        clear += any(picked.stands_out.get(name) for name in classes)
        unlike += [picked.name] if picked.unlike else []
    return RankedModel(model, total, clear, unlike)


def table_lines(ranked: Sequence[RankedModel]) -> list[str]:
    """Show the ranking as a table, with what it means."""
    rows = [("", "model", "right by mirror image", "right by decoys", "picks", "")]
    for number, each in enumerate(ranked, start=1):
        remark = f"unlike its training data: {', '.join(each.unlike)}" if each.unlike else ""
        if not each.stands_out:
            remark = "no better than in noise" + ("; " if remark else "") + remark
        rows.append(
            (
                f"{number}.",
                Path(each.model).name,
                f"{each.right.by_mirror:,.0f}",
                f"{each.right.by_decoys:,.0f}",
                f"{each.right.picks:,}",
                remark,
            )
        )
    widths = [max(len(row[k]) for row in rows) for k in range(5)]
    lines = [
        (
            f"{row[0]:>{widths[0]}} {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}  "
            f"{row[4]:>{widths[4]}}  {row[5]}"
        ).rstrip()
        for row in rows
    ]
    why = "by mirror image" if any(each.right.by_mirror for each in ranked) else "by decoys"
    return [
        *lines,
        f"Models are ranked {why}. These are estimates of the number of right picks, without labels, and no "
        "promise: look at the picks of the best before you use it.",
    ]
