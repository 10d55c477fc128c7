// Other voices before Alice's page. Failed factors count for a day and close the line for everybody who calls as Alice: scripts/test.mjs runs these last.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import { launch, Visitor } from "../support/app.js";
import { converse, MICROPHONE } from "../support/person.js";
import { order, shopUrl, WATCH } from "../support/shop.js";

describe("in another voice", () => {
  let browser: Browser;
  let user: Visitor;
  before(async () => {
    browser = await launch(null);
  });
  after(async () => {
    await browser.close();
  });
  afterEach(async () => {
    await user.close();
  });

  test("another voice's yes pays nothing: whether it passes for hers or not, nobody says her digits", async () => {
    user = await Visitor.at(browser, shopUrl(), { init: MICROPHONE + WATCH });
    await order(user.page, "power");
    await user.start();
    await converse(user.page, { digits: null, answer: { voice: "mallory", words: "yes" } }, 180_000);
    const { result: came } = await user.result(5_000);
    assert.ok(came === "refused" || came === "failed", came);
  });

  test("her own yes and another's digits pay nothing", async () => {
    user = await Visitor.at(browser, shopUrl(), { init: MICROPHONE + WATCH });
    await order(user.page, "power");
    await user.start();
    await converse(user.page, { digits: "mallory", answer: { voice: "alice", words: "yes" } }, 180_000);
    assert.equal((await user.result(5_000)).result, "refused");
  });

  test("an impostor who knows everything is refused", async () => {
    user = await Visitor.at(browser, shopUrl(), { init: MICROPHONE + WATCH });
    await order(user.page, "power");
    await user.start();
    await converse(user.page, { digits: "mallory", answer: { voice: "mallory", words: "yes" } }, 180_000);
    assert.equal((await user.result(5_000)).result, "refused");
  });
});
