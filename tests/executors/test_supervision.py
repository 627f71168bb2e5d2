"""What a worker printed is quoted safely and shortly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flataudit.executors.supervision import quoted_tail


@given(st.binary(max_size=5000))
def test_a_quote_is_short_printable_and_one_line(output: bytes) -> None:
    quoted = quoted_tail(output)
    assert len(quoted) <= 302
    assert quoted.isprintable()


@pytest.mark.parametrize(
    ("output", "quoted"),
    [
        (b"", ""),
        (b" \n\t\n", ""),
        (b"Traceback\n  File\nValueError: no\n\n", "'ValueError: no'"),
        (b"loading 10%\rloading 20%\r", "'loading 20%'"),
        (b"\xff\xfe", r"'\xff\xfe'"),
        ("\u202eevil\x1b[2J\0".encode(), r"'\u202eevil\x1b[2J\x00'"),
        (b"x" * 2**20, "'…" + "x" * 299 + "'"),
        (b"\0" * 400, "'…" + (r"\x00" * 75)[1:] + "'"),
    ],
)
def test_the_last_line_is_quoted(output: bytes, quoted: str) -> None:
    assert quoted_tail(output) == quoted
