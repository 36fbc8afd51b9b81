"""Object-centric crops: square pictures of one object each, and the annotation that belongs to them.

A crop shows its picture through one map, the same for every pixel, box side and point:

    crop = picture · scale + offset          picture = (crop - offset) / scale

with one scale for both axes and an offset (x, y) in pixels of the crop: where the picture's upper left corner
lands. Pixels are continuous as in `processing.geometry`: a picture spans [0, width] x [0, height]. The map is
exact; no size is rounded to whole pixels on the way, so that what inverts it is these three float64 numbers.

    center   scale = distance / target_distance, and (px, py) lands at (size / 2, size / 2): for 3D pose
    fit      scale = size / max(width, height), and the picture's centre lands there: for 6D pose

What becomes of an annotation: (px, py) and the four sides of the box go through the map; distance becomes
distance / scale; the angles and the viewport stay, as in the authors' crops. So distance alone carries the
scale, which takes the camera for a distant one. A point at z towards the camera from the object's centre, in
camera space, truly lands at scale · viewport · X / (d - z) from (px, py); with distance / scale and the same
viewport it is said to land at scale · viewport · X / (d - scale · z). Both agree for scale 1 and for z = 0,
the plane through the object's centre; else the second is (d - z) / (d - scale · z) times the first. Whoever
needs the exact camera of a crop takes distance · scale, which is the original distance, and viewport · scale:
with these `geometry.project` is the original projection sent through the map.

What a crop pixel shows is bicubic (a = -0.5): interpolated where the crop enlarges, with the kernel widened
by 1 / scale where it reduces, so that nothing is aliased. Outside its picture a crop is black (`PADDING`); a
pixel that the picture's edge divides is mixed by the share that it covers. Only the part of the picture that
is seen is resized, and a JPEG that is reduced is decoded at 1/2, 1/4 or 1/8 of its size where that still is
finer than the crop. `cykooz_resizer` resamples: it takes a sixth of Pillow's time, is told the part to show
in float64, and works in whole numbers, with the same result whatever vector instructions a processor has.

Grey, CMYK and palette pictures are converted to RGB; transparency is dropped and the stored colours are
shown; colour profiles are ignored. This is what training code gets from Pillow's `convert("RGB")`, but for
grey pictures of 16 bits, of which the upper eight are used.
"""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import pairwise

import numpy as np
import PIL.features
import PIL.Image
from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer

from ImageNet3D import Finding, ObjectAnnotation, Picture, shown
from processing.ledger import BAD_STATUS, BEYOND_CROPPING, IGNORED, NO_CENTRE, NO_DISTANCE, NO_STATUS

MODES = ("center", "fit")
PADDING = (0, 0, 0)  # RGB

# Pictures of the release are JPEGs, most of them enlarged here, so colour at half resolution loses nothing.
# Against the pixels: 45 dB at 71 KB a crop; 4:4:4 has 48 dB at 91 KB, quality 75 has 40 dB at 31 KB.
JPEG_OPTIONS = {"quality": 95, "subsampling": "4:2:0"}

# Numbers of an annotation past these belong to no photograph; float64 has room for all that is done to them.
MIN_DISTANCE, MAX_DISTANCE = 1e-6, 1e6  # units of the mesh
MAX_POSITION = 1e6  # pixels

# An edge this close to a whole crop pixel is on it: a fit of 500 px to 512 is not exact in float64.
_ON_PIXEL = 1e-6

_BICUBIC = ResizeAlg.convolution(FilterType.catmull_rom)
_RESIZER = Resizer()


@dataclass(frozen=True)
class CropOptions:
    """How to crop.

    Attributes:
        mode: of `MODES`.
        size: width and height of a crop, pixels, 1 to 4096.
        target_distance: the distance that objects have in `center` crops, units of the mesh, 0.001 to 1000.

    Raises:
        ValueError: for a value outside its range.
    """

    mode: str = "center"
    size: int = 512
    target_distance: float = 4.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; give one of {', '.join(MODES)}")
        if not 1 <= self.size <= 4096:
            raise ValueError(f"size is {self.size}; give 1 to 4096 pixels")
        if not 1e-3 <= self.target_distance <= 1e3:
            raise ValueError(f"target_distance is {self.target_distance}; give 0.001 to 1000")


