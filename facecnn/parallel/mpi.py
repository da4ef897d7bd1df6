"""Ranks over MPI (mpi4py).

Every wait is a loop that tests a request, so that a rank notices what a blocking call would hide: that another one has
failed (it sends a notice before it ends) or hasn't answered for too long. The loop gives the processor away, and soon
sleeps: MPI's own waiting would take a whole processor.
"""

import math
import os
import pickle
import platform
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import numpy as np

from facecnn.arrays import Array
from facecnn.errors import DeviceError, UsageError
from facecnn.parallel.launcher import SWITCH, TIME_LIMIT, Launched
from facecnn.parallel.ranks import ANY_PORTION, OtherRankFailed, PortionSize, Silent, Work
from facecnn.parallel.sharing import Portion, SharedItems

_T = TypeVar("_T")

_SPLIT_BYTES = 1 << 18
"""Size from which each rank adds up one part of an array and sends the sums to the others: it then receives two arrays
in place of one from each rank. Below, one exchange is quicker than two."""

_SPINNING = 0.002
"""Seconds during which a wait only yields the processor, because what it waits for comes soon."""

_LONGEST_SLEEP = 0.001
"""Seconds between two looks after that. MPI only makes progress when a rank looks, so an exchange of many messages in a
row takes this long for each; a look takes microseconds."""

_BETWEEN_LOOKS = 0.003
"""Seconds between two looks of the thread that hands out portions, beside rank 0's own work on them."""

give_way: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))
"""Let another process have the processor, if one wants it."""

_GRACE = 10.0
"""Seconds that a rank which has failed waits for the others to end with it, before it ends them by force."""

_PASSED_ON = 0.5
"""Seconds in which a launcher passes on what a rank has printed: when ranks end by force, it drops the rest."""

_LATE = 1.0
"""Seconds for which a wait goes on after a notice of failure: the rank may have had its part in this exchange."""

_ROLL_CALL = 2.0
"""Seconds in which ranks that wait answer each other, to find out who doesn't."""

_RESULT, _FAILED, _HERE, _BUSY, _PORTION = range(5)
"""Tags: what rank 0 collects; a rank has failed; it has waited too long, and is still there; it is at work; what a rank
works on next."""


