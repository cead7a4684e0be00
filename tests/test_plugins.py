"""A package of somebody else adds engine, network, localiser and formats: a file and a line each."""

from __future__ import annotations

import importlib
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import catalogs
import tlgen
import tlpick
import tltrain
from catalogs import particles, plugins
from catalogs.errors import InputError
from catalogs.volumes import write_mrc

DATA = Path(__file__).parent / "data"

PACKAGE = '''
import numpy as np
import pandas as pd

from catalogs import Volume, particles
from catalogs.particle_formats.base import Format
from tltrain.networks.architectures import Architecture


class Flat:
    """Images of one grey value: the tilt's number."""

    name = "flat"
    cost = 0.001
    one_call_per_process = False

    def version(self):
        return "flat 1"

    def check(self, acq):
        pass

    def check_scene(self, scene, library, acq):
        pass

    def memory(self, scene, library, acq):
        return 0

    def tilts_a_call(self, acq, shape):
        return 1

    def check_device(self, acq):
        pass

    def simulate(self, scene, library, acq, tilt, seed, *, noise=True):
        return np.full(scene.shape[1:], tilt.index, np.float32)

    def simulate_together(self, views, library, acq, seed, *, noise=True):
        from tlgen.simulate.protocol import Images

        return Images([self.simulate(s, library, acq, t, seed) for s, t in views], "cpu")


def build(n_classes, seed):
    import keras

    entry = keras.Input((None, None, None, 1))
    start = keras.initializers.GlorotUniform(seed=seed)
    layer = keras.layers.Conv3D(
        n_classes, 3, padding="same", activation="softmax", kernel_initializer=start, dtype="float32"
    )
    return keras.Model(entry, layer(entry), name="one-layer")


NETWORK = Architecture("one-layer", pooling=1, learning_rate=1e-2, build=build)


def middles(labels, score, radii, *, edge, run):
    """The middle of all voxels of a class is its only particle."""
    volume = np.asarray(labels[:])
    return {k: np.argwhere(volume == k).mean(axis=0)[None] for k in radii if (volume == k).any()}


def read(path, context):
    rows = [line.split("|") for line in path.read_text().splitlines()[1:]]
    x, y, z = np.array([row[1:] for row in rows], float).reshape(-1, 3).T
    return particles.make(tomogram=path.stem, class_name=[row[0] for row in rows], label=1, x=x, y=y, z=z)


def encode(table, path, context):
    rows = [f"{t.class_name}|{t.x}|{t.y}|{t.z}" for t in table.itertuples()]
    return {path: "\\n".join(["BARS", *rows, ""]).encode()}


BARS = Format(
    "bars", "Lines with bars", (".bars",), frozenset({"class_name"}),
    lambda peek: "its first line is BARS" if peek.text.startswith("BARS") else None,
    read, encode, default_for=(".bars",), one_tomogram=True,
)


class Npy:
    suffixes = (".npy",)

    def open(self, path, voxel_size):
        return Volume(np.load(path, mmap_mode="r"), voxel_size or 7.0, (0.0, 0.0, 0.0), "from npy")


NPY = Npy()
'''
ENTRY_POINTS = """
[template_learning.engines]
flat = somebody:Flat
broken = somebody_who_left:Engine
[template_learning.networks]
one-layer = somebody:NETWORK
[template_learning.localisers]
middles = somebody:middles
[template_learning.particle_formats]
bars = somebody:BARS
[template_learning.volume_formats]
npy = somebody:NPY
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the package: a module and its metadata in a folder on the path."""
    folder = tmp_path / "site"
    (folder / "somebody-1.0.dist-info").mkdir(parents=True)
    (folder / "somebody.py").write_text(PACKAGE)
    (folder / "somebody-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n"
    )
    (folder / "somebody-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("somebody", None)
    plugins._entry_points.cache_clear()


def test_an_engine_in_a_recipe(package: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "name: mine\nshape: [16, 24, 24]\ntargets: {apoferritin: {structures: [4v1w], count: 1}}\n"
        "acquisition: {engine: flat, voxel_size: 16, tilt_range: 40, tilt_step: 20}\n"
        "samples: {train: {number: 1}}\n"
    )
    read = tlgen.load_recipe(str(recipe))
    made = tlgen.simulate_tilts(tlgen.pack(read), read)
    assert made.engine == "flat 1"
    assert [image.mean() for image in made.images] == [tilt.index for tilt in made.tilts]
    from tlgen.recipes.samples import expand
    from tlgen.runs.costs import work

    simulating = next(each for each in work(expand(read, {})) if each.group.startswith("simulate"))
    assert simulating.calls == 5


def test_an_unknown_engine_is_refused_with_the_nearest(package: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\nextends: demo\nacquisition: {engine: flatt}\n")
    with pytest.raises(
        InputError, match=r"parakeet, multislice, flat, broken, not flatt; did you mean 'flat'"
    ):
        tlgen.load_recipe(str(recipe))


def test_a_package_that_cannot_be_loaded_is_named(package: Path) -> None:
    from tlgen.simulate.engine import engine

    with pytest.raises(InputError, match=r"engine 'broken' of the package somebody cannot be loaded"):
        engine("broken")


def test_a_network_and_a_localiser(package: Path, tmp_path: Path) -> None:
    from catalogs.schema import ClassInfo
    from tlpick.network.localisation.localise import localise
    from tltrain.networks.architectures import architecture

    assert architecture("one-layer").build(2, 0).name == "one-layer"
    from tltrain.training.settings import checked

    assert checked(tltrain.Settings(network="one-layer", patch=17)).name == "one-layer"
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[4:9, 4:9, 4:9] = 1
    ball = ClassInfo(name="ball", label=1, radius=30)
    (found,) = localise(labels, labels * 255, [ball], 10.0, tlpick.Localising(method="middles"))
    np.testing.assert_allclose(found.centres, [[60, 60, 60]])
    with pytest.raises(
        InputError, match=r"no localiser 'middels'.*meanshift.*did you mean 'middles'"
    ) as error:
        localise(labels, labels * 255, [ball], 10.0, tlpick.Localising(method="middels"))
    assert error.value.parameter == "method"


def test_formats_of_particles_and_volumes(package: Path, tmp_path: Path) -> None:
    table = particles.make(tomogram="ts", class_name="a", label=1, x=[10.0, 5], y=[20.0, 6], z=[30.0, 7])
    particles.write(table, tmp_path / "ts.bars")
    back = particles.read(tmp_path / "ts.bars")
    pd.testing.assert_frame_equal(back[["x", "y", "z"]], table[["x", "y", "z"]])
    np.save(tmp_path / "v.npy", np.arange(60, dtype=np.float32).reshape(3, 4, 5))
    volume = catalogs.open_volume(tmp_path / "v.npy")
    assert (volume.shape, volume.voxel_size, volume.name) == ((3, 4, 5), 7.0, "from npy")
    assert catalogs.open_volume(tmp_path / "v.npy", voxel_size=8.0).voxel_size == 8.0


def program(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> int:
    """Run a program as its console script does; returns the exit status."""
    monkeypatch.setattr(sys, "argv", [name, *(str(argument) for argument in arguments)])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"{name}.cli").main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_a_network_and_a_localiser_from_the_command_line(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(DATA / "corpus-before.zip") as archive:
        archive.extractall(tmp_path)
    model = tmp_path / "m.tlm"
    fit = (tmp_path / "corpus", "--to", model, "--steps", 2, "--batch", 2)
    assert program(monkeypatch, "tltrain", "fit", *fit, "--patch", 11, "--network", "one-layer") == 0
    assert tlpick.load_model(model).card.network == "one-layer"
    assert program(monkeypatch, "tltrain", "fit", *fit, "--network", "one-lair") == 2
    assert "one-lair" in capsys.readouterr().err

    grid = np.indices((24, 32, 32)) * 10.0
    balls = [(120, 150, 80), (120, 150, 240)]
    dark = sum((sum((g - c) ** 2 for g, c in zip(grid, at, strict=True)) <= 50**2) * 1 for at in balls)
    noise = np.random.default_rng(0).standard_normal(grid.shape[1:])
    write_mrc(tmp_path / "ts.mrc", (0.3 * noise - 3 * dark).astype(np.float32), 10.0)
    run = (DATA / "balls-before.tlm", tmp_path / "ts.mrc", "--to", tmp_path / "picks", "--fdr", "off")
    assert program(monkeypatch, "tlpick", "run", *run, "--slab", "off", "--localise", "middles") == 0
    (pick,) = particles.read(tmp_path / "picks" / "particles.star").itertuples()
    # the middle of both balls; mean shift finds two
    assert (pick.x, pick.y, pick.z) == pytest.approx((160, 150, 120), abs=10)
    assert program(monkeypatch, "tlpick", "run", *run, "--localise", "middels") == 2
    assert "did you mean 'middles'" in capsys.readouterr().err
