"""``facecnn doctor``."""

from typing import Annotated, Any

import typer

from facecnn.cli import common
from facecnn.cli.options import DeviceOption, FormatOption
from facecnn.errors import DeviceError, shown
from facecnn.jobs.stderr import StderrConsole, paragraph

_NO_BREAK = "\N{NO-BREAK SPACE}"

_CPU_KERNELS = {
    "avx512": "micro-kernels for AVX-512 (vectors of 16 numbers)",
    "avx2": "micro-kernels for AVX2 (vectors of 8 numbers)",
    "loops": "plain loops, as there are no micro-kernels for this processor",
    None: "can't be loaded",
}


@common.command
def doctor(
    console: StderrConsole,
    device: DeviceOption = "auto",
    warm: Annotated[
        bool,
        typer.Option(
            "--warm",
            help="Also compile the kernels now, so training needn't wait for them; with --verbose, in this process "
            "alone, to show how long each took.",
        ),
    ] = False,
    configs: Annotated[
        list[str] | None,
        typer.Option(
            "--config", "-c", help="The config that --warm compiles for; by default all shipped ones. Repeatable."
        ),
    ] = None,
    format: FormatOption = "text",
) -> None:
    """Check the installation, say what is missing, and test every kernel.

    Exit code 5 if the device can't be used or gives wrong results, or if the cache can't be written to.
    """
    from facecnn.config import shipped
    from facecnn.jobs.doctor import examine
    from facecnn.jobs.warm import plan_ahead

    common.require(warm or not configs, "--config says what --warm compiles for: give both")
    common.require(not (warm and device == "reference"), "--warm: the reference isn't compiled; take another --device")
    planned = [plan_ahead(config) for config in configs or shipped()] if warm else None
    result = examine(device, console, planned, measure=console.verbose)
    common.print_result(result, format, _describe)
    if result["device"] is None:
        raise DeviceError(result["device_reason"])
    failed = [test["kernel"] for test in result["self_test"] if not test["passed"]]
    if failed:
        raise DeviceError(f"{len(failed)} of {len(result['self_test'])} kernels fail on {result['device']}")
    if not result["cache"]["writable"]:
        raise DeviceError(f"{shown(result['cache']['folder'])}: nothing can be kept there")


def _describe(result: dict[str, Any]) -> str:
    cpu, cuda = result["cpu"], result["cuda"]
    packages = result["packages"]
    installed = [f"{name}{_NO_BREAK}{version}" for name, version in packages.items() if version is not None]
    missing = [name for name, version in packages.items() if version is None]
    rows = [
        ("facecnn", result["facecnn"]),
        ("Python", result["python"]),
        ("processor", f"{cpu['name']}, {cpu['threads']} threads, vectors: {cpu['simd']}"),
        ("CPU kernels", _CPU_KERNELS[cpu["kernels"]]),
        ("NVIDIA driver", f"for CUDA {cuda['driver']}" if cuda["driver"] else "not found"),
        ("CUDA toolkit", cuda["toolkit"] or "not found"),
        *((f"card cuda:{card['number']}", _card(card)) for card in cuda["devices"]),
        ("sample photos", "installed" if result["sample"] else "not installed"),
        ("face finding", "installed" if result["faces"] else "not installed"),
        ("pretrained", "installed" if result["body"]["available"] else "not installed"),
        ("cache", shown(result["cache"]["folder"])),
        ("packages", ", ".join(installed)),
        ("not installed", ", ".join(missing) or "-"),
    ]
    lines = [_row(name, value) for name, value in rows]
    if result["device"] is not None:
        device = f"{result['device']} ({result['device_description']}): {result['device_reason']}"
        lines += ["", _row("device", device), _row("self-test", _self_test(result["self_test"]))]
    for title, paragraphs in (
        ("Problems", [f"{problem['what']} {problem['mend']}" for problem in result["problems"]]),
        ("Details", (cuda["details"] or "").splitlines()),
        ("Notes", result["notes"]),
    ):
        if paragraphs:
            lines += ["", f"{title}:", *(_hanging(text, "- ") for text in paragraphs)]
    if not result["problems"]:
        lines += ["", "No problems."]
    if result["warm"] is not None:
        lines += ["", paragraph(_compiled(result["warm"])), *_costs(result["warm"]["costs"] or [])]
    return "\n".join(lines)


def _compiled(warm: dict[str, Any]) -> str:
    what = [shown(name) for name in warm["configs"]] + ["the face finder"] * warm["faces"]
    count = warm["functions"]
    new = f"{count} functions were new" if count > 1 else "1 function was new" if count else "nothing was new"
    return f"Compiled for {', '.join(what)}: {new}. All are kept in {shown(warm['folder'])}"


def _costs(costs: list[dict[str, Any]]) -> list[str]:
    """A table of what compiling took, the slowest kernel first."""
    if not costs:
        return []
    rows = [(cost["seconds"], cost["times"], cost["kernel"]) for cost in costs]
    rows.append((sum(cost["seconds"] for cost in costs), sum(cost["times"] for cost in costs), "in all"))
    lines = [f"{seconds:8.2f}{times:7}  {kernel}" for seconds, times, kernel in rows]
    return ["", f"{'seconds':>8}{'times':>7}  kernel, with the helpers compiled into it", *lines]


def _row(name: str, value: str) -> str:
    return _hanging(value, f"{name:15}")


def _hanging(text: str, start: str) -> str:
    """A paragraph with a hanging indent."""
    return paragraph(text, first=start, below=" " * len(start)).replace(_NO_BREAK, " ")


def _card(card: dict[str, Any]) -> str:
    memory = "" if card["memory"] is None else f", {card['free'] / 2**30:.1f} of {card['memory'] / 2**30:.1f} GiB free"
    return f"{card['name']}, compute capability {card['compute_capability']}{memory}"


def _self_test(tests: list[dict[str, Any]]) -> str:
    failed = [test["kernel"] for test in tests if not test["passed"]]
    if failed:
        return f"{len(failed)} of {len(tests)} kernels failed: {', '.join(failed)}"
    closest = max(tests, key=lambda test: test["worst"] / test["tolerance"] if test["tolerance"] else 0.0)
    return (
        f"all {len(tests)} kernels agree with the reference; the closest call was {closest['kernel']}, with a "
        f"difference of {closest['worst']:.1e} where {closest['tolerance']:.0e} is allowed"
    )
