"""Write a file or folder aside and put it in its place when it is complete, so that nothing is ever half-written.

    with file_aside(output) as aside:
        aside.write_text(text)

What is written stands in a hidden folder beside its place, `.{name}.{machine}-{process}-{number}.partial`. The folder
goes when writing ends, well or not. A process that is killed leaves it; whoever writes to the same place next, on the
same machine, removes it and first puts back what had been moved out of the way.
"""

import contextlib
import itertools
import os
import platform
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"
_numbers = itertools.count()
_in_use: set[Path] = set()


@contextlib.contextmanager
def file_aside(path: str | os.PathLike, *, replace: bool = False) -> Iterator[Path]:
    """Give a path to write a file to, with the name it will have; it takes its place when the block ends well.

    Args:
        path: Where the file will be; folders above it are made.
        replace: Whether to take the place of a file that is there; otherwise there must be none.

    Raises:
        ValueError: If something is in its place, now or at the end.
    """
    with _holder(path, "an output file", replace) as (place, aside):
        yield aside
        _check_place(place, "an output file", replace)
        os.replace(aside, place)


@contextlib.contextmanager
def folder_aside(path: str | os.PathLike, *, replace: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill, with the name it will have; it takes its place when the block ends well.

    Args:
        path: Where the folder will be; folders above it are made.
        replace: Whether to take the place of a folder that is there, all of it; otherwise there must be none.

    Raises:
        ValueError: If something is in its place, now or at the end.
    """
    with _holder(path, "a folder", replace) as (place, aside):
        aside.mkdir()
        yield aside
        _check_place(place, "a folder", replace)
        if place.exists():
            os.rename(place, _old(aside.parent, place))
        os.rename(aside, place)


def require_new(path: str | os.PathLike, what: str) -> None:
    """Raise ValueError where `what` ("an output file", "a folder") is to be made and something is there already."""
    if os.path.lexists(path):
        raise ValueError(f"{path}: expected {what} that does not exist yet, got one that does; choose another")


@contextlib.contextmanager
def _holder(path: str | os.PathLike, what: str, replace: bool) -> Iterator[tuple[Path, Path]]:
    """Make the hidden folder; gives the place with links followed, and the path to write to."""
    place = Path(path).resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(place)
    _check_place(place, what, replace)
    holder = place.with_name(f".{place.name}.{_MACHINE}-{os.getpid()}-{next(_numbers)}.partial")
    _in_use.add(holder)
    try:
        holder.mkdir()
        yield place, holder / place.name
    finally:
        _remove(holder, place)
        _in_use.discard(holder)


def _check_place(place: Path, what: str, replace: bool) -> None:
    if not replace:
        require_new(place, what)
    elif place.exists() and place.is_dir() != (what == "a folder"):
        raise ValueError(f"{place}: expected {what} to replace, got something else; choose another")


def _remove_leftovers(place: Path) -> None:
    """Remove what processes that no longer run left of the same place."""
    pattern = re.compile(rf"\.{re.escape(place.name)}\.{_MACHINE}-(\d{{1,9}})-\d+\.partial")
    for holder in place.parent.iterdir():
        match = pattern.fullmatch(holder.name)
        if match and not _is_written(holder, int(match[1])):
            _remove(holder, place)


def _remove(holder: Path, place: Path) -> None:
    """Remove a hidden folder, and put back first what was moved into it and not replaced."""
    old = _old(holder, place)
    if old.exists() and not place.exists():
        os.rename(old, place)
    shutil.rmtree(holder, ignore_errors=True)


def _old(holder: Path, place: Path) -> Path:
    return holder / f"{place.name}.old"


def _is_written(holder: Path, process: int) -> bool:
    if process == os.getpid():
        return holder in _in_use
    if os.name != "posix":
        # Elsewhere the question itself would end the process.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
