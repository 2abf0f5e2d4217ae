from __future__ import annotations

from medgan.errors import InputFault


def test_a_fault_is_one_printable_line() -> None:
    line = str(InputFault("a\x1b[31m", "CODE", "two\nlines\x9b and \udcff", "mend\x00 it"))
    assert line.isprintable()
    assert line == "a\\x1b[31m: CODE: two lines\\x9b and \\udcff, mend\\x00 it"
