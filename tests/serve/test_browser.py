"""The page in a real browser: photos in by every way, answers out, without a mouse, in the dark."""

import base64
import dataclasses
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from fashion_keras.serve.batching import ModelQueue
from fashion_keras.serve.limits import Limits
from fashion_keras.serve.served import Served
from tests.serve.running import LABELS, Running, photo, running

CHROMIUM = os.environ.get("FASHION_KERAS_BROWSER") or shutil.which("chromium")
QUIET = [
    "--no-sandbox",  # Tests may run as root in a container.
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs a browser: apt install chromium, or name one in "
    "FASHION_KERAS_BROWSER"
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)


@pytest.fixture
def service(served: Served) -> Iterator[Running]:
    """Answer with the last class for certain, and with even odds for dark photos."""

    def predict(pixels: np.ndarray) -> np.ndarray:
        dark = pixels.mean(axis=(1, 2, 3)) < 80
        return np.where(dark[:, None], [0.3, 0.3, 0.4], [0.0, 0.004, 0.996]).astype("float32")

    served.queue.close()
    sure = dataclasses.replace(served, queue=ModelQueue(predict, [1, 2]))
    with running(sure, Limits(photo_bytes=200_000), threshold=0.5) as one:
        yield one


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context() as one:
        yield one


def opened(context: BrowserContext, service: Running) -> Page:
    page = context.new_page()
    page.on("filechooser", lambda chooser: None)  # From the first key on, no dialog of the system.
    page.goto(f"http://127.0.0.1:{service.port}/")
    expect(page.locator("#model")).to_have_text(f"Tells apart: {', '.join(LABELS)}.")
    return page


@pytest.fixture
def page(context: BrowserContext, service: Running) -> Page:
    return opened(context, service)


def upload(name: str, content: bytes) -> Any:
    return {"name": name, "mimeType": "image/jpeg", "buffer": content}


