// Twenty calls at once in one browser, beside the service on the same machine: all connect, and what each hears has no holes.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import { launch, Visitor } from "../support/app.js";
import { MICROPHONE } from "../support/person.js";
import { order, shopUrl, WATCH } from "../support/shop.js";

const CALLS = Number(process.env["VOICEPAY_CALLS"] ?? "20");
// Keeps the page's connection, for its statistics.
const PEERS = `(() => { const Real = RTCPeerConnection; window.peers = []; window.RTCPeerConnection = class extends Real { constructor(...all) { super(...all); window.peers.push(this); } }; })();`;

interface Heard {
  readonly received: number;
  readonly lost: number;
  readonly concealed: number;
  readonly samples: number;
  readonly firstMs: number;
}

declare global {
  interface Window {
    peers: RTCPeerConnection[];
  }
}

describe("at once", () => {
  let browser: Browser;
  before(async () => {
    browser = await launch(null);
  });
  after(async () => {
    await browser.close();
  });

  test(`${CALLS} pages call, and hear the service without holes`, async () => {
    const visitors: Visitor[] = [];
    try {
      for (let n = 0; n < CALLS; n += 1) {
        const user = await Visitor.at(browser, shopUrl(), { init: MICROPHONE + WATCH + PEERS });
        visitors.push(user);
        await order(user.page, "power");
        await user.start();
        await new Promise((done) => setTimeout(done, 900));
      }
      for (const user of visitors) await user.page.waitForFunction(() => window.peers[0]?.connectionState === "connected", null, { timeout: 30_000 });
      await new Promise((done) => setTimeout(done, 8_000));
      const heard: Heard[] = [];
      for (const user of visitors) {
        heard.push(
          await user.page.evaluate(async () => {
            const stats = [...((await window.peers[0]?.getStats())?.values() ?? [])];
            const audio = stats.find((s) => s.type === "inbound-rtp" && s.kind === "audio") ?? {};
            return {
              received: Number(audio.packetsReceived ?? 0),
              lost: Number(audio.packetsLost ?? 0),
              concealed: Number(audio.concealedSamples ?? 0) - Number(audio.silentConcealedSamples ?? 0),
              samples: Number(audio.totalSamplesReceived ?? 0),
              firstMs: Number(window.marks["prompting"] ?? Number.NaN) - Number(window.marks["asked"] ?? Number.NaN),
            };
          }),
        );
      }
      const share = heard.map((h) => h.concealed / Math.max(1, h.samples)).sort((a, b) => a - b);
      console.log("heard", JSON.stringify({ calls: CALLS, least: Math.min(...heard.map((h) => h.received)), lost: heard.reduce((n, h) => n + h.lost, 0), concealedWorst: share.at(-1), firsts: heard.map((h) => Math.round(h.firstMs)).sort((a, b) => a - b) }));
      assert.ok(heard.every((h) => h.received > 200), "each hears 50 packets a second");
      assert.equal(heard.reduce((n, h) => n + h.lost, 0), 0, "no packet is missing");
      assert.ok((share.at(-1) ?? 1) < 0.02, `at most 2 % of what is heard is made up: ${share.at(-1)}`);
    } finally {
      for (const user of visitors) await user.close();
    }
  });
});
