"""One file on a loopback port, for the one page that may fetch it."""

from __future__ import annotations

import contextlib
import errno
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from pytest_atomtrace.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ORIGIN", "PERFETTO_PORT", "FileServer"]

#: The page that fetches; no other origin is allowed to read the answer.
ORIGIN: Final = "https://ui.perfetto.dev"
#: The only loopback port that its Content-Security-Policy lets it fetch from (perfetto ui/src/frontend/index.ts).
PERFETTO_PORT: Final = 9001
_CHUNK = 1 << 20
_IDLE_S = 30.0


class FileServer:
    """Serves `path` under a random name on 127.0.0.1 until it is closed; `fetched` is set after one whole GET.

    There is nothing else to be had: other paths, other methods and other `Host` names (a page whose name was made
    to point to loopback) are refused, directories are not listed.

    Raises:
        ConfigError: the port is taken or not allowed.

    """

    def __init__(self, path: Path, *, port: int = PERFETTO_PORT) -> None:
        self.fetched = threading.Event()
        self.place = f"/{secrets.token_urlsafe(12)}/{quote(path.name)}"
        try:
            self._server = _Server(("127.0.0.1", port), _Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port} of 127.0.0.1 is taken by another process (trace_processor --httpd listens there, and "
                    f"so does another `atomtrace open`); end that one. {ORIGIN} fetches from port {PERFETTO_PORT} only",
                    "--port",
                ) from None
            raise ConfigError(f"port {port} of 127.0.0.1 cannot be used: {error.strerror or error}", "--port") from None
        self._server.served = path
        self._server.place = self.place
        self._server.fetched = self.fetched
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        # Here and not in `__enter__`: an interrupt that came while the thread began would close the socket under it.
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the file is."""
        return f"http://127.0.0.1:{self.port}{self.place}"

    def __enter__(self) -> FileServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the port back; may be called twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A port in TIME_WAIT is free: the second `open` of a minute must not be told that it is taken.
    allow_reuse_address = True
    served: Path
    place: str
    fetched: threading.Event

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: every answer ends its connection."""

    timeout = _IDLE_S
    server: _Server
    server_version = "atomtrace"
    sys_version = ""

    def do_GET(self) -> None:
        """The file."""
        self._send(body=True)

    def do_HEAD(self) -> None:
        """Its size."""
        self._send(body=False)

    def do_OPTIONS(self) -> None:
        """What a browser asks before a page of the internet may talk to loopback (private network access)."""
        if not self._allowed():
            return
        self.send_response(204)
        self._cors()
        self.send_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        self.send_header("Access-Control-Allow-Headers", "*")
        self.send_header("Access-Control-Allow-Private-Network", "true")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _allowed(self) -> bool:
        host = self.headers.get("Host", "").partition(":")[0]
        if host not in ("127.0.0.1", "localhost"):
            self._refuse(403)
            return False
        if not secrets.compare_digest(urlsplit(self.path).path.encode(), self.server.place.encode()):
            self._refuse(404)
            return False
        return True

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _cors(self) -> None:
        self.send_header("Access-Control-Allow-Origin", ORIGIN)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")

    def _send(self, *, body: bool) -> None:
        if not self._allowed():
            return
        try:
            stream = self.server.served.open("rb")
        except OSError:
            self._refuse(404)
            return
        with stream, contextlib.suppress(ConnectionError, TimeoutError):
            size = self.server.served.stat().st_size
            self.send_response(200)
            self._cors()
            # Not as a Content-Encoding: Perfetto takes gzip as a file format, and the size is that of the file.
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if body:
                while chunk := stream.read(_CHUNK):
                    self.wfile.write(chunk)
                self.wfile.flush()
                self.server.fetched.set()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the base class's name
        """Nothing: the command says itself what happens."""
