"""The studio in a real Chromium: against the real HTTP application, with this process as its worker."""

import io
import re
import shutil
import threading
import time

import numpy as np
import pytest
import uvicorn
from playwright.sync_api import expect, sync_playwright

from kling.media.video import write_mp4
from kling.scene.direct import direct
from serve.media import Media

from .conftest import free_port, until
from .test_api import Api

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An application on a port of this machine, and a worker that takes its time."""
    api, port = Api(tmp_path_factory.mktemp("studio")), free_port()
    server = uvicorn.Server(uvicorn.Config(api.app, host="127.0.0.1", port=port, log_level="error"))
    threads = [threading.Thread(target=server.run), threading.Thread(target=_work, args=(api, server))]
    for thread in threads:
        thread.start()
    while not server.started:
        time.sleep(0.05)
    yield api, f"http://127.0.0.1:{port}"
    server.should_exit = True
    for thread in threads:
        thread.join()


def _work(api: Api, server: uvicorn.Server) -> None:
    """Claim, make frames one by one, finish: what a replica does, with pictures made of noise."""
    noise = np.random.default_rng(0).integers(0, 255, (17, 64, 64, 3), dtype=np.uint8)
    while not server.should_exit:
        api.desk.store.report_worker("w", status="ready")
        claim = api.desk.store.claim("w")
        if claim is None:
            time.sleep(0.05)
            continue
        media = Media(api.desk.settings.state, claim.id)
        media.save_plan(direct("a red ball rolls", duration_s=2.0).plan.model_dump_json())
        for index in range(17):
            api.desk.store.renew(claim, reached={"stage": "denoise", "step": index + 1, "num_steps": 17})
            media.save_frames(index, noise[index : index + 1])
            time.sleep(0.1)
        file = io.BytesIO()
        write_mp4(file, noise, fps=8)
        media.save_video(file.getvalue())
        api.desk.store.complete(claim, {"num_bytes": len(file.getvalue()), "sha256": "0", "num_frames": 17})


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


@pytest.mark.parametrize("size", [{"width": 1280, "height": 900}, {"width": 360, "height": 740}], ids=["desk", "phone"])
def test_a_person_makes_a_video_by_keyboard(served, browser, size: dict):
    api, url = served
    page = browser.new_page(viewport=size)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.goto(url)
    expect(page.locator("#service")).to_have_text("ready", timeout=30_000)
    page.keyboard.type(api.key["Authorization"].removeprefix("Bearer "))  # the page begins there
    page.keyboard.press("Tab")
    page.keyboard.type("a <b>red</b> ball")
    page.select_option("#camera_control", "orbit left")
    page.fill("#duration", "1.9")
    page.focus("#prompt")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#live")).to_have_attribute("data-frames", re.compile(r"[3-9]|\d\d"), timeout=30_000)
    assert "duration: 1.9 → 2" in page.inner_text("#changes"), "what was changed is explained"
    assert "a <b>red</b> ball" in page.inner_text("#queue") or page.is_visible("#player")
    page.wait_for_selector("#player:not([hidden])", timeout=60_000)
    assert page.inner_text("#said").startswith("Done")
    until(lambda: page.evaluate("() => document.getElementById('player').readyState >= 2"), 30)
    page.wait_for_selector("#gallery img", timeout=30_000)
    page.click("#show-plan")
    expect(page.locator("#plan")).to_have_attribute("aria-label", re.compile("red ball"), timeout=30_000)
    page.click("#show-plan")
    assert page.is_visible("#player")
    assert "<b>red</b>" in page.inner_text("#gallery"), "prompts are text, never markup"
    wide = page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    assert wide, "nothing sticks out sideways"
    assert problems == []
    page.close()


def test_problems_are_told_kindly(served, browser):
    api, url = served
    page = browser.new_page()
    page.goto(url)
    page.fill("#key", "kling_no_such")
    page.focus("#prompt")  # the list is asked for with the new key, and refused, while one writes on
    expect(page.locator("#problem")).to_contain_text("not valid", timeout=30_000)
    assert page.evaluate("() => document.activeElement.id") == "prompt", "an answer not asked for takes nobody's focus"
    page.fill("#prompt", "x")
    page.click("#go")
    expect(page.locator("#problem")).to_contain_text("not valid", timeout=30_000)
    expect(page.locator("#key")).to_be_focused()
    page.fill("#key", api.key["Authorization"].removeprefix("Bearer "))
    page.evaluate("() => document.getElementById('style').removeAttribute('maxlength')")
    page.fill("#style", "y" * 200)
    page.click("#go")
    expect(page.locator("#problem")).to_contain_text("Please change the style", timeout=30_000)
    assert page.evaluate("() => document.activeElement.id") == "style", "the field at fault is where one is"
    page.fill("#style", "")
    page.set_input_files("#first_frame", {"name": "cat.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.click("#go")
    expect(page.locator("#problem")).to_contain_text("cat.png", timeout=30_000)
    page.close()


def test_videos_are_continued_deleted_and_seen_in_either_colour(served, browser):
    api, url = served
    page = browser.new_page(color_scheme="dark")
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(f"{url}#key={api.key['Authorization'].removeprefix('Bearer ')}")
    page.fill("#prompt", "a cube to be continued")
    page.click("#go")
    page.wait_for_selector("#player:not([hidden])", timeout=60_000)
    page.click("#extend")
    assert page.is_visible("#continues") and page.input_value("#prompt") == "a cube to be continued"
    page.click("#continues button")
    page.click("#again")
    assert page.input_value("#resolution") == "64x64" and page.input_value("#seed") != ""
    dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") != dark
    count = page.locator("#gallery button").count()
    page.focus("#gallery button")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.click("#remove")
    expect(page.locator("#gallery button")).to_have_count(count - 1, timeout=30_000)
    page.close()
