"""Raw releases and built folders on an S3 server that throttles, stalls and breaks off."""

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support import PROJECT
from support.folders import files_of, files_on
from support.hub import serve
from support.load_rows import rows_of
from support.object_store import ObjectStore, quickly_given_up
from support.processes import wait_for
from support.raw_tree import TOP, RawTreeWriter, an_object

import ImageNet3D as release
from ImageNet3D import (
    Finding,
    ImageNet3D,
    Picture,
    RawTree,
    ReleaseError,
    UnansweredError,
    read_pictures,
    survey,
)
from processing.__main__ import main
from processing.build import command as building
from processing.build.command import build
from processing.crop.command import write_crop_tree
from processing.crop.place import CropOptions
from processing.evaluate.truth import read_truth
from processing.preview.command import write_preview
from processing.run import BuildError
from processing.runtime.paths import PlaceError, StoreError
from processing.verify.command import verify

pytestmark = pytest.mark.slow

SIZE = "100KB"
TABLES = {"configs": ["classification", "object_centric"], "shard_size": SIZE}  # what does not draw figures
KINDS = ["raw.zip", "tree"]
WAYS = [("raw.zip", "slow down"), ("raw.zip", "cut"), ("tree", "reset"), ("tree", "cut")]
CROPS = CropOptions("center", (64, 64))


def noise(seed: int) -> bytes:
    """A picture of some 20 KB that is like no other."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return stream.getvalue()


@pytest.fixture(scope="module")
def tree() -> RawTreeWriter:
    """Sound pictures of four categories, and a few odd ones."""
    writer = RawTreeWriter()
    for place, category in enumerate(("bed", "ax", "kettle", "chair")):
        stems = [f"n{i:02d}" for i in range(12)]
        writer.sound(category, tuple(stems[:8]), tuple(stems[8:]))
        for i, stem in enumerate(stems):
            writer.picture(category, stem, noise(100 * place + i))
            if i % 5:
                writer.annotation(category, stem, an_object(category, object_status=...))
    writer.picture("bed", "n03", b"").picture("bed", "n04", b"no picture")
    writer.files["annotations/ax/n05.npz"] = b""
    del writer.files["images/ax/n06.JPEG"], writer.files["annotations/ax/n07.npz"]
    return writer.captions({f"bed/n{i:02d}": f"bed {i}" for i in range(0, 12, 2)})


@pytest.fixture(scope="module")
def local(tree: RawTreeWriter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this machine with both kinds of release, and what is built and cropped of them."""
    folder = tmp_path_factory.mktemp("local")
    tree.zip(folder / "raw.zip")
    tree.folder(folder / "tree")
    build(str(folder / "raw.zip"), folder / "all", workers=1, shard_size=SIZE)
    build(str(folder / "raw.zip"), folder / "out", workers=1, **TABLES)
    write_crop_tree(str(folder / "raw.zip"), folder / "crops", CROPS, workers=1)
    return folder


@pytest.fixture(scope="module")
def raw_bucket(s3: ObjectStore, tree: RawTreeWriter, local: Path) -> str:
    """A bucket with both kinds of release, which no test changes."""
    bucket = s3.bucket()
    s3.fs.put_file(str(local / "raw.zip"), f"{bucket}/raw.zip")
    s3.fs.pipe({f"{bucket}/tree/{TOP}{name}": data for name, data in tree.files.items()})
    return bucket


