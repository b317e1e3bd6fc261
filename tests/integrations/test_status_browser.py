"""The status page as a person sees it, in a browser."""

from __future__ import annotations

from contextlib import contextmanager
import re
import shutil
import threading
import time
from typing import Any
from typing import Callable
from typing import Iterator
from typing import Optional

import pytest
from sqlalchemy import create_engine
from werkzeug.serving import make_server

from sqla_smartpool import SmartPool
from sqla_smartpool.integrations.status import wsgi_app
from tests.conftest import Database
from tests.integrations.status_programs import EVIL
from tests.integrations.status_programs import Tasks
from tests.integrations.status_programs import Threads
from tests.lab.fixtures import missing

pytestmark = pytest.mark.slow

PHONE, DESK = 390, 1280
#: for what the page does by itself every two seconds; with a margin of five
PATIENCE = 30_000  # ms


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = "chromium", "chromium-browser", "google-chrome"
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        missing("chromium is not installed (Debian: chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        missing(f"{error} (pip install playwright)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"]  # root has none
        )
        yield browser
        browser.close()


class Visit:
    """A page that is looked at, and all that it did."""

    def __init__(
        self, browser: Any, address: str, width: int = DESK, dark: bool = False
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.complaints: list[str] = []
        self.requested: list[str] = []
        page = self.page
        # Chromium writes violations of the policy to the console as well
        page.on("console", lambda said: self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append("a dialog"))
        page.on("request", lambda asked: self.requested.append(asked.url))
        self.address = address

    def __enter__(self) -> Any:
        self.page.goto(self.address)
        self.page.wait_for_selector("article")
        return self.page

    def __exit__(self, *error: object) -> None:
        self.context.close()

    def found_wrong(self) -> list[str]:
        """What it complained of, and what it asked for elsewhere."""
        elsewhere = [
            url for url in self.requested if not url.startswith(self.address)
        ]
        return self.complaints + elsewhere


def number(page: Any, name: str) -> float:
    """What a tile says."""
    tile = page.locator(".tiles > div").filter(has_text=name).locator("span")
    return float(tile.inner_text().replace("–", "0"))


def seen(page: Any, condition: Callable[[], Any]) -> None:
    """Wait until the page shows it, while its events are heard."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def is_too_wide(page: Any) -> bool:
    wide: bool = page.evaluate(
        "document.documentElement.scrollWidth > window.innerWidth"
    )
    return wide


@pytest.mark.parametrize("application", [Threads, Tasks])
def test_a_busy_and_then_exhausted_pool_is_seen_live(
    browser: Any, postgresql_database: Database, application: Any
) -> None:
    with application(postgresql_database) as program:
        visit = Visit(browser, program.address, PHONE)
        with visit as page:
            assert page.inner_text("h2") == "a & b"
            seen(page, lambda: number(page, "checkouts/s") > 0)
            count = page.locator(".times tbody tr").nth(1).locator("td").last
            before = count.inner_text()
            seen(page, lambda: count.inner_text() != before)
            assert page.locator("svg path.used").get_attribute("d")

            program.hold_all()
            held = page.locator(".holders b", has_text=EVIL)
            seen(page, lambda: held.count() == 6)
            seen(page, lambda: page.inner_text(".badge") == "exhausted")
            seen(page, lambda: number(page, "waiting") == 4)
            assert number(page, "in use") == 6
            assert "Likely cause" in page.inner_text(".cause")
            place = page.locator(".holders .place").first
            assert "in _hold: " in place.inner_text()
            assert page.locator("article script").count() == 0

            for each in page.locator("article > details > summary").all():
                each.click()
            assert page.locator(".connections tbody tr").count() == 6
            assert not is_too_wide(page)

            program.let_go()
            seen(page, lambda: page.inner_text(".badge") != "exhausted")
            seen(page, lambda: held.count() == 0)
        assert visit.found_wrong() == []


@contextmanager
def quiet(database: Database) -> Iterator[Any]:
    """A page on a pool of which one connection is held."""
    engine = create_engine(
        database.url(), poolclass=SmartPool, trace_checkouts=True
    )
    app = wsgi_app([engine])
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with engine.connect():
            yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        engine.dispose()


def answering(page: Any, **changes: Any) -> None:
    """Have ``json`` answered with something else from now on."""
    page.route("**/json", lambda route: route.fulfill(**changes))


def refreshed(page: Any) -> None:
    with page.expect_response("**/json", timeout=PATIENCE):
        pass


def test_it_is_dark_where_that_is_preferred(
    browser: Any, sqlite_database: Database
) -> None:
    lightness = []
    with quiet(sqlite_database) as address:
        for dark in (False, True):
            with Visit(browser, address, dark=dark) as page:
                colors = page.evaluate(
                    "['backgroundColor', 'color'].map("
                    "name => getComputedStyle(document.body)[name])"
                )
            ground, ink = (
                sum(map(int, re.findall(r"\d+", color))) for color in colors
            )
            lightness.append(ground)
            assert abs(ground - ink) > 400, "it can be read"
    light, dark_ground = lightness
    assert dark_ground < 150 < 600 < light


def test_it_can_be_used_by_keyboard_while_it_refreshes_itself(
    browser: Any, sqlite_database: Database
) -> None:
    with quiet(sqlite_database) as address:
        with Visit(browser, address) as page:

            def focused() -> str:
                return str(page.evaluate("document.activeElement.innerText"))

            page.keyboard.press("Tab")
            assert focused() == "Hold still"
            for _ in range(10):
                page.keyboard.press("Tab")
                if focused() == "Whole stack":
                    break
            page.keyboard.press("Enter")
            stack = page.locator(".holders details")
            assert stack.get_attribute("open") is not None
            assert "in quiet" in stack.inner_text()
            refreshed(page)
            refreshed(page)
            assert stack.get_attribute("open") is not None
            assert focused() == "Whole stack"

            hold = page.get_by_role("button", name="Hold still")
            hold.focus()
            page.keyboard.press("Space")
            assert hold.get_attribute("aria-pressed") == "true"
            assert page.inner_text("#when").startswith("held since")
            page.keyboard.press("Space")
            refreshed(page)


@pytest.mark.parametrize(
    "failure, words",
    [
        (None, "cannot be reached"),
        ({"status": 503, "body": "{}"}, "HTTP 503"),
        ({"content_type": "text/html", "body": "Sign in"}, "signed in"),
    ],
)
def test_what_is_stale_is_called_so_until_it_is_fresh_again(
    browser: Any,
    sqlite_database: Database,
    failure: Optional[dict[str, Any]],
    words: str,
) -> None:
    with quiet(sqlite_database) as address:
        with Visit(browser, address) as page:
            page.clock.install()
            page.reload()
            note = page.locator("#stale")
            page.wait_for_selector("article")
            assert not note.is_visible()
            if failure is None:
                page.route("**/json", lambda route: route.abort())
            else:
                answering(page, **failure)
            for wait, then in (2, 4), (4, 8), (8, 16), (16, 30), (30, 30):
                page.clock.run_for(1.1 * 1000 * wait)
                told = note.filter(has_text=f"Next attempt in {then}")
                told.wait_for(state="visible")
            assert note.inner_text().startswith("Stale since ")
            assert words in note.inner_text()
            assert page.inner_text(".tiles dd span") == "1", "still shown"
            page.unroute("**/json")
            page.clock.run_for(1.1 * 1000 * 30)
            note.wait_for(state="hidden")
            assert page.inner_text("#when").startswith("live")


def test_processes_behind_one_address_are_told_apart(
    browser: Any, sqlite_database: Database
) -> None:
    with quiet(sqlite_database) as address:
        with Visit(browser, address, PHONE) as page:
            told = page.request.get(address + "json").json()
            assert page.locator("article").count() == 1
            assert not page.locator("#overview").is_visible()
            told["process"] += 1
            answering(page, json=told)
            seen(page, lambda: page.locator("article").count() == 2)
            kinds = page.locator("article .kind").all_inner_texts()
            number = told["process"]
            assert kinds == [
                f"SmartPool · process {number - 1}",
                f"SmartPool · process {number}",
            ]
            assert page.locator("#overview a").count() == 2
            assert not is_too_wide(page)


def test_a_loop_that_gives_no_answer_is_seen(
    browser: Any, sqlite_database: Database
) -> None:
    blocked = {"seconds": 1.0, "thread": "main", "where": ["a.py:7 in b: c()"]}
    with quiet(sqlite_database) as address:
        visit = Visit(browser, address)
        with visit as page:
            told = page.request.get(address + "json").json()
            told["pools"] = [{"name": "x", "blocked": blocked}]
            answering(page, json=told)
            seen(page, lambda: page.inner_text(".badge") == "no answer")
            assert "a.py:7 in b" in page.inner_text(".cause")
            assert not page.locator(".tiles").is_visible()
        assert visit.found_wrong() == []


def test_without_javascript_it_leads_to_the_json(
    browser: Any, sqlite_database: Database
) -> None:
    with quiet(sqlite_database) as address:
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(address)
        page.click("noscript a")
        assert page.url == address + "json"
        context.close()
