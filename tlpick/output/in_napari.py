"""Show a tomogram with its segmentation and picks in napari, and read the picks back as they were edited.

A layer is what napari calls a layer data tuple: (data, arguments, kind). Everything is in Å, and the axes are
(z, y, x). A pick is a point with the features ``row``, its row in the list, ``class_name``, ``score`` and
``verdict``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs import particles
from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.machine import has_screen
from catalogs.particle_formats.base import Context, stem
from catalogs.particle_table import ACCEPTED, REJECTED, make
from catalogs.schema import ClassInfo
from catalogs.volumes import Volume, open_volume
from tlpick.batch.files import ALL, PARTICLES, RUN, SEGMENTATION
from tlpick.batch.run_folder import read_picks
from tlpick.evaluation.truth import stated_radii

#: Data, arguments and kind of a layer.
Layer = tuple[Any, dict[str, Any], str]

MISSING = "napari is not installed; pip install 'template-learning[napari]'"
#: Colour of a pick's edge by verdict.
_COLOURS = {"": "orange", ACCEPTED: "lime", REJECTED: "red"}
#: Radius of a pick whose class states none, Å.
_RADIUS = 50.0
#: Name of the layer of picks.
PICKS = "picks"
_AXES = ["z", "y", "x"]
_HELP = (
    "select picks and press A to accept, R to reject, U for neither; P adds picks; close the window to save"
)


class Scene:
    """A tomogram with its picks.

    Attributes
    ----------
    volume
        The tomogram.
    voxel_size
        Å.
    table
        Particle table of its picks, with a column ``verdict``.
    radii
        Class -> radius in Å.
    segmentation
        The segmentation of a run, or None.
    """

    def __init__(
        self,
        volume: Volume,
        voxel_size: float,
        table: pd.DataFrame,
        radii: Mapping[str, float],
        segmentation: Volume | None = None,
    ) -> None:
        self.volume, self.voxel_size = volume, voxel_size
        self.table, self.radii, self.segmentation = table, radii, segmentation

    def layers(self) -> list[Layer]:
        """Make the layers: tomogram, segmentation if there is one, picks."""
        scale = (self.voxel_size,) * 3
        middle = self.volume.shape[0] // 2
        plane = self.volume.read((slice(middle, middle + 1), slice(None), slice(None)))
        low, high = np.percentile(plane, (0.5, 99.5))
        limits = [float(low), float(max(high, low + 1e-6))]
        made: list[Layer] = [
            (
                self.volume.dask(),
                {"name": "tomogram", "scale": scale, "contrast_limits": limits, "colormap": "gray"},
                "image",
            )
        ]
        if self.segmentation is not None:
            size = self.segmentation.voxel_size or self.voxel_size
            place = {"scale": (size,) * 3, "translate": self.segmentation.origin[::-1]}
            made.append(
                (self.segmentation.dask(), {"name": "segmentation", "opacity": 0.3, **place}, "labels")
            )
        made.append((self.table[_AXES].to_numpy(np.float64), self._points(), "points"))
        return made

    def _points(self) -> dict[str, Any]:
        table = self.table
        features = table[["class_name", "score", "verdict"]].reset_index(drop=True)
        features.insert(0, "row", np.arange(len(table)))
        sizes = [2 * self.radii.get(name, _RADIUS) for name in table["class_name"]]
        usual = 2 * max(self.radii.values(), default=_RADIUS)
        return {
            "name": PICKS,
            "features": features,
            "size": np.array(sizes) if sizes else usual,
            "face_color": "transparent",
            "border_color": [_COLOURS[verdict] for verdict in features["verdict"]] or _COLOURS[""],
            "border_width": 0.06,
            "out_of_slice_display": True,
        }

    def edited(self, points: NDArray[np.float64], features: pd.DataFrame) -> pd.DataFrame:
        """Make the particle table of the points as they are now.

        Points that were deleted are left out, and those that were moved have their new places. A point that
        was added is accepted; its class is that of its feature, or else the first one of the list.

        Parameters
        ----------
        points
            (n, 3) z, y, x in Å.
        features
            (n) rows, as :meth:`layers` made them; napari fills in those of added points.

        Raises
        ------
        InputError
            If a verdict is not one.
        """
        rows = pd.to_numeric(features["row"], errors="coerce").fillna(-1).to_numpy(np.int64)
        # napari copies the features of a selected point to new ones, and new ones come last
        known = (rows >= 0) & (rows < len(self.table)) & ~pd.Series(rows).duplicated().to_numpy()
        verdict = features["verdict"].fillna("").astype(str).to_numpy(copy=True)
        if wrong := sorted(set(verdict[known]) - set(_COLOURS)):
            raise InputError(f"the verdict {wrong[0]!r} is none; write {ACCEPTED}, {REJECTED} or nothing")
        xyz = np.asarray(points, np.float64).reshape(-1, 3)[:, ::-1]
        old = self.table.iloc[rows[known]]
        old = old.assign(**dict(zip("xyz", xyz[known].T, strict=True)), verdict=verdict[known])
        return pd.concat([old, self._added(xyz[~known], features[~known])], ignore_index=True)

    def _added(self, xyz: NDArray[np.float64], features: pd.DataFrame) -> pd.DataFrame:
        labels = dict(zip(self.table["class_name"], self.table["label"], strict=True)) or {"particle": 1}
        names = [name if name in labels else next(iter(labels)) for name in features["class_name"]]
        return make(
            **dict(zip("xyz", xyz.T, strict=True)),
            tomogram=self.table["tomogram"].iloc[0] if len(self.table) else self.volume.name,
            class_name=names,
            label=[int(labels[name]) for name in names],
            verdict=[ACCEPTED] * len(names),
        )


def read_scene(tomogram: str, picks: str, *, voxel_size: float | None = None) -> Scene:
    """Read a tomogram and its picks.

    Parameters
    ----------
    tomogram
        Path or URL of a volume; with the folder of a run also the name of a tomogram in it.
    picks
        Folder that ``tlpick run`` wrote, or a particle list.
    voxel_size
        Å; None: that in the file.

    Raises
    ------
    InputError
        If one of them cannot be read, the voxel size is unknown, or the picks are of other tomograms.
    """
    if (Path(picks) / RUN).exists():
        return _of_run(tomogram, Path(picks), voxel_size)
    volume, size = _opened(tomogram, voxel_size)
    context = Context(voxel_size=size, shape=volume.shape)
    table = particles.load(picks, None, context).table
    name = _named(stem(tomogram), [str(each) for each in table["tomogram"].unique()], picks)
    radii = {key: value for key, value in stated_radii(Path(picks)).items() if value > 0}
    return Scene(volume, size, _judged(table[table["tomogram"] == name]), radii)


def _of_run(tomogram: str, folder: Path, voxel_size: float | None) -> Scene:
    read = read_picks(str(folder))
    stated = {str(each["name"]): each for each in read.run["tomograms"]}
    by_path = {str(each.get("path")): name for name, each in stated.items()}
    absolute = tomogram if "://" in tomogram else str(Path(tomogram).absolute())
    name = by_path.get(absolute) or _named(tomogram if tomogram in stated else stem(tomogram), stated, folder)
    path = tomogram if Path(tomogram).exists() or "://" in tomogram else str(stated[name]["path"])
    volume, size = _opened(path, voxel_size or stated[name]["voxel_size"])
    own = folder / name
    every = particles.read(own / ALL) if (own / ALL).exists() else particles.read(own / PARTICLES)
    every = every[every["class_name"].isin(read.radii)]
    segmented = [
        str(file)
        for file in (own / SEGMENTATION / "labels" / "classes", own / "segmentation.mrc")
        if file.exists()
    ]
    segmentation = open_volume(segmented[0]) if segmented else None
    return Scene(volume, size, _judged(every), read.radii, segmentation)


def _opened(path: str, voxel_size: float | None) -> tuple[Volume, float]:
    volume = open_volume(path, voxel_size=voxel_size)
    size = voxel_size or volume.voxel_size
    if size is None:
        raise InputError(f"{path} does not state its voxel size; give it with `voxel_size`, in Å")
    return volume, size


def _named(name: str, names: Sequence[str] | Mapping[str, Any], source: Any) -> str:
    """Find a tomogram among the names of a list; a list of one tomogram may call it as it likes."""
    known = list(names)
    like = [each for each in known if each == name or stem(each) == name]
    if not like and len(known) == 1 and known[0] in ("", "tomogram"):
        like = known
    if not like:
        few = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
        raise InputError(f"{source} has no picks of {name}, only of {few}{nearest(name, known)}")
    return like[0]


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column ``verdict`` if a list has none, and number the rows."""
    verdict = table["verdict"] if "verdict" in table else pd.Series("", index=table.index)
    known = verdict.fillna("").astype(str).str.strip()
    return table.assign(verdict=known.where(known.isin(_COLOURS), "")).reset_index(drop=True)


