"""The corpus on a disk and in a bucket, beside DeepFinder's HDF5 files: patches, writing, finding, bytes.

    python benchmarks/corpus.py                     # all of it, about ten minutes
    python benchmarks/corpus.py --part patches      # or layouts, writing, finding, bytes

One tomogram of the paper's size (256 x 256 x 128 voxels of 8 Å, 61 tilts): noise of a tomogram's spectrum
with a missing wedge, and balls as labels. The bucket is ``benchmarks/s3_server.py`` on the loopback device,
20 ms for each request and 80 MB/s for each connection; the disk is read from the page cache. DeepFinder's
layout is its own: one contiguous ``dataset`` a file, float32 and uint8, opened for each patch; in the bucket
through fsspec's file object, as h5py can be used there. A patch is the tomogram and the class labels at a
random place; bytes read per byte used count what the storage sent against 5 bytes a voxel. Prints tables, and
as the last line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from s3_server import Client, serve
from zarr.codecs import BloscCodec, ZstdCodec

from catalogs import particles
from catalogs.corpus import index, sample_group, snapshot, thumbnail
from catalogs.corpus.catalog import Catalog, Sample
from catalogs.schema import Acquisition, ClassInfo, Intensity, SampleRecord
from catalogs.seeds import digest, generator
from catalogs.storage.store import open_store, zarr_store

SHAPE = (128, 256, 256)  # z, y, x
TILTS = 61
CLASSES = [ClassInfo(name="ribosome", label=1, radius=108.0)]
LATENCY_MS, RATE_MB = 20.0, 80.0
BYTES_A_VOXEL = 5  # float32 and uint8
THREADS = 16

SAMPLES = 4  # to read from: far more than any cache holds

#: Number of a sample, and a box in it.
Item = tuple[int, tuple[slice, ...]]


@lru_cache(1)
def tomogram() -> NDArray[np.float32]:
    """Make noise as a back-projection has it: weaker at high frequencies, none in the missing wedge."""
    noise = generator("benchmark", "noise").normal(size=SHAPE).astype(np.float32)
    kz, ky, kx = np.meshgrid(
        *(np.fft.fftfreq(n) for n in SHAPE[:2]), np.fft.rfftfreq(SHAPE[2]), indexing="ij"
    )
    radius = np.sqrt(kz**2 + ky**2 + kx**2)
    seen = np.abs(kz) <= np.tan(np.deg2rad(60)) * np.maximum(np.abs(kx), 1 / SHAPE[2])
    spectrum = np.fft.rfftn(noise, axes=(0, 1, 2)) * np.exp(-((radius / 0.35) ** 2)) * seen
    volume = np.fft.irfftn(spectrum, SHAPE, axes=(0, 1, 2)).astype(np.float32)
    return volume / volume.std()


@lru_cache(1)
def labels() -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Make balls of 13 voxels' radius, 60 of them, as class and instance labels."""
    instances = np.zeros(SHAPE, np.uint16)
    z, y, x = np.ogrid[-13:14, -13:14, -13:14]
    ball = z**2 + y**2 + x**2 <= 13**2
    rng = generator("benchmark", "balls")
    for k in range(60):
        corner = [int(rng.integers(0, n - 27)) for n in SHAPE]
        instances[tuple(slice(c, c + 27) for c in corner)][ball] = k + 1
    return (instances > 0).astype(np.uint8), instances


def sample(number: int) -> Sample:
    """Make a sample of the paper's size; the tilt images are white noise, which compresses worst."""
    rng = generator("benchmark", "sample", number)
    classes, instances = labels()
    n, name = 400, f"train-{number:03d}"
    table = particles.make(
        tomogram=name,
        class_name=["ribosome"] * 60 + ["distractor"] * (n - 60),
        label=[1] * 60 + [0] * (n - 60),
        instance=np.arange(1, n + 1),
        **{axis: rng.uniform(0, 1000, n) for axis in "xyz"},
        **{axis: rng.normal(size=n) for axis in ("qx", "qy", "qz", "qw")},
        structure=rng.choice(["4v5d", "3jb9", "1pwc"], n),
        variant=rng.integers(0, 20, n),
        rmsd=rng.uniform(0, 5, n),
        **{f"mode_{k}": rng.normal(size=n) for k in range(1, 6)},
    )
    angles = np.linspace(-60, 60, TILTS, dtype=np.float32)
    return Sample(
        tomogram=tomogram(),
        classes=classes,
        instances=instances,
        particles=table,
        tilt_images=rng.poisson(64 * 100 / TILTS, (TILTS, *SHAPE[1:])).astype(np.float32),
        tilt_angles=angles,
        tilt_doses=np.arange(TILTS, dtype=np.float32),
        facts=facts(number, name),
        recipe={"name": "benchmark"},
        seeds={"corpus": 1},
    )


