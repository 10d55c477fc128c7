// Another browser: Firefox from Debian, by WebDriver BiDi. One paying call. Its AudioContext, which plays what is said into the microphone, begins only where there
// is an audio device: scripts/browser-test.sh starts PulseAudio with one that is silent.

import assert from "node:assert/strict";
import { test } from "node:test";
import { launch } from "puppeteer-core";
import { converse, MICROPHONE, type Page } from "../support/person.js";
import { shopUrl, WATCH } from "../support/shop.js";

const skip = process.env["VOICEPAY_FIREFOX"] ? false : "VOICEPAY_FIREFOX is not set: no Firefox";

test("a customer confirms in Firefox", { skip }, async () => {
  const browser = await launch({
    browser: "firefox",
    executablePath: process.env["VOICEPAY_FIREFOX"] ?? "/usr/bin/firefox-esr",
    headless: true,
    extraPrefsFirefox: {
      "media.navigator.permission.disabled": true,
      "media.navigator.streams.fake": true,
      "media.autoplay.default": 0,
      "media.autoplay.block-webaudio": false,
      // A machine without a network has only the loopback's addresses.
      "media.peerconnection.ice.loopback": true,
      "media.peerconnection.ice.obfuscate_host_addresses": false,
      // No machine of a test asks anybody outside.
      "network.proxy.type": 0,
      "app.update.enabled": false,
      "datareporting.policy.dataSubmissionEnabled": false,
    },
  });
  try {
    const page = await browser.newPage();
    await page.evaluateOnNewDocument(MICROPHONE + WATCH);
    await page.goto(shopUrl());
    await page.click("form button[type=submit]");
    await page.waitForFunction(() => document.querySelector("voicepay-confirm")?.state === "ready", { timeout: 15_000 });
    // A real click: sound may begin only in a page that was touched.
    await page.locator("voicepay-confirm >>> button[part=start]").click();
    await page.waitForFunction(() => document.querySelector("voicepay-confirm")?.state === "listening", { timeout: 40_000 }).catch(async () => {
      throw new Error(`it stays at ${await page.evaluate(() => document.querySelector("voicepay-confirm")?.shadowRoot?.querySelector("section")?.innerText ?? "nothing")}`);
    });
    // Puppeteer types what goes into a page more strictly than it is used here.
    await converse(page as unknown as Page, { digits: "alice", answer: { voice: "alice", words: "yes" } });
    const seen = await page.evaluate(() => window.seen);
    const told = seen.find((event) => event.type === "voicepay-result");
    assert.equal(told?.result, "paid", JSON.stringify(told));
  } finally {
    await browser.close();
  }
});
