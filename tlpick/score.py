"""``tlpick score``: reads picks and truth from files, compares them and writes what came out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from catalogs import particles
from catalogs.catalog import Catalog, read_particles_of, sample_record_of
from catalogs.console import DISTRIBUTION
from catalogs.errors import InputError
from catalogs.matching import Evaluation, Score, curve, evaluate
from catalogs.particles import DISTRACTOR
from catalogs.store import open_store
from catalogs.volumes import open_volume
from tlpick import report
from tlpick.files import PARTICLES, RUN, write_json, write_text

SCORE, REPORT = "score.json", "report.html"
_LISTS = (".star", ".csv")


@dataclass(frozen=True)
class Result:
    """What ``tlpick score`` found, the page that shows it, and what the user should know besides."""

    evaluation: Evaluation
    report: Path
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Picks:
    """The picks to be scored.

    Attributes
    ----------
    source
        What the user gave.
    folder
        Where the results go.
    table
        Particle table.
    tomograms
        Names of the tomograms that were picked, also of those where nothing was found.
    radii
        Class -> radius in Å, as far as known.
    run
        What ``run.json`` says; empty for a bare list.
    """

    source: str
    folder: Path
    table: pd.DataFrame
    tomograms: list[str]
    radii: dict[str, float]
    run: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Truth:
    """What is really there: the particle table without distractors, and the radii as far as known.

    ``titles`` has a name for people of a tomogram where it has one.
    """

    source: str
    table: pd.DataFrame
    tomograms: list[str]
    radii: dict[str, float]
    titles: dict[str, str] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)


def score_files(picks_path: str, truth_path: str, radius: float | None) -> Result:
    """Compare picks with truth; ``score.json`` and ``report.html`` go beside the picks.

    Parameters
    ----------
    picks_path
        The folder of a run, or a particle list (.star, .csv).
    truth_path
        A sample of a corpus, or a particle list.
    radius
        How far a pick may be off, Å; None: the radius of its class.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        If one of them cannot be read, or they do not speak of the same classes or tomograms.
    """
    picks = read_picks(picks_path)
    truth = read_truth(truth_path, picks.run)
    radii = _radii(picks, truth, radius)
    names = [name for name in picks.tomograms if name in set(truth.tomograms)]
    if not names:
        raise InputError(
            f"{truth.source} is the truth of {_listed(truth.tomograms)}, but {picks.source} holds picks of "
            f"{_listed(picks.tomograms)}; give the truth of the same tomograms"
        )
    evaluation = evaluate(_of(picks.table, names), _of(truth.table, names), radii)
    notes = tuple(_notes(picks, truth, radii, names))

    write_json(picks.folder / SCORE, _summary(picks, truth, evaluation, names))
    page = report.render(_page(picks, truth, evaluation, names, notes))
    write_text(picks.folder / REPORT, page)
    return Result(evaluation, picks.folder / REPORT, notes)


def sentence(score: Score) -> str:
    """Say a score in one line."""
    false = score.n_picks - score.n_found
    distance = "" if math.isnan(score.mean_distance) else f"; mean distance {score.mean_distance:.1f} Å"
    return (
        f"F1 {number(score.f1)}  precision {number(score.precision)}  recall {number(score.recall)}  "
        f"({score.class_name}: {score.n_found} found of {score.n_truth}, {false} false{distance})"
    )


def number(value: float) -> str:
    """Write a share with two digits, or n/a where there is none."""
    return "n/a" if math.isnan(value) else f"{value:.2f}"


def read_picks(path: str) -> Picks:
    """Read the picks of a run's folder, or a particle list.

    Raises
    ------
    InputError
        If it is neither.
    """
    file = Path(path)
    if file.is_dir():
        try:
            run: dict[str, Any] = json.loads((file / RUN).read_text())
            names = [str(tomogram["name"]) for tomogram in run["tomograms"]]
            radii = {str(name): float(radius) for name, radius in run["radii"].items()}
        except FileNotFoundError:
            raise InputError(
                f"{path} is not the folder of a run: it has no {RUN}; give what tlpick run wrote to"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file / RUN} is damaged; run tlpick run again") from error
        return Picks(path, file, particles.read(file / PARTICLES), names, radii, run)
    if file.suffix.lower() not in _LISTS:
        kind = "is neither the folder of a run nor a particle list" if file.exists() else "does not exist"
        raise InputError(f"{path} {kind}; give the folder that tlpick run wrote to, a .star or a .csv")
    table = particles.read(file)
    table = table[table["class_name"] != DISTRACTOR]
    radii = dict.fromkeys(table["class_name"], math.nan) | _stated_radii(file)
    return Picks(path, file.parent, table, _unique(table["tomogram"]), radii)


def read_truth(path: str, run: Mapping[str, Any]) -> Truth:
    """Read the truth from a sample of a corpus, or from a particle list.

    Parameters
    ----------
    path
        Of the sample's Zarr group, or of the list.
    run
        What ``run.json`` says of the picks: the sizes of the tomograms, if the list does not know them.

    Raises
    ------
    InputError
        If it is neither.
    """
    if path.lower().endswith(_LISTS):
        table = _read_list(path, run)
        table = table[(table["class_name"] != DISTRACTOR) & (table["label"] != 0)]
        return Truth(path, table, _unique(table["tomogram"]), _stated_radii(Path(path)))
    if "://" not in path and not Path(path).exists():
        raise InputError(f"{path} does not exist; give a sample of a corpus, a .star or a .csv as the truth")
    if "://" not in path and not Path(path).is_dir():
        raise InputError(f"{path} is no truth: give a sample of a corpus, a .star or a .csv")
    table = read_particles_of(path)
    # A corpus' table is filed under the sample's name, its picks under the name of the volume.
    name = open_volume(path).name
    titles = dict.fromkeys([name], next(iter(table["tomogram"]), name))
    table = table[table["label"] != 0].assign(tomogram=name)
    radii: dict[str, float] = {}
    if sample_record_of(path) is not None:
        corpus = Catalog.open(open_store(path).url.rpartition("/samples/")[0])
        radii = {info.name: info.radius for info in corpus.classes}
    return Truth(path, table, [name], radii, titles, {name: path})


def _read_list(path: str, run: Mapping[str, Any]) -> pd.DataFrame:
    tomograms = run.get("tomograms", [])
    try:
        return particles.read(path)
    except InputError:
        if not tomograms:
            raise
    return particles.read(
        path,
        voxel_size={tomogram["name"]: tomogram["voxel_size"] for tomogram in tomograms},
        shape={tomogram["name"]: tuple(tomogram["shape"]) for tomogram in tomograms},
    )


def _stated_radii(file: Path) -> dict[str, float]:
    if file.suffix.lower() != ".star":
        return {}
    from catalogs.formats.relion import read_classes

    return {info.name: info.radius for info in read_classes(file)}


def _radii(picks: Picks, truth: Truth, radius: float | None) -> dict[str, float]:
    """Choose the classes to score, and how far a pick of each may be off."""
    known = set(truth.table["class_name"]) | set(truth.radii)
    if known and not known & set(picks.radii):
        raise InputError(
            f"the truth {truth.source} has the classes {_listed(sorted(known))}, the picks {picks.source} "
            f"have {_listed(sorted(picks.radii))}; none is in both"
        )
    chosen = {}
    for name, of_picks in picks.radii.items():
        value = radius or (truth.radii.get(name, math.nan) if math.isnan(of_picks) else of_picks)
        if math.isnan(value):
            raise InputError(
                f"the radius of {name} is not known to {picks.source} or {truth.source}; give --radius"
            )
        chosen[name] = value
    return chosen


def _notes(picks: Picks, truth: Truth, radii: Mapping[str, float], names: list[str]) -> list[str]:
    notes = []
    strange = sorted(set(truth.table["class_name"]) - set(radii))
    if strange:
        notes.append(f"the truth also has {_listed(strange)}, which was not looked for; left out")
    unpicked = [name for name in truth.tomograms if name not in names]
    if unpicked:
        notes.append(f"the truth also has {_listed(unpicked)}, where nothing was picked; left out")
    unknown = [name for name in picks.tomograms if name not in names]
    if unknown:
        notes.append(f"the picks in {_listed(unknown)} have no truth to compare with; left out")
    return notes


def _summary(picks: Picks, truth: Truth, evaluation: Evaluation, names: list[str]) -> dict[str, Any]:
    def plain(value: float) -> float | None:
        return None if math.isnan(value) else round(value, 6)

    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "picks": picks.source,
        "truth": truth.source,
        "tomograms": names,
        "matching": "one to one (Hungarian) within the radius, by class and tomogram",
        "classes": {
            score.class_name: {
                "f1": plain(score.f1),
                "precision": plain(score.precision),
                "recall": plain(score.recall),
                "found": score.n_found,
                "picks": score.n_picks,
                "truth": score.n_truth,
                "mean_distance_A": plain(score.mean_distance),
                "radius_A": score.radius,
            }
            for score in evaluation.scores
        },
    }


def _page(
    picks: Picks, truth: Truth, evaluation: Evaluation, names: list[str], notes: tuple[str, ...]
) -> report.Page:
    curves = {}
    for score in evaluation.scores:
        ours = evaluation.picks[evaluation.picks["class_name"] == score.class_name]
        if len(ours) and ours["score"].notna().all():
            theirs = evaluation.truth[evaluation.truth["class_name"] == score.class_name]
            curves[score.class_name] = curve(ours, theirs, score.radius)
    sizes = {str(t["name"]): t for t in picks.run.get("tomograms", [])}
    tomograms = [
        report.Tomogram(
            name=name,
            title=truth.titles.get(name, name),
            path=sizes[name]["path"] if name in sizes else truth.volumes.get(name),
            voxel_size=sizes[name]["voxel_size"] if name in sizes else None,
        )
        for name in names
    ]
    return report.Page(evaluation, curves, tomograms, notes, _facts(picks, truth, sizes, names))


def _facts(picks: Picks, truth: Truth, sizes: Mapping[str, Any], names: list[str]) -> dict[str, str]:
    facts = {"Picks": str(picks.source), "Truth": truth.source}
    if picks.run:
        model, settings = picks.run["model"], picks.run["settings"]
        facts["Model"] = f"{model['name']} ({model['fingerprint']}), {model['path']}"
        facts["Network"] = (
            f"{model['network']}, {model['n_parameters']:,} parameters, trained at {model['voxel_size']:g} Å"
        )
        corpus = model["provenance"].get("corpus")
        if corpus:
            facts["Trained on"] = str(corpus)
        facts["Picked"] = str(picks.run["created"])
        facts["Voxel probability from"] = (
            ", ".join(f"{name} {least:g}" for name, least in model["thresholds"].items())
            or "the likeliest class"
        )
        facts["Least size of a pick"] = f"{settings['min_size']:.0%} of a particle's volume"
        first = sizes[names[0]]
        z, y, x = first["shape"]
        tile = " x ".join(str(n) for n in reversed(first["tile"]))
        facts["Tomogram"] = f"{x} x {y} x {z} voxels of {first['voxel_size']:.5g} Å"
        facts["Tiles"] = (
            f"{first['n_tiles']} of {tile} voxels with a halo of {model['halo']}, "
            f"redundancy {first['redundancy']:.2f}"
        )
        facts["Seconds"] = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in first["seconds"].items())
        facts["Picked by"] = ", ".join(f"{name} {number}" for name, number in picks.run["software"].items())
    facts["Scored"] = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by {DISTRIBUTION} {version(DISTRIBUTION)}"
    return facts


def _of(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    return table[table["tomogram"].isin(names)]


def _unique(names: pd.Series) -> list[str]:
    return list(dict.fromkeys(str(name) for name in names))


def _listed(names: list[str]) -> str:
    shown = ", ".join(name if name else repr(name) for name in names[:3]) or "nothing"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
