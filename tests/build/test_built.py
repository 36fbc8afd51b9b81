"""What a built folder is: its lists say whose a file is, and whatever is not as it was written is named."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from support import PROJECT
from support.raw_tree import RawTreeWriter, an_object, encoded

from ImageNet3D import rows
from processing import built
from processing.__main__ import main
from processing.build.command import NO_CAPTIONS, build
from processing.built import Manifest, NotBuiltError, UnfinishedError, read_built, read_manifest
from processing.card import pages
from processing.ledger import ShardResult
from processing.run import BuildError, Run, strangers
from processing.runtime import tasks
from processing.runtime.paths import PlaceError, StoreError, place
from processing.runtime.store import files_below
from processing.runtime.strict import DamagedError, Field, is_plain_path
from processing.verify.command import verify


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> str:
    tree = RawTreeWriter().sound("bed", ("a", "b"), ("v", "w")).annotation("bed", "b", an_object(azimuth=...))
    return tree.folder(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def made(raw: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small build, which no test changes."""
    out = tmp_path_factory.mktemp("built") / "ImageNet3D"
    build(raw, out, configs=["pose", "classification"], workers=1)
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "out")


def again(raw: str, out: Path, seed: int = 0) -> None:
    build(raw, out, configs=["pose", "classification"], workers=1, seed=seed)


class TestManifest:
    def test_read_back_it_is_the_same(self, made: Path) -> None:
        manifest = read_manifest(made)
        assert Manifest.from_json(manifest.to_json()) == manifest or (
            Manifest.from_json(manifest.to_json()).to_json() == manifest.to_json()
        )
        assert (made / built.MANIFEST).read_bytes() == manifest.to_json()

    def test_nothing_tells_where_the_release_was_read(self, tmp_path: Path) -> None:
        """A folder and a zip of it give the same published bytes."""
        tree = RawTreeWriter().sound("bed", ("a", "b"), ("v", "w"))
        raws = tree.folder(tmp_path / "raw"), tree.zip(tmp_path / "raw.zip")
        for number, raw in enumerate(raws):
            build(raw, tmp_path / str(number), configs=["pose"], workers=1)
        assert (tmp_path / "0" / built.MANIFEST).read_bytes() == (
            tmp_path / "1" / built.MANIFEST
        ).read_bytes()

    def test_it_lists_all_that_is_published(self, made: Path) -> None:
        found = read_built(made)
        assert found.files() == sorted([*found.manifest.files, built.MANIFEST])
        for path, entry in found.manifest.files.items():
            assert (made / path).stat().st_size == entry.size
            if path.endswith(".parquet"):
                assert pq.read_metadata(made / path).num_rows == entry.rows

    def test_a_copy_without_hidden_files_is_enough(self, made: Path, tmp_path: Path) -> None:
        """As it comes from the Hub."""
        copy = shutil.copytree(made, tmp_path / "hub", ignore=shutil.ignore_patterns(".*"))
        found = read_built(copy)
        assert found.ledger is None
        assert found.manifest.findings == {"pose_incomplete": 1}
        assert found.manifest.books.accounts["pose", "train"].to_dict() == {
            "read": 2,
            "written": 1,
            "left_out": {"pose_incomplete": 1},
        }

    def test_a_folder_that_is_none(self, out: Path, tmp_path: Path) -> None:
        with pytest.raises(NotBuiltError, match="nothing is there"):
            read_built(tmp_path / "nowhere")
        (out / built.CARD).unlink()
        with pytest.raises(UnfinishedError, match="has not come to its end"):
            read_built(out)


