"""Annotation files are pickles: none executes anything, claims memory that it has no bytes for, or hangs."""

import gc
import io
import math
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.processor import at_most
from support.raw_tree import (
    HEIGHT,
    WIDTH,
    an_object,
    bounded,
    damaged,
    npz,
    npz_of_pickle,
    object_array,
    zip_of,
)

import ImageNet3D
from ImageNet3D import (
    REASONS,
    Annotation,
    Entry,
    Finding,
    Picture,
    Release,
    Unusable,
    read_annotation,
    read_annotation_bytes,
)

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
FORBIDDEN, NOT_ARRAY = "annotation_forbidden", "annotation_not_array"
MESHES = frozenset({"CAD/bed/01.off"})
ENTRY = Entry("bed/a", "train", 1, "a caption")
RELEASE = Release(None, MESHES, {})


@dataclass
class OneFile:
    """Stands for a raw tree that has one annotation."""

    data: bytes

    def read(self, name: str, limit: int, too_large: str) -> bytes:
        return self.data


def checked(data: bytes) -> tuple[Annotation, list[Finding]]:
    """An annotation file's bytes as read and checked, and what was found."""
    findings: list[Finding] = []
    return read_annotation(Release(OneFile(data), MESHES, {}), ENTRY, findings), findings


def verdict(payload: bytes, count: int = 1) -> Unusable:
    """Why a pickle is refused."""
    with pytest.raises(Unusable) as caught:
        read_annotation_bytes(npz_of_pickle(payload, count))
    return caught.value


# --------------------------------------------------------------------------------------------------------
# Writing pickles by hand
# --------------------------------------------------------------------------------------------------------


def value(thing: Any, protocol: int) -> bytes:
    """The opcodes that leave plain data on the stack."""
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol)
    pickler.fast = True  # without memo, so that pieces can be put together
    pickler.dump(thing)
    data = stream.getvalue()[2 * (protocol >= 2) : -1]
    return data[9:] if data.startswith(pickle.FRAME) else data


def named(module: str, attribute: str, protocol: int) -> bytes:
    """The opcodes that leave module.attribute on the stack."""
    if protocol < 4:
        return f"c{module}\n{attribute}\n".encode()
    return value(module, protocol) + value(attribute, protocol) + pickle.STACK_GLOBAL


def called(function: bytes, *arguments: bytes) -> bytes:
    """The opcodes that call what `function` leaves on the stack."""
    return function + b"(" + b"".join(arguments) + b"tR"


def whole(body: bytes, protocol: int) -> bytes:
    """A pickle of these opcodes."""
    return (b"\x80" + bytes([protocol]) if protocol >= 2 else b"") + body + b"."


def an_array(items: list[bytes], protocol: int = 3) -> bytes:
    """The opcodes of the object array that an annotation file must hold."""
    empty = called(
        named("numpy.core.multiarray", "_reconstruct", protocol),
        named("numpy", "ndarray", protocol), value((0,), protocol), value("b", protocol),
    )  # fmt: skip
    state = value(1, protocol) + value((len(items),), protocol) + a_dtype("O8", "|", protocol)
    return empty + b"(" + state + value(False, protocol) + b"](" + b"".join(items) + b"et" + b"b"


def a_dtype(code: str, order: str, protocol: int = 3) -> bytes:
    """The opcodes of a numpy dtype."""
    made = called(named("numpy", "dtype", protocol), value(code, protocol), value(False, protocol))
    return made + value((3, order, None, None, None, -1, -1, 63), protocol) + b"b"


# --------------------------------------------------------------------------------------------------------
# Nothing is executed
# --------------------------------------------------------------------------------------------------------

Gadget = Callable[[Path, int], bytes]


def a_call(module: str, attribute: str, *arguments: Any) -> Gadget:
    """A gadget that calls one function; {marker} and {evil} in its arguments are paths."""

    def filled(argument: Any, marker: Path) -> Any:
        if isinstance(argument, list):
            return [filled(item, marker) for item in argument]
        if not isinstance(argument, str):
            return argument
        return argument.replace("{marker}", str(marker)).replace("{evil}", str(marker.with_name("evil.npy")))

    def write(marker: Path, protocol: int) -> bytes:
        parts = [value(filled(argument, marker), protocol) for argument in arguments]
        return called(named(module, attribute, protocol), *parts)

    return write


