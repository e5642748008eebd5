"""Parallel map over worker processes, with results in the order of the jobs."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from hpsearch.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
"""Environment variables for the number of threads of NumPy's and torch's products."""


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Start processes that multiply matrices on one core each, unless the user has set a number.

    With as many processes as cores, more threads would wait for each other in a loop: photographs
    take ten times as long on a busy machine.
    """
    added = [name for name in BLAS_THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def imap_ordered(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[Result]:
    """Yield the results of ``work``, a module-level function, in the order of the jobs.

    Few jobs run ahead of the reader, which bounds memory. One worker runs in this process.

    Raises:
        UserError: if a process is killed. Errors of ``work`` are raised unchanged.
    """
    if workers <= 1:
        yield from map(work, items)
        return
    # Forking a process that has threads (torch starts some) may deadlock, so workers are spawned.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _prepare_worker) as pool:
        ahead: deque = deque()
        try:
            for job in items:
                with single_threaded_blas():  # a job may start another process
                    ahead.append(pool.submit(work, job))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BrokenProcessPool as e:
            raise UserError(
                "a worker process was killed, perhaps because memory ran out "
                "(in a script: start the work under `if __name__ == '__main__'`); retry"
            ) from e
        finally:
            pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """End this child process of ``multiprocessing`` when its parent does, even by SIGKILL.

    A pool's workers hold their own pipe of jobs open, so they would wait forever.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _prepare_worker() -> None:
    """Ignore Ctrl-C in a worker, because the parent process handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
