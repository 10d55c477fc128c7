// One call: WebRTC, the service's events beside it, and what is done when the network changes or goes. It ends exactly once.

import { type ServiceEvent, type ServiceState } from "./events.js";
import { Fault } from "./fault.js";
import { readFragment, restartedAnswer, writeFragment } from "./fragment.js";
import type { Service } from "./service.js";
import type { VoicepayFault } from "./types.js";

const CONNECT_LIMIT_MS = 15_000;
/** How long a lost connection may take to come back; the service waits as long, about. */
const RECONNECT_LIMIT_MS = 20_000;
/** Radio gaps mend themselves mostly. */
const DISCONNECTED_PATIENCE_MS = 800;
const RESTART_ANSWER_MS = 4_000;
const RESTARTS_LIMIT = 12;
const BACKOFF_FIRST_MS = 250;
const BACKOFF_LIMIT_MS = 3_000;
/** A fragment carries what comes within this time. */
const TRICKLE_GATHER_MS = 20;
/** How long a result may take after the user left, or after the service hung up. */
const LAST_WORD_MS = 3_000;
/** How long the result may be spoken. */
const SPOKEN_RESULT_LIMIT_MS = 15_000;

/** How a call ended. */
export type End = Extract<ServiceEvent, { type: "result" }> | { readonly type: "left" } | Broken;

/** `begun`: the service had taken the offer, so the token is used up. */
interface Broken {
  readonly type: "fault";
  readonly fault: VoicepayFault;
  readonly begun: boolean;
}

/** Whom the call tells. */
export interface Listener {
  state(state: Exclude<ServiceState, "over">): void;
  caption(caption: Extract<ServiceEvent, { type: "caption" }>): void;
  digits(digits: string): void;
  sound(stream: MediaStream): void;
  keypad(): void;
  ended(end: End): void;
}

