"""Networks with known weights, and tomograms with dark balls in noise that they can find."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from catalogs import particles
from catalogs.intensity import NORMALISATION
from catalogs.model_file import ModelCard, write_model
from catalogs.schema import ClassInfo
from catalogs.seeds import generator
from catalogs.volumes import write_mrc

VOXEL_SIZE = 10.0
BALL = ClassInfo(name="ball", label=1, radius=50.0)


@dataclass(frozen=True)
class CommandResult:
    """What a command line did: exit status, standard output and error."""

    status: int
    out: str
    err: str


@pytest.fixture
def tlpick(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CommandResult]:
    """Run ``tlpick ARGUMENTS`` as the console script does."""

    def run(*arguments: Any) -> CommandResult:
        from tlpick.cli import main

        monkeypatch.setattr(sys, "argv", ["tlpick", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return CommandResult(stopped.value.code, captured.out, captured.err)

    return run


def save(path: Path, network: Any, **card: Any) -> Path:
    """Write a Keras network as a model file."""
    file = path.with_suffix(".keras")
    network.save(file)
    words: dict[str, Any] = {
        "name": path.stem,
        "created": "2026-01-01T00:00:00Z",
        "voxel_size": VOXEL_SIZE,
        "contrast": "dark",
        "classes": [BALL],
        "normalisation": NORMALISATION,
        "network": "by hand",
        "n_parameters": network.count_params(),
        "pooling": 1,
        "halo": 2,
        "patch": 16,
        "thresholds": {},
        "training": {},
        "provenance": {},
    }
    write_model(path, ModelCard(**(words | card)), file.read_bytes())
    file.unlink()
    return path


@pytest.fixture(scope="session")
def ball_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose target probability is high where the mean of 5x5x5 voxels is dark."""
    import keras

    entry = keras.Input((None, None, None, 1))
    mean = keras.layers.Conv3D(1, 5, padding="same", name="mean")
    out = keras.layers.Conv3D(2, 1, activation="softmax", name="decide")
    network = keras.Model(entry, out(mean(entry)))
    mean.set_weights([np.full((5, 5, 5, 1, 1), 1 / 125, np.float32), np.zeros(1, np.float32)])
    decide = np.zeros((1, 1, 1, 1, 2), np.float32)
    decide[..., 1] = -20  # logit of the target: 20 * (-0.6 - mean)
    out.set_weights([decide, np.array([0, -12], np.float32)])
    return save(tmp_path_factory.mktemp("models") / "balls.tlm", network)


@pytest.fixture
def no_network() -> bytes:
    """An archive that looks like Keras' from afar."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("config.json", "no network")
    return raw.getvalue()


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net with two poolings, two classes and random weights; the halo is its receptive field."""
    import keras
    from keras import layers

    start = (keras.initializers.HeNormal(seed=seed) for seed in range(100))

    def conv(x: Any, width: int, size: int = 3) -> Any:
        kernel = next(start)
        return layers.Conv3D(width, size, padding="same", activation="relu", kernel_initializer=kernel)(x)

    x = entry = keras.Input((None, None, None, 1))
    x = fine = conv(conv(x, 4), 4)
    x = middle = conv(layers.MaxPooling3D(2)(x), 6)
    x = conv(layers.MaxPooling3D(2)(x), 8)
    x = conv(layers.Concatenate()([conv(layers.UpSampling3D(2)(x), 6, 2), middle]), 6)
    x = conv(layers.Concatenate()([conv(layers.UpSampling3D(2)(x), 4, 2), fine]), 4)
    kernel = keras.initializers.HeNormal(seed=100)
    out = layers.Conv3D(3, 1, activation="softmax", kernel_initializer=kernel)(x)
    classes = [BALL, ClassInfo(name="brick", label=2, radius=40.0)]
    return save(
        tmp_path_factory.mktemp("models") / "random.tlm",
        keras.Model(entry, out),
        classes=classes,
        pooling=4,
        halo=20,
    )


@dataclass(frozen=True, eq=False)
class Balls:
    """A tomogram with dark balls in noise, and where they are."""

    data: NDArray[np.float32]
    truth: pd.DataFrame


def dark_balls(
    name: str,
    shape: Sequence[int] = (40, 66, 59),
    n: int = 8,
    voxel_size: float = VOXEL_SIZE,
    contrast: float = 2.0,
) -> Balls:
    """Put balls of the radius of :data:`BALL` into noise, none near another, at any place in a voxel."""
    rng = generator("dark balls", name)
    box = (np.array(shape[::-1]) - 1) * voxel_size
    places: list[NDArray[np.float64]] = []
    while len(places) < n:
        place = rng.uniform(1.2 * BALL.radius, box - 1.2 * BALL.radius)
        if all(np.linalg.norm(place - other) > 2.6 * BALL.radius for other in places):
            places.append(place)
    xyz = np.array(places)
    z, y, x = (np.arange(k) * voxel_size for k in shape)
    data = rng.normal(size=tuple(shape))
    for cx, cy, cz in xyz:
        far = (z[:, None, None] - cz) ** 2 + (y[:, None] - cy) ** 2 + (x - cx) ** 2
        data[far <= BALL.radius**2] -= contrast
    truth = particles.make(tomogram=name, class_name=BALL.name, x=xyz[:, 0], y=xyz[:, 1], z=xyz[:, 2])
    return Balls((100 + 7 * data).astype(np.float32), truth)


@pytest.fixture
def make_balls() -> Callable[..., Balls]:
    """:func:`dark_balls`, which no test module can import."""
    return dark_balls


@pytest.fixture
def sample(tmp_path: Path) -> Callable[[Balls], str]:
    """Put a tomogram into a corpus; returns where its Zarr group is."""

    def write(balls: Balls) -> str:
        from catalogs.corpus.catalog import Catalog, Sample
        from catalogs.schema import Acquisition

        catalog = Catalog.create(tmp_path / "corpus", classes=[BALL], recipe={}, name="balls")
        shape, n = balls.data.shape, len(balls.truth)
        distractor = particles.make(class_name="distractor", label=0, x=[50.0], y=[60.0], z=[70.0])
        table = pd.concat([balls.truth, distractor.assign(tomogram=balls.truth["tomogram"][0])])
        facts: dict[str, Any] = {
            "sample_id": "0123456789abcdef",
            "name": balls.truth["tomogram"][0],
            "split": "test",
            "seed": 1,
            "acquisition": Acquisition(voxel_size=VOXEL_SIZE),
            "shape": shape,
            "n_tilts": 1,
            "n_particles": n,
            "n_distractors": 1,
            "class_counts": {BALL.name: n},
            "structures": {},
            "occupancy": 0.1,
            "seconds": {},
            "software": {},
        }
        catalog.write(
            Sample(
                tomogram=balls.data,
                classes=np.zeros(shape, np.uint8),
                instances=np.zeros(shape, np.uint16),
                particles=table.assign(instance=range(1, n + 2)).reset_index(drop=True),
                tilt_images=None,
                tilt_angles=np.zeros(1, np.float32),
                tilt_doses=np.zeros(1, np.float32),
                facts=facts,
            )
        )
        return catalog.sample_url(facts["sample_id"])

    return write


@pytest.fixture
def picked(
    tlpick: Callable[..., CommandResult], ball_model: Path, make_balls: Callable[..., Balls], tmp_path: Path
) -> Path:
    """The folder of a run over one tomogram."""
    write_mrc(tmp_path / "tomo-1.mrc", make_balls("tomo-1").data, 10.0)
    tlpick("run", ball_model, tmp_path / "tomo-1.mrc", "--to", tmp_path / "picks")
    return tmp_path / "picks"
