"""The report in a real browser, offline: nothing runs, nothing is fetched, nothing overflows."""

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from flataudit.report.html import HtmlReport

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on the path: the report was not opened in a browser")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where screenshots go."""
    chosen = Path(os.environ.get("FLATAUDIT_SCREENSHOTS") or tmp_path)
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


@pytest.fixture
def report(tmp_path: Path, audits: ModuleType) -> str:
    path = tmp_path / "report.html"
    path.write_text(HtmlReport().render(*audits.rich_gate()), encoding="utf-8")
    return path.as_uri()


def opened(browser: "Browser", address: str, *, width: int = 1280, scheme: str = "light") -> tuple["Page", list[str]]:
    """The page, and everything that should not have happened."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: request.url == address or wrong.append(f"request: {request.url}"))
    page.goto(address, wait_until="networkidle")
    return page, wrong


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_offline_and_nothing_else_happens(browser: "Browser", report: str, shots: Path, scheme: str) -> None:
    page, wrong = opened(browser, report, scheme=scheme)
    page.screenshot(path=shots / f"report-{scheme}.png", full_page=True)
    assert wrong == []
    levels = page.eval_on_selector_all("h1,h2,h3,h4,h5,h6", "found => found.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert page.eval_on_selector("body", "body => getComputedStyle(body).maxWidth") == "none", "the style applies"
    assert page.eval_on_selector("h1", "h => getComputedStyle(h).fontWeight") == "600", "the style applies"
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_its_ground(browser: "Browser", report: str, scheme: str) -> None:
    """WCAG 2.2 AA: 4.5 to 1 for every text of the page, figures included."""
    page, _ = opened(browser, report, scheme=scheme)
    worst = page.evaluate(CONTRAST)
    assert worst["ratio"] >= 4.5, worst
    page.close()


def test_it_fits_a_telephone(browser: "Browser", report: str, shots: Path) -> None:
    page, wrong = opened(browser, report, width=320)
    page.screenshot(path=shots / "report-320.png", full_page=True)
    assert wrong == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 320, "only tables scroll sideways"
    page.close()


def test_the_keyboard_reaches_the_content_first(browser: "Browser", report: str) -> None:
    page, _ = opened(browser, report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is visible"
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    page.close()


def test_it_prints(browser: "Browser", report: str, shots: Path) -> None:
    page, _ = opened(browser, report, scheme="dark")
    page.emulate_media(media="print")
    assert page.eval_on_selector("body", "body => getComputedStyle(body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf(path=shots / "report.pdf", format="A4", margin={"top": "15mm", "left": "15mm"}).startswith(b"%PDF")
    page.close()


def test_a_hostile_label_does_no_harm(browser: "Browser", tmp_path: Path, audits: ModuleType) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(HtmlReport().render(*audits.everything()["hostile label"]), encoding="utf-8")
    page, wrong = opened(browser, path.as_uri(), width=320)
    assert wrong == [] and page.locator("script").count() == 0 and page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.close()


CONTRAST = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const part = v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const ground = parse(getComputedStyle(document.body).backgroundColor);
  let worst = {ratio: 99};
  for (const element of document.querySelectorAll('body *:not(.skip)')) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || ['TITLE', 'title', 'desc', 'STYLE'].includes(element.tagName)) continue;
    const style = getComputedStyle(element), svg = element instanceof SVGElement;
    const a = light(parse(svg ? style.fill : style.color)), b = light(ground);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst.ratio) worst = {ratio, text: element.textContent.slice(0, 60), tag: element.tagName};
  }
  return worst;
}"""