def _touch(marker: Path, protocol: int) -> bytes:
    return value(f"touch {marker}", protocol)


def _os(protocol: int) -> bytes:
    return called(named("importlib", "import_module", protocol), value("os", protocol))


def _partial(marker: Path, protocol: int) -> bytes:
    partial, system = named("functools", "partial", protocol), named("os", "system", protocol)
    return called(called(partial, system, _touch(marker, protocol)))


def _attrgetter(marker: Path, protocol: int) -> bytes:
    getter = called(named("operator", "attrgetter", protocol), value("system", protocol))
    return called(called(getter, _os(protocol)), _touch(marker, protocol))


def _methodcaller(marker: Path, protocol: int) -> bytes:
    caller = named("operator", "methodcaller", protocol)
    return called(called(caller, value("system", protocol), _touch(marker, protocol)), _os(protocol))


def _getattr(marker: Path, protocol: int) -> bytes:
    system = called(named("builtins", "getattr", protocol), _os(protocol), value("system", protocol))
    return called(system, _touch(marker, protocol))


def _map(marker: Path, protocol: int) -> bytes:
    names = b"(" + _touch(marker, protocol) + b"t"
    lazy = called(named("builtins", "map", protocol), named("os", "system", protocol), names)
    return called(named("builtins", "list", protocol), lazy)


def _code(marker: Path, protocol: int) -> bytes:
    """A function made from compiled code."""
    source = f"open({str(marker)!r}, 'w').close()"
    arguments = [value(text, protocol) for text in (source, "x", "exec")]
    code = called(named("builtins", "compile", protocol), *arguments)
    return called(called(named("types", "FunctionType", protocol), code, value({}, protocol)))


def _newobj(marker: Path, protocol: int) -> bytes:
    return called(named("copyreg", "__newobj__", protocol), named("subprocess", "Popen", protocol))


def _reconstructor(marker: Path, protocol: int) -> bytes:
    kinds = named("subprocess", "Popen", protocol), named("builtins", "object", protocol)
    return called(named("copyreg", "_reconstructor", protocol), *kinds, value(None, protocol))


# Each leaves the marker file if it is executed; test_the_gadgets_are_armed shows that pickle itself does so.
GADGETS: dict[str, Gadget] = {
    "os.system": a_call("os", "system", "touch {marker}"),
    "posix.system": a_call("posix", "system", "touch {marker}"),
    "os.popen": a_call("os", "popen", "touch {marker}"),
    "os.mkdir": a_call("os", "mkdir", "{marker}"),
    "builtins.eval": a_call("builtins", "eval", "open('{marker}', 'w').close()"),
    "builtins.exec": a_call("builtins", "exec", "open('{marker}', 'w').close()"),
    "builtins.open": a_call("builtins", "open", "{marker}", "w"),
    "builtins.getattr": _getattr,
    "builtins.map": _map,
    "subprocess.Popen": a_call("subprocess", "Popen", ["touch", "{marker}"]),
    "subprocess.check_output": a_call("subprocess", "check_output", ["touch", "{marker}"]),
    "functools.partial": _partial,
    "operator.attrgetter": _attrgetter,
    "operator.methodcaller": _methodcaller,
    "types.FunctionType": _code,
    "timeit.timeit": a_call("timeit", "timeit", "pass", "open('{marker}', 'w').close()"),
    "runpy.run_path": a_call("runpy", "run_path", "{evil}.py"),
    "shutil.copyfile": a_call("shutil", "copyfile", "{evil}", "{marker}"),
    "numpy.load": a_call("numpy", "load", "{evil}", None, True),
    "numpy.savetxt": a_call("numpy", "savetxt", "{marker}", [1.0]),
    "numpy.memmap": a_call("numpy", "memmap", "{marker}", "uint8", "w+", 0, 8),
    "numpy.runstring": a_call("numpy.testing._private.utils", "runstring", "open('{marker}', 'w')", {}),
}
# These do nothing by themselves, but have no place in an annotation either.
STEPPING_STONES: dict[str, Gadget] = {
    "builtins.__import__": a_call("builtins", "__import__", "os"),
    "importlib.import_module": a_call("importlib", "import_module", "os"),
    "copyreg.__newobj__": _newobj,
    "copyreg._reconstructor": _reconstructor,
    "numpy.fromfile": a_call("numpy.core.multiarray", "fromfile", "{evil}"),
    "codecs.encode": a_call("_codecs", "encode", "abc", "latin1"),
    "builtins.bytearray": a_call("builtins", "bytearray", 10),
    "builtins.complex": a_call("builtins", "complex", 1.0, 2.0),
    "numpy.zeros": a_call("numpy", "zeros", 10**12),
    "numpy._frombuffer": a_call("numpy.core.numeric", "_frombuffer", 1),
    "ours": a_call("ImageNet3D", "RawTree", "/"),
    "name with dots": a_call("numpy", "ndarray.tofile", 1),
    "no such module": a_call("no_such_module", "x"),
}


