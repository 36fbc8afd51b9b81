"""The page: one document with its style and scripts inside, and no other script may run in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

import jinja2

from ImageNet3D import OBJECT_STATUS, POSE_FIELDS, SPLITS
from processing.drawing import draw
from processing.preview.page import CONSTANTS

_SCRIPTS = (
    ("processing.preview", "turn.js"),
    ("processing.annotate", "api.js"),
    ("processing.annotate", "stage.js"),
    ("processing.annotate", "editor.js"),
    ("processing.annotate", "page.js"),
)


def page(token: str, categories: Sequence[str], named: bool, review: bool) -> tuple[str, str]:
    """The page's text, and the policy that goes with it.

    Args:
        token: the page's scripts send it with all they ask.
        categories: to choose from.
        named: whether a file names objects.
        review: whether to begin with the review.
    """
    script = "\n".join(_text(package, name) for package, name in _SCRIPTS)
    style = _text("processing.annotate", "page.css")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_text("processing.annotate", "page.html.jinja"))
    text = template.render(
        style=style,
        script=script,
        categories=categories,
        pairs=lambda names: [(name, name) for name in names],
        statuses=OBJECT_STATUS,
        splits=list(SPLITS),
        named=named,
        data={
            "token": token,
            "review": review,
            "constants": {**CONSTANTS, "boxColor": draw.BOX_COLOR},
            "meshes": {},
            "poseFields": POSE_FIELDS,
        },
    )
    sources = "; ".join(
        f"{kind}-src '{_digest(part)}'" for kind, part in (("script", script), ("style", style))
    )
    policy = (
        f"default-src 'none'; {sources}; img-src blob:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def _text(package: str, name: str) -> str:
    return files(package).joinpath("html", name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
