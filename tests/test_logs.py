from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from medgan.logs import configure


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("medgan")
    handlers, level, own_level = root.handlers[:], root.level, own.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    own.setLevel(own_level)


@pytest.mark.parametrize(("verbosity", "said"), [(-1, "e"), (0, "we"), (1, "iwe"), (2, "diwe"), (9, "diwe")])
def test_quiet_by_default_and_more_on_request(verbosity: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure(verbosity)
    logger = logging.getLogger("medgan.test")
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)(name)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "".join(line.split(": ")[1][0] for line in captured.err.splitlines()) == said


def test_a_record_as_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure(0, as_json=True)
    try:
        raise ValueError("secret")
    except ValueError:
        logging.getLogger("medgan.test").exception("two\nlines %d", 5)
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("ERROR", "medgan.test", "two\nlines 5")
    assert entry["error"] == "ValueError"
