"""Dirty pictures, annotations, lists, names and captions: each ends in the documented decision.

One tree holds all the cases at once and is built once; every case is then looked up in the ledger and in the
rows that `datasets` loads. A case says what is odd, the findings it must leave (no more and no fewer) and,
where a row stays, its values.
"""

import io
import json
import math
import os
import struct
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.PngImagePlugin
import PIL.WebPImagePlugin
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import SHARED
from support.meshes import HOSTILE
from support.raw_tree import (
    HEIGHT,
    TOP,
    WIDTH,
    RawTreeWriter,
    an_object,
    bounded,
    damaged,
    drawn,
    encoded,
    npz,
    npz_of,
    object_array,
    without_dimensions,
    zip_of,
)
from support.zips import MEMBERS

import ImageNet3D
from ImageNet3D import POSE_FIELDS, REASONS, RawTree, ReleaseError, Unusable, survey
from processing.build.command import build
from processing.crop.pixels import crops
from processing.crop.place import CropOptions
from processing.ledger import Report

SAMPLE = SHARED / "imagenet3d_v1_sample.zip"

CONFIGS = ("pose", "classification", "captions")  # object_centric decodes pixels: its findings are its own

# The decisions, spelled out here so that changing one in ImageNet3D.py fails a test.
KEPT, LEFT_OUT, NO_POSE = "kept", "left out", "left out of pose"


@dataclass(frozen=True)
class Case:
    """A listed picture of category bed with one annotated object.

    Attributes:
        name: the file's stem.
        found: (object index or None for the file, reason, decision).
        picture, annotation: the files' bytes; None for no file.
        values: columns of the object's row, as they must be loaded.
    """

    name: str
    found: tuple[tuple[int | None, str, str], ...]
    picture: bytes | None = field(default=None, repr=False)
    annotation: bytes | None = field(default=None, repr=False)
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_picture(self) -> bool:
        return not any(index is None and decision == LEFT_OUT for index, _, decision in self.found)

    @property
    def has_annotation(self) -> bool:
        return not any(index is None and decision == NO_POSE for index, _, decision in self.found)

    @property
    def has_object(self) -> bool:
        left_out = any(decision == LEFT_OUT for _, _, decision in self.found)
        return self.has_picture and self.has_annotation and not left_out

    @property
    def has_pose(self) -> bool:
        return self.has_object and not any(decision == NO_POSE for _, _, decision in self.found)

    @property
    def found_in_file(self) -> set[tuple[str, str]]:
        return {(reason, decision) for index, reason, decision in self.found if index is None}

    @property
    def ledger(self) -> Counter:
        """(file, object, reason, decision) of each line."""
        lines = Counter()
        for index, reason, decision in self.found:
            folder, ending = ("images", "JPEG") if reason.startswith("picture_") else ("annotations", "npz")
            lines[f"{folder}/bed/{self.name}.{ending}", index, reason, decision] += 1
        return lines


def picture(name: str, data: bytes | None, *found: tuple[str, str], **values: Any) -> Case:
    """A case of a picture's bytes under a sound annotation."""
    return Case(name, tuple((None, *f) for f in found), data, npz(an_object()), values)


def annotation(name: str, data: bytes | None, *found: tuple[str, str]) -> Case:
    """A case of an annotation file's bytes beside a sound picture."""
    return Case(name, tuple((None, *f) for f in found), encoded(), data)


def an_item(name: str, item: Any, *found: tuple[str, str], **values: Any) -> Case:
    """A case of what stands in the place of an object."""
    return Case(name, tuple((0, *f) for f in found), encoded(), npz(item), values)


def changed(name: str, changes: Mapping[str, Any], *found: tuple[str, str], **values: Any) -> Case:
    """A case of a sound object with some fields changed."""
    return an_item(name, an_object(**changes), *found, **values)


# --------------------------------------------------------------------------------------------------------
# Pictures
# --------------------------------------------------------------------------------------------------------


def exif(orientation: Any, order: str = "<", kind: int = 3, count: int = 1) -> bytes:
    """An EXIF block whose only tag is the orientation (0x0112), of TIFF type `kind`."""
    mark = b"II" if order == "<" else b"MM"
    value = struct.pack(order + "HH", orientation, 0)
    return (
        b"Exif\0\0"
        + mark
        + struct.pack(order + "HIHHHI", 42, 8, 1, 0x0112, kind, count)
        + value
        + b"\0\0\0\0"
    )


def xmp(orientation: int) -> bytes:
    """An XMP packet with an orientation."""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        f'tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
    ).encode()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(chunk: bytes, behind_pixels: bool = False) -> bytes:
    """A PNG with one more chunk, before or behind its pixels."""
    data = encoded("PNG")
    at = data.index(b"IEND") - 4 if behind_pixels else 33  # behind the signature and IHDR
    return data[:at] + chunk + data[at:]


def without_chunk(data: bytes, name: bytes) -> bytes:
    """A PNG without its (only) chunk of a name."""
    at = data.index(name) - 4
    return data[:at] + data[at + 12 + int.from_bytes(data[at : at + 4], "big") :]


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size; its pixels would be all zero."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body


