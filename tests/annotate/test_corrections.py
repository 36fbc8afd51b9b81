"""Corrections: what a line may say, what it is held against, and the rows that it makes."""

import json
import math
import random
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import jsonschema
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from support import PROJECT
from support.raw_tree import RawTreeWriter, an_object, bounded

import ImageNet3D
from ImageNet3D import (
    CORRECTED_FIELDS,
    OBJECT_STATUS,
    CorrectionError,
    RawTree,
    Unusable,
    corrections_text,
    parse_correction,
    read_annotation,
    read_corrections,
    survey,
)
from processing.__main__ import main
from processing.build.command import build
from processing.crop.command import write_crop_tree
from processing.verify.command import verify

SCHEMA = json.loads((PROJECT / "docs" / "corrections.schema.json").read_text("utf-8"))
WHEN = "2026-11-28T09:30:00Z"

# What the object of `an_object` is in the release.
RELEASED = {
    "azimuth": 1.0,
    "elevation": 0.5,
    "theta": 0.25,
    "distance": 5.0,
    "px": 30.5,
    "py": 24.25,
    "viewport": 3000.0,
    "cad_index": 1,
    "bbox": [10.0, 8.0, 50.0, 40.0],
    "object_status": "good",
    "dense": False,
}
# Another value for each.
OTHER = {
    "azimuth": -2.5,
    "elevation": 0.1 + 0.2,
    "theta": None,
    "distance": 7.25,
    "px": 31.0,
    "py": -3.5,
    "viewport": 2500.0,
    "cad_index": None,
    "bbox": [1.5, 2.5, 40.0, 41.25],
    "object_status": "barely",
    "dense": True,
}


def line(operation="set", image_id="bed/a", object_index=0, when=WHEN, why="looked at it", **more):
    """A correction, as JSON would have it."""
    said = {"operation": operation, "image_id": image_id, "object_index": object_index}
    return {**said, "when": when, "why": why, **more}


def set_(*names, **more):
    """A correction of some fields to the values of OTHER."""
    values = {"old": {name: RELEASED[name] for name in names}, "new": {name: OTHER[name] for name in names}}
    return line(**{**values, **more})


def written(path, *lines):
    """A file of these lines."""
    path.write_text("".join(f"{json.dumps(item)}\n" for item in lines), "utf-8")
    return str(path)


@pytest.fixture
def tree(tmp_path):
    """A raw tree with the picture bed/a, which has two objects and a third that is no object."""
    writer = RawTreeWriter().sound("bed")
    writer.annotation("bed", "a", an_object(), an_object(bbox=[1.0, 1.0, 9.0, 9.0]), "no dict")
    return RawTree(writer.folder(tmp_path / "raw"))


def objects(tree, file, image_id="bed/a", findings=None):
    """The objects of a picture under corrections, by their index."""
    found = survey(tree, corrections=file)
    entry = next(e for entries in found.entries.values() for e in entries if e.image_id == image_id)
    annotation = read_annotation(found.release, entry, [] if findings is None else findings)
    return {item.index: item for item in annotation.objects}


# --------------------------------------------------------------------------------------------------------
# What they do
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CORRECTED_FIELDS)
def test_each_field_is_set_to_the_last_bit(tree, tmp_path, name):
    item = objects(tree, written(tmp_path / "c", set_(name)))[0]
    expected = tuple(OTHER[name]) if name == "bbox" else OTHER[name]
    assert getattr(item, name) == expected
    plain = objects(tree, ())[0]
    changed = {n for n in CORRECTED_FIELDS if getattr(item, n) != getattr(plain, n)}
    assert changed == {name}


def test_an_object_is_left_out_taken_back_and_added(tree, tmp_path):
    early, late = (
        line("leave_out", when="2026-01-01T00:00:00Z"),
        line("take_back", when="2026-01-01T00:00:00.5Z"),
    )
    assert list(objects(tree, written(tmp_path / "c", early))) == [1]
    assert list(objects(tree, written(tmp_path / "c", late, early))) == [0, 1]
    new = {"bbox": [2, 3, 4, 5], "azimuth": 1}
    added = objects(tree, written(tmp_path / "c", line("add", object_index=3, new=new)))
    assert list(added) == [0, 1, 3]
    assert (added[3].bbox, added[3].azimuth, added[3].object_status) == ((2.0, 3.0, 4.0, 5.0), 1.0, None)


