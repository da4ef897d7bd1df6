"""The cache of compiled code."""

import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numba import TypingError, prange
from numba.core.caching import FunctionCache
from numba.core.codegen import JITCodeLibrary

import facecnn
from facecnn.kernels import code_cache, compilation
from facecnn.kernels.code_cache import code_files
from facecnn.kernels.compilation import Compilation, told
from facecnn.kernels.cpu import jit
from facecnn.kernels.notes import Notes

# Each program prints the folder and how many functions were compiled.
BEGIN = """
import numpy as np
from facecnn.kernels import cpu
from facecnn.kernels.compilation import Compilation, told
from facecnn.kernels.cpu import jit
so_far = [Compilation(0, 0.0, False)]
"""
END = """
print(jit.cache_folder())
print(so_far[-1].functions)
"""
DENSE = f"""{BEGIN}
row, bias, units = (cpu.to_device(np.ones(s, np.float32)) for s in ((1, 9), (1,), (1, 1)))
with told(so_far.append):
    cpu.dense_forward(units, row, row, bias, cpu.Workspace())
    assert units.item() == 10
{END}"""
# A convolution (compiled for its shape), forward and backward, a neuron and a dense layer (compiled once).
LAYERS = f"""{BEGIN}
x, weight, bias = (cpu.to_device(np.ones(s, np.float32)) for s in ((1, 6, 32, 2), (8, 5, 5, 2), (8,)))
out, argmax = cpu.empty((1, 1, 14, 8), np.float32), cpu.empty((1, 1, 14, 8), np.uint8)
row, neuron = (cpu.to_device(np.ones(s, np.float32)) for s in ((1, 9), (1, 1, 14, 8)))
maps, units = cpu.empty((1, 1, 8), np.float32), cpu.empty((1, 1), np.float32)
block = ((0, 0), "identity", 0.0, 2, cpu.Workspace())
with told(so_far.append):
    cpu.conv_forward(out, argmax, x, weight, bias, *block)
    assert abs(out - 51).max() < 1e-3
    cpu.neuron_forward(maps, out, neuron, bias.reshape(1, 8), cpu.Workspace())
    assert abs(maps - (14 * 51 + 1)).max() < 1e-2
    cpu.dense_forward(units, row, row, bias[:1], cpu.Workspace())
    assert units.item() == 10
    cpu.conv_backward_weight(weight, bias, out, out, argmax, x, *block)
    cpu.conv_backward_input(x, out, out, argmax, weight, *block)
{END}"""


def run(program: str, **environment: str) -> tuple[Path, int]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "FACECNN_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=kept | environment, capture_output=True, text=True, check=True, timeout=300
    )
    folder, count = done.stdout.splitlines()
    return Path(folder), int(count)