def png_of_garbage() -> bytes:
    """A PNG in good order whose pixels cannot be unpacked: only decoding tells."""
    return without_chunk(png_with(png_chunk(b"IDAT", b"garbage"), True), b"IDAT")


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG whose frame header claims a size."""
    data = bytearray(encoded())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def cut(data: bytes) -> bytes:
    """The first half of what follows the last scan header (of a JPEG), or of all."""
    return data[: (max(data.rfind(b"\xff\xda"), 0) + len(data)) // 2]


def with_thumbnail() -> bytes:
    """A JPEG whose EXIF block holds a whole small JPEG, end marker and all."""
    block = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + encoded(quality=20)
    return encoded(exif=block)


def mpo() -> bytes:
    """Two JPEGs in one file, as stereo cameras write them."""
    stream = io.BytesIO()
    drawn().save(stream, "MPO", save_all=True, append_images=[drawn("L").convert("RGB")])
    return stream.getvalue()


RAW_PROFILE = (
    b"\nexif\n      38\n" + exif(6).hex().encode() + b"\n"
)  # as ImageMagick writes it, in hexadecimal
PACKED_XMP = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp(6))
PLAIN_XMP = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6)

MODE, FORMAT = ("picture_mode", KEPT), ("picture_format", KEPT)
TURNED, STUCK = ("picture_orientation", KEPT), ("picture_orientation_stuck", LEFT_OUT)
TRUNCATED, UNREADABLE = ("picture_truncated", LEFT_OUT), ("picture_unreadable", LEFT_OUT)
TOO_LARGE = ("picture_too_large", LEFT_OUT)

# name -> (bytes, findings); all of them are turned to the naked eye of `datasets`.
TURNED_PICTURES = {
    **{f"exif-{n}-little": (encoded(exif=exif(n)), [TURNED]) for n in range(2, 9)},
    **{f"exif-{n}-big": (encoded(exif=exif(n, ">")), [TURNED]) for n in range(2, 9)},
    "exif-of-two-values": (encoded(exif=exif(6, count=2)), [TURNED]),
    "exif-long": (encoded(exif=exif(6, kind=4)), [TURNED]),
    "exif-png": (png_with(png_chunk(b"eXIf", exif(6)[6:])), [TURNED, FORMAT]),
    "exif-png-behind-pixels": (png_with(png_chunk(b"eXIf", exif(6)[6:]), True), [TURNED, FORMAT]),
    "exif-webp": (encoded("WEBP", exif=exif(6), lossless=True), [TURNED, FORMAT]),
    "xmp-jpeg": (encoded(xmp=xmp(6)), [TURNED]),
    "xmp-png": (png_with(png_chunk(b"iTXt", PLAIN_XMP)), [TURNED, FORMAT]),
    "xmp-png-behind-pixels": (png_with(png_chunk(b"iTXt", PLAIN_XMP), True), [TURNED, FORMAT]),
    "xmp-webp": (encoded("WEBP", xmp=xmp(6), lossless=True), [TURNED, FORMAT]),
}

PICTURES = [
    picture("missing", None, ("picture_missing", LEFT_OUT)),
    picture("empty", b"", ("picture_empty", LEFT_OUT)),
    picture("text", b"<html>404 Not Found</html>", UNREADABLE),
    picture("gif", encoded("GIF", "P"), UNREADABLE),
    picture("bmp", encoded("BMP"), UNREADABLE),
    picture("jpeg-cut-in-header", encoded()[:100], UNREADABLE),
    picture("jpeg-cut-in-scan", cut(encoded()), TRUNCATED),
    picture("jpeg-without-end-marker", encoded()[:-2], TRUNCATED),
    picture("jpeg-with-zeros-for-its-end", cut(encoded()) + bytes(500), TRUNCATED),
    picture("jpeg-with-thumbnail", with_thumbnail()),
    picture("jpeg-with-thumbnail-cut-in-scan", cut(with_thumbnail()), TRUNCATED),
    picture("jpeg-and-garbage-behind", encoded() + b"garbage"),
    picture("jpeg-progressive", encoded(progressive=True)),
    picture("png-without-end", without_chunk(encoded("PNG"), b"IEND"), TRUNCATED),
    picture("png-without-pixels", without_chunk(encoded("PNG"), b"IDAT"), TRUNCATED),
    picture("png-cut-in-pixels", cut(encoded("PNG")), TRUNCATED),
    picture("png-pixels-are-garbage", png_of_garbage(), FORMAT),
    picture("png-wrong-checksum", encoded("PNG")[:29] + b"\0\0\0\0" + encoded("PNG")[33:], UNREADABLE),
    picture("webp-cut", encoded("WEBP")[:-9], TRUNCATED),
    picture("webp-of-nothing", b"RIFF\4\0\0\0WEBP", UNREADABLE),
    picture("webp-longer-than-told", encoded("WEBP") + b"garbage", FORMAT),
    picture("bomb-png", png_of_size(20_000, 20_000), TOO_LARGE),
    picture("bomb-png-just-past-the-limit", png_of_size(9_460, 9_460), TOO_LARGE),
    picture("png-just-below-the-limit", png_of_size(9_459, 9_459), ("picture_size_differs", KEPT), FORMAT),
    picture("bomb-png-of-2-31", png_of_size(2**31 - 1, 2**31 - 1), TOO_LARGE),
    picture("bomb-jpeg", jpeg_of_size(65_500, 65_500), TOO_LARGE),
    picture("png-of-no-width", png_of_size(0, 10), UNREADABLE),
    picture("too-many-bytes", encoded() + bytes(ImageNet3D.MAX_PICTURE_BYTES), TOO_LARGE),
    picture("grey", encoded(mode="L"), MODE),
    picture("cmyk", encoded(mode="CMYK"), MODE),
    picture("png", encoded("PNG"), FORMAT),
    picture("png-palette", encoded("PNG", "P"), FORMAT, MODE),
    picture("png-grey-alpha", encoded("PNG", "LA"), FORMAT, MODE),
    picture("png-alpha", encoded("PNG", "RGBA"), FORMAT, MODE),
    picture("png-16-bit", encoded("PNG", "I;16"), FORMAT, MODE),
    picture("png-1-bit", encoded("PNG", "1"), FORMAT, MODE),
    picture("webp", encoded("WEBP"), FORMAT),
    picture("webp-alpha", encoded("WEBP", "RGBA"), FORMAT, MODE),
    picture("mpo", mpo()),
    *(picture(name, data, *found) for name, (data, found) in TURNED_PICTURES.items()),
    picture("exif-1", encoded(exif=exif(1))),
    picture("exif-0", encoded(exif=exif(0)), TURNED),
    picture("exif-9", encoded(exif=exif(9)), TURNED),
    picture(
        "exif-in-text-chunk", png_with(png_chunk(b"tEXt", b"Raw profile type exif\0" + RAW_PROFILE)), STUCK
    ),
    picture("exif-of-text", encoded(exif=exif(6, kind=2, count=4)), STUCK),
    picture("xmp-compressed", png_with(png_chunk(b"iTXt", PACKED_XMP)), STUCK),
    picture("exif-garbage", encoded(exif=b"Exif\0\0II*\0\xff\xff\xff\xff")),
]

# --------------------------------------------------------------------------------------------------------
# Annotation files
# --------------------------------------------------------------------------------------------------------

NOT_NPZ, NOT_ARRAY = ("annotation_not_npz", NO_POSE), ("annotation_not_array", NO_POSE)
FORBIDDEN, EMPTY = ("annotation_forbidden", NO_POSE), ("annotation_empty", KEPT)
ANNOTATION_TOO_LARGE = ("annotation_too_large", NO_POSE)


def bare_npy() -> bytes:
    """A .npy that is in no zip."""
    stream = io.BytesIO()
    np.save(stream, object_array([an_object()]))
    return stream.getvalue()


def with_header(old: bytes, new: bytes) -> bytes:
    """A sound annotation with its .npy header changed and a right checksum around it."""
    npy = bare_npy()
    assert len(old) == len(new)
    assert npy.count(old) == 1
    return zip_of({"annotations.npy": npy.replace(old, new)})


def flipped(data: bytes) -> bytes:
    """The same file with a bit flipped in its middle, where a checksum notices."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


BOMB = zip_of({"annotations.npy": bytes(50 * 2**20)})  # 50 KB that unpack to 50 MB

