"""Run the jobs of a build in several processes on this machine, or on a Dask cluster.

The order in which jobs end does not matter. Where one fails, those that run end first and the others are not begun.
"""

import concurrent.futures
import importlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .wording import reason_of

CONNECT_SECONDS = 30


def run_in_processes(function: Callable[[Any], None], jobs: Sequence[Any], processes: int) -> Iterator[None]:
    """Call a picklable function with each job in processes of their own; yields whenever one ends.

    Raises:
        ValueError: If a process is killed.
        Exception: What the function raises.
    """
    with concurrent.futures.ProcessPoolExecutor(
        min(processes, len(jobs)), multiprocessing.get_context("spawn"), initializer=_end_with_parent
    ) as executor:
        futures = [executor.submit(function, job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except concurrent.futures.BrokenExecutor:
            raise ValueError(
                "expected every process to end its job, one was killed, perhaps for want of memory; lower --jobs "
                "and give the same command again to continue"
            ) from None
        finally:
            executor.shutdown(cancel_futures=True)


def run_on_cluster(function: Callable[[Any], None], jobs: Sequence[Any], address: str) -> Iterator[None]:
    """Call a picklable function with each job on the workers of a Dask scheduler; yields whenever one ends.

    Raises:
        ValueError: If Dask is not installed, no scheduler answers, or a worker is lost.
        Exception: What the function raises.
    """
    distributed = _distributed()
    with _connected(distributed, address) as client:
        futures = client.map(function, jobs, pure=False, retries=0)
        try:
            for future in distributed.as_completed(futures):
                yield future.result()
        except (distributed.scheduler.KilledWorker, concurrent.futures.CancelledError) as error:
            raise ValueError(
                f"--scheduler {address}: expected its workers to stay, one was lost ({reason_of(error):.200}); give "
                "the same command again to continue"
            ) from error


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError:
        raise ValueError(
            "--scheduler: expected the package distributed, found none: pip install neurt[cluster]"
        ) from None


def _connected(distributed: Any, address: str) -> Any:
    try:
        return distributed.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"--scheduler: expected the address of a running Dask scheduler, as in tcp://host:8786, got {address!r} "
            f"({reason:.200})"
        ) from error


def _end_with_parent() -> None:
    # A process of a pool whose owner was killed would wait for jobs for ever.
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
