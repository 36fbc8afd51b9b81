"""The card and its companions, for a repository other than the one they were built for."""

import re

from ImageNet3D import RAW_ARCHIVE, REPOSITORY

# The files that name the repository they stand in.
NAMING = ("README.md", "croissant.json")

_NAME = re.compile(rf"(?<![\w.-]){re.escape(REPOSITORY)}(?![\w-])")


def for_repository(path: str, data: bytes, repo: str) -> bytes:
    """A file of the built folder as it is to stand in another repository: snippets load that one's data.

    Lines that name the raw release's zip stay: it is where it is.

    Args:
        path: inside the built folder; only those of `NAMING` are changed.
        data: of the file, UTF-8.
        repo: the repository, such as "lab/ImageNet3D".
    """
    if path not in NAMING or repo == REPOSITORY:
        return data
    lines = data.decode("utf-8").splitlines(keepends=True)
    return "".join(line if RAW_ARCHIVE in line else _NAME.sub(repo, line) for line in lines).encode()
