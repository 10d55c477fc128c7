// A UDP relay between the page and whoever answers it, so that a test can cut the network under a call, or lose packets of it. The answerer learns of the page
// by its checks only, as an ICE-lite service does.

import { createSocket, type Socket } from "node:dgram";
import type { Page } from "playwright-core";

export class Relay {
  /** While set, nothing gets through either way. */
  cut = false;
  /** Which share of the packets is lost, each way, as chance has it. */
  loss = 0;
  packets = 0;
  /** UDP payload that came from the page, and for it, lost or not. */
  readonly bytes = { up: 0, down: 0 };
  readonly #inner: Socket;
  readonly #outers = new Map<string, Socket>();

  private constructor(inner: Socket) {
    this.#inner = inner;
  }

  /** Relays to a port of this machine. */
  static async to(port: number, address: string): Promise<Relay> {
    const inner = createSocket("udp4");
    await new Promise<void>((resolve) => inner.bind(0, "127.0.0.1", resolve));
    // Calls that a test leaves up don't keep the tests from ending.
    inner.unref();
    const relay = new Relay(inner);
    inner.on("message", (packet, from) => {
      if (relay.cut) return;
      relay.packets += 1;
      relay.bytes.up += packet.length;
      if (Math.random() < relay.loss) return;
      const key = `${from.address}:${from.port}`;
      let outer = relay.#outers.get(key);
      if (!outer) {
        outer = createSocket("udp4");
        outer.unref();
        outer.on("message", (back) => {
          if (relay.cut) return;
          relay.bytes.down += back.length;
          if (Math.random() >= relay.loss) inner.send(back, from.port, from.address);
        });
        relay.#outers.set(key, outer);
      }
      outer.send(packet, port, address);
    });
    return relay;
  }

  get port(): number {
    return this.#inner.address().port;
  }

  close(): void {
    this.#inner.close();
    for (const outer of this.#outers.values()) outer.close();
  }
}

/** Puts a relay before the service in each answer that this page gets, `change`d as told. It is there once the call is answered. */
export async function relayed(page: Page, change: { readonly offer?: (sdp: string) => string; readonly answer?: (sdp: string) => string } = {}): Promise<{ relay: Relay | null }> {
  const held: { relay: Relay | null } = { relay: null };
  await page.route("**/app/session", async (route) => {
    const request = route.request();
    if (request.method() !== "POST") return route.continue();
    const response = await route.fetch({ postData: change.offer?.(request.postData() ?? "") ?? request.postData() ?? "" });
    const answer = await response.text();
    const port = /a=candidate:\S+ \d+ udp \d+ \S+ (\d+) typ host/i.exec(answer)?.[1];
    if (!port) throw new Error(`no candidate in ${answer}`);
    held.relay = await Relay.to(Number(port), "127.0.0.1");
    const body = answer.replaceAll(` ${port} typ`, ` ${held.relay.port} typ`);
    return route.fulfill({ response, body: change.answer?.(body) ?? body });
  });
  return held;
}
