"""``tlgen match --tomogram``: ranges of a recipe whose simulated spectra enclose that of a tomogram."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from catalogs.errors import InputError
from catalogs.seeds import generator
from catalogs.tomogram_look import SHELLS, TomogramLook
from catalogs.volumes import write_mrc
from tlgen.cli import tlgen
from tlgen.commands.match import match_tomogram
from tlgen.recipes.from_tomogram import Corner, Measured, Ranges, first_ranges, measure_tomogram
from tlgen.recipes.recipe_file import read_recipe
from tlgen.recipes.samples import expand
from tlgen.recipes.spectrum_fit import fit_ranges, outside, spectrum_in_words

SIZE = 10.0


def look(shells: Any, zero: float | None = None, thickness: float = 600.0) -> TomogramLook:
    shares = np.asarray(shells, np.float64)
    return TomogramLook(
        voxel_size=SIZE,
        shells=list(shares / shares.sum()),
        tilt_range=60,
        first_zero=zero,
        thickness=thickness,
    )


def spectrum(corner: Corner, low: float = 1.0, cut: float = 1.0) -> TomogramLook:
    """A toy of a microscope: matter at low frequencies, blurred by shifts, and noise by the dose."""
    f = (np.arange(SHELLS) + 0.5) / SHELLS / 2
    matter = low * (3.0 if corner.contrast == "physical" else 0.2) * np.exp(-f / 0.02)
    middle = 0.5 * np.exp(-(((f - 0.02 * corner.defocus) / 0.12) ** 2))
    blur = np.exp(-((2 * np.pi * f * corner.shift / SIZE) ** 2))
    matter = matter + 1.5 * corner.dilute * np.exp(-(((f - 0.06) / 0.03) ** 2))
    noise = 30 / corner.dose * np.cos(np.pi * f) ** 2 * np.where(f > cut, 0.02, 1.0)
    return look((matter + middle) * blur + noise)


RANGES = Ranges(dose=(80, 140), defocus=(1.5, 4), depth=560, why={"dose": "template", "defocus": "template"})


def fitted(real: TomogramLook, ranges: Ranges = RANGES) -> Any:
    def simulate(corners: Sequence[Corner], now: Ranges) -> list[TomogramLook]:
        low = 1.0 + now.saturated + now.membranes
        return [spectrum(each, low, now.cutoff or 1.0) for each in corners]

    return fit_ranges(real, ranges, simulate)


def test_what_lies_between_the_boxes_changes_no_range() -> None:
    real = spectrum(Corner("physical", 100, 2.5, 3.0), low=0.4)
    found = fitted(real)
    assert len(found.boxes) == 4
    assert not found.left
    assert (found.ranges.dose, found.ranges.defocus, found.ranges.shift) == ((80, 140), (1.5, 4), (0, 8))
    assert set(found.ranges.contrast) == {"physical", "parakeet"}
    assert "contrast physical" in found.ranges.why["contrast"]


def test_more_noise_lowers_the_dose_until_it_is_enclosed() -> None:
    real = spectrum(Corner("parakeet", 45, 2.5, 3.0))
    found = fitted(real)
    assert found.ranges.dose[0] < 60
    assert "details from" in found.ranges.why["dose"]
    assert not found.left
    high = slice(int(0.6 * SHELLS), SHELLS)
    assert (outside(real, [box.look for box in found.boxes])[high] == 1).all()


def test_more_large_matter_packs_boxes_and_adds_membranes() -> None:
    found = fitted(spectrum(Corner("physical", 140, 4, 0), low=6))
    assert found.ranges.saturated
    assert found.ranges.membranes
    keys = found.ranges.content()
    assert keys["packing"]["fill"] == "saturation"
    assert "sheets" in keys["decorations"]
    assert found.ranges.contrast == ("physical",)
    packed = Ranges(dose=(80, 140), defocus=(1.5, 4), depth=560, saturated=True, membranes=True,
                    why=RANGES.why)  # fmt: skip
    assert not {"packing", "decorations"} & set(
        fitted(spectrum(Corner("physical", 100, 3, 0)), packed).ranges.content()
    )


def test_dilute_boxes_are_added_for_large_details() -> None:
    real = spectrum(Corner("physical", 110, 2.5, 3.0, dilute=True), low=0.5)
    found = fitted(real)
    assert found.ranges.content()["samples"]["train-dilute"]["packing"] == {"gap": 20, "concentration": 60}
    assert "details from 400 to 133 Å" in found.ranges.why["samples"]
    assert not found.ranges.membranes
    assert not found.left


def test_a_filtered_tomogram_gives_the_filter() -> None:
    found = fitted(spectrum(Corner("physical", 100, 2.5, 3.0), low=0.4, cut=0.3))
    assert found.ranges.cutoff == pytest.approx(0.3, abs=0.051)
    assert found.ranges.content()["reconstruction"]["rolloff"] == "gaussian"
    assert "filtered" in found.ranges.why["reconstruction"]


def test_what_cannot_be_reached_is_said() -> None:
    flat = np.full(SHELLS, 1e-4)
    flat[7] = 1
    found = fitted(look(flat))
    assert found.left
    words = spectrum_in_words(look(flat), [box.look for box in found.boxes])
    assert "of 20 shells" in words
    assert "furthest near" in words


def test_thick_ice_makes_thick_boxes_and_takes_electrons() -> None:
    below = read_recipe("demo")
    thin = first_ranges(Measured(look(np.ones(SHELLS)), None, 0, 600), below, {}, 440)
    assert (thin.depth, thin.dose, thin.vacuum) == (600, (80, 140), 0)
    thick = first_ranges(Measured(look(np.ones(SHELLS), thickness=1600), None, 0, 2400), below, {}, 440)
    assert thick.depth == 1000
    assert thick.dose[0] == pytest.approx(80 * np.exp(-600 / 3150))
    assert "electrons" in thick.why["dose"]


def test_gold_in_the_tomogram_is_put_into_boxes() -> None:
    below = read_recipe("demo")
    gold = first_ranges(Measured(look(np.ones(SHELLS)), None, 3, 600), below, {}, 440)
    assert gold.content()["decorations"] == {"beads": {"number": [0, 2]}}
    assert "3 beads" in gold.why["beads"]
    none = first_ranges(Measured(look(np.ones(SHELLS)), None, 0, 600), below, {}, 440)
    assert "decorations" not in none.content()


def test_defocus_is_that_of_the_series_or_of_the_first_zero_or_bounded() -> None:
    below = read_recipe("demo")

    def defocus(zero: float | None, known: dict[str, Any]) -> tuple[float, float]:
        return first_ranges(Measured(look(np.ones(SHELLS), zero), None, 0, 600), below, known, 440).defocus

    assert defocus(None, {"defocus": {"min": 3, "max": 5}}) == (3, 5)
    low, high = defocus(27.0, {})  # 3.7 µm at 300 kV
    assert (low, high) == (pytest.approx(2.7, abs=0.05), pytest.approx(4.7, abs=0.05))
    low, high = defocus(None, {})  # a zero coarser than 20 Å would be seen: below 2.03 µm, and a margin
    assert low <= 1.5
    assert high == pytest.approx(3.05, abs=0.05)


def ice(shape: tuple[int, int, int] = (96, 80, 80)) -> np.ndarray:
    """Noise everywhere, and matter from plane 20 to plane 70."""
    rng = generator("match", "ice")
    values = rng.standard_normal(shape, np.float32)
    values[20:70] += 4 * gaussian_filter(rng.standard_normal((50, *shape[1:]), np.float32), 2.0)
    return values


def test_the_tomogram_is_measured_inside_of_the_ice(tmp_path: Path) -> None:
    write_mrc(tmp_path / "TS.mrc", ice(), SIZE)
    found = measure_tomogram(str(tmp_path / "TS.mrc"))
    assert found.look.thickness == pytest.approx(500, abs=100)
    assert found.slab is not None
    assert found.height == 960
    write_mrc(tmp_path / "small.mrc", ice()[:10], SIZE)
    with pytest.raises(InputError, match=r"small\.mrc is too small to measure its power spectrum"):
        measure_tomogram(str(tmp_path / "small.mrc"))
    write_mrc(tmp_path / "flat.mrc", np.zeros((64, 64, 64), np.float32), SIZE)
    with pytest.raises(InputError, match=r"flat\.mrc: the volume is constant"):
        measure_tomogram(str(tmp_path / "flat.mrc"))


def test_mistakes_are_told(mdoc: Callable[..., Path], tmp_path: Path) -> None:
    path = str(mdoc(tmp_path))
    write_mrc(tmp_path / "TS.mrc", ice(), SIZE)
    for more, words in (
        ([], "--tomogram needs --to"),
        (["--to", str(tmp_path / "a.yaml"), "--voxel-size", "8"], "leave out --voxel-size"),
        (["--to", str(tmp_path / "a.txt")], "must end in .yaml"),
        (["--to", str(tmp_path / "a.yaml"), "--template", "dmeo"], "there is no recipe"),
    ):
        result = CliRunner().invoke(tlgen, ["match", path, "--tomogram", str(tmp_path / "TS.mrc"), *more])
        assert isinstance(result.exception, InputError), result.output
        assert words in str(result.exception)
    assert not (tmp_path / "a.yaml").exists()


@pytest.mark.slow
def test_a_recipe_and_a_page_are_written(mdoc: Callable[..., Path], client: Any, tmp_path: Path) -> None:
    write_mrc(tmp_path / "TS.mrc", ice(), SIZE)
    to, template = tmp_path / "mine.yaml", tmp_path / "small.yaml"
    words = {"name": "small", "shape": [40, 48, 48], "samples": {"train": {"number": 2}}}
    words["targets"] = {"ferritin": {"structures": ["4v1w"], "count": 6, "variants": {"number": 0}}}
    words["acquisition"] = {"voxel_size": 10, "dose": {"min": 90, "max": 110}}
    template.write_text(yaml.safe_dump(words))
    made = match_tomogram(
        str(mdoc(tmp_path)), str(tmp_path / "TS.mrc"), str(to), str(template), box=(32, 40, 40), rounds=1,
        cluster=client.scheduler.address,
    )  # fmt: skip
    text = "\n".join(made.found)
    assert "spectrum: the tomogram lies between" in text
    assert "ice from z" in text
    recipe, content = read_recipe(str(to)), yaml.safe_load(to.read_text())
    assert recipe.voxel_size == SIZE
    assert recipe.shape[0] == pytest.approx(50, abs=10)
    assert content["acquisition"]["contrast"]
    for spec in expand(recipe, {"a": 1}):
        assert spec.acquisition.shift_error <= 16
    page = (tmp_path / "mine.match.html").read_text()
    assert "<polyline" in page
    assert "TS.mrc" in page
    assert "shift_error" in page
    again = match_tomogram(
        str(mdoc(tmp_path)), str(tmp_path / "TS.mrc"), str(to), box=(32, 40, 40), rounds=0, cluster="threads"
    )
    assert "the rest is unchanged" in again.remark
    assert (tmp_path / "mine.yaml.before").exists()