def facts(number: int, name: str) -> dict[str, Any]:
    """Return the facts of a sample; 120 structures, as many as the paper's distractors about."""
    rng = generator("benchmark", "facts", number)
    dose, defocus = float(rng.uniform(60, 140)), float(rng.uniform(1, 5))
    return {
        "sample_id": digest(["benchmark", number]),
        "name": name,
        "split": "train",
        "seed": 1,
        "acquisition": Acquisition(dose=round(dose, 4), defocus=round(defocus, 4)),
        "shape": SHAPE,
        "n_tilts": TILTS,
        "n_particles": 60,
        "n_distractors": 340,
        "class_counts": {"ribosome": 60},
        "structures": {f"s{k:03d}": digest(k, 32) for k in range(120)},
        "occupancy": 0.3,
        "seconds": {"pack": 10.0, "simulate": 300.0},
        "software": {"template-learning": "0.1.0", "numpy": np.__version__},
    }


def corners(edge: int, number: int) -> list[Item]:
    """Draw random places for patches, in random samples."""
    rng = generator("benchmark", "corners", edge)
    starts = [[int(rng.integers(0, n - edge + 1)) for n in SHAPE] for _ in range(number)]
    return [(int(rng.integers(SAMPLES)), tuple(slice(a, a + edge) for a in start)) for start in starts]


