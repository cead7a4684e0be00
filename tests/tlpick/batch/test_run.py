"""A run over many tomograms: bad ones stop nothing, a kill loses nothing, workers change nothing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
from distributed import LocalCluster

from catalogs import particles
from catalogs.model_file import MODEL_FORMAT_VERSION, read_card, with_card, write_model
from catalogs.volumes import open_volume, write_mrc
from tlpick.batch.run import _Book

Run = Callable[..., Any]
PROGRAM = "import sys, tlpick.cli; sys.argv[0] = 'tlpick'; tlpick.cli.main()"


@pytest.fixture
def make_balls(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The function of the same name in conftest.py, which no test module can import."""
    plugin = request.config.pluginmanager.get_plugin(str(Path(__file__).parents[1] / "conftest.py"))
    assert plugin is not None
    function: Callable[..., Any] = plugin.dark_balls
    return function


@pytest.fixture
def data(make_balls: Run, tmp_path: Path) -> Path:
    """A folder with four small tomograms."""
    for k in range(4):
        balls = make_balls(f"tomo-{k}", shape=(24, 40, 44), n=2)
        write_mrc(tmp_path / "data" / f"tomo-{k}.mrc", balls.data, 10.0)
    return tmp_path / "data"


def contents(folder: Path) -> dict[str, str]:
    """Digests of what the folder of a run holds, but for the records, which have dates and durations.

    Of Zarr arrays the voxels count: the same voxels may be compressed to other bytes, depending on what the
    process has compressed before.
    """
    import zarr

    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "zarr.json" and json.loads(path.read_text())["node_type"] == "array":
            voxels = np.ascontiguousarray(zarr.open_array(path.parent, mode="r")[...])
            found[f"{name} voxels"] = hashlib.sha256(voxels.tobytes()).hexdigest()
        if path.is_file() and "/c/" not in name and path.name not in ("done.json", "run.json", "report.html"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def left_over(folder: Path) -> list[Path]:
    """Files and folders that are not finished."""
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_each_bad_tomogram_fails_in_one_sentence_and_the_others_go_on(
    tlpick: Run, ball_model: Path, data: Path, tmp_path: Path
) -> None:
    good = open_volume(data / "tomo-0.mrc").read()
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "cut.mrc").write_bytes((data / "tomo-0.mrc").read_bytes()[:-5000])
    broken = good.copy()
    broken[3, 4, 5] = np.nan
    write_mrc(bad / "holes.mrc", broken, 10.0)
    write_mrc(bad / "flat.mrc", np.full((16, 16, 16), 3, np.float32), 10.0)
    with mrcfile.new(bad / "image.mrc") as mrc:
        mrc.set_data(good[0])
        mrc.voxel_size = 10.0
    (bad / "text.mrc").write_text("no volume")
    (bad / "tomograms.star").write_text("data_\n\nloop_\n_rlnTomoName\n_rlnVoltage\nTS_1 300\n")
    told = {
        "cut.mrc": "cut off",
        "holes.mrc": "not finite numbers",
        "flat.mrc": "is constant",
        "image.mrc": "axes|volume|image",
        "text.mrc": "MRC",
        "tomograms.star": "no column rlnTomoReconstructedTomogram",
        "none-*.mrc": "nothing matches",
    }
    arguments = [bad / name for name in told]
    done = tlpick("run", ball_model, *arguments, data / "tomo-*.mrc", "--to", tmp_path / "picks")
    assert done.status == 1
    assert "in 4 tomograms" in done.out
    *failures, again, last = [line for line in done.err.splitlines() if "FAILED" in line or "failed" in line]
    del again
    assert last == "7 of 11 tomograms failed; the same command tries them again"
    assert all("Traceback" not in line for line in done.err.splitlines())
    first = failures[:7]
    for name, words in told.items():
        [line] = [line for line in first if f"/{name}" in line]
        assert any(word in line for word in words.split("|")), line
    run = json.loads((tmp_path / "picks" / "run.json").read_text())
    assert len(run["failed"]) == 7
    assert len(run["tomograms"]) == 4
    assert left_over(tmp_path / "picks") == []

    # what is mended is picked by the same command
    write_mrc(bad / "holes.mrc", good, 10.0)
    done = tlpick("run", ball_model, *arguments, data / "tomo-*.mrc", "--to", tmp_path / "picks")
    assert "in 5 tomograms" in done.out, done.err
    assert done.out.count("(picked before)") == 4


