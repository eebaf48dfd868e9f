"""Every page in Chromium: its links, buttons and forms, both themes, a phone, and axe.

Needs Debian's package ``chromium``, or ``CHROMIUM`` with the path of another.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Installation, Tenant, new_tenant
from tests.api.server.page_stage import Stage, furnish
from tests.api.server.test_models import Trained

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
AXE = Path(__file__).with_name("axe") / "axe.min.js"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM"
    ),
]

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


class Watched:
    """A tab, and what it must not do."""

    def __init__(self, context: BrowserContext, *, url: str) -> None:
        self.page: Page = context.new_page()
        self.url = url
        self.faults: list[str] = []
        self.foreign: set[str] = set()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._request)

    def _console(self, message: Any) -> None:
        # A page that answers 4xx as it should is named by the browser as well.
        if message.type in ("error", "warning") and "status of 4" not in message.text:
            self.faults.append(f"{self.page.url}: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "about:")):
            self.foreign.add(request.url)

    def go(self, path: str) -> None:
        self.page.goto(self.url + path)

    def sign_in(self, key: str) -> None:
        self.go("/")
        self.page.get_by_label("API key").fill(key)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("heading", name="Jobs", exact=True).wait_for()

    def press(self, name: str) -> None:
        self.page.get_by_role("main").get_by_role("button", name=name).first.click()

    def violations(self) -> list[str]:
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{self.page.url}: {each['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
            for each in found["violations"]
            for node in each["nodes"]
        ]

    def check(self) -> None:
        assert not self.faults
        assert not self.foreign


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def furnished(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Tenant, Stage]]:
    workers = FakeWorkers(installation)
    with new_tenant(installation) as tenant:
        trained = Trained(tenant, tmp_path_factory.mktemp("model"))
        yield tenant, furnish(tenant, workers, trained)
    workers.close()


@contextmanager
def tab(
    chromium: Browser, tenant: Tenant, *, theme: Any = "light", size: Any = DESKTOP
) -> Iterator[Watched]:
    context = chromium.new_context(color_scheme=theme, viewport=size)
    context.set_default_timeout(20_000)
    watched = Watched(context, url=tenant.installation.url)
    watched.sign_in(tenant.key)
    yield watched
    watched.check()
    context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_without_errors_strangers_and_violations(
    chromium: Browser, furnished: tuple[Tenant, Stage], theme: str
) -> None:
    tenant, stage = furnished
    with tab(chromium, tenant, theme=theme) as watched:
        violations = []
        for path in stage.pages:
            watched.go(path)
            for details in watched.page.locator("details > summary").all():
                details.click()
            violations += watched.violations()
        assert not violations


def test_every_link_leads_to_a_page(chromium: Browser, furnished: tuple[Tenant, Stage]) -> None:
    tenant, stage = furnished
    with tab(chromium, tenant) as watched:
        seen, left = set[str](), list(stage.pages)
        while left:
            path = left.pop()
            if path in seen:
                continue
            seen.add(path)
            answer = watched.page.goto(watched.url + path)
            assert answer is not None
            assert answer.status in (200, 400, 404), path
            if answer.status != 200:
                assert path in stage.pages, path
            links = watched.page.locator("a[href^='/']").all()
            left += [link.get_attribute("href") or "" for link in links]
        assert len(seen) > len(stage.pages)


def test_no_page_is_wider_than_a_phone(chromium: Browser, furnished: tuple[Tenant, Stage]) -> None:
    tenant, stage = furnished
    with tab(chromium, tenant, size=PHONE) as watched:
        for path in stage.pages:
            watched.go(path)
            width = watched.page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE["width"], path


def test_the_first_key_leads_to_the_content(
    chromium: Browser, furnished: tuple[Tenant, Stage]
) -> None:
    tenant, _ = furnished
    with tab(chromium, tenant) as watched:
        watched.page.keyboard.press("Tab")
        watched.page.keyboard.press("Enter")
        assert watched.page.evaluate("document.activeElement.id") == "content"


def test_filters_stand_in_the_address(chromium: Browser, furnished: tuple[Tenant, Stage]) -> None:
    tenant, stage = furnished
    with tab(chromium, tenant) as watched:
        watched.page.get_by_label("Name or id").fill("november")
        watched.page.get_by_label("State").select_option("running")
        watched.press("Filter")
        watched.page.wait_for_url("**/?text=november&state=running*")
        assert watched.page.locator("table.jobs tbody tr").count() == 1
        watched.page.get_by_role("link", name="reviews of november").click()
        watched.page.wait_for_url(f"**/jobs/{stage.running}")


def test_a_job_moves_on_the_page_and_is_not_read_while_it_is_paused(
    chromium: Browser, tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    job_id = tenant.submit(name="moving")
    hands = fake_workers.take(job_id)
    hands.plan([30, 30])
    with tab(chromium, tenant) as watched:
        watched.go(f"/jobs/{job_id}")
        watched.press("Pause updates")
        watched.page.get_by_text("0 of 60 rows").wait_for()
        hands.work(0)
        watched.page.get_by_text("30 of 60 rows").wait_for()  # by the stream of events
        assert watched.page.get_by_text("This kind has none").is_visible()
        watched.press("Go on")
        watched.page.locator("#live").get_by_text("good", exact=True).wait_for()
        watched.page.get_by_role("link", name="Read again").click()
        watched.page.locator("#rows").get_by_role(
            "columnheader", name="label", exact=True
        ).wait_for()
        hands.work(1)
        hands.finish()
        watched.page.get_by_text("succeeded").first.wait_for()
        watched.page.get_by_role("link", name="Delete …").wait_for()


def test_a_command_is_copied_without_the_clipboard_of_secure_pages(
    chromium: Browser, furnished: tuple[Tenant, Stage]
) -> None:
    tenant, stage = furnished
    with tab(chromium, tenant) as watched:
        watched.go(f"/jobs/{stage.paused}")
        watched.press("Copy")
        watched.page.get_by_role("button", name="Copied").wait_for()


def test_curves_are_drawn_and_drawn_again(
    chromium: Browser, furnished: tuple[Tenant, Stage]
) -> None:
    tenant, stage = furnished
    with tab(chromium, tenant) as watched:
        watched.go(f"/jobs/{stage.training}")
        watched.page.get_by_role("img", name="Curve of loss").wait_for()
        assert watched.page.locator("#curves canvas").count() == 3
        watched.page.emulate_media(color_scheme="dark")
        assert watched.page.locator("#curves canvas").count() == 3


def test_forms_do_what_their_buttons_say(
    chromium: Browser, tenant: Tenant, fake_workers: FakeWorkers, tmp_path: Path
) -> None:
    stage = furnish(tenant, fake_workers, Trained(tenant, tmp_path / "model"))
    with tab(chromium, tenant, theme="dark") as watched:
        for job_id, action, state in (
            (stage.running, "Pause", "paused"),
            (stage.running, "Resume", "running"),
            (stage.failed, "Retry", "queued"),
            (stage.running, "Cancel", "cancelling"),
        ):
            watched.go(f"/jobs/{job_id}")
            watched.page.get_by_role("link", name=f"{action} …").click()
            watched.press(action)
            watched.page.wait_for_url(f"**/jobs/{job_id}")
            assert tenant.job(job_id)["state"] == state
        watched.go(f"/jobs/{stage.ended}")
        watched.page.get_by_role("link", name="Delete …").click()
        watched.page.get_by_role("link", name="Back").click()
        watched.page.get_by_role("link", name="Delete …").click()
        watched.press("Delete")
        watched.page.wait_for_url(watched.url + "/")
        assert tenant.http.get(f"/v1/jobs/{stage.ended}").status_code == 404
        for button, words in (
            ("Fire now", "trigger"),
            ("Pause the schedule", "paused"),
            ("Resume", "active"),
        ):
            watched.go(f"/schedules/{stage.schedule}")
            watched.press(button)
            watched.page.get_by_text(words).first.wait_for()
        watched.go("/?kind=classify")
        watched.page.get_by_role("link", name="Cancel …").click()
        watched.page.get_by_role("main").get_by_role("button").click()
        watched.page.get_by_text("All are done.").wait_for()
        watched.page.get_by_role("link", name="To the jobs").click()
        watched.page.wait_for_url("**/?kind=classify")
        watched.page.get_by_role("button", name="Sign out").click()
        watched.page.get_by_role("heading", name="Sign in").wait_for()
