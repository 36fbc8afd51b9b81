"""The config cad: rows, thumbnails, hostile meshes, resuming, and what a release without any has."""

import io
import itertools
import json
import shutil
import zlib
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import trimesh
from PIL import Image
from support.meshes import HOSTILE, off
from support.processor import at_most
from support.raw_tree import MESH, TOP, RawTreeWriter, zip_of
from support.reference import read_off

from ImageNet3D import CATEGORIES, REASONS
from processing.accounts import label_names
from processing.build.command import build
from processing.build.plan import runs
from processing.build.references import _row_groups
from processing.drawing import mesh as meshes
from processing.drawing.mesh import Mesh, glb_bytes, parse_mesh
from processing.drawing.thumbnail import thumbnail
from processing.preview.command import open_source
from processing.verify.command import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def loaded(built_real: Path, tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    cache = str(tmp_path_factory.mktemp("cache"))
    return datasets.load_dataset(str(built_real), "cad", split="train", cache_dir=cache)


class TestRows:
    def test_every_mesh_of_the_release_has_a_row(self, loaded: datasets.Dataset, real_folder: Path) -> None:
        files = sorted(real_folder.glob("imagenet3d_v1/CAD/*/*.off"))
        keys = [(CATEGORIES[row["category"]], row["cad_index"]) for row in loaded.remove_columns("image")]
        assert keys == [(file.parent.name, int(file.stem)) for file in files]
        assert len(keys) > 100

    def test_vertices_and_triangles_are_those_of_the_release(
        self, loaded: datasets.Dataset, real_folder: Path
    ) -> None:
        """Read as a user would, with no option that keeps trimesh from tidying up."""
        for row in loaded.select(range(0, len(loaded), 3)).remove_columns("image"):
            name = CATEGORIES[row["category"]]
            vertices, faces = read_off(real_folder / f"imagenet3d_v1/CAD/{name}/{row['cad_index']:02d}.off")
            assert row["mesh"]["path"] == f"{name}_{row['cad_index']:02d}.glb"
            scene = trimesh.load(io.BytesIO(row["mesh"]["bytes"]), file_type="glb")
            (node,) = scene.graph.nodes_geometry
            turned, geometry = scene.graph[node]
            assert np.array_equal(turned, np.eye(4))
            found = scene.geometry[geometry]
            assert np.array_equal(found.vertices, np.float32(vertices))
            assert len(found.faces) == row["num_faces"] == sum(len(face) - 2 for face in faces)
            if all(len(face) == 3 for face in faces):
                assert np.array_equal(found.faces, faces)
            assert row["num_vertices"] == len(vertices)
            used = vertices[sorted(set(itertools.chain.from_iterable(faces)))]
            assert row["bounds"] == [used.min(axis=0).tolist(), used.max(axis=0).tolist()]
            assert np.array_equal(np.float32(row["bounds"]), found.bounds)

    def test_casts_to_mesh(self, loaded: datasets.Dataset) -> None:
        rows = loaded.cast_column("mesh", datasets.Mesh())
        for row in rows.select(range(5)):
            mesh = row["mesh"].to_mesh()
            assert (len(mesh.vertices), len(mesh.faces)) == (row["num_vertices"], row["num_faces"])

    def test_glb_has_positions_and_triangles_alone(self, loaded: datasets.Dataset) -> None:
        data = loaded[0]["mesh"]["bytes"]
        described = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
        (primitive,) = described["meshes"][0]["primitives"]
        assert list(primitive["attributes"]) == ["POSITION"]
        assert primitive["mode"] == 4
        assert "materials" not in described

    def test_the_preview_finds_the_meshes(self, built_real: Path, real_folder: Path) -> None:
        source, raw = open_source(str(built_real)), open_source(str(real_folder / "imagenet3d_v1"))
        found, expected = (opened.mesh("bed", 3) for opened in (source, raw))
        assert np.array_equal(found.vertices, np.float32(expected.vertices))
        assert np.array_equal(found.faces, expected.faces)

    def test_files_are_cut_by_size_and_numbered(self, built_real: Path) -> None:
        paths = sorted(built_real.glob("cad/*"))
        total = len(paths)
        assert total > 4
        assert [path.name for path in paths] == [
            f"train-{i:05d}-of-{total:05d}.parquet" for i in range(total)
        ]
        assert all(path.stat().st_size < 2.2e6 for path in paths)
        columns = [pq.read_metadata(path).row_group(0).column(0).compression for path in paths]
        assert set(columns) == {"UNCOMPRESSED"}


class TestLimits:
    def test_row_groups_are_cut_by_rows_and_bytes(self) -> None:
        def row(size: int) -> dict:
            return {"image": {"bytes": b""}, "mesh": {"bytes": bytes(size)}}

        groups = list(_row_groups(row(1) for _ in range(250)))
        assert [len(group) for group in groups] == [100, 100, 50]
        groups = list(_row_groups(row(4 * 10**7) for _ in range(5)))
        assert [len(group) for group in groups] == [2, 2, 1]

    def test_a_mesh_larger_than_a_shard_stands_alone(self) -> None:
        assert list(runs([9, 1, 1, 1, 3, 9], int, 3)) == [(9,), (1, 1, 1), (3,), (9,)]


class TestThumbnail:
    @staticmethod
    def drawn(vertices: object, *faces: tuple[int, ...]) -> np.ndarray:
        """Where a mesh is drawn."""
        mesh = parse_mesh(off(vertices, *faces), "x.off")
        pixels = np.asarray(Image.open(io.BytesIO(thumbnail(mesh, "x.off"))), int)
        return np.abs(pixels - pixels[0, 0]).sum(axis=-1) > 20

    def test_is_a_small_picture_of_fixed_size(self, loaded: datasets.Dataset) -> None:
        for image in loaded["image"][:10]:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (256, 256))

    @pytest.mark.parametrize(
        ("x", "y", "side"),
        [(0.9, 0, 1), (-0.9, 0, -1), (0, -0.9, -1), (0, 0.9, 1)],
        ids="right left front back".split(),
    )
    def test_shows_up_right_and_front_where_they_are(self, x: float, y: float, side: int) -> None:
        """A pole on a plate, seen from 30° to the right of the front, which is towards -y."""
        plate = [(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)]
        pole = [(x - 0.05, y, 0), (x + 0.05, y, 0), (x + 0.05, y, 2), (x - 0.05, y, 2)]
        rows, columns = np.nonzero(self.drawn([*plate, *pole], (0, 1, 2, 3), (4, 5, 6, 7)))
        top = columns[rows == rows.min()]
        assert np.ptp(top) < 10
        assert np.sign(top.mean() - columns[rows > 128].mean()) == side

    def test_fills_the_picture_but_for_a_margin(self) -> None:
        box = np.array(list(itertools.product((5, 7), (-3, -2), (0, 1))))
        faces = [(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)]
        rows, columns = np.nonzero(self.drawn(box, *faces))
        margin = round(256 * 0.06)
        assert abs(columns.min() - margin) <= 1 >= abs(columns.max() - (255 - margin))
        assert abs((rows.min() + rows.max()) / 2 - 127.5) <= 1

    @pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e3, 3e38])
    def test_any_size_and_place_is_drawn_alike(self, scale: float) -> None:
        vertices = np.array([(0, 0, 0), (1, 0, 0), (0, -1, 0), (0, 0, 1)])
        faces = [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)]
        expected = self.drawn(vertices, *faces)
        found = self.drawn(vertices * scale, *faces)
        assert (expected != found).mean() < 0.002
        assert expected.mean() > 0.1

    def test_a_mesh_without_extent_is_an_empty_picture(self) -> None:
        assert not self.drawn([(1, 1, 1)] * 3, (0, 1, 2)).any()


