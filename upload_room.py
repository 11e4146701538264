"""What visitors of a page may leave on its disk: so many bytes in all, for so long, and each a file of their own.

Gradio limits a file, not how many there are, how long one may be on its way, nor what is left of those that were not
sent to their end.
"""

import asyncio
import contextlib
import stat
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from .dataset_scripts.wording import byte_size

_ENVELOPE = 10**5  # bytes of a request beside the file in it


class BoundedRoom:
    """ASGI middleware that refuses what would be too large before it is read; for the rest the oldest files make room.

    Args:
        app: What answers all else.
        folder: Where files are put.
        largest: Bytes of a file.
        room: Bytes of all files there, and of those that are on their way.
        seconds: How long one may be on its way.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], folder: Path, largest: int, room: int, seconds: float):
        self.app, self.folder, self.room, self.seconds = app, folder, room, seconds
        self.largest = largest + _ENVELOPE
        self.arriving = 0

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await self.app(scope, receive, send)
        said = dict(scope["headers"]).get(b"content-length", b"")
        if not said.isdigit():
            return await _refuse(send, 411, "expected the length of the request, got none")
        length = int(said)
        if length > self.largest:
            return await _refuse(send, 413, f"expected at most {byte_size(self.largest)}, got {byte_size(length)}")
        if self.arriving + length > self.room:
            return await _refuse(send, 503, "expected room for another file, got none; try again in some minutes")
        self.arriving += length
        try:
            make_room(self.folder, self.room - self.arriving)
            async with asyncio.timeout(self.seconds):
                await self.app(scope, receive, send)
        except TimeoutError:
            await _refuse(send, 408, f"expected the file within {self.seconds:g} seconds; try a faster connection")
        finally:
            self.arriving -= length


async def _refuse(send: Callable, status: int, words: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words.encode()})


def make_room(folder: Path, most: int) -> None:
    """Remove the oldest files below a folder until the others have so many bytes at most."""
    files = sorted(_files(folder))
    total = sum(size for _, size, _ in files)
    for _, size, path in files:
        if total <= most:
            return
        path.unlink(missing_ok=True)
        total -= size


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each file was changed, its bytes, and its place; others may remove some meanwhile."""
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                yield found.st_mtime, found.st_size, path


def own_place(upload: str) -> str:
    """Give an upload a place that nobody else has: Gradio puts the same contents in the same place.

    Returns:
        Where it is now; if it is gone already, where it was.
    """
    path = Path(upload)
    place = Path(tempfile.mkdtemp(dir=path.parent)) / path.name
    with contextlib.suppress(FileNotFoundError):
        return str(path.rename(place))
    return upload


def only_dropped(file: Any) -> None:
    """Let a `gradio.File` take what was sent alone; of an address that a visitor names Gradio fetches any amount."""
    move = file.async_move_resource_to_block_cache

    async def move_what_was_sent(path: str | Path | None) -> str | None:
        if str(path).startswith(("http://", "https://")):
            raise ValueError("expected a file that was dropped, got an address")
        return await move(path)

    file.async_move_resource_to_block_cache = move_what_was_sent


def forget(folder: Path, age: float) -> None:
    """Remove files, and folders with nothing in them, that have not been changed for so many seconds."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > age:
                path.rmdir() if path.is_dir() else path.unlink()


def keep_forgetting(folder: Path, age: float) -> None:
    """Call `forget` every minute for as long as this program runs."""

    def work() -> None:
        while folder.is_dir():
            forget(folder, age)
            time.sleep(60)

    threading.Thread(target=work, daemon=True).start()
