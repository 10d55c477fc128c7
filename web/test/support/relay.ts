// A UDP relay between the page and whoever answers it, so that a test can cut the network under a call. The answerer learns of the page by its checks only,
// as an ICE-lite service does.

import { createSocket, type Socket } from "node:dgram";

export class Relay {
  /** While set, nothing gets through either way. */
  cut = false;
  packets = 0;
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
      const key = `${from.address}:${from.port}`;
      let outer = relay.#outers.get(key);
      if (!outer) {
        outer = createSocket("udp4");
        outer.unref();
        outer.on("message", (back) => {
          if (!relay.cut) inner.send(back, from.port, from.address);
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
