"""Takes the README's picture of the preview page, docs/preview.webp: `make screenshot`.

    python docs/take_screenshot.py

draws the synthetic sample, writes its page, and looks at it with Chromium: the first screen, and an object
that is turned. Needs the extra `test`, chromium and chromium-driver.
"""

import base64
import io
import shutil
import tempfile
from pathlib import Path

import PIL.Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from processing.preview.command import write_preview
from processing.sample.command import write_sample

TARGET = Path(__file__).with_name("preview.webp")
SIZE = (1400, 880)  # of the window, pixels
WIDTH = 1200  # of the picture
TURNED = "chair"  # the category whose second object is turned, by so many degrees
AZIMUTH, ELEVATION = 50, 10

_TURN = """
    const [, card] = [...document.querySelectorAll(`.card[data-category=${arguments[0]}]`)];
    const done = arguments[arguments.length - 1];
    enlarge(card).then(() => {
        for (const [dial, change] of [["azimuth", arguments[1]], ["elevation", arguments[2]]]) {
            const slider = document.getElementById(`turn-${dial}`);
            slider.value = slider.valueAsNumber + change;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
        }
        document.activeElement.blur();
        setTimeout(done, 300);
    });
"""


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as temporary:
        raw, page = Path(temporary, "sample"), Path(temporary, "preview.html")
        write_sample(raw)
        write_preview(str(raw), page)
        pictures = _look_at(page, Path(temporary, "profile"))
    height = round(WIDTH * SIZE[1] / SIZE[0])
    whole = PIL.Image.new("RGB", (WIDTH, height * len(pictures)))
    for number, picture in enumerate(pictures):
        whole.paste(picture.resize((WIDTH, height), PIL.Image.Resampling.LANCZOS), (0, number * height))
    whole.save(TARGET, "WEBP", quality=80, method=6)
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")


def _look_at(page: Path, profile: Path) -> list[PIL.Image.Image]:
    """The first screen, and an object turned."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars", f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        size = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(page.as_uri())
        pictures = [driver.get_screenshot_as_base64()]
        driver.execute_async_script(_TURN, TURNED, AZIMUTH, ELEVATION)
        pictures.append(driver.get_screenshot_as_base64())
    finally:
        driver.quit()
    return [PIL.Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB") for picture in pictures]


if __name__ == "__main__":
    main()
