"""YAML that means something else than it seems to is refused, with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalogs.errors import InputError
from catalogs.yaml_files import read_yaml


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "line 5: the key c is already in line 3"),
        ("distractors: [a]\nseed: 1\ndistractors: [b]\n", "line 3: the key distractors is already in line 1"),
        ("x:\n- {p: 1, p: 2}\n", "line 2: the key p is already in line 2"),
        ("a: 1\nratio: 1:10\n", "line 2: YAML reads 1:10 as the number 70"),
        ("a: [0, -1:30.5]\n", "line 1: YAML reads -1:30.5 as the number -90.5"),
        ("a: 010\n", "octal number 8; write 10 or 8"),
        ("a: 1\nno: 2\n", "line 2: YAML reads the key no as false"),
        ("a: [1\nb: 2", "not valid YAML in line 2"),
        ("a: 2026-02-31\n", "not valid YAML"),
        ("[" * 20000, "nested too deeply"),
    ],
)
def test_what_yaml_reads_otherwise_than_people(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).count(str(path)) == 1  # one sentence, not one within another


def test_what_is_meant_as_it_stands_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: '1:10'\nb: {c: 0, d: 1_000, e: yes, f: 0:3 3:3}\nc: [{c: 1}, {c: 2}]\n'no': 4\n")
    expected = {"a": "1:10", "b": {"c": 0, "d": 1000, "e": True, "f": "0:3 3:3"}, "c": [{"c": 1}, {"c": 2}]}
    assert read_yaml(path) == {**expected, "no": 4}
    path.write_text("base: &b {a: 1}\nmine:\n  <<: *b\n  a: 2\nagain: *b\n")
    assert read_yaml(path) == {"base": {"a": 1}, "mine": {"a": 2}, "again": {"a": 1}}
    path.write_text("")
    assert read_yaml(path) is None


def test_as_text_a_time_is_a_time_and_a_key_still_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("walltime: 12:00:00\nno: 010\n")
    assert read_yaml(path, as_text=True) == {"walltime": "12:00:00", "no": "010"}
    path.write_text("walltime: 1\nwalltime: 2\n")
    with pytest.raises(InputError, match="line 2: the key walltime"):
        read_yaml(path, as_text=True)


def test_keys_that_look_like_numbers_are_names(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("1914: 1\n12.10: 2\n2024-05-15: 3\n00255: 4\n1e5: 5\n0x1f: 6\nnull: {7: 8}\n1:10: 9\n")
    assert read_yaml(path) == {
        "1914": 1, "12.10": 2, "2024-05-15": 3, "00255": 4, "1e5": 5, "0x1f": 6, "null": {"7": 8}, "1:10": 9,
    }  # fmt: skip