@pytest.mark.slow
@pytest.mark.parametrize("processor", [None, "nehalem"])
def test_a_second_process_compiles_no_layer(processor: str | None, tmp_path: Path) -> None:
    environment = {"FACECNN_CACHE_DIR": str(tmp_path)}
    if processor is not None:  # the plain loops
        if platform.machine() not in ("x86_64", "AMD64"):
            pytest.skip("needs a processor of this kind")
        environment |= {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    folder, count = run(LAYERS, **environment)
    assert folder.parent == tmp_path / "kernels"
    assert count == len(code_files(str(folder))) > 0
    assert run(LAYERS, **environment) == (folder, 0)


def test_a_second_process_and_another_copy_of_the_program_compile_nothing(tmp_path: Path) -> None:
    """Each checkout, and each virtual environment, has a copy of its own."""
    copy = tmp_path / "copy" / "facecnn"
    shutil.copytree(Path(facecnn.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {"FACECNN_CACHE_DIR": str(tmp_path)}
    folder, count = run(DENSE, **environment)
    assert folder.parent == tmp_path / "kernels"
    assert count == len(code_files(str(folder))) > 0
    assert run(DENSE, **environment) == (folder, 0)
    assert run(f"import sys; sys.path.insert(0, {str(copy.parent)!r}){DENSE}", **environment) == (folder, 0)


SUMS = """
import sys
import numpy as np
from facecnn.kernels import cpu
out, x = cpu.empty((1, 2, 2, 3), np.float32), cpu.to_device(np.full((1, 2, 2, 3), -1, np.float32))
for activation in sys.argv[1:]:
    cpu.add_maps_forward(out, x, x, activation, 0.25, cpu.Workspace())
    print(out.min() + 0, out.max() + 0)
"""


def test_what_several_processes_compiled_is_told_apart_where_it_comes_together(tmp_path: Path) -> None:
    """One function in three versions, each the first that its process compiles. Numba would number the three alike, and
    name their machine code by that number, so that who loads all of them would run one in the others' place."""
    expected = {"relu": "0.0 0.0", "identity": "-2.0 -2.0", "leaky_relu": "-0.5 -0.5"}
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment = kept | {"FACECNN_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": "0"}  # else it counts in another order
    for names in ([name] for name in expected), (list(expected), list(expected)[::-1]):
        for activations in names:
            done = subprocess.run(
                [sys.executable, "-c", SUMS, *activations], capture_output=True, text=True, env=environment, check=True
            )
            assert done.stdout.splitlines() == [expected[name] for name in activations]


def test_the_users_choice_of_folder_wins(tmp_path: Path) -> None:
    chosen = tmp_path / "mine"
    folder, count = run(DENSE, NUMBA_CACHE_DIR=str(chosen), FACECNN_CACHE_DIR=str(tmp_path / "other"))
    assert folder.parent == chosen / "facecnn"
    assert count == len(code_files(str(chosen))) > 0
    assert not (tmp_path / "other").exists()


@pytest.fixture
def told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Compilation]]:
    """All that is told of compiling, a second after the last word each; what is kept is kept in a folder of the test's
    own."""
    monkeypatch.setattr(jit, "cache_folder", lambda: str(tmp_path))
    heard: list[Compilation] = []
    monkeypatch.setattr(compilation, "time", SimpleNamespace(perf_counter=lambda: float(len(heard))))
    with told(heard.append):
        yield heard


def test_functions_that_are_kept_are_counted(told_of: list[Compilation], tmp_path: Path) -> None:
    function = jit.compiled()(_twice)
    assert function(2) == 4
    assert function(2.0) == 4.0
    assert function(2j) == 4j
    assert function(3) == 6
    assert (told_of[0].at_work, told_of[-1].at_work) == (True, False)
    assert told_of[-1].functions == 3 == len(code_files(str(tmp_path)))
    assert [heard.seconds for heard in told_of] == [0, 1, 2, 3, 4, 5]
    before = len(told_of)
    assert jit.compiled()(_twice)(5) == 10  # from the disk, as another process has it
    assert len(told_of) == before


@pytest.mark.parametrize("inline", [False, True])
def test_a_helper_is_a_part_of_the_function_that_calls_it(
    inline: bool, told_of: list[Compilation], tmp_path: Path
) -> None:
    @jit.helper(inline=inline)
    def helper(x: Any) -> Any:
        return x + 1

    @jit.compiled()
    def function(x: Any) -> Any:
        return helper(x)

    assert function(1) == 2
    assert [heard.seconds for heard in told_of] == [0, 1, 2, 3]
    assert told_of[-1].functions == 1 == len(code_files(str(tmp_path)))
    before = list(told_of)
    assert helper(1.5) == 2.5  # in Python
    assert told_of == before


def test_a_function_is_translated_into_machine_code_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its helpers and the body of its parallel loop aren't, by themselves."""
    translated: list[str] = []

    def finalize(self: Any, plain: Any = JITCodeLibrary._finalize_specific) -> None:
        translated.append(self.name.rpartition(".")[2])
        plain(self)

    monkeypatch.setattr(JITCodeLibrary, "_finalize_specific", finalize)
    monkeypatch.setattr(jit, "cache_folder", lambda: str(tmp_path))

    @jit.helper()
    def sum_of_squares(row: Any) -> Any:
        return (row * row).sum()

    @jit.compiled(parallel=True)
    def rows(out: Any, x: Any) -> None:
        for n in prange(len(x)):
            out[n] = sum_of_squares(x[n])

    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    out = np.zeros(3, np.float32)
    rows(out, x)
    np.testing.assert_array_equal(out, [14, 126, 366])
    assert translated == ["rows"]


def test_a_damaged_file_is_compiled_again(
    told_of: list[Compilation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_cache, "_notes", Notes())
    assert jit.compiled()(_twice)(4) == 8
    [file] = code_files(str(tmp_path))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert jit.compiled()(_twice)(5) == 10
    assert told_of[-1].functions == 2
    [note] = code_cache.notes()
    assert str(tmp_path) in note
    assert "damaged" in note


def test_costs_are_added_up_by_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "cache_folder", lambda: str(tmp_path))
    clock = iter(range(100))
    monkeypatch.setattr(compilation, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    twice = jit.compiled()(_twice)
    with compilation.costs() as costs:
        assert (twice(1), twice(1.5), twice(2)) == (2, 3.0, 4)
        jit.compiled()(_twice)(3)  # from the disk
    [(name, cost)] = costs.items()
    assert name == cost.kernel == f"{__name__}._twice"
    assert (cost.times, cost.seconds) == (2, 2.0)  # a tick of the clock each


def test_what_only_a_compilation_needs_is_not_loaded_for_kept_code(tmp_path: Path) -> None:
    """The first process compiles; the second loads that, then compiles something that calls it, and something else."""
    program = """
import sys
import numpy as np
import kept
from facecnn.kernels.cpu import jit
from numba.core.runtime.nrt import rtsys

@jit.compiled()
def caller(x):
    return kept.squares(x) + 1

x = np.arange(4, dtype=np.float32)
assert kept.squares(x) == 14
loaded = "numba.np.arrayobj", "numba.typed.typeddict", "scipy.linalg"
print([name for name in loaded if name in sys.modules], rtsys._init)
if "again" in sys.argv:
    assert caller(x) == 15
    assert kept.squares(x.astype(np.int32)) == 14
"""
    (tmp_path / "kept.py").write_text(
        """
import numpy as np
from facecnn.kernels.cpu import jit

@jit.compiled()
def squares(x):
    total = 0
    squared = np.empty(len(x), x.dtype)  # which Numba's own functions allocate
    for i, value in enumerate(x.copy()):
        squared[i] = value * value
    for value in squared:
        total += value
    return total
"""
    )
    environment = os.environ | {"FACECNN_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    environment.pop("NUMBA_CACHE_DIR", None)
    first, second = (
        subprocess.run([sys.executable, "-c", program, which], env=environment, capture_output=True, text=True)
        for which in ("first", "again")
    )
    assert (first.stdout, first.returncode) == (
        "['numba.np.arrayobj', 'numba.typed.typeddict', 'scipy.linalg'] True\n",
        0,
    ), first.stderr
    assert (second.stdout, second.returncode) == ("[] False\n", 0), second.stderr


def test_functions_that_other_programs_keep_are_loaded(tmp_path: Path) -> None:
    """Numba's own cache, in a process with facecnn and in one without."""
    program = """
import sys
import numba
if "with" in sys.argv:
    import facecnn.kernels.cpu
from others import twice
assert twice(4) == 8
print(sum(twice.stats.cache_hits.values()))
"""
    (tmp_path / "others.py").write_text(
        "import numba\n\n@numba.njit(cache=True)\ndef twice(x):\n    return 2 * x\n", encoding="utf-8"
    )
    for kept_by, loaded_by in (("with", "without"), ("without", "with")):
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / kept_by)}
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
        hits = [
            subprocess.run([sys.executable, "-c", program, name], env=environment, capture_output=True, text=True)
            for name in (kept_by, loaded_by)
        ]
        assert [done.stdout for done in hits] == ["0\n", "1\n"], [done.stderr for done in hits]


def test_what_cannot_be_compiled_is_not_counted(told_of: list[Compilation]) -> None:
    with pytest.raises(TypingError):
        jit.compiled()(_twice)(None)
    assert told_of[-1] == replace(told_of[-1], functions=0, at_work=False)


def test_nothing_is_told_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "cache_folder", lambda: str(tmp_path))
    heard: list[Compilation] = []
    with told(heard.append):
        pass
    jit.compiled()(_twice)(1)
    assert heard == []


