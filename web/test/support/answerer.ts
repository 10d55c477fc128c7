// The service's half of WebRTC, played by a second page of the same browser: it sends a tone for a prompt and measures what it hears.

import type { Browser, BrowserContext, Page } from "playwright-core";
import { Relay } from "./relay.js";

/** What lives in the answering page. */
interface Half {
  readonly peer: RTCPeerConnection;
  readonly gain: GainNode;
  readonly sink: HTMLAudioElement;
  closed: boolean;
  keys: string;
}

declare global {
  interface Window {
    halves: Map<string, Half>;
  }
}

export class Answerer {
  readonly #context: BrowserContext;
  readonly #page: Page;
  readonly #relays = new Map<string, Relay[]>();

  private constructor(context: BrowserContext, page: Page) {
    this.#context = context;
    this.#page = page;
  }

  static async in(browser: Browser, url: string): Promise<Answerer> {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(url);
    // Sound may begin only in a page that was touched.
    await page.mouse.click(5, 5);
    await page.evaluate(() => void (window.halves = new Map()));
    return new Answerer(context, page);
  }

  async close(): Promise<void> {
    for (const relays of this.#relays.values()) for (const relay of relays) relay.close();
    await this.#context.close();
  }

  /** Answers an offer; the answer's candidate is a relay's. */
  async answer(id: string, offer: string): Promise<string> {
    const answer = await this.#page.evaluate(
      async ([id, sdp]) => {
        const context = new AudioContext();
        const tone = context.createOscillator();
        const gain = context.createGain();
        const out = context.createMediaStreamDestination();
        gain.gain.value = 0;
        tone.connect(gain).connect(out);
        tone.start();
        const peer = new RTCPeerConnection();
        const sink = new Audio();
        const half: Half = { peer, gain, sink, closed: false, keys: "" };
        peer.ontrack = (event) => {
          // Without a sink the browser decodes nothing, and measures nothing.
          sink.srcObject = event.streams[0] ?? new MediaStream([event.track]);
          void sink.play();
        };
        await peer.setRemoteDescription({ type: "offer", sdp });
        for (const track of out.stream.getTracks()) peer.addTrack(track, out.stream);
        await peer.setLocalDescription(await peer.createAnswer());
        peer.getSenders()[0]?.transport?.addEventListener("statechange", () => {
          half.closed ||= peer.getSenders()[0]?.transport?.state === "closed";
        });
        window.halves.set(id, half);
        while (peer.iceGatheringState !== "complete") await new Promise((resolve) => setTimeout(resolve, 10));
        return peer.localDescription?.sdp ?? "";
      },
      [id, withoutCandidates(offer)] as const,
    );
    return this.#relayed(id, answer);
  }

  /** Answers a restart: the page's new credentials in, ours out, as a fragment. */
  async restart(id: string, offer: string): Promise<string> {
    const answer = await this.#page.evaluate(
      async ([id, sdp]) => {
        const half = window.halves.get(id);
        if (!half) return "";
        await half.peer.setRemoteDescription({ type: "offer", sdp });
        await half.peer.setLocalDescription(await half.peer.createAnswer());
        // Right after a restart, `iceGatheringState` still tells of the gathering before.
        while (!half.peer.localDescription?.sdp.includes("a=candidate:")) await new Promise((resolve) => setTimeout(resolve, 10));
        return half.peer.localDescription?.sdp ?? "";
      },
      [id, withoutCandidates(offer)] as const,
    );
    const relayed = await this.#relayed(id, answer);
    return relayed
      .split("\r\n")
      .filter((line) => /^a=(ice-ufrag|ice-pwd|candidate|mid):|^m=/.test(line))
      .join("\r\n");
  }

  /** A prompt begins or ends. */
  async speak(id: string, loud: boolean): Promise<void> {
    await this.#page.evaluate(([id, loud]) => {
      const half = window.halves.get(id);
      if (half) half.gain.gain.value = loud ? 0.3 : 0;
    }, [id, loud] as const);
  }

  /** What was received so far: packets and energy (WebRTC Statistics, totalAudioEnergy). */
  async heard(id: string): Promise<{ packets: number; energy: number; codec: string }> {
    return this.#page.evaluate(async (id) => {
      const out = { packets: 0, energy: 0, codec: "" };
      const stats = await window.halves.get(id)?.peer.getStats();
      stats?.forEach((one: Record<string, unknown>) => {
        if (one["type"] === "inbound-rtp") {
          out.packets = Number(one["packetsReceived"]);
          out.energy = Number(one["totalAudioEnergy"] ?? 0);
        }
        if (one["type"] === "codec") out.codec = String(one["mimeType"]);
      });
      return out;
    }, id);
  }

  /** Whether the page has closed DTLS. */
  async isClosed(id: string): Promise<boolean> {
    return this.#page.evaluate((id) => window.halves.get(id)?.closed ?? false, id);
  }

  async hangUp(id: string): Promise<void> {
    await this.#page.evaluate((id) => window.halves.get(id)?.peer.close(), id);
  }

  /** Cuts or mends the network of a call. */
  cut(id: string, cut: boolean): void {
    for (const relay of this.#relays.get(id) ?? []) relay.cut = cut;
  }

  async #relayed(id: string, sdp: string): Promise<string> {
    const lines = sdp.split("\r\n");
    const host = lines.map((line) => /^a=candidate:\S+ 1 udp \d+ (\d+\.\d+\.\d+\.\d+) (\d+) typ host/i.exec(line)).find((match) => match !== null);
    if (!host) throw new Error("the answerer has no candidate");
    const relay = await Relay.to(Number(host[2]), host[1] ?? "");
    const relays = this.#relays.get(id) ?? [];
    this.#relays.set(id, [...relays, relay]);
    const kept = lines.filter((line) => line !== "" && !line.startsWith("a=candidate:") && line !== "a=end-of-candidates");
    return [...kept, `a=candidate:1 1 udp 2130706431 127.0.0.1 ${relay.port} typ host`, "a=end-of-candidates", ""].join("\r\n");
  }
}

function withoutCandidates(sdp: string): string {
  return sdp
    .split(/\r\n|\n/)
    .filter((line) => !line.startsWith("a=candidate:"))
    .join("\r\n");
}
