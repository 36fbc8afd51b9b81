"""What each column means and in which unit: said once, for the card and for the Croissant metadata."""

from collections.abc import Mapping
from types import MappingProxyType

from ImageNet3D import KNOWN_CATEGORIES

# A name means the same in every config; in object_centric the picture is the crop.
COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "image": "the picture's own bytes; only an EXIF orientation tag is set to 1, for boxes refer to the "
        "stored pixels",
        "image_id": "category/file stem, such as bed/n02818832_13; unique over the dataset",
        "object_index": "position in the picture's annotation, from 0; with image_id it keys an object",
        "width": "of the picture, pixels",
        "height": "of the picture, pixels",
        "category": "name of the object's category; ids never change, later categories are appended",
        "known": f"whether the category is one of the {len(KNOWN_CATEGORIES)} known ones of the "
        "open-vocabulary task",
        "bbox": "x1, y1, x2, y2 in pixels; may leave the picture",
        "azimuth": "where the camera stands around the object, from its front towards its right; radians, "
        "released as [0, 2π]",
        "elevation": "how far the camera stands above the object's ground plane; radians, released as "
        "[0, 2π], where 2π - 0.1 means 0.1 below",
        "theta": "in-plane rotation, counter-clockwise; radians, released as [0, 2π]",
        "distance": "camera to object, in units of the CAD model; 0 or less: never placed in depth",
        "px": "where the object's centre projects, x, pixels",
        "py": "where the object's centre projects, y, pixels",
        "viewport": "focal length, pixels",
        "cad_index": "which CAD model of the category, from 1",
        "object_status": "the object's visual quality: good, partially visible, barely visible or bad; null "
        "where the release has none",
        "dense": "whether the scene is dense; null where the release has none",
        "label": "the picture's category; ids never change, later categories are appended",
        "num_objects": "all objects annotated in the picture, with or without a pose",
        "caption": "of the picture; `<obj0>` stands for the object of index 0",
        "category_caption": "of the category; may be null",
        "objects": "all objects of the picture, with the columns of `pose`; pose fields are null where an "
        "object has only a box",
        "resize_rate": "pixels of the crop for one pixel of the picture",
        "offset": "x, y of the picture's upper left corner in the crop, pixels: "
        "crop = picture * resize_rate + offset",
    }
)
