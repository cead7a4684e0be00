"""Tilt series as AreTomo, Warp, RELION 4 and IMOD write them; orders of acquisition that nothing tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import yaml
from click.testing import CliRunner, Result

from catalogs.errors import InputError
from catalogs.volumes import open_volume
from tlgen.cli import tlgen
from tlgen.recipes.recipe_file import read_recipe
from tlgen.tilts.alignment import read_alignment
from tlgen.tilts.scheme import order
from tlgen.tilts.series_files import read_one, read_series
from tlgen.tilts.series_mdoc import date_and_time

ANGLES = [float(angle) for angle in range(-9, 10, 3)]
TAKEN = order(ANGLES, "dose_symmetric", group=2)
BEFORE = [3.0 * TAKEN.index(angle) for angle in ANGLES]

Draw = Callable[..., np.ndarray]
Peak = Callable[[np.ndarray], np.ndarray]


def acquired(series: Any) -> None:
    """Compare with the series that the files of these tests tell."""
    assert list(series.angles) == pytest.approx(ANGLES, abs=1e-4)
    assert [series.angles[k] for k in series.taken] == pytest.approx(TAKEN, abs=1e-4)
    assert series.ordered
    assert series.doses == pytest.approx([3.0] * 7)
    assert series.doses_before == pytest.approx(BEFORE)


# --------------------------------------------------------------------------------------------- .mdoc


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("15-May-24  16:53:54", (2024, 5, 15, 16, 53, 54)),
        ("5-MAY-2024 6:53:54", (2024, 5, 5, 6, 53, 54)),
        ("2024-Oct-15 16:53:54", (2024, 10, 15, 16, 53, 54)),
        ("2024-10-05T16:53:54.25", (2024, 10, 5, 16, 53, 54, 250000)),
        ("15-Mai-24  16:53:54", None), ("15-Dez-24 16:53:54", None), ("16:53:54", None), ("", None),
        ("24-05-15 16:53:54", None), ("05/15/2024 16:53:54", None), ("31-Feb-24 16:53:54", None),
        ("2024-13-05 16:53:54", None), ("15-May-24", None), ("15-May-24 25:00:00", None),
    ],
)  # fmt: skip
def test_dates(words: str, found: tuple[int, ...] | None) -> None:
    read = date_and_time(words)
    assert (read and read.timetuple()[:6]) == (found and found[:6])
    assert found is None or len(found) == 6 or (read and read.microsecond == found[6])


def test_an_mdoc_is_what_another_reader_makes_of_it(mdoc: Callable[..., Path], tmp_path: Path) -> None:
    mdocfile = pytest.importorskip("mdocfile")
    for kind in ({}, {"by_angle": False}, {"prior": False}):
        path = mdoc(tmp_path, **kind)
        theirs, ours = mdocfile.read(path), read_one(path)
        assert list(ours.angles) == pytest.approx(theirs["TiltAngle"].tolist())
        assert list(ours.doses) == pytest.approx(theirs["ExposureDose"].tolist())
        assert ours.voltage == theirs["Voltage"].iloc[0]
        assert ours.pixel_size == pytest.approx(theirs["PixelSpacing"].iloc[0])
        if "PriorRecordDose" in theirs and theirs["PriorRecordDose"].notna().all():
            assert list(ours.taken) == theirs["PriorRecordDose"].argsort().tolist()


def test_months_of_another_language_tell_no_order(shared: Path) -> None:
    series = read_one(shared / "faults" / "german_months.mdoc")
    assert not series.ordered
    assert (
        series.doubt
        == "has the DateTime '15-Mai-24  16:53:54' of [ZValue = 0], which is no date and time that can be "
        "read"
    )
    assert series.doses == (3.0,) * 5
    assert series.doses_before == ()


def test_what_else_leaves_the_order_open(mdoc: Callable[..., Path], tmp_path: Path) -> None:
    path = mdoc(tmp_path, prior=False)
    text = path.read_text()
    for old, new, doubt in (
        ("DateTime = 12-Mar-24  14:12:33\n", "", "has no DateTime of"),
        ("12-Mar-24  14:13:33", "12-Mar-24  14:12:33", "gives several images the same DateTime"),
        ("12-Mar-24  14:13:33", "14:13:33", "has the DateTime '14:13:33' of"),
    ):
        path.write_text(text.replace(old, new))
        series = read_one(path)
        assert not series.ordered
        assert doubt in series.doubt
    path = mdoc(tmp_path)
    path.write_text(path.read_text().replace("14:12:33", "15:12:33"))
    assert not read_one(path).ordered
    assert "by PriorRecordDose and another by DateTime" in read_one(path).doubt


# ---------------------------------------------------------------------------------------------- .tlt


@pytest.mark.parametrize("second", ["from 0", "from 1", "before"])
def test_a_second_column(tmp_path: Path, second: str) -> None:
    lines = ["# angle, and more", ""]
    for angle, before in zip(ANGLES, BEFORE, strict=True):
        rank = round(before / 3)
        more = {"from 0": rank, "from 1": rank + 1, "before": before + 0.5 * (before > 0)}[second]
        lines.append(f"  {angle:7.2f}  {more}   # a comment")
    (tmp_path / "a.tlt").write_text("\n".join(lines))
    series = read_one(tmp_path / "a.tlt")
    assert series.angles == tuple(ANGLES)
    assert [series.angles[k] for k in series.taken] == TAKEN
    assert series.ordered
    assert bool(series.doses) == (second == "before")


def test_one_dose_for_all_and_three_columns(tmp_path: Path) -> None:
    rows = list(zip(ANGLES, BEFORE, strict=True))
    (tmp_path / "a.tlt").write_text("\n".join(f"{angle} 3.0" for angle, _ in rows))
    assert (read_one(tmp_path / "a.tlt").doses, read_one(tmp_path / "a.tlt").ordered) == ((3.0,) * 7, False)
    (tmp_path / "b.tlt").write_text("\n".join(f"{angle} {before / 3 + 1:.0f} 3.0" for angle, before in rows))
    acquired(read_one(tmp_path / "b.tlt"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 5\n3 7\n6 9\n", "second column is neither the order of acquisition"),
        ("0 0\n3 0\n6 0\n", "second column is neither"),
        ("0 0\n3 1\n6\n", "line 3: '6' has 1 numbers"),
        ("0 1 2 3\n", "line 1: '0 1 2 3' has 4 numbers"),
        ("0 1 0\n3 0 0\n", "the dose of each image, must be positive"),
        ("0,5 1\n", "'0,5 1' is not an angle"),
    ],
)
def test_columns_that_may_mean_two_things(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.tlt").write_text(text)
    with pytest.raises(InputError, match=words):
        read_one(tmp_path / "a.tlt")


# ------------------------------------------------------------------------------------------- AreTomo, IMOD


def aln(path: Path, rot: float = 84.5) -> Path:
    head = "# AreTomo Alignment / Priims bprmMn \n# RawSize = 64 60 8\n# NumPatches = 1\n"
    head += "# DarkFrame =  3 3 -1.00\n# AlphaOffset = 0.00\n# BetaOffset = 0.00\n"
    head += "# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT\n"
    rows = [
        f"{k:5d} {rot:9.4f} {1:9.5f} {4.0 * k - 3:9.3f} {-2.5 * k:9.3f} 1.00 1.00 1.00 0.00 {angle:8.2f}"
        for k, angle in enumerate(ANGLES)
    ]
    path.write_text(head + "\n".join(rows) + "\n# Local Alignment\n 0 0 1.0 2.0 3.0 4.0 1.0\n")
    return path


def test_aretomos_alignment(tmp_path: Path) -> None:
    series = read_one(aln(tmp_path / "TS_01.aln"))
    assert (series.name, series.angles, series.ordered) == ("TS_01", tuple(ANGLES), False)
    assert series.tilt_axis == pytest.approx(84.5)


def test_aretomos_alignment_is_what_another_reader_makes_of_it(tmp_path: Path) -> None:
    alnfile = pytest.importorskip("alnfile")
    from alnfile.imod_utils import df_to_xf

    path = aln(tmp_path / "a.aln")
    table = alnfile.read(path)
    assert list(table["tilt"]) == list(read_one(path).angles)
    theirs, ours = df_to_xf(table), read_alignment(path)
    assert ours.matrices == pytest.approx(theirs[:, :, :2])
    assert ours.shifts == pytest.approx(theirs[:, :, 2])
    lines = [" ".join(f"{v:.6f}" for v in (*m[:, :2].ravel(), *m[:, 2])) for m in theirs]
    (tmp_path / "a.xf").write_text("\n".join(lines) + "\n")
    again = read_alignment(tmp_path / "a.xf")
    assert again.matrices == pytest.approx(ours.matrices, abs=1e-5)
    assert again.shifts == pytest.approx(ours.shifts, abs=1e-5)
    assert again.tilt_axis == pytest.approx(84.5, abs=1e-3)
    etomo = pytest.importorskip("etomofiles.utils")
    np.testing.assert_allclose(np.asarray(etomo.read_xf(tmp_path / "a.xf"), float).reshape(-1, 6)[:, :4],
                               again.matrices.reshape(-1, 4))  # fmt: skip


def test_imods_xf_takes_its_angles_from_beside_it(tmp_path: Path) -> None:
    lines = ["0.0958 0.9954 -0.9954 0.0958 12.5 -3.25"] * 7
    (tmp_path / "TS_01.xf").write_text("\n".join(lines))
    with pytest.raises(
        InputError, match=r"TS_01.xf moves images and holds no angles; put TS_01.tlt beside it"
    ):
        read_one(tmp_path / "TS_01.xf")
    (tmp_path / "TS_01.tlt").write_text("\n".join(map(str, ANGLES)))
    series = read_one(tmp_path / "TS_01.xf")
    assert (series.angles, round(series.tilt_axis or 0, 1)) == (tuple(ANGLES), 84.5)
    (tmp_path / "TS_01.xf").write_text("\n".join(lines[:3]))
    with pytest.raises(InputError, match=r"has 3 images and .* has 7 angles"):
        read_one(tmp_path / "TS_01.xf")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.aln", "1 2 3\n", "does not fit the columns of an AreTomo"),
        ("a.aln", "# nothing\n", "is not an AreTomo .aln: it has no rows"),
        ("a.aln", "# SEC ROT TILT\n0 85 three\n", "TILT is 'three', not a number"),
        ("a.xml", "<TiltSeries>", "is not XML that can be read"),
        ("a.xml", "<Movie/>", "is not Warp's file of a tilt series"),
        (
            "a.xml",
            "<TiltSeries><Angles>1 2</Angles><Dose>1</Dose></TiltSeries>",
            "has 2 Angles and 1 of Dose",
        ),
        ("a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><TiltSeries/>', "has a document type"),
        ("a.tomostar", "data_\n\nloop_\n_wrpDose #1\n3\n4\n", "nor a .tomostar with wrpAngleTilt"),
    ],
)
def test_files_that_are_not_what_their_names_say(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words) as error:
        read_series(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [("1 0 0 1 0\n", "line 1: an .xf has six"), ("", "lists no images"), ("1 1 1 1 0 0\n", "flattens")],
)
def test_a_wrong_xf(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.xf").write_text(content)
    with pytest.raises(InputError, match=words):
        read_alignment(tmp_path / "a.xf")


# ----------------------------------------------------------------------------------------------- Warp


def test_warps_tomostar(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "wrpMovieName": [f"../frames/TS_01_{k:03d}.tif" for k in range(7)], "wrpAngleTilt": ANGLES,
            "wrpAxisAngle": 84.5, "wrpDose": BEFORE, "wrpAverageIntensity": 3.1, "wrpMaskedFraction": 0.0,
        }
    )  # fmt: skip
    starfile.write(frame, tmp_path / "TS_01.star")
    series = read_one((tmp_path / "TS_01.star").rename(tmp_path / "TS_01.tomostar"))
    acquired(series)
    assert (series.name, series.tilt_axis) == ("TS_01", 84.5)


def test_warps_xml(tmp_path: Path) -> None:
    text = [
        '<?xml version="1.0" encoding="utf-16"?>',
        '<TiltSeries DataDirectory="" AreAnglesInverted="True">',
    ]
    lists = {"Angles": [*ANGLES, 12.0], "Dose": [*BEFORE, 21.0], "AxisAngle": [84.5] * 8}
    for tag, values in {**lists, "UseTilt": ["True"] * 7 + ["False"]}.items():
        text.append(f"<{tag}>" + "\n".join(map(str, values)) + f"</{tag}>")
    facts = {"PixelSize": 2.25, "Voltage": 300, "Cs": 2.7, "Defocus": 3.5}
    text += ["<CTF>", *(f'<Param Name="{key}" Value="{value}" />' for key, value in facts.items()), "</CTF>"]
    (tmp_path / "TS_01.xml").write_text("\n".join([*text, "</TiltSeries>"]))
    series = read_one(tmp_path / "TS_01.xml")
    acquired(series)
    assert (series.pixel_size, series.voltage, series.spherical_aberration) == (2.25, 300, 2.7)
    assert (series.defocus, series.tilt_axis) == (3.5, 84.5)


# ----------------------------------------------------------------------------------------------- RELION


def relion4(folder: Path, hand: Any = -1, axis: float = 84.5, scale: float = 1.0) -> Path:
    """Write a tomograms.star of RELION 4, with projections as its documentation composes them."""
    c, s = np.cos(np.radians(axis)), np.sin(np.radians(axis))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    rows = []
    for angle in np.radians(ANGLES):
        tilt = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        rows.append(scale * turn @ tilt)
    words = {
        f"rlnTomoProj{name}": [f"[{m[k][0]:.12g},{m[k][1]:.12g},{m[k][2]:.12g},{100 * k}]" for m in rows]
        for k, name in enumerate("XYZ")
    }
    table = pd.DataFrame(
        {**words, "rlnTomoProjW": "[0,0,0,1]", "rlnDefocusU": 30000.0, "rlnMicrographPreExposure": BEFORE}
    )
    facts = {
        "rlnTomoName": ["0012", "TS_02"], "rlnTomoFrameCount": 7, "rlnTomoSizeX": 4000, "rlnTomoHand": hand,
        "rlnTomoTiltSeriesPixelSize": 1.35, "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7,
        "rlnTomoTiltSeriesName": "ts.mrc:mrc",
    }  # fmt: skip
    path = folder / "tomograms.star"
    starfile.write({"global": pd.DataFrame(facts), "0012": table, "TS_02": table}, path)
    return path


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_relion_4(tmp_path: Path, scale: float) -> None:
    one, two = read_series(relion4(tmp_path, scale=scale))
    assert (one.name, two.name) == ("0012", "TS_02")
    for series in (one, two):
        acquired(series)
        assert (series.pixel_size, series.voltage, series.spherical_aberration) == (1.35, 300, 2.7)
        assert (series.defocus, series.handedness) == (pytest.approx(3.0), -1)
        assert series.tilt_axis == pytest.approx(84.5)
    assert read_one(f"{tmp_path / 'tomograms.star'}#0012").name == "0012"


def test_hands_and_matrices_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rlnTomoHand of 0012 is 0; it must be 1 or -1"):
        read_series(relion4(tmp_path, hand=0))
    assert read_series(relion4(tmp_path, hand=1.0))[0].handedness == 1
    path = relion4(tmp_path)
    whole = path.read_text()
    path.write_text(whole.replace(",200]", "]"))
    with pytest.raises(InputError, match="a value of rlnTomoProjZ is not a row of four numbers"):
        read_series(path)
    path.write_text(whole.replace("data_TS_02", "data_other"))
    with pytest.raises(InputError, match="lists the tomogram TS_02 and has no block data_TS_02"):
        read_series(path)


def test_relion_5_tells_the_hand(relion: Callable[..., Path], tmp_path: Path) -> None:
    assert [series.handedness for series in read_series(relion(tmp_path))] == [-1, -1]


# ---------------------------------------------------------------- where the order matters: dose and recipes


def stack(folder: Path, images: np.ndarray) -> None:
    with mrcfile.new(folder / "ts.st") as file:
        file.set_data(images.astype(np.float32))
        file.set_image_stack()
        file.voxel_size = 5.0


def reconstruct(folder: Path, angles: str, *options: str, to: str = "out.mrc") -> Result:
    command = [
        "reconstruct",
        f"{folder}/ts.st",
        "--angles",
        angles,
        "--to",
        f"{folder}/{to}",
        "--threads",
        "2",
    ]
    return CliRunner().invoke(tlgen, [*command, "--thickness", "60", "--yes", *options])


def test_dose_weighting_needs_an_order(shared: Path, tmp_path: Path) -> None:
    stack(tmp_path, np.random.default_rng(0).normal(100, 5, (5, 20, 24)))
    angles = str(shared / "faults" / "german_months.mdoc")
    refused = reconstruct(tmp_path, angles, "--dose-weighting")
    assert isinstance(refused.exception, InputError)
    for words in ("15-Mai-24", "--order stack", "dose_symmetric:negative"):
        assert words in str(refused.exception)
    assert not (tmp_path / "out.mrc").exists()
    assert reconstruct(tmp_path, angles).exit_code == 0
    (tmp_path / "order.txt").write_text("5 3 1 2 4\n")  # negative first, as 0 -3 3 would be: 0, 3, -3, 6, -6
    ways = ["stack", "dose_symmetric:negative", "dose_symmetric:positive", str(tmp_path / "order.txt")]
    for k, way in enumerate(ways):
        done = reconstruct(tmp_path, angles, "--dose-weighting", "--order", way, to=f"{k}.mrc")
        assert done.exit_code == 0, done.exception
    made = [open_volume(tmp_path / f"{k}.mrc").read() for k in range(4)]
    assert np.array_equal(made[2], made[3])
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert not np.array_equal(made[one], made[other])
    for way, words in (("sideways", "give stack, dose_symmetric"), (str(tmp_path / "ts.st"), "numbers and")):
        assert words in str(reconstruct(tmp_path, angles, "--order", way).exception)


def test_doses_by_option(tmp_path: Path) -> None:
    stack(tmp_path, np.random.default_rng(0).normal(100, 5, (7, 20, 24)))
    (tmp_path / "a.tlt").write_text("\n".join(map(str, ANGLES)))
    refused = reconstruct(tmp_path, f"{tmp_path}/a.tlt", "--dose-weighting")
    assert "or --dose-per-tilt" in str(refused.exception)
    refused = reconstruct(tmp_path, f"{tmp_path}/a.tlt", "--dose-weighting", "--dose-per-tilt", "3")
    assert "a.tlt tells no order of acquisition" in str(refused.exception)
    options = ("--dose-weighting", "--dose-per-tilt", "3", "--order", "stack")
    assert reconstruct(tmp_path, f"{tmp_path}/a.tlt", *options).exit_code == 0


def test_a_recipe_says_that_the_order_is_not_known(
    shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content: dict[str, Any] = {
        "name": "mine", "shape": [16, 16, 16],
        "acquisition": {"tilt_series": str(shared / "faults" / "german_months.mdoc")},
        "targets": {"a": {"structures": ["4v5d"], "count": 1}}, "samples": {"train": {"number": 1}},
    }  # fmt: skip
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    read_recipe(str(tmp_path / "a.yaml"))
    assert "15-Mai-24" in caplog.text
    assert "write the tilts as text in the order in which they were taken" in caplog.text
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**content, "reconstruction": {"dose_weighting": True}}))
    with pytest.raises(InputError, match="dose_weighting needs the order of the tilts"):
        read_recipe(str(tmp_path / "a.yaml"))


# ------------------------------------------------------------------------------------- raw stacks, aligned


@pytest.mark.parametrize("kind", ["xf", "aln"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_raw_stack_is_aligned(projections: Draw, peak: Peak, tmp_path: Path, kind: str, times: int) -> None:
    """Images of a spot are drawn with a turned axis and shifts, and come back where the spot is."""
    tilts = np.arange(-60.0, 61.0, 3.0)
    size, point = (24, 60, 60), np.array([36.5, 24.5, 15.5])
    rng = np.random.default_rng(3)
    moved, axis = rng.uniform(-4, 4, (len(tilts), 2)), np.radians(20.0)
    back = np.array([[np.cos(axis), np.sin(axis)], [-np.sin(axis), np.cos(axis)]])  # raw -> aligned
    y, x = np.mgrid[:60, :60] - 29.5
    images = np.full((len(tilts), 60, 60), 100.0)
    for k, tilt in enumerate(np.radians(tilts)):
        p = point - (np.array(size[::-1]) - 1) / 2
        aligned = np.array([p[0] * np.cos(tilt) + p[2] * np.sin(tilt), p[1]])
        raw = back.T @ aligned + moved[k]  # where the raw image shows it
        images[k] -= 10 * np.exp(-((x - raw[0]) ** 2 + (y - raw[1]) ** 2) / 8)
    stack(tmp_path, images)
    (tmp_path / "ts.tlt").write_text("\n".join(map(str, tilts)))
    if kind == "xf":
        shifts = -moved @ back.T
        lines = [" ".join(map(str, (*back.ravel(), *shift))) for shift in shifts]
        (tmp_path / "ts.xf").write_text("\n".join(lines))
    else:
        head = "# AreTomo\n# SEC ROT GMAG TX TY SMEAN SFIT SCALE BASE TILT\n"
        rows = [
            f"{k} 20.0 1 {m[0]} {m[1]} 1 1 1 0 {t}" for k, (m, t) in enumerate(zip(moved, tilts, strict=True))
        ]
        (tmp_path / "ts.aln").write_text(head + "\n".join(rows))
    options = ("--align", f"{tmp_path}/ts.{kind}", "--bin", str(times), "--thickness", "120")
    done = reconstruct(tmp_path, f"{tmp_path}/ts.tlt", *options)
    assert done.exit_code == 0, done.exception
    volume = open_volume(tmp_path / "out.mrc")
    found = peak(volume.read()) * times + np.array(volume.origin) / 5
    assert np.abs(found[:2] - point[:2]).max() < 0.25 * times
    both = reconstruct(tmp_path, f"{tmp_path}/ts.tlt", *options, "--tilt-axis", "20")
    assert "--align and --tilt-axis both turn the images" in str(both.exception)
    (tmp_path / "short.xf").write_text("1 0 0 1 0 0\n")
    short = reconstruct(tmp_path, f"{tmp_path}/ts.tlt", "--align", f"{tmp_path}/short.xf")
    assert "has 41 images and" in str(short.exception)
