"""``facecnn gradcheck``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from facecnn.cli import common
from facecnn.cli.options import DeviceOption, FormatOption, SeededSettingsOptions
from facecnn.errors import DeviceError, FacecnnError, shown
from facecnn.jobs.stderr import StderrConsole, paragraph


@common.command
def gradcheck(
    console: StderrConsole,
    settings: SeededSettingsOptions,
    device: DeviceOption = "auto",
    format: FormatOption = "text",
) -> None:
    """Check every gradient of a config's network, made small, against finite differences, and the device's kernels
    against the reference. Exit code 1 if a gradient's formula is wrong, 5 if the device alone is."""
    from facecnn.jobs.gradcheck import gradcheck as job
    from facecnn.jobs.gradcheck import right_formulas

    result = job(settings.read(), device, console)
    common.print_result(result, format, lambda result: _describe(result, Path(settings.config).stem))
    if not right_formulas(result):
        wrong = [_name(row) for row in result["layers"] if not row["passed"]]
        raise FacecnnError(f"wrong gradients: {', '.join(wrong) or 'of the whole network, though of no layer alone'}")
    if not result["passed"]:
        wrong = [_name(row) for row in result["on_device"]["layers"] if not row["passed"]]
        raise DeviceError(f"{result['device']} gives other gradients than the reference: {', '.join(wrong)}")


def _describe(result: dict[str, Any], config: str) -> str:
    small = result["shrunk_to"]
    picture = f"{small['height']}x{small['width']}, {small['channels']} map{'s' if small['channels'] > 1 else ''}"
    weights = sum(layer["parameters"] for layer in small["layers"])
    lines = [
        paragraph(
            f"The network of {shown(config)}, its layers as they are but with few kernels and units, so that every "
            f"number can be checked: {weights} weights, {small['photos']} photos of {picture}."
        ),
        "",
        "1. Each layer alone",
        "",
        *_rows(result["layers"]),
        "",
        "2. The network as it grows, layer by layer: every weight so far",
        "",
        f"{'up to':42} {'weights':>10} {'worst error':>13}",
        *(f"{part['name']:42} {part['elements']:10,} {_error(part)}" for part in result["parts"]),
        "",
        *_method(result),
    ]
    there = result["on_device"]
    if there is not None:
        lines += [
            "",
            f"3. {result['device']} against the reference, with all kernels and units",
            "",
            *_rows(there["layers"]),
            "",
            paragraph(
                f"{there['description']}: computed in float32, which keeps seven digits; {there['tolerance']:.0e} is "
                "allowed."
            ),
        ]
    return "\n".join([*lines, "", *_verdict(result)])


def _rows(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'layer':20} {'derivatives by':21} {'elements':>10} {'worst error':>13}"
    before = None
    for row in rows:
        name = "" if row["name"] == before else row["name"]
        before = row["name"]
        yield f"{name:20} {row['parameter']:21} {row['elements']:10,} {_error(row)}"


def _error(row: dict[str, Any]) -> str:
    error = row["max_relative_error"]
    return f"{'no number' if error is None else f'{error:.1e}':>13}  {'ok' if row['passed'] else 'WRONG'}"


def _method(result: dict[str, Any]) -> list[str]:
    step, distance = result["step"], result["kink_distance"]
    kinks = "There are no kinks in it."
    if distance is not None:
        kinks = (
            "There is no derivative where a pool's winner changes or a relu's input changes sign: the random "
            f"numbers were chosen so that the nearest such kink is {distance:.1e} away, {distance / step:.0f} steps."
        )
    return [
        paragraph(
            "What backward computes was compared with finite differences: each number w was moved a little both ways, "
            "and the loss L gave the derivative, as"
        ),
        "",
        "    dL/dw = (L(w - 2h) - 8 L(w - h) + 8 L(w + h) - L(w + 2h)) / 12h",
        "",
        paragraph(
            f"with a step h of {step:.0e}, in float64. L is the sum of the outputs, each times a random number, since "
            "a plain sum would hide swapped indices; in the last part it is the loss itself. `input` is what a layer "
            "passes down to the one below. An error is the largest difference, as a fraction of the array's largest "
            f"number; {result['tolerance']:.0e} is allowed. {kinks}"
        ),
    ]


def _verdict(result: dict[str, Any]) -> Iterator[str]:
    if result["passed"]:
        where = "" if result["on_device"] is None else f", and {result['device']} computes them"
        yield f"All gradients are right{where}."
        return
    there = result["on_device"] or {"layers": []}
    for rows, against in ((result["layers"], "differences"), (there["layers"], "the reference")):
        for row in rows:
            if row["passed"]:
                continue
            fault = row["fault"]
            found, expected = ("no number" if fault[k] is None else f"{fault[k]:.6g}" for k in ("backward", "expected"))
            place = ", ".join(map(str, fault["place"]))
            like = f" The whole array is {fault['likeness']}." if fault["likeness"] else ""
            yield paragraph(f"WRONG: {_name(row)}[{place}] is {found}; {against} gave {expected}.{like}", below="  ")
    first = next((part["name"] for part in result["parts"] if not part["passed"]), None)
    if first is not None:
        yield paragraph(f"In the growing network the mistake comes in with: {first.removeprefix('+ ')}.", below="  ")


def _name(row: dict[str, Any]) -> str:
    return f"{row['name']}.{row['parameter']}"
