"""What all tests share."""

from __future__ import annotations

import http.client
import logging
import os
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import HealthCheck, settings

from catalogs.machine import prefer_onednn

if TYPE_CHECKING:
    from distributed import Client

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # as on the workers
prefer_onednn(keep_memory=False)  # some tests make networks before they import a package that does this

# how long an example takes says how busy the machine is, not whether the code is right
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def prepared_structures(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is prepared of structures for these tests alone; their workers inherit the variable."""
    os.environ["TLGEN_PREPARED"] = str(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(autouse=True)
def no_foreign_loggers() -> Iterator[None]:
    """Take off the handlers that other packages, such as copick, add to the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real structures, maps and tomograms beside the checkout; not part of the project."""
    if not (SHARED / "structures").is_dir():
        pytest.skip(f"needs the real test data in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """A real Dask cluster of two worker processes, which runs can join by its address."""
    from distributed import LocalCluster

    from tlrun.cluster.connect import open_cluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as running,
        open_cluster(running.scheduler_address) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of the S3 protocol on the loopback interface."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    pytest.importorskip("moto.server", reason="moto is not installed")
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


class BadStorage:
    """Stands before a server of the S3 protocol and now and then does what storage must not.

    ``503``: refuses. ``reset``: drops the connection, before or after the request was carried out. ``loses``:
    says that an object is written, and forgets it. ``late``: lists an object ``every`` seconds after it was
    written. ``short``: breaks off in the middle of an object. ``forbidden``: knows nobody's credentials.
    """

    def __init__(self, server: str, trouble: str, every: float) -> None:
        self.counts: Counter[str] = Counter()
        self._server = urlsplit(server)
        self._trouble, self._every = trouble, every
        self._written: dict[str, float] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                outer.handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _turn(self, kind: str) -> bool:
        with self._lock:
            self.counts[kind] += 1
            if self.counts[kind] % self._every:
                return False
            self.counts["trouble"] += 1
            return True

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Expect", "").lower() == "100-continue":
            request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        is_object = request.command == "PUT" and request.path.strip("/").count("/") > 1
        if self._trouble == "503" and self._turn("any"):
            self._answer(request, 503, {}, b"<Error><Code>ServiceUnavailable</Code></Error>")
        elif self._trouble == "loses" and is_object and self._turn("PUT"):
            self._answer(request, 200, {"ETag": '"0"'}, b"")
        elif self._trouble == "forbidden":
            reason = b"<Error><Code>InvalidAccessKeyId</Code><Message>No such key id.</Message></Error>"
            self._answer(request, 403, {"Content-Type": "application/xml"}, reason)
        elif self._trouble == "short" and self._is_read(request) and self._turn("GET"):
            status, headers, data = self._forward(request, body)
            self._answer(
                request, status, headers | {"Content-Length": str(len(data))}, data[: len(data) // 2]
            )
            request.close_connection = True
        elif self._trouble == "late":
            status, headers, data = self._forward(request, body)
            if is_object:
                self._written[urlsplit(request.path).path.strip("/").partition("/")[2]] = time.monotonic()
            self._answer(request, status, headers, self._as_of_before(data))
        elif self._trouble == "reset" and self._turn("any"):
            if self.counts["trouble"] % 2:
                self._forward(request, body)  # it was carried out, only the answer is lost
            request.close_connection = True
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()
        else:
            self._answer(request, *self._forward(request, body))

    def _is_read(self, request: BaseHTTPRequestHandler) -> bool:
        path, _, query = request.path.partition("?")
        return request.command == "GET" and "/" in path.strip("/") and "list-type" not in query

    def _as_of_before(self, listing: bytes) -> bytes:
        """Take out of a listing what was written just now."""

        def kept(found: re.Match[bytes]) -> bytes:
            key = unquote(found[1].decode())
            young = time.monotonic() - self._written.get(key, -1e9) < self._every
            self.counts["trouble"] += young
            return b"" if young else found[0]

        return re.sub(rb"<Contents>.*?<Key>(.*?)</Key>.*?</Contents>", kept, listing, flags=re.DOTALL)

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(str(self._server.hostname), self._server.port, timeout=60)
        leave = {"connection", "expect", "transfer-encoding"}
        headers = {k: v for k, v in request.headers.items() if k.lower() not in leave}
        connection.request(request.command, request.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        kept = {
            k: v
            for k, v in answer.getheaders()
            if k.lower() not in leave | {"content-length", "date", "server"}
        }
        if request.command == "HEAD":
            kept["Content-Length"] = answer.getheader("Content-Length") or "0"
        return answer.status, kept, data

    def _answer(
        self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], data: bytes
    ) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        if "Content-Length" not in headers:
            request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)


@pytest.fixture
def bad_storage() -> Iterator[Callable[..., BadStorage]]:
    """Make storages that misbehave; they are closed when the test has ended."""
    made: list[BadStorage] = []

    def make(server: str, trouble: str, every: float = 1) -> BadStorage:
        made.append(BadStorage(server, trouble, every))
        return made[-1]

    yield make
    for each in made:
        each.close()