def view(
    tomogram: str,
    picks: str,
    to: str | os.PathLike[str] | None = None,
    *,
    voxel_size: float | None = None,
    say: Callable[[str], None] = print,
) -> Path | None:
    """Open a window, and save the picks as a list with verdicts when it is closed.

    Parameters
    ----------
    tomogram, picks, voxel_size
        As for :func:`read_scene`.
    to
        The list to write; None: ``TOMOGRAM.curated.csv`` in the run's folder or beside the list.
    say
        Called with sentences for the user.

    Returns
    -------
    Path or None
        The list; None if nothing was changed.

    Raises
    ------
    InputError
        If napari or a display is missing, the list exists already, or an input cannot be read.
    """
    if find_spec("napari") is None:
        raise InputError(MISSING)
    if not has_screen():
        raise InputError(
            "there is no display to open a window on; use a desktop, ssh -X, or curate.html of the run"
        )
    scene = read_scene(tomogram, picks, voxel_size=voxel_size)
    beside = Path(picks) if Path(picks).is_dir() else Path(picks).parent
    target = Path(to) if to is not None else beside / f"{stem(tomogram)}.curated.csv"
    if target.exists():
        raise InputError(f"{target} exists already; give another name with `to`, or view that list")
    layer = opened(scene, say)[1]
    import napari

    napari.run()
    return save(scene, layer, target, say)


