"""How fast patches come out of a corpus, against DeepFinder's own generator on the same tomograms.

    python benchmarks/stream.py --reference CLONE    # of DeepFinder's repository; without it, ours alone
    python benchmarks/stream.py --quick              # no training steps

Patches of 56 voxels in batches of 25, of 13 classes with the background: the settings of DeepFinder's own
example. DeepFinder's batches are those of ``Train.generate_batch_direct_read`` with its bootstrap, from HDF5
files as its ``write_h5array`` writes them; what its module imports and this method does not need is replaced
by stand-ins. Ours are float32 grey values and uint8 classes; ``as DeepFinder`` does what it does to a patch
(shift, half turn), ``all`` is the augmentation that training uses. Every row is a process of its own, tied to
so many cores. Patches per CPU second is the rate that other programs on the machine hardly touch; files are
in the page cache. ``S3`` is the loopback server of ``s3_server.py``.

Prints tables, and as the last line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from numpy.typing import NDArray
from s3_server import serve

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

PATCH, BATCH, CLASSES = 56, 25, 12
SHAPE, PER_CLASS, RADIUS = (192, 384, 384), 40, 8
#: Batches until memory holds all that it will: those that wait, of the most readers, and some.
WARM_UP = 45


# ---------------------------------------------------------------- the tomograms


def volumes(k: int) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int64]]:
    """Make tomogram ``k``: noise with balls of every class; labels; (n, 4) class and place z, y, x."""
    rng = np.random.default_rng(k)
    grey = rng.standard_normal(SHAPE, dtype=np.float32)
    classes = np.zeros(SHAPE, np.uint8)
    ball = np.indices((2 * RADIUS + 1,) * 3) - RADIUS
    ball = (ball**2).sum(axis=0) <= RADIUS**2
    places = []
    for label in np.repeat(np.arange(CLASSES + 1), PER_CLASS):  # 0: distractors
        corner = [int(rng.integers(0, n - 2 * RADIUS)) for n in SHAPE]
        box = tuple(slice(c, c + 2 * RADIUS + 1) for c in corner)
        grey[box][ball] -= 1
        if label:
            classes[box][ball] = label
        places.append([label, *(c + RADIUS for c in corner)])
    return grey, classes, np.array(places)


def write_corpus(url: str, n: int, h5: Path | None) -> None:
    """Write tomograms as a corpus and, for DeepFinder, as HDF5 files and a list of objects."""
    import h5py

    from catalogs import particles
    from catalogs.corpus.catalog import Catalog, Sample
    from catalogs.schema import Acquisition, ClassInfo

    infos = [ClassInfo(name=f"c{k}", label=k, radius=10.0 * RADIUS) for k in range(1, CLASSES + 1)]
    catalog = Catalog.create(url, classes=infos, recipe={}, name="benchmark")
    objects: list[dict[str, Any]] = []
    for k in range(n):
        grey, classes, places = volumes(k)
        labels, centres = places[:, 0], places[:, 1:].astype(float)
        table = particles.make(
            tomogram=f"t{k}", class_name=[f"c{v}" if v else "distractor" for v in labels], label=labels,
            instance=np.arange(1, len(labels) + 1),
            x=10 * centres[:, 2], y=10 * centres[:, 1], z=10 * centres[:, 0],
        )  # fmt: skip
        facts = {
            "sample_id": f"{k:016x}", "name": f"t{k}", "split": "train", "seed": k, "shape": SHAPE,
            "acquisition": Acquisition(voxel_size=10.0), "n_tilts": 61, "n_particles": CLASSES * PER_CLASS,
            "n_distractors": PER_CLASS, "class_counts": {info.name: PER_CLASS for info in infos},
            "structures": {}, "occupancy": 0.1, "seconds": {}, "software": {},
        }  # fmt: skip
        tilts = np.linspace(-60, 60, 61, dtype=np.float32)
        catalog.write(
            Sample(
                tomogram=grey,
                classes=classes,
                instances=(classes > 0).astype(np.uint16),
                particles=table,
                tilt_images=None,
                tilt_angles=tilts,
                tilt_doses=tilts * 0,
                facts=facts,
            )
        )
        if h5 is not None:
            for name, data in (("data", grey), ("target", classes.astype(np.int8))):
                with h5py.File(h5 / f"{name}{k}.h5", "w") as file:
                    file.create_dataset("dataset", data.shape, dtype=data.dtype)[:] = data
            objects += [
                {"tomo_idx": k, "label": int(v), "z": int(z), "y": int(y), "x": int(x)}
                for v, z, y, x in places[labels > 0]
            ]
    catalog.compact()
    if h5 is not None:
        (h5 / "objects.json").write_text(json.dumps(objects))


# ---------------------------------------------------------------- who delivers patches


def deepfinders(clone: Path, h5: Path) -> Iterator[Any]:
    """Yield batches of DeepFinder's own generator."""
    sys.path.insert(0, str(unpacked(clone, h5)))
    for name in ("matplotlib", "matplotlib.pyplot", "skimage", "skimage.measure", "openpyxl", "lxml", "pycm"):
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = MagicMock()
    sys.modules["tensorflow.keras.optimizers.legacy"] = MagicMock()  # gone from Keras 3
    sys.modules["deepfinder.models"] = MagicMock()  # its network is not what is measured
    sys.modules["deepfinder.losses"] = MagicMock()
    from deepfinder.training import Train

    train = Train(CLASSES + 1, PATCH)
    train.flag_batch_bootstrap = 1
    objects = json.loads((h5 / "objects.json").read_text())
    n = 1 + max(entry["tomo_idx"] for entry in objects)
    data, targets = ([str(h5 / f"{name}{k}.h5") for k in range(n)] for name in ("data", "target"))
    while True:
        yield train.generate_batch_direct_read(data, targets, BATCH, objects)


