"""Captions in the forms people publish: what a text belongs to is told by values, not by names of fields."""

import json
import shutil
from pathlib import Path

import pytest
from support.raw_tree import RawTreeWriter

from ImageNet3D import RawTree, ReleaseError, Survey, survey

A, B, V = "bed/n02818832_1", "bed/n02818832_2", "car/n02958343_1"
TEXTS = {A: "a bed by a window", B: "two beds", V: "an old car"}
OF_CATEGORIES = {"bed": "furniture to sleep in", "car": "a road vehicle"}


def a_tree() -> RawTreeWriter:
    tree = RawTreeWriter().sound("bed", ("n02818832_1", "n02818832_2"), ())
    return tree.sound("car", ("n02958343_1",), ("both",)).sound("boat", ("both",), ())


def read(tmp_path: Path, *files: tuple[str, object]) -> Survey:
    """The survey with these files in captions/; what is no text is written as JSON."""
    tree = a_tree()
    for name, content in files:
        text = content if isinstance(content, str) else json.dumps(content)
        tree.files[f"captions/{name}"] = text.encode()
    return survey(RawTree(tree.zip(tmp_path / "raw.zip")))


def captions(found: Survey) -> dict[str, str]:
    entries = [entry for split in found.entries.values() for entry in split]
    return {entry.image_id: entry.caption for entry in entries if entry.caption is not None}


def reasons(found: Survey) -> list[tuple[str, str, str]]:
    return [(f.reason, f.file, f.value) for f in found.findings if f.reason.startswith("caption_")]


