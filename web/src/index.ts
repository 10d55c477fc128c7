// `<voicepay-confirm>`: shows what is to be paid, makes the call, and tells the app what it came to.

import { Call, type End } from "./call.js";
import { plain } from "./events.js";
import { canTryAgain, Fault } from "./fault.js";
import { DEAD_LEVEL, Meter, openMicrophone } from "./microphone.js";
import { readEndpoint, Service, type Details } from "./service.js";
import type { VoicepayEventMap, VoicepayFault, VoicepayResultDetail, VoicepayState, VoicepayStateDetail } from "./types.js";
import { View } from "./view.js";
import { languageOf, wordsIn } from "./words.js";

export type { VoicepayEventMap, VoicepayFault, VoicepayLanguage, VoicepayOutcome, VoicepayResultDetail, VoicepayState, VoicepayStateDetail } from "./types.js";

/** A microphone that is dead for so long while it is the user's turn is told of. */
const MUTED_AFTER_MS = 3_000;

/** Where a module is imported for its types, or rendered on a server, there are no elements. */
const Base = globalThis.HTMLElement ?? (class {} as typeof HTMLElement);

export class VoicepayConfirm extends Base {
  static readonly observedAttributes = ["endpoint", "token", "lang", "announce-captions"];

  readonly #view: View;
  #token = "";
  #state: VoicepayState = "loading";
  #fault: VoicepayFault | null = null;
  #result: VoicepayResultDetail | null = null;
  #details: Details | null = null;
  #digits = "";
  #keypad = false;
  #soundBlocked = false;
  #muted = false;
  #heardAtMs = 0;
  #service: Service | null = null;
  #call: Call | null = null;
  #meter: Meter | null = null;
  /** Grows with each token or try; what was awaited for an older one is dropped. */
  #round = 0;
  #fresh = false;
  #looked = false;
  readonly #pageHidden = (): void => this.#leavePage();

