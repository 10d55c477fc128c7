// A narrow or a bad network between page and service: Opus at as few and as many bits as pages ask for, and one packet in ten lost each way. What she
// says is understood in all of it; where the voice is known, too, it is paid.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import { launch, Visitor } from "../support/app.js";
import { converse, MICROPHONE } from "../support/person.js";
import { relayed } from "../support/relay.js";
import { order, shopUrl, WATCH } from "../support/shop.js";

/** Both ends send no more than this: RFC 7587 section 6.1. */
const atMost = (bps: number) => (sdp: string): string => sdp.replace(/^(a=fmtp:\d+ .*useinbandfec=1.*)$/m, (line) => `${line.trimEnd()};maxaveragebitrate=${bps}`);

describe("over a narrow or bad network", () => {
  let browser: Browser;
  before(async () => {
    browser = await launch(null);
  });
  after(async () => {
    await browser.close();
  });

  // The goal is 6 kbit/s, and 10 % lost. Where the voice is not known yet, she is refused (docs/APP.md): those fail without failing the run.
  for (const { bps, loss, known } of [
    { bps: 64_000, loss: 0, known: true },
    { bps: 12_000, loss: 0, known: true },
    { bps: 8_000, loss: 0, known: true },
    { bps: 6_000, loss: 0, known: false },
    { bps: 24_000, loss: 0.1, known: true },
    { bps: 12_000, loss: 0.1, known: false },
    { bps: 6_000, loss: 0.1, known: false },
  ]) {
    test(`${bps / 1_000} kbit/s, ${loss * 100} % lost: she is known, understood and pays`, { todo: known ? false : "her voice is not known at this rate" }, async () => {
      const user = await Visitor.at(browser, shopUrl(), { init: MICROPHONE + WATCH });
      const held = await relayed(user.page, { offer: atMost(bps), answer: atMost(bps) });
      try {
        await order(user.page, "water");
        await user.start();
        // From the first packet on, the handshake's too.
        await user.page.waitForResponse((response) => response.url().endsWith("/app/session") && response.request().method() === "POST");
        if (held.relay) held.relay.loss = loss;
        await user.until("listening", 40_000);
        const begun = { at: Date.now(), up: held.relay?.bytes.up ?? 0, down: held.relay?.bytes.down ?? 0 };
        await converse(user.page, { digits: "alice", answer: { voice: "alice", words: "yes" } });
        const seconds = (Date.now() - begun.at) / 1_000;
        const rate = (bytes: number): number => Math.round((bytes * 8) / seconds / 100) / 10;
        const told = await user.result(10_000);
        console.log(`${bps / 1_000} kbit/s, ${loss * 100} % lost: ${told.result}; on the wire, with RTP, SRTP and RTCP, ${rate((held.relay?.bytes.up ?? 0) - begun.up)} kbit/s up, ${rate((held.relay?.bytes.down ?? 0) - begun.down)} down`);
        assert.equal(told.result, "paid", JSON.stringify(told));
      } finally {
        await user.close();
        held.relay?.close();
      }
    });
  }
});