def test_an_object_without_a_box_gets_one(tmp_path):
    writer = RawTreeWriter().sound("bed").annotation("bed", "a", an_object(bbox=...))
    tree = RawTree(writer.folder(tmp_path / "raw"))
    assert not objects(tree, ())
    file = written(tmp_path / "c", line(old={"bbox": None}, new={"bbox": [1, 2, 3, 4]}))
    assert objects(tree, file)[0].bbox == (1.0, 2.0, 3.0, 4.0)


def test_the_later_wins_field_by_field_and_it_is_said(tree, tmp_path):
    one = set_("azimuth", "px", who="A", when="2026-11-28T09:30:00.25Z")
    other = {**set_("azimuth", who="B", when="2026-11-28T09:30:01Z"), "new": {"azimuth": 2.0}}
    findings = []
    item = objects(tree, written(tmp_path / "c", other, one), findings=findings)[0]
    assert (item.azimuth, item.px) == (2.0, OTHER["px"])
    said = [f for f in findings if f.reason == "correction_overruled"]
    assert [f.value for f in said] == ["azimuth at 2026-11-28T09:30:01Z"]
    assert sum(f.reason == "corrected" for f in findings) == 2
    # One's own later reading is no disagreement.
    objects(tree, written(tmp_path / "c", {**other, "who": "A"}, one), findings=(again := []))
    assert not [f for f in again if f.reason == "correction_overruled"]


def test_any_order_of_lines_gives_the_same_bytes_and_objects(tree, tmp_path):
    lines = [
        {**set_("azimuth", who=who), "new": {"azimuth": value}}
        for who, value in (("A", 1.5), ("B", 2), ("C", 3))
    ]
    lines += [line("leave_out", object_index=1), line("take_back", object_index=1), set_("dense")]
    seen = set()
    for seed in range(12):
        random.Random(seed).shuffle(lines)
        file = written(tmp_path / "c", *lines)
        found = survey(tree, corrections=file)
        text = corrections_text(read_corrections([file, file]))
        seen.add((text, found.fingerprint, str(objects(tree, file))))
    assert len(seen) == 1
    # What is published reads as itself.
    published = tmp_path / "corrections.jsonl"
    published.write_text(text, "utf-8")
    assert corrections_text(read_corrections(str(published))) == text


def test_no_corrections_leave_the_key_as_it_is_and_others_change_it(tree, tmp_path):
    keys = [survey(tree).fingerprint]
    for lines in ([], [set_("px")], [set_("py")], [set_("px", why="another reason")]):
        keys.append(ImageNet3D.fingerprint(tree, None, written(tmp_path / "c", *lines)))
        assert keys[-1] == survey(tree, corrections=str(tmp_path / "c")).fingerprint
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


# --------------------------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------------------------

BAD_LINES = {
    "no JSON": ("{", "not JSON"),
    "not an object": ([1], "not a JSON object"),
    "a key twice": ('{"operation": "set", "operation": "add"}', "a key stands twice"),
    "infinity": (json.dumps(set_("px")).replace("31.0", "Infinity"), "Infinity is no number"),
    "an overflow": (json.dumps(set_("px")).replace("31.0", "1e400"), "px is inf"),
    "operation": (line("remove"), "operation is remove; write one of set, leave_out, take_back, add"),
    "missing": ({"operation": "leave_out", "image_id": "bed/a"}, "lacks object_index, when, why"),
    "unknown key": (line("leave_out", color=1), "unknown key color"),
    "annotator": (line("leave_out", annotator="A. Name"), "unknown key annotator"),
    "old of add": (line("add", old={}, new={"bbox": [1, 2, 3, 4]}), "unknown key old"),
    "image_id": (line("leave_out", image_id="a"), "<category>/<file stem>"),
    "object_index": (line("leave_out", object_index=True), "object_index is True"),
    "when": (line("leave_out", when="2026-11-28 09:30"), "write a time in UTC"),
    "no such day": (line("leave_out", when="2026-02-30T00:00:00Z"), "write a time in UTC"),
    "why": (line("leave_out", why=" "), "why is"),
    "escape": (line("leave_out", who="\x1b]0;x\x07"), r"who is \x1b"),
    "too long": (line("leave_out", why="x" * 2001), "at most 2000"),
    "huge": (line("leave_out", why="x" * 70000), "longer than 65536 bytes"),
    "no values": (line(old={}, new={}), "different fields, or none"),
    "other fields": (line(old={"px": 1}, new={"py": 1}), "different fields"),
    "unknown field": (line(old={"zoom": 1}, new={"zoom": 2}), "unknown field zoom"),
    "degrees": ({**set_("azimuth"), "new": {"azimuth": 90}}, "azimuth is 90; write null or a number from"),
    "distance": ({**set_("distance"), "new": {"distance": 0}}, "distance is 0"),
    "cad_index": ({**set_("cad_index"), "new": {"cad_index": 1.5}}, "cad_index is 1.5"),
    "bbox": ({**set_("bbox"), "new": {"bbox": [4, 1, 2, 3]}}, "x1 < x2"),
    "status": (
        {**set_("object_status"), "new": {"object_status": "status_good"}},
        "object_status is status_good",
    ),
    "dense": ({**set_("dense"), "new": {"dense": 1}}, "dense is 1; write true, false or null"),
    "old": (line(old={"px": "1"}, new={"px": 1}), "old px is 1, which no release has"),
    "no bbox": (line("add", new={"azimuth": 1}), "needs a bbox"),
}


