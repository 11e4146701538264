"""The files of the MICrONS functional release (DANDI 000402): which scans a SOURCE holds, and how one is opened.

SOURCE is a folder of NWB files, one file, an http(s) URL of one, or `dandi:000402@VERSION`. Each file holds one scan,
named `sub-17797_ses-{session}-scan-{scan}_behavior+image+ophys.nwb`, 60 to 71 GB, nearly all of it raw movies. Remote
files are read in pieces by `remfile`, so movies are never fetched.
"""

import hashlib
import importlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import h5py

from ..writing_aside import file_aside
from .hdf5_file import open_hdf5, read_text
from .readers.source import files_with_suffix
from .wording import count, reason_of, repeated, some

# The scans that the MICrONS consortium selected out of 19 (Nature 640:435-447, 2025, 10.1038/s41586-025-08790-w).
SELECTED = tuple("4-7 5-6 5-7 6-2 6-4 6-6 6-7 7-3 7-4 7-5 8-5 9-3 9-4 9-6".split())
DANDISET = "000402"
DANDI = "dandi:"
_DANDI_PATH = "sub-17797/sub-17797_ses-{}-scan-{}_behavior+image+ophys.nwb"
_IN_NAME = re.compile(r"ses-(\d{1,3})-scan-(\d{1,3})(?!\d)")
_SESSION_ID = re.compile(r"(\d{1,3})-scan-(\d{1,3})")
_SCAN = re.compile(r"(\d{1,3})-(\d{1,3})")


class ScanFile(NamedTuple):
    """The file of one scan.

    Args:
        scan: Session and scan as in "4-7".
        file: Its name, the same wherever it lies.
        location: Its path or URL.
    """

    scan: str
    file: str
    location: str

    @property
    def is_remote(self) -> bool:
        return _is_url(self.location)


def parse_scans(text: str | None) -> tuple[str, ...] | None:
    """Return the scans in a list like "4-7,5-6"; None for None.

    Raises:
        ValueError: If one is not session-scan or stands there twice.
    """
    if text is None:
        return None
    scans = [scan.strip() for scan in text.split(",")]
    for scan in scans:
        if not _SCAN.fullmatch(scan) or scans.count(scan) > 1:
            raise ValueError(f"--scans: expected each scan once as session-scan, as in 4-7,5-6, got {scan!r:.40}")
    return tuple(scans)


def find_scans(source: str | os.PathLike, scans: Sequence[str] | None = None) -> list[ScanFile]:
    """Find the files of scans.

    Args:
        source: A folder, a file, a URL, or `dandi:000402@VERSION`.
        scans: Which scans, as "4-7", each of which must be there; by default those of the 14 in `SELECTED` that are,
            and of a single file or URL its own.

    Returns:
        One file for each scan, in the order of sessions and scans.

    Raises:
        ValueError: If there is none, a chosen one is missing, or two files hold the same one.
    """
    source = os.fspath(source)
    if source.startswith(DANDI):
        found = _in_dandiset(source, scans or SELECTED)
    elif _is_url(source) or Path(source).is_file():
        found = [_single(source)]
        scans = scans or [found[0].scan]
    else:
        found = _in_folder(source)
    chosen = [file for file in found if file.scan in (scans or SELECTED)]
    _check_found(source, found, chosen, scans)
    return sorted(chosen, key=lambda file: session_and_scan(file.scan))


def session_and_scan(scan: str) -> tuple[int, int]:
    """Return (4, 7) for "4-7"."""
    session, number = scan.split("-")
    return int(session), int(number)


def open_scan(file: ScanFile, cache: str | os.PathLike | None = None) -> h5py.File:
    """Open the file of a scan.

    Args:
        file: Where it is.
        cache: Folder that keeps the pieces read of remote files, for any number of processes at once.

    Raises:
        ValueError: If it is no whole HDF5 file, a server refuses it, or remfile is needed and not installed.
    """
    return open_hdf5(file.file, _remote(file, cache)) if file.is_remote else open_hdf5(file.location)


def fingerprint(file: ScanFile) -> tuple[int, ...]:
    """Return what changes when a file on disk is replaced: its size in bytes and its time of change in ns.

    Nothing is asked of a URL: what a dandiset serves is addressed by its content.
    """
    if file.is_remote:
        return ()
    status = os.stat(file.location)
    return status.st_size, status.st_mtime_ns


