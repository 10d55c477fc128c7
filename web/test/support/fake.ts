// A service that speaks as ours does (docs of the app sessions), without deciding anything: each token has a script. It keeps the rules that a page can break:
// origin, token, single use, If-Match, media types.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { readFragment } from "../../src/fragment.js";
import type { Answerer } from "./answerer.js";

/** One line of a script. */
export type Step =
  | { readonly say: string; readonly forMs?: number; readonly lang?: string }
  | { readonly digits: string }
  /** Goes on when somebody speaks; with nobody by then, goes to the script's `silent`. */
  | { readonly hearWithinMs: number }
  | { readonly think: number }
  | { readonly hangUp: true }
  | { readonly result: string; readonly text: string; readonly reference: string | null };

export interface Script {
  readonly steps: readonly Step[];
  readonly silent?: readonly Step[];
}

export interface Session {
  readonly token: string;
  readonly origin: string;
  readonly payee: string;
  readonly amountText: string;
  readonly language: string;
  readonly script: Script;
  state: "new" | "used" | "expired";
  sid: string;
  etag: number;
  offer: string;
  told: object[];
  streams: Set<ServerResponse>;
  over: boolean;
  left: boolean;
  restarts: number;
  candidates: string[];
}

/** A request as it came in. */
export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly status: number;
}

/** Energy (WebRTC Statistics, totalAudioEnergy) that only a voice gives. */
const SPOKEN_ENERGY = 0.0005;

export class FakeService {
  readonly seen: Seen[] = [];
  readonly sessions = new Map<string, Session>();
  /** When set, every offer is answered with it. */
  refuseOffers: { status: number; type: string } | null = null;
  readonly #server: Server;
  #answerer: Answerer | null = null;
  #count = 0;