def test_several_photos_are_chosen_and_a_bad_one_says_why(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose photos").click()
    bad = upload("<b>bad.jpg", b"no photo")
    chooser.value.set_files([upload("a.jpg", photo()), bad, upload("dark.jpg", photo(0))])
    expect(page.locator("#state")).to_have_text("3 photos done, 1 without an answer")
    first, second, third = page.locator("li.photo").all()
    expect(first.locator(".category")).to_have_text("sock")
    expect(first.locator(".guesses li")).to_have_text(
        ["sockover 99 %", "hatunder 1 %", "capunder 1 %"]
    )
    expect(second.locator(".file")).to_have_text("<b>bad.jpg")
    expect(second.locator(".reason")).to_contain_text("Cannot be read: not a photo")
    expect(second.get_by_text("no preview")).to_be_visible()
    expect(third.locator(".category")).to_have_text("not sure")
    expect(third.locator(".guesses li").first).to_have_text("sock40 %")
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {
        page.url.split("/")[2]
    }


def data_transfer(page: Page, name: str, content: bytes) -> object:
    """Return what a browser hands over with dropped or pasted files."""
    script = """([name, text]) => {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        const carried = new DataTransfer();
        carried.items.add(new File([bytes], name, { type: "image/jpeg" }));
        return carried;
    }"""
    return page.evaluate_handle(script, [name, base64.b64encode(content).decode()])


def test_photos_are_dropped_and_pasted(page: Page) -> None:
    dropped = data_transfer(page, "dropped.jpg", photo())
    page.dispatch_event("#drop", "dragover", {"dataTransfer": dropped})
    expect(page.locator("#drop")).to_have_class("over")
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    expect(page.locator("#drop")).not_to_have_class("over")
    pasted = data_transfer(page, "pasted.jpg", photo())
    page.evaluate(
        """(carried) => document.body.dispatchEvent(
            new ClipboardEvent("paste", { clipboardData: carried, bubbles: true }))""",
        pasted,
    )
    expect(page.locator("#state")).to_have_text("2 photos done")
    expect(page.locator(".file")).to_have_text(["dropped.jpg", "pasted.jpg"])


def test_a_phone_offers_its_camera(page: Page) -> None:
    camera = page.locator("#camera")
    assert camera.get_attribute("capture") == "environment"
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take a photo").click()
    chooser.value.set_files(upload("image.jpg", photo()))
    expect(page.locator("li.photo .category")).to_have_text("sock")


def test_a_photo_that_is_too_large_is_not_even_sent(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    page.set_input_files("#files", upload("huge.jpg", b"x" * 300_000))
    expect(page.locator(".reason")).to_contain_text("larger than")
    assert "POST" not in asked


def test_it_explains_and_hides_the_explanation(page: Page) -> None:
    page.set_input_files("#files", upload("a.jpg", photo()))
    why = page.get_by_role("button", name="Why?")
    why.click()
    expect(page.get_by_role("img", name="what speaks for sock")).to_be_visible()
    expect(why).to_have_attribute("aria-expanded", "true")
    expect(why).to_be_focused()
    expect(page.locator("figcaption")).to_contain_text("speaks for sock (Grad-CAM)")
    why.click()
    expect(page.locator(".explained")).to_be_hidden()
    expect(why).to_have_attribute("aria-expanded", "false")


def test_everything_can_be_done_from_the_keyboard(page: Page) -> None:
    names = []
    for _ in range(2):
        page.keyboard.press("Tab")
        names.append(page.locator(":focus").inner_text())
    assert names == ["Choose photos", "Take a photo"]
    page.keyboard.press("Shift+Tab")
    expect(page.locator(":focus")).to_have_text("Choose photos")
    with page.expect_file_chooser(timeout=5000) as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(upload("a.jpg", photo()))
    expect(page.locator("#state")).to_have_text("1 photo done")
    for name in ("Take a photo", "Clear all", "Why?", "Interface for programs"):
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text(name)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    expect(page.locator("li.photo")).to_have_count(0)
    expect(page.get_by_role("button", name="Choose photos")).to_be_focused()


def test_a_service_that_is_gone_is_said_and_tried_again(page: Page) -> None:
    broken = threading.Event()
    broken.set()
    page.route("**/predict", lambda route: route.abort() if broken.is_set() else route.continue_())
    page.set_input_files("#files", upload("a.jpg", photo()))
    expect(page.locator(".reason")).to_contain_text("does not answer")
    broken.clear()
    expect(page.locator("#state")).to_have_text("1 photo done, 1 without an answer")
    again = page.get_by_role("button", name="Try again")
    again.click()
    expect(again).to_be_hidden()
    expect(page.locator("li.photo")).to_be_focused()
    expect(page.locator("li.photo .category")).to_have_text("sock")
    expect(page.locator("#state")).to_have_text("1 photo done")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 375, 1280])
def test_nothing_sticks_out_and_all_can_be_read(
    browser: Browser, service: Running, width: int, scheme: str
) -> None:
    size = {"width": width, "height": 800}
    with browser.new_context(viewport=size, color_scheme=scheme) as context:  # type: ignore[arg-type]
        page = opened(context, service)
        names = ["x" * 120 + ".jpg", "b.jpg"]
        page.set_input_files("#files", [upload(names[0], photo()), upload("b.jpg", b"no")])
        expect(page.locator("#state")).to_have_text("2 photos done, 1 without an answer")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        worst = page.evaluate(CONTRAST)
        assert worst["ratio"] >= 4.5, worst


# Of each text the contrast to what lies behind it, as WCAG 2.2 computes it; the lowest one.
CONTRAST = """() => {
  const levels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => {
    const [r, g, b] = levels(text).slice(0, 3).map((value) => value / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if ((levels(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !node.checkVisibility()) continue;
    const [one, other] = [getComputedStyle(node).color, behind(node)].map(light);
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    found.push({ ratio, text: texts.currentNode.textContent.trim() });
  }
  return found.sort((one, other) => one.ratio - other.ratio)[0];
}"""


def test_its_pictures_can_be_looked_at(page: Page, tmp_path: Path) -> None:
    page.set_input_files("#files", upload("a.jpg", photo()))
    expect(page.locator("#state")).to_have_text("1 photo done")
    image = page.locator("li.photo .picture img")
    assert image.evaluate("(one) => [one.naturalWidth, one.naturalHeight]") == [90, 90]


def test_the_description_is_shown(page: Page) -> None:
    page.get_by_role("link", name="Interface for programs").click()
    expect(page.get_by_role("button", name="POST /predict Predict")).to_be_visible()
