"""A Chromium without a window, for the tests of pages; importing this skips them where there is none."""

import shutil
from pathlib import Path

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with its driver (Debian: chromium, chromium-driver)"
)

FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync
""".split()
DESKTOP, PHONE = (1280, 800), (390, 780)


class Browser:
    """A Chromium with the page open, and what the tests ask of it."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.driver.set_script_timeout(60)

    def command(self, name, **parameters):
        return self.driver.execute_cdp_cmd(name, parameters)

    def open(self, page: Path | str, size=DESKTOP, theme="light") -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=size == PHONE,
        )
        feature = {"name": "prefers-color-scheme", "value": theme}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.command("Emulation.setEmulatedMedia", features=[feature, still])
        self.driver.get(page.as_uri() if isinstance(page, Path) else page)

    def js(self, script, *arguments):
        return self.driver.execute_script(f"return {script}", *arguments)

    def wait(self, script, *arguments):
        """The value of an expression that may be a promise."""
        return self.driver.execute_async_script(
            f"const done = arguments[arguments.length - 1]; Promise.resolve({script}).then(done)", *arguments
        )

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def press(self, *keys):
        """Keys for whatever has the focus."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    @property
    def focused(self) -> str:
        """The id of what has the focus, or of the card that it is in."""
        return self.js("(document.activeElement.closest('.card') ?? document.activeElement).id")

    def visible(self, selector, value):
        """A value of each element that can be seen, an expression of `e`."""
        found = f"[...document.querySelectorAll(`{selector}`)].filter((e) => e.checkVisibility())"
        return self.js(f"{found}.map((e) => {value})")

    @property
    def shown(self) -> list[dict[str, str]]:
        """What the cards that can be seen are filtered by."""
        return self.visible(".card", "({...e.dataset})")

    def enlarge(self, card: str) -> None:
        """Enlarge a card and wait for its mesh."""
        self.js(f"document.querySelector('#{card} .turn').click()")
        self.wait(f"meshOf(document.getElementById('{card}').dataset.mesh)")
        self.wait("new Promise((done) => setTimeout(done))")
