"""``medgan demo``: the main job on a cohort that any machine can build."""
