"""Files of strangers: what may come in, how large it may be, and a place of its own for each.

    path = take_in(upload, folder)

A zip says of itself what it holds, how large that is and where it goes, and may lie in each. So nothing is unpacked
but the arrays of suite2p by their names, no more bytes than were announced, and those are counted. What is unpacked is
never executed: the readers refuse pickles that ask for anything but data.
"""

import contextlib
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .dataset_scripts.wording import byte_size, printable, repeated, some
from .markdown_text import shortened

# What each kind of file is read as.
FORMATS = {".npz": "npz", ".zip": "suite2p", ".nwb": "nwb"}
# What is read of a suite2p folder; ops.npy may be split in two.
SUITE2P_ARRAYS = ("F.npy", "Fneu.npy", "iscell.npy", "stat.npy", "ops.npy", "db.npy", "settings.npy")
# Others (bzip2, LZMA, Zstandard) pack without a bound that could be checked.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_LONGEST_PATH = 200
_BLOCK = 2**20


@dataclass(frozen=True)
class Limits:
    """How much may come in.

    Args:
        upload: Bytes of the file.
        unpacked: Bytes of what is unpacked of it.
        members: Files in a zip, those that are not unpacked among them.
        values: Neurons times frames of all recordings in it.
    """

    upload: int = 100 * 10**6
    unpacked: int = 400 * 10**6
    members: int = 1000
    values: int = 10 * 10**6


def take_in(upload: Path, folder: Path, limits: Limits | None = None) -> Path:
    """Move a recording into a folder, or unpack it there if it is a zip of a suite2p folder.

    Args:
        upload: The file as it was named by whoever sent it.
        folder: An empty folder, to be removed when the recording has been read.
        limits: How much may come in.

    Returns:
        What to read: a file or a folder in `folder`, named as the upload, since recordings are named after it.

    Raises:
        ValueError: If it is gone, of another kind, empty, too large, damaged, or a zip that should not be opened.
    """
    limits = limits or Limits()
    if not upload.is_file():
        raise ValueError("expected the file that was dropped, got none any more; drop it again")
    suffix, size = upload.suffix.lower(), upload.stat().st_size
    if suffix not in FORMATS:
        raise ValueError(f"expected a file that ends in {', '.join(FORMATS)}, got {_shown(upload.name)}")
    if not size:
        raise ValueError("expected a recording, got an empty file; copy or export it again")
    if size > limits.upload:
        raise ValueError(f"expected a file of at most {byte_size(limits.upload)}, got {byte_size(size)}")
    # A name of dots alone would lead out of the folder, and readers pass over hidden files.
    place = folder / (upload.stem.strip(". ") or "recording")
    if suffix == ".zip":
        _unpack(upload, place, limits)
        return place
    if suffix == ".npz":
        with _opened(upload) as archive:
            _check_members(archive.infolist(), limits)
            _check_size(archive.infolist(), limits)
    return Path(shutil.move(upload, f"{place}{suffix}"))


def check_values(values: int, limits: Limits | None = None) -> None:
    """Raise ValueError if recordings have more values, neurons times frames, than may come in."""
    most = (limits or Limits()).values
    if values > most:
        raise ValueError(f"expected at most {most:,} values (neurons × frames), got {values:,}; cut the recording")


def _unpack(upload: Path, place: Path, limits: Limits) -> None:
    """Write the arrays of suite2p in a zip below a new folder."""
    with _opened(upload) as archive:
        members = archive.infolist()
        _check_members(members, limits)
        wanted = [member for member in members if PurePosixPath(member.filename).name in SUITE2P_ARRAYS]
        if not any(PurePosixPath(member.filename).name == "F.npy" for member in wanted):
            inside = some([_shown(member.filename) for member in members]) or "nothing"
            raise ValueError(f"expected a zip of a suite2p folder, with F.npy in it, got one with {inside}")
        _check_size(wanted, limits)
        for member in wanted:
            _write(archive, member, place)


@contextlib.contextmanager
def _opened(upload: Path) -> Iterator[zipfile.ZipFile]:
    """A zip; whatever is found to be broken while it is read is one plain line."""
    try:
        with zipfile.ZipFile(upload) as archive:
            yield archive
    # Headers of strangers break zipfile in many ways.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeError) as error:
        why = printable(str(error)) or type(error).__name__
        raise ValueError(f"expected a whole archive that is what it says, got a damaged one ({why})") from None


def _check_members(members: list[zipfile.ZipInfo], limits: Limits) -> None:
    """Refuse an archive in which any member is not what an honest program writes, needed or not."""
    if len(members) > limits.members:
        raise ValueError(f"expected at most {limits.members:,} files in the archive, got {len(members):,}")
    for member in members:
        _check_path(member)
        name = _shown(member.filename)
        # The upper half is the mode, where a Unix wrote the zip.
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"expected files and folders in the archive, got a link or device, {name}")
        if member.flag_bits & _ENCRYPTED:
            raise ValueError("expected an archive without a password, got an encrypted one")
        if member.compress_type not in _METHODS:
            raise ValueError("expected an archive that is stored or deflated, got another compression; zip it again")
    twice = repeated(member.filename.casefold() for member in members)
    if twice:
        raise ValueError(f"expected each file once in the archive, got {_shown(twice[0])} twice")


def _check_path(member: zipfile.ZipInfo) -> None:
    """Refuse a name that leads anywhere but down from where the archive is unpacked."""
    # zipfile cuts names at a null byte; backslashes and drives lead out on Windows.
    name = member.orig_filename.replace("\\", "/")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
        raise ValueError(f"expected paths within the archive, got one that leads out of it, {_shown(name)}")
    if len(name) > _LONGEST_PATH:
        raise ValueError(f"expected paths of at most {_LONGEST_PATH} letters in the archive, got one of {len(name)}")


def _check_size(members: list[zipfile.ZipInfo], limits: Limits) -> None:
    total = sum(member.file_size for member in members)
    if total > limits.unpacked:
        raise ValueError(f"expected at most {byte_size(limits.unpacked)} when unpacked, got {byte_size(total)}")


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path) -> None:
    """Write one member; zipfile stops at the size that was announced, and then finds that the checksum is wrong."""
    target = place.joinpath(*PurePosixPath(member.filename).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as packed, open(target, "xb") as file:
        shutil.copyfileobj(packed, file, _BLOCK)


def _shown(name: str) -> str:
    return repr(shortened(printable(name)))
