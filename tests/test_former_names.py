"""Options and parameters that were renamed: their old names still work, and files and hashes keep them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import tlpick
import tltrain
from catalogs.errors import InputError
from catalogs.former_names import accepts_former, as_stored
from catalogs.seeds import digest
from tlpick.batch.pipeline import Settings as RunSettings

MODEL = Path(__file__).parent / "data" / "balls-before.tlm"


def command(program: str, name: str) -> click.Command:
    group = getattr(importlib.import_module(f"{program}.cli"), program)
    found = group.get_command(click.Context(group), name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("program", "name", "former", "now", "value"),
    [
        ("tltrain", "fit", "--shares", "--sampling", "target=1"),
        ("tltrain", "fit", "--tolerate", "--max-damaged", 0.25),
        ("tltrain", "finetune", "--mix", "--simulated-share", 0.25),
        ("tltrain", "finetune", "--shell", "--background-shell", 0.75),
        ("tlpick", "run", "--exclusion", "--min-separation", 0.25),
    ],
)
def test_an_option_has_its_old_name_too_which_is_not_shown(
    program: str, name: str, former: str, now: str, value: Any
) -> None:
    asked = command(program, name)
    parser = asked.make_parser(click.Context(asked))
    values, _, _ = parser.parse_args([former, str(value)])
    assert values[now.lstrip("-").replace("-", "_")] == str(value)
    shown = asked.get_help(click.Context(asked))
    assert f"{now} " in shown
    assert f"{former} " not in shown
    assert f"{former}," not in shown


@pytest.mark.parametrize(
    ("make", "former", "now"),
    [
        (tltrain.Settings, "tolerated", "max_damaged"),
        (tltrain.Settings, "shares", "sampling"),
        (tltrain.FineTuning, "mix", "simulated_share"),
        (tltrain.FineTuning, "shell", "background_shell"),
        (tlpick.Localising, "exclusion", "min_separation"),
        (tlpick.Preprocessing, "unusual", "yes"),
    ],
)
def test_settings_take_their_old_names(make: Any, former: str, now: str) -> None:
    with pytest.warns(FutureWarning, match=f"{former}' is called '{now}' now"):
        made = make(**{former: 0.125})
    assert made == make(**{now: 0.125})
    assert getattr(made, former) == getattr(made, now) == 0.125
    with pytest.raises(TypeError, match=f"both '{now}' and its old name '{former}'"):
        make(**{former: 0.125, now: 0.5})


def test_options_of_fit_take_their_old_names(tmp_path: Path) -> None:
    with (
        pytest.warns(FutureWarning, match="'tolerated' is called 'max_damaged' now"),
        pytest.raises(InputError, match="`max_damaged` is 2"),
    ):
        tltrain.fit(tmp_path, tmp_path / "m.tlm", tolerated=2)


def test_the_preprocessing_takes_its_old_names(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match=r"tlpick\.Terms is called Preprocessing now"):
        assert tlpick.Terms is tlpick.Preprocessing
    assert "Terms" not in dir(tlpick)
    unlike: dict[str, Any] = {"terms": tlpick.Preprocessing(bin=64)}
    model = tlpick.load_model(MODEL)
    noise = np.random.default_rng(0).standard_normal((8, 8, 8)).astype(np.float32)
    for use in (model.segment, model.pick):
        with (
            pytest.warns(FutureWarning, match="'terms' is called 'preprocessing' now"),
            pytest.raises(InputError, match="after binning by 64"),
        ):
            use(noise, voxel_size=10.0, **unlike)
    picks = tmp_path / "picks.csv"
    for call in (
        lambda: tlpick.pick_many(MODEL, str(tmp_path / "none.mrc"), tmp_path / "to", **unlike),
        lambda: tltrain.fine_tune(MODEL, str(tmp_path / "none.mrc"), picks, tmp_path / "m.tlm", **unlike),
    ):
        with (
            pytest.warns(FutureWarning, match="'terms' is called 'preprocessing' now"),
            pytest.raises(InputError, match=r"none\.mrc"),
        ):
            call()


def test_files_and_fingerprints_keep_the_first_names() -> None:
    """What was trained or picked before with the same settings counts as done: its hash is the same."""
    assert {"shares", "tolerated"} <= as_stored(tltrain.Settings()).keys()
    assert {"shell", "mix"} <= as_stored(tltrain.FineTuning()).keys()
    run = as_stored(RunSettings())
    assert run["terms"]["bin"] == 1
    assert run["terms"]["unusual"] is False
    assert run["localising"]["exclusion"] == 0.5
    assert digest(as_stored(tltrain.Settings())) == "a288f64548865b38"
    with_corpus = tltrain.FineTuning(simulated_share=0.5, background_below=0.0)  # as it is settled then
    assert digest(as_stored(with_corpus)) == "f820054a5b850cd3"
    assert digest(run) == "5fb9d6354665beed"


def test_a_function_takes_one_of_both_names() -> None:
    @accepts_former(old="new")
    def twice(new: int) -> int:
        return 2 * new

    given: dict[str, Any] = {"old": 3}
    with pytest.warns(FutureWarning, match="twice: 'old' is called 'new' now") as caught:
        assert twice(**given) == 6
    assert caught[0].filename == __file__
    with pytest.raises(TypeError, match="both 'new' and its old name 'old'"):
        twice(new=1, **given)
