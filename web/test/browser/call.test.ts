// Calls in a real browser: a microphone that speaks recordings, a service that speaks the protocol, and sound that really flows between them.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import { Answerer } from "../support/answerer.js";
import { App, launch, Visitor } from "../support/app.js";
import { FakeService, sleep, type Script, type Session } from "../support/fake.js";

const VOICES = new URL("../../../audio-fixtures/", import.meta.url).pathname;

const READ_BACK = "I will charge $19.99 to the card ending 2749, for City Water. To pay, say yes. To stop, say no.";
const PAID: Script = {
  steps: [
    { say: READ_BACK },
    { hearWithinMs: 8000 },
    { digits: "4 7 1 9" },
    { say: "Now please say 4 7 1 9.", forMs: 1500 },
    { hearWithinMs: 8000 },
    { think: 200 },
    { result: "paid", text: "Paid. $19.99, to City Water. Thank you.", reference: "VP-7Q2M" },
  ],
};
const SILENT: Script = {
  steps: [{ say: READ_BACK }, { hearWithinMs: 4500 }, { result: "paid", text: "must not happen", reference: null }],
  silent: [{ say: "Sorry, I did not hear anything." }, { result: "failed", text: "I am sorry, I could not finish this just now. Nothing was paid.", reference: null }],
};

function ends(result: string, text: string): Script {
  return { steps: [{ say: READ_BACK }, { hearWithinMs: 8000 }, { think: 100 }, { result, text, reference: null }] };
}

