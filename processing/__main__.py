"""The command line: `python -m processing COMMAND --help` explains each command.

Exit codes: 0 done, 1 problems found in the data or on the way, 2 wrong usage.
"""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

import ImageNet3D
from processing.plan import DEFAULT_SHARD_SIZE


def _told_plainly(command: Callable[..., None]) -> Callable[..., None]:
    """Errors that name the file and the remedy are shown without a traceback."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        from processing.build import BuildError

        try:
            command(*args, **kwargs)
        except (ImageNet3D.ReleaseError, BuildError, FileExistsError, OSError) as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            raise click.ClickException("interrupted; run the same command again to go on") from None

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(ImageNet3D.__version__, prog_name="ImageNet3D")
def main() -> None:
    """Build, check and use the ImageNet3D dataset.

    RAW is the raw release (a folder or a zip), OUT a folder; both may be fsspec URLs where a command says so.
    """


@main.command()
@click.argument("out")
@click.option("--categories", default=12, show_default=True, help="How many categories.")
@click.option("--images-per-category", default=6, show_default=True, help="How many pictures each has.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives other pictures.")
@_told_plainly
def sample(out: str, categories: int, images_per_category: int, seed: int) -> None:
    """Write a synthetic raw tree, in which picture, mesh, pose and box agree, to OUT."""
    from processing.sample import write_sample

    write_sample(out, categories, images_per_category, seed)


@main.command()
@click.argument("raw")
@click.argument("out")
@click.option("--config", "configs", multiple=True, type=click.Choice(ImageNet3D.CONFIGS), help="Only these.")
@click.option("--captions", metavar="DIR", help="Folder with image_captions.json and category_captions.json.")
@click.option("--workers", type=click.IntRange(1), help="Processes; as many as there are cores by default.")
@click.option(
    "--shard-size", default=DEFAULT_SHARD_SIZE, show_default=True, help="Pictures a shard, in bytes."
)
@click.option("--seed", default=0, show_default=True, help="Of the order of train.")
@click.option("--strict", is_flag=True, help="Fail if anything was found that is not as it should be.")
@_told_plainly
def build(raw: str, out: str, **options: Any) -> None:
    """Build the dataset folder OUT, which is the Hub repository, from the raw release RAW.

    Run the same command again to continue a build that was interrupted.
    """
    from processing.build import build

    click.echo(str(build(raw, out, **options)))


if __name__ == "__main__":
    sys.exit(main())