def _twice(x: Any) -> Any:
    return 2 * x


def test_an_edit_of_any_source_names_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facecnn.kernels.code_cache import code_folder

    monkeypatch.setenv("FACECNN_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "backend" / "conv").mkdir(parents=True)

    def folder(*compiler: str) -> str:
        code_folder.cache_clear()
        return code_folder(tmp_path / "backend", *compiler)

    backend = tmp_path / "backend"
    sources = [backend / "jit.py", backend / "helper.py", backend / "conv" / "plain.py"]
    sources += [tmp_path / name for name in ("protocol.py", "formulas.py", "update_rules.py")]
    for source in sources:
        source.parent.mkdir(exist_ok=True)
        source.write_text("a = 1\n")
    before = folder("one processor")
    assert folder("one processor") == before
    assert folder("another processor") != before
    for source in sources:
        source.write_text("a = 2\n")
        assert folder("one processor") != before
        source.write_text("a = 1\n")
    (backend / "direct.py").write_text("a = 1\n")
    assert folder("one processor") != before
    (backend / "direct.py").unlink()
    assert folder("one processor") == before
    monkeypatch.setattr("numba.__version__", "0.0.1")
    assert folder("one processor") != before


@pytest.mark.slow
def test_code_from_the_cache_gives_the_bits_of_code_that_was_just_compiled(tmp_path: Path) -> None:
    """LLVM may compile a function twice, by itself and within another: nothing that it is free to do otherwise the
    second time may change a result. Where that was so, the first training on a machine was unlike all later ones."""
    program = """
import hashlib
import numpy as np
from facecnn.kernels import cpu
from facecnn.kernels.protocol import AUGMENTATION
workspace, epoch = cpu.Workspace(), cpu.to_device(np.ones(1, np.int32))
rows = cpu.to_device(np.arange(9, dtype=np.int32))
parameters, drawn = cpu.empty((9, len(AUGMENTATION)), np.float32), hashlib.sha256()
for turned in (0, 8):
    ranges = True, 0.05, 0.1 * turned, turned, 0.5, 0.3, 0.2, 0.5, 0.3
    cpu.draw_augmentation(parameters, rows, epoch, 0, *ranges, workspace)
    for width, maps in ((24, 1), (72, 3)):
        photos = np.random.default_rng(0).integers(0, 256, (9, 30, width * 5 // 4, maps), np.uint8)
        pixels, _ = cpu.resident(photos, rows)
        for normalise in ("standardise", "local_contrast"):
            out = cpu.empty((9, 24, width, maps), np.float32)
            cpu.prepare_photos(out, pixels, rows, parameters, normalise, workspace)
            drawn.update(out.tobytes())
print(drawn.hexdigest())
"""
    environment = os.environ | {"FACECNN_CACHE_DIR": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    first, second = (
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.nbi"))
    assert first.stdout == second.stdout


def test_threads_that_make_caches_at_once_keep_code_where_each_wants_it(tmp_path: Path) -> None:
    class Slow(FunctionCache):
        def __init__(self, function: Any) -> None:
            time.sleep(0.2)  # the other thread makes its own meanwhile
            super().__init__(function)

    made = {name: SimpleNamespace(py_func=replace) for name in ("one", "other")}
    threads = [
        threading.Thread(target=code_cache.keep, args=(dispatcher, Slow, str(tmp_path / name)))
        for name, dispatcher in made.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(Path(dispatcher._cache.cache_path).is_relative_to(tmp_path / name) for name, dispatcher in made.items())
