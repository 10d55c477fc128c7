// How long people wait, as their page sees it, on a machine that does nothing else: from Start until the service is heard, from the end of what they say to
// the end point, and from there to the verdict. One page at a time. Figures are printed; the bounds are the product's goals.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import { launch, Visitor } from "../support/app.js";
import { EAR } from "../support/ear.js";
import { converse, MICROPHONE } from "../support/person.js";
import { order, shopUrl, WATCH } from "../support/shop.js";

const STARTS = Number(process.env["VOICEPAY_STARTS"] ?? "20");
const PAYMENTS = Number(process.env["VOICEPAY_PAYMENTS"] ?? "5");
const FIRST_HEARD_P50_MS = 600;
const VERDICT_MS = 300;

/** At or above so many percent of them. */
function percentile(of: readonly number[], percent: number): number {
  const sorted = [...of].sort((a, b) => a - b);
  return Math.round(sorted[Math.min(sorted.length - 1, Math.ceil((sorted.length * percent) / 100) - 1)] ?? Number.NaN);
}

const summary = (of: readonly number[]): string => `n ${of.length}, p50 ${percentile(of, 50)}, p90 ${percentile(of, 90)}, most ${percentile(of, 100)} ms`;

describe("how long people wait", () => {
  let browser: Browser;
  before(async () => {
    browser = await launch(null);
  });
  after(async () => {
    await browser.close();
  });

  test(`from Start to the first sound of the service (${STARTS} calls)`, async () => {
    const heard: number[] = [];
    const told: number[] = [];
    for (let n = 0; n < STARTS; n += 1) {
      const user = await Visitor.at(browser, shopUrl(), { init: MICROPHONE + WATCH + EAR });
      try {
        await order(user.page, "power");
        await user.start();
        await user.page.waitForFunction(() => window.marks["heard"] !== undefined, null, { timeout: 20_000, polling: 50 });
        const marks = await user.page.evaluate(() => window.marks);
        const since = (mark: string): number => (marks[mark] ?? Number.NaN) - (marks["asked"] ?? Number.NaN);
        heard.push(since("heard"));
        told.push(since("prompting"));
        await user.page.getByRole("button", { name: "Stop" }).click();
        await user.result(5_000);
      } finally {
        await user.close();
      }
    }
    console.log(`told: ${summary(told)}`);
    console.log(`heard: ${summary(heard)}`);
    assert.ok(percentile(heard, 50) <= FIRST_HEARD_P50_MS, `p50 ${percentile(heard, 50)} ms`);
  });

  test(`from the end point to the verdict (${PAYMENTS} payments)`, async () => {
    const yes: number[] = [];
    const result: number[] = [];
    const whole: number[] = [];
    for (let n = 0; n < PAYMENTS; n += 1) {
      const user = await Visitor.at(browser, shopUrl(), { init: MICROPHONE + WATCH });
      try {
        await order(user.page, "water");
        await user.start();
        await converse(user.page, { digits: "alice", answer: { voice: "alice", words: "yes" } });
        const told = await user.result(5_000);
        assert.equal(told.result, "paid", JSON.stringify(told));
        const seen = await user.seen();
        const spoke = (await user.page.evaluate(() => window.marks["spoke"])) ?? Number.NaN;
        const thinking = seen.flatMap((event, index) => (event.state === "thinking" ? [index] : []));
        const between = (index: number, later: (type: string, state: string) => boolean): number => {
          const then = seen.slice(index).find((event) => later(event.type, event.state ?? ""));
          return (then?.at ?? Number.NaN) - (seen[index]?.at ?? Number.NaN);
        };
        yes.push(between(thinking[0] ?? 0, (_, state) => state === "prompting"));
        result.push(between(thinking.at(-1) ?? 0, (type) => type === "voicepay-result"));
        whole.push((told.at ?? Number.NaN) - spoke);
      } finally {
        await user.close();
      }
    }
    console.log(`digits asked for after the yes's end point: ${summary(yes)}`);
    console.log(`result after the digits' end point, charge included: ${summary(result)}`);
    console.log(`result after the last sound of the digits' recording: ${summary(whole)}`);
    assert.ok(percentile(yes, 50) <= VERDICT_MS, `yes: p50 ${percentile(yes, 50)} ms`);
    assert.ok(percentile(result, 50) <= VERDICT_MS, `digits: p50 ${percentile(result, 50)} ms`);
  });
});
