"""What each column means and in which unit: said once, for the card and for the Croissant metadata."""

from collections.abc import Mapping
from types import MappingProxyType

from ImageNet3D import KNOWN_CATEGORIES, OBJECT_STATUS, SPLITS


def _counts() -> dict[str, str]:
    """The columns of `CATEGORY_COUNTS`."""
    meanings: dict[str, str] = {}
    for split in SPLITS:
        meanings[f"{split}_pictures"] = f"pictures of the category in {split}, as in `classification`"
        meanings[f"{split}_objects"] = f"objects with a pose in {split}, as in `pose`"
        for status in OBJECT_STATUS:
            meanings[f"{split}_{status}"] = f"those of them whose status is {status}"
        meanings[f"{split}_no_status"] = "those of them without a status"
    return meanings


# A name means the same in every config but those of ELSEWHERE; in object_centric the picture is the crop.
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
        "bbox": "x1, y1, x2, y2 in pixels, as annotated; may leave the picture, and be turned round",
        "azimuth": "where the camera stands around the object: 0 in front of it, π/2 to the right as seen "
        "from there; radians of any size, meant modulo 2π",
        "elevation": "how far the camera stands above the object's ground plane: -0.1 and 2π - 0.1 mean 0.1 "
        "below; radians of any size, meant modulo 2π",
        "theta": "in-plane rotation, counter-clockwise; radians of any size, meant modulo 2π",
        "distance": "camera to object, in units of the CAD model; 0 or less, or null: never placed in depth",
        "px": "where the object's centre projects, x, pixels; null where it is not annotated",
        "py": "where the object's centre projects, y, pixels; null where it is not annotated",
        "viewport": "focal length, pixels; null where it is not annotated",
        "cad_index": "which CAD model of the category, from 1; null where it is not annotated",
        "object_status": "how much of the object is seen: good (more than 90 %), partially, barely, or bad, "
        "whose pose may never have been set; null where no person has judged it",
        "dense": "whether the scene is dense; null where no person has judged it",
        "label": "the picture's category; ids never change, later categories are appended",
        "num_objects": "all objects annotated in the picture, with or without a pose; null where its "
        "annotation is missing or cannot be read",
        "caption": "of the picture, in which `<obj0>` stands for the object of index 0; null where it has "
        "none",
        "category_caption": "of the category; null where there is none",
        "objects": "all objects of the picture, with the columns of `pose`; pose fields are null where an "
        "object has only a box",
        "resize_rate": "pixels of the crop for one pixel of the picture",
        "offset": "x, y of the picture's upper left corner in the crop, pixels: "
        "crop = picture * resize_rate + offset",
        "mesh": "the CAD model as binary glTF, in a struct of bytes and path, as `datasets.Mesh` has it: the "
        "released vertices in their order, rounded to float32, and the polygons cut into triangles",
        "num_vertices": "of the mesh",
        "num_faces": "triangles of the mesh",
        "bounds": "the least and the greatest x, y, z of the triangles, as released; units of the CAD model",
        "name": "of the category",
        **_counts(),
        "num_meshes": "CAD models of the category, as in `cad`; null in a build without that config",
    }
)

# (config, name) -> what a name means in that config alone.
ELSEWHERE: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("cad", "image"): "the mesh, drawn from 30° to the right of its front and 20° above the ground; PNG",
        ("cad", "category"): "the category whose objects refer to the mesh",
        ("cad", "cad_index"): "which CAD model of the category, from 1; with category it keys a mesh, and "
        "objects refer to it",
        ("categories", "category"): "the id of the name, as in the other configs",
        ("categories", "caption"): "of the category; null where the release has none",
    }
)


def meaning(config: str, name: str) -> str:
    """What a column of a config means."""
    return ELSEWHERE.get((config, name)) or COLUMNS[name]
