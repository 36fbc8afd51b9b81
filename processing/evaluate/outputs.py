"""The files that a report is written to: checked before the work, written after the table is shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from processing.evaluate.choices import ChoiceError
from processing.evaluate.leaderboard import YAML_MARK, Submission, write_entries
from processing.evaluate.report import MARK, Report, check_plot, json_mark
from processing.runtime.output import check_output


@dataclass(frozen=True)
class Outputs:
    """Which files to write, each only if it is named.

    Attributes:
        json_file: the figures as JSON.
        plot_file: accuracy against threshold, as PNG, SVG or PDF by its ending.
        eval_results: the entry for the Hub's leaderboards, as YAML.
        about: what that entry says besides the figures.
    """

    json_file: str | None = None
    plot_file: str | None = None
    eval_results: str | None = None
    about: Submission | None = None

    def check(self) -> None:
        """Refuse files that could not be written, or that are not earlier outputs of this command.

        Raises:
            ChoiceError: two are one file, or the plot's ending is none that can be drawn.
            ImportError: matplotlib is not installed, and a plot is wanted.
            OutputError, OSError: as of `processing.runtime.output.check_output`.
        """
        named = [name for name in (self.json_file, self.plot_file, self.eval_results) if name]
        if len({Path(name).resolve() for name in named}) < len(named):
            raise ChoiceError(f"of {', '.join(named)} two are one file; name another for each output")
        if self.json_file:
            check_output(self.json_file, json_mark())
        if self.plot_file:
            check_plot(self.plot_file)
            check_output(self.plot_file, MARK.encode())
        if self.eval_results:
            check_output(self.eval_results, YAML_MARK)

    def write(self, report: Report) -> None:
        """Write the files.

        Raises:
            ImportError: the installed huggingface_hub does not know the format of the entry.
            OutputError, OSError: as of `processing.runtime.output.write_output`.
        """
        if self.json_file:
            report.write_json(self.json_file)
        if self.plot_file:
            report.plot(self.plot_file)
        if self.eval_results and self.about:
            write_entries(report, self.about, self.eval_results)