@dataclass(frozen=True, slots=True)
class CropMap:
    """The map from a picture to a crop: crop = picture · scale + offset.

    Attributes:
        scale: pixels of the crop for one of the picture, > 0; the release calls it resize_rate.
        offset: x, y of the picture's upper left corner, pixels of the crop.
    """

    scale: float
    offset: tuple[float, float]

    def to_crop(self, x: float, y: float) -> tuple[float, float]:
        """A point of the picture, in the crop."""
        return x * self.scale + self.offset[0], y * self.scale + self.offset[1]

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        """A point of the crop, in the picture; the inverse of `to_crop` to the last bits of float64."""
        return (x - self.offset[0]) / self.scale, (y - self.offset[1]) / self.scale

    def annotation(self, item: ObjectAnnotation) -> ObjectAnnotation:
        """A posed object's annotation in the crop."""
        (x1, y1), (x2, y2) = self.to_crop(*item.bbox[:2]), self.to_crop(*item.bbox[2:])
        px, py = self.to_crop(item.px, item.py)
        return replace(item, bbox=(x1, y1, x2, y2), px=px, py=py, distance=item.distance / self.scale)


def crop_map(item: ObjectAnnotation, width: int, height: int, options: CropOptions) -> CropMap:
    """The map of one object's crop.

    Args:
        item: an object that `why_not_cropped` has nothing against.
        width, height: of the picture, pixels.
    """
    half = options.size / 2
    if options.mode == "center":
        scale = item.distance / options.target_distance
        return CropMap(scale, (half - item.px * scale, half - item.py * scale))
    scale = options.size / max(width, height)
    return CropMap(scale, (half - width * scale / 2, half - height * scale / 2))


def why_not_cropped(item: ObjectAnnotation) -> str:
    """The code of the rule, of `ledger.CROP_RULES`, that leaves a posed object without a crop; "" if none."""
    if item.ignored:
        return IGNORED
    if item.object_status is None:
        return NO_STATUS
    if item.object_status == "bad":
        return BAD_STATUS
    if item.distance is None or item.distance <= 0:
        return NO_DISTANCE
    if item.px is None or item.py is None:
        return NO_CENTRE
    if not MIN_DISTANCE <= item.distance <= MAX_DISTANCE:
        return BEYOND_CROPPING
    if any(abs(position) > MAX_POSITION for position in (item.px, item.py, *item.bbox)):
        return BEYOND_CROPPING
    return ""


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
    return Pixels(_rgb(image), width, height, reduction)


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # a PNG of 16 bits a pixel, which Pillow would cut off at 255
        return PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def crop(pixels: Pixels, place: CropMap, size: int) -> PIL.Image.Image:
    """The size x size RGB picture that a map shows."""
    source, scale = pixels.image, place.scale * pixels.reduction
    columns = _visible(place.offset[0], pixels.width * place.scale, size)
    rows = _visible(place.offset[1], pixels.height * place.scale, size)
    canvas = PIL.Image.new("RGB", (size, size), PADDING)
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
        image: RGB, square.
    """

    item: ObjectAnnotation
    place: CropMap
    image: PIL.Image.Image

    def jpeg(self) -> bytes:
        """The image as a JPEG file (`JPEG_OPTIONS`), without EXIF and colour profile."""
        stream = io.BytesIO()
        self.image.save(stream, "JPEG", **JPEG_OPTIONS)
        return stream.getvalue()


def crops(picture: Picture, options: CropOptions, findings: list[Finding]) -> Iterator[Crop]:
    """The crops of all objects of a picture that have one, in their order; the picture is decoded once.

    Args:
        findings: gets one finding for each of these objects if the picture's pixels cannot be decoded.
    """
    items = [item for item in picture.annotation.objects if item.posed and not why_not_cropped(item)]
    places = [crop_map(item, picture.width, picture.height, options) for item in items]
    if not items:
        return
    try:
        pixels = decode(picture.data, max(place.scale for place in places))
    except Exception as error:  # damaged pictures fail in many ways, all of them this one finding
        findings += _undecodable(picture, items, error)
        return
    for item, place in zip(items, places, strict=True):
        yield Crop(item, place, crop(pixels, place, options.size))


def _undecodable(picture: Picture, items: Sequence[ObjectAnnotation], error: Exception) -> Iterator[Finding]:
    text = shown(f"{type(error).__name__}: {error}")
    for item in items:
        yield Finding("picture_undecodable", picture.entry.picture_file, item.index, text)