ANNOTATIONS = [
    annotation("ann-missing", None, ("annotation_missing", NO_POSE)),
    annotation("ann-no-bytes", b"", NOT_NPZ),
    annotation("ann-text", b"not an npz", NOT_NPZ),
    annotation("ann-npy-without-zip", bare_npy(), NOT_NPZ),
    annotation("ann-truncated", cut(npz(an_object())), NOT_NPZ),
    annotation("ann-flipped-bit", flipped(npz(an_object())), NOT_NPZ),
    annotation("ann-lzma", zip_of({"annotations.npy": bare_npy()}, compression=14), NOT_NPZ),
    annotation("ann-bzip2", zip_of({"annotations.npy": bare_npy()}, compression=12), NOT_NPZ),
    annotation("ann-no-member", zip_of({}), NOT_ARRAY),
    annotation("ann-wrong-key", npz_of(annotation=object_array([an_object()])), NOT_ARRAY),
    annotation("ann-member-is-text", zip_of({"annotations.npy": b"text"}), NOT_ARRAY),
    annotation("ann-member-is-empty", zip_of({"annotations.npy": b""}), NOT_ARRAY),
    annotation("ann-0-d-of-none", npz_of(annotations=np.array(None, object)), NOT_ARRAY),
    annotation("ann-0-d-of-no-objects", npz_of(annotations=without_dimensions([])), EMPTY),
    annotation("ann-3-d", npz_of(annotations=np.array([[[an_object()]]], object)), NOT_ARRAY),
    annotation("ann-2-d-without-objects", npz_of(annotations=np.empty((0, 3), object)), EMPTY),
    annotation("ann-floats", npz_of(annotations=np.ones(3)), NOT_ARRAY),
    annotation("ann-text-array", npz_of(annotations=np.array(["bed"])), NOT_ARRAY),
    annotation("ann-structured", npz_of(annotations=np.zeros(1, [("bbox", "f8", 4)])), NOT_ARRAY),
    annotation("ann-dates", npz_of(annotations=np.zeros(1, "M8[s]")), NOT_ARRAY),
    annotation("ann-fewer-than-told", with_header(b"(1,)", b"(2,)"), NOT_ARRAY),
    annotation("ann-unknown-version", with_header(b"NUMPY\x01", b"NUMPY\x09"), NOT_ARRAY),
    annotation("ann-header-is-code", with_header(b"False", b"1 + 1"), NOT_ARRAY),
    annotation("ann-huge-count", with_header(b"(1,), }      ", b"(999999999,)}"), NOT_ARRAY),
    annotation("ann-empty-list", npz_of(annotations=[]), EMPTY),
    annotation("ann-no-objects", npz_of(annotations=np.empty(0, object)), EMPTY),
    annotation("ann-too-large", b"x" * (ImageNet3D.MAX_ANNOTATION_BYTES + 1), ANNOTATION_TOO_LARGE),
    annotation("ann-bomb", BOMB, ANNOTATION_TOO_LARGE),
    annotation("ann-bomb-in-a-bomb", zip_of({"annotations.npy": BOMB}), NOT_ARRAY),
    annotation("ann-too-many-objects", npz(*[an_object()] * 1001), ANNOTATION_TOO_LARGE),
    annotation("ann-python-complex", npz(an_object(px=1j)), FORBIDDEN),
    annotation("ann-numpy-complex", npz(an_object(px=np.complex128(1j))), NOT_ARRAY),
    annotation("ann-set", npz(an_object(tags={"a"})), FORBIDDEN),
    annotation("ann-masked-array", npz(an_object(bbox=np.ma.array([1, 2, 3, 4]))), FORBIDDEN),
    annotation("ann-structured-field", npz(an_object(bbox=np.zeros(1, [("x1", "f8")]))), NOT_ARRAY),
    annotation("ann-key-is-a-number", npz({**an_object(), 7: 1}), NOT_ARRAY),
]

# --------------------------------------------------------------------------------------------------------
# Objects
# --------------------------------------------------------------------------------------------------------

NOT_DICT, CLASS = ("object_not_dict", LEFT_OUT), ("class_differs", KEPT)
NO_BOX, BOX_TYPE = ("bbox_missing", LEFT_OUT), ("bbox_wrong_type", LEFT_OUT)
BOX_INFINITE, INVERTED = ("bbox_not_finite", LEFT_OUT), ("bbox_inverted", KEPT)
OUTSIDE, LEAVES = ("bbox_outside", KEPT), ("bbox_leaves_picture", KEPT)
POSE_TYPE, INFINITE = ("pose_wrong_type", NO_POSE), ("pose_not_finite", NO_POSE)
POSELESS, INCOMPLETE = ("pose_missing", NO_POSE), ("pose_incomplete", NO_POSE)
OUT_OF_RANGE, DEGREES = ("angle_outside_range", KEPT), ("angle_beyond_two_turns", KEPT)
PLACE_TYPE, PLACE_INFINITE = ("place_wrong_type", KEPT), ("place_not_finite", KEPT)
PLACELESS, VIEWPORT = ("place_missing", KEPT), ("viewport_not_positive", KEPT)
CAD, NO_MESH = ("cad_index_invalid", KEPT), ("cad_mesh_missing", KEPT)
STATUS, DENSITY = ("status_unknown", KEPT), ("density_unknown", KEPT)
SIZE, SIDE, IGNORE = ("picture_size_differs", KEPT), ("size_invalid", KEPT), ("ignore_invalid", KEPT)

NO_NUMBERS = {
    "bool": True,
    "text": "1.0",
    "list": [1.0, 2.0],
    "array": np.ones(2),
    "dict": {},
    "huge": 10**400,
}
# Numbers that stand in something else.
WRAPPED = {
    "0-d": np.array,
    "0-d-big": lambda n: np.array(n, ">f8"),
    "one": lambda n: np.array([n]),
    "one-2-d": lambda n: np.array([[n]]),
    "object": lambda n: np.array(n, object),
    "object-one": lambda n: object_array([np.array(n)]),
    "listed": lambda n: [n],
}
NAN, INF, FULL = math.nan, math.inf, 2 * math.pi

BED = ImageNet3D.CATEGORY_IDS["bed"]


def of(name: str, of_angle: tuple[str, str], of_place: tuple[str, str]) -> tuple[str, str]:
    """What is found of a field of the pose."""
    return of_angle if name in ImageNet3D.ANGLES else of_place


