// Twenty calls at once in one browser, five to a page (twenty pages would keep this machine busy with drawing, and to one service a page has six connections, of
// which each call's events take one), beside the service on the same machine: all connect, what each hears and says has no holes, and what that costs the service
// (VOICEPAY_DEMO_PID) while it speaks and listens.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import { launch, Visitor } from "../support/app.js";
import { PEERS } from "../support/peers.js";
import { MICROPHONE } from "../support/person.js";
import { shopUrl, WATCH } from "../support/shop.js";

const PAGES = 4;
const CALLS_A_PAGE = 5;
const CALLS = PAGES * CALLS_A_PAGE;
/** From one Start to the next, in milliseconds. */
const START_MS = 500;
/** After the last Start: the browser sets up its connections, and finds how long its jitter buffers have to be; in milliseconds. */
const SETTLE_MS = 4_000;
/** For how long all are up together before it is counted, in milliseconds. */
const TOGETHER_MS = 10_000;
/** Of a core, for one call. */
const CPU_PERCENT = 3;
/** Linux counts processor time in these a second. */
const TICKS_A_SECOND = 100;

interface Heard {
  readonly received: number;
  readonly lost: number;
  readonly lostUp: number;
  readonly concealed: number;
  readonly samples: number;
  /** Between packets, as the page sees it, in seconds (RFC 3550 section 6.4.1). */
  readonly jitter: number;
}

/** Processor time that the service has used so far, in seconds; NaN where its process is not known. */
function processorSeconds(): number {
  const pid = process.env["VOICEPAY_DEMO_PID"];
  if (!pid) return Number.NaN;
  // The second field, a name in brackets, may hold spaces.
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
}

/** One call's statistics, by its place. */
function inPage(n: number): Promise<Heard> {
  return (async () => {
    const stats = [...((await window.peers[n]?.getStats())?.values() ?? [])];
    const audio = stats.find((s) => s.type === "inbound-rtp" && s.kind === "audio") ?? {};
    const said = stats.find((s) => s.type === "remote-inbound-rtp" && s.kind === "audio") ?? {};
    return {
      received: Number(audio.packetsReceived ?? 0),
      lost: Number(audio.packetsLost ?? 0),
      lostUp: Number(said.packetsLost ?? Number.NaN),
      concealed: Number(audio.concealedSamples ?? 0) - Number(audio.silentConcealedSamples ?? 0),
      samples: Number(audio.totalSamplesReceived ?? 0),
      jitter: Number(audio.jitter ?? Number.NaN),
    };
  })();
}

/** Makes another payment and its component, as the shop does, and presses Start. */
function another(): Promise<void> {
  return (async () => {
    const order = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ item: "power", language: "en" }) };
    const response = await fetch("/shop/session", order);
    if (!response.ok) throw new Error(`the shop answered ${response.status}: ${await response.text()}`);
    const element = document.createElement("voicepay-confirm");
    element.token = ((await response.json()) as { token: string }).token;
    document.body.append(element);
    while (element.state !== "ready") await new Promise((done) => setTimeout(done, 20));
    element.shadowRoot?.querySelector<HTMLButtonElement>("button[part=start]")?.click();
  })();
}

describe("at once", () => {
  let browser: Browser;
  before(async () => {
    browser = await launch(null);
  });
  after(async () => {
    await browser.close();
  });

  test(`${CALLS} calls, that hear and are heard without holes`, async () => {
    const users: Visitor[] = [];
    try {
      for (let n = 0; n < PAGES; n += 1) users.push(await Visitor.at(browser, shopUrl(), { reduced: true, init: MICROPHONE + WATCH + PEERS }));
      for (let n = 0; n < CALLS_A_PAGE; n += 1) {
        for (const user of users) {
          await user.page.evaluate(another);
          await new Promise((done) => setTimeout(done, START_MS));
        }
      }
      for (const user of users) {
        await user.page.waitForFunction((calls) => window.peers.filter((peer) => peer.connectionState === "connected").length === calls, CALLS_A_PAGE, { timeout: 20_000 });
      }
      await new Promise((done) => setTimeout(done, SETTLE_MS));
      const all = async (): Promise<Heard[]> => (await Promise.all(users.map((user) => Promise.all(Array.from({ length: CALLS_A_PAGE }, (_, n) => user.page.evaluate(inPage, n)))))).flat();
      const before = await all();
      const [begun, used] = [performance.now(), processorSeconds()];
      await new Promise((done) => setTimeout(done, TOGETHER_MS));
      const cpu = ((processorSeconds() - used) * 1_000 * 100) / (performance.now() - begun) / CALLS;
      const heard = await all();
      const states = (await Promise.all(users.map((user) => user.page.evaluate(() => window.peers.map((peer) => peer.connectionState))))).flat();
      const madeUp = heard.map((h, n) => (h.concealed - (before[n]?.concealed ?? 0)) / Math.max(1, h.samples - (before[n]?.samples ?? 0))).sort((a, b) => a - b);
      const percent = (share: number | undefined): string => `${((share ?? Number.NaN) * 100).toFixed(2)} %`;
      console.log(
        `${CALLS} calls, ${TOGETHER_MS / 1_000} s of them together: lost ${heard.reduce((n, h) => n + h.lost, 0)} packets down, ${heard.reduce((n, h) => n + h.lostUp, 0)} up; made up by the browser ` +
          `${percent(madeUp[Math.floor(CALLS / 2)])} (median), ${percent(madeUp.at(-1))} (worst); jitter ${Math.round(Math.max(...heard.map((h) => h.jitter)) * 1_000)} ms (worst); the service: ${cpu.toFixed(2)} % of a core a call`,
      );
      const up = (of: readonly Heard[]): string => of.map((h) => h.lostUp).join(" ");
      console.log(`lost up, a call: ${up(before)} before it was counted, ${up(heard)} after it`);
      assert.ok(states.every((state) => state === "connected"), states.join());
      const least = TOGETHER_MS / 20 - 25;
      assert.ok(heard.every((h, n) => h.received - (before[n]?.received ?? 0) >= least), "each hears 50 packets a second");
      assert.equal(heard.reduce((n, h) => n + h.lost + h.lostUp, 0), 0, "no packet is missing, either way");
      assert.ok((madeUp.at(-1) ?? 1) < 0.02, `at most 2 % of what is heard is made up: ${madeUp.at(-1)}`);
      if (!Number.isNaN(cpu)) assert.ok(cpu <= CPU_PERCENT, `${cpu} % of a core a call`);
    } finally {
      for (const user of users) await user.close();
    }
  });
});
