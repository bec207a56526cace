"""Drives the admin page in a headless Chromium, against a server of its own and an upstream that is made up.

Each function below that begins with `check_` is one test, run in the order in which they stand; `run.sh` says how
to start it all. A message in the browser's console, or an exception on the page, fails the test in which it came.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

PATIENCE = 20_000

QUESTIONS = [
    ("How do I reset my password?", "Open Settings, choose Security, then Reset password.", "account"),
    ("What is your refund policy?", "You can return anything within 30 days for a full refund.", "billing"),
    ("How long does shipping to Canada take?", "Five to seven working days.", "shipping"),
    ("Can I change the delivery address of my order?", "Yes, until it is packed: open the order.", "shipping"),
    ("Which payment methods do you accept?", "Cards, PayPal and invoices for companies.", "billing"),
    ("How do I cancel my subscription?", "Open Billing and choose Cancel plan.", "billing"),
    ("Is there a student discount?", "Yes, 20 % with a valid student card.", "billing"),
    ("How do I export my data as CSV?", "Open Reports and choose Export.", "account"),
]
ALIKE = [
    "how can I reset my password",
    "how can i cancel my subscription",
    "what's your refund policy",
    "How do I reset my router?",
    "Is there a discount for teachers?",
    "How long does shipping to Brazil take?",
]


class Upstream(BaseHTTPRequestHandler):
    """Answers every chat."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = body["messages"][-1]["content"]
        known = {question: answer for question, answer, _ in QUESTIONS}
        document = {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "message": {
                "role": "assistant", "content": known.get(text, f"About that: {text}"), "refusal": None}}],
            "usage": {"prompt_tokens": 900, "completion_tokens": 350, "total_tokens": 1250},
        }
        told = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_):
        pass


class Server:
    """A running server in a folder of its own."""

    def __init__(self, binary, config):
        self.folder = tempfile.TemporaryDirectory()
        upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        config["upstreams"] = [{"name": "openai", "base_url": f"http://127.0.0.1:{upstream.server_port}/v1"}]
        Path(self.folder.name, "askonce.yaml").write_text(json.dumps(config))
        self.child = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--json"],
            cwd=self.folder.name, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
        )
        self.url = json.loads(self.child.stdout.readline())["listening"]

    def post(self, path, body, key=None, tags=None):
        headers = {"content-type": "application/json"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        if tags:
            headers["x-askonce-tags"] = tags
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return dict(response.headers), json.load(response)

    def chat(self, text, model="gpt-4o-mini", key=None, tags=None):
        messages = [{"role": "user", "content": text}]
        return self.post("/v1/chat/completions", {"model": model, "messages": messages}, key, tags)

    def fill(self, key=None):
        for question, _, tag in QUESTIONS:
            self.chat(question, key=key, tags=tag)
        for _ in range(3):
            for question, _, _ in QUESTIONS[:5]:
                self.chat(question, key=key)
        for question in ALIKE:
            self.chat(question, key=key)

    def stop(self):
        self.child.terminate()
        self.child.wait(30)
        self.folder.cleanup()


class Page:
    """A page of the browser, and what it complained about."""

    def __init__(self, browser, server, width=1440, height=1000, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce")
        self.tab = context.new_page()
        self.tab.set_default_timeout(PATIENCE)
        self.complaints = []
        self.requests = []
        self.tab.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.server = server
        self.tab.goto(f"{server.url}/admin")

    def ready(self):
        expect(self.tab.locator("#status")).to_have_text("ready", timeout=PATIENCE)
        expect(self.tab.locator("#entries tr[data-key]").first).to_be_visible(timeout=PATIENCE)
        expect(self.tab.locator("#figures .value").first).to_be_visible(timeout=PATIENCE)
        return self

    def quiet(self):
        assert not self.complaints, self.complaints

    def close(self):
        self.tab.context.close()


def accessible(page, arguments):
    page.tab.evaluate(Path(arguments.axe).read_text())
    told = page.tab.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})")
    found = [
        f"{violation['id']} ({violation['impact']}): {violation['help']}: "
        + "; ".join(f"{node['target']} {node.get('failureSummary', '')}" for node in violation["nodes"][:3])
        for violation in told["violations"]
    ]
    assert not found, "\n".join(found)
    assert len(told["passes"]) > 15, "the checker did not look"


def check_loads_without_complaints_and_asks_nobody_else(browser, server, arguments):
    page = Page(browser, server).ready()
    page.tab.wait_for_timeout(2_500)
    page.quiet()
    others = [url for url in page.requests if not url.startswith(server.url + "/")]
    assert not others, others
    answer = page.tab.request.get(f"{server.url}/admin")
    policy = answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy and "unsafe" not in policy, policy
    page.close()


