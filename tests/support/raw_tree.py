"""Tiny raw trees for tests, as clean or as dirty as a test wants them."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

WIDTH, HEIGHT = 64, 48  # of the pictures drawn here
TOP = "imagenet3d_v1/"
MESH = b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"


def drawn(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """A picture that shows when it is turned or mirrored: a dark corner on a light slope."""
    slope = np.add.outer(np.arange(size[1]), np.arange(size[0])) % 128 + 100
    slope[: size[1] // 3, : size[0] // 2] = 20
    picture = Image.fromarray(slope.astype(np.uint8)).convert(mode)
    if mode.endswith("A"):
        picture.putalpha(128)
    return picture


def encoded(kind: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    """The bytes of a drawn picture; `options` go to Pillow's `save`."""
    stream = io.BytesIO()
    drawn(mode).save(stream, kind, **options)
    return stream.getvalue()


def an_object(category: str = "bed", **changes: Any) -> dict[str, Any]:
    """A sound object of a drawn picture, with the release's types; a change to ... takes the key away."""
    fields: dict[str, Any] = {
        "class": category,
        "bbox": [10.0, 8.0, 50.0, 40.0],
        "height": np.uint16(HEIGHT),
        "width": np.uint16(WIDTH),
        "azimuth": 1.0,
        "elevation": np.float64(0.5),
        "theta": 0.25,
        "distance": 5.0,
        "px": 30.5,
        "py": 24.25,
        "viewport": 3000.0,
        "cad_index": 1,
        "object_status": "status_good",
        "dense": "dense_no",
    }
    return {key: value for key, value in {**fields, **changes}.items() if value is not ...}


def object_array(items: list[Any]) -> np.ndarray:
    """A one-dimensional object array, also of items that numpy would rather spread over two dimensions."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def without_dimensions(value: Any) -> np.ndarray:
    """An object array without dimensions, also of a list that numpy would rather spread."""
    array = np.empty((), object)
    array[()] = value
    return array


def npz(*objects: Any) -> bytes:
    """An annotation file, as the release's authors wrote theirs."""
    return npz_of(annotations=object_array(list(objects)))


def npz_of(**arrays: Any) -> bytes:
    """An .npz of any arrays."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npz_of_pickle(payload: bytes, count: int = 1) -> bytes:
    """An annotation file whose object array of `count` items is these pickle bytes."""
    header = f"{{'descr': '|O', 'fortran_order': False, 'shape': ({count},), }}".encode().ljust(117) + b"\n"
    return zip_of(
        {"annotations.npy": b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + payload}
    )


def zip_of(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


class RawTreeWriter:
    """Gathers the files of a raw tree; `folder` or `zip` writes them.

    Attributes:
        files: path inside the tree -> bytes; a test may add, change or remove any.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def picture(self, category: str, stem: str, data: bytes | None = None) -> "RawTreeWriter":
        """Add a picture, a drawn one by default."""
        self.files[f"images/{category}/{stem}.JPEG"] = encoded() if data is None else data
        return self

    def annotation(self, category: str, stem: str, *objects: Any) -> "RawTreeWriter":
        """Add the annotation of these objects, of one sound object by default."""
        self.files[f"annotations/{category}/{stem}.npz"] = npz(*(objects or [an_object(category)]))
        return self

    def lists(self, category: str, train: object = (), val: object = ()) -> "RawTreeWriter":
        """Add both lists of a category: image ids, or the file's bytes."""
        for word, stems in (("train", train), ("val", val)):
            data = stems if isinstance(stems, bytes) else "".join(f"{stem}\n" for stem in stems).encode()
            self.files[f"lists/{category}_imagenet_{word}.txt"] = data
        return self

    def mesh(self, category: str, index: int = 1) -> "RawTreeWriter":
        """Add a mesh of one triangle."""
        self.files[f"CAD/{category}/{index:02d}.off"] = MESH
        return self

    def captions(self, images: object = None, categories: object = None) -> "RawTreeWriter":
        """Add caption files of this content, encoded as JSON unless it is bytes."""
        for name, content in (("image", images), ("category", categories)):
            if content is not None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.files[f"captions/{name}_captions.json"] = data
        return self

    def sound(self, category: str = "bed", train: tuple[str, ...] = ("a",), val: tuple[str, ...] = ("v",)):
        """Add a category without fault: its pictures, annotations, lists and a mesh."""
        for stem in (*train, *val):
            self.picture(category, stem).annotation(category, stem)
        return self.lists(category, train, val).mesh(category)

    def folder(self, path: Path) -> str:
        """Write the tree unpacked."""
        for name, data in self.files.items():
            file = path / TOP / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return str(path)

    def zip(self, path: Path, top: str = TOP) -> str:
        """Write the tree as a zip with a top folder, or with none where `top` is empty."""
        path.write_bytes(zip_of({top + name: data for name, data in self.files.items()}))
        return str(path)


# For fuzzing: two seconds a case, and the same cases every time, so that a failure is there to be looked at.
bounded = settings(
    max_examples=150,
    deadline=2000,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """Copies of some bytes with a few bits flipped, and pieces cut out, repeated, moved or overwritten."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(1, 64)))
        match draw(st.sampled_from(["flip", "overwrite", "drop", "repeat", "move", "end"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "overwrite":
                data[at:end] = draw(st.sampled_from([b"\0", b"\xff", b"\x7f"])) * (end - at)
            case "drop":
                del data[at:end]
            case "repeat":
                data[at:at] = data[at:end] * draw(st.integers(1, 3))
            case "move":
                piece = data[at:end]
                to = draw(st.integers(0, len(data)))
                data[to : to + len(piece)] = piece
            case "end":
                del data[at:]
    return bytes(data)
