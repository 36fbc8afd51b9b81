"""The command `crop`: the layout as training code reads it, every field, and going on where it stopped."""

import json
import re
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.raw_tree import RawTreeWriter, an_object

import ImageNet3D
from ImageNet3D import RawTree
from processing.__main__ import main
from processing.accounts import CROP_RULES, NAME_TOO_LONG
from processing.crop.command import write_category, write_crop_tree
from processing.crop.files import HIDDEN
from processing.crop.npz import npz
from processing.crop.place import CropOptions
from processing.run import BuildError, Run, read_run
from processing.runtime.store import half_written
from processing.runtime.strict import DamagedError

pytestmark = pytest.mark.slow

OPTIONS = CropOptions("center", (96, 80))  # width and height

NUMBER, PAIR, BOX, SIX = (), (2,), (4,), (6,)
FIELDS = {
    **dict.fromkeys(["bbox", "bbox_original"], ("f8", BOX)),
    **dict.fromkeys(["principal", "principal_original"], ("f8", PAIR)),
    **dict.fromkeys(["padding_params", "cropping_params"], ("f8", SIX)),
    **dict.fromkeys(["px", "py", "px_original", "py_original"], ("f8", NUMBER)),
    **dict.fromkeys(["distance", "distance_original", "resize_rate"], ("f8", NUMBER)),
    **dict.fromkeys(["azimuth", "elevation", "theta", "viewport"], ("f8", NUMBER)),
    **dict.fromkeys(["cad_index", "focal", "height", "width"], ("i8", NUMBER)),
}


class TrainingReader:
    """Reads crops in the way of training code in the wild: categories and names from lists, by string."""

    def __init__(self, root, split, categories=None):
        self.folder = Path(root) / split
        self.categories = sorted(categories or [path.name for path in (self.folder / "images").iterdir()])
        self.samples = []
        for number, category in enumerate(self.categories):
            text = (self.folder / "lists" / category / "mesh01.txt").read_text()
            self.samples += [(number, category, name) for name in text.strip().split("\n")]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, item):
        number, category, name = self.samples[item]
        image = Image.open(self.folder / "images" / category / f"{name}.JPEG").convert("RGB")
        fields = dict(np.load(self.folder / "annotations" / category / f"{name}.npz", allow_pickle=True))
        angles = {key: float(fields[key]) for key in ("azimuth", "elevation", "theta", "distance")}
        return {"name": name, "img": np.array(image), "cate": number, "cate_name": category, **angles}, fields