@pytest.fixture
def raw(raw_bucket: str, bucket: str) -> str:
    """The zip; nothing was counted yet and nothing fails."""
    return f"s3://{raw_bucket}/raw.zip"


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Failures for good are given up after two seconds, and not after half a minute."""
    with quickly_given_up(monkeypatch):
        yield


def read(path: str) -> tuple[list[Picture], list[Finding]]:
    """All pictures that can be read, and all findings."""
    found = survey(RawTree(path))
    findings = [*found.findings, *(Finding(entry.reason, entry.picture_file) for entry in found.left_out)]
    pictures: list[Picture] = []
    for entries in found.entries.values():
        near = found.release.fetched(entries)
        pictures += read_pictures(near, "classification", entries, findings)
    return pictures, findings


class TestReading:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_same_as_on_this_machine(self, kind: str, raw_bucket: str, local: Path) -> None:
        pictures, findings = read(f"s3://{raw_bucket}/{kind}")
        assert (pictures, findings) == read(str(local / kind))
        assert {f.reason for f in findings} > {"picture_empty", "picture_missing", "annotation_missing"}

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_request_a_file_and_no_byte_too_many(
        self, kind: str, s3: ObjectStore, raw_bucket: str, bucket: str, tree: RawTreeWriter
    ) -> None:
        found = survey(RawTree(f"s3://{raw_bucket}/{kind}"))
        entries = [e for split in found.entries.values() for e in split if e.size]
        s3.requests.clear()
        pictures = list(read_pictures(found.release.fetched(entries), "classification", entries, []))
        assert len(pictures) > 40
        files = [
            name for e in entries for name in (e.picture_file, e.annotation_file) if tree.files.get(name)
        ]
        needed = sum(
            _packed(tree.files[name]) if kind == "raw.zip" else len(tree.files[name]) for name in files
        )
        assert len(s3.requests) <= len(files) + 6  # of files that are empty or missing
        assert sum(request.sent for request in s3.requests) < 1.1 * needed

    def test_listing_takes_no_request_a_file(self, s3: ObjectStore, raw_bucket: str, bucket: str) -> None:
        tree = RawTree(f"s3://{raw_bucket}/tree")
        s3.requests.clear()
        assert len(tree.listing().sizes) > 90
        assert len(s3.requests) <= 2 * len(release.TREE_FOLDERS)

    def test_opening_a_zip_takes_few_requests(self, s3: ObjectStore, raw: str) -> None:
        survey(RawTree(raw))
        assert len(s3.seen("GET", "raw.zip")) <= 6
        assert len(s3.seen("HEAD")) <= 2

    @pytest.mark.parametrize("kind", KINDS)
    def test_waiting_is_done_side_by_side(
        self, kind: str, s3: ObjectStore, raw_bucket: str, bucket: str
    ) -> None:
        found = survey(RawTree(f"s3://{raw_bucket}/{kind}"))
        entries = sorted(found.entries["train"], key=lambda entry: entry.image_id)[::3]  # no neighbours
        s3.gather(8)
        list(read_pictures(found.release.fetched(entries), "classification", entries, []))
        assert s3.most_waiting >= 8

    def test_the_next_group_is_fetched_meanwhile_and_no_other(
        self, s3: ObjectStore, raw_bucket: str, bucket: str, tree: RawTreeWriter
    ) -> None:
        found = survey(RawTree(f"s3://{raw_bucket}/tree"))
        files = {e: (e.picture_file, e.annotation_file) for e in found.entries["train"]}
        entries = [entry for entry, names in files.items() if all(map(tree.files.get, names))]
        groups = [entries[start : start + 5] for start in range(0, 20, 5)]
        s3.requests.clear()
        for number, (near, group) in enumerate(found.release.fetched_ahead(groups)):
            assert group == groups[number]
            wanted = {name for group in groups[: number + 2] for entry in group for name in files[entry]}
            wait_for(lambda wanted=wanted: wanted <= _asked_for(s3))
            assert _asked_for(s3) == wanted
            before = len(s3.requests)
            assert list(read_pictures(near, "classification", group, []))
            assert len(s3.requests) == before
        assert number == 3

    def test_fetching_ahead_of_nothing(self, raw_bucket: str) -> None:
        found = survey(RawTree(f"s3://{raw_bucket}/tree"))
        assert list(found.release.fetched_ahead([])) == []

    @pytest.mark.parametrize(("kind", "fault"), WAYS)
    def test_a_failure_for_a_while_is_borne(
        self, kind: str, fault: str, s3: ObjectStore, raw_bucket: str, bucket: str, local: Path
    ) -> None:
        found = survey(RawTree(f"s3://{raw_bucket}/{kind}"))
        s3.fail(fault, times=6, method="GET", key=rf"{kind}.*\?$", after=1)
        entries = found.entries["train"]
        findings: list[Finding] = []
        pictures = list(read_pictures(found.release.fetched(entries), "classification", entries, findings))
        assert s3.faults[0].times == 0
        expected = survey(RawTree(str(local / kind)))
        again: list[Finding] = []
        assert pictures == list(read_pictures(expected.release, "classification", entries, again))
        assert findings == again

    @pytest.mark.parametrize(("kind", "fault"), WAYS)
    def test_a_failure_for_good_is_no_finding(
        self, kind: str, fault: str, s3: ObjectStore, raw_bucket: str, no_patience: None
    ) -> None:
        s3.bucket()
        found = survey(RawTree(f"s3://{raw_bucket}/{kind}"))
        entries = [e for e in found.entries["train"] if e.size][:1]
        s3.fail(fault, times=None, method="GET", key=kind)
        findings: list[Finding] = []
        with pytest.raises(UnansweredError) as caught:
            list(read_pictures(found.release.fetched(entries), "classification", entries, findings))
        assert findings == []
        assert str(caught.value).startswith(
            f"s3://{raw_bucket}/{kind}: annotations/{entries[0].image_id}.npz: "
        )
        assert "run the same command again" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_what_cannot_be_opened_is_told_plainly(
        self, raw_bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ReleaseError, match=r"absent: no such folder or zip"):
            RawTree(f"s3://{raw_bucket}/absent")
        with pytest.raises(ReleaseError, match="adlfs"):
            RawTree("abfs://container/raw.zip")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with (
            quickly_given_up(monkeypatch),
            pytest.raises(ReleaseError, match="heck the address, the connection and the cred"),
        ):
            RawTree(f"s3://{raw_bucket}/raw.zip")

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_change_shows_in_the_fingerprint(
        self, kind: str, s3: ObjectStore, bucket: str, tree: RawTreeWriter, tmp_path: Path
    ) -> None:
        changed = RawTreeWriter()
        changed.files = {**tree.files, "images/bed/n00.JPEG": tree.files["images/bed/n01.JPEG"]}
        prints = []
        for number, version in enumerate((tree, tree, changed)):
            if kind == "raw.zip":
                s3.fs.put_file(version.zip(tmp_path / "raw.zip"), f"{bucket}/raw.zip")
            elif number != 1:
                s3.fs.pipe({f"{bucket}/tree/{name}": data for name, data in version.files.items()})
            prints.append(RawTree(f"s3://{bucket}/{kind}").listing().fingerprint)
        assert prints[0] == prints[1] != prints[2]

    def test_captions_beside_the_zip(self, s3: ObjectStore, bucket: str, tmp_path: Path) -> None:
        s3.fs.put_file(RawTreeWriter().sound("bed").zip(tmp_path / "raw.zip"), f"{bucket}/raw.zip")
        s3.fs.pipe_file(f"{bucket}/captions/image_captions.json", b'{"bed/a": "a bed"}')
        assert survey(RawTree(f"s3://{bucket}/raw.zip")).entries["train"][0].caption == "a bed"

    @pytest.mark.parametrize("given", [True, False])
    def test_captions_that_a_store_does_not_give_are_not_taken_for_missing(
        self, given: bool, s3: ObjectStore, bucket: str, tmp_path: Path, no_patience: None
    ) -> None:
        s3.fs.put_file(RawTreeWriter().sound("bed").zip(tmp_path / "raw.zip"), f"{bucket}/raw.zip")
        s3.fs.pipe_file(f"{bucket}/captions/image_captions.json", b'{"bed/a": "a bed"}')
        s3.fail(times=None, method="GET", key=r"captions")
        folder = f"s3://{bucket}/captions" if given else None
        with pytest.raises(UnansweredError, match=r"/captions(/image_captions\.json)?: "):
            survey(RawTree(f"s3://{bucket}/raw.zip"), folder)

    def test_beside_the_zip_of_a_web_server_nothing_is_looked_for(self, tmp_path: Path) -> None:
        """What stands behind the name, as a signature with a slash, would be taken for a folder."""
        writer = RawTreeWriter().sound("bed")
        writer.picture("bed", "a", noise(0) + bytes(500_000))
        writer.zip(tmp_path / "raw.zip")
        with serve(tmp_path) as hub:
            url = f"{hub.endpoint}/datasets/{release.REPOSITORY}/resolve/main/raw.zip?sig=a/b"
            assert not survey(RawTree(url)).has_captions
            assert sum(request.sent for request in hub.requests if request.method == "GET") < 300_000


def _packed(data: bytes) -> int:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", data)
        return archive.getinfo("x").compress_size


class TestBuilder:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_prepared_and_streamed(self, raw: str, local: Path, tmp_path: Path, workers: int) -> None:
        """With two workers in forks of a process that has talked to the server before."""
        builder = ImageNet3D(config_name="pose", data_dir=raw, cache_dir=str(tmp_path / "cache"))
        builder.download_and_prepare(num_proc=workers)
        expected = ImageNet3D(data_dir=str(local / "raw.zip"), cache_dir=str(tmp_path / "local"))
        expected.download_and_prepare()
        rows = rows_of(expected.as_dataset(split="train"))
        assert rows_of(builder.as_dataset(split="train")) == rows
        if workers == 1:
            assert rows_of(builder.as_streaming_dataset(split="train")) == rows

    def test_streams_in_a_fork(self, raw: str, tmp_path: Path) -> None:
        """As a DataLoader's worker does."""
        builder = ImageNet3D(config_name="pose", data_dir=raw, cache_dir=str(tmp_path / "cache"))
        stream = builder.as_streaming_dataset(split="validation")
        first = next(iter(stream))["image_id"]
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        child = context.Process(target=lambda: theirs.send(next(iter(stream))["image_id"]))
        child.start()
        assert ours.poll(60)
        assert ours.recv() == first
        child.join()


