"""The built folder: files, card, books, ledger, resuming, the command line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import DatasetCard
from support import PROJECT, SHARED
from support.folders import files_of
from support.raw_tree import TOP, RawTreeWriter, an_object, encoded, npz

from ImageNet3D import REASONS, RawTree, ReleaseError, survey
from processing.__main__ import main
from processing.accounts import NO_CAPTION, Account, Books, UnbalancedBooksError
from processing.build.command import NO_CAPTIONS, build
from processing.build.plan import MAX_ROW_GROUP_PICTURES, ROW_GROUP_BYTES
from processing.built import BOOKKEEPING, read_manifest
from processing.configs import PUBLISHED_CONFIGS, REFERENCE_TABLES
from processing.run import BuildError


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "processing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)


class TestShards:
    def test_the_same_pictures_at_the_same_place_in_every_config(self, built_sample: Path) -> None:
        """Row groups follow one plan: what a config lacks is missing, the rest stands in the same order."""
        compared = 0
        for path in sorted(built_sample.glob("classification/*.parquet")):
            order = ids_by_row_group(path)
            for config in ("pose", "captions"):
                other = built_sample / config / path.name
                if other.exists():
                    for ids in map(without_repeats, ids_by_row_group(other)):
                        group = next(g for g in order if set(ids) <= set(g))
                        assert ids == [key for key in group if key in set(ids)]
                        compared += len(ids)
        assert compared > 40

    def test_pictures_that_every_config_has_come_first_in_a_row_group(self, built_sample: Path) -> None:
        mixed = 0
        for path in sorted(built_sample.glob("classification/*.parquet")):
            others = [built_sample / config / path.name for config in ("pose", "captions")]
            everywhere = [set(all_ids(p.parent, p.name)) for p in others]
            for ids in ids_by_row_group(path):
                in_all = [all(key in ids for ids in everywhere) for key in ids]
                assert in_all == sorted(in_all, reverse=True)
                mixed += len(set(in_all)) == 2
        assert mixed

    def test_a_picture_with_several_objects_is_stored_once(self, built_real: Path) -> None:
        checked = 0
        for path in built_real.glob("pose/*.parquet"):
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                column = file.metadata.row_group(group).column(0)
                assert column.path_in_schema == "image.bytes"
                assert column.compression == "UNCOMPRESSED"
                images = file.read_row_group(group, ["image"]).column("image").to_pylist()
                distinct = {image["bytes"] for image in images}
                size = sum(map(len, distinct))
                assert size <= column.total_compressed_size <= size + 100 * len(images)
                checked += len(images) > len(distinct)
        assert checked

    def test_row_group_limits(self, built_real: Path) -> None:
        for path in (p for p in built_real.glob("*/*.parquet") if p.parent.name not in REFERENCE_TABLES):
            for ids, size in zip(ids_by_row_group(path), image_bytes(path), strict=True):
                assert len(set(ids)) <= MAX_ROW_GROUP_PICTURES
                assert size <= ROW_GROUP_BYTES

    def test_several_shards_of_both_kinds_alternate(self, built_real: Path) -> None:
        names = sorted(path.stem for path in built_real.glob("pose/train-*"))
        kinds = [name.rsplit("-", 1)[1] for name in names]
        assert len(names) >= 4
        assert set(kinds) == {"known", "unknown"}
        assert kinds != sorted(kinds)
        assert kinds != sorted(kinds, reverse=True)

    def test_objects_of_a_picture_stay_together(self, built_real: Path) -> None:
        ids = all_ids(built_real, "pose/train-*")
        runs = without_repeats(ids)
        assert len(runs) == len(set(runs)) < len(ids)


def ids_by_row_group(path: Path) -> list[list[str]]:
    file = pq.ParquetFile(path)
    return [file.read_row_group(i, ["image_id"])["image_id"].to_pylist() for i in range(file.num_row_groups)]


def all_ids(folder: Path, pattern: str) -> list[str]:
    return [key for path in sorted(folder.glob(pattern)) for ids in ids_by_row_group(path) for key in ids]


def without_repeats(ids: list[str]) -> list[str]:
    """A picture's objects stand together: one id a picture."""
    return [key for i, key in enumerate(ids) if i == 0 or ids[i - 1] != key]


