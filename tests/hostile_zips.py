"""Zips that nobody should open, made by hand, and the honest one that they are made from."""

import io
import pickle
import struct
import zipfile

import numpy as np


class Command:
    """Unpickled by Python itself, it would run a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


def npy(array):
    """The bytes of a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=array.dtype.hasobject)
    return buffer.getvalue()


def plane(neurons=8, frames=200, rate=5.0, seed=0):
    """The files of a suite2p plane by name; its traces are smooth and bright enough for dF/F."""
    rng = np.random.default_rng(seed)
    F = 100 + 5 * rng.normal(size=(neurons, frames)).cumsum(1).astype(np.float32)
    stat = np.array([{"med": [10.0 * i % 70, 7.0 * i % 40]} for i in range(neurons)], dtype=object)
    return {
        "F.npy": npy(F - min(0, F.min()) + 50),
        "Fneu.npy": npy(np.zeros_like(F)),
        "iscell.npy": npy(np.ones((neurons, 2), np.float32)),
        "stat.npy": npy(stat),
        "ops.npy": npy(np.array({"fs": rate}, dtype=object)),
    }


def write_zip(path, files, method=zipfile.ZIP_DEFLATED):
    """A zip of files by name, in this order; a name may also be a ZipInfo."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, contents in files.items():
            archive.writestr(name, contents)
    return path


def suite2p_zip(path, **changes):
    """An honest zip of a suite2p folder, with files changed or added by name."""
    files = {f"suite2p/plane0/{name}": contents for name, contents in plane().items()}
    return write_zip(path, files | changes)


def with_member(path, name, contents=b"x"):
    return suite2p_zip(path, **{name: contents})


def with_link(path):
    link = zipfile.ZipInfo("suite2p/plane0/ops2.npy")
    link.external_attr = 0o120777 << 16
    files = {f"suite2p/plane0/{name}": contents for name, contents in plane().items()}
    return write_zip(path, {**files, link: "/etc/passwd"})


def bomb(path, size):
    """A zip in which F.npy is `size` zeros, a thousandth of that as packed."""
    return write_zip(path, {"plane0/F.npy": bytes(size)})


def nested_bomb(path, size):
    """A zip of zips of zeros."""
    inner = io.BytesIO()
    write_zip(inner, {f"{i}.npy": bytes(size) for i in range(4)})
    return write_zip(path, {f"{i}.zip": inner.getvalue() for i in range(4)})


def lying_bomb(path, size, said):
    """A zip in which F.npy says that it holds `said` bytes, and holds `size`."""
    return _replaced(bomb(path, size), size, said)


def _replaced(path, size, said):
    data = path.read_bytes()
    old, new = struct.pack("<L", size), struct.pack("<L", said)
    assert data.count(old) >= 2, "expected the size in the local header and in the directory"
    path.write_bytes(data.replace(old, new))
    return path


def overlapping_bomb(path, size, entries):
    """A directory in which many names share the bytes of one member."""
    bomb(path, size)
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    directory = b"".join(data[start:end].replace(b"plane0/F", b"%05d0/F" % i) for i in range(entries))
    closing = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, entries, entries, len(directory), start, 0)
    path.write_bytes(data[:start] + directory + closing)
    return path


def pickle_that_runs(path, command):
    """A suite2p zip whose ops.npy runs a command where it is unpickled."""
    header = npy(np.array({}, dtype=object)).split(b"\n")[0] + b"\n"
    return suite2p_zip(path, **{"suite2p/plane0/ops.npy": header + pickle.dumps(Command(command))})