def unpacked(clone: Path, folder: Path) -> Path:
    """Find the code in a clone, with or without a work tree."""
    if (clone / "deepfinder").is_dir():
        return clone
    packed = subprocess.run(
        ["git", "-C", str(clone), "archive", "HEAD", "deepfinder"], capture_output=True, check=False
    ).stdout
    subprocess.run(["tar", "x", "-C", str(folder)], input=packed, check=True)
    return folder


def stream(url: str, augmentation: str, readers: int, **options: Any) -> Any:
    """Open our stream of all samples of a corpus."""
    from catalogs.corpus.catalog import Catalog
    from tltrain.data.augment import Augmentation, augmentation_of
    from tltrain.data.stream import open_stream

    how = {
        "as DeepFinder": augmentation_of(["none", "shift=1", "half_turns=0.75"]),
        "all": Augmentation(),
    }[augmentation]
    catalog = Catalog.open(url)
    return open_stream(
        catalog,
        catalog.records(),
        patch=PATCH,
        batch=BATCH,
        seed=0,
        augmentation=how,
        readers=readers,
        **options,
    )


def delivered(batches: Iterator[Any], warm_up: int, n: int) -> dict[str, float]:
    """Measure how fast batches come, and whether memory grows meanwhile."""
    for _ in itertools.islice(batches, warm_up):
        pass
    half, wall, cpu = resident(), time.perf_counter(), time.process_time()
    for k, _ in enumerate(itertools.islice(batches, n)):
        if k == n // 2:
            half = resident()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "per_s": round(n * BATCH / wall, 1), "per_cpu_s": round(n * BATCH / cpu, 1),
        "MB": round(peak()), "growth_MB": round(resident() - half),
    }  # fmt: skip


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def peak() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def waiting(url: str, network: str, steps: int) -> dict[str, float]:
    """Train and measure the share of the time that a step waits for its batch."""
    from tltrain.networks.architectures import architecture
    from tltrain.training.learner import Learner, Optimisation

    arch = architecture(network)
    learner = Learner(
        lambda: arch.build(CLASSES + 1, 0), Optimisation(steps=1000, learning_rate=arch.learning_rate)
    )
    batches = learner.feed(stream(url, "all", 4), 0)
    learner.step(next(batches))  # compiles, and fills the lanes
    waited, begun = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        learner.step(batch)
    took = time.perf_counter() - begun
    return {"wait_share": round(waited / took, 4), "step_s": round(took / steps, 2)}


def shuffling(url: str, n: int) -> dict[str, float]:
    """Count pairs of patches in a batch that are of one block, or of one tomogram."""
    from tltrain.data.shuffling import measure

    found = measure(stream(url, "as DeepFinder", 1), n)
    return {
        "same_block_pairs": round(found.same_block, 3),
        "same_block_pairs_by_chance": round(found.same_block_by_chance, 3),
        "same_tomogram_pairs": round(found.same_source, 2),
        "same_tomogram_pairs_by_chance": round(found.same_source_by_chance, 2),
    }


# ---------------------------------------------------------------- the run


def child(job: dict[str, Any]) -> dict[str, float]:
    """Do one measurement in this process."""
    if job.get("cores"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["cores"]])
    kind = job["kind"]
    if kind == "deepfinder":
        batches = deepfinders(Path(job["clone"]), Path(job["h5"]))
        return delivered(batches, 2, job["batches"])
    if kind == "stream":
        opened = stream(job["url"], job["augmentation"], job["readers"])
        return delivered(opened.batches(), WARM_UP, job["batches"])
    if kind == "tf.data":
        from tltrain.data.stream import as_tf_dataset

        opened = stream(job["url"], job["augmentation"], job["readers"])
        return delivered(iter(as_tf_dataset(opened)), WARM_UP, job["batches"])
    if kind == "wait":
        return waiting(job["url"], job["network"], job["steps"])
    return shuffling(job["url"], job["batches"])


