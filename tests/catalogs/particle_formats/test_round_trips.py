"""Any table through any format and back keeps what the format can hold; with a sidecar, everything."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from catalogs import particles
from catalogs.particle_formats.base import EVERYTHING, ORIENTATION, Context, Format
from catalogs.particle_formats.registry import FORMATS
from catalogs.schema import ClassInfo

CLASSES = (
    ClassInfo(name="ribosome", label=1, radius=110.0),
    ClassInfo(name="FAS-2.1", label=2, radius=120.0),
    ClassInfo(name="1qvr", label=4, radius=80.0),
)
TOMOGRAMS = {3: "TS_03", 12: "TS_12"}
Q = ["qx", "qy", "qz", "qw"]
turns = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1) | st.sampled_from(
    # Euler angles are not unique here.
    [(0, 0, 0, 1), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0.6, 0.8), (0.6, 0.8, 0, 0)]
)


@st.composite
def tables(draw: st.DrawFn, least: int = 1) -> pd.DataFrame:
    n = draw(st.integers(least, 6))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=n, max_size=n))

    q = np.array(column(turns), np.float64).reshape(n, 4)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    chosen = column(st.sampled_from(CLASSES))
    # Far enough apart along x that rows can be told from each other in any order.
    x = np.arange(n) * 300.0 + np.array(column(st.floats(0, 200)))
    return particles.make(
        tomogram=column(st.sampled_from(sorted(TOMOGRAMS.values()))),
        class_name=[info.name for info in chosen],
        label=[info.label for info in chosen],
        instance=column(st.integers(0, 65535)),
        x=x,
        y=column(st.floats(-50, 8000)),
        z=column(st.floats(-50, 3000)),
        **dict(zip(Q, q.T, strict=True)),
        score=column(st.floats(0, 1, width=32) | st.just(np.nan)),
        structure=column(st.sampled_from(["", "4v6x"])),
        variant=column(st.integers(-1, 9)),
        calibrated=column(st.floats(0, 1) | st.just(np.nan)),
        size=np.array(column(st.integers(1, 90000)), np.float64),
        flags=column(st.sampled_from(["", "border", "border crowded"])),
        mode_7=np.array(column(st.floats(-90, 90)), np.float64),
    )


@st.composite
def contexts(draw: st.DrawFn) -> Context:
    """Sizes in every way that they can be known."""
    binning = draw(st.sampled_from([1, 2, 3, 4, 6.5]))
    pixel = draw(st.floats(0.5, 2.5))
    shapes = st.tuples(*[st.integers(64, 1024)] * 3)
    return Context(
        voxel_size=pixel * binning,
        shape=draw(shapes),
        pixel_size=pixel,
        unbinned_shape=draw(st.none() | shapes),
        in_pixels=draw(st.booleans()),
        binning_kind=draw(st.sampled_from(["fourier", "box"])),
        centre=draw(st.sampled_from(["extract", "picker"])),
        first_voxel=draw(st.sampled_from([0, 1])),
        origin=draw(st.sampled_from([(0.0, 0.0, 0.0), (-512.5, 30.0, 7.0)])),
        tomograms=TOMOGRAMS,
        tomograms_file="tomograms.star",
        classes=CLASSES,
    )


def target(folder: Path, format: Format) -> Path:
    """A path that holds particles of several tomograms and classes in this format."""
    if format.one_tomogram or "" in format.suffixes:
        return folder / "lists"
    return folder / f"list{format.suffixes[0]}"


def by_row(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values("x", ignore_index=True)


def apart(read: pd.DataFrame, table: pd.DataFrame) -> float:
    turn = Rotation.from_quat(read[Q].to_numpy()).inv() * Rotation.from_quat(table[Q].to_numpy())
    return float(turn.magnitude().max())


def check(read: pd.DataFrame, table: pd.DataFrame, held: frozenset[str], position: float) -> None:
    read, table = by_row(read), by_row(table)
    assert len(read) == len(table)
    for name in held - ORIENTATION:
        if name not in read and name == "calibrated" and table[name].isna().all():
            continue  # a column that says nothing
        if name in ("x", "y", "z"):
            np.testing.assert_allclose(read[name], table[name], rtol=0, atol=position)
        elif table[name].dtype.kind == "f":
            np.testing.assert_allclose(read[name], table[name], rtol=1e-6, err_msg=name)
        else:
            assert list(read[name]) == list(table[name]), name
    if held >= ORIENTATION:
        assert apart(read, table) < 1e-4


@pytest.mark.parametrize("name", FORMATS)
@given(tables(), contexts())
@settings(max_examples=10, deadline=None)
def test_keeps_what_the_format_holds(name: str, table: pd.DataFrame, context: Context) -> None:
    format = FORMATS[name]
    if name == "eman2":
        table["score"] = table["score"].fillna(0)  # EMAN2 has no unknown score
    held = frozenset(table.columns) if EVERYTHING in format.holds else format.holds & frozenset(table.columns)
    rounding = format.rounding * context.voxel_size if format.rounding > 0.01 else 0.001
    with tempfile.TemporaryDirectory() as folder:
        path = target(Path(folder), format)
        saved = particles.save(table, path, name, context)
        assert saved.sidecar is None
        loaded = particles.load(path, name, context)
        check(loaded.table, table, held, rounding)
        if EVERYTHING in format.holds:
            assert set(loaded.table.columns) == set(table.columns)
            assert saved.lost == ()


@pytest.mark.parametrize("name", FORMATS)
@given(tables(), contexts())
@settings(max_examples=6, deadline=None)
def test_keeps_everything_with_a_sidecar(name: str, table: pd.DataFrame, context: Context) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = target(Path(folder), FORMATS[name])
        saved = particles.save(table, path, name, context, sidecar=True)
        loaded = particles.load(path, name, context)
        if saved.sidecar is None:
            assert saved.lost == ()
        if name == "eman2":
            table["score"] = table["score"].fillna(0)
        check(loaded.table, table, frozenset(table.columns), 0.001)
        assert set(loaded.table.columns) == set(table.columns)


# What tells these from each other is in the name of the file or only in a human's mind.
AMBIGUOUS = {"imod-text", "coords", "deepfinder-text", "shrec", "deepetpicker", "coords-score"}


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in AMBIGUOUS])
@given(table=tables(), context=contexts())
@settings(max_examples=4, deadline=None)
def test_recognises_what_it_wrote(name: str, table: pd.DataFrame, context: Context) -> None:
    table["tomogram"], table["class_name"], table["label"] = "TS_03", "ribosome", 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"TS_03{FORMATS[name].suffixes[0] or '.json'}"
        particles.save(table, path, name, context)
        loaded = particles.load(path, context=context)
        assert loaded.format.name == name
        assert len(loaded.why) > 10
        assert set(loaded.table["tomogram"]) == {"TS_03"}


@pytest.mark.parametrize("name", [name for name in FORMATS if "" not in FORMATS[name].suffixes])
def test_no_particles(name: str, tmp_path: Path) -> None:
    context = Context(voxel_size=4.0, shape=(9, 9, 9), pixel_size=2.0, tomograms_file="t.star", tomogram="t")
    path = tmp_path / f"none{FORMATS[name].suffixes[0]}"
    particles.save(particles.empty(), path, name, context)
    if name in ("dynamo", "imod-text", "deepfinder-text"):
        return  # an empty file says nothing about what it would hold
    assert particles.load(path, name, context).table.empty
