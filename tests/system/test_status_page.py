"""The status page as people meet it: a real gateway, a real browser, hostile text, a phone, the dark, a keyboard."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from teg.adapters.page_listener import listen
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.browser import barriers, chromium
from tests.support.running import PROJECT, ControllerInbox, RunningGateway, message, own_address

PASSWORD = "correct horse battery"
MARKUP = "<img src=x onerror='window.taken=1'><script>window.taken=1</script>"


@dataclass
class Site:
    gateway: RunningGateway
    browser: Browser
    address: str
    trouble: list[str] = field(default_factory=list)

    def open(self, clock: bool = False, **context: Any) -> Page:
        page = self.browser.new_context(**context).new_page()
        if clock:
            page.clock.install()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.on("console", lambda said: self.trouble.append(said.text) if said.type in ("error", "warning") else None)
        page.goto(f"http://{self.address}/")
        return page

    def signed_in(self, **context: Any) -> Page:
        page = self.open(**context)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_label("Password").press("Enter")
        expect(page.locator("#all")).to_be_visible()
        return page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with closing(listen(f"{own_address()}:0")) as probe:
        address = "{}:{}".format(*probe.getsockname())
    with ExitStack() as stack:
        server = stack.enter_context(ThingsBoard())
        device = server.add_device("pi", token="T1")
        device.set_shared({"FILES": {MARKUP: {"path": "/etc/passwd"}}})
        gateway = RunningGateway(tmp_path_factory.mktemp("page"), "127.0.0.1", server.port, "T1")
        gateway.environment |= {"TEG_CONSOLE": address, "TEG_CONSOLE_PASSWORD": PASSWORD}
        inbox = stack.enter_context(closing(ControllerInbox(gateway.inbox_path)))
        inbox.insert_many([message(1), message(2), f"no json: {MARKUP}"])
        stack.enter_context(gateway)
        gateway.wait_log("status page: http://")
        device.wait_for(lambda d: d.distinct >= 2, 20)
        yield Site(gateway, stack.enter_context(chromium()), address)


@pytest.fixture(autouse=True)
def nothing_is_complained_of(site: Site) -> Iterator[None]:
    yield
    said = [text for text in site.trouble if "401" not in text and "403" not in text]
    site.trouble.clear()
    assert said == []


def test_hostile_text_is_shown_and_nothing_more(site: Site) -> None:
    page = site.signed_in()
    expect(page.locator("#letters")).to_contain_text(MARKUP)
    page.get_by_text("Its log").click()
    expect(page.locator("#gateway-log pre")).to_contain_text("set aside")
    assert page.evaluate("window.taken") is None
    assert page.locator("main img, main script, main iframe").count() == 0


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_no_barriers_at_any_width_in_light_and_dark(site: Site, width: int, scheme: Any) -> None:
    page = site.open(viewport={"width": width, "height": 740}, color_scheme=scheme)
    expect(page.get_by_label("Password")).to_be_visible()
    assert barriers(page) == []
    page = site.signed_in(viewport={"width": width, "height": 740}, color_scheme=scheme)
    expect(page.locator("#curves svg")).to_have_count(3)
    assert barriers(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing to scroll sideways"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(20, 24, 27)") == (scheme == "dark")
    page.get_by_role("button", name="Publish again").click()
    assert barriers(page) == []


def test_with_the_keyboard_alone(site: Site) -> None:
    """Sign in, go to an action, confirm it; and see its outcome and its line in the audit."""
    page = site.open()
    expect(page.locator("#password")).to_be_focused()
    page.keyboard.type("not the password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("this is not the password")
    page.keyboard.press("Control+A")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#all")).to_be_visible()
    focused = "document.activeElement.textContent"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(focused) == "Ping":
            break
    assert page.evaluate(focused) == "Ping"
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Ping?")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#outcome")).to_be_empty()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("#outcome")).to_have_text("Ping: Pong")
    expect(page.locator("#calls tbody tr").first).to_contain_text("this page")


def test_what_is_done_is_done_once_and_audited(site: Site) -> None:
    page = site.signed_in()
    page.get_by_role("button", name="Log level").click()
    page.get_by_label("Level", exact=True).select_option("DEBUG")
    page.get_by_role("button", name="Do nothing").click()
    expect(page.locator("#gateway")).to_contain_text("INFO")
    page.get_by_role("button", name="Log level").click()
    page.get_by_label("Level", exact=True).select_option("DEBUG")
    page.get_by_role("button", name="Do it").click()
    expect(page.locator("#outcome")).to_contain_text("OK - Log level DEBUG for 30 minutes")
    expect(page.locator("#gateway")).to_contain_text("DEBUG")
    page.get_by_role("button", name="Retry the dead letters").click()
    page.get_by_role("button", name="Do it").click()
    expect(page.locator("#outcome")).to_contain_text("OK - 0 dead letters queued again")
    [audited] = site.gateway.rows("SELECT request_id < 0, state FROM rpc_call WHERE method = 'dead_letters'")
    assert audited == (1, "acknowledged")


def test_the_page_asks_only_while_somebody_looks(site: Site) -> None:
    page = site.signed_in(clock=True)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_response("**/api/picture"):
        page.clock.run_for(2_000)
    with page.expect_response("**/api/picture"):
        page.clock.run_for(2_000)
    page.evaluate("Object.defineProperty(document, 'hidden', { get: () => window.away, configurable: true })")
    page.evaluate("window.away = true")
    asked.clear()
    page.clock.run_for(3_600_000)
    assert asked == []
    page.evaluate("window.away = false")
    with page.expect_response("**/api/picture"):
        page.clock.run_for(2_000)


def test_signing_out_shows_nothing_any_more(site: Site) -> None:
    page = site.signed_in()
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#all")).to_be_hidden()
    expect(page.get_by_label("Password")).to_be_visible()


PROBE = """
import sys, threading, gateway
from teg.settings import Settings
from teg.adapters.status_socket import NAME
settings = Settings.from_environment()
with gateway.lifespan(settings):
    modules = [name for name in sys.modules if name.startswith(("waitress", "teg.console", "teg.wiring.page"))]
    threads = [thread.name for thread in threading.enumerate() if "page" in thread.name or "waitress" in thread.name]
    print((settings.data_path / NAME).exists(), bool(modules), bool(threads))
"""


@pytest.mark.parametrize("console", ["", "127.0.0.1:0"])
def test_while_it_is_off_nothing_of_it_is_loaded_and_nothing_listens(tmp_path: Path, console: str) -> None:
    gateway = RunningGateway(tmp_path, "127.0.0.1", 1, "T1")
    if console:
        with closing(listen(f"{own_address()}:0")) as probe:
            gateway.environment["TEG_CONSOLE"] = "{}:{}".format(*probe.getsockname())
    told = subprocess.run(
        [sys.executable, "-c", PROBE], env=gateway.environment, cwd=PROJECT, capture_output=True, text=True, timeout=60
    )
    on = bool(console)
    assert told.stdout.splitlines()[-1:] == [f"True {on} {on}"], told.stderr[-2000:]


def test_an_address_that_others_reach_needs_a_password(tmp_path: Path) -> None:
    gateway = RunningGateway(tmp_path, "127.0.0.1", 1, "T1", TEG_CONSOLE="0.0.0.0:8765")
    gateway.start()
    assert gateway.wait_exit() == 1
    assert gateway.log().count("TEG_CONSOLE_PASSWORD must be set") == 1