def blocks(edge: int, number: int) -> list[Item]:
    """Draw chunk-aligned blocks as the trainer reads them to cut 8 patches from each."""
    rng = generator("benchmark", "blocks", edge)
    chunk = 64
    size = [min((-(-edge // chunk) + 1) * chunk, n) for n in SHAPE]
    found = []
    for _ in range(max(1, number // 8)):
        z, y, x = (
            chunk * int(rng.integers(0, (n - s) // chunk + 1)) for n, s in zip(SHAPE, size, strict=True)
        )
        box = (slice(z, z + size[0]), slice(y, y + size[1]), slice(x, x + size[2]))
        found.append((int(rng.integers(SAMPLES)), box))
    return found


@contextmanager
def h5(url: str, name: str) -> Iterator[Any]:
    """Open one of DeepFinder's files as it does: anew for each patch."""
    import fsspec
    import h5py

    if "://" not in url:
        with h5py.File(f"{url}/{name}.h5") as file:
            yield file["dataset"]
        return
    with fsspec.open(f"{url}/{name}.h5") as raw, h5py.File(raw) as file:
        yield file["dataset"]


def put_h5(url: str) -> None:
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("tomogram", tomogram()), ("classes", labels()[0])):
            path = Path(folder) / f"{name}.h5"
            with h5py.File(path, "w") as file:
                file.create_dataset("dataset", data=data)
            open_store(url).write({f"{name}.h5": path.read_bytes()})


def h5_patch(url: str, where: tuple[slice, ...]) -> None:
    for name in ("tomogram", "classes"):
        with h5(url, name) as data:
            _ = data[where]


def bytes_read(s3: Client | None) -> float:
    """Count what the storage has sent: since the last call in a bucket, of all time on a disk."""
    if s3 is not None:
        return float(s3.counts().get("bytes_out", 0))
    text = Path("/proc/self/io").read_text()
    return float(text.split("rchar:")[1].split()[0])


def timed(
    read: Callable[[Any], object], items: list[Any], threads: int, s3: Client | None
) -> tuple[float, float, float, dict[str, int]]:
    """Read all items; returns seconds, CPU seconds, bytes that the storage sent, and requests by kind."""
    read(items[0])  # imports, connections
    before = bytes_read(s3)
    started, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, items))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    if s3 is None:
        return seconds, cpu, bytes_read(None) - before, {}
    counts = s3.counts()
    return seconds, cpu, counts["bytes_out"], counts


def patches(url: str, s3: Client | None, number: int) -> dict[str, float]:
    """Read patches from a corpus and from DeepFinder's files at the same place."""
    place = "disk" if s3 is None else "s3"
    catalog = Catalog.create(f"{url}/corpus", classes=CLASSES, recipe={}, name="benchmark")
    written = [catalog.write(sample(k)) for k in range(SAMPLES)]
    for k in range(SAMPLES):
        put_h5(f"{url}/h5/{k}")
    fast = [catalog.arrays(record.sample_id) for record in written]
    slow = [
        {name: plain[path] for name, path in sample_group.ARRAYS.items()}
        for plain in (
            zarr.open_group(zarr_store(catalog.sample_url(record.sample_id)), mode="r") for record in written
        )
    ]

    def read(arrays: Sequence[Mapping[str, Any]], item: Item) -> None:
        for name in ("tomogram", "classes"):
            _ = arrays[item[0]][name][item[1]]

    threads = 1 if s3 is None else THREADS
    figures: dict[str, float] = {}
    print(
        f"\n{place}, {threads} threads: patches/s, CPU-ms a patch, bytes read per byte used, requests a patch"
    )
    for edge in (56, 96, 128):
        n = number if edge < 128 else max(16, number // 2)
        alone, cut = corners(edge, n), blocks(edge, n)
        ways: list[tuple[str, str, Callable[[Any], object], list[Item], int]] = [
            ("zarr", "Zarr, one by one", partial(read, slow), alone, 1),
            ("zarr_blocks", "Zarr, 8 of a block", partial(read, slow), cut, 8),
            ("fast", "TensorStore, one by one", partial(read, fast), alone, 1),
            ("fast_blocks", "TensorStore, 8 of a block", partial(read, fast), cut, 8),
            ("h5", "DeepFinder's h5", lambda item: h5_patch(f"{url}/h5/{item[0]}", item[1]), alone, 1),
        ]
        for key, way, work, items, of_each in ways:
            seconds, cpu, sent, counts = timed(work, items, threads, s3)
            made = of_each * len(items)
            requests = sum(v for kind, v in counts.items() if not kind.startswith("bytes")) / made
            amplification = sent / (made * edge**3 * BYTES_A_VOXEL)
            asked = f"{requests:6.1f}" if s3 else "     -"
            each = 1e3 * cpu / made
            print(f"  {edge:4d}³ {way:25s} {made / seconds:8.1f} {each:8.1f} {amplification:7.2f} {asked}")
            figures[f"{place}_{edge}_{key}_cpu_ms"] = each
            figures[f"{place}_{edge}_{key}_per_s"] = made / seconds
            figures[f"{place}_{edge}_{key}_amplification"] = amplification
        for key in ("zarr", "zarr_blocks", "fast", "fast_blocks"):
            ratio = figures[f"{place}_{edge}_{key}_per_s"] / figures[f"{place}_{edge}_h5_per_s"]
            figures[f"{place}_{edge}_{key}_speedup"] = ratio
    return figures


def layouts(url: str, s3: Client, number: int) -> dict[str, float]:
    """Compare chunks and codecs for the tomogram: what the defaults were chosen by."""
    lz4 = {"cname": "lz4", "clevel": 5}
    rounded = sample_group.round_mantissa(tomogram())
    codecs: dict[str, tuple[NDArray[Any], Any]] = {
        "10 bits, lz4 bitshuffle": (rounded, BloscCodec(**lz4, shuffle="bitshuffle")),
        "10 bits, zstd": (rounded, ZstdCodec(level=3)),
        "all bits, lz4 bitshuffle": (tomogram(), BloscCodec(**lz4, shuffle="bitshuffle")),
        "float16, lz4 shuffle": (tomogram().astype(np.float16), BloscCodec(**lz4, shuffle="shuffle")),
    }
    figures: dict[str, float] = {}
    print(f"\ns3, {THREADS} threads, tomogram: MB; patches/s (bytes read per byte used) of 56³ and of 128³")
    for chunk, name in [(64, n) for n in codecs] + [
        (32, "10 bits, lz4 bitshuffle"),
        (128, "10 bits, lz4 bitshuffle"),
    ]:
        data, codec = codecs[name]
        objects: dict[str, Any] = {}
        shards = tuple(chunk * -(-n // chunk) for n in SHAPE)
        array = zarr.create_array(
            zarr.storage.MemoryStore(objects), shape=SHAPE, dtype=data.dtype, chunks=(chunk,) * 3,
            shards=shards, compressors=codec, fill_value=0,
        )  # fmt: skip
        array[...] = data
        place = f"layouts/{chunk}-{digest(name)}.zarr"
        open_store(url).write({f"{place}/{key}": value.to_bytes() for key, value in objects.items()})
        opened = zarr.open_array(zarr_store(f"{url}/{place}"), mode="r", zarr_format=3)
        size = sum(len(value.to_bytes()) for value in objects.values())
        row = f"  {chunk:4d}³ {name:26s} {size / 1e6:6.1f}"
        for edge in (56, 128):
            n = number if edge < 128 else max(8, number // 4)
            seconds, _, sent, _ = timed(lambda item, a=opened: a[item[1]], corners(edge, n), THREADS, s3)
            used = n * edge**3 * data.dtype.itemsize
            row += f"  {n / seconds:7.1f} ({sent / used:5.2f})"
            key = name.replace(", ", "_").replace(" ", "_")
            figures[f"layout_{chunk}_{key}_{edge}_per_s"] = n / seconds
        print(row)
    return figures


def write_some(url: str, first: int, number: int, gate: Any) -> None:
    """Write samples; runs in a process of its own."""
    ready = [sample(first + k) for k in range(number)]
    catalog = Catalog.open(url)
    gate.wait()
    for each in ready:
        catalog.write(each)
    gate.wait()


def writing(url: str, place: str, each: int) -> dict[str, float]:
    """Write with two worker processes at a time."""
    Catalog.create(url, classes=CLASSES, recipe={}, name="benchmark")
    spawn = multiprocessing.get_context("spawn")
    gate = spawn.Barrier(3)
    workers = [spawn.Process(target=write_some, args=(url, 1000 * k, each, gate)) for k in range(2)]
    for worker in workers:
        worker.start()
    gate.wait()
    started = time.perf_counter()
    gate.wait()
    seconds = time.perf_counter() - started
    for worker in workers:
        worker.join()
    samples = Catalog.open(url).samples
    assert len(samples) == 2 * each
    rate = len(samples) / seconds
    print(f"  {place}: {rate:.2f} samples/s, {samples['n_bytes'].sum() / seconds / 1e6:.1f} MB/s")
    return {
        f"write_{place}_samples_per_s": rate,
        f"write_{place}_MB_per_s": samples["n_bytes"].sum() / seconds / 1e6,
    }


def record(number: int) -> SampleRecord:
    sample_id = digest(["benchmark", number])
    return SampleRecord(
        **facts(number, f"train-{number:06d}"),
        path=f"samples/{sample_id[:2]}/{sample_id}-{digest(number, 6)}.zarr",
        created="2026-01-01T00:00:00+00:00",
        intensity=Intensity(centre=float(number), spread=1.0 + number),
        checksums={"zarr.json": digest(["root", number], 32)},
        n_objects=50,
        n_bytes=20_000_000 + number,
    )


def finding(url: str, s3: Client, number: int, new: int) -> dict[str, float]:
    """Open, list and query many records, with an index and without."""
    Catalog.create(url, classes=CLASSES, recipe={}, name="benchmark")
    store = open_store(url)
    inside = url.removeprefix("s3://bucket/")
    figures: dict[str, float] = {"records": number, "new_records": new}

    def step(what: str, key: str, work: Callable[[], Any]) -> Any:
        s3.counts()
        started, cpu = time.perf_counter(), time.process_time()
        result = work()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        counts = s3.counts()
        requests = sum(v for kind, v in counts.items() if not kind.startswith("bytes"))
        megabytes = counts.get("bytes_out", 0) / 1e6
        print(f"  {what:58s} {seconds:7.2f} s ({cpu:6.2f} CPU-s) {requests:7d} requests {megabytes:7.1f} MB")
        figures.update({f"{key}_s": seconds, f"{key}_requests": requests})
        return result

    def put(numbers: range, announce: bool) -> None:
        made = [record(k) for k in numbers]
        objects = {
            f"{inside}/{index.commit_key(r.sample_id)}": r.model_dump_json(indent=1).encode() for r in made
        }
        if announce:
            events = (Path(r.path).stem for r in made)
            objects |= {f"{inside}/{index.RECENT}/{event}": b"see commits/\n" for event in events}
        s3.load(objects)

    def is_all(catalog: Catalog, expected: int) -> None:
        assert len(catalog.samples) == expected

    print(
        f"\nbucket with {number} records, which are put into the server directly, and so is the first index"
    )
    few = number // 50
    put(range(few), announce=True)
    step(
        f"{few} records, no index: open and list",
        "unindexed_fiftieth",
        lambda: is_all(Catalog.open(url), few),
    )
    put(range(few, number), announce=False)
    data = snapshot.encode(None, (), {r.sample_id: r for r in map(record, range(number))})
    s3.load({f"{inside}/{index.INDEX}/index-00000001.parquet": data})
    Catalog.open(url).compact()  # takes the first names out of recent/
    figures["index_MB"] = len(data) / 1e6
    step(
        "list the names of the records, as without an index",
        "list_names",
        lambda: store.entries(index.COMMITS),
    )
    catalog = step("indexed: open and list", "open", lambda: Catalog.open(url))
    step("  ...list all (the table of samples)", "list", lambda: is_all(catalog, number))
    query = "dose < 80 and defocus > 3"
    found = step(f"  ...query {query!r}", "query", lambda: catalog.query(query))
    step("  ...all records, as objects", "records", lambda: catalog.records())
    put(range(number, number + new), announce=True)
    step(f"indexed, {new} new: open and list", "open_new", lambda: is_all(Catalog.open(url), number + new))
    step(f"indexed, {new} new: write the next index", "compact", lambda: Catalog.open(url).compact())
    print(f"  the query finds {len(found)}; the index has {figures['index_MB']:.1f} MB")
    return figures


def weights() -> dict[str, float]:
    """Say what a sample weighs on disk, part by part, and what rounding does to the tomogram."""
    one = sample(0)
    kept = sample_group.round_mantissa(one.tomogram)
    objects = sample_group.encode(
        Sample(**{**one.__dict__, "tomogram": kept}),
        voxel_size=8.0,
        attributes={},
        classes=CLASSES,
        thumbnail=thumbnail.draw(kept),
    )
    parts = {"tomogram": "0/c/", "thumbnail": "0/thumbnail",
             "classes": "labels/classes/", "instances": "labels/instances/",
             "particles": "particles/", "tilt_images": "tilts/images/", "root": "zarr.json"}  # fmt: skip
    sizes = {
        name: sum(len(data) for key, data in objects.items() if key.startswith(at)) / 1e6
        for name, at in parts.items()
    }
    total = sum(map(len, objects.values())) / 1e6
    raw = (one.tomogram.nbytes + one.classes.nbytes + one.instances.nbytes + one.tilt_images.nbytes) / 1e6  # type: ignore[union-attr]
    error = np.abs(kept - one.tomogram)
    relative = float((error / np.maximum(np.abs(one.tomogram), 1e-12)).max())
    rms = float(np.sqrt((error.astype(np.float64) ** 2).mean()) / one.tomogram.std())
    print(
        f"\na sample of {SHAPE[2]} x {SHAPE[1]} x {SHAPE[0]} voxels and {TILTS} tilts: {len(objects)} objects"
    )
    for name, size in sizes.items():
        print(f"  {name:12s} {size:7.2f} MB")
    print(f"  {'together':12s} {total:7.2f} MB of {raw:.1f} MB in memory")
    print(
        f"  rounding: at most {relative:.1e} of a value, RMS {rms:.1e} of the tomogram's standard deviation"
    )
    return {f"sample_{name}_MB": size for name, size in sizes.items()} | {
        "sample_MB": total, "sample_raw_MB": raw, "sample_objects": len(objects),
        "rounding_max_relative": relative, "rounding_rms_of_std": rms,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--part", choices=["bytes", "patches", "layouts", "writing", "finding"], action="append"
    )
    parser.add_argument(
        "--patches", type=int, default=64, help="patches of each kind; a quarter of it for 128³"
    )
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--new", type=int, default=300, help="records that are not in the index yet")
    parser.add_argument("--latency", type=float, default=LATENCY_MS, help="of the bucket, ms a request")
    parser.add_argument("--rate", type=float, default=RATE_MB, help="of the bucket, MB/s a connection")
    given = parser.parse_args()
    chosen = given.part or ["bytes", "patches", "layouts", "writing", "finding"]
    figures: dict[str, float] = {"latency_ms": given.latency, "rate_MB_per_s": given.rate}
    with serve(given.latency, given.rate) as s3, tempfile.TemporaryDirectory() as folder:
        s3.use()
        if "bytes" in chosen:
            figures |= weights()
        if "patches" in chosen:
            figures |= patches(f"{folder}/patches", None, 4 * given.patches)
            figures |= patches("s3://bucket/patches", s3, given.patches)
        if "layouts" in chosen:
            figures |= layouts("s3://bucket", s3, given.patches)
        if "writing" in chosen:
            print("\nwriting samples of this size with 2 worker processes")
            figures |= writing(f"{folder}/writing", "disk", 4)
            figures |= writing("s3://bucket/writing", "s3", 4)
        if "finding" in chosen:
            figures |= finding("s3://bucket/finding", s3, given.records, given.new)
    print(json.dumps({name: round(value, 7) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
