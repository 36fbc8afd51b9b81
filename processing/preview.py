"""The `preview` stage: one HTML page that shows what the annotations say, drawn on the pictures.

For each category it shows a few objects with their box, the projected mesh and the object's axes, and over
all annotations it plots what poses, qualities and sizes there are. The page needs no other file. The same
input gives the same page: objects are chosen by a hash of their picture's name, spread over the pictures.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import fsspec
import jinja2
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

import ImageNet3D
from ImageNet3D import (
    ANGLES,
    CATEGORIES,
    KNOWN_CATEGORIES,
    OBJECT_STATUS,
    POSE_FIELDS,
    REASONS,
    Entry,
    ObjectAnnotation,
    RawTree,
    ReleaseError,
    Unusable,
)
from processing.geometry import TWO_PI, project
from processing.mesh import Mesh, MeshError, mesh_file, parse_mesh, read_mesh
from processing.preview_plots import Statistics, draw_plots
from processing.store import write_whole

LONG_SIDE = 360  # pixels of an embedded picture
JPEG_QUALITY = 75
# Objects of a category that may take the place of chosen ones whose picture turns out to be unusable.
SPARE = 8


def write_preview(source: str, page: str | Path, per_category: int = 2) -> None:
    """Write one self-contained HTML page about a raw release or a built folder.

    Only the chosen pictures are read. A built folder shows the same posed objects as the release it was
    built from; it has no others, and meshes only with the config `cad`.

    Args:
        source: raw release (folder or zip) or built folder, a path or any fsspec URL.
        page: the HTML file to write; it is replaced in one step.
        per_category: how many objects of each category to show.

    Raises:
        ReleaseError: the source is neither a raw release nor a built folder with poses.
        ValueError: per_category is less than 1.
        ImportError: matplotlib or trimesh is not installed.
    """
    if per_category < 1:
        raise ValueError(f"per_category is {per_category}; give at least 1")
    _check_extra()
    opened = open_source(source)
    statistics, candidates = _look_through(opened, per_category)
    notes = [f"{reason}: {count:,}" for reason, count in sorted(opened.unread.items())]
    sections = []
    for category in sorted(statistics.objects):
        chosen = _cards(opened, candidates[category], notes)
        sections.append(
            {
                "name": category,
                "known": category in KNOWN_CATEGORIES,
                "caption": opened.category_captions.get(category),
                "pictures": statistics.category_pictures[category],
                "objects": statistics.objects[category],
                "posed": statistics.posed[category],
                "cards": list(itertools.islice(chosen, per_category)),
            }
        )
    text = _template().render(
        name=Path(source.partition("?")[0]).name,  # a signed URL's query is nobody's business
        kind=opened.kind,
        statistics=statistics,
        sections=sections,
        has_meshes=any(card.silhouette or card.edges for section in sections for card in section["cards"]),
        plots=draw_plots(statistics),
        notes=notes,
        columns=min(per_category, 4),
        long_side=LONG_SIDE,
        version=ImageNet3D.__version__,
    )
    write_whole(Path(page), text.encode("utf-8", "replace"))


def _check_extra() -> None:
    """Say what is missing before minutes of reading, not after."""
    missing = [name for name in ("contourpy", "matplotlib", "trimesh") if find_spec(name) is None]
    if missing:
        raise ImportError(f"preview needs {', '.join(missing)}: pip install imagenet3d[demo]")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(files("processing").joinpath("preview.html.jinja").read_text("utf-8"))


# --------------------------------------------------------------------------------------------------------
# Sources
# --------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A row of a built folder."""

    shard: str
    row_group: int
    row: int  # of the row group


@dataclass(frozen=True, slots=True)
class AnnotatedPicture:
    """A picture's name and annotation; its pixels have not been read.

    Attributes:
        image_id: "<category>/<file stem>".
        split: "train" or "validation".
        objects: those with a usable box.
        size: width and height in pixels, or None where the annotation does not tell.
        caption: the image-level caption, or None.
        place: where its source finds it again.
    """

    image_id: str
    split: str
    objects: tuple[ObjectAnnotation, ...]
    size: tuple[int, int] | None
    caption: str | None
    place: Entry | Place

    @property
    def category(self) -> str:
        """The folder's category."""
        return self.image_id.partition("/")[0]


class Source(Protocol):
    """What a page is made from.

    Attributes:
        kind: what it is, in words.
        category_captions: category -> text.
        unread: reasons in words, and how many pictures they concern; complete after `pictures`.
    """

    kind: str
    category_captions: dict[str, str]
    unread: Counter[str]

    def pictures(self) -> Iterator[AnnotatedPicture]:
        """All annotated pictures; no pixel is read."""

    def read(self, picture: AnnotatedPicture, item: ObjectAnnotation) -> bytes:
        """The file that shows an object; Unusable if it cannot be used, or the object is not in it."""

    def mesh(self, category: str, cad_index: int) -> Mesh | None:
        """An object's mesh; None if the source has no meshes at all, MeshError if it lacks this one."""


