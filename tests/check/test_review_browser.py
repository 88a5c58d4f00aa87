"""The page of the review in a browser: mouse, keyboard, reloading, small screens, dark mode."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from fashion_keras.check.review import Review
from fashion_keras.check.review_server import ReviewServer
from tests.check.test_review import HEAD, review, server, text_of  # noqa: F401
from tests.serve.test_browser import CONTRAST, SKIPPED, browser  # noqa: F401

pytestmark = [pytest.mark.browser, SKIPPED]


@pytest.fixture
def page(browser: Browser, server: ReviewServer) -> Iterator[Page]:  # noqa: F811
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(server.address)
        expect(page.locator("#state")).to_have_text("Photo 1 of 3; 0 of 3 reviewed")
        yield page


def test_photos_are_kept_moved_and_dropped_by_mouse(page: Page, review: Review) -> None:  # noqa: F811
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.reload()
    expect(page.locator("#name")).to_have_text("hat/a.png")
    expect(page.locator("#reasons")).to_have_text("odd")
    expect(page.locator("#twins button")).to_have_text(["dress/c.png"])
    page.get_by_role("button", name="Move to shoes S").click()
    expect(page.locator("#name")).to_have_text("hat/ü, b.jpg")
    image = page.get_by_role("img", name="hat/ü, b.jpg, in class hat")
    assert image.evaluate("(one) => one.decode().then(() => one.naturalWidth)") == 131
    page.get_by_role("button", name="Drop D").click()
    expect(page.locator("#name")).to_have_text("dress/c.png")
    page.get_by_role("button", name="Keep K").click()
    expect(page.get_by_role("heading", name="All reviewed")).to_be_visible()
    expect(page.locator("#command")).to_have_text("python -m tuning.search")
    rows = 'hat/a.png,move,shoes\r\n"hat/ü, b.jpg",drop,\r\ndress/c.png,keep,\r\n'
    assert text_of(review) == HEAD + rows
    expect(page.locator("#all .badge")).to_have_text(["move to shoes", "drop", "keep"])
    page.locator("#all button").first.click()
    page.get_by_role("button", name="dress 1").click()  # Another decision on the same photo.
    expect(page.locator("#decision")).to_have_text("move to dress")
    hosts = {address.split("/")[2] for address in addresses if address.startswith("http")}
    assert hosts == {page.url.split("/")[2]}


def test_everything_can_be_done_from_the_keyboard(page: Page, review: Review) -> None:  # noqa: F811
    state = page.locator("#state")
    for keys in ("kds", "3"):  # Nothing is suggested for the last photo.
        page.keyboard.type(keys)
    expect(state).to_have_text("Photo 3 of 3; 3 of 3 reviewed")
    rows = 'hat/a.png,keep,\r\n"hat/ü, b.jpg",drop,\r\ndress/c.png,move,shoes\r\n'
    assert text_of(review) == HEAD + rows
    page.keyboard.type("uu")
    expect(state).to_have_text("Photo 2 of 3; 1 of 3 reviewed")
    page.reload()  # It goes on at the first photo without a decision, and can still be undone.
    expect(state).to_have_text("Photo 2 of 3; 1 of 3 reviewed")
    page.keyboard.press("m")
    expect(page.get_by_label("Type a class M")).to_be_focused()
    page.keyboard.type("D")
    page.keyboard.press("Enter")
    expect(state).to_have_text("Photo 3 of 3; 2 of 3 reviewed")
    assert text_of(review).endswith('"hat/ü, b.jpg",move,dress\r\n')
    page.keyboard.press("ArrowLeft")
    expect(state).to_have_text("Photo 2 of 3; 2 of 3 reviewed")
    page.keyboard.press("n")
    expect(state).to_have_text("Photo 3 of 3; 2 of 3 reviewed")
    page.keyboard.type("uu")
    expect(state).to_have_text("Photo 1 of 3; 0 of 3 reviewed")
    page.get_by_role("checkbox").uncheck()
    page.keyboard.type("k")
    page.keyboard.press("Shift+Tab")
    expect(page.locator(":focus")).to_have_text("dress/c.png")
    page.keyboard.press("Enter")
    expect(state).to_have_text("Photo 3 of 3; 0 of 3 reviewed")


def test_what_is_not_saved_is_said_and_not_shown_as_decided(page: Page) -> None:
    page.route("**/decide", lambda route: route.abort())
    page.keyboard.type("k")
    expect(page.get_by_role("alert")).to_contain_text("Not saved: the command has ended.")
    expect(page.locator("#state")).to_have_text("Photo 1 of 3; 0 of 3 reviewed")
    page.unroute("**/decide")
    page.keyboard.type("2")
    expect(page.get_by_role("alert")).to_have_text("It is in hat already.")
    page.keyboard.type("k")
    expect(page.locator("#state")).to_have_text("Photo 2 of 3; 1 of 3 reviewed")
    expect(page.get_by_role("alert")).to_be_empty()


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (1280, "dark")])
def test_nothing_overflows_and_all_text_has_contrast(page: Page, width: int, scheme: Any) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.keyboard.type("kd3")
    expect(page.locator("#state")).to_contain_text("3 of 3 reviewed")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    worst = page.evaluate(CONTRAST)
    assert worst["ratio"] >= 4.5, worst
