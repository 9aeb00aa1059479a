"""The same work on many items, in several processes; one bad item costs that item only."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import cv2

from training.prepare.video import UnreadableVideo

Item = TypeVar("Item")
ItemIn = TypeVar("ItemIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)
Result = TypeVar("Result")

#: Libraries that would each take every core in every process.
ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: So many items may end their process before one is done; then it is not the items.
MOST_CRASHES: Final = 3
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Failure:
    """Why an item has no result."""

    reason: str


class PoolError(RuntimeError):
    """The processes die whatever they are given."""


class Work(Protocol, Generic[ItemIn, ResultOut]):
    """What is done with each item. Raises :class:`UnreadableVideo` where the item is to blame; all else ends the run."""

    def __call__(self, item: ItemIn, /) -> ResultOut: ...

    def close(self) -> None: ...


def results(
    items: Iterable[Item], make: Callable[[], Work[Item, Result]], workers: int = 1
) -> Generator[tuple[Item, Result | Failure], None, None]:
    """Each item with its result, in the order in which they are done; with one worker in this process and in order.

    ``make`` and the items must be picklable for more than one worker; it is called once in every process. A process
    that dies over an item (a decoder that crashes, too little memory) makes that item a :class:`Failure`; raises
    :class:`PoolError` when all do.
    """
    if workers > 1:
        yield from _in_processes(deque(items), make, workers)
        return
    with closing(make()) as work:
        for item in items:
            yield item, _attempt(work, item)


def _in_processes(
    todo: deque[Item], make: Callable[[], Work[Item, Result]], workers: int
) -> Generator[tuple[Item, Result | Failure], None, None]:
    crashes = successes = 0
    while todo:
        waiting = len(todo)
        suspects = yield from _rush(todo, make, workers)
        successes += waiting - len(todo) - len(suspects)
        for item in suspects:  # one of them ended its process; alone in a process each shows whether it was that one
            if not (yield from _rush(deque([item]), make, 1)):
                successes += 1
                continue
            crashes += 1
            if not successes and crashes == MOST_CRASHES:
                raise PoolError(
                    "the worker processes die over whatever they are given; see why with one worker. A script of yours "
                    "that starts them needs its code below: if __name__ == '__main__'"
                )
            yield item, Failure("the process that worked on it was ended: a crash of the decoder, or no memory left")


def _rush(
    todo: deque[Item], make: Callable[[], Work[Item, Result]], workers: int
) -> Generator[tuple[Item, Result | Failure], None, list[Item]]:
    """Work until all is done or a process dies; returns the items that were in work when that happened."""
    running: dict[Future[Result | Failure], Item] = {}
    with _environment(dict.fromkeys(ONE_THREAD, "1")):
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(make, os.getpid())
        )
        try:
            while todo or running:
                while todo and len(running) < 2 * workers:
                    running[pool.submit(_one, todo[0])] = todo[0]
                    todo.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            return list(running.values())
        finally:
            pool.shutdown(cancel_futures=True)
    return []


_make: Callable[[], Work[Any, Any]]
_work: Work[Any, Any] | None = None


def _begin(make: Callable[[], Work[Any, Any]], parent: int) -> None:
    """First thing in a new process: it ends with its parent, and at Ctrl-C at once and without a word."""
    global _make  # noqa: PLW0603 - the process has one kind of work
    _make = make
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def _one(item: Any) -> Any:
    global _work  # noqa: PLW0603
    if _work is None:  # here and not at the beginning, so that what goes wrong reaches the parent
        cv2.setNumThreads(1)
        _work = _make()
    return _attempt(_work, item)


def _attempt(work: Work[Item, Result], item: Item) -> Result | Failure:
    try:
        return work(item)
    except UnreadableVideo as error:
        return Failure(str(error))


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set what is not set already, for the processes that are started in the block."""
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
