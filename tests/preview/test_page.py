"""The preview page in a browser: filters, layers, keys, the turning object, phones, themes, and its speed."""

import base64
import io
import json
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from support.browser import DESKTOP, PHONE, By, needs_chromium
from support.processor import pace

from processing.drawing.mesh import parse_mesh
from processing.drawing.raster import rasterize
from processing.geometry import project
from processing.preview import command as preview
from processing.preview.cards import long_side
from processing.preview.command import write_preview
from processing.preview.selection import Selection

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def page(sample_folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "preview.html"
    write_preview(str(sample_folder), path)
    return path


@pytest.fixture
def browser(chromium, page):
    """The page, open on a desktop; whatever a test does, nothing may be said on the console."""
    chromium.driver.get_log("browser")
    chromium.open(page)
    yield chromium
    assert chromium.driver.get_log("browser") == []


# --------------------------------------------------------------------------------------------------------
# Filters
# --------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # some thirty clicks
def test_each_filter_shows_what_it_says(browser):
    everything = browser.shown
    assert len(everything) == len(browser.all(".card")) == 20
    boxes = browser.all(".chips input")
    groups = Counter(box.get_attribute("name") for box in boxes)
    assert groups["status"] >= 4
    assert groups["density"] >= 2
    assert groups["known"] == groups["split"] == 2
    for box in boxes:
        name, value = box.get_attribute("name"), box.get_attribute("value")
        box.click()
        expected = [card for card in everything if card[name] == value]
        assert browser.shown == expected != []
        assert browser.one("#shown").text == f"{len(expected)} of {len(everything)} objects"
        box.click()
    assert browser.shown == everything
    assert browser.one("#shown").text == "20 objects"


def test_filters_add_up(browser):
    everything = browser.shown
    for name, value in (("status", "good"), ("status", "bad"), ("split", "train"), ("known", "known")):
        browser.one(f".chips [name={name}][value={value}]").click()
    assert browser.shown == [
        card
        for card in everything
        if card["status"] in ("good", "bad") and card["split"] == "train" and card["known"] == "known"
    ]
    sections = browser.visible(".categories > section", "e.id")
    assert sections == sorted({f"category-{card['category']}" for card in browser.shown})
    browser.one("#filter-category").send_keys("chair")
    assert browser.shown == []
    assert browser.one("#nothing").is_displayed()
    browser.one("#reset-too").click()
    assert browser.shown == everything
    assert browser.js("document.querySelectorAll('.chips :checked').length") == 0


def test_category_filter(browser):
    browser.one("#filter-category").send_keys("desk lamp")
    assert {card["category"] for card in browser.shown} == {"desk_lamp"}
    browser.one("#reset").click()
    assert len(browser.shown) == 20


# --------------------------------------------------------------------------------------------------------
# Layers and keys
# --------------------------------------------------------------------------------------------------------


def visible_layers(browser):
    style = "getComputedStyle(document.querySelector('.layer-{}')).display"
    names = ("box", "faces", "outline", "axes")
    return {name for name in names if browser.js(style.format(name)) != "none"}


@pytest.mark.parametrize(("name", "key"), [("box", "b"), ("faces", "f"), ("outline", "o"), ("axes", "a")])
def test_layers_are_toggled_by_box_and_by_key(browser, name, key):
    everything = {"box", "faces", "outline", "axes"}
    assert visible_layers(browser) == everything
    browser.one(f"#show-{name}").click()
    assert visible_layers(browser) == everything - {name}
    browser.press(key)
    assert visible_layers(browser) == everything
    browser.press(key)
    assert visible_layers(browser) == everything - {name}
    assert len(browser.shown) == 20  # layers filter nothing


def comes_to_focus(browser, name):
    """The browser first gives the focus back to where the dialog was opened, and then tells the page."""
    deadline = time.monotonic() + 5
    while browser.focused != name and time.monotonic() < deadline:
        time.sleep(0.02)
    assert browser.focused == name


def test_everything_by_keyboard(browser):
    browser.press(Keys.TAB)
    assert browser.js("document.activeElement.className") == "skip"
    browser.press(Keys.ENTER, Keys.TAB)
    assert browser.focused == "show-box"
    browser.press("/")
    assert browser.focused == "filter-category"
    cards = browser.js("[...document.querySelectorAll('.card')].map((c) => c.id)")
    browser.js(f"document.querySelector('#{cards[0]} .picture').focus()")
    browser.press(Keys.ARROW_RIGHT)
    assert browser.focused == cards[1]
    browser.press(Keys.ARROW_LEFT)
    assert browser.focused == cards[0]
    browser.press(Keys.ARROW_DOWN)
    below = browser.focused
    assert below not in cards[:2]
    top, left = (
        browser.js(f"document.getElementById('{below}').getBoundingClientRect().{s}") for s in ("top", "left")
    )
    assert top > browser.js(f"document.getElementById('{cards[0]}').getBoundingClientRect().top")
    assert left == browser.js(f"document.getElementById('{cards[0]}').getBoundingClientRect().left")
    browser.press(Keys.ARROW_UP)
    assert browser.focused == cards[0]

    browser.press(Keys.ENTER)
    assert browser.one("#large").is_displayed()
    assert browser.one("#large-title").text == browser.shown[0]["category"]
    browser.press("n", Keys.ESCAPE)
    assert not browser.one("#large").is_displayed()
    comes_to_focus(browser, cards[1])  # where it was left
    browser.press("t")
    assert browser.focused == "turn-azimuth"
    browser.press("p", Keys.ESCAPE)
    comes_to_focus(browser, cards[0])


def test_enlarged_object_tells_all_of_it(browser):
    card = browser.all(".card")[0]
    words = card.find_element(By.CSS_SELECTOR, ".pose").text.split()
    card.find_element(By.CSS_SELECTOR, ".picture").click()
    panel = browser.one("#facts").text
    for word in (*words, "bbox", "px, py", "viewport", "cad_index"):
        assert word in panel
    large = browser.one("#stage svg")
    assert large.size["width"] > 1.5 * card.size["width"]
    assert large.get_attribute("aria-label").count("azimuth") == 1


# --------------------------------------------------------------------------------------------------------
# The turning object
# --------------------------------------------------------------------------------------------------------


def turnable(browser, sample_folder):
    """A card with a mesh, whole in its picture, and the mesh."""
    for card in browser.all(".card[data-mesh]"):
        box = card.find_element(By.CSS_SELECTOR, ".layer-box .line")
        x, y, w, h = (float(box.get_attribute(name)) for name in ("x", "y", "width", "height"))
        svg = card.find_element(By.CSS_SELECTOR, "svg")
        width, height = map(float, svg.get_dom_attribute("viewBox").split()[2:])
        if min(x, y, width - x - w, height - y - h) > 5:
            file = sample_folder / f"CAD/{card.get_attribute('data-mesh')}.off"
            return card.get_attribute("id"), parse_mesh(file.read_bytes(), file.name)
    raise AssertionError("no whole object on the page")


def drawn_mask(browser):
    """Which pixels of the canvas are drawn."""
    url = browser.js("document.querySelector('#stage canvas').toDataURL()")
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    return np.asarray(picture)[..., 3] > 0


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


STEPS = {"azimuth": (25, 0), "elevation": (-20, 1), "theta": (30, 2), "distance": (7, 3)}


@pytest.mark.parametrize("names", [("azimuth",), tuple(STEPS)])
def test_sliders_move_the_mesh_to_where_the_geometry_says(browser, sample_folder, names):
    browser.press("a")  # axes off: what is drawn is the mesh
    card, mesh = turnable(browser, sample_folder)
    pose = browser.js(f"JSON.parse(document.getElementById('{card}').dataset.pose)")
    annotated = list(pose)
    browser.enlarge(card)
    assert not drawn_mask(browser).any()  # the annotated pose stands in the picture already
    for name in names:
        steps, place = STEPS[name]
        dial = browser.one(f"#turn-{name}")
        if float(dial.get_attribute("value")) + steps > float(dial.get_attribute("max")):
            steps = -steps
        key = Keys.ARROW_RIGHT if steps > 0 else Keys.ARROW_LEFT
        dial.send_keys(*[key] * abs(steps))
        pose[place] = pose[3] * 2 ** (steps / 20) if name == "distance" else pose[place] + np.deg2rad(steps)

    shown = browser.js("preview.current().pose")
    turns = np.subtract(shown, pose)[:3] / (2 * np.pi)
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-9)
    np.testing.assert_allclose(shown[3:], pose[3:], rtol=1e-9)
    points = np.reshape(browser.js("[...preview.current().mesh.points]"), (-1, 3))
    width, height = browser.js("(({width, height}) => [width, height])(preview.current().canvas)")
    scale = width / browser.js("preview.current().width")
    camera = (*pose[:4], *(value * scale for value in pose[4:]))
    view = browser.js("(({x, y, depth}) => [[...x], [...y], [...depth]])(preview.current().view)")
    expected, depth = project(points, *camera)
    np.testing.assert_allclose(np.transpose(view[:2]), expected, atol=1e-5)
    np.testing.assert_allclose(view[2], depth, rtol=1e-9)

    drawn = drawn_mask(browser)
    there = rasterize(*project(mesh.vertices, *camera), mesh.faces, (width, height)).face >= 0
    assert overlap(drawn, there) > 0.97
    before = (*annotated[:4], *(value * scale for value in annotated[4:]))
    assert (
        overlap(drawn, rasterize(*project(mesh.vertices, *before), mesh.faces, (width, height)).face >= 0)
        < 0.96
    )

    browser.press("0")
    assert browser.js("preview.current().pose") == annotated
    assert not drawn_mask(browser).any()


