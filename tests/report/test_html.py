import base64
import hashlib
import itertools
import re
from html.parser import HTMLParser
from types import ModuleType

import pytest

from flataudit import archive
from flataudit.audit import AuditRecord
from flataudit.evidence import Array
from flataudit.report.html import HtmlReport

Arrays = dict[str, dict[str, Array]]
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What a browser would see: tags with attributes, in order, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "elements nest"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def of(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def page(audited: tuple[AuditRecord, Arrays]) -> Page:
    return Page(HtmlReport().render(*audited))


def test_nothing_of_a_name_becomes_markup(page: Page) -> None:
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "a",
        "div",
        "header",
        "main",
        "footer",
        "section",
        "nav",
    }
    allowed |= {
        "p",
        "span",
        "time",
        "h1",
        "h2",
        "h3",
        "ul",
        "li",
        "dl",
        "dt",
        "dd",
        "code",
        "pre",
        "figure",
        "figcaption",
    }
    allowed |= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    allowed |= {"svg", "desc", "g", "line", "polyline", "circle", "rect", "text"}
    assert {tag for tag, _ in page.tags} <= allowed
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag


def test_the_page_needs_nothing_else(page: Page) -> None:
    for tag, attributes in page.tags:
        assert not set(attributes) & {"src", "srcset", "data", "poster", "xlink:href", "action"}, tag
        assert (attributes.get("href") or "#").startswith("#"), "links stay within the page"


def test_no_invisible_character_remains(audited: tuple[AuditRecord, Arrays]) -> None:
    text = HtmlReport().render(*audited)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]", text)


def test_the_policy_allows_the_style_by_its_hash_alone(audited: tuple[AuditRecord, Arrays]) -> None:
    text = HtmlReport().render(*audited)
    style = text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy and policy[1].startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert "unsafe" not in policy[1]
    assert "url(" not in style and "@import" not in style


def test_structure_for_those_who_do_not_see_it(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert len(page.of("main")) == len(page.of("header")) == len(page.of("footer")) == 1
    assert len(page.of("caption")) == len(page.of("table"))
    assert all(cell.get("scope") in ("col", "row", "rowgroup") for cell in page.of("th"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        named = (attributes.get("aria-labelledby") or "").split()
        target = (attributes.get("href") or "").removeprefix("#")
        assert set(named) <= set(ids) and (not target or target in ids)
    assert all(svg.get("role") == "img" and svg.get("aria-labelledby") for svg in page.of("svg"))


def test_the_rich_report_tells_everything(audits: ModuleType) -> None:
    page = Page(HtmlReport().render(*audits.rich_gate()))
    words = page.words
    for told in (
        "v8 becomes champion of digits in place of v7.",
        "Promoted: the champion alias points to version 8 now.",
        "A random choice among them 0.9736",
        "About 50 labelled examples of the target distribution tell candidates apart better than any probe does.",
        "0.9738 [0.9664, 0.9812]",
        "≥ 37",
        "18 exact",
        "(error unknown)",
        "over budget",
        "raise budget.passes or budget.seconds",
        "the dtypes differ: float32 / float64",
        "No figure for v13, v14: no accuracies under corruption were recorded.",
        "non_inferiority:",
        "data only",
        "net enforced",
        "torch 2.6.0",
        "sha256:" + "0" * 63 + "8",
        audits.rich_gate()[0].policy_digest,
    ):
        assert told in words, told
    captions = {"calibration": 7, "corruption": 4, "landscape": 7, "gain": 2}
    for prefix, expected in captions.items():
        drawn = [svg for svg in page.of("svg") if (svg["aria-labelledby"] or "").startswith(prefix)]
        assert len(drawn) == expected, prefix


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("dry run", "v8 would become champion"),
        ("dry run", "the registry was only read; nothing was promoted"),
        ("before the receipt", "Written before the registry was asked"),
        ("first promotion", "v8 becomes the first champion of digits."),
        ("first promotion", "There was no champion to compare with."),
        ("no challenger", "There is no challenger to judge."),
        ("all failed", "Nothing could be measured, so nothing is decided."),
        ("all failed", "No figure for v14, v15: no calibration bins were recorded."),
        ("rejected", "every challenger is rejected"),
        ("held", "About 4,113 validation examples would settle the nearest open question (this audit had 1,797)."),
        ("score", "1 of 2 candidates of digits could be measured; nothing was decided."),
        ("audit", "It is not known whether v12 of digits satisfies 1 of its 3 limits today."),
        ("audit passed", "satisfies all its limits today"),
    ],
)
def test_every_ending_is_told(name: str, told: str, audits: ModuleType) -> None:
    assert told in Page(HtmlReport().render(*audits.everything()[name])).words


def test_arrays_of_another_shape_are_left_out(audits: ModuleType) -> None:
    record, arrays = audits.rich_gate()
    broken = {label: {name: Array.of([1.0]) for name in named} for label, named in arrays.items()}
    page = Page(HtmlReport().render(record, broken))
    assert [svg for svg in page.of("svg") if not (svg["aria-labelledby"] or "").startswith("gain")] == []


def test_the_plugin_is_installed_under_its_name(audits: ModuleType) -> None:
    suffix, text = archive.render(*audits.rich_gate(), "html")
    assert suffix == "html" and text.startswith("<!DOCTYPE html>")


def test_the_same_records_give_the_same_page(audits: ModuleType) -> None:
    assert HtmlReport().render(*audits.rich_gate()) == HtmlReport().render(*audits.rich_gate())
