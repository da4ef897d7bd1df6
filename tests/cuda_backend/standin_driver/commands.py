"""A process that runs facecnn's commands against the stand-in driver, each in a child of its own.

Importing all that a command needs takes seconds, and a test of every allocation needs many commands: so this process
imports it once, without touching the driver, and forks. It reads a JSON document a line, ``{"arguments": [...],
"environment": {...}, "output": FILE, "errors": FILE}``, and writes the command's exit code for each.

The pictures of a training are blank, as in most tests that run on the CPU: figures made of nothing can't be drawn.
site/sitecustomize.py says what else is replaced.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import Any

from blank_pictures import PICTURES, draw_nothing

COMMANDS = ("train", "predict", "evaluate", "cross_validate", "doctor", "lr_find")
JOBS = ("training.train", *COMMANDS[1:])


def _get_ready() -> None:
    importlib.import_module("facecnn.kernels.cuda.devices")
    run_pictures = importlib.import_module("facecnn.jobs.run_pictures")
    for name in PICTURES:
        setattr(run_pictures, name, draw_nothing)
    for name in COMMANDS:
        importlib.import_module(f"facecnn.cli.{name}")
    for name in JOBS:
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
    _get_ready()
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
