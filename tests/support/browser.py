"""A headless Chromium for tests, whose way to other sites ends at a server that notes what is asked of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class Recorder(BaseHTTPRequestHandler):
    """A proxy that forwards nothing and notes what it was asked for."""

    asked: list[str] = []  # noqa: RUF012 (one list for the one server that the test starts)

    def refuse(self) -> None:
        self.asked.append(self.path)
        self.send_error(502)

    do_GET = do_POST = do_HEAD = do_CONNECT = refuse

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def running() -> Iterator[list[ThreadingHTTPServer]]:
    """Servers that the test appends and starts are ended after it."""
    servers: list[ThreadingHTTPServer] = []
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def start(server: ThreadingHTTPServer, running: list[ThreadingHTTPServer]) -> int:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    running.append(server)
    return server.server_port


@pytest.fixture
def render(tmp_path: Path, running: list[ThreadingHTTPServer]) -> Callable[..., str]:
    """Opens an address in a browser whose way to other sites ends at Recorder; returns the page as drawn.

    Further arguments are options of the browser.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs a Chromium")
    Recorder.asked.clear()
    proxy = start(ThreadingHTTPServer(("127.0.0.1", 0), Recorder), running)
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    flags += " disable-component-update disable-sync"
    command = [
        browser,
        *(f"--{flag}" for flag in flags.split()),
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--proxy-server=http://127.0.0.1:{proxy}",  # Chromium does not use it for localhost
        "--virtual-time-budget=10000",
        "--dump-dom",
    ]

    def render(address: str, *options: str) -> str:
        done = subprocess.run(
            [*command, *options, address], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return render


def asked_of_other_sites() -> list[str]:
    # What a browser with a fresh profile asks its maker for is not the page's doing. What pages load from
    # the same maker has hosts of its own.
    own = re.compile(r"(?<![\w-])(?!ajax|fonts)[\w-]+\.(google|googleapis|gstatic)\.com\b")
    return [url for url in Recorder.asked if not own.search(url)]
