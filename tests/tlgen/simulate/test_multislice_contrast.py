"""What atoms weigh in our engine: every element, and each contrast; against abTEM and other tables."""

from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np
import pytest

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library, Molecule, centred
from tlgen.molecules.structures import load_structure
from tlgen.scene.scene import Scene
from tlgen.simulate.microscope import inelastic, optics, potentials
from tlgen.simulate.multislice.multislice import Multislice
from tlgen.simulate.parakeet import Parakeet
from tlgen.tilts.scheme import Tilt

TILT = Tilt(0, 0.0, 2.0, 0.0)


def molecule(elements: np.ndarray, seed: int = 1, radius: float = 20.0) -> Molecule:
    inside = np.random.default_rng(seed).uniform(-radius, radius, (len(elements) * 4, 3))
    inside = inside[(inside**2).sum(axis=1) < radius**2][: len(elements)]
    return centred("ball", elements, inside, np.zeros(len(inside), bool))


def alone(body: Molecule, voxel_size: float = 8.0, n: int = 16) -> tuple[Scene, Library]:
    scene = Scene(
        (n, n, n), voxel_size, (body.digest,), (body.name,), (-1,), (1,), ("ball",),
        np.zeros(1, np.int64), np.zeros((1, 3)), np.array([[0.0, 0.0, 0.0, 1.0]]),
    )  # fmt: skip
    return scene, {body.digest: body}


def darkness(body: Molecule, **settings: object) -> float:
    """Sum of what the molecule takes from a phase plate's image: in proportion to its potential."""
    scene, library = alone(body)
    settings = {"ice_density": 0.0, "phase_plate": True, "defocus": 0.0, "damage": 0.0} | settings
    acq = Acquisition.model_validate(settings)
    image = Multislice().simulate(scene, library, acq, TILT, 1, noise=False)
    return float((1 - image).sum())


@pytest.mark.parametrize("element", potentials.KNOWN_ELEMENTS)
def test_every_element_scatters_as_its_own_potential_says(element: int) -> None:
    own, lost = potentials.scattering("physical"), inelastic.of_atoms(Acquisition(contrast="physical"), 2.0)
    assert lost is not None
    # in Å², less what is scattered too far to be seen
    ratio, carbon = (
        darkness(molecule(np.full(100, z)), contrast="physical") * 64 - 2 * 100 * lost[z]
        for z in (element, 6)
    )
    assert ratio / carbon == pytest.approx(own.integral[element] / own.integral[6], rel=0.05)


def test_factors_go_up_to_lawrencium_and_nothing_else_is_taken_for_carbon() -> None:
    assert list(potentials.KNOWN_ELEMENTS) == list(range(1, 104))
    for table in (potentials.scattering("parakeet"), potentials.scattering("physical")):
        assert (table.integral[1:] > 5).all()
        assert (table.squared_radius[1:] > 0.1).all()
    for number, words in ((104, "Rf"), (118, "Og"), (0, "unknown element")):
        body = molecule(np.array([6, 6, number, 7]))
        scene, library = alone(body)
        for engine in (Multislice(), Parakeet()):
            with pytest.raises(InputError, match=rf"structure ball: .*{words}.* atomic number {number};"):
                engine.simulate(scene, library, Acquisition(), TILT, 1)


def test_deuterium_is_hydrogen() -> None:
    assert gemmi.Element("D").atomic_number == 1


def test_elements_of_a_file_arrive_as_they_are(tmp_path: Path) -> None:
    names = ["C", "SE", "P", "I", "ZN", "FE", "MG", "NA", "BR", "MO", "W", "U"]
    lines = [
        f"HETATM{i + 1:5d} {name:>2s}   UNL A{i + 1:4d}    {3.0 * i:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00"
        f"          {name:>2s}"
        for i, name in enumerate(names)
    ]
    path = tmp_path / "metals.pdb"
    path.write_text("\n".join([*lines, "END"]) + "\n")
    body = load_structure(str(path))
    assert sorted(body.elements.tolist()) == sorted(gemmi.Element(n).atomic_number for n in names)
    assert darkness(body) > 0


