"""The pages that tell of a built folder's shards: the datasheet, Croissant, and last the card."""

from ImageNet3D import read_corrections
from processing.built import CARD, CORRECTIONS, CROISSANT, DATASHEET, Manifest
from processing.card.card import SOURCES, render_card
from processing.card.croissant import render_croissant
from processing.card.description import Description, describe
from processing.card.figures import figures_in
from processing.runtime.paths import Place

MADE_OF = tuple(SOURCES / name for name in ("template.md", "card.yaml", "croissant.yaml", DATASHEET))


def render_pages(description: Description) -> dict[str, bytes]:
    """Path in the built folder -> content, in the order in which they are written: the card is last."""
    return {
        DATASHEET: (SOURCES / DATASHEET).read_bytes(),
        CROISSANT: render_croissant(description),
        CARD: render_card(description),
    }


def pages_for(folder: Place, manifest: Manifest, repository: str) -> dict[str, bytes]:
    """The pages of a finished build as they are to stand in a repository; nothing is written.

    Only of published categories: no other may stand in a repository, for its label could move.

    Args:
        folder: the built folder.
        manifest: of it.
        repository: such as "lab/ImageNet3D": snippets and links name it.
    """
    corrections = read_corrections([str(folder / CORRECTIONS)]) if CORRECTIONS in manifest.files else ()
    return render_pages(describe(manifest, figures_in(folder), corrections, repository=repository))
