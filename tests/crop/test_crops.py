"""Crops show what their map says, annotations move with the pixels, and nothing extreme breaks them."""

import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ImageNet3D import Annotation, Entry, ObjectAnnotation, Picture
from processing.accounts import CROP_RULES
from processing.crop.pixels import Pixels, crop, crops, decode
from processing.crop.place import CropMap, CropOptions, crop_map, why_not_cropped
from processing.geometry import project, rotation_from_viewpoint

GOOD = {"azimuth": 0.4, "elevation": 0.3, "theta": 0.1, "viewport": 3000.0, "object_status": "good"}

# Grey levels by which a pixel may differ: rounding of the picture, of the two passes, and the kernel's own.
LEVELS = 3


def annotated(distance=8.0, px=50.0, py=40.0, bbox=(10.0, 20.0, 70.0, 90.0), **changes):
    values = {**GOOD, "distance": distance, "px": px, "py": py, **changes}
    return ObjectAnnotation(index=0, bbox=bbox, **values)


def wave(x, y, period):
    """Values that tell where they are: steep, smooth and the same at every scale; x and y are continuous."""
    red = 127 + 100 * np.sin(2 * np.pi * x / period)
    green = 127 + 100 * np.sin(2 * np.pi * y / period)
    return np.stack(np.broadcast_arrays(red, green, 127 + 0 * red), axis=-1)


def waves(width, height, period):
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    return Image.fromarray(np.rint(wave(x, y, period)).astype(np.uint8))


def assert_shows(cropped, place, width, height, period):
    """Every crop pixel holds what the map finds in the picture, away from the picture's edge."""
    x = (np.arange(cropped.width) + 0.5 - place.offset[0]) / place.scale
    y = (np.arange(cropped.height)[:, None] + 0.5 - place.offset[1]) / place.scale
    margin = 3 * max(1, 1 / place.scale)  # the kernel reaches two pixels, of the coarser grid, beyond
    inside = (x > margin) & (x < width - margin) & (y > margin) & (y < height - margin)
    error = np.abs(np.asarray(cropped) - wave(x, y, period)).max(axis=-1)
    assert error[inside].max(initial=0) <= LEVELS
    reach = 1 / place.scale
    outside = (x < -reach) | (x > width + reach) | (y < -reach) | (y > height + reach)
    assert not np.asarray(cropped)[outside].any(), "black outside the picture"


# --------------------------------------------------------------------------------------------------------
# Pixels
# --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(20, 300),
    height=st.integers(20, 300),
    scale=st.floats(0.02, 30),
    px=st.floats(-50, 350),
    py=st.floats(-50, 350),
    size=st.sampled_from([(33, 33), (64, 64), (128, 70), (20, 150)]),
)
def test_crop_pixels_are_the_pictures(width, height, scale, px, py, size):
    item = annotated(distance=4 * scale, px=px, py=py)
    place = crop_map(item, width, height, CropOptions("center", size))
    assert place.scale == pytest.approx(scale)
    period = max(40, 40 / scale)
    assert_shows(
        crop(Pixels(waves(width, height, period), width, height), place, size), place, width, height, period
    )


@settings(max_examples=30, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    size=st.tuples(st.integers(16, 200), st.integers(16, 200)),
)
def test_fit_shows_the_whole_picture(width, height, size):
    place = crop_map(annotated(), width, height, CropOptions("fit", size))
    left, top = place.to_crop(0, 0)
    right, bottom = place.to_crop(width, height)
    assert min(left, top) == pytest.approx(0, abs=1e-9)
    assert min(size[0] - right, size[1] - bottom) == pytest.approx(0, abs=1e-9)
    assert left + right == pytest.approx(size[0])
    assert top + bottom == pytest.approx(size[1])
    period = max(40, 40 / place.scale)
    cropped = crop(Pixels(waves(width, height, period), width, height), place, size)
    assert_shows(cropped, place, width, height, period)


@settings(max_examples=60, deadline=None)
@given(
    scale=st.floats(0.001, 5),
    x=st.floats(-40, 70),
    y=st.floats(-40, 70),
    width=st.integers(1, 60),
    height=st.integers(1, 60),
)
def test_a_pixel_is_picture_by_the_share_that_is_covered(scale, x, y, width, height):
    size = 32
    white = Pixels(Image.new("RGB", (width, height), (255, 255, 255)), width, height)
    cropped = np.asarray(crop(white, CropMap(scale, (x, y)), (size, size)))[..., 0]

    def covered(start, length):
        low, high = np.arange(size), np.arange(size) + 1
        return np.clip(np.minimum(high, start + length) - np.maximum(low, start), 0, 1)

    expected = 255 * np.outer(covered(y, height * scale), covered(x, width * scale))
    assert np.abs(cropped - expected).max() <= 1.5


