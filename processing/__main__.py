"""The command line: `python -m processing COMMAND --help` explains each command.

Exit codes: 0 done, 1 problems found in the data or on the way, 2 wrong usage.
"""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
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
        except (ImageNet3D.ReleaseError, BuildError, OSError) as error:
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

    try:
        write_sample(out, categories, images_per_category, seed)
    except (ValueError, FileExistsError, ImportError) as error:
        raise click.UsageError(str(error)) from error


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


@main.command()
@click.argument("predictions")
@click.option("--dataset", "out", required=True, metavar="OUT", help="The built folder with the truth.")
@click.option("--config", default=ImageNet3D.DEFAULT_CONFIG, show_default=True, help="A config with poses.")
@click.option("--split", default="validation", show_default=True, type=click.Choice(list(ImageNet3D.SPLITS)))
@click.option("--groups", metavar="FILE", help="JSON file {group: [category, …]} to report on.")
@click.option("--json", "json_file", metavar="FILE", help="Also write the figures as JSON.")
@click.option(
    "--plot", "plot_file", metavar="FILE", help="Also draw accuracy against threshold (PNG, SVG, PDF)."
)
@_told_plainly
def evaluate(
    predictions: str,
    out: str,
    config: str,
    split: str,
    groups: str | None,
    json_file: str | None,
    plot_file: str | None,
) -> None:
    """Score PREDICTIONS (Parquet, CSV or JSON lines) with the paper's metrics.

    Rows are keyed by image_id and object_index and hold azimuth, elevation and theta in radians, or a
    rotation of nine numbers (`rotation`, or r00 … r22 in CSV); with a `category` they also count as
    classification.
    """
    from processing.evaluate import PredictionError, evaluate

    try:
        report = evaluate(predictions, out, config, split, groups)
    except PredictionError as error:
        raise click.ClickException(str(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if json_file:
        Path(json_file).write_text(report.to_json(), "utf-8")
    if plot_file:
        report.plot(plot_file)
    click.echo(str(report))


if __name__ == "__main__":
    sys.exit(main())
