"""A small corpus that is served."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from catalogs import particles
from catalogs.corpus.catalog import Catalog, Sample
from catalogs.schema import Acquisition, ClassInfo
from tlgen.browse import server
from tlgen.browse.server import Browser

SHAPE = (24, 40, 36)


@pytest.fixture(scope="session")
def write() -> Callable[..., str]:
    return write_sample


def write_sample(catalog: Catalog, number: int, *, images: bool = True) -> str:
    """Write a sample with one ribosome, a dark ball, and a distractor."""
    rng = np.random.default_rng(number)
    z, y, x = np.indices(SHAPE)
    ball = (z - 12) ** 2 + (y - 20) ** 2 + (x - 10) ** 2 < 49
    name = f"train-{number:03d}"
    table = particles.make(
        tomogram=name,
        class_name=["ribosome", "distractor"],
        label=[1, 0],
        instance=[1, 2],
        x=[100.0, 250.0],
        y=[200.0, 100.0],
        z=[120.0, 60.0],
        structure=["4v5d", "1pwc"],
    )
    record = catalog.write(
        Sample(
            tomogram=(rng.normal(0, 1, SHAPE) - 3 * ball).astype(np.float32),
            classes=ball.astype(np.uint8),
            instances=ball.astype(np.uint16),
            particles=table,
            tilt_images=rng.normal(9, 1, (5, 40, 36)).astype(np.float32) if images else None,
            tilt_angles=np.linspace(-60, 60, 5, dtype=np.float32),
            tilt_doses=np.arange(5, dtype=np.float32),
            facts={
                "sample_id": f"{number:016x}",
                "name": name,
                "split": "test" if number == 2 else "train",
                "seed": 2**62 + number,
                "acquisition": Acquisition(
                    dose=90.0 + number, defocus=2 + number % 3, voxel_size=10, phase_plate=number % 2 == 1
                ),
                "shape": SHAPE,
                "n_tilts": 5,
                "n_particles": 1,
                "n_distractors": 1,
                "class_counts": {"ribosome": 1},
                "structures": {"4v5d": "aa", "1pwc": "bb"},
                "occupancy": 0.1,
                "seconds": {"simulate": 3.0, "pack": 0.5},
                "software": {"template-learning": "0.1.0"},
            },
        )
    )
    return record.sample_id


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    classes = [ClassInfo(name="ribosome", label=1, radius=70.0)]
    made = Catalog.create(
        tmp_path_factory.mktemp("browse") / "corpus", classes=classes, recipe={}, name="little"
    )
    for number in range(40):
        write_sample(made, number, images=number != 1)
    return made


@dataclass(frozen=True)
class Served:
    """A corpus that is served."""

    browser: Browser
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"{self.url}/?token={self.browser.token}"


@pytest.fixture(scope="module")
def served(catalog: Catalog) -> Iterator[Served]:
    """Serve it."""
    with serving(catalog) as made:
        yield made


@pytest.fixture
def served_without_samples(tmp_path: Path) -> Iterator[Served]:
    """Serve a corpus that has no samples yet."""
    classes = [ClassInfo(name="ribosome", label=1, radius=70.0)]
    with serving(Catalog.create(tmp_path / "empty", classes=classes, recipe={}, name="empty")) as made:
        yield made


@contextmanager
def serving(catalog: Catalog) -> Iterator[Served]:
    """Serve a corpus in a thread."""
    browser = Browser(catalog)
    listening, port = server.listen(None)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    task = loop.create_task(server.serve(browser, listening, port, lambda _: ready.set()))

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(30)
    yield Served(browser, port)
    loop.call_soon_threadsafe(task.cancel)
    thread.join(30)
    assert not thread.is_alive()
