// The whole product in a browser: the demo's shop, the component, and a running service with its models, which `scripts/browser-test.sh` has started
// (VOICEPAY_SHOP). Alice's voice is enrolled there; Mallory is a voice that is not.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import { launch, type SeenEvent, Visitor } from "../support/app.js";
import { converse, MICROPHONE, say } from "../support/person.js";
import { order, shopUrl, WATCH } from "../support/shop.js";

const SHOP = shopUrl();
const SHOTS = process.env["VOICEPAY_SHOTS"] ?? "shots";

const DAY_MS = 24 * 3_600_000;

/** Runs in the page before anything else: its clock is so much wrong. */
const clockIs = (wrongMs: number): string => `(() => {
  const Right = Date;
  window.Date = class extends Right {
    constructor(...parts) { super(...(parts.length ? parts : [Right.now() + ${wrongMs}])); }
    static now() { return Right.now() + ${wrongMs}; }
  };
})();`;

describe("in Chromium", () => {
  let browser: Browser;
  let visitor: Visitor | null = null;

  before(async () => {
    browser = await launch(null);
  });
  after(async () => {
    await browser.close();
  });
  afterEach(async () => {
    const violations = visitor ? await visitor.violations().catch(() => []) : [];
    await visitor?.close();
    visitor = null;
    assert.deepEqual(violations, [], "the content security policy forbids nothing that the component does");
  });

  const visit = async (options: { microphone?: "allowed" | "refused"; real?: boolean } = {}): Promise<Visitor> => {
    visitor = await Visitor.at(browser, `${SHOP}`, { ...options, init: `${options.real ? "" : MICROPHONE}${WATCH}` });
    return visitor;
  };
  const result = async (user: Visitor): Promise<SeenEvent> => user.result(5_000);

  test("a customer confirms: shown and spoken, yes and digits in her voice, charged, told with a reference", async () => {
    const user = await visit();
    const bill = await order(user.page, "water");
    await user.until("ready");
    assert.ok((await user.text()).includes(bill.payee) && (await user.text()).includes(bill.amount_text));
    await user.start();
    await user.until("listening", 30_000);
    await user.page.screenshot({ path: `${SHOTS}/service-question.png` });
    const digits = user.page.locator("voicepay-confirm .digits .number").waitFor({ timeout: 60_000 });
    const shown = digits.then(() => user.page.screenshot({ path: `${SHOTS}/service-digits.png` }));
    await converse(user.page, { digits: "alice", answer: { voice: "alice", words: "yes" } });
    await shown;
    const told = await result(user);
    await user.page.screenshot({ path: `${SHOTS}/service-result.png` });
    assert.equal(told.result, "paid", JSON.stringify(told));
    assert.match(told.reference ?? "", /^\d{4,}$/);
    assert.match(told.text ?? "", /Paid/);
  });

  test("a page whose clock is a day wrong confirms like any other", async () => {
    for (const way of ["ahead", "behind"] as const) {
      visitor = await Visitor.at(browser, `${SHOP}`, { init: `${MICROPHONE}${WATCH}${clockIs(way === "ahead" ? DAY_MS : -DAY_MS)}` });
      const user = visitor;
      await order(user.page, "water");
      await user.start();
      await converse(user.page, { digits: "alice", answer: { voice: "alice", words: "yes" } });
      assert.equal((await result(user)).result, "paid", way);
      await user.close();
    }
  });

  test("no is no", async () => {
    const user = await visit();
    await order(user.page, "power");
    await user.start();
    await converse(user.page, { digits: "alice", answer: { voice: "alice", words: "no" } });
    assert.equal((await result(user)).result, "cancelled");
  });

  test("who says nothing pays nothing", async () => {
    const user = await visit();
    await order(user.page, "power");
    await user.start();
    await user.page.waitForFunction(() => window.seen.some((e) => e.type === "voicepay-result"), null, { timeout: 120_000 });
    assert.equal((await result(user)).result, "failed");
  });

  test("who refuses the microphone is told so, and nothing is used up", async () => {
    const user = await visit({ microphone: "refused", real: true });
    await order(user.page, "power");
    await user.start();
    await user.until("blocked");
    assert.match(await user.text(), /microphone/i);
  });

  test("who stops in the middle pays nothing, and the service hears it at once", async () => {
    const user = await visit();
    await order(user.page, "power");
    await user.start();
    await user.until("listening", 30_000);
    const begun = Date.now();
    await user.page.getByRole("button", { name: "Stop" }).click();
    assert.equal((await result(user)).result, "cancelled");
    assert.ok(Date.now() - begun < 3_000);
  });

  test("a token is good once, for its own origin alone", async () => {
    const user = await visit();
    const bill = await order(user.page, "power");
    await user.start();
    await user.until("listening", 30_000);
    const base = new URL(SHOP).origin;
    const ask = (origin: string) =>
      fetch(`${base}/app/session`, { method: "POST", headers: { Authorization: `Bearer ${bill.token}`, Origin: origin, "Content-Type": "application/sdp" }, body: "v=0\r\n" });
    const used = await ask(base);
    assert.equal(used.status, 409, await used.text());
    const elsewhere = await ask("https://evil.example");
    assert.equal(elsewhere.status, 403);
    assert.match(elsewhere.headers.get("content-type") ?? "", /problem\+json/);
  });

  test("a key of the page's keypad arrives: star stops the call", async () => {
    const user = await visit();
    await order(user.page, "power");
    await user.start();
    await user.until("listening", 30_000);
    await user.page.locator("voicepay-confirm summary").click();
    await user.page.getByRole("button", { name: /star/i }).click();
    await user.page.waitForFunction(() => window.seen.some((e) => e.type === "voicepay-result"), null, { timeout: 8_000 });
    assert.equal((await result(user)).result, "cancelled");
  });

  test("a page that closes in the middle leaves the service free and nothing charged", async () => {
    const user = await visit();
    await order(user.page, "power");
    await user.start();
    await user.until("listening", 30_000);
    await say(user.page, "alice", "yes");
    await user.page.close({ runBeforeUnload: false });
    visitor = null;
  });

  test("words that are no yes pay nothing", async () => {
    const user = await visit();
    await order(user.page, "power");
    await user.start();
    await converse(user.page, { digits: "alice", answer: { voice: "alice", words: "one, two, three, four, five" } }, 180_000);
    const { result: came } = await result(user);
    assert.notEqual(came, "paid");
  });
});
