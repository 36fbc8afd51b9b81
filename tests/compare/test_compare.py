"""compare: what was added, gone and changed between two built releases, wherever they are."""

import itertools
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hub import TOKEN, serve
from support.processes import run_lines
from support.raw_tree import MESH, RawTreeWriter, an_object, encoded

import ImageNet3D
from processing.__main__ import main
from processing.build.command import build
from processing.compare.command import Changes, Difference, Turn, changes, compare
from processing.compare.version import open_version
from processing.geometry import rotation_error, rotation_from_viewpoint
from processing.runtime.paths import PlaceError

pytestmark = pytest.mark.slow

PICTURES = ("bed/a", "bed/b", "bed/gone", "bed/moves", "bed/v", "bed/w", "car/c", "car/d", "car/x", "car/y")
CAPTIONS = {name: f"a picture of {name}" for name in (*PICTURES, "bed/new")}


def release() -> RawTreeWriter:
    tree = RawTreeWriter().sound("bed", ("a", "b", "gone", "moves"), ("v", "w"))
    tree.sound("car", ("c", "d"), ("x", "y")).captions(
        images=CAPTIONS, categories={"bed": "Beds.", "car": "Cars."}
    )
    tree.annotation("bed", "b", an_object(), an_object(azimuth=..., elevation=..., theta=...))
    return tree


def later() -> RawTreeWriter:
    """The same with a change of every kind."""
    tree = release()
    tree.lists("bed", ("a", "b", "new"), ("v", "w", "moves"))
    tree.picture("bed", "new").annotation("bed", "new", an_object(), an_object())
    tree.picture("car", "c", encoded(quality=40))
    tree.annotation("bed", "a", an_object(azimuth=1.5, object_status="status_bad"))
    tree.annotation("bed", "v", an_object(distance=...))
    tree.annotation("car", "d", an_object("car", theta=0.25 + 2 * np.pi, bbox=[1.0, 2.0, 30.0, 40.0]))
    tree.captions(
        images={**CAPTIONS, "bed/a": "another bed", "bed/b": "a second bed"}, categories={"bed": "Beds."}
    )
    tree.files["CAD/bed/01.off"] = MESH.replace(b"1 0 0", b"2 0 0")
    tree.mesh("bed", 2)
    return tree


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("versions")
    for name, tree, number in (("old", release(), "1.0.0"), ("new", later(), "1.1.0")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ImageNet3D, "__version__", number)
            build(tree.folder(folder / f"raw-{name}"), folder / name, workers=1, shard_size="10KB")
    return folder / "old", folder / "new"


@pytest.fixture(scope="module")
def found(versions: tuple[Path, Path]) -> Changes:
    return compare(*map(str, versions))