def open_source(path: str) -> Source:
    """Open a raw release or a built folder, whichever a path or fsspec URL is.

    Raises:
        ReleaseError: it is neither, or a built folder without poses.
    """
    fs, location = fsspec.core.url_to_fs(path)
    location = location.rstrip("/")
    finished = fs.isfile(f"{location}/README.md")
    if fs.isdir(location) and fs.glob(f"{location}/pose/*.parquet"):
        if not finished:
            raise ReleaseError(f"{path}: an unfinished build; run the same build again")
        return BuiltSource(path)
    try:
        return RawSource(path)
    except ReleaseError as error:
        if not finished:
            raise
        raise ReleaseError(f"{path}: a built folder without poses; build it with --config pose") from error


class RawSource:
    """The raw release, a folder or a zip."""

    kind = "raw release"

    def __init__(self, path: str) -> None:
        self._survey = ImageNet3D.survey(RawTree(path))
        self._release = self._survey.release
        self.category_captions = dict(self._release.category_captions)
        self.unread = Counter(REASONS[entry.reason].rule for entry in self._survey.left_out)

    def pictures(self) -> Iterator[AnnotatedPicture]:
        """As of a Source."""
        entries = [entry for split in self._survey.entries.values() for entry in split]
        for number, entry in enumerate(tqdm(entries, desc="preview", unit=" pictures", disable=None)):
            if number % ImageNet3D.CHUNK == 0:
                near = self._release.fetched(entries[number : number + ImageNet3D.CHUNK], pictures=False)
            try:
                annotation = ImageNet3D.read_annotation(near, entry, [])
            except Unusable as error:
                self.unread[REASONS[error.reason].rule] += 1
                continue
            size = (annotation.width, annotation.height)
            yield AnnotatedPicture(
                image_id=entry.image_id,
                split=entry.split,
                objects=annotation.objects,
                size=size if all(size) else None,
                caption=entry.caption,
                place=entry,
            )

    def read(self, picture: AnnotatedPicture, item: ObjectAnnotation) -> bytes:
        """As of a Source."""
        annotation = ImageNet3D.Annotation(1, (item,))
        checked = ImageNet3D.read_picture(self._release, picture.place, annotation, [])
        if not checked.annotation.objects:
            raise Unusable("bbox_outside")
        return checked.data

    def mesh(self, category: str, cad_index: int) -> Mesh | None:
        """As of a Source."""
        return read_mesh(self._release.tree, category, cad_index)


class BuiltSource:
    """A built folder: the shards of `pose`, and those of `cad` if there are any."""

    kind = "built dataset"
    _COLUMNS = (
        *("image_id", "object_index", "width", "height", "bbox"),
        *(*POSE_FIELDS, "cad_index", "object_status", "dense"),
    )

    def __init__(self, path: str) -> None:
        self._fs, location = fsspec.core.url_to_fs(path)
        self._location = location.rstrip("/")
        self._shards = sorted(self._fs.glob(f"{self._location}/pose/*.parquet"))
        self.category_captions: dict[str, str] = {}
        self.unread: Counter[str] = Counter()

    def pictures(self) -> Iterator[AnnotatedPicture]:
        """As of a Source; the rows of a picture stand together."""
        for shard in tqdm(self._shards, desc="preview", unit=" shards", disable=None):
            split = Path(shard).name.partition("-")[0]
            for image_id, rows in itertools.groupby(self._rows(shard), key=lambda pair: pair[1]["image_id"]):
                places, values = zip(*rows, strict=True)
                size = (values[0]["width"], values[0]["height"])
                objects = tuple(map(_object_of_row, values))
                yield AnnotatedPicture(image_id, split, objects, size, None, places[0])

    def read(self, picture: AnnotatedPicture, item: ObjectAnnotation) -> bytes:
        """As of a Source."""
        data = self._value(picture.place, "image")["bytes"]
        ImageNet3D.read_picture_header(data)
        return data

    def mesh(self, category: str, cad_index: int) -> Mesh | None:
        """As of a Source."""
        if not self._meshes:
            return None
        if (place := self._meshes.get((category, cad_index))) is None:
            raise MeshError(f"{mesh_file(category, cad_index)}: not in the config cad")
        value = self._value(place, "mesh")
        return parse_mesh(value["bytes"], value["path"])

    @cached_property
    def _meshes(self) -> dict[tuple[str, int], Place]:
        """Where each category's meshes are."""
        return {
            (CATEGORIES[row["category"]], row["cad_index"]): place
            for shard in sorted(self._fs.glob(f"{self._location}/cad/*.parquet"))
            for place, row in self._rows(shard, ("category", "cad_index"))
        }

    def _rows(self, shard: str, columns: Sequence[str] = _COLUMNS) -> Iterator[tuple[Place, dict[str, Any]]]:
        with self._opened(shard, columns) as parquet:
            for number in range(parquet.num_row_groups):
                rows = parquet.read_row_group(number, columns=list(columns)).to_pylist()
                for row, values in enumerate(rows):
                    yield Place(shard, number, row), values

    def _value(self, place: Place, column: str) -> Any:
        """One value; of the row group's pictures no more than a few are held at a time."""
        with self._opened(place.shard, [column]) as parquet:
            row = place.row
            for batch in parquet.iter_batches(16, row_groups=[place.row_group], columns=[column]):
                if row < len(batch):
                    return batch.column(0)[row].as_py()
                row -= len(batch)
        raise ReleaseError(f"{place.shard}: changed while it was read")

    @contextmanager
    def _opened(self, shard: str, columns: Sequence[str]) -> Iterator[pq.ParquetFile]:
        """A shard that has the columns; whatever is wrong with it names it."""
        try:
            with self._fs.open(shard, "rb") as stream:
                parquet = pq.ParquetFile(stream)
                if missing := set(columns) - set(parquet.schema_arrow.names):
                    raise ReleaseError(f"{shard}: has no column {', '.join(sorted(missing))}; build it again")
                yield parquet
        except (pa.ArrowException, OSError) as error:
            raise ReleaseError(f"{shard}: cannot be read ({error}); build it again") from error


