"""Draws slices of a tomogram with circles for picks and particles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from catalogs.pages.pictures import bar_length, jpeg, kind_of, png
from catalogs.pages.render import part
from catalogs.volumes import Volume

#: Width of the picture in its own units.
WIDTH = 1000.0
GAP = 8.0
#: Slices are averaged over this share of the smallest radius on each side, to reduce noise.
SLAB = 0.4
#: Planes are smoothed by a Gaussian of this share of it, which removes much finer details than particles.
SMOOTH = 1 / 6
#: Approximate number of depths of the x-y plane.
DEPTHS = 11


@dataclass(frozen=True)
class _Panel:
    """A plane: axes (0 x, 1 y, 2 z) to the right, down and into it, and its position."""

    right: int
    down: int
    into: int
    left: float
    top: float


def orthoview(
    volume: Volume,
    voxel_size: float,
    picks: pd.DataFrame,
    truth: pd.DataFrame | None,
    radii: Mapping[str, float],
) -> Markup:
    """Draw the planes x-y, z-y and x-z of a tomogram as an SVG; the first at several depths.

    Without the page's script, the middle depth is shown; with it, a slider changes the depth.

    Parameters
    ----------
    volume
        The tomogram; only the shown parts are read.
    voxel_size
        Å.
    picks, truth
        Particle tables of this tomogram, with the column ``partner`` (-1 for none) if the truth is known;
        otherwise ``truth`` is None.
    radii
        Class -> radius in Å; a circle is the section of a sphere with it.

    Returns
    -------
    Markup
        Self-contained HTML.
    """
    n = np.array(volume.shape[::-1])
    scale = (WIDTH - GAP) / (n[0] + n[2])
    wide, high = n * scale, (n[1] + n[2]) * scale + GAP
    panels = (
        _Panel(0, 1, 2, 0.0, 0.0),
        _Panel(2, 1, 0, wide[0] + GAP, 0.0),
        _Panel(0, 2, 1, 0.0, wide[1] + GAP),
    )
    from scipy.ndimage import gaussian_filter

    smallest = min(radii.values(), default=voxel_size)
    half, sigma = int(SLAB * smallest / voxel_size), SMOOTH * smallest / voxel_size
    depths = _depths(int(n[2]), half)
    shown = len(depths) // 2
    drawn = []
    for k, panel in enumerate(panels):
        layers = []
        for j, middle in enumerate(depths if k == 0 else [int(n[panel.into] // 2)]):
            plane = _slab(volume, panel, middle, half)
            grey = stretch(gaussian_filter(plane, sigma, mode="nearest"))
            raw = stretch(_slab(volume, panel, middle, 0))
            depth = middle * voxel_size
            circles = (
                [] if truth is None else _circles(truth, "truth", panel, depth, voxel_size, scale, radii)
            )
            circles += _circles(picks, "pick", panel, depth, voxel_size, scale, radii)
            layers.append(
                {
                    "kind": "slab" if k == 0 else "side",
                    "hidden": k == 0 and j != shown,
                    "image": f"jpeg;base64,{jpeg(grey)}" if k == 0 else f"png;base64,{png(grey)}",
                    "raw": f"jpeg;base64,{jpeg(raw, 40)}",
                    "circles": circles,
                    "caption": _caption(panel, depth),
                }
            )
        place = f'x="{panel.left:.1f}" y="{panel.top:.1f}"'
        place += f' width="{wide[panel.right]:.1f}" height="{wide[panel.down]:.1f}"'
        drawn.append(
            {
                "clip": f"plane-{volume.name}-{k}",
                "place": Markup(place),
                "left": panel.left,
                "top": panel.top,
                "layers": layers,
                "cross": _crosshair(panel, n, scale, wide, depths[shown]),
            }
        )
    particles = "" if truth is None else f" and {len(truth)} particles"
    return part(
        "orthoview.html",
        width=WIDTH,
        height=high,
        described=f"Slices of {volume.name} with {len(picks)} picks{particles}",
        panels=drawn,
        bar=_scale_bar(voxel_size, scale, wide),
        shown=shown,
        steps=[round(float((depth - depths[shown]) * scale), 2) for depth in depths],
        depths=[round(depth * voxel_size) for depth in depths],
    )


def _depths(n: int, half: int) -> list[int]:
    """Choose the slices of the x-y planes: the middle one and evenly spaced others."""
    step = max((n - 2 * half) / DEPTHS, 2 * half + 1, 1)
    each = int((n // 2 - half) / step)
    return [round(n // 2 + step * k) for k in range(-each, each + 1) if 0 <= n // 2 + step * k < n]


def slices_averaged(voxel_size: float, radii: Mapping[str, float]) -> int:
    """Return over how many slices each plane is averaged."""
    return 2 * int(SLAB * min(radii.values()) / voxel_size) + 1


def _slab(volume: Volume, panel: _Panel, middle: int, half: int) -> NDArray[np.float32]:
    """Read the mean of the slices around the middle, as (down, right)."""
    box = [slice(None)] * 3
    box[2 - panel.into] = slice(max(middle - half, 0), middle + half + 1)
    flat = volume.read((box[0], box[1], box[2])).mean(axis=2 - panel.into)
    # what is left is in the order z, y, x; the z-y plane has z to the right
    return flat.T if panel.right == 2 else flat


def stretch(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Scale grey values to 0 to 255, clipped at the outermost half percents."""
    low, high = np.percentile(image, (0.5, 99.5))
    return np.clip((image - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)


def _crosshair(
    panel: _Panel, n: NDArray[np.int64], scale: float, wide: NDArray[np.float64], depth: int
) -> list[tuple[str, str]]:
    """Draw the positions of the other two planes; the line of the x-y plane follows the slider."""
    middle = [n[0] // 2, n[1] // 2, depth]
    x = panel.left + (middle[panel.right] + 0.5) * scale
    y = panel.top + (middle[panel.down] + 0.5) * scale
    right, bottom = panel.left + wide[panel.right], panel.top + wide[panel.down]
    along = {
        panel.right: f"M{x:.1f} {panel.top:.1f}V{bottom:.1f}",
        panel.down: f"M{panel.left:.1f} {y:.1f}H{right:.1f}",
    }
    lines = []
    for axis, line in along.items():
        follows = (" z-right" if axis == panel.right else " z-down") if axis == 2 else ""
        lines.append((f"cross{follows}", line))
    return lines


def _circles(
    table: pd.DataFrame,
    kind: str,
    panel: _Panel,
    depth: float,
    voxel_size: float,
    scale: float,
    radii: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Draw the sections of spheres with this plane at ``depth``, Å."""
    drawn = []
    order = {name: k for k, name in enumerate(radii)}
    columns = zip(
        table[["x", "y", "z"]].to_numpy(np.float64),
        table["class_name"],
        table["partner"] if "partner" in table else [None] * len(table),
        table["score"],
        table["step"] if "step" in table else [None] * len(table),
        table["kept"] if "kept" in table else [True] * len(table),
        strict=True,
    )
    for xyz, name, partner, score, step, kept in columns:
        if name not in radii:
            continue
        square = radii[name] ** 2 - (xyz[panel.into] - depth) ** 2
        if square <= 0:
            continue
        # the centre of voxel 0 is half a voxel from the edge of the picture
        x = panel.left + (xyz[panel.right] / voxel_size + 0.5) * scale
        y = panel.top + (xyz[panel.down] / voxel_size + 0.5) * scale
        state = "plain" if partner is None else "paired" if partner >= 0 else "alone"
        drawn.append(
            {
                "kind": f"{kind} {state} {kind_of(order[name])}{'' if kept else ' weak'}",
                "step": step,
                "words": _title(kind, state, name, xyz, score),
                "x": x,
                "y": y,
                "r": max(math.sqrt(square) / voxel_size * scale, 2.0),
                "cross": kind == "pick" and state == "alone",  # so that colour is not the only difference
            }
        )
    return drawn


def _title(kind: str, state: str, name: str, xyz: NDArray[np.float64], score: float) -> str:
    words = {
        ("pick", "paired"): f"{name}, picked",
        ("pick", "alone"): f"false pick of {name}",
        ("pick", "plain"): name,
        ("truth", "paired"): f"{name}, found",
        ("truth", "alone"): f"{name}, missed",
    }[kind, state]
    place = ", ".join(f"{value:.0f}" for value in xyz)
    return f"{words} at ({place}) Å" + ("" if math.isnan(score) else f", score {score:.2f}")


def _caption(panel: _Panel, depth: float) -> str:
    axes = "xyz"
    return f"{axes[panel.right]} → {axes[panel.down]} ↓   {axes[panel.into]} = {depth:.0f} Å"


def _scale_bar(voxel_size: float, scale: float, wide: NDArray[np.float64]) -> dict[str, Any]:
    length = bar_length(0.25 * wide[0] / scale * voxel_size)
    width = length / voxel_size * scale
    return {"x": 12.0, "y": wide[1] - 14.0, "width": width, "words": f"{length / 10:g} nm"}