def test_a_tomogram_that_becomes_shorter_stops_no_other(
    tlpick: Run, ball_model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlpick.batch import pipeline

    plain = pipeline.checksum

    def cutting(path: str) -> str:  # it is open already, and its voxels are read next
        found = plain(path)
        if path.endswith("tomo-1.mrc"):
            os.truncate(path, 9000)
        return found

    monkeypatch.setattr(pipeline, "checksum", cutting)
    done = tlpick("run", ball_model, data / "tomo-*.mrc", "--to", tmp_path / "picks")
    assert done.status == 1
    assert "in 3 tomograms" in done.out
    [line] = [line for line in done.err.splitlines() if line.startswith("FAILED")]
    assert "tomo-1.mrc became shorter while it was read: another program writes to it" in line
    assert "1 of 4 tomograms failed" in done.err
    assert left_over(tmp_path / "picks") == []


def test_a_model_of_another_version_is_refused(
    tlpick: Run, ball_model: Path, no_network: bytes, data: Path, tmp_path: Path
) -> None:
    card = read_card(ball_model)
    newer, other = tmp_path / "newer.tlm", tmp_path / "other.tlm"
    write_model(newer, card.model_copy(update={"format_version": MODEL_FORMAT_VERSION + 1}), no_network)
    write_model(other, card.model_copy(update={"normalisation": "something else"}), no_network)
    refused = tlpick("run", newer, data / "tomo-0.mrc", "--to", tmp_path / "picks")
    assert refused.status == 2
    assert f"format version {MODEL_FORMAT_VERSION + 1}" in refused.err
    refused = tlpick("run", other, data / "tomo-0.mrc", "--to", tmp_path / "picks")
    assert refused.status == 2
    assert "normalised by 'something else'" in refused.err or "cannot load the network" in refused.err


def test_a_network_without_a_card_is_refused(
    tlpick: Run, no_network: bytes, data: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.keras"
    plain.write_bytes(no_network)
    refused = tlpick("run", plain, data / "tomo-0.mrc", "--to", tmp_path / "picks")
    assert refused.status == 2
    assert refused.err.count("\n") == 1
    assert "plain.keras is a Keras network, but it does not state its classes" in refused.err
    assert not (tmp_path / "picks").exists()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--max-memory", "lots", "'lots' is not an amount of memory"),
        ("--max-memory", "10MB", "give more --max-memory"),
        ("--crop", "5-9", "'5-9' is not a range of planes"),
        ("--crop", "90:99", "leaves nothing of"),
        ("--tta", "3", "'3' is not one of 1, 4, 8"),
        ("--mask", "absent.mrc", "there is no volume absent.mrc"),
        ("--cluster", "moon", "moon"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tlpick: Run, ball_model: Path, data: Path, tmp_path: Path, option: str, value: str, words: str
) -> None:
    refused = tlpick("run", ball_model, data / "tomo-0.mrc", "--to", tmp_path / "picks", option, value)
    assert refused.status == 2
    assert words in refused.err
    assert len(refused.err.splitlines()) == 1


def test_content_decides_what_is_done(tlpick: Run, ball_model: Path, data: Path, tmp_path: Path) -> None:
    def fresh(*options: Any) -> int:
        done = tlpick("run", ball_model, data / "*.mrc", "--to", tmp_path / "picks", *options)
        assert done.status == 0
        return 4 - done.out.count("(picked before)")

    assert fresh() == 4
    assert fresh() == 0
    for path in data.iterdir():
        os.utime(path)  # touched, as a copy would be
    assert fresh() == 0
    assert fresh("--max-memory", "3GB", "--tile", 40) == 0
    assert fresh("--tta", 4) == 4
    dates = (data / "tomo-1.mrc").stat()
    write_mrc(data / "tomo-1.mrc", open_volume(data / "tomo-2.mrc").read(), 10.0)
    os.utime(data / "tomo-1.mrc", ns=(dates.st_atime_ns, dates.st_mtime_ns))
    assert fresh("--tta", 4) == 1
    mask = np.ones((24, 40, 44), np.int8)
    write_mrc(tmp_path / "mask.mrc", mask, 10.0)
    assert fresh("--tta", 4, "--mask", tmp_path / "mask.mrc") == 4
    mask[:12] = 0
    write_mrc(tmp_path / "mask.mrc", mask, 10.0)
    assert fresh("--tta", 4, "--mask", tmp_path / "mask.mrc") == 4


def test_region_bin_and_crop_keep_picks_in_their_place(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    balls = make_balls("fine", shape=(80, 140, 120), n=8, voxel_size=5.0, contrast=1.0)
    write_mrc(tmp_path / "fine.mrc", balls.data, 5.0)
    inside = np.zeros((40, 70, 60), np.int8)  # binned by two
    inside[:, :35] = 1
    write_mrc(tmp_path / "mask.mrc", inside, 10.0)

    def picks(*options: Any) -> pd.DataFrame:
        to = ("--to", tmp_path / "picks", "--bin", 2, "--fdr", "off")
        done = tlpick("run", ball_model, tmp_path / "fine.mrc", *to, *options)
        assert (done.status, done.err) == (0, "")
        return particles.read(tmp_path / "picks" / "particles.star")

    def far(table: pd.DataFrame) -> np.ndarray[Any, Any]:
        xyz = [each[["x", "y", "z"]].to_numpy() for each in (table, balls.truth)]
        away: np.ndarray[Any, Any] = np.linalg.norm(xyz[0][:, None] - xyz[1][None], axis=2).min(axis=1)
        return away

    whole = picks()
    assert len(whole) == 8
    assert far(whole).max() < 12
    masked = picks("--mask", tmp_path / "mask.mrc")
    assert 0 < len(masked) < 8
    assert (masked["y"] < 350).all()
    assert far(masked).max() < 40  # one may be cut by the mask
    cropped = picks("--crop", "40:80")
    assert 0 < len(cropped) < 8
    assert (cropped["z"] >= 200).all()
    assert far(cropped).max() < 40
    run = json.loads((tmp_path / "picks" / "run.json").read_text())
    assert run["settings"]["terms"]["crop"] == [40, 80]


def test_segmentations_are_kept_as_asked(tlpick: Run, ball_model: Path, data: Path, tmp_path: Path) -> None:
    to = ("run", ball_model, data / "tomo-0.mrc", "--to", tmp_path / "picks", "--crop", "4:20")
    folder = tmp_path / "picks" / "tomo-0"
    assert tlpick(*to, "--keep-segmentation", "mrc").status == 0
    labels, probability = (open_volume(folder / f"{name}.mrc") for name in ("segmentation", "probability"))
    assert labels.shape == probability.shape == (16, 40, 44)
    assert labels.origin == (0.0, 0.0, 40.0)
    classes = labels.read()
    assert ((classes == 1) == (probability.read() >= 0.5)).all()
    assert classes.sum() > 300
    assert tlpick(*to, "--keep-segmentation", "zarr").status == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "decoys.star",
        "done.json",
        "particles.all.star",
        "particles.star",
        "segmentation.zarr",
    ]
    image = open_volume(folder / "segmentation.zarr" / "labels" / "classes")
    np.testing.assert_array_equal(image.read(), classes)
    assert image.origin == (0.0, 0.0, 40.0)
    assert tlpick(*to).status == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "decoys.star",
        "done.json",
        "particles.all.star",
        "particles.star",
    ]


@pytest.mark.slow
def test_workers_change_nothing(tlpick: Run, ball_model: Path, data: Path, tmp_path: Path) -> None:
    found = []
    for workers in (1, 2, 4):
        folder = tmp_path / f"by-{workers}"
        options = () if workers == 1 else ("--cluster", f"local:{workers}")
        done = tlpick(
            "run", ball_model, data / "*.mrc", "--to", folder, "--keep-segmentation", "zarr", *options
        )
        assert done.status == 0
        assert "8 ball in 4 tomograms" in done.out
        assert done.out.count("redundancy") == 4
        found.append(contents(folder))
    assert len(found[0]) > 20
    assert found[0] == found[1] == found[2]


def start(*arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, "run", *(str(argument) for argument in arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    for _ in range(12000):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("nothing happened for four minutes")


@pytest.mark.slow
def test_a_killed_run_loses_only_what_was_in_flight(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    for k in range(5):
        balls = make_balls(f"tomo-{k}", shape=(48, 96, 96), n=6)
        write_mrc(tmp_path / "data" / f"tomo-{k}.mrc", balls.data, 10.0)
    picks = tmp_path / "picks"
    arguments = (
        ball_model,
        tmp_path / "data" / "*.mrc",
        "--to",
        picks,
        "--tta",
        8,
        "--keep-segmentation",
        "zarr",
    )
    for moment in (1, 2):
        process = start(*arguments)
        wait_for(
            lambda n=moment: len(list(picks.glob("*/done.json"))) >= n and list(picks.glob("*/.work-*")),
            process,
        )
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for folder in picks.iterdir():
            if (folder / "done.json").exists():  # then it is whole
                assert json.loads((folder / "done.json").read_text())["name"] == folder.name
                particles.read(folder / "particles.star")
                open_volume(folder / "segmentation.zarr" / "labels" / "classes").read()
        n_done = len(list(picks.glob("*/done.json")))
    done = tlpick("run", *arguments)
    assert done.status == 0
    assert done.out.count("(picked before)") == n_done
    assert left_over(picks) == []
    tlpick("run", *arguments[:3], tmp_path / "undisturbed", *arguments[4:])
    assert contents(picks) == contents(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    for k in range(4):
        balls = make_balls(f"tomo-{k}", shape=(48, 96, 96), n=6)
        write_mrc(tmp_path / "data" / f"tomo-{k}.mrc", balls.data, 10.0)
    picks = tmp_path / "picks"
    arguments = (ball_model, tmp_path / "data" / "*.mrc", "--to", picks, "--tta", 8)
    process = start(*arguments, "--cluster", "local:2")
    wait_for(lambda: list(picks.glob("*/.work-*")), process)
    worker = next(iter(picks.glob("*/.work-*"))).name.rsplit("-", 2)[1]
    os.kill(int(worker), signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("redundancy") == 4
    assert left_over(picks) == []
    tlpick("run", *arguments[:3], tmp_path / "undisturbed", *arguments[4:])
    assert contents(picks) == contents(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_scheduler_that_goes_is_no_success(
    tlpick: Run, ball_model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
    ) as running:
        original = _Book.enter

        def enter(book: Any, outcome: Any) -> None:
            original(book, outcome)
            running.close()

        monkeypatch.setattr(_Book, "enter", enter)
        to = ("--to", tmp_path / "picks", "--cluster", running.scheduler_address)
        done = tlpick("run", ball_model, data / "*.mrc", *to)
    assert done.status == 1
    failed = 4 - done.out.count("redundancy")
    assert 1 <= failed < 4
    assert done.err.count("the Dask scheduler") == failed
    assert f"{failed} of 4 tomograms failed; the same command tries them again" in done.err


@pytest.mark.slow
def test_a_process_stays_within_its_memory(random_model: Path, tmp_path: Path) -> None:
    # a network that nothing is likely enough for: in noise it would find particles everywhere
    card = read_card(random_model).model_copy(update={"thresholds": {"ball": 2.0, "brick": 2.0}})
    strict = tmp_path / "strict.tlm"
    with_card(random_model, card, strict)
    rng = np.random.default_rng(0)
    with mrcfile.new_mmap(tmp_path / "large.mrc", (200, 512, 512), mrc_mode=2) as mrc:
        for plane in range(200):
            mrc.data[plane] = rng.standard_normal((512, 512), np.float32)
        mrc.voxel_size = 10.0
    limit = 1_600_000_000
    code = f"""
import sys, tlpick.cli
sys.argv = ["tlpick", "run", {str(strict)!r}, {str(tmp_path / "large.mrc")!r}, "--to",
            {str(tmp_path / "picks")!r}, "--max-memory", "{limit}B"]
try:
    tlpick.cli.main()
finally:
    # of this program alone: the kernel's ru_maxrss begins with that of the process which started it
    print("peak", 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    peak = int(done.stdout.split("peak")[1])
    print(f"peak {peak / 1e6:.0f} MB of {limit / 1e6:.0f} MB")
    assert peak < limit
    stated = json.loads((tmp_path / "picks" / "large" / "done.json").read_text())
    assert stated["redundancy"] <= 1.6