def test_physical_potentials_are_those_that_others_tabulate() -> None:
    """Integrals of Peng et al. (Acta Cryst. A 52, 257, 1996), as gemmi has them, of protein's elements."""
    own = potentials.scattering("physical").integral
    for name in ("H", "C", "N", "O", "Na", "Mg", "P", "S", "Cl", "K", "Ca", "Fe", "Zn", "Se", "I"):
        element = gemmi.Element(name)
        peng = 47.878 * sum(element.c4322.a)
        assert own[element.atomic_number] == pytest.approx(peng, rel=0.04), name


def test_contrast_is_a_word_or_a_factor_of_parakeets() -> None:
    body = molecule(np.random.default_rng(0).choice([6, 7, 8], 400))
    weak = {c: darkness(body, contrast=c) for c in ("parakeet", 0.5, 1.0, 1.5, "physical")}
    assert weak[1.0] == weak["parakeet"]
    assert weak[0.5] / weak["parakeet"] == pytest.approx(0.5, rel=0.02)
    assert weak[1.5] / weak["parakeet"] == pytest.approx(1.5, rel=0.02)
    lost = inelastic.of_atoms(Acquisition(contrast="physical"), 2.0)
    assert lost is not None
    phase = weak["physical"] - 2 * float(lost[body.elements].sum()) / 64  # a voxel's Å²
    assert 1.6 < phase / weak["parakeet"] < 2.0


def test_contrast_of_ice_follows() -> None:
    scene, library = alone(molecule(np.full(3, 6)), n=24)

    def spread(contrast: object) -> float:
        acq = Acquisition.model_validate({"contrast": contrast, "padding": 32})
        return float(Multislice().simulate(scene, library, acq, TILT, 1, noise=False).std())

    usual = spread("parakeet")
    assert spread(0.5) / usual == pytest.approx(0.5, rel=0.03)
    assert spread("physical") / usual == pytest.approx(145.59 / 71.08, rel=0.05)


def test_parakeet_has_only_its_own_contrast() -> None:
    with pytest.raises(
        InputError, match=r"contrast: Parakeet's .* not physical; set contrast: parakeet or use"
    ):
        Parakeet().check(Acquisition(contrast="physical"))
    for word in ("phisical", True, 0, -1, float("nan")):
        with pytest.raises(
            ValueError, match=r"contrast(.|\n)*(must be parakeet, physical or a number|greater|finite)"
        ):
            Acquisition.model_validate({"contrast": word})


@pytest.mark.slow
@pytest.mark.parametrize("element", [1, 6, 7, 8, 15, 16, 26, 79])
@pytest.mark.parametrize("step", [1.0, 2.0, 8 / 3, 4.0])
def test_losses_are_what_the_factors_have_beyond_the_grid(element: int, step: float) -> None:
    """Lobato's factors as abTEM has them, over all frequencies outside of the grid's square."""
    parametrizations = pytest.importorskip("abtem.parametrizations", reason="abTEM is not installed")
    symbol = gemmi.Element(element).name
    q = np.linspace(0, 20, 40001)
    factor = np.asarray(parametrizations.LobatoParametrization().scattering_factor(symbol)(q**2))
    nyquist = 1 / (2 * step)
    outside = np.arccos(np.clip(nyquist / np.maximum(q, 1e-9), 0, 1)) * 4 / np.pi  # of the circle
    beyond = np.trapezoid(2 * np.pi * q * np.clip(outside, 0, 1) * factor**2, q)
    acq = Acquisition(contrast="physical", voltage=200)
    half = (optics.interaction(200) * 47.878) ** 2 / 2 * beyond
    found = inelastic.of_atoms(acq, step)
    assert found is not None
    assert found[element] == pytest.approx(half, rel=0.05)
    assert inelastic.of_atoms(Acquisition(), step) is None


