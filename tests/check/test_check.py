"""`check` names each way in which a release differs from what this code assumes, and nobody who made it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from support.raw_tree import RawTreeWriter, an_object, bounded, damaged, npz

import ImageNet3D
from ImageNet3D import REASONS
from processing.__main__ import main
from processing.check.command import check
from processing.check.report import Check
from processing.check.tally import RANGES, range_of
from processing.check.values import MOST_KEYS, MOST_KINDS, Profile, kind_of

ONE_CATEGORY = {"categories_are_there"}  # what differs in any small tree


def sound(objects: int = 5) -> RawTreeWriter:
    """A tree as documented: two categories, pictures with one object each, captions of both kinds."""
    writer = RawTreeWriter()
    for category in ("bed", "cup"):
        stems = [f"n0_{number}" for number in range(objects)]
        writer.sound(category, tuple(stems[1:]), tuple(stems[:1]))
    ids = {f"{category}/n0_{number}": "of <obj0>" for category in ("bed", "cup") for number in range(objects)}
    return writer.captions(ids, {"bed": "to lie on", "cup": "to drink from"})


def rewritten(change: Callable[[int, dict[str, Any]], dict[str, Any]]) -> RawTreeWriter:
    """The same, with each object changed; the change gets its number."""
    writer = sound()
    names = sorted(name for name in writer.files if name.startswith("annotations/"))
    for number, name in enumerate(names):
        writer.files[name] = npz(change(number, an_object(name.split("/")[1])))
    return writer


def looked_at(writer: RawTreeWriter, folder: Path) -> Check:
    return check(writer.folder(folder), workers=1)


def differing(found: Check) -> dict[str, str]:
    """Code of an assumption that does not hold -> what was found."""
    assert len({a.code for a in found.assumptions}) == len(found.assumptions)
    return {a.code: a.found for a in found.differing if a.code not in ONE_CATEGORY}


def as_the_tool_writes(number: int, item: dict[str, Any]) -> dict[str, Any]:
    return item | {"azimuth": math.radians(-90 + number), "elevation": math.radians(10), "theta": -0.1}


WAYS: dict[str, tuple[Callable[[int, dict[str, Any]], dict[str, Any]], dict[str, str]]] = {
    "angles as the tool writes them": (as_the_tool_writes, {"angles_as_documented": "sliders"}),
    "some angles went round": (
        lambda number, item: item | {"theta": 9.0},
        {"angles_as_documented": "theta: of any size"},
    ),
    "degrees": (
        lambda number, item: item | {"azimuth": 270.0 - number, "elevation": 20.0},
        {"angles_are_radians": "LOOK LIKE DEGREES in bed (5 of 5 objects)", "angles_as_documented": "100%"},
    ),
    "arrays of no dimension": (
        lambda number, item: {key: np.array(value) for key, value in item.items()},
        {"values_are_plain": "azimuth is array () of float64 (10)"},
    ),
    "arrays of one value": (
        lambda number, item: item | {"distance": np.array([5.0], np.float32)},
        {"values_are_plain": "distance is array (1,) of float32 (10)"},
    ),
    "no viewport in one of five": (
        lambda number, item: item if number % 5 else {k: v for k, v in item.items() if k != "viewport"},
        {"keys_are_there": "viewport (2)"},
    ),
    "no angle": (
        lambda number, item: item | {"azimuth": None},
        {"keys_are_there": "azimuth (10)", "objects_are_whole": "pose_incomplete 10"},
    ),
    "class spelled otherwise": (
        lambda number, item: item | {"class": item["class"].title()},
        {"class_is_folder": "class_differs 10: Bed, Cup"},
    ),
    "boxes turned round": (
        lambda number, item: item | {"bbox": [50.0, 40.0, 10.0, 8.0]},
        {"boxes_are_upright": "bbox_inverted 10"},
    ),
    "boxes elsewhere": (
        lambda number, item: item | {"bbox": [500.0, 40.0, 510.0, 48.0]},
        {"boxes_are_on_the_picture": "bbox_outside 10"},
    ),
    "no box": (
        lambda number, item: item | {"bbox": None},
        {"keys_are_there": "bbox (10)", "objects_are_whole": "bbox_missing 10"},
    ),
    "keys that nobody knows": (
        lambda number, item: item | {"truncated": 1, "weather": "fog"},
        {"keys_are_known": "truncated (10), weather (10)"},
    ),
    "another word for good": (
        lambda number, item: item | {"object_status": "status_fine"},
        {"labels_are_known": "status_unknown 10"},
    ),
    "no such mesh": (
        lambda number, item: item | {"cad_index": 7},
        {"meshes_are_there": "cad_mesh_missing 10"},
    ),
}  # fmt: skip


class TestAssumptions:
    def test_a_release_as_documented_differs_in_nothing(self, tmp_path: Path) -> None:
        found = looked_at(sound(), tmp_path)
        assert differing(found) == {}
        assert not found.tally.reasons
        assert found.to_dict()["totals"] == {
            "pictures": 10,
            "objects": 10,
            "posed_objects": 10,
            "rows_of_pose": 10,
            "never_placed_in_depth": 0,
            "meshes": 2,
            "meshes_never_referred_to": 0,
        }

    @pytest.mark.parametrize("way", WAYS)
    def test_names_each_way_and_no_other(self, way: str, tmp_path: Path) -> None:
        change, expected = WAYS[way]
        found = looked_at(rewritten(change), tmp_path)
        differs = differing(found)
        assert differs.keys() == expected.keys()
        for code, words in expected.items():
            assert words in differs[code]
            assert words in " ".join(str(found).split())

    def test_names_captions_that_are_not_there(self, tmp_path: Path) -> None:
        writer = sound()
        del writer.files["captions/image_captions.json"]
        assert set(differing(looked_at(writer, tmp_path / "a"))) == {"pictures_have_captions"}
        del writer.files["captions/category_captions.json"]
        both = {"pictures_have_captions", "categories_have_captions"}
        assert set(differing(looked_at(writer, tmp_path / "b"))) == both

    def test_names_lists_that_differ_from_files(self, tmp_path: Path) -> None:
        writer = sound()
        del writer.files["images/bed/n0_1.JPEG"]
        del writer.files["annotations/bed/n0_2.npz"]
        writer.files["images/cup/n0_1.JPEG"] = b""
        writer.lists("cup", ["n0_1", "n0_2"], ["n0_0", "n0_2"])
        found = looked_at(writer, tmp_path)
        assert found.tally.reasons["picture_missing"].example == "images/bed/n0_1.JPEG"
        counts = {code: item.count for code, item in found.tally.reasons.items()}
        assert counts == {
            "picture_missing": 1,
            "picture_empty": 1,
            "annotation_missing": 1,
            "list_both_splits": 1,
            "picture_unlisted": 2,
        }
        totals = found.to_dict()["totals"]
        assert (totals["objects"], totals["rows_of_pose"]) == (9, 5)

    def test_names_damaged_annotations(self, tmp_path: Path) -> None:
        writer = sound()
        writer.files["annotations/bed/n0_1.npz"] = b"no zip"
        writer.files["annotations/cup/n0_1.npz"] = npz()[:100]
        assert "annotation_not_npz 2" in differing(looked_at(writer, tmp_path))["annotations_are_readable"]

    def test_the_same_from_a_zip_and_with_workers(self, tmp_path: Path) -> None:
        writer = rewritten(as_the_tool_writes)
        here = looked_at(writer, tmp_path / "raw").to_dict()
        assert check(writer.zip(tmp_path / "raw.zip"), workers=2).to_dict() == here


class TestWhatIsTold:
    def test_no_person_no_caption_no_path(self, tmp_path: Path) -> None:
        secret = "Erika Mustermann"
        names = {"annotator": secret, "annotator_id": 777_123, "edited_by": np.array(secret), "theta": secret}
        writer = rewritten(lambda number, item: item | names | {"object_status": f"{secret}: good"})
        writer.captions({"bed/n0_1": secret, secret: 5}, {"bed": secret, "cup": 7})
        found = looked_at(writer, tmp_path / "home of erika")
        for told in (str(found), json.dumps(found.to_dict())):
            assert secret.split()[1] not in told
            assert "777" not in told
            assert str(tmp_path) not in told
            assert "annotator_id" in told

    def test_keys_have_types_ranges_and_shares(self, tmp_path: Path) -> None:
        found = looked_at(rewritten(lambda number, item: item | {"px": np.float32(number)}), tmp_path)
        keys = found.to_dict()["keys"]
        assert keys["px"]["kinds"] == {"numpy float32": 10}
        assert (keys["px"]["low"], keys["px"]["high"]) == (0.0, 9.0)
        assert keys["height"]["kinds"] == {"numpy uint16": 10}
        assert keys["object_status"]["words"] == {"status_good": 10}
        assert keys["bbox"]["kinds"] == {"list of 4 (float)": 10}

    def test_counts_are_those_of_the_reader(self, sample_folder: Path) -> None:
        found = check(str(sample_folder), workers=1)
        survey = ImageNet3D.survey(ImageNet3D.RawTree(str(sample_folder)))
        annotations = []
        for entries in survey.entries.values():
            for entry in entries:
                try:
                    annotations.append(ImageNet3D.read_annotation(survey.release, entry, []))
                except ImageNet3D.Unusable:
                    continue
        posed = sum(item.posed for annotation in annotations for item in annotation.objects)
        listed = [group for (split, _), group in found.tally.groups.items() if split]
        assert sum(group.posed for group in listed) == posed > 0
        assert sum(group.objects for group in listed) == sum(a.num_objects for a in annotations)
        assert set(found.tally.reasons) <= set(REASONS)

    def test_command_prints_both_forms(self, tmp_path: Path) -> None:
        raw = sound().folder(tmp_path)
        text = CliRunner().invoke(main, ["check", raw, "--workers", "1"])
        assert text.exit_code == 0, text.output
        assert "WHAT THIS CODE ASSUMES" in text.output
        machine = CliRunner().invoke(main, ["check", raw, "--workers", "1", "--json"])
        assert json.loads(machine.output)["totals"]["objects"] == 10
        missing = CliRunner().invoke(main, ["check", str(tmp_path / "nowhere")])
        assert missing.exit_code == 1
        assert "nowhere" in missing.output

    def test_writes_nothing(self, tmp_path: Path) -> None:
        raw = Path(sound().folder(tmp_path / "raw"))
        for path in raw.rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
        check(str(raw), workers=2)
        assert {path: path.stat().st_mtime_ns for path in raw.rglob("*")} == before
        for path in [raw, *raw.rglob("*")]:
            path.chmod(0o755)


class TestValues:
    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            (None, "null"),
            (True, "bool"),
            (1, "int"),
            ("a", "text"),
            ([1.0, 2.0], "list of 2 (float)"),
            ((), "tuple of 0"),
            (np.float16(1), "numpy float16"),
            (np.array(1.0), "array () of float64"),
            (np.array(1.0, ">f8"), "array () of float64 (big-endian)"),
            (np.array([[1, 2]]), "array (1, 2) of int64"),
            (np.array("word"), "array () of text"),
            (np.array([None, 1]), "array (2,) of objects"),
            ([np.float32(1)] * 4, "list of 4 (numpy float32)"),
        ],
    )
    def test_kinds(self, value: Any, kind: str) -> None:
        (item,) = ImageNet3D.read_annotation_bytes(npz({"key": value}))
        assert kind_of(item["key"]) == kind

    @given(angle=st.floats(allow_nan=False, allow_infinity=False))
    def test_every_angle_has_a_range(self, angle: float) -> None:
        names = [name for name, _ in RANGES]
        number = names.index(range_of(angle))
        assert angle <= RANGES[number][1]
        assert not number or angle >= RANGES[number - 1][1]

    def test_hostile_keys_and_kinds_are_bounded(self) -> None:
        profile = Profile()
        for number in range(2 * MOST_KEYS):
            profile.add({f"key {number}": 1, "px": [0] * number, "\x1b[31m": 1})
        assert len(profile) <= MOST_KEYS + 2
        assert len(profile["px"].kinds) <= MOST_KINDS + 1
        assert profile["px"].kinds.total() == profile["px"].objects == 2 * MOST_KEYS
        assert not any("\x1b" in key for key in profile)

    @bounded
    @given(data=damaged(npz(an_object("bed"), an_object("bed"))))
    def test_damaged_files_are_counted(self, data: bytes) -> None:
        try:
            raw = ImageNet3D.read_annotation_bytes(data)
        except ImageNet3D.Unusable:
            return
        profile = Profile()
        for item in raw:
            if type(item) is dict:
                profile.add(item)
        json.dumps({key: found.to_dict() for key, found in profile.items()})