@pytest.mark.parametrize(
    ("scale", "reduction"), [(0.6, 1), (0.5, 2), (0.3, 2), (0.25, 4), (0.125, 8), (0.02, 8)]
)
def test_a_jpeg_decoded_small_shows_the_same_place(scale, reduction):
    width, height, period = 1203, 811, 40 / scale
    stream = io.BytesIO()
    waves(width, height, period).save(stream, "JPEG", quality=98, subsampling=0)
    pixels = decode(stream.getvalue(), scale)
    assert (pixels.width, pixels.height, pixels.reduction) == (width, height, reduction)
    assert pixels.image.width < 1203 / reduction + 1
    place = CropMap(scale, (100.3 - width * scale / 2, 90.8 - height * scale / 2))
    assert_shows(crop(pixels, place, (200, 200)), place, width, height, period)


def test_reducing_does_not_alias():
    """Stripes of one pixel, black and white, become grey; at any phase of the grid."""
    stripes = np.zeros((300, 300, 3), np.uint8)
    stripes[:, ::2] = 255
    for scale in (0.37, 0.21, 0.1):
        cropped = np.asarray(
            crop(Pixels(Image.fromarray(stripes), 300, 300), CropMap(scale, (-3.3, -3.3)), (16, 16))
        )
        assert np.abs(cropped.astype(int) - 127).max() <= 16


def test_enlarging_is_bicubic():
    """As Pillow's own, another implementation of the kernel; they cut off at 0 and 255 in another order."""
    picture = Image.fromarray(np.random.default_rng(0).integers(90, 166, (60, 80, 3), np.uint8))
    place = CropMap(3.7, (-100.0, -50.0))
    box = (*place.to_picture(0, 0), *place.to_picture(64, 64))
    reference = np.asarray(picture.resize((64, 64), Image.Resampling.BICUBIC, box=box)).astype(int)
    assert np.abs(np.asarray(crop(Pixels(picture, 80, 60), place, (64, 64))) - reference).max() <= 3


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "LA", "1", "I;16"])
def test_every_kind_of_picture_becomes_rgb(mode):
    grey = np.full((30, 40), 130, np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.merge("RGB", [Image.fromarray(grey)] * 3).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "JPEG" if mode in ("L", "CMYK") else "PNG")
    pixels = decode(stream.getvalue(), 1.0)
    assert pixels.image.mode == "RGB"
    assert np.abs(np.asarray(pixels.image).mean() - 130) < 3


# --------------------------------------------------------------------------------------------------------
# Annotations
# --------------------------------------------------------------------------------------------------------

PLACES = st.builds(
    annotated,
    distance=st.floats(0.08, 120),
    px=st.floats(-500, 1500),
    py=st.floats(-500, 1500),
    bbox=st.tuples(st.floats(-99, 0), st.floats(-99, 0), st.floats(1, 999), st.floats(1, 999)),
)
SIZES = st.tuples(st.integers(1, 1024), st.integers(1, 1024))
OPTIONS = st.builds(CropOptions, st.sampled_from(["center", "fit"]), SIZES, st.floats(0.5, 50))


@settings(deadline=None)
@given(item=PLACES, options=OPTIONS, width=st.integers(1, 10_000), height=st.integers(1, 10_000))
def test_all_sides_of_the_box_and_the_centre_move_by_one_rule(item, options, width, height):
    place = crop_map(item, width, height, options)
    moved = place.annotation(item)
    (left, top), scale = place.offset, place.scale
    for side, before, offset in zip(moved.bbox, item.bbox, (left, top, left, top), strict=True):
        assert side == pytest.approx(before * scale + offset, rel=1e-12, abs=1e-9)
    assert (moved.px, moved.py) == pytest.approx((item.px * scale + left, item.py * scale + top), abs=1e-6)
    assert moved.distance == pytest.approx(item.distance / scale)
    assert (moved.viewport, moved.azimuth, moved.theta) == (item.viewport, item.azimuth, item.theta)
    if options.mode == "center":
        assert (moved.px, moved.py) == pytest.approx((options.size[0] / 2, options.size[1] / 2), abs=1e-6)
        assert moved.distance == pytest.approx(options.target_distance, rel=1e-15)


