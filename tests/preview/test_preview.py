"""The preview page shows the right objects, drawn where the annotations say; it is safe and stands alone."""

import base64
import hashlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import zipfile
from array import array
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trimesh
from click.testing import CliRunner
from markupsafe import escape
from PIL import Image
from support import PROJECT
from support.raw_tree import RawTreeWriter, an_object

import ImageNet3D
from ImageNet3D import Annotation, Entry, ObjectAnnotation, Picture, RawTree, ReleaseError
from processing.__main__ import main
from processing.build import cad
from processing.build.command import build
from processing.card.plots import Statistics, draw_plots
from processing.preview import command as preview
from processing.preview import page as page_of_cards
from processing.preview.cards import long_side
from processing.preview.command import write_preview
from processing.preview.raw import RawSource
from processing.preview.selection import Selection
from processing.preview.sources import open_source

pytestmark = pytest.mark.slow

HOSTILE = '"><img src=x onerror=alert(1)>&amp;'
VOID = {"meta", "input", "br", "image", "path", "rect", "line", "circle", "use"}


@dataclass
class Card:
    """What the page says of one object."""

    data: dict[str, str]
    category: str
    svg: dict[str, str] = field(default_factory=dict)
    shapes: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""

    @property
    def key(self) -> tuple[str, int]:
        category, rest = self.svg["aria-label"].partition("; its ")[0].split(", ", 1)
        stem, _, index = rest.rpartition(", object ")
        return f"{category}/{stem}", int(index)

    def shape(self, kind: str, name: str) -> dict[str, str] | None:
        found = [
            attributes for tag, attributes in self.shapes if (tag, attributes.get("class")) == (kind, name)
        ]
        return found[0] if found else None

    @property
    def bbox(self) -> np.ndarray:
        x, y, width, height = (float(self.shape("rect", "line")[n]) for n in ("x", "y", "width", "height"))
        return np.array([x, y, x + width, y + height])

    @property
    def size(self) -> np.ndarray:
        return np.array(self.svg["viewbox"].split()[2:], float)

    @property
    def mesh(self) -> np.ndarray | None:
        """Points (n, 2) of the mesh's silhouette within the picture."""
        if (path := self.shape("path", "silhouette")) is None:
            return None
        points = np.array(re.findall(r"-?[\d.]+", path["d"]), float).reshape(-1, 2)
        return np.clip(points, 0, self.size)

    def embedded(self, name: str) -> Image.Image | None:
        """The photo, or the layer-faces."""
        if (image := self.shape("image", name)) is None:
            return None
        return Image.open(io.BytesIO(base64.b64decode(image["href"].removeprefix("data:image/webp;base64,"))))


