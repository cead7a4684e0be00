"""Lists as other programs and editors leave them: the same particles, or a sentence, never other particles.

What an editor or a mail program does to a text (line ends, blanks, marks, comments) and what programs are
free in (orders of columns and rows, columns of their own) changes nothing. What takes a number away, or puts
a word or an impossible number in its place, is refused, with the file named.
"""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from catalogs import particles
from catalogs.errors import InputError
from catalogs.particle_formats.base import EVERYTHING, ORIENTATION, Context
from catalogs.particle_formats.registry import FORMATS
from catalogs.schema import ClassInfo

Q = ["qx", "qy", "qz", "qw"]
CONTEXT = Context(
    voxel_size=8.0,
    shape=(128, 256, 512),
    pixel_size=2.0,
    classes=(ClassInfo(name="ribosome", label=1, radius=110.0),),
    tomograms={3: "TS_03"},
    tomograms_file="tomograms.star",
)
STAR = ["relion5", "relion4", "relion3", "m", "stopgap", "cbox"]
CSV = ["csv", "napari", "czii", "peet"]
XML = ["deepfinder", "pytom", "chimerax"]
COLUMNS = ["dynamo", "imod-text", "deepfinder-text", "shrec", "coords", "deepetpicker", "coords-score", "box"]
JSON = ["copick", "eman2", "portal"]
TEXTS = [*STAR, *CSV, *XML, *COLUMNS, *JSON]
#: Binary, or a folder of others: what a byte does to them is in test_files.py.
OTHERS = {"relion5-set", "em", "imod", "deepfinder-excel", "tomotwin"}


def table() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    turned = Rotation.random(4, rng=np.random.default_rng(8)).as_quat()
    return particles.make(
        tomogram="TS_03",
        class_name="ribosome",
        label=1,
        x=rng.uniform(100, 3000, 4),
        y=rng.uniform(100, 1500, 4),
        z=rng.uniform(100, 900, 4),
        score=[0.25, 0.5, 0.75, 0.125],
        **dict(zip(Q, turned.T, strict=True)),
    )


def written(folder: Path, name: str) -> Path:
    suffix = FORMATS[name].suffixes[0]
    path = folder / ("TS_03_MOTL.csv" if name == "peet" else f"TS_03{suffix}")
    particles.save(table(), path, name, CONTEXT)
    return path


def check(path: Path, name: str, rows: int = 4) -> None:
    format = FORMATS[name]
    read = particles.load(path, name, CONTEXT).table
    expected = table()
    assert len(read) == rows
    holds = {"x", "y", "z", "tomogram", "class_name", "label", "score"}
    held = holds if EVERYTHING in format.holds else holds & format.holds
    held -= {"class_name"} if name == "portal" else set()  # which the name of its file says
    step = format.rounding * 8.0 if format.rounding > 0.01 else 1e-3
    where = [int(np.abs(expected["x"] - x).argmin()) for x in read["x"]]  # in whatever order
    assert len(set(where)) == rows
    for column in held:
        theirs, ours = read[column].to_numpy(), expected[column].to_numpy()[where]
        if expected[column].dtype.kind == "f":
            np.testing.assert_allclose(theirs, ours, atol=step, err_msg=f"{name} {column}")
        else:
            assert list(theirs) == list(ours), (name, column)
    if format.holds >= ORIENTATION or EVERYTHING in format.holds:
        apart = Rotation.from_quat(read[Q].to_numpy()).inv() * Rotation.from_quat(
            expected[Q].to_numpy()[where]
        )
        assert apart.magnitude().max() < 1e-3, name


def test_every_format_is_here() -> None:
    assert {*TEXTS} | OTHERS == set(FORMATS)


# ------------------------------------------------------------------------------------ what changes nothing


def crlf(text: bytes) -> bytes:
    return text.replace(b"\n", b"\r\n")


def old_mac(text: bytes) -> bytes:
    return text.replace(b"\n", b"\r")


def mark(text: bytes) -> bytes:
    return b"\xef\xbb\xbf" + text


