"""Zips with hostile members, broken zips, and random damage to a sound one."""

import io
import itertools
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from support.raw_tree import TOP, bounded, damaged, encoded, zip_of
from support.zips import ANNOTATION, LEFT_OUT, MEMBERS, PICTURE, forged, lying, sound

from ImageNet3D import Finding, RawTree, ReleaseError, read_pictures, survey
from processing.build.command import build
from processing.build.plan import plan_shards

# --------------------------------------------------------------------------------------------------------
# Members
# --------------------------------------------------------------------------------------------------------


def everything_read(path: str) -> tuple[set[str], list[Finding]]:
    """Image ids of all pictures that can be read, and all findings; from a store, too, the same."""
    memory, remote = fsspec.filesystem("memory"), f"memory:/{path}"
    memory.pipe_file(remote, Path(path).read_bytes())
    try:
        read = _everything_read(path)
    except ReleaseError:
        with pytest.raises(ReleaseError):
            _everything_read(remote)
        raise
    else:
        assert _everything_read(remote) == read
    finally:
        memory.rm_file(remote)
    return read


def _everything_read(path: str) -> tuple[set[str], list[Finding]]:
    found = survey(RawTree(path))
    findings = list(found.findings)
    findings += [Finding(entry.reason, entry.picture_file) for entry in found.left_out]
    read = {
        picture.entry.image_id
        for entries in found.entries.values()
        for picture in read_pictures(found.release.fetched(entries), "classification", entries, findings)
    }
    return read, findings


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_each_member_ends_in_its_decision(member, tmp_path):
    (tmp_path / "raw.zip").write_bytes(member.zip())
    read, findings = everything_read(str(tmp_path / "raw.zip"))
    assert read == {f"bed/{stem}" for stem in (*member.train, "v")}
    expected = Counter((member.file, *found) for found in member.found)
    unlisted = {"a", "b"} - set(member.train) if member.file.startswith("lists/") else set()
    expected.update((f"images/bed/{stem}.JPEG", "picture_unlisted", LEFT_OUT) for stem in unlisted)
    assert Counter((f.file, f.reason, f.decision) for f in findings) == expected


def test_a_size_that_is_a_lie_makes_no_shards(tmp_path):
    (tmp_path / "raw.zip").write_bytes(lying(size=2**32 - 2)())
    found = survey(RawTree(str(tmp_path / "raw.zip")))
    shards = plan_shards(found, len(encoded()) * 10)
    assert Counter(shard.split for shard in shards) == {"train": 1, "validation": 1}


def test_the_books_balance_on_damaged_members(tmp_path):
    data = forged(zip_of({**sound(), ANNOTATION: b""}), PICTURE.replace("/a.", "/b."), checksum=7)
    (tmp_path / "raw.zip").write_bytes(data)
    report = build(str(tmp_path / "raw.zip"), tmp_path / "out", workers=1)
    report.books.check()
    pose = report.books.accounts["pose", "train"]
    assert (pose.read, pose.written, dict(pose.left_out)) == (1, 0, {"member_damaged": 1})
    pictures = report.books.accounts["classification", "train"]
    assert (pictures.written, dict(pictures.left_out)) == (1, {"member_damaged": 1})


# --------------------------------------------------------------------------------------------------------
# Zips as a whole
# --------------------------------------------------------------------------------------------------------


def renamed(top: str) -> dict[str, bytes]:
    return {name.replace(TOP, top, 1): data for name, data in sound().items()}


@pytest.mark.parametrize("top", ["", "one/", "one/two/three/", "imagenet3d v1 (copy)/"])
def test_the_tree_is_found_below_any_top_folder(top, tmp_path):
    (tmp_path / "raw.zip").write_bytes(zip_of(renamed(top)))
    assert everything_read(str(tmp_path / "raw.zip")) == ({"bed/a", "bed/b", "bed/v"}, [])