def test_sliders_stand_at_the_annotation(browser, sample_folder):
    card, _ = turnable(browser, sample_folder)
    azimuth = browser.js(f"document.querySelector('#{card} .pose dd').textContent")
    browser.enlarge(card)
    assert browser.one("#value-azimuth").text == azimuth
    dial = browser.one("#turn-azimuth")
    assert dial.get_attribute("aria-valuetext") == azimuth
    assert f"{float(dial.get_attribute('value')):.1f}°" == azimuth
    assert not browser.one("#annotated").is_enabled()
    dial.send_keys(Keys.ARROW_RIGHT)
    assert browser.one("#annotated").is_enabled()
    browser.one("#annotated").click()
    assert dial.get_attribute("aria-valuetext") == azimuth


def test_turned_layers_are_toggled_too(browser, sample_folder):
    card, _ = turnable(browser, sample_folder)
    browser.enlarge(card)
    browser.one("#turn-theta").send_keys(*[Keys.ARROW_RIGHT] * 20)
    whole = drawn_mask(browser).sum()
    browser.press("f")
    lines = drawn_mask(browser).sum()
    assert 0 < lines < whole
    browser.press("o", "a")
    assert not drawn_mask(browser).any()


def test_dragging_goes_around_the_object(browser, sample_folder):
    card, _ = turnable(browser, sample_folder)
    browser.enlarge(card)
    before = browser.js("preview.current().pose")
    stage = browser.one("#stage")
    actions = ActionChains(browser.driver)
    actions.move_to_element(stage).click_and_hold().move_by_offset(100, 40).release().perform()
    after = browser.js("preview.current().pose")
    per_pixel = np.pi / stage.size["width"]
    turned = np.subtract(after, before)
    assert turned[0] == pytest.approx(-100 * per_pixel, rel=0.02)
    assert (turned[1] + np.pi) % (2 * np.pi) - np.pi == pytest.approx(40 * per_pixel, rel=0.05)
    assert not turned[2:].any()


