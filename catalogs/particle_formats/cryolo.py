"""crYOLO's and TomoTwin's lists: ``.cbox``, ``.coords`` and ``.tloc``.

A ``.cbox`` is a STAR file with the corner of each box in x and y and the slice of its middle in z, and the
confidence; its last block lists the slices. A ``.coords`` is x, y, z of the middles. Both are of one tomogram
and one class. A ``.tloc`` is a pickled table of TomoTwin with the centres, for all classes. Unpickling runs
the functions that the file names, so only those that pandas and numpy need to rebuild a table are allowed.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats import names, star
from catalogs.particle_formats.base import POSITION, Context, Format, as_columns, one_of
from catalogs.particle_formats.sniff import SniffedFile, read_numbers
from catalogs.particle_table import make

# TomoTwin's window, where the radius of a class is not known.
_BOX = 37
_CORNER = ["CoordinateX", "CoordinateY", "CoordinateZ"]
_EDGES = ["Width", "Height", "Depth"]
_PICKLED = {
    "builtins": {"slice"},
    "pandas.core.frame": {"DataFrame"},
    "pandas.core.internals.managers": {"BlockManager"},
    "pandas._libs.internals": {"_unpickle_block"},
    "pandas.core.indexes.base": {"Index", "_new_Index"},
    "pandas.core.indexes.range": {"RangeIndex"},
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
    "numpy.core.numeric": {"_frombuffer"},
}


def _box(context: Context, class_name: str, tomogram: str) -> int:
    """Edge of a class' box in voxels: its diameter."""
    radius = context.radius_of(class_name)
    return _BOX if radius is None else max(1, round(2 * radius / context.pixel(tomogram)))


def _detect_cbox(sniffed: SniffedFile) -> str | None:
    block = sniffed.star_with(*_CORNER, "Width")
    return (
        None if block is None else f"data_{block} has CoordinateX and Width: crYOLO boxes, corners in x and y"
    )


def _read_cbox(path: Path, context: Context) -> pd.DataFrame:
    frame, _ = star.read_loop(path, [*_CORNER, "Width", "Height"])
    tomogram = context.name_of(path)
    index = star.numbers(path, frame, _CORNER)
    if np.isnan(index).any():
        raise InputError(f"{path} has boxes without a slice: it is of a micrograph, not of a tomogram")
    index[:, :2] += star.numbers(path, frame, _EDGES[:2]) / 2
    columns: dict[str, Any] = as_columns(["x", "y", "z"], context.to_angstrom(index, [tomogram] * len(frame)))
    if "Confidence" in frame:
        columns["score"] = pd.to_numeric(frame["Confidence"], errors="coerce")
    return make(tomogram=tomogram, **columns)