def changed(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set one field of a manifest."""

    def change(data: dict[str, Any]) -> None:
        for name in path[:-1]:
            data = data[name]
        data[path[-1]] = value

    return change


DAMAGED = {
    "files a list": (changed("files", value=[]), "files is a list"),
    "size as text": (changed("files", "README.md", "size", value="12"), "files.README.md.size is 12"),
    "size true": (changed("files", "README.md", "size", value=True), "files.README.md.size is True"),
    "negative size": (changed("files", "README.md", "size", value=-1), "files.README.md.size"),
    "huge size": (changed("files", "README.md", "size", value=10**400), "files.README.md.size is a huge"),
    "a short checksum": (changed("files", "README.md", "sha256", value="ab"), "files.README.md.sha256"),
    "NUL in a name": (changed("files", "a\0b", value={"size": 0, "sha256": "0" * 64, "rows": 0}), "files"),
    "a name that leads out": (changed("files", "../x", value={}), "files is a dict, not a list of paths"),
    "an absolute name": (changed("files", "/etc/passwd", value={}), "files"),
    "no entry": (changed("files", "README.md", value=None), "files.README.md is None"),
    "a version that is none": (changed("version", value="1.0"), "version is 1.0, not a version such as"),
    "a version to escape": (changed("version", value="\x1b]0;x\x07"), r"version is \\x1b\]0;x\\x07"),
    "accounts of nothing": (changed("accounts", value={"nothing": {}}), "accounts"),
    "an account a number": (changed("accounts", "pose", "train", value=3), "accounts.pose.train is 3"),
    "another format": (changed("format", value=99), "format is 99, not 1"),
    "an unknown code": (changed("findings", value={"no_such_code": 1}), "findings"),
    "shards a list": (changed("shards", value=["train"]), "shards is a list"),
    "categories null": (changed("categories", value=None), "categories is None"),
}


class TestDamaged:
    @pytest.mark.parametrize("case", DAMAGED)
    def test_file_and_field_are_named(self, case: str, made: Path) -> None:
        change, message = DAMAGED[case]
        data = json.loads((made / built.MANIFEST).read_bytes())
        change(data)
        with pytest.raises(DamagedError, match=rf"^FILE: {message}") as caught:
            Manifest.from_json(json.dumps(data).encode(), "FILE")
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize(
        "data",
        [b"", b"null", b"[]", b"{", b"\xff", b"{}", b"[" * 100_000, b'{"a":' * 100_000, b'{"format": NaN}'],
        ids=["empty", "null", "list", "cut", "no text", "bare", "deep", "deep object", "no number"],
    )
    def test_what_is_no_manifest(self, data: bytes) -> None:
        with pytest.raises(DamagedError, match=r"^FILE"):
            Manifest.from_json(data, "FILE")

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
    def test_a_marker_of_anything_is_refused_plainly(self, value: Any) -> None:
        with pytest.raises(DamagedError):
            ShardResult.from_field(Field("marker", "", value))

    @pytest.mark.parametrize("data", ["null", "[]", "{}", '{"key": null}', "["])
    def test_a_damaged_marker_is_made_anew(self, data: str, raw: str, out: Path) -> None:
        before = (out / built.MANIFEST).read_bytes()
        for marker in (out / ".build/done").iterdir():
            marker.write_text(data)
        again(raw, out)
        assert (out / built.MANIFEST).read_bytes() == before

    @pytest.mark.parametrize("name", [built.RUN, built.MANIFEST])
    def test_a_build_leaves_a_folder_alone_whose_lists_are_damaged(
        self, name: str, raw: str, out: Path
    ) -> None:
        (out / name).write_text('{"files": 3}')
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        with pytest.raises(DamagedError, match=f"{name}\\b.* not "):
            again(raw, out)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    @pytest.mark.parametrize(
        "line", ["{}", "null", "[[", '{"split": "train", "reason": "none", "object": 0}']
    )
    def test_a_line_of_the_ledger_is_named_by_its_number(self, line: str, out: Path) -> None:
        with (out / built.LEDGER).open("a") as ledger:
            ledger.write(line + "\n")
        with pytest.raises(DamagedError, match=r"ledger\.jsonl: line 2"):
            read_built(out)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
    @pytest.mark.parametrize("name", [built.RUN, built.LEDGER, built.MANIFEST, "pose/pipe.parquet"])
    def test_a_pipe_is_refused_and_not_waited_for(self, name: str, raw: str, out: Path) -> None:
        (out / name).unlink(missing_ok=True)
        os.mkfifo(out / name)
        with pytest.raises(StoreError, match="is a pipe, socket or device"):
            read_built(out)
        with pytest.raises(StoreError, match="is a pipe, socket or device"):
            again(raw, out)

    @pytest.mark.parametrize(
        "path", ["", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\\b", "a\0b", "a\nb", "a\x7f"]
    )
    def test_paths_that_are_none(self, path: str) -> None:
        assert not is_plain_path(path)

    @pytest.mark.parametrize("path", ["a", "a/b", ".hidden/..b", "a b/c.d", "figures/ü.svg", "..."])
    def test_paths_that_are(self, path: str) -> None:
        assert is_plain_path(path)


class TestFolders:
    """Links, names and places of the folder."""

    def test_folders_that_are_links_are_followed(self, raw: str, out: Path, tmp_path: Path) -> None:
        """A config's folder on another disk, where a rename cannot reach."""
        disk = tmp_path / "disk"
        shutil.move(out / "pose", disk)
        (out / "pose").symlink_to(disk)
        again(raw, out, seed=1)
        assert (out / "pose").is_symlink()
        assert {path.name for path in disk.iterdir()} == {
            Path(name).name for name in read_manifest(out).paths_of("pose")
        }

    @pytest.mark.parametrize("name", ["pose", "figures", ".build"])
    def test_a_link_that_leads_nowhere_is_refused_before_anything_is_touched(
        self, name: str, raw: str, out: Path
    ) -> None:
        shutil.rmtree(out / name)
        (out / name).symlink_to(out / "nowhere")
        with pytest.raises(BuildError, match=f"{name}: is a file, or a link that leads nowhere"):
            again(raw, out)
        assert (out / built.CARD).exists()

    def test_a_link_in_a_circle(self, out: Path) -> None:
        found = files_below(out)
        (out / "figures/circle").symlink_to(out)
        assert files_below(out).keys() == found.keys()

    def test_a_thousand_folders_deep(self, tmp_path: Path) -> None:
        deep = tmp_path
        for _ in range(970):
            deep = deep / "d"
        subprocess.run(["mkdir", "-p", deep], check=True)
        assert files_below(tmp_path) == {}

    def test_nothing_is_made_where_nothing_can_be_built(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(main, ["build", str(tmp_path / "nowhere"), str(tmp_path / "out")])
        assert result.exit_code == 1
        assert not (tmp_path / "out").exists()

    def test_home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert place("~/out") == tmp_path / "out"
        assert place("~nobody-of-that-name/out") == Path("~nobody-of-that-name/out").absolute()

    @pytest.mark.parametrize("name", ["caf\udce9", "a\0b"])
    def test_names_that_are_no_text(self, name: str) -> None:
        with pytest.raises(PlaceError, match="name another folder") as caught:
            place(name)
        assert str(caught.value).isprintable()

    def test_a_name_that_is_a_pattern_is_told_before_the_build(
        self, raw: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(ValueError, match="no row for any config"):
            build(raw, tmp_path / "a[1]", configs=["unknown"], workers=1)
        assert "takes [ in a path for a pattern" in capsys.readouterr().err

    def test_files_of_others(self, out: Path) -> None:
        """Only what the lists of our runs name is ours."""
        (out / "figures/my-own-plot.svg").write_text("mine")
        (out / "pose/train-00000-of-00009-known.parquet").write_text("mine")
        (out / ".DS_Store").write_text("nobody's")
        found = sorted(strangers(out, files_below(out)))
        assert found == ["figures/my-own-plot.svg", "pose/train-00000-of-00009-known.parquet"]

    def test_what_the_card_is_made_of_is_looked_for_first(
        self, raw: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("processing.build.command.MADE_OF", (pages.SOURCES / "absent.md",))
        with pytest.raises(BuildError, match=r"absent\.md: is missing; install the package again"):
            build(raw, tmp_path / "out", workers=1)
        assert not (tmp_path / "out").exists()


class TestShards:
    def test_pages_can_be_found(self, made: Path) -> None:
        """Readers of the Hub fetch ranges of pages by the page index."""
        for path in made.glob("*/*.parquet"):
            row_group = pq.read_metadata(path).row_group(0)
            assert all(row_group.column(i).has_offset_index for i in range(row_group.num_columns))

    def test_pictures_that_rows_repeat_too_often_are_cut_into_row_groups(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Arrow has no struct of 2 GiB of bytes; the limit is made small here."""
        objects = [an_object() for _ in range(7)]
        tree = RawTreeWriter().sound("bed", ("a", "b", "c"), ("v", "w"))
        raw = tree.annotation("bed", "b", *objects).folder(tmp_path / "raw")
        build(raw, tmp_path / "whole", configs=["pose", "classification"], workers=1)
        for module in ("build.shards", "verify.shard"):
            monkeypatch.setattr(f"processing.{module}.MAX_REPEATED_BYTES", 3 * len(encoded()))
        monkeypatch.setattr("processing.verify.shard.MAX_OBJECTS", 7)
        build(raw, tmp_path / "cut", configs=["pose", "classification"], workers=1)
        (path,) = (tmp_path / "cut").glob("pose/train-*.parquet")
        metadata = pq.read_metadata(path)
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        assert sorted(sizes) == [1, 1, 1, 3, 3]
        assert pq.read_table(path) == pq.read_table(tmp_path / "whole/pose" / path.name)
        assert verify(tmp_path / "cut", workers=1) == []
        # With the release, too, no table is larger; and what differs behind a cut is seen.
        sizes: list[int] = []

        def rows_of(*given: Any) -> pa.Table:
            table = rows(*given)
            sizes.append(len(table))
            return table

        monkeypatch.setattr("ImageNet3D.rows", rows_of)
        assert verify(tmp_path / "cut", raw=raw, workers=1) == []
        assert 0 < max(sizes) <= 3
        for changed in (objects[:-1], [*objects[:-1], an_object(azimuth=1.25)], [*objects, an_object()]):
            other = tree.annotation("bed", "b", *changed).folder(tmp_path / f"raw-{len(sizes)}")
            found = [p for p in verify(tmp_path / "cut", raw=other, workers=1) if p.file.startswith("pose/")]
            assert len(found) == 1, found
            assert "bed/b" in found[0].what

    @pytest.mark.slow
    def test_a_picture_of_90_megabytes_with_25_objects(self, tmp_path: Path) -> None:
        """More than Arrow's offsets of 32 bits can count, were it repeated."""
        comment = b"\xff\xfe\xff\xff" + bytes(65_533)
        huge = encoded()[:2] + comment * (90_000_000 // len(comment)) + encoded()[2:]
        tree = RawTreeWriter().sound("bed", val=("v", "w")).picture("bed", "a", huge)
        raw = tree.annotation("bed", "a", *(an_object() for _ in range(25))).folder(tmp_path / "raw")
        build(raw, tmp_path / "out", configs=["pose"], workers=1)
        assert [p for p in verify(tmp_path / "out", workers=1) if not p.is_note] == []
        path = str(tmp_path / "out/pose/train-00000-of-00001-known.parquet")
        rows = datasets.load_dataset("parquet", data_files=path, split="train", streaming=True)
        assert [row["object_index"] for row in rows.select_columns(["object_index"])] == list(range(25))

    def test_a_config_without_rows_is_left_out_and_told(self, tmp_path: Path) -> None:
        """Captions are given and fit no picture; no object was placed in depth, so none has a crop."""
        tree = RawTreeWriter().sound("bed", ("a", "b"), ("v", "w")).captions({"bed/elsewhere": "a bed"})
        for stem in "abvw":
            tree.annotation("bed", stem, an_object(distance=0.0))
        report = build(tree.folder(tmp_path / "raw"), tmp_path / "out", workers=1)
        assert NO_CAPTIONS in report.notes
        assert any("object_centric has no row" in note for note in report.notes)
        manifest = read_manifest(tmp_path / "out")
        written = (tmp_path / "out/README.md").read_text("utf-8")
        for config in ("captions", "object_centric"):
            assert manifest.paths_of(config) == []
            assert f"config_name: {config}" not in written
        assert "card" not in {problem.code for problem in verify(tmp_path / "out", workers=1)}


class TestRun:
    def test_a_marker_is_of_one_key(self, tmp_path: Path) -> None:
        Run(tmp_path, "a").finish(ShardResult("train-1", "train", True))
        assert Run(tmp_path, "a").finished("train-1") == ShardResult("train-1", "train", True)
        assert Run(tmp_path, "b").finished("train-1") is None
        assert Run(tmp_path, "a").finished("train-2") is None


class TestWork:
    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to cores")
    def test_workers_are_as_many_as_the_cores_that_may_be_used(self) -> None:
        code = (
            "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
            "from processing.runtime.tasks import cores; print(cores())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
        assert done.stdout == "1\n"

    def test_each_thing_is_counted_as_what_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bars: list[tuple[str, int]] = []

        class Bar(tasks.tqdm):
            def __init__(self, **options: Any) -> None:
                super().__init__(**options)
                bars.append((options["unit"], options["total"]))

        monkeypatch.setattr(tasks, "tqdm", Bar)
        todo = [
            tasks.Task(int, (), 3, "a", "meshes"),
            tasks.Task(int, (), 4, "b"),
            tasks.Task(int, (), 5, "c"),
        ]
        assert list(tasks.run(todo, 1, "build")) == [0, 0, 0]
        assert bars == [(" meshes", 3), (" pictures", 9)]

    def test_a_worker_that_cannot_begin_says_why(self, tmp_path: Path) -> None:
        """And not that memory is wanting: here the script cannot be imported a second time."""
        (tmp_path / "script.py").write_text(
            "import os, sys\n"
            "if __name__ != '__main__': raise ImportError('not here')\n"
            "from processing.runtime.tasks import Task, run\n"
            "list(run([Task(len, ('a',), 1, '')] * 4, 2, 'test'))\n"
        )
        done = subprocess.run(
            [sys.executable, tmp_path / "script.py"],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "ImportError: not here" in done.stderr
        assert "a worker could not work: its own message is above" in done.stderr
        assert "memory" not in done.stderr

    def test_workers_have_the_path_and_the_environment_of_the_moment(self, tmp_path: Path) -> None:
        """Whatever the current folder holds, and however long the process they are forked from is there."""
        here, script = tmp_path / "here", tmp_path / "script.py"
        here.mkdir()
        (here / "colorsys.py").write_text("raise SystemExit('of the current folder')")
        script.write_text(
            "import colorsys, os\n"
            "from processing.runtime.tasks import Task, run\n"
            "if __name__ == '__main__':\n"
            "    for word in ('first', 'second'):\n"
            "        os.environ['A_WORD'] = word\n"
            "        tasks = [Task(os.getenv, (name,), 1, '') for name in ('A_WORD', 'PYTHONSAFEPATH')]\n"
            "        print(*run([*tasks, Task(colorsys.rgb_to_yiq, (0, 0, 0), 1, '')], 2, 'test'))\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        environment.pop("PYTHONSAFEPATH", None)
        done = subprocess.run(
            [sys.executable, script], env=environment, cwd=here, capture_output=True, text=True, timeout=60
        )
        assert done.stdout == "".join(f"{word} None (0.0, 0.0, 0.0)\n" for word in ("first", "second"))
        assert done.stderr == ""

    def test_what_is_done_meanwhile_is_not_interrupted(self) -> None:
        done = []

        def meanwhile() -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            done.append("whole")

        todo = [tasks.Task(time.sleep, (0.01,), 1, "a")] * 2
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # also where it is ignored
        try:
            with pytest.raises(KeyboardInterrupt):
                list(tasks.run(todo, 2, "test", meanwhile=meanwhile))
        finally:
            signal.signal(signal.SIGINT, before)
        assert done == ["whole"]

    def test_too_little_memory_is_told_in_a_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def hungry(*_: object, **__: object) -> None:
            raise MemoryError("malloc of size 65536 failed")

        monkeypatch.setattr("processing.build.command.build", hungry)
        result = CliRunner().invoke(main, ["build", "raw", "out"])
        assert result.exit_code == 1
        assert result.output.count("\n") == 1
        assert "not enough memory (malloc of size 65536 failed)" in result.output
