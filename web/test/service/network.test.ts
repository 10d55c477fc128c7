// The page's network goes away in the middle of a call: for a moment, and for good. A relay stands between page and service, put into the answer as it passes.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import { launch, Visitor } from "../support/app.js";
import { converse, MICROPHONE } from "../support/person.js";
import { Relay } from "../support/relay.js";
import { order, shopUrl, WATCH } from "../support/shop.js";

describe("over a network that goes away", () => {
  let browser: Browser;
  let visitor: Visitor | null = null;
  let relay: Relay | null = null;

  before(async () => {
    browser = await launch(null);
  });
  after(async () => {
    await browser.close();
  });
  afterEach(async () => {
    await visitor?.close();
    relay?.close();
    visitor = relay = null;
  });

  const visit = async (): Promise<Visitor> => {
    visitor = await Visitor.at(browser, shopUrl(), { init: MICROPHONE + WATCH });
    await visitor.page.route("**/app/session", async (route) => {
      if (route.request().method() !== "POST") return route.continue();
      const response = await route.fetch();
      const answer = await response.text();
      const port = /a=candidate:\S+ \d+ udp \d+ \S+ (\d+) typ host/i.exec(answer)?.[1];
      if (!port) throw new Error(`no candidate in ${answer}`);
      relay = await Relay.to(Number(port), "127.0.0.1");
      return route.fulfill({ response, body: answer.replaceAll(` ${port} typ`, ` ${relay.port} typ`) });
    });
    return visitor;
  };

  test("a break of three seconds is lived through, and she pays", async () => {
    const user = await visit();
    await order(user.page, "water");
    await user.start();
    await user.until("listening", 30_000);
    assert.ok(relay && relay.packets > 20, "what flows, flows through the relay");
    relay.cut = true;
    await new Promise((done) => setTimeout(done, 4_500));
    const meanwhile = await user.page.evaluate(() => window.seen.map((e) => e.state));
    relay.cut = false;
    await converse(user.page, { digits: "alice", answer: "alice/yes" });
    const told = await user.result(5_000);
    assert.equal(told.result, "paid", JSON.stringify(told));
    assert.ok(meanwhile.includes("reconnecting"), meanwhile.join());
  });

  test("who never comes back is given up, and nothing is charged", async () => {
    const user = await visit();
    await order(user.page, "power");
    await user.start();
    await user.until("listening", 30_000);
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
