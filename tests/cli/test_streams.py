"""What goes to stdout and stderr, and what if they can't take it."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .running import COMMAND, Facecnn, Trained

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "command",
    [
        "predict",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("predict json", "eval", "config show")),
        "--help",
    ],
)
def test_a_full_disk_behind_stdout(command: str, trained: Trained, facecnn_process: Facecnn) -> None:
    choices: dict[str, list[str | Path]] = {
        "predict": ["predict", trained.photos, "-m", trained.path],
        "predict json": ["predict", trained.photos, "-m", trained.path, "--format", "json"],
        "eval": ["eval", "-m", trained.path],
    }
    arguments = choices.get(command, [*command.split()])
    with FULL.open("wb") as full:
        done = facecnn_process(*arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.exit_code == 6
    assert os.strerror(errno.ENOSPC) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough(trained: Trained) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "predict", str(trained.photos), "-m", str(trained.path), "--quiet"],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    "closed", [*(pytest.param(one, marks=pytest.mark.slow) for one in (">&-", "2>&-", "<&-")), ">&- 2>&- <&-"]
)
def test_streams_that_are_closed(closed: str, people: Path, tmp_path: Path) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND]
    arguments = ["train", str(people), "-c", "smoke", "--epochs", "1", "--out", str(tmp_path), "--name", "run"]
    done = subprocess.run([*command, *arguments], capture_output=True, timeout=120)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    # No file of the run got the text of messages.
    for file in (tmp_path / "run").iterdir():
        assert b"Device:" not in file.read_bytes()
        assert b"Trained 1 epoch" not in file.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.slow)])
def test_a_locale_without_these_letters(encoding: str, people: Path, tmp_path: Path, facecnn_process: Facecnn) -> None:
    shutil.copytree(people / "ann", tmp_path / "photos" / "ann")
    shutil.copytree(people / "bob", tmp_path / "photos" / "имя")
    photo = (tmp_path / "photos" / "имя" / "04.png").rename(tmp_path / "photos" / "имя" / "фото.png")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": encoding}
    options = ["-c", "smoke", "--epochs", "1", "--out", tmp_path, "--format", "json"]
    done = facecnn_process("train", tmp_path / "photos", *options, "--name", "run", environment=locale)
    assert done.exit_code == 0, done.stderr
    assert done.json()["classes"] == ["ann", "имя"]
    assert r"\u0438" in done.stderr or "имя" in done.stderr
    for form in ("text", "json", "csv"):
        done = facecnn_process("predict", photo, "-m", tmp_path / "run", "--format", form, environment=locale)
        assert done.exit_code == 0, done.stderr
        if form == "json":
            assert os.fsencode(done.json()[0]["path"]) == os.fsencode(photo)
    done = facecnn_process("eval", "-m", tmp_path / "run", environment=locale)
    assert done.exit_code == 0
    assert r"\u0438" in done.stdout or "имя" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
@pytest.mark.parametrize("columns", [80, pytest.param(30, marks=pytest.mark.slow)])
def test_the_progress_bar_fits_the_terminal(columns: int, people: Path, tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    arguments = ["train", str(people), "-c", "smoke", "--epochs", "300", "--out", str(tmp_path)]
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # how Linux tells that nobody has the terminal open any more
        pass
    finally:
        os.close(ours)
        stdout, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert stdout.startswith(b"Trained 300 epochs")
    pieces = re.split(r"[\r\n]+", seen.decode())
    bars = [piece for piece in pieces if "/300 loss" in piece]
    assert bars
    assert all(len(piece) <= columns for piece in bars)
    if columns == 80:
        assert re.search(r"epoch \d+/300 loss [\d.]+ acc \d+%.*\|.*\[[\d:]+<", bars[-1])
    assert not [piece for piece in pieces if piece.startswith("epoch 300/300  loss")]  # the lines of a log
