// The demo's shop, from one origin with the service: a bill is chosen, confirmed and paid.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Answerer } from "../support/answerer.js";
import { launch, serveApp } from "../support/app.js";
import { FakeService } from "../support/fake.js";

test("a bill is paid in the shop, in Chinese too; a shop that fails says so", async () => {
  const asked: unknown[] = [];
  let broken = false;
  const service: FakeService = new FakeService((request, response) => {
    if (request.url !== "/shop/session") return serveApp(request, response, "'self'");
    let body = "";
    request.on("data", (piece) => (body += String(piece)));
    request.on("end", () => {
      if (broken) return void response.writeHead(500).end();
      asked.push(JSON.parse(body));
      const session = service.open(service.url, { steps: [{ say: "To pay, say yes." }, { hearWithinMs: 8000 }, { result: "paid", text: "Paid.", reference: "VP-1" }] });
      response.writeHead(201, { "Content-Type": "application/json" }).end(JSON.stringify({ token: session.token }));
    });
    return true;
  });
  await service.listen();
  const browser = await launch(new URL("../../../audio-fixtures/alice/yes.wav", import.meta.url).pathname);
  try {
    service.answeredBy(await Answerer.in(browser, `${service.url}/empty`));
    const context = await browser.newContext({ viewport: { width: 390, height: 844 } });
    await context.grantPermissions(["microphone"]);
    const page = await context.newPage();
    await page.goto(`${service.url}/shop`);
    await page.getByLabel("Riverside Electric").check();
    await page.getByRole("button", { name: "Pay by voice" }).click();
    await page.getByRole("button", { name: "Start" }).click();
    await page.getByText("Thank you. The bill is paid.").waitFor();
    await page.screenshot({ path: "shots/shop.png" });
    assert.equal(await page.locator("voicepay-confirm[token]").count(), 0, "the token is not in the document");

    await page.getByLabel("Language").selectOption("zh");
    await page.getByRole("button", { name: "语音付款" }).click();
    await page.getByRole("button", { name: "开始" }).click();
    await page.getByText("谢谢。账单已付。").waitFor();
    assert.deepEqual(asked, [{ item: "power", language: "en" }, { item: "power", language: "zh" }]);

    broken = true;
    await page.getByRole("button", { name: "语音付款" }).click();
    await page.getByText("商店无法准备这笔付款").waitFor();
  } finally {
    await browser.close();
    service.close();
  }
});
