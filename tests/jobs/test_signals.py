"""Signals as exceptions and as requests."""

import signal
import sys
import threading

import pytest

from facecnn.jobs.signals import SIGNALS, StopAtOnce, Stopped, StopRequest


@pytest.mark.parametrize("number", SIGNALS)
def test_at_once(number: int) -> None:
    before = signal.getsignal(number), sys.unraisablehook
    with pytest.raises(Stopped) as stopped, StopAtOnce():
        signal.raise_signal(number)
    assert stopped.value.number == number
    assert (signal.getsignal(number), sys.unraisablehook) == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_request_waits_for_the_second_signal(number: int) -> None:
    with pytest.raises(Stopped) as stopped, StopRequest() as stop:  # noqa: PT012
        stop.stepped = True
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        assert stop.number == number
        signal.raise_signal(signal.SIGINT)
    assert stopped.value.number == signal.SIGINT


def test_a_request_before_the_first_step_is_at_once() -> None:
    with pytest.raises(Stopped), StopRequest():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")
@pytest.mark.usefixtures("interrupts")
def test_a_request_that_does_not_listen_leaves_signals_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS], sys.unraisablehook
    with pytest.raises(KeyboardInterrupt) as stopped, StopRequest(listens=False) as stop:  # noqa: PT012
        stop.stepped = True
        assert ([signal.getsignal(number) for number in SIGNALS], sys.unraisablehook) == before
        signal.raise_signal(signal.SIGINT)
    assert not isinstance(stopped.value, Stopped)
    assert not stop()


def test_an_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopAtOnce(), StopRequest():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_in_a_callback_from_c_is_not_lost() -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            self.checked = True  # Python looks for signals between steps, so this is never done

    with pytest.raises(Stopped) as stopped, StopAtOnce():  # noqa: PT012
        dying = Dying()
        del dying
        threading.Event().wait(30)
    assert stopped.value.number == signal.SIGTERM


def test_an_error_after_a_signal_that_was_dropped_is_its_consequence() -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            self.checked = True

    with pytest.raises(Stopped) as stopped, StopAtOnce():  # noqa: PT012
        dying = Dying()
        del dying
        raise RuntimeError("no compiled object yet")
    assert stopped.value.number == signal.SIGTERM


def test_other_threads_leave_signals_alone() -> None:
    seen = []

    def enter() -> None:
        with StopAtOnce(), StopRequest() as stop:
            seen.append((signal.getsignal(signal.SIGINT), stop()))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
