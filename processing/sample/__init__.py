"""A synthetic release to try things on, in which picture, mesh, pose and box agree."""

from contextlib import suppress

from ImageNet3D import RawTree, Unusable

MARK = "SYNTHETIC.txt"  # a file that stands in a tree that was drawn, and in no real release


def is_drawn(tree: RawTree) -> bool:
    """Whether a release was drawn by the command `sample`."""
    with suppress(FileNotFoundError, Unusable):
        return bool(tree.read(MARK, 1000, "file_unexpected"))
    return False