def check_shows_a_hit_that_was_made_a_second_ago(browser, server, arguments):
    page = Page(browser, server).ready()
    before = page.tab.locator("#figures > div").first.inner_text()
    page.tab.wait_for_timeout(300)
    entry = server.chat("Is there a student discount?")[0]["x-askonce-entry"]
    newest = page.tab.locator("#recent tr").first
    expect(newest).to_contain_text("exact hit", timeout=4_000)
    expect(newest).to_contain_text(entry, timeout=4_000)
    expect(page.tab.locator("#figures > div").first).not_to_have_text(before, timeout=4_000)
    page.quiet()
    page.close()


def check_misses_name_their_reason_and_what_was_nearest(browser, server, arguments):
    page = Page(browser, server).ready()
    server.chat("How do I reset my thermostat?")
    page.tab.get_by_label("Misses").check(force=True)
    newest = page.tab.locator("#recent tr").first
    expect(newest).to_contain_text("miss", timeout=4_000)
    expect(page.tab.locator("#recent")).not_to_contain_text("exact hit", timeout=4_000)
    nearest = page.tab.locator("#recent .meter").first
    expect(nearest).to_be_visible()
    expect(page.tab.locator("#reasons .bars")).to_be_visible()
    page.tab.locator("#recent button.link").first.click()
    expect(page.tab.locator("#entry")).to_be_visible()
    expect(page.tab.locator("#entry-body pre").first).to_contain_text("reset my")
    page.quiet()
    page.close()


def check_an_entry_is_counted_confirmed_and_gone(browser, server, arguments):
    page = Page(browser, server).ready()
    server.chat("Where is my invoice for March?", tags="march")
    page.tab.get_by_label("Words").fill("invoice march")
    page.tab.get_by_role("button", name="Search").click()
    expect(page.tab.locator("#entries tr[data-key]")).to_have_count(1)
    row = page.tab.locator("#entries tr").first
    expect(row).to_contain_text("Where is my invoice for March?")
    row.get_by_role("button", name="Invalidate").click()
    expect(page.tab.locator("#sweep-told")).to_have_text("1 entry would be removed. This cannot be undone.")
    # The count alone removes nothing.
    page.tab.locator("#sweep").get_by_role("button", name="Cancel").click()
    assert server.chat("Where is my invoice for March?")[0]["cache-status"].startswith("askonce; hit")
    row.get_by_role("button", name="Invalidate").click()
    page.tab.get_by_role("button", name="Invalidate 1 entry").click()
    expect(page.tab.locator("#live")).to_have_text("1 entry invalidated")
    expect(page.tab.locator("#entries")).to_contain_text("No entry matches")
    assert server.chat("Where is my invoice for March?")[0]["cache-status"].startswith("askonce; fwd=miss")
    page.quiet()
    page.close()


def check_many_entries_are_invalidated_by_tag(browser, server, arguments):
    for question in ("What does the gift box cost?", "Who wraps the gifts?"):
        server.chat(question, tags="gifts")
    page = Page(browser, server).ready()
    page.tab.get_by_role("button", name="Invalidate many").click()
    page.tab.get_by_label("Value").fill("gifts")
    page.tab.get_by_role("button", name="Count").click()
    page.tab.get_by_role("button", name="Invalidate 2 entries").click()
    expect(page.tab.locator("#live")).to_have_text("2 entries invalidated")
    _, told = server.post("/cache/v1/entries/search", {"tag": "gifts"})
    assert told["entries"] == [], told
    page.quiet()
    page.close()


def check_the_slider_changes_the_numbers(browser, server, arguments):
    page = Page(browser, server).ready()
    page.tab.locator("#family").get_by_label("Threshold").check(force=True)
    outcome = page.tab.locator("#outcome")
    expect(outcome).to_contain_text("Served by similarity")
    slider = page.tab.locator("#slider")
    told = set()
    slider.focus()
    page.tab.keyboard.press("Home")
    for _ in range(11):
        told.add(outcome.inner_text())
        page.tab.keyboard.press("ArrowRight")
    assert len(told) > 1, told
    expect(page.tab.locator("#slider-value")).to_have_text("0.99")
    page.tab.locator("#family").get_by_label("Calibrated").check(force=True)
    expect(page.tab.locator("#slider-value")).to_have_text("1 %")
    expect(outcome).to_contain_text("Expected wrong")
    page.quiet()
    page.close()


