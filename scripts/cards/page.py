"""Formats the findings of first_card.py: a sentence for each part, and a section for docs/RESULTS.md.

A record is the file that first_card.py writes for a part: machine, commit and so on, and the findings in ``found``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Record = Mapping[str, Any]
Found = Mapping[str, Any]

FACECNN, PLAIN = "facecnn", "facecnn, plain launches"
COMMAND = "python scripts/first_card.py OUT"

TITLES = {
    "doctor": "Every kernel against the reference",
    "cases": "The tests of the kernels",
    "repeats": "The same training twice",
    "accuracy": "The same training on card and processor",
    "steps": "A step against PyTorch's",
    "kernels": "Kernels, measured and estimated",
    "memory_checks": "Under compute-sanitizer",
    "streaming": "Photos that are sent",
}


def verdict(record: Record) -> str:
    """Sum up a part's findings in a sentence, without a full stop."""
    return _judged(record)[0]


def all_is_well(record: Record) -> bool:
    """Whether the part finished, and found nothing wrong."""
    return record["unfinished"] is None and _judged(record)[1]


def _judged(record: Record) -> tuple[str, bool]:
    if not record["found"]:
        return "nothing was found", False
    judge = _JUDGES["steps" if record["part"].startswith("steps_") else record["part"]]
    return judge(record["found"])


def _doctor(found: Found) -> tuple[str, bool]:
    tests = found["report"]["self_test"]
    failed = [test["kernel"] for test in tests if not test["passed"]]
    if failed:
        return f"{len(failed)} of {len(tests)} kernels fail: {', '.join(failed)}", False
    return f"all {len(tests)} kernels give what the reference gives", True


def _cases(found: Found) -> tuple[str, bool]:
    failed = sum(len(of_folder["failed"]) for of_folder in found.values())
    passed = sum(of_folder["passed"] for of_folder in found.values())
    return f"{passed} passed, {failed} failed", failed == 0 and passed > 0


def _repeats(found: Found) -> tuple[str, bool]:
    said = [
        f"{config}: {len(of['differing'])} of {of['arrays']} arrays differ"
        if of["differing"]
        else f"{config}: equal to the bit"
        for config, of in found.items()
    ]
    return "; ".join(said), not any(of["differing"] for of in found.values())


def _accuracy(found: Found) -> tuple[str, bool]:
    said = [
        f"{config}: {_percent(of['cuda']['accuracy'])} right on the card, {_percent(of['cpu']['accuracy'])} on the "
        f"processor, of {of['held_out']} held out"
        for config, of in found.items()
    ]
    return "; ".join(said), True


def _steps(found: Found) -> tuple[str, bool]:
    said = []
    for case, compared in _compared(found).items():
        if compared["ours"] is None:
            said.append(f"{case}: no time")
        elif compared["best"] is None:
            said.append(f"{case}: {compared['ours']:.3f} ms, and no PyTorch to compare with")
        else:
            said.append(f"{case}: {compared['ours']:.3f} ms, PyTorch's best {compared['best']:.3f} ms")
    failures = [of["failure"] for of in found.values() if of["failure"] is not None]
    return "; ".join(said + failures), not failures


def _kernels(found: Found) -> tuple[str, bool]:
    said = [f"{config}: {sum(of['microseconds'].values()):,.0f} µs a step" for config, of in found.items()]
    return "; ".join(said), True


def _memory_checks(found: Found) -> tuple[str, bool]:
    if None in found.values():
        return "compute-sanitizer isn't installed", True
    said = [f"{tool}: {of['errors']} error{'s' * (of['errors'] != 1)}" for tool, of in found.items()]
    return "; ".join(said), not any(of["errors"] for of in found.values())


def _streaming(found: Found) -> tuple[str, bool]:
    said = [
        f"{config}: {of['streamed']:,.0f} photos/s sent, {of['resident']:,.0f} from the card's memory"
        for config, of in found.items()
    ]
    return "; ".join(said), True


_JUDGES: Mapping[str, Callable[[Found], tuple[str, bool]]] = {
    "doctor": _doctor,
    "cases": _cases,
    "repeats": _repeats,
    "accuracy": _accuracy,
    "steps": _steps,
    "kernels": _kernels,
    "memory_checks": _memory_checks,
    "streaming": _streaming,
    "estimates": _kernels,
}


