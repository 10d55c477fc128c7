// The page's network goes away in the middle of a call: for a moment, and for good. A relay stands between page and service, put into the answer as it passes.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import { launch, Visitor } from "../support/app.js";
import { converse, MICROPHONE } from "../support/person.js";
import { type Relay, relayed } from "../support/relay.js";
import { order, shopUrl, WATCH } from "../support/shop.js";

describe("over a network that goes away", () => {
  let browser: Browser;
  let visitor: Visitor | null = null;
  let held: { relay: Relay | null } = { relay: null };

  before(async () => {
    browser = await launch(null);
  });
  after(async () => {
    await browser.close();
  });
  afterEach(async () => {
    await visitor?.close();
    held.relay?.close();
    visitor = null;
  });

  const visit = async (): Promise<Visitor> => {
    visitor = await Visitor.at(browser, shopUrl(), { init: MICROPHONE + WATCH });
    held = await relayed(visitor.page);
    return visitor;
  };

  test("a break of three seconds is lived through, and she pays", async () => {
    const user = await visit();
    await order(user.page, "water");
    await user.start();
    await user.until("listening", 30_000);
    const { relay } = held;
    assert.ok(relay && relay.packets > 20, "what flows, flows through the relay");
    relay.cut = true;
    await new Promise((done) => setTimeout(done, 4_500));
    const meanwhile = await user.page.evaluate(() => window.seen.map((e) => e.state));
    relay.cut = false;
    await converse(user.page, { digits: "alice", answer: { voice: "alice", words: "yes" } });
    const told = await user.result(5_000);
    assert.equal(told.result, "paid", JSON.stringify(told));
    assert.ok(meanwhile.includes("reconnecting"), meanwhile.join());
  });

  test("who never comes back is given up, and nothing is charged", async () => {
    const user = await visit();
    await order(user.page, "power");
    await user.start();
    await user.until("listening", 30_000);
    const { relay } = held;
    assert.ok(relay);
    // Nor does ICE begin anew past the relay.
    await user.page.route("**/app/session/*", (route) => (route.request().method() === "PATCH" ? route.abort() : route.continue()));
    relay.cut = true;
    const begun = Date.now();
    await user.page.waitForFunction(() => window.seen.some((e) => e.type === "voicepay-result"), null, { timeout: 30_000 });
    const told = await user.result(5_000);
    assert.notEqual(told.result, "paid");
    assert.ok(Date.now() - begun < 16_000, `${Date.now() - begun} ms`);
  });
});