def test_what_macos_adds_to_a_zip_is_no_second_tree(tmp_path):
    beside = {f"__MACOSX/{name.rpartition('/')[0]}/._{name.rpartition('/')[2]}": b"x" for name in sound()}
    (tmp_path / "raw.zip").write_bytes(zip_of({**sound(), **beside}))
    assert everything_read(str(tmp_path / "raw.zip")) == ({"bed/a", "bed/b", "bed/v"}, [])


def test_bytes_before_the_zip_and_a_comment_behind_do_no_harm(tmp_path):
    stream = io.BytesIO(zip_of(sound()))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.comment = b"PK\1\2 is no member" * 100
    (tmp_path / "raw.zip").write_bytes(b"#!/bin/sh\n" + stream.getvalue())
    assert everything_read(str(tmp_path / "raw.zip")) == ({"bed/a", "bed/b", "bed/v"}, [])


BROKEN = {
    "empty file": (lambda: b"", "not a whole zip"),
    "text": (lambda: b"<html>", "not a whole zip"),
    "end is cut off": (lambda: zip_of(sound())[:-30], "not a whole zip"),
    "half is cut off": (lambda: zip_of(sound())[:3000], "not a whole zip"),
    "no members": (lambda: zip_of({}), "no images/"),
    "no tree": (lambda: zip_of({"a/b/c.JPEG": b""}), "no images/"),
    "two trees": (lambda: zip_of({**sound(), **renamed("other/")}), rf"2 folders .*{TOP}, other/"),
    "./ before all names": (lambda: zip_of({"./": b"", **renamed("./")}), r"made with \./ .*; unpack it and"),
    "./ before its top": (lambda: zip_of(renamed(f"./{TOP}")), r"made with \./ .*; unpack it and"),
    "tree climbs out": (lambda: zip_of(renamed("../")), "no images/"),
    "tree is absolute": (lambda: zip_of(renamed("/")), "no images/"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_zip_that_is_no_release_is_a_clear_error(name, tmp_path):
    write, message = BROKEN[name]
    (tmp_path / "raw.zip").write_bytes(write())
    with pytest.raises(ReleaseError, match=message) as caught:
        everything_read(str(tmp_path / "raw.zip"))
    assert "raw.zip" in str(caught.value)


@pytest.mark.parametrize("lie", [{"flags": 1}, {"checksum": 1}, {"method": 12}], ids=str)
def test_captions_that_cannot_be_read_are_a_clear_error(lie, tmp_path):
    name = f"{TOP}captions/image_captions.json"
    (tmp_path / "raw.zip").write_bytes(forged(zip_of({**sound(), name: b"{}"}), name, **lie))
    with pytest.raises(ReleaseError, match=r"captions/image_captions\.json: a member"):
        everything_read(str(tmp_path / "raw.zip"))


# --------------------------------------------------------------------------------------------------------
# Random damage
# --------------------------------------------------------------------------------------------------------

SMALL = zip_of({**sound(), f"{TOP}captions/image_captions.json": b'{"bed/a": "text"}'})
DIRECTORY = SMALL[SMALL.index(b"PK\1\2") :]  # where the names, sizes and offsets are


@pytest.fixture(scope="module")
def fresh_path(tmp_path_factory) -> Callable[[], Path]:
    """New paths: an open zip is remembered by its path, size and time."""
    folder, numbers = tmp_path_factory.mktemp("damaged"), itertools.count()
    return lambda: folder / f"{next(numbers)}.zip"


def ends_well(data: bytes, path: Path) -> None:
    """A damaged zip gives a ReleaseError, or what can be read of it and findings; anything else is raised."""
    path.write_bytes(data)
    with suppress(ReleaseError):
        everything_read(str(path))
    path.unlink()


@bounded
@given(data=damaged(SMALL))
def test_damage_anywhere(data, fresh_path):
    ends_well(data, fresh_path())


@bounded
@given(directory=damaged(DIRECTORY))
def test_damage_to_the_directory(directory, fresh_path):
    ends_well(SMALL[: -len(DIRECTORY)] + directory, fresh_path())


def test_the_sound_zip_is_read_whole(fresh_path):
    path = fresh_path()
    path.write_bytes(SMALL)
    assert everything_read(str(path)) == ({"bed/a", "bed/b", "bed/v"}, [])