def no_last_end(text: bytes) -> bytes:
    return text.rstrip(b"\n")


def blank_lines(text: bytes) -> bytes:
    return text + b"\n\n\n"


def trailing_blanks(text: bytes) -> bytes:
    return text.replace(b"\n", b"  \n")


def leading_blank_line(text: bytes) -> bytes:
    return b"\n" + text


def tabs(text: bytes) -> bytes:
    return b"\n".join(
        line
        if line.lstrip().startswith((b"#", b"<", b"_", b"data_", b"loop_"))
        else line.replace(b" ", b"\t")
        for line in text.split(b"\n")
    )


def many_blanks(text: bytes) -> bytes:
    return b"\n".join(
        line if line.lstrip().startswith((b"#", b"<", b"{", b"[", b'"')) else line.replace(b" ", b"    ")
        for line in text.split(b"\n")
    )


EVERYWHERE = [crlf, mark, no_last_end, blank_lines, trailing_blanks, leading_blank_line]


@pytest.mark.parametrize("change", [*EVERYWHERE, old_mac, tabs, many_blanks], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", TEXTS)
def test_what_editors_do(name: str, change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = written(tmp_path, name)
    path.write_bytes(change(path.read_bytes()))
    check(path, name)


def shuffled_columns(text: str, seed: int) -> str:
    """Put the columns of each loop of a STAR file, or of a CSV file, in another order."""
    rng = random.Random(seed)
    out: list[str] = []
    order: list[int] | None = None
    labels: list[str] = []
    for line in text.split("\n"):
        if (
            line.startswith("_")
            and len(line.split()) <= 2
            and not (labels == [] and out and "loop_" not in out[-1])
        ):
            labels.append(line.split()[0])
            continue
        if labels:
            order = list(range(len(labels)))
            rng.shuffle(order)
            out += [f"{labels[k]} #{n}" for n, k in enumerate(order, start=1)]
            labels = []
        if not line.strip() or line.startswith(("data_", "loop_", "#")):
            order = order if not line.strip() else None
            out.append(line)
        elif order is not None and line.startswith("_"):
            out.append(line)
        else:
            words = re.findall(r'"[^"]*"|\S+', line)
            out.append(" ".join(words[k] for k in order) if order and len(words) == len(order) else line)
    return "\n".join(out)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", [name for name in STAR if name != "stopgap"])
def test_orders_of_columns_in_star(name: str, seed: int, tmp_path: Path) -> None:
    path = written(tmp_path, name)
    text = path.read_text()
    path.write_text(shuffled_columns(text, seed))
    assert path.read_text() != text
    check(path, name)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["csv", "napari", "czii"])
def test_orders_of_columns_in_csv(name: str, seed: int, tmp_path: Path) -> None:
    path = written(tmp_path, name)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame.insert(0, "of_another_program", [f"{k}x" for k in range(len(frame))])
    columns = list(frame)
    random.Random(seed).shuffle(columns)
    frame[columns].to_csv(path, index=False)
    check(path, name)


@pytest.mark.parametrize("name", [name for name in [*STAR, *CSV, *COLUMNS] if name != "imod-text"])
@given(st.permutations(range(4)), st.integers(1, 4))
@settings(max_examples=6, deadline=None)
def test_orders_and_numbers_of_rows(name: str, order: list[int], n: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), name)
        lines = path.read_text().split("\n")
        rows = [k for k, line in enumerate(lines) if is_row(line, name)][:4]
        chosen = [lines[rows[k]] for k in order[:n]]
        kept = [line for k, line in enumerate(lines) if k not in rows]
        kept[rows[0] : rows[0]] = chosen
        path.write_text("\n".join(kept))
        check(path, name, n)


def is_row(line: str, name: str) -> bool:
    """Whether a line is of a particle: it has more numbers than words."""
    words = line.replace(",", " ").split()
    numbers = sum(bool(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", word)) for word in words)
    return numbers >= 3 and not line.startswith(("_", "#", "data_")) and numbers * 2 > len(words)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "relion5-set"])
