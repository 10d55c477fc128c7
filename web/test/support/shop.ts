// The demo's shop, as tests visit it.

import type { Page } from "playwright-core";

/** Runs in the page before anything else: keeps what happens, and when. After MICROPHONE, if that is there. */
export const WATCH = `window.marks ??= {}; window.seen = []; window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective + " " + e.blockedURI));
for (const type of ["voicepay-state", "voicepay-result"]) document.addEventListener(type, (e) => {
  window.seen.push({ type, at: performance.now(), ...e.detail });
  window.marks[e.detail.state ?? "result"] ??= performance.now();
}, true);`;

/** What the shop's back end was given for its page. */
export interface Bill {
  readonly token: string;
  readonly payee: string;
  readonly amount_text: string;
}

/** Where the shop is, from the environment. */
export function shopUrl(): string {
  const shop = process.env["VOICEPAY_SHOP"] ?? "";
  if (!shop) throw new Error("VOICEPAY_SHOP is not set: run `make test-browser`");
  return shop;
}

/** Chooses a bill and presses the shop's button. */
export async function order(page: Page, item: "water" | "power" | "insurance", language = "en"): Promise<Bill> {
  await page.selectOption("select[name=language]", language);
  await page.check(`input[name=item][value=${item}]`);
  const answered = page.waitForResponse((response) => response.url().endsWith("/shop/session"));
  await page.click("form button[type=submit]");
  const response = await answered;
  if (response.status() !== 201) throw new Error(`the shop answered ${response.status()}: ${await response.text()}`);
  return (await response.json()) as Bill;
}
