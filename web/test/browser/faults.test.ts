// What can't be done, told in words: no microphone, no right to one, no secure page, no WebRTC, no network, another origin.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import { App, launch, Visitor } from "../support/app.js";
import { FakeService, type Script } from "../support/fake.js";

const NOTHING: Script = { steps: [] };

describe("without a call", () => {
  let browser: Browser;
  let service: FakeService;
  let app: App;
  let visitor: Visitor | null = null;

  before(async () => {
    // No microphone at all.
    browser = await launch(null);
    service = new FakeService();
    await service.listen();
    app = new App(() => service.url);
    await app.listen();
  });
  after(async () => {
    await browser.close();
    service.close();
    app.close();
  });
  afterEach(async () => {
    await visitor?.close();
    visitor = null;
  });

  const visit = async (token: string, origin = app.origin, options: Parameters<typeof Visitor.at>[2] = {}): Promise<Visitor> => {
    visitor = await Visitor.at(browser, `${origin}/pay?endpoint=${service.url}&token=${token}`, options);
    return visitor;
  };

  test("no microphone: it says so, and the token is still good", async () => {
    const session = service.open(app.origin, NOTHING);
    const user = await visit(session.token);
    await user.start();
    await user.until("blocked");
    assert.match(await user.text(), /There is no microphone\.[\s\S]*Connect one[\s\S]*Try again/);
    assert.equal((await user.seen()).at(-1)?.fault, "mic-missing");
    assert.equal(session.state, "new");
    assert.equal(await user.page.evaluate(() => document.activeElement?.tagName), "VOICEPAY-CONFIRM", "the focus stays in the component");
  });

  test("the page is not secure: it says so before anything is asked", async () => {
    const origin = `http://shop.test:${app.port}`;
    const user = await visit(service.open(origin, NOTHING).token, origin);
    assert.equal((await user.result()).fault, "insecure");
    assert.match(await user.text(), /begins with https/);
    assert.equal(await user.page.getByRole("button").count(), 0);
  });

  test("a browser without WebRTC", async () => {
    const user = await visit(service.open(app.origin, NOTHING).token, app.origin, { init: "delete globalThis.RTCPeerConnection" });
    assert.equal((await user.result()).fault, "unsupported");
    assert.match(await user.text(), /This browser can’t make voice calls/);
  });

  test("another origin: no answer that a page can read (CORS), yet it is told apart from a lost network", async () => {
    const session = service.open(app.origin, NOTHING);
    const user = await visit(session.token, `http://localhost:${app.port}`);
    assert.equal((await user.result()).fault, "wrong-origin");
    assert.match(await user.text(), /may not ask for this payment[\s\S]*Don’t pay here/);
  });

  test("another origin that another session allows: 403", async () => {
    const elsewhere = `http://localhost:${app.port}`;
    const session = service.open(app.origin, NOTHING);
    const other = service.open(elsewhere, NOTHING);
    const user = await visit(session.token, elsewhere);
    assert.equal((await user.result()).fault, "wrong-origin");
    assert.ok(service.seen.some((one) => one.path === "/app/session" && one.status === 403));
    service.sessions.delete(other.token);
  });

  test("a token that nobody knows, and one that is too old", async () => {
    service.open(app.origin, NOTHING);
    const user = await visit("tok_unknown");
    assert.equal((await user.result()).fault, "expired");
    await user.close();
    const old = await visit(service.open(app.origin, NOTHING, { state: "expired" }).token);
    assert.equal((await old.result()).fault, "expired");
    assert.match(await old.text(), /waited for too long/);
  });

  test("no network: try again goes on where it stopped", async () => {
    const session = service.open(app.origin, NOTHING);
    const user = await visit(session.token);
    await user.until("ready");
    await user.context.setOffline(true);
    await user.page.evaluate(() => {
      const element = document.querySelector("voicepay-confirm");
      if (element) element.token = element.token;
    });
    await user.until("blocked");
    assert.match(await user.text(), /can’t be reached/);
    await user.context.setOffline(false);
    await user.page.getByRole("button", { name: "Try again" }).click();
    // It gets as far as the microphone, which isn't there.
    await user.page.getByText("There is no microphone.").waitFor();
    assert.match(await user.text(), /City Water/);
  });

  test("a page without a token waits for one; an endpoint in the clear is refused", async () => {
    const user = await visit("");
    await user.until("loading");
    const session = service.open(app.origin, NOTHING);
    await user.page.evaluate((token) => {
      const element = document.querySelector("voicepay-confirm");
      if (element) element.token = token;
    }, session.token);
    await user.until("ready");
    await user.page.evaluate(() => document.querySelector("voicepay-confirm")?.setAttribute("endpoint", "http://pay.example"));
    assert.equal((await user.result()).fault, "setup");
  });
});

test("the microphone is refused: it says where to allow it", async () => {
  const browser = await launch("/dev/null");
  const service = new FakeService();
  await service.listen();
  const app = new App(() => service.url);
  await app.listen();
  try {
    const session = service.open(app.origin, NOTHING);
    const user = await Visitor.at(browser, `${app.origin}/pay?endpoint=${service.url}&token=${session.token}`, { microphone: "refused" });
    await user.start();
    await user.until("blocked");
    assert.match(await user.text(), /not allowed\.[\s\S]*browser’s settings[\s\S]*Try again/);
    assert.equal((await user.seen()).at(-1)?.fault, "mic-refused");
    assert.equal(session.state, "new");
  } finally {
    await browser.close();
    service.close();
    app.close();
  }
});