def test_every_bad_line_is_named_with_its_remedy_all_at_once(tmp_path):
    texts = [bad if type(bad) is str else json.dumps(bad) for bad, _ in BAD_LINES.values()]
    file = tmp_path / "bad.jsonl"
    file.write_text("\n".join(texts), "utf-8")
    with pytest.raises(CorrectionError) as raised:
        read_corrections(str(file))
    head, *problems = str(raised.value).split("\n")
    assert head == f"{len(texts)} corrections cannot be applied:"
    for number, (problem, (_, expected)) in enumerate(zip(problems, BAD_LINES.values(), strict=True), 1):
        assert problem.startswith(f"{file}, line {number}: ")
        assert expected in problem
        assert problem.isprintable()


def test_lines_for_another_release_are_named_all_at_once(tree, tmp_path):
    lines = [
        {**set_("px", "dense"), "old": {"px": 30.500000000000004, "dense": True}},
        set_("px"),
        line("leave_out", object_index=3),
        line("leave_out", image_id="bed/nowhere"),
        set_("px", object_index=2),
        line("add", object_index=5, new={"bbox": [1, 2, 3, 4]}),
        line("leave_out", object_index=2),
    ]
    with pytest.raises(CorrectionError) as raised:
        survey(tree, corrections=written(tmp_path / "c", *lines))
    problems = str(raised.value).split("\n")[1:]
    expected = [
        (1, "old px is 30.500000000000004, and the release has 30.5; it was made for another release"),
        (1, "old dense is true, and the release has false"),
        (3, "there is no such object; the picture has 3"),
        (4, "no list of the release names the picture"),
        (5, "the release has no values there that could be corrected"),
        (6, "an object that is added gets the next free index, 3 here"),
    ]
    for problem, (number, text) in zip(problems, expected, strict=True):
        assert f"c, line {number}: bed/" in problem
        assert text in problem


def test_two_people_who_add_an_object_get_two_indices(tree, tmp_path):
    added = [line("add", object_index=3, new={"bbox": [1, 2, 3, x]}) for x in (4, 5)]
    with pytest.raises(CorrectionError, match="next free index, 4 here"):
        survey(tree, corrections=written(tmp_path / "c", *added))


def test_the_command_line_says_what_is_wrong_and_builds_nothing(tree, tmp_path):
    file = written(tmp_path / "c", line("leave_out", object_index=9))
    result = CliRunner().invoke(main, ["build", tree.path, str(tmp_path / "out"), "--corrections", file])
    assert result.exit_code == 1
    assert "there is no such object; the picture has 3" in result.output
    assert not list((tmp_path / "out").glob("*/*.parquet"))
    result = CliRunner().invoke(main, ["build", tree.path, str(tmp_path / "out"), "--corrections", "none"])
    assert result.exit_code == 1
    assert "none: no such file of corrections" in result.output


def test_an_annotation_that_cannot_be_read_cannot_be_corrected(tmp_path):
    writer = RawTreeWriter().sound("bed")
    writer.files["annotations/bed/a.npz"] = b"damaged"
    with pytest.raises(CorrectionError, match="cannot be used: annotation_not_npz"):
        survey(RawTree(writer.folder(tmp_path / "raw")), corrections=written(tmp_path / "c", set_("px")))


