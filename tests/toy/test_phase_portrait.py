"""The interactive page in a real headless Chromium, driven through its WebDriver: no network, same numbers as Python."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collapse_lab.toy.basin import boundary, fates
from collapse_lab.toy.fate import FATES
from collapse_lab.toy.rule import VARIANTS
from collapse_lab.toy.scalar import Scalar, flow

PAGE = Path(__file__).resolve().parents[2] / "figures" / "phase_portrait.html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
browser_only = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (apt-get install chromium chromium-driver)"
)


class Browser:
    """The few commands of the WebDriver protocol that the tests use."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,800"]
        # Nothing can be reached: a page that needed the network would fail.
        flags.append("--host-resolver-rules=MAP * ~NOTFOUND")
        options = {"binary": CHROMIUM, "args": flags}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{made['sessionId']}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["value"]

    def run(self, script: str, *arguments: Any) -> Any:
        return self.call("POST", f"{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def open(self, url: str) -> None:
        self.call("POST", f"{self.session}/url", {"url": url})

    def log(self) -> list[Any]:
        return list(self.call("POST", f"{self.session}/se/log", {"type": "browser"}))

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        def move(point: tuple[int, int]) -> dict[str, Any]:
            return {"type": "pointerMove", "duration": 50, "x": point[0], "y": point[1]}

        steps = [move(start), {"type": "pointerDown", "button": 0}, move(end), {"type": "pointerUp", "button": 0}]
        self.call(
            "POST", f"{self.session}/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": steps}]}
        )

    def text(self, name: str) -> str:
        return str(self.run("return document.getElementById(arguments[0]).textContent", name))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert DRIVER is not None
    with subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        try:
            _wait_for(port)
            opened = Browser(port)
            try:
                yield opened
            finally:
                opened.call("DELETE", opened.session)
        finally:
            driver.terminate()


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise TimeoutError("chromedriver did not answer within 10 s")


@pytest.fixture
def page(browser: Browser) -> Browser:
    browser.open(PAGE.as_uri())
    return browser


def test_the_page_names_no_address() -> None:
    assert not re.search(r"https?:|//[a-z]+\.|\bsrc=|\bhref=|@import|fetch\(|XMLHttp", PAGE.read_text(encoding="utf-8"))


@browser_only
def test_it_opens_on_the_blogs_start_without_an_error(page: Browser) -> None:
    assert page.text("verdict") == "not-collapsed"
    assert page.text("state") == "0.922422, 0.707717"
    assert page.log() == []


@browser_only
def test_dragging_the_start_moves_it_and_answers(page: Browser) -> None:
    box = page.run("const b = plane.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]")

    def pixel(phi: float, theta: float) -> tuple[int, int]:
        return round(box[0] + (phi + 2) / 5 * box[2]), round(box[1] + (2 - theta) / 4 * box[3])

    page.drag(pixel(0.6, 0.1), pixel(1.8, 0.5))
    phi, theta = page.run("return toy.setting.start")
    assert (phi, theta) == pytest.approx((1.8, 0.5), abs=0.02)
    assert page.text("verdict") == "collapsed"
    assert page.text("start") == f"{phi:.3f}, {theta:.3f}"
    assert page.log() == []


@browser_only
def test_sliders_and_keys_change_the_answer(page: Browser) -> None:
    page.run(
        "const v = document.getElementById('noise2'); v.value = 1; v.dispatchEvent(new Event('input'));"
        "plane.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))"
    )
    assert page.text("verdict") == "collapsed"
    assert page.text("noise2-value") == "1.00"
    assert page.run("return toy.setting.start")[0] == pytest.approx(0.62)


@browser_only
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("noise2", "rate", "decay"), [(0, 1, 0), (0.3, 2, 0), (0.5, 1, 0.05), (0, 0.5, 0.01), (0, 1, 0.3)]
)
def test_fates_and_states_are_pythons(page: Browser, variant: str, noise2: float, rate: float, decay: float) -> None:
    starts = np.random.default_rng(0).uniform((-2, -2), (3, 2), (150, 2))
    script = (
        "const [s, starts] = arguments; Object.assign(toy.setting, s);"
        "return starts.map(start => { toy.setting.start = start; const path = toy.solve();"
        "return [toy.fate(toy.setting, start), ...path[path.length - 1].slice(1)]; })"
    )
    given = {"variant": variant, "noise2": noise2, "rate": rate, "decay": decay, "time": 10}
    found = page.run(script, given, starts.tolist())
    system = Scalar(variant, noise2, rate, decay)
    assert [row[0] for row in found] == [FATES[code] for code in fates(system, *starts.T)]
    states = flow(system, *starts[:20].T, [10.0]).states[0].T
    np.testing.assert_allclose([row[1:] for row in found[:20]], states, atol=1e-7)


@browser_only
@pytest.mark.parametrize(
    ("variant", "noise2", "decay"),
    [("stop-gradient", 0.2, 0), ("stop-gradient", 0.5, 0.05), ("both-terms", 0, 0), ("second-term-only", 0, 0)],
)
def test_the_boundary_is_pythons(page: Browser, variant: str, noise2: float, decay: float) -> None:
    given = {"variant": variant, "noise2": noise2, "rate": 1.5, "decay": decay}
    points = np.array(page.run("Object.assign(toy.setting, arguments[0]); return toy.boundary(toy.setting)", given))
    assert np.diff(points[:, 0]).min() >= 0
    assert np.diff(points[:, 0]).max() < 0.2
    inside = (points[:, 0] > -2) & (points[:, 0] < 3)
    expected = boundary(Scalar(variant, noise2, 1.5, decay), points[inside, 0])
    np.testing.assert_allclose(points[inside, 1], expected, rtol=1e-4, atol=1e-6)
