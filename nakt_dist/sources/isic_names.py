"""How images of the ISIC archive are called, in folders and in tables."""

import re

ISIC_NAME = re.compile(r"ISIC_\d+(_downsampled)?", re.IGNORECASE)


def image_stem(name: str) -> str:
    """Returns the name of an image without folders and suffix, with which some tables write it."""
    return without_suffix(name.replace("\\", "/").rpartition("/")[2])


def without_suffix(name: str) -> str:
    """Returns a name without the suffix of an image."""
    return re.sub(r"\.(jpe?g|png)\Z", "", name, flags=re.IGNORECASE)


def compared_name(name: str) -> str:
    """Returns the form in which the names of one image are the same wherever they stand."""
    return image_stem(name).upper().removesuffix("_DOWNSAMPLED")