OBJECTS = [
    an_item(
        "sound", an_object(), azimuth=1.0, elevation=0.5, px=30.5, cad_index=1, object_status=0, dense=False
    ),
    an_item("item-none", None, NOT_DICT),
    an_item("item-list", [1, 2], NOT_DICT),
    an_item("item-text", "bed", NOT_DICT),
    an_item("item-array", np.ones(3), NOT_DICT),
    an_item("item-empty-dict", {}, NO_BOX),
    an_item("item-in-an-array", np.array(an_object(), object), azimuth=1.0),
    changed("class-other", {"class": "car"}, CLASS, category=BED),
    changed("class-number", {"class": 5}, CLASS, category=BED),
    changed("class-huge-text", {"class": "x" * 10_000}, CLASS),
    changed("class-0-d", {"class": np.array("bed")}),
    changed("class-bytes", {"class": np.bytes_("bed")}),
    changed("class-none", {"class": None}),
    changed("class-numpy-text", {"class": np.str_("bed")}),
    changed("class-absent", {"class": ...}),
    *(
        changed(f"pose-{name}-{kind}", {name: value}, *found, **{name: None})
        for name in POSE_FIELDS
        for kind, value, found in (
            *((kind, value, [of(name, POSE_TYPE, PLACE_TYPE)]) for kind, value in NO_NUMBERS.items()),
            ("nan", NAN, [of(name, INFINITE, PLACE_INFINITE)]),
            ("nan-0-d", np.array(NAN), [of(name, INFINITE, PLACE_INFINITE)]),
            ("absent", ..., [of(name, INCOMPLETE, PLACELESS)]),
            ("none-0-d", np.array(None), [of(name, INCOMPLETE, PLACELESS)]),
        )
    ),
    *(
        changed(f"pose-{name}-{kind}", {name: wrap(0.7)}, **{name: 0.7})
        for name in POSE_FIELDS
        for kind, wrap in WRAPPED.items()
    ),
    *(changed(f"cad-{kind}", {"cad_index": wrap(1)}, cad_index=1) for kind, wrap in WRAPPED.items()),
    changed("pose-none", {"px": None}, PLACELESS, px=None),
    changed("pose-inf", {"distance": INF}, PLACE_INFINITE, distance=None),
    changed("pose-minus-inf", {"azimuth": -INF}, INFINITE, azimuth=None),
    changed("pose-absent", dict.fromkeys(POSE_FIELDS, ...), POSELESS, azimuth=None, viewport=None),
    changed(
        "pose-angles-alone",
        dict.fromkeys((*POSE_FIELDS[3:], "cad_index"), ...),
        PLACELESS,
        azimuth=1.0,
        distance=None,
        px=None,
        py=None,
        viewport=None,
        cad_index=None,
    ),
    changed("pose-place-alone", dict.fromkeys(POSE_FIELDS[:3], ...), INCOMPLETE, azimuth=None, px=30.5),
    changed(
        "pose-three-faults",
        {"px": NAN, "theta": "x", "py": ...},
        PLACE_INFINITE,
        POSE_TYPE,
        PLACELESS,
        theta=None,
        azimuth=1.0,
        px=None,
        py=None,
    ),
    changed("pose-int", {"azimuth": 1}, azimuth=1.0),
    changed("pose-numpy-int", {"px": np.int16(-7)}, px=-7.0),
    changed("pose-float16", {"theta": np.float16(0.1)}, theta=float(np.float16(0.1))),
    changed("pose-0-d-array", {"theta": np.array(0.1)}, theta=0.1),
    changed("pose-large-int", {"distance": 2**70}, distance=2.0**70),
    changed("distance-0", {"distance": 0.0}, distance=0.0),
    changed("distance-negative", {"distance": -1.0}, distance=-1.0),
    changed("angle-full-circle", {"azimuth": FULL}, azimuth=FULL),
    changed(
        "angle-full-circle-float32",
        {"azimuth": np.float32(FULL)},
        OUT_OF_RANGE,
        azimuth=float(np.float32(FULL)),
    ),
    changed("angle-below", {"theta": -1.0}, OUT_OF_RANGE, theta=-1.0),
    changed("angle-above", {"azimuth": FULL + 1}, OUT_OF_RANGE, azimuth=FULL + 1),
    changed(
        "angles-of-the-tool",
        {"azimuth": -3.0, "elevation": -0.5, "theta": -0.0},
        OUT_OF_RANGE,
        azimuth=-3.0,
        elevation=-0.5,
        theta=-0.0,
    ),
    changed(
        "angles-two-turns",
        {"azimuth": 2 * FULL, "theta": -2 * FULL},
        OUT_OF_RANGE,
        azimuth=2 * FULL,
        theta=-2 * FULL,
    ),
    changed("angles-in-degrees", {"azimuth": 90.0, "theta": -45.0}, OUT_OF_RANGE, DEGREES, azimuth=90.0),
    changed("angle-enormous", {"elevation": -1e308}, OUT_OF_RANGE, DEGREES, elevation=-1e308),
    changed("angle-negative-zero", {"theta": -0.0}, theta=-0.0),
    changed("viewport-0", {"viewport": 0}, VIEWPORT, viewport=0.0),
    changed("viewport-negative", {"viewport": -3000.0}, VIEWPORT, viewport=-3000.0),
    changed("box-absent", {"bbox": ...}, NO_BOX),
    changed("box-none", {"bbox": None}, NO_BOX),
    changed("box-three", {"bbox": [1, 2, 3]}, BOX_TYPE),
    changed("box-text", {"bbox": "1, 2, 3, 4"}, BOX_TYPE),
    changed("box-of-texts", {"bbox": np.array(["1", "2", "3", "4"])}, BOX_TYPE),
    changed("box-of-bools", {"bbox": [False, False, True, True]}, BOX_TYPE),
    changed("box-number", {"bbox": 7}, BOX_TYPE),
    changed("box-2-d", {"bbox": np.array([[1, 2], [3, 4]])}, BOX_TYPE),
    changed("box-nested", {"bbox": [[1, 2, 3, 4]]}, bbox=[1.0, 2.0, 3.0, 4.0]),
    changed("box-row", {"bbox": np.array([[1, 2, 3, 4]], ">u2")}, bbox=[1.0, 2.0, 3.0, 4.0]),
    changed("box-column", {"bbox": np.array([[1], [2], [3], [4.5]])}, bbox=[1.0, 2.0, 3.0, 4.5]),
    changed("box-of-0-d", {"bbox": [np.array(n) for n in (1, 2, 3, 4)]}, bbox=[1.0, 2.0, 3.0, 4.0]),
    changed("box-of-ones", {"bbox": ([1], [2.5], (3,), np.array([4]))}, bbox=[1.0, 2.5, 3.0, 4.0]),
    changed("box-in-an-object", {"bbox": object_array([[1, 2, 3, 4]])}, bbox=[1.0, 2.0, 3.0, 4.0]),
    changed("box-none-0-d", {"bbox": np.array(None)}, NO_BOX),
    changed("box-empty", {"bbox": []}, BOX_TYPE),
    changed("box-five", {"bbox": np.arange(5)}, BOX_TYPE),
    changed("box-dict", {"bbox": dict(zip("abcd", range(4), strict=True))}, BOX_TYPE),
    changed("box-nan", {"bbox": [NAN, 8, 50, 40]}, BOX_INFINITE),
    changed("box-inf", {"bbox": [10, 8, INF, 40]}, BOX_INFINITE),
    changed("box-inverted", {"bbox": [50, 8, 10, 40]}, INVERTED, bbox=[50.0, 8.0, 10.0, 40.0]),
    changed("box-upside-down", {"bbox": [10, 40, 50, 8]}, INVERTED, bbox=[10.0, 40.0, 50.0, 8.0]),
    changed("box-without-area", {"bbox": [10, 8, 10, 40]}, INVERTED, bbox=[10.0, 8.0, 10.0, 40.0]),
    changed("box-to-the-right", {"bbox": [WIDTH, 0, WIDTH + 9, 9]}, OUTSIDE, bbox=[WIDTH, 0, WIDTH + 9, 9]),
    changed("box-above", {"bbox": [0, -9, 9, 0]}, OUTSIDE, bbox=[0.0, -9.0, 9.0, 0.0]),
    changed("box-turned-and-outside", {"bbox": [-1, 9, -9, 0]}, INVERTED, OUTSIDE, bbox=[-1, 9, -9, 0]),
    changed("box-leaves", {"bbox": [-3, -2, 70, 60]}, LEAVES, bbox=[-3.0, -2.0, 70.0, 60.0]),
    changed("box-fills-picture", {"bbox": [0, 0, WIDTH, HEIGHT]}, bbox=[0.0, 0.0, WIDTH, HEIGHT]),
    changed("box-tuple", {"bbox": (1, 2, 3, 4)}, bbox=[1.0, 2.0, 3.0, 4.0]),
    changed("box-array", {"bbox": np.array([1, 2, 3, 4], ">f4")}, bbox=[1.0, 2.0, 3.0, 4.0]),
    changed("box-object-array", {"bbox": object_array([1, 2, 3, 4])}, bbox=[1.0, 2.0, 3.0, 4.0]),
    changed("status-unknown", {"object_status": "status_great"}, STATUS, object_status=None),
    changed("status-number", {"object_status": 1}, STATUS, object_status=None),
    changed("status-absent", {"object_status": ...}, object_status=None),
    changed("status-numpy-text", {"object_status": np.str_("status_bad")}, object_status=3),
    *(
        changed(f"status-{number}", {"object_status": word}, object_status=0)
        for number, word in enumerate(
            (
                "good",
                " Status_Good\n",
                np.array("status_good"),
                np.bytes_("good"),
                object_array(["status_good"]),
            )
        )
    ),
    changed("status-no-letters", {"object_status": np.str_("")}, STATUS, object_status=None),
    changed("status-both-prefixes", {"object_status": "status_status_good"}, STATUS, object_status=None),
    changed("status-bool", {"object_status": True}, STATUS, object_status=None),
    changed("density-unknown", {"dense": "maybe"}, DENSITY, dense=None),
    changed("density-number", {"dense": 1}, DENSITY, dense=None),
    *(
        changed(f"density-{number}", {"dense": word}, dense=True)
        for number, word in enumerate((True, "yes", "Dense_Yes ", np.array("dense_yes"), np.bool_(True)))
    ),
    changed("density-false", {"dense": np.array(False)}, dense=False),
    changed("density-absent", {"dense": ...}, dense=None),
    changed("density-yes", {"dense": "dense_yes"}, dense=True),
    changed("cad-zero", {"cad_index": 0}, NO_MESH, cad_index=0),
    changed("cad-negative", {"cad_index": -1}, NO_MESH, cad_index=-1),
    changed("cad-fraction", {"cad_index": 1.5}, CAD, cad_index=None),
    changed("cad-text", {"cad_index": "1"}, CAD, cad_index=None),
    changed("cad-bool", {"cad_index": True}, CAD, cad_index=None),
    changed("cad-nan", {"cad_index": NAN}, CAD, cad_index=None),
    changed("cad-past-32-bits", {"cad_index": 2**31}, CAD, cad_index=None),
    changed("cad-without-mesh", {"cad_index": 7}, NO_MESH, cad_index=7),
    changed("cad-whole-float", {"cad_index": 1.0}, cad_index=1),
    changed("cad-absent", {"cad_index": ...}, PLACELESS, cad_index=None),
    changed("key-unknown", {"occluded": 1, "annotator": "Erika Mustermann", "principal": [1.0, 2.0]}),
    changed("key-unknown-again", {"occluded": object_array([1]), "odd\n\x1b[2J": {"a": 1}}),
    changed("ignore-1", {"ignore": 1}, ("ignore_set", KEPT)),
    changed("ignore-0", {"ignore": np.uint8(0)}),
    changed("ignore-none", {"ignore": None}),
    changed("ignore-true", {"ignore": True}, ("ignore_set", KEPT)),
    changed("ignore-false", {"ignore": np.array(False)}),
    *(
        changed(f"ignore-{kind}", {"ignore": value}, IGNORE)
        for kind, value in NO_NUMBERS.items()
        if kind != "bool"
    ),
    changed("ignore-nan", {"ignore": NAN}, IGNORE),
    changed("ignore-inf", {"ignore": INF}, IGNORE),
    changed("ignore-negative", {"ignore": -1}, IGNORE),
    *(
        changed(f"{name}-{kind}", {name: value}, SIDE, width=WIDTH, height=HEIGHT)
        for name in ("height", "width")
        for kind, value in NO_NUMBERS.items()
        if kind != "huge"
    ),
    changed("height-nan", {"height": NAN}, SIDE),
    changed("height-0", {"height": 0}, SIDE),
    changed("width-inf", {"width": INF}, SIDE),
    changed("width-negative", {"width": -WIDTH}, SIDE),
    changed("width-fraction", {"width": WIDTH + 0.5}, SIDE),
    changed("size-nonsense", {"height": "tall", "width": "wide"}, SIDE, SIDE),
    changed("size-absent", {"height": ..., "width": None}),
    Case("size-differs", ((None, *SIZE),), encoded(), npz(an_object(width=WIDTH + 1)), {"width": WIDTH}),
    Case("size-huge", ((None, *SIZE),), encoded(), npz(an_object(height=10**290)), {"height": HEIGHT}),
]