@settings(deadline=None)
@given(item=PLACES, options=OPTIONS, x=st.floats(-1e4, 1e4), y=st.floats(-1e4, 1e4))
def test_the_map_is_inverted_exactly(item, options, x, y):
    place = crop_map(item, 640, 480, options)
    largest = max(1.0, abs(x), abs(y), *(abs(value) / place.scale for value in place.offset))
    assert place.to_picture(*place.to_crop(x, y)) == pytest.approx((x, y), abs=8 * 2.3e-16 * largest, rel=0)


@settings(deadline=None)
@given(
    item=PLACES,
    options=OPTIONS,
    points=st.lists(st.tuples(*[st.floats(-0.4, 0.4)] * 3), min_size=1, max_size=5),
)
def test_where_the_mesh_lands(item, options, points):
    """With viewport · scale exactly; with distance / scale off by a known factor, 1 in the centre's plane."""
    view = (item.azimuth, item.elevation, item.theta)
    distance = item.distance + 1  # in front of the camera
    place = crop_map(item, 640, 480, options)
    s, moved = place.scale, place.annotation(item)
    before, depth = project(points, *view, distance, item.px, item.py, item.viewport)
    expected = before * s + place.offset
    exact, _ = project(points, *view, distance, moved.px, moved.py, item.viewport * s)
    assert exact == pytest.approx(expected, rel=1e-9, abs=1e-6)

    said, said_depth = project(points, *view, distance / s, moved.px, moved.py, item.viewport)
    toward = distance - depth  # of the camera, from the object's centre
    factor = depth / (distance - s * toward)
    seen = said_depth > 1e-3
    centre = np.array([moved.px, moved.py])
    approximate = centre + (expected - centre) * factor[:, None]
    assert said[seen] == pytest.approx(approximate[seen], rel=1e-6, abs=1e-6)

    across = np.column_stack([np.array(points)[:, :2], np.zeros(len(points))]) @ rotation_from_viewpoint(
        *view
    )
    before, _ = project(across, *view, distance, item.px, item.py, item.viewport)
    in_plane, _ = project(across, *view, distance / s, moved.px, moved.py, item.viewport)
    assert in_plane == pytest.approx(before * s + place.offset, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"object_status": "partially"}, ""),
        ({"object_status": "barely"}, ""),
        ({"object_status": "bad"}, "status_bad"),
        ({"object_status": None}, "status_missing"),
        ({"ignored": True}, "ignore_set"),
        ({"distance": 0.0}, "distance_not_positive"),
        ({"distance": -3.0}, "distance_not_positive"),
        ({"distance": None}, "distance_not_positive"),
        ({"px": None}, "centre_missing"),
        ({"py": None}, "centre_missing"),
        ({"viewport": None, "cad_index": None}, ""),
        ({"bbox": (70.0, 90.0, 10.0, 20.0)}, ""),
        ({"distance": 1e300}, "pose_beyond_cropping"),
        ({"distance": 5e-324}, "pose_beyond_cropping"),
        ({"px": -1e300}, "pose_beyond_cropping"),
        ({"bbox": (0.0, 0.0, 1e308, 5.0)}, "pose_beyond_cropping"),
        ({"px": 5000.0}, "crop_empty"),
        ({"py": -400.0}, "crop_empty"),
        ({"px": -1.0, "distance": 1e5}, "crop_empty"),
        ({"distance": 1e-5}, "crop_empty"),
    ],
)
def test_objects_without_a_crop(changes, reason):
    assert why_not_cropped(annotated(**changes), (640, 480), CropOptions()) == reason
    assert reason in {"", *CROP_RULES}


# --------------------------------------------------------------------------------------------------------
# Whole pictures
# --------------------------------------------------------------------------------------------------------


def picture_of(image, *items, kind="JPEG"):
    stream = io.BytesIO()
    image.save(stream, kind)
    entry = Entry("bed/n0_1", "train")
    return Picture(entry, stream.getvalue(), *image.size, Annotation(len(items), items))