def measured(**job: Any) -> dict[str, float]:
    """Do one measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(job)], stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, help="clone of cryoet-deepfinder: run its own generator")
    parser.add_argument("--tomograms", type=int, default=4)
    parser.add_argument("--batches", type=int, default=120, help="to measure, 25 patches each")
    parser.add_argument("--latency", type=float, default=20, help="ms of each request to S3")
    parser.add_argument("--rate", type=float, default=80, help="MB/s of each connection to S3")
    parser.add_argument("--quick", action="store_true", help="no training steps")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(json.loads(given.child))))
        return

    figures: dict[str, Any] = {"patch": PATCH, "batch": BATCH, "classes": CLASSES + 1}
    rows: dict[str, dict[str, float]] = {}
    cores = [1, 2] if len(os.sched_getaffinity(0)) > 1 else [1]
    with tempfile.TemporaryDirectory() as folder:
        url = f"{folder}/corpus"
        write_corpus(url, given.tomograms, Path(folder) if given.reference else None)
        shared = {"url": url, "batches": given.batches}
        if given.reference:
            rows["DeepFinder, local, 1 core"] = measured(
                kind="deepfinder", clone=str(given.reference.absolute()), h5=folder, batches=8, cores=1
            )
        for n in cores:
            for how in ("as DeepFinder", "all"):
                rows[f"{how}, local, {n} core{'s'[: n - 1]}"] = measured(
                    kind="stream", augmentation=how, readers=n + 1, cores=n, **shared
                )
        rows["all, local, 1 core, tf.data"] = measured(
            kind="tf.data", augmentation="all", readers=2, cores=1, **shared
        )
        with serve(given.latency, given.rate) as s3:
            root = Path(folder)
            s3.load({str(f.relative_to(root)): f.read_bytes() for f in Path(url).rglob("*") if f.is_file()})
            s3.use()
            remote = {"url": "s3://bucket/corpus", "batches": given.batches // 2, "kind": "stream"}
            for n in cores:
                rows[f"all, S3, {n} core{'s'[: n - 1]}"] = measured(
                    augmentation="all", readers=16, cores=n, **remote
                )
        print(f"{'':34s}{'patches/s':>10s}{'per CPU s':>11s}{'peak MB':>9s}{'growth MB':>11s}")
        for name, row in rows.items():
            print(
                f"{name:34s}{row['per_s']:10.0f}{row['per_cpu_s']:11.0f}{row['MB']:9.0f}{row['growth_MB']:11.0f}"
            )
        figures["rows"] = rows
        figures["growth_MB"] = max(
            r["growth_MB"] for name, r in rows.items() if not name.startswith("DeepFinder")
        )
        if given.reference:
            theirs = rows["DeepFinder, local, 1 core"]
            for n in cores:
                mine = rows[f"as DeepFinder, local, {n} core{'s'[: n - 1]}"]
                kind = "per_cpu_s" if n == 1 else "per_s"
                name = "speedup_over_deepfinder" + ("" if n == 1 else f"_{n}_cores")
                figures[name] = round(mine[kind] / theirs[kind], 1)
            every = rows["all, local, 1 core"]["per_cpu_s"] / theirs["per_cpu_s"]
            figures["speedup_over_deepfinder_all"] = round(every, 1)
            print(
                f"\npatches a CPU second, over DeepFinder's: {figures['speedup_over_deepfinder']}, "
                f"with all augmentation {figures['speedup_over_deepfinder_all']}"
            )
        figures |= measured(kind="shuffling", url=url, batches=200)
        print(
            f"\npairs among the patches of a batch; in brackets, if every patch were drawn by itself:\n"
            f"of one block {figures['same_block_pairs']} ({figures['same_block_pairs_by_chance']}), of one "
            f"tomogram {figures['same_tomogram_pairs']} ({figures['same_tomogram_pairs_by_chance']})"
        )
        if not given.quick:
            for network, steps in (("small", 12), ("deepfinder", 3)):
                found = measured(kind="wait", url=url, network=network, steps=steps)
                figures |= {f"{name}_{network}": value for name, value in found.items()}
                print(f"{network}: a step takes {found['step_s']} s, waits {found['wait_share']:.1%} of it")
            figures["wait_share"] = max(figures["wait_share_small"], figures["wait_share_deepfinder"])
    print()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
