"""Files appear whole or not at all, on a disk and on an S3 server; whatever fails is named."""

import gc
import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from support import PROJECT
from support.object_store import ObjectStore, quickly_given_up

from processing.__main__ import main
from processing.runtime import store
from processing.runtime.paths import PlaceError, StoreError, StorePath, place

pytestmark = pytest.mark.slow

NAMES = ("plain.txt", "deep/er/file.bin", "with space", "star*.txt", "br[a]cket", "quest?ion", "ümlaut")
LARGE = os.urandom(20 * 2**20 + 1)


@pytest.fixture(params=["local", "s3", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> store.Place:
    """An empty folder of each kind; memory stands for all file systems that make no promise of their own."""
    if request.param == "local":
        return place(tmp_path / "out")
    if request.param == "memory":
        return place(f"memory://{tmp_path.name}-{uuid.uuid4().hex}/out")
    return place(f"s3://{request.getfixturevalue('bucket')}/out")


def begun(path: store.Place, data: bytes) -> store.NewFile:
    """A file that is written, a megabyte at a time, and has no name yet."""
    file = store.NewFile(path)
    try:
        for start in range(0, len(data), 2**20):
            file.write(data[start : start + 2**20])
    except BaseException:
        file.discard()
        raise
    return file


class TestWriting:
    @pytest.mark.parametrize("data", [b"", b"x", LARGE], ids=["empty", "small", "large"])
    def test_a_file_has_its_name_when_it_is_whole(self, folder: store.Place, data: bytes) -> None:
        file = begun(folder / "a/file", data)
        assert "a/file" not in store.files_below(folder)
        state = file.commit()
        file.discard()  # too late to do anything
        assert store.digest(folder / "a/file") == (len(data), hashlib.sha256(data).hexdigest())
        assert (file.size, file.sha256) == store.digest(folder / "a/file")
        assert state == store.state_of(folder / "a/file")
        assert [name for name in store.files_below(folder) if name != "a/file"] == []

    @pytest.mark.parametrize("size", [1, len(LARGE)])
    def test_what_is_thrown_away_leaves_nothing(self, folder: store.Place, size: int) -> None:
        file = store.NewFile(folder / "a/file")
        file.write(LARGE[:size])
        file.discard()
        del file
        gc.collect()
        assert store.files_below(folder) == {}

    def test_the_old_file_stays_until_the_new_one_is_whole(self, folder: store.Place) -> None:
        store.write_whole(folder / "file", b"old")
        file = store.NewFile(folder / "file")
        file.write(LARGE)
        assert (folder / "file").read_bytes() == b"old"
        file.commit()
        assert (folder / "file").read_bytes() == LARGE

    def test_write_whole(self, folder: store.Place) -> None:
        for name in NAMES:
            store.write_whole(folder / name, name.encode())
        assert {name: (folder / name).read_text("utf-8") for name in NAMES} == {name: name for name in NAMES}

    def test_a_name_may_be_as_long_as_the_disk_allows(self, tmp_path: Path) -> None:
        path = tmp_path / ("n" * 255)
        file = begun(path, b"x")
        (aside,) = tmp_path.iterdir()
        assert aside.name.startswith(".")
        assert aside.name.endswith(store.UNFINISHED)  # a build finds and removes it
        file.commit()
        assert list(tmp_path.iterdir()) == [path]


class TestUploads:
    @pytest.fixture(autouse=True)
    def scratch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Where files are written before they are sent."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        return tmp_path

    def test_nothing_is_sent_before_it_is_whole(self, s3: ObjectStore, bucket: str, scratch: Path) -> None:
        file = begun(place(f"s3://{bucket}/file"), LARGE)
        assert not s3.requests
        assert [path.stat().st_size for path in scratch.iterdir()]
        file.commit()
        assert len(s3.seen("PUT")) == 1
        assert list(scratch.iterdir()) == []

    def test_what_is_thrown_away_takes_no_room(self, s3: ObjectStore, bucket: str, scratch: Path) -> None:
        begun(place(f"s3://{bucket}/file"), LARGE).discard()
        assert not s3.requests
        assert list(scratch.iterdir()) == []

    @pytest.mark.parametrize("kind", ["slow down", "reset"])
    def test_a_failure_for_a_while_is_borne(self, s3: ObjectStore, bucket: str, kind: str) -> None:
        s3.fail(kind, times=2, method="PUT", key="file")
        begun(place(f"s3://{bucket}/file"), LARGE).commit()
        assert s3.fs.cat_file(f"{bucket}/file") == LARGE
        assert s3.faults[0].times == 0

    def test_a_failure_for_good_is_told_plainly(
        self, s3: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        s3.fail(times=None, method="PUT", key="file")
        file = begun(place(f"s3://{bucket}/file"), LARGE)
        with quickly_given_up(monkeypatch), pytest.raises(StoreError) as caught:
            file.commit()
        file.discard()
        assert str(caught.value).startswith(f"s3://{bucket}/file: ")
        assert "reduce your request rate" in str(caught.value)
        assert "run the same command again" in str(caught.value)
        assert s3.fs.find(bucket) == []


class TestListing:
    def test_files_below(self, folder: store.Place) -> None:
        assert store.files_below(folder) == {}
        for name in NAMES:
            store.write_whole(folder / name, name.encode())
        found = store.files_below(folder)
        assert {name: state.size for name, state in found.items()} == {n: len(n.encode()) for n in NAMES}
        assert {name: store.state_of(folder / name) for name in NAMES} == found
        assert store.state_of(folder / "absent") is None

    def test_names_in(self, folder: store.Place) -> None:
        assert store.names_in(folder) == []
        for name in NAMES:
            store.write_whole(folder / name, b"x")
        assert store.names_in(folder) == sorted(name.partition("/")[0] for name in NAMES)

    def test_one_request_for_a_thousand_files(self, s3: ObjectStore, bucket: str) -> None:
        s3.fs.pipe({f"{bucket}/out/{i // 10}/{i}": b"x" for i in range(100)})
        s3.requests.clear()
        assert len(store.files_below(place(f"s3://{bucket}/out"))) == 100
        assert len(s3.requests) == 1

    def test_the_tag_tells_contents_apart(self, bucket: str) -> None:
        path = place(f"s3://{bucket}/file")
        tags = []
        for data in (b"one", b"two", b"one"):
            store.write_whole(path, data)
            tags.append(store.state_of(path).tag)
        assert tags[0] == tags[2] != tags[1]
        assert all(tags)

    def test_a_listing_is_never_an_old_one(self, s3: ObjectStore, bucket: str) -> None:
        folder = place(f"s3://{bucket}/out")
        store.write_whole(folder / "a", b"x")
        assert list(store.files_below(folder)) == ["a"]
        s3.fs.pipe_file(f"{bucket}/out/b", b"yy")  # as another process would
        assert list(store.files_below(folder)) == ["a", "b"]
        assert (folder / "b").is_file()


class TestReading:
    def test_read_all(self, folder: store.Place) -> None:
        for name in NAMES:
            store.write_whole(folder / name, name.encode())
        assert store.read_all(folder, NAMES) == [name.encode() for name in NAMES]
        assert store.read_all(folder, []) == []

    def test_missing(self, folder: store.Place) -> None:
        assert store.digest(folder / "absent") is None
        assert not (folder / "absent").is_file()
        with pytest.raises(FileNotFoundError):
            (folder / "absent").read_bytes()
        with pytest.raises(FileNotFoundError):
            store.read_all(folder, ["absent"])

    def test_columns_are_read_by_ranges(self, s3: ObjectStore, bucket: str, tmp_path: Path) -> None:
        table = pa.table({"small": range(1000), "large": [os.urandom(2000) for _ in range(1000)]})
        pq.write_table(table, tmp_path / "file", compression="NONE", use_dictionary=False)
        s3.fs.put_file(str(tmp_path / "file"), f"{bucket}/file")
        s3.requests.clear()
        with store.opened(place(f"s3://{bucket}/file")) as source:
            assert pq.read_table(source, columns=["small"], partitioning=None) == table.select(["small"])
        assert sum(request.sent for request in s3.requests) < 100_000
        with store.opened(tmp_path / "file") as source:
            assert source == str(tmp_path / "file")

    def test_copies_on_this_machine(self, folder: store.Place) -> None:
        for name in NAMES:
            store.write_whole(folder / name, name.encode())
        with store.on_this_machine(folder, [*NAMES, "absent"]) as copy:
            assert {name: (copy / name).read_text("utf-8") for name in NAMES} == {
                name: name for name in NAMES
            }
            assert not (copy / "absent").exists()
        assert copy.exists() is (copy == folder)

    @pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../escaped", "a\\b"])
    def test_no_name_leads_out_of_the_copies(self, name: str) -> None:
        with (
            pytest.raises(StoreError, match="no file in it"),
            store.on_this_machine(place("s3://bucket/x"), [name]),
        ):
            pass


class TestRemoving:
    def test_a_tree(self, folder: store.Place) -> None:
        for name in NAMES:
            store.write_whole(folder / "tree" / name, b"x")
        others = ["tree-beside", "star-but-no-pattern.txt", "treat"]
        for name in others:
            store.write_whole(folder / name, b"x")
        store.remove_tree(folder / "tree")
        store.remove_tree(folder / "tree")
        assert sorted(store.files_below(folder)) == sorted(others)

    def test_a_name_is_no_pattern(self, folder: store.Place) -> None:
        for name in ("tree/star*", "starfish", "tree/starfish"):
            store.write_whole(folder / name, b"x")
        store.remove(folder, ["tree/star*", "absent"])
        assert sorted(store.files_below(folder)) == ["starfish", "tree/starfish"]

    def test_a_thousand_files_at_a_time(self, s3: ObjectStore, bucket: str) -> None:
        s3.fs.pipe({f"{bucket}/out/{i}": b"x" for i in range(100)})
        s3.requests.clear()
        store.remove_tree(place(f"s3://{bucket}/out"))
        assert len(s3.requests) == 2  # a listing and a removal
        assert s3.fs.find(bucket) == []


class TestPlaces:
    def test_paths_of_this_machine(self, tmp_path: Path) -> None:
        assert place("a/b").absolute() == Path("a/b").absolute()
        assert place(tmp_path) == tmp_path
        assert place(f"file://{tmp_path}/a b") == tmp_path / "a b"

    def test_urls(self) -> None:
        path = place("s3://bucket/a/b/")
        assert path == StorePath("s3://bucket/a/b")
        assert place(path) is path
        assert str(path / "c") == "s3://bucket/a/b/c"
        assert (path / "c").name == "c"
        assert (path / "c").location == "bucket/a/b/c"

    def test_files_that_come_and_go_are_no_error(self, tmp_path: Path) -> None:
        """As those of a build at work, of which another one hears only when it asks for the lock."""
        (tmp_path / "stays").write_bytes(b"x")
        end = threading.Event()

        def come_and_go() -> None:
            while not end.is_set():
                for number in range(50):
                    (tmp_path / f"{number}.unfinished").touch()
                for number in range(50):
                    (tmp_path / f"{number}.unfinished").unlink()

        with ThreadPoolExecutor(1) as pool:
            churn = pool.submit(come_and_go)
            try:
                listed = [store.files_below(place(tmp_path)) for _ in range(200)]
            finally:
                end.set()
            churn.result()
        assert all(files["stays"].size == 1 for files in listed)

    def test_can_be_sent_to_another_process(self, s3: ObjectStore, bucket: str) -> None:
        path = place(f"s3://{bucket}/file")
        store.write_whole(path, b"content")
        code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).read_text())"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, input=pickle.dumps(path), capture_output=True, check=True, cwd=PROJECT)
        assert done.stdout.strip() == b"content"

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("hf://datasets/ccvl/ImageNet3D", "`publish`"),
            ("memory://out", None),
            ("ftp://host/out", None),
            ("nothing://out", "Protocol not known"),
            ("zip://out::file.zip", "name the folder itself"),
            ("simplecache::s3://bucket/out", "name the folder itself"),
            ("s3://", "name a folder"),
            ("s3://bucket", None),
            ("abfs://container/out", "not installed"),
            ("s3://bucket/out?versionId=abc", "plainly"),  # s3fs would take every file of it for that one
            ("s3://bucket/out#part", "plainly"),
            ("s3://bucket/a/../out", "plainly"),
            ("s3://bucket/./out", "plainly"),
            ("s3://bucket/..", "plainly"),
            ("s3://bucket/a//out", "plainly"),
            ("s3://bucket/v1.0/..out/", None),
        ],
    )
    def test_where_nothing_can_be_built(self, url: str, message: str | None) -> None:
        if message is None:
            assert place(url) == StorePath(url.rstrip("/"))
            return
        with pytest.raises(PlaceError, match=message) as caught:
            place(url)
        assert str(caught.value).startswith(url)
        assert "\n" not in str(caught.value)

    def test_the_missing_package_is_named(self) -> None:
        code = """if True:
            import sys
            sys.modules["s3fs"] = None
            from click.testing import CliRunner
            from processing.__main__ import main
            for line in (["build", "raw", "s3://bucket/out"], ["verify", "s3://bucket/out"]):
                done = CliRunner().invoke(main, line)
                assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done
                assert 'pip install -e ".[s3]" in a clone' in done.stderr, done.stderr
        """
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
        assert done.returncode == 0, done.stderr

    def test_publish_wants_a_folder_of_this_machine(self) -> None:
        done = CliRunner().invoke(main, ["publish", "s3://bucket/out", "--repo", "a/b"])
        assert done.exit_code == 2
        assert "copy it here first" in done.stderr


class TestErrors:
    def test_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        """Nobody is asked: fsspec knows that it cannot."""
        with pytest.raises(StoreError, match=r"^http://127\.0\.0\.1:9/out/x: .*; ") as caught:
            store.write_whole(place("http://127.0.0.1:9/out/x"), b"x")
        assert "\n" not in str(caught.value)

    def test_no_credentials_and_no_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with quickly_given_up(monkeypatch), pytest.raises(StoreError) as caught:
            store.files_below(place("s3://bucket/out"))
        assert str(caught.value).startswith("s3://bucket/out: ")
        assert "\n" not in str(caught.value)

    def test_no_such_bucket(self, bucket: str) -> None:
        path = place(f"s3://{bucket}-absent/file")
        with pytest.raises((StoreError, FileNotFoundError)) as caught:
            store.write_whole(path, b"x")
        assert str(path) in str(caught.value)
