"""The command line, `imagenet3d COMMAND` or `python -m processing COMMAND`; `--help` explains each command.

Exit codes: 0 done, 1 problems found in the data or on the way, 2 wrong usage.

What a command needs is imported when it is called, so that help and wrong usage are told at once: `datasets`
alone takes a second.
"""

import sys
from pathlib import Path
from typing import Any

import click

import processing.build
from processing.options import (
    NameOf,
    a_repository,
    a_size,
    corrections,
    plain_errors,
    say,
    where_it_runs,
    width_and_height,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="imagenet3d-datasets", prog_name="ImageNet3D")
def main() -> None:
    """Build, check and use the ImageNet3D dataset.

    RAW is the raw release (a folder or a zip), OUT a folder; both may be fsspec URLs where a command says so.
    """


@main.command()
@click.argument("out")
@click.option("--categories", default=12, show_default=True, help="How many categories.")
@click.option("--images-per-category", default=6, show_default=True, help="How many pictures each has.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives other pictures.")
@click.option("--empty-lists", is_flag=True, help="Leave some lists empty, as some of the release's are.")
@plain_errors
def sample(out: str, **options: Any) -> None:
    """Write a synthetic raw tree, in which picture, mesh, pose and box agree, to OUT."""
    from processing.sample.command import write_sample

    try:
        write_sample(out, **options)
    except (ValueError, FileExistsError) as error:
        raise click.UsageError(str(error)) from error