class WholePieces:
    """Pieces of remote files on disk, each there whole or not at all, for remfile's `disk_cache`.

    remfile's own leaves a torn piece where its process is killed, and would take it for data ever after.
    """

    def __init__(self, folder: str | os.PathLike):
        self._folder = Path(folder)

    def get(self, key: str) -> bytes | None:
        """Return a piece, or None where it is not there."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            return None

    def set(self, key: str, piece: bytes) -> None:
        """Keep a piece."""
        with file_aside(self._path(key), replace=True) as aside:
            aside.write_bytes(piece)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / name[:2] / name


def _remote(file: ScanFile, cache: str | os.PathLike | None) -> Any:
    remfile = _needed("remfile")
    try:
        return remfile.File(file.location, disk_cache=WholePieces(cache) if cache else None)
    # A server may fail in any way, and remfile says so with bare exceptions.
    except Exception as error:
        raise ValueError(
            f"{file.file}: expected a server that sends an NWB file, got none ({reason_of(error):.200}); check the "
            "URL, and whether this machine reaches it"
        ) from error


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise ValueError(
            f"expected the package {package} to read remote files, found none: pip install neurt[dandi]"
        ) from None


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _single(source: str) -> ScanFile:
    """Return the file of one scan; where its name does not tell which, its session_id does."""
    name = unquote(urlsplit(source).path).rsplit("/", 1)[-1] if _is_url(source) else Path(source).name
    scan = _scan_in(_IN_NAME.search(name))
    if scan is None:
        with open_scan(ScanFile("", name, source)) as file:
            scan = scan_inside(file)
    if scan is None:
        raise ValueError(
            f"{name}: expected a MICrONS scan, with a session_id as in 4-scan-7, got none; `neurt import` reads NWB "
            "files in general"
        )
    # Absolute, because other processes may run in other folders.
    return ScanFile(scan, name, source if _is_url(source) else str(Path(source).absolute()))


def scan_inside(file: h5py.File) -> str | None:
    """Return session and scan as in "4-7" that a file says it holds, or None."""
    return _scan_in(_SESSION_ID.fullmatch(read_text(file, "general/session_id") or ""))


def _scan_in(match: re.Match | None) -> str | None:
    return f"{int(match[1])}-{int(match[2])}" if match else None


def _in_folder(source: str) -> list[ScanFile]:
    if not Path(source).is_dir():
        raise ValueError(
            f"{source}: expected a folder of NWB files, an NWB file, a URL or {DANDI}{DANDISET}@VERSION, found "
            "nothing there; check it"
        )
    paths = files_with_suffix(Path(source).absolute(), ".nwb")
    scans = [(_scan_in(_IN_NAME.search(path.name)), path) for path in paths]
    return [ScanFile(scan, path.name, str(path)) for scan, path in scans if scan]


def _in_dandiset(source: str, scans: Sequence[str]) -> list[ScanFile]:
    match = re.fullmatch(rf"{DANDI}{DANDISET}@([\w.]+)", source)
    if not match:
        raise ValueError(
            f"{source}: expected {DANDI}{DANDISET} with its version, as in {DANDI}{DANDISET}@0.240430.2138; "
            "other dandisets have another layout"
        )
    api = _needed("dandi.dandiapi")
    # Else dandi prints the traceback of a request that fails.
    logging.getLogger("dandi").addHandler(logging.NullHandler())
    try:
        dandiset = api.DandiAPIClient().get_dandiset(DANDISET, match[1])
        return [_asset(dandiset, scan, source) for scan in scans]
    except OSError as error:
        raise ValueError(
            f"{source}: expected an answer of the DANDI archive, got {type(error).__name__}; look whether this "
            "machine reaches api.dandiarchive.org, or give a folder of downloaded files"
        ) from error


def _asset(dandiset: Any, scan: str, source: str) -> ScanFile:
    path = _DANDI_PATH.format(*session_and_scan(scan))
    try:
        asset = dandiset.get_asset_by_path(path)
        url = asset.get_content_url(follow_redirects=1, strip_query=True)
    # What dandi raises where nothing is found is one of these.
    except RuntimeError as error:
        raise ValueError(
            f"{source}: expected the file {path}, found none ({' '.join(str(error).split())}); check version and scan"
        ) from error
    return ScanFile(scan, path.rsplit("/", 1)[-1], url)


def _check_found(
    source: str, found: Sequence[ScanFile], chosen: Sequence[ScanFile], scans: Sequence[str] | None
) -> None:
    names = sorted({file.scan for file in found}, key=session_and_scan)
    if not chosen:
        expected = f"the scans {', '.join(scans)}" if scans else "some of the 14 selected MICrONS scans"
        there = f"found {some(names)}; choose with --scans" if names else "found no file ..._ses-4-scan-7_....nwb"
        raise ValueError(f"{source}: expected {expected}, {there}")
    missing = [scan for scan in scans or () if scan not in names]
    if missing:
        raise ValueError(f"{source}: expected the scans {', '.join(scans)}, found none for {some(missing)}")
    for scan in repeated(file.scan for file in chosen):
        files = [os.path.relpath(file.location, source) for file in chosen if file.scan == scan]
        raise ValueError(
            f"{source}: expected one file for each scan, got {count(len(files), 'file')} for {scan} "
            f"({some(files)}); remove one or give a folder inside"
        )