@pytest.mark.parametrize("mode", ["center", "fit"])
@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (1, 10_000), (10_000, 7)])
@pytest.mark.parametrize("distance", [1e-6, 0.08, 4.0, 120.0, 1e6])
def test_extreme_pictures_and_distances(mode, size, distance):
    item, lost = annotated(distance=distance, px=size[0] / 2, py=size[1] / 2), Counter()
    picture = picture_of(Image.new("RGB", size, (200, 200, 200)), item)
    found = list(crops(picture, CropOptions(mode, (64, 64)), [], lost))
    if lost:  # thinner than a pixel of the crop
        assert (lost, found) == ({"crop_empty": 1}, [])
        assert min(size) * (distance / 4 if mode == "center" else 64 / max(size)) < 1
        return
    (found,) = found
    pixels = np.asarray(found.image).astype(int)
    extent = [min(64.0, n * found.place.scale) for n in size]
    # As much light as the picture's part in the crop has: nothing is lost, nothing is made up.
    light = 200 * extent[0] * extent[1] / 64**2
    assert pixels[..., 0].mean() == pytest.approx(light, rel=0.05, abs=0.6)


def test_wholly_outside_is_left_out_and_partly_outside_is_padded():
    image, lost = Image.new("RGB", (80, 60), (200, 200, 200)), Counter()
    far, edge = annotated(distance=4.0, px=500.0), annotated(distance=4.0, px=0.0, py=30.0)
    (partly,) = crops(picture_of(image, far, edge), CropOptions("center", (32, 32)), [], lost)
    assert lost == {"crop_empty": 1}
    assert not np.asarray(partly.image)[:, :16].any()
    assert np.abs(np.asarray(partly.image)[:, 16:].astype(int) - 200).max() <= 2
    assert len(list(crops(picture_of(image, far, edge), CropOptions("fit", (32, 32)), [], lost))) == 2


@settings(max_examples=60, deadline=None)
@given(
    item=st.builds(
        annotated, distance=st.floats(0.001, 1000), px=st.floats(-900, 900), py=st.floats(-900, 900)
    ),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_no_crop_is_black(item, size):
    """Of a white picture each crop shows at least a whole pixel's worth."""
    picture, lost = picture_of(Image.new("RGB", (50, 30), (255, 255, 255)), item, kind="PNG"), Counter()
    found = list(crops(picture, CropOptions("center", size), [], lost))
    assert len(found) + lost.total() == 1
    for shown in found:
        assert np.asarray(shown.image).sum() >= 3 * 250


def test_one_decode_for_all_objects(monkeypatch):
    opened = []
    original = Image.open
    monkeypatch.setattr(
        Image, "open", lambda *args, **options: opened.append(1) or original(*args, **options)
    )
    items = [annotated(px=10.0 * i) for i in range(5)]
    assert len(list(crops(picture_of(Image.new("RGB", (90, 70)), *items), CropOptions(), [], Counter()))) == 5
    assert len(opened) == 1


def test_undecodable_pixels_are_a_finding_for_each_object():
    whole = picture_of(waves(300, 200, 40), annotated(), annotated(object_status="bad"), annotated())
    broken = Picture(whole.entry, whole.data[: len(whole.data) // 2], 300, 200, whole.annotation)
    findings, lost = [], Counter()
    assert not list(crops(broken, CropOptions(), findings, lost))
    assert [finding.reason for finding in findings] == ["picture_undecodable"] * 2
    assert lost == {"picture_undecodable": 2, "status_bad": 1}


def test_a_crop_is_a_plain_jpeg():
    (found,) = crops(
        picture_of(waves(300, 200, 40), annotated()), CropOptions("fit", (128, 90)), [], Counter()
    )
    with Image.open(io.BytesIO(found.jpeg())) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (128, 90))
        assert not image.getexif()
        assert "icc_profile" not in image.info


@pytest.mark.parametrize(
    "options",
    [
        ("centre", (512, 512), 4.0),
        ("fit", (0, 9), 4.0),
        ("fit", (9, 5000), 4.0),
        ("fit", (64, 64), 0.0),
        ("fit", (64, 64), float("nan")),
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="give"):
        CropOptions(*options)


MEMORY = """
import resource, sys
from processing.crop.pixels import crop, decode
from processing.crop.place import CropMap
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for scale in (0.02, 30):
    place = CropMap(scale, (256 - 5000 * scale, 256 - 3000 * scale))
    crop(decode(open(sys.argv[1], "rb").read(), scale), place, (512, 512))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow  # large pictures
def test_memory_is_bounded(tmp_path):
    """A picture of 60 megapixels takes its pixels where it is enlarged, and next to nothing where reduced."""
    path = tmp_path / "large.jpg"
    Image.new("RGB", (10_000, 6_000), (9, 99, 199)).save(path)
    command = [sys.executable, "-c", MEMORY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    reduced, enlarged = map(float, done.stdout.split())
    assert reduced < 30
    assert enlarged < 240 + 40
