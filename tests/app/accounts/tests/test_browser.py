"""A page in a real browser (Debian's Chromium) that shows the profile and stays current: nobody reloads it."""

import asyncio
import os
import pathlib
import threading

from django.contrib.auth.models import User
from django.test import Client
from playwright.async_api import async_playwright, expect

from accounts.models import SubscriptionPlan, UserProfile
from accounts.tests.live import LiveTestCase
from accounts.tests.support import sql, token

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", *(["--no-sandbox"] if os.geteuid() == 0 else [])]  # fmt: skip
SCREENSHOTS = os.environ.get("SCREENSHOTS")  # a folder to leave them in

REMEMBER = """
sessionStorage.loads = window.loads = Number(sessionStorage.loads ?? 0) + 1;
window.words = [];
window.WebSocket = class extends WebSocket {
    constructor(url) {
        super(url);
        this.addEventListener("message", (message) => words.push(message.data));
    }
};
"""


class Browser(LiveTestCase):
    """Playwright needs an event loop, beside which Django would not ask the database: it has a thread of its own."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.loop = asyncio.new_event_loop()
        thread = threading.Thread(target=cls.loop.run_forever)
        thread.start()
        cls.addClassCleanup(thread.join)
        cls.addClassCleanup(cls.loop.call_soon_threadsafe, cls.loop.stop)
        playwright = cls.do(async_playwright().start())
        cls.addClassCleanup(lambda: cls.do(playwright.stop()))
        cls.browser = cls.do(playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS))
        cls.addClassCleanup(lambda: cls.do(cls.browser.close()))
        expect.set_options(timeout=20000)

    @classmethod
    def do(cls, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, cls.loop).result(60)

    async def open(self, url):
        page = await self.browser.new_page(viewport={"width": 720, "height": 420})
        page.asked, page.errors = [], []
        # Here, in Playwright's own thread: on() sends a message, too.
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        await page.add_init_script(REMEMBER)
        await page.goto(url)
        return page

    def page(self, user):
        """The page as the user sees it, once it shows him and listens."""
        page = self.do(self.open(f"http://{self.address}/#access_token={token(user.supabase_user_id)}"))
        self.addCleanup(lambda: self.do(page.close()))
        self.assert_shows(page, email=user.email)
        self.do(page.wait_for_function("words.includes('look')"))
        self.wait_until_listening()
        sql("SELECT pg_notify('profile_cache', %s)", str(user.supabase_user_id))
        self.do(page.wait_for_function("words.includes('changed')"))
        return page

    def assert_shows(self, page, roles=None, **texts):
        """Sooner or later."""
        for name, text in texts.items():
            self.do(expect(page.locator(f"#{name}")).to_have_text(text))
        if roles:
            self.do(expect(page.locator(".role")).to_have_text(roles))

    def assert_never_reloaded(self, *pages):
        for page in pages:
            self.assertEqual((self.do(page.evaluate("loads")), page.errors), (1, []))

    def act(self, action, *users):
        """In Django's admin, over HTTP."""
        client = Client()
        client.force_login(User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)[0])
        data = {"action": action, "_selected_action": [user.id for user in users]}
        self.assertEqual(client.post("/admin/accounts/userprofile/", data).status_code, 302)

    def screenshot(self, page, name):
        if SCREENSHOTS:
            self.do(page.screenshot(path=pathlib.Path(SCREENSHOTS) / f"{name}.png"))

    def test_an_admin_changes_a_role_and_a_plan(self):
        page = self.page(self.ada)
        self.assert_shows(page, full_name="Ada", plan="Pro", limit="500", roles=["editor"])
        self.screenshot(page, "app-before")
        self.act("give_admin", self.ada)
        self.assert_shows(page, roles=["admin", "editor"])
        self.act("cancel", self.ada)
        self.assert_shows(page, plan="Free Plan", limit="10")
        self.screenshot(page, "app-after")
        self.assert_never_reloaded(page)

    def test_a_plan_that_many_have(self):
        """Two users' pages follow one change of what both show, each with his own profile."""
        self.act("move_to_pro", self.bob)
        ada, bob = self.page(self.ada), self.page(self.bob)
        plan = SubscriptionPlan.objects.get(id="pro")
        plan.display_name, plan.ai_daily_limit = "Professional", 501
        plan.save()
        for page, user, roles in ((ada, self.ada, ["editor"]), (bob, self.bob, ["editor", "viewer"])):
            self.assert_shows(page, email=user.email, plan="Professional", limit="501", roles=roles)
        self.assert_never_reloaded(ada, bob)

    def test_the_page_of_another(self):
        """What changes Bob's page does not even make Ada's ask."""
        ada, bob = self.page(self.ada), self.page(self.bob)
        before = self.do(ada.evaluate("words"))
        UserProfile.objects.filter(id=self.bob.id).update(full_name="Robert")
        self.assert_shows(bob, full_name="Robert")
        sql("NOTIFY profile_cache, '*'")  # comes to Ada's page behind whatever it was told of Bob
        self.do(ada.wait_for_function(f"words.slice({len(before)}).includes('look')"))
        self.assertEqual(self.do(ada.evaluate("words")), [*before, "look"])
        self.assert_shows(ada, full_name="Ada")

    def test_one_request_fails(self):
        """The page asks again by itself, for nobody tells it twice."""
        page = self.page(self.ada)
        self.do(page.route("**/api/**", lambda route: route.fulfill(status=502, body="<html>"), times=1))
        UserProfile.objects.filter(id=self.ada.id).update(full_name="Ada L.")
        self.do(expect(page.locator("#state")).to_have_text("Not reachable"))
        self.assert_shows(page, full_name="Ada L.")
        self.assert_never_reloaded(page)

    def test_what_it_shows_is_text(self):
        page = self.page(self.ada)
        name = "<img src=x onerror=\"document.title='run'\">"
        UserProfile.objects.filter(id=self.ada.id).update(full_name=name)
        self.assert_shows(page, full_name=name)
        self.do(expect(page).to_have_title("Profile"))

    def test_the_token_is_in_no_url(self):
        page = self.page(self.ada)
        self.assertEqual(page.url, f"http://{self.address}/")
        self.assertEqual({url.partition(self.address)[2] for url in page.asked}, {"/", "/api/v1/auth/profile/"})

    def test_server_gone_and_back(self):
        """The page comes back by itself, and shows what happened meanwhile."""
        page = self.page(self.ada)
        self.stop()
        UserProfile.objects.filter(id=self.ada.id).update(full_name="Ada L.")
        self.start()
        self.assert_shows(page, full_name="Ada L.")
        self.assert_never_reloaded(page)
