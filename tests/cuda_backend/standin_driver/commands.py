"""A process that runs facecnn's commands against the stand-in driver, each in a child of its own.

Importing all that a command needs takes seconds, and a test of every allocation needs many commands: so this process
imports it once, without touching the driver, and forks. It reads a JSON document a line, ``{"arguments": [...],
"environment": {...}, "output": FILE, "errors": FILE}``, and writes the command's exit code for each.

Two things are replaced. ``prove`` runs a kernel and refuses a card on which it doesn't compute what it should. Here
kernels compute nothing, so its verdict is left out: that kernels are right is what a card is needed for. And the
pictures of a training are blank, as in most tests that run on the CPU: figures made of nothing can't be drawn.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from facecnn.kernels.cuda import devices

PICTURES = (
    "train.draw_curves",
    "train.draw_watching",
    "judgement.draw_confusion",
    "kernel_pictures.draw_kernels",
    "kernel_pictures.draw_patches",
)
COMMANDS = ("train", "predict", "evaluate", "cross_validate", "doctor", "lr_find")


def _draw_nothing(path: Path, *_: object) -> None:
    Image.new("L", (1, 1)).save(path)


def _replace() -> None:
    prove = devices.prove

    def prove_all_but_the_result() -> None:
        with suppress(RuntimeError):
            prove()

    devices.prove = prove_all_but_the_result
    for name in PICTURES:
        module, function = name.split(".")
        setattr(importlib.import_module(f"facecnn.jobs.{module}"), function, _draw_nothing)
    for name in COMMANDS:
        importlib.import_module(f"facecnn.cli.{name}")
        importlib.import_module(f"facecnn.jobs.{name}")


def _run(asked: dict[str, Any]) -> int:
    """In the child."""
    os.environ.update(asked["environment"])
    for number, path in ((1, asked["output"]), (2, asked["errors"])):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
    sys.argv = ["facecnn", *asked["arguments"]]
    try:
        if asked["arguments"][0] == "-c":
            exec(asked["arguments"][1], {"__name__": "__main__"})
            return 0
        from facecnn.__main__ import main

        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def _serve() -> None:
    _replace()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = _run(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            # Without the end of the interpreter, which would read on in the parent's stdin; the driver's log is
            # written line by line.
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
