// What is on the screen: made once, then told what holds. Text is set as text; nothing here reads HTML.

import { STYLE } from "./style.js";
import type { VoicepayFault, VoicepayLanguage, VoicepayOutcome, VoicepayState } from "./types.js";
import { wordsIn, type Words } from "./words.js";

const CAPTIONS_LIMIT = 50;
/** A screen reader that asks for the level gets one that stands still for so long. */
const LEVEL_TOLD_EVERY_MS = 250;
const KEYS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "*", "0", "#"] as const;

/** What was said, and by whom. */
export interface Caption {
  readonly who: "service" | "caller";
  readonly text: string;
  readonly lang: string;
}

/** All that decides what is shown, but the captions and the level. */
export interface Model {
  readonly language: VoicepayLanguage;
  readonly state: VoicepayState;
  readonly fault: VoicepayFault | null;
  readonly result: VoicepayOutcome | null;
  readonly resultText: string;
  readonly reference: string | null;
  readonly payee: string;
  readonly amount: string;
  /** The language of payee, amount and the result's text, which are the service's. */
  readonly serviceLanguage: string;
  readonly digits: string;
  readonly keypad: boolean;
  readonly soundBlocked: boolean;
  readonly muted: boolean;
  readonly canTryAgain: boolean;
}

/** What the user does. */
export interface Hands {
  start(): void;
  stop(): void;
  soundOn(): void;
  key(key: string): void;
}

/** While a call is up or being set up. */
const LIVE: ReadonlySet<VoicepayState> = new Set<VoicepayState>(["connecting", "prompting", "listening", "thinking", "reconnecting"]);
/** Told to screen readers as they come. The turns of the talk are not: a reader that says "speak now" would speak into the open microphone. */
const ANNOUNCED: ReadonlySet<VoicepayState> = new Set<VoicepayState>(["loading", "ready", "asking", "connecting", "reconnecting"]);

