"""The card and the datasheet: what they say, that their links lead somewhere and their code runs."""

import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import PROJECT
from hub import serve
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

import ImageNet3D
from ImageNet3D import CATEGORIES, KNOWN_CATEGORIES, PUBLISHED_CONFIGS, SPLITS
from processing.build.command import build
from processing.built import REFERENCE_TABLES
from processing.card.card import SplitSize, size_category
from processing.card.columns import COLUMNS, ELSEWHERE

PAGES = ("README.md", "datasheet.md")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def card(built_real: Path) -> DatasetCard:
    return DatasetCard.load(built_real / "README.md")


class TestYaml:
    def test_licence_gate_and_tags(self, card: DatasetCard) -> None:
        data = card.data.to_dict()
        assert data["license"] == "cc-by-nc-4.0"
        assert data["extra_gated_fields"] == {"Name": "text", "Affiliation": "text"}
        assert "non-commercial" in data["extra_gated_prompt"]
        assert data["task_categories"] == [
            "image-classification",
            "image-to-text",
            "image-feature-extraction",
        ]
        assert data["tags"] == ["pose-estimation", "3d", "arxiv:2406.09613"]

    def test_size_is_that_of_pose(self, card: DatasetCard) -> None:
        assert card.data.size_categories == ["n<1K"]
        sizes = {"pose": {"train": SplitSize(86_000, 0, 0)}, "captions": {"train": SplitSize(5, 0, 0)}}
        assert size_category(sizes) == "10K<n<100K"
        assert size_category({"captions": sizes["captions"]}) == "n<1K"

    @pytest.mark.parametrize(("rows", "name"), [(999, "n<1K"), (1000, "1K<n<10K"), (10**5, "100K<n<1M")])
    def test_limits_of_sizes(self, rows: int, name: str) -> None:
        assert size_category({"pose": {"train": SplitSize(rows, 0, 0)}}) == name


class TestText:
    def test_every_column_is_explained(self) -> None:
        names = {name for config in PUBLISHED_CONFIGS for name in ImageNet3D.config_features(config)}
        assert names == set(COLUMNS)
        assert all(name in ImageNet3D.config_features(config) for config, name in ELSEWHERE)

    def test_counts_columns_and_categories(self, card: DatasetCard) -> None:
        for info in card.data.dataset_info:
            line = next(
                line for line in card.text.splitlines() if line.startswith(f"| `{info['config_name']}` |")
            )
            for split in info["splits"]:
                assert f" {split['num_examples']:,} |" in line
            assert all(f"| `{feature['name']}` | " in card.text for feature in info["features"])
        for (_, name), words in ELSEWHERE.items():
            assert f"| `{name}` | {words} |" in card.text
        assert ", ".join(sorted(KNOWN_CATEGORIES)) in card.text
        assert f"{len(CATEGORIES)} categories" in card.text

    def test_says_how_to_cite_and_report(self, card: DatasetCard) -> None:
        assert ImageNet3D.CITATION in card.text
        assert "https://doi.org/10.57967/hf/2461" in card.text
        assert "https://huggingface.co/datasets/ccvl/ImageNet3D/discussions" in card.text

    def test_changelog_names_this_version(self, card: DatasetCard) -> None:
        changelog = card.text.split("## Versions")[1]
        assert f"| {ImageNet3D.__version__} | " in changelog

    @pytest.mark.parametrize(
        "fact",
        [
            "200 categories",
            "over 86 thousand",
            "undergraduate students",
            "hourly wage",
            "september 2023 to may 2024",
            "april 9, 2024",
            "institutional review board",
            "irb",
            "consent",
            "revoke",
            "gpt-4v",
            "linear probing",
            "open-vocabulary pose estimation",
            "3d object detection",
            "co-occurring objects",
            "cc by-nc 4.0",
            "10.57967/hf/2461",
            "https://github.com/wufeim/imagenet3d",
            "https://wufeim.github.io/imagenet3d/index.html",
            "wufei ma",
            "guanning zeng",
            "guofeng zhang",
            "qihao liu",
            "to be determined",
            "paperswithcode",
            "older versions",
        ],
    )
    def test_datasheet_keeps_the_facts(self, built_real: Path, fact: str) -> None:
        text = " ".join((built_real / "datasheet.md").read_text("utf-8").split())
        assert fact in text.lower()


