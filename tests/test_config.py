from __future__ import annotations

from pathlib import Path

import pytest

from medgan.comparison.arms import is_check, is_reference
from medgan.comparison.design import expand_arms
from medgan.comparison.power import seeds_needed
from medgan.config import Config, describe, load_config
from medgan.errors import InputFault

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("name: x\ntraining:\n  steps: 10\n")
    return path


ARMS = ("none", "classical", "gan", "classical+gan")
SHIPPED = {
    **dict.fromkeys(("demo", "hippocampus", "hippocampus_study", "nodules_ct", "adrenal"), ARMS),
    "nodules_segmentation": (
        "classical",
        "classical+random-deformation",
        "classical+gan",
        "classical+self-training",
    ),
    "adrenal_study": ("none", "random-deformation", "duplicate", "gan"),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations_are_valid(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.yaml")
    assert config.compare.checkpoint is not None
    assert config.compare.arms[:4] == SHIPPED[name]
    assert len(expand_arms(config.compare)) == len(config.compare.arms)


def test_all_shipped_configurations_are_tested() -> None:
    assert {p.stem for p in CONFIGS.glob("*.yaml")} == set(SHIPPED)


@pytest.mark.parametrize("name", sorted([*(p.stem for p in CONFIGS.glob("*_study.yaml")), "nodules_segmentation"]))
def test_a_shipped_study_has_the_seeds_that_a_verdict_needs(name: str) -> None:
    compare = load_config(CONFIGS / f"{name}.yaml").compare
    arms = expand_arms(compare)
    baseline = next(arm for arm in arms if arm.name == compare.baseline)
    compared = [arm for arm in arms if arm != baseline and not is_reference(arm) and not is_check(arm, baseline)]
    assert compare.seeds >= seeds_needed(len(compared))


def test_overrides_are_typed(file: Path) -> None:
    config = load_config(
        file, ["training.steps=7", "preprocess.shape=[16, 24, 32]", "data.root=../some where", "data.labels={1: a}"]
    )
    assert config.training.steps == 7
    assert config.preprocess.shape == (16, 24, 32)
    assert config.data.root == Path("../some where")
    assert config.data.labels == {1: "a"}


@pytest.mark.parametrize(
    ("override", "code", "mentions"),
    [
        ("training.stpes=5", "CONFIG_UNKNOWN_KEY", "did you mean training.steps?"),
        ("trainnig.steps=5", "CONFIG_UNKNOWN_KEY", "did you mean training"),
        ("traning.steps=5", "CONFIG_UNKNOWN_KEY", "traning.steps is not a known key (value 5)"),
        ("traning={steps: 5, batch: 2}", "CONFIG_UNKNOWN_KEY", "did you mean training?"),
        ("compare.test.rot=/x", "CONFIG_UNKNOWN_KEY", "compare.test.rot is not a known key"),
        ("compare.test.rot=/x", "CONFIG_UNKNOWN_KEY", "did you mean compare.test.root?"),
        ("compare.network.nme=UNet", "CONFIG_UNKNOWN_KEY", "did you mean compare.network.name?"),
        ("compare.preprocess.shpe=1", "CONFIG_UNKNOWN_KEY", "did you mean compare.preprocess.shape?"),
        ("compare.preprocess.intensity.knd=x", "CONFIG_UNKNOWN_KEY", "did you mean compare.preprocess.intensity.kind?"),
        ("compare.arms=[classical, {name: a, uze: gan}]", "CONFIG_UNKNOWN_KEY", ": compare.arms.1.uze is not a"),
        ("compare.arms=[classical, {name: a, uze: gan}]", "CONFIG_UNKNOWN_KEY", "did you mean compare.arms.1.use?"),
        ("compare.arms=[classical, {name: a, strength: 5}]", "CONFIG_VALUE", ": compare.arms.1.strength: "),
        ("compare.arms=[classical, {use: gan}]", "CONFIG_VALUE", "compare.arms.1.name: Field required"),
        ("compare.arms=[classical, 5]", "CONFIG_VALUE", ": compare.arms.1: Input should be a valid string (value 5)"),
        ("compare.baseline=foo", "CONFIG_VALUE", "change compare.baseline in the file"),
        ("training.steps=0", "CONFIG_VALUE", "(value 0)"),
        ("training.steps=many", "CONFIG_VALUE", "(value 'many')"),
        ("training.augment=1.5", "CONFIG_VALUE", "training.augment"),
        ("training.generator_rate=.nan", "CONFIG_VALUE", "training.generator_rate"),
        ("data.modality=pet", "CONFIG_VALUE", "'mri', 'ct' or 'mask'"),
        ("preprocess.shape=[30, 30, 30]", "CONFIG_VALUE", "multiples of 8"),
        ("preprocess.intensity.window=[5, 1]", "CONFIG_VALUE", "ascend"),
        ("model.width=10", "CONFIG_VALUE", "multiple of 4"),
        ("model.max_offset=0.24", "CONFIG_VALUE", "dark could become brighter"),
        ("training.betas=[2, 3]", "CONFIG_VALUE", "training.betas"),
        ("name=2024-13-45", "CONFIG_OVERRIDE", "no YAML"),
        ("data.test=0.9", "CONFIG_VALUE", "data: validation + test must be below 1"),
        ("compare.arms=[gan]", "CONFIG_VALUE", "baseline"),
        ("training.steps", "CONFIG_OVERRIDE", "KEY=VALUE"),
        ("name.inner=1", "CONFIG_OVERRIDE", "holds a value"),
        ("name=[", "CONFIG_OVERRIDE", "no YAML"),
    ],
)
def test_a_bad_key_or_value_is_one_line_that_helps(override: str, code: str, mentions: str, file: Path) -> None:
    with pytest.raises(InputFault) as caught:
        load_config(file, [override])
    assert caught.value.code == code
    assert mentions in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "a: [1",
        "- 1",
        "name: x\nname: y",
        "a: &x [1]\nb: *x",
        "name: !!python/object/apply:os.system [echo]",
        "\x00",
    ],
)
def test_a_file_that_is_no_plain_mapping_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(InputFault, match="CONFIG_YAML"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="MISSING_FILE"):
        load_config(tmp_path / "none.yaml")


def test_a_configuration_survives_json() -> None:
    config = load_config(CONFIGS / "nodules_ct.yaml")
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_every_key_is_described() -> None:
    rows = describe()
    assert len(rows) > 60
    assert all(meaning for _, _, meaning in rows)


def test_the_keys_of_optional_sections_and_of_an_arm_are_described_too() -> None:
    rows = {key: default for key, default, _ in describe()}
    inner = ("compare.arms[].use", "compare.network.arguments", "compare.test.class_key", "compare.preprocess.shape")
    assert rows.keys() >= {"compare.arms", "compare.test", "compare.network", "compare.preprocess", *inner}
    assert (rows["compare.test"], rows["compare.test.root"]) == ("None", "required")
