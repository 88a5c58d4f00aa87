"""The page in a real browser: photos in every way, answers, keyboard, small screens, dark mode."""

import base64
import dataclasses
import os
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fashion_keras.serve.model import ServedModel
from tests.serve.running import LABELS, SETTINGS, Running, photo, running, with_predict

CHROMIUM = os.environ.get("FASHION_KERAS_BROWSER") or shutil.which("chromium")
# Tests may run as root in a container; the others keep Chromium from calling home.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
SKIPPED = pytest.mark.skipif(
    CHROMIUM is None,
    reason="needs a browser: apt install chromium, or name one in FASHION_KERAS_BROWSER",
)
pytestmark = [pytest.mark.browser, SKIPPED]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture
def service(model: ServedModel) -> Iterator[Running]:
    """Predict the last class for certain, nothing for certain on dark photos, none on bright."""

    def predict(pixels: np.ndarray) -> np.ndarray:
        light = pixels.mean(axis=(1, 2, 3))[:, None]
        rows = np.where(light < 80, [0.3, 0.3, 0.4], [0.0, 0.004, 0.996])
        return np.append(rows, np.where(light > 190, -1, 1), axis=1).astype("float32")

    known = model.classifier.metadata | {"novelty": {"threshold": 1}}
    means = np.ones((len(LABELS), 1))
    strict = dataclasses.replace(model.classifier, class_means=means, metadata=known)
    model = dataclasses.replace(model, classifier=strict)
    settings = dataclasses.replace(SETTINGS, photo_megabytes=0.2, threshold=0.5)
    with running(with_predict(model, predict), settings) as one:
        yield one


@pytest.fixture
def page(browser: Browser, service: Running) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        page.on("filechooser", lambda chooser: None)  # No dialog of the system.
        page.goto(f"http://127.0.0.1:{service.port}/")
        expect(page.locator("#model")).to_contain_text(f". Categories: {', '.join(LABELS)}.")
        yield page


def upload(name: str, content: bytes) -> Any:
    return {"name": name, "mimeType": "image/jpeg", "buffer": content}


def test_several_photos_are_chosen_and_a_bad_one_says_why(page: Page) -> None:
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose photos").click()
    bad = upload("<b>bad.jpg", b"no photo")
    huge = upload("huge.jpg", b"x" * 300_000)
    chooser.value.set_files([upload("a.jpg", photo()), bad, upload("dark.jpg", photo(0)), huge])
    expect(page.locator("#state")).to_have_text("4 photos done, 2 without an answer")
    first, second, third, fourth = page.locator("li.photo").all()
    expect(first.locator(".category")).to_have_text("sock")
    expect(first.locator(".guesses li")).to_have_text(
        ["sockover 99 %", "hatunder 1 %", "capunder 1 %"]
    )
    expect(second.locator(".file")).to_have_text("<b>bad.jpg")
    expect(second.locator(".reason")).to_contain_text("Cannot be read: not a photo")
    expect(second.get_by_text("no preview")).to_be_visible()
    expect(third.locator(".category")).to_have_text("not sure")
    expect(third.locator(".guesses li").first).to_have_text("sock40 %")
    expect(fourth.locator(".reason")).to_contain_text("larger than")
    hosts = {address.split("/")[2] for address in addresses if address.startswith("http")}
    assert hosts == {page.url.split("/")[2]}


def test_photos_are_dropped_and_pasted(page: Page) -> None:
    script = """(text) => {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        const carried = new DataTransfer();
        carried.items.add(new File([bytes], "a.jpg", { type: "image/jpeg" }));
        return carried;
    }"""
    carried = page.evaluate_handle(script, base64.b64encode(photo()).decode())
    page.dispatch_event("#drop", "dragover", {"dataTransfer": carried})
    expect(page.locator("#drop")).to_have_class("over")
    page.dispatch_event("#drop", "drop", {"dataTransfer": carried})
    expect(page.locator("#drop")).not_to_have_class("over")
    expect(page.locator("#state")).to_have_text("1 photo done")
    paste = 'new ClipboardEvent("paste", { clipboardData: carried, bubbles: true })'
    page.evaluate(f"(carried) => document.body.dispatchEvent({paste})", carried)
    expect(page.locator("#state")).to_have_text("2 photos done")
    expect(page.locator(".file")).to_have_text(["a.jpg", "a.jpg"])


def test_a_photo_of_the_camera_is_explained(page: Page) -> None:
    assert page.locator("#camera").get_attribute("capture") == "environment"
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take a photo").click()
    chooser.value.set_files(upload("image.jpg", photo()))
    expect(page.locator("li.photo .category")).to_have_text("sock")
    image = page.locator("li.photo .picture img")
    assert image.evaluate("(one) => [one.naturalWidth, one.naturalHeight]") == [90, 90]
    why = page.get_by_role("button", name="Why?")
    why.click()
    expect(page.get_by_role("img", name="Heat map over the photo: sock")).to_be_visible()
    expect(why).to_have_attribute("aria-expanded", "true")
    expect(page.locator("figcaption")).to_contain_text("contributes to sock (Grad-CAM)")
    why.click()
    expect(page.locator(".explained")).to_be_hidden()


def test_everything_can_be_done_from_the_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
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


def test_a_service_that_does_not_answer_is_tried_again(page: Page) -> None:
    page.route("**/predict", lambda route: route.abort())
    page.set_input_files("#files", upload("a.jpg", photo()))
    expect(page.locator(".reason")).to_contain_text("does not answer")
    expect(page.locator("#state")).to_have_text("1 photo done, 1 without an answer")
    page.unroute("**/predict")
    again = page.get_by_role("button", name="Try again")
    again.click()
    expect(again).to_be_hidden()
    expect(page.locator("li.photo")).to_be_focused()
    expect(page.locator("li.photo .category")).to_have_text("sock")
    expect(page.locator("#state")).to_have_text("1 photo done")


def test_none_of_these_is_shown_with_the_nearest(page: Page) -> None:
    page.set_input_files("#files", upload("bright.jpg", photo(155)))
    expect(page.locator(".category")).to_have_text("none of these; the nearest:")
    expect(page.locator(".guesses li").first).to_have_text("sockover 99 %")
    page.get_by_role("button", name="Why?").click()
    expect(page.get_by_role("img", name="Heat map over the photo: sock")).to_be_visible()


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (1280, "dark")])
def test_nothing_overflows_and_all_text_has_contrast(page: Page, width: int, scheme: Any) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    files = [upload("x" * 120 + ".jpg", photo()), upload("b.jpg", b"no")]
    page.set_input_files("#files", files)
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


def test_the_api_is_documented_offline(page: Page) -> None:
    page.get_by_role("link", name="Interface for programs").click()
    expect(page.get_by_role("button", name="POST /predict Predict")).to_be_visible()
