from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from medgan.config import DataConfig
from medgan.data.case import Case, Cohort
from medgan.data.split import Split, content_hash, split_cohort
from medgan.errors import InputFault

LABEL = Path("label.nii.gz")


def _cohort(cases: list[Case], classes: tuple[str, ...] = ()) -> Cohort:
    return Cohort(Path("cohort"), tuple(cases), {1: "organ"}, classes)


def _labelled(count: int) -> Cohort:
    return _cohort([Case(f"c{i}", f"p{i // 2}", (Path(f"{i}.nii"),), LABEL) for i in range(count)])


def _classed(first: int, second: int) -> Cohort:
    names = ["a"] * first + ["b"] * second
    return _cohort(
        [Case(f"c{i}", f"p{i}", (Path(f"{i}.nii"),), None, name) for i, name in enumerate(names)], ("a", "b")
    )


def _patients(cases: tuple[Case, ...]) -> set[str]:
    return {case.patient_id for case in cases}


def test_every_case_is_in_one_part_and_no_patient_in_two():
    cohort = _labelled(101)
    split = split_cohort(cohort, DataConfig())
    parts = split.training, split.validation, split.test
    assert Counter(case for part in parts for case in part) == Counter(cohort.cases)
    assert sum(len(_patients(part)) for part in parts) == 51


def test_the_shares_are_of_patients():
    split = split_cohort(_labelled(200), DataConfig(validation=0.15, test=0.3))
    assert [len(_patients(part)) for part in (split.training, split.validation, split.test)] == [55, 15, 30]


def test_classes_are_shared_out_alike():
    split = split_cohort(_classed(80, 20), DataConfig(validation=0.2, test=0.3))
    for part, expected in ((split.training, 10), (split.validation, 4), (split.test, 6)):
        assert abs(sum(case.class_name == "b" for case in part) - expected) <= 1


def test_the_split_is_a_function_of_seed_and_patients_not_of_their_order():
    cohort = _labelled(40)
    shuffled = _cohort(list(cohort.cases)[::-1])
    first = split_cohort(cohort, DataConfig(split_seed=1))
    assert split_cohort(shuffled, DataConfig(split_seed=1)).digest == first.digest
    assert split_cohort(cohort, DataConfig(split_seed=2)).digest != first.digest


def test_the_digest_tells_who_is_where():
    a, b = (Case(name, name, (Path(name),)) for name in "ab")
    assert Split((a, b), (), ()).digest == Split((b, a), (), ()).digest
    assert Split((a, b), (), ()).digest != Split((a,), (b,), ()).digest


def test_a_class_of_one_patient_can_fall_into_any_part():
    cases = [Case(f"c{i}", f"p{i}", (Path("x"),), None, f"class {i}") for i in range(30)]
    cohort = _cohort(cases, tuple(f"class {i}" for i in range(30)))
    tests = [_patients(split_cohort(cohort, DataConfig(split_seed=seed)).test) for seed in range(2)]
    assert [len(test) for test in tests] == [9, 9]
    assert tests[0] != tests[1]


def test_a_share_of_0_is_empty_and_a_small_one_is_not():
    split = split_cohort(_labelled(10), DataConfig(validation=0, test=0.01))
    assert (len(_patients(split.validation)), len(_patients(split.test))) == (0, 1)


def test_one_patient_trains():
    assert len(split_cohort(_labelled(2), DataConfig()).training) == 2


def test_given_splits_win_and_the_rest_trains():
    cases = [
        Case("a", "p", (Path("a"),), LABEL, None, "test"),
        Case("b", "p", (Path("b"),), LABEL),
        Case("c", "q", (Path("c"),), LABEL),
        Case("d", "r", (Path("d"),), LABEL, None, "validation"),
    ]
    split = split_cohort(_cohort(cases), DataConfig())
    assert [[case.case_id for case in part] for part in (split.training, split.validation, split.test)] == [
        ["c"],
        ["d"],
        ["a", "b"],
    ]


def test_a_patient_in_two_given_splits_is_refused():
    cases = [Case("a", "p", (Path("a"),), split="test"), Case("b", "p", (Path("b"),), split="training")]
    with pytest.raises(InputFault, match="PATIENT_IN_TWO_SPLITS: the patient p is in test and in training"):
        split_cohort(_cohort(cases), DataConfig())


def test_a_cohort_without_training_cases_is_refused():
    with pytest.raises(InputFault, match="NO_TRAINING_CASES"):
        split_cohort(_cohort([Case("a", "p", (Path("a"),), split="test")]), DataConfig())


