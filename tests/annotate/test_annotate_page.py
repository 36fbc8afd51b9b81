"""The page in a browser: hands and keys on a pose, saving, going on, reviewing; what is seen is saved."""

import json
import math
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from support.browser import DESKTOP, needs_chromium

from ImageNet3D import POSE_FIELDS, read_corrections
from processing.annotate.queue import Filter, Queue
from processing.geometry import project

pytestmark = [pytest.mark.slow, needs_chromium]


ODD = "a #b?%41"  # a category


@pytest.fixture(scope="module")
def raw(sample_folder, tmp_path_factory):
    """The sample with a category of an odd name, and with a picture that cannot be read: the last one."""
    raw = tmp_path_factory.mktemp("odd") / "raw"
    shutil.copytree(sample_folder, raw)
    for path in sorted(raw.rglob("ambulance*"), reverse=True):
        path.rename(path.with_name(path.name.replace("ambulance", ODD)))
    picture = next(raw.glob(f"images/{Queue(str(raw)).items[-1].key.image_id}.*"))
    picture.write_bytes(picture.read_bytes()[:200])
    return raw


@pytest.fixture(scope="module")
def queue(raw):
    return Queue(str(raw))


@pytest.fixture(scope="module")
def served(raw, tmp_path_factory):
    """The address and the file that saves go to."""
    path = tmp_path_factory.mktemp("annotate") / "fixes.jsonl"
    command = [sys.executable, "-m", "processing", "annotate", str(raw), "--corrections", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip(), path
    process.terminate()
    process.communicate(timeout=20)


_CHOOSE = """
    const element = document.querySelector(arguments[0]);
    element.value = arguments[1];
    element.dispatchEvent(new Event("change"));
"""
_PAINTED = """(() => {
    const { over } = annotate.editor.stage;
    const { data } = over.getContext("2d").getImageData(0, 0, over.width, over.height);
    return data.reduce((count, value, i) => count + (i % 4 === 3 && value > 0), 0);
})()"""
_EMPTY = """((canvases) => [...canvases].every((canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.every((value) => value === 0);
}))"""
_GATE = """
    const [part, fetched] = [arguments[0], globalThis.fetch];
    Object.assign(globalThis, { waiting: [], isOpen: false, passed: 0 });
    globalThis.fetch = async (path, options) => {
        if (!path.includes(part) || isOpen) return fetched(path, options);
        await new Promise((go) => waiting.push(go));
        const answer = await fetched(path, options);
        setTimeout(() => { passed += 1; }, 50);
        return answer;
    };
    globalThis.takeAway = () => { globalThis.fetch = fetched; };
"""


class Page:
    """The tool, open, and what the tests ask of it."""

    def __init__(self, browser, served):
        self.browser, (self.address, self.path) = browser, served

    def load(self, **options):
        self.browser.open(self.address, **options)
        self.settle()

    def settle(self):
        """Wait until an object is there with its mesh, and painted."""
        self.until("globalThis.annotate && annotate.editor.object && annotate.editor.stage.mesh")
        self.be_still()

    def be_still(self):
        """Wait until all is painted, in all pixels."""
        self.until("!annotate.editor.stage.waiting && annotate.editor.stage.share === 1")

    def until(self, expression):
        end = time.monotonic() + 30
        while not self.browser.js(f"!!({expression})"):
            assert time.monotonic() < end, f"never {expression}: {self.said}"
            time.sleep(0.02)

    @property
    def values(self):
        return self.browser.js("annotate.editor.values")

    @property
    def said(self):
        return self.browser.one("#said").text

    def press(self, *keys):
        """Keys for the picture."""
        self.browser.js("document.getElementById('stage').focus()")
        for key in keys:
            ActionChains(self.browser.driver).send_keys(key).perform()

    def hold(self, held, key):
        ActionChains(self.browser.driver).key_down(held).send_keys(key).key_up(held).perform()

    def keep_down(self, key, code, number, text):
        """What a keyboard sends of a key that is held, after the first."""
        event = {"key": key, "code": code, "windowsVirtualKeyCode": number, "text": text}
        for _ in range(3):
            self.browser.command("Input.dispatchKeyEvent", type="keyDown", autoRepeat=True, **event)
        self.browser.command("Input.dispatchKeyEvent", type="keyUp", key=key, code=code)

    def go(self, number):
        """Go to an object of the queue."""
        self.browser.js(f"void told(() => go(annotate.queue.numbers.indexOf({number})))()")
        self.until(f"annotate.editor.object?.number === {number}")

    @contextmanager
    def slow(self, part):
        """Requests with a part in their path wait; gives what lets them go and waits for what they do."""
        self.browser.driver.execute_script(_GATE, part)

        def let_go(count=1):
            self.until(f"waiting.length === {count}")
            self.browser.driver.execute_script("isOpen = true; for (const go of waiting.splice(0)) go()")
            self.until(f"passed === {count}")
            self.browser.driver.execute_script("isOpen = false; passed = 0")

        yield let_go
        self.browser.js("takeAway()")

    def write_line(self, item, who, **new):
        """A reading that a person writes by hand."""
        key = {"image_id": item.key.image_id, "object_index": item.key.object_index}
        old = {name: item.released[name] for name in new}
        line = {"operation": "set", **key, "old": old, "new": new, "who": who, "why": "by hand"}
        with self.path.open("a") as file:
            file.write(json.dumps({**line, "when": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"}) + "\n")

    def drag(self, dx, dy, held=None):
        chain = ActionChains(self.browser.driver, duration=0)
        chain = chain.key_down(held) if held else chain
        chain = chain.move_to_element(self.browser.one("#stage")).click_and_hold()
        chain = chain.move_by_offset(dx // 2, dy // 2).move_by_offset(dx - dx // 2, dy - dy // 2).release()
        (chain.key_up(held) if held else chain).perform()

    def write(self, selector, text):
        field = self.browser.one(selector)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text or Keys.DELETE, Keys.TAB)

    def lines(self):
        return list(read_corrections(str(self.path))) if self.path.exists() else []

    def save(self, expected="Saved"):
        self.browser.js("document.getElementById('said').textContent = ''")  # of the save before
        self.press(Keys.ENTER)
        self.until(f"document.getElementById('said').textContent.startsWith('{expected}')")

    def call_oneself(self, who):
        self.choose("#who", who)
        self.until(f"annotate.queue.who === '{who}' && annotate.editor.object")
        self.settle()

    def choose(self, selector, value):
        self.browser.driver.execute_script(_CHOOSE, selector, value)


@pytest.fixture
def page(chromium, served):
    """The tool, open with a name of its own; whatever a test does, nothing may be said on the console."""
    chromium.driver.get_log("browser")
    chromium.driver.get("about:blank")
    page = Page(chromium, served)
    page.load()
    yield page
    chromium.js("annotate.editor.drafts.clear()")
    chromium.js("annotate.editor.object = null")
    assert [m for m in chromium.driver.get_log("browser") if m["level"] == "SEVERE"] == []


@pytest.fixture
def named(page, request):
    """A person whom nobody else is."""
    who = request.node.name[:60]
    page.call_oneself(who)
    return who


def degrees(before, after, name):
    """By how much an angle changed, the short way round."""
    turned = math.degrees(after[name] - before[name])
    return (turned + 180) % 360 - 180


# --------------------------------------------------------------------------------------------------------
# Hands and keys
# --------------------------------------------------------------------------------------------------------

STEPS = [
    (Keys.ARROW_RIGHT, "azimuth", 1), (Keys.ARROW_LEFT, "azimuth", -1),
    (Keys.ARROW_UP, "elevation", 1), (Keys.ARROW_DOWN, "elevation", -1),
    ("q", "theta", 1), ("e", "theta", -1), ("Q", "theta", 30), ("E", "theta", -30),
    ("w", "distance", -0.2), ("s", "distance", 0.2), ("W", "distance", -1), ("S", "distance", 1),
    ("j", "px", -5), ("l", "px", 5), ("i", "py", -5), ("k", "py", 5),
    ("J", "px", -30), ("L", "px", 30), ("I", "py", -30), ("K", "py", 30),
]  # fmt: skip


def changed(before, after):
    """The fields that differ, and by how much; angles in degrees."""
    turns = ("azimuth", "elevation", "theta")
    by = {n: degrees(before, after, n) if n in turns else after[n] - before[n] for n in POSE_FIELDS}
    return {name: difference for name, difference in by.items() if abs(difference) > 1e-9}


def test_each_key_makes_the_step_of_the_original_tool(page):
    for key, name, by in STEPS:
        before = page.values
        page.press(key)
        assert changed(before, page.values) == pytest.approx({name: by}), key
    for key, name, by in ((Keys.ARROW_RIGHT, "azimuth", 30), (Keys.ARROW_DOWN, "elevation", -30)):
        before = page.values
        page.hold(Keys.SHIFT, key)
        assert changed(before, page.values) == pytest.approx({name: by})


def test_dragging_turns_moves_and_rolls_and_the_wheel_changes_the_distance(page):
    before = page.values
    page.drag(40, 20)
    assert changed(before, page.values) == pytest.approx({"azimuth": -20, "elevation": 10})
    before = page.values
    page.drag(30, -12, Keys.CONTROL)
    unit = page.browser.js("annotate.editor.stage.ratio / annotate.editor.stage.scale")
    assert changed(before, page.values) == pytest.approx({"px": 30 * unit, "py": -12 * unit})
    before = page.values
    page.drag(60, 60, Keys.SHIFT)
    assert set(changed(before, page.values)) == {"theta"}
    before = page.values
    ActionChains(page.browser.driver).scroll_from_origin(
        webdriver_origin(page.browser.one("#stage")), 0, 100
    ).perform()
    page.until(f"annotate.editor.values.distance > {before['distance']}")
    assert set(changed(before, page.values)) == {"distance"}
    # Each was one step.
    for _ in range(4):
        page.hold(Keys.CONTROL, "z")
    assert page.browser.js("annotate.editor.place") == 0


def webdriver_origin(element):
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    return ScrollOrigin.from_element(element)


def test_sliders_and_fields_in_degrees(page):
    page.browser.js("document.getElementById('azimuth-slider').focus()")
    before = page.values
    page.browser.press(Keys.HOME)
    assert degrees({"azimuth": 0}, page.values, "azimuth") == pytest.approx(-180)
    page.write("#theta", "-90")
    assert degrees({"theta": 0}, page.values, "theta") == pytest.approx(-90)
    for name, value in (("px", 12.5), ("viewport", 2500)):
        page.write(f"#{name}", str(value))
        assert page.values[name] == value
    page.write("#px", "")  # no number: what was there comes back
    assert (page.values["px"], page.browser.one("#px").get_attribute("value")) == (12.5, "12.5")
    assert page.values["elevation"] == before["elevation"]


def test_models_status_density_and_layers(page):
    buttons = page.browser.all("#models button")
    assert len(buttons) >= 1
    for button in buttons:
        button.click()
        assert page.values["cad_index"] == int(button.get_attribute("data-index"))
        assert button.get_attribute("aria-pressed") == "true"
        page.until(
            f"document.querySelector('#models [data-index=\"{page.values['cad_index']}\"] img').complete"
        )
    for key, name, value in (
        ("1", "object_status", "good"),
        ("4", "object_status", "bad"),
        ("5", "dense", True),
        ("6", "dense", False),
    ):
        page.press(key)
        assert page.values[name] == value
    pixels = [page.browser.js(_PAINTED)]
    for key in "faob":
        page.press(key)
        page.be_still()
        pixels.append(page.browser.js(_PAINTED))
    assert pixels == sorted(pixels, reverse=True)
    assert pixels[-1] == 0 < pixels[0]


def test_undo_redo_reset_and_before(page):
    first = page.values
    page.press("q", "q", "w")
    changed = page.values
    page.browser.one("#undo").click()
    page.hold(Keys.CONTROL, "z")
    page.hold(Keys.CONTROL, "z")
    assert page.values == first
    assert not page.browser.one("#undo").is_enabled()
    for _ in range(3):
        page.hold(Keys.CONTROL, "y")
    assert page.values == changed
    page.press("v")
    page.until("annotate.editor.stage.values.theta === annotate.editor.object.released.theta")
    page.press("q")  # nothing changes while the release is shown, and nothing looks so
    page.browser.one("[name=status]:not(:checked)").click()
    page.browser.js("document.getElementById('theta-slider').focus()")
    page.browser.press(Keys.HOME)
    assert page.said.startswith("This is the release")
    assert page.browser.js("document.querySelector('[name=status]:checked').value") == first["object_status"]
    shown = float(page.browser.one("#theta-slider").get_attribute("value"))
    assert degrees(first, {"theta": math.radians(shown)}, "theta") == pytest.approx(0, abs=0.5)
    page.hold(Keys.CONTROL, "z")
    assert page.values == changed
    page.press("v", "r")
    assert page.values == first


def test_what_is_not_saved_stays_while_one_looks_elsewhere(page):
    page.press("Q")
    turned = page.values
    page.press("n")
    page.until("annotate.queue.at === 1 && annotate.editor.object.number === annotate.queue.numbers[1]")
    page.settle()
    page.press("p")
    page.until("annotate.queue.at === 0 && annotate.editor.object.number === annotate.queue.numbers[0]")
    assert page.values == turned


# --------------------------------------------------------------------------------------------------------
# Saving
# --------------------------------------------------------------------------------------------------------


def drawn_box(page):
    """The box of the pixels that the mesh covers, as a share of the canvas times the picture's size."""
    found = page.browser.js("""(() => {
        const s = annotate.editor.stage, { width, height } = s.over;
        s.layers = { box: false, faces: true, outline: true, axes: false };
        s.paint();
        const { data } = s.over.getContext("2d").getImageData(0, 0, width, height);
        let [left, top, right, bottom] = [width, height, 0, 0];
        for (let i = 3, n = 0; i < data.length; i += 4, n++) if (data[i]) {
            const [x, y] = [n % width, Math.floor(n / width)];
            [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
            [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
        }
        s.layers = { box: true, faces: true, outline: true, axes: true };
        return [left, top, right, bottom].map((v, i) => v / s.scale + s.corner[i % 2]);
    })()""")
    return np.array(found), page.browser.js("annotate.editor.stage.scale")


def test_the_saved_pose_projects_the_mesh_where_the_page_drew_it(page, named, queue):
    page.browser.one("#advance").click()
    page.drag(60, 25)
    page.press("q", "q", "s", "l", "2", "6")
    page.be_still()
    seen, scale = drawn_box(page)
    shown = page.values
    page.browser.one("#note").send_keys("front and back were swapped")
    page.save()
    line = page.lines()[-1]
    assert (line.who, line.why) == (named, "front and back were swapped")
    item = queue.items[0]
    values = {**item.released, **line.new}
    assert {name: values[name] for name in shown} == shown
    mesh = queue.mesh(item.picture.category, values["cad_index"])
    points, _ = project(mesh.vertices, *(values[name] for name in POSE_FIELDS))
    limits = np.tile(
        page.browser.js("[annotate.editor.stage.picture.width, annotate.editor.stage.picture.height]"), 2
    )
    expected = np.clip([*points.min(axis=0), *points.max(axis=0)], 0, limits)
    assert np.abs(seen - expected).max() <= max(1.0, 1.5 / scale)
    page.browser.one("#advance").click()


def test_saving_needs_status_and_density(page, named, queue):
    place = next(n for n, item in enumerate(queue.items) if item.released["object_status"] is None)
    page.browser.js(f"go({place})")
    page.until(f"annotate.editor.object?.number === {place} && annotate.editor.stage.picture")
    count = len(page.lines())
    page.save("Choose a status and a density first")
    assert len(page.lines()) == count
    assert page.browser.js("document.activeElement.name") == "status"
    page.press("1", "6")
    page.save()
    assert page.lines()[-1].new["object_status"] == "good"


def test_an_object_without_a_pose_gets_one_by_keys_alone(page, named, queue):
    first = queue.chosen(Filter(unposed=True))[0].number
    page.browser.one("#filter-unposed").click()
    page.until(
        f"annotate.editor.object && annotate.editor.object.number === {first} && annotate.editor.stage.mesh"
    )
    for key in (Keys.ARROW_RIGHT, "q", "1", "5", "t"):
        page.press(key)
    page.browser.press("made from nothing", Keys.ESCAPE)
    assert page.browser.js("document.activeElement.id") == "stage"
    page.save()
    new = page.lines()[-1].new
    assert all(new[name] is not None for name in POSE_FIELDS)
    page.browser.one("#filter-unposed").click()


def test_one_goes_on_where_one_stopped_and_next_undone_skips(page, named):
    for _ in range(2):
        page.press("1", "6")
        page.save()
        page.settle()
    assert page.browser.js("annotate.queue.at") == 2
    assert "2 done" in page.browser.one("#counts").text
    page.load()
    assert page.browser.js("[document.getElementById('who').value, annotate.queue.at]") == [named, 2]
    page.press("p", "p", "u")
    page.until("annotate.queue.at === 2")


_ASKS_BEFORE_LEAVING = "!dispatchEvent(new Event('beforeunload', { cancelable: true }))"


def test_leaving_out_and_taking_back(page, named):
    page.browser.one("#advance").click()
    page.press("Q")
    turned = page.values
    for operation in ("leave_out", "take_back"):
        page.press("x")
        page.until(f"annotate.editor.object?.left_out === {str(operation == 'leave_out').lower()}")
        page.settle()
        assert page.lines()[-1].operation == operation
        assert page.browser.one("#out").is_displayed() == (operation == "leave_out")
        assert page.values == turned  # what was not saved is there once the object is taken back
        assert page.browser.js(_ASKS_BEFORE_LEAVING) == (operation == "take_back")
    page.browser.one("#advance").click()


@pytest.fixture
def begun(page, named):
    """The picture of the third object, to which one is to be added."""
    page.browser.js("go(2)")
    page.until("annotate.editor.object?.number === annotate.queue.numbers[2]")
    page.settle()
    page.press("d")
    page.until("annotate.editor.object?.isNew && annotate.editor.stage.picture")
    yield page.browser.js("annotate.queue.numbers[2]")
    page.browser.js("annotate.editor.drafts.clear()")


def drawn(page, start, end):
    """Drag between two places, in shares of the picture's sides; the box that it makes, in pixels."""
    canvas, stage = page.browser.one("#stage canvas"), page.browser.one("#stage")
    width, height = canvas.size["width"], canvas.size["height"]
    offsets = [(round((x - 0.5) * width), round((y - 0.5) * height)) for x, y in (start, end)]
    (x, y), (u, v) = offsets
    chain = ActionChains(page.browser.driver, duration=0).move_to_element_with_offset(stage, x, y)
    chain.click_and_hold().move_by_offset((u - x) // 2, 0).move_by_offset(u - x - (u - x) // 2, v - y)
    chain.release().perform()
    unit = page.browser.js("annotate.editor.stage.ratio / annotate.editor.stage.scale")
    corners = np.array(offsets) * unit + np.array([width, height]) * unit / 2
    return [*corners.min(axis=0), *corners.max(axis=0)]


def guessed(page):
    page.until("annotate.editor.values.azimuth !== null && annotate.editor.stage.mesh")
    return page.values


def test_an_object_is_added_by_drawing_its_box(page, begun, named, queue):
    page.press("q", "1")  # there is nothing to turn before the box is there
    assert page.said.startswith("Drag a box")
    assert set(page.values.values()) == {None}
    assert "Drag a box" in page.browser.one("#stage").get_attribute("aria-label")
    unit = page.browser.js("annotate.editor.stage.ratio / annotate.editor.stage.scale")
    expected = drawn(page, (0.7, 0.75), (0.3, 0.25))
    values = guessed(page)
    assert values["bbox"] == pytest.approx(expected, abs=2 * unit)
    x1, y1, x2, y2 = values["bbox"]
    assert (values["px"], values["py"]) == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2))
    page.be_still()
    (left, top, right, bottom), _ = drawn_box(page)  # the mesh fills the box
    assert max((right - left) / (x2 - x1), (bottom - top) / (y2 - y1)) == pytest.approx(1, abs=0.05)
    count = len(page.lines())
    page.save("Choose a status and a density first")
    assert len(page.lines()) == count
    page.drag(40, 20)  # now a drag turns
    assert changed(values, page.values) == pytest.approx({"azimuth": -20, "elevation": 10})
    page.press("2", "6")
    shown = page.values
    page.save("Added")
    line = page.lines()[-1]
    item = queue.items[begun]
    assert (line.operation, line.who, line.image_id) == ("add", named, item.key.image_id)
    assert line.object_index >= queue.num_objects(item.picture)
    assert line.new == shown
    # One is back where one was, and the new object stands behind it.
    page.until(f"annotate.editor.object?.number === {begun}")
    page.press("n")
    page.until(f"annotate.editor.object?.object_index === {line.object_index}")
    page.settle()
    assert page.browser.one("#added").is_displayed()
    assert page.values == shown


def test_an_object_is_added_by_keys_alone(page, begun, named):
    assert page.browser.js("document.activeElement.id") == "x1"
    for side in ("30", "40.5", "130", "120"):
        page.browser.press(side, Keys.TAB)
    values = guessed(page)
    assert values["bbox"] == [30, 40.5, 130, 120]
    for key in (Keys.ARROW_RIGHT, "q", "c", "1", "5", "t"):
        page.press(key)
    page.browser.press("a second one behind", Keys.ESCAPE)
    page.save("Added")
    line = page.lines()[-1]
    assert (line.operation, line.why, line.new["bbox"]) == ("add", "a second one behind", values["bbox"])
    assert line.new["theta"] == pytest.approx(math.radians(1))


def test_a_new_object_stays_while_one_looks_elsewhere_until_it_is_discarded(page, begun):
    drawn(page, (0.3, 0.25), (0.7, 0.75))
    box = guessed(page)["bbox"]
    page.press("Q")
    turned = page.values
    page.press("d")
    page.until(f"annotate.editor.object?.number === {begun} && !annotate.editor.object.isNew")
    page.settle()
    page.press("d")
    page.until("annotate.editor.object?.isNew && annotate.editor.stage.mesh")
    assert page.values == turned
    page.write("#x1", str(box[0] + 4))  # the box is a value like others
    assert page.values["bbox"] == [box[0] + 4, *box[1:]]
    page.browser.one("#undo").click()
    assert page.values == turned
    assert page.browser.one("#leave-out").text.startswith("Discard")
    count = len(page.lines())
    page.press("x")
    page.until(f"annotate.editor.object?.number === {begun} && !annotate.editor.object.isNew")
    assert page.browser.js("annotate.editor.drafts.size") == 0
    assert len(page.lines()) == count
    # Begun and not drawn, it leaves nothing behind; nor does a click.
    page.settle()
    page.press("d")
    page.until("annotate.editor.object?.isNew && annotate.editor.stage.picture")
    page.browser.one("#stage").click()
    page.press(Keys.ENTER)
    assert page.said.startswith("Drag a box")
    page.press(Keys.ESCAPE)
    page.until(f"annotate.editor.object?.number === {begun} && !annotate.editor.object.isNew")
    assert page.browser.js("annotate.editor.drafts.size") == 0


def test_a_guess_is_saved_once_somebody_changes_or_takes_it(page, named, queue):
    page.browser.one("#advance").click()
    page.browser.driver.execute_script("document.getElementById('said').textContent = ''")
    unposed = queue.chosen(Filter(unposed=True))[-1]
    page.go(unposed.number)
    page.settle()
    guess = page.browser.one("#guess")
    first = page.values
    assert first["azimuth"] == pytest.approx(math.radians(30))
    assert guess.text.startswith("A guess: azimuth, elevation, theta, distance, x, y, viewport, CAD model.")
    assert "a guess" in page.browser.one("#stage").get_attribute("aria-label")
    page.press("4", "6")
    page.save()
    assert page.said.endswith("without the guess")
    assert page.lines()[-1].new == {"object_status": "bad", "dense": False}
    page.settle()
    assert guess.is_displayed()
    page.press("g")
    assert not guess.is_displayed()
    page.hold(Keys.CONTROL, "z")
    assert guess.is_displayed()
    page.press("g")
    page.save()
    new, taken = page.lines()[-1].new, (*POSE_FIELDS, "cad_index")
    assert {name: new[name] for name in taken} == {name: first[name] for name in taken}
    page.settle()
    assert not guess.is_displayed()
    page.press("r")
    assert guess.is_displayed()
    page.press("4", "6")
    page.save()
    assert {name: page.lines()[-1].new[name] for name in POSE_FIELDS} == dict.fromkeys(POSE_FIELDS)
    # A distance of 0 is none.
    flat = next(item for item in queue.items if item.released["distance"] == 0)
    page.go(flat.number)
    page.settle()
    assert guess.text.startswith("A guess: distance.")
    page.save()
    assert "distance" not in page.lines()[-1].new
    page.settle()
    page.press("q")
    distance = page.values["distance"]
    page.save()
    assert page.lines()[-1].new["distance"] == distance > 0
    # Of an object that is added likewise.
    page.settle()
    page.press("d")
    page.until("annotate.editor.object?.isNew && annotate.editor.stage.picture")
    for side in ("30", "40", "130", "120"):
        page.browser.press(side, Keys.TAB)
    guessed(page)
    page.press("1", "5")
    page.save("Added")
    assert page.lines()[-1].new.keys() == {"bbox", "object_status", "dense"}
    page.settle()
    page.browser.one("#advance").click()


def test_a_held_key_and_a_double_click_write_once(page, named):
    count = len(page.lines())

    def write_once(first, *held):
        nonlocal count
        page.browser.driver.execute_script("document.getElementById('said').textContent = ''")
        first()
        page.until("document.getElementById('said').textContent.startsWith('Saved')")
        page.settle()
        page.be_still()
        if held:
            page.keep_down(*held)
        count += 1
        assert not page.browser.js("document.getElementById('save').disabled")
        assert len(page.lines()) == count

    for key, *held in (("x", "x", "KeyX", 88, "x"), (Keys.ENTER, "Enter", "Enter", 13, "\r")):
        write_once(lambda key=key: page.press(key), *held)
    page.browser.js("document.getElementById('save').focus()")
    write_once(lambda: page.browser.press(Keys.ENTER), "Enter", "Enter", 13, "\r")
    button = page.browser.one("#leave-out")
    write_once(lambda: ActionChains(page.browser.driver).double_click(button).perform())


def test_what_is_done_while_the_server_is_slow_stays(page, named, queue):
    page.press("q", "1", "6")
    saved = page.values
    with page.slow("/api/save") as let_go:
        page.press(Keys.ENTER, "Q")
        turned = page.values
        assert turned != saved
        let_go()
        page.until(
            "document.getElementById('said').textContent.endsWith('what you changed since then is not')"
        )
        assert page.values == turned
        assert page.lines()[-1].new["theta"] == saved["theta"]
        page.press(Keys.ENTER, "n")
        page.until("annotate.editor.object?.number === annotate.queue.numbers[1]")
        page.settle()
        page.press("q")
        next_one = page.values
        let_go()
        page.until("document.getElementById('said').textContent.startsWith('Saved')")
        page.settle()
        assert page.browser.js("annotate.editor.object.number === annotate.queue.numbers[1]")
        assert page.values == next_one
        assert page.lines()[-1].new["theta"] == turned["theta"]
        assert page.browser.js("annotate.editor.drafts.has(annotate.queue.numbers[0])") is False
        assert "1 done" in page.browser.one("#counts").text
    with page.slow("below=0.9") as let_go:  # the filter that was chosen last is the one that holds
        page.choose("#filter-below", "0.9")
        page.until("waiting.length === 1")
        page.choose("#filter-below", "")
        page.until(f"annotate.queue.numbers.length >= {len(queue.items)} && annotate.editor.object")
        let_go()
        assert page.browser.js("annotate.queue.numbers.length") >= len(queue.items)


def test_what_is_not_saved_is_of_the_name_that_it_was_done_under(page):
    page.call_oneself("")
    first = page.values
    page.press("Q")
    turned = page.values
    for who, values in (("Nora", turned), ("Olga", first), ("Nora", turned)):
        page.call_oneself(who)
        page.go(page.browser.js("annotate.queue.numbers[0]"))
        page.settle()
        assert page.values == values
    page.press("r")


def test_a_picture_that_cannot_be_read_and_a_category_of_an_odd_name(page, named, queue):
    page.choose("#filter-category", ODD)
    page.until(f"annotate.editor.object?.category === {json.dumps(ODD)}")
    page.settle()  # with its mesh
    page.until("[...document.images].every((image) => image.naturalWidth > 0)")
    page.choose("#filter-category", "")
    page.until(f"annotate.queue.numbers.length >= {len(queue.items)}")
    last = queue.items[-1]
    page.go(last.number)
    page.until("document.getElementById('said').textContent.startsWith('The picture cannot be shown')")
    (message,) = page.browser.driver.get_log("browser")
    assert f"/api/picture/{last.number}" in message["message"]
    # Nothing of the object before is left.
    assert page.browser.js(f"{_EMPTY}(document.querySelectorAll('#edit canvas'))")
    shown = float(page.browser.one("#azimuth").get_attribute("value"))
    assert degrees(last.released, {"azimuth": math.radians(shown)}, "azimuth") == pytest.approx(0, abs=0.01)
    count = len(page.lines())
    page.press("1", "6")
    page.save("Not saved: the picture")
    assert len(page.lines()) == count


def test_the_box_of_an_object_is_corrected_by_its_sides(page, named):
    page.browser.one("#advance").click()
    before = page.values["bbox"]
    page.write("#y2", str(before[3] + 7))
    assert page.values["bbox"] == [*before[:3], before[3] + 7]
    page.write("#x1", str(before[2] + 1))  # no box
    assert page.said.startswith("x1 is to be below x2")
    page.press("1", "6")
    page.save()
    assert page.lines()[-1].new["bbox"] == [*before[:3], before[3] + 7]
    page.browser.one("#advance").click()


def test_a_server_that_is_gone_is_said_and_nothing_is_lost(page, named):
    page.press("q", "1", "6")
    turned = page.values
    page.browser.driver.execute_script(
        "globalThis.fetch_ = fetch; globalThis.fetch = () => Promise.reject(new Error())"
    )
    page.save("Not saved: The server does not answer")
    assert page.values == turned
    page.browser.driver.execute_script("globalThis.fetch = globalThis.fetch_")
    page.save()


def skip_to(page, number):
    """Go on in the review, past what other tests left, to the two readings of an object."""
    page.until("annotate.reviewing.pair && !annotate.reviewing.isBusy")
    while page.browser.js(f"annotate.reviewing.pair.number !== {number}"):
        page.browser.wait("reviewStep(nextPair)()")


def test_the_better_of_two_readings_is_chosen_without_names(page, chromium):
    azimuths = {}
    for who in ("Ada", "Bob"):
        page.call_oneself(who)
        page.browser.js("go(5)")
        page.until("annotate.editor.object?.number === annotate.queue.numbers[5]")
        page.settle()
        page.press("Q" if who == "Ada" else "E", "1", "6")
        azimuths[who] = page.values["theta"]
        page.save()
    page.browser.one("#to-review").click()
    skip_to(page, page.browser.js("annotate.queue.numbers[5]"))
    shown = page.browser.js("annotate.reviewing.pair.readings.map((r) => r.values.theta)")
    assert sorted(shown) == sorted(azimuths.values())
    text = page.browser.one("#review").text
    assert "Ada" not in text
    assert "Bob" not in text
    assert page.browser.js("annotate.sides.every((s) => s.frames > 0)")
    page.browser.press(str(shown.index(azimuths["Bob"]) + 1))
    page.until("document.getElementById('said').textContent.startsWith('Saved')")
    line = page.lines()[-1]
    assert (line.reviewed, line.new["theta"]) == (True, azimuths["Bob"])
    page.browser.one("#to-review").click()
    page.settle()


def test_readings_that_are_written_by_hand_are_shown_as_they_are(page, queue):
    unposed, last = queue.chosen(Filter(unposed=True))[0], queue.items[-1]
    page.write_line(queue.items[6], "Cleo", azimuth=-9.0, distance=None)
    page.write_line(queue.items[6], "Dan", azimuth=1.0)
    page.write_line(unposed, "Cleo", object_status="bad")
    page.write_line(unposed, "Dan", azimuth=1.0, elevation=0.1, theta=0.0, distance=5.0)
    for who in ("Cleo", "Dan"):
        page.write_line(last, who, azimuth=1.0)
    page.call_oneself("Cleo")
    page.go(6)
    page.settle()
    shown = math.degrees(-9.0 + 2 * math.pi)
    assert page.values["azimuth"] == -9.0
    assert float(page.browser.one("#azimuth").get_attribute("value")) == pytest.approx(shown, abs=0.01)
    assert float(page.browser.one("#azimuth-slider").get_attribute("value")) == pytest.approx(shown, abs=0.5)
    assert f"azimuth {round(shown)}°" in page.browser.one("#stage").get_attribute("aria-label")
    page.press("s")  # one step from the release's distance
    assert page.values["distance"] == pytest.approx(queue.items[6].released["distance"] + 0.2)
    page.press("r")

    page.browser.one("#to-review").click()
    skip_to(page, 6)
    text = page.browser.one("#review .sides").text
    assert f"azimuth {round(shown)}°" in text
    assert "distance none" in text
    # A key that is held, or pressed again before the next pair is there, is of no pair.
    page.keep_down("n", "KeyN", 78, "n")
    page.keep_down("1", "Digit1", 49, "1")
    assert page.browser.js("[annotate.reviewing.pair?.number, annotate.reviewing.isBusy]") == [6, False]
    count, following = len(page.lines()), page.browser.js("annotate.reviewing.numbers[0]")
    with page.slow("/api/choose") as let_go:
        ActionChains(page.browser.driver).send_keys("1", "1", "n").perform()
        let_go()
    page.until("document.getElementById('said').textContent.startsWith('Saved')")
    assert len(page.lines()) == count + 1
    assert page.browser.js("annotate.reviewing.pair.number") == following
    skip_to(page, unposed.number)
    text = page.browser.one("#review .sides").text
    assert (
        "azimuth none, elevation none, theta none, distance none, CAD model none, bad, density none" in text
    )
    while page.browser.js("annotate.reviewing.numbers.length"):
        page.browser.wait("reviewStep(nextPair)().catch((error) => say(error.message))")
    assert page.said.startswith(
        "The picture cannot be shown"
    )  # of the last, and of what was there nothing is left
    assert page.browser.js(f"{_EMPTY}(document.querySelectorAll('#review canvas'))")
    assert page.browser.one("#words-0").text == ""
    (message,) = page.browser.driver.get_log("browser")
    assert f"/api/picture/{last.number}" in message["message"]
    page.browser.one("#skip").click()
    page.until("!document.getElementById('no-pairs').hidden")
    page.browser.one("#to-review").click()
    page.settle()


# --------------------------------------------------------------------------------------------------------
# For everybody
# --------------------------------------------------------------------------------------------------------


def luminance(color):
    rgb = [int(part) / 255 for part in color.removeprefix("rgb(").rstrip(")").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_light_and_dark_and_words_for_every_picture(page, theme):
    page.load(theme=theme)
    paper = luminance(page.browser.js("getComputedStyle(document.body).backgroundColor"))
    assert (paper > 0.5) == (theme == "light")
    for selector in ("#object", "#counts", "legend", "#said"):
        ink = luminance(page.browser.js(f"getComputedStyle(document.querySelector('{selector}')).color"))
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5
    assert page.browser.js("[...document.images].every((image) => image.alt)")
    assert "azimuth" in page.browser.one("#stage").get_attribute("aria-label")
    found = "[...document.querySelectorAll('input, select, button')]"
    called = "e.labels?.length || e.ariaLabel || e.textContent.trim() || e.querySelector('img[alt]')"
    assert page.browser.js(f"{found}.filter((e) => !({called})).length") == 0


# Frames of a ball that turns, drawn as the browser asks for them; what is done is told when the last one is.
_TURN_A_BALL = """
    const [points, faces] = [[], []];
    for (let i = 0; i <= 100; i++) for (let j = 0; j < 100; j++) {
        const [t, p] = [Math.PI * i / 100, 2 * Math.PI * j / 100];
        points.push(Math.sin(t) * Math.cos(p) / 2, Math.sin(t) * Math.sin(p) / 2, Math.cos(t) / 2);
    }
    for (let i = 0; i < 100; i++) for (let j = 0; j < 100; j++) {
        const [a, b] = [100 * i + j, 100 * i + (j + 1) % 100];
        faces.push(a, a + 100, b, b, a + 100, b + 100);
    }
    const mesh = { points: new Float64Array(points), faces: new Uint16Array(faces) };
    Object.assign(mesh, { normals: normalsOf(mesh.points, mesh.faces), size: diagonal(mesh.points) });
    const { stage } = annotate.editor;
    const { mesh: kept, values, picture: { width, height } } = stage;
    const place = { px: width / 2, py: height / 2, distance: 5, viewport: 4 * height };
    let [count, done] = [0, null];
    const frame = () => {
        if (count-- > 0) {
            stage.change({ ...values, ...place, azimuth: count / 50, elevation: 0.2, theta: 0 }, mesh);
            requestAnimationFrame(frame);
        } else {
            done(stage.mesh.faces.length / 3);
        }
    };
    globalThis.turnABall = (frames) => {
        count = frames;
        requestAnimationFrame(frame);
        return new Promise((resolve) => { done = resolve; });
    };
    globalThis.putBack = () => stage.change(values, kept);
"""
BATCHES, FRAMES = 20, 10


@pytest.mark.parametrize("size", [DESKTOP, (2560, 1440)])
def test_a_mesh_of_20_000_faces_turns_in_a_frame(page, size):
    """All that the page's thread works for a frame, in processor time, so that nobody else's work counts.

    The best of many batches: while others are at work, caches and clocks are not the page's own.
    """
    page.load(size=size)
    page.browser.driver.execute_script(_TURN_A_BALL)
    page.browser.command("Performance.enable", timeDomain="threadTicks")

    def worked():
        metrics = page.browser.command("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    def frame():
        before, frames = worked(), page.browser.js("annotate.editor.stage.frames")
        assert page.browser.wait(f"turnABall({FRAMES})") == 20_000
        drawn = page.browser.js("annotate.editor.stage.frames") - frames
        assert drawn >= FRAMES - 1
        return (worked() - before) / drawn

    times = sorted(frame() for _ in range(BATCHES))
    page.browser.command("Performance.disable")
    page.browser.js("putBack()")
    print(f"{1000 * times[0]:.1f} ms a frame, {1000 * times[len(times) // 2]:.1f} in the median")
    assert times[0] < 1 / 60


def test_what_moves_has_fewer_pixels_and_all_of_them_at_rest(page):
    page.load(size=(2560, 1440))
    widths = page.browser.wait("""(async () => {
        const { stage, values } = annotate.editor;
        const found = [stage.over.width];
        for (let i = 0; i < 4; i++) { stage.change(values); await new Promise(requestAnimationFrame); }
        return [...found, stage.over.width, stage.over.width * stage.over.height];
    })()""")
    page.be_still()
    assert widths[1] < widths[0] == page.browser.js("annotate.editor.stage.over.width")
    assert widths[2] == pytest.approx(300_000, rel=0.01)