# --------------------------------------------------------------------------------------------------------
# Hostile meshes
# --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory):
    """All of them in one zip, built; the n-th is kettle's mesh n."""
    folder = tmp_path_factory.mktemp("hostile")
    tree = RawTreeWriter().sound("bed").sound("ax")
    for number, (data, _) in enumerate(HOSTILE.values(), 1):
        tree.files[f"CAD/kettle/{number:02d}.off"] = data
    tree.files["CAD/spaceship/01.off"] = MESH
    tree.files["CAD/kettle/notes.txt"] = b"not a mesh"
    raw = tree.zip(folder / "raw.zip")
    report = build(raw, folder / "out", configs=["cad"], workers=1)
    lines = (folder / "out/.build/ledger.jsonl").read_text("utf-8").splitlines()
    return folder, report, [json.loads(line) for line in lines]


class TestHostile:
    @pytest.mark.parametrize("case", HOSTILE)
    def test_each_mesh_ends_in_its_decision(self, hostile, case: str) -> None:
        folder, _, ledger = hostile
        number = list(HOSTILE).index(case) + 1
        found = [line for line in ledger if line["file"] == f"CAD/kettle/{number:02d}.off"]
        reason = HOSTILE[case][1]
        assert [line["reason"] for line in found] == ([reason] if reason else [])
        assert all(line["decision"] == REASONS[reason].decision == "left out" for line in found)
        assert all(len(line["value"]) < 100 and line["value"].isprintable() for line in found)
        indices = {
            (label_names(table.schema)[row["category"]], row["cad_index"])
            for path in folder.glob("out/cad/*.parquet")
            for table in [pq.read_table(path, columns=["category", "cad_index"])]
            for row in table.to_pylist()
        }
        assert (("kettle", number) in indices) is not bool(reason)

    def test_books_balance(self, hostile) -> None:
        _, report, ledger = hostile
        account = report.books.accounts["cad", "train"]
        reasons = Counter(reason for _, reason in HOSTILE.values() if reason)
        assert account.left_out == reasons
        assert account.read == len(HOSTILE) + 3
        assert account.written == account.read - reasons.total()
        assert list(report.books.accounts) == [("cad", "train")]
        assert report.pictures == 0
        assert {line["file"] for line in ledger if line["reason"] == "file_unexpected"} == {
            "CAD/kettle/notes.txt"
        }

    def test_verify_finds_nothing_wrong(self, hostile) -> None:
        folder, _, _ = hostile
        assert verify(folder / "out", str(folder / "raw.zip"), workers=1) == []

    @pytest.mark.parametrize("case", ["polygon-of-too-many-triangles", "too-much-to-draw", "too-many-bytes"])
    def test_takes_seconds(self, case: str) -> None:
        data = HOSTILE[case][0]
        with at_most(seconds=10), pytest.raises(meshes.MeshError):
            thumbnail(parse_mesh(data, "x.off"), "x.off")

    def test_a_damaged_member_is_left_out(self, tmp_path: Path) -> None:
        tree = RawTreeWriter().sound("bed").sound("ax").mesh("bed", 2)
        data = bytearray(zip_of({TOP + name: content for name, content in tree.files.items()}, 0))
        at = data.index(MESH, data.index(b"CAD/bed/02.off"))
        data[at + 5] ^= 1
        assert zlib.crc32(data[at : at + len(MESH)]) != zlib.crc32(MESH)
        (tmp_path / "raw.zip").write_bytes(data)
        report = build(str(tmp_path / "raw.zip"), tmp_path / "out", configs=["cad"], workers=1)
        assert report.books.accounts["cad", "train"].left_out == {"member_damaged": 1}
        assert [finding.file for _, finding in report.findings] == ["CAD/bed/02.off"]

    def test_a_mesh_that_is_gone_when_it_is_read_is_left_out(self, tmp_path: Path) -> None:
        raw = RawTreeWriter().sound("bed").mesh("bed", 2).folder(tmp_path / "raw")
        (tmp_path / "raw" / TOP / "CAD/bed/02.off").unlink()
        with pytest.raises(meshes.MeshError, match=r"CAD/bed/02\.off: not in the release"):
            meshes.read_mesh(meshes.RawTree(raw), "bed", 2)


