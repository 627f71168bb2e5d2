"""The one place that makes untrusted text harmless, for each format that a person reads.

Names, tags and messages come from whoever can register a model. Markup is what a format gives meaning to, and is
escaped per format. Characters that no reader can see (escape sequences, bidirectional overrides, zero-width
characters) can forge a line or hide one, in every format alike: they are always shown as visible escapes.
"""

import html
import re
import unicodedata

__all__ = ["html_text", "markdown_text", "terminal_text", "visible", "xml_text"]

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_MARKDOWN = re.compile(r"[\\`*\[|~#$]|(?<![^\W_])_|_(?![^\W_])|:(?=\S)")
"""Underscores within a word and colons before a space mean nothing, and stay readable."""


def visible(text: str) -> str:
    r"""The text with everything invisible shown as an escape: controls, bidi, zero width, surrogates.

    >>> visible("v8\x1b[2K\u202egnp\n")
    'v8\\x1b[2K\\u202egnp\\n'
    """
    return "".join(_escaped(character) if _invisible(character) else character for character in text)


terminal_text = visible
"""Text for a terminal; newlines are shown too, since a name has none."""


def html_text(text: str) -> str:
    """Text for an HTML or SVG element, or a quoted attribute.

    >>> html_text('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(visible(text), quote=True)


def xml_text(text: str) -> str:
    r"""Text that any XML 1.0 document may hold; the writer escapes the markup itself.

    >>> xml_text("a\x00<b>\ufffe")
    'a\\x00<b>\\ufffe'
    """
    return visible(text)


def markdown_text(text: str) -> str:
    r"""Text for a table cell or a sentence of GitHub Markdown: no markup, links, mentions or mathematics.

    >>> markdown_text("a|b `c` <script> @team $x$")
    'a\\|b \\`c\\` &lt;script&gt; @&#8203;team \\$x\\$'
    """
    plain = html.escape(visible(text), quote=False)
    escaped = _MARKDOWN.sub(r"\\\g<0>", plain)
    return re.sub(r"(?i)www\.", lambda found: found[0][:3] + r"\.", escaped).replace("@", "@&#8203;")


def _invisible(character: str) -> bool:
    code = ord(character)
    if code < 0x7F:
        return code < 0x20
    noncharacter = (code & 0xFFFE) == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return noncharacter or unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def _escaped(character: str) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
