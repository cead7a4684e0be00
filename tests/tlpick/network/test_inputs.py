"""Which tomograms the command line names."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest

from catalogs.errors import InputError
from catalogs.volumes import write_mrc, write_ome_zarr
from tlpick.network.tomograms.inputs import Selection, Tomogram, expand, named

STAR = """
data_global

loop_
_rlnTomoName
_rlnTomoTiltSeriesPixelSize
_rlnTomoTomogramBinning
_rlnTomoReconstructedTomogram
TS_01 2.5 4.0 Tomograms/job009/tomograms/rec_TS_01.mrc
TS_02 2.5 4.0 Tomograms/job009/tomograms/rec_TS_02.mrc
"""


def tiny(path: Path) -> Path:
    write_mrc(path, np.zeros((4, 4, 4), np.float32), 10.0)
    return path


def paths(arguments: list[str], selection: Selection | None = None) -> list[str]:
    found, wrong = expand(arguments, selection or Selection())
    if wrong:
        raise wrong[0][1]
    return [tomogram.path for tomogram in found]


def test_globs_lists_and_urls_name_tomograms(tmp_path: Path) -> None:
    for name in ("b.mrc", "a.mrc", "deep/c.mrc"):
        tiny(tmp_path / name)
    write_ome_zarr(tmp_path / "d.zarr", np.zeros((4, 4, 4), np.float32), 10.0)
    a, b, c, d = (str(tmp_path / name) for name in ("a.mrc", "b.mrc", "deep/c.mrc", "d.zarr"))
    assert paths([f"{tmp_path}/*.mrc"]) == [a, b]
    assert paths([f"{tmp_path}/**/*.mrc", a, d]) == [a, b, c, d]  # each once
    (tmp_path / "all.txt").write_text(f"# mine\n{b}\n\ndeep/*.mrc\nd.zarr\n")
    assert paths([str(tmp_path / "all.txt")]) == [b, c, d]

    memory = fsspec.filesystem("memory")
    for name in ("x.mrc", "y.mrc"):
        memory.pipe(f"/globs/{name}", (tmp_path / "a.mrc").read_bytes())
    assert paths(["memory://globs/*.mrc"]) == ["memory:///globs/x.mrc", "memory:///globs/y.mrc"]


def test_tomograms_star_names_files_voxel_sizes_and_names(tmp_path: Path) -> None:
    star = tmp_path / "Tomograms" / "job009" / "tomograms.star"
    for k in (1, 2):
        tiny(tmp_path / f"Tomograms/job009/tomograms/rec_TS_0{k}.mrc")
    star.write_text(STAR)
    found, wrong = expand([str(star)], Selection())
    assert wrong == []
    # the paths in the list are relative to the project's folder, two levels up
    assert found[0] == Tomogram(
        str(tmp_path / "Tomograms/job009/tomograms/rec_TS_01.mrc"), "TS_01", pytest.approx(10.0)
    )
    assert [tomogram.name for tomogram in found] == ["TS_01", "TS_02"]
    with pytest.raises(InputError, match=r"no column rlnTomoReconstructedTomogramDenoised; reconstruct"):
        paths([str(star)], Selection(kind="denoised"))


def test_a_copick_project_gives_the_resolution_of_the_model(tmp_path: Path) -> None:
    volume = np.zeros((4, 4, 4), np.float32)
    for run in ("run1", "run2"):
        for spacing in ("5.000", "10.012"):
            folder = tmp_path / "project" / "ExperimentRuns" / run / f"VoxelSpacing{spacing}"
            write_ome_zarr(folder / "wbp.zarr", volume, float(spacing))
            write_ome_zarr(folder / "wbp_sobel_features.zarr", volume, float(spacing))
    project = tmp_path / "project"
    config = tmp_path / "copick.json"
    config.write_text(json.dumps({"overlay_root": f"local://{project}"}))
    for argument in (project, config):
        found, wrong = expand([str(argument)], Selection(voxel_size=10.0))
        assert wrong == []
        assert [(each.name, each.voxel_size) for each in found] == [("run1", 10.012), ("run2", 10.012)]
        assert found[0].path.endswith("run1/VoxelSpacing10.012/wbp.zarr")
    write_ome_zarr(project / "ExperimentRuns/run1/VoxelSpacing10.012/denoised.zarr", volume, 10.012)
    with pytest.raises(InputError, match=r"several tomograms of run1 \(denoised, wbp\); choose by"):
        paths([str(project)])
    assert len(paths([str(project)], Selection("wbp"))) == 2
    with pytest.raises(InputError, match="has no tomograms 'ctf'"):
        paths([str(project)], Selection("ctf"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none*.mrc", None, "nothing matches .*none.*mrc"),
        ("empty.txt", "# nothing\n", "names no tomogram"),
        ("absent.txt", None, "there is no list"),
        ("absent.star", None, "there is no STAR file"),
        ("other.star", "data_\n\nloop_\n_rlnMicrographName\na.mrc\n", "no column rlnTomoName"),
        (
            "raw.star",
            "data_\n\nloop_\n_rlnTomoName\n_rlnVoltage\nTS_1 300\n",
            "no column rlnTomoReconstructedTomogram; reconstruct",
        ),
        ("noise.star", "\x00\x01", "no column rlnTomoName|is not a STAR file|is not a text"),
        ("wrong.json", "[1]", "is not the configuration of a copick project"),
        ("empty.json", "{}", "names no folder with ExperimentRuns"),
    ],
)
def test_what_names_no_tomogram_is_said(tmp_path: Path, name: str, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    good = str(tiny(tmp_path / "good.mrc"))
    found, wrong = expand([str(tmp_path / name), good], Selection())
    assert [tomogram.path for tomogram in found] == [good]
    [(argument, error)] = wrong
    assert argument == str(tmp_path / name)
    with pytest.raises(InputError, match=words):
        raise error
    assert "\n" not in str(error)


def test_names_are_unique(tmp_path: Path) -> None:
    one, two = tiny(tmp_path / "a" / "tomo.mrc"), tiny(tmp_path / "b" / "tomo.mrc")
    assert [each.name for each in named([Tomogram(str(one)), Tomogram(str(two), "other")])] == [
        "tomo",
        "other",
    ]
    with pytest.raises(InputError, match=r"a/tomo.mrc and .*b/tomo.mrc are both named 'tomo'"):
        named([Tomogram(str(one)), Tomogram(str(two))])