def check_the_keyboard_alone_is_enough(browser, server, arguments):
    server.chat("Do you repair old radios?")
    page = Page(browser, server).ready()
    keyboard = page.tab.keyboard

    def focused():
        return page.tab.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")

    def tab_to(name, most=60):
        for _ in range(most):
            keyboard.press("Tab")
            if focused().startswith(name):
                return
        raise AssertionError(f"{name} is not reached, but {focused()}")

    keyboard.press("Tab")
    assert focused() == "Skip to content", focused()
    keyboard.press("Enter")
    tab_to("words")
    keyboard.type("repair radios")
    keyboard.press("Enter")
    expect(page.tab.locator("#entries tr[data-key]")).to_have_count(1)
    tab_to("Open")
    # What is focused outlives the next refresh.
    page.tab.wait_for_timeout(2_500)
    assert focused() == "Open", focused()
    keyboard.press("Enter")
    expect(page.tab.locator("#entry-body")).to_contain_text("Do you repair old radios?")
    tab_to("entry-invalidate")
    keyboard.press("Enter")
    expect(page.tab.locator("#sweep-told")).to_contain_text("1 entry would be removed")
    expect(page.tab.locator("#sweep-confirm")).to_be_focused()
    keyboard.press("Escape")
    expect(page.tab.locator("#sweep")).not_to_be_visible()
    expect(page.tab.locator("#entry-invalidate")).to_be_focused()
    keyboard.press("Enter")
    expect(page.tab.locator("#sweep-confirm")).to_be_focused()
    keyboard.press("Enter")
    expect(page.tab.locator("#live")).to_have_text("1 entry invalidated")
    page.quiet()
    page.close()


def check_anybody_can_read_it_in_light_and_dark_and_on_a_phone(browser, server, arguments):
    folder = Path(arguments.screenshots)
    folder.mkdir(parents=True, exist_ok=True)
    for name, width, scheme in [("light", 1440, "light"), ("dark", 1440, "dark"), ("phone", 390, "light")]:
        page = Page(browser, server, width=width, scheme=scheme).ready()
        expect(page.tab.locator("#outcome dd").first).to_be_visible()
        page.tab.screenshot(path=folder / f"{name}.png", full_page=True)
        accessible(page, arguments)
        wide = page.tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name}: the page is {wide} pixels wider than the window"
        page.tab.locator("#entries").get_by_role("button", name="Open").first.click()
        expect(page.tab.locator("#entry-body pre").first).to_be_visible()
        page.tab.screenshot(path=folder / f"{name}-entry.png")
        accessible(page, arguments)
        page.quiet()
        page.close()
    # The switch is stronger than the system.
    page = Page(browser, server).ready()
    light = page.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    page.tab.get_by_label("Theme").select_option("dark")
    dark = page.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark, light
    page.tab.reload()
    page.ready()
    assert page.tab.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    page.close()


def check_with_listed_keys_only_an_admin_gets_in(browser, server, arguments):
    def listed(name, admin):
        return {"name": name, "key_sha256": hashlib.sha256(f"sk-{name}".encode()).hexdigest(), "admin": admin}

    locked = Server(arguments.binary, {"environment": "production", "auth": {
        "keys": [listed("caller", False), listed("operator", True)]}})
    try:
        locked.fill(key="sk-caller")
        page = Page(browser, locked)
        expect(page.tab.get_by_label("API key")).to_be_focused()
        expect(page.tab.locator("#board")).not_to_be_visible()
        page.tab.screenshot(path=Path(arguments.screenshots) / "sign-in.png")
        accessible(page, arguments)
        page.quiet()
        page.tab.get_by_label("API key").fill("sk-caller")
        page.tab.keyboard.press("Enter")
        expect(page.tab.locator("#login-problem")).to_contain_text("only an admin may")
        # The browser itself tells of the refusal.
        page.complaints = [text for text in page.complaints if "403" not in text]
        page.tab.get_by_label("API key").fill("sk-operator")
        page.tab.keyboard.press("Enter")
        page.ready()
        expect(page.tab.locator("#entries")).to_contain_text("How do I reset my password?")
        page.tab.reload()
        page.ready()
        page.quiet()
        page.tab.get_by_role("button", name="Sign out").click()
        expect(page.tab.get_by_label("API key")).to_be_visible()
        page.quiet()
        page.close()
    finally:
        locked.stop()


def main():
    parser = argparse.ArgumentParser()
    for name in ("binary", "chromium", "axe", "screenshots"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    checks = [check for name, check in globals().items() if name.startswith("check_") and arguments.only in name]
    server = Server(arguments.binary, {})
    failed = []
    try:
        server.fill()
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
            for check in checks:
                try:
                    check(browser, server, arguments)
                    print(f"test {check.__name__} ... ok", flush=True)
                except Exception:
                    failed.append(check.__name__)
                    print(f"test {check.__name__} ... FAILED\n{traceback.format_exc()}", flush=True)
            browser.close()
    finally:
        server.stop()
    print(f"screenshots: {arguments.screenshots}")
    word = "FAILED" if failed else "ok"
    print(f"test result: {word}. {len(checks) - len(failed)} passed; {len(failed)} failed; 0 ignored")
    sys.exit(1 if failed else 0)


main()
