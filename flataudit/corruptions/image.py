"""Corruptions of images at five severities, in units of the data's own range and width.

After Hendrycks and Dietterich (2019), with those of MNIST-C (Mu and Gilmer 2019) that have a meaning from 8 × 8
pixels up. Lengths are shares of the width and not pixels: a shift by one pixel is nothing at 224 × 224 and ruin at
8 × 8. Every function takes images ``(n, channels, height, width)`` in float64 and gives as many; what leaves the range
is clipped by the suite.
"""

from collections.abc import Mapping

from flataudit.corruptions.graded import Graded
from flataudit.corruptions.image_blur import blur, defocus, motion, zoom
from flataudit.corruptions.image_coding import jpeg, pixelate
from flataudit.corruptions.image_light import brightness, contrast, fog, gamma, saturate
from flataudit.corruptions.image_noise import impulse, noise, occlusion, shot
from flataudit.corruptions.image_warp import elastic, rotate, scale, shear, translate
from flataudit.corruptions.ranges import Range

__all__ = ["IMAGE_CORRUPTIONS", "IMAGE_DEFAULTS", "Range"]


def _has_colours(span: Range) -> str | None:
    return None if span.channels == 3 else f"it needs colours, and the images have {span.channels or 1} channel"


IMAGE_DEFAULTS = ("noise", "impulse", "blur", "brightness", "contrast", "translate", "occlusion")
"""A fast selection with one or two of each sort."""
IMAGE_CORRUPTIONS: Mapping[str, Graded[Range]] = {
    "noise": Graded(noise, (0.04, 0.08, 0.12, 0.18, 0.26)),
    "shot": Graded(shot, (0.08, 0.15, 0.23, 0.35, 0.5)),
    "impulse": Graded(impulse, (0.02, 0.04, 0.08, 0.12, 0.18)),
    "blur": Graded(blur, (0.02, 0.04, 0.06, 0.08, 0.1)),
    "defocus": Graded(defocus, (0.02, 0.04, 0.065, 0.1, 0.14)),
    "motion": Graded(motion, (0.05, 0.09, 0.15, 0.24, 0.38)),
    "zoom": Graded(zoom, (0.04, 0.08, 0.13, 0.22, 0.36)),
    "brightness": Graded(brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Graded(contrast, (0.8, 0.65, 0.5, 0.35, 0.2), neutral=1.0, utmost=0.0),
    "fog": Graded(fog, (0.06, 0.12, 0.18, 0.26, 0.35), utmost=1.0),
    "saturate": Graded(saturate, (0.2, 0.4, 0.6, 0.8, 1.0), needs=_has_colours),
    "gamma": Graded(gamma, (1.2, 1.5, 1.9, 2.5, 3.5), neutral=1.0),
    "pixelate": Graded(pixelate, (0.04, 0.07, 0.11, 0.16, 0.23)),
    "jpeg": Graded(jpeg, (50.0, 25.0, 12.0, 6.0, 3.0), neutral=100.0, utmost=1.0),
    "elastic": Graded(elastic, (0.006, 0.011, 0.018, 0.028, 0.042)),
    "shear": Graded(shear, (0.03, 0.06, 0.1, 0.16, 0.24)),
    "rotate": Graded(rotate, (2.0, 4.0, 6.0, 10.0, 15.0)),
    "translate": Graded(translate, (0.017, 0.033, 0.05, 0.075, 0.1)),
    "scale": Graded(scale, (1.03, 1.06, 1.1, 1.17, 1.27), neutral=1.0),
    "occlusion": Graded(occlusion, (0.1, 0.17, 0.25, 0.32, 0.4)),
}
"""Every corruption of images; the amounts are what the functions' docstrings say."""
