"""How long objects with large meshes take to draw, and to make into a page, on one core.

    python -m benchmarks.drawing [--quick]

draws objects of some 20,000 faces each, every mesh another and read from an OFF file, at poses drawn at
random on a picture of 500 x 375 pixels; then writes a preview page of them, its pictures and plots included.
Processor time counts: libraries that use several cores gain nothing by it. Needs the extra `demo`.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
import trimesh

from benchmarks.measuring import Setting, Table, command
from ImageNet3D import CATEGORIES
from processing.drawing.draw import draw
from processing.drawing.mesh import Mesh, parse_mesh
from processing.preview.command import write_preview

SIZE = (500, 375)  # the most common size of the release
VIEWPORT = 3000


def tables(setting: Setting) -> list[Table]:
    """Time of each step."""
    objects = 5 if setting.quick else 100
    found = measure(objects)
    rows = [(step, found[step], 1000 * found[step] / objects) for step in ("read", "draw", "page")]
    title = f"Drawing {objects} objects of {found['faces']:,.0f} faces, one core"
    notes = [f"The page has {found['megabytes']:.1f} MB."]
    return [Table("drawing", title, ("step", "s of processor time", "ms an object"), rows, notes)]


def measure(objects: int = 100, faces: int = 20_000) -> dict[str, float]:
    """Seconds of processor time, for all objects together.

    Returns:
        "faces": of a mesh, on the average; "read": to parse the OFF files; "draw": to draw on the pictures;
        "page": to write a page of the objects, reading included; "megabytes": of that page.
    """
    rng = np.random.default_rng(0)
    files = [_off_bytes(_lumpy_ball(rng, faces)) for _ in range(objects)]
    picture = (
        PIL.Image.fromarray(rng.integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8)).reduce(4).resize(SIZE)
    )
    rows = [_row(rng) for _ in range(objects)]
    draw(picture, rows[0], parse_mesh(files[0], "warm.off"))

    start = time.process_time()
    meshes = [parse_mesh(data, f"{number}.off") for number, data in enumerate(files)]
    read = time.process_time() - start
    start = time.process_time()
    for row, mesh in zip(rows, meshes, strict=True):
        draw(picture, row, mesh)
    drawn = time.process_time() - start
    with tempfile.TemporaryDirectory() as temporary:
        _write_raw(Path(temporary, "raw"), picture, rows, files)
        start = time.process_time()
        write_preview(str(Path(temporary, "raw")), Path(temporary, "page.html"), per_category=1)
        page = time.process_time() - start
        megabytes = Path(temporary, "page.html").stat().st_size / 1e6
    average = float(np.mean([len(mesh.faces) for mesh in meshes]))
    return {"faces": average, "read": read, "draw": drawn, "page": page, "megabytes": megabytes}


def _lumpy_ball(rng: np.random.Generator, faces: int) -> Mesh:
    """A closed mesh with dents, of about so many faces, with a bounding box of some diagonal 1."""
    side = round((faces / 4) ** 0.5)
    ball = trimesh.creation.uv_sphere(radius=0.3, count=(side, side))
    direction, frequency = ball.vertices / 0.3, rng.uniform(4, 12, 3)
    dents = 1 + 0.15 * np.sin(direction * frequency).prod(axis=1)
    return Mesh(ball.vertices * dents[:, None] * rng.uniform(0.7, 1.3, 3), ball.faces.astype(np.int64))


def _off_bytes(mesh: Mesh) -> bytes:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).export(file_type="off").encode()


def _row(rng: np.random.Generator) -> dict[str, object]:
    x, y = np.array(SIZE) * rng.uniform(0.4, 0.6, 2)
    extent = min(SIZE) * rng.uniform(0.6, 0.9)
    return {
        "bbox": [x - extent / 2, y - extent / 2, x + extent / 2, y + extent / 2],
        "azimuth": rng.uniform(0, 2 * np.pi),
        "elevation": rng.uniform(0, 0.6),
        "theta": rng.uniform(0, 0.1),
        "distance": VIEWPORT / extent,
        "px": x,
        "py": y,
        "viewport": VIEWPORT,
    }


def _write_raw(
    raw: Path, picture: PIL.Image.Image, rows: list[dict[str, object]], files: list[bytes]
) -> None:
    """A raw tree of one object a category."""
    for category, row, data in zip(CATEGORIES, rows, files, strict=False):
        for folder in ("images", "annotations", "CAD"):
            (raw / folder / category).mkdir(parents=True)
        picture.save(raw / f"images/{category}/n1_1.JPEG")
        objects = np.empty(1, dtype=object)
        fields = {"class": category, "width": SIZE[0], "height": SIZE[1], "cad_index": 1}
        objects[0] = row | fields | {"object_status": "status_good", "dense": "dense_no"}
        np.savez(raw / f"annotations/{category}/n1_1.npz", annotations=objects)
        (raw / f"CAD/{category}/01.off").write_bytes(data)
        (raw / "lists").mkdir(exist_ok=True)
        (raw / f"lists/{category}_imagenet_train.txt").write_text("n1_1\n", "utf-8")


if __name__ == "__main__":
    command(__doc__, {"drawing": tables})
