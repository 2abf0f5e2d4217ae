"""Another site's cohort, on which the models of a study are tested as well."""

from __future__ import annotations

from medgan.comparison.scoring import Task
from medgan.config import Config
from medgan.data.cohort import Case, Cohort, read_cohort
from medgan.errors import InputFault


def read_external(config: Config, cohort: Cohort, task: Task) -> tuple[Cohort, list[Case]] | None:
    """Return the other site's cohort and those of its cases that can be tested on; ``None`` where there is none.

    Args:
        config: of the study.
        cohort: its own.
        task: of its models.

    Raises:
        InputFault: the other cohort is at fault, has other channels, or no case with an annotation.
    """
    site = config.compare.test
    if site is None:
        return None
    external = read_cohort(
        site.root,
        class_key=site.class_key or config.data.class_key,
        classes=cohort.class_names,
        labels=dict(cohort.label_names),
        class_optional=True,
    )
    if external.channels != cohort.channels:
        reason = f"{external.channels} channels, the study's cohort has {cohort.channels}"
        raise InputFault(external.source, "CHANNELS", reason, "give volumes of the same channels")
    cases = [case for case in external.cases if task.is_usable(case)]
    if not cases:
        need = "label map" if task.kind == "segmentation" else "class"
        raise InputFault(
            external.source, "NO_TEST", f"no case has a {need}", "annotate cases, or leave compare.test out"
        )
    return external, cases