class TestBuild:
    def test_the_same_bytes_as_on_this_machine(
        self, s3: ObjectStore, raw: str, bucket: str, local: Path
    ) -> None:
        """Of every config; by workers that are processes of their own."""
        report = build(raw, f"s3://{bucket}/out", workers=2, shard_size=SIZE)
        expected = files_of(local / "all")
        assert files_on(s3, f"{bucket}/out") == expected
        assert len([name for name in expected if name.startswith("pose/")]) > 4
        ledger = s3.fs.cat_file(f"{bucket}/out/.build/ledger.jsonl")
        assert ledger == (local / "all/.build/ledger.jsonl").read_bytes()
        assert report.findings

    def test_from_an_unpacked_release_to_this_machine(
        self, raw_bucket: str, bucket: str, local: Path, tmp_path: Path
    ) -> None:
        build(f"s3://{raw_bucket}/tree", tmp_path / "out", workers=1, **TABLES)
        assert files_of(tmp_path / "out") == files_of(local / "out")

    def test_the_command(self, s3: ObjectStore, raw: str, bucket: str, local: Path) -> None:
        out = f"s3://{bucket}/out"
        done = CliRunner().invoke(main, [*arguments(raw, bucket), "--workers", "1"])
        assert done.exit_code == 0, done.output
        assert files_on(s3, f"{bucket}/out") == files_of(local / "out")
        done = CliRunner().invoke(main, ["verify", out, "--raw", raw, "--workers", "1"])
        assert done.exit_code == 0, done.output
        assert f"{out}: all is as it was built" in done.stdout

    def test_finished_shards_are_not_sent_or_read_again(
        self, s3: ObjectStore, raw: str, bucket: str, local: Path, no_patience: None
    ) -> None:
        out = f"s3://{bucket}/out"
        fault = s3.fail(times=None, method="PUT", key=r"out/(?!\.build).*parquet", after=8)
        with pytest.raises(StoreError) as caught:
            build(raw, out, workers=1, **TABLES)
        assert str(caught.value).startswith(f"{out}/")
        assert ".parquet: " in str(caught.value)
        begun = files_on(s3, f"{bucket}/out")
        assert len(begun) >= 8
        assert begun.items() < files_of(local / "out").items()
        done = [Path(name).stem for name in s3.fs.find(f"{bucket}/out/.build/done")]
        fault.times = 0
        s3.requests.clear()
        build(raw, out, workers=1, **TABLES)
        assert len(done) >= 4
        for shard in done:
            assert not s3.seen("PUT", f"/{shard}.parquet")
            assert not s3.seen("GET", f"object_centric/{shard}.parquet")  # the card's plots read others
        assert files_on(s3, f"{bucket}/out") == files_of(local / "out")

    def test_failures_for_a_while_are_borne(
        self, s3: ObjectStore, raw: str, bucket: str, local: Path
    ) -> None:
        for method in ("GET", "PUT", "HEAD"):
            for fault in ("slow down", "reset"):
                s3.fail(fault, times=2, method=method, after=5)
        build(raw, f"s3://{bucket}/out", workers=1, **TABLES)
        assert [f.times for f in s3.faults] == [0] * 6
        assert files_on(s3, f"{bucket}/out") == files_of(local / "out")

    def test_killed(self, s3: ObjectStore, raw: str, bucket: str, local: Path) -> None:
        s3.latency = 0.02
        process = subprocess.Popen(
            [sys.executable, "-m", "processing", *arguments(raw, bucket), "--workers", "2"],
            cwd=PROJECT,
            start_new_session=True,
        )
        wait_for(lambda: len(s3.seen("PUT", "out/.build/done")) >= 3)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        expected = files_of(local / "out")
        begun = files_on(s3, f"{bucket}/out")
        assert begun.items() < expected.items()
        assert "README.md" not in begun
        s3.latency = 0
        build(raw, f"s3://{bucket}/out", workers=1, **TABLES)
        assert files_on(s3, f"{bucket}/out") == expected

    @pytest.mark.parametrize("seed", [0, 1])
    def test_another_build_in_the_same_folder_shows(
        self, seed: int, s3: ObjectStore, raw: str, bucket: str, local: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A store has no locks: whoever finishes sees that files are not its own any more.

        Twice the same build does no harm.
        """
        report_of, done = building.report_of, []

        def joined(*arguments: Any) -> Any:
            if not done:
                done.append(True)
                build(raw, f"s3://{bucket}/out", workers=1, seed=seed, **TABLES)
            return report_of(*arguments)

        monkeypatch.setattr(building, "report_of", joined)
        with pytest.raises(BuildError, match="another build") if seed else nullcontext():
            build(raw, f"s3://{bucket}/out", workers=1, **TABLES)
        if not seed:
            assert files_on(s3, f"{bucket}/out") == files_of(local / "out")

    def test_other_options_start_afresh(self, s3: ObjectStore, raw: str, bucket: str, tmp_path: Path) -> None:
        for size, out in ((SIZE, f"s3://{bucket}/out"), ("120KB", f"s3://{bucket}/out"), ("120KB", tmp_path)):
            build(raw, out, configs=["classification"], workers=1, shard_size=size)
        assert files_on(s3, f"{bucket}/out") == files_of(tmp_path)

    def test_foreign_files_stay(self, s3: ObjectStore, raw: str, bucket: str) -> None:
        s3.fs.pipe_file(f"{bucket}/out/thesis.tex", b"mine")
        with pytest.raises(BuildError, match=r"thesis\.tex"):
            build(raw, f"s3://{bucket}/out", workers=1, shard_size=SIZE)
        assert s3.fs.find(bucket) == [f"{bucket}/out/thesis.tex"]


def arguments(raw: str, bucket: str) -> list[str]:
    """A build of `TABLES` as a user types it."""
    configs = [f"--config={name}" for name in TABLES["configs"]]
    return ["build", raw, f"s3://{bucket}/out", *configs, "--shard-size", SIZE]


@pytest.fixture
def out(s3: ObjectStore, bucket: str, local: Path) -> str:
    """A folder on the server with all of the local build, and its books."""
    files = {path.relative_to(local / "all"): path for path in (local / "all").rglob("*") if path.is_file()}
    s3.fs.pipe({f"{bucket}/out/{name.as_posix()}": path.read_bytes() for name, path in files.items()})
    s3.requests.clear()
    return f"s3://{bucket}/out"


class TestVerify:
    def test_all_is_well_and_each_file_is_read_once(self, s3: ObjectStore, out: str, local: Path) -> None:
        assert verify(out, workers=1) == []
        read = [request.key for request in s3.seen("GET", r"parquet\?$")]
        assert sorted(read) == sorted(set(read))
        assert len(read) == len([name for name in files_of(local / "all") if name.endswith(".parquet")])

    def test_against_the_raw_release_with_workers(self, out: str, raw_bucket: str) -> None:
        assert verify(out, f"s3://{raw_bucket}/raw.zip", workers=2) == []

    def test_what_is_wrong_is_found(self, s3: ObjectStore, out: str, bucket: str) -> None:
        shards = sorted(s3.fs.find(f"{bucket}/out/pose"))
        data = bytearray(s3.fs.cat_file(shards[0]))
        data[len(data) // 2] ^= 1
        s3.fs.pipe_file(shards[0], bytes(data))
        s3.fs.rm_file(shards[1])
        s3.fs.pipe_file(f"{bucket}/out/ImageNet3D.py", b"")
        found = {(problem.file, problem.code) for problem in verify(out, workers=1)}
        first, second = (shard.removeprefix(f"{bucket}/out/") for shard in shards[:2])
        assert found >= {
            (first, "checksum_differs"),
            (second, "file_missing"),
            ("ImageNet3D.py", "file_unlisted"),
        }

    def test_a_failure_for_good_is_no_problem_of_the_data(
        self, s3: ObjectStore, out: str, no_patience: None
    ) -> None:
        s3.fail(times=None, method="GET", key=r"pose/.*parquet")
        with pytest.raises(StoreError, match=r"pose/.*parquet: "):
            verify(out, workers=1)

    def test_nothing_there(self, bucket: str) -> None:
        with pytest.raises(PlaceError, match="nothing is there"):
            verify(f"s3://{bucket}/out", workers=1)

    def test_unfinished(self, s3: ObjectStore, bucket: str) -> None:
        s3.fs.pipe_file(f"{bucket}/out/.build/run.json", b"{}")
        assert [p.code for p in verify(f"s3://{bucket}/out", workers=1)] == ["unfinished"]


def _asked_for(s3: ObjectStore) -> set[str]:
    """Pictures and annotations of the unpacked release that were asked for."""
    with s3.lock:
        return {request.key.partition(TOP)[2] for request in s3.seen("GET", r"/(images|annotations)/.*\?$")}


class TestCrop:
    def test_pictures_are_fetched_side_by_side(
        self, s3: ObjectStore, raw_bucket: str, bucket: str, local: Path, tmp_path: Path
    ) -> None:
        """One after the other, each would cost the latency of the store."""
        s3.gather(8, r"/images/.*JPEG")
        write_crop_tree(f"s3://{raw_bucket}/tree", tmp_path / "crops", CROPS, 1)
        assert s3.most_waiting >= 8
        assert files_of(tmp_path / "crops") == files_of(local / "crops")

    def test_the_same_bytes_as_on_this_machine(
        self, s3: ObjectStore, raw: str, bucket: str, local: Path
    ) -> None:
        """And a file that is lost is written again."""
        report = write_crop_tree(raw, f"s3://{bucket}/crops", CROPS, 2)
        expected = files_of(local / "crops")
        assert files_on(s3, f"{bucket}/crops") == expected
        assert len(expected) > 20
        s3.requests.clear()
        assert str(write_crop_tree(raw, f"s3://{bucket}/crops", CROPS, 1)) == str(report)
        assert [request.key for request in s3.seen("PUT", r"JPEG|npz|mesh")] == []
        of_crops = [r for method in ("GET", "HEAD") for r in s3.seen(method, r"/crops/.*(JPEG|npz)\?")]
        assert of_crops == []  # that they are whole is known by listing them
        s3.fs.rm_file(next(name for name in s3.fs.find(bucket) if name.endswith(".JPEG")))
        write_crop_tree(raw, f"s3://{bucket}/crops", CROPS, 1)
        assert files_on(s3, f"{bucket}/crops") == expected

    def test_goes_on_after_a_failure(
        self, s3: ObjectStore, raw: str, bucket: str, local: Path, no_patience: None
    ) -> None:
        fault = s3.fail(times=None, method="PUT", key="JPEG", after=9)
        with pytest.raises(StoreError, match="run the same command again"):
            write_crop_tree(raw, f"s3://{bucket}/crops", CROPS, 1)
        fault.times = 0
        marked = [Path(name).stem for name in s3.fs.find(f"{bucket}/crops/.crop/done")]
        lists = [name.split("/")[-2] for name in s3.fs.find(bucket) if name.endswith("mesh01.txt")]
        assert len(lists) <= len(marked) < 8
        write_crop_tree(raw, f"s3://{bucket}/crops", CROPS, 1)
        assert files_on(s3, f"{bucket}/crops") == files_of(local / "crops")


class TestUse:
    CODE = """
import sys
there, here, tests, cache = sys.argv[1:]
sys.path.insert(0, tests)
import datasets
from support.load_rows import rows_of
datasets.disable_progress_bars()
found = []
ways = [(here, True), (there, True), (there, False)]
for number, (place, streaming) in enumerate(ways if int(datasets.__version__[0]) > 3 else ways[:2]):
    files = {split: f"{place}/pose/{split}-*.parquet" for split in ("train", "validation")}
    options = {"data_files": files, "streaming": streaming, "cache_dir": f"{cache}/{number}"}
    loaded = datasets.load_dataset("parquet", **options)
    found.append({split: rows_of(rows) for split, rows in loaded.items()})
assert found[0] == found[1] == found[-1]
assert len(found[0]["train"]) > 20
print("the same")
"""

    @pytest.mark.parametrize("version", ["newest", "3.6"])
    def test_load_dataset(
        self, version: str, out: str, local: Path, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        python = Path(sys.executable)
        if version == "3.6":
            python = request.getfixturevalue("datasets3_python")
            if not list(python.parents[1].glob("lib/python*/site-packages/s3fs")):
                pytest.skip("the environment with datasets 3.6 has no s3fs")
        line = [python, "-c", self.CODE, out, local / "all", PROJECT / "tests", tmp_path]
        done = subprocess.run(list(map(str, line)), capture_output=True, text=True)
        assert done.stdout == "the same\n", done.stderr[-3000:]

    def test_evaluate(self, out: str, local: Path) -> None:
        there, here = (read_truth(place, "pose", "train") for place in (out, str(local / "all")))
        assert there.population == here.population
        assert there.angles.tolist() == here.angles.tolist()

    @pytest.mark.parametrize("of", ["raw", "out"])
    def test_preview(self, of: str, out: str, raw: str, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        write_preview({"raw": raw, "out": out}[of], tmp_path / "page.html", 1)
        assert b"kettle" in (tmp_path / "page.html").read_bytes()


class TestHub:
    CODE = """
import sys
import ImageNet3D as release
url = f"hf://datasets/{release.REPOSITORY}@main/{release.RAW_ARCHIVE}"
found = release.survey(release.RawTree(url, {"token": "hf_loopback"}))
entries = found.entries["train"]
print(len(list(release.read_pictures(found.release.fetched(entries), "pose", entries, []))))
"""

    def test_the_gated_zip_is_read_by_exact_ranges(self, local: Path, tmp_path: Path) -> None:
        repository = tmp_path / "repository"
        repository.mkdir()
        data = (local / "raw.zip").read_bytes()
        (repository / release.RAW_ARCHIVE).write_bytes(data)
        with serve(repository, revisions={"main": repository}, gated=True) as hub:
            environment = {**os.environ, **hub.environment(tmp_path / "home")}
            line = [sys.executable, "-c", self.CODE]
            done = subprocess.run(line, cwd=PROJECT, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-2000:]
            fetched = [request for request in hub.fetched(release.RAW_ARCHIVE) if request.method == "GET"]
        assert int(done.stdout) > 20
        assert all(request.range for request in fetched)
        # The directory is within the last 256 KiB; each picture but those of validation is fetched once.
        assert sum(request.sent for request in fetched) < 2**18 + len(data)
