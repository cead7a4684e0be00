"""An object store on the loopback interface that speaks some S3, counts, and is as slow as it is told.

    python benchmarks/s3_server.py --latency 20 --rate 80

Every request waits for the latency (ms) and its bytes for the rate (MB/s of each connection), as they would
on the way to a bucket; objects live in memory. It knows GET with ranges, HEAD, PUT with ``If-None-Match: *``,
DELETE, deletion of many, and ListObjectsV2. Nothing is signed or encrypted. Benchmarks start it with
:func:`serve` in a process of its own, so that its CPU time is not theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import contextlib
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

CHUNK = 1 << 18


class Bucket:
    """Objects by key, in order, with what has been asked of them."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.keys: list[str] = []
        self.counts: Counter[str] = Counter()
        self.written = datetime.now(UTC)

    def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        if key not in self.objects:
            bisect.insort(self.keys, key)
        self.objects[key] = data

    def delete(self, key: str) -> None:
        """Remove an object; it need not be there."""
        if self.objects.pop(key, None) is not None:
            del self.keys[bisect.bisect_left(self.keys, key)]

    def load(self, objects: Mapping[str, bytes]) -> None:
        """Store many objects."""
        self.objects |= objects
        self.keys = sorted(self.objects)

    def list(self, query: Mapping[str, list[str]]) -> bytes:
        """Answer ListObjectsV2."""
        prefix, delimiter = (query.get(name, [""])[0] for name in ("prefix", "delimiter"))
        most = int(query.get("max-keys", ["1000"])[0])
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        at = (
            bisect.bisect_right(self.keys, after) if after > prefix else bisect.bisect_left(self.keys, prefix)
        )
        parts: list[str] = []
        count, last, cut = 0, "", False
        while at < len(self.keys) and self.keys[at].startswith(prefix):
            key = self.keys[at]
            if count == most:
                cut = True
                break
            folder = prefix + key[len(prefix) :].partition(delimiter)[0] + delimiter if delimiter else ""
            if delimiter and delimiter in key[len(prefix) :]:
                parts.append(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>")
                last = folder + "\U0010ffff"
                at = bisect.bisect_left(self.keys, last)
            else:
                when = self.written.strftime("%Y-%m-%dT%H:%M:%S.000Z")
                size = len(self.objects[key])
                parts.append(
                    f"<Contents><Key>{escape(key)}</Key><LastModified>{when}</LastModified><ETag>&quot;0&quot;</ETag>"
                    f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
                )
                last = key
                at += 1
            count += 1
        more = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if cut else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>bucket</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"<IsTruncated>{str(cut).lower()}</IsTruncated>{more}{''.join(parts)}</ListBucketResult>"
        ).encode()