@main.command()
@click.argument("raw")
@click.option("--captions", metavar="DIR", help="Folder with the captions, which are looked for in RAW else.")
@click.option("--workers", type=click.IntRange(1), help="Processes; as many as there are cores by default.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@plain_errors
def check(raw: str, captions: str | None, workers: int | None, as_json: bool) -> None:
    """Tell what the raw release RAW contains, held against what this code assumes.

    Reads names and annotations, opens no picture, writes nothing. The report can be passed on: it names no
    person and has no text of a caption. Exits with 0, whatever was found.
    """
    import json

    from processing.check.command import check

    found = check(raw, captions=captions, workers=workers)
    say(json.dumps(found.to_dict(), indent=1) if as_json else str(found))


@main.command()
@click.argument("raw")
@click.argument("out")
@click.option(
    "--config",
    "configs",
    multiple=True,
    type=NameOf("PUBLISHED_CONFIGS", module="processing.configs"),
    help="Only these; all that the release allows by default.",
)
@click.option("--captions", metavar="DIR", help="Folder with JSON files of captions, or one such file.")
@corrections
@where_it_runs
@click.option(
    "--shard-size",
    default=processing.build.DEFAULT_SHARD_SIZE,
    show_default=True,
    callback=a_size,
    help="Bytes of pictures a shard has at most; a unit may follow.",
)
@click.option("--seed", default=0, show_default=True, help="Of the order of train.")
@click.option("--strict", is_flag=True, help="Fail if anything was found that is not as it should be.")
@click.option(
    "--repo",
    metavar="NAME",
    callback=a_repository,
    help="Where OUT is to stand on the Hub, if not in ccvl/ImageNet3D.",
)
@click.option(
    "--previous",
    metavar="OLD",
    help="An earlier version, as `compare` takes it: the card's changelog says what changed since.",
)
@plain_errors
def build(raw: str, out: str, **options: Any) -> None:
    """Build the dataset folder OUT, which is the Hub repository, from the raw release RAW.

    Run the same command again to continue a build that was interrupted.
    """
    from processing.build.command import build

    say(str(build(raw, out, **options)))


@main.command()
@click.argument("out")
@click.option("--raw", metavar="RAW", help="The raw release, to compare every value with.")
@click.option("--captions", metavar="DIR", help="As given to the build.")
@where_it_runs
@plain_errors
def verify(out: str, **options: Any) -> None:
    """Check every shard, row, picture and count of the built folder OUT.

    Exits with 1, and a table of what is wrong and what to do, unless all is well or there are notes alone.
    OUT may be a download from the Hub: it is verified by the manifest that was published.
    """
    from processing.verify.checks import problems_table
    from processing.verify.command import verify

    problems = verify(out, **options)
    if not all(problem.is_note for problem in problems):
        raise click.ClickException(problems_table(problems))
    if problems:
        say(f"{problems_table(problems)}\n")
    say(f"{out}: all is as it was built")


@main.command()
@click.argument("raw")
@click.argument("out")
@click.option("--mode", default="center", show_default=True, type=click.Choice(["center", "fit"]))
@click.option(
    "--size",
    default="512",
    show_default=True,
    metavar="N|WxH",
    callback=width_and_height,
    help="Of a crop, pixels: one number for both sides, or width and height, such as 800x640.",
)
@click.option(
    "--target-distance", default=4.0, show_default=True, help="What distance objects have in center crops."
)
@click.option("--replace", is_flag=True, help="Remove crops of other options or input that are in OUT.")
@corrections
@where_it_runs
@plain_errors
def crop(raw: str, out: str, mode: str, size: tuple[int, int], target_distance: float, **others: Any) -> None:
    """Write a crop of every object of RAW to OUT, in the layout that training code reads.

    center scales objects to one distance and puts them at the centre, for 3D pose; fit scales the whole
    picture to fit, for 6D pose. Run the same command again to continue after an interruption.
    """
    from processing.crop.command import write_crop_tree
    from processing.crop.place import CropOptions

    try:
        options = CropOptions(mode, size, target_distance)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    say(str(write_crop_tree(raw, out, options, **others)))


@main.command()
@click.argument("source", metavar="RAW_OR_OUT")
@click.argument("page")
@click.option(
    "--per-category", type=click.IntRange(1), default=2, show_default=True, help="Objects of each category."
)
@click.option("--category", "categories", multiple=True, metavar="NAME", help="Only these; may be repeated.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=NameOf("OBJECT_STATUS", "none"),
    help="Only objects of these; none stands for those without. May be repeated.",
)
@click.option("--split", "splits", multiple=True, type=NameOf("SPLITS"), help="Only this.")
@click.option("--seed", default=0, show_default=True, help="Another seed shows other objects.")
@click.option(
    "--config",
    default="pose",
    show_default=True,
    type=click.Choice(["pose", "object_centric"]),
    help="Whole pictures, or the crops of object_centric.",
)
@plain_errors
def preview(source: str, page: str, per_category: int, seed: int, **selected: Any) -> None:
    """Write PAGE, one HTML file: pictures with box, mesh and axes drawn on, plots, and what was left out.

    The options choose what all of the page is about, its plots and books too. PAGE may be a pipe or
    /dev/stdout; a file that is there is replaced if it is an earlier page, and left alone otherwise.
    """
    from processing.preview.command import write_preview
    from processing.preview.selection import Selection

    try:
        selection = Selection(**selected)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if not write_preview(source, page, per_category, selection, seed):
        path = Path(page).resolve()
        say(f"{path.as_uri()} ({path.stat().st_size / 1e6:.1f} MB)")


@main.command()
@click.argument("source", metavar="RAW_OR_OUT")
@click.option("--corrections", required=True, metavar="FILE", help="Where saves go, as JSON lines.")
@click.option("--review", is_flag=True, help="Begin with objects of two readings: choose the better one.")
@click.option("--report", is_flag=True, help="Serve nothing; say what was done, and how far people agree.")
@click.option("--json", "as_json", is_flag=True, help="With --report: as JSON.")
@click.option(
    "--objects", "named", metavar="FILE", help="Objects to show, a line each: image_id object_index."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Any that is free by default.")
@plain_errors
def annotate(source: str, corrections: str, report: bool, as_json: bool, **options: Any) -> None:
    """Correct poses, or make them, on a page in the browser; open the address that is printed.

    Each save is one line of FILE, which `build --corrections` applies.
    """
    from processing.annotate.command import annotate, report_on

    if report:
        found = report_on(source, corrections)
        say(found.to_json() if as_json else found.table())
    else:
        annotate(source, corrections, tell=say, **options)


@main.command()
@click.argument("old")
@click.argument("new")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with the keys of all that changed.")
@plain_errors
def compare(old: str, new: str, as_json: bool) -> None:
    """Say what changed from OLD to NEW: pictures, objects, meshes and categories, field by field.

    Each is a built folder, or a repository of the Hub at a revision, such as ccvl/ImageNet3D@v1.0.0.
    """
    from processing.compare.command import compare

    changes = compare(old, new)
    say(changes.to_json() if as_json else str(changes))


@main.command()
@click.argument("predictions")
@click.option("--dataset", "out", required=True, metavar="OUT", help="The built folder with the truth.")
@click.option("--config", default="pose", show_default=True, help="A config with poses.")
@click.option("--split", default="validation", show_default=True, type=NameOf("SPLITS"))
@click.option(
    "--population",
    default="benchmark",
    show_default=True,
    type=click.Choice(["benchmark", "all"]),
    help="The objects of the authors' evaluation (those of object_centric), or every posed object.",
)
@click.option("--degrees/--radians", default=None, help="What the angles are; radians by default.")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="ANGLE",
    help="Of accuracy: pi/6 and pi/18 by default; or degrees. May be repeated.",
)
@click.option("--groups", metavar="FILE", help="JSON file {group: [category, ...]} to report on.")
@click.option(
    "--symmetries",
    metavar="FILE",
    help="JSON file {category: turns that bring it back to itself, 0 for every turn}; reported beside.",
)
@click.option("--json", "json_file", metavar="FILE", help="Also write the figures as JSON.")
@click.option(
    "--plot", "plot_file", metavar="FILE", help="Also draw accuracy against threshold (PNG, SVG, PDF)."
)
@click.option(
    "--eval-results", metavar="FILE", help="Also write the entry that the Hub's leaderboards read (YAML)."
)
@click.option(
    "--repo", metavar="NAME", callback=a_repository, help="Of that entry: the dataset's repository."
)
@click.option("--revision", metavar="SHA", help="Of that entry: the dataset's commit.")
@click.option("--source", metavar="URL", help="Of that entry: a link to the paper, the code or the logs.")
@plain_errors
def evaluate(
    predictions: str,
    out: str,
    json_file: str | None,
    plot_file: str | None,
    eval_results: str | None,
    repo: str | None,
    revision: str | None,
    source: str | None,
    **chosen: Any,
) -> None:
    """Score PREDICTIONS (Parquet, CSV or JSON lines) with the paper's metrics.

    Rows are keyed by image_id and object_index and hold azimuth, elevation and theta, or a rotation of nine
    numbers (`rotation`, or r00 to r22 in CSV), a quaternion (qw, qx, qy, qz), or Orient Anything's answer
    (ref_az_pred, ref_el_pred, ref_ro_pred); with a `category` they also count as classification. An output
    replaces nothing but an earlier one.
    """
    from processing.evaluate.command import evaluate
    from processing.evaluate.leaderboard import check_fits, submission
    from processing.evaluate.outputs import Outputs

    about = None
    if eval_results:
        check_fits(chosen["config"], chosen["split"], chosen["population"], chosen["thresholds"])
        about = submission(out, repo, revision, source)
    elif repo or revision or source:
        raise click.UsageError("--repo, --revision and --source are about the entry: give --eval-results too")
    outputs = Outputs(json_file, plot_file, eval_results, about)
    outputs.check()
    report = evaluate(predictions, out, **chosen)
    # The table first: a file that cannot be written does not take it along.
    say(report.table(getattr(sys.stdout, "encoding", None) or "utf-8"))
    outputs.write(report)


@main.command()
@click.argument("out")
@click.option(
    "--repo",
    required=True,
    metavar="NAME",
    callback=a_repository,
    help="The repository, such as ccvl/ImageNet3D.",
)
@click.option(
    "--revision",
    metavar="R",
    help="Instead of main: a branch, refs/pr/NUMBER, or refs/pr to open a pull request.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would change, and how many bytes it is.")
@click.option("--overwrite", is_flag=True, help="Replace also what others changed on the Hub.")
@click.option("--benchmark", is_flag=True, help="Send eval.yaml too: the Hub must know the benchmark first.")
@click.option(
    "--gated",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "manual"]),
    help="Who lets people in, of a repository that was open: the Hub, or its owners.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes that verify; all cores by default.")
@plain_errors
def publish(out: str, repo: str, **options: Any) -> None:
    """Verify the built folder OUT and publish it on the Hugging Face Hub, in one commit.

    Run the same command again to go on after a failure: what has arrived is not sent again.
    """
    from processing.publish.command import publish

    say(str(publish(out, repo, **options)))


if __name__ == "__main__":
    sys.exit(main())
