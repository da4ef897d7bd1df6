"""A command ends at once, and leaves nothing undone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
MAIN = "from facecnn.__main__ import main; main()"


def end_of(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"{program}\n{MAIN}", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_nothing_is_freed_that_the_system_frees() -> None:
    freed = "import os; freed = type('Freed', (), {'__del__': lambda self, write=os.write: write(1, b'freed')})()"
    ended = end_of(freed, "--version")
    assert (ended.returncode, ended.stdout.split()[:1], ended.stdout.count("freed")) == (0, ["facecnn"], 0)


def test_what_was_registered_for_the_end_runs() -> None:
    ended = end_of("import atexit; atexit.register(print, 'at the end')", "--version")
    assert ended.stdout.splitlines()[-1] == "at the end"


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["no-such-command"], 2)])
def test_the_exit_code_stays(arguments: list[str], code: int) -> None:
    assert end_of("", *arguments).returncode == code


def test_another_thread_ends_its_work() -> None:
    """One that goes on when the command has ended."""
    work = "threading.main_thread().join(), print('done')"
    ended = end_of(f"import threading; threading.Thread(target=lambda: ({work})).start()", "--version")
    assert ended.stdout.splitlines()[-1] == "done"


def test_a_profile_is_printed() -> None:
    command = [sys.executable, "-m", "cProfile", "-m", "facecnn", "--version"]
    profile = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "function calls" in profile.stdout


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
def test_output_that_cant_be_written_is_no_success() -> None:
    """As when Python itself finds it while it ends."""
    with FULL.open("w") as full:
        ended = subprocess.run([sys.executable, "-m", "facecnn", "--version"], stdout=full, timeout=60, check=False)
    assert ended.returncode != 0
