from __future__ import annotations

import json
import math
import re
import tomllib
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from finished_studies import Recipe, write_study

from medgan.comparison.report import page, write_report
from medgan.comparison.report.claim import claim_items
from medgan.errors import InputFault

HOSTILE = "<script>alert(1)</script>|\"'&$x$ `a`"


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(labelled=(8, 0), external=True, failed=True, probabilities=(0.25, 0.75), seeds=6)
    folder = write_study(tmp_path_factory.mktemp("segmentation"), recipe)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def classification(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(task="classification", folds=3, splits=3, seeds=2, name="Nodules", spacing=None)
    folder = write_study(tmp_path_factory.mktemp("classification"), recipe)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def exploratory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(seeds=2, gallery=False, detectable=math.inf, margin=0.0, baseline=HOSTILE, name=HOSTILE)
    folder = write_study(tmp_path_factory.mktemp("exploratory"), recipe)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def referred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_study(tmp_path_factory.mktemp("referred"), Recipe(labelled=(4, 8), gallery=False, reference=True))
    write_report(folder)
    return folder


def html(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def shown(folder: Path) -> str:
    """The page's words, without markup, scripts, styles and the space that HTML folds."""

    class Words(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.words: list[str] = []
            self.hidden = False

        def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
            self.hidden = tag in ("style", "script")

        def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
            self.hidden = False

        def handle_data(self, data: str) -> None:
            if not self.hidden:
                self.words.append(data)

    reader = Words()
    reader.feed(html(folder))
    return " ".join("".join(reader.words).split())


def test_verdict_comes_first_and_in_words(segmentation: Path) -> None:
    words = shown(segmentation)
    assert words.index("Gain shown for “classical+gan” compared with classical.") < words.index(
        "Dice on 24 test patients"
    )
    assert "Loss shown for “none”." in words
    assert "The interval excludes 0, the adjusted test is below 0.05 and the difference reaches the margin" in words
    assert "This does not say that there is no gain." in words
    assert "a difference of about 0.012 would have been found in 80 of 100 such studies" in words
    assert "an arm against itself gets “gain” in at most 5 of 100 studies" in words


def test_every_block_of_the_learning_curve_has_its_verdict(segmentation: Path) -> None:
    words = shown(segmentation)
    assert words.count("Gain shown for") == 2
    assert "With 8 labelled training cases" in words
    assert "With all annotated training cases" in words
    assert (segmentation / "figures" / "learning.png").is_file()


def test_few_replicates_give_no_verdict(exploratory: Path) -> None:
    words = shown(exploratory)
    assert "Exploratory: 4 arms compared with" in words
    assert "2 replicates cannot reach p < 0.05 in an exact test; 6 are the fewest that can." in words
    assert "Gain shown" not in words
    assert "this study could not have shown a gain" in words
    assert "No margin was set" in words


@pytest.mark.parametrize("name", ["segmentation", "classification", "exploratory"])
def test_no_number_is_written_as_nan_or_inf(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    for text in (shown(folder), (folder / "report.md").read_text()):
        assert not re.search(r"(?i)\b(nan|inf)\b", text)


@pytest.mark.parametrize("name", ["segmentation", "classification", "exploratory"])
def test_page_loads_nothing_from_elsewhere(name: str, request: pytest.FixtureRequest) -> None:
    text = html(request.getfixturevalue(name))
    targets = re.findall(r"""\b(?:src|href|srcset|action|poster)\s*=\s*["']([^"']*)""", text)
    assert {target[:1] for target in targets if not target.startswith("data:")} == {"#"}
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import", text)


@pytest.mark.parametrize("name", ["segmentation", "classification", "exploratory"])
def test_report_names_no_patient_and_no_case(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    for file in ("report.html", "report.md"):
        assert "secret" not in (folder / file).read_text()


@pytest.mark.parametrize("name", ["segmentation", "classification", "exploratory"])
def test_headings_descend_one_level_at_a_time(name: str, request: pytest.FixtureRequest) -> None:
    levels = [int(level) for level in re.findall(r"<h([1-6])\b", html(request.getfixturevalue(name)))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("name", ["segmentation", "classification", "exploratory"])
def test_links_of_the_page_lead_somewhere(name: str, request: pytest.FixtureRequest) -> None:
    text = html(request.getfixturevalue(name))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


def test_hostile_names_stay_text(exploratory: Path) -> None:
    text = html(exploratory)
    assert text.count("<script>") == 1
    assert "alert(1)&lt;/script&gt;" in text
    assert HOSTILE in shown(exploratory)
    assert "<script>" not in (exploratory / "report.md").read_text()


@pytest.mark.parametrize("name", ["segmentation", "classification", "exploratory"])
def test_rows_of_markdown_tables_are_as_wide_as_their_heads(name: str, request: pytest.FixtureRequest) -> None:
    lines = (request.getfixturevalue(name) / "report.md").read_text().splitlines()
    cells = [len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0 for line in lines]
    rules = [i for i, line in enumerate(lines) if re.fullmatch(r"\|( --- \|)+", line)]
    assert len(rules) >= 4
    for i in rules:
        assert cells[i - 1] == cells[i] == cells[i + 1]
    assert all(a == b for a, b in pairwise(cells) if a and b)


def test_failed_run_is_listed_with_its_error(segmentation: Path) -> None:
    assert "CUDA out of memory <b>12 GiB</b>" in shown(segmentation)
    assert "<b>12" not in html(segmentation)
    assert "2 of 72 runs failed" in shown(segmentation)


def test_worst_cases_show_truth_and_prediction_of_every_arm(segmentation: Path) -> None:
    text = html(segmentation)
    assert "Test case 5: worst of classical" in text
    assert 'aria-label="Test case 5, arm classical+gan: Dice 0.800."' in text
    assert text.count('<image id="failure-case0-outline') == 6
    assert text.count('<image id="failure-case0-image"') == 1


def test_external_cohort_has_its_own_table(segmentation: Path, classification: Path) -> None:
    assert "On the external cohort, all annotated training cases" in shown(segmentation)
    assert 'id="external"' not in html(classification)
    assert "Not done: no external cohort was configured." in shown(classification)


def test_sweep_over_probability_is_drawn(segmentation: Path, classification: Path) -> None:
    assert "gan with dagan, strength 1, by probability" in shown(segmentation)
    assert (segmentation / "figures" / "sweep-0-0.png").is_file()
    assert not list((classification / "figures").glob("sweep*"))


def test_cross_validation_shows_the_corrected_test_and_every_fold(classification: Path, segmentation: Path) -> None:
    assert "corrected t" in shown(classification)
    assert "Split of fold 2" in shown(classification)
    assert "- Split of fold 2: " in (classification / "report.md").read_text()
    assert "Nadeau and Bengio" in shown(classification)
    assert "corrected t" not in shown(segmentation)


def test_classification_has_operating_point_and_reliability(classification: Path, segmentation: Path) -> None:
    words = shown(classification)
    assert "Sensitivity and specificity are at the threshold that reached a sensitivity of 0.9" in words
    assert "in 9 bins of equal mass, replicates pooled" in words
    assert 'id="calibration"' not in html(segmentation)


def test_gap_closed_is_in_words_a_table_and_a_figure(referred: Path, segmentation: Path) -> None:
    words = shown(referred).replace("\u2212", "-").replace("\u00a0", " ")
    assert "“classical+gan”: 0.47 of the gap closed (95 % CI 0.27 to 0.69)" in words
    assert "it differs from the best control, “classical+random-deformation”, by +0.016" in words
    assert "“gan”: -0.29 of the gap closed" in words
    # The block without a gap gives no share, and says why.
    assert "“classical+gan”: no share is given. The reference “classical+all-labels” is not reliably above" in words
    assert words.index("no share is given") < words.index("of the gap closed")
    assert words.count("no gap shown") == 2
    assert "the best control is chosen anew" in words
    assert (referred / "figures" / "gap-8.png").is_file()
    assert not (referred / "figures" / "gap-4.png").exists()
    assert "0.47 of the gap closed" in (referred / "report.md").read_text()
    assert "Gap closed" not in shown(segmentation)


def test_a_reference_is_never_a_gain_and_is_no_arm_compared(referred: Path) -> None:
    words = shown(referred)
    assert words.count("reference: all labels") >= 4
    assert "5 arms were compared" in words
    assert "As a reference, a ceiling that is not compared and in no adjustment: classical+all-labels" in words
    assert not re.search(r"(Gain|Loss) shown for[^.]*all-labels", words)


def test_methods_come_from_the_plan(segmentation: Path, classification: Path) -> None:
    words = shown(segmentation)
    assert "The cohort held 85 cases (MRI scans) of 80 patients; 3 cases were excluded." in words
    assert "resampled to 1 x 1 x 1 mm and cropped or padded about the centre to 32 x 40 x 32 voxels" in words.replace(
        "\u00d7", "x"
    )
    assert "residual 3-D U-Net of width 16" in words
    assert "percentile bootstrap with 2000 resamples" in words
    assert "split by 3-fold cross-validation (3 folds run)" in shown(classification)
    assert "2000 steps on 36 training cases of 36 patients, 1.5 h of training in all" in shown(classification)


def test_own_network_and_function_are_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path, Recipe(seeds=6, gallery=False))
    frozen = json.loads((folder / "plan.json").read_text())
    for key, value, words in (
        ("network", {"name": "SegResNet", "arguments": {"init_filters": 8}}, "MONAI's SegResNet (init_filters=8)"),
        ("function", "my_model:train", "trained by the function my_model:train"),
    ):
        frozen["plan"]["compare"][key] = value
        (folder / "plan.json").write_text(json.dumps(frozen))
        write_report(folder)
        assert words in shown(folder)


def test_a_quality_that_siblings_must_have_is_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path, Recipe(seeds=6, gallery=False))
    frozen = json.loads((folder / "plan.json").read_text())
    for arm in frozen["plan"]["arms"]:
        if arm["name"] in ("classical+gan", "classical+random-deformation"):
            arm["min_quality"] = 0.05
    (folder / "plan.json").write_text(json.dumps(frozen))
    write_report(folder)
    assert "siblings below quality 0.05 drawn again" in shown(folder)
    assert "classical+gan (50 % of samples, strength 1, quality from 0.05)" in shown(folder)
    # Not of gan, which has none, nor of the control, whose fields nobody judges.
    assert shown(folder).count("quality from") == 1


def test_claim_has_its_44_items(segmentation: Path) -> None:
    plan = json.loads((segmentation / "plan.json").read_text())["plan"]
    items = claim_items(plan, pictures=True)
    assert [item.number for item in items] == list(range(1, 45))
    named = {14: "reference standard", 21: "sample size", 27: "Ensembling", 34: "trial", 39: "Failure", 44: "Funding"}
    assert all(word in items[number - 1].text for number, word in named.items())
    assert items[32].anchor == "external"


def test_privacy_is_stated(segmentation: Path, exploratory: Path) -> None:
    sentence = "treat it as that patient's data; it is not anonymous."
    assert sentence in shown(segmentation)
    assert "pictures show scans of patients, real and transformed" in shown(segmentation)
    assert "This report holds no pictures of patients." in shown(exploratory)
    assert sentence in (segmentation / "report.md").read_text()


def test_figures_hold_charts_only(segmentation: Path) -> None:
    kinds = {re.sub(r"(-\d+)*\.png", "", path.name) for path in (segmentation / "figures").iterdir()}
    assert kinds == {"differences-patients", "differences-replicates", "training", "learning", "sweep"}


def test_seeds_hashes_costs_and_versions_are_there(segmentation: Path) -> None:
    words = shown(segmentation)
    for fact in ("5f" * 32, "ab" * 32, "ef" * 32, "paired seeds 0, 1, 2, 3, 4, 5", "monai 1.6.1", "30.7 min"):
        assert fact in words
    assert "Every run (72)" in words


def test_pictures_that_do_not_fit_are_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_study(tmp_path, Recipe(seeds=6))
    write_report(folder)
    whole = (folder / "report.html").stat().st_size
    assert whole < 6_000_000
    monkeypatch.setattr(page, "MAX_PAGE", whole - 200_000)
    write_report(folder)
    assert (folder / "report.html").stat().st_size <= whole - 200_000
    assert re.search(r"\d sets? of pictures did not fit the page", shown(folder))


def test_report_is_the_same_for_the_same_files(classification: Path) -> None:
    before = html(classification)
    write_report(classification)
    assert html(classification) == before


def test_folder_that_is_no_study_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="STUDY_UNREADABLE"):
        write_report(tmp_path)


def test_gallery_without_its_volumes_is_a_fault(tmp_path: Path) -> None:
    folder = write_study(tmp_path, Recipe(seeds=6))
    index = json.loads((folder / "gallery.json").read_text())
    index["cases"][0]["key"] = "case9"
    (folder / "gallery.json").write_text(json.dumps(index))
    with pytest.raises(InputFault, match="GALLERY_UNREADABLE"):
        write_report(folder)


def test_templates_are_package_data() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["medgan"]
    files = [path.relative_to(Path(page.__file__).parents[2]) for path in page.TEMPLATES.iterdir()]
    assert len(files) >= 7
    assert all(any(file.match(pattern.removeprefix("**/")) for pattern in patterns) for file in files)