def test_losses_darken_a_bead_of_gold_more_than_its_weight_in_carbon() -> None:
    """In focus and without a phase plate nothing else is seen of either."""
    seen = {}
    for name, element, number in (("gold", 79, 1000), ("carbon", 6, 1000)):
        body = molecule(np.full(number, element), radius=12.0)
        scene, library = alone(body)
        for contrast in ("physical", "parakeet"):
            acq = Acquisition(ice_density=0, damage=0, defocus=0, contrast=contrast)
            image = Multislice().simulate(scene, library, acq, TILT, 1, noise=False)
            seen[name, contrast] = float((1 - image).sum())
    assert seen["gold", "physical"] > 20 * seen["carbon", "physical"] > 0
    lost = inelastic.of_atoms(Acquisition(contrast="physical"), 2.0)
    assert lost is not None
    # thin: each electron is lost at most once
    assert seen["carbon", "physical"] * 64 == pytest.approx(2 * 1000 * lost[6], rel=0.1)
    assert abs(seen["carbon", "parakeet"]) < 0.02 * seen["carbon", "physical"]


def test_ice_loses_too_and_where_it_is_displaced_a_third_of_it() -> None:
    """The mean of an image of ice alone, without the random field's own effect."""
    scene, library = alone(molecule(np.full(3, 6)), n=24)
    means = [
        float(Multislice().simulate(scene, library, acq, TILT, 1, noise=False).mean())
        for acq in (Acquisition(contrast=c, damage=0) for c in ("physical", "parakeet"))
    ]
    water = potentials.WATER * 0.94 * scene.box[2]  # molecules an Å²
    expected = np.exp(-2 * water * inelastic.of_water(Acquisition(contrast="physical"), 2.0))
    assert 0.97 < expected < 0.98
    assert means[0] / means[1] == pytest.approx(expected, abs=5e-4)


@pytest.mark.slow
def test_physical_contrast_is_abtems() -> None:
    """Exit wave of abTEM's multislice (Lobato's potentials) through our lens.

    Its pixels are 1/8 Å: of what is scattered beyond the grid, 1/4 Å loses a fifth.
    """
    abtem = pytest.importorskip("abtem", reason="abTEM is not installed")
    import ase

    body = load_structure("3enl")
    n, voxel = 16, 8.0
    box = n * voxel
    atoms = ase.Atoms(body.elements, body.positions + box / 2, cell=[box] * 3)
    potential = abtem.Potential(atoms, sampling=0.125, slice_thickness=2.0, projection="infinite")
    wave = abtem.PlaneWave(energy=300e3).multislice(potential, lazy=False).array.T
    shape, step = wave.shape, box / wave.shape[0]
    spectrum, q2 = np.fft.fft2(wave), optics.frequencies(shape, step)
    # from the end of the box back to its middle, then through the lens
    back = np.exp(1j * np.pi * optics.wavelength(300) * box / 2 * q2)
    scene, library = alone(body)
    for lens, limit in (
        ({"phase_plate": True, "defocus": 0.5}, 0.999),
        ({"defocus": 1.0}, 0.997),
        ({"defocus": 2.5}, 0.998),
        ({"defocus": 4.0}, 0.999),
    ):
        settings = {"ice_density": 0, "damage": 0, "contrast": "physical", "padding": 0} | lens
        acq = Acquisition.model_validate(settings)
        transfer = optics.transfer(shape, step, acq)
        if acq.phase_plate:
            transfer = transfer * optics.phase_plate(shape, step, acq)
        theirs = np.abs(np.fft.ifft2(spectrum * transfer * back)) ** 2
        theirs = theirs.reshape(n, round(voxel / step), n, -1).mean(axis=(1, 3))
        ours = Multislice().simulate(scene, library, acq, TILT, 1, noise=False)
        slope = ((ours - 1) * (theirs - 1)).sum() / ((theirs - 1) ** 2).sum()
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > limit
        assert slope == pytest.approx(1, abs=0.02)
        assert ours.mean() == pytest.approx(theirs.mean(), abs=1e-3)