def opened(scene: Scene, say: Callable[[str], None], *, show: bool = True) -> tuple[Any, Any]:
    """Open a viewer with the layers and the keys; returns it and the layer of picks."""
    layers = scene.layers()
    try:
        import napari

        viewer = napari.Viewer(title=f"{scene.volume.name}: accept and reject picks", show=show)
        for data, arguments, kind in layers:
            layer = getattr(viewer, f"add_{kind}")(data, **arguments)
    except Exception as error:  # Qt, OpenGL and their drivers raise what they like
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"napari cannot open a window here ({reason}); it needs Qt and OpenGL: pip install "
            "'template-learning[napari]' on a desktop, or judge the picks on the page curate.html of the run"
        ) from error
    say(_HELP)
    for key, verdict in (("a", ACCEPTED), ("r", REJECTED), ("u", "")):
        layer.bind_key(key, _setter(verdict), overwrite=True)
    return viewer, layer


def _setter(verdict: str) -> Callable[[Any], None]:
    """Make what a key does: give the selected picks a verdict, and show it by their colour."""

    def judge(layer: Any) -> None:
        chosen = sorted(layer.selected_data)
        if not chosen:
            return
        features = layer.features.copy()
        features.loc[features.index[chosen], "verdict"] = verdict
        layer.features = features
        colours = np.array(layer.border_color)
        colours[chosen] = _RGBA[verdict]
        layer.border_color = colours

    return judge


_RGBA = {"": (1.0, 0.65, 0.0, 1.0), ACCEPTED: (0.0, 1.0, 0.0, 1.0), REJECTED: (1.0, 0.0, 0.0, 1.0)}


def save(scene: Scene, layer: Any, target: Path, say: Callable[[str], None]) -> Path | None:
    """Write the picks of a layer, if anything was changed."""
    table = scene.edited(np.asarray(layer.data), layer.features)
    if table.equals(scene.table):
        say("nothing was changed, and nothing is written")
        return None
    classes = tuple(
        ClassInfo(name=str(name), label=int(label), radius=scene.radii.get(str(name), _RADIUS))
        for name, label in dict(zip(table["class_name"], table["label"], strict=True)).items()
        if label > 0
    )
    context = Context(voxel_size=scene.voxel_size, shape=scene.volume.shape, classes=classes)
    particles.save(table, target, "csv", context)
    counts = table["verdict"].value_counts()
    say(
        f"{target}: {counts.get(ACCEPTED, 0)} accepted, {counts.get(REJECTED, 0)} rejected, "
        f"{counts.get('', 0)} undecided"
    )
    return target


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[Layer]] | None:
    """Offer napari a reader of a tomogram's folder in a run: the plug-in of this package.

    Parameters
    ----------
    path
        What the user opens in napari.

    Returns
    -------
    callable or None
        Takes the path and returns layers; None if it is not such a folder.
    """
    place = Path(path) if isinstance(path, str) else None
    if place is None or not (place / PARTICLES).exists() or not (place.parent / RUN).exists():
        return None
    return lambda _: read_scene(place.name, str(place.parent)).layers()
