"""Colours as a camera or a program means them → sRGB."""

import numpy as np
from PIL import Image, ImageCms

from facecnn.jobs.draw import to_srgb


def turned_profile() -> bytes:
    """The ICC profile of a device whose red is what others call green, its green their blue, and its blue their red."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = data.replace(b"rXYZ", b"tmp!").replace(b"gXYZ", b"rXYZ").replace(b"bXYZ", b"gXYZ").replace(b"tmp!", b"bXYZ")
    return data.replace("sRGB".encode("utf-16-be"), "odd!".encode("utf-16-be"))


def picture(profile: bytes | None, mode: str = "RGB") -> Image.Image:
    image = Image.new("RGB", (4, 4), (200, 40, 20)).convert(mode)
    if profile is not None:
        image.info["icc_profile"] = profile
    return image


def test_a_profile_is_applied() -> None:
    seen = np.asarray(to_srgb(picture(turned_profile())))[0, 0].astype(int)
    assert np.abs(seen - (20, 200, 40)).max() <= 6


def test_pictures_in_srgb_stay_to_the_bit() -> None:
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (None, plain):
        assert np.array_equal(to_srgb(picture(profile)), picture(None))


def test_a_profile_that_cannot_be_used_is_left() -> None:
    other = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (b"nonsense", turned_profile()[:300], other):
        assert np.array_equal(to_srgb(picture(profile)), picture(None))
    assert np.array_equal(to_srgb(picture(turned_profile(), "L")), picture(None, "L"))