class TestGlb:
    def test_order_and_precision(self) -> None:
        generator = np.random.default_rng(4)
        vertices = generator.normal(size=(50, 3)) * 10.0 ** generator.integers(-20, 20, (50, 1))
        vertices = np.concatenate([vertices, vertices[:5]])  # duplicates stay
        faces = generator.integers(0, 55, (80, 3))  # of no area, some of them, and unused vertices
        data = glb_bytes(Mesh(vertices, faces))
        found = parse_mesh(data, "x.glb")
        assert np.array_equal(found.vertices, np.float32(vertices))
        assert np.array_equal(found.faces, faces)
        assert glb_bytes(found) == data


# --------------------------------------------------------------------------------------------------------
# Building
# --------------------------------------------------------------------------------------------------------


def cad_bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("cad/*.parquet")}


class TestBuild:
    def test_any_number_of_workers_and_a_resumed_build_write_the_same_bytes(
        self, built_sample: Path, sample_folder: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        build(str(sample_folder), out, configs=["cad"], workers=2, shard_size="200KB")
        assert cad_bytes(out) == cad_bytes(built_sample)
        assert len(cad_bytes(out)) > 1
        lost, *others = sorted(out.glob("cad/*.parquet"))
        times = [path.stat().st_mtime_ns for path in others]
        lost.unlink()
        build(str(sample_folder), out, configs=["cad"], workers=1, shard_size="200KB")
        assert cad_bytes(out) == cad_bytes(built_sample)
        assert [path.stat().st_mtime_ns for path in others] == times

    def test_a_build_without_it_leaves_none_of_an_earlier_one(
        self, sample_folder: Path, tmp_path: Path
    ) -> None:
        build(str(sample_folder), tmp_path / "out", configs=["cad"], workers=1)
        (tmp_path / "out/imagenet3d_manifest.json").unlink()  # it did not come to its end
        build(str(sample_folder), tmp_path / "out", configs=["classification"], workers=1)
        assert not cad_bytes(tmp_path / "out")
        assert verify(tmp_path / "out", workers=1) == []

    def test_a_changed_mesh_is_built_anew(self, sample_folder: Path, tmp_path: Path) -> None:
        tree = shutil.copytree(sample_folder, tmp_path / "tree")
        build(str(tree), tmp_path / "out", configs=["cad"], workers=1)
        before = cad_bytes(tmp_path / "out")
        sorted(tree.glob("CAD/*/*.off"))[0].write_bytes(MESH)
        build(str(tree), tmp_path / "out", configs=["cad"], workers=1)
        assert cad_bytes(tmp_path / "out") != before

    def test_a_release_without_meshes_has_no_such_config(self, tmp_path: Path) -> None:
        tree = RawTreeWriter().sound("bed", ("a", "b"), ("v", "w"))
        del tree.files["CAD/bed/01.off"]
        raw = tree.folder(tmp_path / "raw")
        build(raw, tmp_path / "out", workers=1)
        assert "config_name: cad" not in (tmp_path / "out/README.md").read_text("utf-8")
        with pytest.raises(Exception, match="has no row for any config"):
            build(raw, tmp_path / "out2", configs=["cad"], workers=1)
