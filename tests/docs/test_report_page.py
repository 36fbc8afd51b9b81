"""The example of the report for the makers of `datasets` runs as it stands, but for its size."""

import re
from pathlib import Path

import pytest
from support import PROJECT

pytestmark = pytest.mark.slow


def test_the_example_times_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", (PROJECT / "docs/datasets.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert code.count("1000") == 5
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    exec(compile(code.replace("1000", "50"), "datasets.md", "exec"), names := {})
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r" +\d+ µs a row$", "", line) for line in lines] == [*names["ways"]]
    assert names["count"] == 2 * 50
