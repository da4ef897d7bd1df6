"""Converts pictures from the colours of a camera or program to sRGB, which screens expect."""

from __future__ import annotations

import io

from PIL import Image, ImageCms


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert a picture to sRGB; it stays as it is if it has no ICC profile, or one that can't be used.

    So the profile, which may identify a device, needn't be kept. Don't rely on ``info`` of the result.
    """
    data = image.info.get("icc_profile")
    if not data or image.mode != "RGB":
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        if profile.profile.xcolor_space.strip() != "RGB" or "sRGB" in (profile.profile.profile_description or ""):
            return image  # the profile of a former CMYK picture, or nothing to convert
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if converted is None else converted
