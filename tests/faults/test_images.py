"""Odd and broken pictures.

Most rows are looked up in what two calls said: ``predict`` on every picture of the corpus, and a training on all of
them, with ``data check`` beside it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from .background import EPOCHS, epochs_done, training_halted
from .conftest import QUICK, WITHOUT_ROOT, Outcome, Run
from .training import Training, train_and_check

WARNINGS_ARE_ERRORS = {"PYTHONWARNINGS": "error"}
LITTLE_MEMORY = "ulimit -v 4000000"


def plain(text: str) -> str:
    """Without the line breaks of wrapping."""
    return " ".join(text.split())


# What is said about every picture of the corpus


@dataclass(frozen=True)
class Answers:
    """Of one ``predict``, by the file's place in the corpus."""

    outcome: Outcome
    answers: dict[str, dict[str, Any]]

    def reason(self, name: str) -> str:
        """Why a picture has no answer."""
        answer = self.answers[name]
        assert answer["label"] is None, name
        assert answer["faces"] == [], name
        return str(answer["error"])

    def accepted(self, *names: str) -> None:
        """Each of these pictures has an answer."""
        for name in names:
            assert self.answers[name]["error"] is None, (name, self.answers[name]["error"])
            assert self.answers[name]["label"] in self.answers[name]["probabilities"], name

    def size(self, name: str) -> float:
        """The side of the square that is cut out of a picture."""
        left, top, right, bottom = self.answers[name]["box"]
        assert right - left == bottom - top
        return float(right - left)


def as_answers(outcome: Outcome, root: Path) -> Answers:
    return Answers(outcome, {str(Path(one["path"]).relative_to(root)): one for one in json.loads(outcome.stdout)})


@pytest.fixture(scope="module")
def all_pictures(images: Path) -> list[Path]:
    return sorted((images / "made").iterdir()) + sorted((images / "real").iterdir())


@pytest.fixture(scope="module")
def answers(images: Path, all_pictures: list[Path], model: Path, run: Run) -> Answers:
    """What ``predict`` says of every picture, with little memory and every Python warning an error."""
    words = ("predict", "-q", *all_pictures, "-m", model, "--format", "json")
    done = run(*words, before=LITTLE_MEMORY, environment=WARNINGS_ARE_ERRORS, timeout=120)
    assert done.exit_code == 3
    return as_answers(done, images)


