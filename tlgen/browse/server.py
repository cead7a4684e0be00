"""The server of ``tlgen browse``: local, read-only, and protected by a token.

It listens on the loopback interface. The printed address contains a token. The first request with the token
sets a cookie, and requests with neither are refused. The host name is checked too, because another web site
could let its own name point to this machine (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import pandas as pd
import tornado.httpserver
import tornado.web

from catalogs.corpus import sample_table
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.pages import render as pages
from catalogs.schema import SAMPLE_ID
from tlgen.browse import in_neuroglancer, sample, table
from tlgen.browse.planes import Planes

HOST = "127.0.0.1"
#: The port to try first if none is requested.
PORT = 8642
_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_THREADS = 4


@dataclass
class Browser:
    """A corpus that is being browsed.

    Attributes
    ----------
    catalog
        The corpus.
    token
        The token that requests must have.
    """

    catalog: Catalog
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def __post_init__(self) -> None:
        """Create the state that requests share."""
        self.planes = Planes(self.catalog)
        self.threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="browse")
        self._samples: pd.DataFrame | None = None
        self._version = 0
        self._table = 0, b""
        self._lock = threading.Lock()

    def samples(self, *, anew: bool = False) -> tuple[int, pd.DataFrame]:
        """Return the version number of the table of samples, and the table, sorted by name.

        The version changes if samples were added or removed.

        Parameters
        ----------
        anew
            Whether to list the samples again.
        """
        with self._lock:
            if anew or self._samples is None:
                found = self.catalog.samples.sort_values(["name", "sample_id"])
                if self._samples is None or not found.index.equals(self._samples.index):
                    self._samples, self._version = found, self._version + 1
            return self._version, self._samples

    def table(self) -> bytes:
        """Return the current table of all samples as JSON."""
        version, samples = self.samples(anew=True)
        if self._table[0] != version:
            content = {
                "name": self.catalog.info["name"],
                "url": self.catalog.url,
                "version": version,
                "rows": len(samples),
                "columns": table.columns(samples),
            }
            self._table = version, _json(content)
        return self._table[1]

    def select(self, where: str) -> bytes:
        """Return the numbers of the rows that meet a condition as JSON; InputError if it is not valid."""
        version, samples = self.samples()
        chosen = sample_table.select(samples, where.strip() or None).index
        return _json({"version": version, "rows": samples.index.get_indexer(chosen).tolist()})


def application(browser: Browser, port: int) -> tornado.web.Application:
    """Create the web application that shows a corpus at a port."""
    shared = {"browser": browser, "port": port}
    one = f"({SAMPLE_ID})"
    return tornado.web.Application(
        [
            (r"/", Page, {**shared, "template": "browse_corpus.html"}),
            (rf"/sample/{one}", Page, {**shared, "template": "browse_sample.html"}),
            (r"/static/([a-z]+\.(?:js|css|svg))", File, shared),
            (r"/api/table", Answer, {**shared, "work": lambda _: browser.table()}),
            (r"/api/select", Answer, {**shared, "work": lambda ask: browser.select(ask("where"))}),
            (
                rf"/api/sample/{one}",
                Answer,
                {**shared, "work": lambda _, i: _json(sample.facts(browser.catalog, i))},
            ),
            (
                rf"/thumbnail/{one}\.png",
                Picture,
                {**shared, "work": lambda _, i: browser.catalog.thumbnail(i)},
            ),
            (
                rf"/plane/{one}/(tomogram|classes|instances|density)/([zyx])/(\d{{1,6}})\.png",
                Picture,
                {**shared, "work": lambda _, i, volume, axis, n: browser.planes.png(i, volume, axis, int(n))},
            ),
            (
                rf"/tilt/{one}/(\d{{1,6}})\.png",
                Picture,
                {**shared, "work": lambda _, i, n: browser.planes.tilt(i, int(n))},
            ),
            (rf"/neuroglancer/{one}", Neuroglancer, shared),
        ],
        default_handler_class=Nothing,
        default_handler_args=shared,
        log_function=lambda _: None,
    )


class Handler(tornado.web.RequestHandler):
    """Base class of all request handlers: checks access, and formats errors."""

    def initialize(self, browser: Browser, port: int, **more: Any) -> None:
        """Store the arguments that the application passes to each request."""
        self.browser, self.port = browser, port
        for name, value in more.items():
            setattr(self, name, value)

    def set_default_headers(self) -> None:
        """Forbid the page to load content from other sites, and other sites to embed it."""
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        self.clear_header("Server")

    def prepare(self) -> None:
        """Refuse requests without the token or its cookie, and requests that do not only read."""
        if self.request.method not in ("GET", "HEAD"):
            raise tornado.web.HTTPError(405, reason="this page only reads")
        if self.request.host not in (f"{HOST}:{self.port}", f"localhost:{self.port}"):
            raise tornado.web.HTTPError(403, reason="this is not the address of tlgen browse")
        token, cookie = self.browser.token, f"tlgen-browse-{self.port}"
        if hmac.compare_digest(self.get_query_argument("token", "").encode(), token.encode()):
            self.set_cookie(cookie, token, httponly=True, samesite="Strict")
        elif not hmac.compare_digest(self.get_cookie(cookie, "").encode(), token.encode()):
            raise tornado.web.HTTPError(
                403, reason="the token is missing or wrong: open the address that tlgen browse printed"
            )

    async def head(self, *found: str) -> None:
        """Answer like GET, without the body."""
        await self.get(*found)  # type: ignore[misc]

    async def later(self, work: Callable[..., Any], *words: Any) -> Any:
        """Run a function in a thread, so that other requests are answered in the meantime."""
        return await asyncio.get_running_loop().run_in_executor(self.browser.threads, work, *words)

    def write_error(self, status_code: int, **more: Any) -> None:
        """Send a JSON object with one sentence that says what is wrong."""
        error = more.get("exc_info", (None, None, None))[1]
        sentence = self._reason
        if isinstance(error, InputError):
            self.set_status(400)
            sentence = str(error)
        elif status_code == 500:
            sentence = f"unexpected {type(error).__name__}: {error}"
        self.set_header("Content-Type", "application/json")
        self.finish(_json({"error": sentence}))

    def log_exception(self, *error: Any) -> None:
        """Log errors to the terminal only with --debug, because the browser shows them."""
        if os.environ.get("TL_DEBUG"):
            super().log_exception(*error)


class Nothing(Handler):
    """Handler of all other addresses."""

    async def get(self, *found: str) -> None:
        """Answer that there is no such page."""
        raise tornado.web.HTTPError(404, reason="there is no such page")


class Page(Handler):
    """Handler of the pages, which scripts fill in."""

    template: str

    async def get(self, _sample: str = "") -> None:
        """Send the page."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(pages.page(self.template))