@pytest.fixture(scope="module")
def tree(sample_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("tree") / "crops"
    return out, write_crop_tree(str(sample_folder), out, OPTIONS, workers=1)


def files_of(folder):
    """Path -> bytes of all that is not bookkeeping."""
    paths = [path for split in ("train", "val") for path in (folder / split).rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def annotated(sample_folder, category, name):
    """The object of the raw tree that a crop's name means."""
    stem, _, index = name.rpartition("_")
    path = sample_folder / "annotations" / category / f"{stem}.npz"
    return np.load(path, allow_pickle=True)["annotations"][int(index)], stem


@pytest.mark.parametrize("split", ["train", "val"])
def test_training_code_reads_it(tree, sample_folder, split):
    out, report = tree
    reader = TrainingReader(out, split)
    name = {"train": "train", "val": "validation"}[split]
    assert len(reader) == report.report.books.accounts["object_centric", name].written > 5
    for sample, fields in (reader[i] for i in range(len(reader))):
        raw, stem = annotated(sample_folder, sample["cate_name"], sample["name"])
        listed = (sample_folder / "lists" / f"{sample['cate_name']}_imagenet_{split}.txt").read_text()
        assert stem in listed.split()
        assert sample["img"].shape == (80, 96, 3)
        assert sample["distance"] == pytest.approx(4.0)
        assert sample["azimuth"] == raw["azimuth"]
        assert raw["object_status"] != "status_bad"
        assert fields["distance_original"] == raw["distance"] > 0


def test_every_field(tree, sample_folder):
    out, _ = tree
    sample, fields = TrainingReader(out, "train")[0]
    assert fields.keys() == {*FIELDS, "name", "class"}
    assert {key: (fields[key].dtype.str[1:], fields[key].shape) for key in FIELDS} == FIELDS
    assert (str(fields["name"]), str(fields["class"])) == (sample["name"], sample["cate_name"])
    raw, stem = annotated(sample_folder, sample["cate_name"], sample["name"])
    for key in ("azimuth", "elevation", "theta", "viewport", "cad_index", "focal"):
        assert fields[key] == raw[key]
    for key in ("px", "py", "distance"):
        assert fields[f"{key}_original"] == raw[key]
    assert np.array_equal(fields["bbox_original"], raw["bbox"])
    with Image.open(sample_folder / "images" / sample["cate_name"] / f"{stem}.JPEG") as image:
        width, height = image.size

    # Code in the wild inverts a crop with the padding and cropping of top and left.
    rate, padding, cropping = (fields[key] for key in ("resize_rate", "padding_params", "cropping_params"))
    shift = (padding - cropping)[[2, 0, 2, 0]]
    assert (fields["bbox"] - shift) / rate == pytest.approx(raw["bbox"])
    assert (fields["principal"] - shift[:2]) / rate == pytest.approx((raw["px"], raw["py"]))
    # Resized, padded and cut, the picture has the crop's size.
    assert (fields["width"], fields["height"]) == (96, 80)
    assert height * rate + (padding - cropping)[:2].sum() == pytest.approx(80)
    assert width * rate + (padding - cropping)[2:4].sum() == pytest.approx(96)
    assert min(padding) >= 0
    assert min(cropping) >= 0


def test_only_what_is_in_the_lists_is_there(tree):
    out, _ = tree
    for split in ("train", "val"):
        reader = TrainingReader(out, split)
        names = {(category, name) for _, category, name in reader.samples}
        for kind, ending in (("images", "JPEG"), ("annotations", "npz")):
            paths = (out / split / kind).rglob("*.*")
            assert {(path.parent.name, path.name.removesuffix(f".{ending}")) for path in paths} == names
    assert half_written(out) == []


def test_lists_keep_the_order_of_the_release(tmp_path):
    """Seeded shuffles, and predictions in rows, of the authors' code depend on it."""
    raw = RawTreeWriter().sound("bed", ("m", "z", "a"), ("y", "b"))
    raw.annotation("bed", "z", an_object(), an_object())
    write_crop_tree(raw.folder(tmp_path / "raw"), tmp_path / "crops", OPTIONS, workers=1)
    lists = {split: tmp_path / f"crops/{split}/lists/bed/mesh01.txt" for split in ("train", "val")}
    assert lists["train"].read_text() == "m_00\nz_00\nz_01\na_00"
    assert lists["val"].read_text() == "y_00\nb_00"


def test_what_an_annotation_lacks_is_no_obstacle(tmp_path):
    """Neither viewport nor mesh is needed; what a crop needs is counted where it is missing."""
    items = [an_object(viewport=..., cad_index=...), an_object(px=...), an_object(distance=...)]
    raw = RawTreeWriter().sound("bed").annotation("bed", "a", *items, an_object(px=1e5))
    report = write_crop_tree(raw.folder(tmp_path / "raw"), tmp_path / "crops", OPTIONS, workers=1).report
    account = report.books.account("object_centric", "train")
    lost = {"centre_missing": 1, "distance_not_positive": 1, "crop_empty": 1}
    assert {code: count for code, count in account.left_out.items() if code in CROP_RULES} == lost
    _, fields = TrainingReader(tmp_path / "crops", "train")[0]
    assert np.isnan(fields["viewport"])
    assert fields["cad_index"] == 0


def test_an_empty_split_of_a_category_is_reported(tree):
    out, report = tree
    assert any(report.lacking.values())
    for split, categories in report.lacking.items():
        for category in categories:
            assert not (out / split / "lists" / category).exists()
            assert not (out / split / "images" / category).exists()
            assert category in str(report)


def test_zip_workers_and_a_second_run_make_no_difference(tree, sample_folder, tmp_path):
    archive = tmp_path / "raw.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(sample_folder.rglob("*")):
            target.write(path, path.relative_to(sample_folder))
    again = tmp_path / "crops"
    write_crop_tree(str(archive), again, OPTIONS, workers=2)
    assert files_of(again) == files_of(tree[0])
    before = {path: path.stat().st_mtime_ns for path in again.rglob("*.JPEG")}
    report = write_crop_tree(str(archive), again, OPTIONS, workers=1)
    assert {path: path.stat().st_mtime_ns for path in again.rglob("*.JPEG")} == before
    assert str(report) == str(tree[1])
    assert "replaced" not in str(report)


@pytest.mark.parametrize("harm", ["half-written", "truncated", "changed", "unmarked", "unlisted"])
def test_going_on_repairs_what_is_damaged(tree, sample_folder, tmp_path, harm):
    out = tmp_path / "crops"
    shutil.copytree(tree[0], out)
    category = sorted((out / "train" / "images").iterdir())[0].name
    marker = out / ".crop" / "done" / f"train-{category}.json"
    picture = next((out / "train" / "images" / category).iterdir())
    if harm == "half-written":
        marker.unlink()
        (picture.parent / f".{'0' * 32}.unfinished").write_bytes(picture.read_bytes()[:100])
        shutil.rmtree(out / "train" / "annotations" / category)
    elif harm == "truncated":
        picture.write_bytes(picture.read_bytes()[:10])
    elif harm == "changed":
        picture.write_bytes(picture.read_bytes()[:-9] + b"\0" * 9)
    elif harm == "unmarked":
        marker.write_text("{")
    else:
        shutil.rmtree(out / "train" / "lists" / category)
    write_crop_tree(str(sample_folder), out, OPTIONS, workers=1)
    assert files_of(out) == files_of(tree[0])


def test_two_workers_at_one_category_do_each_other_no_harm(tree, sample_folder, tmp_path):
    """One that was taken for dead goes on beside the one that was given its task."""
    out = tmp_path / "crops"
    shutil.copytree(tree[0], out)
    survey = ImageNet3D.survey(RawTree(str(sample_folder)))
    work = Run(out, read_run(out, HIDDEN).key, HIDDEN)
    entries = [e for e in survey.entries["train"] if e.category == survey.entries["train"][0].category]
    entries.sort(key=lambda e: e.position)
    name = f"train-{entries[0].category}"
    for _ in range(5):
        work.marker(name).unlink()
        with ThreadPoolExecutor(2) as pool:
            attempts = [pool.submit(write_category, survey.release, entries, OPTIONS, work) for _ in range(2)]
            results = [attempt.result() for attempt in attempts]
        assert results[0] == results[1] == work.finished(name)
        assert files_of(out) == files_of(tree[0])
        assert half_written(out) == []


def test_names_that_are_too_long_are_counted(tmp_path):
    stem = "n" * 248  # .JPEG behind it is 253 bytes, and _00.JPEG three too many
    raw = RawTreeWriter().sound("bed", (stem, "a")).folder(tmp_path / "raw")
    report = write_crop_tree(raw, tmp_path / "crops", OPTIONS, workers=1).report
    account = report.books.account("object_centric", "train")
    assert account.left_out == {NAME_TOO_LONG: 1}
    assert account.written == 1
    assert [path.name for path in (tmp_path / "crops/train/images/bed").iterdir()] == ["a_00.JPEG"]


class TestWhatIsThere:
    """Nothing that no crop made is removed or replaced, and no crops without being told."""

    SMALL = CropOptions("fit", (64, 48))

    def test_other_crops_are_refused_before_anything_is_touched(self, tree, sample_folder, tmp_path):
        out = tmp_path / "crops"
        shutil.copytree(tree[0], out)
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        with pytest.raises(
            BuildError, match=r"holds center crops of 96x80 at distance 4 in \d+ files.*--replace"
        ):
            write_crop_tree(str(sample_folder), out, self.SMALL, workers=1)
        near = CropOptions("center", (96, 80), 4.0000001)
        with pytest.raises(BuildError, match=r"at distance 4 in .* would be .* at distance 4\.0000001,"):
            write_crop_tree(str(sample_folder), out, near, workers=1)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        done = write_crop_tree(str(sample_folder), out, self.SMALL, workers=1, replace=True)
        assert "are replaced" in str(done)
        assert {Image.open(path).size for path in out.rglob("*.JPEG")} == {(64, 48)}
        same = CropOptions("fit", (64, 48), 5.0)  # which have no distance of their own
        assert "replaced" not in str(write_crop_tree(str(sample_folder), out, same, workers=1))

    def test_strangers_stay(self, tree, sample_folder, tmp_path):
        """Beside the crops, and right among them."""
        out = tmp_path / "crops"
        shutil.copytree(tree[0], out)
        category = sorted((out / "train" / "images").iterdir())[0].name
        strangers = ["train/features.npy", "val/mine/notes.txt", f"train/images/{category}/mine.JPEG"]
        strangers += [f"train/images/{category}/mine.npz", "README.md"]
        for name in strangers:
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_bytes(b"mine")
        (out / ".crop" / "done" / f"train-{category}.json").unlink()
        for options, replace in ((OPTIONS, False), (self.SMALL, True), (OPTIONS, True)):
            write_crop_tree(str(sample_folder), out, options, workers=1, replace=replace)
            assert all((out / name).read_bytes() == b"mine" for name in strangers)
        for name in strangers:
            (out / name).unlink()
        assert files_of(out) == files_of(tree[0])

    def test_a_stranger_in_the_way_is_named(self, sample_folder, tree, tmp_path):
        name = next(str(path) for path in files_of(tree[0]) if path.suffix == ".JPEG")
        out = tmp_path / "crops"
        (out / ".crop").mkdir(parents=True)
        (out / name).parent.mkdir(parents=True)
        (out / name).write_bytes(b"mine")
        with pytest.raises(BuildError, match=f"{re.escape(name)}: is in the way of a crop"):
            write_crop_tree(str(sample_folder), out, OPTIONS, workers=1)
        assert (out / name).read_bytes() == b"mine"

    def test_what_an_interruption_left_is_known(self, sample_folder, tmp_path, monkeypatch):
        """Also where no marker tells of it yet."""
        out = tmp_path / "crops"

        def interrupted(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Run, "finish", interrupted)
            with pytest.raises(KeyboardInterrupt):
                write_crop_tree(str(sample_folder), out, OPTIONS, workers=1)
        assert files_of(out)
        write_crop_tree(str(sample_folder), out, self.SMALL, workers=1, replace=True)
        assert {Image.open(path).size for path in out.rglob("*.JPEG")} == {(64, 48)}

    def test_links_to_another_disk_are_followed(self, tree, sample_folder, tmp_path):
        out, elsewhere = tmp_path / "crops", tmp_path / "elsewhere"
        elsewhere.mkdir()
        (out / ".crop").mkdir(parents=True)
        (out / "train").symlink_to(elsewhere)
        for options in (OPTIONS, self.SMALL, OPTIONS):
            write_crop_tree(str(sample_folder), out, options, workers=1, replace=True)
        assert (out / "train").is_symlink()
        assert files_of(out) == files_of(tree[0])

    def test_a_folder_of_someone_else_is_refused(self, sample_folder, tmp_path):
        strange = tmp_path / "thesis"
        strange.mkdir()
        (strange / "thesis.tex").write_text("years of work")
        with pytest.raises(BuildError, match="another folder"):
            write_crop_tree(str(sample_folder), strange, OPTIONS, workers=1)
        assert [path.name for path in strange.iterdir()] == ["thesis.tex"]
        with pytest.raises(BuildError, match="is a file, or a link that leads nowhere; name"):
            write_crop_tree(str(sample_folder), strange / "thesis.tex", OPTIONS, workers=1)

    @pytest.mark.parametrize("name", ["../../precious", "/etc/passwd", 7])
    def test_a_list_that_leads_elsewhere_is_damage(self, tree, sample_folder, tmp_path, name):
        out = tmp_path / "crops"
        shutil.copytree(tree[0], out)
        (tmp_path / "precious").write_text("years of work")
        next((out / ".crop/names").iterdir()).write_text(json.dumps([name]))
        with pytest.raises(DamagedError, match="names"):
            write_crop_tree(str(sample_folder), out, self.SMALL, workers=1, replace=True)
        assert (tmp_path / "precious").exists()


def test_npz_is_what_numpy_writes(tmp_path):
    fields = {
        "name": np.array("n02818832_13_00"),
        "bbox": np.arange(4.0),
        "cad_index": np.array(3),
        "empty": np.zeros((0, 2), np.float32),
        "flag": np.array(True),
    }
    path = tmp_path / "ours.npz"
    path.write_bytes(npz(fields))
    np.savez(tmp_path / "numpys.npz", **fields)
    with zipfile.ZipFile(path) as ours, zipfile.ZipFile(tmp_path / "numpys.npz") as numpys:
        assert ours.testzip() is None
        assert ours.namelist() == numpys.namelist()
        for name in ours.namelist():
            assert ours.read(name) == numpys.read(name)
            assert ours.getinfo(name).date_time == (1980, 1, 1, 0, 0, 0)
    with np.load(path) as loaded:
        assert all(np.array_equal(loaded[name], value) for name, value in fields.items())


def test_command_line(sample_folder, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(main, ["crop", *arguments, "--workers", "1"])

    out = str(tmp_path / "crops")
    done = run(str(sample_folder), out, "--mode", "fit", "--size", "32x24")
    assert done.exit_code == 0, done.output
    assert "status_bad" in done.stdout
    assert Image.open(next(Path(out).rglob("*.JPEG"))).size == (32, 24)
    assert run(str(sample_folder), out, "--size", "32").exit_code == 1
    for size in ("0", "32x", "-3", "10x5000"):
        assert run(str(sample_folder), out, "--size", size).exit_code == 2
    assert run(str(tmp_path / "nowhere"), str(tmp_path / "other")).exit_code == 1