function make<K extends keyof HTMLElementTagNameMap>(tag: K, attributes: Readonly<Record<string, string>>, ...children: (Node | string)[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function setText(element: HTMLElement, text: string): void {
  // A live region that is set to what it says already is read again by some readers.
  if (element.textContent !== text) element.textContent = text;
}

export class View {
  readonly #root: ShadowRoot;
  readonly #title = make("h2", { id: "title" });
  readonly #payeeLabel = make("dt", {});
  readonly #payee = make("bdi", {});
  readonly #amountLabel = make("dt", {});
  readonly #amount = make("bdi", {});
  readonly #sum: HTMLElement;
  readonly #status = make("div", { role: "status", class: "status", part: "status" });
  readonly #turn = make("p", { class: "turn", part: "turn" });
  readonly #hint = make("p", { class: "hint" });
  readonly #digitsLabel = make("p", { class: "label" });
  readonly #digitsNumber = make("p", { class: "number" });
  readonly #digits = make("div", { class: "digits", part: "digits" }, this.#digitsLabel, this.#digitsNumber);
  readonly #levelLabel = make("p", { class: "label", id: "level" });
  readonly #bar = make("div", { class: "bar" });
  readonly #meter = make("div", { class: "meter", role: "meter", "aria-labelledby": "level", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "0" }, this.#bar);
  readonly #level = make("div", { class: "level", part: "level" }, this.#levelLabel, this.#meter);
  readonly #captions = make("div", { class: "captions", part: "captions", role: "log", "aria-live": "off", tabindex: "0" });
  readonly #keypadLabel = make("summary", {});
  readonly #keys: readonly HTMLButtonElement[];
  readonly #keypad: HTMLDetailsElement;
  readonly #start = make("button", { type: "button", class: "main", part: "start" });
  readonly #soundOn = make("button", { type: "button", class: "main" });
  readonly #stop = make("button", { type: "button", part: "stop" });
  readonly #card: HTMLElement;
  /** Plays the service's voice. */
  readonly sound = make("audio", { autoplay: "" });
  #words: Words = wordsIn("en");
  #levelToldMs = 0;

  constructor(root: ShadowRoot, hands: Hands) {
    this.#root = root;
    if ("adoptedStyleSheets" in root) {
      // Not a <style> element, which a content security policy without 'unsafe-inline' ignores.
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(STYLE);
      root.adoptedStyleSheets = [sheet];
    }
    this.#sum = make("dl", { part: "sum" }, make("div", {}, this.#payeeLabel, make("dd", {}, this.#payee)), make("div", {}, this.#amountLabel, make("dd", { class: "amount" }, this.#amount)));
    this.#keys = KEYS.map((key) => {
      const button = make("button", { type: "button" }, key);
      button.addEventListener("click", () => hands.key(key));
      return button;
    });
    this.#keypad = make("details", {}, this.#keypadLabel, make("div", { class: "keys" }, ...this.#keys));
    this.#start.addEventListener("click", () => hands.start());
    this.#stop.addEventListener("click", () => hands.stop());
    this.#soundOn.addEventListener("click", () => hands.soundOn());
    this.#card = make(
      "section",
      { class: "card", part: "card", "aria-labelledby": "title", tabindex: "-1" },
      this.#title,
      this.#sum,
      make("div", { class: "say" }, this.#status, this.#turn, this.#hint),
      this.#digits,
      this.#level,
      // Above what grows: Stop stays where it is.
      make("div", { class: "actions" }, this.#soundOn, this.#start, this.#stop),
      this.#captions,
      this.#keypad,
    );
    root.append(this.#card, this.sound);
  }

  /** Shows what holds. */
  show(model: Model): void {
    const words = (this.#words = wordsIn(model.language));
    const { state } = model;
    const live = LIVE.has(state);
    const ended = state === "over" || state === "blocked";
    this.#card.lang = model.language;
    this.#card.dataset["state"] = state;
    this.#card.dataset["tone"] = toneOf(model);

    setText(this.#title, words.title);
    setText(this.#payeeLabel, words.payee);
    setText(this.#amountLabel, words.amount);
    setText(this.#payee, model.payee);
    setText(this.#amount, model.amount);
    this.#payee.lang = this.#amount.lang = model.serviceLanguage;
    this.#sum.hidden = model.payee === "";

    if (ended) this.#tellEnd(model);
    else setText(this.#status, ANNOUNCED.has(state) ? words.states[state] : "");
    setText(this.#turn, ended || ANNOUNCED.has(state) ? "" : words.states[state]);
    setText(this.#hint, model.muted && live ? words.muted : "");
    this.#hint.hidden = this.#hint.textContent === "";

    setText(this.#digitsLabel, words.sayThese);
    setText(this.#digitsNumber, model.digits);
    this.#digits.hidden = model.digits === "" || !live;
    setText(this.#levelLabel, words.microphone);
    this.#level.hidden = !live;
    this.#captions.setAttribute("aria-label", words.captions);
    this.#captions.hidden = this.#captions.childElementCount === 0;
    setText(this.#keypadLabel, words.keypad);
    for (const button of this.#keys) {
      const spoken = button.textContent === "*" ? words.star : button.textContent === "#" ? words.hash : null;
      if (spoken) button.setAttribute("aria-label", spoken);
    }

    setText(this.#start, state === "blocked" ? words.again : words.start);
    setText(this.#stop, words.stop);
    setText(this.#soundOn, words.soundOn);
    const focused = this.#root.activeElement;
    this.#keypad.hidden = !live || !model.keypad;
    this.#start.hidden = !(state === "ready" || (state === "blocked" && model.canTryAgain));
    this.#stop.hidden = !(live || state === "asking");
    this.#soundOn.hidden = !(live && model.soundBlocked);
    // What had the focus is gone: the card takes it, so that a keyboard goes on from here and Enter, pressed twice, doesn't stop what it began.
    if (focused instanceof HTMLElement && focused.closest("[hidden]")) this.#card.focus({ preventScroll: true });
  }

  /** Adds what was said. */
  caption(caption: Caption): void {
    const said = caption.who === "caller" && /^[….\s]*$/.test(caption.text) ? this.#words.spoke : caption.text;
    const text = make("bdi", {}, said);
    if (caption.lang && said === caption.text) text.lang = caption.lang;
    const who = caption.who === "service" ? this.#words.service : this.#words.you;
    this.#captions.append(make("p", {}, make("span", { class: "who" }, `${who}: `), text));
    while (this.#captions.childElementCount > CAPTIONS_LIMIT) this.#captions.firstElementChild?.remove();
    this.#captions.hidden = false;
    this.#captions.scrollTop = this.#captions.scrollHeight;
  }

  /** Whether captions are read by screen readers as they come. */
  announceCaptions(announce: boolean): void {
    this.#captions.setAttribute("aria-live", announce ? "polite" : "off");
  }

  clear(): void {
    this.#captions.replaceChildren();
  }

  /** How loud the microphone is, 0 to 1. */
  level(level: number, nowMs: number): void {
    this.#bar.style.setProperty("--level", level.toFixed(3));
    if (nowMs - this.#levelToldMs < LEVEL_TOLD_EVERY_MS) return;
    this.#levelToldMs = nowMs;
    this.#meter.setAttribute("aria-valuenow", String(Math.round(level * 100)));
  }

  #tellEnd(model: Model): void {
    const words = this.#words;
    const fault = model.fault ? words.faults[model.fault] : null;
    const head = fault ? fault[0] : model.result ? words.outcomes[model.result] : "";
    const text = fault ? fault[1] : model.resultText;
    const reference = model.reference ? `${words.reference}: ${model.reference}` : "";
    const told = [head, text, reference].join("\n");
    if (this.#status.dataset["told"] === told && this.#status.childElementCount > 0) return;
    this.#status.dataset["told"] = told;
    const body = make("span", {}, text);
    if (!fault && model.serviceLanguage) body.lang = model.serviceLanguage;
    this.#status.replaceChildren(make("p", { class: "result", part: "result" }, make("strong", {}, head), ...(text ? [body] : []), ...(reference ? [make("span", {}, reference)] : [])));
  }
}

/** The colour that goes with the words; it says nothing that they don't. */
function toneOf(model: Model): string {
  if (model.fault) return "bad";
  switch (model.result) {
    case "paid":
      return "good";
    case "waiting":
      return "wait";
    case "refused":
    case "declined":
    case "failed":
      return "bad";
    case "cancelled":
    case null:
      return "none";
  }
}