class File(Handler):
    """Handler of the pages' scripts and style; only files directly in the folder ``static`` are sent."""

    async def get(self, found: str) -> None:
        """Send the file."""
        file = files("tlgen.browse").joinpath("static", found)
        if not file.is_file():
            raise tornado.web.HTTPError(404, reason="there is no such page")
        kind = _TYPES[file.name.rpartition(".")[2]]
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        self.finish(file.read_bytes())


class Answer(Handler):
    """Handler of facts as JSON."""

    work: Callable[..., bytes]

    async def get(self, *found: str) -> None:
        """Gather the facts and send them."""
        content = await self.later(self.work, lambda name: self.get_query_argument(name, ""), *found)
        self.set_header("Content-Type", "application/json")
        self.finish(content)


class Picture(Handler):
    """Handler of PNG images; the browser may cache them, because samples never change."""

    work: Callable[..., bytes]

    async def get(self, *found: str) -> None:
        """Draw the image and send it."""
        content = await self.later(self.work, None, *found)
        self.set_header("Content-Type", "image/png")
        self.set_header("Cache-Control", "private, max-age=3600")
        self.finish(content)


class Neuroglancer(Handler):
    """Handler that shows a sample in Neuroglancer."""

    async def get(self, sample_id: str) -> None:
        """Open a viewer and redirect the browser to it."""
        self.redirect(await self.later(in_neuroglancer.viewer_url, self.browser.catalog, sample_id))


def listen(port: int | None) -> tuple[socket.socket, int]:
    """Open a port on the loopback interface.

    Parameters
    ----------
    port
        The port; None for the default port, or any free port if that is in use.

    Returns
    -------
    listening, port
        The socket, and its port.

    Raises
    ------
    InputError
        If the port is in use, or this user is not allowed to open it.
    """
    for wanted in (PORT, 0) if port is None else (port,):
        try:
            listening = socket.create_server((HOST, wanted))
            listening.setblocking(False)
            return listening, int(listening.getsockname()[1])
        except OSError as error:
            reason = error.strerror or str(error)
    raise InputError(f"port {port} cannot be used ({reason}); leave `port` out, or give another one")


async def serve(browser: Browser, listening: socket.socket, port: int, ready: Callable[[str], None]) -> None:
    """Serve until this task is cancelled.

    Parameters
    ----------
    browser
        The corpus.
    listening, port
        From :func:`listen`.
    ready
        Called with the address, including the token, as soon as the server answers.
    """
    server = tornado.httpserver.HTTPServer(application(browser, port))
    server.add_socket(listening)
    try:
        ready(f"http://{HOST}:{port}/?token={browser.token}")
        await asyncio.Event().wait()
    finally:
        server.stop()
        browser.threads.shutdown(wait=False, cancel_futures=True)


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
