// The service's event stream: lines to events (WHATWG HTML, section 9.2.6), and events to types. Nothing that comes in is trusted to have a shape.

import { Fault } from "./fault.js";
import type { VoicepayOutcome } from "./types.js";

/** An event longer than this ends the stream. */
const EVENT_LIMIT_CHARS = 16 * 1024;
/** Longer texts are cut. */
const TEXT_LIMIT_CHARS = 2000;
const DIGITS_LIMIT_CHARS = 64;

/** The states that the service tells. */
export type ServiceState = "connecting" | "prompting" | "listening" | "thinking" | "reconnecting" | "over";

/** What the service tells. */
export type ServiceEvent =
  | { readonly type: "state"; readonly state: ServiceState }
  | { readonly type: "caption"; readonly who: "service" | "caller"; readonly text: string; readonly lang: string }
  | { readonly type: "digits"; readonly digits: string }
  | { readonly type: "result"; readonly result: VoicepayOutcome; readonly text: string; readonly reference: string | null };

const STATES: readonly string[] = ["connecting", "prompting", "listening", "thinking", "reconnecting", "over"] satisfies ServiceState[];
const OUTCOMES: readonly string[] = ["paid", "refused", "declined", "waiting", "cancelled", "failed"] satisfies VoicepayOutcome[];

function isState(value: unknown): value is ServiceState {
  return typeof value === "string" && STATES.includes(value);
}

function isOutcome(value: unknown): value is VoicepayOutcome {
  return typeof value === "string" && OUTCOMES.includes(value);
}

/** Cuts a stream of text into the data of its events. */
export class EventLines {
  #rest = "";
  #data: string[] = [];
  #size = 0;

  /** The data of the events that are whole with this piece. */
  push(piece: string): string[] {
    const whole: string[] = [];
    let text = this.#rest + piece;
    // A CR at the end may be the first half of a CRLF.
    const held = text.endsWith("\r") ? "\r" : "";
    if (held) text = text.slice(0, -1);
    const lines = text.split(/\r\n|\n|\r/);
    this.#rest = (lines.pop() ?? "") + held;
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length > 0) whole.push(this.#data.join("\n"));
        this.#data = [];
        this.#size = 0;
      } else if (line.startsWith("data:")) {
        const value = line.slice(line[5] === " " ? 6 : 5);
        this.#size += value.length;
        this.#data.push(value);
      }
      // Comments keep the connection open; `event`, `id` and `retry` are not used.
    }
    if (this.#size + this.#rest.length > EVENT_LIMIT_CHARS) throw new Fault("service", "an event is too long");
    return whole;
  }
}

/** The event in an event's data; null when it is none that is known, so that a newer service can tell more. */
export function readEvent(data: string): ServiceEvent | null {
  const value = record(parse(data));
  switch (value?.["type"]) {
    case "state": {
      const state = value["state"];
      return isState(state) ? { type: "state", state } : null;
    }
    case "caption": {
      const who = value["who"];
      const text = plain(value["text"], TEXT_LIMIT_CHARS);
      if ((who !== "service" && who !== "caller") || text === "") return null;
      return { type: "caption", who, text, lang: plain(value["lang"], 16) };
    }
    case "digits": {
      const digits = plain(value["digits"], DIGITS_LIMIT_CHARS);
      return digits === "" ? null : { type: "digits", digits };
    }
    case "result": {
      const result = value["result"];
      if (!isOutcome(result)) return null;
      return { type: "result", result, text: plain(value["text"], TEXT_LIMIT_CHARS), reference: plain(value["reference"], TEXT_LIMIT_CHARS) || null };
    }
    default:
      return null;
  }
}

/** What a JSON text holds, or null. */
export function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** An object's members, or null when it is none. */
export function record(value: unknown): Readonly<Record<string, unknown>> | null {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
}

/** A text on one line without controls, and without marks that turn the direction of what stands around it: a payee's name can't reorder an amount. */
export function plain(value: unknown, limitChars: number): string {
  if (typeof value !== "string") return "";
  const one = value.replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g, "").replace(/[\s\p{Cc}]+/gu, " ");
  return one.trim().slice(0, limitChars);
}
