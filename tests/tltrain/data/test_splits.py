import pytest

from catalogs.errors import InputError
from tltrain.data.splits import split_samples


@pytest.fixture(scope="module")
def varied(make_catalog, write_balls, tmp_path_factory):
    """Tomograms of four defoci in pairs, one for validation and one for test."""
    from catalogs.schema import Acquisition

    catalog = make_catalog(tmp_path_factory.mktemp("varied") / "balls")
    write = catalog.write

    def write_with(defocus):
        def change(sample):
            facts = {**sample.facts, "acquisition": Acquisition(voxel_size=10, defocus=defocus)}
            object.__setattr__(sample, "facts", facts)
            return write(sample)

        return change

    for k, defocus in enumerate((1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.5, 4.5)):
        catalog.write = write_with(defocus)
        write_balls(catalog, f"train-{k}", "train", shape=(16, 24, 24), n=1)
    for name, defocus in (("val", 1.0), ("test", 4.5)):
        catalog.write = write_with(defocus)
        write_balls(catalog, f"{name}-0", name, shape=(16, 24, 24), n=1)
    del catalog.write
    return catalog


def names(records):
    return {record.name for record in records}


def test_the_recipes_split_is_what_is_taken(varied):
    chosen = split_samples(varied)
    assert names(chosen.train) == {f"train-{k}" for k in range(8)}
    assert names(chosen.val) == {"val-0"}


def test_a_query_chooses(varied):
    assert names(split_samples(varied, "defocus > 2").train) == {"train-4", "train-5", "train-6", "train-7"}
    assert names(split_samples(varied, "defocus > 2").val) == {"val-0"}


def test_what_is_held_out_validates_and_never_trains(varied):
    chosen = split_samples(varied, "defocus > 1", "defocus > 4")
    assert names(chosen.train) == {"train-2", "train-3", "train-4", "train-5"}
    assert names(chosen.val) == {"train-6", "train-7"}  # and not test-0
    seen = {record.acquisition.defocus for record in chosen.train}
    assert not seen & {record.acquisition.defocus for record in chosen.val}
    chosen = split_samples(varied, hold_out="defocus < 1.5")
    assert names(chosen.val) == {"train-0", "train-1", "val-0"}


def test_parameter_sets_are_dealt_out_whole(varied):
    dealt = set()
    for seed in range(40):  # a tenth of four sets is none more often than not: then it is one
        chosen = split_samples(varied, by=["defocus"], seed=seed)
        train, val = ({record.acquisition.defocus for record in part} for part in chosen)
        assert not train & val
        assert train | val == {1.0, 2.0, 3.0, 4.5}
        assert 1 <= len(val) <= 3
        assert chosen == split_samples(varied, by=["defocus"], seed=seed)
        dealt.add(tuple(sorted(val)))
    assert {(1.0,), (2.0,), (3.0,), (4.5,)} <= dealt


def test_a_tenth_of_many_sets_is_held_out(make_catalog, write_balls, tmp_path):
    catalog = make_catalog(tmp_path / "many")
    for k in range(60):
        write_balls(catalog, f"t{k}", "train", shape=(8, 12, 12), n=1)  # each of a defocus of its own
    chosen = split_samples(catalog, by=["defocus"], seed=2)
    assert 1 <= len(chosen.val) <= 13
    assert len(chosen.val) + len(chosen.train) == 60


@pytest.mark.parametrize(
    ("where", "hold_out", "by", "says"),
    [
        ("defocus > 9", None, (), 'fits `where` "defocus > 9"'),
        ("split == 'test'", None, (), "kept for validation and test"),
        ("defocus > 4", "defocus > 3", (), 'holds out 3 of the 3 that fit|`hold_out` "defocus > 3"'),
        (None, "defocus > 9", (), "there would be no validation"),
        (None, "defocsu > 4", (), "defocus"),
        (None, "defocus > 4", ("defocus",), "exclude each other"),
        (None, None, ("defocsu",), "`hold_out_by` names 'defocsu'"),
    ],
)
def test_mistakes_are_said(varied, where, hold_out, by, says):
    with pytest.raises(InputError, match=says):
        split_samples(varied, where, hold_out, by=by)
