"""Compiles kernels in several processes, for example while the first one reads photos and finds faces.

Numba compiles one function at a time in a process. So further processes run this module: each lists the kernels that
training will launch, without running any, and compiles those that no other process is compiling, into a shared cache.
They start once the first process spends time on compiling: if all is compiled, they cost nothing. They also say how
many functions there are to compile, since the first process has no time to look ahead.
"""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import IO, TYPE_CHECKING

from facecnn.config import Loaded
from facecnn.errors import FacecnnError
from facecnn.jobs import further_process
from facecnn.jobs.console import Console
from facecnn.jobs.faces import run_installed_networks
from facecnn.jobs.warm import Planned, code_folder, compiled_code, plan_for, train_and_answer
from facecnn.kernels import Device, available_threads, open_device
from facecnn.process_wide import RARELY

if TYPE_CHECKING:  # loads Numba
    from facecnn.kernels.cpu.launching import Launch

MOST_PROCESSES = 4
"""Including this one. Each takes about 250 MB, and the longest function takes an eighth of the total time."""

WORTH_A_PROCESS = 1.0
"""Seconds of compiling after which the others start; it takes them about as long."""


class Compiling:
    """The further processes."""

    def __init__(self, planned: Sequence[Planned], device: Device, processes: int, *, faces: bool) -> None:
        """``processes``: how many further ones may start; ``faces``: whether to compile for the face finder, too."""
        self._planned, self._device, self._faces = planned, device, faces
        self._to_start = processes
        self._takes_long = False
        self.started: list[subprocess.Popen[bytes]] = []
        """Those that run, or ran."""
        self._lock = threading.Lock()
        self._from_the_end = False
        self._in_the_end: int | None = None
        """How many files of compiled functions there will be, once that is known."""
        self._listener: threading.Thread | None = None
        self._thresholds = gc.get_threshold()

    def notice(self, seconds: float) -> None:
        """Start the others if this process has compiled for so long. Any thread may call it."""
        if seconds < WORTH_A_PROCESS or self._takes_long:
            return
        with self._lock:
            self._takes_long = True
            _collect_rarely()
            count, self._to_start = self._to_start, 0
            for number in range(count):
                with suppress(OSError):  # no more processes, or it ended at once
                    self._start(number / count)

    def _start(self, share: float) -> None:
        process = further_process.start(__name__, stdout=subprocess.PIPE)
        self.started.append(process)
        assert process.stdin is not None
        pickle.dump((self._planned, self._faces, self._from_the_end, share), process.stdin)
        process.stdin.flush()
        if self._listener is None:
            self._listener = threading.Thread(target=self._listen, args=(process.stdout,), daemon=True)
            self._listener.start()

    def _listen(self, said: IO[bytes]) -> None:
        """Hear from the first of the others how much there is to compile; nothing if it ends before."""
        with suppress(ValueError):
            self._in_the_end = int(said.readline())

    def left(self) -> int | None:
        """How many functions no process has compiled yet; None while that isn't known."""
        if self._in_the_end is None:
            return None
        return max(0, self._in_the_end - len(compiled_code("cpu")))

    def join_in(self) -> None:
        """Compile what is left, starting with the last kernel: the others continue from the first. If none has started,
        those that start later begin with the last. If none can, see what is left."""
        self._from_the_end = True
        if self.started:
            _compile(self._planned, self._device, from_the_end=True)
        elif self._takes_long:
            self._in_the_end = _count(_launches(self._planned, self._device))

    def stop(self) -> None:
        """End the others."""
        with self._lock:
            self._to_start = 0
        for process in self.started:
            process.kill()
        if self._listener is not None:
            self._listener.join()
        if self._takes_long:  # else what is frozen was so before
            gc.unfreeze()
            gc.set_threshold(*self._thresholds)
        for process in self.started:
            process.communicate()


@contextmanager
def compiling_together(
    planned: Sequence[Planned], device: Device, console: Console, threads: int | None = None, *, faces: bool
) -> Iterator[Compiling]:
    """Within the context, the kernels of ``planned`` are compiled by as many processes as there are ``threads``, at
    most ``MOST_PROCESSES``; by this one alone for another device than the CPU, and without a cache to share.

    ``threads``: see ``facecnn.kernels.open_device``; ``faces``: whether to compile for the face finder, too.
    """
    is_shared = device.name == "cpu" and code_folder("cpu") is not None
    processes = min(threads or available_threads(), MOST_PROCESSES) - 1 if is_shared else 0
    compiling = Compiling(planned, device, processes, faces=faces)
    with ExitStack() as held:
        held.callback(compiling.stop)
        if is_shared:
            from facecnn.kernels.compilation import told

            held.enter_context(told(lambda compilation: compiling.notice(compilation.seconds)))
            console.show_left(compiling.left)
        yield compiling


def compiling_for_training(
    loaded: Loaded, device: Device, threads: int | None, console: Console
) -> AbstractContextManager[Compiling]:
    """``compiling_together`` for training."""
    planned = []
    with suppress(FacecnnError):  # the training will say what is wrong, and where
        planned = [plan_for(loaded)]
    return compiling_together(planned, device, console, threads, faces=loaded.settings.photos.faces != "off")


def _compile(
    planned: Sequence[Planned],
    device: Device,
    *,
    faces: bool = False,
    from_the_end: bool = False,
    share: float = 0.0,
    tell: Callable[[int], None] | None = None,
) -> None:
    """Compile what no other process is compiling.

    Args:
        faces: whether to then compile those of the face finder, starting with the last.
        from_the_end: whether to begin with the last kernel of ``planned``.
        share: the part of all that is compiled last.
        tell: called with the number of files of compiled functions there will be in the end.
    """
    from facecnn.kernels.cpu.launching import compile_in_order, listed

    launches = _launches(planned, device)
    if from_the_end:
        launches.reverse()
    if faces:
        launches += reversed(listed(run_installed_networks))
    if tell is not None:
        tell(_count(launches))
    start = int(share * len(launches))
    compile_in_order(launches[start:] + launches[:start])


def _launches(planned: Sequence[Planned], device: Device) -> list[Launch]:
    """What training with the settings launches, and its models' answers: each once, in order."""
    from facecnn.kernels.cpu.launching import listed

    return list(dict.fromkeys(launch for one in planned for launch in listed(partial(train_and_answer, one, device))))


def _count(launches: Sequence[Launch]) -> int:
    """How many files of compiled functions there will be when all of these are compiled."""
    from facecnn.kernels.cpu.launching import not_kept

    return len(not_kept(launches)) + len(compiled_code("cpu"))


def _collect_rarely() -> None:
    gc.freeze()
    gc.set_threshold(*RARELY)


def _work() -> None:
    """What a further process does."""
    _collect_rarely()
    planned, faces, from_the_end, share = pickle.load(sys.stdin.buffer)
    further_process.end_with_the_first()
    tell = partial(print, flush=True)
    _compile(planned, open_device("cpu", 1), faces=faces, from_the_end=from_the_end, share=share, tell=tell)


if __name__ == "__main__":
    _work()