class Page(HTMLParser):
    """Reads a page; `cards` and all `tags` with their attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.cards: list[Card] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.sections: list[str] = []
        self.text = path.read_text("utf-8")
        self.feed(self.text)
        assert not self.open, self.open
        self.data = json.loads(
            re.search(r'<script type="application/json" id="data">(.*?)</script>', self.text)[1]
        )

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag == "section" and attributes["id"].startswith("category-"):
            self.sections.append(attributes["id"].removeprefix("category-"))
        if tag == "article":
            self.cards.append(Card(attributes, self.sections[-1]))
        elif "article" in self.open:
            self.cards[-1].shapes.append((tag, attributes))
            if tag == "svg":
                self.cards[-1].svg = attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "article" in self.open:
            self.cards[-1].text += f" {data}"


def annotations(folder: Path) -> dict[tuple[str, int], dict]:
    """All objects of a raw tree of ours, read with plain numpy; (image_id, object_index) -> dict."""
    found = {}
    for path in sorted(folder.glob("**/annotations/*/*.npz")):
        objects = np.load(path, allow_pickle=True)["annotations"]
        found |= {(f"{path.parent.name}/{path.stem}", i): item for i, item in enumerate(objects)}
    return found


def listed(folder: Path) -> set[str]:
    return listed_in(folder, "train") | listed_in(folder, "val")


def listed_in(folder: Path, split: str) -> set[str]:
    return {
        f"{path.name.partition('_imagenet_')[0]}/{stem}"
        for path in folder.glob(f"**/lists/*_imagenet_{split}.txt")
        for stem in path.read_text("utf-8").split()
    }


@pytest.fixture(scope="module")
def sample_page(sample_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "preview.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_of_cards, "draw_plots", draw_plots)  # whichever test asks first
        write_preview(str(sample_folder), path, per_category=3)
    return Page(path)


@pytest.fixture(scope="module")
def real_page(real_zip, tmp_path_factory):
    """Of every third category."""
    with zipfile.ZipFile(real_zip) as archive:
        categories = {name.split("/")[-2] for name in archive.namelist() if name.endswith(".JPEG")}
    path = tmp_path_factory.mktemp("page") / "preview.html"
    write_preview(str(real_zip), path, selection=Selection(categories=tuple(sorted(categories)[::3])))
    return Page(path)


@pytest.fixture
def plots():
    """Asked for by tests of pages that must have their plots."""


@pytest.fixture(autouse=True)
def no_plots(request, monkeypatch):
    """To draw them takes most of the time of a small page; sample_page has them."""
    if "plots" not in request.fixturenames:
        monkeypatch.setattr(page_of_cards, "draw_plots", lambda statistics: [])


# --------------------------------------------------------------------------------------------------------
# A tree and shards of one's own, where every text is hostile
# --------------------------------------------------------------------------------------------------------

CUBE = trimesh.creation.box((0.5, 0.5, 0.5))
POSE = {
    **{"azimuth": 0.5, "elevation": 0.3, "theta": 6.2, "distance": 5.0},
    **{"px": 50.0, "py": 40.0, "viewport": 400.0, "cad_index": 1},
}
STATUS = {"object_status": "status_good", "dense": "dense_no"}


def jpeg(size=(100, 80)):
    target = io.BytesIO()
    Image.new("RGB", size, "grey").save(target, "JPEG")
    return target.getvalue()


def write_picture(folder, category, stem, objects, data=None):
    """One picture of the validation list; objects are dicts without class and size."""
    for name in ("images", "annotations"):
        (folder / name / category).mkdir(parents=True, exist_ok=True)
    (folder / "lists").mkdir(exist_ok=True)
    (folder / f"images/{category}/{stem}.JPEG").write_bytes(jpeg() if data is None else data)
    array = np.empty(len(objects), dtype=object)
    array[:] = [{"class": category, "width": 100, "height": 80} | item for item in objects]
    np.savez(folder / f"annotations/{category}/{stem}.npz", annotations=array)
    with (folder / f"lists/{category}_imagenet_val.txt").open("a", encoding="utf-8") as file:
        file.write(f"{stem}\n")


def write_cube(folder, category):
    (folder / "CAD" / category).mkdir(parents=True, exist_ok=True)
    (folder / f"CAD/{category}/01.off").write_bytes(CUBE.export(file_type="off").encode())


@pytest.fixture
def hostile_folder(tmp_path):
    folder = tmp_path / HOSTILE
    for stem in (HOSTILE, "n1_1"):
        write_picture(folder, "bed", stem, [{"bbox": (20, 10, 70, 60)} | POSE | STATUS])
    write_picture(folder, "car", "n2_1", [{"bbox": (20, 10, 70, 60)}])
    write_cube(folder, "bed")
    (folder / "captions").mkdir()
    captions = {f"bed/{HOSTILE}": f"<script>{HOSTILE}</script>"}
    (folder / "captions/image_captions.json").write_text(json.dumps(captions), "utf-8")
    (folder / "captions/category_captions.json").write_text(json.dumps({"bed": HOSTILE}), "utf-8")
    return folder


def write_shard(out, image_ids=("bed/n1_1",), row_group_size=100, names=None, **pose):
    """A built folder with one shard of pose; `names` replace the image ids in its column."""
    fields = POSE | pose | {"object_status": "good", "dense": False}
    item = ObjectAnnotation(index=0, bbox=(20, 10, 70, 60), **fields)
    pictures = [Picture(Entry(i, "train"), jpeg(), 100, 80, Annotation(1, (item,))) for i in image_ids]
    (out / "pose").mkdir(parents=True)
    (out / "README.md").write_text("A card.", "utf-8")
    table = ImageNet3D.rows("pose", pictures, ImageNet3D.Release(None, {}, {}))
    if names is not None:
        table = table.set_column(table.schema.get_field_index("image_id"), "image_id", pa.array(names))
    pq.write_table(table, out / "pose/train-00000-of-00001-known.parquet", row_group_size=row_group_size)
    return out


# --------------------------------------------------------------------------------------------------------
# Which objects
# --------------------------------------------------------------------------------------------------------


def test_one_card_an_object_and_so_many_a_category(sample_folder, sample_page):
    objects = Counter(
        image_id.partition("/")[0]
        for image_id, _ in annotations(sample_folder)
        if image_id in listed(sample_folder)
    )
    keys = [card.key for card in sample_page.cards]
    assert len(set(keys)) == len(keys)
    assert Counter(card.category for card in sample_page.cards) == {
        category: min(3, count) for category, count in objects.items()
    }
    assert all(card.key[0].startswith(f"{card.category}/") for card in sample_page.cards)


def test_objects_of_a_category_come_from_different_pictures(sample_page):
    pictures = {card.key[0] for card in sample_page.cards}
    assert len(pictures) == len(sample_page.cards)


def test_same_objects_from_folder_zip_and_shards(sample_folder, built_sample, tmp_path):
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        for path in sorted(sample_folder.rglob("*")):
            archive.write(path, path.relative_to(sample_folder))
    sources = (tmp_path / "raw.zip", sample_folder, built_sample)
    zipped, folder, built = (shown(source, tmp_path, categories=FEW) for source in sources)
    assert folder.text[folder.text.index("<main") :] == zipped.text[zipped.text.index("<main") :]
    by_key = {card.key: card for card in zipped.cards}
    posed = {key for key, card in by_key.items() if "azimuth" in card.text}
    assert len(posed) > 8
    assert {card.key for card in built.cards} == posed
    assert sum(card.mesh is not None for card in built.cards) > 8
    for card in built.cards:
        other = by_key[card.key]
        np.testing.assert_array_equal(card.bbox, other.bbox)
        lines = [[attributes for tag, attributes in c.shapes if tag == "line"] for c in (card, other)]
        assert lines[0] == lines[1]
        assert (card.mesh is None) == (other.mesh is None)
        if card.mesh is not None:  # the meshes of the config cad have lost digits
            for corner in ("min", "max"):
                extremes = [getattr(c.mesh, corner)(axis=0) for c in (card, other)]
                np.testing.assert_allclose(*extremes, atol=0.3)


def test_without_meshes_that_is_said(built_sample, tmp_path):
    shutil.copytree(built_sample, tmp_path / "built")
    shutil.rmtree(tmp_path / "built/cad")
    page = shown(tmp_path / "built", tmp_path, categories=FEW)
    assert 'id="show-faces"' not in page.text
    assert page.data["meshes"] == {}
    placed = [card for card in page.cards if card.shape("line", "line")]
    assert len(placed) > 8
    assert all("No mesh: box and axes only." in card.text for card in placed)


def test_category_without_pose_shows_its_box(hostile_folder, tmp_path):
    write_preview(str(hostile_folder), tmp_path / "page.html")
    (card,) = [card for card in Page(tmp_path / "page.html").cards if card.category == "car"]
    np.testing.assert_allclose(card.bbox, (20, 10, 70, 60))
    assert card.mesh is None
    assert card.shape("line", "line") is None
    assert "A box and no pose." in card.text
    assert "azimuth" not in card.text


FEW = ("bed", "car", "cup", "teapot")  # categories, for pages that are made in no time


def shown(source, tmp_path, *, per_category=3, seed=0, **selected):
    write_preview(str(source), tmp_path / "page.html", per_category, Selection(**selected), seed)
    return Page(tmp_path / "page.html")


def test_selection_is_what_the_whole_page_is_about(sample_folder, tmp_path):
    page = shown(
        sample_folder, tmp_path, categories=("bed", "car"), statuses=("good", "none"), splits=("train",)
    )
    truth = annotations(sample_folder)
    assert {card.category for card in page.cards} == {"bed", "car"}
    for card in page.cards:
        assert truth[card.key].get("object_status", "status_none") in ("status_good", "status_none")
    assert {card.data["data-split"] for card in page.cards} == {"train"}
    train = listed_in(sample_folder, "train")
    objects = [
        item
        for (image_id, _), item in truth.items()
        if image_id in train and image_id.partition("/")[0] in ("bed", "car")
    ]
    wanted = [item for item in objects if item.get("object_status") in (None, "status_good")]
    assert 0 < len(wanted) < len(objects)
    assert f"<dt>objects</dt><dd>{len(wanted)}</dd>" in page.text
    assert "bed, car · status good, none · train" in page.text
    assert not re.findall(r"<code>[a-z]+/(?!bed/|car/)", page.text)


def test_a_selection_of_shards_shows_the_same(sample_folder, built_sample, tmp_path):
    selected = {"categories": ("bed",), "splits": ("train",)}
    raw, built = (shown(source, tmp_path, **selected) for source in (sample_folder, built_sample))
    assert [card.key for card in raw.cards] == [card.key for card in built.cards] != []


@pytest.mark.parametrize("config", ["pose", "object_centric"])
def test_a_folder_may_be_called_like_a_pattern(built_sample, tmp_path, config):
    (tmp_path / "b[1]*").mkdir()
    shutil.copytree(built_sample, tmp_path / "b[1]*/out")
    page, other = (
        shown(source, tmp_path, per_category=1, config=config, categories=FEW)
        for source in (tmp_path / "b[1]*/out", built_sample)
    )
    assert len(page.cards) == len(FEW)
    assert page.data["meshes"]
    assert books(page)
    assert page.text[page.text.index("<main") :] == other.text[other.text.index("<main") :]


def test_seed_chooses_other_objects(sample_folder, tmp_path):
    keys = [
        [card.key for card in shown(sample_folder, tmp_path, per_category=1, seed=seed, categories=FEW).cards]
        for seed in (0, 0, 1)
    ]
    assert keys[0] == keys[1] != keys[2]
    assert len(keys[2]) == len(keys[0])


@pytest.mark.parametrize(
    ("selected", "why"),
    [
        ({"config": "captions"}, "config is 'captions'; give one of pose, object_centric"),
        ({"statuses": ("fine",)}, "status is 'fine'; give one of good, partially, barely, bad, none"),
        ({"splits": ("test",)}, "split is 'test'; give one of train, validation"),
    ],
)
def test_a_selection_of_what_there_is_not(selected, why):
    with pytest.raises(ValueError, match=why):
        Selection(**selected)


@pytest.mark.parametrize("kind", ["raw", "built"])
def test_categories_are_those_of_the_source_also_new_ones(kind, tmp_path):
    """A later release may have some that this code does not know."""
    source = RawTreeWriter().sound("bed", ("a",), ("v", "w")).sound("drone", ("x",), ("y", "z"))
    source = source.folder(tmp_path / "raw")
    if kind == "built":
        build(source, tmp_path / "out", configs=["pose"], workers=1)
        source = str(tmp_path / "out")
    page = str(tmp_path / "page.html")
    result = CliRunner().invoke(main, ["preview", source, page, "--category", "drone"])
    assert result.exit_code == 0, result.output
    assert "drone/" in Path(page).read_text("utf-8")
    assert "bed/" not in Path(page).read_text("utf-8")
    wrong = CliRunner().invoke(main, ["preview", source, page, "--category", "drones"])
    assert wrong.exit_code == 2
    assert "category is 'drones', which there is not; the closest are drone" in wrong.output


def test_command_line(sample_folder, tmp_path):
    page = tmp_path / "page.html"
    options = "--category bed --category car --status good --split train --seed 3 --per-category 1".split()
    result = CliRunner().invoke(main, ["preview", str(sample_folder), str(page), *options])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{page.as_uri()} (")
    assert "bed, car · status good · train" in page.read_text("utf-8")
    result = CliRunner().invoke(
        main, ["preview", str(sample_folder), str(page), "--config", "object_centric", "--status", "bad"]
    )
    assert result.exit_code == 1
    assert "no object is selected by status bad" in result.output
    result = CliRunner().invoke(main, ["preview", str(sample_folder), str(page), "--category", "cars"])
    assert result.exit_code == 2
    assert "the closest are car, cart, chair" in result.output
    result = CliRunner().invoke(main, ["preview", str(sample_folder), str(tmp_path)])
    assert result.exit_code == 2
    assert "is a folder; name the file to write" in result.output


def test_nothing_selected(hostile_folder, tmp_path):
    with pytest.raises(ReleaseError, match="no object is selected by car · status bad"):
        shown(hostile_folder, tmp_path, categories=("car",), statuses=("bad",))


def test_object_centric_of_a_release_is_that_of_its_shards(sample_folder, built_sample, tmp_path):
    raw, built = (
        shown(source, tmp_path, per_category=1, config="object_centric")
        for source in (sample_folder, built_sample)
    )
    cards = {card.key: card for card in raw.cards}
    assert {card.key for card in built.cards} == set(cards)
    for card in built.cards:
        np.testing.assert_allclose(card.bbox, cards[card.key].bbox, atol=0.011)
        difference = np.subtract(*(np.asarray(c.embedded("photo"), float) for c in (card, cards[card.key])))
        assert np.abs(difference).mean() < 0.5
        assert (card.size == card.size[0]).all()
        pose = json.loads(cards[card.key].data["data-pose"])
        np.testing.assert_allclose(pose[4:6], card.size / 2)  # the object's centre is the crop's
    for page in (raw, built):
        row = re.search(r"never placed in depth: its distance is absent or not above 0</td>.*", page.text)[0]
        assert '<span class="decision">no crop</span></td><td class="count">1</td>' in row


def test_unusable_pictures_make_way_and_are_told(tmp_path):
    broken = jpeg()[:-200] + b"\xff\xd9"
    for number, data in enumerate([b"", broken[:30], None]):
        item = {"bbox": (20, 10, 70, 60)} | POSE
        write_picture(tmp_path / "raw", "bed", f"n1_{number}", [item], data)
    write_picture(tmp_path / "raw", "bed", "n1_3", [{"bbox": (200, 10, 270, 60)} | POSE])
    (tmp_path / "raw/annotations/bed/n1_4.npz").write_bytes(b"no zip")
    with (tmp_path / "raw/lists/bed_imagenet_val.txt").open("a") as file:
        file.write("n1_4\n")
    write_preview(str(tmp_path / "raw"), tmp_path / "page.html", 4)
    page = Page(tmp_path / "page.html")
    assert {card.key for card in page.cards} == {("bed/n1_2", 0), ("bed/n1_3", 0)}
    for note in (
        "bed/n1_0, object 0, is not shown: a picture has no bytes",
        "bed/n1_1, object 0, is not shown",
        "<code>annotations/bed/n1_4.npz: BadZipFile: File is not a zip file</code>",
    ):
        assert note in page.text


def test_missing_and_damaged_meshes_are_told(tmp_path):
    for number, index in enumerate([1, 2]):
        item = {"bbox": (20, 10, 70, 60)} | POSE | {"cad_index": index}
        write_picture(tmp_path / "raw", "bed", f"n1_{number}", [item])
    write_cube(tmp_path / "raw", "bed")
    (tmp_path / "raw/CAD/bed/01.off").write_bytes(b"OFF\n5 5 5\n")
    write_preview(str(tmp_path / "raw"), tmp_path / "page.html")
    texts = {card.key[0]: card.text for card in Page(tmp_path / "page.html").cards}
    assert "No mesh: CAD/bed/01.off: damaged" in texts["bed/n1_0"]
    assert "No mesh: CAD/bed/02.off: not in the release; box and axes only." in texts["bed/n1_1"]


# --------------------------------------------------------------------------------------------------------
# Where things are drawn
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["sample", pytest.param("real", marks=pytest.mark.slow)])
def test_box_is_the_annotation_scaled(source, request):
    page = request.getfixturevalue(f"{source}_page")
    truth = annotations(request.getfixturevalue(f"{source}_folder"))
    assert len(page.cards) >= 10
    for card in page.cards:
        item = truth[card.key]
        scale = min(1, long_side(len(page.cards)) / max(item["width"], item["height"]))
        np.testing.assert_allclose(card.bbox, np.array(item["bbox"]) * scale, atol=0.011)
        np.testing.assert_allclose(card.size, np.array([item["width"], item["height"]]) * scale, atol=0.011)


@pytest.mark.parametrize("source", ["sample", pytest.param("real", marks=pytest.mark.slow)])
def test_outline_and_box_agree(source, request):
    """The boxes of both trees are those of the projected meshes."""
    page = request.getfixturevalue(f"{source}_page")
    truth = annotations(request.getfixturevalue(f"{source}_folder"))
    gaps = []
    for card in page.cards:
        placed = truth[card.key].get("distance", 0) > 0
        assert (card.mesh is not None) == placed
        if not placed:
            continue
        outline = np.r_[card.mesh.min(axis=0), card.mesh.max(axis=0)]
        inside = (outline - card.bbox) * [1, 1, -1, -1]
        # The real sample's boxes end at the last pixel, not at the picture's edge: one pixel less.
        assert inside.min() > -1.05, card.key
        # The widest part of a cut object may lie outside the picture.
        if (card.bbox > 1.5).all() and (card.bbox < np.tile(card.size, 2) - 1.5).all():
            gaps.append(inside.max())
    # The tip of a needle may be thinner than the raster that the outline is traced from.
    assert len(gaps) >= 10
    assert np.quantile(gaps, 0.95) < 0.8
    assert max(gaps) < 8


def test_axes_follow_the_camera_model(tmp_path):
    write_preview(str(write_shard(tmp_path / "built", azimuth=0.0, elevation=0.0, theta=0.0)), tmp_path / "p")
    (card,) = Page(tmp_path / "p").cards
    tips = {}
    for tag, attributes in card.shapes:
        if (tag, attributes.get("class")) == ("line", "line"):
            ends = [float(attributes[name]) for name in ("x1", "y1", "x2", "y2")]
            assert ends[:2] == [50, 40]
            tips[len(tips)] = ends[2:]
    # Seen from the front: y runs away from the camera and is drawn first, x to the right, z up; the axes are
    # half the box's longer side.
    assert tips == {0: [50, 40], 1: [75, 40], 2: [50, 15]} or tips == {0: [50, 40], 1: [50, 15], 2: [75, 40]}


def test_an_axis_that_would_reach_the_camera_stays_in_front_of_it(tmp_path):
    out = write_shard(tmp_path / "built", azimuth=0.0, elevation=0.0, theta=0.0, viewport=1.0, distance=0.1)
    write_preview(str(out), tmp_path / "page.html")
    (card,) = Page(tmp_path / "page.html").cards
    assert "nan" not in str(card.shapes)


def test_a_huge_box_is_shown_and_counted(plots, tmp_path):
    for number, size in enumerate([1e200, 1.7e308]):
        write_picture(tmp_path / "raw", "bed", f"n1_{number}", [{"bbox": (-size, -size, size, size)} | POSE])
    for number in (2, 3, 4):
        write_picture(tmp_path / "raw", "bed", f"n1_{number}", [{"bbox": (20, 10, 70, 60)} | POSE])
    page = shown(tmp_path / "raw", tmp_path, per_category=5)
    assert "half of them are 50 pixels or more across; 2 of more than 32,768 in the last bin" in page.text
    huge = [card for card in page.cards if card.key[0] in ("bed/n1_0", "bed/n1_1")]
    assert len(huge) == 2
    for card in huge:
        assert (np.abs(card.bbox) > 100 * card.size.max()).all()
        assert (np.abs(card.bbox) < 1e7).all()  # what a browser can draw


@pytest.mark.parametrize("largest", [300.0, 1e200, math.inf])
def test_the_plot_of_boxes_stays_readable(largest):
    svg = draw_plots(Statistics(boxes=array("d", [0.2, 50, 70, largest])))[0].svg
    labels = re.findall(r">(\d+)</text>", svg[: svg.index("side of a square")])
    assert 4 < len(labels) <= 9
    assert svg.count("clip-path") < 80  # bars


def test_the_plot_of_distances_has_room_for_a_huge_one():
    angles = {name: array("d", [0, 0]) for name in ImageNet3D.ANGLES}
    distances = array("d", [4, 1.79e308])
    plots = draw_plots(Statistics(posed=Counter(bed=2), angles=angles, distances=distances))
    assert [plot.title for plot in plots] == ["Azimuth", "Elevation", "Theta", "Distance"]


@pytest.mark.parametrize("name", ["distance", "px", "viewport", "cad_index"])
def test_what_a_pose_lacks_is_said(name, tmp_path):
    page = shown(write_shard(tmp_path / "built", **{name: None}), tmp_path)
    (card,) = page.cards
    assert "azimuth" in card.text
    drawn = card.shape("line", "line") is not None
    assert drawn == (name == "cad_index")
    words = {
        "distance": "Never placed in depth",
        "px": "centre",
        "viewport": "viewport",
        "cad_index": "No mesh",
    }
    assert words[name] in card.text
    assert "nan" not in page.text[page.text.index("<main") :].replace("finance", "")


@pytest.mark.parametrize(
    "bbox", [(70, 60, 20, 10), (20, 10, 20, 10), (20, 10, 20 + 1e-12, 60), (-90, -90, -10, -10)]
)
def test_a_box_of_any_kind_is_drawn(bbox, tmp_path):
    """The wrong way round, without extent, thinner than a pixel, outside."""
    write_picture(tmp_path / "raw", "bed", "n1_0", [{"bbox": bbox, "object_status": "status_good"} | POSE])
    (card,) = shown(tmp_path / "raw", tmp_path).cards
    x1, y1, x2, y2 = card.bbox
    assert x1 < x2
    assert y1 < y2
    sides = [min(bbox[0], bbox[2]), min(bbox[1], bbox[3]), max(bbox[0], bbox[2]), max(bbox[1], bbox[3])]
    np.testing.assert_allclose(card.bbox, sides, atol=0.03)


def test_numbers_of_no_photograph_are_told(plots, tmp_path, recwarn):
    for number, changes in enumerate([{"viewport": 1e308}, {"distance": 1e300}, {"px": -1e300}]):
        item = {"bbox": (20, 10, 70, 60)} | POSE | changes
        write_picture(tmp_path / "raw", "bed", f"n1_{number}", [item])
    write_cube(tmp_path / "raw", "bed")
    cards = shown(tmp_path / "raw", tmp_path).cards
    assert len(cards) == 3
    for card in cards:
        assert "are those of no photograph: no mesh or axes to draw." in card.text
        assert "nan" not in str(card.shapes)
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


def test_16_bits_are_shown_as_dark_as_they_are(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.full((80, 100), 40 * 257, np.uint16)).save(stream, "PNG")
    write_picture(tmp_path / "raw", "bed", "n1_0", [{"bbox": (20, 10, 70, 60)}], stream.getvalue())
    (card,) = shown(tmp_path / "raw", tmp_path).cards
    assert np.abs(np.asarray(card.embedded("photo"), int) - 40).max() <= 2


def test_angles_are_in_degrees(tmp_path):
    out = write_shard(
        tmp_path / "built", azimuth=math.radians(350), elevation=math.radians(350), theta=-0.005
    )
    write_preview(str(out), tmp_path / "page.html")
    (card,) = Page(tmp_path / "page.html").cards
    words = card.text.split()
    said = {name: words[words.index(name) + 1] for name in ("azimuth", "elevation", "theta", "distance")}
    assert said == {
        **{"azimuth": "350.0°", "elevation": "−10.0°", "theta": "−0.3°"},  # noqa: RUF001 - a minus sign
        "distance": "5.00",
    }
    assert {"good", "not dense", "train"} <= set(map(str.strip, card.text.split("\n")))


def test_turned_and_odd_pictures_are_shown_as_stored(tmp_path):
    tag = Image.Exif()
    tag[0x0112] = 6
    for number, mode in enumerate(["L", "CMYK", "RGBA", "P"]):
        target = io.BytesIO()
        kind = "PNG" if mode in ("RGBA", "P") else "JPEG"
        Image.new(mode, (1000, 80)).save(target, kind, exif=tag)
        item = {"bbox": (20, 10, 70, 60), "width": 1000}
        write_picture(tmp_path / "raw", "bed", f"n1_{number}", [item], target.getvalue())
    write_preview(str(tmp_path / "raw"), tmp_path / "page.html", 4)
    cards = Page(tmp_path / "page.html").cards
    assert len(cards) == 4
    photos = [card.embedded("photo") for card in cards]
    assert {photo.size for photo in photos} == {(640, 51)}
    assert {photo.mode for photo in photos} == {"RGB"}
    assert not any(photo.getexif() for photo in photos)


def test_meshes_of_the_cad_config_are_drawn(tmp_path):
    out = write_shard(tmp_path / "built")
    raw = tmp_path / "raw"
    write_picture(raw, "bed", "n1_1", [{"bbox": (20, 10, 70, 60)} | POSE])
    write_cube(raw, "bed")
    mesh = {"bytes": CUBE.export(file_type="glb"), "path": "bed_01.glb"}
    row = {"category": [ImageNet3D.CATEGORY_IDS["bed"]], "cad_index": [1], "mesh": [mesh]}
    (out / "cad").mkdir()
    pq.write_table(pa.table(row), out / "cad/train-00000-of-00001.parquet")
    for name, source in (("raw", raw), ("built", out)):
        write_preview(str(source), tmp_path / f"{name}.html")
    (one,), (other,) = (Page(tmp_path / f"{name}.html").cards for name in ("raw", "built"))
    assert len(one.mesh) > 3
    np.testing.assert_allclose(one.mesh, other.mesh, atol=0.11)


def test_vertices_that_no_triangle_uses_are_stored_and_not_drawn(tmp_path):
    """The second model is the first one with such a vertex far away; both are too large to embed whole."""
    ball = trimesh.creation.icosphere(4, 0.5)
    far = trimesh.Trimesh(np.vstack([ball.vertices, [2000, 0, 0]]), ball.faces, process=False)
    tree = RawTreeWriter().lists("bed", val=("a", "b"))
    for index, (stem, model) in enumerate({"a": ball, "b": far}.items(), 1):
        tree.picture("bed", stem).annotation("bed", stem, an_object(cad_index=index))
        tree.files[f"CAD/bed/{index:02d}.off"] = model.export(file_type="off").encode()
    raw = tree.folder(tmp_path / "raw")
    out = write_shard(tmp_path / "built")
    (out / "cad").mkdir()
    rows = [cad.row(RawTree(raw), cad.MeshEntry("bed", index)) for index in (1, 2)]
    pq.write_table(cad.table(rows), out / "cad/train-00000-of-00001.parquet")
    assert [row["num_vertices"] for row in rows] == [2562, 2563]
    assert rows[0]["bounds"] == rows[1]["bounds"]
    write_preview(raw, tmp_path / "page.html")
    one, other = Page(tmp_path / "page.html").cards
    np.testing.assert_array_equal(one.mesh, other.mesh)
    for source in map(open_source, (raw, str(out))):
        assert [len(source.mesh("bed", index).vertices) for index in (1, 2)] == [2562, 2562]


def test_meshes_of_a_category_that_only_the_build_knows_are_drawn(tmp_path):
    raw = RawTreeWriter().sound("bed").sound("spaceship").zip(tmp_path / "raw.zip")
    build(raw, tmp_path / "built", workers=1)
    for name, source in (("raw", raw), ("built", tmp_path / "built")):
        write_preview(str(source), tmp_path / f"{name}.html")
    one, other = ({c.key: c.mesh for c in Page(tmp_path / f"{n}.html").cards} for n in ("raw", "built"))
    assert {image_id.partition("/")[0] for image_id, _ in one} == {"bed", "spaceship"}
    assert one.keys() == other.keys()
    for key, mesh in one.items():
        assert len(mesh)
        np.testing.assert_allclose(mesh, other[key], atol=0.11)


def test_a_mesh_of_no_category_is_damage(tmp_path):
    out = write_shard(tmp_path / "built")
    (out / "cad").mkdir()
    row = {"category": [len(ImageNet3D.CATEGORIES)], "cad_index": [1]}
    pq.write_table(pa.table(row), out / "cad/train-00000-of-00001.parquet")
    with pytest.raises(ReleaseError, match=r"cad/train-00000-of-00001\.parquet: damaged \(category is "):
        write_preview(str(out), tmp_path / "page.html")


# --------------------------------------------------------------------------------------------------------
# The books
# --------------------------------------------------------------------------------------------------------


def books(page):
    """Rule -> (decision, times, examples)."""
    rows = re.findall(
        r'<tr class="(?:kept|lost)"><td>(.*?)</td><td><span class="decision">(.*?)</span></td>'
        r'<td class="count">([\d,]+)</td><td>(.*?)</td></tr>',
        page.text,
        re.DOTALL,
    )
    return {
        rule: (decision, int(times), re.findall("<code>(.*?)</code>", examples))
        for rule, decision, times, examples in rows
    }


def test_books_of_a_release(sample_page, sample_folder):
    found = books(sample_page)
    no_pose = [key for key, item in annotations(sample_folder).items() if "azimuth" not in item]
    decision, times, examples = found["an object has a box and no pose at all"]
    assert (decision, times) == ("left out of pose", len(no_pose))
    assert set(examples) == {f"{image_id}, object {index}" for image_id, index in no_pose}
    # Each is shown, with its box and no more.
    shown = re.search("no pose at all.*?</tr>", sample_page.text, re.DOTALL)[0]
    assert shown.count("<svg") == shown.count('class="layer-box"') == len(no_pose)
    assert "layer-axes" not in shown
    unlisted = {image_id for image_id, _ in annotations(sample_folder)} - listed(sample_folder)
    decision, times, examples = found["a picture or annotation is in no list"]
    assert (decision, times) == ("left out", len(unlisted))
    assert examples == [f"images/{image_id}.JPEG" for image_id in unlisted]
    assert "an object carries the old ignore flag; it is left out of object_centric" in found
    decisions = [decision for decision, _, _ in found.values()]
    assert decisions == sorted(decisions, key=["left out", "left out of pose", "kept"].index)


def test_books_of_a_built_folder_are_its_ledger(built_sample, tmp_path):
    page = shown(built_sample, tmp_path, per_category=1)
    lines = (built_sample / ".build/ledger.jsonl").read_text("utf-8").splitlines()
    counts = Counter(json.loads(line)["reason"] for line in lines)
    assert len(counts) > 5
    times = {rule: count for rule, (_, count, _) in books(page).items()}
    assert times == {str(escape(ImageNet3D.REASONS[code].rule)): count for code, count in counts.items()}


def test_a_published_folder_has_no_books(tmp_path):
    page = shown(write_shard(tmp_path / "built"), tmp_path)
    assert books(page) == {}
    assert "The ledger of the build is not here" in page.text


def test_a_damaged_ledger_is_named(tmp_path):
    out = write_shard(tmp_path / "built")
    (out / ".build").mkdir()
    (out / ".build/ledger.jsonl").write_text("{}\n", "utf-8")
    with pytest.raises(ReleaseError, match=r"ledger\.jsonl: damaged"):
        shown(out, tmp_path)


# --------------------------------------------------------------------------------------------------------
# The page
# --------------------------------------------------------------------------------------------------------


def test_hostile_text_stays_text(hostile_folder, tmp_path):
    write_preview(str(hostile_folder), tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    names = Counter(tag for tag, _ in page.tags)
    assert not set(names) & {"img", "iframe", "object", "embed", "link", "foreignobject"}
    assert names["script"] == 2
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    hostile = next(card for card in page.cards if card.key[0] == f"bed/{HOSTILE}")
    assert f"<script>{HOSTILE}</script>" in hostile.text
    assert f"<br>{escape(HOSTILE)}</p>" in page.text  # the category's caption


def test_hostile_shard_stays_text(tmp_path):
    write_preview(
        str(write_shard(tmp_path / "built", names=[f"{HOSTILE}/{HOSTILE}"])), tmp_path / "page.html"
    )
    page = Page(tmp_path / "page.html")
    assert "img" not in {tag for tag, _ in page.tags}
    assert page.sections == [HOSTILE]


def test_page_stands_alone(sample_page):
    for tag, attributes in sample_page.tags:
        assert tag not in ("link", "img", "iframe")
        assert "src" not in attributes
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/webp;base64,"))
    assert "@import" not in sample_page.text
    assert not re.findall(r"url\((?!#)", sample_page.text)


def test_no_other_script_than_the_page_s_own_may_run(sample_page):
    (policy,) = (
        a["content"] for tag, a in sample_page.tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; img-src data:;")
    script = re.search(r"<script>(.*?)</script>", sample_page.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def test_every_picture_has_a_text(sample_page):
    drawn = [attributes for tag, attributes in sample_page.tags if tag == "svg"]
    inside_plots = [a for a in drawn if "role" not in a]
    assert len(inside_plots) == sample_page.text.count("<figcaption><h3>") == 8
    for attributes in drawn:
        if "role" in attributes:
            assert len(attributes["aria-label"]) > 20
    plots = [a for tag, a in sample_page.tags if tag == "figure" and "role" in a]
    assert len(plots) == 8
    assert all(len(a["aria-label"]) > 20 for a in plots)
    shown = next(card for card in sample_page.cards if card.mesh is not None)
    for word in ("box, CAD model, axes", "azimuth", "distance"):
        assert word in shown.svg["aria-label"]


def test_ids_are_unique_and_links_lead_somewhere(sample_page):
    ids = [attributes["id"] for _, attributes in sample_page.tags if "id" in attributes]
    assert max(Counter(ids).values()) == 1
    links = {attributes["href"] for tag, attributes in sample_page.tags if tag == "a"}
    assert {link.removeprefix("#") for link in links} <= set(ids)
    used = set(re.findall(r'(?:url\(|xlink:href=")#([\w-]+)', sample_page.text))
    assert used <= set(ids)


def test_counts_at_the_top(sample_page, sample_folder):
    head = sample_page.text[: sample_page.text.index('id="pictures"')]
    found = dict(re.findall(r"<dt>([a-z ]+)</dt><dd>([\d,]+)</dd>", head))
    inside = listed(sample_folder)
    truth = {key: item for key, item in annotations(sample_folder).items() if key[0] in inside}
    posed = sum("azimuth" in item for item in truth.values())
    assert found == {
        "pictures": str(len(inside)),
        "objects": str(len(truth)),
        "with a pose": str(posed),
        "categories": str(len(sample_page.sections)),
    }
    train, validation = (len(listed_in(sample_folder, split)) for split in ("train", "val"))
    words = f"{train} pictures are in train, {validation} pictures are in validation."
    assert words in sample_page.text


def test_plots_are_there(sample_page):
    titles = re.findall(r"<figcaption><h3>([^<]+)</h3>", sample_page.text)
    assert titles == [
        *("Azimuth", "Elevation", "Theta", "Distance"),
        *("Status and density", "Box sizes", "Picture sizes", "Objects per category"),
    ]


def test_page_is_light(sample_page):
    """500 such objects stay below 30 MB."""
    assert len(sample_page.text) < 60_000 * len(sample_page.cards)
    sides = [max(card.embedded("photo").size) for card in sample_page.cards]
    assert max(sides) == min(long_side(len(sample_page.cards)), 500)  # the widest of the sample
    overlays = [
        sum(len(a.get("d", "")) for tag, a in card.shapes if tag == "path") for card in sample_page.cards
    ]
    assert max(overlays) < 16_000


def test_more_objects_get_smaller_pictures():
    sides = [long_side(count) for count in range(1, 2000)]
    assert sides == sorted(sides, reverse=True)
    assert (sides[0], long_side(500), sides[-1]) == (640, 420, 320)


def test_same_input_same_bytes(plots, sample_folder, tmp_path):
    for name in ("one.html", "other.html"):
        write_preview(str(sample_folder), tmp_path / name, 1, Selection(categories=("bed",)))
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "other.html").read_bytes()


def test_page_is_replaced_whole_or_not_at_all(sample_folder, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    write_preview(str(write_shard(tmp_path / "built")), page)
    before = page.read_bytes()
    with pytest.raises(ReleaseError):
        write_preview(str(tmp_path / "nothing"), page)
    assert page.read_bytes() == before
    write_preview(str(write_shard(tmp_path / "other")), page, 1)
    assert page.read_bytes() != before
    assert {path.name for path in tmp_path.iterdir()} == {"built", "other", "page.html"}


class TestWhereAPageMayGo:
    """Nothing but an earlier page is replaced."""

    @pytest.mark.parametrize("name", ["raw.zip", "built/README.md", "built/pose"])
    def test_what_is_no_page_stays(self, name, tmp_path):
        built = write_shard(tmp_path / "built")
        (tmp_path / "raw.zip").write_bytes(b"PK the gated zip")
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        result = CliRunner().invoke(main, ["preview", str(built), str(tmp_path / name)])
        assert result.exit_code == 2, result.output
        assert name.partition("/")[2] in result.output
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    def test_a_page_through_standard_output_is_a_page_alone(self, tmp_path):
        command = [sys.executable, "-m", "processing", "preview", str(write_shard(tmp_path / "built"))]
        done = subprocess.run([*command, "/dev/stdout"], capture_output=True, cwd=PROJECT, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(b"<!DOCTYPE html>")
        assert done.stdout.rstrip().endswith(b"</html>")


def test_the_page_s_name_may_be_as_long_as_a_name_can_be(hostile_folder, tmp_path):
    page = tmp_path / ("p" * 250 + ".html")
    result = CliRunner().invoke(main, ["preview", str(hostile_folder), str(page)])
    assert result.exit_code == 0, result.output
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")


# --------------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------------


def test_unfinished_build(tmp_path):
    (write_shard(tmp_path / "built") / "README.md").unlink()
    with pytest.raises(ReleaseError, match="unfinished build; run the same build again"):
        write_preview(str(tmp_path / "built"), tmp_path / "page.html")


def test_built_folder_without_poses(tmp_path):
    (tmp_path / "built").mkdir()
    (tmp_path / "built/README.md").write_text("A card.", "utf-8")
    with pytest.raises(ReleaseError, match="build it with --config pose"):
        write_preview(str(tmp_path / "built"), tmp_path / "page.html")


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), "cannot be read"),
        (lambda path: path.write_bytes(b"PAR1" + path.read_bytes()[300:]), "cannot be read"),
        (lambda path: pq.write_table(pq.read_table(path).drop("theta"), path), "has no column theta"),
    ],
    ids=["cut off", "damaged", "another schema"],
)
def test_damaged_shard_is_named(tmp_path, harm, why):
    out = write_shard(tmp_path / "built")
    shard = out / "pose/train-00000-of-00001-known.parquet"
    harm(shard)
    with pytest.raises(ReleaseError, match=rf"{shard.name}: {why}"):
        write_preview(str(out), tmp_path / "page.html")


def with_value(column, value):
    """Harm: another value in a column of the first row, of any type."""

    def harm(path):
        table = pq.read_table(path)
        values = [value, *table[column].to_pylist()[1:]]
        kind = pa.array(values).type if isinstance(value, str) else table.schema.field(column).type
        place = table.schema.get_field_index(column)
        pq.write_table(table.set_column(place, column, pa.array(values, kind)), path)

    return harm


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("object_status", 99), ("object_status", -1), ("image_id", None), ("image_id", "bed")),
        *(("image_id", "../../etc"), ("width", 0), ("height", None), ("object_index", None)),
        *(("bbox", None), ("bbox", [1.0, 2.0, math.nan, 4.0]), ("theta", math.inf), ("azimuth", "north")),
        *(("dense", "yes"), ("image", None)),
    ],
)
def test_a_value_that_no_build_writes_is_named_as_damage(column, value, tmp_path):
    out = write_shard(tmp_path / "built")
    shard = out / "pose/train-00000-of-00001-known.parquet"
    with_value(column, value)(shard)
    result = CliRunner().invoke(main, ["preview", str(out), str(tmp_path / "page.html")])
    assert result.exit_code == 1, result.output
    assert f"{shard.name}: damaged ({column} is " in result.output
    assert not (tmp_path / "page.html").exists()


def test_damage_in_the_meshes_is_named(tmp_path):
    out = write_shard(tmp_path / "built")
    (out / "cad").mkdir()
    row = {"category": [999], "cad_index": [1], "mesh": [{"bytes": b"", "path": "bed_01.glb"}]}
    pq.write_table(pa.table(row), out / "cad/train-00000-of-00001.parquet")
    with pytest.raises(ReleaseError, match=r"damaged \(category is 999"):
        shown(out, tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_for_a_shard_is_refused(tmp_path):
    out = write_shard(tmp_path / "built")
    os.mkfifo(out / "pose/validation-00000-of-00001-known.parquet")
    with pytest.raises(ReleaseError, match="is no file"):
        shown(out, tmp_path)


def test_a_fault_of_this_program_is_no_wrong_usage(tmp_path, monkeypatch):
    def faulty(*_, **__):
        raise ValueError("math domain error")

    monkeypatch.setattr(preview, "render_page", faulty)
    result = CliRunner().invoke(
        main, ["preview", str(write_shard(tmp_path / "built")), str(tmp_path / "page.html")]
    )
    assert isinstance(result.exception, ValueError)
    assert result.exit_code == 1


def test_names_with_dollars_are_text(plots, tmp_path):
    out = write_shard(tmp_path / "built", names=[r"$\frac{$/n1_1"])
    assert shown(out, tmp_path).sections == [r"$\frac{$"]


def test_every_stage_has_a_progress_bar_of_its_own(sample_folder, tmp_path, monkeypatch):
    told = []
    original = preview.tqdm
    monkeypatch.setattr(
        preview,
        "tqdm",
        lambda things, **options: (
            told.append((options["desc"], len(things))) or original(things, **options | {"disable": True})
        ),
    )
    page = shown(sample_folder, tmp_path, per_category=1, categories=("bed", "car"))
    assert told[0] == ("preview: pictures", 2)
    assert told[1] == ("preview: examples", len(books(page)))


def test_rows_are_found_again_in_any_row_group(tmp_path):
    image_ids = [f"bed/n1_{number}" for number in range(40)]
    out = write_shard(tmp_path / "built", image_ids, row_group_size=7)
    source = preview.open_source(str(out))
    pictures = list(source.pictures())
    assert [picture.image_id for picture in pictures] == image_ids
    assert [source._value(picture.places[0], "image_id") for picture in pictures] == image_ids


def test_per_category_must_be_positive(sample_folder, tmp_path):
    with pytest.raises(ValueError, match="per_category is 0"):
        write_preview(str(sample_folder), tmp_path / "page.html", 0)


def test_says_what_to_install(sample_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "find_spec", lambda name: None if name == "matplotlib" else object())
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install -e '\.\[demo\]' in a clone"):
        write_preview(str(sample_folder), tmp_path / "page.html")


def test_a_raw_tree_may_have_a_readme(hostile_folder):
    (hostile_folder / "README.md").write_text("Read me.", "utf-8")
    assert isinstance(preview.open_source(str(hostile_folder)), RawSource)
    assert RawTree(str(hostile_folder)).listing().sizes
