"""The same work on many things, each by itself: one after the other here, or side by side on a cluster."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import dask
from cloudpickle import dumps as pickle_by_value  # type: ignore[import-untyped]

from lazyvol.errors import OptionError

__all__ = ["each_result", "reason_of"]

_UID = re.compile(r"\d+(\.\d+){4,}")
_SHORT = 3
"""Letters of a text that is hidden nowhere: it would be found in other words."""
_WAITING = 2
"""Tasks of each thread of a cluster that are sent to it at a time: one is worked on, one waits."""


def each_result(
    function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], client: Any = None
) -> Iterator[tuple[int, Any]]:
    """Yield number and result of each task as it is done; an exception is the result of one that failed.

    On a cluster each task runs whole on one thread of one worker, so that its memory is that of one task at a time; a
    task whose worker is lost is given to another one, up to ``distributed.scheduler.allowed-failures`` times.
    """
    if client is None:
        for n, arguments in enumerate(tasks):
            yield n, _outcome(function, arguments)
        return
    from distributed import as_completed

    threads = max(1, sum(client.nthreads().values()))
    try:
        pickle_by_value((function, *tasks[:1]))
    except Exception as error:
        raise OptionError(
            f"what is to be done cannot be sent to a cluster: {type(error).__name__}. Use no lock, file or generator "
            "in the function."
        ) from error
    waiting = iter(enumerate(tasks))
    numbers: dict[str, int] = {}

    def send(count: int) -> list[Any]:
        sent = []
        for n, arguments in islice(waiting, count):
            future = client.submit(_alone, function, arguments, pure=False)
            numbers[future.key] = n
            sent.append(future)
        return sent

    running: Any = as_completed(send(_WAITING * threads))  # type: ignore[no-untyped-call]
    for future in running:
        yield numbers.pop(future.key), future.exception() if future.status == "error" else future.result()
        future.release()
        for more in send(1):
            running.add(more)


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        return error


def _alone(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Do a task of a cluster on the thread that has it: its blocks are no tasks of the cluster."""
    with _by_this_thread():
        found = _outcome(function, arguments)
    try:
        pickle_by_value(found)
    except Exception as error:
        return OptionError(f"its result, a {type(found).__name__}, cannot be sent back: {type(error).__name__}")
    return found


_working: list[Any] = []
"""What each task that works now needs; the configuration of dask is that of the whole process, not of a thread."""
_changing = threading.Lock()


@contextmanager
def _by_this_thread() -> Iterator[None]:
    """Have dask compute in this thread, until the last of the tasks of the process that need it has ended."""
    with _changing:
        before = _working[0] if _working else dask.config.get("scheduler", None)
        _working.append(before)
        dask.config.set(scheduler="synchronous")
    try:
        yield
    finally:
        with _changing:
            _working.pop()
            if not _working:
                dask.config.set(scheduler=before)


def reason_of(error: BaseException, hidden: Sequence[str] = ()) -> str:
    """Return why something failed, in one line, without texts that must not be written anywhere."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = _UID.sub("...", text) if hidden else text
    for each in sorted({" ".join(h.split()) for h in hidden if len(h) > _SHORT}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(each)}(?!\w)", "...", text) if each in text else text
    return f"{type(error).__name__}: {text}"
