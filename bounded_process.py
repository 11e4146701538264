"""Work on files of strangers in a process of its own, which may take so much time and memory and no more.

    for text in run_bounded(work, path, seconds=60, memory=2**31):
        ...

A thread cannot be stopped and shares its memory with everyone; a file that makes a library crash, or go round in
circles, ends a process, and nobody else notices. What comes back are texts, not objects that had to be trusted.
"""

import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from .dataset_scripts.wording import byte_size, count

_MOST_BYTES = 2**26  # of one text
# Forked from a process that has imported what is needed and done nothing else: a new one would import for seconds.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def prepare(*modules: str) -> None:
    """Import modules where processes are forked from; returns when that is done, so that the first need not wait."""
    multiprocessing.set_forkserver_preload(list(modules))
    process = multiprocessing.get_context(_METHOD).Process(target=_nothing)
    process.start()
    process.join()


def _nothing() -> None:
    pass


def run_bounded(work: Callable[..., Iterator[str]], *arguments: Any, seconds: float, memory: int) -> Iterator[str]:
    """Yield what a generator function yields, in another process.

    Args:
        work: A function of a module.
        *arguments: What it is called with.
        seconds: How long it may take in all.
        memory: Bytes that it may take beyond those that a process has at its start; limited on Linux alone.

    Raises:
        ValueError: If it raises ValueError or OSError, with its message; or needs more time or memory, or fails in
            another way, which is printed to the standard error with where it happened.
    """
    context = multiprocessing.get_context(_METHOD)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, work, arguments, memory), daemon=True)
    process.start()
    sender.close()
    end = time.monotonic() + seconds
    try:
        while (text := _next_text(receiver, end, seconds)) is not None:
            yield text
    finally:
        receiver.close()
        process.kill()
        process.join()
        process.close()


def _next_text(receiver, end: float, seconds: float) -> str | None:
    """The next text, or None where there is none left."""
    if not receiver.poll(max(0, end - time.monotonic())):
        raise ValueError(f"this took over {count(round(seconds), 'second')}, the most it may; try a shorter recording")
    try:
        kind, text = json.loads(receiver.recv_bytes(_MOST_BYTES))
    except (EOFError, OSError):  # the latter of a text that is too long, or broke off
        raise ValueError("this ended the program that read the file, which may be damaged; try another") from None
    if kind == "bug":
        print(text, file=sys.stderr)
        raise ValueError("this failed, and not by your fault; please tell who runs this page")
    if kind == "error":
        raise ValueError(text)
    return text


def _run(sender, work: Callable[..., Iterator[str]], arguments: tuple, memory: int) -> None:
    """What the other process does: send each text, then None."""

    def send(kind: str, text: str | None) -> None:
        sender.send_bytes(json.dumps([kind, text]).encode())

    _limit_memory(memory)
    try:
        for text in work(*arguments):
            send("text", text)
        send("text", None)
    except (ValueError, OSError) as error:
        send("error", str(error))
    except MemoryError:
        send("error", f"this needs over {byte_size(memory)} of memory, the most it may; try a smaller recording")
    except Exception:
        send("bug", traceback.format_exc())


def _limit_memory(memory: int) -> None:
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
