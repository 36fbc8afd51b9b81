"""Where an object's crop lies in its picture: one map for pixels, boxes and points, and who has a crop.

A crop shows its picture through one map, the same for every pixel, box side and point:

    crop = picture · scale + offset          picture = (crop - offset) / scale

with one scale for both axes and an offset (x, y) in pixels of the crop: where the picture's upper left corner
lands. Pixels are continuous as in `processing.geometry`: a picture spans [0, width] x [0, height]. The map is
exact; no size is rounded to whole pixels on the way, so that what inverts it is these three float64 numbers.

    center   scale = distance / target_distance, and (px, py) lands at the crop's centre: for 3D pose
    fit      the largest scale at which the whole picture fits, and its centre lands there: for 6D pose

What becomes of an annotation: (px, py) and the four sides of the box go through the map; distance becomes
distance / scale; the angles and the viewport stay, as in the authors' crops. So distance alone carries the
scale, which takes the camera for a distant one. A point at z towards the camera from the object's centre, in
camera space, truly lands at scale · viewport · X / (d - z) from (px, py); with distance / scale and the same
viewport it is said to land at scale · viewport · X / (d - scale · z). Both agree for scale 1 and for z = 0,
the plane through the object's centre; else the second is (d - z) / (d - scale · z) times the first. Whoever
needs the exact camera of a crop takes distance · scale, which is the original distance, and viewport · scale:
with these `geometry.project` is the original projection sent through the map.
"""

from dataclasses import dataclass, replace

from ImageNet3D import ObjectAnnotation
from processing.accounts import (
    BAD_STATUS,
    BEYOND_CROPPING,
    EMPTY_CROP,
    IGNORED,
    NO_CENTRE,
    NO_DISTANCE,
    NO_STATUS,
)

MODES = ("center", "fit")
MAX_SIDE = 4096  # pixels

# Numbers of an annotation past these belong to no photograph; float64 has room for all that is done to them.
MIN_DISTANCE, MAX_DISTANCE = 1e-6, 1e6  # units of the mesh
MAX_POSITION = 1e6  # pixels


@dataclass(frozen=True)
class CropOptions:
    """How to crop.

    Attributes:
        mode: of `MODES`.
        size: width and height of a crop, pixels, each 1 to `MAX_SIDE`.
        target_distance: the distance that objects have in `center` crops, units of the mesh, 0.001 to 1000.

    Raises:
        ValueError: for a value outside its range.
    """

    mode: str = "center"
    size: tuple[int, int] = (512, 512)
    target_distance: float = 4.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; give one of {', '.join(MODES)}")
        if not all(1 <= side <= MAX_SIDE for side in self.size):
            raise ValueError(f"size is {self.size[0]}x{self.size[1]}; give 1 to {MAX_SIDE} pixels")
        if not 1e-3 <= self.target_distance <= 1e3:
            raise ValueError(f"target_distance is {self.target_distance}; give 0.001 to 1000")

    def __str__(self) -> str:
        """In words: all that crops depend on, the distance of `center` crops to the last bit."""
        distance = repr(float(self.target_distance)).removesuffix(".0")
        at = f" at distance {distance}" if self.mode == "center" else ""
        return f"{self.mode} crops of {self.size[0]}x{self.size[1]}{at}"


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
        """The annotation, in the crop, of an object that `why_not_cropped` has nothing against."""
        (x1, y1), (x2, y2) = self.to_crop(*item.bbox[:2]), self.to_crop(*item.bbox[2:])
        px, py, distance = _centre(item)
        px, py = self.to_crop(px, py)
        return replace(item, bbox=(x1, y1, x2, y2), px=px, py=py, distance=distance / self.scale)

    def shows(self, picture: tuple[int, int], crop: tuple[int, int]) -> bool:
        """Whether a crop holds a pixel of its picture or more; less is black, but for rounding.

        Args:
            picture, crop: width and height, pixels.
        """
        ends = zip(self.offset, picture, crop, strict=True)
        return all(min(start + length * self.scale, end) - max(start, 0) >= 1 for start, length, end in ends)


def _centre(item: ObjectAnnotation) -> tuple[float, float, float]:
    """px, py and distance of an object that has all three; `why_not_cropped` says which have not."""
    if item.px is None or item.py is None or item.distance is None:
        raise ValueError(f"object {item.index} has no crop: its px, py or distance is missing")
    return item.px, item.py, item.distance


def crop_map(item: ObjectAnnotation, width: int, height: int, options: CropOptions) -> CropMap:
    """The map of one object's crop.

    Args:
        item: an object whose distance, px and py are there.
        width, height: of the picture, pixels; `center` does not depend on them.
    """
    middle = options.size[0] / 2, options.size[1] / 2
    if options.mode == "center":
        px, py, distance = _centre(item)
        scale = distance / options.target_distance
        return CropMap(scale, (middle[0] - px * scale, middle[1] - py * scale))
    scale = min(options.size[0] / width, options.size[1] / height)
    return CropMap(scale, (middle[0] - width * scale / 2, middle[1] - height * scale / 2))


def why_not_cropped(item: ObjectAnnotation, size: tuple[int, int] | None, options: CropOptions) -> str:
    """The code of the rule, of `accounts.CROP_RULES`, that leaves a posed object without a crop; "" if none.

    Args:
        size: width and height of the picture, pixels; where None, its crop is taken not to be empty.
    """
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
    if size is not None and not crop_map(item, *size, options).shows(size, options.size):
        return EMPTY_CROP
    return ""
