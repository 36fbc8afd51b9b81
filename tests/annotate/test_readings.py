"""The journal: what was said to be saved is there, whoever writes beside and whenever the power goes."""

import json
import multiprocessing
import os

import pytest

from ImageNet3D import CorrectionError, read_corrections
from processing.annotate.readings import ObjectKey, Readings

KEY = ObjectKey("bed/a", 0)


def said(value=1.5, who="A", **more):
    """What a save is made of."""
    values = {"operation": "set", "image_id": "bed/a", "object_index": 0, "who": who, "why": "looked at it"}
    return {**values, "old": {"azimuth": 1.0}, "new": {"azimuth": value}, **more}


def test_each_save_is_a_line_and_a_reading_is_all_that_a_person_said(tmp_path):
    readings = Readings(tmp_path / "c.jsonl")
    assert not readings.path.exists()
    readings.append(said())
    readings.append(said(old={"px": 1}, new={"px": 2}))
    readings.append(said(3.0, "B"))
    assert len(readings.path.read_text().splitlines()) == 3
    found = Readings(readings.path).by_object[KEY]
    assert found == readings.by_object[KEY]
    assert found["A"].changes == {"azimuth": 1.5, "px": 2.0}
    assert found["B"].changes == {"azimuth": 3.0}
    assert readings.touched(KEY) == {"azimuth", "px"}
    assert [line.when for line in readings.lines] == sorted({line.when for line in readings.lines})


def test_what_is_no_correction_is_not_written(tmp_path):
    readings = Readings(tmp_path / "c.jsonl")
    for wrong in (said(90.0), said(why=""), said(image_id="bed"), said(who="x" * 101), said(zoom=1)):
        with pytest.raises(ValueError, match=r"azimuth|why|image_id|who|zoom"):
            readings.append(wrong)
    assert not readings.path.exists()


def test_lines_of_others_are_seen_and_a_replaced_file_is_read_anew(tmp_path):
    one, other = Readings(tmp_path / "c.jsonl"), Readings(tmp_path / "c.jsonl")
    one.append(said())
    other.append(said(2.0, "B"))
    one.refresh()
    assert set(one.by_object[KEY]) == {"A", "B"}
    # An editor, or git, puts another file in its place.
    kept = one.path.read_text().splitlines()[1]
    (tmp_path / "new").write_text(kept)  # without a line end
    (tmp_path / "new").replace(one.path)
    one.refresh()
    assert set(one.by_object[KEY]) == {"B"}
    one.append(said(2.5, "C"))
    assert [c.who for c in read_corrections(str(one.path))] == ["B", "C"]


def test_time_counts_and_not_the_order_of_lines(tmp_path):
    """As for a build: a file may be put together of several, and seconds may have parts or none."""
    path = tmp_path / "c.jsonl"
    day = "2026-11-28T10:00:00"
    later, first = said(2.0, when=f"{day}.5Z"), said(1.5, when=f"{day}Z")
    path.write_text("".join(json.dumps(line) + "\n" for line in (later, first)))
    readings = Readings(path)
    assert readings.by_object[KEY]["A"].changes == {"azimuth": 2.0}
    ahead, back = said(3.0, when="2999-01-01T00:00:00Z"), said(1.75, "B", when=f"{day}.25Z")
    with path.open("a") as file:
        file.write(json.dumps(ahead) + "\n" + json.dumps(back) + "\n")
    readings.refresh()
    assert readings.by_object[KEY]["A"].changes == {"azimuth": 3.0}
    assert [line.when for line in readings.lines] == [c.when for c in read_corrections(str(path))]
    readings.append(said(2.5))  # by a clock that is right
    assert [line.new["azimuth"] for line in read_corrections(str(path))][-1] == 2.5


def test_what_is_edited_in_place_is_read_anew(tmp_path):
    readings = Readings(tmp_path / "c.jsonl")
    for who, value in (("A", 1.5), ("B", 2.5)):
        readings.append(said(value, who))
    text, other = readings.path.read_text(), Readings(readings.path)
    readings.path.write_text(text.replace("1.5", "1.7"))  # as long as before
    other.refresh()
    assert other.by_object[KEY]["A"].changes == {"azimuth": 1.7}
    readings.path.write_text(text.partition("\n")[2])  # without its first line, and then it grows
    readings.append(said(3.0, "a name that makes a line longer than the one that is gone " + "x" * 40))
    readings.append(said(3.0, "C"))
    other.refresh()
    assert set(other.by_object[KEY]) == set(Readings(readings.path).by_object[KEY])
    assert {"B", "C"} < set(other.by_object[KEY])


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_line_that_is_wrong_stays_and_is_told_until_it_is_mended(tmp_path, end):
    readings = Readings(tmp_path / "c.jsonl")
    readings.append(said())
    sound = readings.path.read_text()
    wrong = sound + json.dumps(said(2.0, "B", when="2026-11-28 09:31")) + end
    readings.path.write_text(wrong)
    for attempt in (readings.refresh, readings.refresh, lambda: readings.append(said(2.5))):
        with pytest.raises(CorrectionError, match=r"line 2: when is .*write a time in UTC"):
            attempt()
    assert readings.path.read_text() == wrong
    assert set(readings.by_object[KEY]) == {"A"}  # what was read before
    readings.path.write_text(wrong.replace("28 09:31", "28T09:31:00Z"))
    readings.append(said(2.5, "C"))
    assert [c.who for c in read_corrections(str(readings.path))] == ["B", "A", "C"]
    assert set(readings.by_object[KEY]) == {"A", "B", "C"}


def test_lines_that_belong_together_are_all_written_or_none(tmp_path):
    readings = Readings(tmp_path / "c.jsonl")
    back = {key: v for key, v in said(operation="take_back").items() if key not in ("old", "new")}
    with pytest.raises(ValueError, match="azimuth"):
        readings.append(back, said(90.0))
    assert not readings.path.exists()
    assert readings.append(back, said(1.5)).operation == "set"
    assert [line.operation for line in read_corrections(str(readings.path))] == ["take_back", "set"]


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_what_a_power_cut_left_of_a_line_goes(tmp_path, cut):
    readings = Readings(tmp_path / "c.jsonl")
    readings.append(said())
    whole = readings.path.read_bytes()
    readings.path.write_bytes(whole + whole[:cut])
    again = Readings(readings.path)
    assert len(again.lines) == 1
    again.append(said(2.0))
    lines = readings.path.read_bytes().splitlines()
    assert len(lines) == 2
    assert [json.loads(line)["new"]["azimuth"] for line in lines] == [1.5, 2.0]


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    readings = Readings(tmp_path / "c.jsonl")
    readings.append(said())
    before, write = readings.path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:40]))
    with pytest.raises(OSError, match="No space left"):
        readings.append(said(2.0))
    assert readings.path.read_bytes() == before


def test_lines_that_are_none_are_all_named(tmp_path):
    (tmp_path / "c.jsonl").write_text("[]\n\n{}\n")
    with pytest.raises(CorrectionError, match=r"2 lines .*\n.*line 1: .*\n.*line 3: "):
        Readings(tmp_path / "c.jsonl")


def _write_many(path, who):
    readings = Readings(path)
    for number in range(40):
        readings.append(said(number / 100, who, why="x" * 1500))


def test_no_line_of_several_writers_is_torn_or_lost(tmp_path):
    path = tmp_path / "c.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(path, who)) for who in "ABCD"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((line["who"], line["new"]["azimuth"]) for line in lines) == [
        (who, number / 100) for who in "ABCD" for number in range(40)
    ]
    assert [line["when"] for line in lines] == sorted(line["when"] for line in lines)