  constructor(aside?: (request: IncomingMessage, response: ServerResponse) => boolean) {
    this.#server = createServer((request, response) => {
      if (aside?.(request, response)) return;
      this.#serve(request, response).catch((error: unknown) => {
        console.error("the fake service:", error);
        response.destroy();
      });
    });
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
  }

  get url(): string {
    const address = this.#server.address();
    if (typeof address !== "object" || address === null) throw new Error("not listening");
    return `http://127.0.0.1:${address.port}`;
  }

  answeredBy(answerer: Answerer): void {
    this.#answerer = answerer;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  /** What an app's back end would do: binds a payment to an origin. */
  open(origin: string, script: Script, given: Partial<Pick<Session, "payee" | "amountText" | "language" | "state">> = {}): Session {
    const token = `tok_${(this.#count += 1)}_${Math.random().toString(36).slice(2)}`;
    const session: Session = {
      token, origin, script,
      payee: given.payee ?? "City Water",
      amountText: given.amountText ?? "$19.99",
      language: given.language ?? "en",
      state: given.state ?? "new",
      sid: "", etag: 1, offer: "", told: [], streams: new Set(), over: false, left: false, restarts: 0, candidates: [],
    };
    this.sessions.set(token, session);
    return session;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "", headers } = request;
    const url = new URL(request.url ?? "/", "http://fake");
    response.on("finish", () => this.seen.push({ method, path: url.pathname, status: response.statusCode }));
    const origin = headers.origin ?? (headers["sec-fetch-site"] === "same-origin" ? `http://${headers.host ?? ""}` : "");
    const known = [...this.sessions.values()].some((session) => session.origin === origin);
    if (known) {
      response.setHeader("Access-Control-Allow-Origin", origin);
      response.setHeader("Access-Control-Expose-Headers", "Location, ETag, Retry-After");
    }
    if (method === "OPTIONS") {
      if (known) {
        response.setHeader("Access-Control-Allow-Methods", "GET, POST, PATCH, DELETE");
        response.setHeader("Access-Control-Allow-Headers", "authorization, content-type, if-match");
        response.setHeader("Access-Control-Max-Age", "600");
      }
      response.writeHead(204).end();
      return;
    }
    const session = this.sessions.get((headers.authorization ?? "").replace(/^Bearer /, ""));
    if (!session) return problem(response, 401, "unauthorized");
    if (session.origin !== origin) return problem(response, 403, "wrong-origin");
    const body = await bodyOf(request);
    const at = url.pathname.replace(session.sid ? `/${session.sid}` : "/-", "/SID");
    switch (`${method} ${at}`) {
      case "GET /app/session":
        if (session.state === "expired") return problem(response, 401, "expired");
        return json(response, 200, {
          id: "aps_1", state: session.state, payee: session.payee, amount: { minor: 1999, currency: "USD" }, amount_text: session.amountText,
          language: session.language, expires_at: "2026-11-23T12:00:00Z", ice_servers: [],
        });
      case "POST /app/session":
        return this.#offered(session, headers["content-type"] ?? "", body, response);
      case "PATCH /app/session/SID":
        return this.#patched(session, headers["content-type"] ?? "", headers["if-match"] ?? "", body, response);
      case "DELETE /app/session/SID":
        session.left = true;
        this.#tell(session, { type: "result", result: "cancelled", text: session.language === "zh" ? "好的。没有付款。" : "All right. Nothing was paid.", reference: null });
        return json(response, 200, {});
      case "GET /app/session/SID/events":
        response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
        response.write(": here\n\n");
        // Opened again: what holds now.
        for (const event of session.told.slice(-1)) response.write(`data: ${JSON.stringify(event)}\n\n`);
        if (session.over) response.end();
        else {
          session.streams.add(response);
          response.on("close", () => session.streams.delete(response));
        }
        return;
      default:
        return problem(response, 404, "not-found");
    }
  }

  async #offered(session: Session, type: string, offer: string, response: ServerResponse): Promise<void> {
    if (this.refuseOffers) return problem(response, this.refuseOffers.status, this.refuseOffers.type);
    if (session.state !== "new") return problem(response, 409, "used");
    if (type !== "application/sdp" || !offer.startsWith("v=0")) return problem(response, 415, "invalid");
    if (!this.#answerer) throw new Error("nobody answers");
    session.state = "used";
    session.sid = `sid_${Math.random().toString(36).slice(2)}`;
    session.offer = offer;
    const answer = await this.#answerer.answer(session.sid, offer);
    response.writeHead(201, { "Content-Type": "application/sdp", Location: `/app/session/${session.sid}`, ETag: `"${session.etag}"` }).end(answer);
    void this.#play(session).catch((error: unknown) => {
      // A test that has seen enough closes the browser under its script.
      if (!String(error).includes("has been closed")) console.error("the script:", error);
    });
  }

  async #patched(session: Session, type: string, match: string, body: string, response: ServerResponse): Promise<void> {
    if (type !== "application/trickle-ice-sdpfrag") return problem(response, 415, "invalid");
    if (match !== "*") {
      if (match !== `"${session.etag}"`) return problem(response, 412, "precondition");
      session.candidates.push(...body.split("\r\n").filter((line) => line.startsWith("a=candidate:")));
      response.writeHead(204).end();
      return;
    }
    const fragment = readFragment(body);
    if (!fragment || !this.#answerer) return problem(response, 400, "invalid");
    session.restarts += 1;
    session.etag += 1;
    const offer = session.offer.replace(/a=ice-ufrag:.*/g, `a=ice-ufrag:${fragment.ufrag}`).replace(/a=ice-pwd:.*/g, `a=ice-pwd:${fragment.pwd}`);
    const answer = await this.#answerer.restart(session.sid, offer);
    response.writeHead(200, { "Content-Type": "application/trickle-ice-sdpfrag", ETag: `"${session.etag}"` }).end(answer);
  }

  #tell(session: Session, event: { type: string } & Record<string, unknown>): void {
    if (session.over) return;
    session.told.push(event);
    const line = `data: ${JSON.stringify(event)}\n\n`;
    for (const stream of session.streams) stream.write(line);
    if (event.type !== "result") return;
    session.over = true;
    for (const stream of session.streams) stream.end();
  }

  async #play(session: Session): Promise<void> {
    const answerer = this.#answerer;
    if (!answerer) return;
    this.#tell(session, { type: "state", state: "connecting" });
    while (!session.over && (await answerer.heard(session.sid)).packets === 0) await sleep(50);
    const queue = [...session.script.steps];
    for (let step = queue.shift(); step && !session.over; step = queue.shift()) {
      if ("say" in step) {
        this.#tell(session, { type: "state", state: "prompting" });
        this.#tell(session, { type: "caption", who: "service", text: step.say, lang: step.lang ?? session.language });
        await answerer.speak(session.sid, true);
        await sleep(step.forMs ?? 300);
        await answerer.speak(session.sid, false);
      } else if ("digits" in step) {
        this.#tell(session, { type: "digits", digits: step.digits });
      } else if ("hearWithinMs" in step) {
        this.#tell(session, { type: "state", state: "listening" });
        if (await this.#hears(session, answerer, step.hearWithinMs)) this.#tell(session, { type: "caption", who: "caller", text: "…", lang: session.language });
        else queue.splice(0, queue.length, ...(session.script.silent ?? []));
      } else if ("think" in step) {
        this.#tell(session, { type: "state", state: "thinking" });
        await sleep(step.think);
      } else if ("hangUp" in step) {
        await answerer.hangUp(session.sid);
        for (const stream of session.streams) stream.end();
      } else {
        this.#tell(session, { type: "result", ...step });
      }
    }
  }

  async #hears(session: Session, answerer: Answerer, limitMs: number): Promise<boolean> {
    const before = (await answerer.heard(session.sid)).energy;
    const untilMs = Date.now() + limitMs;
    while (Date.now() < untilMs && !session.over) {
      if ((await answerer.heard(session.sid)).energy - before > SPOKEN_ENERGY) return true;
      await sleep(100);
    }
    return false;
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function json(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
}

function problem(response: ServerResponse, status: number, kind: string): void {
  const body = { type: `urn:voicepay:problem:${kind}`, title: "problem", status, detail: "for people" };
  response.writeHead(status, { "Content-Type": "application/problem+json" }).end(JSON.stringify(body));
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let body = "";
  for await (const piece of request) body += String(piece);
  return body;
}
