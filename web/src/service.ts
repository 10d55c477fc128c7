// What the page asks of the service over HTTPS. The token goes to the endpoint's origin and nowhere else, and into no message.

import { EventLines, parse, plain, readEvent, record, type ServiceEvent } from "./events.js";
import { Fault, faultOfAnswer } from "./fault.js";

const REQUEST_LIMIT_MS = 10_000;
const PROBE_LIMIT_MS = 3_000;
const SDP_LIMIT_CHARS = 64 * 1024;
const ICE_SERVERS_LIMIT = 8;
const SESSION = "/app/session";

/** What is shown before anything starts. */
export interface Details {
  readonly payee: string;
  readonly amount: string;
  readonly language: string;
  readonly iceServers: readonly RTCIceServer[];
}

/** The service's half of a call that was set up. */
export interface Answered {
  readonly sdp: string;
  readonly place: URL;
  readonly etag: string | null;
}

/** The origin that an `endpoint` means; an empty one is the page's own. */
export function readEndpoint(endpoint: string, page: string): URL {
  let url: URL;
  try {
    url = new URL(endpoint || page, page);
  } catch {
    throw new Fault("setup", "the endpoint is no URL");
  }
  const here = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname);
  if (url.protocol !== "https:" && !(url.protocol === "http:" && here)) throw new Fault("setup", "the endpoint must be https");
  // Without an endpoint the page's path says nothing about the service's.
  const base = endpoint ? url.pathname.replace(/\/+$/, "") : "";
  return new URL(base + SESSION, url.origin);
}

export class Service {
  readonly #session: URL;
  readonly #token: string;

  constructor(session: URL, token: string) {
    this.#session = session;
    this.#token = token;
  }

  /** Payee, amount and language. Uses nothing up. */
  async look(): Promise<Details> {
    const response = await this.#ask(this.#session, { headers: { Accept: "application/json" } });
    const body = record(parse(await text(response)));
    if (!body) throw new Fault("service", "the session is no JSON object");
    const state = body["state"];
    if (typeof state === "string" && state !== "new") throw new Fault(state === "expired" ? "expired" : "used", `the session is ${plain(state, 32)}`);
    const details = readDetails(body);
    if (details.payee === "" || details.amount === "") throw new Fault("service", "the session names no payee or no amount");
    return details;
  }