  constructor() {
    super();
    this.#view = new View(this.attachShadow({ mode: "open" }), {
      start: () => void this.start(),
      stop: () => void this.cancel(),
      soundOn: () => void this.#playSound(),
      key: (key) => this.#call?.key(key),
    });
  }

  /** Where the service is; empty: where the page is. */
  get endpoint(): string {
    return this.getAttribute("endpoint") ?? "";
  }

  set endpoint(value: string) {
    this.setAttribute("endpoint", value);
  }

  /** The single-use token from your back end. Set as a property it stays out of the document. */
  get token(): string {
    return this.#token;
  }

  set token(value: string) {
    this.#token = value;
    this.#begin();
  }

  get state(): VoicepayState {
    return this.#state;
  }

  /** What it came to, once it is over. */
  get result(): VoicepayResultDetail | null {
    return this.#result;
  }

  override addEventListener<K extends keyof VoicepayEventMap>(type: K, listener: (this: VoicepayConfirm, event: VoicepayEventMap[K]) => unknown, options?: boolean | AddEventListenerOptions): void;
  override addEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void;
  override addEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void {
    super.addEventListener(type, listener, options);
  }

  override removeEventListener<K extends keyof VoicepayEventMap>(type: K, listener: (this: VoicepayConfirm, event: VoicepayEventMap[K]) => unknown, options?: boolean | EventListenerOptions): void;
  override removeEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | EventListenerOptions): void;
  override removeEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | EventListenerOptions): void {
    super.removeEventListener(type, listener, options);
  }

  connectedCallback(): void {
    addEventListener("pagehide", this.#pageHidden);
    this.#show();
    // An element that was moved shows what it showed.
    if (!this.#looked) this.#begin();
  }

  disconnectedCallback(): void {
    // An element that is only moved is connected again before this runs.
    queueMicrotask(() => {
      if (this.isConnected) return;
      removeEventListener("pagehide", this.#pageHidden);
      this.#leavePage();
    });
  }

  attributeChangedCallback(name: string, before: string | null, now: string | null): void {
    if (before === now) return;
    switch (name) {
      case "token":
        this.token = now ?? "";
        break;
      case "endpoint":
        this.#begin();
        break;
      case "announce-captions":
        this.#view.announceCaptions(now !== null);
        break;
      default:
        this.#show();
    }
  }

  /** Asks for the microphone and makes the call; to be called from a click or a key, else browsers hold back the sound. Settles once the call is set up or can't be. */
  async start(): Promise<void> {
    if (this.#call || this.#state === "over" || this.#state === "asking") return;
    const round = ++this.#round;
    try {
      const service = this.#prepare();
      // Before anything is awaited, so that it still belongs to the user's click.
      this.#enter("asking");
      const opening = openMicrophone();
      // It may be refused while the service is asked; then it is told when it is awaited.
      opening.catch(() => undefined);
      const closeIt = (): void => void opening.then((stream) => stream.getTracks().forEach((track) => track.stop()), () => undefined);
      let details: Details;
      try {
        details = this.#details ?? (await service.look());
      } catch (error) {
        closeIt();
        throw error;
      }
      if (round !== this.#round) return closeIt();
      this.#details = details;
      this.#show();
      const microphone = await opening;
      if (round !== this.#round) return closeIt();
      try {
        await this.#dial(service, details, microphone);
      } catch (error) {
        closeIt();
        throw error;
      }
    } catch (error) {
      if (round === this.#round) this.#failed(error);
    }
  }

  /** Stops whatever goes on. During a call the service is told, and its last word awaited: it may be too late to stop. */
  async cancel(): Promise<void> {
    if (this.#state === "over") return;
    if (this.#call) {
      await this.#call.leave();
      return;
    }
    this.#round += 1;
    this.#finish({ result: "cancelled", text: "", reference: null, fault: null });
  }

  /** With a new token or endpoint: forgets what was, looks at what is to be paid. Several changes at once make one look. */
  #begin(): void {
    if (!this.isConnected || this.#fresh || (this.#call && this.#state !== "over")) return;
    this.#fresh = true;
    queueMicrotask(() => {
      this.#fresh = false;
      if (this.isConnected) void this.#look();
    });
  }

  async #look(): Promise<void> {
    const round = ++this.#round;
    this.#looked = true;
    this.#call = null;
    this.#details = this.#result = this.#service = null;
    this.#digits = "";
    this.#keypad = this.#soundBlocked = this.#muted = false;
    this.#view.clear();
    this.#enter("loading");
    // An app may set the token later.
    if (this.#token === "") return;
    try {
      const details = await this.#prepare().look();
      if (round !== this.#round) return;
      this.#details = details;
      this.#enter("ready");
    } catch (error) {
      if (round === this.#round) this.#failed(error);
    }
  }

  /** The service that the attributes name, if this browser and page can do it at all. */
  #prepare(): Service {
    if (!globalThis.isSecureContext) throw new Fault("insecure", "not a secure context");
    if (!("RTCPeerConnection" in globalThis) || !("mediaDevices" in navigator) || !("ReadableStream" in globalThis)) {
      throw new Fault("unsupported", "no WebRTC here");
    }
    if (this.#token === "") throw new Fault("setup", "there is no token");
    this.#service ??= new Service(readEndpoint(this.endpoint, document.baseURI), this.#token);
    return this.#service;
  }

  async #dial(service: Service, details: Details, microphone: MediaStream): Promise<void> {
    this.#enter("connecting");
    this.#heardAtMs = performance.now();
    try {
      this.#meter = new Meter(microphone, (level, nowMs) => this.#levelTold(level, nowMs));
    } catch {
      // No meter is no reason not to pay.
    }
    this.#call = new Call(service, details.iceServers, microphone, {
      state: (state) => {
        this.#heardAtMs = performance.now();
        // Digits belong to the question that they were asked with.
        if (state === "thinking") this.#digits = "";
        this.#enter(state);
      },
      caption: (caption) => this.#view.caption(caption),
      digits: (digits) => {
        this.#digits = digits;
        this.#show();
      },
      sound: (stream) => {
        this.#view.sound.srcObject = stream;
        void this.#playSound();
      },
      keypad: () => {
        this.#keypad = true;
        this.#show();
      },
      ended: (end) => this.#ended(end),
    });
    await this.#call.begin();
  }

  /** A browser that was not touched yet holds back sound: then there is a button for it. */
  async #playSound(): Promise<void> {
    try {
      await this.#view.sound.play();
      this.#soundBlocked = false;
    } catch (error) {
      // AbortError: another stream took its place, or it was stopped.
      this.#soundBlocked = error instanceof DOMException && error.name === "NotAllowedError";
    }
    this.#show();
  }

  #levelTold(level: number, nowMs: number): void {
    this.#view.level(level, nowMs);
    if (level > DEAD_LEVEL || this.#state !== "listening") this.#heardAtMs = nowMs;
    const muted = nowMs - this.#heardAtMs > MUTED_AFTER_MS;
    if (muted === this.#muted) return;
    this.#muted = muted;
    this.#show();
  }

  #ended(end: End): void {
    switch (end.type) {
      case "result":
        this.#finish({ result: end.result, text: end.text, reference: end.reference, fault: null });
        break;
      case "left":
        this.#finish({ result: "cancelled", text: "", reference: null, fault: null });
        break;
      case "fault":
        if (end.begun) {
          this.#finishByFault(end.fault);
        } else {
          this.#call = null;
          this.#failed(new Fault(end.fault, "the call could not be set up"));
        }
    }
  }

  #failed(error: unknown): void {
    const kind: VoicepayFault = error instanceof Fault ? error.kind : "unsupported";
    this.#stopMeter();
    if (canTryAgain(kind)) this.#enter("blocked", kind);
    else this.#finishByFault(kind);
  }

  #finishByFault(fault: VoicepayFault): void {
    const words = wordsIn(this.#language());
    this.#finish({ result: "failed", text: words.faults[fault].join(" "), reference: null, fault });
  }

  #finish(result: VoicepayResultDetail): void {
    this.#stopMeter();
    this.#result = result;
    this.#enter("over", result.fault);
    this.dispatchEvent(new CustomEvent<VoicepayResultDetail>("voicepay-result", { detail: result, bubbles: true, composed: true }));
  }

  #stopMeter(): void {
    this.#meter?.stop();
    this.#meter = null;
  }

  /** The page or the element goes away. */
  #leavePage(): void {
    if (this.#call) this.#call.abandon();
    else if (this.#state === "asking") void this.cancel();
  }

  #enter(state: VoicepayState, fault: VoicepayFault | null = null): void {
    const previous = this.#state;
    const told = state !== previous || fault !== this.#fault;
    this.#state = state;
    this.#fault = fault;
    this.#show();
    if (told) this.dispatchEvent(new CustomEvent<VoicepayStateDetail>("voicepay-state", { detail: { state, previous, fault }, bubbles: true, composed: true }));
  }

  #language(): "en" | "zh" {
    // Until the session is known, the page's language is the best guess.
    return languageOf(this.getAttribute("lang"), this.#details?.language, document.documentElement.lang);
  }

  #show(): void {
    this.#view.show({
      language: this.#language(),
      state: this.#state,
      fault: this.#fault,
      result: this.#result?.result ?? null,
      resultText: this.#result?.text ?? "",
      reference: this.#result?.reference ?? null,
      payee: this.#details?.payee ?? "",
      amount: this.#details?.amount ?? "",
      serviceLanguage: plain(this.#details?.language, 16),
      digits: this.#digits,
      keypad: this.#keypad,
      soundBlocked: this.#soundBlocked,
      muted: this.#muted,
      canTryAgain: this.#fault !== null && canTryAgain(this.#fault),
    });
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "voicepay-confirm": VoicepayConfirm;
  }
}

if (globalThis.customElements && !customElements.get("voicepay-confirm")) customElements.define("voicepay-confirm", VoicepayConfirm);
