from __future__ import annotations

import json
import signal

from test_faults_at_work import SLOW, config_file, start  # noqa: F401


def test_27_a_signal_saves_the_step_it_came_in(config_file, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    process = start("train", config_file, "training.steps=50", "training.state_every=100", "--output", run, script=SLOW)
    while "step 3" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 143, err
    latest = sorted((run / "training_state").iterdir())[-1]
    assert json.loads((latest / "state.json").read_text())["step"] == 4
