"""How long a training step takes on K ranks: the arithmetic of scaling.py.

A step computes on the largest share of the batch, fixed + per photo x photos, and then tells the other ranks what it
found. What one exchange costs follows the algorithm with which MPICH's non-blocking collectives do it (chosen by size,
as Thakur, Rabenseifner and Gropp 2005 describe): a number of rounds, each of some messages and bytes, and latency x
messages + bytes / bandwidth for each. All pairs are equally far from each other, and no message waits for another's
wire.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from facecnn.parallel.mpi import _LONGEST_SLEEP, _SPINNING, _SPLIT_BYTES

SPLIT_BYTES = _SPLIT_BYTES

_ALLGATHER_LONG, _ALLGATHER_SHORT = 512 << 10, 80 << 10
"""Bytes in all below which MPICH doubles what it sends: among a power of two of ranks, and otherwise."""
_ALLTOALL_SHORT, _ALLTOALL_MEDIUM, _ALLTOALL_AT_ONCE = 256, 32 << 10, 32
"""Bytes for one rank up to which MPICH sends by Bruck's algorithm, or up to 32 messages at once; else one by one."""

_SMALL_LOOKS, _LARGE_LOOKS, _LARGE_MESSAGE = 2, 3, 16 << 10
"""How many looks at what has come a round takes. Measured with MPICH 5.0.2 and 8 to 16 ranks of one machine that slept
for 10 ms between looks: an allgather took 17 ms a round with messages of a few kilobytes, 28 ms with larger ones."""


@dataclass(frozen=True)
class Link:
    """What ranks send messages over."""

    name: str
    latency: float
    """Seconds a message, however small."""
    bandwidth: float
    """Bytes a second that a rank sends, while it receives as many."""
    one_machine: bool = False
    """Whether all ranks share this machine's processors, which then also carry the messages."""
    sleeps: bool = True
    """Whether ranks give their processor away while they wait, and sleep if it takes long, as facecnn's do."""


@dataclass(frozen=True)
class Line:
    """Seconds of a step's arithmetic, which grow with its photos."""

    fixed: float
    per_photo: float

    def seconds(self, photos: float) -> float:
        return self.fixed + self.per_photo * photos


@dataclass(frozen=True)
class Exchange:
    """What a step tells the other ranks at once: an array is added up over the ranks, or all see everybody's."""

    kind: Literal["add_up", "stack"]
    bytes: int
    """Of one rank's array."""


@dataclass(frozen=True)
class Host:
    """What was measured of a rank, on one thread, and counted of its network."""

    alone: Line
    """Of a step without other ranks."""
    shared: Line
    """Of a rank's own part of a step: batch norm takes more passes if other ranks share the batch."""
    call: float
    """Seconds of an exchange with nobody: Python and MPI's own work."""
    look: float
    """Seconds between two looks of a rank at what has come, while it doesn't sleep."""
    per_added_byte: float
    """Seconds for each byte that is added to another array."""
    processors: int
    exchanges: tuple[Exchange, ...]
    """Of one step, in their order."""
    others: float = 0.0
    """Other programs at work on these processors."""

    @property
    def gradient_bytes(self) -> int:
        return max(exchange.bytes for exchange in self.exchanges)


@dataclass(frozen=True)
class Step:
    """Seconds of a step, part by part."""

    compute: float
    sending: float
    adding: float

    @property
    def seconds(self) -> float:
        return self.compute + self.sending + self.adding

    @property
    def exchange_share(self) -> float:
        return (self.sending + self.adding) / self.seconds


@dataclass(frozen=True)
class Round:
    """What a rank sends before it goes on."""

    messages: int
    bytes: float
    """Of all of them."""


def allgather(size: int, ranks: int) -> list[Round]:
    """The rounds of an allgather of ``size`` bytes from each rank."""
    doubling = _ALLGATHER_LONG if ranks & (ranks - 1) == 0 else _ALLGATHER_SHORT
    if size * ranks < doubling:
        held = [1 << power for power in range((ranks - 1).bit_length())]
        return [Round(1, size * min(count, ranks - count)) for count in held]
    return [Round(1, size)] * (ranks - 1)


def alltoall(size: int, ranks: int) -> list[Round]:
    """The rounds of an alltoall of ``size`` bytes from each rank to each."""
    others = ranks - 1
    if size <= _ALLTOALL_SHORT:
        bits = range(others.bit_length())
        return [Round(1, size * sum(rank >> bit & 1 for rank in range(ranks))) for bit in bits]
    if size <= _ALLTOALL_MEDIUM:
        blocks = [min(_ALLTOALL_AT_ONCE, others - first) for first in range(0, others, _ALLTOALL_AT_ONCE)]
        return [Round(count, size * count) for count in blocks]
    return [Round(1, size)] * others


