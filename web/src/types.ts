// What an app's developer sees: states, results, faults and the events that carry them.

/** Where the component stands. `blocked` can be tried again; after `over` a new token is needed. */
export type VoicepayState =
  | "loading"
  | "ready"
  | "blocked"
  | "asking"
  | "connecting"
  | "prompting"
  | "listening"
  | "thinking"
  | "reconnecting"
  | "over";

/** What the confirmation came to. Only the service's own word (its API, a webhook) is proof of a payment: a page can be altered by whoever sits before it. */
export type VoicepayOutcome = "paid" | "refused" | "declined" | "waiting" | "cancelled" | "failed";

/** Why it can't begin or go on. Each has words of its own for the user; these names are for programs. */
export type VoicepayFault =
  /** The user, the browser or the page's Permissions-Policy doesn't allow the microphone. */
  | "mic-refused"
  /** This device has no microphone. */
  | "mic-missing"
  /** There is one, but it gives no sound: another program has it. */
  | "mic-busy"
  /** The microphone went away during the call. */
  | "mic-lost"
  /** The page was not loaded over https. */
  | "insecure"
  /** The browser lacks WebRTC or something else that is needed. */
  | "unsupported"
  /** The service can't be reached: no network, or the page's own content security policy forbids it. */
  | "unreachable"
  /** The service takes no more calls for now. */
  | "busy"
  /** The token is unknown or too old. */
  | "expired"
  /** The token was used before. */
  | "used"
  /** The token is bound to another origin than this page's. */
  | "wrong-origin"
  /** The service can't do with what this browser offers. */
  | "rejected"
  /** The service answers, but no sound gets through: a firewall, mostly. */
  | "no-media"
  /** The connection was lost and didn't come back. What became of the payment isn't known here. */
  | "lost"
  /** Something is wrong on the service's side. */
  | "service"
  /** The page gives no token, or an endpoint that isn't one. */
  | "setup";

/** Detail of `voicepay-state`. */
export interface VoicepayStateDetail {
  readonly state: VoicepayState;
  readonly previous: VoicepayState;
  /** Set in `blocked`, and in `over` when it ended by a fault. */
  readonly fault: VoicepayFault | null;
}

/** Detail of `voicepay-result`, which comes once a token. */
export interface VoicepayResultDetail {
  readonly result: VoicepayOutcome;
  /** For people, as it is shown. */
  readonly text: string;
  /** The payment's reference, when there is one. */
  readonly reference: string | null;
  /** Set when it ended by a fault. With `lost` the payment may have been made: ask your back end. */
  readonly fault: VoicepayFault | null;
}

/** The events by name, for `addEventListener`. */
export interface VoicepayEventMap extends HTMLElementEventMap {
  "voicepay-state": CustomEvent<VoicepayStateDetail>;
  "voicepay-result": CustomEvent<VoicepayResultDetail>;
}

/** The languages that the component speaks. */
export type VoicepayLanguage = "en" | "zh";