def expected(images: Path) -> dict[str, list[str]]:
    """The answers that are right for each picture: ``ok WxH`` or ``refused …``."""
    with (images / "expected.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return {row["file"]: [row["outcome"], *filter(None, (row["also accepted"] or "").split("; "))] for row in rows}


HEIC = {"made/heic_header.heic", "made/heic_header.jpg", "real/hopper.heif"}
"""Read where the extra heic is installed, which the table of expected answers is made without."""


# A training on all of them


@pytest.fixture(scope="module")
def mess(images: Path, made_people: Path, special: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, the odd files and three clean people, a folder of people each. Not to be written to."""
    folder = tmp_path_factory.mktemp("mess") / "people"
    shutil.copytree(made_people, folder)
    (folder / "made").symlink_to(images / "made")
    (folder / "real").symlink_to(images / "real")
    (folder / "special").symlink_to(special)
    first = folder / "person_0000"
    shutil.copy(first / "0003.jpg", first / "0003 (1).jpg")
    hostile = folder / "hostile"  # the first by name, as the report shows only so many photos
    shutil.copytree(made_people / "person_0001", hostile)
    damaged = (images / "made" / "cut_50.jpg").read_bytes()
    for name in (b"<img src=x onerror=alert(1)>.jpg", b"\x1b[31mred.jpg", b"not_utf8_\xff\xfe.jpg", b"[/bold].jpg"):
        (hostile / os.fsdecode(name)).parent.mkdir(exist_ok=True)  # the last lies in a folder
        (hostile / os.fsdecode(name)).write_bytes(damaged)
    return folder


@pytest.fixture(scope="module")
def training(mess: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Trained on the mess for an epoch, as somebody whom file modes bind, with every Python warning an error."""
    environment = WARNINGS_ARE_ERRORS | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    options: dict[str, Any] = {"prefix": WITHOUT_ROOT, "before": LITTLE_MEMORY, "environment": environment}
    return train_and_check(mess, tmp_path_factory.mktemp("mess-runs"), run, **options)


# Pixels

Pixels = Callable[[str], npt.NDArray[np.int64]]

LOOKED_AT = [
    *("made/plain.jpg", "made/grey.jpg", "made/cmyk.jpg", "made/cmyk.tif", "made/rgb_16bit.png", "made/really_png.jpg"),
    *("made/grey_16bit.png", "made/grey_16bit.tif", "made/all_transparent.png", "made/palette_transparent_index.png"),
    *("made/palette_transparent_bytes.png", "made/lab.tif", "made/grey_alpha.png", "made/one_bit.png"),
    *("made/palette.png", "real/pil_sample_cmyk.jpg"),
    *(f"made/orientation_{number}.jpg" for number in range(1, 9)),
    *("made/orientation_6.png", "made/orientation_6.webp", "made/orientation_6.tif"),
]


@pytest.fixture(scope="module")
def pixels(images: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Pixels:
    """The middle of a picture as the network would see it, in colour, at the size that it has: (64, 64, 3)."""
    folder = tmp_path_factory.mktemp("pixels")
    for name in LOOKED_AT:
        (folder / "source" / name).mkdir(parents=True)  # a folder each, so that no crop's name is taken
        shutil.copy(images / name, folder / "source" / name / "picture")
    wide = ("--set", "photos.crop=1", "--set", "photos.size=64", "--set", "photos.colour=rgb")
    done = run("data", "crop", folder / "source", folder / "crops", "-c", "smoke", *wide)
    assert done.exit_code == 0, done.stderr
    return lambda name: np.asarray(Image.open(folder / "crops" / name / "picture.png"), np.int64)


def apart(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> int:
    """The largest difference of two pixels."""
    return int(np.abs(one - other).max())


# The rows


@pytest.mark.fault("I01")
def test_a_picture_cut_short_is_left_out(answers: Answers, training: Training) -> None:
    cut = ("cut_05.jpg", "cut_25.jpg", "cut_50.jpg", "cut_90.jpg", "cut_99.jpg", "cut_60_progressive.jpg", "no_eoi.jpg")
    for name in cut:
        for reason in (answers.reason(f"made/{name}"), training.reason(f"made/{name}")):
            assert reason == "the picture is cut short (truncated): copy it again or delete it"
    assert training.figures["photos"]["skipped"] == len(training.check["skipped"]) > len(cut)
    assert training.figures["epochs"] == 1


@pytest.mark.fault("I02")
def test_an_empty_file_is_called_empty(answers: Answers, training: Training) -> None:
    for reason in (answers.reason("made/empty.jpg"), training.reason("made/empty.jpg")):
        assert reason == "empty file (0 bytes): copy it again or delete it"


@pytest.mark.fault("I03")
def test_what_is_no_picture_is_named(answers: Answers) -> None:
    for name, kind in (
        ("text.jpg", "not a picture but text"),
        ("web_page.jpg", "not a picture but a web page"),
        ("vector.png", "SVG is not supported"),
        ("document.jpg", "not a picture but a PDF"),
        ("archive.png", "not a picture but an archive"),
        ("zeros.jpg", "nothing but zeros, not a picture"),
    ):
        what, _, remedy = answers.reason(f"made/{name}").partition(": ")
        assert what == kind
        assert remedy.split()[0] in ("delete", "leave", "download", "convert", "unpack", "copy"), remedy


@pytest.mark.fault("I04")
def test_a_git_lfs_pointer_is_named(answers: Answers) -> None:
    assert answers.reason("made/lfs_pointer.jpg") == "a Git LFS pointer, not the picture: run `git lfs pull`"


@pytest.mark.fault("I05")
def test_of_a_gif_animation_the_first_frame_is_used(answers: Answers, training: Training) -> None:
    answers.accepted("made/animation.gif", "real/dispose_bgnd.gif")
    notes = " ".join(training.check["notes"])
    assert len(re.findall(r"frames, the first (one )?used", notes)) > 0


@pytest.mark.fault("I06")
def test_of_webp_apng_and_tiff_the_first_frame_is_used(answers: Answers) -> None:
    answers.accepted("made/animation.webp", "made/animation.png", "made/pages.tif", "real/multipage.tiff")
    first = answers.size("made/plain.jpg")
    assert [answers.size(f"made/{name}") for name in ("animation.webp", "animation.png", "pages.tif")] == 3 * [first]
    assert answers.size("real/multipage.tiff") == 6  # 0.6 of 10 pixels


@pytest.mark.fault("I07")
def test_a_broken_later_frame_does_not_matter(answers: Answers) -> None:
    answers.accepted("made/second_page_cut.gif")


@pytest.mark.fault("I08")
def test_an_apng_with_broken_frames_is_damaged(answers: Answers) -> None:
    for name in ("real/chunk_no_fctl.png", "real/syntax_num_frames_zero.png"):
        assert answers.reason(name).startswith("the picture is damaged (")


@pytest.mark.fault("I09")
def test_cmyk_keeps_its_colours(answers: Answers, pixels: Pixels) -> None:
    answers.accepted("made/cmyk.jpg", "made/cmyk.tif", "real/pil_sample_cmyk.jpg")
    face = pixels("made/plain.jpg")[20:24, 30:34].mean((0, 1))
    for name in ("made/cmyk.jpg", "made/cmyk.tif"):
        assert np.abs(pixels(name)[20:24, 30:34].mean((0, 1)) - face).max() < 40
    assert pixels("real/pil_sample_cmyk.jpg").std() > 10


@pytest.mark.fault("I10")
def test_sixteen_bit_grey_is_scaled(answers: Answers, pixels: Pixels) -> None:
    answers.accepted("made/grey_16bit.png", "made/grey_16bit.tif", "real/pngsuite_basn0g16.png")
    answers.accepted("real/16bit.MM.deflate.tif")
    luma = np.asarray(Image.fromarray(pixels("made/really_png.jpg").astype(np.uint8)).convert("L"), np.int64)
    for name in ("made/grey_16bit.png", "made/grey_16bit.tif"):
        assert apart(pixels(name), luma[..., None]) == 0
        assert np.abs(pixels(name) - pixels("made/grey.jpg")).mean() < 4  # which JPEG has changed here and there


@pytest.mark.fault("I11")
def test_thirty_two_bit_pixels_are_refused(answers: Answers) -> None:
    for name in ("made/grey_32bit_int.tif", "made/grey_float_0_1.tif"):
        assert answers.reason(name) == "32-bit pixels are not supported: save it with 8 bits"


@pytest.mark.fault("I12")
def test_no_nan_reaches_the_network(answers: Answers, training: Training) -> None:
    reason = "32-bit pixels are not supported: save it with 8 bits"
    assert answers.reason("made/grey_float_nan.tif") == training.reason("made/grey_float_nan.tif") == reason
    assert training.figures["train"]["loss"] < 100
    assert "learning rate" not in training.outcome.stderr


@pytest.mark.fault("I13")
def test_sixteen_bit_colour_is_as_eight(answers: Answers, pixels: Pixels) -> None:
    answers.accepted("made/rgb_16bit.png", "real/pngsuite_basn2c16.png", "real/pngsuite_basn6a16.png")
    assert apart(pixels("made/rgb_16bit.png"), pixels("made/really_png.jpg")) <= 1


@pytest.mark.fault("I14")
def test_a_palette_with_transparency_is_composited(answers: Answers, pixels: Pixels) -> None:
    answers.accepted("made/palette_transparent_index.png", "made/palette_transparent_bytes.png")
    answers.accepted("real/pil123p.png", "real/pngsuite_tbbn3p08.png")
    grey, opaque = background(), pixels("made/palette.png")
    assert apart(pixels("made/palette_transparent_index.png"), opaque) == 0  # what is transparent lies in the corners
    shown = pixels("made/palette_transparent_bytes.png")
    assert (shown == grey).all(-1).any()
    assert (np.abs(shown - grey) <= np.abs(opaque - grey) + 1).all()  # everything lies nearer to the background
    only_the_end(answers.outcome)


@pytest.mark.fault("I15")
def test_a_wholly_transparent_picture_is_background(answers: Answers, pixels: Pixels, training: Training) -> None:
    answers.accepted("made/all_transparent.png")
    assert (pixels("made/all_transparent.png") == background()).all()
    assert "made/all_transparent.png: no content: every pixel is the same" in training.check["notes"]


def background() -> int:
    """The grey behind what is transparent, as the documentation states it."""
    text = plain((Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8"))
    found = re.search(r"transparent\w* .*?\bgrey \((\d+) of 255\)", text)
    assert found is not None
    return int(found[1])


@pytest.mark.fault("I16")
def test_uncommon_modes_are_converted(answers: Answers, pixels: Pixels) -> None:
    answers.accepted("made/grey_alpha.png", "made/one_bit.png", "made/lab.tif", "real/lab.tif")
    answers.accepted("real/minisblack-2c-8b-alpha.tiff")
    grey = pixels("made/grey.jpg")
    assert np.abs(pixels("made/lab.tif") - grey).mean() < 16  # lightness in the place of luma
    assert set(np.unique(pixels("made/one_bit.png"))) == {0, 255}
    assert np.corrcoef(pixels("made/grey_alpha.png")[40:].ravel(), grey[40:].ravel())[0, 1] > 0.9  # opaque below


@pytest.mark.fault("I17")
def test_pictures_are_turned_upright_once(answers: Answers, pixels: Pixels) -> None:
    turned = [f"made/orientation_{number}.jpg" for number in range(1, 9)]
    turned += [f"made/orientation_6.{suffix}" for suffix in ("png", "webp", "tif")]
    upright, scores = pixels(turned[0]), answers.answers[turned[0]]["probabilities"]
    for name in turned:
        assert np.abs(pixels(name) - upright).mean() < 3, name  # JPEG loses other details in each direction
        given = answers.answers[name]["probabilities"]
        assert max(abs(given[person] - scores[person]) for person in scores) < 0.02
    assert np.abs(upright[:, ::-1] - upright).mean() > 6  # the face is not the same in a mirror


@pytest.mark.fault("I18")
def test_odd_exif_counts_as_none(images: Path, answers: Answers) -> None:
    names = [f"made/{path.name}" for path in sorted((images / "made").glob("exif_*.jpg"))]
    assert len(names) >= 5
    answers.accepted(*names, "real/invalid-exif.jpg", "real/broken_exif_dpi.jpg", "real/exif_gps.jpg")
    assert len({json.dumps(answers.answers[name]["probabilities"]) for name in (*names, "made/plain.jpg")}) == 1
    only_the_end(answers.outcome)


def only_the_end(outcome: Outcome) -> None:
    """On stderr is nothing but how many photos have no answer."""
    assert re.fullmatch(r"error: \d+ of \d+ photos have no answer\n", outcome.stderr)


@pytest.mark.fault("I19")
def test_a_giant_header_is_refused_before_decoding(answers: Answers) -> None:
    names = [f"made/bomb_header{rest}" for rest in (".png", "_max.png", ".bmp", ".gif")] + ["real/reallybig.bmp"]
    for name in names:
        assert re.match(r"\d+x\d+ pixels, more than 50 million: make it smaller", answers.reason(name)), name
    assert answers.reason("made/bomb_header.jpg").startswith("65500x65500 pixels, more than 50 million")
    only_the_end(answers.outcome)


@pytest.mark.fault("I20")
def test_a_giant_picture_is_refused_from_50_million_pixels_on(
    images: Path, model: Path, run: Run, fresh_cache: Path
) -> None:
    names = ["made/over_cap_8000x8000.png", "made/under_cap_7000x7000.png", "made/exactly_cap_10000x5000.gif"]
    words = ("predict", "-q", *(images / name for name in names), "-m", model, "--format", "json")
    environment = {"FACECNN_CACHE_DIR": str(fresh_cache)}
    given = as_answers(run(*words, before="ulimit -v 2000000", environment=environment, timeout=60), images)
    assert given.outcome.exit_code == 3
    assert given.reason(names[0]).startswith("8000x8000 pixels, more than 50 million: make it smaller")
    given.accepted(*names[1:])
    assert given.size(names[1]) == 0.6 * 7000


@pytest.mark.fault("I20")
@pytest.mark.long
def test_a_giant_jpeg_is_read_at_a_fraction(tmp_path: Path, model: Path, run: Run, fresh_cache: Path) -> None:
    Image.linear_gradient("L").resize((15800, 15800)).save(tmp_path / "giant.jpg", quality=50)
    words = ("predict", "-q", tmp_path / "giant.jpg", "-m", model, "--format", "json")
    environment = {"FACECNN_CACHE_DIR": str(fresh_cache)}
    done = run(*words, before="ulimit -v 2000000", environment=environment, timeout=60)
    assert (done.exit_code, done.stderr) == (0, ""), done.stdout
    Image.new("L", (16000, 15800)).save(tmp_path / "too-giant.jpg", quality=50)
    done = run("predict", "-q", tmp_path / "too-giant.jpg", "-m", model, environment=environment, timeout=60)
    assert done.exit_code == 3
    assert re.search(r"16000x15800 pixels, more than 50 million \(250 million for a JPEG\)", done.stdout)


@pytest.fixture
def fresh_cache(tmp_path: Path) -> Path:
    """A cache folder that knows no photo, but the compiled kernels."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "kernels").symlink_to(Path(os.environ["FACECNN_CACHE_DIR"]) / "kernels")
    return folder


@pytest.mark.fault("I21")
def test_a_bomb_in_a_text_chunk_is_damaged(answers: Answers) -> None:
    for name in ("made/text_bomb.png", "real/png_decompression_dos.png"):
        assert answers.reason(name).startswith("the picture is damaged (")
    answers.accepted("made/icc_garbage.jpg")


@pytest.mark.fault("I22")
def test_a_tiny_picture_is_too_small(answers: Answers, training: Training) -> None:
    for name, size in (
        ("made/one_pixel.png", "1x1"),
        ("made/two_by_three.jpg", "2x3"),
        ("real/pngsuite_s01n3p01.png", "1x1"),
    ):
        reason = f"{size} pixels, too small for a face (at least 8)"
        assert answers.reason(name) == training.reason(name) == reason


@pytest.mark.fault("I23")
def test_a_line_of_pixels_is_too_small(answers: Answers) -> None:
    for name, size in (("made/wide_20000x1.png", "20000x1"), ("made/tall_1x20000.png", "1x20000")):
        assert answers.reason(name) == f"{size} pixels, too small for a face (at least 8)"


@pytest.mark.fault("I24")
def test_a_constant_picture_makes_no_nan(answers: Answers, training: Training) -> None:
    names = [f"made/all_{colour}.png" for colour in ("black", "white", "grey")]
    answers.accepted(*names)
    for name in names:
        assert f"{name}: no content: every pixel is the same" in training.check["notes"]
        assert training.side(name) in ("train", "validation")
    assert "no content" in " ".join(training.check["warnings"])
    assert "standardise" in (training.run / "config.yaml").read_text(encoding="utf-8")
    losses = [training.figures[side]["loss"] for side in ("train", "validation")]
    assert all(0 < loss < 100 for loss in losses)


# Files that a repository can't hold


@pytest.fixture(scope="module")
def odd_answers(special: Path, model: Path, run: Run) -> Answers:
    """What ``predict`` says of the files that are no pictures on a disk, as somebody whom file modes bind."""
    names = ("fifo", "socket", "endless", "null", "folder", "broken_link", "loop_a", "no_permission", "read_error")
    files = [special / f"{name}.jpg" for name in (*names, "sparse_5GB")]
    words = ("predict", "-q", *files, "-m", model, "--format", "json")
    done = run(*words, prefix=WITHOUT_ROOT, before=LITTLE_MEMORY, timeout=60)
    assert done.exit_code == 3
    return as_answers(done, special)


@pytest.mark.fault("I25")
def test_nobody_waits_for_a_pipe(odd_answers: Answers, training: Training) -> None:
    assert odd_answers.reason("fifo.jpg") == training.reason("special/fifo.jpg") == "not a regular file (a pipe)"


@pytest.mark.fault("I26")
def test_a_socket_or_a_device_is_no_photo(odd_answers: Answers) -> None:
    assert odd_answers.reason("socket.jpg") == "not a regular file (a socket)"
    for name in ("endless.jpg", "null.jpg"):
        assert odd_answers.reason(name) == "not a regular file (a device)"


@pytest.mark.fault("I27")
def test_a_folder_named_as_a_photo_is_a_folder(odd_answers: Answers, training: Training) -> None:
    assert odd_answers.reason("folder.jpg") == "no photos in it"
    assert "special/folder.jpg: a folder, not a photo; what is in it is read" in training.check["warnings"]


@pytest.mark.fault("I28")
def test_a_link_to_nowhere_is_left_out(odd_answers: Answers, training: Training) -> None:
    for reason in (odd_answers.reason("broken_link.jpg"), training.reason("special/broken_link.jpg")):
        assert reason.startswith("a link to nowhere.jpg, which does not exist: ")


@pytest.mark.fault("I29")
def test_a_link_to_itself_is_left_out(odd_answers: Answers, training: Training) -> None:
    for reason in (odd_answers.reason("loop_a.jpg"), training.reason("special/loop_a.jpg")):
        assert reason == "a link that leads back to itself: delete it"


@pytest.mark.fault("I30")
def test_a_link_to_the_parent_is_followed_once(training: Training) -> None:
    split = json.loads((training.run / "split.json").read_text(encoding="utf-8"))
    paths = [path for side in ("train", "validation") for path in split[side]]
    assert "special/original.jpg" in paths
    assert not [path for path in paths if "folder_loop" in path]


@pytest.mark.fault("I31")
def test_links_to_one_photo_stay_together(training: Training) -> None:
    links = [f"special/{name}.jpg" for name in ("good_link", "hard_link", "original")]
    assert len({training.side(name) for name in links}) == 1
    (group,) = (group for group in training.check["copies"] if links[2] in group)
    assert set(links) <= set(group)


@pytest.mark.fault("I32")
def test_a_photo_without_permission_is_named(odd_answers: Answers, training: Training) -> None:
    for reason in (odd_answers.reason("no_permission.jpg"), training.reason("special/no_permission.jpg")):
        assert reason.startswith("no permission to read it: chmod u+r")


@pytest.mark.fault("I33")
def test_a_read_error_is_named(odd_answers: Answers) -> None:
    reason = odd_answers.reason("read_error.jpg")
    assert reason == "cannot be read (Input/output error): check its name and the disk"


# Odd names

NAMES = [
    *(b"not_utf8_\xff\xfe.jpg", b"new\nline.jpg", b"tab\t.jpg", b"cr\rreturn.jpg", b"\x1b[31mred\x1b[0m.jpg"),
    *(b"\x1b]0;title\x07.jpg", b"[red]markup[bold].jpg", b"[link=x].jpg", b"a[/bold].jpg", b"-rf.jpg", b"--help.jpg"),
    *(b"<img src=x onerror=alert(1)>.jpg", b"=1+1.jpg", b"x" * 251 + b".jpg", b"rtl\xe2\x80\xaegpj.jpg"),
]
SHOWN = [
    *("not_utf8_\\xff\\xfe.jpg", "new\\x0aline.jpg", "tab\\x09.jpg", "cr\\x0dreturn.jpg"),
    *("\\x1b[31mred\\x1b[0m.jpg", "\\x1b]0;title\\x07.jpg", "[red]markup[bold].jpg", "[link=x].jpg"),
    *("a[/bold].jpg", "-rf.jpg", "--help.jpg", "<img src=x onerror=alert(1)>.jpg", "=1+1.jpg"),
    *("x" * 251 + ".jpg", "rtl\\xe2\\x80\\xaegpj.jpg"),
]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale without UTF-8, and Python kept from helping itself."""


@pytest.fixture(scope="module")
def odd_names(special: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos of all ``NAMES``, and ``damaged/`` with the same names. Not to be written to."""
    folder = tmp_path_factory.mktemp("names") / "names"
    for name in NAMES:
        for whole, root in ((True, folder), (False, folder / "damaged")):
            path = root / os.fsdecode(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            data = (special / os.fsdecode(name)).read_bytes()
            path.write_bytes(data if whole else data[: len(data) // 2])
    return folder


@pytest.fixture(scope="module")
def named_answers(odd_names: Path, model: Path, run: Run) -> Callable[..., Outcome]:
    """What ``predict`` says of them and then of the damaged ones, called in their folder, in a format."""
    given: dict[str, Outcome] = {}

    def answer(format: str) -> Outcome:
        if format not in given:
            files = [os.fsdecode(name) for name in NAMES]
            files += [f"damaged/{name}" for name in files]
            if format == "json":  # names with ./ before them need no --
                files = [f"./{name}" for name in files]
                words = ["predict", "-q", *files, "-m", model, "--format", format]
            else:
                words = ["predict", "-q", "-m", model, "--format", format, "--", *files]
            given[format] = run(*words, cwd=odd_names, environment=ASCII)
            assert given[format].exit_code == 3
        return given[format]

    return answer


def check_lines(outcome: Outcome) -> None:
    """A line a photo, with its name as it can be printed, first the good ones."""
    lines = outcome.stdout.splitlines()
    assert len(lines) == 2 * len(NAMES)
    names = [*SHOWN, *(f"damaged/{name}" for name in SHOWN)]
    for line, name in zip(lines, names, strict=True):
        assert line.startswith(f"{name}: "), line
        assert ("no answer: the picture is cut short" in line) is name.startswith("damaged/")


@pytest.mark.fault("I34")
def test_a_name_that_is_not_utf8(
    named_answers: Callable[..., Outcome], mess: Path, training: Training, run: Run, tmp_path: Path
) -> None:
    check_lines(named_answers("text"))
    answers = json.loads(named_answers("json").stdout.encode("ascii"))
    assert os.fsencode(answers[0]["path"]).endswith(NAMES[0])
    predictions = tmp_path / "predictions.csv"
    words = ("eval", mess, "-m", training.run, "--split", "all", "--format", "json", "--predictions", predictions)
    for encoding in ("C", "C.UTF-8"):
        done = run(*words, environment=ASCII | {"LC_ALL": encoding})
        assert done.exit_code == 0, done.stderr
        done.stdout.encode("ascii")
        names = [skipped["path"] for skipped in json.loads(done.stdout)["skipped"]]
        assert "hostile/not_utf8_\\xff\\xfe.jpg" in names
        assert "special/not_utf8_\\xff\\xfe.jpg" in predictions.read_text(encoding="utf-8")
    for written in training.run.iterdir():
        if written.suffix in (".html", ".md", ".json", ".jsonl", ".yaml"):
            written.read_bytes().decode("utf-8")
    assert "hostile/not_utf8_\\xff\\xfe.jpg" in page(training)


def page(training: Training) -> str:
    """The report's source, without the places where a long name may be broken."""
    return (training.run / "report.html").read_text(encoding="utf-8").replace("<wbr>", "")


@pytest.mark.fault("I35")
def test_a_line_break_in_a_name(named_answers: Callable[..., Outcome]) -> None:
    check_lines(named_answers("text"))
    table = named_answers("csv").stdout
    rows = list(csv.DictReader(io.StringIO(table)))
    assert len(table.splitlines()) == len(rows) + 1 == 2 * len(NAMES) + 1
    assert [row["path"] for row in rows[1:4]] == SHOWN[1:4]
    assert json.loads(named_answers("json").stdout)[1]["path"].endswith("new\nline.jpg")


@pytest.mark.fault("I36")
def test_no_escape_byte_reaches_the_terminal(named_answers: Callable[..., Outcome], training: Training) -> None:
    for format in ("text", "csv", "json"):
        outcome = named_answers(format)
        assert not {"\x1b", "\x07", "\u202e"} & set(outcome.stdout + outcome.stderr)
    assert "\x1b" not in training.outcome.stderr
    assert "\\x1b[31mred.jpg: the picture is cut short" in training.outcome.stderr


@pytest.mark.fault("I37")
def test_markup_in_a_name_is_text(named_answers: Callable[..., Outcome], training: Training) -> None:
    check_lines(named_answers("text"))
    assert "hostile/[/bold].jpg: the picture is cut short" in training.outcome.stderr


@pytest.mark.fault("I38")
def test_a_name_that_looks_like_an_option(named_answers: Callable[..., Outcome], training: Training) -> None:
    check_lines(named_answers("text"))  # after --
    by_path = {answer["path"]: answer["label"] for answer in json.loads(named_answers("json").stdout)}
    assert by_path["-rf.jpg"] is not None  # given as ./-rf.jpg
    assert by_path["--help.jpg"] is not None
    assert training.side("special/-rf.jpg")
    assert training.side("special/--help.jpg")


@pytest.mark.fault("I39")
def test_html_in_a_name_is_escaped(named_answers: Callable[..., Outcome], training: Training) -> None:
    assert "<img src=x" not in page(training)
    assert "hostile/&lt;img src=x onerror=alert(1)&gt;.jpg" in page(training)
    cells = [row["path"] for row in csv.DictReader(io.StringIO(named_answers("csv").stdout))]
    assert "'=1+1.jpg" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "-", "+", "@"))]


@pytest.mark.fault("I40")
def test_very_long_names_and_paths(
    named_answers: Callable[..., Outcome], made_people: Path, model: Path, run: Run, tmp_path: Path
) -> None:
    check_lines(named_answers("text"))
    assert "x" * 251 + ".jpg" in SHOWN
    data = Path(shutil.copytree(made_people, tmp_path / "people"))
    try:
        nest(data / "person_0000", 4100)
        predicted = run("predict", "-q", data / "person_0000", "-m", model, "--format", "json")
        assert predicted.exit_code == 3
        assert "File name too long" in json.loads(predicted.stdout)[-1]["error"]
        trained = run("train", data, *QUICK, "--dry-run", "--format", "json")
        assert trained.exit_code == 0
        assert json.loads(trained.stdout)["photos"]["skipped"] == 1
        assert "cannot be read (File name too long)" in trained.stderr
    finally:
        subprocess.run(["rm", "-rf", str(data)], check=True)


def nest(folder: Path, length: int) -> None:
    """Make folders in folders until the path of a photo in the last is longer than ``length``."""
    here = os.open(folder, os.O_RDONLY)
    photo = (folder / "0000.jpg").read_bytes()
    deep = len(os.fsencode(folder))
    while deep <= length:
        os.mkdir("d" * 200, dir_fd=here)
        here, above = os.open("d" * 200, os.O_RDONLY, dir_fd=here), here
        os.close(above)
        deep += 201
    file = os.open("photo.jpg", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(file, photo)
    os.close(file)
    os.close(here)


# Formats, and files that are not what they are called


@pytest.mark.fault("I41")
def test_formats_that_are_not_supported(images: Path, model: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pillow_heif'] = None\n", encoding="utf-8")
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n", encoding="utf-8")
    ghostscript.chmod(0o755)
    environment = {"PYTHONPATH": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    names = ["real/hopper.heif", "made/heic_header.jpg", "real/hopper.avif", "made/postscript.jpg"]
    words = ("predict", "-q", *(images / name for name in names), "-m", model, "--format", "json")
    given = as_answers(run(*words, environment=environment), images)
    assert given.outcome.exit_code == 3
    for name in names[:2]:
        reason = "HEIC is not supported here: pip install 'facecnn[heic]' or convert it to JPEG or PNG"
        assert given.reason(name) == reason
    assert given.reason(names[2]) == "AVIF is not supported: convert it to JPEG or PNG"
    assert given.reason(names[3]) == "PostScript is not supported: convert it to JPEG or PNG"
    assert not (tmp_path / "started").exists()


@pytest.mark.fault("I42")
def test_of_a_multi_picture_jpeg_the_first_is_used(answers: Answers) -> None:
    names = ("made/two_pictures.jpg", "made/two_pictures.mpo")
    answers.accepted(*names, "real/frame_size.mpo")
    first, second = (answers.answers[name]["probabilities"] for name in names)
    assert first == second
    assert answers.size("made/two_pictures.jpg") == answers.size("made/plain.jpg")


@pytest.mark.fault("I43")
def test_the_content_counts_not_the_suffix(answers: Answers) -> None:
    answers.accepted(*(f"made/really_{name}" for name in ("png.jpg", "jpeg.png", "webp.jpg", "gif.jpeg")))
    answers.accepted("made/nosuffix")


@pytest.mark.fault("I44")
def test_upper_case_suffixes_count(training: Training) -> None:
    assert training.side("made/UPPER.JPG")
    assert training.side("made/mixed.JpEg")


@pytest.mark.fault("I45")
def test_a_copy_stays_on_its_side(training: Training) -> None:
    copies = ["person_0000/0003 (1).jpg", "person_0000/0003.jpg"]
    assert copies in training.check["copies"]
    assert len({training.side(name) for name in copies}) == 1
    warnings = training.check["warnings"]
    assert any(one.startswith("the same photo more than once: person_0000/0003 (1).jpg") for one in warnings)


@pytest.mark.fault("I46")
def test_files_of_the_system_are_left_out_in_silence(images: Path, data: Path, run: Run) -> None:
    person = data / "person_0000"
    shutil.copy(images / "made" / "DS_Store", person / ".DS_Store")
    shutil.copy(images / "made" / "Thumbs.db", person / "Thumbs.db")
    shutil.copy(images / "made" / "appledouble.jpg", person / "._photo.jpg")
    (person / "desktop.ini").write_text("[.ShellClassInfo]\n", encoding="utf-8")
    for name in (".hidden.jpg", "photo.jpg~", "photo.jpg.part"):
        shutil.copy(images / "made" / "plain.jpg", person / name)
    done = run("train", data, *QUICK, "--strict", "--dry-run", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["photos"] == {"train": 28, "validation": 8, "skipped": 0}
    assert "warning" not in done.stderr


# Files that change under the program's hands


@pytest.mark.fault("I47")
@pytest.mark.long
def test_a_photo_replaced_while_training_runs(data: Path, images: Path, tmp_path: Path) -> None:
    with training_halted(data, tmp_path / "runs" / "run") as end:
        for photo in sorted((data / "person_0000").iterdir()):
            photo.write_bytes((images / "real" / "hopper.jpg").read_bytes())
        done = end()
    assert done.exit_code == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert epochs_done(tmp_path / "runs" / "run") == EPOCHS


@pytest.mark.fault("I48")
@pytest.mark.long
def test_a_photo_deleted_while_training_runs(data: Path, tmp_path: Path, run: Run) -> None:
    with training_halted(data, tmp_path / "runs" / "run") as end:
        for photo in sorted((data / "person_0000").iterdir()):
            photo.unlink()
        done = end()
    assert done.exit_code == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert epochs_done(tmp_path / "runs" / "run") == EPOCHS
    answer = run("predict", data / "person_0001" / "0000.jpg", "-m", tmp_path / "runs" / "run")
    assert answer.exit_code == 0


@pytest.mark.fault("I49")
def test_a_photo_that_is_still_being_copied(images: Path, model: Path, run: Run, tmp_path: Path) -> None:
    whole = (images / "real" / "truncated_exif_dpi.jpg").read_bytes()
    photo = tmp_path / "growing.jpg"
    photo.write_bytes(whole[:1000])
    over = threading.Event()

    def grow() -> None:
        for start in range(1000, len(whole) + 400_000, 1000):  # random bytes after the picture's end
            with photo.open("ab") as file:
                file.write(whole[start : start + 1000] or b"\x5a" * 1000)
            if over.wait(0.05):
                return

    copying = threading.Thread(target=grow)
    copying.start()
    try:
        done = run("predict", "-q", photo, "-m", model, "--format", "json", timeout=60)
    finally:
        over.set()
        copying.join()
    (answer,) = json.loads(done.stdout)
    if done.exit_code == 3:
        assert answer["error"] == "the picture is cut short (truncated): copy it again or delete it"
    else:
        assert (done.exit_code, answer["error"]) == (0, None)


# Damage


@pytest.mark.fault("I50")
def test_a_flipped_bit_in_a_png_is_found(answers: Answers, training: Training) -> None:
    for name in ("made/flipped_bit.png", "made/bad_crc_idat.png"):
        assert answers.reason(name) == training.reason(name)
        assert answers.reason(name).startswith("the picture is damaged (")
        assert "checksum" in answers.reason(name)


@pytest.mark.fault("I51")
def test_damage_inside_a_jpeg_is_documented(answers: Answers) -> None:
    answers.accepted("made/flipped_bytes.jpg", "made/zeros_in_the_middle.jpg", "made/taller_than_its_data.jpg")
    text = plain((Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8"))
    assert "Damage inside a JPEG" in text


@pytest.mark.fault("I52")
def test_damage_by_a_copy_in_text_mode_is_named(answers: Answers) -> None:
    for name in ("crlf_converted.png", "utf8_mangled.jpg", "bytes_before.jpg"):
        reason = "not a picture any more, damaged by a copy in text mode: copy it again or delete it"
        assert answers.reason(f"made/{name}") == reason


@pytest.mark.fault("I53")
def test_what_follows_a_picture_does_not_matter(answers: Answers) -> None:
    answers.accepted("made/garbage_after.jpg", "made/two_joined.jpg")
    of_plain = answers.answers["made/plain.jpg"]["probabilities"]
    for name in ("garbage_after.jpg", "two_joined.jpg"):
        assert answers.answers[f"made/{name}"]["probabilities"] == of_plain


@pytest.mark.fault("I54")
def test_tiffs_with_loops_and_crashers(images: Path, answers: Answers) -> None:
    names = [f"real/{path.name}" for pattern in ("oom-*", "crash-*") for path in (images / "real").glob(pattern)]
    assert len(names) >= 4
    as_expected(images, answers, ["made/ifd_loop.tif", "real/multipage_single_frame_loop.tiff", *names])
    only_the_end(answers.outcome)


@pytest.mark.fault("I55")
def test_bmps_with_odd_headers(images: Path, answers: Answers) -> None:
    names = [f"real/{path.name}" for path in (images / "real").glob("*.bmp")]
    assert len(names) >= 12
    as_expected(images, answers, names)


def as_expected(images: Path, answers: Answers, names: list[str]) -> None:
    """Each picture is refused or accepted as the table of the corpus says."""
    right = expected(images)
    for name in names:
        outcome = "refused" if answers.answers[name]["error"] else "ok"
        assert outcome in {one.split()[0] for one in right[name]}, (name, answers.answers[name]["error"])


@pytest.mark.fault("I56")
def test_a_sparse_giant_is_not_read(odd_answers: Answers) -> None:
    reason = odd_answers.reason("sparse_5GB.jpg")
    assert reason == "5.4 GB, larger than the 0.4 GB that are read: make it smaller"


@pytest.mark.fault("I57")
def test_the_whole_corpus_at_once(
    images: Path, all_pictures: list[Path], answers: Answers, model: Path, run: Run
) -> None:
    shuffled = all_pictures[::2] + all_pictures[1::2]
    done = run("predict", "-q", *shuffled, "-m", model)
    assert done.exit_code == 3
    lines = done.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == list(map(str, shuffled))
    for path, line in zip(shuffled, lines, strict=True):
        answer = answers.answers[str(path.relative_to(images))]
        assert line.partition(": ")[2].startswith(f"no answer: {answer['error']}" if answer["error"] else "person_")
    as_expected(images, answers, [str(path.relative_to(images)) for path in all_pictures if heic_apart(path, images)])


def heic_apart(path: Path, images: Path) -> bool:
    return str(path.relative_to(images)) not in HEIC


@pytest.mark.fault("I58")
def test_all_sizes_and_modes_train_together(images: Path, training: Training) -> None:
    for name, right in expected(images).items():
        if right[0].startswith("ok") and len(right) == 1:
            assert training.side(name)
    assert training.figures["train"]["loss"] > 0


@pytest.mark.fault("I59")
def test_switches_of_pillow_change_nothing(
    images: Path, answers: Answers, model: Path, run: Run, fresh_cache: Path, tmp_path: Path
) -> None:
    switches = "from PIL import ImageFile\nImageFile.LOAD_TRUNCATED_IMAGES = True\n"
    (tmp_path / "sitecustomize.py").write_text(switches, encoding="utf-8")
    environment = WARNINGS_ARE_ERRORS | {"PYTHONPATH": str(tmp_path), "FACECNN_CACHE_DIR": str(fresh_cache)}
    names = [f"made/{name}" for name in ("cut_50.jpg", "cut_50.png", "palette_transparent_bytes.png", "plain.jpg")]
    words = ("predict", "-q", *(images / name for name in names), "-m", model, "--format", "json")
    done = run(*words, environment=environment)
    assert done.exit_code == 3
    given = as_answers(done, images)
    assert given.answers == {name: answers.answers[name] for name in names}
    only_the_end(done)


@pytest.mark.fault("I60")
def test_train_and_predict_refuse_the_same(images: Path, answers: Answers, training: Training) -> None:
    refused = {one["path"]: one["reason"] for one in training.check["skipped"]}
    split = json.loads((training.run / "split.json").read_text(encoding="utf-8"))
    used = {*split["train"], *split["validation"]}
    for name, answer in answers.answers.items():
        if name == "made/Thumbs.db":  # left out of folders by its name
            continue
        assert refused.get(name) == answer["error"], name
        assert (name in used) is (answer["error"] is None), name
