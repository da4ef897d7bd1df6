"""scripts/scaling.py: the model's arithmetic by hand, and what it measures. That its times are good can't be tested."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.measuring import _bandwidth, _others, read
from cluster.model import (
    SPLIT_BYTES,
    Exchange,
    Host,
    Line,
    Link,
    Point,
    Round,
    Step,
    allgather,
    alltoall,
    curve,
    exchange_seconds,
    fit,
    last_that_pays,
    step,
    waited,
)
from cluster.worker import Unanswered
from facecnn.errors import UsageError
from facecnn.parallel.mpi import _LONGEST_SLEEP
from scripts.running import assert_picture, run_script

WIRE = Link("wire", latency=1e-5, bandwidth=1e9, sleeps=False)
GRADIENT = Exchange("add_up", 400_000)
HOST = Host(Line(1e-3, 2e-3), Line(2e-3, 2e-3), 1e-6, 1e-5, 1e-10, 2, (GRADIENT, Exchange("stack", 12)))
MEASURED = {
    "cpu": "a processor",
    "processors": 2,
    "others": 0,
    "network": "seed",
    "size": 16,
    "batch": 16,
    "alone": {"1": 0.003, "4": 0.009},
    "shared": {"1": 0.004, "4": 0.010},
    "steps": {"1": 0.03, "2": 0.025},
    "call": 1e-6,
    "look": 1e-9,
    "latency": 1e-5,
    "bandwidth": 1e9,
    "per_added_byte": 1e-10,
    "exchanges": [{"kind": "add_up", "bytes": 400_000}],
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "measured.json"
    path.write_text(json.dumps({"measured": {**MEASURED, **changes}}), encoding="utf-8")
    return path


def test_an_allgather_doubles_what_it_sends_or_goes_round_a_ring() -> None:
    assert allgather(100, 8) == [Round(1, 100), Round(1, 200), Round(1, 400)]
    assert allgather(100, 6) == [Round(1, 100), Round(1, 200), Round(1, 200)]  # 1, 2 and the 2 that are left of 6
    assert allgather(65_536, 8) == [Round(1, 65_536)] * 7  # 512 KiB in all
    assert allgather(65_535, 8) == [Round(1, 65_535 * count) for count in (1, 2, 4)]
    assert allgather(20_000, 5) == [Round(1, 20_000)] * 4  # no power of two, and more than 80 KiB


def test_an_alltoall_by_size() -> None:
    assert alltoall(256, 4) == [Round(1, 512), Round(1, 512)]
    assert alltoall(256, 3) == [Round(1, 256), Round(1, 256)]
    assert alltoall(1000, 40) == [Round(32, 32_000), Round(7, 7_000)]
    assert alltoall(32_769, 4) == [Round(1, 32_769)] * 3


@given(size=st.integers(1, 1 << 20), ranks=st.integers(2, 300))
def test_everybody_gets_what_the_others_have(size: int, ranks: int) -> None:
    assert sum(one.bytes for one in allgather(size, ranks)) == size * (ranks - 1)
    assert sum(one.bytes for one in alltoall(size, ranks)) >= size * (ranks - 1)


def test_a_gradient_is_added_up_part_by_part() -> None:
    # 4 ranks: three messages of 100,000 bytes; then one of as much, and one of twice as much. Two calls; the sums of 4
    # parts, and 2 copies of the gradient.
    sending, adding = exchange_seconds(GRADIENT, 4, WIRE, HOST)
    assert sending == pytest.approx(2 * 1e-6 + 5 * 1e-5 + 6 * 1e-4)
    assert adding == pytest.approx(1e-10 * 3 * 400_000)


def test_a_small_array_is_sent_as_a_whole() -> None:
    # 4 ranks, 1,000 bytes: two rounds, 1,000 and 2,000 bytes.
    sending, adding = exchange_seconds(Exchange("add_up", 1000), 4, WIRE, HOST)
    assert sending == pytest.approx(1e-6 + 2e-5 + 3e-6)
    assert adding == pytest.approx(1e-10 * 4000)
    assert exchange_seconds(Exchange("stack", 1000), 4, WIRE, HOST) == (pytest.approx(sending), 0)
    whole, parts = (
        exchange_seconds(Exchange("add_up", size), 64, WIRE, HOST) for size in (SPLIT_BYTES - 4, SPLIT_BYTES)
    )
    assert whole[0] > 10 * parts[0]


def test_a_step_is_arithmetic_and_exchanges() -> None:
    assert step(HOST, WIRE, 60, 1).seconds == pytest.approx(1e-3 + 60 * 2e-3)
    found = step(HOST, WIRE, 61, 4)
    assert found.compute == pytest.approx(2e-3 + 16 * 2e-3)  # the largest share
    assert found.sending == pytest.approx(2e-6 + 5e-5 + 6e-4 + 1e-6 + 2e-5 + 36e-9)
    assert found.exchange_share == pytest.approx(1 - found.compute / found.seconds)


def test_ranks_of_one_machine_take_turns_on_its_processors() -> None:
    here, free = replace(WIRE, one_machine=True), step(HOST, WIRE, 60, 8)
    assert step(HOST, here, 60, 2) == step(HOST, WIRE, 60, 2)
    found = step(HOST, here, 60, 8)
    assert (found.compute, found.adding) == (pytest.approx(4 * free.compute), pytest.approx(4 * free.adding))
    # In each of three waits seven of eight ranks are busy for half of 2 ms, four times as long on two processors.
    assert found.sending == pytest.approx(4 * free.sending + 3 * 0.001 * 7 / 8 * 4)
    # With four other programs, six had the processors where two ranks were measured, and twelve have now.
    busy = step(replace(HOST, others=4), here, 60, 8)
    assert (busy.compute, busy.adding) == (pytest.approx(6 * free.compute), pytest.approx(6 * free.adding))
    assert busy.sending == pytest.approx(2 * free.sending + 3 * 0.001 * 7 / 8 * 6)
    assert step(replace(HOST, others=4), here, 60, 1).seconds == pytest.approx(2.5 * step(HOST, WIRE, 60, 1).seconds)
    assert step(replace(HOST, others=4), WIRE, 60, 8) == free


def test_other_programs_are_seen_by_how_long_a_step_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.measuring.available_threads", lambda: 2)
    assert _others({1: 9.0, 64: 6.0}, {1: 1.0, 64: 2.0}) == 5  # a third of two processors: that of six programs
    assert _others({64: 2.1}, {64: 2.0}) == 0


def test_a_wait_that_sleeps_sees_a_round_some_sleeps_late() -> None:
    asleep = replace(WIRE, sleeps=True)
    short, long, longest = ([Round(1, seconds * 1e9 - 1e4)] for seconds in (0.001, 0.005, 1.0))
    assert waited(long * 2, WIRE, 1e-4) == pytest.approx(0.01)
    assert waited(short, asleep, 1e-4) == pytest.approx(0.001 + 2.5 * 1e-4)
    assert waited(long, asleep, 1e-4) == pytest.approx(0.005 + 2.5 * 0.0005)
    assert waited(longest, asleep, 1e-4) == pytest.approx(1 + 2.5 * _LONGEST_SLEEP)
    assert waited(long * 2, asleep, 1e-4) == pytest.approx(0.00625 + 0.005 + 2.5 * _LONGEST_SLEEP)
    assert waited([Round(1, 100)] * 3, asleep, 1e-4) == pytest.approx(3 * (1e-5 + 1e-7 + 1.5 * 1e-4))
    small = replace(asleep, latency=0.005)
    assert waited([Round(1, 16_000)], small, 1e-4) == pytest.approx(0.005 + 16e-6 + 1.5 * 0.0005, rel=1e-3)
    assert waited([Round(2, 32_000)], small, 1e-4) == pytest.approx(0.01 + 32e-6 + 1.5 * 0.001, rel=1e-3)


@given(
    latency=st.floats(1e-7, 1e-3),
    bandwidth=st.floats(1e8, 1e11),
    ranks=st.integers(2, 200),
    size=st.integers(4, 1 << 22),
    sleeps=st.booleans(),
)
def test_a_worse_network_makes_no_step_shorter(
    latency: float, bandwidth: float, ranks: int, size: int, sleeps: bool
) -> None:
    host = replace(HOST, exchanges=(Exchange("add_up", size),))
    link = Link("", latency, bandwidth, sleeps=sleeps)
    seconds = step(host, link, 256, ranks).seconds
    assert step(host, replace(link, latency=2 * latency), 256, ranks).seconds >= seconds
    assert step(host, replace(link, bandwidth=bandwidth / 2), 256, ranks).seconds >= seconds
    assert step(host, replace(link, sleeps=True), 256, ranks).seconds >= seconds
    assert step(host, link, 512, ranks).seconds > seconds
    assert step(host, link, 256, ranks).compute <= step(host, link, 256, ranks - 1).compute + 1e-3  # shared is slower


def test_curves_begin_with_one_rank_and_end_with_the_most_that_the_batch_allows() -> None:
    strong = curve(HOST, WIRE, 60, 1024, per_rank=False)
    assert [point.ranks for point in strong] == [1, 2, 4, 8, 16, 32, 60]
    assert (strong[0].speed_up, strong[0].efficiency, strong[0].batch) == (1, 1, 60)
    assert strong[1].speed_up == pytest.approx(step(HOST, WIRE, 60, 1).seconds / step(HOST, WIRE, 60, 2).seconds)
    weak = curve(HOST, WIRE, 60, 6, per_rank=True)
    assert [(point.ranks, point.batch) for point in weak] == [(1, 60), (2, 120), (4, 240), (6, 360)]
    assert weak[3].speed_up == pytest.approx(6 * weak[0].step.seconds / weak[3].step.seconds)
    assert all(point.efficiency < 1 for point in weak[1:])


def test_it_stops_paying_where_the_exchange_takes_half() -> None:
    shares = {1: 0.0, 2: 0.49, 4: 0.51, 8: 0.9}
    points = [Point(ranks, 8, Step(1 - share, share / 2, share / 2), 1.0) for ranks, share in shares.items()]
    assert last_that_pays(points) is points[1]
    assert last_that_pays(points[:2]) is None


def test_the_line_through_measured_times() -> None:
    assert fit({1: 0.003, 4: 0.009, 16: 0.033}) == Line(pytest.approx(0.001), pytest.approx(0.002))
    assert fit({4: 0.008}) == Line(0, pytest.approx(0.002))
    assert fit({1: 0.001, 10: 0.02}).fixed == 0  # the line through both would begin below 0
    assert fit({1: 0.02, 10: 0.01}).per_photo == 0
    # Relative errors count: the best constant for 1 and 2 is 6/5, where absolute ones would give 3/2.
    assert fit({1: 2.0, 2: 1.0}) == Line(pytest.approx(1.2), 0)


@pytest.mark.parametrize("bandwidth", [1e8, 1e10])
def test_the_bandwidth_is_the_one_that_explains_what_was_measured(bandwidth: float) -> None:
    seconds = sum(exchange_seconds(Exchange("add_up", 4 << 20), 2, Link("", 1e-5, bandwidth), HOST))
    assert _bandwidth(4 << 20, seconds, 1e-5, HOST.call, HOST.look, HOST.per_added_byte) == pytest.approx(
        bandwidth, rel=1e-3
    )


@pytest.mark.slow
def test_what_a_step_tells_is_counted() -> None:
    """default: five batch norms, of which the first to go forward goes backward last; all tell forward and backward."""
    from benchmarks.work import Case, work_of
    from cluster.worker import SharedFacecnn

    ranks = Unanswered()
    run = SharedFacecnn(ranks).training(work_of(Case("default", 1, 16, 2, "train")), 1e-5)
    run()
    widths = [16, 32, 64, 512, 96]
    sums = [3 * 8 * width for width in widths]
    assert [one["bytes"] for one in ranks.told[1:-2]] == [*sums, *reversed(sums)]
    assert [one["kind"] for one in ranks.told] == ["add_up", *["stack"] * 10, "add_up", "stack"]
    assert (ranks.told[0]["bytes"], ranks.told[-1]["bytes"]) == (4, 12)


def test_a_plan_from_earlier_measurements(tmp_path: Path) -> None:
    done = run_script("scaling", "--measured", written(tmp_path), "--output", tmp_path / "plan.png", "--ranks", "64")
    assert done.exit_code == 0, done.stderr
    checked, strong, weak = done.tables
    # 1 ms + 2 ms a photo alone, 2 ms + 2 ms shared: 33 ms, and 18 ms, two calls and messages of 200 kB, and sums.
    assert [row["error"] for row in checked] == ["+10 %", "-26 %"]
    assert [row["model ms"] for row in checked] == ["33", "18.54"]
    assert [row["ranks"] for row in strong] == [row["ranks"] for row in weak] == ["1", "2", "4", "8", "16", "32", "64"]
    for name in ("ethernet-10", "ethernet-100", "infiniband"):
        assert strong[0][name].endswith("(1, 0%)")
        assert f"\n{name}: " in done.stdout
    assert_picture(tmp_path / "plan.png")


def test_a_network_of_your_own(tmp_path: Path) -> None:
    own = ("--bandwidth", "8", "--latency", "10", "--ranks", "2", "--batch", "16", "--json")
    done = run_script("scaling", "--measured", written(tmp_path), *own)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["strong"]) == ["own"]
    # As "here", but for the copies, which are no slower: 10 us and 1 GB/s.
    assert found["strong"]["own"][1]["ms"] == pytest.approx(found["check"][1]["predicted_ms"])
    four = run_script("scaling", "--measured", tmp_path / "measured.json", *own, "--ranks-per-machine", "4")
    quarter = json.loads(four.stdout)["strong"]["own"][1]
    assert quarter["sending_ms"] - found["strong"]["own"][1]["sending_ms"] == pytest.approx(3 * 0.4)


def test_waits_that_never_sleep(tmp_path: Path) -> None:
    slow = ("--bandwidth", "0.01", "--latency", "10", "--ranks", "2", "--json")
    plans = [run_script("scaling", "--measured", written(tmp_path), *slow, *more) for more in ((), ("--no-sleep",))]
    asleep, awake = (json.loads(plan.stdout)["weak"]["own"][1]["sending_ms"] for plan in plans)
    assert asleep == pytest.approx(awake + 2 * 2.5 * 1)  # two waits of 160 ms, longer by 2.5 of the longest sleeps
    assert awake == pytest.approx(2 * 160, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bandwidth", "10"), "--bandwidth: a network has both: add --latency"),
        (("--latency", "10"), "--latency: a network has both: add --bandwidth"),
        (("-c", "pretrained"), "--config pretrained: its optimizer makes no steps that ranks share"),
        (("-c", "seed", "--check", "17"), "--check 17: a batch of seed has 16 photos"),
        (("-c", "nosuch"), "nosuch"),
        (("--measured", "nosuch.json"), "--measured nosuch.json: can't be read"),
        (("--ranks", "1"), "1 is less than 2"),
        (("--bandwidth", "-1", "--latency", "1"), "-1 isn't above 0"),
        (("--network", "string"), "invalid choice: 'string'"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[str, ...], message: str) -> None:
    done = run_script("scaling", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    "changes", [{"call": 0}, {"alone": {}}, {"steps": {"2": "long"}}, {"exchanges": []}, {"more": 1}]
)
def test_what_is_no_measurement_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(UsageError, match=r"measured\.json: is no measurement of this script"):
        read(path.read_text(encoding="utf-8"), str(path))


def test_without_an_mpiexec_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run_script("scaling", "-c", "seed", "--size", "16", "--quick")
    assert done.exit_code == 2
    assert "isn't installed" in done.stderr
    assert "pip install 'facecnn[mpi]'" in done.stderr


@pytest.mark.slow
def test_it_measures_ranks_of_its_own_and_plans_with_them() -> None:
    pytest.importorskip("mpi4py")
    if not Path(sys.executable).with_name("mpiexec").exists():
        pytest.skip("needs the extra mpi")
    quick = ("-c", "seed", "--size", "16", "--quick", "--check", "1", "--check", "2", "--ranks", "8", "--json")
    done = run_script("scaling", *quick)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    measured = found["measured"]
    # 8 kernels of 5x5x3 and 8 neurons of 6x6, their biases, 16 and 2 units: each array begins at a multiple of 16.
    assert [one["bytes"] for one in measured["exchanges"]] == [
        4,
        4 * (600 + 8 + 16 * 18 + 8 + 128 + 16 + 32 + 2 + 38),
        12,
    ]
    assert [one["kind"] for one in measured["exchanges"]] == ["add_up", "add_up", "stack"]
    assert list(measured["alone"]) == list(measured["shared"]) == ["1", "8"]
    assert [row["ranks"] for row in found["check"]] == [1, 2]
    assert list(measured["steps"]) == ["1", "2"]
    assert measured["others"] >= 0
    assert [point["ranks"] for point in found["weak"]["infiniband"]] == [1, 2, 4, 8]
