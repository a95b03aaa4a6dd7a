"""Tasks that do their work in one thread, though several of them share a process."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import dask
import pytest

from lazyvol import open_collection
from lazyvol.cluster import client_in_use
from lazyvol.errors import OptionError
from lazyvol.work import _alone, _by_this_thread, each_result, reason_of


def scheduler():
    return dask.config.get("scheduler", None)


def test_dask_computes_in_the_thread_until_the_last_task_has_ended():
    order = [threading.Event() for _ in range(4)]
    seen = []

    def first():
        with _by_this_thread():
            order[0].set()
            order[1].wait(10)
        order[2].set()

    def second():
        order[0].wait(10)
        with _by_this_thread():
            order[1].set()
            order[2].wait(10)
            seen.append(scheduler())
        order[3].set()

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["synchronous"]
    assert scheduler() is None


def test_what_was_set_before_is_set_again():
    with dask.config.set(scheduler="threads"):
        with _by_this_thread():
            assert scheduler() == "synchronous"
        assert scheduler() == "threads"


def test_an_exception_is_a_result():
    found = dict(each_result(lambda a: 1 / a, [(1,), (0,), (2,)]))
    assert (found[0], found[2]) == (1, 0.5)
    assert isinstance(found[1], ZeroDivisionError)


def test_an_interruption_is_none():
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(each_result(stop, [()]))


def test_a_result_that_cannot_be_sent_is_named():
    assert "cannot be sent back" in str(_alone(threading.Lock, ()))
    assert _alone(lambda: 3, ()) == 3


def test_work_is_done_here_where_dask_is_told_so():
    with dask.config.set(scheduler="threads"):
        assert client_in_use() is None
        given = SimpleNamespace(submit=len)
        assert client_in_use(given) is given


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (5, "client=5 is no dask.distributed.Client"),
        (SimpleNamespace(submit=len, status="closed"), "the client is closed"),
        (SimpleNamespace(submit=len, asynchronous=True), "the client is asynchronous"),
    ],
    ids=["none", "closed", "asynchronous"],
)
def test_a_client_that_cannot_work_is_named(client, said, tmp_path):
    with pytest.raises(OptionError, match=said):
        client_in_use(client)
    with pytest.raises(OptionError, match=said):
        open_collection(tmp_path, client=client, cache=None)


def test_hidden_texts_are_left_out_where_they_are_words():
    said = reason_of(
        ValueError("frame 1 of IM 1 in /a/frames is short, IM 12 is not"), ["/a/frames", "fram", "IM 1", "is"]
    )
    assert said == "ValueError: frame 1 of ... in ... is short, IM 12 is not"
