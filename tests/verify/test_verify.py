"""Every kind of damage is found, and named by its code; a clean build has no problem."""

import functools
import hashlib
import io
import itertools
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image
from support.raw_tree import MESH, TOP, RawTreeWriter, an_object, encoded

from processing.__main__ import main
from processing.build.command import build
from processing.build.shards import shard_schema
from processing.built import MANIFEST
from processing.configs import PICTURE_TABLES, TABLES
from processing.verify.checks import CHECKS, VIEWER_PAGE_BYTES
from processing.verify.command import verify
from processing.verify.folder import check_pages

pytestmark = pytest.mark.slow

Change = Callable[[pa.Table], pa.Table]
OPTIONS = {
    "compression": "NONE",
    "use_dictionary": ["image.bytes", "image.path", "image_id", "category_caption"],
    "dictionary_pagesize_limit": 2**30,
}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw tree of two known categories and two others, small, so that it is verified in no time."""
    tree, captions = RawTreeWriter(), {}
    train, validation = ("t0", "t1", "t2", "t3"), ("v0", "v1")
    for category in ("bed", "car", "cup", "kettle"):
        tree.sound(category, train, validation)
        tree.files[f"CAD/{category}/02.off"] = MESH.replace(b"1 0 0", b"2 0 0")
        for number, stem in enumerate((*train, *validation)):
            objects = [an_object(category, azimuth=number + i / 8, cad_index=1 + i) for i in range(2)]
            tree.picture(category, stem, encoded(quality=70 + number))
            tree.annotation(category, stem, *objects[: 2 - number % 2])
            captions[f"{category}/{stem}"] = f"The {category} of {stem}"
    tree.picture("bed", "t1", encoded(mode="L"))
    tree.captions(captions, {"bed": "A bed.", "car": "A car.", "cup": "A cup."})
    return Path(tree.folder(tmp_path_factory.mktemp("raw"))) / TOP


@pytest.fixture(scope="module")
def built(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, built into several shards."""
    out = tmp_path_factory.mktemp("built") / "ImageNet3D"
    build(str(release), out, workers=1, shard_size="10KB")
    return out


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    """A copy of a built folder that a test may damage."""
    return shutil.copytree(built, tmp_path / "ImageNet3D")


def codes(out: Path, raw: Path | None = None) -> set[str]:
    return {p.code for p in verify(out, raw and str(raw), workers=1)}


def shard(out: Path, config: str = "pose", kind: str = "train-*-known") -> str:
    """The path of the first shard of a config and kind."""
    return sorted(out.glob(f"{config}/{kind}.parquet"))[0].relative_to(out).as_posix()


def listed_anew(out: Path, path: str) -> None:
    """Enter a changed file in the manifest, so that the checks behind the checksum see it."""
    manifest = json.loads((out / MANIFEST).read_text("utf-8"))
    data = (out / path).read_bytes()
    entry = manifest["files"].setdefault(path, {"rows": 0, "table_bytes": 0})
    entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (out / MANIFEST).write_text(json.dumps(manifest), "utf-8")


def rewrite(
    out: Path, path: str, change: Change = lambda table: table, groups: Any = None, **options: Any
) -> None:
    """Write a shard again, changed, row group by row group or cut at the given numbers of rows."""
    file = pq.ParquetFile(out / path)
    tables = [change(file.read_row_group(i)) for i in range(file.metadata.num_row_groups)]
    file.close()
    if groups is not None:
        whole = pa.concat_tables(tables)
        cuts = [0, *groups, len(whole)]
        tables = [whole.slice(a, b - a) for a, b in itertools.pairwise(cuts)]
    with pq.ParquetWriter(out / path, tables[0].schema, **{**OPTIONS, **options}) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(len(table), 1))
    listed_anew(out, path)


def everywhere(out: Path, change: Change, kind: str = "train-*-known") -> None:
    """Change one shard in all configs."""
    for config in TABLES:
        rewrite(out, shard(out, config, kind), change)


def with_value(table: pa.Table, column: str, value: Any, row: int = 0) -> pa.Table:
    values = table[column].to_pylist()
    values[row] = value(values[row]) if callable(value) else value
    place = table.column_names.index(column)
    return table.set_column(
        place, table.schema.field(column), pa.array(values, table.schema.field(column).type)
    )


def with_picture(table: pa.Table, data: Callable[[bytes], bytes]) -> pa.Table:
    """Other bytes for the picture of the first row, in all its rows."""
    first = table["image_id"][0]
    rows = [i for i, image_id in enumerate(table["image_id"]) if image_id == first]
    for row in rows:
        table = with_value(table, "image", lambda image: {**image, "bytes": data(image["bytes"])}, row)
    return table