  /** Sets up the call. The token is used up by it. */
  async offer(sdp: string): Promise<Answered> {
    const response = await this.#ask(this.#session, {
      method: "POST",
      headers: { "Content-Type": "application/sdp", Accept: "application/sdp" },
      body: sdp,
    });
    const answer = await text(response);
    if (!answer.startsWith("v=0") || answer.length > SDP_LIMIT_CHARS) throw new Fault("service", "the answer is no session description");
    return { sdp: answer, place: this.#place(response.headers.get("Location")), etag: response.headers.get("ETag") };
  }

  /** Candidates of ours. */
  async trickle(place: URL, etag: string | null, fragment: string): Promise<void> {
    await this.#patch(place, etag ?? "*", fragment);
  }

  /** A restart of ICE: the service's new fragment, and the tag that later candidates go by. */
  async restart(place: URL, fragment: string): Promise<{ fragment: string; etag: string | null }> {
    const response = await this.#patch(place, "*", fragment);
    const answer = await text(response);
    if (answer.length > SDP_LIMIT_CHARS) throw new Fault("service", "the fragment is too long");
    return { fragment: answer, etag: response.headers.get("ETag") };
  }

  /** The user left; it outlives the page. Whether the service has heard it. */
  async leave(place: URL): Promise<boolean> {
    try {
      await this.#ask(place, { method: "DELETE", keepalive: true });
      return true;
    } catch (error) {
      // A call that is gone was left.
      return error instanceof Fault && error.kind === "expired";
    }
  }

  /** What the service tells, until the stream ends. */
  async *events(place: URL, signal: AbortSignal): AsyncGenerator<ServiceEvent> {
    const url = new URL(place);
    url.pathname += "/events";
    const response = await this.#ask(url, { headers: { Accept: "text/event-stream" } }, signal);
    const reader = response.body?.getReader();
    if (!reader) throw new Fault("service", "the stream has no body");
    const decoder = new TextDecoder();
    const lines = new EventLines();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        for (const data of lines.push(decoder.decode(value, { stream: true }))) {
          const event = readEvent(data);
          if (event) yield event;
        }
      }
    } finally {
      // Rejects when the connection is gone already, which is what is wanted.
      void reader.cancel().catch(() => undefined);
    }
  }

  #patch(place: URL, match: string, fragment: string): Promise<Response> {
    return this.#ask(place, {
      method: "PATCH",
      headers: { "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": match },
      body: fragment,
    });
  }

  /** Where the call is, if that is where the token may go. */
  #place(location: string | null): URL {
    let place: URL;
    try {
      place = new URL(location ?? "", this.#session);
    } catch {
      throw new Fault("service", "the answer's Location is no URL");
    }
    if (place.origin !== this.#session.origin || !place.pathname.startsWith(`${this.#session.pathname}/`)) {
      throw new Fault("service", location === null ? "the answer has no Location that this page may read" : "the answer's Location is elsewhere");
    }
    return place;
  }

  /** One request: its answer if it went well, else a fault. The limit is on the answer's head; a stream's body may last. */
  async #ask(url: URL, init: RequestInit, until?: AbortSignal): Promise<Response> {
    const abort = new AbortController();
    const stop = (): void => abort.abort();
    until?.addEventListener("abort", stop);
    if (until?.aborted) stop();
    const timer = setTimeout(stop, REQUEST_LIMIT_MS);
    let response: Response;
    try {
      response = await fetch(url, {
        ...init,
        headers: { ...init.headers, Authorization: `Bearer ${this.#token}` },
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        signal: abort.signal,
      });
    } catch {
      if (!until?.aborted && !abort.signal.aborted && (await this.#answersStrangers())) {
        throw new Fault("wrong-origin", "the service is there, but does not let this origin read its answers");
      }
      throw new Fault("unreachable", "the request got no answer");
    } finally {
      clearTimeout(timer);
    }
    if (response.ok) return response;
    const problem = record(parse(await text(response).catch(() => "")));
    const type = plain(problem?.["type"], 200);
    throw new Fault(faultOfAnswer(response.status, type), `the service answered ${response.status} ${type}`);
  }

  /** Whether the service answers at all: a browser tells a page neither why a request failed nor that it was for its origin. */
  async #answersStrangers(): Promise<boolean> {
    if (this.#session.origin === location.origin) return false;
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), PROBE_LIMIT_MS);
    try {
      await fetch(this.#session, { mode: "no-cors", cache: "no-store", credentials: "omit", signal: abort.signal });
      return true;
    } catch {
      return false;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** A body whose connection broke is an unreachable service. */
async function text(response: Response): Promise<string> {
  try {
    return await response.text();
  } catch {
    throw new Fault("unreachable", "the answer broke off");
  }
}

/** What the session says of itself. */
export function readDetails(body: Readonly<Record<string, unknown>>): Details {
  const language = plain(body["language"], 16);
  return {
    payee: plain(body["payee"], 200),
    amount: plain(body["amount_text"], 100) || amountText(body["amount"], language),
    language,
    iceServers: readIceServers(body["ice_servers"]),
  };
}

/** An amount in words of the language, where the service gives numbers only. */
function amountText(value: unknown, language: string): string {
  const amount = record(value);
  const minor = amount?.["minor"];
  const currency = amount?.["currency"];
  if (typeof minor !== "number" || !Number.isSafeInteger(minor) || typeof currency !== "string" || !/^[A-Z]{3}$/.test(currency)) return "";
  const format = new Intl.NumberFormat(/^[a-z]{2}$/.test(language) ? language : "en", { style: "currency", currency });
  return format.format(minor / 10 ** (format.resolvedOptions().maximumFractionDigits ?? 2));
}

/** STUN and TURN servers; whatever isn't one is left out. */
function readIceServers(value: unknown): RTCIceServer[] {
  if (!Array.isArray(value)) return [];
  const servers: RTCIceServer[] = [];
  for (const item of value.slice(0, ICE_SERVERS_LIMIT)) {
    const one = record(item);
    const given: unknown = one?.["urls"];
    const urls = (Array.isArray(given) ? given : [given]).filter((url): url is string => typeof url === "string" && /^(stun|turn)s?:/.test(url));
    if (urls.length === 0) continue;
    const username = one?.["username"];
    const credential = one?.["credential"];
    servers.push(typeof username === "string" && typeof credential === "string" ? { urls, username, credential } : { urls });
  }
  return servers;
}
