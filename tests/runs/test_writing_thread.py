"""Writes beside the training: in order, none lost, and errors told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest

from facecnn.runs.writing_thread import MOST_WAITING, WritingThread


def submit_all(writes: list[Callable[[], None]], error: Exception | None = None) -> None:
    with WritingThread() as writing:
        for write in writes:
            writing.submit(write)
        if error is not None:
            raise error


def wait_for(event: threading.Event) -> None:
    assert event.wait(60)


def fail() -> None:
    raise OSError("disk full")


def test_writes_run_in_order_and_all_of_them_before_the_end() -> None:
    written: list[int] = []
    submit_all([partial(written.append, number) for number in range(20)])
    assert written == list(range(20))


def test_the_caller_goes_on_meanwhile_but_not_far() -> None:
    may_end, submitted = threading.Event(), threading.Event()
    with WritingThread() as writing:
        for _ in range(MOST_WAITING):
            writing.submit(partial(wait_for, may_end))

        def submit_one_more() -> None:
            writing.submit(submitted.set)
            submitted.set()

        submitting = threading.Thread(target=submit_one_more)
        submitting.start()
        assert not submitted.is_set()
        may_end.set()
        submitting.join(60)
    assert submitted.is_set()


def test_where_no_thread_can_be_started_the_caller_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    written: list[int] = []
    submit_all([partial(written.append, number) for number in range(5)])
    assert written == list(range(5))


def test_an_error_is_raised_at_the_end() -> None:
    with pytest.raises(OSError, match="disk full"):
        submit_all([fail])


def test_an_error_is_raised_while_the_caller_goes_on() -> None:
    writing = WritingThread()

    def go_on() -> None:
        for _ in range(MOST_WAITING):
            writing.submit(lambda: None)

    writing.submit(fail)
    with pytest.raises(OSError, match="disk full"):
        go_on()
    writing.wait()  # told once


def test_another_error_is_not_hidden_and_what_was_submitted_is_written() -> None:
    written: list[int] = []
    with pytest.raises(ValueError, match="diverged"):
        submit_all([partial(written.append, 1), fail], ValueError("diverged"))
    assert written == [1]
