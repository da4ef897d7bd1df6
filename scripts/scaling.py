"""How far does training scale over ranks: what does a step take on K of them, and where does it stop paying off?

Measured here, with ranks of its own (mpiexec) in short turns, of which medians are taken:

* the processor's time for a step of the config's network on ready pictures on one thread, for batches of several
  sizes. A line is fitted to them: fixed + per photo x photos;
* what messages between ranks on this machine take: latency, and bandwidth;
* steps that 1, 2, 4 and 8 ranks share, to check the model. Ranks and other programs beyond the processors take
  turns on them.

Counted: the bytes that a step tells other ranks. cluster/model.py has the formulas. With them it says what a step takes
on up to 1,024 ranks, each with a processor of its own, over several networks: with a batch that stays the same, and
with one that grows with the ranks.

Run it with --json on the machine that you plan with, and give the file to --measured to plan on another.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.work import Case, known
from cluster import picture
from cluster.measuring import Measured, measure, read
from cluster.model import Link, Point, curve, last_that_pays, step
from common.command import at_least, exit_on_error, new_file, parser
from common.tables import percent, table
from facecnn.config import load
from facecnn.errors import UsageError

NETWORKS = {
    link.name: link
    for link in (
        # The rates are those of IEEE 802.3ae, IEEE 802.3ba and InfiniBand HDR. 20 us between programs over TCP: Hurwitz
        # and Feng 2003, Initial End-to-End Performance Evaluation of 10-Gigabit Ethernet (a faster wire doesn't make
        # the system's part shorter); 10 us at best: Larsen et al. 2007. 2 us past the system: 1.93 us by Squyres 2014,
        # MPI over 40Gb Ethernet.
        Link("ethernet-10", 20e-6, 10e9 / 8),
        Link("ethernet-100", 20e-6, 100e9 / 8),
        Link("infiniband", 2e-6, 200e9 / 8),
    )
}
CHECKED = (1, 2, 4, 8)
BATCH = 1024
MOST_RANKS = 1024


def parse_arguments() -> argparse.Namespace:
    arguments = parser(__doc__)
    add = arguments.add_argument
    add("-c", "--config", default="deep", help="a shipped config, whose network is trained (default: deep)")
    add("--size", type=at_least(1), help="pixels a side (default: the config's)")
    add("--batch", type=at_least(1), default=BATCH, help=f"photos of a batch that stays the same (default: {BATCH:,})")
    add("--per-rank", type=at_least(1), help="photos of each rank where the batch grows (default: the config's batch)")
    add("--ranks", type=at_least(2), default=MOST_RANKS, help=f"at most (default: {MOST_RANKS:,})")
    add(
        "--network",
        choices=NETWORKS,
        action="append",
        help="between the ranks; repeatable (default: all three, or the one of --bandwidth and --latency)",
    )
    add("--bandwidth", type=positive, metavar="GBIT", help="of a network of your own, in Gbit/s; with --latency")
    add("--latency", type=positive, metavar="MICROSECONDS", help="of a message over it, however small")
    add("--ranks-per-machine", type=at_least(1), default=1, help="that share a machine's bandwidth (default: 1)")
    add("--no-sleep", action="store_true", help="plan as if ranks that wait looked all the time")
    add(
        "--check",
        type=at_least(1),
        action="append",
        metavar="RANKS",
        help="how many ranks steps are timed with here; repeatable (default: 1, 2, 4 and 8)",
    )
    add("--measured", type=Path, metavar="FILE", help="plan with what an earlier run has measured: its JSON")
    add("--quick", action="store_true", help="few and short turns: only shows that it runs")
    add("--json", action="store_true", help="print JSON instead of tables")
    add("--output", type=new_file, help="a PNG file for a picture of the plan")
    return arguments.parse_args()


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} isn't above 0")
    return value


def chosen_links(options: argparse.Namespace) -> list[Link]:
    """The networks to plan with. Raises UsageError."""
    own = options.bandwidth, options.latency
    if (own[0] is None) != (own[1] is None):
        given, other = ("--bandwidth", "--latency") if own[1] is None else ("--latency", "--bandwidth")
        raise UsageError(f"{given}: a network has both: add {other}")
    links = [NETWORKS[name] for name in options.network or ()]
    if own[0] is not None:
        links.append(Link("own", options.latency / 1e6, options.bandwidth * 1e9 / 8))
    links = list(dict.fromkeys(links or NETWORKS.values()))
    sleeps = not options.no_sleep
    return [replace(link, bandwidth=link.bandwidth / options.ranks_per_machine, sleeps=sleeps) for link in links]


def chosen_case(options: argparse.Namespace) -> Case:
    """What is measured. Raises UsageError."""
    settings = load(options.config).settings
    try:
        known(settings.optimizer)
    except NotImplementedError:
        raise UsageError(
            f"--config {options.config}: its optimizer makes no steps that ranks share, or isn't in the benchmark"
        ) from None
    height, _, channels = settings.photos.shape
    return Case(options.config, channels, options.size or height, settings.train.batch_size, "train")


def checked_ranks(options: argparse.Namespace, batch: int) -> list[int]:
    """How many ranks the model is checked with. Raises UsageError."""
    ranks = sorted(set(options.check or (count for count in CHECKED if count <= batch)))
    if ranks[-1] > batch:
        raise UsageError(
            f"--check {ranks[-1]}: a batch of {options.config} has {batch} photos, and each rank needs one"
        )
    return ranks


def measurements(options: argparse.Namespace) -> Measured:
    """Measure, or read what was measured. Raises UsageError, and FacecnnError if the ranks fail."""
    if options.measured is not None:
        try:
            return read(options.measured.read_text(encoding="utf-8"), str(options.measured))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--measured {options.measured}: can't be read: {error}") from None
    case = chosen_case(options)
    return measure(case, checked_ranks(options, case.batch), quick=options.quick)


def check(measured: Measured) -> list[dict[str, Any]]:
    """Steps as the model says, and as they were."""
    rows = []
    for ranks, seconds in measured.steps.items():
        predicted = step(measured.host, measured.link, measured.batch, ranks).seconds
        rows.append(
            {
                "ranks": ranks,
                "predicted_ms": 1000 * predicted,
                "measured_ms": 1000 * seconds,
                "predicted_photos_per_second": measured.batch / predicted,
                "measured_photos_per_second": measured.batch / seconds,
                "error_percent": 100 * (predicted / seconds - 1),
            }
        )
    return rows


def verdict(points: Sequence[Point], batch: str) -> str:
    """Where a curve stops paying off, in words."""
    fastest = max(points, key=lambda point: point.speed_up)
    last = last_that_pays(points)
    if last is None:
        end = points[-1]
        text = (
            f"up to {end.ranks:,} ranks with {batch} the exchange takes no more than half of a step "
            f"({percent(end.step.exchange_share)} there), speed-up {end.speed_up:.4g}"
        )
    else:
        text = (
            f"beyond {last.ranks:,} rank{'s' if last.ranks > 1 else ''} with {batch} the exchange takes more than half "
            f"of a step; speed-up there {last.speed_up:.4g}"
        )
    return f"{text}; most with {fastest.ranks:,}: {fastest.speed_up:.4g}"


def plain(points: Sequence[Point]) -> list[dict[str, Any]]:
    return [
        {
            "ranks": point.ranks,
            "batch": point.batch,
            "ms": 1000 * point.step.seconds,
            "compute_ms": 1000 * point.step.compute,
            "sending_ms": 1000 * point.step.sending,
            "adding_ms": 1000 * point.step.adding,
            "speed_up": point.speed_up,
            "efficiency": point.efficiency,
        }
        for point in points
    ]


def printed(measured: Measured, links: Sequence[Link], rows: Sequence[tuple[str, picture.Curves]]) -> str:
    """The measurements and the plan as tables."""
    host, here = measured.host, measured.link
    checked = [(*list(row.values())[:-1], f"{row['error_percent']:+.0f} %") for row in check(measured)]
    network = f"{measured.network}, {measured.size} pixels, one thread a rank"
    lines = [
        f"{measured.cpu}, {measured.processors} processors, as busy as with {measured.others:.1f} other programs",
        f"{network}: a step takes {1000 * host.alone.fixed:.3g} ms + "
        f"{1000 * host.alone.per_photo:.3g} ms a photo alone, {1000 * host.shared.fixed:.3g} ms + "
        f"{1000 * host.shared.per_photo:.3g} ms a photo as a rank's part of a shared one",
        f"A step tells other ranks {sum(told.bytes for told in host.exchanges):,} bytes in {len(host.exchanges)} "
        f"exchanges, {host.gradient_bytes:,} of them gradient",
        f"Between ranks here: {1e6 * here.latency:.3g} us, {here.bandwidth / 1e9:.3g} GB/s; an exchange with nobody "
        f"takes {1e6 * host.call:.3g} us, a pause between looks {1e6 * host.look:.3g} us, adding "
        f"{host.per_added_byte * 1e9:.3g} ns a byte",
        "",
        f"Steps of {measured.batch} photos here, where ranks and other programs take turns on the processors:",
        "",
        table(checked, ("ranks", "model ms", "measured ms", "model photos/s", "measured photos/s", "error")),
        "",
        "Networks between the ranks: "
        + "; ".join(
            f"{link.name} {1e6 * link.latency:.3g} us, {8e-9 * link.bandwidth:.4g} Gbit/s a rank" for link in links
        ),
    ]
    for title, curves in rows:
        lines += ["", f"{title}: ms a step (speed-up, share of the exchange)", "", plan_table(curves), ""]
        lines += [f"{link}: {verdict(points, title.split(', ', 1)[1])}." for link, points in curves.items()]
    return "\n".join(lines)


def plan_table(curves: picture.Curves) -> str:
    """A row for each number of ranks, a column for each network."""
    columns = list(curves.values())
    cells = [
        (
            f"{points[0].ranks:,}",
            *(
                f"{1000 * point.step.seconds:.3g} ({point.speed_up:.3g}, {point.step.exchange_share:.0%})"
                for point in points
            ),
        )
        for points in zip(*columns, strict=True)
    ]
    return table(cells, ("ranks", *curves))


def planned(
    measured: Measured, links: Sequence[Link], options: argparse.Namespace
) -> dict[str, Mapping[str, list[Point]]]:
    """The curves of both kinds of scaling, by their titles."""
    per_rank = options.per_rank or measured.batch
    return {
        title: {link.name: curve(measured.host, link, batch, options.ranks, per_rank=grows) for link in links}
        for title, batch, grows in (
            (f"Strong scaling, a batch of {options.batch:,}", options.batch, False),
            (f"Weak scaling, {per_rank:,} photos a rank", per_rank, True),
        )
    }


@exit_on_error()
def main() -> None:
    options = parse_arguments()
    links = chosen_links(options)
    measured = measurements(options)
    rows = list(planned(measured, links, options).items())
    if options.json:
        (_, strong), (_, weak) = rows
        made = {
            "measured": measured.plain(),
            "check": check(measured),
            "strong": {link: plain(points) for link, points in strong.items()},
            "weak": {link: plain(points) for link, points in weak.items()},
        }
        print(json.dumps(made, indent=2))
    else:
        print(printed(measured, links, rows))
    if options.output is not None:
        picture.draw(f"{measured.network} at {measured.size} pixels, one thread a rank", rows, options.output)


if __name__ == "__main__":
    main()
