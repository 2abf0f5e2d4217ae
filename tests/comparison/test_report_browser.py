"""The report in a real browser, without a network."""

from __future__ import annotations

from typing import Any

import pytest
from finished_studies import Recipe, write_study

from medgan.comparison.report import write_report

# Least contrast of the texts that are shown, and the text that has it (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let least = [99, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest("script, style")) continue;
    let behind = element;
    const colourOf = (e) => channels(getComputedStyle(e).backgroundColor);
    while (behind && (colourOf(behind)[3] ?? 1) === 0) behind = behind.parentElement;
    const pair = [channels(getComputedStyle(element).color), behind ? colourOf(behind) : [255, 255, 255]]
      .map(luminance);
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < least[0]) least = [ratio, node.data.trim()];
  }
  return least;
}"""


@pytest.fixture(scope="module")
def visit(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The opened page, what it asked for and what it complained of."""
    recipe = Recipe(labelled=(8, 0), seeds=6, external=True, failed=True, name="A study of " + "long-named-arms" * 6)
    path = write_report(write_study(tmp_path_factory.mktemp("study"), recipe))
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    return {"page": page, "asked": asked, "complaints": complaints, "path": path}


def test_page_asks_for_nothing_but_itself_and_does_not_complain(visit: dict[str, Any]) -> None:
    own = visit["path"].as_uri()
    assert [url for url in visit["asked"] if url != own and not url.startswith("data:")] == []
    assert visit["complaints"] == []


@pytest.mark.parametrize("width", [390, 1440])
def test_page_never_scrolls_sideways(visit: dict[str, Any], width: int) -> None:
    visit["page"].set_viewport_size({"width": width, "height": 900})
    assert visit["page"].evaluate("document.documentElement.scrollWidth") == width


def test_a_telephone_shows_whole_captions_and_the_checklist_without_pushing(visit: dict[str, Any]) -> None:
    page = visit["page"]
    page.set_viewport_size({"width": 390, "height": 900})
    wide = (
        "[...document.querySelectorAll('caption')].filter((c) => c.getBoundingClientRect().width > innerWidth).length"
    )
    assert page.evaluate(wide) == 0
    assert page.locator(".scroll:has(.claim)").evaluate("(box) => box.scrollWidth <= box.clientWidth + 1")


def test_panels_of_volumes_fill_the_page(visit: dict[str, Any]) -> None:
    page = visit["page"]
    page.set_viewport_size({"width": 1440, "height": 900})
    least = "(v) => Math.min(...[...v.querySelectorAll('.panels svg')].map((s) => s.getBoundingClientRect().width))"
    assert page.locator("#failure-case0").evaluate(least) >= 170


def test_text_is_legible(visit: dict[str, Any]) -> None:
    ratio, text = visit["page"].evaluate(CONTRAST)
    assert ratio >= 4.5, text


def test_pictures_are_described(visit: dict[str, Any]) -> None:
    page = visit["page"]
    assert page.locator("img").count() > 0
    assert page.evaluate("[...document.images].every((i) => i.alt.trim().length > 40 && i.naturalWidth > 0)")
    bare = "svg:not([aria-hidden=true]):not([role=img][aria-label])"
    assert page.locator(bare).count() == 0


def test_page_has_landmarks_and_a_language(visit: dict[str, Any]) -> None:
    page = visit["page"]
    assert page.get_attribute("html", "lang") == "en"
    assert [page.locator(tag).count() for tag in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]


def test_first_tab_leads_to_the_skip_link(visit: dict[str, Any]) -> None:
    page = visit["page"]
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.keyboard.press("Tab")
    link = page.locator(":focus")
    assert link.inner_text() == "Skip to the verdict"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "verdict"


def test_wide_tables_can_be_scrolled_with_the_keyboard(visit: dict[str, Any]) -> None:
    unreachable = "[...document.querySelectorAll('.scroll')].filter((r) => r.tabIndex !== 0 || !r.ariaLabel).length"
    assert visit["page"].evaluate(unreachable) == 0


def test_arrow_keys_turn_the_slices_of_all_panels(visit: dict[str, Any]) -> None:
    page = visit["page"]
    viewer = page.locator("#failure-case0")
    boxes = "(v) => [...v.querySelectorAll('.panels svg')].map((s) => s.getAttribute('viewBox'))"
    before = viewer.evaluate(boxes)
    slice_range = viewer.get_by_label("Slice")
    slice_range.focus()
    at = int(slice_range.input_value())
    page.keyboard.press("ArrowRight")
    after = viewer.evaluate(boxes)
    assert int(slice_range.input_value()) == at + 1
    assert len(set(before)) == len(set(after)) == 1
    assert before[0] != after[0]
    assert slice_range.get_attribute("aria-valuetext") == f"slice {at + 2} of 32"
    page.keyboard.press("Home")
    assert viewer.locator("output").inner_text() == "1 of 32"


def test_wheel_turns_slices_only_after_a_picture_was_chosen(visit: dict[str, Any]) -> None:
    from playwright.sync_api import expect

    page = visit["page"]
    viewer = page.locator("#siblings-source0")
    picture = viewer.locator(".panels svg").first
    page.evaluate("document.activeElement.blur()")
    picture.scroll_into_view_if_needed()
    picture.hover()
    before = viewer.locator("output").inner_text()
    page.mouse.wheel(0, 1)
    assert viewer.locator("output").inner_text() == before
    picture.click()
    page.mouse.wheel(0, 1)
    expect(viewer.locator("output")).not_to_have_text(before)


def test_outlines_can_be_switched_off(visit: dict[str, Any]) -> None:
    viewer = visit["page"].locator("#failure-case1")
    outline = viewer.locator("use.outline").first
    assert outline.is_visible()
    viewer.get_by_role("checkbox", name="outlines").uncheck()
    assert not outline.is_visible()


def test_methods_can_be_copied(visit: dict[str, Any]) -> None:
    from playwright.sync_api import expect

    page = visit["page"]
    page.get_by_role("button", name="Copy the methods").click()
    expect(page.locator("#copy-status")).not_to_be_empty()


def test_page_without_scripts_shows_a_slice_and_no_dead_controls(browser: Any, visit: dict[str, Any]) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(visit["path"].as_uri())
    assert page.locator("#failure-case0 .panels svg").first.is_visible()
    assert not page.locator("#failure-case0 input[type=range]").is_visible()
    assert not page.locator("button[data-copy]").is_visible()
    page.close()