def _object_of_row(row: dict[str, Any]) -> ObjectAnnotation:
    status = row["object_status"]
    return ObjectAnnotation(
        index=row["object_index"],
        bbox=tuple(row["bbox"]),
        **{name: row[name] for name in POSE_FIELDS},
        cad_index=row["cad_index"],
        object_status=None if status is None else OBJECT_STATUS[status],
        dense=row["dense"],
    )


# --------------------------------------------------------------------------------------------------------
# One pass over all annotations
# --------------------------------------------------------------------------------------------------------


class Candidate(NamedTuple):
    """An object that may be shown; the lowest go first."""

    unposed: bool
    place: int  # among the objects of its picture that are posed, or not, alike
    shuffled: bytes
    picture: AnnotatedPicture
    item: ObjectAnnotation

    @property
    def order(self) -> tuple[bool, int, bytes]:
        """Posed objects first, one of each picture first, and else a fixed random order."""
        return self[:3]


def _look_through(source: Source, per_category: int) -> tuple[Statistics, dict[str, list[Candidate]]]:
    """Statistics over everything, and for each category the objects to show, with some to spare."""
    statistics = Statistics()
    candidates: dict[str, list[Candidate]] = defaultdict(list)
    keep = per_category + SPARE
    for picture in source.pictures():
        _count(picture, statistics)
        waiting = candidates[picture.category]
        waiting += _candidates_of(picture)
        if len(waiting) > 4 * keep:
            waiting.sort(key=lambda candidate: candidate.order)
            del waiting[keep:]
    for waiting in candidates.values():
        waiting.sort(key=lambda candidate: candidate.order)
    return statistics, candidates