describe("with a microphone that says yes", () => {
  let browser: Browser;
  let service: FakeService;
  let app: App;
  let answerer: Answerer;
  let visitor: Visitor | null = null;

  before(async () => {
    browser = await launch(`${VOICES}alice/yes.wav`);
    service = new FakeService();
    await service.listen();
    app = new App(() => service.url);
    await app.listen();
    answerer = await Answerer.in(browser, `${app.origin}/empty`);
    service.answeredBy(answerer);
  });
  after(async () => {
    await browser.close();
    service.close();
    app.close();
  });
  afterEach(async () => {
    const violations = visitor ? await visitor.violations().catch(() => []) : [];
    await visitor?.close();
    visitor = null;
    service.refuseOffers = null;
    assert.deepEqual(violations, [], "the content security policy forbids nothing that the component does");
  });

  const visit = async (session: Session, attributes = "", options: Parameters<typeof Visitor.at>[2] = {}): Promise<Visitor> => {
    visitor = await Visitor.at(browser, `${app.origin}/pay?endpoint=${service.url}&token=${session.token}${attributes}`, options);
    return visitor;
  };

  test("a customer pays: amount, payee, captions, digits, level and result are shown, sound flows both ways", async () => {
    const session = service.open(app.origin, PAID);
    const user = await visit(session);
    await user.until("ready");
    assert.match(await user.text(), /City Water[\s\S]*\$19\.99/);
    assert.equal(session.state, "new", "looking uses nothing up");
    await user.start();
    await user.until("listening");
    const text = await user.text();
    assert.match(text, /Speak now/);
    assert.ok(text.includes(`Voicepay: ${READ_BACK}`), text);
    await user.page.locator("voicepay-confirm .digits .number").filter({ hasText: "4 7 1 9" }).waitFor();
    const levels: number[] = [];
    for (let n = 0; n < 12; n += 1) {
      levels.push(Number(await user.page.getByRole("meter", { name: "Your microphone" }).getAttribute("aria-valuenow")));
      await sleep(100);
    }
    const result = await user.result();
    assert.deepEqual({ ...result }, { type: "voicepay-result", result: "paid", text: "Paid. $19.99, to City Water. Thank you.", reference: "VP-7Q2M", fault: null });
    assert.ok(Math.max(...levels) > 20, `the meter moves: ${levels.join(" ")}`);
    assert.match(await user.text(), /Paid\n[\s\S]*Reference: VP-7Q2M/);
    assert.match(await user.text(), /You: \(spoke\)/);
    const heard = await answerer.heard(session.sid);
    assert.equal(heard.codec, "audio/opus");
    assert.ok(session.candidates.length > 0, "candidates were trickled");
    const states = (await user.seen()).filter((event) => event.type === "voicepay-state").map((event) => event.state);
    assert.deepEqual(states.slice(0, 5), ["ready", "asking", "connecting", "prompting", "listening"]);
    assert.equal(states.at(-1), "over");
    const live = await user.page.evaluate(() => {
      const audio = document.querySelector("voicepay-confirm")?.shadowRoot?.querySelector("audio");
      return { playing: audio?.paused === false, at: audio?.currentTime ?? 0 };
    });
    assert.ok(live.playing && live.at > 0, "the service's voice is played, the spoken result too");
    assert.equal(service.seen.filter((one) => one.method === "DELETE").length, 0, "a call that came to its end isn't left");
  });

  for (const [name, result, text, title] of [
    ["an impostor is refused", "refused", "I am sorry, I could not confirm this payment. Nothing was charged.", "Not confirmed"],
    ["a customer says no", "cancelled", "All right. Nothing was paid.", "Stopped"],
    ["the card is declined", "declined", "The card was declined. Nothing was charged.", "Declined"],
    ["somebody else has to agree", "waiting", "It is noted. Nothing was charged yet.", "Waiting for somebody else"],
  ] as const) {
    test(name, async () => {
      const user = await visit(service.open(app.origin, ends(result, text)));
      await user.start();
      const event = await user.result();
      assert.equal(event.result, result);
      assert.equal(event.fault, null);
      const shown = await user.text();
      assert.ok(shown.includes(title) && shown.includes(text), shown);
    });
  }

  test("the network is cut in the call and comes back: ICE restarts, the payment goes on", async () => {
    const session = service.open(app.origin, {
      steps: [{ say: READ_BACK, forMs: 9000 }, { hearWithinMs: 8000 }, { result: "paid", text: "Paid.", reference: "VP-1" }],
    });
    const user = await visit(session);
    await user.start();
    await user.until("prompting");
    await sleep(300);
    answerer.cut(session.sid, true);
    await user.context.setOffline(true);
    await user.until("reconnecting", 15_000);
    assert.match(await user.text(), /Connecting again/);
    await sleep(1000);
    await user.context.setOffline(false);
    const result = await user.result(30_000);
    assert.equal(result.result, "paid");
    assert.ok(session.restarts > 0, "ICE was restarted");
    const captions = (await user.text()).split(READ_BACK).length - 1;
    assert.equal(captions, 1, "what a stream tells again isn't shown again");
  });

  test("the network is cut and stays away: it says that the payment may be made, within the grace", async () => {
    const session = service.open(app.origin, { steps: [{ say: READ_BACK, forMs: 60_000 }] });
    const user = await visit(session);
    await user.start();
    await user.until("prompting");
    answerer.cut(session.sid, true);
    await user.context.setOffline(true);
    const result = await user.result(45_000);
    assert.deepEqual([result.result, result.fault], ["failed", "lost"]);
    assert.match(await user.text(), /Look at your order before you pay again/);
  });

  test("the service hangs up without a result: lost, in words", async () => {
    const user = await visit(service.open(app.origin, { steps: [{ say: READ_BACK }, { hangUp: true }] }));
    await user.start();
    const result = await user.result(30_000);
    assert.deepEqual([result.result, result.fault], ["failed", "lost"]);
  });

  test("the page is left: the service hears of it", async () => {
    const session = service.open(app.origin, { steps: [{ say: READ_BACK, forMs: 20_000 }] });
    const user = await visit(session);
    await user.start();
    await user.until("prompting");
    const leftAtMs = Date.now();
    await user.page.goto(`${app.origin}/empty`);
    while (!session.left && Date.now() - leftAtMs < 5000) await sleep(20);
    assert.ok(session.left, "DELETE came");
    assert.ok(Date.now() - leftAtMs < 2000, `after ${Date.now() - leftAtMs} ms`);
    visitor = null;
    await user.close();
  });

  test("the tab is closed: the service hears of it", async () => {
    const session = service.open(app.origin, { steps: [{ say: READ_BACK, forMs: 20_000 }] });
    const user = await visit(session);
    await user.start();
    await user.until("prompting");
    await user.page.close({ runBeforeUnload: true });
    for (let n = 0; n < 100 && !session.left; n += 1) await sleep(20);
    assert.ok(session.left, "DELETE came");
    visitor = null;
    await user.close();
  });

  test("stop: the service is told, and its last word shown", async () => {
    const session = service.open(app.origin, { steps: [{ say: READ_BACK, forMs: 20_000 }] });
    const user = await visit(session);
    await user.start();
    await user.until("prompting");
    await user.page.getByRole("button", { name: "Stop" }).click();
    const result = await user.result(5000);
    assert.deepEqual([result.result, result.text], ["cancelled", "All right. Nothing was paid."]);
    assert.ok(session.left);
  });

  test("the element is taken out of the page: the service is told", async () => {
    const session = service.open(app.origin, { steps: [{ say: READ_BACK, forMs: 20_000 }] });
    const user = await visit(session);
    await user.start();
    await user.until("prompting");
    await user.page.evaluate(() => {
      const element = document.querySelector("voicepay-confirm");
      // A move is no removal.
      if (element) document.querySelector("main")?.prepend(element);
    });
    await sleep(300);
    assert.equal(session.left, false);
    await user.page.evaluate(() => document.querySelector("voicepay-confirm")?.remove());
    for (let n = 0; n < 100 && !session.left; n += 1) await sleep(20);
    assert.ok(session.left);
  });

  test("keyboard only: Tab, Enter, keys of the keypad, Stop; the focus is never lost", async () => {
    const session = service.open(app.origin, { steps: [{ say: READ_BACK, forMs: 20_000 }] });
    const user = await visit(session);
    await user.until("ready");
    const focused = (): Promise<string> =>
      user.page.evaluate(() => {
        const inner = document.querySelector("voicepay-confirm")?.shadowRoot?.activeElement;
        return inner ? `${inner.tagName.toLowerCase()} ${inner.textContent?.slice(0, 6) ?? ""}` : "";
      });
    await user.page.keyboard.press("Tab");
    assert.equal(await focused(), "button Start");
    await user.page.keyboard.press("Enter");
    await user.until("prompting");
    assert.match(await focused(), /^section/, "the card has the focus that the hidden button lost");
    await user.page.getByText("Keypad").waitFor();
    await user.page.keyboard.press("Tab");
    assert.equal(await focused(), "button Stop");
    await user.page.keyboard.press("Tab");
    assert.match(await focused(), /^div/, "the captions can be scrolled");
    await user.page.keyboard.press("Tab");
    assert.match(await focused(), /^summary Keypad/);
    await user.page.keyboard.press("Enter");
    await user.page.keyboard.press("Tab");
    assert.equal(await focused(), "button 1");
    for (let n = 0; n < 3; n += 1) await user.page.keyboard.press("Shift+Tab");
    assert.equal(await focused(), "button Stop");
    await user.page.keyboard.press("Space");
    assert.equal((await user.result(5000)).result, "cancelled");
  });

  test("Chinese, by the session's language and by the attribute; hostile text stays text", async () => {
    const hostile = "<img src=x onerror=alert(1)>\u202eretaW";
    const session = service.open(app.origin, { steps: [{ say: "要付款，请说是。<b>x</b>" }, { hearWithinMs: 8000 }, { result: "paid", text: "付款成功。<i>谢谢</i>", reference: "VP-2" }] }, { language: "zh", payee: hostile, amountText: "19.99美元" });
    const user = await visit(session);
    await user.start();
    await user.result();
    const text = await user.text();
    assert.match(text, /语音确认付款[\s\S]*收款方[\s\S]*19\.99美元[\s\S]*付款成功[\s\S]*<i>谢谢<\/i>[\s\S]*参考号: VP-2/);
    assert.ok(text.includes("<img src=x onerror=alert(1)>retaW") && text.includes("<b>x</b>"), text);
    const inside = await user.page.evaluate(() => {
      const root = document.querySelector("voicepay-confirm")?.shadowRoot;
      return { lang: root?.querySelector("section")?.lang, made: root?.querySelectorAll("img, b, i").length };
    });
    assert.deepEqual(inside, { lang: "zh", made: 0 });
    await user.page.evaluate(() => document.querySelector("voicepay-confirm")?.setAttribute("lang", "en"));
    assert.match(await user.text(), /Confirm by voice/);
  });

  test("start() by the app, and events by their types", async () => {
    const session = service.open(app.origin, ends("paid", "Paid."));
    const user = await visit(session);
    await user.until("ready");
    await user.page.evaluate(async () => document.querySelector("voicepay-confirm")?.start());
    assert.equal((await user.result()).result, "paid");
    assert.equal(await user.page.evaluate(() => document.querySelector("voicepay-confirm")?.result?.result), "paid");
  });

  test("a token that was used (409), and one whose session says so", async () => {
    const session = service.open(app.origin, PAID);
    const user = await visit(session);
    await user.until("ready");
    service.refuseOffers = { status: 409, type: "used" };
    await user.start();
    const result = await user.result();
    assert.deepEqual([result.result, result.fault], ["failed", "used"]);
    assert.match(await user.text(), /already begun[\s\S]*Look at your order/);
    await user.close();
    session.state = "used";
    const again = await visit(session);
    assert.equal((await again.result()).fault, "used");
  });

  test("a busy service can be tried again with the same token", async () => {
    const session = service.open(app.origin, ends("paid", "Paid."));
    const user = await visit(session);
    service.refuseOffers = { status: 503, type: "unavailable" };
    await user.start();
    await user.until("blocked");
    assert.match(await user.text(), /busy/);
    service.refuseOffers = null;
    await user.page.getByRole("button", { name: "Try again" }).click();
    assert.equal((await user.result()).result, "paid");
  });
});

test("nobody speaks: the silence is told of, and nothing is paid", async () => {
  const browser = await launch(`${VOICES}nobody/silence.wav`);
  const service = new FakeService();
  await service.listen();
  const app = new App(() => service.url);
  await app.listen();
  try {
    service.answeredBy(await Answerer.in(browser, `${app.origin}/empty`));
    const session = service.open(app.origin, SILENT);
    const user = await Visitor.at(browser, `${app.origin}/pay?endpoint=${service.url}&token=${session.token}`);
    await user.start();
    await user.page.getByText("Nothing comes from your microphone. Is it muted?").waitFor({ timeout: 10_000 });
    const result = await user.result();
    assert.equal(result.result, "failed");
    assert.match(await user.text(), /Sorry, I did not hear anything/);
  } finally {
    await browser.close();
    service.close();
    app.close();
  }
});