def write_evil_files(folder: Path, marker: Path) -> None:
    """The files that some gadgets load."""
    command = f"open({str(marker)!r}, 'w').close()"
    (folder / "evil.npy.py").write_text(command)
    body = called(named("builtins", "exec", 3), value(command, 3))
    with zipfile.ZipFile(io.BytesIO(npz_of_pickle(whole(an_array([body]), 3)))) as archive:
        (folder / "evil.npy").write_bytes(archive.read("annotations.npy"))


# Where in an annotation a gadget may stand.
PLACES: dict[str, Callable[[bytes, int], bytes]] = {
    "alone": lambda gadget, protocol: gadget,
    "as an object": lambda gadget, protocol: an_array([gadget], protocol),
    "in a dict": lambda gadget, protocol: an_array([b"(" + value("px", protocol) + gadget + b"d"], protocol),
    "as a key": lambda gadget, protocol: an_array([b"(" + gadget + value(1, protocol) + b"d"], protocol),
    "in a list": lambda gadget, protocol: an_array([b"(" + gadget + b"l"], protocol),
    "in a tuple": lambda gadget, protocol: an_array([b"((" + gadget + b"tt"], protocol),
    "in an array's state": lambda gadget, protocol: an_array([], protocol) + b"(" + gadget + b"tb",
    "in a dtype": lambda gadget, protocol: called(named("numpy", "dtype", protocol), gadget),
    "in a dtype's state": lambda gadget, protocol: a_dtype("f8", "<", protocol) + b"(" + gadget + b"tb",
    "in a scalar": lambda gadget, protocol: called(
        named("numpy.core.multiarray", "scalar", protocol), a_dtype("f8", "<", protocol), gadget
    ),
    "in a shape": lambda gadget, protocol: called(
        named("numpy.core.multiarray", "_reconstruct", protocol), named("numpy", "ndarray", protocol), gadget
    ),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", {**GADGETS, **STEPPING_STONES})
def test_no_gadget_is_executed(name, protocol, tmp_path):
    marker = tmp_path / "marker"
    write_evil_files(tmp_path, marker)
    gadget = {**GADGETS, **STEPPING_STONES}[name](marker, protocol)
    for place, put in PLACES.items():
        error = verdict(whole(put(gadget, protocol), protocol))
        assert error.reason == FORBIDDEN, place
        # Protocols 0 and 1 may be refused before, for numbers and text in opcodes that numpy never writes.
        assert protocol < 2 or not error.value.startswith("opcode"), place
    assert not marker.exists()


@pytest.mark.parametrize("name", GADGETS)
def test_the_gadgets_are_armed(name, tmp_path):
    marker = tmp_path / "marker"
    write_evil_files(tmp_path, marker)
    payload = whole(GADGETS[name](marker, 2), 2)
    with suppress(Exception):  # some fail behind the deed
        pickle.loads(payload)
    deadline = time.monotonic() + 10  # others start a process and do not wait for it
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert marker.exists()


P3 = 3
SYSTEM = named("os", "system", P3)
COMMAND = value("true", P3)
NDARRAY, DTYPE = named("numpy", "ndarray", P3), named("numpy", "dtype", P3)
RECONSTRUCT = named("numpy.core.multiarray", "_reconstruct", P3)
SCALAR = named("numpy.core.multiarray", "scalar", P3)
INJECTED = value({"function": 1, "__class__": 2, "items": [3]}, P3)

# Ways to name, make or change something -> the reason and a part of the value. "not array": nothing forbidden
# is asked for, it only makes no sense.
OPCODES = {
    "GLOBAL": (SYSTEM, FORBIDDEN, "os.system"),
    "STACK_GLOBAL": (named("os", "system", 4), FORBIDDEN, "os.system"),
    "STACK_GLOBAL of a number": (b"K\1K\2\x93", NOT_ARRAY, "STACK_GLOBAL"),
    "GLOBAL that is no text": (b"c\xff\n\xff\n", NOT_ARRAY, "Unicode"),
    "GLOBAL without end": (b"cos", FORBIDDEN, "os."),
    "INST": (b"(" + COMMAND + b"ios\nsystem\n", FORBIDDEN, "opcode"),
    "OBJ": (b"(" + NDARRAY + b"o", FORBIDDEN, "opcode"),
    "NEWOBJ": (NDARRAY + b")\x81", FORBIDDEN, "opcode"),
    "NEWOBJ_EX": (NDARRAY + b")}\x92", FORBIDDEN, "opcode"),
    "EXT1": (b"\x82\1", FORBIDDEN, "opcode"),
    "EXT2": (b"\x83\1\0", FORBIDDEN, "opcode"),
    "EXT4": (b"\x84\1\0\0\0", FORBIDDEN, "opcode"),
    "PERSID": (b"Pid\n", FORBIDDEN, "opcode"),
    "BINPERSID": (COMMAND + b"Q", FORBIDDEN, "opcode"),
    "NEXT_BUFFER": (b"\x97", FORBIDDEN, "opcode"),
    "INT of Python source": (b"I__import__('os')\n", FORBIDDEN, "opcode"),
    "STRING of Python source": (b"S'a' + 'b'\n", FORBIDDEN, "opcode"),
    "DUP": (COMMAND + b"2", FORBIDDEN, "opcode"),
    "POP": (COMMAND + b"0", FORBIDDEN, "opcode"),
    "unknown opcode": (b"\xff", FORBIDDEN, "opcode"),
    "protocol 9": (b"\x80\x09N", NOT_ARRAY, "protocol"),
    "no opcode": (b"", NOT_ARRAY, ""),
    "a type is called": (called(NDARRAY, value((9,), P3)), NOT_ARRAY, "type is called"),
    "text is called": (called(COMMAND), NOT_ARRAY, "not callable"),
    "subclass of ndarray": (called(RECONSTRUCT, DTYPE, b")", value("b", P3)), NOT_ARRAY, "subclass"),
    "dtype of many flags": (called(DTYPE, value("f8", P3), *[b"N"] * 9), NOT_ARRAY, "TypeError"),
    "dtype by source": (called(DTYPE, value("f8,O", P3)), NOT_ARRAY, "dtype"),
    "dtype by number": (called(DTYPE, value(8, P3)), NOT_ARRAY, "dtype"),
    "dtype with fields": (
        called(DTYPE, value("V8", P3)) + value((3, "|", None, ("f0",), {}, 8, 1, 0), P3) + b"b",
        NOT_ARRAY, "V8",
    ),
    "dtype with a subarray": (
        called(DTYPE, value("f8", P3)) + value((3, "<", ("f8", 2), None, None, 8, 1, 0), P3) + b"b",
        NOT_ARRAY, "structured",
    ),
    "dtype with a bad state": (called(DTYPE, value("f8", P3)) + value((3, [], 1), P3) + b"b",
                               NOT_ARRAY, "state"),
    "scalar of a pointer": (called(SCALAR, a_dtype("O8", "|"), value(b"x" * 8, P3)), NOT_ARRAY, "array data"),
    "scalar of too few bytes": (called(SCALAR, a_dtype("f8", "<"), value(b"x", P3)), NOT_ARRAY, "array size"),
    "scalar of no dtype": (called(SCALAR, COMMAND, value(b"x", P3)), NOT_ARRAY, "scalar"),
    "attributes for ndarray": (NDARRAY + INJECTED + b"b", NOT_ARRAY, "state for _Global"),
    "attributes for a function": (RECONSTRUCT + INJECTED + b"b", NOT_ARRAY, "state for _Global"),
    "attributes for a dtype": (called(DTYPE, value("f8", P3)) + INJECTED + b"b", NOT_ARRAY, "dtype state"),
    "attributes for an array": (an_array([]) + INJECTED + b"b", NOT_ARRAY, "array state"),
    "attributes for a dict": (b"}" + INJECTED + b"b", NOT_ARRAY, "AttributeError"),
    "slots for ndarray": (NDARRAY + b"N" + INJECTED + b"\x86b", NOT_ARRAY, "state for _Global"),
    "items for ndarray": (NDARRAY + value("a", P3) + b"Ns", NOT_ARRAY, "dict key"),
    "append to ndarray": (NDARRAY + b"Na", NOT_ARRAY, "AttributeError"),
    "another thing than an array": (b"]", NOT_ARRAY, "another array"),
    "bare name": (NDARRAY, NOT_ARRAY, "another array"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPCODES)
def test_no_opcode_does_more_than_it_should(name):
    body, reason, text = OPCODES[name]
    error = verdict(whole(body, P3))
    assert error.reason == reason
    assert text in error.value
    # Nothing of it sticks to the stand-ins that the next file meets.
    annotation, findings = checked(npz(an_object()))
    assert (annotation.objects[0].posed, findings) == (True, [])


# --------------------------------------------------------------------------------------------------------
# No memory without bytes, no hang
# --------------------------------------------------------------------------------------------------------

HALF_A_MEGABYTE = b"B" + struct.pack("<I", 2**19) + bytes(2**19)
AGAIN = b"h\1h\2R"  # calls what the memo has at 1 with what it has at 2


def shaped(shape: bytes, data: bytes = b"C\0") -> bytes:
    """The opcodes of an array's state: one-byte numbers in `data`."""
    return b"(" + value(1, P3) + shape + a_dtype("u1", "|") + value(False, P3) + data + b"t"


def dimensions(*sizes: int) -> bytes:
    return b"(" + b"".join(b"J" + struct.pack("<i", size) for size in sizes) + b"t"


def array_again(times: int) -> bytes:
    """Half a megabyte of numbers, unpacked into one new array after the other."""
    arguments = b"(" + NDARRAY + value((0,), P3) + value("b", P3) + b"tq\2"
    state = shaped(dimensions(2**19), HALF_A_MEGABYTE)
    return RECONSTRUCT + b"q\1" + arguments + b"R" + state + b"q\3b" + (AGAIN + b"h\3b") * times


def text_again(times: int) -> bytes:
    """40 KB of text, unpacked again and again."""
    data = b"B" + struct.pack("<I", 39_996) + b"a\0\0\0" * 9_999
    return SCALAR + b"q\1" + a_dtype("U9999", "<") + data + b"\x86q\2R" + AGAIN * times


def flags_again(times: int) -> bytes:
    """A call with 400,000 arguments, again and again."""
    return DTYPE + b"q\1(" + value("f8", P3) + b"N" * 400_000 + b"tq\2R" + AGAIN * times


def laughs(levels: int = 100) -> bytes:
    """Ten times the list that is ten times the list…: 10**levels items to whoever would walk them."""
    ten = [b"](" + b"h%c" % level * 10 + b"eq%c" % (level + 1) for level in range(levels)]
    return b"]q\0" + b"".join(ten)


def colliding_keys(count: int) -> bytes:
    """A dict whose keys are multiples of the modulus of Python's hash of integers: all hash to 0."""
    keys = (b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N" for n in range(count))
    return b"}(" + b"".join(keys) + b"u"


def nested_arrays(depth: int) -> bytes:
    before, after = an_array([b"@"]).split(b"@")
    return before * depth + b"N" + after * depth


# Pickles that ask for more than they bring -> the reason why each is refused.
CLAIMS = {
    "LONG_BINPUT 2**31": (b"Nr" + struct.pack("<I", 2**31), NOT_ARRAY),
    "LONG_BINGET 2**31": (b"j" + struct.pack("<I", 2**31), NOT_ARRAY),
    "BINBYTES 2**32": (b"B\xff\xff\xff\xff", NOT_ARRAY),
    "BINUNICODE 2**32": (b"X\xff\xff\xff\xff", NOT_ARRAY),
    "BINBYTES8 2**40": (b"\x8e" + struct.pack("<Q", 2**40), FORBIDDEN),
    "BINUNICODE8 2**40": (b"\x8d" + struct.pack("<Q", 2**40), FORBIDDEN),
    "BYTEARRAY8 2**40": (b"\x96" + struct.pack("<Q", 2**40), FORBIDDEN),
    "LONG4 2**31": (b"\x8b\xff\xff\xff\x7f", FORBIDDEN),
    "FRAME 2**60": (b"\x95" + struct.pack("<Q", 2**60) + b"N", NOT_ARRAY),
    "FRAME 2**64": (b"\x95" + b"\xff" * 8 + b"N", NOT_ARRAY),
    "shape of 64 dimensions": (an_array([]) + shaped(dimensions(*[2**20] * 64)) + b"b", NOT_ARRAY),
    "shape of 150,000 dimensions": (an_array([]) + shaped(dimensions(*[2**20] * 150_000)) + b"b", NOT_ARRAY),
    "shape of 2**62": (an_array([]) + shaped(b"\x8a\x08" + bytes(7) + b"\x40\x85") + b"b", NOT_ARRAY),
    "shape below zero": (an_array([]) + shaped(dimensions(-1)) + b"b", NOT_ARRAY),
    "shape without the bytes": (an_array([]) + shaped(dimensions(2**20)) + b"b", NOT_ARRAY),
    "one array 60,000 times": (array_again(60_000), NOT_ARRAY),
    "one text 100,000 times": (text_again(100_000), NOT_ARRAY),
    "400,000 flags 100,000 times": (flags_again(100_000), NOT_ARRAY),
    "keys that collide": (colliding_keys(70_000), NOT_ARRAY),
    "key that is a deep tuple": (b"})" + b"\x85" * 100_000 + b"Ns", NOT_ARRAY),
    "lists nested 100,000 deep": (b"]" * 100_000 + b"a" * 99_999, NOT_ARRAY),
    "tuples nested 100,000 deep": (b")" + b"\x85" * 100_000, NOT_ARRAY),
    "dicts nested 100,000 deep": (b"}X\1\0\0\0a" * 100_000 + b"}" + b"s" * 100_000, NOT_ARRAY),
    "arrays nested 5,000 deep": (b"]" + nested_arrays(5_000) + b"a", NOT_ARRAY),
    "200,000 marks": (b"(" * 200_000, NOT_ARRAY),
    "a million lists": (b"]" * 1_000_000, NOT_ARRAY),
    "billion laughs": (laughs(), NOT_ARRAY),
    "list that holds itself": (b"]q\0h\0a", NOT_ARRAY),
}


@pytest.fixture(scope="module")
def nothing_else_to_collect():
    """What other tests hold is not looked through for each list anew."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("nothing_else_to_collect")
@pytest.mark.parametrize("name", CLAIMS)
def test_claims_cost_neither_time_nor_memory(name):
    body, reason = CLAIMS[name]
    data = npz_of_pickle(whole(body, 4))
    with at_most(seconds=2), pytest.raises(Unusable) as caught:  # of a megabyte of opcodes; most take a tenth
        read_annotation_bytes(data)
    assert caught.value.reason == reason
    tracemalloc.start()
    with pytest.raises(Unusable):
        read_annotation_bytes(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * 2**20  # a million of Python's smallest objects, from a megabyte of pickle


def test_values_without_end_are_no_box():
    levels = 100
    fields = {"bbox": b"](" + b"h%c" % levels * 4 + b"e", "class": value("bed", P3), "x": nested_arrays(100)}
    items = b"".join(value(key, P3) + body for key, body in fields.items())
    prepared = b"](" + laughs(levels) + b"e"  # stays below on the stack, and in the memo
    data = npz_of_pickle(whole(prepared + an_array([b"}(" + items + b"u"]), P3))
    with at_most(seconds=1):
        annotation, findings = checked(data)
    assert [finding.reason for finding in findings] == ["bbox_wrong_type"]
    assert (annotation.num_objects, annotation.objects) == (1, ())


def test_one_object_cannot_be_named_half_a_million_times():
    named_again = an_array([b"}q\1", *[b"h\1"] * 400_000])
    assert verdict(whole(named_again, P3), 400_001).reason == "annotation_too_large"


def test_an_array_cannot_grow_behind_its_shape():
    array = an_array([b"N"])
    assert array.count(b"](N") == 1
    grown = array.replace(b"](N", b"]q\1(N") + b"q\2" + b"h\1(" + b"N" * 400_000 + b"e" + b"h\2"
    assert verdict(whole(grown, P3)).value == "another array than the header says"


# --------------------------------------------------------------------------------------------------------
# numpy 1 and numpy 2
# --------------------------------------------------------------------------------------------------------

NUMPY_VALUES = {
    "class": np.str_("bed"),
    "bbox": np.array([1, 2, 3, 4], "f4"),
    "height": np.uint16(HEIGHT),
    "azimuth": np.float64(1.25),
    "elevation": np.float32(0.5),
    "theta": np.array(0.75),
    "distance": np.int64(5),
    "px": np.array(7, ">i2"),
    "viewport": np.array([3000.0])[0],
    "cad_index": np.int32(1),
    "object_status": np.str_("status_good"),
}


def as_numpy_wrote_it(body: bytes, major: int) -> bytes:
    """The same pickle with the module name of numpy 1 or 2.

    The two cannot be installed beside each other. Their pickles of such data differ in this name alone.
    """
    modules = {1: b"numpy.core.multiarray", 2: b"numpy._core.multiarray"}
    name, other = modules[major], modules[3 - major]
    body = body.replace(b"c%s\n" % other, b"c%s\n" % name)  # GLOBAL
    body = body.replace(b"\x8c%c%s" % (len(other), other), b"\x8c%c%s" % (len(name), name))  # STACK_GLOBAL
    assert name in body
    assert other not in body
    return body


@pytest.mark.parametrize("protocol", [3, 4], ids=["protocol 3", "protocol 4"])
@pytest.mark.parametrize("numpy_version", [1, 2], ids=["numpy 1", "numpy 2"])
def test_files_of_both_numpy_versions_are_read(numpy_version, protocol):
    body = pickle.dumps(object_array([an_object(**NUMPY_VALUES)]), protocol)
    if protocol == 4:  # one frame around all; its length would have to follow the name's
        assert body[2:3] == pickle.FRAME
        body = body[:2] + body[11:]
    annotation, findings = checked(npz_of_pickle(as_numpy_wrote_it(body, numpy_version)))
    assert findings == []
    (item,) = annotation.objects
    assert item.bbox == (1.0, 2.0, 3.0, 4.0)
    pose = {name: getattr(item, name) for name in ImageNet3D.POSE_FIELDS}
    assert pose == {"azimuth": 1.25, "elevation": 0.5, "theta": 0.75, "distance": 5.0, "px": 7.0, "py": 24.25,
                    "viewport": 3000.0}  # fmt: skip
    assert (item.cad_index, item.object_status, annotation.height) == (1, "good", HEIGHT)


@pytest.mark.parametrize("code", "i1 u1 i2 u2 i4 u4 i8 u8 f2 f4 f8".split())
@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_of_every_type_keep_their_value(code, order):
    number = np.array(1.5 if "f" in code else 7, order + code)[()]
    box = np.array([0, 1, 2, 3], order + code)
    (item,) = checked(npz(an_object(px=number, bbox=box)))[0].objects
    assert (item.px, item.bbox) == (number, (0.0, 1.0, 2.0, 3.0))


# --------------------------------------------------------------------------------------------------------
# Random damage
# --------------------------------------------------------------------------------------------------------

SOUND = npz(an_object(), an_object(bbox=np.array([1.0, 2, 3, 4]), extra=[(1, None), {"a": b"b"}]))
with zipfile.ZipFile(io.BytesIO(SOUND)) as _archive:
    SOUND_NPY = _archive.read("annotations.npy")
SOUND_PICKLE = SOUND_NPY[SOUND_NPY.index(b"\n") + 1 :]


def outcome(data: bytes) -> tuple[Annotation, list[Finding]] | Unusable:
    try:
        return checked(data)
    except Unusable as error:
        return error


def ends_well(data: bytes) -> None:
    """Bytes give objects that fit every table, or a reason; anything else is raised."""
    ended = outcome(data)
    if isinstance(ended, Unusable):
        assert ended.reason in REASONS
        assert len(ended.value) < 1000
        assert ended.value.isprintable()
        return
    annotation, findings = ended
    assert all(finding.value.isprintable() and len(finding.value) < 1000 for finding in findings)
    for config in ("pose", "captions"):
        table = ImageNet3D.rows(config, [Picture(ENTRY, b"", WIDTH, HEIGHT, annotation)], RELEASE)
        table.validate(full=True)
    for item in annotation.objects:
        assert all(map(math.isfinite, item.bbox))
        assert all(math.isfinite(getattr(item, name) or 0) for name in ImageNet3D.POSE_FIELDS)


def test_the_sound_file_is_read_whole():
    for data in (SOUND, zip_of({"annotations.npy": SOUND_NPY}), npz_of_pickle(SOUND_PICKLE, 2)):
        annotation, findings = checked(data)
        assert ([item.posed for item in annotation.objects], findings) == ([True, True], [])


@bounded
@given(data=damaged(SOUND))
def test_damage_to_the_file(data):
    ends_well(data)


@bounded
@given(npy=damaged(SOUND_NPY))
def test_damage_to_the_array_with_a_right_checksum(npy):
    ends_well(zip_of({"annotations.npy": npy}))


@bounded
@given(body=damaged(SOUND_PICKLE), count=st.integers(1, 3))
def test_damage_to_the_pickle_behind_a_right_header(body, count):
    ends_well(npz_of_pickle(body, count))


# Opcodes with their operands, and whole pieces that random opcodes would not hit on.
PIECES = [
    *(
        bytes([code])
        for code in ImageNet3D.AnnotationUnpickler.dispatch
        if chr(code) not in "PcBCXr\x80\x8c\x95"
    ),
    *(b"h\0", b"h\1", b"q\0", b"q\1", b"K\0", b"K\1", b"M\0\1", b"J\xff\xff\xff\xff", b"\x8a\1\x80"),
    *(b"C\0", b"C\x08" + bytes(8), b"X\4\0\0\0bbox", b"X\2\0\0\0f8", b"X\1\0\0\0<", b"G" + bytes(8)),
    *(
        NDARRAY,
        DTYPE,
        RECONSTRUCT,
        SCALAR,
        a_dtype("f8", "<"),
        a_dtype("O8", "|"),
        an_array([b"N"]),
        an_array([]),
    ),
]


@bounded
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=40), wrapped=st.booleans())
def test_random_opcodes(pieces, wrapped):
    body = b"".join(pieces)
    ends_well(npz_of_pickle(whole(an_array([body]) if wrapped else body, P3)))


NUMBERS = st.one_of(
    st.booleans(), st.integers(), st.integers(-(2**1200), 2**1200), st.floats(), st.floats(-10, 10),
    st.sampled_from([np.float32(1), np.uint16(3), np.int64(-1), np.bool_(True), np.array(2.0), np.str_("1")]),
)  # fmt: skip
VALUES = st.one_of(
    NUMBERS, st.none(), st.text(), st.binary(), st.lists(NUMBERS, max_size=5),
    st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), st.dictionaries(st.text(), NUMBERS, max_size=2),
    st.lists(st.floats(), max_size=5).map(np.array), st.lists(st.text(max_size=3), max_size=2).map(np.array),
)  # fmt: skip


@bounded
@given(changes=st.dictionaries(st.sampled_from([*an_object(), "ignore"]), VALUES, max_size=4))
def test_values_of_any_type(changes):
    ends_well(npz(an_object(**changes)))