def test_patients_without_annotation_train():
    cases = [Case(f"c{i}", f"p{i}", (Path("x"),), LABEL if i < 10 else None) for i in range(60)]
    split = split_cohort(_cohort(cases), DataConfig(validation=0.2, test=0.3))
    assert [len(part) for part in (split.training, split.validation, split.test)] == [55, 2, 3]
    assert all(case.label for case in split.validation + split.test)


def test_a_cohort_without_any_annotation_is_split_by_its_shares():
    split = split_cohort(_cohort([Case(f"c{i}", f"p{i}", (Path("x"),)) for i in range(20)]), DataConfig())
    assert [len(part) for part in (split.training, split.validation, split.test)] == [11, 3, 6]


def test_all_but_the_labelled_training_cases_lose_label_and_class():
    split = split_cohort(_classed(60, 40), DataConfig(labelled=10, validation=0.2, test=0.2))
    kept = Counter(case.class_name for case in split.training)
    assert kept == {"a": 6, "b": 4, None: 50}
    assert all(case.class_name for case in split.validation + split.test)


def test_labelled_counts_label_maps_where_there_are_no_classes():
    split = split_cohort(_labelled(40), DataConfig(labelled=5))
    assert sum(case.label is not None for case in split.training) == 5
    assert all(case.label for case in split.test)


def test_fewer_labelled_cases_are_among_more_and_the_parts_stay():
    few, more = (split_cohort(_labelled(40), DataConfig(labelled=n)) for n in (4, 8))
    chosen = [{case.case_id for case in split.training if case.label} for split in (few, more)]
    assert chosen[0] < chosen[1]
    assert few.digest == more.digest


def test_another_draw_labels_other_cases_and_moves_nobody():
    draws = [split_cohort(_labelled(40), DataConfig(labelled=4), draw) for draw in range(6)]
    chosen = [frozenset(case.case_id for case in split.training if case.label) for split in draws]
    assert {len(cases) for cases in chosen} == {4}
    assert len(set(chosen)) > 3
    assert {split.digest for split in draws} == {draws[0].digest}
    assert draws[0] == split_cohort(_labelled(40), DataConfig(labelled=4))


def test_more_labelled_cases_than_there_are_is_refused():
    with pytest.raises(InputFault, match=r"TOO_FEW_LABELLED: data\.labelled is 100"):
        split_cohort(_labelled(10), DataConfig(labelled=100))


def test_the_content_hash_follows_the_bytes_not_the_names(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (content_hash(Case(name, name, (tmp_path / name,))) for name in "abc")
    assert a == b != c
    assert content_hash(Case("a", "a", (tmp_path / "a",), tmp_path / "c")) == a


def test_the_content_hash_of_a_folder_covers_its_files(tmp_path):
    (tmp_path / "1.dcm").write_bytes(b"1")
    before = content_hash(Case("a", "a", (tmp_path,)))
    (tmp_path / "2.dcm").write_bytes(b"2")
    assert content_hash(Case("a", "a", (tmp_path,))) != before
    with pytest.raises(InputFault, match="UNREADABLE"):
        content_hash(Case("a", "a", (tmp_path / "gone",)))


def test_a_given_split_can_be_set_aside():
    cohort = _cohort([Case(f"c{i}", f"p{i}", (Path(f"{i}.nii"),), LABEL, None, "training") for i in range(20)])
    assert split_cohort(cohort, DataConfig()).test == ()
    assert len(split_cohort(cohort, DataConfig(given_split=False)).test) == 6


def test_folds_test_every_patient_once_in_a_repeat_and_anew_in_the_next():
    cohort = _classed(11, 12)
    first = [{c.patient_id for c in split_cohort(cohort, DataConfig(folds=5, fold=k)).test} for k in range(5)]
    assert sorted(patient for fold in first for patient in fold) == sorted(c.patient_id for c in cohort.cases)
    assert {len(fold) for fold in first} <= {4, 5}
    second = [{c.patient_id for c in split_cohort(cohort, DataConfig(folds=5, fold=k)).test} for k in range(5, 10)]
    assert sum(map(len, second)) == 23
    assert second != first


def test_folds_keep_patients_apart_and_share_out_the_classes():
    cohort = _classed(20, 20)
    for k in range(4):
        split = split_cohort(cohort, DataConfig(folds=4, fold=k, validation=0.2))
        parts = [{c.patient_id for c in part} for part in (split.training, split.validation, split.test)]
        assert len(set.union(*parts)) == sum(map(len, parts)) == 40
        assert len(parts[1]) == 6
        assert Counter(c.class_name for c in split.test) == {"a": 5, "b": 5}


def test_more_folds_than_patients_are_refused():
    with pytest.raises(InputFault, match="TOO_FEW_PATIENTS"):
        split_cohort(_classed(2, 1), DataConfig(folds=5))
