"""The lens, the ice's shape, the energy filter and the detector, each against its physics."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from tlgen.scene.scene import Scene
from tlgen.simulate import checks
from tlgen.simulate.microscope import detectors, ice, optics
from tlgen.tilts.scheme import Tilt

N = 256
PIXEL = 4.0
TILT = Tilt(0, 0.0, 2.0, 0.0)


def box(shape: tuple[int, int, int] = (20, 30, 40), voxel_size: float = 10.0) -> Scene:
    nothing = np.zeros(0)
    return Scene(
        shape, voxel_size, (), (), (), (), (), nothing.astype(int),
        nothing.reshape(0, 3), nothing.reshape(0, 4),
    )  # fmt: skip


def contrast_transfer(acq: Acquisition, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Transfer of a weak phase object to the intensity, real and imaginary part: 1 + i s -> 1 + H s."""
    lens = optics.transfer((n, n), PIXEL, acq) * (
        optics.phase_plate((n, n), PIXEL, acq) if acq.phase_plate else 1
    )
    opposite = np.roll(lens[::-1, ::-1], 1, (0, 1))
    h = 1j * lens * np.conj(lens[0, 0]) - 1j * np.conj(opposite) * lens[0, 0]
    return h.real, h.imag


def first_zero(acq: Acquisition, azimuth: float) -> float:
    """Spatial frequency in 1/Å of the first zero along an azimuth in degrees, from x towards y."""
    n = 512
    h, _ = contrast_transfer(acq, n)
    r = np.linspace(2, n // 2 - 2, 4000)
    a = np.radians(azimuth)
    iy, ix = (np.rint(r * f).astype(int) % n for f in (np.sin(a), np.cos(a)))
    along = h[iy, ix]
    k = np.flatnonzero(np.sign(along[1:]) != np.sign(along[:-1]))[0]
    return float(r[k] / (n * PIXEL))


def test_astigmatism_makes_the_thon_rings_an_ellipse() -> None:
    """Where underfocus is largest, the first zero is nearest: q² = 1 / (λ underfocus), Cs apart."""
    acq = Acquisition(defocus=3.0, astigmatism=1.0, astigmatism_angle=30.0, spherical_aberration=0.0)
    lam = optics.wavelength(300)
    for azimuth in (0, 30, 75, 120, -20):
        underfocus = 3.0 + 0.5 * np.cos(2 * np.radians(azimuth - 30))
        assert first_zero(acq, azimuth) == pytest.approx((lam * underfocus * 1e4) ** -0.5, rel=0.02)
    ratio = first_zero(acq, 120) / first_zero(acq, 30)
    assert ratio == pytest.approx(np.sqrt(3.5 / 2.5), rel=0.02)


def test_astigmatism_is_multems() -> None:
    import multem

    from tlgen.simulate.parakeet import _input, _system

    acq = Acquisition(defocus=2.0, astigmatism=0.8, astigmatism_angle=25.0)
    settings = _input("HRTEM", 96, 80, acq)
    settings.spec_lz = 96.0
    # it takes the sine of twice the azimuth, and degrees, though Parakeet says radians
    settings.obj_lens_c_12, settings.obj_lens_phi_12 = 0.4e4, 25.0 + 45.0
    theirs = np.array(multem.compute_ctf(_system(), settings)).T
    ours = optics.transfer((80, 96), 1.0, acq)
    inside = optics.frequencies((80, 96), 1.0) < 0.3**2
    assert np.abs(np.angle(ours * theirs.conj())[inside]).max() < 2e-5
    # its envelope counts the radial slope of the aberration only
    assert np.abs(np.abs(ours) - np.abs(theirs))[inside].max() < 6e-3
    without = optics.transfer((80, 96), 1.0, Acquisition(defocus=2.0))
    assert np.abs(np.abs(without) - np.abs(theirs))[inside].max() > 3e-2


def test_beam_tilt_shifts_the_phase_of_the_rings_by_coma() -> None:
    """2 π Cs λ² q³ τ along the tilt, nothing across it; Glaeser et al. 2011."""
    acq = Acquisition(defocus=0.5, beam_tilt_x=2.0, spherical_aberration=2.7)
    lens = optics.aberrations((N, N), PIXEL, acq)
    assert lens is not None
    phase = np.angle(lens)
    lam = optics.wavelength(300)
    q = np.fft.fftfreq(N, PIXEL)[1 : N // 2]
    odd_x = (phase[0, 1 : N // 2] - phase[0, : -N // 2 : -1]) / 2
    odd_y = (phase[1 : N // 2, 0] - phase[: -N // 2 : -1, 0]) / 2
    assert np.allclose(odd_x, -2 * np.pi * 2.7e7 * lam**2 * 2e-3 * q**3, atol=1e-5)
    assert np.abs(odd_x).max() > 0.05
    assert np.abs(odd_y).max() < 1e-5
    # an image is not moved by it: no part of the phase is linear in the frequency
    assert abs(odd_x[0] / q[0]) < 1e-2 * abs(odd_x[-1] / q[-1])
    turned = optics.aberrations((N, N), PIXEL, Acquisition(defocus=0.5, beam_tilt_y=2.0))
    assert turned is not None
    assert np.allclose(turned, lens.T)


def test_amplitude_contrast_lets_an_image_in_focus_show_something() -> None:
    """-2 sin(χ + asin A): at zero defocus and low frequency the transfer is -2 A."""
    focused = Acquisition(defocus=0.0, spherical_aberration=0.0)
    none, _ = contrast_transfer(focused)
    some, odd = contrast_transfer(focused.model_copy(update={"amplitude_contrast": 0.1}))
    assert np.abs(none).max() < 1e-6
    assert some[0, 3] == pytest.approx(-0.2, abs=1e-4)
    assert np.abs(odd).max() < 1e-6
    under, _ = contrast_transfer(Acquisition(defocus=2.0, amplitude_contrast=0.1))
    pure, _ = contrast_transfer(Acquisition(defocus=2.0))
    assert under[0, 2] < pure[0, 2] < 0  # as dark as phase contrast under focus


def test_phase_shift_of_the_plate_is_what_is_asked_for() -> None:
    for shift in (30.0, 60.0, 90.0):
        acq = Acquisition(defocus=0.0, spherical_aberration=0.0, phase_plate=True, phase_shift=shift)
        h, _ = contrast_transfer(acq)
        assert h[0, 60] == pytest.approx(-2 * np.sin(np.radians(shift)), abs=0.01)
    wide = Acquisition(phase_plate=True, phase_plate_radius=0.05)
    at = np.angle(optics.phase_plate((N, N), PIXEL, wide))[0, 51]  # 0.0498 1/Å
    assert at == pytest.approx(np.pi / 2 * (1 - np.exp(-0.5)), abs=0.01)


def test_aperture_and_coherence() -> None:
    acq = Acquisition(aperture=1.0)  # mrad: 1e-3 / λ = 1/19.7 Å
    lens = optics.transfer((N, N), PIXEL, acq)[0]
    q = np.fft.fftfreq(N, PIXEL)
    edge = 1e-3 / optics.wavelength(300)
    assert (lens[np.abs(q) > edge] == 0).all()
    assert (np.abs(lens[np.abs(q) < edge]) > 0.5).all()
    sharp = np.abs(optics.transfer((N, N), PIXEL, Acquisition()))[0, 100]
    for key, value in (("energy_spread", 30.0), ("illumination_semiangle", 0.3), ("current_spread", 20.0)):
        blunt = np.abs(optics.transfer((N, N), PIXEL, Acquisition.model_validate({key: value})))[0, 100]
        assert blunt < 0.97 * sharp
    # Kirkland's 1/e half width: 2.7 mm and 2.66 ppm are 71.8 Å, with the currents and voltages 77 Å
    assert optics.defocus_spread(Acquisition(current_spread=0, voltage_spread=0)) == pytest.approx(
        71.8, abs=0.1
    )
    assert optics.defocus_spread(Acquisition()) == pytest.approx(77.1, abs=0.1)


@given(
    tilt=st.floats(-20, 20), wedge=st.floats(-15, 15), angle=st.floats(-55, 55),
    at=st.floats(-0.5, 0.5), depth=st.floats(-0.5, 0.5),
)  # fmt: skip
def test_tilted_ice_holds_the_box_and_the_beam_finds_its_faces(
    tilt: float, wedge: float, angle: float, at: float, depth: float
) -> None:
    scene = box()
    layer = ice.layer(scene, Acquisition(ice_tilt=tilt, ice_wedge=wedge))
    x, z = at * scene.box[0], depth * scene.box[2] * 0.999999
    assert layer.inside(np.array(x), np.array(z))
    # along the beam through some place of the image, the way inside is the path
    image_x = at * 100
    along = np.linspace(-3000, 3000, 60001)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    inside = layer.inside(image_x * c - along * s, image_x * s + along * c)
    assert inside.sum() * 0.1 == pytest.approx(float(layer.path(np.array(image_x), angle)), abs=0.25)


def test_ice_that_would_stand_upright_is_refused() -> None:
    with pytest.raises(InputError, match=r"ice_tilt: the ice would be 88° steep"):
        checks.check_acquisition(Acquisition(ice_tilt=28.0))
    checks.check_acquisition(Acquisition(ice_tilt=20.0, ice_wedge=5.0))
    with pytest.raises(InputError, match=r"ice_tilt: the ice would be 90° steep"):
        checks.check_acquisition(Acquisition(ice_tilt=15.0, tilt_angle_offset=-15.0))


def test_energy_filter_keeps_what_parakeets_zero_loss_model_keeps() -> None:
    import sys
    import types

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "profet", types.ModuleType("profet"))
        from parakeet.inelastic import zero_loss_fraction
    scene = box()
    shape = {"type": "cuboid", "cuboid": {"length_z": scene.box[2]}}
    image = np.ones((30, 40), np.float32)
    for angle in (0.0, 45.0, -60.0):
        acq = Acquisition(energy_filter=True)
        kept = optics.energy_filtered(image, scene, acq, Tilt(0, angle, 2.0, 0.0))
        assert np.allclose(kept, zero_loss_fraction(shape, angle), rtol=1e-5)
    assert optics.energy_filtered(image, scene, Acquisition(), TILT) is image
    # of a wedge, the thin side keeps more, and the logarithm is straight
    wedge = optics.energy_filtered(image, scene, Acquisition(energy_filter=True, ice_wedge=10.0), TILT)
    path = -3150 * np.log(wedge[0])
    assert np.allclose(np.diff(path), 10.0 * 2 * np.tan(np.radians(5)), rtol=2e-3)
    assert path[0] == pytest.approx(scene.box[2], abs=2)


def flat(dose: float, acq: Acquisition, seed: int = 1, n: int = 512) -> np.ndarray:
    """Counts of an even illumination."""
    tilt = Tilt(0, 0.0, dose, 0.0)
    image = optics.detect(np.ones((n, n), np.float32), acq.voxel_size / acq.pixel_size, acq, tilt)
    return optics.counts(image, dose * acq.voxel_size**2, seed, tilt, acq)


FILE = """data_

loop_
_rlnResolutionInversePixel
_rlnMtfValue
_rlnDqeValue
0.0 1.0 0.8
0.1 0.9 0.7
0.25 0.7 0.5
0.5 0.3 0.2
"""


def test_a_detector_of_a_file_has_its_mtf_noise_and_efficiency(tmp_path: Path) -> None:
    """An edge's signal falls as the MTF, the noise's power as MTF² DQE(0) / DQE."""
    (tmp_path / "camera.star").write_text(FILE)
    curve = detectors.read(tmp_path / "camera.star")
    acq = Acquisition(voxel_size=2.0, pixel_size=2.0, detector="camera", detector_curve=curve.as_text())
    checks.check_acquisition(acq)
    counted = flat(20.0, acq)
    assert counted.mean() == pytest.approx(0.8 * 80, rel=0.002)
    power = np.abs(np.fft.fft2(counted - counted.mean())) ** 2 / counted.size
    f = np.sqrt(np.fft.fftfreq(512)[:, None] ** 2 + np.fft.fftfreq(512)[None] ** 2)
    for at in (0.05, 0.1, 0.2, 0.25, 0.4):
        ring = np.abs(f - at) < 0.01
        mtf, dqe = np.interp(at, curve.frequency, curve.mtf), np.interp(at, curve.frequency, curve.dqe)
        assert power[ring].mean() == pytest.approx(64 * mtf**2 * 0.8 / dqe, rel=0.05)
    # a wave of a frequency in the table keeps so much of its amplitude
    x = np.arange(512)
    for k, mtf in ((51.2, 0.9), (128.0, 0.7)):
        wave = 1 + 0.5 * np.cos(2 * np.pi * round(k) * x / 512)
        image = np.broadcast_to(wave, (512, 512)).astype(np.float32)
        tilt = Tilt(0, 0.0, 500.0, 0.0)
        seen = optics.counts(optics.detect(image, 1.0, acq, tilt), 2000.0, 1, tilt, acq).mean(axis=0)
        amplitude = 2 * np.abs(np.fft.fft(seen)[round(k)]) / 512 / seen.mean()
        assert amplitude / 0.5 == pytest.approx(mtf, abs=0.01)


def test_built_in_detectors() -> None:
    """A pixel counts all electrons; the counting one loses 5 % and its noise is white."""
    acq = Acquisition(voxel_size=1.0, pixel_size=1.0, detector="pixel")
    curve = detectors.curve(acq, 1.0)
    assert curve is not None
    assert curve.white
    assert curve.dqe[-1] == pytest.approx((2 / np.pi) ** 2)
    assert flat(20.0, acq).mean() == pytest.approx(20, rel=0.002)
    counting = detectors.curve(acq.model_copy(update={"detector": "counting"}), 1.0)
    assert counting is not None
    assert counting.dqe[-1] == pytest.approx(0.95 - 0.1333 - 0.8661 + 0.3711)  # the whole table, unlike P3
    seen = flat(20.0, acq.model_copy(update={"detector": "counting"}))
    assert seen.mean() == pytest.approx(seen.var(), rel=0.02)
    perfect = flat(20.0, acq.model_copy(update={"detector": "parakeet", "dqe": False}))
    assert perfect.mean() == pytest.approx(20, rel=0.002)


def test_an_mtf_alone_or_a_dqe_alone_will_do(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("frequency, MTF\n0, 1\n0.25, 0.6\n0.5, 0.2\n")
    (tmp_path / "b.csv").write_text("frequency,dqe\n0,0.81\n0.5,0.09\n")
    a, b = (detectors.read(tmp_path / f"{name}.csv") for name in "ab")
    assert np.allclose(a.dqe, [1, 0.36, 0.04])
    assert np.allclose(b.mtf, [1, 1 / 3])
    assert a.white
    assert b.white
    again = detectors.from_text(a.as_text(), "it")
    assert np.allclose([again.frequency, again.mtf, again.dqe], [a.frequency, a.mtf, a.dqe])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("frequency,mtf\n0,1\n", "two frequencies"),
        ("frequency,mtf\n0.1,1\n0.5,0.2\n", "begin with 0"),
        ("frequency,mtf\n0,1\n2,0.2\n", "fractions of Nyquist"),
        ("frequency,mtf\n0,1\n0.5,-0.2\n", "more than 0"),
        ("frequency,mtf\n0,1\n0.5,many\n", "cannot be read"),
        ("q,mtf\n0,1\n0.5,0.2\n", "no columns frequency"),
        ("", "no columns frequency"),
    ],
)
def test_a_detectors_file_that_makes_no_sense_is_refused(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "camera.csv").write_text(content)
    with pytest.raises(InputError, match=rf"camera\.csv.*{words}"):
        detectors.read(tmp_path / "camera.csv")


def test_an_unknown_detector_and_one_without_effect_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'counting'"):
        checks.check_acquisition(Acquisition(detector="countin"))
    with pytest.raises(InputError, match="no effect with dqe: false"):
        checks.check_acquisition(Acquisition(detector="pixel", dqe=False))
    with pytest.raises(InputError, match="FREQUENCY:MTF:DQE"):
        checks.check_acquisition(Acquisition(detector="mine", detector_curve="0:1"))


def test_ice_has_the_spectrum_that_is_asked_for() -> None:
    q2 = np.array([0.0, (1 / 2.88) ** 2])
    paper, own = (optics.ice_power(q2, Acquisition(ice_spectrum=word)) for word in ("paper", "parakeet"))
    assert paper[1] < paper[0]
    assert own[1] > own[0]  # Parakeet's default has the diffuse ring of water