def image_bytes(path: Path) -> list[int]:
    metadata = pq.read_metadata(path)
    return [metadata.row_group(i).column(0).total_uncompressed_size for i in range(metadata.num_row_groups)]


class TestSameBytes:
    def test_any_number_of_workers(self, built_sample: Path, sample_folder: Path, tmp_path: Path) -> None:
        build(str(sample_folder), tmp_path / "out", workers=2, shard_size="200KB")
        assert files_of(tmp_path / "out") == files_of(built_sample)

    def test_running_again_writes_nothing_anew(self, sample_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        options = {"configs": ["pose", "categories"], "workers": 1}
        build(str(sample_folder), out, **options)
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
        build(str(sample_folder), out, **options)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before != {}

    def test_another_seed_mixes_otherwise(
        self, built_sample: Path, sample_folder: Path, tmp_path: Path
    ) -> None:
        options = {"configs": ["pose"], "shard_size": "200KB", "seed": 1}
        build(str(sample_folder), tmp_path / "out", workers=1, **options)
        order = [all_ids(folder, "pose/train-*") for folder in (built_sample, tmp_path / "out")]
        assert order[0] != order[1]
        assert sorted(order[0]) == sorted(order[1])


class TestCard:
    def test_lists_every_config_with_its_splits(self, built_real: Path) -> None:
        card = DatasetCard.load(built_real / "README.md").data
        assert [entry["config_name"] for entry in card.configs] == list(PUBLISHED_CONFIGS)
        assert [entry["config_name"] for entry in card.configs if entry.get("default")] == ["pose"]
        unknown = next(e for e in card.configs if e["config_name"] == "open_vocab_unknown")
        assert unknown["data_files"] == [{"split": "validation", "path": "pose/validation-*-unknown.parquet"}]

    def test_counts_are_those_of_the_files(self, built_real: Path) -> None:
        card = DatasetCard.load(built_real / "README.md").data
        files = {e["config_name"]: {d["split"]: d["path"] for d in e["data_files"]} for e in card.configs}
        for info in card.dataset_info:
            for split in info["splits"]:
                paths = list(built_real.glob(files[info["config_name"]][split["name"]]))
                rows = sum(pq.read_metadata(path).num_rows for path in paths)
                assert split["num_examples"] == rows > 0

    def test_yaml_has_no_aliases(self, built_real: Path) -> None:
        """The newest `datasets` changes shared objects while reading, so none may be shared."""
        head = (built_real / "README.md").read_text("utf-8").split("---")[1]
        assert not [
            token for token in yaml.scan(head) if isinstance(token, yaml.AliasToken | yaml.AnchorToken)
        ]

    def test_a_split_without_rows_is_left_out(self, sample_folder: Path, tmp_path: Path) -> None:
        tree = shutil.copytree(sample_folder, tmp_path / "tree")
        for file in tree.glob("lists/*_val.txt"):
            file.write_text("")
        build(str(tree), tmp_path / "out", configs=["pose", "open_vocab_unknown"], workers=1)
        card = DatasetCard.load(tmp_path / "out" / "README.md").data
        assert "open_vocab_unknown" not in [entry["config_name"] for entry in card.configs]
        assert {d["split"] for entry in card.configs for d in entry["data_files"]} == {"train"}


class TestBooks:
    def test_balance_on_the_real_sample(self, real_zip: Path, tmp_path: Path) -> None:
        configs = ["pose", "classification", "captions"]  # crops take long: see test_object_centric.py
        report = build(str(real_zip), tmp_path / "out", configs=configs, captions=str(SHARED), workers=1)
        report.books.check()
        assert (report.pictures, report.objects) == (147, 228)
        pose = [report.books.account("pose", split) for split in ("train", "validation")]
        assert sum(account.read for account in pose) == 228
        assert sum(account.written for account in pose) == 224
        assert sum((account.left_out for account in pose), start=pose[0].left_out)["pose_missing"] >= 4

    def test_unlisted_pictures_are_counted(self, sample_folder: Path, tmp_path: Path) -> None:
        report = build(str(sample_folder), tmp_path / "out", configs=["classification"], workers=1)
        account = report.books.account("classification", "")
        assert account.read == account.left_out["picture_unlisted"] > 0
        assert report.pictures == len(list(sample_folder.glob("images/*/*.JPEG")))

    def test_missing_captions_are_counted(self, sample_folder: Path, tmp_path: Path) -> None:
        report = build(str(sample_folder), tmp_path / "out", configs=["captions"], workers=1)
        accounts = [report.books.account("captions", split) for split in ("train", "validation")]
        assert sum(account.left_out[NO_CAPTION] for account in accounts) > 0

    def test_unbalanced_books_are_an_error(self) -> None:
        books = Books()
        books.accounts["pose", "train"] = Account(read=3, written=2)
        with pytest.raises(UnbalancedBooksError, match="pose train: read 3, written 2, left out 0"):
            books.check()

    def test_ledger_lines_name_file_object_reason_and_decision(self, built_sample: Path) -> None:
        lines = (built_sample / BOOKKEEPING / "ledger.jsonl").read_text("utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        assert {"pose_missing", "picture_orientation", "picture_mode", "ignore_set"} <= {
            f["reason"] for f in found
        }
        for line in found:
            assert line["decision"] == REASONS[line["reason"]].decision
            assert line["file"].split("/")[0] in ("images", "annotations")
            assert line["split"] in ("train", "validation", "")


class TestOwnership:
    """What no build made is left alone, and what one made is not lost by mistake."""

    @pytest.fixture
    def out(self, built_sample: Path, tmp_path: Path) -> Path:
        return shutil.copytree(built_sample, tmp_path / "out")

    @pytest.mark.parametrize(
        "path",
        [
            *("NOTES.txt", "pose/extra.parquet", "cad/x/y", "figures/my-own-plot.svg"),
            *("pose/train-00000-of-00099-known.parquet", "cad/train-00007-of-00099.parquet"),
        ],
    )
    def test_a_file_that_no_build_made_is_named_and_kept(
        self, path: str, out: Path, sample_folder: Path
    ) -> None:
        (out / path).parent.mkdir(exist_ok=True)
        (out / path).write_bytes(next(out.glob("pose/*.parquet")).read_bytes())
        before = files_of(out)
        with pytest.raises(BuildError, match=f"holds {path}, which no build made; move it elsewhere"):
            build(str(sample_folder), out, workers=1)
        assert files_of(out) == before

    def test_hidden_files_are_left_alone_but_what_a_killed_process_left(
        self, out: Path, sample_folder: Path
    ) -> None:
        before = files_of(out)
        (out / "pose/.mine").write_bytes(b"mine")
        (out / f"pose/.{'0' * 32}.unfinished").write_bytes(b"PAR1")
        build(str(sample_folder), out, workers=1, shard_size="200KB")
        assert files_of(out) == {**before, "pose/.mine": b"mine"}

    def test_removed_is_what_the_list_of_the_last_build_names(self, out: Path, sample_folder: Path) -> None:
        listed = read_manifest(out).files
        build(str(sample_folder), out, workers=1, shard_size="1MB")
        gone = listed.keys() - read_manifest(out).files
        assert any(path.startswith("pose/") for path in gone)
        assert not any((out / path).exists() for path in gone)

    def test_a_finished_build_does_not_lose_configs(self, out: Path, sample_folder: Path) -> None:
        before = files_of(out)
        with pytest.raises(
            BuildError, match=r"finished build with .*captions.*, which this one would remove"
        ):
            build(str(sample_folder), out, configs=["pose"], workers=1)
        assert files_of(out) == before

    def test_nor_one_that_shares_its_files(self, sample_folder: Path, tmp_path: Path) -> None:
        build(str(sample_folder), tmp_path, configs=["pose", "open_vocab_known"], workers=1)
        before = files_of(tmp_path)
        with pytest.raises(BuildError, match="finished build with pose, which this one would remove"):
            build(str(sample_folder), tmp_path, configs=["open_vocab_known"], workers=1)
        assert files_of(tmp_path) == before

    @pytest.mark.parametrize("given", ["corrections", "previous"])
    def test_what_it_would_remove_is_not_read_from(
        self, sample_folder: Path, tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = {"operation": "leave_out", "image_id": image_id_of(sample_folder), "object_index": 0}
        fixes = tmp_path / "fixes.jsonl"
        fixes.write_text(json.dumps({**said, "when": "2026-11-28T09:30:00Z", "why": "none"}) + "\n")
        out = tmp_path / "out"
        build(str(sample_folder), out, configs=["categories"], corrections=[str(fixes)], workers=1)
        before = files_of(out)
        (tmp_path / "link").symlink_to(out)
        monkeypatch.chdir(out)
        for path in (str(out), out.as_uri(), str(tmp_path / "link"), "."):
            options = {"previous": path}
            if given == "corrections":
                options = {"corrections": [str(fixes), f"{path}/corrections.jsonl"]}
            with pytest.raises(BuildError, match="copy it elsewhere and give that"):
                build(str(sample_folder), out, configs=["categories"], workers=1, seed=1, **options)
        assert files_of(out) == before

    def test_a_replaced_build_is_told(self, sample_folder: Path, tmp_path: Path) -> None:
        told = [
            any("is replaced" in note for note in done.notes)
            for done in (
                build(str(sample_folder), tmp_path, configs=["categories"], workers=1, seed=seed)
                for seed in (0, 0, 1)
            )
        ]
        assert told == [False, False, True]

    def test_a_file_in_the_place_of_the_folder(self, sample_folder: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_bytes(b"")
        with pytest.raises(BuildError, match="is a file, or a link"):
            build(str(sample_folder), tmp_path / "out", workers=1)


class TestOptions:
    def test_one_config(self, sample_folder: Path, tmp_path: Path) -> None:
        build(str(sample_folder), tmp_path / "out", configs=["open_vocab_known"], workers=1)
        card = DatasetCard.load(tmp_path / "out" / "README.md").data
        assert [entry["config_name"] for entry in card.configs] == ["open_vocab_known"]
        assert {path.parent.name for path in tmp_path.rglob("*.parquet")} == {"pose"}

    def test_without_captions_that_config_is_left_out(self, tmp_path: Path) -> None:
        raw = RawTreeWriter().sound("bed").folder(tmp_path / "raw")
        done = build(raw, tmp_path / "out", workers=1)
        assert not (tmp_path / "out" / "captions").exists()
        assert NO_CAPTIONS in done.notes
        with pytest.raises(ReleaseError, match="--captions DIR"):
            build(raw, tmp_path / "out2", configs=["captions"], workers=1)

    def test_a_release_without_rows_writes_no_card(self, tmp_path: Path) -> None:
        raw = RawTreeWriter().sound("bed").lists("bed", ()).folder(tmp_path / "raw")
        with pytest.raises(ReleaseError, match=r"has no row for any config$"):
            build(raw, tmp_path / "out", workers=1)
        assert not (tmp_path / "out" / "README.md").exists()
        build(RawTreeWriter().sound("bed").folder(tmp_path / "raw2"), tmp_path / "out", workers=1)
        with pytest.raises(ReleaseError, match="for any config; the finished build that was there is gone"):
            build(raw, tmp_path / "out", workers=1)

    def test_open_vocabulary_without_a_category_of_its_kind_is_told(self, tmp_path: Path) -> None:
        raw = RawTreeWriter().sound("bed").folder(tmp_path / "raw")
        unknown = "open_vocab_unknown has no row, so that config is left out; no object of such a category"
        assert any(unknown in note for note in build(raw, tmp_path / "out", workers=1).notes)
        with pytest.raises(ReleaseError, match=f"{unknown}.*\n.*\n.*no row for any config"):
            build(raw, tmp_path / "out2", configs=["open_vocab_unknown"], workers=1)

    def test_a_picture_in_both_splits_is_one_of_the_release(self, tmp_path: Path) -> None:
        raw = RawTreeWriter().sound("bed").lists("bed", ("a", "v"), ("v",)).folder(tmp_path / "raw")
        found = build(raw, tmp_path / "out", configs=["pose"], workers=1)
        assert (found.pictures, found.objects) == (2, 2)
        train = found.books.accounts["pose", "train"]
        assert (train.read, train.written, dict(train.left_out)) == (2, 1, {"list_both_splits": 1})

    def test_corrections_from_a_pipe_are_refused_plainly(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        raw = RawTreeWriter().sound("bed").folder(tmp_path / "raw")
        keep_open = os.open(tmp_path / "pipe", os.O_RDWR)
        try:
            with pytest.raises(ReleaseError, match="pipe: a pipe, which can be read only once; write it"):
                build(raw, tmp_path / "out", corrections=[str(tmp_path / "pipe")], workers=1)
        finally:
            os.close(keep_open)

    def test_strict_writes_no_card(self, sample_folder: Path, tmp_path: Path) -> None:
        with pytest.raises(BuildError, match="findings, so no card was written"):
            build(str(sample_folder), tmp_path / "out", configs=["pose"], workers=1, strict=True)
        assert not (tmp_path / "out" / "README.md").exists()


def image_id_of(raw: Path) -> str:
    """Of any picture of a release."""
    return survey(RawTree(str(raw))).entries["train"][0].image_id


def padded_release(folder: Path, pictures: int) -> Path:
    """A raw tree of so many pictures of 100 KB, no two the same bytes."""
    stems = [f"n{number:05d}" for number in range(pictures)]
    tree = RawTreeWriter().lists("bed", stems)
    tree.folder(folder)
    for kind in ("images", "annotations"):
        (folder / TOP / kind / "bed").mkdir(parents=True)
    picture, annotation = encoded(), npz(an_object())
    for number, stem in enumerate(stems):
        comment = b"\xff\xfe" + (50_000).to_bytes(2, "big") + number.to_bytes(49_998, "big")
        padded = picture[:2] + comment + comment + picture[2:]
        (folder / TOP / f"images/bed/{stem}.JPEG").write_bytes(padded)
        (folder / TOP / f"annotations/bed/{stem}.npz").write_bytes(annotation)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak has another unit")
def test_memory_does_not_grow_with_the_release(tmp_path: Path) -> None:
    """The most that any process of a build holds: four times the pictures take no more."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'processing', 'build', *sys.argv[1:]], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    peaks = []
    for pictures in (500, 2_000):
        raw, out = padded_release(tmp_path / f"raw-{pictures}", pictures), tmp_path / f"out-{pictures}"
        command = [sys.executable, "-c", code, str(raw), str(out), "--config", "pose", "--workers", "2"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1000)
        shutil.rmtree(raw)
        shutil.rmtree(out)
    few, many = peaks  # MB
    assert many < few + 25
    assert many < 400


class TestCommandLine:
    def test_build_prints_the_closing_table(self, sample_folder: Path, tmp_path: Path) -> None:
        done = run("build", sample_folder, tmp_path / "out", "--config", "pose", "--workers", 1)
        assert done.returncode == 0, done.stderr
        assert "rows are" in done.stdout
        assert "picture_unlisted" in done.stdout
        assert "build:" not in done.stderr, "no progress bar in a log"

    def test_problems_are_1_and_wrong_usage_is_2(self, tmp_path: Path) -> None:
        nowhere = run("build", tmp_path / "nowhere", tmp_path / "out")
        assert nowhere.returncode == 1
        assert "no such folder or zip" in nowhere.stderr
        assert "Traceback" not in nowhere.stderr
        out = str(tmp_path / "out")
        for wrong in (["build", str(tmp_path), out, "--workers", "0"], ["no-such-command"]):
            assert CliRunner().invoke(main, wrong).exit_code == 2

    @pytest.mark.parametrize("size", ["abc", "0MB", "-5MB", "0.5MB"])
    def test_a_shard_size_that_is_none(self, size: str, sample_folder: Path, tmp_path: Path) -> None:
        result = CliRunner().invoke(
            main, ["build", str(sample_folder), str(tmp_path / "out"), "--shard-size", size]
        )
        assert result.exit_code == 2
        assert f"'{size}' is no size" in result.output
        assert not (tmp_path / "out").exists()

    def test_strict_is_1(self, sample_folder: Path, tmp_path: Path) -> None:
        options = ["--config", "pose", "--workers", "1", "--strict"]
        done = CliRunner().invoke(main, ["build", str(sample_folder), str(tmp_path / "out"), *options])
        assert done.exit_code == 1
        assert isinstance(done.exception, SystemExit), "no traceback"

    def test_every_command_has_help(self) -> None:
        listed = run("--help").stdout.split("Commands:")[1]
        names = [line.split()[0] for line in listed.splitlines() if re.match(r"  \w", line)]
        assert {"sample", "build", "evaluate"} <= set(names)
        for name in names:  # in this process: starting eight others takes ten seconds
            shown = CliRunner().invoke(main, [name, "--help"])
            assert (shown.exit_code, "Usage:" in shown.output) == (0, True)
