// What went wrong, told apart by what the user can do about it; HTTP's and the microphone's errors are read here and nowhere else.

import type { VoicepayFault } from "./types.js";

/** An error that has words of its own. `note` is for developers and holds nothing secret. */
export class Fault extends Error {
  readonly kind: VoicepayFault;

  constructor(kind: VoicepayFault, note: string) {
    super(note);
    this.name = "VoicepayFault";
    this.kind = kind;
  }
}

/** Faults after which the same token can be tried again. */
const TRY_AGAIN: ReadonlySet<VoicepayFault> = new Set<VoicepayFault>(["mic-refused", "mic-missing", "mic-busy", "unreachable", "busy", "service"]);

/** Whether the same token is still good after it, if no call had begun. */
export function canTryAgain(kind: VoicepayFault): boolean {
  return TRY_AGAIN.has(kind);
}

/** A fault of an answer's status and of its problem's type (RFC 9457), whose last word is more exact where there is one. */
export function faultOfAnswer(status: number, type: string): VoicepayFault {
  const kind = type.slice(type.lastIndexOf(":") + 1);
  if (kind.endsWith("origin")) return "wrong-origin";
  if (kind.endsWith("expired")) return "expired";
  if (kind.endsWith("used")) return "used";
  switch (status) {
    case 401:
    case 404:
    case 410:
      return "expired";
    case 403:
      return "wrong-origin";
    case 409:
      return "used";
    case 429:
    case 503:
      return "busy";
    default:
      return status >= 500 ? "service" : "rejected";
  }
}

/** A fault of what `getUserMedia` threw (Media Capture and Streams, section 10.3.2). */
export function faultOfMicrophone(error: unknown): VoicepayFault {
  switch (error instanceof Error || error instanceof DOMException ? error.name : "") {
    case "NotAllowedError":
    case "SecurityError":
      return "mic-refused";
    case "NotFoundError":
    case "OverconstrainedError":
      return "mic-missing";
    default:
      return "mic-busy";
  }
}
