"""Zips with hostile members, broken zips, and random damage to a sound one."""

import io
import itertools
import stat
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from raw_tree import TOP, RawTreeWriter, bounded, damaged, encoded, npz_of, zip_of

from ImageNet3D import Finding, RawTree, ReleaseError, read_pictures, survey
from processing.build.command import build
from processing.build.plan import plan_shards

KEPT, LEFT_OUT, NO_POSE = "kept", "left out", "left out of pose"
PICTURE, ANNOTATION = f"{TOP}images/bed/a.JPEG", f"{TOP}annotations/bed/a.npz"
TRAIN, MESH = f"{TOP}lists/bed_imagenet_train.txt", f"{TOP}CAD/bed/01.off"


def sound() -> dict[str, bytes]:
    """The members of a sound zip: pictures a and b in train, v in validation."""
    tree = RawTreeWriter().sound("bed", ("a", "b"), ("v",))
    return {TOP + name: data for name, data in tree.files.items()}


# --------------------------------------------------------------------------------------------------------
# Zips that no zip program would write
# --------------------------------------------------------------------------------------------------------

# Field -> (offset in a member's local header, bytes); in the central directory it stands two bytes later.
_FIELDS = {"flags": (6, 2), "method": (8, 2), "checksum": (14, 4), "packed": (18, 4), "size": (22, 4)}


def forged(data: bytes, member: str, **fields: int) -> bytes:
    """A zip whose local header and directory both lie about a member."""
    changed = bytearray(data)
    headers = (
        (data.index(member.encode()) - 30, b"PK\3\4", 0),
        (data.rindex(member.encode()) - 46, b"PK\1\2", 2),
    )
    for at, signature, shift in headers:
        assert data[at : at + 4] == signature
        for name, value in fields.items():
            offset, size = _FIELDS[name]
            start = at + offset + shift
            changed[start : start + size] = value.to_bytes(size, "little")
    return bytes(changed)


def lying(member: str = PICTURE, **fields: int) -> Callable[[], bytes]:
    """A sound zip that lies about one member."""
    return lambda: forged(zip_of(sound()), member, **fields)


