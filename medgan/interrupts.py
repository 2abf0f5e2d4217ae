"""SIGINT and SIGTERM: save, say how to go on, leave within ten seconds with exit code 130 or 143.

A signal in the middle of an update would leave one network changed and the other not. So the work that has a state
asks, between two updates, whether it was :meth:`Interrupts.asked` to stop, saves and raises :class:`Interrupted`. Work
that does not ask in time is interrupted where it stands; what it saved before is whole, because every file appears
under its name only when complete.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE_SECONDS = 6.0
"""How long a state may take to be saved before the work is interrupted where it stands."""


class Interrupted(BaseException):
    """A signal ended the run; ``exit_code`` is 128 and the signal's number.

    No ``Exception``, so that nothing that catches those goes on as if nothing had happened; and no
    ``KeyboardInterrupt``, which typer would turn into a silent exit code 130.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interrupts:
    """What has been asked of this process while :func:`saving` was on."""

    def __init__(self) -> None:
        self.number: int | None = None

    def asked(self) -> bool:
        """Whether a signal has come, so that it is time to save and call :meth:`leave`."""
        return self.number is not None

    def leave(self) -> None:
        """Raise :class:`Interrupted` if a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)


def raise_on_signals() -> None:
    """Turn SIGTERM, as SIGINT, into an exception, so that temporary files are removed. Main thread only."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise)


@contextmanager
def saving(patience: float = PATIENCE_SECONDS) -> Iterator[Interrupts]:
    """While on, the first signal is noted instead of raised; a second one, or ``patience`` seconds, raises it.

    In a thread other than the main one, where Python delivers no signals, nothing changes.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return

    def note(number: int, frame: FrameType | None) -> None:
        if interrupts.number is not None:
            _raise(number, frame)
        interrupts.number = number
        signal.setitimer(signal.ITIMER_REAL, patience)

    def out_of_time(_number: int, frame: FrameType | None) -> None:
        _raise(interrupts.number or signal.SIGTERM, frame)

    watched = {signal.SIGINT: note, signal.SIGTERM: note, signal.SIGALRM: out_of_time}
    before = {number: signal.signal(number, handler) for number, handler in watched.items()}
    try:
        yield interrupts
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(number)
