"""``tlgen browse``: serve a corpus to the browser of this machine until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import webbrowser

import click

from catalogs.console import counted
from catalogs.corpus.catalog import Catalog
from catalogs.machine import has_screen


def browse(url: str, port: int | None, show: bool) -> None:
    """Serve the corpus at ``url``, and open a browser if there is a screen.

    Parameters
    ----------
    url
        Of the corpus.
    port
        To listen on; None for the usual one, or any that is free.
    show
        Open a browser.

    Raises
    ------
    InputError
        There is no corpus, or the port is taken.
    """
    from tlgen.browse.server import Browser, listen, serve

    catalog = Catalog.open(url)
    listening, port = listen(port)
    browser = Browser(catalog)
    browser.table()  # the first page is there at once

    def ready(address: str) -> None:
        opened = show and has_screen() and webbrowser.open(address)
        click.echo(f"{catalog.url}: {counted(len(browser.samples()[1]), 'sample')}, at\n  {address}")
        if show and not opened:
            click.echo(f"no browser was opened; from another machine: ssh -L {port}:127.0.0.1:{port} HOST")
        click.echo("Ctrl-C ends it")

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(browser, listening, port, ready))