export class Call {
  readonly #service: Service;
  readonly #listener: Listener;
  readonly #microphone: MediaStream;
  readonly #peer: RTCPeerConnection;
  readonly #sender: RTCRtpSender;
  #place: URL | null = null;
  #etag: string | null = null;
  #answer = "";
  #candidates: string[] = [];
  #gathered = false;
  #trickleTimer = 0;
  #stream = new AbortController();
  #told: Exclude<ServiceState, "over"> = "connecting";
  #lastCaption = "";
  #connectedOnce = false;
  #mending = false;
  #leaving = false;
  #over = false;
  readonly #sleepers = new Set<() => void>();
  readonly #networkChanged = (): void => {
    this.#wake();
    void this.#mend();
  };

  constructor(service: Service, iceServers: readonly RTCIceServer[], microphone: MediaStream, listener: Listener) {
    this.#service = service;
    this.#listener = listener;
    this.#microphone = microphone;
    this.#peer = new RTCPeerConnection({ iceServers: [...iceServers], bundlePolicy: "max-bundle" });
    const track = microphone.getAudioTracks()[0];
    if (!track) throw new Fault("mic-missing", "the stream has no track");
    const transceiver = this.#peer.addTransceiver(track, { direction: "sendrecv", streams: [microphone] });
    this.#sender = transceiver.sender;
    preferCodecs(transceiver);
    track.addEventListener("ended", () => this.#fail("mic-lost"));
    this.#peer.ontrack = (event) => listener.sound(event.streams[0] ?? new MediaStream([event.track]));
    this.#peer.onicecandidate = (event) => this.#gather(event.candidate);
    this.#peer.onconnectionstatechange = () => this.#offerKeypad();
    this.#peer.oniceconnectionstatechange = () => this.#iceChanged();
  }

  /** Sets it up; then it goes by itself. */
  async begin(): Promise<void> {
    try {
      await this.#peer.setLocalDescription(await this.#peer.createOffer());
      const answered = await this.#service.offer(this.#peer.localDescription?.sdp ?? "");
      this.#place = answered.place;
      this.#etag = answered.etag;
      this.#answer = answered.sdp;
      if (this.#over || this.#leaving) {
        // Left while the answer was under way.
        await this.#service.leave(answered.place);
        this.#end({ type: "left" });
        return;
      }
      void this.#watch(answered.place);
      await this.#peer.setRemoteDescription({ type: "answer", sdp: answered.sdp }).catch(() => {
        throw new Fault("service", "the browser does not take the answer");
      });
      this.#offerKeypad();
      this.#sender.transport?.addEventListener("statechange", () => this.#transportChanged());
      addEventListener("online", this.#networkChanged);
      connectionOf(navigator)?.addEventListener("change", this.#networkChanged);
      this.#trickleSoon();
      setTimeout(() => {
        if (!this.#connectedOnce) this.#fail("no-media");
      }, CONNECT_LIMIT_MS);
    } catch (error) {
      this.#fail(error instanceof Fault ? error.kind : "unsupported");
    }
  }

  /** The user leaves. The result is awaited for a moment: it may be too late to stop. */
  async leave(): Promise<void> {
    if (this.#over || this.#leaving) return;
    this.#leaving = true;
    this.#silence();
    // Without an answer yet, `begin` leaves as soon as there is one.
    if (!this.#place) {
      this.#end({ type: "left" });
      return;
    }
    const heard = await this.#service.leave(this.#place);
    await this.#lastWord();
    const unsure = !heard || this.#told === "thinking";
    this.#end(unsure ? { type: "fault", fault: "lost", begun: true } : { type: "left" });
  }

  /** The page goes away: nothing can be awaited. */
  abandon(): void {
    if (!this.#over && this.#place) void this.#service.leave(this.#place);
    // A set-up whose answer is still under way leaves when it comes, if the page is still there.
    this.#end({ type: "left" });
    this.#peer.close();
  }

  /** Sends a key as the telephone does (RFC 4733), where that was agreed. */
  key(key: string): void {
    if (this.#sender.dtmf?.canInsertDTMF) this.#sender.dtmf.insertDTMF(key, 120, 60);
  }

  // --- the service's events

  async #watch(place: URL): Promise<void> {
    let heardAtMs = performance.now();
    for (let tries = 0; !this.#over; tries += 1) {
      this.#stream = new AbortController();
      let repeated = tries > 0;
      try {
        for await (const event of this.#service.events(place, this.#stream.signal)) {
          heardAtMs = performance.now();
          tries = 0;
          if (this.#take(event, repeated)) return;
          if (event.type === "caption") repeated = false;
        }
      } catch (error) {
        if (isGone(error)) {
          this.#fail("lost");
          return;
        }
      }
      if (this.#over) return;
      if (performance.now() - heardAtMs > RECONNECT_LIMIT_MS && !this.#isConnected()) {
        this.#fail("lost");
        return;
      }
      await this.#pause(Math.min(BACKOFF_LIMIT_MS, BACKOFF_FIRST_MS * 2 ** Math.min(tries, 8)));
    }
  }

  /** Whether it was the last one. */
  #take(event: ServiceEvent, repeated: boolean): boolean {
    this.#offerKeypad();
    switch (event.type) {
      case "state":
        // Over without a result is told by the end of the stream.
        if (event.state === "over") return false;
        this.#told = event.state;
        if (!this.#mending && !this.#leaving) this.#listener.state(event.state);
        return false;
      case "caption": {
        const same = `${event.who} ${event.text}`;
        // A stream that was opened again may begin with what was told last.
        if (!(repeated && same === this.#lastCaption)) this.#listener.caption(event);
        this.#lastCaption = same;
        return false;
      }
      case "digits":
        this.#listener.digits(event.digits);
        return false;
      case "result":
        this.#end(event);
        return true;
    }
  }

  // --- candidates

  #gather(candidate: RTCIceCandidate | null): void {
    if (candidate?.candidate) this.#candidates.push(candidate.candidate);
    else this.#gathered = true;
    this.#trickleSoon();
  }

  #trickleSoon(): void {
    if (this.#trickleTimer === 0) this.#trickleTimer = window.setTimeout(() => void this.#trickle(), TRICKLE_GATHER_MS);
  }

  async #trickle(): Promise<void> {
    this.#trickleTimer = 0;
    const sdp = this.#peer.localDescription?.sdp;
    // While ICE restarts, candidates go with the restart.
    if (!this.#place || !sdp || this.#over || this.#peer.signalingState !== "stable") return;
    const candidates = this.#candidates;
    const last = this.#gathered;
    if (candidates.length === 0 && !last) return;
    this.#candidates = [];
    this.#gathered = false;
    try {
      await this.#service.trickle(this.#place, this.#etag, writeFragment(sdp, candidates, last));
    } catch {
      // Our side's checks reach the service without it, and a restart tells all anew.
    }
  }

  // --- the network

  #isConnected(): boolean {
    return this.#peer.iceConnectionState === "connected" || this.#peer.iceConnectionState === "completed";
  }

  #iceChanged(): void {
    if (this.#over) return;
    switch (this.#peer.iceConnectionState) {
      case "connected":
      case "completed":
        this.#connectedOnce = true;
        this.#offerKeypad();
        this.#wake();
        break;
      case "disconnected":
        setTimeout(() => {
          if (this.#peer.iceConnectionState === "disconnected") void this.#mend();
        }, DISCONNECTED_PATIENCE_MS);
        break;
      case "failed":
        void this.#mend();
        break;
      case "new":
      case "checking":
      case "closed":
        break;
    }
  }

  /** Keys can be sent once the answer is taken and DTLS is up; no event of its own tells of it. */
  #offerKeypad(): void {
    if (this.#connectedOnce && !this.#over && this.#sender.dtmf?.canInsertDTMF) this.#listener.keypad();
  }

  /** The service closed DTLS: it hung up, and the stream says why. */
  #transportChanged(): void {
    const state = this.#sender.transport?.state;
    if (state !== "closed" && state !== "failed") return;
    if (this.#over) this.#peer.close();
    else void this.#lastWord().then(() => this.#fail("lost"));
  }

  /** Restarts ICE until it is connected again or the time for it is over. */
  async #mend(): Promise<void> {
    if (this.#mending || this.#over || this.#leaving || !this.#place || !this.#connectedOnce) return;
    this.#mending = true;
    this.#listener.state("reconnecting");
    const beganMs = performance.now();
    for (let tries = 0; tries < RESTARTS_LIMIT && performance.now() - beganMs < RECONNECT_LIMIT_MS; tries += 1) {
      try {
        await this.#restart(this.#place);
        // The stream's connection went with the network, and may not know it yet.
        this.#stream.abort();
        await this.#pause(RESTART_ANSWER_MS);
      } catch (error) {
        if (isGone(error)) break;
        await this.#pause(Math.min(BACKOFF_LIMIT_MS, BACKOFF_FIRST_MS * 2 ** tries));
      }
      if (this.#over) return;
      if (this.#isConnected() && this.#peer.signalingState === "stable") {
        this.#mending = false;
        this.#listener.state(this.#told);
        return;
      }
    }
    // The stream may have been told the result on the way.
    await this.#lastWord();
    this.#fail("lost");
  }

  async #restart(place: URL): Promise<void> {
    this.#candidates = [];
    this.#gathered = false;
    await this.#peer.setLocalDescription(await this.#peer.createOffer({ iceRestart: true }));
    const { fragment, etag } = await this.#service.restart(place, writeFragment(this.#peer.localDescription?.sdp ?? "", [], false));
    const read = readFragment(fragment);
    if (!read) throw new Fault("service", "the restart's answer has no credentials");
    this.#etag = etag;
    await this.#peer.setRemoteDescription({ type: "answer", sdp: restartedAnswer(this.#answer, read) });
    this.#trickleSoon();
  }

  /** Waits, unless ICE gets connected, the network comes back or the call ends before. */
  #pause(limitMs: number): Promise<void> {
    if (this.#over) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.#sleepers.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, limitMs);
      this.#sleepers.add(wake);
    });
  }

  #wake(): void {
    for (const wake of [...this.#sleepers]) wake();
  }

  // --- the end

  /** Waits for a result that may be under way. */
  async #lastWord(): Promise<void> {
    const untilMs = performance.now() + LAST_WORD_MS;
    while (!this.#over && performance.now() < untilMs) await this.#pause(untilMs - performance.now());
  }

  #fail(fault: VoicepayFault): void {
    if (this.#over) return;
    // The service must not go on listening to nobody.
    if (this.#place) void this.#service.leave(this.#place);
    this.#end({ type: "fault", fault, begun: this.#place !== null });
  }

  /** Nobody is heard from here on. */
  #silence(): void {
    for (const track of this.#microphone.getTracks()) track.stop();
  }

  #end(end: End): void {
    if (this.#over) return;
    this.#over = true;
    this.#silence();
    clearTimeout(this.#trickleTimer);
    this.#stream.abort();
    removeEventListener("online", this.#networkChanged);
    connectionOf(navigator)?.removeEventListener("change", this.#networkChanged);
    this.#wake();
    if (end.type === "result") setTimeout(() => this.#peer.close(), SPOKEN_RESULT_LIMIT_MS);
    else this.#peer.close();
    this.#listener.ended(end);
  }
}

/** Whether the service answered that it knows no such call: asking again won't help. */
function isGone(error: unknown): boolean {
  return error instanceof Fault && (error.kind === "expired" || error.kind === "used");
}

/** Opus first, then what telephones speak, and keys; nothing else is offered. */
function preferCodecs(transceiver: RTCRtpTransceiver): void {
  const rank = (codec: RTCRtpCodec): number => ["audio/opus", "audio/pcmu", "audio/telephone-event"].indexOf(codec.mimeType.toLowerCase());
  const all = RTCRtpReceiver.getCapabilities("audio")?.codecs ?? [];
  const wanted = all.filter((codec) => rank(codec) >= 0).sort((a, b) => rank(a) - rank(b));
  // Without a preference the browser offers all it has, which does as well.
  if (wanted.length > 0 && "setCodecPreferences" in transceiver) transceiver.setCodecPreferences(wanted);
}

/** Where the browser tells of changed networks (Network Information API): not everywhere. */
function connectionOf(from: Navigator): EventTarget | null {
  return "connection" in from && from.connection instanceof EventTarget ? from.connection : null;
}
