// The app's side: pages that hold the component under a content security policy that allows nothing more than it needs, and the browser that shows them.

import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";

const PAGE = (title: string): string => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${title}</title>
<link rel="stylesheet" href="/page.css"><script type="module" src="/page.js"></script></head><body><main><h1>${title}</h1><div id="here"></div></main></body></html>`;

const PAGE_CSS = `body { margin: 1rem; font-family: system-ui, sans-serif; background: #eef1f4; color: #1a1d21 }
@media (prefers-color-scheme: dark) { body { background: #0d1013; color: #eef1f4 } }`;

// Attributes come from the address; what happens is kept for the test.
const PAGE_JS = `import "/voicepay-confirm.js";
window.seen = []; window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective + " " + e.blockedURI));
for (const type of ["voicepay-state", "voicepay-result"]) document.addEventListener(type, (e) => window.seen.push({ type, ...e.detail }));
const element = document.createElement("voicepay-confirm");
for (const [name, value] of new URLSearchParams(location.search)) element.setAttribute(name, value);
document.getElementById("here").append(element);`;

export interface SeenEvent {
  readonly type: string;
  /** On the page's clock, in milliseconds, where the test keeps it. */
  readonly at?: number;
  readonly state?: string;
  readonly result?: string;
  readonly fault: string | null;
  readonly text?: string;
  readonly reference?: string | null;
}

declare global {
  interface Window {
    seen: SeenEvent[];
    violations: string[];
  }
}

/** Serves the page, and the component as it is built. Whether it did. */
export function serveApp(request: IncomingMessage, response: ServerResponse, service: string): boolean {
  const path = (request.url ?? "").split("?")[0] ?? "";
  const send = (type: string, body: string | Buffer): boolean => {
    response.setHeader("Content-Security-Policy", `default-src 'none'; script-src 'self'; style-src 'self'; connect-src ${service}; base-uri 'none'; require-trusted-types-for 'script'`);
    response.writeHead(200, { "Content-Type": `${type}; charset=utf-8` }).end(body);
    return true;
  };
  switch (path) {
    case "/pay":
      return send("text/html", PAGE("Your order"));
    case "/empty":
      return send("text/html", PAGE("Elsewhere").replace(/<script.*<\/script>/, ""));
    case "/page.css":
      return send("text/css", PAGE_CSS);
    case "/page.js":
      return send("text/javascript", PAGE_JS);
    case "/voicepay-confirm.js":
    case "/shop/voicepay-confirm.js":
      return send("text/javascript", readFileSync(".build/dist/voicepay-confirm.js"));
    case "/shop":
      return send("text/html", readFileSync("shop/index.html"));
    case "/shop/shop.js":
      return send("text/javascript", readFileSync("shop/shop.js"));
    case "/shop/shop.css":
      return send("text/css", readFileSync("shop/shop.css"));
    default:
      return false;
  }
}

export class App {
  readonly #server: Server;

  constructor(service: () => string) {
    this.#server = createServer((request, response) => {
      if (!serveApp(request, response, service())) response.writeHead(404).end();
    });
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
  }

  get port(): number {
    const address = this.#server.address();
    if (typeof address !== "object" || address === null) throw new Error("not listening");
    return address.port;
  }

  get origin(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

/** Chromium with a microphone that speaks a recording over and over, or with none. */
export function launch(microphone: string | null): Promise<Browser> {
  const executablePath = process.env["VOICEPAY_CHROMIUM"] ?? "/usr/bin/chromium";
  return chromium.launch({
    executablePath,
    args: [
      "--no-sandbox",
      ...(microphone ? ["--use-fake-device-for-media-stream", `--use-file-for-fake-audio-capture=${microphone}`] : []),
      // The relay needs addresses, and a machine without a network has only the loopback's.
      "--disable-features=WebRtcHideLocalIpsWithMdns",
      "--allow-loopback-in-peer-connection",
      "--host-resolver-rules=MAP shop.test 127.0.0.1",
    ],
  });
}

/** A person at a page with the component. */
export class Visitor {
  readonly context: BrowserContext;
  readonly page: Page;

  private constructor(context: BrowserContext, page: Page) {
    this.context = context;
    this.page = page;
  }

  static async at(
    browser: Browser,
    url: string,
    options: { microphone?: "allowed" | "refused"; dark?: boolean; width?: number; reduced?: boolean; forced?: boolean; init?: string } = {},
  ): Promise<Visitor> {
    const context = await browser.newContext({
      viewport: { width: options.width ?? 600, height: 900 },
      colorScheme: options.dark ? "dark" : "light",
      reducedMotion: options.reduced ? "reduce" : "no-preference",
      forcedColors: options.forced ? "active" : "none",
    });
    if (options.microphone !== "refused") await context.grantPermissions(["microphone"]);
    if (options.init) await context.addInitScript(options.init);
    const page = await context.newPage();
    page.on("pageerror", (error) => console.error("the page:", error));
    await page.goto(url);
    return new Visitor(context, page);
  }

  /** Waits until the component is in a state. */
  async until(state: string, limitMs = 10_000): Promise<void> {
    await this.page.waitForFunction((state) => document.querySelector("voicepay-confirm")?.state === state, state, { timeout: limitMs, polling: 50 });
  }

  async start(): Promise<void> {
    await this.until("ready");
    await this.page.getByRole("button", { name: /^(Start|开始)$/ }).click();
  }

  /** The last result event. */
  async result(limitMs = 20_000): Promise<SeenEvent> {
    await this.page.waitForFunction(() => window.seen.some((event) => event.type === "voicepay-result"), null, { timeout: limitMs, polling: 50 });
    const results = (await this.seen()).filter((event) => event.type === "voicepay-result");
    if (results.length !== 1 || !results[0]) throw new Error(`a result must come once, not ${results.length} times`);
    return results[0];
  }

  seen(): Promise<SeenEvent[]> {
    return this.page.evaluate(() => window.seen);
  }

  /** What can be read in the component. */
  text(): Promise<string> {
    return this.page.locator("voicepay-confirm section").innerText();
  }

  violations(): Promise<string[]> {
    return this.page.evaluate(() => window.violations);
  }

  async close(): Promise<void> {
    await this.context.close();
  }
}