# --------------------------------------------------------------------------------------------------------
# Code
# --------------------------------------------------------------------------------------------------------

# The card's code as it stands, in a process that ends at once: current pyarrow may hang or abort in one that
# has left a stream of Parquet early.
_RUN = """
import os, sys
exec(compile(open(sys.argv[1], encoding="utf-8").read(), sys.argv[1], "exec"), {"__name__": "__main__"})
sys.stdout.flush(), sys.stderr.flush()
os._exit(0)
"""
# What some blocks need besides the oldest datasets, and how they ask for it.
_FURTHER = {
    "torch": "import torch\n",
    "mlcroissant": "import mlcroissant\n",
    "trimesh": "import trimesh\n",
    "datasets.features.mesh": "import Mesh, ",
}


def code_blocks(folder: Path, package: str = "") -> list[str]:
    """The card's blocks of Python that need a further package or module, or none."""
    text = (folder / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    needs = [next((name for name, asks in _FURTHER.items() if asks in block), "") for block in blocks]
    return [block for block, needed in zip(blocks, needs, strict=True) if needed == package]


class TestCode:
    def test_there_is_an_example_for_every_config(self, built_real: Path) -> None:
        code = "".join(block for package in ("", *_FURTHER) for block in code_blocks(built_real, package))
        assert all(f'"ccvl/ImageNet3D", "{config}"' in code for config in PUBLISHED_CONFIGS)

    @pytest.mark.parametrize("split", list(SPLITS))
    def test_names_no_split_that_is_not_there(self, split: str, sample_folder: Path, tmp_path: Path) -> None:
        raw = shutil.copytree(sample_folder, tmp_path / "raw")
        for path in raw.glob(f"lists/*_{SPLITS[split]}.txt"):
            path.write_text("")
        build(str(raw), tmp_path / "out", workers=1)
        code = "".join(
            block for package in ("", *_FURTHER) for block in code_blocks(tmp_path / "out", package)
        )
        loaded = re.findall(r'"ccvl/ImageNet3D", "(\w+)"(?:, split="(\w+)")?', code)
        loaded += re.findall(r'"(\w+)/(\w+)-\*"', code) + [
            ("pose", name) for name in re.findall(r'known\["(\w+)', code)
        ]
        whole = {(config, name) for config, name in loaded if name and config not in REFERENCE_TABLES}
        assert {name for _, name in whole} == {*SPLITS} - {split}

    def test_runs_with_the_newest_versions(self, built_real: Path, tmp_path: Path) -> None:
        run_blocks(sys.executable, built_real, tmp_path, code_blocks(built_real))

    @pytest.mark.parametrize("package", _FURTHER)
    def test_runs_with_further_packages(self, built_real: Path, tmp_path: Path, package: str) -> None:
        if find_spec(package) is None:
            pytest.skip(f"no {package} in this environment")
        run_blocks(sys.executable, built_real, tmp_path, code_blocks(built_real, package))

    def test_runs_with_the_oldest_versions(
        self, datasets3_python: Path, built_real: Path, tmp_path: Path
    ) -> None:
        run_blocks(str(datasets3_python), built_real, tmp_path, code_blocks(built_real))


def run_blocks(python: str, built: Path, tmp_path: Path, blocks: list[str]) -> None:
    """Run each block in a process of its own, as a user of the Hub would."""
    assert blocks
    version = f"v{ImageNet3D.__version__}"
    with serve(built, revisions={version: built}) as hub:
        for number, block in enumerate(blocks):
            file = tmp_path / f"block_{number}.py"
            file.write_text(block, "utf-8")
            done = subprocess.run(
                [python, "-c", _RUN, str(file)],
                env=hub.environment(tmp_path / "cache"),
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
            assert done.stdout or "print" not in block, block


# --------------------------------------------------------------------------------------------------------
# Links, and the page
# --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Links, pictures and the anchors that headings get on the Hub."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[tuple[str, str]] = []  # source, alternative text
        self.anchors: set[str] = set()
        self._heading: str | None = None
        self.html = render(folder, name)
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a":
            self.links.append(given["href"] or "")
        elif tag == "img":
            self.pictures.append((given["src"] or "", given.get("alt") or ""))
        elif tag in ("h1", "h2", "h3"):
            self._heading = ""

    def handle_data(self, data: str) -> None:
        if self._heading is not None:
            self._heading += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h1", "h2", "h3") and self._heading is not None:
            self.anchors.add(re.sub(r"[^\w -]", "", self._heading.lower()).replace(" ", "-"))
            self._heading = None


def render(folder: Path, name: str) -> str:
    """The page's body, as the Hub's Markdown gives it."""
    text = (folder / name).read_text("utf-8")
    body = text.split("\n---\n", 1)[1] if text.startswith("---\n") else text
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(body)


def relative_targets(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """(file, anchor) of everything a page names inside the folder."""
    page = Page(folder, name)
    for target in (*page.links, *(source for source, _ in page.pictures)):
        parts = urlsplit(target)
        if not parts.scheme:
            yield unquote(parts.path) or name, parts.fragment


@pytest.mark.parametrize("name", PAGES)
class TestLinks:
    def test_relative_links_and_anchors_lead_somewhere(self, built_real: Path, name: str) -> None:
        targets = list(relative_targets(built_real, name))
        assert targets
        for file, anchor in targets:
            assert (built_real / file).is_file(), file
            assert not anchor or anchor in Page(built_real, file).anchors, f"{file}#{anchor}"

    def test_other_links_are_https(self, built_real: Path, name: str) -> None:
        for link in Page(built_real, name).links:
            parts = urlsplit(link)
            assert parts.scheme in ("", "https"), link
            assert not parts.scheme or "." in parts.netloc, link

    def test_what_is_linked_is_published(self, built_real: Path, name: str) -> None:
        manifest = json.loads((built_real / "imagenet3d_manifest.json").read_text("utf-8"))
        assert {file for file, _ in relative_targets(built_real, name)} <= manifest["files"].keys()

    def test_pictures_have_words(self, built_real: Path, name: str) -> None:
        assert all(len(words) > 10 for _, words in Page(built_real, name).pictures)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to draw the page with")
def test_a_browser_shows_every_picture_and_no_overflow(built_real: Path, tmp_path: Path) -> None:
    page = shutil.copytree(built_real / "figures", tmp_path / "figures").parent / "page.html"
    check = """<script>addEventListener("load", () => {
        const shown = [...document.images].map(i => [i.getAttribute("src"), i.complete, i.naturalWidth]);
        const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
        document.body.setAttribute("data-seen", JSON.stringify({shown, wide}));
    })</script>"""
    style = "body{max-width:820px;margin:auto}img{max-width:100%}pre{overflow:auto}"
    body = render(built_real, "README.md")
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8><style>{style}</style>{body}{check}", "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,1200", "--dump-dom"]
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    seen = json.loads(html.unescape(re.search(r'data-seen="([^"]*)"', done.stdout).group(1)))
    assert len(seen["shown"]) == len(Page(built_real, "README.md").pictures) > 1
    assert all(complete and width for _, complete, width in seen["shown"]), seen
    assert seen["wide"] <= 0


def test_the_figure_of_the_camera_is_what_its_source_draws(built_real: Path) -> None:
    source = PROJECT / "dataset_card/draw_camera.py"
    code = "import runpy, sys; sys.stdout.write(runpy.run_path(sys.argv[1])['draw']())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(source)], capture_output=True, cwd=PROJECT, check=True
    )
    drawn = done.stdout.decode("utf-8")
    assert drawn == source.with_name("camera.svg").read_text("utf-8")
    assert drawn == (built_real / "figures/camera.svg").read_text("utf-8")
