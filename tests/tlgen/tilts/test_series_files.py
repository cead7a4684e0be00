"""Files that tell how a tilt series was taken, and recipes that name them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from catalogs.errors import InputError
from tlgen.recipes.recipe_file import read_recipe
from tlgen.recipes.samples import expand
from tlgen.tilts.scheme import order, tilt_series
from tlgen.tilts.series_files import read_one, read_series

ANGLES = [float(a) for a in range(-9, 10, 3)]
TAKEN = order(ANGLES, "dose_symmetric", group=2)


@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize("by_angle", [True, False])
def test_an_mdoc_tells_order_and_doses(
    mdoc: Callable[..., Path], tmp_path: Path, prior: bool, by_angle: bool
) -> None:
    series = read_one(mdoc(tmp_path, prior=prior, by_angle=by_angle))
    assert list(series.angles) == pytest.approx(ANGLES if by_angle else TAKEN, abs=0.01)
    assert [series.angles[k] for k in series.taken] == pytest.approx(TAKEN, abs=0.01)
    assert series.ordered
    assert series.dose == pytest.approx(7 * 3.2)
    assert [series.doses_before[k] for k in series.taken] == pytest.approx([3.2 * k for k in range(7)])
    assert (series.name, series.pixel_size, series.voltage, series.defocus) == ("ts_01", 2.74, 300, 4.0)
    assert series.tilt_axis == 85.1
    assert series.in_words().startswith("0:3.2 -3:3.2 -6:3.2 3:3.2")


def test_doses_follow_from_what_had_accumulated(mdoc: Callable[..., Path], tmp_path: Path) -> None:
    series = read_one(mdoc(tmp_path, dose=0))
    assert series.doses == pytest.approx([3.2] * 7)
    without = read_one(mdoc(tmp_path, dose=0, prior=False))
    assert without.doses == ()
    assert without.in_words() == "0 -3 -6 3 6 -9 9"


def test_nothing_tells_the_order(mdoc: Callable[..., Path], tmp_path: Path) -> None:
    series = read_one(mdoc(tmp_path, prior=False, dates=False, by_angle=False))
    assert not series.ordered
    assert [series.angles[k] for k in series.taken] == pytest.approx(TAKEN, abs=0.01)


def test_a_tlt_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "ts.rawtlt"
    path.write_text("  -3.00\n 0.00\n\n 3.00 \n")
    assert read_one(path).angles == (-3, 0, 3)
    assert read_one(path).in_words() == "-3 0 3"


@pytest.mark.parametrize("refined", [True, False])
def test_relions_project_tells_all_its_series(
    relion: Callable[..., Path], tmp_path: Path, refined: bool
) -> None:
    path = relion(tmp_path, refined=refined)
    one, two = read_series(path)
    assert (one.name, two.name) == ("TS_01", "TS_02")
    assert [one.angles[k] for k in one.taken] == [angle + refined for angle in TAKEN]
    assert one.doses == pytest.approx([3] * 7)
    assert (one.pixel_size, one.voltage, one.spherical_aberration, one.tilt_axis) == (1.35, 300, 2.7, 85.5)
    assert (one.defocus, two.defocus) == pytest.approx((3.0, 3.01))
    path.write_text(path.read_text().replace(" 2.7 0.1 ", " 0.0 0.1 "))  # of a corrected microscope
    assert read_series(path)[0].spherical_aberration == 0
    assert read_one(f"{path}#TS_02").name == "TS_02"
    alone = read_one(path.parent / "tilt_series/TS_01.star")
    assert alone.angles == one.angles
    with pytest.raises(InputError, match=r"say which as .*#TS_01"):
        read_one(path)
    with pytest.raises(InputError, match="has no tilt series TS_9"):
        read_series(f"{path}#TS_9")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.tlt", "0\nabc\n", "line 2: 'abc' is not an angle"),
        ("a.tlt", "0 1 2 3\n", "give one number a line"),
        ("a.tlt", "\n", "lists no tilts"),
        ("a.tlt", "0\n95\n", "tilt of 95° is impossible"),
        ("a.tlt", "0\nnan\n", "impossible"),
        ("a.mdoc", "PixelSpacing = 2\n", r"no \[ZValue = ...\] sections"),
        ("a.mdoc", "[ZValue = 0]\nTiltAngle = 3\n[ZValue = 1]\nDefocus = 2\n", r"1\] has no TiltAngle"),
        ("a.mdoc", "[ZValue = 0]\nTiltAngle = three\n", "'three', not a number"),
        ("a.mdoc", "[ZValue = 0]\nTiltAngle = 3\n[ZValue = 0]\nTiltAngle = 6\n", "twice"),
        ("a.star", "data_\nloop_\n_rlnFoo #1\n1\n", "is neither a tomograms.star"),
        ("a.txt", "0\n", "tells no tilt series"),
    ],
)  # fmt: skip
def test_a_file_that_tells_no_series_is_refused(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words) as error:
        read_series(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(relion: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*ts\.mdoc"):
        read_series(tmp_path / "ts.mdoc")
    path = relion(tmp_path)
    (path.parent / "tilt_series/TS_02.star").unlink()
    with pytest.raises(InputError, match="of TS_02 is not there"):
        read_series(path)


# -------------------------------------------------------------------------------------------- recipes


def recipe(folder: Path, acquisition: dict[str, object], **group: object) -> Path:
    path = folder / "mine.yaml"
    content = {
        "name": "mine", "shape": [16, 16, 16], "acquisition": acquisition,
        "targets": {"a": {"structures": ["4v5d"], "count": 1}}, "samples": {"train": {"number": 3, **group}},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_recipe_takes_its_tilts_from_an_mdoc_beside_it(mdoc: Callable[..., Path], tmp_path: Path) -> None:
    mdoc(tmp_path)
    read = read_recipe(str(recipe(tmp_path, {"tilt_series": "ts_01.mrc.mdoc"})))
    spec = expand(read, {"a": 1})[0]
    tilts = tilt_series(spec.acquisition)
    assert [t.angle for t in tilts] == TAKEN
    assert [t.dose for t in tilts] == pytest.approx([3.2] * 7)
    assert spec.acquisition.dose == pytest.approx(22.4)
    # what is stored of the recipe makes the same samples where the file is not
    (tmp_path / "ts_01.mrc.mdoc").unlink()
    stored = type(read).model_validate(read.model_dump(mode="json", exclude_defaults=True))
    assert expand(stored, {"a": 1})[0].sample_id == spec.sample_id


def test_the_series_is_part_of_a_samples_identity(mdoc: Callable[..., Path], tmp_path: Path) -> None:
    ids = set()
    for dose in (3.2, 3.3):
        mdoc(tmp_path, dose=dose)
        words = {"tilt_series": "ts_01.mrc.mdoc", "dose": 100}
        read = read_recipe(str(recipe(tmp_path, words)))
        ids.add(expand(read, {"a": 1})[0].sample_id)
    (tmp_path / "a.tlt").write_text("0\n3\n-3\n")
    ids.add(expand(read_recipe(str(recipe(tmp_path, {"tilt_series": "a.tlt"}))), {"a": 1})[0].sample_id)
    assert len(ids) == 3


def test_all_series_of_a_project_are_chosen_from_or_combined(
    relion: Callable[..., Path], tmp_path: Path
) -> None:
    path = relion(tmp_path, refined=False)
    name = str(path.relative_to(tmp_path))
    read = read_recipe(str(recipe(tmp_path, {"tilt_series": name})))
    assert len(read.acquisition["tilt_series"]) == 2
    grid = read_recipe(str(recipe(tmp_path, {}, grid={"tilt_series": [f"{name}#TS_01", "0 3 -3"]})))
    specs = expand(grid, {"a": 1})
    assert len(specs) == 6
    assert {len(tilt_series(spec.acquisition)) for spec in specs} == {7, 3}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("gone.mdoc", "there is no file gone.mdoc"),
        ([0, 3, -3], "write the tilts as text"),
        ("0:3 three", r"tilt_series: '0:3 three' is not a list .*, and no \.mdoc"),
    ],
)
def test_a_recipe_with_a_wrong_series_is_refused(tmp_path: Path, given: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        read_recipe(str(recipe(tmp_path, {"tilt_series": given})))
    assert "\n" not in str(error.value)
