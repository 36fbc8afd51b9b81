"""The server: who may ask and write, what is written, the queue, the review, and the report."""

import http.client
import json
import math
import os
import re
import signal
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import trimesh
from click.testing import CliRunner
from starlette.testclient import TestClient
from support.annotating import Served, body
from support.raw_tree import RawTreeWriter, an_object

from ImageNet3D import (
    CORRECTED_FIELDS,
    OBJECT_STATUS,
    POSE_FIELDS,
    RawTree,
    parse_correction,
    read_annotation,
    read_corrections,
    survey,
)
from processing.__main__ import main
from processing.annotate.command import report_on
from processing.annotate.queue import Filter, Queue
from processing.annotate.readings import Readings
from processing.annotate.server import MAX_BODY_BYTES, Tool
from processing.geometry import project

pytestmark = pytest.mark.slow

TOKEN, HOST = "the-token", "127.0.0.1:8000"
ORIGIN = f"http://{HOST}"


@pytest.fixture(scope="module")
def queue(sample_folder):
    return Queue(str(sample_folder))


@pytest.fixture
def readings(tmp_path):
    return Readings(tmp_path / "fixes.jsonl")


@pytest.fixture
def client(queue, readings):
    app = Tool(queue, readings, TOKEN).app(frozenset([HOST]))
    headers = {"authorization": f"Bearer {TOKEN}", "origin": ORIGIN}
    return TestClient(app, base_url=ORIGIN, headers=headers)


# --------------------------------------------------------------------------------------------------------
# Who may ask
# --------------------------------------------------------------------------------------------------------