def with_member(name: str, data: bytes = b"x", mode: int = stat.S_IFREG | 0o644) -> Callable[[], bytes]:
    """A sound zip with another member of exactly this name, which may stand in it already."""

    def write() -> bytes:
        stream = io.BytesIO(zip_of(sound()))
        info = zipfile.ZipInfo("x")
        info.filename = name  # the constructor would tidy it
        info.external_attr = mode << 16
        with zipfile.ZipFile(stream, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a duplicate name
            archive.writestr(info, data)
        return stream.getvalue()

    return write


def instead(member: str, data: bytes, compression: int = zipfile.ZIP_DEFLATED) -> Callable[[], bytes]:
    """A sound zip with other data for one member, and all compressed alike."""
    return lambda: zip_of({**sound(), member: data}, compression)


def link(member: str) -> Callable[[], bytes]:
    """A sound zip with a symbolic link in the place of one member."""

    def write() -> bytes:
        rest = {name: data for name, data in sound().items() if name != member}
        stream = io.BytesIO(zip_of(rest))
        info = zipfile.ZipInfo(member)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(stream, "a") as archive:
            archive.writestr(info, "/etc/passwd")
        return stream.getvalue()

    return write


def begins_elsewhere(offset: int) -> Callable[[], bytes]:
    """A sound zip whose directory sends the reader of one annotation to another offset."""

    def write() -> bytes:
        data = bytearray(zip_of(sound()))
        at = data.rindex(ANNOTATION.encode()) - 4  # the last field before the name
        data[at : at + 4] = offset.to_bytes(4, "little")
        return bytes(data)

    return write


def packed_bits_flipped() -> bytes:
    """A sound zip with a bit flipped in the packed bytes of one picture."""
    data = bytearray(zip_of(sound()))
    data[data.index(PICTURE.encode()) + len(PICTURE) + 300] ^= 1
    return bytes(data)


def small_lie_about_a_bomb() -> bytes:
    """20 MB that unpack from 20 KB, of which the directory owns to 1,000 bytes."""
    return forged(zip_of({**sound(), PICTURE: bytes(20 * 10**6)}), PICTURE, size=1000)


@dataclass(frozen=True)
class Member:
    """A zip with one odd member.

    Attributes:
        name: for the test's id.
        zip: makes the zip's bytes.
        file: that the findings name.
        found: (reason, decision).
        train: stems that must still be read.
    """

    name: str
    zip: Callable[[], bytes]
    file: str = ""
    found: tuple[tuple[str, str], ...] = ()
    train: tuple[str, ...] = ("a", "b")


def unsafe(name: str) -> Member:
    """A member whose path would leave the tree."""
    found = (("member_unsafe_path", LEFT_OUT),)
    return Member(f"path {name!r}", with_member(name), name.encode("unicode_escape").decode(), found)


def lost(name: str, write: Callable[[], bytes], reason: str, member: str = PICTURE) -> Member:
    """A picture or annotation that cannot be read; the other picture still is, and one without annotation."""
    decision = NO_POSE if reason.startswith("annotation_") else LEFT_OUT
    train = ("a", "b") if member == ANNOTATION else ("b",)
    return Member(name, write, member.removeprefix(TOP), ((reason, decision),), train)


MEMBERS = [
    Member("sound", lambda: zip_of(sound())),
    Member("folders", with_member(f"{TOP}images/bed/", b"")),
    Member("stray file beside the tree", with_member("notes.txt")),
    *map(unsafe, ["/etc/passwd", "../up", f"{TOP}../../up", "..", "./here", "C:/x", "c:x", "\\\\host\\x"]),
    *map(unsafe, [f"{TOP}images\\bed\\x.JPEG", f"{TOP}images/bed/x\0.JPEG", "", "/"]),
    lost("picture is a link", link(PICTURE), "member_link"),
    lost("annotation is a link", link(ANNOTATION), "member_link", ANNOTATION),
    Member("mesh is a link", link(MESH), "CAD/bed/01.off", (("member_link", LEFT_OUT),)),
    lost("picture is encrypted", lying(flags=1), "member_encrypted"),
    lost("annotation is encrypted", lying(ANNOTATION, flags=1), "member_encrypted", ANNOTATION),
    lost("picture is packed by an unknown method", lying(method=99), "member_compression"),
    lost("annotation is packed as LZMA", lying(ANNOTATION, method=14), "member_compression", ANNOTATION),
    lost("picture is packed as bzip2", lying(method=12), "member_compression"),
    Member("same twice", with_member(PICTURE, encoded()), "images/bed/a.JPEG", (("member_duplicate", KEPT),)),
    lost("different twice", with_member(PICTURE, encoded("PNG")), "member_conflict"),
    lost("different annotations twice", with_member(ANNOTATION, npz_of(x=1)), "member_conflict", ANNOTATION),
    lost("wrong checksum", lying(checksum=1), "member_damaged"),
    lost("wrong checksum of an annotation", lying(ANNOTATION, checksum=1), "member_damaged", ANNOTATION),
    lost("bit flipped", packed_bits_flipped, "member_damaged"),
    lost("smaller than told", lying(size=10), "member_damaged"),
    lost("packed into less than told", lying(packed=10), "member_damaged"),
    lost("stored and not deflated", lying(method=0), "member_damaged"),
    lost("begins at another member", begins_elsewhere(0), "member_damaged", ANNOTATION),
    lost("begins inside another member", begins_elsewhere(99), "member_damaged", ANNOTATION),
    lost("begins behind the zip", begins_elsewhere(2**32 - 2), "member_damaged", ANNOTATION),
    Member("larger than told", lying(size=10**6)),
    lost("bomb that admits it", instead(PICTURE, bytes(10**8 + 1)), "picture_too_large"),
    lost("bomb that denies it", small_lie_about_a_bomb, "member_damaged"),
    lost("bomb for an annotation", instead(ANNOTATION, bytes(10**7)), "annotation_too_large", ANNOTATION),
    Member("list outside the tree", with_member("lists/bed_imagenet_val.txt"), "lists/bed_imagenet_val.txt",
           (("file_unexpected", LEFT_OUT),)),
    Member("list is encrypted", lying(TRAIN, flags=1), "lists/bed_imagenet_train.txt",
           (("member_encrypted", LEFT_OUT),), ()),
    Member("list has a wrong checksum", lying(TRAIN, checksum=1), "lists/bed_imagenet_train.txt",
           (("member_damaged", LEFT_OUT),), ()),
    Member("list is a bomb", instead(TRAIN, b"\n" * 10**8), "lists/bed_imagenet_train.txt",
           (("list_not_text", LEFT_OUT),), ()),
]  # fmt: skip


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