def _candidates_of(picture: AnnotatedPicture) -> Iterator[Candidate]:
    shuffled = hashlib.blake2b(picture.image_id.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    seen: Counter[bool] = Counter()
    for item in picture.objects:
        yield Candidate(not item.posed, seen[item.posed], shuffled, picture, item)
        seen[item.posed] += 1


def _count(picture: AnnotatedPicture, statistics: Statistics) -> None:
    statistics.pictures[picture.split] += 1
    statistics.category_pictures[picture.category] += 1
    statistics.objects[picture.category] += len(picture.objects)
    if picture.size is not None:
        statistics.sizes[picture.size] += 1
    for item in picture.objects:
        statistics.quality[item.object_status, item.dense] += 1
        if item.posed:
            statistics.posed[picture.category] += 1
            statistics.distances.append(item.distance)
            for name in ANGLES:
                statistics.angles[name].append(getattr(item, name))


# --------------------------------------------------------------------------------------------------------
# Cards
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """One axis of the object frame, from (x1, y1) at the object's centre to its tip; pixels of the card."""

    name: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Card:
    """One object as the page shows it; lengths are pixels of the embedded picture.

    Attributes:
        jpeg: the picture, base64.
        bbox: x1, y1, x2, y2.
        silhouette, edges: SVG paths of the mesh, "" where there is none.
        axes: the farthest first.
        remark: why something is not drawn, or "".
    """

    picture: AnnotatedPicture
    item: ObjectAnnotation
    jpeg: str
    width: float
    height: float
    bbox: tuple[float, float, float, float]
    silhouette: str
    edges: str
    axes: tuple[Axis, ...]
    remark: str

    @property
    def angles(self) -> dict[str, float]:
        """Degrees: azimuth in [0, 360), elevation and theta in [-180, 180)."""
        if not self.item.posed:
            return {}
        return {
            "azimuth": math.degrees(self.item.azimuth % TWO_PI),
            "elevation": _signed_degrees(self.item.elevation),
            "theta": _signed_degrees(self.item.theta),
        }


def _signed_degrees(angle: float) -> float:
    return math.degrees((angle + math.pi) % TWO_PI - math.pi)


def _cards(source: Source, candidates: Sequence[Candidate], notes: list[str]) -> Iterator[Card]:
    """Cards of the candidates in turn; a note tells of each whose picture cannot be shown."""
    for candidate in candidates:
        picture, item = candidate.picture, candidate.item
        try:
            data = source.read(picture, item)
            jpeg, width, height = _embedded(data)
        except Unusable as error:
            notes.append(
                f"{picture.image_id}, object {item.index}, is not shown: {REASONS[error.reason].rule}"
            )
            continue
        yield _card(source, picture, item, jpeg, width, height)


def _embedded(data: bytes) -> tuple[str, int, int]:
    """A picture as a small JPEG in base64, and its own width and height in pixels.

    The orientation tag is not followed: annotations refer to stored pixels.
    """
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            width, height = image.size
            image.draft("RGB", (LONG_SIDE, LONG_SIDE))  # JPEG: decode no larger than needed
            if "A" in image.getbands() or "transparency" in image.info:
                opaque = PIL.Image.new("RGBA", image.size, "white")
                opaque.alpha_composite(image.convert("RGBA"))
                small = opaque.convert("RGB")
            else:
                small = image.convert("RGB")
            small.thumbnail((LONG_SIDE, LONG_SIDE))
    except Exception as error:  # Pillow's decoders meet damaged pixels with many kinds of error
        raise Unusable("picture_unreadable") from error
    target = io.BytesIO()
    small.save(target, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return base64.b64encode(target.getvalue()).decode("ascii"), width, height


def _card(
    source: Source, picture: AnnotatedPicture, item: ObjectAnnotation, jpeg: str, width: int, height: int
) -> Card:
    scale = min(1.0, LONG_SIDE / max(width, height))
    size = (width * scale, height * scale)
    bbox = tuple(value * scale for value in item.bbox)
    silhouette, edges, axes = "", "", ()
    remark = _why_no_pose(item)
    if not remark:
        view = (item.azimuth, item.elevation, item.theta, item.distance)
        camera = (*view, item.px * scale, item.py * scale, item.viewport * scale)
        axes = _axes(camera, bbox)
        try:
            mesh = None if item.cad_index is None else source.mesh(picture.category, item.cad_index)
        except MeshError as error:
            mesh, remark = None, f"No mesh: {error}."
        if mesh is not None:
            silhouette, edges = _mesh_paths(mesh, camera, size)
    return Card(picture, item, jpeg, *size, bbox, silhouette, edges, axes, remark)


def _why_no_pose(item: ObjectAnnotation) -> str:
    if not item.posed:
        return "A box and no pose."
    return "" if item.distance > 0 else "Never placed in depth: no mesh or axes to draw."


def _axes(camera: tuple[float, ...], bbox: tuple[float, ...]) -> tuple[Axis, ...]:
    """The three axes of the object frame, seen from the side some half of the box's longer side long."""
    distance, viewport = camera[3], camera[6]
    length = max(bbox[2] - bbox[0], bbox[3] - bbox[1]) / 2 * distance / viewport
    # No axis may reach the camera, however near that is.
    tips = np.eye(3) * min(length, distance / 2)
    pixels, depth = project(np.vstack([np.zeros(3), tips]), *camera)
    farthest_first = sorted(range(1, 4), key=lambda place: -depth[place])
    return tuple(Axis("xyz"[place - 1], *pixels[0], *pixels[place]) for place in farthest_first)


def _mesh_paths(mesh: Mesh, camera: tuple[float, ...], size: tuple[float, float]) -> tuple[str, str]:
    """SVG paths of a mesh's silhouette and of the edges inside it."""
    from processing.outline import draw  # needs the extra

    drawing = draw(mesh, *project(mesh.vertices, *camera), size)
    if drawing is None:
        return "", ""
    silhouette = "".join(f"{_path(line[:-1])}Z" for line in drawing.silhouette)
    return silhouette, "".join(map(_path, drawing.edges))


def _path(points: NDArray[np.float64]) -> str:
    """Points (n, 2) as a stretch of an SVG path, to a tenth of a pixel."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