def _compared(found: Found) -> dict[str, dict[str, Any]]:
    """For each case of the benchmark, facecnn's time and PyTorch's best one, from the call with PyTorch's best ratio;
    and the best time with fewer bits than float32."""
    cases: dict[str, dict[str, Any]] = {}
    for call in found.values():
        for case, rows in _by_case(call["rows"]).items():
            known = cases.setdefault(
                case, dict.fromkeys(("ours", "plain", "best", "which", "fewer_bits", "fewer_which"))
            )
            times = {row["implementation"]: row["median_ms"] for row in rows if row["median_ms"] is not None}
            ours = times.get(FACECNN)
            if known["ours"] is None:
                known["ours"], known["plain"] = ours, times.get(PLAIN)
            for row in rows:
                name, time = row["implementation"], row["median_ms"]
                if time is None or name.startswith(FACECNN):
                    continue
                if not row["float32"]:
                    if known["fewer_bits"] is None or time < known["fewer_bits"]:
                        known.update(fewer_bits=time, fewer_which=name)
                elif ours and (known["best"] is None or time / ours < known["best"] / known["ours"]):
                    known.update(ours=ours, plain=times.get(PLAIN), best=time, which=name)
    return cases


def _by_case(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    cases: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        case = f"{row['network']} {row['size']}x{row['size']}, batch {row['batch']}, {row['work']}"
        cases.setdefault(case, []).append(row)
    return cases


# ------------------------------------------------------------------------------------------------------------ the page


def page(records: Mapping[str, Record | None]) -> str:
    """Format the section. ``records`` are by part, in the plan's order; None for parts that weren't run."""
    lines = ["## On an NVIDIA card", ""]
    there = {name: record for name, record in records.items() if record is not None and record["found"]}
    lines += [f"`{COMMAND}`. {line}" for line in dict.fromkeys(_about(record) for record in there.values())]
    for name, title in TITLES.items():
        own = {one: record for one, record in there.items() if one == name or (name == "steps" and one[:6] == "steps_")}
        if own:
            cards = dict.fromkeys(_card(record) for record in own.values())
            lines += ["", f"### {title}", ""]
            if name in _SECTIONS:
                lines += [f"{'; '.join(cards)}:", "", *_SECTIONS[name](own, records)]
            else:
                lines += [f"{'; '.join(cards)}: {verdict(own[name])}."]
    left = [(name, record) for name, record in records.items() if record is None or record["unfinished"] is not None]
    if left:
        lines += ["", "### Not run, or not to the end", ""]
        lines += [f"- {name}: {'not run' if record is None else record['unfinished']}" for name, record in left]
    return "\n".join(lines) + "\n"


def _about(record: Record) -> str:
    machine = record["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version is not None)
    extremes = [f"clock up to {machine['largest_clock']}" if machine["largest_clock"] else None]
    extremes += [f"power up to {machine['power_limit']}" if machine["power_limit"] else None]
    facts = [
        machine["card"] or "no card",
        f"driver {machine['driver'] or 'unknown'} for CUDA {machine['cuda_of_driver'] or 'unknown'}",
        *filter(None, extremes),
        f"{machine['processor']}, {machine['threads']} threads",
        f"Python {machine['python']}",
        packages,
        f"commit {record['commit']}",
    ]
    tried = " TRIED WITH THE SMALLEST SETTINGS: no figures to keep." if record["small"] else ""
    return "; ".join(facts) + "." + tried


def _card(record: Record) -> str:
    return f"{record['machine']['card'] or 'No card'}, {record['time']}"


def _failed_cases(own: Mapping[str, Record], records: Mapping[str, Record | None]) -> list[str]:
    found = own["cases"]["found"]
    rows = [(folder, of["passed"], of["skipped"], len(of["failed"])) for folder, of in found.items()]
    failed = [f"- {name}: {why}" for of in found.values() for name, why in of["failed"].items()]
    return [*_table(("tests", "passed", "skipped", "failed"), rows), *([""] if failed else []), *failed]


def _accuracy_tables(own: Mapping[str, Record], records: Mapping[str, Record | None]) -> list[str]:
    found = own["accuracy"]["found"]
    rows, losses = [], []
    for config, of in found.items():
        for name in ("cuda", "cpu"):
            one = of[name]
            right = f"{_percent(one['accuracy'])} of {of['held_out']}"
            rows.append((config, one["device"], one["steps"], right, f"{one['seconds']:.1f}"))
        epochs = min(len(of["cuda"]["train_loss"]), len(of["cpu"]["train_loss"]))
        for epoch in sorted({1, *(max(1, epochs * quarter // 4) for quarter in (1, 2, 3, 4))}):
            both = [(of[name]["train_loss"], of[name]["validation_loss"]) for name in ("cuda", "cpu")]
            figures = [_number(series[epoch - 1], 4) for pair in zip(*both, strict=True) for series in pair]
            losses.append((config, epoch, *figures))
    kinds = ("trained on: card", "processor", "held out: card", "processor")
    return [
        *_table(("config", "device", "steps", "held out, right", "seconds"), rows),
        "",
        "Loss after each epoch:",
        "",
        *_table(("config", "epoch", *kinds), losses),
    ]


def _steps_table(own: Mapping[str, Record], records: Mapping[str, Record | None]) -> list[str]:
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    versions: list[str] = []
    for record in own.values():
        for case, of in _compared(record["found"]).items():
            ratio = None if of["best"] is None or not of["ours"] else of["best"] / of["ours"]
            best = "-" if of["best"] is None else f"{of['best']:.3f} ({of['which']})"
            fewer = "-" if of["fewer_bits"] is None else f"{of['fewer_bits']:.3f} ({of['fewer_which']})"
            rows.append((case, _number(of["ours"]), _number(of["plain"]), best, _number(ratio, 2), fewer))
        for call in record["found"].values():
            versions += [call["pytorch"]] if call["pytorch"] is not None else []
            notes += [call["failure"]] if call["failure"] is not None else []
            notes += [
                f"{r['network']}, {r['work']}, {r['implementation']}: {r['note']}" for r in call["rows"] if r["note"]
            ]
    known = " and ".join(dict.fromkeys(versions))
    about = f"PyTorch {known}, TF32 off in what is compared" if known else "PyTorch isn't installed: facecnn alone"
    head = ("case", "facecnn ms", "not recorded ms", "PyTorch's best in float32, ms", "x", "with fewer bits, ms")
    noted = [f"- {note}" for note in dict.fromkeys(notes)]
    return [f"{about}. x: PyTorch's best over facecnn.", "", *_table(head, rows), *([""] if noted else []), *noted]


def _kernel_tables(own: Mapping[str, Record], records: Mapping[str, Record | None]) -> list[str]:
    """A row for each launch that was planned; without estimates, for everything that was timed."""
    estimates = (records.get("estimates") or {"found": {}})["found"]
    lines: list[str] = []
    for config, of in own["kernels"]["found"].items():
        measured = of["microseconds"]
        estimate = estimates.get(config, {}).get("microseconds", {})
        places = [place for place in estimate or measured if place in measured]
        rows = [_kernel_row(place, measured[place], estimate.get(place)) for place in places]
        expected = sum(estimate[place] for place in places) if estimate else None
        rows.append(_kernel_row("in all", sum(measured[place] for place in places), expected))
        head = ("layer and kernel", "measured µs", "estimated µs", "measured / estimated")
        lines += [*([""] if lines else []), f"{config}, batch {of['batch']}, mean of {of['steps']} steps:", ""]
        lines += _table(head, rows)
    return [*lines, "", "Estimated for an H100 SXM (scripts/machine/kernel_time.py)."]


def _kernel_row(place: str, measured: float, estimate: float | None) -> tuple[str, ...]:
    if estimate is None:
        return place, f"{measured:.1f}", "-", "-"
    return place, f"{measured:.1f}", f"{estimate:.1f}", f"{measured / estimate:.2f}"


def _streaming_table(own: Mapping[str, Record], records: Mapping[str, Record | None]) -> list[str]:
    rows = [
        (
            config,
            of["batch"],
            f"{of['resident']:,.0f}",
            f"{of['streamed']:,.0f}",
            _percent(of["streamed"] / of["resident"]),
        )
        for config, of in own["streaming"]["found"].items()
    ]
    return _table(("config", "batch", "photos/s from the card's memory", "sent batch by batch", "share"), rows)


_SECTIONS: Mapping[str, Callable[[Mapping[str, Record], Mapping[str, Record | None]], list[str]]] = {
    "cases": _failed_cases,
    "accuracy": _accuracy_tables,
    "steps": _steps_table,
    "kernels": _kernel_tables,
    "streaming": _streaming_table,
}


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
