from __future__ import annotations

import os
import signal
import time

import pytest

from medgan.interrupts import Interrupted, saving


def kill_self(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_noted_and_the_exit_code_is_its_own(number: int, code: int) -> None:
    with saving() as interrupts:
        interrupts.leave()
        assert not interrupts.asked()
        kill_self(number)
        assert interrupts.asked()
        with pytest.raises(Interrupted) as caught:
            interrupts.leave()
    assert caught.value.exit_code == code


def test_a_second_signal_ends_the_work_at_once() -> None:
    with saving():
        kill_self(signal.SIGTERM)
        with pytest.raises(Interrupted):
            kill_self(signal.SIGINT)


def test_work_that_does_not_ask_in_time_is_ended() -> None:
    with saving(patience=0.05):
        kill_self(signal.SIGTERM)
        with pytest.raises(Interrupted) as caught:
            time.sleep(5)
    assert caught.value.exit_code == 143


def test_the_handlers_before_are_the_handlers_after() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with saving():
        pass
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
