"""Colours of a camera's or a program's own → those that every screen takes a picture's for."""

from __future__ import annotations

import io

from PIL import Image, ImageCms


def to_srgb(image: Image.Image) -> Image.Image:
    """The picture with the colours of its ICC profile in sRGB; as it is where it has none, or one that can't be used.

    So the profile, which may name a device, needn't be kept. ``image`` has mode L or RGB; the result's ``info`` is not
    to be relied on.
    """
    data = image.info.get("icc_profile")
    if not data or image.mode != "RGB":
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        if profile.profile.xcolor_space.strip() != "RGB" or "sRGB" in (profile.profile.profile_description or ""):
            return image  # of a picture that was CMYK, or nothing to do
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if converted is None else converted