CASES = [*PICTURES, *ANNOTATIONS, *OBJECTS]

# --------------------------------------------------------------------------------------------------------
# Lists, names and captions
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListCase:
    """The train list of a category that has sound pictures a and b.

    Attributes:
        category: the folder; each case has its own.
        data: the list's bytes.
        found: (path inside the tree, reason, decision).
        train: stems that must be loaded.
    """

    category: str
    data: bytes
    found: tuple[tuple[str, str, str], ...]
    train: tuple[str, ...] = ("a", "b")


def a_list(category: str, data: bytes, *reasons: tuple[str, str], train=("a", "b"), files=()) -> ListCase:
    """A case whose findings are about the list, or about `files`, which are (path, reason, decision)."""
    name = f"lists/{category}_imagenet_train.txt"
    return ListCase(category, data, (*((name, *reason) for reason in reasons), *files), train)


def bad_id(category: str, stem: str) -> ListCase:
    file = (f"images/{category}/{stem}.JPEG", "list_bad_id", LEFT_OUT)
    return a_list(category, f"a\n{stem}\nb\n".encode(), files=[file])


def nothing_listed(category: str, data: bytes, *reasons: tuple[str, str]) -> ListCase:
    files = [(f"images/{category}/{stem}.JPEG", "picture_unlisted", LEFT_OUT) for stem in "ab"]
    return a_list(category, data, *reasons, train=(), files=files)


