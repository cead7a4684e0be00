"""A model, tomograms and annotations that the tests of fine-tuning share."""

import shutil

import pandas as pd
import pytest

from catalogs import particles
from catalogs.intensity import NORMALISATION
from catalogs.model_file import ModelCard, read_card, write_model
from catalogs.particle_formats.base import Context
from catalogs.volumes import write_mrc
from tlpick.network.tomograms.inputs import Tomogram
from tltrain.finetune.annotations import read_annotations, read_sizes
from tltrain.networks.architectures import architecture
from tltrain.training.cards import keras_file


@pytest.fixture(scope="module")
def model(corpus, tmp_path_factory):
    """A model that has learned nothing."""
    path = tmp_path_factory.mktemp("models") / "balls.tlm"
    arch, records = architecture("small"), corpus.records()
    network = arch.build(2, 0)
    card = ModelCard(
        name="balls",
        created="2026-01-01T00:00:00+00:00",
        voxel_size=10.0,
        classes=corpus.classes,
        normalisation=NORMALISATION,
        network="small",
        n_parameters=network.count_params(),
        pooling=arch.pooling,
        halo=28,
        patch=16,
        thresholds={"ball": 0.5},
        training={},
        provenance={
            "corpus": corpus.url,
            "train": [record.sample_id for record in records if record.split == "train"],
            "val": [record.sample_id for record in records if record.split == "val"],
        },
    )
    write_model(path, card, keras_file(arch, network, 2))
    return path


@pytest.fixture(scope="module")
def data(make_catalog, write_balls, tmp_path_factory):
    """Three tomograms as MRC files, and the picks of all particles in them: a folder."""
    folder = tmp_path_factory.mktemp("real")
    catalog = make_catalog(folder / "corpus")
    tables = []
    for name in ("TS_01", "TS_02", "TS_03"):
        sample_id = write_balls(catalog, name, "train", noise=1.2)
        write_mrc(folder / f"{name}.mrc", catalog.arrays(sample_id)["tomogram"][:] * 30 + 100, 10.0)
        table = catalog.particles(sample_id)
        tables.append(table[table["label"] > 0])
    shutil.rmtree(folder / "corpus")
    table = pd.concat(tables, ignore_index=True)
    particles.save(table, folder / "picks.star", None, Context(voxel_size=10.0, shape=(40, 72, 70)))
    return folder


@pytest.fixture(scope="module")
def annotations(model, data):
    places = read_sizes([Tomogram(str(data / f"{n}.mrc"), n) for n in ("TS_01", "TS_02", "TS_03")])
    return read_annotations([str(data / "picks.star")], places, read_card(model))
