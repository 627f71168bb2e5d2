import unicodedata
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from flataudit.report.escaping import html_text, markdown_text, terminal_text, visible, xml_text

ANY_TEXT = st.text(st.characters(codec=None))


@given(ANY_TEXT)
def test_nothing_invisible_remains(text: str) -> None:
    for character in terminal_text(text):
        assert unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@given(ANY_TEXT)
def test_any_text_makes_well_formed_xml_and_returns_from_it(text: str) -> None:
    element = ET.Element("a", {"b": xml_text(text)})
    element.text = xml_text(text)
    again = ET.fromstring(ET.tostring(element, encoding="unicode"))
    assert again.get("b") == xml_text(text) and (again.text or "") == xml_text(text)


@given(ANY_TEXT)
def test_html_text_holds_no_markup(text: str) -> None:
    escaped = html_text(text)
    assert not set(escaped) & set("<>\"'")
    assert ET.fromstring(f"<p>{escaped}</p>".replace("&#x27;", "'")) is not None


def test_ordinary_text_stays_as_it_is() -> None:
    assert visible("SAM ρ=0.05, größer – 模型 ✓ 😀") == "SAM ρ=0.05, größer – 模型 ✓ 😀"


def test_bidirectional_and_zero_width_characters_are_named() -> None:
    for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200B, 0x200D, 0xFEFF, 0xAD):
        assert visible(chr(code)) in (f"\\u{code:04x}", f"\\x{code:02x}")
    assert visible("\U000e0041\ud800\x9b") == r"\U000e0041\ud800\x9b"


def test_markdown_keeps_a_cell_a_cell() -> None:
    escaped = markdown_text("a|b\nc | [x](http://evil) `code` @team www.evil.com *b* __i__ snake_case: ok")
    assert escaped.replace(r"\|", "").count("|") == 0
    assert "\n" not in escaped and "http\\://" in escaped and r"\[x]" in escaped
    assert "snake_case: ok" in escaped and "@team" not in escaped and "www.evil" not in escaped
    assert r"\`code\`" in escaped and r"\*b\*" in escaped and r"\_\_i\_\_" in escaped