def waited(rounds: Sequence[Round], link: Link, look: float) -> float:
    """Seconds until a rank has seen the end of its rounds.

    MPI goes on only when a rank looks at what has come. Between its looks facecnn's wait (``MpiRanks._wait_or_raise``)
    gives the processor away, which takes ``look`` seconds, and later sleeps, ever longer; a message comes, on average,
    in the middle of such a pause, and a round takes several looks.
    """
    now = 0.0
    for one in rounds:
        now += one.messages * link.latency + one.bytes / link.bandwidth
        if link.sleeps:
            pause = look if now <= _SPINNING else max(look, min(_LONGEST_SLEEP, 0.1 * now))
            now += (looks(one) - 0.5) * pause
    return now


def looks(one: Round) -> int:
    """How often a rank looks at what has come until it has seen the end of a round."""
    return _SMALL_LOOKS if one.bytes < _LARGE_MESSAGE * one.messages else _LARGE_LOOKS


def exchange_seconds(exchange: Exchange, ranks: int, link: Link, host: Host) -> tuple[float, float]:
    """Seconds that a rank sends and waits, and that it adds up what has come (``MpiRanks.add_up`` and ``stack``)."""
    if not _is_split(exchange):
        added = ranks * exchange.bytes if exchange.kind == "add_up" else 0
        return host.call + waited(allgather(exchange.bytes, ranks), link, host.look), host.per_added_byte * added
    part = math.ceil(exchange.bytes / ranks)
    both = alltoall(part, ranks), allgather(part, ranks)
    sending = 2 * host.call + sum(waited(rounds, link, host.look) for rounds in both)
    return sending, host.per_added_byte * (ranks * part + 2 * exchange.bytes)  # and copied into a buffer and back


def step(host: Host, link: Link, batch: int, ranks: int) -> Step:
    """A step with ``batch`` photos in all.

    On one machine ranks and other programs share the processors fairly. The link's figures are those of two ranks on
    it, so only more of them make it slower. But if there are more programs than processors, the ranks come to an
    exchange one after another, and a rank that waits keeps its processor from the others until it sleeps: half of that
    time, on average.
    """
    computing = sending = 1.0
    lost = 0.0
    if link.one_machine:
        computing = max(1.0, (ranks + host.others) / host.processors)
        sending = max(1.0, (ranks + host.others) / max(host.processors, 2 + host.others))
        if ranks + host.others > host.processors:
            waits = sum(2 if _is_split(exchange) else 1 for exchange in host.exchanges)
            lost = waits * _SPINNING / 2 * (ranks - 1) / ranks * computing
    if ranks == 1:
        return Step(computing * host.alone.seconds(batch), 0.0, 0.0)
    costs = [exchange_seconds(exchange, ranks, link, host) for exchange in host.exchanges]
    return Step(
        computing * host.shared.seconds(math.ceil(batch / ranks)),
        sending * sum(sent for sent, _ in costs) + lost,
        computing * sum(added for _, added in costs),
    )


def _is_split(exchange: Exchange) -> bool:
    return exchange.kind == "add_up" and exchange.bytes >= SPLIT_BYTES


@dataclass(frozen=True)
class Point:
    """A number of ranks, and what they make of a batch."""

    ranks: int
    batch: int
    step: Step
    speed_up: float
    """Photos a second, as a multiple of one rank's with the batch that it begins with."""

    @property
    def efficiency(self) -> float:
        return self.speed_up / self.ranks


def numbers_of_ranks(most: int) -> list[int]:
    """1, 2, 4 and so on, and ``most``."""
    return sorted({most, *(1 << power for power in range(most.bit_length()))})


def curve(host: Host, link: Link, batch: int, most: int, *, per_rank: bool) -> list[Point]:
    """What more and more ranks make of a batch: each of ``batch`` photos if ``per_rank`` (weak scaling), else sharing
    them (strong scaling), up to one photo each."""
    rate = batch / step(host, link, batch, 1).seconds
    points = []
    for ranks in numbers_of_ranks(most if per_rank else min(most, batch)):
        whole = batch * ranks if per_rank else batch
        one = step(host, link, whole, ranks)
        points.append(Point(ranks, whole, one, whole / one.seconds / rate))
    return points


def last_that_pays(points: Sequence[Point]) -> Point | None:
    """The point beyond which the exchange takes more than half of a step; None if it never does."""
    for before, after in pairwise(points):
        if after.step.exchange_share > 0.5:
            return before
    return None


def fit(times: dict[int, float]) -> Line:
    """The line through seconds by photos with the least squares of relative errors; neither part is negative."""
    if len(times) == 1:
        [(photos, seconds)] = times.items()
        return Line(0.0, seconds / photos)
    # With u = 1/t and v = b/t: minimise the sum of (fixed u + per_photo v - 1)^2.
    rows = [(1 / seconds, photos / seconds) for photos, seconds in times.items()]
    uu, uv, vv = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    u, v = (sum(row[i] for row in rows) for i in (0, 1))
    determinant = uu * vv - uv * uv
    fixed, per_photo = (u * vv - v * uv) / determinant, (v * uu - u * uv) / determinant
    if fixed < 0:
        return Line(0.0, v / vv)
    if per_photo < 0:
        return Line(u / uu, 0.0)
    return Line(fixed, per_photo)
