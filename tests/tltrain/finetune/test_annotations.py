"""Lists of picks against tomograms: what is understood, and what is refused in one sentence."""

from dataclasses import replace

import numpy as np
import pytest

from catalogs import particles
from catalogs.errors import InputError
from catalogs.intensity import NORMALISATION, measure, normalise
from catalogs.model_file import ModelCard
from catalogs.particle_formats.base import Context
from catalogs.schema import ClassInfo
from catalogs.seeds import generator
from catalogs.volumes import write_mrc
from tlpick.network.tomograms.inputs import Tomogram
from tlpick.network.tomograms.intake import Preprocessing
from tltrain.finetune.annotated_tomograms import prepare_tomograms
from tltrain.finetune.annotations import read_annotations, read_sizes

VOXEL = 8.0
SHAPE = (24, 40, 32)


@pytest.fixture
def card():
    return ModelCard(
        name="ribosomes",
        created="",
        voxel_size=VOXEL,
        classes=[
            ClassInfo(name="ribosome", label=1, radius=60),
            ClassInfo(name="proteasome", label=2, radius=40),
        ],
        normalisation=NORMALISATION,
        network="small",
        n_parameters=1,
        pooling=4,
        halo=16,
        patch=16,
        thresholds={},
        training={},
        provenance={},
    )


@pytest.fixture
def places(tmp_path):
    """Two tomograms of noise, as MRC files."""
    for name in ("TS_01", "TS_02"):
        values = generator("noise", name).normal(100, 7, SHAPE).astype(np.float32)
        write_mrc(tmp_path / f"{name}.mrc", values, VOXEL)
    return read_sizes([Tomogram(str(tmp_path / f"{name}.mrc"), name) for name in ("TS_01", "TS_02")])


def table(names=("TS_01", "TS_02"), n=12, classes=("ribosome",), seed=0):
    rng = generator("picks", seed)
    rows = n * len(names)
    x, y, z = (rng.uniform(0, (size - 1) * VOXEL, rows) for size in SHAPE[::-1])
    tomograms = np.repeat(np.array(names, object), n)
    return particles.make(
        tomogram=tomograms, class_name=[classes[k % len(classes)] for k in range(rows)], x=x, y=y, z=z
    )


def write(rows, path, format=None, **known):
    known = {"voxel_size": VOXEL, "shape": SHAPE, "pixel_size": 2.0, **known}
    particles.save(rows, path, format, Context(**known))
    return str(path)


def xyz(rows):
    return rows[["x", "y", "z"]].to_numpy()


@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("relion5", "picks.star"),
        ("relion4", "picks.star"),
        ("relion3", "picks.star"),
        ("csv", "picks.csv"),
        ("dynamo", "picks.tbl"),
        ("deepfinder", "picks.xml"),
        ("eman2", "info"),
        ("copick", "project"),
    ],
)
def test_positions_are_understood_in_every_format(format, name, places, card, tmp_path):
    rows = table(classes=("ribosome", "proteasome")) if format in ("relion5", "csv") else table()
    path = write(rows, tmp_path / name, format, classes=tuple(card.classes))
    pixel = 2.0 if format in ("relion4", "eman2") else None
    found = read_annotations([path], places, card, pixel_size=pixel)
    assert found.counts == {str(k): int(v) for k, v in rows["class_name"].value_counts().items()}
    for tomogram in ("TS_01", "TS_02"):
        ours, theirs = (t[t["tomogram"] == tomogram] for t in (found.table, rows))
        far = np.linalg.norm(xyz(ours)[:, None] - xyz(theirs)[None], axis=2)
        assert far.min(axis=0).max() < VOXEL  # formats of whole voxels round
    assert set(found.table["label"]) == {info.label for info in card.classes if info.name in found.counts}


def test_a_list_for_each_tomogram_is_named_as_it(places, card, tmp_path):
    rows = table()
    lists = [write(rows[rows["tomogram"] == n], tmp_path / f"{n}.mod", "imod") for n in ("TS_01", "TS_02")]
    found = read_annotations(lists, places, card)
    assert found.counts == {"ribosome": 24}
    np.testing.assert_allclose(xyz(found.of("TS_02")), xyz(rows[rows["tomogram"] == "TS_02"]), atol=0.1)


def test_a_list_without_names_is_of_the_only_tomogram_and_the_only_class(places, card, tmp_path):
    lines = "\n".join(f"{k} {k + 1} {k}" for k in range(12))
    (tmp_path / "mine.coords").write_text(lines)
    only = card.model_copy(update={"classes": card.classes[:1]})
    found = read_annotations([str(tmp_path / "mine.coords")], places[:1], only)
    assert found.counts == {"ribosome": 12}
    assert set(found.table["tomogram"]) == {"TS_01"}


