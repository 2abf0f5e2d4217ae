from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medgan.data.cohort import read_cohort

ROOT = Path(__file__).parents[2]


def test_the_pipeline_script_runs(cohort_folder: Path, checkpoint_folder: Path) -> None:
    """The cohort has labels 0 and 1, the network three outputs: as in a cohort where a structure is absent."""
    command = [sys.executable, str(ROOT / "docs" / "monai_pipeline.py"), str(cohort_folder), str(checkpoint_folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    losses = [float(value) for value in re.findall(r"loss ([\d.]+)", result.stdout)]
    assert len(losses) == 3  # 11 labelled cases, four a batch
    assert all(0 < value < 5 for value in losses)


def test_the_pipeline_script_is_at_most_twenty_lines_without_its_imports() -> None:
    source = (ROOT / "docs" / "monai_pipeline.py").read_text()
    body = ast.parse(source).body[1:]  # without the docstring
    lines = sum(node.end_lineno - node.lineno + 1 for node in body if not isinstance(node, ast.Import | ast.ImportFrom))
    assert lines <= 20


@pytest.mark.parametrize(
    "document", [p.relative_to(ROOT).as_posix() for p in [ROOT / "README.md", *ROOT.glob("docs/*.md")]]
)
def test_links_and_pictures_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    targets = [
        t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t and not t.startswith("#")
    ]
    missing = [t for t in targets if t and not (ROOT / document).parent.joinpath(t).exists()]
    assert not missing


def test_the_example_of_imbalance_runs(cohort_folder: Path, checkpoint_folder: Path) -> None:
    section = (ROOT / "docs" / "transform.md").read_text().split("## Imbalance")[1]
    block = re.search(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert block
    cases = read_cohort(cohort_folder, class_key="size").cases[1:]
    data = [{"image": str(case.images[0]), "class": case.class_name} for case in cases]
    names: dict[str, object] = {"data": data, "checkpoint": checkpoint_folder}
    exec(block[1], names)
    batches = list(names["loader"])  # type: ignore[call-overload]
    assert sum(len(batch["class"]) for batch in batches) == len(data)
    assert {name for batch in batches for name in batch["class"]} == {"small", "large"}


def test_the_readmes_python_is_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")


def test_the_page_of_configuration_keys_is_up_to_date() -> None:
    from medgan.config import describe

    page = (ROOT / "docs" / "configuration.md").read_text()
    for key, default, meaning in describe():
        assert f"| `{key}` | `{default}` | {meaning} |" in page
