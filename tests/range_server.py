"""A loopback HTTP server that answers range requests, counts the bytes it sends and can fail on demand."""

import contextlib
import http.server
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path


class RangeServer(http.server.ThreadingHTTPServer):
    """Serves the files of one folder at `url`.

    Args:
        folder: What is served.
    """

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.sent = 0
        self.refuses_from: int | None = None
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, sent: int) -> None:
        with self._lock:
            self.sent += sent


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        # A small buffer: what a client asked for and then did not wait for would otherwise count as sent.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        super().setup()

    def do_HEAD(self):
        self._answer(send=False)

    def do_GET(self):
        self._answer(send=True)

    def _answer(self, send: bool) -> None:
        path = self.server.folder / self.path.lstrip("/").partition("?")[0].replace("%2B", "+")
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(match[1]), min(int(match[2] or size), size - 1)) if match else (0, size - 1)
        if match and self.server.refuses_from is not None and end >= self.server.refuses_from:
            self.send_error(403)
            return
        self.send_response(206 if match else 200)
        self.send_header("Content-Length", str(end - start + 1))
        self.send_header("Accept-Ranges", "bytes")
        if match:
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.end_headers()
        if send:
            self._send(path, start, end + 1)

    def _send(self, path: Path, start: int, end: int) -> None:
        with open(path, "rb") as file, contextlib.suppress(ConnectionError):
            file.seek(start)
            while start < end:
                block = file.read(min(2**16, end - start))
                self.wfile.write(block)
                self.server.count(len(block))
                start += len(block)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[RangeServer]:
    """Serve a folder while the block runs."""
    server = RangeServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