def test_endings_do_not_matter_and_other_tomograms_are_left_out(places, card, tmp_path):
    rows = table(("TS_01.mrc", "TS_02.tomostar", "TS_99"))
    found = read_annotations([write(rows, tmp_path / "p.star", shape=SHAPE)], places, card)
    assert list(found.table["tomogram"].unique()) == ["TS_01", "TS_02"]
    assert any("12 particles are in other tomograms ('TS_99')" in note for note in found.notes)


def test_classes_are_mapped_and_left_out(places, card, tmp_path):
    path = write(table(classes=("80S", "gold", "proteasome")), tmp_path / "p.star")
    found = read_annotations([path], places, card, classes={"80S": "ribosome", "gold": ""}, fewest=5)
    assert found.counts == {"ribosome": 8, "proteasome": 8}
    turned = table().assign(qx=0.6, qw=0.8)
    assert read_annotations([write(turned, tmp_path / "q.star")], places, card).oriented
    assert not found.oriented


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        (table(("A", "B")), {}, "has particles in 'A', 'B', but the tomograms are 'TS_01', 'TS_02'; rename"),
        (table(("TS_01",)), {}, "has no particles in the tomogram 'TS_02'; annotate some, or leave the"),
        (table(classes=("ribosom",)), {}, "did you mean 'ribosome'?; give `classes=ribosom=NAME`, or"),
        (table(classes=("vault",)), {}, "the class 'vault', the model 'ribosomes' knows ribosome, proteas"),
        (table()[:0], {}, "picks.csv has no particles; annotate some"),
        (table(n=4), {}, "has 8 particles of the class 'ribosome' in these tomograms, too few to learn from"),
        (table().assign(x=lambda t: t["x"] * 4), {}, "lie outside of the tomogram 'TS_01' (32 x 40 x 24 vox"),
        (
            table(),
            {"classes": {"ribosome": "ribo"}},
            "`classes=ribosome=ribo`: the model 'ribosomes' has no",
        ),
        (table(), {"classes": {"vault": "ribosome"}}, "has no class 'vault', only 'ribosome'"),
        (table(), {"classes": {"ribosome": ""}}, "has no particles of the classes of the model 'ribosomes'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(rows, options, sentence, places, card, tmp_path):
    path = write(rows, tmp_path / "picks.csv", "csv")
    with pytest.raises(InputError) as refused:
        read_annotations([path], places, card, **options)
    text = str(refused.value)
    assert sentence in text
    assert "\n" not in text


def test_tomograms_are_brought_to_the_models_terms_as_for_picking(places, card, tmp_path):
    said = []
    made = prepare_tomograms(places, card, Preprocessing(), tmp_path / "real", say=said.append)
    assert said == ["reading TS_01", "reading TS_02"]
    raw = generator("noise", "TS_01").normal(100, 7, SHAPE).astype(np.float32)
    np.testing.assert_allclose(made[0].read(), normalise(raw, measure(raw)), atol=2e-3)
    assert made[0].shape == SHAPE
    assert made[0].offset == (0, 0, 0)
    # what is there is used, unless the file or the terms are others
    assert prepare_tomograms(places, card, Preprocessing(), tmp_path / "real", say=said.append) == made
    assert len(said) == 2
    turned = prepare_tomograms(
        places[:1], card, Preprocessing(invert=True), tmp_path / "real", say=said.append
    )
    assert len(said) == 3
    np.testing.assert_allclose(turned[0].read(), -normalise(raw, measure(raw)), atol=2e-3)


def test_another_voxel_size_is_refused_or_resampled(places, card, tmp_path):
    other = card.model_copy(update={"voxel_size": 16.0})
    with pytest.raises(InputError, match=r"voxels of 8 Å.*trained at 16 Å; add `rescale` or `bin=2`"):
        prepare_tomograms(places, other, Preprocessing(), tmp_path / "real")
    (made, _) = prepare_tomograms(places, other, Preprocessing(rescale=True), tmp_path / "real")
    assert made.shape == (12, 20, 16)
    assert made.voxel_size == 16
    (binned, _) = prepare_tomograms(places, other, Preprocessing(bin=2), tmp_path / "real")
    assert binned.offset == (4, 4, 4)


def test_a_tomogram_without_a_voxel_size_is_refused(tmp_path):
    write_mrc(tmp_path / "t.mrc", np.ones(SHAPE, np.float32), None)
    tomogram = Tomogram(str(tmp_path / "t.mrc"), "t")
    with pytest.raises(InputError, match="does not state its voxel size; give it with `voxel_size`"):
        read_sizes([tomogram])
    assert read_sizes([tomogram], 5.0)[0].voxel_size == 5
    assert read_sizes([replace(tomogram, voxel_size=4.0)])[0].voxel_size == 4
