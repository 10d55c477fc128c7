// How it looks and whether everybody can use it: axe in each state, light and dark; pictures in shots/ for people to look at.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import { Answerer } from "../support/answerer.js";
import { App, launch, Visitor } from "../support/app.js";
import { FakeService, type Script } from "../support/fake.js";

declare const axe: { run(context: unknown, options: unknown): Promise<{ violations: { id: string; help: string; nodes: { html: string; failureSummary: string }[] }[]; passes: unknown[] }> };

const AXE = readFileSync("node_modules/axe-core/axe.min.js", "utf8");
const VOICES = new URL("../../../audio-fixtures/", import.meta.url).pathname;

const ASKED: Script = {
  steps: [
    { say: "I will charge $19.99 to the card ending 2749, for City Water. To pay, say yes. To stop, say no." },
    { hearWithinMs: 8000 },
    { digits: "4 7 1 9" },
    { say: "Now please say 4 7 1 9.", forMs: 60_000 },
  ],
};
const PAID: Script = { steps: [{ say: "To pay, say yes." }, { hearWithinMs: 8000 }, { result: "paid", text: "Paid. $19.99, to City Water. Thank you.", reference: "VP-7Q2M" }] };
const PAID_ZH: Script = { steps: [{ say: "我将向城市自来水，支付19.99美元。要付款，请说是。" }, { hearWithinMs: 8000 }, { result: "paid", text: "付款成功。19.99美元，付给城市自来水。谢谢。", reference: "VP-7Q2M" }] };
const REFUSED: Script = { steps: [{ say: "To pay, say yes." }, { hearWithinMs: 8000 }, { result: "refused", text: "I am sorry, I could not confirm this payment. Nothing was charged. Please try again later, or pay in another way.", reference: null }] };

interface Look {
  readonly name: string;
  readonly script: Script;
  readonly until: "ready" | "digits" | "over" | "used" | "mic-refused";
  readonly zh?: boolean;
  readonly width?: number;
}

const LOOKS: readonly Look[] = [
  { name: "ready", script: ASKED, until: "ready" },
  { name: "digits", script: ASKED, until: "digits" },
  { name: "paid", script: PAID, until: "over" },
  { name: "refused", script: REFUSED, until: "over" },
  { name: "used", script: ASKED, until: "used" },
  { name: "mic-refused", script: ASKED, until: "mic-refused" },
  { name: "ready-zh", script: PAID_ZH, until: "ready", zh: true },
  { name: "paid-zh", script: PAID_ZH, until: "over", zh: true },
  { name: "digits-320", script: ASKED, until: "digits", width: 320 },
];

describe("looks", () => {
  let browser: Browser;
  let service: FakeService;
  let app: App;

  before(async () => {
    mkdirSync("shots", { recursive: true });
    browser = await launch(`${VOICES}alice/yes.wav`);
    service = new FakeService();
    await service.listen();
    app = new App(() => service.url);
    await app.listen();
    service.answeredBy(await Answerer.in(browser, `${app.origin}/empty`));
  });
  after(async () => {
    await browser.close();
    service.close();
    app.close();
  });

  const arrive = async (look: Look, options: Parameters<typeof Visitor.at>[2]): Promise<Visitor> => {
    const given = look.zh ? { language: "zh", payee: "城市自来水", amountText: "19.99美元" } : {};
    const session = service.open(app.origin, look.script, given);
    if (look.until === "used") session.state = "used";
    const user = await Visitor.at(browser, `${app.origin}/pay?endpoint=${service.url}&token=${session.token}`, { ...options, microphone: look.until === "mic-refused" ? "refused" : "allowed" });
    switch (look.until) {
      case "ready":
        await user.until("ready");
        break;
      case "used":
        await user.until("over");
        break;
      case "mic-refused":
        await user.start();
        await user.until("blocked");
        break;
      case "digits":
        await user.start();
        await user.page.locator("voicepay-confirm .digits .number").filter({ hasText: "4 7 1 9" }).waitFor();
        await user.page.getByText("Keypad").click();
        break;
      case "over":
        await user.start();
        await user.result();
        break;
    }
    return user;
  };

  for (const dark of [false, true]) {
    for (const look of LOOKS) {
      const name = `${look.name}-${dark ? "dark" : "light"}`;
      test(`${name}: no violation of WCAG 2.2 AA that axe knows`, async () => {
        const user = await arrive(look, { dark, ...(look.width ? { width: look.width } : {}) });
        await user.page.screenshot({ path: `shots/${name}.png` });
        await user.page.evaluate(AXE);
        const found = await user.page.evaluate(async () => {
          const { violations, passes } = await axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] });
          return { passes: passes.length, violations: violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => `${node.html} ${node.failureSummary}`).join(" | ")}`) };
        });
        assert.deepEqual(found.violations, []);
        assert.ok(found.passes > 15, "axe looked at something");
        const wide = await user.page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        assert.equal(wide, false, "nothing has to be scrolled sideways");
        const small = await user.page.evaluate(() =>
          [...(document.querySelector("voicepay-confirm")?.shadowRoot?.querySelectorAll("button, summary") ?? [])]
            .map((element) => element.getBoundingClientRect())
            .filter((box) => box.width > 0 && (box.width < 44 || box.height < 44)).length,
        );
        assert.equal(small, 0, "each target is at least 44 px wide and high");
        await user.close();
      });
    }
  }

  test("forced colours and reduced motion", async () => {
    const look = LOOKS[1];
    assert.ok(look);
    const user = await arrive(look, { forced: true, reduced: true });
    await user.page.screenshot({ path: "shots/digits-forced.png" });
    const moving = await user.page.evaluate(() => document.querySelector("voicepay-confirm")?.shadowRoot?.getAnimations().length);
    assert.equal(moving, 0);
    await user.close();
  });

  test("a theme and colours that the app asks for win over the system's", async () => {
    const session = service.open(app.origin, ASKED);
    const user = await Visitor.at(browser, `${app.origin}/pay?theme=dark&endpoint=${service.url}&token=${session.token}`);
    await user.until("ready");
    const background = (): Promise<string> => user.page.locator("voicepay-confirm section").evaluate((element) => getComputedStyle(element).backgroundColor);
    assert.equal(await background(), "rgb(21, 25, 30)");
    await user.page.evaluate(() => document.querySelector("voicepay-confirm")?.style.setProperty("--voicepay-background", "rgb(1, 2, 3)"));
    assert.equal(await background(), "rgb(1, 2, 3)");
    await user.close();
  });
});
