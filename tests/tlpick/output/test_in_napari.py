"""``tlpick view``: the layers that napari gets, what comes back from it, and what is refused."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from catalogs import particles
from catalogs.errors import InputError
from catalogs.machine import has_screen
from catalogs.volumes import write_mrc
from tlpick.output import in_napari
from tlpick.output.in_napari import get_reader, read_scene, save


@pytest.fixture
def run(tlpick: Any, ball_model: Path, make_balls: Any, tmp_path: Path) -> Path:
    """The folder of a run over one tomogram, with its segmentation."""
    write_mrc(tmp_path / "tomo-1.mrc", make_balls("tomo-1").data, 10.0)
    picks = tmp_path / "picks"
    kept = ("--keep-segmentation", "zarr")
    assert tlpick("run", ball_model, tmp_path / "tomo-1.mrc", "--to", picks, *kept).status == 0
    return picks


def as_napari_has_them(scene: Any) -> tuple[np.ndarray, pd.DataFrame]:
    data, arguments, kind = scene.layers()[-1]
    assert kind == "points"
    return data.copy(), arguments["features"].copy()


def test_tomogram_segmentation_and_picks_are_layers_in_the_same_place(run: Path) -> None:
    scene = read_scene(str(run.parent / "tomo-1.mrc"), str(run))
    image, labels, points = scene.layers()
    assert [layer[2] for layer in (image, labels, points)] == ["image", "labels", "points"]
    assert image[0].shape == scene.volume.shape
    assert image[1]["scale"] == (10.0, 10.0, 10.0)
    low, high = image[1]["contrast_limits"]
    assert low < high
    table = particles.read(run / "particles.star")
    np.testing.assert_allclose(points[0], table[["z", "y", "x"]], atol=0.01)
    np.testing.assert_allclose(points[1]["size"], 100.0)  # diameter of the class, Å
    assert list(points[1]["features"]["row"]) == list(range(len(table)))
    # every pick lies in a voxel that the segmentation calls a ball
    where = np.rint((points[0] - labels[1]["translate"]) / labels[1]["scale"]).astype(int)
    assert (np.asarray(labels[0])[tuple(where.T)] == 1).all()


def test_the_tomogram_can_be_named_as_in_the_run(run: Path) -> None:
    by_name, by_path = (read_scene(name, str(run)) for name in ("tomo-1", str(run.parent / "tomo-1.mrc")))
    pd.testing.assert_frame_equal(by_name.table, by_path.table)
    with pytest.raises(InputError, match=r"has no picks of tomo-7, only of tomo-1; did you mean"):
        read_scene("tomo-7", str(run))


def test_a_list_is_shown_with_its_verdicts(run: Path) -> None:
    table = particles.read(run / "particles.star")
    table = table.assign(verdict=["rejected", *["accepted"] * (len(table) - 1)])
    particles.write(table, run.parent / "judged.csv")
    scene = read_scene(str(run.parent / "tomo-1.mrc"), str(run.parent / "judged.csv"))
    _, features = as_napari_has_them(scene)
    assert list(features["verdict"]) == list(table["verdict"])
    assert len(scene.layers()) == 2  # a list has no segmentation


def test_what_was_edited_comes_back(run: Path) -> None:
    scene = read_scene("tomo-1", str(run))
    points, features = as_napari_has_them(scene)
    assert scene.edited(points, features).equals(scene.table)
    features.loc[0, "verdict"] = "rejected"
    features.loc[2, "verdict"] = "accepted"
    points[2] += [10.0, -20.0, 30.0]
    # the second is deleted; one is added while the first was selected, so it has the features of the first
    points = np.vstack([points[[0]], points[2:], [[55.0, 66.0, 77.0]]])
    features = pd.concat([features.iloc[[0]], features.iloc[2:], features.iloc[[0]]], ignore_index=True)
    said: list[str] = []
    layer = type("Layer", (), {"data": points, "features": features})
    written = save(scene, layer, run / "tomo-1.curated.csv", said.append)
    assert written is not None
    back = particles.read(written)
    assert len(back) == len(scene.table)
    first, moved, added = back.iloc[0], back.iloc[1], back.iloc[-1]
    assert (first["verdict"], moved["verdict"], added["verdict"]) == ("rejected", "accepted", "accepted")
    np.testing.assert_allclose(
        moved[["x", "y", "z"]].to_numpy(float),
        scene.table.loc[2, ["x", "y", "z"]].to_numpy(float) + np.array([30, -20, 10]),
    )
    np.testing.assert_allclose(added[["x", "y", "z"]].to_numpy(float), [77.0, 66.0, 55.0])
    assert (added["class_name"], added["label"], added["tomogram"]) == ("ball", 1, "tomo-1")
    assert np.isnan(added["score"])
    assert "2 accepted, 1 rejected" in said[-1]


def test_a_wrong_verdict_is_refused_and_without_changes_nothing_is_written(run: Path) -> None:
    scene = read_scene("tomo-1", str(run))
    points, features = as_napari_has_them(scene)
    said: list[str] = []
    layer = type("Layer", (), {"data": points, "features": features})
    assert save(scene, layer, run / "new.csv", said.append) is None
    assert said == ["nothing was changed, and nothing is written"]
    features.loc[0, "verdict"] = "maybe"
    with pytest.raises(InputError, match="the verdict 'maybe' is none; write accepted, rejected or nothing"):
        scene.edited(points, features)
    assert not (run / "new.csv").exists()


def refused(tlpick: Any, *words: Any) -> str:
    done = tlpick("view", *words)
    assert done.status == 2
    assert done.err.count("\n") == 1
    return str(done.err)


def test_bad_input_is_one_sentence(tlpick: Any, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_napari, "find_spec", lambda name: None)
    assert "pip install 'template-learning[napari]'" in refused(tlpick, "tomo-1", run)
    monkeypatch.setattr(in_napari, "find_spec", lambda name: True)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("catalogs.machine.sys.platform", "linux")
    assert "there is no display to open a window on" in refused(tlpick, "tomo-1", run, "--napari")
    monkeypatch.setenv("DISPLAY", ":0")
    assert "has no picks of nobody" in refused(tlpick, "nobody", run)
    assert "no-list" in refused(tlpick, run.parent / "tomo-1.mrc", run.parent / "no-list.csv")
    assert "no-tomo.mrc" in refused(tlpick, "no-tomo.mrc", run / "particles.star")
    (run / "tomo-1.curated.csv").write_text("kept")
    assert "exists already; give another name with --to" in refused(tlpick, "tomo-1", run)
    assert (run / "tomo-1.curated.csv").read_text() == "kept"


def test_the_plug_in_reads_the_folder_of_a_tomogram(run: Path) -> None:
    reader = get_reader(str(run / "tomo-1"))
    assert reader is not None
    assert [kind for _, _, kind in reader(str(run / "tomo-1"))] == ["image", "labels", "points"]
    for other in (str(run.parent), str(run / "report.html"), [str(run / "tomo-1")]):
        assert get_reader(other) is None


def test_a_viewer_that_cannot_open_is_one_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**_: Any) -> None:
        raise RuntimeError("could not load the Qt platform plugin\nand more")

    monkeypatch.setitem(sys.modules, "napari", types.SimpleNamespace(Viewer=fails))
    with pytest.raises(
        InputError, match=r"cannot open a window here \(could not load the Qt platform plugin\)"
    ):
        in_napari.opened(read_scene("tomo-1", str(run)), print, show=False)


def test_in_napari_itself(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("napari", reason="napari is not installed")
    if not has_screen():
        monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    said: list[str] = []
    scene = read_scene("tomo-1", str(run))
    try:
        viewer, layer = in_napari.opened(scene, said.append, show=False)
    except InputError as error:
        pytest.skip(f"no OpenGL: {error}")
    assert "press A to accept" in said[-1]
    try:
        assert [each.name for each in viewer.layers] == ["tomogram", "segmentation", "picks"]
        press = {str(key).lower(): act for key, act in layer.keymap.items()}
        layer.selected_data = {0}
        press["r"](layer)
        layer.selected_data = {1}
        press["a"](layer)
        layer.add([[55.0, 66.0, 77.0]])
        back = scene.edited(np.asarray(layer.data), layer.features)
        assert list(back["verdict"].iloc[[0, 1, -1]]) == ["rejected", "accepted", "accepted"]
        assert len(back) == len(scene.table) + 1
        np.testing.assert_allclose(layer.border_color[0], [1, 0, 0, 1])
        layer.selected_data = {0}
        press["u"](layer)
        layer.selected_data = {2}
        layer.remove_selected()
        back = scene.edited(np.asarray(layer.data), layer.features)
        assert len(back) == len(scene.table)
        assert list(back["verdict"].iloc[[0, 1, -1]]) == ["", "accepted", "accepted"]
    finally:
        viewer.close()
