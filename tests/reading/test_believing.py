"""The release is believed: what the columns can hold comes out as the row with those values, bit for bit."""

import copy
import json
import math
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.loading import run_jobs
from support.raw_tree import RawTreeWriter, npz, npz_of, object_array, without_dimensions

import ImageNet3D
from ImageNet3D import ANGLES, POSE_FIELDS, RawTree, read_annotation, read_pictures, survey
from processing.__main__ import main
from processing.build.command import build
from processing.ledger import alarms
from processing.verify.command import verify

# --------------------------------------------------------------------------------------------------------
# Any annotation made of values that the columns can hold
# --------------------------------------------------------------------------------------------------------

SCALARS: list[Callable[[Any], Any]] = [
    lambda value: value,
    np.array,
    lambda value: np.array([value]),
    lambda value: np.array([[value]]),
    lambda value: object_array([value]),
    lambda value: np.array(np.array(value), object),
    lambda value: [value],
    lambda value: (np.array(value),),
]


def finite(width: int) -> st.SearchStrategy[float]:
    return st.floats(allow_nan=False, allow_infinity=False, width=width)


def typed(values: st.SearchStrategy[Any], *codes: str) -> st.SearchStrategy[tuple[Any, float]]:
    """(a number as numpy has it, of one of these types and either byte order; its value)."""
    orders = st.tuples(values, st.sampled_from(codes), st.sampled_from("<>"))
    return orders.map(lambda v: (np.array(v[0], v[2] + v[1])[()], float(v[0])))


NUMBERS = st.one_of(
    finite(64).map(lambda value: (value, value)),
    typed(finite(64), "f8"),
    typed(finite(32), "f4"),
    typed(finite(16), "f2"),
    st.integers(-(2**53), 2**53).map(lambda value: (value, float(value))),
    typed(st.integers(-128, 127), "i1", "i2", "i4", "i8"),
    typed(st.integers(0, 255), "u1", "u2", "u4", "u8"),
)
WRAPPED = st.tuples(NUMBERS, st.sampled_from(SCALARS)).map(lambda v: (v[1](v[0][0]), v[0][1]))
ABSENT = st.sampled_from([(..., None), (None, None), (np.array(None), None)])
WORDS = st.sampled_from([str, str.upper, lambda word: f" {word}\n", np.str_, np.bytes_, np.array])


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Any, list[float]]:
    """A box in one of the ways to write four numbers, and these."""
    numbers = draw(st.lists(NUMBERS, min_size=4, max_size=4))
    values = [value for _, value in numbers]
    array = np.array(values, draw(st.sampled_from(["<f8", ">f8", object])))
    shape = draw(st.sampled_from([(4,), (1, 4), (4, 1)]))
    of_any = [draw(st.sampled_from(SCALARS))(number) for number, _ in numbers]
    return draw(st.sampled_from([array.reshape(shape), of_any, tuple(of_any), [of_any], values])), values


@st.composite
def objects(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """(an object's dict, its row)."""
    box, values = draw(boxes())
    fields = {
        "bbox": box,
        "class": draw(st.sampled_from(["bed", np.array("bed"), "Bett", 7, None, "x" * 99])),
    }
    row: dict[str, Any] = {"bbox": values}
    for name in POSE_FIELDS:
        fields[name], row[name] = draw(st.one_of(WRAPPED, WRAPPED, WRAPPED, ABSENT))
    index = draw(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)))
    kind = draw(st.sampled_from([int, float, np.int64, np.array]))
    fields["cad_index"], row["cad_index"] = None if index is None else kind(index), index
    status = draw(st.sampled_from([None, *ImageNet3D.OBJECT_STATUS]))
    start = draw(st.sampled_from(["status_", ""]))
    fields["object_status"] = None if status is None else draw(WORDS)(start + status)
    dense = draw(st.sampled_from([None, True, False]))
    word = draw(st.sampled_from(["dense_", ""])) + ("yes" if dense else "no")
    fields["dense"] = None if dense is None else draw(st.one_of(WORDS.map(lambda f: f(word)), st.just(dense)))
    fields["ignore"] = draw(st.sampled_from([..., None, 0, 1, True, np.uint8(3)]))
    fields["annotator"], fields["occluded"] = "Erika Mustermann", draw(st.sampled_from([0, "yes", [1, 2]]))
    row |= {"object_status": status, "dense": dense}
    return {name: value for name, value in fields.items() if value is not ...}, row