# --------------------------------------------------------------------------------------------------------
# The schema
# --------------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.none(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**40), 2**40),
    st.sampled_from([0, -0.0, 4 * math.pi, 4 * math.pi + 1e-9, 1e6, 1e6 + 1, 2**31 - 1, 2**31]),
)  # fmt: skip
VALUES = st.one_of(
    NUMBERS,
    st.sampled_from([*OBJECT_STATUS, "status_good"]),
    st.text(max_size=3),
    st.lists(NUMBERS, max_size=5),
)
TEXTS = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["", " ", "a\n", "x" * 101]),
)


SOUND = (
    *(set_(*CORRECTED_FIELDS), set_("px"), line("leave_out"), line("take_back")),
    line("add", object_index=2, new={"bbox": [1, 2, 3, 4]}),
)


@st.composite
def lines(draw):
    """A sound line with something changed, or nothing."""
    said = deepcopy(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.integers(0, 2))):
        part = draw(st.sampled_from([said, *(said[k] for k in ("new", "old") if type(said.get(k)) is dict)]))
        names = st.sampled_from([*said, *CORRECTED_FIELDS, "who", "reviewed", "zoom"])
        match draw(st.sampled_from(["drop", "value", "text"])):
            case "drop":
                part.pop(draw(names), None)
            case "value":
                part[draw(names)] = draw(VALUES)
            case "text":
                part[draw(st.sampled_from(["who", "why", "when", "image_id"]))] = draw(TEXTS)
    return said


VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    new, old = (SCHEMA["$defs"][name]["properties"] for name in ("new", "old"))
    assert set(new) == set(old) == set(CORRECTED_FIELDS)
    assert SCHEMA["properties"]["operation"]["enum"] == list(ImageNet3D.CORRECTION_OPERATIONS)


@settings(bounded, max_examples=75)
@given(lines())
def test_the_schema_says_what_the_code_takes(said):
    """But for what a schema cannot say: the order of a box's corners, and equal names in old and new."""
    try:
        parse_correction(json.dumps(said))
        accepted, why = True, ""
    except ValueError as error:
        accepted, why = False, str(error)
    by_schema = VALIDATOR.is_valid(said)
    beyond = ("different fields, or none" in why and said["new"]) or "x1 < x2" in why
    assert by_schema == accepted or (by_schema and beyond), why


# --------------------------------------------------------------------------------------------------------
# The same rows everywhere
# --------------------------------------------------------------------------------------------------------


def a_hundred_corrections(raw: str) -> list[dict]:
    """Of every operation and field, spread over the posed objects of a release."""
    found, generator, lines = survey(RawTree(raw)), random.Random(0), []
    for entry in (e for entries in found.entries.values() for e in entries):
        try:
            annotation = read_annotation(found.release, entry, [])
        except Unusable:
            continue
        key = {"image_id": entry.image_id}
        for item in filter(lambda item: item.posed, annotation.objects):
            names = generator.sample(CORRECTED_FIELDS, 3)
            old = {n: list(item.bbox) if n == "bbox" else getattr(item, n) for n in names}
            new = {n: OTHER[n] if n not in ("theta", "cad_index") else 1 for n in names}
            said = {**key, "object_index": item.index, "old": old, "new": new}
            lines.append(line(**said, when=f"2026-11-28T{generator.randrange(24):02d}:30:00Z"))
        if generator.random() < 0.3:
            lines.append(line("leave_out", **key))
        if generator.random() < 0.1:
            lines.append(line("take_back", **key, when="2026-12-01T00:00:00Z"))
        if generator.random() < 0.4:
            new = {**OTHER, "theta": 0.5, "cad_index": 1}
            lines.append(line("add", **key, object_index=annotation.num_objects, new=new, who="A. Name"))
    assert len(lines) >= 100
    return lines


@pytest.fixture(scope="module")
def corrected(sample_folder, tmp_path_factory):
    """The file, and the built folder, of the synthetic tree with a hundred corrections."""
    folder = tmp_path_factory.mktemp("corrected")
    file = written(folder / "fixed.jsonl", *a_hundred_corrections(str(sample_folder)))
    report = build(
        str(sample_folder),
        folder / "out",
        configs=["pose", "classification", "captions"],
        corrections=[file],
        workers=1,
    )
    return file, folder / "out", report