def test_long_lists(name: str, tmp_path: Path) -> None:
    """More particles than any look at the beginning of a file sees."""
    rng = np.random.default_rng(1)
    n = 5000
    long = particles.make(
        tomogram="TS_03",
        class_name="ribosome",
        label=1,
        x=np.arange(n) * 9.0,
        y=rng.uniform(0, 2000, n),
        z=80.0,
    )
    path = tmp_path / ("TS_03_MOTL.csv" if name == "peet" else f"TS_03{FORMATS[name].suffixes[0] or '.json'}")
    particles.save(long, path, name, CONTEXT)
    read = particles.read(path, name, context=CONTEXT)
    step = 8.0 * max(FORMATS[name].rounding, 1e-3)
    np.testing.assert_allclose(np.sort(read["x"]), long["x"], atol=step)


# --------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("value", ["", "abc", "1,5", "--3", "1e400", "nan", "inf"])
@pytest.mark.parametrize("name", [name for name in TEXTS if name not in JSON])
def test_a_position_that_is_no_number(name: str, value: str, tmp_path: Path) -> None:
    """A word, nothing or no number in the place of one x: refused in a sentence that names the file."""
    path = written(tmp_path, name)
    text = path.read_text()
    path.write_text(spoilt(text, name, value))
    with pytest.raises(InputError) as caught:
        particles.load(path, name, CONTEXT)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ['"abc"', "null", "NaN", "Infinity", "[1]", "{}", '""'])
@pytest.mark.parametrize("name", JSON)
def test_a_position_in_json_that_is_no_number(name: str, value: str, tmp_path: Path) -> None:
    path = written(tmp_path, name)
    text = path.read_text()
    first = r'("boxes_3d": \[\s*\[\s*)[-\d.]+' if name == "eman2" else r'("x": )[-\d.]+'
    assert re.search(first, text)
    path.write_text(re.sub(first, rf"\g<1>{value}", text, count=1))
    with pytest.raises(InputError) as caught:
        particles.load(path, name, CONTEXT)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def spoilt(text: str, name: str, value: str) -> str:
    """Put a value in the place of the first x of the first particle."""
    if name in XML:
        where = re.search(r'<PickPosition[^>]* X="([^"]*)"|<(?:object|marker)\b[^>]* x="([^"]*)"', text)
        assert where is not None
        group = 1 if where[1] is not None else 2
        return text[: where.start(group)] + value + text[where.end(group) :]
    lines = text.split("\n")
    k = next(k for k, line in enumerate(lines) if is_row(line, name))
    comma = "," in lines[k]
    words = lines[k].split(",") if comma else lines[k].split()
    column = {"dynamo": 23, "imod-text": 2, "deepfinder-text": 3, "shrec": 1, "deepetpicker": 1}.get(name, 0)
    if name in CSV:
        column = 10 if name == "peet" else lines[0].split(",").index("axis-2" if name == "napari" else "x")
    if name in STAR:
        labels = [line.split()[0] for line in lines[:k] if line.startswith("_")]
        block = max(n for n in range(k) if lines[n].startswith("loop_"))
        labels = [line.split()[0] for line in lines[block:k] if line.startswith("_")]
        column = next(n for n, label in enumerate(labels) if re.search(r"CoordinateX|orig_x", label))
    words[column] = f'"{value}"' if comma and "," in value else value
    lines[k] = ("," if comma else " ").join(words)
    return "\n".join(lines)


@pytest.mark.parametrize("name", ["relion5", "relion4", "relion3", "m", "stopgap", "cbox"])
def test_a_column_that_is_missing_is_named(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, name)
    text = path.read_text()
    label = next(
        line.split()[0]
        for line in text.splitlines()
        if re.match(r"_\S*(CoordinateY|CenteredCoordinateY|orig_y)", line)
    )
    path.write_text(text.replace(label, "_somethingElse"))
    with pytest.raises(InputError, match=label[1:]):
        particles.load(path, name, CONTEXT)