def test_meshes_are_decoded_as_they_were(browser, sample_folder):
    data = json.loads(browser.js("document.getElementById('data').textContent"))["meshes"]
    for key in list(data)[:4]:
        file = sample_folder / f"CAD/{key}.off"
        mesh = parse_mesh(file.read_bytes(), file.name)
        points, faces = browser.wait(f"meshOf('{key}').then((m) => [[...m.points], [...m.faces]])")
        corners = np.reshape(points, (-1, 3))[np.reshape(faces, (-1, 3))]
        if data[key]["faces"] == len(mesh.faces):
            expected = mesh.vertices[mesh.faces]
            np.testing.assert_allclose(corners, expected, atol=data[key]["extent"] / 65535)
        else:
            assert data[key]["whole"] == len(mesh.faces) > len(corners)


def test_an_object_without_mesh_turns_its_axes(chromium, built_sample, tmp_path):
    shutil.copytree(built_sample, tmp_path / "built")
    shutil.rmtree(tmp_path / "built/cad")
    write_preview(str(tmp_path / "built"), tmp_path / "page.html", 1)
    chromium.open(tmp_path / "page.html")
    chromium.js("document.querySelector('.turn').click()")
    assert "there is no mesh" in chromium.one("#how").text
    chromium.one("#turn-azimuth").send_keys(*[Keys.ARROW_RIGHT] * 20)
    assert drawn_mask(chromium).any()
    assert chromium.driver.get_log("browser") == []


