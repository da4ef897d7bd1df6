import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from facecnn.errors import PhotoError, shown
from facecnn.photos.decode import BACKGROUND, Decoded, UnusablePhoto, decode, read, upright

from .pictures import encoded, picture


def decode_file(path: Path) -> Decoded:
    return decode(read(path), path)


def refusal(data: bytes) -> str:
    with pytest.raises(UnusablePhoto) as caught:
        decode(data, "x.jpg")
    return caught.value.reason


@pytest.fixture
def no_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra heic isn't installed."""
    monkeypatch.setattr("facecnn.photos.decode.heic_supported", lambda: False)


@pytest.mark.usefixtures("no_heic")
def test_every_file_of_the_corpus_is_answered_as_expected(corpus: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = []
    lines = (corpus / "expected.tsv").read_text(encoding="utf-8").splitlines()[1:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for line in lines:
            name, outcome, _, _, also = (line.split("\t") + [""] * 4)[:5]
            try:
                image = decode_file(corpus / name).image
                answer = f"ok {image.width}x{image.height}"
                assert image.mode in ("L", "RGB")
            except UnusablePhoto as error:
                answer = "refused"
                size = outcome.removeprefix("refused too-large ")
                if size != outcome and f"{size} pixels, more than 50 million" not in str(error):
                    answer = str(error)
            accepted = [outcome, *filter(None, also.split("; "))]
            if answer not in [one.split()[0] if one.startswith("refused") else one for one in accepted]:
                wrong.append((name, outcome, answer))
    assert len(lines) > 200
    assert wrong == []
    assert capfd.readouterr().err == ""  # neither Pillow's warnings nor libtiff's complaints


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "MPO"])
def test_formats_are_known_by_their_content(form: str, tmp_path: Path) -> None:
    path = tmp_path / "name.txt"
    path.write_bytes(encoded(picture(1), form))
    decoded = decode_file(path)
    assert decoded.image.size == (60, 80)
    assert decoded.notes == ()
    difference = np.asarray(decoded.image.convert("RGB")).astype(float) - np.asarray(picture(1))
    assert np.abs(difference).mean() < 12


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_put_upright_once(form: str, orientation: int) -> None:
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = picture(2)
    options = {"tiffinfo": {0x0112: orientation}} if form == "TIFF" else {"exif": exif}
    turned = expected if stored is None else expected.transpose(stored)
    decoded = decode(encoded(turned, form, **options), "x").image
    assert decoded.size == expected.size
    assert np.abs(np.asarray(decoded).astype(float) - np.asarray(expected)).mean() < 12


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_a_picture_in_memory_is_decoded_as_its_file(form: str, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    options = {"tiffinfo": {0x0112: 8}} if form == "TIFF" else {"exif": exif} if form not in ("GIF", "BMP") else {}
    image = picture(2).convert("RGB" if (form, mode) in (("WEBP", "1"), ("JPEG", "P"), ("WEBP", "P")) else mode)
    data = encoded(image, form, **options)
    from_file, from_memory = decode(data, "x"), upright(Image.open(io.BytesIO(data)), "x")
    assert from_memory.image.mode == from_file.image.mode
    assert np.array_equal(from_memory.image, from_file.image)
    assert from_memory.size == from_file.size
    assert (from_memory.reduction, from_memory.notes) == (1, ())


def test_a_picture_in_memory_is_refused_as_its_file() -> None:
    def reason(image: Image.Image, largest: int = 10_000) -> str:
        with pytest.raises(UnusablePhoto, match=r"^mine: ") as caught:
            upright(image, "mine", largest)
        return caught.value.reason

    assert "too small" in reason(picture(1, 7, 20))
    assert "120x100 pixels, more than 0.01 million" in reason(picture(1, 120, 100))
    assert "32-bit pixels" in reason(Image.new("F", (20, 20)))
    assert "cut short" in reason(Image.open(io.BytesIO(encoded(picture(1), "PNG")[:-2000])))
    assert upright(Image.new("L", (20, 20)), "mine").notes == ("no content: every pixel is the same",)


def test_wrong_orientations_count_as_none() -> None:
    exif = Image.Exif()
    for value in (0, 9, 1000):
        exif[0x0112] = value
        assert decode(encoded(picture(2), "JPEG", exif=exif), "x").image.size == (60, 80)


def test_transparency_shows_the_documented_background() -> None:
    red = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    red.paste((255, 0, 0, 255), (0, 0, 10, 20))
    pixels = np.asarray(decode(encoded(red), "x").image)
    assert (pixels[:, :10] == [255, 0, 0]).all()
    assert (pixels[:, 10:] == BACKGROUND).all()
    palette = Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20) % 4).convert("P")
    pixels = np.asarray(decode(encoded(palette, transparency=2), "x").image)
    assert (pixels[0, 2] == BACKGROUND).all()
    grey = Image.merge("LA", (Image.linear_gradient("L"), Image.new("L", (256, 256), 0)))
    decoded = decode(encoded(grey), "x")
    assert decoded.image.mode == "L"
    assert (np.asarray(decoded.image) == BACKGROUND).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form: str) -> None:
    grey = np.asarray(picture(3).convert("L"))
    image = Image.fromarray(grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(np.asarray(decode(encoded(image, form), "x").image), grey)


def test_the_transparent_grey_of_sixteen_bits_shows_the_background() -> None:
    values = np.full((20, 20), 60000, np.uint16)
    values[3, 5] = 40000
    pixels = np.asarray(decode(encoded(Image.fromarray(values), transparency=40000), "x").image)
    assert pixels[3, 5] == BACKGROUND
    assert np.unique(pixels).tolist() == [BACKGROUND, 233]  # 60000 / 257


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_thirty_two_bits_are_refused(dtype: type) -> None:
    image = Image.fromarray(np.linspace(0, 1, 400).reshape(20, 20).astype(dtype))
    assert "32-bit pixels are not supported" in refusal(encoded(image, "TIFF"))


def test_cmyk_is_no_negative() -> None:
    decoded = decode(encoded(picture(4).convert("CMYK"), "JPEG", quality=95), "x").image
    assert np.abs(np.asarray(decoded).astype(float) - np.asarray(picture(4))).mean() < 12


def test_the_first_frame_is_used_and_said() -> None:
    frames = [picture(seed).quantize(64) for seed in (5, 6, 7)]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(gif, "x").notes == ("several frames, the first used",)
    assert decode(gif[:-300], "x").image.size == (60, 80)  # only later frames are broken
    webp = encoded(picture(5), "WEBP", save_all=True, append_images=[picture(6), picture(7)])
    assert decode(webp, "x").notes == ("3 frames, the first used",)


def test_a_picture_without_content_is_said() -> None:
    assert decode(encoded(Image.new("RGB", (20, 20), "red")), "x").notes == ("no content: every pixel is the same",)


def test_a_picture_without_any_blue_has_content() -> None:
    gradient = Image.linear_gradient("L")
    yellow = Image.merge("RGB", (gradient, gradient, Image.new("L", gradient.size)))
    assert decode(encoded(yellow), "x").notes == ()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_giant_declared_size_is_refused_before_decoding() -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    assert refusal(png) == (
        "60000x60000 pixels, more than 50 million: make it smaller, or raise photos.largest_picture"
    )
    gif = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b","
    gif += struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\0;"
    assert "65535x65535 pixels" in refusal(gif)


@pytest.mark.parametrize(("largest", "reduction"), [(20_000, 1), (19_999, 2), (4_999, 4)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_of_too_many_pixels_is_read_at_a_fraction(
    largest: int, reduction: int, options: dict[str, bool]
) -> None:
    whole = picture(11, 200, 100)
    decoded = decode(encoded(whole, "JPEG", quality=95, **options), "x", largest)
    assert decoded.reduction == reduction
    assert decoded.size == (200, 100)
    assert decoded.image.size == (200 // reduction, 100 // reduction)
    expected = np.asarray(whole.reduce(reduction), dtype=float)
    assert np.abs(np.asarray(decoded.image) - expected).mean() < 4
    note = f"0 megapixels, read at 1/{reduction} of its sides"
    assert decoded.notes == (() if reduction == 1 else (note,))


@pytest.mark.parametrize(("enough", "reduction"), [(201, 1), (101, 1), (100, 2), (50, 4), (20, 8), (1, 8)])
def test_a_jpeg_is_read_as_small_as_is_enough(enough: int, reduction: int) -> None:
    whole = picture(11, 200, 100)
    decoded = decode(encoded(whole, "JPEG", quality=95), "x", enough=enough)
    assert (decoded.reduction, decoded.size) == (reduction, (200, 100))
    assert decoded.image.size == (-(-200 // reduction), -(-100 // reduction))
    assert decode(encoded(whole, "PNG"), "x", enough=enough).reduction == 1


@pytest.mark.parametrize(("enough", "reduction"), [(101, 1), (51, 1), (50, 2), (25, 4), (12, 8), (1, 8)])
def test_it_may_also_be_enough_across(enough: int, reduction: int) -> None:
    for size in ((200, 100), (100, 200)):
        decoded = decode(encoded(picture(11, *size), "JPEG"), "x", enough_across=enough)
        assert (decoded.reduction, decoded.size, decoded.notes) == (reduction, size, ())
    assert decode(encoded(picture(11, 200, 100)), "x", enough_across=enough).reduction == 1


def test_a_fraction_is_put_upright_and_its_full_size_told() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = picture(12, 90, 150).transpose(Image.Transpose.ROTATE_90)
    decoded = decode(encoded(stored, "MPO", exif=exif, quality=95), "x", 90 * 150 - 1)
    assert decoded.size == (90, 150)
    assert decoded.image.size == (45, 75)
    assert np.abs(np.asarray(decoded.image) - np.asarray(picture(12, 90, 150).reduce(2), dtype=float)).mean() < 4


def test_a_jpeg_may_have_five_times_the_pixels_of_other_pictures() -> None:
    jpeg = encoded(picture(1, 100, 100), "JPEG")
    assert decode(jpeg, "x", 2_000).image.size == (25, 25)
    with pytest.raises(UnusablePhoto, match=r"100x100 pixels, more than .* for a JPEG.*raise photos.largest_picture"):
        decode(jpeg, "x", 1_999)
    for form in ("PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"):
        data = encoded(picture(1, 100, 100), form)
        assert decode(data, "x", 10_000).image.size == (100, 100)
        with pytest.raises(UnusablePhoto, match="100x100 pixels, more than"):
            decode(data, "x", 9_999)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 100), (100, 7)])
def test_too_small_pictures_are_refused(width: int, height: int) -> None:
    reason = refusal(encoded(picture(1, width, height)))
    assert reason == f"{width}x{height} pixels, too small for a face (at least 8)"


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"hello, this is text\n", "text"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b'<?xml version="1.0"?>\n<svg/>', "SVG is not supported"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"PK\x03\x04 and more", "an archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "pip install 'facecnn[heic]'"),
        (b"\0\0\0\x18ftypmp42" + bytes(40), "a video"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript is not supported"),
        (bytes(4096), "nothing but zeros"),
        (b"\x89PNG\r\r\n\x1a\r\n" + bytes(50), "text mode"),
        (b"\xff\xd8", "damaged"),
        (b"\x01\x02\x03\x04", "not a picture"),
    ],
)
@pytest.mark.usefixtures("no_heic")
def test_what_is_no_picture_is_named(data: bytes, part: str) -> None:
    assert part in refusal(data)


def test_heic_is_read_with_its_extra() -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    data = encoded(picture(1), "HEIF", quality=90)
    decoded = decode(data, "x.heic").image
    assert decoded.size == (60, 80)
    assert np.abs(np.asarray(decoded.convert("RGB")).astype(float) - np.asarray(picture(1))).mean() < 12
    assert "HEIC" in refusal(data[:40] + bytes(100))


def test_avif_is_refused_by_name() -> None:
    assert refusal(encoded(picture(1), "AVIF")).startswith("AVIF is not supported")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_pictures_cut_short_are_refused(form: str) -> None:
    data = encoded(picture(8), form)
    for share in (0.05, 0.5, 0.95):
        assert refusal(data[: int(len(data) * share)])


@pytest.mark.parametrize("place", [200, -13], ids=["of the pixels", "of their checksum"])  # the last chunk has 12 bytes
def test_a_png_with_a_wrong_byte_is_refused(place: int) -> None:
    data = bytearray(encoded(picture(9)))
    data[place] ^= 0x10
    assert "damaged" in refusal(bytes(data))


def test_damage_in_a_tiff_writes_nothing_to_stderr_where_others_still_can(capfd: pytest.CaptureFixture[str]) -> None:
    tiff = encoded(picture(8), "TIFF", compression="tiff_lzw")
    refusal(tiff[:8] + bytes(1000) + tiff[1008:])  # the pixels come first
    os.write(2, b"said by others")
    assert capfd.readouterr().err == "said by others"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_leads_to_a_picture_or_a_reason(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"]))
    content = bytearray(encoded(picture(10, 24, 24), form))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        answer = decode(bytes(content), "x").image.mode
    except UnusablePhoto as error:
        answer = error.reason
    assert answer.isprintable()


def test_settings_of_pillow_and_warnings_are_ours_within_and_as_before_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    jpeg = encoded(picture(8), "JPEG")
    transparent = picture(1).quantize(8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        threads = [
            threading.Thread(target=lambda: [decode(encoded(transparent, transparency=bytes(8)), "x")] * 5)
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        assert "cut short" in refusal(jpeg[: len(jpeg) // 2])
        for thread in threads:
            thread.join()
        assert warnings.filters == filters
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert Image.MAX_IMAGE_PIXELS == 100


def test_special_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "lost.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "null.jpg").symlink_to("/dev/null")
    expected = {
        "pipe.jpg": "not a regular file (a pipe)",
        "folder.jpg": "not a regular file (a folder)",
        "null.jpg": "not a regular file (a device)",
        "empty.jpg": "empty file (0 bytes)",
        "loop.jpg": "a link that leads back to itself",
        "lost.jpg": "a link to nowhere.jpg, which does not exist",
        "missing.jpg": "no such file",
        "x" * 300: "cannot be read (File name too long)",
        "nul\0.jpg": "no such file",
    }
    for name, reason in expected.items():
        with pytest.raises(PhotoError) as caught:
            decode_file(tmp_path / name)
        assert str(caught.value).startswith(f"{shown(tmp_path / name)}: {reason}")
        assert not caught.value.in_content


def test_a_giant_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "giant.jpg"
    with path.open("wb") as file:
        file.write(encoded(picture(1), "JPEG"))
        file.truncate(5 << 30)
    with pytest.raises(UnusablePhoto, match=r"5\.4 GB, larger than"):
        read(path)


def test_a_read_error_is_told(tmp_path: Path) -> None:
    if not Path("/proc/self/mem").exists():
        pytest.skip("needs a file whose read fails")
    (tmp_path / "bad.jpg").symlink_to("/proc/self/mem")
    with pytest.raises(UnusablePhoto, match="cannot be read"):
        read(tmp_path / "bad.jpg")


def test_names_are_shown_without_control_characters() -> None:
    name = os.fsdecode(b"a\x1b[31m\nb\xff\x7f") + "\u202e\u0085写真 é😀\\[bold]"
    assert shown(name) == r"a\x1b[31m\x0ab\xff\x7f\u202e\x85写真 é😀\[bold]"
    shown(name).encode("utf-8")
    with pytest.raises(UnusablePhoto) as caught:
        decode(b"text", name)
    assert str(caught.value).isprintable()


def test_memory_that_runs_out_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(UnusablePhoto, match="not enough memory") as caught:
        decode(encoded(picture(1)), "x")
    assert not caught.value.in_content
