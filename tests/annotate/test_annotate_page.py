"""The page in a browser: hands and keys on a pose, saving, going on, reviewing; what is seen is saved."""

import math
import subprocess
import sys
import time

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from support.browser import DESKTOP, needs_chromium

from ImageNet3D import POSE_FIELDS, read_corrections
from processing.annotate.queue import Filter, Queue
from processing.geometry import project

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def queue(sample_folder):
    return Queue(str(sample_folder))


@pytest.fixture(scope="module")
def served(sample_folder, tmp_path_factory):
    """The address and the file that saves go to."""
    path = tmp_path_factory.mktemp("annotate") / "fixes.jsonl"
    command = [sys.executable, "-m", "processing", "annotate", str(sample_folder), "--corrections", str(path)]
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
    page.press("q")  # nothing changes while the release is shown
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


def test_leaving_out_and_taking_back(page, named):
    page.browser.one("#advance").click()
    for operation in ("leave_out", "take_back"):
        page.press("x")
        page.until(f"annotate.editor.object?.left_out === {str(operation == 'leave_out').lower()}")
        page.settle()
        assert page.lines()[-1].operation == operation
        assert page.browser.one("#out").is_displayed() == (operation == "leave_out")
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
    page.until("annotate.reviewing.pair")
    while page.browser.js("annotate.reviewing.pair.number !== annotate.queue.numbers[5]"):  # of other tests
        number = page.browser.js("annotate.reviewing.pair.number")
        page.browser.one("#skip").click()
        page.until(f"annotate.reviewing.pair && annotate.reviewing.pair.number !== {number}")
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
