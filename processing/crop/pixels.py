"""The pixels of object-centric crops; `place` says where they come from.

What a crop pixel shows is bicubic (a = -0.5): interpolated where the crop enlarges, with the kernel widened
by 1 / scale where it reduces, so that nothing is aliased. Outside its picture a crop is black (`PADDING`); a
pixel that the picture's edge divides is mixed by the share that it covers. Only the part of the picture that
is seen is resized, and a JPEG that is reduced is decoded at 1/2, 1/4 or 1/8 of its size where that still is
finer than the crop. `cykooz_resizer` resamples: it takes a sixth of Pillow's time, is told the part to show
in float64, and works in whole numbers, with the same result whatever vector instructions a processor has.
"""

import io
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise

import PIL.features
import PIL.Image
from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer

from ImageNet3D import Finding, ObjectAnnotation, Picture, shown
from processing.crop.place import CropMap, CropOptions, crop_map, why_not_cropped
from processing.drawing.rgb import to_rgb

PADDING = (0, 0, 0)  # RGB
UNDECODABLE = "picture_undecodable"

# Pictures of the release are JPEGs, most of them enlarged here, so colour at half resolution loses nothing.
# Against the pixels: 45 dB at 71 KB a crop; 4:4:4 has 48 dB at 91 KB, quality 75 has 40 dB at 31 KB.
JPEG_OPTIONS = {"quality": 95, "subsampling": "4:2:0"}

# An edge this close to a whole crop pixel is on it: a fit of 500 px to 512 is not exact in float64.
_ON_PIXEL = 1e-6

_BICUBIC = ResizeAlg.convolution(FilterType.catmull_rom)
_RESIZER = Resizer()


def libraries() -> list[str]:
    """The versions of what decodes, resamples and encodes: the bytes of crops depend on them."""
    return [PIL.__version__, str(PIL.features.version("jpg")), metadata.version("cykooz_resizer")]


# --------------------------------------------------------------------------------------------------------
# Pixels
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pixels:
    """A decoded picture, perhaps at a fraction of its size.

    Attributes:
        image: RGB.
        width, height: of the whole picture, pixels; the image spans them rounded up over `reduction`.
        reduction: 1, 2, 4 or 8; a pixel of the image covers so many of the picture along each axis.
    """

    image: PIL.Image.Image
    width: int
    height: int
    reduction: int = 1


def decode(data: bytes, scale: float) -> Pixels:
    """Decode a picture for crops of at most this scale.

    Memory is at most 4 bytes a pixel, and twice that for pictures that are not RGB; `read_picture` has
    refused those of more than `MAX_PICTURE_PIXELS`.

    Raises:
        Exception: of many kinds, if the pixels cannot be decoded.
    """
    image = PIL.Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
    width, height = image.size
    reduction = next(k for k in (8, 4, 2, 1) if k * scale <= 1 or k == 1)
    if reduction > 1 and image.format == "JPEG":
        # The decoder may settle for less in tiny pictures; the size it names is not rounded.
        drafted = image.draft(image.mode, (max(1, width // reduction), max(1, height // reduction)))
        reduction = round(width / drafted[1][2]) if drafted else 1
    else:
        reduction = 1
    image.load()
    return Pixels(to_rgb(image), width, height, reduction)


def crop(pixels: Pixels, place: CropMap, size: tuple[int, int]) -> PIL.Image.Image:
    """The RGB picture, of a width and height, that a map shows."""
    source, scale = pixels.image, place.scale * pixels.reduction
    columns = _visible(place.offset[0], pixels.width * place.scale, size[0])
    rows = _visible(place.offset[1], pixels.height * place.scale, size[1])
    canvas = PIL.Image.new("RGB", size, PADDING)
    for y1, y2 in rows:
        top, bottom = _span(y1, y2, place.offset[1], scale, source.height)
        for x1, x2 in columns:
            left, right = _span(x1, x2, place.offset[0], scale, source.width)
            corner = (math.floor(x1), math.floor(y1))
            extent = (math.ceil(x2) - corner[0], math.ceil(y2) - corner[1])
            patch = canvas if extent == canvas.size else PIL.Image.new("RGB", extent)
            box = CropBox(left, top, right - left, bottom - top)
            _RESIZER.resize_pil(source, patch, ResizeOptions(resize_alg=_BICUBIC, crop_box=box))
            covered = (x2 - x1) * (y2 - y1) / (extent[0] * extent[1])
            if covered < 1:
                patch = PIL.Image.blend(PIL.Image.new("RGB", extent, PADDING), patch, covered)
            if patch is not canvas:
                canvas.paste(patch, corner)
    return canvas


def _visible(start: float, length: float, size: int) -> list[tuple[float, float]]:
    """What of a picture is in a crop along one axis, cut where wholly covered crop pixels begin and end.

    Returns:
        Up to three (from, to): each covers whole crop pixels, or a part of one.
    """
    start, stop = (min(max(_snapped(edge), 0), size) for edge in (start, start + length))
    cuts = [start, math.ceil(start), math.floor(stop), stop]
    if cuts[1] > cuts[2]:  # within one pixel
        cuts = [start, stop]
    return [(a, b) for a, b in pairwise(cuts) if a < b]


def _snapped(edge: float) -> float:
    return float(round(edge)) if abs(edge - round(edge)) < _ON_PIXEL else edge


def _span(start: float, stop: float, offset: float, scale: float, length: int) -> tuple[float, float]:
    """The part of the source, in its pixels, that a part of the crop shows; never past the source's ends."""
    first, last = (min(max((edge - offset) / scale, 0.0), float(length)) for edge in (start, stop))
    return first, max(first, last)


# --------------------------------------------------------------------------------------------------------
# The crops of a picture
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Crop:
    """One object's crop.

    Attributes:
        item: the annotation in the picture.
        place: the map from the picture to the crop; `place.annotation(item)` is the annotation in the crop.
        image: RGB.
    """

    item: ObjectAnnotation
    place: CropMap
    image: PIL.Image.Image

    def jpeg(self) -> bytes:
        """The image as a JPEG file (`JPEG_OPTIONS`), without EXIF and colour profile."""
        stream = io.BytesIO()
        self.image.save(stream, "JPEG", **JPEG_OPTIONS)
        return stream.getvalue()


def crops(
    picture: Picture, options: CropOptions, findings: list[Finding], left_out: Counter[str]
) -> Iterator[Crop]:
    """The crops of all objects of a picture that have one, in their order; the picture is decoded once.

    Args:
        findings: gets one finding for each of these objects if the picture's pixels cannot be decoded.
        left_out: counts the posed objects without a crop, by code.
    """
    size = picture.width, picture.height
    items: list[ObjectAnnotation] = []
    for item in picture.annotation.objects:
        if item.posed and (why := why_not_cropped(item, size, options)):
            left_out[why] += 1
        elif item.posed:
            items.append(item)
    if not items:
        return
    places = [crop_map(item, *size, options) for item in items]
    try:
        pixels = decode(picture.data, max(place.scale for place in places))
    except Exception as error:  # damaged pictures fail in many ways, all of them this one finding
        text = shown(f"{type(error).__name__}: {error}")
        findings += (Finding(UNDECODABLE, picture.entry.picture_file, item.index, text) for item in items)
        left_out[UNDECODABLE] += len(items)
        return
    for item, place in zip(items, places, strict=True):
        yield Crop(item, place, crop(pixels, place, options.size))