def reencoded(data: bytes, size: tuple[int, int] | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").resize(size or image.size).save(stream, "JPEG", **options)
    return stream.getvalue()


def flipped(data: bytes, offset: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[offset] ^= 1 << bit
    return bytes(changed)


class TestClean:
    def test_no_problem(self, built: Path, release: Path) -> None:
        assert verify(built, workers=1) == []
        assert verify(built, str(release), workers=1) == []

    def test_no_problem_by_two_workers(self, built_sample: Path, sample_folder: Path) -> None:
        assert verify(built_sample, str(sample_folder), workers=2) == []

    def test_some_configs(self, release: Path, tmp_path: Path) -> None:
        build(str(release), tmp_path / "out", configs=["open_vocab_known"], workers=1)
        assert verify(tmp_path / "out", str(release), workers=1) == []

    def test_dirty_tree(self, tmp_path: Path) -> None:
        """What the ledger says is left out is not missed."""
        tree = (
            RawTreeWriter()
            .sound("bed", ("a", "b", "gone", "empty"), ("v", "w"))
            .sound("ax", ("c", "d"), ("x", "y"))
        )
        del tree.files["images/bed/gone.JPEG"], tree.files["annotations/ax/c.npz"]
        tree.picture("bed", "empty", b"").picture("bed", "unlisted")
        tree.lists("bed", ("a", "b", "gone", "empty", "v", "../x"), ("v", "w"))
        raw = tree.folder(tmp_path / "raw")
        build(raw, tmp_path / "out", workers=1)
        found = verify(tmp_path / "out", raw, workers=1)
        assert {p.code for p in found} <= {"viewer_lone_value"}


class TestCommand:
    def run(self, *arguments: object) -> Any:
        return CliRunner().invoke(main, ["verify", *map(str, arguments), "--workers", "1"])

    def test_clean(self, built: Path, release: Path) -> None:
        assert self.run(built, "--raw", release).exit_code == 0

    def test_damaged(self, out: Path) -> None:
        path = shard(out)
        (out / path).write_bytes((out / path).read_bytes()[:-1])
        result = self.run(out)
        assert result.exit_code == 1
        assert "checksum_differs" in result.output
        assert path in result.output
        assert CHECKS["checksum_differs"].remedy in result.output

    @pytest.mark.parametrize("lost", ["README.md", MANIFEST])
    def test_unfinished(self, out: Path, lost: str) -> None:
        (out / lost).unlink()
        result = self.run(out)
        assert result.exit_code == 1
        assert len(result.output.splitlines()) == 1
        assert codes(out) == {"unfinished"}

    @pytest.mark.parametrize("there", [True, False])
    def test_nothing_there(self, there: bool, tmp_path: Path) -> None:
        folder = tmp_path / "typo"
        if there:
            folder.mkdir()
        result = self.run(folder)
        assert result.exit_code == 2
        assert f"{folder}: nothing is there" in result.output

    def test_no_build_there(self, release: Path) -> None:
        result = self.run(release)
        assert result.exit_code == 2
        assert "no build has been here" in result.output

    def test_category_captions_asked_for(self, release: Path, tmp_path: Path) -> None:
        raw = shutil.copytree(release, tmp_path / "raw", ignore=shutil.ignore_patterns("captions"))
        captions = tmp_path / "elsewhere"
        captions.mkdir()
        shutil.copy(release / "captions" / "category_captions.json", captions)
        build(str(raw), tmp_path / "out", configs=["categories"], captions=str(captions), workers=1)
        result = self.run(tmp_path / "out", "--raw", raw)
        assert result.exit_code == 1
        assert "give --captions DIR" in result.output
        assert verify(tmp_path / "out", str(raw), str(captions), workers=1) == []

    def test_captions_asked_for(self, out: Path, release: Path, tmp_path: Path) -> None:
        raw = shutil.copytree(release, tmp_path / "raw", ignore=shutil.ignore_patterns("captions"))
        result = self.run(out, "--raw", raw)
        assert result.exit_code == 1
        assert "--captions" in result.output


class TestFiles:
    def test_one_flipped_bit(self, out: Path) -> None:
        generator = random.Random(3)
        paths = sorted(out.glob("*/*.parquet"))
        for _ in range(6):
            path = generator.choice(paths)
            data = path.read_bytes()
            path.write_bytes(flipped(data, generator.randrange(len(data)), generator.randrange(8)))
            assert {(p.file, p.code) for p in verify(out, workers=1)} == {
                (path.relative_to(out).as_posix(), "checksum_differs")
            }
            path.write_bytes(data)
        assert verify(out, workers=1) == []

    def test_changed_card(self, out: Path) -> None:
        (out / "README.md").write_text((out / "README.md").read_text("utf-8") + "\n", "utf-8")
        assert codes(out) == {"checksum_differs"}

    def test_truncated(self, out: Path) -> None:
        path = shard(out)
        (out / path).write_bytes((out / path).read_bytes()[:-1000])
        assert codes(out) == {"checksum_differs"}
        listed_anew(out, path)
        assert codes(out) == {"parquet_unreadable"}

    def test_missing(self, out: Path) -> None:
        (out / shard(out)).unlink()
        assert "file_missing" in codes(out)

    def test_extra(self, out: Path) -> None:
        (out / "pose/notes.txt").write_text("a note", "utf-8")
        assert codes(out) == {"file_unlisted"}

    def test_extra_shard(self, out: Path) -> None:
        shutil.copy(out / shard(out), out / "pose/train-00007-of-00003-known.parquet")
        assert "file_unlisted" in codes(out)
        listed_anew(out, "pose/train-00007-of-00003-known.parquet")
        assert "shard_name" in codes(out)

    def test_bookkeeping(self, out: Path) -> None:
        (out / MANIFEST).write_text("{", "utf-8")
        assert codes(out) == {"bookkeeping_damaged"}

    def test_markers_are_of_the_build_alone(self, out: Path) -> None:
        shutil.rmtree(out / ".build")
        assert verify(out, workers=1) == []

    @pytest.mark.parametrize(
        "place", ["pose/train-00000-of-00001-known.parquet", ".build/ledger.jsonl", "fifo"]
    )
    def test_a_pipe_is_no_file(self, out: Path, place: str) -> None:
        (out / place).unlink(missing_ok=True)
        os.mkfifo(out / place)
        result = CliRunner().invoke(main, ["verify", str(out), "--workers", "1"])
        assert result.exit_code == 1
        assert f"{place}: is a pipe" in result.output

    def test_flipped_bit_behind_the_checksum(self, out: Path, release: Path) -> None:
        """In the bytes of the pictures; the raw release finds what still decodes."""
        generator = random.Random(5)
        path = shard(out, "classification")
        data = (out / path).read_bytes()
        pages = pq.ParquetFile(out / path).metadata.row_group(0).column(0).data_page_offset
        for _ in range(6):
            (out / path).write_bytes(
                flipped(data, generator.randrange(200, pages - 100), generator.randrange(8))
            )
            listed_anew(out, path)
            assert codes(out, release) & {"raw_value", "picture_differs", "parquet_unreadable"}


WRITTEN_OTHERWISE = {
    "snappy": ({"compression": "snappy"}, "encoding"),
    "no dictionary": ({"use_dictionary": False}, "encoding"),
    "dictionary too small": ({"dictionary_pagesize_limit": 1_000, "write_batch_size": 1}, "encoding"),
    "a picture cut": ({"groups": [1]}, "picture_cut"),
}

CHANGED_TABLES: dict[str, tuple[str, Change, str]] = {
    "no features": ("pose", lambda t: t.replace_schema_metadata(None), "schema_differs"),
    "a column less": ("pose", lambda t: t.drop_columns(["dense"]), "schema_differs"),
    "another type": (
        "classification",
        lambda t: t.set_column(3, "width", t["width"].cast(pa.int64())),
        "schema_differs",
    ),
    "a row twice": ("pose", lambda t: pa.concat_tables([t.slice(0, 1), t]), "key_duplicate"),
    "a row less": ("classification", lambda t: t.slice(1), "card"),
    "turned around": ("classification", lambda t: t.take(list(range(len(t)))[::-1]), "place_differs"),
    "not a number": ("pose", lambda t: with_value(t, "azimuth", float("nan")), "value"),
    "infinite": ("pose", lambda t: with_value(t, "distance", float("inf")), "value"),
    "unknown status": ("pose", lambda t: with_value(t, "object_status", 4), "value"),
    "no known category": ("pose", lambda t: with_value(t, "known", False), "value"),
    "another label": ("classification", lambda t: with_value(t, "label", lambda i: (i + 1) % 189), "value"),
    "another path": ("pose", lambda t: with_value(t, "image", lambda i: {**i, "path": "a.JPEG"}), "value"),
    "no angle": ("pose", lambda t: with_value(t, "azimuth", None), "value"),
    "a crop without a distance": ("object_centric", lambda t: with_value(t, "distance", None), "value"),
    "an infinite box": ("pose", lambda t: with_value(t, "bbox", [0.0, 0.0, float("inf"), 1.0]), "value"),
    "an object's box": (
        "captions",
        lambda t: with_value(
            t, "objects", lambda o: [{**o[0], "bbox": [5.0, 5.0, float("nan"), 9.0]}, *o[1:]]
        ),
        "value",
    ),
    "no caption of either kind": (
        "captions",
        lambda t: with_value(with_value(t, "caption", None), "category_caption", None),
        "value",
    ),
    "another width": ("pose", lambda t: with_value(t, "width", lambda width: width + 1), "picture_size"),
    "another kind": (
        "classification",
        lambda t: with_value(with_value(t, "image_id", "kettle/x"), "label", None),
        "kind_mixed",
    ),
    "another picture": (
        "captions",
        lambda t: with_picture(t, lambda data: reencoded(data, quality=30)),
        "picture_differs",
    ),
    "an infinite crop": ("object_centric", lambda t: with_value(t, "resize_rate", float("inf")), "value"),
    "a crop twice": ("object_centric", lambda t: pa.concat_tables([t.slice(0, 1), t]), "key_duplicate"),
    "a smaller crop": ("object_centric", lambda t: with_value(t, "width", 500), "picture_size"),
    "half a crop": (
        "object_centric",
        lambda t: with_value(t, "image", lambda i: {**i, "bytes": i["bytes"][:2000]}),
        "picture_undecodable",
    ),
    "a mesh's count": ("cad", lambda t: with_value(t, "num_vertices", lambda n: n + 1), "value"),
    "a mesh's bounds": ("cad", lambda t: with_value(t, "bounds", lambda b: [b[0], b[0]]), "value"),
    "no bounds": ("cad", lambda t: with_value(t, "bounds", None), "value"),
    "a mesh's name": ("cad", lambda t: with_value(t, "mesh", lambda m: {**m, "path": "a.glb"}), "value"),
    "half a mesh": (
        "cad",
        lambda t: with_value(t, "mesh", lambda m: {**m, "bytes": m["bytes"][: len(m["bytes"]) // 2]}),
        "mesh_unreadable",
    ),
    "no mesh": ("cad", lambda t: with_value(t, "mesh", lambda m: {**m, "bytes": b""}), "mesh_unreadable"),
    "half a thumbnail": (
        "cad",
        lambda t: with_value(t, "image", lambda i: {**i, "bytes": i["bytes"][:600]}),
        "picture_undecodable",
    ),
    "a smaller thumbnail": (
        "cad",
        lambda t: with_value(t, "image", lambda i: {**i, "bytes": reencoded(i["bytes"], size=(128, 128))}),
        "picture_size",
    ),
    "a mesh twice": ("cad", lambda t: pa.concat_tables([t.slice(0, 1), t]), "key_duplicate"),
    "a mesh less": ("cad", lambda t: t.slice(1), "counts_differ"),
    "an infinite bound": (
        "cad",
        lambda t: with_value(t, "bounds", lambda b: [b[0], [float("inf")] * 3]),
        "value",
    ),
    "a count": ("categories", lambda t: with_value(t, "train_good", lambda n: n + 1), "counts_differ"),
    "a count of meshes": ("categories", lambda t: with_value(t, "num_meshes", None), "counts_differ"),
    "a negative count": ("categories", lambda t: with_value(t, "train_bad", -1), "value"),
    "another category's id": ("categories", lambda t: with_value(t, "category", 0, 3), "value"),
    "unknown, though known": (
        "categories",
        lambda t: with_value(t, "known", lambda known: not known),
        "value",
    ),
    "a category less": ("categories", lambda t: t.slice(1), "counts_differ"),
    "a category twice": ("categories", lambda t: pa.concat_tables([t.slice(0, 1), t]), "key_duplicate"),
    "a posed object less": ("pose", lambda t: t.slice(1), "counts_differ"),
    "another status": (
        "pose",
        lambda t: with_value(t, "object_status", lambda s: 0 if s is None else (s + 1) % 4),
        "counts_differ",
    ),
    "a long caption": ("captions", lambda t: with_value(t, "caption", "word " * 250_000), "viewer_cell"),
}


# What a column can hold is believed, however odd.
BELIEVED: dict[str, tuple[str, Change]] = {
    "degrees": ("pose", lambda t: with_value(t, "elevation", -90.0)),
    "no distance": ("pose", lambda t: with_value(t, "distance", None)),
    "no centre": ("pose", lambda t: with_value(with_value(t, "px", None), "py", None)),
    "no viewport": ("pose", lambda t: with_value(t, "viewport", None)),
    "a negative viewport": ("pose", lambda t: with_value(t, "viewport", -1.0)),
    "no mesh": ("pose", lambda t: with_value(t, "cad_index", None)),
    "mesh 0": ("pose", lambda t: with_value(t, "cad_index", 0)),
    "an inverted box": ("pose", lambda t: with_value(t, "bbox", lambda b: [b[2], b[1], b[0], b[3]])),
    "a box outside": ("pose", lambda t: with_value(t, "bbox", [-9.0, -9.0, -1.0, -1.0])),
    "an object without a pose": (
        "captions",
        lambda t: with_value(t, "objects", lambda o: [{**o[0], "azimuth": None, "px": None}, *o[1:]]),
    ),
    "one kind of caption": ("captions", lambda t: with_value(t, "caption", None)),
}


class TestRows:
    def test_believed(self, out: Path, release: Path) -> None:
        """And the raw release, which says otherwise, names every one of them."""
        for number, (config, change) in enumerate(BELIEVED.values()):
            shards = sorted(out.glob(f"{config}/*.parquet"))
            path = shards[number % len(shards)].relative_to(out).as_posix()
            rewrite(out, path, functools.partial(_in_row, change, number))
        assert codes(out) == set()
        named = {p.what.partition(" of ")[0] for p in verify(out, str(release), workers=1)}
        assert named == {*"elevation distance px py viewport cad_index bbox objects caption".split()}

    @pytest.mark.parametrize("case", WRITTEN_OTHERWISE)
    def test_written_otherwise(self, out: Path, case: str) -> None:
        options, code = WRITTEN_OTHERWISE[case]
        path = next(p for p in sorted(out.glob("pose/*.parquet")) if _first_picture_has_two_rows(p))
        rewrite(out, path.relative_to(out).as_posix(), **options)
        assert code in codes(out)

    @pytest.mark.parametrize("case", CHANGED_TABLES)
    def test_changed(self, out: Path, case: str) -> None:
        config, change, code = CHANGED_TABLES[case]
        rewrite(out, shard(out, config, "train-*-known" if config in PICTURE_TABLES else "train-*"), change)
        assert code in codes(out)

    def test_undecodable(self, out: Path) -> None:
        everywhere(out, lambda table: with_picture(table, lambda data: data[: len(data) // 2]))
        assert codes(out) == {"picture_undecodable"}

    def test_turned(self, out: Path) -> None:
        exif = Image.Exif()
        exif[Image.ExifTags.Base.Orientation] = 6
        everywhere(out, lambda table: with_picture(table, lambda data: reencoded(data, exif=exif)))
        assert codes(out) == {"picture_turned"}

    def test_in_both_splits(self, out: Path) -> None:
        for config in TABLES:
            other = pq.read_table(out / shard(out, config)).slice(0, 1)
            change = functools.partial(lambda table, more: pa.concat_tables([table, more]), more=other)
            rewrite(out, shard(out, config, "validation-*-known"), change)
        assert "split_overlap" in codes(out)

    def test_row_group_too_large(self, tmp_path: Path) -> None:
        stems = tuple(f"n{i}" for i in range(120))
        raw = RawTreeWriter().sound("bed", stems, ("v", "w")).folder(tmp_path / "raw")
        build(raw, tmp_path / "out", workers=1, configs=TABLES[:2])
        assert verify(tmp_path / "out", raw, workers=1) == []
        rewrite(tmp_path / "out", shard(tmp_path / "out"), groups=[])
        assert codes(tmp_path / "out") == {"row_group_too_large", "place_differs"}

    def test_common_pictures_first(self, tmp_path: Path) -> None:
        tree = RawTreeWriter().sound("bed", ("a", "b", "c"), ("v", "w"))
        tree.annotation("bed", "b", an_object(azimuth=...))
        build(tree.folder(tmp_path / "raw"), tmp_path / "out", workers=1, configs=TABLES[:2])
        assert verify(tmp_path / "out", workers=1) == []
        path = shard(tmp_path / "out", "classification")
        rewrite(tmp_path / "out", path, lambda table: table.take([2, 0, 1]))
        assert "place_differs" in codes(tmp_path / "out")


def _in_row(change: Change, row: int, table: pa.Table) -> pa.Table:
    """Change the first row of what begins at a row; of a row group with fewer, the last."""
    at = min(row, len(table) - 1)
    return pa.concat_tables([table.slice(0, at), change(table.slice(at)).combine_chunks()])


def _first_picture_has_two_rows(path: Path) -> bool:
    ids = pq.read_table(path, columns=["image_id"])["image_id"].to_pylist()
    return ids.count(ids[0]) > 1


class TestReferences:
    @pytest.mark.parametrize("config", ["cad", "categories"])
    def test_compressed(self, out: Path, config: str) -> None:
        rewrite(out, shard(out, config, "train-*"), compression="snappy")
        assert codes(out) == {"encoding"}

    def test_too_many_rows_in_a_row_group(self, out: Path) -> None:
        path = shard(out, "categories", "train-*")
        rewrite(out, path, lambda table: pa.concat_tables([table] * 30))
        assert "row_group_too_large" in codes(out)

    def test_a_file_that_was_not_planned(self, out: Path) -> None:
        path = "cad/train-00007-of-00007.parquet"
        shutil.copy(out / shard(out, "cad", "train-*"), out / path)
        listed_anew(out, path)
        assert "shard_name" in codes(out)

    def test_truncated(self, out: Path) -> None:
        path = shard(out, "cad", "train-*")
        (out / path).write_bytes((out / path).read_bytes()[:-1000])
        listed_anew(out, path)
        assert codes(out) == {"parquet_unreadable"}

    def test_a_mesh_of_the_raw_release_that_is_gone(self, out: Path, release: Path) -> None:
        rewrite(out, shard(out, "cad", "train-*"), lambda table: table.slice(1))
        assert "raw_mesh_lost" in codes(out, release)

    def test_another_mesh(self, out: Path, release: Path, tmp_path: Path) -> None:
        raw = shutil.copytree(release, tmp_path / "raw")
        mesh = sorted(raw.glob("CAD/*/01.off"))[0]
        lines = mesh.read_text("utf-8").split("\n")
        lines[2] = " ".join(str(float(word) + 1e-3) for word in lines[2].split())
        mesh.write_text("\n".join(lines), "utf-8")
        assert codes(out, raw) == {"raw_value"}

    def test_a_thumbnail_encoded_otherwise(self, out: Path, release: Path) -> None:
        """Another encoder is no fault, another picture is."""
        path = shard(out, "cad", "train-*")
        for options, found in (({"quality": 98}, set()), ({"size": (8, 8)}, {"raw_value", "picture_size"})):
            change = functools.partial(
                lambda image, options: {**image, "bytes": reencoded(image["bytes"], **options)},
                options=options,
            )
            rewrite(out, path, functools.partial(with_value, column="image", value=change))
            assert codes(out, release) == found

    def test_a_mesh_written_otherwise(self, out: Path, release: Path) -> None:
        """Another writer's bytes are no fault, another mesh is."""

        def written_by_another(mesh: dict[str, Any]) -> dict[str, Any]:
            assert b'"ImageNet3D"' in mesh["bytes"]
            return {**mesh, "bytes": mesh["bytes"].replace(b'"ImageNet3D"', b'"NobodyElse"')}

        path = shard(out, "cad", "train-*")
        rewrite(out, path, lambda table: with_value(table, "mesh", written_by_another))
        assert codes(out, release) == set()
        rewrite(out, path, lambda table: with_value(table, "mesh", table["mesh"][1].as_py()))
        assert "raw_value" in codes(out, release)

    def test_another_caption(self, out: Path, release: Path) -> None:
        path = shard(out, "categories", "train-*")
        rewrite(out, path, lambda table: with_value(table, "caption", "another"))
        assert codes(out) == set()
        assert codes(out, release) == {"raw_value"}

    @pytest.mark.parametrize("configs", [["categories"], ["captions", "cad"]])
    def test_some_configs(self, configs: list[str], release: Path, tmp_path: Path) -> None:
        build(str(release), tmp_path / "out", configs=configs, workers=1)
        assert verify(tmp_path / "out", str(release), workers=1) == []


class TestCounts:
    def test_card_count(self, out: Path) -> None:
        card = (out / "README.md").read_text("utf-8")
        rows = sum(pq.read_metadata(path).num_rows for path in out.glob("pose/train-*.parquet"))
        (out / "README.md").write_text(
            card.replace(f"num_examples: {rows}", f"num_examples: {rows + 1}", 1), "utf-8"
        )
        listed_anew(out, "README.md")
        assert codes(out) == {"card"}

    @pytest.mark.parametrize(
        ("found", "replaced"),
        [
            ("pose/train-*-known.parquet", "pose/train-*.parquet"),
            ("path: captions/", "path: classification/"),
            ("dtype: float64", "dtype: float32"),
            ("dataset_info:", "other_info:"),
            ("configs:", "configs: [] #"),
        ],
    )
    def test_card(self, out: Path, found: str, replaced: str) -> None:
        card = (out / "README.md").read_text("utf-8")
        assert found in card
        (out / "README.md").write_text(card.replace(found, replaced), "utf-8")
        listed_anew(out, "README.md")
        assert codes(out) == {"card"}

    def test_ledger(self, out: Path) -> None:
        ledger = out / ".build/ledger.jsonl"
        kept = [line for line in ledger.read_text("utf-8").splitlines() if "picture_mode" not in line]
        ledger.write_text("\n".join(kept), "utf-8")
        assert codes(out) == {"books"}

    @pytest.mark.parametrize("count", ["written", "left_out"])
    def test_account(self, out: Path, count: str) -> None:
        manifest = json.loads((out / MANIFEST).read_text("utf-8"))
        account = manifest["accounts"]["pose"]["train"]
        account["read"] += 1
        account[count] = account[count] + 1 if count == "written" else {"bbox_missing": 2}
        (out / MANIFEST).write_text(json.dumps(manifest), "utf-8")
        assert codes(out) == {"books"}

    @pytest.mark.parametrize(
        ("card", "found"),
        [
            ("# no YAML", "no YAML at its top, or no configs in it"),
            ("---\nlicense: mit\n---\n", "no YAML at its top, or no configs in it"),
            ("---\nconfigs: [\n---\n", ""),
            ("---\nconfigs: 7\n---\n", ""),
            ("---\nconfigs:\n- config_name: pose\n---\n", ""),
            ("", "no YAML"),
        ],
    )
    def test_a_card_that_anyone_edited(self, out: Path, card: str, found: str) -> None:
        (out / "README.md").write_text(card, "utf-8")
        listed_anew(out, "README.md")
        problems = verify(out, workers=1)
        assert {p.code for p in problems} == {"card"}
        assert found in problems[0].what
        assert "attribute" not in problems[0].what

    def test_a_config_without_rows_is_left_out_and_known(self, tmp_path: Path) -> None:
        """Captions that fit no picture: the same build again would not help."""
        tree = RawTreeWriter().sound("bed", ("a", "b"), ("v", "w")).captions(images={"bed/none": "no bed"})
        build(tree.folder(tmp_path / "raw"), tmp_path / "out", workers=1)
        assert not list(tmp_path.glob("out/captions/*"))
        assert all(p.is_note for p in verify(tmp_path / "out", workers=1))
        assert all(p.is_note for p in verify(tmp_path / "out", str(tmp_path / "raw"), workers=1))


class TestDownload:
    """What the Hub gives: no bookkeeping, and what people added."""

    @pytest.fixture
    def download(self, out: Path) -> Path:
        shutil.rmtree(out / ".build")
        (out / ".cache/huggingface").mkdir(parents=True)
        for name in (".gitattributes", ".cache/huggingface/x.lock", "imagenet3d_v1.zip", "notes/on it.md"):
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_text("of others", "utf-8")
        return out

    def test_clean(self, download: Path, release: Path) -> None:
        assert verify(download, workers=1) == []
        assert verify(download, str(release), workers=1) == []

    def test_damage(self, download: Path) -> None:
        path = shard(download)
        (download / path).write_bytes((download / path).read_bytes()[:-1])
        assert codes(download) == {"checksum_differs"}

    @pytest.mark.parametrize("path", ["pose/more.parquet", "ImageNet3D.py"])
    def test_what_loaders_would_take_for_the_datasets(self, download: Path, path: str) -> None:
        (download / path).write_bytes(b"PAR1")
        assert codes(download) == {"file_unlisted"}

    def test_a_file_that_is_missing(self, download: Path) -> None:
        (download / shard(download, "captions")).unlink()
        assert "file_missing" in codes(download)

    def test_a_table_that_the_manifest_forgets(self, download: Path) -> None:
        manifest = json.loads((download / MANIFEST).read_text("utf-8"))
        del manifest["files"][shard(download)]
        (download / MANIFEST).write_text(json.dumps(manifest), "utf-8")
        assert {"file_unlisted", "books"} <= codes(download)


HOSTILE = "\x1b]0;owned\x07"


class TestHostile:
    """What came from outside reaches no terminal as it is."""

    def printed(self, *arguments: object) -> str:
        result = CliRunner().invoke(main, ["verify", *map(str, arguments), "--workers", "1"])
        assert result.exit_code == 1
        assert not {c for c in result.output if not c.isprintable()} - {"\n"}
        return result.output

    def test_names_of_files(self, out: Path) -> None:
        (out / f"pose/{HOSTILE}.parquet").write_bytes(b"")
        assert "owned" in self.printed(out)

    def test_the_manifest(self, out: Path) -> None:
        text = (out / MANIFEST).read_text("utf-8")
        manifest = json.loads(text)
        for version in (f"1.0.0{HOSTILE}", 7, None):
            (out / MANIFEST).write_text(json.dumps({**manifest, "version": version}), "utf-8")
            assert "version" in self.printed(out)
        for files in (
            {f"{HOSTILE}.md": manifest["files"]["README.md"]},
            {"a\0b": {}},
            [],
            {"README.md": {"size": "1"}},
        ):
            (out / MANIFEST).write_text(json.dumps({**manifest, "files": files}), "utf-8")
            assert "bookkeeping_damaged" in self.printed(out)
        (out / MANIFEST).write_text("[" * 100_000, "utf-8")
        assert "bookkeeping_damaged" in self.printed(out)

    def test_another_version(self, out: Path) -> None:
        manifest = json.loads((out / MANIFEST).read_text("utf-8"))
        (out / MANIFEST).write_text(json.dumps({**manifest, "version": "9.9.9"}), "utf-8")
        assert codes(out) == {"version_differs"}

    def test_values(self, out: Path, release: Path) -> None:
        rewrite(out, shard(out, "captions"), lambda t: with_value(t, "caption", f"a bed{HOSTILE}"))
        assert "a bed" in self.printed(out, "--raw", release)
        rewrite(out, shard(out, "categories", "train-*"), lambda t: with_value(t, "name", f"bed{HOSTILE}"))
        assert "owned" in self.printed(out)


class TestViewer:
    def test_lone_value(self, tmp_path: Path) -> None:
        build(
            RawTreeWriter().sound("bed", ("a", "b"), ("v",)).folder(tmp_path / "raw"),
            tmp_path / "out",
            workers=1,
        )
        found = verify(tmp_path / "out", workers=1)
        assert {p.code for p in found} == {"viewer_lone_value"}
        assert all(p.is_note for p in found)
        result = CliRunner().invoke(main, ["verify", str(tmp_path / "out"), "--workers", "1"])
        assert result.exit_code == 0
        assert "viewer_lone_value" in result.output
        lone = {p.file for p in found}
        assert {"cad train", "categories train", "pose validation"} <= lone
        assert not any("train" in file for file in lone - {"cad train", "categories train"})

    def test_empty_split(self, out: Path) -> None:
        for path in sorted(out.glob("captions/validation-*.parquet")):
            rewrite(out, path.relative_to(out).as_posix(), lambda table: table.slice(0, 0))
        assert "viewer_empty_split" in codes(out)

    def test_page(self) -> None:
        half = VIEWER_PAGE_BYTES // 2
        assert not list(check_pages("pose train", [(100, half), (100, half + 1), (100, half)]))
        assert [p.code for p in check_pages("pose train", [(90, half), (100, half + 1)])] == ["viewer_page"]


class TestRaw:
    def test_value(self, out: Path, release: Path) -> None:
        rewrite(
            out, shard(out), lambda table: with_value(table, "theta", lambda theta: np.nextafter(theta, 3))
        )
        assert codes(out) == set()
        assert codes(out, release) == {"raw_value"}

    def test_every_changed_value_is_named(self, out: Path, release: Path) -> None:
        """Not the first of a row group alone; up to a limit that is named."""
        path = next(p for p in sorted(out.glob("pose/*.parquet")) if pq.read_metadata(p).num_rows > 8)
        path = path.relative_to(out).as_posix()

        def moved(table: pa.Table, column: str, rows: int) -> pa.Table:
            for row in range(rows):
                table = with_value(table, column, lambda value: value + 1, row)
            return table

        rewrite(out, path, lambda table: moved(moved(table, "px", 3), "distance", 2), groups=[])
        found = [p.what.partition(" of ")[0] for p in verify(out, str(release), workers=1)]
        assert sorted(w for w in found if w in ("px", "distance")) == ["distance"] * 2 + ["px"] * 3
        rewrite(
            out, path, lambda t: moved(moved(moved(t, "theta", 8), "azimuth", 8), "elevation", 8), groups=[]
        )
        found = [p.what for p in verify(out, str(release), workers=1) if p.code == "raw_value"]
        assert len(found) == 21
        assert "and 9 more; 20 of a kind and file are shown" in found

    def test_picture(self, out: Path, release: Path) -> None:
        everywhere(out, lambda table: with_picture(table, lambda data: reencoded(data, quality=95)))
        assert codes(out) == set()
        assert codes(out, release) == {"raw_value"}

    def test_caption(self, out: Path, release: Path) -> None:
        rewrite(out, shard(out, "captions"), lambda table: with_value(table, "caption", "another"))
        assert codes(out, release) == {"raw_value"}

    def test_changed_raw(self, out: Path, release: Path, tmp_path: Path) -> None:
        raw = shutil.copytree(release, tmp_path / "raw")
        picture = raw / f"images/{pq.read_table(out / shard(out))['image_id'][0]}.JPEG"
        picture.write_bytes(reencoded(picture.read_bytes(), quality=20))
        assert codes(out, raw) == {"raw_value"}

    def test_crop_value(self, out: Path, release: Path) -> None:
        path = shard(out, "object_centric")
        rewrite(out, path, lambda table: with_value(table, "px", lambda px: px + 1))
        assert codes(out) == set()
        assert codes(out, release) == {"raw_value"}

    def test_crop_encoded_otherwise(self, out: Path, release: Path) -> None:
        """Another JPEG encoder is no fault, another picture is."""
        path = shard(out, "object_centric")
        rewrite(out, path, lambda table: with_picture(table, lambda data: reencoded(data, quality=98)))
        assert codes(out, release) == set()
        rewrite(out, path, lambda table: with_picture(table, lambda data: reencoded(data, quality=5)))
        assert codes(out, release) == {"raw_value"}

    def test_lost_crop(self, out: Path, release: Path) -> None:
        rewrite(out, shard(out, "object_centric"), lambda table: table.slice(1))
        found = verify(out, str(release), workers=1)
        assert ("object_centric", "raw_picture_lost") in {(p.file.partition("/")[0], p.code) for p in found}

    def test_lost_object(self, out: Path, release: Path) -> None:
        rewrite(out, shard(out), lambda table: table.slice(1))
        assert {"raw_value", "raw_picture_lost"} & codes(out, release)

    def test_lost_picture(self, out: Path, release: Path) -> None:
        def without_first(table: pa.Table) -> pa.Table:
            return table.filter(pa.array([i != lost for i in table["image_id"].to_pylist()]))

        lost = pq.read_table(out / shard(out))["image_id"][0].as_py()
        everywhere(out, without_first)
        found = [p for p in verify(out, str(release), workers=1) if p.code == "raw_picture_lost"]
        assert any(lost in p.what for p in found)

    def test_listed_elsewhere(self, out: Path, release: Path, tmp_path: Path) -> None:
        raw = shutil.copytree(release, tmp_path / "raw")
        image_id = pq.read_table(out / shard(out))["image_id"][0].as_py()
        category, _, stem = image_id.partition("/")
        for word, text in (("train", ""), ("val", f"{stem}\n")):
            listed = raw / f"lists/{category}_imagenet_{word}.txt"
            lines = [
                line for line in listed.read_text("utf-8").splitlines(keepends=True) if line.strip() != stem
            ]
            listed.write_text("".join(lines) + text, "utf-8")
        assert "raw_picture_unknown" in codes(out, raw)

    def test_new_in_raw(self, out: Path, release: Path, tmp_path: Path) -> None:
        raw = shutil.copytree(release, tmp_path / "raw")
        shutil.copy(sorted(raw.glob("images/*/*.JPEG"))[0], raw / "images/bed/new.JPEG")
        assert codes(out, raw) == {"raw_picture_lost"}


def test_every_check_is_exercised() -> None:
    text = Path(__file__).read_text("utf-8")
    assert [code for code in CHECKS if f'"{code}"' not in text] == []


def test_schema_is_the_contract(built: Path) -> None:
    for config in TABLES:
        assert pq.read_schema(built / shard(built, config)).metadata == shard_schema(config).metadata