async def answer(
    bucket: Bucket,
    latency: float,
    rate: float,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Serve one connection until the client leaves."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *rest = head.split("\r\n")
            method, target, _ = line.split(" ")
            headers = {
                name.lower(): value.strip() for name, _, value in (h.partition(":") for h in rest if h)
            }
            if headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            url = urlsplit(target)
            if url.path.startswith("/__"):
                status, data, extra = control(bucket, url.path, body)
            else:
                if "aws-chunked" in headers.get("content-encoding", ""):
                    body = unchunk(body)
                status, data, extra = handle(bucket, method, url.path, url.query, headers, body)
                bucket.counts["bytes_in"] += len(body)
                bucket.counts["bytes_out"] += len(data)
                await asyncio.sleep(latency + len(body) / rate)
            length = extra.pop("Content-Length", str(len(data)))
            lines = [
                f"HTTP/1.1 {status} -",
                f"Content-Length: {length}",
                *(f"{k}: {v}" for k, v in extra.items()),
            ]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            for start in range(0, len(data), CHUNK):
                piece = data[start : start + CHUNK]
                writer.write(piece)
                await writer.drain()
                if len(data) > CHUNK:
                    await asyncio.sleep(len(piece) / rate)
    writer.close()


def handle(
    bucket: Bucket, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
) -> tuple[str, bytes, dict[str, str]]:
    """Answer one request: status, body, headers."""
    _, _, key = unquote(path).lstrip("/").partition("/")
    asked = parse_qs(query, keep_blank_values=True)
    date = {"Last-Modified": format_datetime(bucket.written, usegmt=True), "ETag": '"0"'}
    if method == "GET" and not key:
        bucket.counts["LIST"] += 1
        return "200", bucket.list(asked), {"Content-Type": "application/xml"}
    if method == "POST" and "delete" in asked:
        bucket.counts["DELETE many"] += 1
        for name in re.findall(rb"<Key>(.*?)</Key>", body):
            bucket.delete(name.decode())
        return "200", b"<?xml version='1.0'?><DeleteResult/>", {"Content-Type": "application/xml"}
    bucket.counts[method] += 1
    if method == "PUT":
        if headers.get("if-none-match") == "*" and key in bucket.objects:
            return "412", b"<Error><Code>PreconditionFailed</Code></Error>", {}
        bucket.put(key, body)
        return "200", b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}
    if method == "DELETE":
        bucket.delete(key)
        return "204", b"", {}
    data = bucket.objects.get(key)
    if data is None:
        return "404", b"" if method == "HEAD" else b"<Error><Code>NoSuchKey</Code></Error>", {}
    if method == "HEAD":
        return "200", b"", {**date, "Content-Length": str(len(data))}
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("range", ""))
    if not wanted:
        return "200", data, date
    first, last = wanted.groups()
    start = int(first) if first else max(len(data) - int(last), 0)
    stop = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= len(data):
        return "416", b"<Error><Code>InvalidRange</Code></Error>", {}
    return "206", data[start:stop], {**date, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}


def control(bucket: Bucket, path: str, body: bytes) -> tuple[str, bytes, dict[str, str]]:
    """Answer what a benchmark asks beside S3: what was counted; take objects without delay."""
    if path == "/__load":
        bucket.load(pickle.loads(body))
    counts = json.dumps(bucket.counts).encode()
    bucket.counts.clear()
    return "200", counts, {}


def unchunk(body: bytes) -> bytes:
    """Take the payload out of ``aws-chunked`` encoding."""
    parts, at = [], 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end].partition(b";")[0], 16)
        if not size:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


class Client:
    """What a benchmark knows of a running server.

    Attributes
    ----------
    endpoint
        ``http://127.0.0.1:PORT``.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def counts(self) -> dict[str, int]:
        """Return requests by kind and bytes since the last call."""
        with urllib.request.urlopen(f"{self.endpoint}/__counts") as reply:
            return dict(json.load(reply))

    def load(self, objects: Mapping[str, bytes]) -> None:
        """Put objects into the server at once: there is nothing to measure about that."""
        urllib.request.urlopen(f"{self.endpoint}/__load", data=pickle.dumps(dict(objects))).close()

    def use(self) -> None:
        """Send this process' and its children's s3:// to the server."""
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "FSSPEC_S3_ENDPOINT_URL": self.endpoint,
        }
        from fsspec.config import conf, set_conf_env

        set_conf_env(conf)


@contextlib.contextmanager
def serve(latency_ms: float, rate_mb: float) -> Iterator[Client]:
    """Run a server in a process of its own."""
    command = [sys.executable, str(Path(__file__)), f"--latency={latency_ms}", f"--rate={rate_mb}", "--child"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Client(process.stdout.readline().strip())
        finally:
            process.terminate()


async def run(latency: float, rate: float) -> None:
    bucket = Bucket()
    server = await asyncio.start_server(
        lambda r, w: answer(bucket, latency, rate, r, w), "127.0.0.1", 0, limit=1 << 20
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latency", type=float, default=20, help="ms of each request")
    parser.add_argument("--rate", type=float, default=80, help="MB/s of each connection")
    parser.add_argument("--child", action="store_true", help="end when standard input does")
    given = parser.parse_args()
    if given.child:  # a benchmark that is killed takes its server along
        Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(given.latency / 1e3, given.rate * 1e6))


if __name__ == "__main__":
    main()