PATHS = (
    "/",
    "/api/queue",
    "/api/object/0",
    "/api/picture/0",
    "/api/mesh/bed/1",
    "/api/thumbnail/bed/1",
    "/api/pairs",
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("token", ["", "Bearer ", "Bearer wrong", "Bearer the-tokeN", "Bearer é"])
def test_nothing_is_served_without_the_token(client, path, token):
    answer = client.get(path, headers={"authorization": token.encode("latin-1")})
    assert answer.status_code == 403
    assert TOKEN not in answer.text


def test_the_page_wants_the_token_in_its_address(client):
    assert client.get("/").status_code == 403
    assert client.get("/?token=wrong").status_code == 403
    assert client.get(f"/?token={TOKEN}").status_code == 200


def test_a_server_by_another_name_does_not_answer(client):
    """Nor through a tunnel from another port; the answer names the remedy."""
    for host in ("evil.example", "127.0.0.1:9000"):
        answer = client.get("/api/queue", headers={"host": host})
        assert (answer.status_code, HOST in answer.text, "same port" in answer.text) == (403, True, True)


def test_the_page_lets_no_other_script_in_and_asks_nobody_else(client):
    policy = client.get(f"/?token={TOKEN}").headers["content-security-policy"]
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts["default-src"] == parts["form-action"] == parts["frame-ancestors"] == "'none'"
    assert re.fullmatch(r"'sha256-[\w+/=]+'", parts["script-src"])
    assert parts["connect-src"] == "'self'"
    assert "unsafe" not in policy


REFUSED = {
    "no token": (403, {"authorization": ""}, {}),
    "no origin": (403, {"origin": ""}, {}),
    "another origin": (403, {"origin": "http://evil.example"}, {}),
    "another port": (403, {"origin": "http://127.0.0.1:8001"}, {}),
    "another object": (409, {}, {"object_index": 77}),
    "another picture": (409, {}, {"image_id": "bed/nowhere"}),
    "no such number": (404, {}, {"number": 10**9}),
    "a number that is text": (404, {}, {"number": "0"}),
    "no status": (422, {}, {"values": {"object_status": None}}),
    "no density": (422, {}, {"values": {"dense": None}}),
    "a word for a number": (422, {}, {"values": {"azimuth": "north"}}),
    "degrees": (422, {}, {"values": {"azimuth": 90.5}}),
    "another field": (422, {}, {"values": {"zoom": 1}}),
    "another operation": (422, {}, {"operation": "rename"}),
    "an object without a box": (422, {}, {"operation": "add", "values": {"bbox": None}}),
    "an object without a status": (422, {}, {"operation": "add", "values": {"object_status": None}}),
    "an escape in the name": (422, {}, {"who": "\x1b[31m"}),
    "a name that is none": (422, {}, {"who": {"a": 1}}),
    "a note that is none": (422, {}, {"note": [1]}),
    "a long note": (422, {}, {"note": "x" * 3000}),
    "10 MB of note": (413, {}, {"note": "x" * 10**7}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_writes_nothing(client, queue, readings, case):
    status, headers, changes = REFUSED[case]
    content = {**body(queue, values=changes.get("values", {}))}
    content |= {name: value for name, value in changes.items() if name != "values"}
    answer = client.post("/api/save", json=content, headers=headers)
    assert answer.status_code == status
    assert len(answer.text) < 1000
    assert not readings.path.exists()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"[" * 60000, b'"\\ud800"'])
def test_what_is_not_json_is_refused(client, readings, data):
    assert client.post("/api/save", content=data).status_code == 400
    assert client.post("/api/choose", content=data).status_code == 400
    assert not readings.path.exists()


def test_a_body_without_length_is_cut_off_too(client, readings):
    answer = client.post("/api/save", content=(b"x" * 4096 for _ in range(MAX_BODY_BYTES // 4096 + 1)))
    assert answer.status_code == 413
    assert not readings.path.exists()


@pytest.mark.parametrize(
    "path", ["/api/object/999999", "/api/mesh/bed/99", "/api/mesh/..%2Fbed/1", "/api/picture/-1"]
)
def test_what_is_not_there_is_not_found(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD"])
def test_other_methods_are_refused(client, method):
    assert client.request(method, "/api/queue").status_code == 405


# --------------------------------------------------------------------------------------------------------
# Saving
# --------------------------------------------------------------------------------------------------------


def test_a_save_is_the_line_that_build_applies(client, queue, readings, sample_folder):
    values = {"azimuth": 0.1 + 0.2, "object_status": "barely", "dense": True}
    answer = client.post("/api/save", json=body(queue, values=values, note=" front\nand back "))
    line = readings.path.read_text().rstrip("\n")
    assert answer.json()["saved"] == json.loads(line)
    correction = parse_correction(line)
    released = queue.items[0].released
    assert correction.new == values
    assert correction.old == {name: released[name] for name in values}
    assert (correction.who, correction.why) == ("A", "front and back")
    assert survey(RawTree(str(sample_folder)), corrections=str(readings.path)).corrections == (correction,)


def test_what_agrees_with_the_release_is_done_all_the_same(client, queue, readings):
    client.post("/api/save", json=body(queue, who=None))
    assert set(readings.lines[0].new) == {"object_status", "dense"}
    assert readings.lines[0].who is None


def test_the_later_reading_wins_whole(client, queue, readings):
    """B, who finds the azimuth as released, says so where A said otherwise."""
    client.post("/api/save", json=body(queue, values={"azimuth": 2.0}))
    client.post("/api/save", json=body(queue, who="B", values={"px": 5.0}))
    released = queue.items[0].released
    assert readings.lines[1].new["azimuth"] == released["azimuth"]
    assert readings.lines[1].new["px"] == 5.0


def test_each_sees_the_own_reading_and_not_the_other_one(client, queue):
    client.post("/api/save", json=body(queue, values={"azimuth": 2.0}, note="turned"))
    mine = client.get("/api/object/0", params={"who": "A"}).json()
    assert (mine["mine"]["azimuth"], mine["note"]) == (2.0, "turned")
    other = client.get("/api/object/0", params={"who": "B"}).json()
    assert (other["mine"], other["note"]) == (None, "")
    assert other["start"]["azimuth"] == queue.items[0].released["azimuth"]


def test_an_object_is_left_out_and_taken_back(client, queue, readings):
    for operation, expected in (("leave_out", True), ("take_back", False)):
        client.post("/api/save", json=body(queue, operation=operation))
        shown = client.get("/api/object/0", params={"who": "A"}).json()
        assert (shown["left_out"], shown["note"]) == (expected, "")
    assert {line.why for line in readings.lines} == {"no reason given"}
    assert [line.operation for line in readings.lines] == ["leave_out", "take_back"]


def corrected(sample_folder, readings, key):
    """What the release says of an object with the corrections; None if it is left out. And the notes."""
    found = survey(RawTree(str(sample_folder)), corrections=str(readings.path))
    entry = next(e for split in found.entries.values() for e in split if e.image_id == key.image_id)
    notes = []
    objects = read_annotation(found.release, entry, notes).objects
    return next((item for item in objects if item.index == key.object_index), None), notes


def test_who_does_not_see_that_another_left_an_object_out_brings_it_back(
    client, queue, readings, sample_folder
):
    """The later reading wins as a whole; who left it out and saves a pose still says that it is none."""
    key = queue.items[0].key
    client.post("/api/save", json=body(queue, operation="leave_out"))
    client.post("/api/save", json=body(queue, values={"azimuth": 1.25}))
    assert corrected(sample_folder, readings, key)[0] is None
    client.post("/api/save", json=body(queue, who="B", values={"azimuth": 2.0}))
    assert [line.operation for line in readings.lines] == ["leave_out", "set", "take_back", "set"]
    assert corrected(sample_folder, readings, key)[0].azimuth == 2.0
    client.post("/api/save", json=body(queue, who="B", values={"azimuth": 2.5}))
    assert len(readings.lines) == 5  # it is back already
    assert report_on(str(sample_folder), str(readings.path)).left_out == 0


ODD = {"azimuth": 20.0, "bbox": (50.0, 40.0, 10.0, 8.0), "distance": -1.0, "viewport": 0.0, "cad_index": 0}


@pytest.mark.parametrize("name", ODD)
def test_a_release_value_that_no_correction_may_have_can_be_agreed_with(tmp_path, name):
    """B keeps what A mended; the line says the same in a form that a correction may have."""
    from support.raw_tree import RawTreeWriter, an_object

    raw = (
        RawTreeWriter()
        .sound()
        .annotation("bed", "a", an_object(**{name: ODD[name]}))
        .folder(tmp_path / "raw")
    )
    queue, readings = Queue(str(raw)), Readings(tmp_path / "fixes.jsonl")
    headers = {"authorization": f"Bearer {TOKEN}", "origin": ORIGIN}
    client = TestClient(Tool(queue, readings, TOKEN).app(frozenset([HOST])), base_url=ORIGIN, headers=headers)
    released = queue.items[0].released
    mended = {"bbox": [1.0, 2.0, 30.0, 40.0], "cad_index": 1}.get(name, 1.5)
    for who, value in (("A", mended), ("B", released[name])):
        answer = client.post("/api/save", json=body(queue, who=who, values={name: value}))
        assert answer.status_code == 200, answer.text
    meant = {"azimuth": math.remainder(20.0, 2 * math.pi), "bbox": [10.0, 8.0, 50.0, 40.0]}.get(name)
    assert readings.lines[-1].new[name] == meant
    assert survey(RawTree(str(raw)), corrections=str(readings.path))


NEW_BOX = [10.0, 20.5, 110.0, 90.0]


def adding(client, queue, number=0, **values):
    """An object that is added to the picture of another, with the pose that the page begins with."""
    start = client.get(f"/api/guess/{number}", params={"bbox": ",".join(map(str, NEW_BOX))}).json()["start"]
    values = {**start, "object_status": "partially", "dense": True, **values}
    answer = client.post("/api/save", json=body(queue, number, operation="add", values=values))
    assert answer.status_code == 200, answer.text
    return answer.json()["saved"]


@pytest.fixture
def fresh(sample_folder, readings):
    """A queue of its own, which a test may add to, and its page."""
    queue = Queue(str(sample_folder))
    headers = {"authorization": f"Bearer {TOKEN}", "origin": ORIGIN}
    app = Tool(queue, readings, TOKEN).app(frozenset([HOST]))
    return queue, TestClient(app, base_url=ORIGIN, headers=headers)


def test_an_added_object_begins_with_a_guess_and_becomes_a_row(fresh, readings, sample_folder, tmp_path):
    from processing.build.command import build
    from processing.verify.command import verify

    queue, client = fresh
    number = next(item.number for item in queue.items if len(item.picture.objects) > 1)
    item = queue.items[number]
    saved = adding(client, queue, number)
    assert (saved["operation"], saved["new"]["bbox"], "old" in saved) == ("add", NEW_BOX, False)
    assert saved["object_index"] == queue.num_objects(item.picture)
    new = saved["new"]
    mesh = queue.mesh(item.picture.category, new["cad_index"])
    points, _ = project(mesh.vertices, *(new[name] for name in POSE_FIELDS))
    filled = np.ptp(points, axis=0) / (NEW_BOX[2] - NEW_BOX[0], NEW_BOX[3] - NEW_BOX[1])
    assert filled.max() == pytest.approx(1, abs=0.02)
    out = tmp_path / "out"
    build(str(sample_folder), out, configs=["pose"], corrections=[str(readings.path)], workers=1)
    assert not verify(out, raw=str(sample_folder), workers=1)
    rows = [
        row
        for shard in (out / "pose").glob("*.parquet")
        for row in pq.read_table(shard, columns=[*CORRECTED_FIELDS, "image_id", "object_index"]).to_pylist()
        if (row["image_id"], row["object_index"]) == (saved["image_id"], saved["object_index"])
    ]
    expected = {**new, "object_status": OBJECT_STATUS.index("partially")}
    assert [{name: row[name] for name in CORRECTED_FIELDS} for row in rows] == [expected]


def test_an_added_object_is_in_the_queue_and_can_be_corrected_and_left_out(
    fresh, readings, sample_folder, tmp_path
):
    from processing.build.command import build

    queue, client = fresh
    count = len(queue.items)
    saved = adding(client, queue, 1, theta=0.25)
    chosen = client.get("/api/queue", params={"who": "A"}).json()
    place = chosen["numbers"].index(count)
    assert chosen["done"][place]
    assert not client.get("/api/queue", params={"who": "B"}).json()["done"][place]
    before = queue.items[chosen["numbers"][place - 1]]
    assert before.key.image_id == saved["image_id"]  # it stands with its picture
    shown = client.get(f"/api/object/{count}", params={"who": "B"}).json()
    assert (shown["added"], shown["object_index"]) == (True, saved["object_index"])
    assert shown["start"] == {**saved["new"]}
    assert client.get(f"/api/picture/{count}").content == client.get("/api/picture/1").content
    client.post("/api/save", json=body(queue, count, who="B", values={**saved["new"], "theta": 0.5}))
    assert readings.lines[-1].old["theta"] == 0.25
    client.post("/api/save", json=body(queue, count, operation="leave_out"))
    # Whoever starts later, on the same file, finds the same; and build takes it all.
    again = Queue(str(sample_folder))
    again.take_in(Readings(readings.path).added.values())
    assert again.items[count] == queue.items[count]
    assert len(survey(RawTree(str(sample_folder)), corrections=str(readings.path)).corrections) == 3
    report = report_on(str(sample_folder), str(readings.path))
    assert (report.objects, report.added, report.done, report.left_out) == (count + 1, 1, 1, 1)
    # Also in a folder that was built with it.
    client.post("/api/save", json=body(queue, count, operation="take_back"))
    out = tmp_path / "out"
    build(str(sample_folder), out, configs=["pose"], corrections=[str(readings.path)], workers=1)
    assert report_on(str(out), str(readings.path)).added == 1


def test_two_who_add_to_one_picture_get_two_objects(fresh, readings, sample_folder):
    """At the same time, at two servers with one file."""
    queue, client = fresh
    other = Tool(Queue(str(sample_folder)), Readings(readings.path), TOKEN).app(frozenset([HOST]))
    clients = [client, TestClient(other, base_url=ORIGIN, headers=client.headers)]
    saved: list[dict] = []
    threads = [
        threading.Thread(target=lambda c=c: saved.extend(adding(c, queue) for _ in range(5))) for c in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    first = queue.num_objects(queue.items[0].picture)
    assert sorted(line["object_index"] for line in saved) == list(range(first, first + 10))
    assert len(survey(RawTree(str(sample_folder)), corrections=str(readings.path)).corrections) == 10


@pytest.mark.parametrize("bbox", ["", "1,2,3", "1,2,3,x", "1,2,3,nan", "1,2,3,inf", "1,2,3,4,5"])
def test_no_guess_is_made_of_no_box(client, bbox):
    assert client.get("/api/guess/0", params={"bbox": bbox}).status_code in (400, 422)


def test_a_built_folder_takes_objects_where_it_counts_them(sample_folder, tmp_path):
    """Objects that are no rows count too: without the config classification nobody can tell how many."""
    from processing.build.command import build

    headers = {"authorization": f"Bearer {TOKEN}", "origin": ORIGIN}
    raw = Queue(str(sample_folder))
    for configs in (["pose", "classification"], ["pose"]):
        out = tmp_path / "-".join(configs)
        build(str(sample_folder), out, configs=configs, workers=1)
        queue, readings = Queue(str(out)), Readings(tmp_path / f"{out.name}.jsonl")
        client = TestClient(
            Tool(queue, readings, TOKEN).app(frozenset([HOST])), base_url=ORIGIN, headers=headers
        )
        item = queue.items[0]
        if "classification" in configs:
            count = next(i for i in raw.items if i.key == item.key).picture
            assert adding(client, queue)["object_index"] == raw.num_objects(count)
            number = len(queue.items) - 1
            assert client.get(f"/api/picture/{number}").content == client.get("/api/picture/0").content
        else:
            answer = client.post("/api/save", json=body(queue, operation="add", values={"bbox": NEW_BOX}))
            assert (answer.status_code, "classification" in answer.text) == (422, True)
            assert not readings.path.exists()


def test_pictures_and_models_are_served(client, queue):
    picture = client.get("/api/picture/0")
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content == queue.picture(queue.items[0])
    category = queue.items[0].picture.category
    assert client.get(f"/api/thumbnail/{category}/1").content.startswith(b"\x89PNG")
    assert client.get(f"/api/mesh/{category}/1").json()["faces"] > 0


# --------------------------------------------------------------------------------------------------------
# The queue
# --------------------------------------------------------------------------------------------------------


def test_filters_choose_what_they_say(queue):
    category = queue.categories[0]
    for wanted, is_so in (
        (Filter(category=category), lambda i: i.picture.category == category),
        (Filter(split="train"), lambda i: i.picture.split == "train"),
        (Filter(status="good"), lambda i: i.released["object_status"] == "good"),
        (Filter(status="none"), lambda i: i.released["object_status"] is None),
        (Filter(density="dense"), lambda i: i.released["dense"] is True),
        (Filter(unposed=True), lambda i: i.released["azimuth"] is None),
    ):
        assert queue.chosen(wanted) == [item for item in queue.items if is_so(item)]
    assert 0 < len(queue.chosen(Filter(unposed=True))) < len(queue.items)


def test_boxes_and_meshes_that_disagree_are_found(queue):
    differ = queue.chosen(Filter(below=0.5))
    assert {item.number for item in differ} < {item.number for item in queue.items}
    assert {item.number for item in queue.chosen(Filter(unposed=True))} <= {item.number for item in differ}
    assert len(queue.chosen(Filter(below=1.01))) == len(queue.items)


def test_vertices_that_no_triangle_uses_do_not_count(tmp_path):
    """The second model is the first one with such a vertex; each object's box is that of its mesh."""
    cube = trimesh.creation.box((0.5, 0.5, 0.5))
    more = trimesh.Trimesh(np.vstack([cube.vertices, [10, 10, 10]]), cube.faces, process=False)
    tree = RawTreeWriter().lists("bed", val=("a", "b"))
    item = an_object(viewport=300.0)
    points, _ = project(cube.vertices, *(item[name] for name in POSE_FIELDS))
    box = [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]
    for index, (stem, model) in enumerate({"a": cube, "b": more}.items(), 1):
        tree.picture("bed", stem).annotation("bed", stem, item | {"bbox": box, "cad_index": index})
        tree.files[f"CAD/bed/{index:02d}.off"] = model.export(file_type="off").encode()
    queue = Queue(tree.folder(tmp_path / "raw"))
    assert len(queue.items) == 2
    assert queue.chosen(Filter(below=0.99)) == []
    one, other = (queue.guess("bed", {"bbox": box, "cad_index": index})["distance"] for index in (1, 2))
    assert one == other < 6


def test_a_file_names_objects(queue, sample_folder, tmp_path):
    keys = [item.key for item in queue.items[3:5]]
    (tmp_path / "named").write_text("".join(f"{k.image_id} {k.object_index}\n" for k in keys))
    named = Queue(str(sample_folder), str(tmp_path / "named"))
    assert [item.key for item in named.chosen(Filter(named=True))] == keys
    (tmp_path / "named").write_text("bed/nowhere 0\n\nbed\n")
    with pytest.raises(ValueError, match=r"line 1: .*\n.*line 3: .*\n.*image_id and an object_index"):
        Queue(str(sample_folder), str(tmp_path / "named"))


def test_one_goes_on_where_one_stopped(client, queue):
    for number in (0, 1, 4):
        client.post("/api/save", json=body(queue, number))
    mine = client.get("/api/queue", params={"who": "A"}).json()
    assert [place for place, done in enumerate(mine["done"]) if done] == [0, 1, 4]
    assert mine["at"] == 5
    assert client.get("/api/queue", params={"who": "B"}).json()["at"] == 0


def test_the_first_guess_fills_the_box(queue):
    unposed = queue.chosen(Filter(unposed=True))
    assert unposed
    for item in unposed:
        start = queue.start(item)
        assert set(start) == set(CORRECTED_FIELDS)
        mesh = queue.mesh(item.picture.category, start["cad_index"])
        points, _ = project(mesh.vertices, *(start[name] for name in POSE_FIELDS))
        x1, y1, x2, y2 = start["bbox"]
        assert (start["px"], start["py"]) == ((x1 + x2) / 2, (y1 + y2) / 2)
        filled = np.ptp(points, axis=0) / (x2 - x1, y2 - y1)
        assert filled.max() == pytest.approx(1, abs=0.02)
        assert start["viewport"] == 3000


def test_a_built_folder_says_what_the_release_said(queue, sample_folder, client, readings, tmp_path):
    from processing.build.command import build

    number = next(item.number for item in queue.items if item.annotation.posed)
    client.post("/api/save", json=body(queue, number, values={"azimuth": 2.0}))
    build(str(sample_folder), tmp_path / "out", configs=["pose"], corrections=[str(readings.path)], workers=1)
    for path in (tmp_path / "out", (tmp_path / "out").as_uri()):
        again = Queue(str(path))
        item = next(item for item in again.items if item.key == queue.items[number].key)
        assert item.annotation.azimuth == 2.0
        assert item.released["azimuth"] == queue.items[number].released["azimuth"]


# --------------------------------------------------------------------------------------------------------
# Review and report
# --------------------------------------------------------------------------------------------------------


def test_the_better_of_two_readings_wins(client, queue, readings, sample_folder):
    client.post("/api/save", json=body(queue, values={"azimuth": 1.0}))
    assert client.get("/api/pairs").json()["numbers"] == []
    client.post("/api/save", json=body(queue, who="B", values={"azimuth": 2.0}))
    assert client.get("/api/pairs").json()["numbers"] == [0]
    pair = client.get("/api/pair/0").json()
    assert "who" not in json.dumps(pair)
    assert "when" not in json.dumps(pair)
    shown = [reading["values"]["azimuth"] for reading in pair["readings"]]
    assert sorted(shown) == [1.0, 2.0]
    chosen = {**body(queue, who="C"), "pair": pair["pair"], "choice": shown.index(1.0)}
    for wrong in ({"choice": 2}, {"choice": True}, {"pair": "other"}):
        assert client.post("/api/choose", json={**chosen, **wrong}).status_code in (409, 422)
    assert client.post("/api/choose", json=chosen).status_code == 200
    assert readings.lines[-1].reviewed
    assert client.get("/api/pairs").json()["numbers"] == []
    assert corrected(sample_folder, readings, queue.items[0].key)[0].azimuth == 1.0
    # A newer reading opens it again.
    client.post("/api/save", json=body(queue, values={"azimuth": 1.5}))
    assert client.get("/api/pairs").json()["numbers"] == [0]


@pytest.mark.parametrize("left_out", [False, True])
def test_the_better_reading_wins_where_the_other_one_leaves_the_object_out(
    client, queue, readings, sample_folder, left_out
):
    client.post("/api/save", json=body(queue, operation="leave_out"))
    client.post("/api/save", json=body(queue, who="B", values={"azimuth": 2.0}))
    pair = client.get("/api/pair/0").json()
    choice = [reading["left_out"] for reading in pair["readings"]].index(left_out)
    chosen = {**body(queue, who="C"), "pair": pair["pair"], "choice": choice}
    client.post("/api/save", json=body(queue, who="A", operation="leave_out"))
    assert client.post("/api/choose", json=chosen).status_code == 409  # there is a newer one
    pair = client.get("/api/pair/0").json()
    chosen |= {
        "pair": pair["pair"],
        "choice": [reading["left_out"] for reading in pair["readings"]].index(left_out),
    }
    assert client.post("/api/choose", json=chosen).status_code == 200
    assert all(line.reviewed for line in readings.lines if line.who == "C")
    assert client.get("/api/pairs").json()["numbers"] == []
    item, _ = corrected(sample_folder, readings, queue.items[0].key)
    assert (item is None) == left_out
    assert report_on(str(sample_folder), str(readings.path)).left_out == left_out


def test_two_who_say_the_same_overrule_nobody(client, queue, readings, sample_folder):
    for who, values in (("A", {}), ("B", {}), ("C", {"azimuth": 2.0}), ("D", {"azimuth": 2.5})):
        client.post("/api/save", json=body(queue, who=who, values=values))
    _, notes = corrected(sample_folder, readings, queue.items[0].key)
    overruled = [note.value for note in notes if note.reason == "correction_overruled"]
    assert overruled == [f"azimuth at {readings.lines[-1].when}"]


def test_the_order_of_two_readings_is_random(queue, tmp_path):
    seen = set()
    for number in range(24):
        readings = Readings(tmp_path / f"{number}.jsonl")
        tool = Tool(queue, readings, f"{TOKEN}{number}").app(None)
        client = TestClient(
            tool, headers={"authorization": f"Bearer {TOKEN}{number}", "origin": "http://testserver"}
        )
        for who, azimuth in (("A", 1.0), ("B", 2.0)):
            client.post("/api/save", json=body(queue, who=who, values={"azimuth": azimuth}))
        seen.add(client.get("/api/pair/0").json()["readings"][0]["values"]["azimuth"])
        if len(seen) == 2:
            return
    pytest.fail("always the same one on the left")


def test_the_report_counts_and_measures(queue, sample_folder, tmp_path):
    """Two people, one of whom turns by known angles; a break is not work."""
    path = tmp_path / "fixes.jsonl"
    posed = [item for item in queue.items if item.annotation.posed][:4]
    lines = []
    for minute, (item, degrees) in enumerate(zip(posed, (5, 15, 45, 5), strict=True)):
        for who, turn, hour in (("A", 0, 9), ("B", math.radians(degrees), 10)):
            old = {"azimuth": item.released["azimuth"], "elevation": item.released["elevation"]}
            new = {"azimuth": 1.0 + turn, "elevation": 0.0}
            when = f"2026-11-28T{hour:02d}:{minute * 3:02d}:00Z"
            key = {"image_id": item.key.image_id, "object_index": item.key.object_index}
            more = {"old": {**old, "theta": item.released["theta"]}, "new": {**new, "theta": 0.0}}
            lines.append({"operation": "set", **key, **more, "who": who, "when": when, "why": "read"})
    lines[-1]["when"] = "2026-11-28T11:00:00Z"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    report = report_on(str(sample_folder), str(path))
    assert (report.objects, report.done, report.reviewed) == (len(queue.items), 4, 0)
    assert [(w.who, w.objects, w.lines) for w in report.people] == [("A", 4, 4), ("B", 4, 4)]
    assert [w.hours for w in report.people] == pytest.approx([9 / 60, 6 / 60])
    every = report.agreement[-1]
    assert (every.category, every.pairs, every.below_30, every.below_10) == ("all", 4, 0.75, 0.5)
    assert every.median == pytest.approx(10)
    assert sum(a.pairs for a in report.agreement[:-1]) == 4
    options = ["annotate", str(sample_folder), "--corrections", str(path), "--report"]
    printed = CliRunner().invoke(main, options)
    assert "4 of" in printed.output
    assert "75.0%" in printed.output
    as_json = CliRunner().invoke(main, [*options, "--json"])
    assert json.loads(as_json.output)["agreement"][-1]["below_10"] == 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--report"], "fixes.jsonl: no such file of corrections"),
        (["--corrections", "nowhere/fixes.jsonl"], "nowhere/fixes.jsonl: there is no such folder"),
        (["--corrections", "memory://fixes.jsonl"], "there is no such folder on this machine"),
        (["--objects", "latin"], "latin: is no UTF-8"),
        (["--host", "192.0.2.1"], "192.0.2.1, port 0: .*; name another --host or --port"),
    ],
)
def test_what_cannot_be_had_is_said(tiny, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin").write_bytes(b"bed/caf\xe9 0\n")
    done = CliRunner().invoke(main, ["annotate", str(tiny), "--corrections", "fixes.jsonl", *options])
    assert done.exit_code == 1
    assert re.search(said, done.output)
    assert not (tmp_path / "fixes.jsonl").exists()


# --------------------------------------------------------------------------------------------------------
# The real server
# --------------------------------------------------------------------------------------------------------


def test_the_command_serves_this_machine_alone_and_ends_when_asked(tiny, tmp_path):
    served = Served(tiny, tmp_path / "fixes.jsonl")
    try:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", served.address)
    finally:
        served.end(signal.SIGINT)
    assert served.process.returncode in (0, 1, 130, -signal.SIGINT)


@pytest.fixture
def tiny(tmp_path):
    """A raw tree of one picture, which is read at once."""
    from support.raw_tree import RawTreeWriter

    return RawTreeWriter().sound("bed").folder(tmp_path / "raw")


def killed_amid_saves(served, queue, path, after):
    """Two people save as fast as they can; what they were told is saved, when the server is killed."""
    told = {"A": [], "B": []}
    begun = threading.Event()

    def save_on(who):
        for number in range(10000):
            note = f"{who} {os.getpid()} {id(served)} {number} " + "x" * 800
            try:
                if served.save(body(queue, who=who, note=note)) == 200:
                    told[who].append(note)
                    begun.set()
            except OSError:
                return
            except http.client.HTTPException:
                return

    threads = [threading.Thread(target=save_on, args=(who,)) for who in told]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    time.sleep(after)
    served.end(signal.SIGKILL)
    for thread in threads:
        thread.join(20)
    lines = [json.loads(line) for line in path.read_bytes().decode().split("\n") if line]
    written = {line["why"] for line in lines}
    assert set(told["A"] + told["B"]) <= written
    assert read_corrections(str(path))
    return len(told["A"] + told["B"])


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_no_acknowledged_line_is_lost_when_the_server_is_killed(tiny, tmp_path, times):
    path, queue = tmp_path / "fixes.jsonl", Queue(str(tiny))
    for number in range(times):
        killed_amid_saves(Served(tiny, path), queue, path, 0.02 * (number % 7))