class TestChanges:
    def test_pictures(self, found: Changes) -> None:
        assert found.kinds["pictures"] == Difference(
            old=10,
            new=10,
            added=["bed/new"],
            gone=["bed/gone"],
            changed={
                "bed/a": ["caption"],
                "bed/b": ["caption"],
                "bed/moves": ["split"],
                "car/c": ["category_caption", "image"],
                "car/d": ["category_caption"],
                "car/x": ["category_caption"],
                "car/y": ["category_caption"],
            },
        )

    def test_objects(self, found: Changes) -> None:
        assert found.kinds["objects"] == Difference(
            old=11,
            new=12,
            added=["bed/new 0", "bed/new 1"],
            gone=["bed/gone 0"],
            changed={
                "bed/a 0": ["azimuth", "object_status"],
                "bed/moves 0": ["split"],
                "bed/v 0": ["distance"],
                "car/d 0": ["bbox", "theta"],
            },
        )
        assert found.kinds["objects"].fields["azimuth"] == 1

    def test_rotations_by_their_angle(self, found: Changes) -> None:
        """A whole turn is another value and no other rotation."""
        (turn,) = found.turns
        expected = rotation_error(*(rotation_from_viewpoint(azimuth, 0.5, 0.25) for azimuth in (1.0, 1.5)))
        assert (turn.image_id, turn.object_index) == ("bed/a", 0)
        assert turn.degrees == pytest.approx(np.degrees(expected))
        assert "theta" in found.kinds["objects"].changed["car/d 0"]
        assert "1 rotations changed" in str(found)

    def test_meshes(self, found: Changes) -> None:
        meshes = found.kinds["meshes"]
        assert (meshes.added, meshes.gone, meshes.changed) == (["bed 2"], [], {"bed 1": ["bounds", "mesh"]})

    def test_categories(self, found: Changes) -> None:
        assert found.kinds["categories"].changed == {"car": ["caption"]}

    def test_nothing_changed(self, versions: tuple[Path, Path]) -> None:
        same = compare(str(versions[0]), str(versions[0]))
        assert not same
        assert same.counts() == {}
        assert same.kinds["pictures"].old == same.kinds["pictures"].new == 10

    def test_the_other_way_round(self, found: Changes, versions: tuple[Path, Path]) -> None:
        back = compare(*map(str, reversed(versions)))
        for kind, difference in found.kinds.items():
            assert back.kinds[kind].added == difference.gone
            assert back.kinds[kind].gone == difference.added
            assert back.kinds[kind].changed == difference.changed
        assert [turn.degrees for turn in back.turns] == pytest.approx([turn.degrees for turn in found.turns])

    def test_counts(self, found: Changes) -> None:
        counts = found.counts()
        assert (counts["pictures added"], counts["pictures gone"], counts["pictures changed"]) == (1, 1, 7)
        assert (counts["objects added"], counts["rotations changed"]) == (2, 1)

    def test_the_card_of_a_build_says_what_changed(
        self, versions: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ImageNet3D, "__version__", "1.1.0")
        raw, configs = later().folder(tmp_path / "raw"), ["classification"]
        build(raw, tmp_path / "out", configs=configs, workers=1, previous=str(versions[0]))
        card = (tmp_path / "out" / "README.md").read_text("utf-8")
        assert "| 1.1.0 | Since 1.0.0: 1 pictures added, 1 pictures gone, 2 pictures changed. |" in card

    def test_other_configs_are_said_and_not_compared(
        self, versions: tuple[Path, Path], tmp_path: Path
    ) -> None:
        build(release().folder(tmp_path / "raw"), tmp_path / "out", configs=["pose"], workers=1)
        changes = compare(str(versions[0]), str(tmp_path / "out"))
        assert changes.tables_gone == ["cad", "captions", "categories", "classification", "object_centric"]
        assert not any(changes.kinds.values())
        assert changes
        assert "only the old one has cad" in str(changes)

    def test_versions_of_other_configs_have_the_same_labels(
        self, versions: tuple[Path, Path], tmp_path: Path
    ) -> None:
        """Whichever configs they are of; files of object_centric that differ are said, also alone."""
        whole = open_version(str(versions[0]))
        of = {
            table: replace(whole, files={p: e for p, e in whole.files.items() if p.startswith(f"{table}/")})
            for table in whole.tables
        }
        assert of.keys() >= {"cad", "categories", "object_centric"}
        for one, other in itertools.permutations(of.values(), 2):
            found = changes(one, other)
            assert found.moved_labels == []
            assert (len(found.tables_added), len(found.tables_gone)) == (1, 1)
            assert "they share no config that is compared" in str(found)
        crops = of["object_centric"]
        path = next(iter(crops.files))
        touched = replace(crops, files={**crops.files, path: replace(crops.files[path], sha256="0" * 64)})
        assert not changes(crops, crops)
        for one, other in ((crops, touched), (crops, replace(crops, files={path: crops.files[path]}))):
            found = changes(one, other)
            assert found
            assert found.not_compared == ["object_centric"]
            assert "object_centric has other files than before, and is not compared" in str(found)
        none = replace(whole, files={})
        assert changes(whole, none).moved_labels == changes(none, whole).moved_labels == []

    def test_moved_labels_are_said_first(
        self, versions: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        version = open_version(str(versions[1]))
        names = ["ax", "aeroplane"]
        monkeypatch.setattr(
            "processing.compare.command.category_names", lambda v: names[:: 1 if v is version else -1]
        )
        found = changes(open_version(str(versions[0])), version)
        assert found.moved_labels == ["aeroplane", "ax"]
        assert str(found).index("LABEL IDS MOVED") < str(found).index("pictures")


class TestReading:
    def test_files_that_are_the_same_are_not_read(
        self, versions: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Their pictures cannot differ; those of other shards are read row group by row group."""
        from processing.compare import version

        opened = []
        read = version.Version.opened
        monkeypatch.setattr(
            version.Version,
            "opened",
            lambda self, path, **options: (options and opened.append(path)) or read(self, path, **options),
        )
        compare(str(versions[0]), str(versions[0]))
        assert opened == []
        compare(*map(str, versions))
        assert opened

    def test_memory_holds_no_more_than_a_row_group(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0)
        tree = RawTreeWriter().sound("bed", tuple(f"p{i}" for i in range(400)), ("v", "w"))
        for name in tree.files:
            if name.startswith("images/"):
                tree.files[name] += noise.bytes(50_000)  # after the end marker
        raw = tree.folder(tmp_path / "raw")
        for seed in (0, 1):
            build(raw, tmp_path / str(seed), configs=["classification"], seed=seed, workers=1)
        import pyarrow as pa

        before = pa.total_allocated_bytes()
        tracemalloc.start()
        changes = compare(str(tmp_path / "0"), str(tmp_path / "1"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert not changes.kinds["pictures"]
        assert peak < 15e6  # of 20 MB on each side
        assert pa.total_allocated_bytes() - before < 5e6


@pytest.mark.parametrize("name", ["nothing/here/at/all", "./no-such-folder"])
def test_what_is_not_there(name: str, versions: tuple[Path, Path]) -> None:
    with pytest.raises(PlaceError, match="no such folder"):
        compare(str(versions[0]), name)
    done = CliRunner().invoke(main, ["compare", str(versions[0]), name])
    assert done.exit_code == 2


def test_a_folder_that_was_not_built(tmp_path: Path, versions: tuple[Path, Path]) -> None:
    with pytest.raises(PlaceError, match="that `build` finished"):
        compare(str(tmp_path), str(versions[0]))


def test_damage_is_named(versions: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    out = shutil.copytree(versions[0], tmp_path / "out")
    path = next(out.glob("pose/*.parquet"))
    path.write_bytes(path.read_bytes()[:500])
    done = CliRunner().invoke(main, ["compare", str(versions[1]), str(out)])
    assert done.exit_code != 0
    assert path.relative_to(out).as_posix() in done.output
    assert "Traceback" not in done.output


def test_the_command_on_folders(versions: tuple[Path, Path], found: Changes) -> None:
    done = CliRunner().invoke(main, ["compare", *map(str, versions)])
    assert done.exit_code == 0, done.output
    assert str(found) in done.output
    done = CliRunner().invoke(main, ["compare", *map(str, versions), "--json"])
    told: dict[str, Any] = json.loads(done.output)
    assert told["kinds"]["objects"]["changed"]["bed/a 0"] == ["azimuth", "object_status"]
    assert told["turns"][0]["image_id"] == "bed/a"


def test_revisions_of_a_repository_on_the_hub(
    versions: tuple[Path, Path], found: Changes, tmp_path: Path
) -> None:
    old, new = versions
    with serve(new, revisions={"v1.0.0": old, "refs/pr/3": new}, gated=True) as hub:
        environment = hub.environment(tmp_path, TOKEN)
        versions_there = ["ccvl/ImageNet3D@v1.0.0", "ccvl/ImageNet3D@refs/pr/3", "--json"]
        # In processes of their own: huggingface_hub reads where the Hub is when it is imported.
        compared, missing = run_lines(
            ["compare", *versions_there],
            ["compare", "ccvl/ImageNet3D@v7.0.0", old],
            environment=environment,
        )
        (closed,) = run_lines(
            ["compare", "ccvl/ImageNet3D@v1.0.0", old], environment=hub.environment(tmp_path / "b")
        )
    assert compared[0] == 0, compared
    assert json.loads(compared[1])["kinds"] == json.loads(found.to_json())["kinds"]
    for code, said in (missing, closed):
        assert code == 2, said
        assert "ccvl/ImageNet3D@v" in said


angles = st.floats(-20, 20)


@settings(max_examples=50, deadline=None)
@given(st.tuples(angles, angles, angles), st.tuples(angles, angles, angles))
def test_turns_are_geodesic(one: tuple[float, ...], other: tuple[float, ...]) -> None:
    import pandas as pd

    from processing.compare.command import _turns

    names = list(ImageNet3D.ANGLES)
    frames = [pd.DataFrame([angles], columns=names, index=["bed/a b 7"]) for angles in (one, other)]
    turns = _turns(*frames)
    expected = np.degrees(rotation_error(rotation_from_viewpoint(*one), rotation_from_viewpoint(*other)))
    assert turns == ([Turn("bed/a b", 7, pytest.approx(expected))] if expected > 1e-6 else [])


@settings(max_examples=50, deadline=None)
@given(st.tuples(angles, angles, angles), st.tuples(*[st.integers(-3, 3)] * 3))
def test_whole_turns_are_no_turns(one: tuple[float, ...], whole: tuple[int, ...]) -> None:
    import pandas as pd

    from processing.compare.command import _turns

    other = [angle + 2 * np.pi * turns for angle, turns in zip(one, whole, strict=True)]
    names = list(ImageNet3D.ANGLES)
    assert (
        _turns(*(pd.DataFrame([angles], columns=names, index=["bed/a 7"]) for angles in (one, other))) == []
    )
