"""What does not show in the rows: stable labels, the cache's key, captions, downloads, order."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image
from support import PROJECT, SHARED
from support.hub import serve
from support.raw_tree import RawTreeWriter

import ImageNet3D as release
from ImageNet3D import CATEGORIES, CONFIGS, KNOWN_CATEGORIES, ImageNet3D, RawTree, ReleaseError, survey


def zipped(folder: Path, path: Path, top: str = "imagenet3d_v1/") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{top}{file.relative_to(folder).as_posix()}")
    return path


def load(raw: Path, cache: Path, config: str = "pose", **options: Any) -> datasets.DatasetDict:
    builder = ImageNet3D(config_name=config, data_dir=str(raw), cache_dir=str(cache), **options)
    builder.download_and_prepare()
    return builder.as_dataset()


@pytest.fixture
def tree(sample_folder: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic tree that a test may change."""
    return shutil.copytree(sample_folder, tmp_path / "tree")


class TestCategories:
    def test_ids_never_change(self) -> None:
        """If this fails, label ids of published rows have changed: append to LATER_CATEGORIES instead."""
        assert len(release.CATEGORIES_V1) == 189
        digest = hashlib.sha256("\n".join(release.CATEGORIES_V1).encode()).hexdigest()
        assert digest == "0b99dd61b1b8c932f6bd33a9de69518224c16b6d8bedf4d5752fcf0e54a00520"
        assert CATEGORIES[:189] == release.CATEGORIES_V1

    def test_no_name_twice(self) -> None:
        assert len(set(CATEGORIES)) == len(CATEGORIES)

    def test_known_ones(self) -> None:
        assert len(KNOWN_CATEGORIES) == 63
        assert set(CATEGORIES) > KNOWN_CATEGORIES

    @pytest.mark.skipif(
        not SHARED.is_dir(), reason="the authors' lists are not beside this project (../shared)"
    )
    def test_agree_with_the_release(self) -> None:
        names = (SHARED.parent / "categories_v1.txt").read_text("utf-8").split()
        known = (SHARED.parent / "known_categories.txt").read_text("utf-8").split()
        assert tuple(names) == release.CATEGORIES_V1
        assert set(known) == KNOWN_CATEGORIES

    def test_unknown_ones_stand_behind_the_published(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A release with more categories keeps all rows, and no published id moves."""
        monkeypatch.setattr(release.logger, "propagate", True)
        tree = RawTreeWriter().sound("rickshaw").sound("bed").sound("ark").sound("trolley_bus")
        tree.captions(categories={"ark": "floats"}).mesh("zeppelin")
        tree.picture("no_list", "x").annotation("no_list", "x")
        raw = tree.zip(tmp_path / "raw.zip")
        later = ("ark", "rickshaw", "trolley_bus", "zeppelin")
        for config, splits in (
            ("pose", 2),
            ("classification", 2),
            ("open_vocab_unknown", 1),
            ("captions", 2),
        ):
            rows = load(Path(raw), tmp_path / "cache", config)
            assert len(rows) == splits
            for split in rows.values():
                label = split.features["label" if config == "classification" else "category"]
                assert tuple(label.names) == CATEGORIES + later
                ids = split["label" if config == "classification" else "category"]
                assert [label.int2str(i) for i in ids] == [i.partition("/")[0] for i in split["image_id"]]
        assert "ark, rickshaw, trolley_bus (an old spelling of trolleybus), zeppelin" in caplog.text
        found = [f for f in survey(RawTree(raw)).findings if f.reason == "category_unknown"]
        assert [f.file for f in found] == [f"images/{name}" for name in later]
        assert "old spelling of trolleybus" in found[2].value

    def test_later_ones_keep_the_ids(self, tmp_path: Path) -> None:
        """Appending a name makes its id a published one; nothing is said of it any more."""
        RawTreeWriter().sound("rickshaw").sound("bed").sound("ark").folder(tmp_path / "tree")
        text = (PROJECT / "ImageNet3D.py").read_text("utf-8")
        empty = "LATER_CATEGORIES: tuple[str, ...] = ()"
        assert text.count(empty) == 1
        text = text.replace(empty, 'LATER_CATEGORIES: tuple[str, ...] = ("rickshaw",)')
        (tmp_path / "ImageNet3D.py").write_text(text, "utf-8")
        code = (
            "import ImageNet3D as d; s = d.survey(d.RawTree('tree'))\n"
            "print(s.release.categories[189:], [f.file for f in s.findings])"
        )
        command = [sys.executable, "-c", code]
        printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        assert printed == "('rickshaw', 'ark') ['images/ark']\n"

    def test_too_many_unknown_ones_are_no_release(self, tmp_path: Path) -> None:
        tree = RawTreeWriter().sound("bed")
        for number in range(1001):
            tree.lists(f"c{number}", ("a",))
        with pytest.raises(ReleaseError, match="1001 unknown categories"):
            survey(RawTree(tree.zip(tmp_path / "raw.zip")))

    def test_old_spellings_are_none_of_ours(self) -> None:
        assert not set(release.OLD_SPELLINGS) & set(CATEGORIES)


class TestFeatures:
    def test_objects_of_captions_are_the_object_columns_of_pose(self) -> None:
        pose = release.config_features("pose")
        objects = release.config_features("captions")["objects"]
        fields = objects[0] if isinstance(objects, list) else objects.feature
        assert set(fields) < set(pose)
        assert all(fields[name] == pose[name] for name in fields)

    def test_unknown_config_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"poses.*pose, open_vocab_known"):
            release.config_features("poses")

    def test_default_config(self, sample_folder: Path, tmp_path: Path) -> None:
        builder = ImageNet3D(data_dir=str(sample_folder), cache_dir=str(tmp_path))
        assert builder.config.name == "pose"


class TestCache:
    def test_a_zip_changed_in_place_is_read_again(self, tree: Path, tmp_path: Path) -> None:
        raw = zipped(tree, tmp_path / "raw.zip")
        before = load(raw, tmp_path / "cache")["train"]
        list_file = next(f for f in sorted(tree.glob("lists/*_train.txt")) if f.read_text().strip())
        list_file.write_text("")
        zipped(tree, raw)
        after = load(raw, tmp_path / "cache")["train"]
        assert 0 < len(after) < len(before)

    def test_a_folder_changed_in_place_is_read_again(self, tree: Path, tmp_path: Path) -> None:
        before = load(tree, tmp_path / "cache", "classification")["train"]
        lists = [f for f in sorted(tree.glob("lists/*_train.txt")) if f.read_text().strip()]
        lists[0].write_text("")
        assert len(load(tree, tmp_path / "cache", "classification")["train"]) < len(before)

    def test_changed_captions_are_read_again(self, tree: Path, tmp_path: Path) -> None:
        load(tree, tmp_path / "cache", "captions")
        file = tree / "captions" / "image_captions.json"
        texts = json.loads(file.read_text("utf-8"))
        file.write_text(json.dumps({key: f"new: {text}" for key, text in texts.items()}))
        rows = load(tree, tmp_path / "cache", "captions")["train"]
        found = [text for text in rows["caption"] if text is not None]
        assert found
        assert all(text.startswith("new: ") for text in found)

    def test_unchanged_input_is_not_read_again(self, tree: Path, tmp_path: Path) -> None:
        first = load(tree, tmp_path / "cache").cache_files
        times = {
            f["filename"]: Path(f["filename"]).stat().st_mtime_ns for files in first.values() for f in files
        }
        second = load(tree, tmp_path / "cache").cache_files
        assert {
            f["filename"]: Path(f["filename"]).stat().st_mtime_ns for files in second.values() for f in files
        } == times

    @pytest.mark.slow  # processes of both versions
    def test_other_code_has_another_key(self, tree: Path, tmp_path: Path) -> None:
        """A copy of the file with a comment more stands for a later version of the builder."""
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); from ImageNet3D import ImageNet3D\n"
            "print(ImageNet3D(data_dir=sys.argv[2], cache_dir=sys.argv[3]).cache_dir)"
        )
        text = (PROJECT / "ImageNet3D.py").read_text("utf-8")
        keys = []
        for name, more in (("one", ""), ("two", "# later\n"), ("three", "")):
            (tmp_path / name).mkdir()
            (tmp_path / name / "ImageNet3D.py").write_text(text + more, "utf-8")
            command = [sys.executable, "-c", code, str(tmp_path / name), str(tree), str(tmp_path / "cache")]
            keys.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert keys[0] == keys[2] != keys[1]

    def test_a_change_after_the_builder_was_made_is_refused(self, tree: Path, tmp_path: Path) -> None:
        builder = ImageNet3D(data_dir=str(tree), cache_dir=str(tmp_path / "cache"))
        (tree / "lists" / "car_imagenet_train.txt").write_text("")
        with pytest.raises(ReleaseError, match="changed after this builder was made"):
            builder.download_and_prepare()


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="only Linux tells whether a file is in memory")
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_the_disk_is_told_what_will_be_read(kind: str, tree: Path, tmp_path: Path) -> None:
    path = tree if kind == "folder" else zipped(tree, tmp_path / "raw.zip")
    found = survey(RawTree(str(path)))
    entries = found.entries["train"][:20]
    if kind == "folder":
        places = [(tree / entry.picture_file, 0) for entry in entries]
    else:
        with zipfile.ZipFile(path) as archive:
            offsets = {info.filename: info.header_offset for info in archive.infolist()}
        places = [(path, offsets[f"imagenet3d_v1/{entry.picture_file}"]) for entry in entries]
    _drop_from_memory(places)
    if _in_memory(places):
        pytest.skip("this file system keeps all files in memory")
    for patience in (0.05, 0.5, 5):  # looking at a byte has it fetched, so each look is after a new beginning
        _drop_from_memory(places)
        found.release.fetched(entries)
        time.sleep(patience)
        if _in_memory(places):
            return
    pytest.fail("nobody fetched the pictures")


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the disk cannot be told")
def test_the_disk_is_told_no_more_than_what_will_be_read(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = zipped(tree, tmp_path / "raw.zip")
    found = survey(RawTree(str(raw)))
    told: list[tuple[int, int]] = []
    # release.os: `datasets` gives the module of a builder an os of its own.
    monkeypatch.setattr(
        release.os, "posix_fadvise", lambda _, start, size, advice: told.append((start, size))
    )
    found.release.fetched(found.entries["train"][:2])
    assert 0 < sum(size for _, size in told) < raw.stat().st_size / 4
    monkeypatch.delattr(release.os, "posix_fadvise")  # as on macOS
    assert survey(RawTree(str(raw))).entries == found.entries


def _drop_from_memory(places: list[tuple[Path, int]]) -> None:
    for file in {file for file, _ in places}:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _in_memory(places: list[tuple[Path, int]]) -> bool:
    """Whether a byte at each place can be read without waiting for the disk."""
    for file, offset in places:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            pytest.skip(f"this file system does not tell: {error}")
        finally:
            os.close(descriptor)
    return True


class TestCaptions:
    def test_none_at_all_is_said_in_one_line(self, tree: Path, tmp_path: Path) -> None:
        shutil.rmtree(tree / "captions")
        with pytest.raises(ReleaseError) as caught:
            load(tree, tmp_path / "cache", "captions")
        assert "without captions; give captions=FOLDER" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_beside_a_zip(self, tree: Path, tmp_path: Path) -> None:
        shutil.move(tree / "captions", tmp_path / "captions")
        raw = zipped(tree, tmp_path / "raw.zip")
        assert len(load(raw, tmp_path / "cache", "captions")["train"]) > 0

    def test_beside_the_top_folder(self, tree: Path, tmp_path: Path) -> None:
        top = tmp_path / "release"
        top.mkdir()
        shutil.move(tree / "captions", top / "captions")
        shutil.move(tree, top / "imagenet3d_v1")
        assert survey(RawTree(str(top))).has_captions

    def test_a_given_folder_without_them_is_named(self, tree: Path, tmp_path: Path) -> None:
        with pytest.raises(ReleaseError, match=re.escape(str(tmp_path))):
            survey(RawTree(str(tree)), str(tmp_path))

    def test_a_list_of_category_captions(self, tree: Path) -> None:
        file = tree / "captions" / "category_captions.json"
        texts = json.loads(file.read_text("utf-8"))
        before = survey(RawTree(str(tree))).release.category_captions
        file.write_text(json.dumps([{"category": key, "caption": text} for key, text in texts.items()]))
        assert survey(RawTree(str(tree))).release.category_captions == before != {}


@pytest.mark.slow
class TestDownload:
    """Without data_dir the zip comes from the Hub, here one on loopback."""

    CODE = (
        "import sys; sys.path.insert(0, sys.argv[1]); from ImageNet3D import ImageNet3D\n"
        "b = ImageNet3D(config_name='pose', cache_dir=sys.argv[2])\n"
        "stream = b.as_streaming_dataset(split='validation'); first = next(iter(stream))\n"
        "print('FIRST', first['image_id'], first['image'].size)\n"
        "b.download_and_prepare(); rows = b.as_dataset(split='validation')\n"
        "print('ROWS', len(rows), rows[0]['image_id'] == first['image_id'])"
    )

    ROWS = (
        "import sys; sys.path.insert(0, sys.argv[1]); from ImageNet3D import ImageNet3D\n"
        "b = ImageNet3D(\n"
        "    config_name='captions', cache_dir=sys.argv[2], raw_revision='main', captions=sys.argv[3])\n"
        "b.download_and_prepare(); rows = b.as_dataset(split='validation')\n"
        "print('ROWS', len(rows), rows[0]['category_caption'])"
    )

    def run(
        self,
        hub: Any,
        tmp_path: Path,
        code: str = CODE,
        *more: object,
        python: Path | str = sys.executable,
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        command = [str(python), "-c", code, str(PROJECT), str(tmp_path / "cache"), *map(str, more)]
        environment = {**os.environ, **hub.environment(tmp_path / "hub"), **env}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        """The repository as it is today: a zip on main."""
        folder = tmp_path / "repository"
        folder.mkdir()
        a_raw_tree().zip(folder / release.RAW_ARCHIVE)
        return folder

    def other(self, tmp_path: Path, name: str, stem: str) -> Path:
        """Another revision, told by its only picture of validation."""
        folder = tmp_path / name
        folder.mkdir()
        a_raw_tree(stem).zip(folder / release.RAW_ARCHIVE)
        return folder

    @pytest.mark.parametrize("version", ["newest", "3.6"])
    def test_the_zip_on_main_without_any_tag(
        self, repository: Path, tmp_path: Path, version: str, request: pytest.FixtureRequest
    ) -> None:
        python = sys.executable if version == "newest" else request.getfixturevalue("datasets3_python")
        with serve(repository) as hub:
            done = self.run(hub, tmp_path, python=python)
            assert done.returncode == 0, done.stderr[-3000:]
            assert f"at main, commit {hub.sha()}" in done.stderr
        assert done.stdout.split("\n")[:2] == ["FIRST bed/v (64, 48)", "ROWS 1 True"]
        # The Hub is gone; what its cache holds is enough, also where rows have to be made anew.
        for env in ({}, {"HF_HUB_OFFLINE": "1"}):
            again = self.run(hub, tmp_path, python=python, **env)
            assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr[-3000:]
            shutil.rmtree(tmp_path / "cache")

    def test_the_newest_tag_that_this_code_reads(self, repository: Path, tmp_path: Path) -> None:
        tags = {
            name: self.other(tmp_path, name, stem)
            for name, stem in (("v1.0.0", "old"), ("v1.9", "older"), ("v1.10.0", "newest"), ("v2.0", "later"))
        }
        with serve(repository, revisions={"main": repository, "1.x": repository, **tags}) as hub:
            done = self.run(hub, tmp_path)
            sha = hub.sha("v1.10.0")
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"at v1.10.0, commit {sha}" in done.stderr
        assert "FIRST bed/newest" in done.stdout
        again = self.run(hub, tmp_path, HF_HUB_OFFLINE="1")
        assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr[-3000:]

    def test_what_a_branch_held_before_is_not_served(self, repository: Path, tmp_path: Path) -> None:
        captions = tmp_path / "elsewhere"
        captions.mkdir()
        (captions / "texts.json").write_text(json.dumps({"bed": "to sleep in"}))

        def rows() -> str:
            with serve(repository) as hub:
                done = self.run(hub, tmp_path, self.ROWS, captions)
            assert done.returncode == 0, done.stderr[-3000:]
            return done.stdout

        assert rows() == "ROWS 1 to sleep in\n"
        a_raw_tree("v", "w").zip(repository / release.RAW_ARCHIVE)
        assert rows() == "ROWS 2 to sleep in\n"
        (captions / "texts.json").write_text(json.dumps({"bed": "another text"}))
        assert rows() == "ROWS 2 another text\n"

    def test_gated(self, repository: Path, tmp_path: Path) -> None:
        with serve(repository, gated=True) as hub:
            done = self.run(hub, tmp_path)
        assert done.returncode != 0
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("PermissionError")
        assert "gated" in last
        assert "hf auth login" in last

    @pytest.mark.parametrize("version", ["newest", "3.6"])
    def test_no_network(self, version: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        python = sys.executable if version == "newest" else request.getfixturevalue("datasets3_python")
        (tmp_path / "empty").mkdir()
        with serve(tmp_path / "empty") as hub:
            pass
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); from ImageNet3D import ImageNet3D\n"
            "b = ImageNet3D(config_name='pose', cache_dir=sys.argv[2])\n"
            "for way in (lambda: next(iter(b.as_streaming_dataset('train'))), b.download_and_prepare):\n"
            "    try: way()\n"
            "    except ConnectionError as error: print(error)"
        )
        done = self.run(hub, tmp_path, code, python=python)
        assert done.returncode == 0, done.stderr[-3000:]
        lines = done.stdout.splitlines()
        assert len(lines) == 2
        for line in lines:
            assert line.startswith(f"hf://datasets/{release.REPOSITORY}@main/")
            assert line.endswith("try again, or download the raw release and pass data_dir=PATH")

    def test_unknown_revision(self, repository: Path, tmp_path: Path) -> None:
        code = self.CODE.replace("config_name='pose'", "config_name='pose', raw_revision='v7'")
        with serve(repository) as hub:
            done = self.run(hub, tmp_path, code)
        assert "no such revision; name another with raw_revision=" in done.stderr.strip().splitlines()[-1]


def a_raw_tree(*val: str) -> RawTreeWriter:
    """A raw tree of one category with these pictures in validation."""
    return RawTreeWriter().sound("bed", ("a", "b"), val or ("v",))


class TestTurnedPicture:
    def test_decodes_as_stored_with_its_box_in_place(self, tree: Path, tmp_path: Path) -> None:
        """The synthetic tree has a picture whose tag asks viewers to turn it."""
        rows = load(tree, tmp_path / "cache")
        turned = {
            f"{file.parent.name}/{file.stem}"
            for file in tree.glob("images/*/*.JPEG")
            if Image.open(file).getexif().get(0x0112, 1) != 1
        }
        checked = 0
        for row in (row for split in rows.values() for row in split if row["image_id"] in turned):
            with Image.open(tree / "images" / f"{row['image_id']}.JPEG") as stored:
                stored.load()
                assert stored.width != stored.height
                assert row["image"].size == (row["width"], row["height"]) == stored.size
                assert row["image"].convert("RGB").tobytes() == stored.convert("RGB").tobytes()
            x1, y1, x2, y2 = row["bbox"]
            assert 0 <= x1 < x2 <= row["width"]
            assert 0 <= y1 < y2 <= row["height"]
            checked += 1
        assert checked


class TestBuilder:
    def test_num_proc_gives_the_same_rows(
        self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(release, "CHUNK", 4)
        ids = []
        for workers in (1, 2):
            builder = ImageNet3D(data_dir=str(tree), cache_dir=str(tmp_path / str(workers)))
            builder.download_and_prepare(num_proc=workers)
            ids.append(builder.as_dataset(split="train")["image_id"][:])
        assert ids[0] == ids[1]
        assert len(builder.as_dataset(split="train")._data.table.column(0).chunks) > 1

    def test_train_is_mixed_and_validation_sorted(self, tree: Path, tmp_path: Path) -> None:
        rows = load(tree, tmp_path / "cache", "classification")
        train, validation = rows["train"]["image_id"][:], rows["validation"]["image_id"][:]
        assert sorted(train) != train
        assert validation == sorted(validation, key=lambda key: key.split("/"))

    def test_seed_changes_the_order_alone(self, tree: Path, tmp_path: Path) -> None:
        ids = [load(tree, tmp_path / "cache", seed=seed)["train"]["image_id"][:] for seed in (0, 1)]
        assert ids[0] != ids[1]
        assert sorted(ids[0]) == sorted(ids[1])

    @pytest.mark.parametrize("config", CONFIGS)
    def test_a_split_without_rows_is_left_out(self, tree: Path, tmp_path: Path, config: str) -> None:
        for file in tree.glob("lists/*_train.txt"):
            file.write_text("")
        assert set(load(tree, tmp_path / "cache", config)) == {"validation"}

    @pytest.mark.parametrize("asked", ["data_files", "features"])
    def test_what_is_not_read_is_refused(self, asked: str, tree: Path, tmp_path: Path) -> None:
        """What `datasets` offers to every builder."""
        raw = zipped(tree, tmp_path / "raw.zip")
        value = str(raw) if asked == "data_files" else datasets.Features({"image": datasets.Image()})
        for more in ({}, {"data_dir": str(raw)}):
            with pytest.raises(ValueError, match=f"^{asked} .* give "):
                ImageNet3D(config_name="pose", cache_dir=str(tmp_path / "cache"), **{asked: value}, **more)

    def test_no_release_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ReleaseError, match=r"nowhere: no such folder or zip"):
            ImageNet3D(data_dir=str(tmp_path / "nowhere"))

    def test_stands_alone(self, tmp_path: Path, tree: Path) -> None:
        """The file needs nothing else of this project."""
        shutil.copy(PROJECT / "ImageNet3D.py", tmp_path / "ImageNet3D.py")
        code = "import ImageNet3D as d; print(d.__file__, len(d.survey(d.RawTree('tree')).entries['train']))"
        command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.'); {code}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert str(tmp_path) in done.stdout
