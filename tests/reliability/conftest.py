from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from medgan import cli

try:
    from hypothesis import settings
except ImportError:  # then test_round_trips.py is skipped by name
    pass
else:
    settings.register_profile("long", max_examples=5000, deadline=None)


@dataclass(frozen=True)
class Ended:
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str

    def require_fault(self, code: str, *words: str) -> None:
        """Exit 2 and one line, ``path: CODE: reason, and what to do``, on stderr; never a traceback."""
        assert self.code == 2, self.err
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if not line.startswith(("WARNING", "INFO"))]
        line = lines[-1]
        assert f": {code}: " in line
        assert ", " in line.split(f": {code}: ")[1]
        for word in words:
            assert word in line


Run = Callable[..., Ended]


@pytest.fixture
def medgan(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run the command line in this process, as ``medgan ARGUMENTS`` would."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root, own = logging.getLogger(), logging.getLogger("medgan")
    before = root.handlers[:], root.level, own.level
    monkeypatch.setenv("MEDGAN_QUIET", "1")

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["medgan", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])
