"""Zips that no zip program would write, each with what becomes of its odd member."""

import io
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

from support.raw_tree import TOP, RawTreeWriter, encoded, npz_of, zip_of

KEPT, LEFT_OUT, NO_POSE = "kept", "left out", "left out of pose"
PICTURE, ANNOTATION = f"{TOP}images/bed/a.JPEG", f"{TOP}annotations/bed/a.npz"
TRAIN, MESH = f"{TOP}lists/bed_imagenet_train.txt", f"{TOP}CAD/bed/01.off"


def sound() -> dict[str, bytes]:
    """The members of a sound zip: pictures a and b in train, v in validation."""
    tree = RawTreeWriter().sound("bed", ("a", "b"), ("v",))
    return {TOP + name: data for name, data in tree.files.items()}


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


def longer_header() -> bytes:
    """A sound zip with 2,000 bytes in one picture's own header that the directory does not know of."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in sound().items():
            info = zipfile.ZipInfo(name)
            info.extra = struct.pack("<HH", 0xCAFE, 2000) + bytes(2000) if name == PICTURE else b""
            archive.writestr(info, data)
            info.extra = b""
    return stream.getvalue()


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
    Member("header longer than told", longer_header),
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