class MpiRanks:
    """One of the ranks of an MPI communicator; see ``facecnn.parallel.ranks.Ranks``."""

    def __init__(self, mpi: Any, time_limit: float) -> None:
        """``mpi``: the module ``mpi4py.MPI``. ``time_limit``: seconds to wait for a rank that doesn't answer."""
        self._mpi = mpi
        self._time_limit = time_limit
        self._world = mpi.COMM_WORLD
        self._comm, self._notices, self._results, self._ending = (self._world.Dup() for _ in range(4))
        self.rank: int = self._comm.rank
        self.size: int = self._comm.size
        self._nodes: list[str] = self._comm.allgather(platform.node())
        self._buffers: dict[tuple[int, Any], tuple[Array, Array, Array]] = {}
        self._sent: list[Any] = []
        """Notices that may be on their way."""
        self._unfinished: list[Any] = []
        """Requests that a failure has cut short: MPI may still write to their arrays."""
        self._failure: OtherRankFailed | None = None
        self.other_failed = False
        """Whether this rank ends because another one has failed."""
        self._grace = _GRACE
        self._heart: _Heart | None = None
        self._gone: dict[int, str] = {}
        """On rank 0: why ranks aren't waited for any more. One that comes back is late for what others do by then."""

    @property
    def lost(self) -> tuple[str, ...]:
        return tuple(self._gone.values())

    def name_of(self, rank: int) -> str:
        """``rank 1 of 2 (on NODE)``."""
        return f"rank {rank} of {self.size} (on {self._nodes[rank]})"

    def add_up(self, array: Array) -> None:
        if array.nbytes < _SPLIT_BYTES:
            stacked = self.stack(array)
            array[...] = stacked[0]
            for other in stacked[1:]:
                array += other
            return
        flat = array.reshape(-1)
        send, received, total = self._buffers_for(flat.size, flat.dtype)
        send.reshape(-1)[: flat.size] = flat
        self._wait(self._comm.Ialltoall(send, received))
        total[...] = received[0]
        for other in received[1:]:
            total += other
        self._wait(self._comm.Iallgather(total, send))
        flat[...] = send.reshape(-1)[: flat.size]

    def stack(self, array: Array) -> Array:
        own = np.ascontiguousarray(array)
        stacked = np.empty((self.size, *own.shape), own.dtype)
        self._wait(self._comm.Iallgather(own, stacked))
        return stacked

    def gather(self, value: _T) -> list[_T]:
        own = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = self.stack(np.array([own.size], np.int64)).reshape(-1)
        longest = np.zeros(int(sizes.max()), np.uint8)
        longest[: own.size] = own
        return [pickle.loads(row[:size].tobytes()) for row, size in zip(self.stack(longest), sizes, strict=True)]

    def broadcast(self, value: _T | None, *, patiently: bool = False) -> _T:
        own = np.frombuffer(pickle.dumps(value), np.uint8) if self.rank == 0 else np.empty(0, np.uint8)
        size = np.array([own.size], np.int64)
        self._wait(self._comm.Ibcast(size), patiently=patiently)
        data = own.copy() if self.rank == 0 else np.empty(int(size[0]), np.uint8)
        for start in range(0, len(data), 1 << 30):  # MPI counts in 32 bits
            self._wait(self._comm.Ibcast(data[start : start + (1 << 30)]))
        received: _T = pickle.loads(data.tobytes())
        return received

    def busy(self) -> None:
        if self._heart is None:
            self._heart = _Heart(self._time_limit / 4, lambda: self._tell_others(_BUSY, 0))

    def collect(self, value: _T) -> list[_T | Silent]:
        self._rest()
        if self.rank:
            self._wait(self._results.isend(value, dest=0), patiently=True)
            return []
        found: dict[int, _T | Silent] = {0: value, **{rank: Silent(reason) for rank, reason in self._gone.items()}}
        heard = dict.fromkeys(range(1, self.size), time.monotonic())
        told = 0.0
        while len(found) < self.size:
            told = self._keep_in_touch(told)
            for rank in heard.keys() - found.keys():
                if self._results.Iprobe(rank, _RESULT):
                    found[rank] = self._results.recv(source=rank, tag=_RESULT)
                elif self._has_fallen_silent(rank, heard):
                    found[rank] = Silent(self._lose(rank))
            time.sleep(_LONGEST_SLEEP)
        return [found[rank] for rank in range(self.size)]

    def share_out(
        self, count: int, work: Work, size: PortionSize = ANY_PORTION, told: Callable[[int, int], None] | None = None
    ) -> list[Any]:
        self._rest()
        if self.rank:
            self._work_on_portions(work)
            return []
        items = SharedItems(count, self.size, size, told)
        ended = threading.Event()
        handing_out = threading.Thread(target=self._hand_out, args=(items, ended), daemon=True)
        handing_out.start()
        try:
            items.work(0, work)
        except BaseException:
            ended.set()
            raise
        finally:
            handing_out.join()
        items.take(0)  # raises what the thread has met since
        return items.results

    def _work_on_portions(self, work: Work) -> None:
        """What other ranks than 0 do in ``share_out``."""
        done: tuple[Portion, list[Any]] | None = None
        while True:
            self._wait(self._results.isend(done, dest=0, tag=_RESULT), patiently=True)
            self._wait_until(lambda: bool(self._results.Iprobe(0, _PORTION)), patiently=True)
            portion: Portion | None = self._results.recv(source=0, tag=_PORTION)
            if portion is None:
                return
            self.busy()
            done = portion, list(work(*portion, lambda number: None))
            self._rest()

    def _hand_out(self, items: SharedItems, ended: threading.Event) -> None:
        """Give the other ranks portions until each has been told that none is left. Meanwhile, only this thread of rank
        0 calls MPI."""
        heard = dict.fromkeys(set(range(1, self.size)) - self._gone.keys(), time.monotonic())
        asking: set[int] = set()
        told = 0.0
        try:
            while heard and not ended.is_set():
                told = self._keep_in_touch(told)
                for rank in list(heard):
                    self._attend_to(rank, items, heard, asking)
                time.sleep(_BETWEEN_LOOKS)
        except BaseException as error:
            items.fail(error)

    def _attend_to(self, rank: int, items: SharedItems, heard: dict[int, float], asking: set[int]) -> None:
        """Take what a rank has done, and give it the next portion.

        ``heard``: when each rank was last heard of, without those that have nothing more to do; ``asking``: those that
        wait for a portion.
        """
        if self._results.Iprobe(rank, _RESULT):
            done = self._results.recv(source=rank, tag=_RESULT)
            if done is not None:
                items.put(rank, *done)
            asking.add(rank)
        elif rank not in asking and self._has_fallen_silent(rank, heard):
            items.lose(rank, self._lose(rank))
            del heard[rank]
        if rank in asking:
            portion = items.take(rank)
            if portion is None and not items.finished:
                return  # another rank may be lost, with its portion
            self._sent.append(self._results.isend(portion, dest=rank, tag=_PORTION))
            asking.discard(rank)
            heard[rank] = time.monotonic()
            if portion is None:
                del heard[rank]

    def _keep_in_touch(self, told: float) -> float:
        """Let the other ranks know that this one is at work, unless they were ``told`` lately. Returns when they were.

        Raises OtherRankFailed.
        """
        now = time.monotonic()
        if now - told > self._time_limit / 4:
            self._tell_others(_BUSY, 0)
            told = now
        if self._has_failure():
            raise self._ended()
        return told

    def _has_fallen_silent(self, rank: int, heard: dict[int, float]) -> bool:
        """Whether a rank wasn't heard of for too long; ``heard``: when each was last, which is brought up to date."""
        now = time.monotonic()
        if self._hears(rank):
            heard[rank] = now
        return now - heard[rank] > self._time_limit

    def _lose(self, rank: int) -> str:
        """Wait no more for a rank. Returns why."""
        reason = f"{self.name_of(rank)}: no answer for {self._time_limit:.0f} seconds"
        self._gone[rank] = reason
        self._grace = _LATE
        return reason

    def _rest(self) -> None:
        """End what ``busy`` has begun: only one thread at a time may call MPI."""
        if self._heart is not None:
            self._heart.stop()
            self._heart = None

    def end(self, code: int, failed_itself: bool) -> list[tuple[int, bool]] | None:
        """Wait for the other ranks to end, too.

        ``code``: this rank's exit code; ``failed_itself``: whether that isn't the consequence of another rank's
        failure. Returns both of each rank; None where one has failed, and others don't come to end with it.
        """
        self._rest()
        if failed_itself:
            self._tell_others(_FAILED, code)
        everybody = np.zeros((self.size, 2), np.int64)
        request = self._ending.Iallgather(np.array([code, failed_itself], np.int64), everybody)
        deadline, failing = time.monotonic() + self._time_limit, False
        if self._gone:  # they won't come
            deadline, failing = time.monotonic() + self._grace, True
        while not request.Test():
            if self._hears(0):
                deadline = time.monotonic() + self._time_limit
            if not failing and (code or self._has_failure()):
                deadline, failing = time.monotonic() + self._grace, True
            if time.monotonic() > deadline:
                return None
            time.sleep(_LONGEST_SLEEP)
        return [(int(code), bool(failed)) for code, failed in everybody]

    def abort(self, code: int) -> NoReturn:
        """End all ranks by force."""
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(_PASSED_ON)
        if not self._gone:  # whose work others have done
            code = code or DeviceError.exit_code
        self._world.Abort(code)
        os._exit(code)  # MPICH's returns before the process is killed

    def _buffers_for(self, size: int, dtype: Any) -> tuple[Array, Array, Array]:
        key = size, dtype
        if key not in self._buffers:
            part = -(-size // self.size)
            send, received = (np.zeros((self.size, part), dtype) for _ in range(2))
            self._buffers[key] = send, received, np.zeros(part, dtype)
        return self._buffers[key]

    def _wait(self, request: Any, *, patiently: bool = False) -> None:
        """Wait for a request; ``patiently``: as long as rank 0 is busy."""
        try:
            self._wait_until(request.Test, patiently=patiently)
        except BaseException:
            self._unfinished.append(request)
            raise

    def _wait_until(self, is_done: Callable[[], bool], *, patiently: bool) -> None:
        self._rest()
        try:
            self._wait_or_raise(is_done, patiently)
        except BaseException as error:
            if isinstance(error, self._mpi.Exception):
                raise DeviceError(f"{self.name_of(self.rank)}: MPI failed: {error}: start the ranks again") from error
            raise

    def _wait_or_raise(self, is_done: Callable[[], bool], patiently: bool) -> None:
        started = heard = time.monotonic()
        failed = math.inf
        while not is_done():
            now = time.monotonic()
            if now - started < _SPINNING:
                give_way()
                continue
            if self._has_failure():
                failed = min(failed, now)
                if now - failed > _LATE:
                    raise self._ended()
            if patiently and self._hears(0):
                heard = now
            if now - heard > self._time_limit:
                raise self._silent()
            time.sleep(min(_LONGEST_SLEEP, 0.1 * (now - started)))

    def _ended(self) -> OtherRankFailed:
        """The error for another rank's failure."""
        assert self._failure is not None
        self.other_failed = True
        return self._failure

    def _has_failure(self) -> bool:
        """Whether another rank has sent a notice of its failure."""
        if self._failure is None and self._notices.Iprobe(self._mpi.ANY_SOURCE, _FAILED):
            status = self._mpi.Status()
            code = int(self._notices.recv(source=self._mpi.ANY_SOURCE, tag=_FAILED, status=status))
            self._failure = OtherRankFailed(f"{self.name_of(status.source)} has failed, which ends all ranks", code)
        return self._failure is not None

    def _hears(self, rank: int) -> bool:
        """Whether a rank has sent a notice that it is busy since the last call."""
        heard = False
        while self._notices.Iprobe(rank, _BUSY):
            self._notices.recv(source=rank, tag=_BUSY)
            heard = True
        return heard

    def _silent(self) -> DeviceError:
        """The error for ranks that haven't answered in time."""
        here = {self.rank}
        self._tell_others(_HERE, 0)
        until = time.monotonic() + _ROLL_CALL
        while time.monotonic() < until:
            while self._notices.Iprobe(self._mpi.ANY_SOURCE, _HERE):
                status = self._mpi.Status()
                self._notices.recv(source=self._mpi.ANY_SOURCE, tag=_HERE, status=status)
                here.add(status.source)
            time.sleep(_LONGEST_SLEEP)
        missing = [self.name_of(rank) for rank in range(self.size) if rank not in here]
        self._grace = _LATE  # enough for those who wait, too
        who = ", ".join(missing) or "the network between the ranks"
        return DeviceError(
            f"{who}: no answer for {self._time_limit:.0f} seconds, so all ranks end. If it was only slow, set "
            f"{TIME_LIMIT} to more seconds"
        )

    def _tell_others(self, tag: int, value: int) -> None:
        others = (rank for rank in range(self.size) if rank != self.rank)
        self._sent = [request for request in self._sent if not request.Test()]
        self._sent += [self._notices.isend(value, dest=rank, tag=tag) for rank in others]


class _Heart:
    """A thread that calls a function every few seconds."""

    def __init__(self, seconds: float, beat: Callable[[], None]) -> None:
        self._seconds, self._beat = seconds, beat
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._beat()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def start(launched: Launched, time_limit: float) -> MpiRanks:
    """Initialise MPI in one of the processes that a launcher has started.

    Raises UsageError where mpi4py isn't installed or finds no MPI, or the launcher is of another MPI.
    """
    began = f"{launched.launcher} has started {launched.size} processes"
    alone = f"(or set {SWITCH}=off, and each of them trains by itself)"
    try:
        import mpi4py

        mpi4py.rc.thread_level = "serialized"  # one thread at a time calls MPI
        from mpi4py import MPI
    except ImportError as error:
        raise UsageError(f"{began}, and mpi4py, through which they talk, {_why(error)} {alone}") from error
    except RuntimeError as error:  # mpi4py looks for MPI's library when it is imported
        raise UsageError(
            f"{began}, and mpi4py finds no MPI ({_first_line(error)}): pip install 'facecnn[mpi]' brings one {alone}"
        ) from error
    if launched.size != MPI.COMM_WORLD.size:
        library = " ".join(MPI.Get_library_version().split()[:3])
        raise UsageError(
            f"{began}, but mpi4py's MPI ({library}) counts {MPI.COMM_WORLD.size}: start them with the mpiexec of that "
            f"MPI, or with srun --mpi=pmi2 or --mpi=pmix {alone}"
        )
    return MpiRanks(MPI, time_limit)


def _why(error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "isn't installed: pip install 'facecnn[mpi]'"
    return f"can't be loaded ({_first_line(error)}): pip install --upgrade 'facecnn[mpi]'"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