def lines(records: list[object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


# name -> content of a file that says TEXTS
OF_PICTURES = {
    "dict": TEXTS,
    "dict with endings": {f"{key}.JPEG": text for key, text in TEXTS.items()},
    "dict of paths": {f"images/{key}.JPEG": text for key, text in TEXTS.items()},
    "dict of stems": {key.partition("/")[2]: text for key, text in TEXTS.items()},
    "dict of records": {key: {"text": text, "model": "gpt"} for key, text in TEXTS.items()},
    "dict of lists": {key: [text, "short"] for key, text in TEXTS.items()},
    "dict of categories": {
        "bed": {"n02818832_1": TEXTS[A], "n02818832_2.JPEG": TEXTS[B]},
        "car": {"n02958343_1": TEXTS[V]},
    },
    "records": [{"image_id": key, "caption": text} for key, text in TEXTS.items()],
    "records of any names": [
        {"a": "x", "b": text, "c": f"{key}.JPEG", "d": 7} for key, text in TEXTS.items()
    ],
    "records of category and stem": [
        {"category": key.partition("/")[0], "file": key.partition("/")[2], "text": text}
        for key, text in TEXTS.items()
    ],
    "records of one pair": [{key: text} for key, text in TEXTS.items()],
    "pairs": [[key, text] for key, text in TEXTS.items()],
    "dict of splits": {"train": {A: TEXTS[A], B: TEXTS[B]}, "val": {"n02958343_1": TEXTS[V]}},
    "dict of dicts": {"captions": {f"imagenet3d_v1/images/{key}.JPEG": text for key, text in TEXTS.items()}},
    "dict of lists in categories": {"bed": {A: [TEXTS[A]], "n02818832_2": [TEXTS[B]]}, V: TEXTS[V]},
    "paths of elsewhere": [
        {"file": f"/data/{key.partition('/')[2]}.JPEG", "text": text} for key, text in TEXTS.items()
    ],
    "records in a dict": {"version": "1.0.0", "data": [{"i": key, "t": text} for key, text in TEXTS.items()]},
    "lines": lines([{"image": key, "caption": text} for key, text in TEXTS.items()]),
    "lines of pairs": lines([{key: text} for key, text in TEXTS.items()]),
}


# What stands beside a caption in records of GPT-4v and of ImageNet; each is longer than it.
BESIDE = {
    "synset": "n02958343, auto, automobile, machine, motorcar",
    "model": "gpt-4-vision-preview",
    "prompt": "Describe the object in the box in one sentence.",
    "image_path": "/data/imagenet21k/n02958343/n02958343_1.JPEG",
    "caption_model": "a model that writes the captions",
    "split": "a split that is named at length",
}


@pytest.mark.parametrize("field", BESIDE)
def test_the_field_called_caption_is_the_caption(field: str, tmp_path: Path) -> None:
    for key in (V, "car"):
        name = "image" if key == V else "category"
        records = [{field: BESIDE[field], name: key, "caption": "A car."}]
        if field == "image_path" and key == "car":  # then it is of the picture, as the path says
            continue
        for content in (records, {key: {field: BESIDE[field], "Caption": "A car."}}):
            found = read(tmp_path, ("a.json", content))
            assert {**captions(found), **found.release.category_captions} == {key: "A car."}
            assert reasons(found) == []


@pytest.mark.parametrize("field", ["model", "image_path"])
def test_what_has_no_space_is_no_caption_beside_words(field: str, tmp_path: Path) -> None:
    found = read(tmp_path, ("a.json", [{"i": V, field: BESIDE[field], "text": "A car."}]))
    assert captions(found) == {V: "A car."}
    missing = read(tmp_path, ("a.json", [{"i": V, field: BESIDE[field], "caption": None}]))
    assert captions(missing) == {}
    assert reasons(missing) == [("caption_wrong_type", "captions/a.json", V)]


def test_a_split_is_no_category(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        ("a.json", [{"split": "train", "category": "bed", "caption": "to sleep in"}]),
        ("b.json", [{"set": "train", "category": "car", "caption": "to drive"}]),
        ("c.json", [{"split": "train", "caption": "of nothing"}]),
    )
    assert found.release.category_captions == {"bed": "to sleep in", "car": "to drive"}
    assert [reason for reason, _, _ in reasons(found)] == ["caption_without_picture"]


def test_pictures_that_are_not_there_do_not_lend_their_captions_to_the_category(tmp_path: Path) -> None:
    found = read(tmp_path, ("a.json", {"car": {"n02958343_8": "one", "n02958343_9": "another one"}}))
    assert found.release.category_captions == {}
    missing = [("caption_without_picture", "captions/a.json", f"car/n02958343_{n}") for n in (8, 9)]
    assert reasons(found) == missing


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0c", "\x1e"])
def test_lines_end_where_json_lines_do(end: str, tmp_path: Path) -> None:
    texts = {A: f"one{end}two", B: "three"}
    records = [json.dumps({"image_id": k, "caption": t}, ensure_ascii=False) for k, t in texts.items()]
    if end > "\x20":  # JSON wants those below it escaped
        assert captions(read(tmp_path, ("a.jsonl", "\r\n".join(records)))) == texts
    assert captions(read(tmp_path, ("a.jsonl", "\n".join(records[1:]) + "\n"))) == {B: "three"}


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    twice = f'{{"{A}": "first", "{A}": "second", "car": "one", "car": "one", "bed": {{"x": "1", "x": "2"}}}}'
    found = read(tmp_path, ("a.json", twice), ("b.jsonl", f'{{"{B}": "x", "{B}": "y"}}\n{{"{V}": "v"}}\n'))
    assert captions(found) == {A: "first", B: "x", V: "v"}
    assert found.release.category_captions == {"car": "one", "bed": "1"}
    assert sorted(reasons(found)) == [
        ("caption_conflict", "captions/a.json", "bed/n02818832_1"),
        ("caption_conflict", "captions/a.json", "x"),
        ("caption_conflict", "captions/b.jsonl", B),
    ]


@pytest.mark.parametrize("form", OF_PICTURES)
def test_of_pictures(form: str, tmp_path: Path) -> None:
    found = read(tmp_path, ("whatever.json", OF_PICTURES[form]))
    assert captions(found) == TEXTS
    expected = [("caption_without_picture", "captions/whatever.json", "version")]
    assert reasons(found) == (expected if form == "records in a dict" else [])
    assert found.has_captions
    assert found.release.category_captions == {}


OF_ALL_CATEGORIES = {
    "dict": OF_CATEGORIES,
    "records": [{"category": key, "caption": text} for key, text in OF_CATEGORIES.items()],
    "records of any names": [{"x": text, "y": key} for key, text in OF_CATEGORIES.items()],
    "lines": lines([{"name": key, "description": text, "n": 3} for key, text in OF_CATEGORIES.items()]),
    "dict of records": {key: {"description": text} for key, text in OF_CATEGORIES.items()},
}


@pytest.mark.parametrize("form", OF_ALL_CATEGORIES)
def test_of_categories_alone(form: str, tmp_path: Path) -> None:
    found = read(tmp_path, ("categories.jsonl", OF_ALL_CATEGORIES[form]))
    assert found.release.category_captions == OF_CATEGORIES
    assert reasons(found) == []
    assert found.has_captions
    captioned = {entry.image_id for split in found.entries.values() for entry in split if entry.captioned}
    assert captioned == {A, B, V, "car/both"}


def test_both_kinds_in_one_file_or_several(tmp_path: Path) -> None:
    one = read(tmp_path, ("all.json", {**TEXTS, **OF_CATEGORIES}))
    two = read(
        tmp_path, ("a.jsonl", lines([{"id": k, "t": t} for k, t in TEXTS.items()])), ("b.JSON", OF_CATEGORIES)
    )
    for found in (one, two):
        assert captions(found) == TEXTS
        assert found.release.category_captions == OF_CATEGORIES


def test_a_caption_may_be_the_name_of_its_category(tmp_path: Path) -> None:
    assert captions(read(tmp_path, ("a.json", [{"id": A, "category": "bed", "caption": "bed"}]))) == {
        A: "bed"
    }
    assert captions(read(tmp_path, ("a.json", {A: "bed"}))) == {A: "bed"}


def test_an_ambiguous_stem_is_of_no_picture(tmp_path: Path) -> None:
    found = read(tmp_path, ("a.json", {"both": "one of two"}))
    assert reasons(found) == [("caption_without_picture", "captions/a.json", "both")]
    assert captions(read(tmp_path, ("a.json", [["both", "boat", "of this"]]))) == {"boat/both": "of this"}


def test_a_picture_that_is_not_there_does_not_lend_its_caption_to_the_category(tmp_path: Path) -> None:
    found = read(tmp_path, ("a.json", [{"category": "bed", "image": "n02818832_99", "caption": "a bunk"}]))
    assert found.release.category_captions == {}
    assert reasons(found) == [("caption_without_picture", "captions/a.json", "n02818832_99")]


def test_two_captions_of_one_picture(tmp_path: Path) -> None:
    found = read(
        tmp_path, ("a.json", {A: "first"}), ("b.json", {A: "second", B: "first"}), ("c.json", {B: "first"})
    )
    assert captions(found) == {A: "first", B: "first"}
    assert reasons(found) == [("caption_conflict", "captions/b.json", A)]


@pytest.mark.parametrize("content", ["", "{", "[1, 2", "\x00", "{}\n{", '{"a": NaN', "[" * 100_000])
def test_what_is_not_json_is_named(content: str, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"captions/a\.json: not JSON"):
        read(tmp_path, ("a.json", content))


@pytest.mark.parametrize(
    "content", [7, None, "text", [], {}, [[]], [[[]]], [{}], {"a": {}}, {"a": [[]]}, [None]]
)
def test_json_of_another_form_is_no_caption(content: object, tmp_path: Path) -> None:
    found = read(tmp_path, ("a.json", json.dumps(content)))
    assert captions(found) == {}
    assert not found.has_captions
    assert {reason for reason, _, _ in reasons(found)} <= {"caption_wrong_type", "caption_without_picture"}


class TestPlaces:
    """Where captions are looked for."""

    @pytest.mark.parametrize(
        "name", ["captions/image_captions.json", "captions/x.jsonl", "my_Captions_v2.json"]
    )
    @pytest.mark.parametrize("kind", ["zip", "folder"])
    def test_beside_the_release(self, kind: str, name: str, tmp_path: Path) -> None:
        raw = a_tree().zip(tmp_path / "raw.zip") if kind == "zip" else a_tree().folder(tmp_path)
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(TEXTS))
        (tmp_path / "package.json").write_text('{"name": "bed"}')
        assert captions(survey(RawTree(raw))) == TEXTS

    def test_those_in_the_release_go_before_those_beside_it(self, tmp_path: Path) -> None:
        raw = a_tree().captions({A: "inside"}).zip(tmp_path / "raw.zip")
        (tmp_path / "captions").mkdir()
        (tmp_path / "captions" / "image_captions.json").write_text(json.dumps({A: "beside"}))
        found = survey(RawTree(raw))
        assert captions(found) == {A: "inside"}
        assert reasons(found) == [("caption_conflict", "../captions/image_captions.json", A)]

    @pytest.mark.parametrize("place", ["inside", "beside", "given"])
    def test_files_of_one_name_are_all_read(self, place: str, tmp_path: Path) -> None:
        raw = Path(a_tree().folder(tmp_path))
        folder = {"inside": raw, "beside": tmp_path, "given": tmp_path / "given"}[place] / "captions"
        for split, image_id in (("train", A), ("val", V)):
            (folder / split).mkdir(parents=True)
            (folder / split / "image_captions.json").write_text(json.dumps({image_id: TEXTS[image_id]}))
        (folder / "image_captions.json").write_text(json.dumps({B: TEXTS[B]}))
        assert captions(survey(RawTree(str(raw)), str(folder) if place == "given" else None)) == TEXTS

    def test_files_of_one_name_inside_and_beside_are_all_read(self, tmp_path: Path) -> None:
        raw = a_tree().captions({A: TEXTS[A]}).zip(tmp_path / "raw.zip")
        (tmp_path / "captions").mkdir()
        for name, image_id in (("captions/image_captions.json", B), ("image_captions.json", V)):
            (tmp_path / name).write_text(json.dumps({image_id: TEXTS[image_id]}))
        assert captions(survey(RawTree(raw))) == TEXTS

    @pytest.mark.parametrize("place", ["inside", "beside", "given"])
    def test_hidden_files_are_none_of_the_release(self, place: str, tmp_path: Path) -> None:
        raw = Path(a_tree().folder(tmp_path))
        folder = {"inside": raw, "beside": tmp_path, "given": tmp_path / "given"}[place] / "captions"
        (folder / ".ipynb_checkpoints").mkdir(parents=True)
        (folder / "image_captions.json").write_text(json.dumps(TEXTS))
        for name in ("._image_captions.json", ".ipynb_checkpoints/image_captions-checkpoint.json"):
            (folder / name).write_bytes(b"\0\5\x16\7")
        assert captions(survey(RawTree(str(raw)), str(folder) if place == "given" else None)) == TEXTS

    def test_folders_that_lead_in_circles_end(self, tmp_path: Path) -> None:
        raw = a_tree().zip(tmp_path / "raw.zip")
        (tmp_path / "captions").mkdir()
        (tmp_path / "captions" / "again").symlink_to(tmp_path / "captions")
        (tmp_path / "captions" / "a.json").write_text(json.dumps(TEXTS))
        found = survey(RawTree(raw))
        assert (captions(found), reasons(found)) == (TEXTS, [])

    def test_a_given_folder_or_file(self, tmp_path: Path) -> None:
        raw = a_tree().captions({A: "inside"}).zip(tmp_path / "raw.zip")
        given = tmp_path / "given"
        given.mkdir()
        (given / "any.json").write_text(json.dumps({B: "given"}))
        for path in (given, given / "any.json"):
            assert captions(survey(RawTree(raw), str(path))) == {B: "given"}

    def test_any_change_changes_the_fingerprint(self, tmp_path: Path) -> None:
        raw = a_tree().zip(tmp_path / "raw.zip")
        prints = {survey(RawTree(raw)).fingerprint}
        for name, text in (("a_caption.json", "1"), ("a_caption.json", "2"), ("b_caption.json", "2")):
            (tmp_path / name).write_text(json.dumps({A: text}))
            prints.add(survey(RawTree(raw)).fingerprint)
        assert len(prints) == 4
        shutil.rmtree(tmp_path / "captions", ignore_errors=True)