@pytest.mark.slow
def test_build_and_builder_on_both_versions_give_the_same_rows(
    corrected, sample_folder, datasets3_python, tmp_path
):
    file, out, _ = corrected
    common = {"streaming": False, "captions": None}
    raw = {**common, "path": str(sample_folder), "corrections": file}
    jobs = {
        sys.executable: [("builder", raw), ("folder", {**common, "path": str(out)})],
        str(datasets3_python): [("script", raw)],
    }
    running = []
    for number, (python, ways) in enumerate(jobs.items()):
        plan = [
            {"way": way, "config": "pose", **rest, "cache": str(tmp_path / f"cache{number}"),
             "out": str(tmp_path / f"{way}.json")}
            for way, rest in ways
        ]  # fmt: skip
        (tmp_path / f"jobs{number}.json").write_text(json.dumps(plan), "utf-8")
        command = [python, PROJECT / "tests" / "support" / "load_rows.py", tmp_path / f"jobs{number}.json"]
        running.append(subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    key = lambda row: (row["image_id"], row["object_index"])  # noqa: E731
    found = [
        json.loads((tmp_path / f"{way}.json").read_text("utf-8")) for way in ("builder", "folder", "script")
    ]
    ordered = [{split: sorted(rows, key=key) for split, rows in way.items()} for way in found]
    assert ordered[0] == ordered[1] == ordered[2]
    assert ordered[0]["train"]


def test_the_rows_have_what_the_corrections_say(corrected, sample_folder):
    file, out, report = corrected
    rows = {(r["image_id"], r["object_index"]): r for r in pq.read_table(out / "pose").to_pylist()}
    changed = [c for c in read_corrections(file) if c.operation in ("set", "add")]
    gone = {(c.image_id, c.object_index) for c in read_corrections(file) if c.operation != "set"} - set(rows)
    for correction in changed:
        key = correction.image_id, correction.object_index
        if key in gone:
            continue
        for name, value in correction.new.items():
            found = rows[key][name]
            assert (OBJECT_STATUS[found] if name == "object_status" else found) == value
    assert report.books.accounts["pose", "train"].left_out["corrected_left_out"] > 0
    reasons = [f.reason for _, f in report.findings]
    assert reasons.count("corrected") == len(read_corrections(file))


def test_the_folder_publishes_them_and_verifies_with_the_raw_release(corrected, sample_folder):
    file, out, _ = corrected
    assert (out / "corrections.jsonl").read_text("utf-8") == corrections_text(read_corrections(file))
    assert "corrections.jsonl" in json.loads((out / "imagenet3d_manifest.json").read_text("utf-8"))["files"]
    assert "## Errata" in (out / "README.md").read_text("utf-8")
    assert verify(out, str(sample_folder), workers=1) == []


def test_crops_follow(tree, tmp_path):
    file = written(tmp_path / "c", set_("distance"), line("leave_out", object_index=1))
    write_crop_tree(tree.path, tmp_path / "crops", workers=1, corrections=[file])
    crops = [path.name for path in (tmp_path / "crops/train/images/bed").iterdir()]
    assert crops == ["a_00.JPEG"]


def test_strict_takes_corrections_for_no_fault(tmp_path):
    tree = RawTree(RawTreeWriter().sound("bed").folder(tmp_path / "raw"))
    file = written(tmp_path / "c", set_("px"))
    build(tree.path, tmp_path / "out", configs=["object_centric"], corrections=[file], strict=True, workers=1)
    assert (tmp_path / "out/README.md").exists()
    # Somebody goes on with the published file, which the next build would write anew.
    with (tmp_path / "out/corrections.jsonl").open("a") as published:
        published.write("{}\n")
    found = [p for p in verify(tmp_path / "out", workers=1) if p.code == "checksum_differs"]
    assert [problem.file for problem in found] == ["corrections.jsonl"]
    assert "to a file of your own" in found[0].what
    # Without them again: nothing of them is left.
    build(tree.path, tmp_path / "out", configs=["object_centric"], workers=1)
    assert not (tmp_path / "out/corrections.jsonl").exists()


def test_a_correction_says_where_it_stands_and_is_equal_wherever(tmp_path):
    one, other = (read_corrections(written(tmp_path / name, set_("px")))[0] for name in ("a", "b"))
    assert (one.file, one.line) == (str(tmp_path / "a"), 1)
    assert one == other == replace(one, line=7)