NOT_TEXT, CRLF = ("list_not_text", LEFT_OUT), ("list_crlf", KEPT)
BLANK, DUPLICATE = ("list_blank_line", KEPT), ("list_duplicate", KEPT)

LISTS = [
    a_list("car", b"a\nb\n"),
    a_list("bus", b"a\nb"),
    a_list("cup", b"a\nb\n\n\n"),
    a_list("can", b"  a\t\nb \n"),
    a_list("cap", b"a\nb\na\na\n", DUPLICATE),
    a_list("fan", b"a\r\nb\r\n", CRLF),
    a_list("fork", b"a\rb\r", CRLF),
    a_list("pen", b"\xef\xbb\xbfa\nb\n", ("list_bom", KEPT)),
    a_list("pan", b"\na\n\n \nb\n", BLANK),
    a_list("pot", b"\xef\xbb\xbfa\r\n\r\nb\r\na\r\n", ("list_bom", KEPT), CRLF, BLANK, DUPLICATE),
    nothing_listed("sax", b""),
    nothing_listed("key", b"\n\n"),
    nothing_listed("jar", b"a\xff\nb\n", NOT_TEXT),
    nothing_listed("bow", "a\nb\n".encode("utf-16"), NOT_TEXT),
    nothing_listed("tub", b"a\n" * (ImageNet3D.MAX_LIST_BYTES // 2 + 1), NOT_TEXT),
    bad_id("sofa", "../clean/a"),
    bad_id("sign", "x/y"),
    bad_id("sink", "/etc/passwd"),
    bad_id("harp", "..\\a"),
    bad_id("iron", ".."),
    bad_id("boat", "."),
    bad_id("bowl", "a\0"),
    bad_id("door", "a\x1b[2J"),
    bad_id("tank", "a\u202egnp"),
    a_list("bench", b"a\nb\nv\n", files=[("images/bench/v.JPEG", "list_both_splits", LEFT_OUT)]),
    a_list("skate", b"a\n", train=("a",), files=[("images/skate/b.JPEG", "picture_unlisted", LEFT_OUT)]),
    a_list(
        "hammer",
        b"a\nb\nzzz\n",
        files=[
            ("annotations/hammer/zzz.npz", "annotation_missing", NO_POSE),
            ("images/hammer/zzz.JPEG", "picture_missing", LEFT_OUT),
        ],
    ),
    a_list("spaceship", b"a\n", train=("a",),
           files=[("images/spaceship", "category_unknown", KEPT),
                  ("images/spaceship/b.JPEG", "picture_unlisted", LEFT_OUT)]),
]  # fmt: skip

COLLISION, UNEXPECTED = ("name_collision", KEPT), ("file_unexpected", LEFT_OUT)

# Files that no list names: path -> findings about it.
STRAYS = {
    "images/bed/SOUND.JPEG": [("picture_unlisted", LEFT_OUT)],
    "images/bed/sound.JPEG": [COLLISION],  # the second of the two in the order of names
    "images/bed/caf\u00e9.JPEG": [("picture_unlisted", LEFT_OUT), COLLISION],
    "images/bed/cafe\u0301.JPEG": [("picture_unlisted", LEFT_OUT)],
    "images/bed/line\nbreak.JPEG": [("picture_unlisted", LEFT_OUT)],
    "images/bed/notes.txt": [UNEXPECTED],
    "images/bed/lower.jpeg": [UNEXPECTED],
    "images/bed/deeper/x.JPEG": [UNEXPECTED],
    "images/Thumbs.db": [UNEXPECTED],
    "annotations/bed/x.npy": [UNEXPECTED],
    "lists/bed_imagenet_test.txt": [UNEXPECTED],
    "CAD/bed/1.off": [UNEXPECTED],
    "CAD/bed/00.off": [UNEXPECTED],
    "CAD/bed/01.obj": [UNEXPECTED],
    "CAD/bed/9999999999.off": [UNEXPECTED],
    "CAD/01.off": [UNEXPECTED],
    "README.txt": [],
}

CAPTIONS = {
    **{f"bed/{case.name}": f"caption of {case.name}" for case in CASES},
    "bed/clean": "caption of clean",
    "car/a": None,
    "bus/a": [1, {"a": "list"}],
    "cup/a": "half a pair: \ud800",
    "bed/nobody": "of no picture",
}
CATEGORY_CAPTIONS = [
    {"category": "bed", "caption": "furniture to sleep in"},
    {"category": "car", "caption": 7},
    {"caption": "of nothing"},
    {"category": "spaceship", "caption": "of a category that this code does not know"},
    {"category": "ufo", "caption": "of no category at all"},
    {"category": "bed", "caption": "another one"},
]
CAPTION_FINDINGS = [
    *[("captions/image_captions.json", None, "caption_wrong_type", LEFT_OUT)] * 3,
    ("captions/image_captions.json", None, "caption_without_picture", LEFT_OUT),
    ("captions/category_captions.json", None, "caption_wrong_type", LEFT_OUT),
    *[("captions/category_captions.json", None, "caption_without_picture", LEFT_OUT)] * 2,
    ("captions/category_captions.json", None, "caption_conflict", LEFT_OUT),
]
KEY_FINDINGS = [("annotations", None, "key_unknown", KEPT)] * 2  # a line for each name, however often


# --------------------------------------------------------------------------------------------------------
# All at once
# --------------------------------------------------------------------------------------------------------


def dirty_tree() -> RawTreeWriter:
    """Every case of this module in one tree."""
    tree = RawTreeWriter().sound("bed", (), ("clean",))
    tree.lists("bed", [case.name for case in CASES], ["clean"])
    for case in CASES:
        for name, data in ((f"images/bed/{case.name}.JPEG", case.picture),
                           (f"annotations/bed/{case.name}.npz", case.annotation)):  # fmt: skip
            if data is not None:
                tree.files[name] = data
    for case in LISTS:
        tree.sound(case.category, ("a", "b"), ("v",)).lists(case.category, case.data, ["v"])
    for name in STRAYS:
        tree.files.setdefault(name, encoded())
    return tree.captions(CAPTIONS, CATEGORY_CAPTIONS)


@dataclass(frozen=True)
class Built:
    """What came out of a build: the report, the ledger's lines and values, and rows by config and split."""

    report: Report
    ledger: Counter
    values: list[str]
    rows: Mapping[tuple[str, str], list[dict[str, Any]]]


def built(raw: str, out: Path, captions: str | None = None) -> Built:
    report = build(raw, out, configs=CONFIGS, captions=captions, workers=1)
    lines = [json.loads(line) for line in (out / ".build" / "ledger.jsonl").read_text("utf-8").splitlines()]
    ledger = Counter((line["file"], line["object"], line["reason"], line["decision"]) for line in lines)
    rows = {}
    for config in CONFIGS:
        loaded = datasets.load_dataset(str(out), config, cache_dir=str(out.parent / "cache"))
        for split, table in loaded.items():
            rows[config, split] = table.cast_column("image", datasets.Image(decode=False)).to_list()
    return Built(report, ledger, [line["value"] for line in lines], rows)


@pytest.fixture(scope="module")
def dirty(tmp_path_factory) -> Built:
    folder = tmp_path_factory.mktemp("dirty")
    return built(dirty_tree().zip(folder / "raw.zip"), folder / "out")


def rows_of(dirty: Built, config: str, image_id: str) -> list[dict[str, Any]]:
    return [row for row in dirty.rows[config, "train"] if row["image_id"] == image_id]


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same sign where both are zero."""
    return left == right and (left != 0 or math.copysign(1, left) == math.copysign(1, right))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_picture_ends_in_its_decision(case, dirty):
    image_id = f"bed/{case.name}"
    files = (f"images/{image_id}.JPEG", f"annotations/{image_id}.npz")
    about = Counter({line: n for line, n in dirty.ledger.items() if line[0] in files})
    about -= Counter((name, None, *found) for name in files for found in STRAYS.get(name, []))
    assert about == case.ledger

    labelled = rows_of(dirty, "classification", image_id)
    assert len(labelled) == case.has_picture
    assert [row["num_objects"] is None for row in labelled] == [not case.has_annotation] * case.has_picture
    captioned = rows_of(dirty, "captions", image_id)
    assert [row["caption"] for row in captioned] == [f"caption of {case.name}"] * case.has_picture
    boxed = [item for row in captioned for item in row["objects"]]
    empty = any(reason == "annotation_empty" for _, reason, _ in case.found)
    assert len(boxed) == (case.has_object and not empty)
    posed = rows_of(dirty, "pose", image_id)
    assert len(posed) == (case.has_pose and not empty)

    for name, value in case.values.items():
        for row in (
            posed
            if name == "category"
            else [*posed, *boxed]
            if name not in ("width", "height")
            else [*posed, *labelled]
        ):
            assert same(row[name], value), name


@pytest.mark.parametrize("case", LISTS, ids=lambda case: case.category)
def test_each_list_ends_in_its_decision(case, dirty):
    about = Counter(
        {line: n for line, n in dirty.ledger.items() if case.category in line[0].replace("_", "/").split("/")}
    )
    assert about == Counter((file, None, reason, decision) for file, reason, decision in case.found)
    loaded = {row["image_id"] for row in dirty.rows["classification", "train"]}
    assert {i for i in loaded if i.startswith(f"{case.category}/")} == {
        f"{case.category}/{s}" for s in case.train
    }
    validation = {row["image_id"] for row in dirty.rows["classification", "validation"]}
    assert f"{case.category}/v" in validation


def test_the_ledger_holds_nothing_else(dirty):
    expected = Counter([*CAPTION_FINDINGS, *KEY_FINDINGS])
    for case in CASES:
        expected += case.ledger
    for case in LISTS:
        expected.update((file, None, reason, decision) for file, reason, decision in case.found)
    for name, found in STRAYS.items():
        expected.update((name, None, reason, decision) for reason, decision in found)
    assert dirty.ledger == expected


def test_values_in_the_ledger_are_short_and_printable(dirty):
    assert max(map(len, dirty.values)) < 200
    assert all(map(str.isprintable, dirty.values))


def test_the_books_of_the_dirty_tree_balance(dirty):
    accounts = dirty.report.books.accounts
    dirty.report.books.check()
    for (config, split), rows in dirty.rows.items():
        assert accounts[config, split].written == len(rows)
    # A picture in both splits, with an object, is read for both.
    assert accounts["classification", "train"].left_out["list_both_splits"] == 1
    pictures = sum(account.read for (config, _), account in accounts.items() if config == "classification")
    objects = sum(account.read for (config, _), account in accounts.items() if config == "pose")
    assert (pictures - 1, objects - 1) == (dirty.report.pictures, dirty.report.objects)
    written = sum(case.has_picture for case in CASES) + sum(len(case.train) for case in LISTS)
    assert accounts["classification", "train"].written == written


@pytest.mark.skipif(not SAMPLE.exists(), reason="the shared sample of the release is not here")
def test_the_books_of_the_shared_sample_balance(tmp_path):
    sample = built(str(SAMPLE), tmp_path / "out", str(SAMPLE.parent))
    sample.report.books.check()
    for config in ("pose", "classification"):
        for split in ("train", "validation"):
            account = sample.report.books.accounts[config, split]
            assert account.read >= account.written == len(sample.rows[config, split]) > 0
    assert sample.report.pictures == sum(
        account.read
        for (config, _), account in sample.report.books.accounts.items()
        if config == "classification"
    )


def test_every_reason_has_a_case():
    reached = {reason for case in CASES for _, reason, _ in case.found}
    reached |= {reason for case in LISTS for _, reason, _ in case.found}
    reached |= {reason for found in STRAYS.values() for reason, _ in found}
    reached |= {reason for _, _, reason, _ in (*CAPTION_FINDINGS, *KEY_FINDINGS)}
    reached |= {reason for member in MEMBERS for reason, _ in member.found}
    reached |= {reason for _, reason in HOSTILE.values() if reason}
    reached |= {FOUND_BY_CROPPING}
    assert reached == set(REASONS) - ImageNet3D.OF_CORRECTIONS  # tests/annotate


def test_nothing_names_the_annotator(dirty):
    assert not [value for value in dirty.values if "Erika" in value or "annotator" in value]
    keys = sorted(value for value in dirty.values if value.endswith(" objects") and ": " in value)
    assert keys == ["occluded: 2 objects", r"odd\n\x1b[2J: 1 objects"]


def test_what_is_left_out_says_why_no_column_could_hold_it():
    for reason in REASONS.values():
        assert bool(reason.why) == (reason.decision != KEPT), reason.code
        assert not reason.why or len(reason.why.split()) >= 5, reason.code


def test_there_are_enough_distinct_corruptions():
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({(case.picture, case.annotation) for case in CASES if case.found}) >= 60


# --------------------------------------------------------------------------------------------------------
# What is done to picture bytes
# --------------------------------------------------------------------------------------------------------


ORIENTATION = PIL.Image.ExifTags.Base.Orientation


def decoded(data: bytes) -> tuple[Any, Any]:
    """The pixels as stored, and as `datasets` shows them."""
    return (
        np.asarray(PIL.Image.open(io.BytesIO(data))),
        np.asarray(datasets.Image().decode_example({"bytes": data, "path": None})),
    )


@pytest.mark.filterwarnings("ignore:Metadata Warning:UserWarning")  # Pillow, of the tag with two values
@pytest.mark.parametrize("name", TURNED_PICTURES)
def test_only_the_orientation_tag_changes(name, dirty):
    before = TURNED_PICTURES[name][0]
    after = rows_of(dirty, "pose", f"bed/{name}")[0]["image"]["bytes"]
    changed_bytes = [new for old, new in zip(before, after, strict=True) if old != new]
    if before.startswith(b"\x89PNG"):  # the checksum of the tag's chunk goes with it
        PIL.Image.open(io.BytesIO(after)).verify()
        changed_bytes = changed_bytes[:-4]
    assert changed_bytes in ([1], [ord("1")])

    stored, turned = decoded(before)
    # Else this test shows nothing. Older versions of Pillow do not look for XMP in these two.
    seen = ORIENTATION in PIL.Image.open(io.BytesIO(before)).getexif()
    assert seen or name in ("xmp-jpeg", "xmp-webp")
    assert np.array_equal(stored, turned) != seen
    still_stored, shown = decoded(after)
    assert np.array_equal(stored, still_stored)
    assert np.array_equal(stored, shown)


@pytest.mark.parametrize("case", [c for c in PICTURES if c.has_picture], ids=lambda case: case.name)
def test_all_other_bytes_pass_through(case, dirty):
    stored = rows_of(dirty, "classification", f"bed/{case.name}")[0]["image"]["bytes"]
    assert len(stored) == len(case.picture)
    assert (stored == case.picture) == (TURNED not in case.found_in_file)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_reading_a_picture_decodes_no_pixel(kind, monkeypatch):
    def refuse(self):
        raise AssertionError("pixels are decoded")

    data = encoded(kind)
    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", refuse)
    monkeypatch.setattr(PIL.PngImagePlugin.PngImageFile, "load", refuse)
    monkeypatch.setattr(PIL.WebPImagePlugin.WebPImageFile, "load", refuse)
    header = ImageNet3D.read_picture_header(data)
    assert (header.kind, header.width, header.height) == (kind, WIDTH, HEIGHT)


def test_the_limit_of_pixels_is_not_that_of_the_process(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(Unusable, match="picture_too_large"):
        ImageNet3D.read_picture_header(png_of_size(20_000, 20_000))


FUZZED = (
    encoded(exif=exif(6), xmp=xmp(3)),
    png_with(png_chunk(b"eXIf", exif(6)[6:])),
    TURNED_PICTURES["exif-webp"][0],
)


@bounded
@given(data=st.sampled_from(FUZZED).flatmap(damaged))
def test_damaged_pictures_are_read_or_refused(data):
    with suppress(Unusable):
        header = ImageNet3D.read_picture_header(data)
        assert (header.kind, header.width > 0, header.height > 0) in {
            (k, True, True) for k in ("JPEG", "PNG", "WEBP")
        }
        if header.orientation != 1:
            upright = ImageNet3D.with_upright_tag(data, header)
            assert len(upright) == len(data)
            assert ImageNet3D.read_picture_header(upright).orientation == 1


FOUND_BY_CROPPING = "picture_undecodable"


def test_pixels_that_cannot_be_decoded_are_found_by_cropping(tmp_path):
    tree = RawTreeWriter().sound().picture("bed", "a", png_of_garbage())
    found = survey(RawTree(tree.zip(tmp_path / "raw.zip")))
    (read,) = ImageNet3D.read_pictures(found.release, "pose", found.entries["train"], [])
    findings: list[ImageNet3D.Finding] = []
    assert list(crops(read, CropOptions(), findings, Counter())) == []
    assert [(finding.reason, finding.decision) for finding in findings] == [(FOUND_BY_CROPPING, KEPT)]


# --------------------------------------------------------------------------------------------------------
# Captions that cannot be used at all
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\xff", b"[" * 100_000, b"1" * 10_000],
    ids=lambda content: repr(content[:6]),
)
def test_captions_that_are_no_json_are_a_clear_error(content, tmp_path):
    tree = RawTree(RawTreeWriter().sound().captions(content).zip(tmp_path / "raw.zip"))
    with pytest.raises(ReleaseError, match=r"captions/image_captions\.json"):
        survey(tree)


def test_a_captions_folder_without_captions_is_a_clear_error(tmp_path):
    tree = RawTree(RawTreeWriter().sound().zip(tmp_path / "raw.zip"))
    with pytest.raises(ReleaseError, match=r"no \.json or \.jsonl file with captions"):
        survey(tree, captions=str(tmp_path))


# --------------------------------------------------------------------------------------------------------
# Folders that hold more than files
# --------------------------------------------------------------------------------------------------------


def reason_in_folder(path: str) -> str:
    """Why the only train picture of category bed is left out, reading a folder."""
    found = survey(RawTree(path))
    notes: list[ImageNet3D.Finding] = []
    assert (
        list(ImageNet3D.read_pictures(found.release, "classification", found.entries["train"], notes)) == []
    )
    (reason,) = {note.reason for note in notes} - {"annotation_missing"}
    return reason


def test_an_id_too_long_for_a_file_name_is_a_missing_picture(tmp_path):
    tree = RawTreeWriter().sound("bed", ()).lists("bed", ["x" * 5000])
    assert reason_in_folder(tree.folder(tmp_path)) == "picture_missing"


@pytest.mark.parametrize("kind", ["folder", "pipe", "broken link", "link to itself", "link to a device"])
def test_what_is_no_file_is_a_missing_picture(kind, tmp_path):
    tree = RawTreeWriter().sound("bed", ("a",))
    del tree.files["images/bed/a.JPEG"]
    path = tree.folder(tmp_path)
    place = tmp_path / TOP / "images" / "bed" / "a.JPEG"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        targets = {"broken link": "nowhere", "link to itself": "a.JPEG", "link to a device": os.devnull}
        place.symlink_to(targets[kind])
    assert reason_in_folder(path) == "picture_missing"


def test_links_that_lead_in_circles_end(tmp_path):
    path = RawTreeWriter().sound().folder(tmp_path)
    for name in ("one", "two"):
        (tmp_path / TOP / "images" / name).symlink_to("..")
        (tmp_path / TOP / "images" / "bed" / name).symlink_to("..")
    found = survey(RawTree(path))
    assert [entry.image_id for entry in found.entries["train"]] == ["bed/a"]
    assert {finding.reason for finding in found.findings} == {"file_unexpected"}


def test_a_link_out_of_the_release_is_counted_and_not_followed(tmp_path):
    path = RawTreeWriter().sound().folder(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.JPEG").write_bytes(b"x")
    (tmp_path / TOP / "images" / "out").symlink_to(tmp_path / "elsewhere")
    found = survey(RawTree(path))
    assert [(finding.reason, finding.file) for finding in found.findings] == [
        ("file_unexpected", "images/out")
    ]


@pytest.mark.parametrize("category", ["bed", "spaceship"])
def test_a_linked_category_is_read(tmp_path, category):
    """Known or of a later release; and what changes behind the link is seen."""
    path = RawTreeWriter().sound(category).folder(tmp_path / "raw")
    for kind in ("images", "annotations"):
        place = tmp_path / "raw" / TOP / kind / category
        place.rename(tmp_path / kind)
        place.symlink_to(tmp_path / kind)
    found = survey(RawTree(path))
    assert found.entries["train"][0].size == len(encoded())
    assert "file_unexpected" not in {finding.reason for finding in found.findings}
    (tmp_path / "annotations" / "a.npz").unlink()
    assert ImageNet3D.fingerprint(RawTree(path)) != found.fingerprint
