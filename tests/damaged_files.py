"""Damaged and hostile copies of files, and what reading one may end with: recordings, or one plain line."""

import contextlib
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

GIBIBYTE = 2**30
SECONDS = 20

# The same damage on every run: a test that fails once in a hundred runs tells nobody what broke.
damages = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def damage(draw) -> Callable[[bytes], bytes]:
    """Draw a function from the bytes of a whole file to those of a damaged one."""
    kind = draw(st.sampled_from(("cut", "flip", "overwrite", "drop", "repeat")))
    where = draw(st.floats(0, 1, exclude_max=True))
    length = draw(st.integers(1, 64))
    noise = draw(st.binary(min_size=length, max_size=length))

    def apply(whole: bytes) -> bytes:
        start = int(where * len(whole))
        end = min(start + length, len(whole))
        before, hit, after = whole[:start], whole[start:end], whole[end:]
        damaged = {
            "cut": b"",
            "flip": bytes(a ^ b for a, b in zip(hit, noise, strict=False)) + after,
            "overwrite": noise + after,
            "drop": after,
            "repeat": hit + hit + after,
        }
        return before + damaged[kind]

    return apply


def damage_heap(path: Path, named: int = 0, size: int = 0) -> Path:
    """Overwrite number and size of the first object in an HDF5 file's first heap; by default, it takes no room."""
    data = bytearray(path.read_bytes())
    start = data.index(b"GCOL") + 16
    data[start : start + 2] = named.to_bytes(2, "little")
    data[start + 8 : start + 16] = size.to_bytes(8, "little")
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def bounded():
    """Let what runs inside take at most one GiB more memory and twenty seconds."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + GIBIBYTE, before[1]))
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _too_long(*_):
    raise TimeoutError(f"still reading after {SECONDS} seconds")


def reads_or_refuses(read: Callable[[], object]) -> str | None:
    """Call `read`; return None where it ends well, its message where it refuses with one plain line.

    Anything but ValueError and OSError, a message of more than one line, more memory or more time fails the test.
    """
    try:
        with bounded():
            read()
    except TimeoutError:
        raise
    except (ValueError, OSError) as error:
        message = str(error)
        assert message and "\n" not in message, f"expected one plain line, got {message!r}"
        return message
    return None