# --------------------------------------------------------------------------------------------------------
# Everyone's page
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [DESKTOP, PHONE, (320, 640)], ids=["desktop", "phone", "small phone"])
def test_nothing_is_wider_than_the_screen(browser, page, size):
    browser.open(page, size)
    assert browser.js("document.documentElement.scrollWidth") <= size[0]
    browser.js("document.getElementById('controls').open = true")
    assert browser.js("document.documentElement.scrollWidth") <= size[0]
    browser.js("document.querySelector('.turn').click()")
    assert browser.js("document.getElementById('large').scrollWidth") <= size[0]
    assert browser.one("#turn-azimuth").rect["width"] > 200


@pytest.mark.parametrize(("goal", "size"), [("numbers", PHONE), ("books", DESKTOP), ("pictures", PHONE)])
def test_links_lead_to_their_heading(browser, page, size, goal):
    """Although what lies between was never drawn."""
    browser.open(page, size)
    browser.js(f"document.querySelector('nav a[href=\"#{goal}\"]').click()")
    settled = """new Promise((done) => {
      let last = NaN, calm = 0;
      const look = () => {
        calm = last === scrollY ? calm + 1 : 0;
        last = scrollY;
        calm > 10 ? done() : requestAnimationFrame(look);
      };
      look();
    })"""
    browser.wait(settled)
    top = browser.js(f"document.getElementById('{goal}').getBoundingClientRect().top")
    end = browser.js("document.documentElement.scrollHeight - innerHeight - scrollY")
    assert 0 <= top < 80 or (end < 2 and top > 0)
    assert browser.js("document.activeElement.id") == goal


