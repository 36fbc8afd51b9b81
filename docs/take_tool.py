"""Takes the picture of the annotation tool, docs/annotate.webp: `python docs/take_tool.py`.

Draws the synthetic sample, serves the tool on it and looks at it with Chromium. Needs the extra `test`,
chromium and chromium-driver.
"""

import io
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import PIL.Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from processing.sample.command import write_sample

TARGET = Path(__file__).with_name("annotate.webp")
SIZE = (1320, 880)  # of the window, pixels
WIDTH = 1100  # of the picture
CATEGORY = "chair"

_CHOOSE = """
    const filter = document.getElementById("filter-category");
    filter.value = arguments[0];
    filter.dispatchEvent(new Event("change"));
"""
_READY = """
    const { editor } = globalThis.annotate ?? {};
    return editor?.object?.category === arguments[0] && editor.stage.mesh !== null
        && [...document.images].every((image) => image.naturalWidth > 0);
"""


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as temporary:
        raw = Path(temporary, "sample")
        write_sample(raw)
        command = [sys.executable, "-m", "processing", "annotate", str(raw)]
        command += ["--corrections", str(Path(temporary, "fixes.jsonl"))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:  # noqa: S603 - our own
            try:
                picture = _look_at(served.stdout.readline().strip(), Path(temporary, "profile"))
            finally:
                served.terminate()
    height = round(WIDTH * picture.height / picture.width)
    picture.resize((WIDTH, height), PIL.Image.Resampling.LANCZOS).save(TARGET, "WEBP", quality=80, method=6)
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")


def _look_at(address: str, profile: Path) -> PIL.Image.Image:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    size = f"--window-size={SIZE[0]},{SIZE[1]}"
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", size, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        browser.get(address)
        browser.execute_script(_CHOOSE, CATEGORY)
        for _ in range(300):
            time.sleep(0.1)
            if browser.execute_script(_READY, CATEGORY):
                break
        browser.execute_script("editor.step('azimuth', radians(6)); document.activeElement.blur();")
        time.sleep(0.5)
        return PIL.Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
