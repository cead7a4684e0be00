"""Measure what one sample of each kind costs on this machine, by making a small one."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from catalogs import seeds
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.private_folders import private_folder, scratch_folder
from catalogs.schema import ClassInfo
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.samples import DATA_VERSION, SampleSpec
from tlgen.runs import make_sample, prepare_structures
from tlgen.runs.costs import like
from tlgen.tilts.misalignment import misaligned
from tlgen.tilts.scheme import tilt_series
from tlrun.cluster.launch import ONE_THREAD

#: Hours for which a measurement is valid.
VALID = 12.0
#: Factors by which an estimate may be wrong: if the small sample had the real size; if costs were scaled. The
#: first covers the run with which it was compared (1.4 times the estimate); the second is a guess.
FULL, SCALED = 1.6, 2.5
_VOXELS = 250_000  # of a small box


@dataclass(frozen=True)
class Measured:
    """Core-seconds of packing, one tilt, and the last step for each tilt; bytes of a sample; uncertainty."""

    pack: float
    tilt: float
    finish: float
    n_bytes: float
    factor: float


def measure(recipe: Recipe, todo: Sequence[SampleSpec], budget: float) -> dict[str, Measured]:
    """Measure each kind of sample, or use an earlier measurement.

    Parameters
    ----------
    recipe
        Of the samples.
    todo
        At least one sample of each kind.
    budget
        Approximate seconds in all; with less time, the boxes are smaller.

    Returns
    -------
    dict
        By the name of the kind (:func:`tlgen.runs.costs.like`).
    """
    kinds: dict[str, SampleSpec] = {}
    for spec in todo:
        kinds.setdefault(like(spec), spec)
    known = _remembered()
    keys = {kind: _key(recipe, spec) for kind, spec in kinds.items()}
    missing = [kind for kind in kinds if keys[kind] not in known]
    if missing:
        with _corpus(recipe, budget / 3) as (url, prepared):
            share = budget * 2 / 3 / len(missing)
            for kind in missing:
                known[keys[kind]] = _one(url, recipe, kinds[kind], prepared, share)
        _remember(known)
    return {kind: known[keys[kind]] for kind in kinds}


@contextmanager
def _corpus(recipe: Recipe, budget: float) -> Iterator[tuple[str, list[prepare_structures.Prepared]]]:
    """Make a corpus with the structures, without variants, as many as there is time for."""
    os.environ.update(ONE_THREAD)
    with scratch_folder("tlgen-plan-") as folder:
        url = str(Path(folder) / "corpus")
        infos = [ClassInfo(name=name, label=k, radius=1.0) for k, name in enumerate(recipe.targets, start=1)]
        from tlgen.scene import place_decorations

        infos = [*infos, *place_decorations.class_infos(recipe.decorations, infos)]
        Catalog.create(url, classes=infos, recipe={}, name=recipe.name)
        until = time.monotonic() + budget
        prepared: list[prepare_structures.Prepared] = []
        for preparation in prepare_structures.preparations(recipe):
            if prepared and time.monotonic() > until:
                break
            prepared.append(prepare_structures.prepare(url, replace(preparation, variants=None)))
        yield url, prepared


def _one(
    url: str, recipe: Recipe, spec: SampleSpec, prepared: list[prepare_structures.Prepared], budget: float
) -> Measured:
    """Make one sample in a small box and scale what it took by the volume."""
    voxels = _VOXELS * max(0.2, budget / 20)
    small = _smaller(spec, voxels, {p.key for p in prepared})
    scale = math.prod(spec.shape) / math.prod(small.shape)
    on_cpu = small.acquisition
    names = tuple(info.name for info in Catalog.open(url).classes)

    def timed(function: Any, *args: Any) -> tuple[Any, float]:
        started = time.process_time()
        result = function(*args)
        return result, time.process_time() - started

    # a smaller sample first, so that everything is loaded and compiled
    tiny = _smaller(spec, voxels / 8, {p.key for p in prepared})
    make_sample.pack_scene(url, tiny, prepared, names)
    packed, pack = timed(make_sample.pack_scene, url, small, prepared, names)
    tilts = misaligned(tilt_series(spec.acquisition), spec.acquisition, spec.stream("alignment"))
    middle = tilts[len(tilts) // 2]
    one = (make_sample.simulate_tilts, url, packed.scene, on_cpu, [middle], spec.stream("simulate"))
    ((image, _, device),), tilt = timed(*one)
    if tilt < budget:  # once more, with everything loaded and compiled
        ((image, _, device),), tilt = timed(*one)
    # pixels in another order for each tilt: the same image again and again would compress too well
    rng = seeds.generator("calibration")
    images = [
        make_sample.Simulated(rng.permuted(image.ravel()).reshape(image.shape), tilt, device) for _ in tilts
    ]
    sources = {p.name: p.source for p in prepared}
    started = time.process_time()
    made = make_sample.finish(url, small, packed, sources, {}, tilts, images)
    finish = time.process_time() - started
    return Measured(
        pack=pack * scale,
        tilt=tilt * scale,
        finish=finish * scale / len(tilts),
        n_bytes=_n_bytes(Path(Catalog.open(url).sample_url(made.record.sample_id)), scale),
        factor=FULL if scale == 1 else SCALED,
    )


def _smaller(spec: SampleSpec, voxels: float, there: set[str]) -> SampleSpec:
    """Make a sample smaller, with the available structures, and equally crowded."""
    shape = shrink(spec.shape, voxels, flat=bool(spec.decorations.class_names))
    scale = math.prod(spec.shape) / math.prod(shape)
    return replace(
        spec,
        sample_id=seeds.digest([spec.sample_id, list(shape)]),
        shape=shape,
        counts=tuple((key, max(1, round(n / scale))) for key, n in spec.counts if key in there),
        acquisition=spec.acquisition.model_copy(update={"device": "cpu"}),
    )


def _n_bytes(sample: Path, scale: float) -> float:
    """Estimate the bytes of a sample in a box that is larger by ``scale``; metadata and table do not grow."""
    files = {file.relative_to(sample): file.stat().st_size for file in sample.rglob("*") if file.is_file()}
    voxels = sum(
        size for file, size in files.items() if file.name != "zarr.json" and file.parts[0] != "particles"
    )
    return voxels * scale + sum(files.values()) - voxels


def shrink(shape: tuple[int, int, int], voxels: float, *, flat: bool = False) -> tuple[int, int, int]:
    """Make a box smaller in all directions until it has about so many voxels; at least 16 per side.

    With ``flat`` it keeps its thickness, because decorations must fit into it.
    """
    share = min(1.0, voxels / math.prod(shape))
    if share == 1:
        return shape
    scale = share ** (1 / 2 if flat else 1 / 3)
    z, y, x = (max(min(n, 16), round(n * scale)) for n in shape)
    return (shape[0] if flat else z), y, x


def _key(recipe: Recipe, spec: SampleSpec) -> str:
    """Hash everything on which the measurement depends."""
    return seeds.digest(
        {
            "data_version": DATA_VERSION,
            "kind": like(spec),
            "machine": platform.node(),
            "packing": spec.packing.model_dump(),
            "decorations": spec.decorations.model_dump(),
            "keep": spec.keep.model_dump(),
            "counts": [list(c) for c in spec.counts],
            "tilts": len(tilt_series(spec.acquisition)),
        }
    )


def _file() -> Path:
    return private_folder() / "calibration.json"


def _remembered() -> dict[str, Measured]:
    try:
        if time.time() - _file().stat().st_mtime > VALID * 3600:
            return {}
        return {key: Measured(**value) for key, value in json.loads(_file().read_text()).items()}
    except (
        InputError,
        OSError,
        ValueError,
        TypeError,
    ):  # there is none yet, or it is not ours: measure again
        return {}


def _remember(known: dict[str, Measured]) -> None:
    with suppress(InputError, OSError):
        _file().write_text(json.dumps({key: asdict(value) for key, value in known.items()}))