def _encode_cbox(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    tomogram = one_of(table, "tomogram", "tomogram", path)
    box = _box(context, one_of(table, "class_name", "class", path), tomogram)
    index = context.to_pixels(table)
    corner = index - np.array([box / 2, box / 2, 0.0])
    n = len(table)
    frame = pd.DataFrame(as_columns(_CORNER, corner + 0.0))
    frame[_EDGES] = np.full((n, 3), float(box))
    frame[["EstWidth", "EstHeight"]] = np.full((n, 2), float(box))
    frame["Confidence"] = table["score"].to_numpy(np.float64)
    frame[["NumBoxes", "Angle"]] = np.full((n, 2), "<NA>", dtype=object)
    text = "data_global\n\n_cbox_format_version 1.0\n\n"
    for name, block in (
        ("cryolo", frame),
        ("cryolo_include", pd.DataFrame({"slice_index": sorted(set(np.round(index[:, 2]).astype(int)))})),
    ):
        labels = "".join(f"_{label} #{k}\n" for k, label in enumerate(block, start=1))
        rows = block.to_csv(
            sep=" ", header=False, index=False, float_format="%.9g", na_rep="<NA>", lineterminator="\n"
        )
        text += f"data_{name}\n\nloop_\n{labels}{rows}\n"
    return {path: text.encode()}


def _detect_coords(sniffed: SniffedFile) -> str | None:
    rows = sniffed.numbers
    if rows is None or len(rows[0]) != 3 or sniffed.suffix not in (".coords", ".txt", ""):
        return None
    if sniffed.suffix != ".coords" and ((np.array(rows)[:, :2] % 1) == 0.5).all():
        return None  # IMOD's half voxels
    return "three columns x y z: voxels counted from 0, as in .coords"


def _read_coords(path: Path, context: Context) -> pd.DataFrame:
    values = read_numbers(path, [3], "a list of x y z")
    tomogram = context.name_of(path)
    return make(
        tomogram=tomogram,
        **as_columns(["x", "y", "z"], context.to_angstrom(values, [tomogram] * len(values))),
    )


def _encode_coords(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    one_of(table, "tomogram", "tomogram", path)
    one_of(table, "class_name", "class", path)
    return {path: "".join(f"{x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in context.to_pixels(table)).encode()}


class _OnlyTables(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _PICKLED.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _detect_tloc(sniffed: SniffedFile) -> str | None:
    pickled = sniffed.suffix == ".tloc" and sniffed.head[:1] == b"\x80"
    return "a pickled table that ends in .tloc: located particles of TomoTwin" if pickled else None


def _read_tloc(path: Path, context: Context) -> pd.DataFrame:
    try:
        frame = _OnlyTables(io.BytesIO(path.read_bytes())).load()
    except Exception as error:  # broken pickles may raise any exception
        raise InputError(f"{path} is not a table of TomoTwin that can be read safely ({error})") from error
    if not isinstance(frame, pd.DataFrame) or not {"X", "Y", "Z"} <= set(frame):
        raise InputError(f"{path} is not a table of TomoTwin: it has no columns X, Y and Z")
    tomogram = context.name_of(path)
    index = frame[["X", "Y", "Z"]].to_numpy(np.float64)
    columns: dict[str, Any] = as_columns(["x", "y", "z"], context.to_angstrom(index, [tomogram] * len(frame)))
    if "metric_best" in frame:
        columns["score"] = frame["metric_best"].to_numpy(np.float64)
    if "size" in frame:
        columns["size"] = frame["size"].to_numpy(np.float64)
    references = [Path(str(name)).name.removesuffix(".mrc") for name in frame.attrs.get("references", [])]
    if "predicted_class" in frame:
        numbers = [int(k) for k in frame["predicted_class"]]
        known = all(0 <= k < len(references) for k in numbers)
        classes = [references[k] if known else f"class{k + 1}" for k in numbers]
        columns |= names.classes_of_names(classes, context)
    return make(tomogram=tomogram, **columns)


def _encode_tloc(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    tomogram = one_of(table, "tomogram", "tomogram", path)
    references = list(dict.fromkeys(table["class_name"]))
    boxes = [_box(context, name, tomogram) for name in table["class_name"]]
    frame = pd.DataFrame(as_columns(["X", "Y", "Z"], context.to_pixels(table)))
    frame["metric_best"] = table["score"].to_numpy(np.float64)
    frame["size"] = table["size"].to_numpy(np.float64) if "size" in table else np.nan
    frame["predicted_class"] = [references.index(name) for name in table["class_name"]]
    for edge in ("width", "height", "depth"):
        frame[edge] = boxes
    frame.attrs["references"] = references
    return {path: pickle.dumps(frame, protocol=4)}


CBOX = Format(
    name="cbox",
    title="crYOLO boxes",
    suffixes=(".cbox",),
    holds=POSITION | {"tomogram", "score"},
    detect=_detect_cbox,
    read=_read_cbox,
    encode=_encode_cbox,
    default_for=(".cbox",),
    one_tomogram=True,
    one_class=True,
)
COORDS = Format(
    name="coords",
    title="crYOLO and TomoTwin coordinates (x y z)",
    suffixes=(".coords",),
    holds=POSITION | {"tomogram"},
    detect=_detect_coords,
    read=_read_coords,
    encode=_encode_coords,
    default_for=(".coords",),
    one_tomogram=True,
    one_class=True,
)
TLOC = Format(
    name="tomotwin",
    title="TomoTwin located particles",
    suffixes=(".tloc",),
    holds=POSITION | {"tomogram", "class_name", "score", "size"},
    detect=_detect_tloc,
    read=_read_tloc,
    encode=_encode_tloc,
    default_for=(".tloc",),
    one_tomogram=True,
)