def luminance(color):
    """Relative luminance of "rgb(…)" (WCAG 2)."""
    values = np.array([float(value) for value in re.findall(r"[\d.]+", color)[:3]]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(browser, page, theme):
    browser.open(page, theme=theme)
    grounds = {
        name: luminance(browser.js(f"getComputedStyle(document.querySelector('{name}')).backgroundColor"))
        for name in ("body", ".card")
    }
    assert (grounds["body"] < 0.2) == (theme == "dark")
    for name, ground in (
        *((".lede", "body"), (".muted", "body"), (".source", "body"), (".kind.known", "body")),
        *((".kind.unknown", "body"), (".card h3", ".card"), (".pose dt", ".card"), (".marks", ".card")),
        *((".status.good", ".card"), (".lost .decision", "body"), ("code", "body")),
    ):
        color = luminance(browser.js(f"getComputedStyle(document.querySelector('{name}')).color"))
        light, dark = max(color, grounds[ground]), min(color, grounds[ground])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, name


NAME = """
    e.ariaLabel ?? ([...(e.labels ?? [])].map((l) => l.textContent).join(" ").trim() || e.textContent.trim()
        || e.querySelector("[role=img]")?.ariaLabel)
"""


def test_all_has_a_name_for_those_who_do_not_see_it(browser, sample_folder):
    card, _ = turnable(browser, sample_folder)
    names = browser.visible("button, input, select, a, summary, svg[role=img], figure[role=img]", NAME)
    assert all(names)
    assert len(names) > 6 + 3 * 20 + 10
    browser.enlarge(card)
    assert browser.visible("#dials input", NAME) == list(STEPS)
    assert all(browser.visible("#large button, #large svg[role=img]", NAME))
    hints = browser.visible("#dials input", "document.getElementById(e.getAttribute('aria-describedby'))")
    assert all(hint.text for hint in hints)


def test_needs_no_network(browser, page):
    browser.command("Network.enable")
    browser.command(
        "Network.emulateNetworkConditions",
        **{"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    try:
        browser.open(page)
        assert (
            browser.js(
                "performance.getEntriesByType('resource').filter((e) => !e.name.startsWith('data:')).length"
            )
            == 0
        )
        assert browser.js("document.querySelector('.photo').getBoundingClientRect().width") > 100
    finally:
        browser.command(
            "Network.emulateNetworkConditions",
            offline=False,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )


def test_pictures_and_layers_need_no_script(browser, page):
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        assert len(browser.all(".card")) == 20
        browser.one("#show-axes").click()
        assert visible_layers(browser) == {"box", "faces", "outline"}
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)


def with_objects(page: Path, count: int) -> str:
    """The text of a page with so many objects: its own, over and over, each copy with meshes of its own."""
    text = page.read_text("utf-8")
    start, end = text.index('<section id="category-'), text.index('<p class="nothing"')
    sections, cards = text[start:end], text.count("<article ")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    copies = [sections]
    meshes = dict(data["meshes"])
    for copy in range(1, -(-count // cards)):
        changed = re.sub(r"((?:card|image)-\d+)", rf"\1x{copy}", sections)
        changed = re.sub(r'(data-mesh="[^"]*)"', rf'\1x{copy}"', changed)
        copies.append(changed.replace('id="category-', f'id="category-{copy}-'))
        meshes |= {f"{key}x{copy}": mesh for key, mesh in data["meshes"].items()}
    text = text[:start] + "".join(copies) + text[end:]
    return re.sub(
        r'(id="data">).*?(</script>)', lambda m: m[1] + json.dumps(data | {"meshes": meshes}) + m[2], text
    )


@pytest.mark.slow
def test_500_objects_open_in_two_seconds(chromium, real_zip, tmp_path, monkeypatch):
    """With real pictures, as large as such a page has them, and real meshes.

    It is the processor time of the page's thread that counts, and the best of up to three: others may be at
    work on the machine, and take caches and clock from the page.
    """
    monkeypatch.setattr(preview, "long_side", lambda objects: long_side(500))
    some = "bicycle bottle bucket camera chair desk_lamp fire_truck keyboard piano pot sax train".split()
    write_preview(str(real_zip), tmp_path / "page.html", 1, Selection(categories=tuple(some)))
    text = with_objects(tmp_path / "page.html", 500)
    assert text.count("<article ") >= 500
    (tmp_path / "many.html").write_text(text, "utf-8")
    assert (tmp_path / "many.html").stat().st_size < 30e6

    def opened() -> float:
        chromium.driver.get("about:blank")  # another page is another process, whose clock is at 0
        chromium.command("Performance.enable")
        try:
            chromium.open(tmp_path / "many.html")
            figures = chromium.command("Performance.getMetrics")["metrics"]
        finally:
            chromium.command("Performance.disable")
        return {figure["name"]: figure["value"] for figure in figures}["ThreadTime"]

    allowed = 2 * pace()
    seconds = next((found for found in (opened() for _ in range(3)) if found < allowed), allowed)
    assert chromium.js("performance.getEntriesByType('navigation')[0].loadEventEnd") > 0
    assert 0.01 < seconds < allowed
    assert len(chromium.shown) == text.count("<article ")
    chromium.js("document.getElementById('filter-category').value = 'bottle'")
    chromium.js("applyFilters()")
    assert {card["category"] for card in chromium.shown} == {"bottle"}
    assert chromium.driver.get_log("browser") == []