def bits(value: Any) -> Any:
    """What two values must have in common: of numbers every bit, so that -0.0 is not 0.0."""
    if isinstance(value, list | tuple):
        return [bits(item) for item in value]
    return struct.pack("<d", value) if isinstance(value, float) else value


def collected(count: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Some objects of all kinds, the same every time."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []

    @settings(
        max_examples=count, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(objects())
    def collect(made: tuple[dict[str, Any], dict[str, Any]]) -> None:
        found.append(made)

    collect()
    return found


@pytest.fixture(scope="module")
def tree() -> tuple[RawTreeWriter, dict[str, dict[str, Any]]]:
    """A tree of pictures with one object each, and the object's row by image id."""
    writer, rows = RawTreeWriter(), {}
    for number, (item, row) in enumerate(collected(120)):
        writer.picture("bed", f"n{number}").annotation("bed", f"n{number}", item)
        rows[f"bed/n{number}"] = {"object_index": 0, **row}
    stems = [image_id.partition("/")[2] for image_id in rows]
    return writer.lists("bed", stems[:90], stems[90:]).captions(categories={"bed": "to sleep in"}), rows


def check_rows(splits: dict[str, list[dict[str, Any]]], config: str, rows: dict[str, dict[str, Any]]) -> None:
    """All rows of a config are there, with the values of the annotations."""
    found: dict[str, dict[str, Any]] = {}
    for row in (row for split in splits.values() for row in split):
        assert row["image_id"] not in found
        if config == "captions":
            (row_of_object,) = row["objects"]
            found[row["image_id"]] = row_of_object
        else:
            assert row["category"] == "bed"
            found[row["image_id"]] = {name: row[name] for name in rows[row["image_id"]]}
    posed = {i: row for i, row in rows.items() if None not in [row[name] for name in ANGLES]}
    wanted = posed if config == "pose" else rows
    assert found.keys() == wanted.keys()
    for image_id, row in wanted.items():
        for name, value in row.items():
            assert bits(found[image_id][name]) == bits(value), (image_id, name)


@pytest.fixture(scope="module")
def places(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tree as a folder, as a zip and built."""
    folder = tmp_path_factory.mktemp("believed")
    raw = tree[0].zip(folder / "raw.zip")
    build(raw, folder / "built", configs=["pose", "captions"], workers=1)
    return {"zip": raw, "folder": tree[0].folder(folder / "tree"), "shards": str(folder / "built")}


@pytest.mark.parametrize("version", ["newest", pytest.param("3.6", marks=pytest.mark.slow)])
def test_any_value_that_the_columns_can_hold(
    version: str, tree: Any, places: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    python = sys.executable if version == "newest" else request.getfixturevalue("datasets3_python")
    from_raw = "builder" if version == "newest" else "script"
    jobs = [
        {
            "way": "load_dataset" if place == "shards" else from_raw,
            "path": path,
            "config": config,
            "streaming": False,
            "captions": None,
            "cache": str(tmp_path / "cache"),
            "out": str(tmp_path / f"{place}-{config}.json"),
        }
        for place, path in places.items()
        for config in ("pose", "captions")
    ]
    run_jobs(python, jobs, tmp_path, {})
    for job in jobs:
        check_rows(json.loads(Path(job["out"]).read_text("utf-8")), job["config"], tree[1])


def test_the_annotator_reaches_nothing(places: dict[str, str]) -> None:
    """Not a byte of what is written; the cards of the objects all name her."""
    written = [file for file in Path(places["shards"]).rglob("*") if file.is_file()]
    assert len(written) > 5
    for file in written:
        data = file.read_bytes()
        assert b"Erika" not in data, file
        assert b"Mustermann" not in data, file
    ledger = (Path(places["shards"]) / ".build" / "ledger.jsonl").read_text("utf-8").splitlines()
    keys = [json.loads(line)["value"] for line in ledger if "key_unknown" in line]
    assert keys == ["occluded: 120 objects"]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tree whose objects all name their annotator, and are odd, so that there is much to say."""
    writer = RawTreeWriter()
    name = "Erika Mustermann"
    odd: list[dict[str, Any]] = [{}, {"ignore": 1}, {"bbox": None}, {"cad_index": 77}, {"azimuth": math.nan}]
    odd += [{"annotator": np.array(name)}, {"annotator": {name: name}}, {"annotator": [name], "bbox": [1, 2]}]
    for number, (change, (item, _)) in enumerate(zip(odd, collected(len(odd)), strict=True)):
        writer.picture("bed", f"n{number}").annotation("bed", f"n{number}", {**item, **change}, [name], name)
    stems = [f"n{number}" for number in range(len(odd))]
    return writer.lists("bed", stems[:5], [*stems[5:], "missing"]).folder(tmp_path_factory.mktemp("signed"))


@pytest.mark.parametrize(
    "command", ["build RAW OUT --workers 1", "check RAW --workers 1", "check RAW --json --workers 1",
                "annotate RAW --corrections FILE --report",
                "annotate RAW --corrections FILE --report --json"],
)  # fmt: skip
def test_the_annotator_is_in_nothing_that_is_printed(command: str, signed: str, tmp_path: Path) -> None:
    places = {"RAW": str(signed), "OUT": str(tmp_path / "out"), "FILE": str(tmp_path / "fixes.jsonl")}
    Path(places["FILE"]).touch()
    result = CliRunner().invoke(main, [places.get(word, word) for word in command.split()])
    assert result.exit_code == 0, result.output
    assert len(result.output_bytes) > 100
    for told in (result.output_bytes, result.stderr_bytes):
        assert b"erika" not in told.lower()
        assert b"mustermann" not in told.lower()


def in_rows(items: list[Any], order: Any) -> np.ndarray:
    array = np.empty((2, len(items) // 2), object, order=order)
    for number, item in enumerate(items):
        array[divmod(number, len(items) // 2)] = item
    return array


# how -> an array that holds the same objects as the release's would
OTHER_ARRAYS: dict[str, Callable[[list[Any]], np.ndarray]] = {
    "a list, without dimensions": without_dimensions,
    "a tuple, without dimensions": lambda items: without_dimensions(tuple(items)),
    "an array, without dimensions": lambda items: without_dimensions(object_array(items)),
    "one row": lambda items: object_array(items).reshape(1, -1),
    "one column": lambda items: object_array(items).reshape(-1, 1),
    "two rows": lambda items: in_rows(items, "C"),
    "two rows, as Fortran has them": lambda items: in_rows(items, "F"),
}


@pytest.mark.parametrize("how", OTHER_ARRAYS)
def test_an_array_of_other_dimensions_holds_the_same_objects(how: str) -> None:
    items = [item for item, _ in collected(6)]
    expected = ImageNet3D.read_annotation_bytes(npz(*items))
    assert len(expected) == 6
    found = ImageNet3D.read_annotation_bytes(npz_of(annotations=OTHER_ARRAYS[how](items)))
    assert repr(as_plain(found)) == repr(as_plain(expected))  # NaN differs from itself


def test_an_array_without_dimensions_may_hold_one_object() -> None:
    ((item, _),) = collected(1)
    expected = ImageNet3D.read_annotation_bytes(npz(item))
    found = ImageNet3D.read_annotation_bytes(npz_of(annotations=without_dimensions(item)))
    assert repr(as_plain(found)) == repr(as_plain(expected))
    many = without_dimensions([item] * (ImageNet3D.MAX_OBJECTS + 1))
    with pytest.raises(ImageNet3D.Unusable) as caught:
        ImageNet3D.read_annotation_bytes(npz_of(annotations=many))
    assert caught.value.reason == "annotation_too_large"


def as_plain(value: Any) -> Any:
    """What was read, with the stand-ins of arrays as their shapes and items."""
    if hasattr(value, "items") and hasattr(value, "shape"):
        return value.shape, [as_plain(item) for item in value.items]
    if isinstance(value, dict):
        return {key: as_plain(item) for key, item in value.items()}
    return [as_plain(item) for item in value] if isinstance(value, list | tuple) else value


@settings(max_examples=75, deadline=None, derandomize=True, database=None)
@given(made=st.lists(objects(), min_size=1, max_size=3))
def test_any_value_as_it_is_read(made: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    raw = ImageNet3D.read_annotation_bytes(npz(*(item for item, _ in made)))
    release = ImageNet3D.Release(None, {}, {})
    entry = ImageNet3D.Entry("bed/a", "train")
    findings: list[ImageNet3D.Finding] = []
    annotation = ImageNet3D.check_objects(release, entry, raw, findings)
    assert annotation.num_objects == len(annotation.objects) == len(made)
    for found, (_, row) in zip(annotation.objects, made, strict=True):
        for name, value in row.items():
            assert bits(getattr(found, name)) == bits(value), name
    assert not [f for f in findings if f.decision == ImageNet3D.LEFT_OUT or "Erika" in f.value]


# --------------------------------------------------------------------------------------------------------
# A release written otherwise than its README says
# --------------------------------------------------------------------------------------------------------


def as_the_tool_writes(item: dict[str, Any]) -> None:
    for name in ANGLES:
        if item.get(name) is not None:
            item[name] = (float(item[name]) + math.pi) % (2 * math.pi) - math.pi


def as_numpy_loads(item: dict[str, Any]) -> None:
    item.update({name: np.array(value) for name, value in item.items()})


def without_viewport(item: dict[str, Any]) -> None:
    item.pop("viewport", None)


def spelled_otherwise(item: dict[str, Any]) -> None:
    item["class"] = str(item["class"]).replace("_", " ").title()


def turned_round(item: dict[str, Any]) -> None:
    x1, y1, x2, y2 = item["bbox"]
    item["bbox"] = [x2, y2, x1, y1]


def in_degrees(item: dict[str, Any]) -> None:
    for name in ANGLES:
        if item.get(name) is not None:
            item[name] = math.degrees(item[name])


# how -> (what becomes of one object, of which share, the reason that counts it)
REWRITTEN: dict[str, tuple[Callable[[dict[str, Any]], None], int, str]] = {
    "angles from -180 to 180 degrees": (as_the_tool_writes, 1, "angle_outside_range"),
    "values as 0-d arrays": (as_numpy_loads, 1, ""),
    "no viewport in one of five": (without_viewport, 5, "place_missing"),
    "class spelled otherwise": (spelled_otherwise, 1, "class_differs"),
    "boxes turned round": (turned_round, 1, "bbox_inverted"),
    "angles in degrees": (in_degrees, 1, "angle_beyond_two_turns"),
}


def annotations(tree: Path) -> Iterator[tuple[Path, np.ndarray]]:
    """The annotation files of an unpacked tree of our own, loaded with full power."""
    for file in sorted(tree.glob("annotations/*/*.npz")):
        yield file, np.load(file, allow_pickle=True)["annotations"]


def posed_objects(tree: Path) -> tuple[dict[tuple[str, int], Any], list[ImageNet3D.Finding]]:
    found, findings, posed = survey(RawTree(str(tree))), [], {}
    for entry in (entry for split in found.entries.values() for entry in split):
        for item in read_annotation(found.release, entry, findings).objects:
            if item.posed:
                posed[entry.image_id, item.index] = item
    return posed, findings


@pytest.fixture(scope="module", params=["sample", "real_folder"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A tree that a test may change its copy of, and its posed objects; the shared sample is an extra."""
    if request.param == "sample":
        folder = request.getfixturevalue("sample_folder")
    else:
        folder = request.getfixturevalue("real_folder") / "imagenet3d_v1"
    return folder, posed_objects(folder)[0]


@pytest.mark.parametrize("how", REWRITTEN)
def test_a_release_written_otherwise_keeps_its_posed_objects(how: str, base: Any, tmp_path: Path) -> None:
    folder, expected = base
    change, share, reason = REWRITTEN[how]
    tree = tmp_path / "tree"
    shutil.copytree(folder / "lists", tree / "lists")
    (tree / "images").mkdir()  # annotations are read without them
    number = changed = 0
    for file, items in annotations(folder):
        items = [copy.copy(item) for item in items]
        for item in items:
            if number % share == 0:
                change(item)
                changed += 1
            number += 1
        target = tree / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(npz(*items))
    assert changed > 10
    posed, findings = posed_objects(tree)
    assert posed.keys() == expected.keys()
    assert len(posed) > 50
    if reason:
        assert sum(finding.reason == reason for finding in findings) > 5
    if how == "values as 0-d arrays":
        assert posed == expected
    counts: dict[str, int] = {}
    for image_id, _ in posed:
        counts[image_id.partition("/")[0]] = counts.get(image_id.partition("/")[0], 0) + 1
    said = "\n".join(alarms(findings, counts))
    assert ("LOOK LIKE DEGREES" in said) == (how == "angles in degrees")


def test_without_captions_of_pictures_every_picture_of_a_captioned_category_has_a_row(
    sample_folder: Path, tmp_path: Path
) -> None:
    tree = shutil.copytree(sample_folder, tmp_path / "tree")
    (tree / "captions" / "image_captions.json").unlink()
    of_categories = json.loads((tree / "captions" / "category_captions.json").read_text("utf-8"))
    found = survey(RawTree(str(tree)))
    assert found.has_captions
    pictures = list(read_pictures(found.release, "captions", found.entries["train"], []))
    rows = ImageNet3D.rows("captions", pictures, found.release).to_pylist()
    readable = {
        p.entry.image_id for p in read_pictures(found.release, "classification", found.entries["train"], [])
    }
    expected = {image_id for image_id in readable if image_id.partition("/")[0] in of_categories}
    assert {row["image_id"] for row in rows} == expected
    assert 0 < len(expected) < len(readable)
    assert {row["caption"] for row in rows} == {None}
    assert all(row["category_caption"] == of_categories[row["image_id"].partition("/")[0]] for row in rows)


# --------------------------------------------------------------------------------------------------------
# Pictures whose objects nobody knows
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"not an npz"], ids=["missing", "damaged"])
def test_a_picture_without_a_readable_annotation_keeps_the_rows_that_can_hold_it(
    content: bytes | None, tmp_path: Path
) -> None:
    writer = RawTreeWriter().sound("bed", ("a", "b"), ("v",)).captions(None, {"bed": "A bed."})
    writer.files.pop("annotations/bed/b.npz")
    if content is not None:
        writer.files["annotations/bed/b.npz"] = content
    raw = writer.zip(tmp_path / "raw.zip")
    found = survey(RawTree(raw))

    def rows(config: str) -> list[dict[str, Any]]:
        pictures = list(read_pictures(found.release, config, found.entries["train"], []))
        return ImageNet3D.rows(config, pictures, found.release).to_pylist()

    assert {row["image_id"]: row["num_objects"] for row in rows("classification")} == {
        "bed/a": 1,
        "bed/b": None,
    }
    assert {row["image_id"]: len(row["objects"]) for row in rows("captions")} == {"bed/a": 1, "bed/b": 0}
    assert [row["image_id"] for row in rows("pose")] == ["bed/a"]

    out = tmp_path / "out"
    report = build(raw, out, workers=1)
    report.books.check()
    assert report.books.accounts["classification", "train"].written == 2
    assert report.books.accounts["pose", "train"].read == 1
    assert [p for p in verify(str(out), raw=raw) if not p.is_note] == []
