"""Work in a fork of this process, so that starting it takes no time."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable


def forked(work: Callable[[], object]) -> int:
    """Do ``work`` in a child; return its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def finished(child: int) -> bool:
    """Wait for a child; return whether it came to its end."""
    return os.waitpid(child, 0)[1] == 0
