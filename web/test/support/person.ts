// A person before a page: they hear through the page what they are asked (its captions and digits), and answer in one voice, played into the page's microphone
// by Web Audio. Flite speaks for them, each time at another pace and pitch: nobody says a word twice alike, and what was heard before is refused.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Who speaks: Alice's voice is the one that the demo has enrolled (audio-fixtures/, scripts/make_fixtures.py), Mallory's is not. */
const VOICES = {
  alice: { flite: "slt", pitchHz: 170, pace: { running: 1.15, short: 1 } },
  mallory: { flite: "rms", pitchHz: 105, pace: { running: 1, short: 1.3 } },
};
export type Voice = keyof typeof VOICES;

const WORDS = "zero one two three four five six seven eight nine".split(" ");

declare global {
  interface Window {
    /** Plays a WAV file (base64); resolves when it is over. */
    speak(wav: string): Promise<void>;
    /** When each thing was seen, on the page's clock. */
    marks: Record<string, number>;
  }
}

/** Runs in the page before anything else: the microphone is what `speak` plays, over the noise of a room. */
export const MICROPHONE = `(() => {
  const context = new AudioContext({ sampleRate: 48000 });
  const out = context.createMediaStreamDestination();
  const room = context.createBufferSource();
  const noise = context.createBuffer(1, 96000, 48000);
  const samples = noise.getChannelData(0);
  for (let n = 0; n < samples.length; n += 1) samples[n] = (Math.random() * 2 - 1) * 0.0015;
  room.buffer = noise;
  room.loop = true;
  room.connect(out);
  room.start();
  window.marks = {};
  navigator.mediaDevices.getUserMedia = async () => {
    await context.resume();
    window.marks.asked = performance.now();
    return new MediaStream(out.stream.getAudioTracks().map((track) => track.clone()));
  };
  window.speak = async (wav) => {
    await context.resume();
    const bytes = Uint8Array.from(atob(wav), (c) => c.charCodeAt(0));
    const source = context.createBufferSource();
    source.buffer = await context.decodeAudioData(bytes.buffer);
    source.connect(out);
    source.start(context.currentTime + 0.05);
    await new Promise((done) => source.addEventListener("ended", done));
    window.marks.spoke = performance.now();
  };
})();`;

/** A page, whichever library drives it. */
export interface Page {
  evaluate<A, R>(work: (argument: A) => R | Promise<R>, argument: A): Promise<R>;
}

/** What a person does when asked. */
export interface Answers {
  /** Who says the digits; null: nobody. */
  readonly digits: Voice | null;
  /** Who answers the question of yes or no, and how; null: nobody. */
  readonly answer: { readonly voice: Voice; readonly words: string } | null;
}

const between = (least: number, most: number): number => least + Math.random() * (most - least);

/** Speaks, as WAV in base64. */
function spoken(voice: Voice, words: string, pace: number): string {
  const { flite, pitchHz } = VOICES[voice];
  const folder = mkdtempSync(join(tmpdir(), "voicepay-voice-"));
  try {
    const file = join(folder, "said.wav");
    const set = (name: string, value: number): string[] => ["--setf", `${name}=${value.toFixed(3)}`];
    execFileSync("flite", ["-voice", flite, ...set("duration_stretch", pace * between(0.92, 1.1)), ...set("int_f0_target_mean", pitchHz * between(0.95, 1.06)), "-t", `${words}.`, "-o", file]);
    return readFileSync(file).toString("base64");
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Says these digits in a voice. */
export function sayDigits(page: Page, voice: Voice, digits: string): Promise<void> {
  const words = digits.replace(/\D/g, "").replace(/\d{3,4}(?=\d\d)/g, "$&,").replace(/\d/g, (digit) => ` ${WORDS[Number(digit)]}`);
  return page.evaluate((wav) => window.speak(wav), spoken(voice, words, VOICES[voice].pace.running));
}

/** Says a word or two. */
export function say(page: Page, voice: Voice, words: string): Promise<void> {
  return page.evaluate((wav) => window.speak(wav), spoken(voice, words, VOICES[voice].pace.short));
}

/** Answers whatever is asked, as often as it is asked, until there is a result. */
export async function converse(page: Page, answers: Answers, limitMs = 120_000): Promise<void> {
  const until = Date.now() + limitMs;
  let asked = 0;
  while (Date.now() < until) {
    const now = await page.evaluate((_: null) => {
      const element = document.querySelector("voicepay-confirm");
      const root = element?.shadowRoot;
      const captions = [...(root?.querySelectorAll(".captions p") ?? [])].map((p) => p.textContent ?? "");
      return {
        state: element?.state ?? "",
        asked: captions.filter((text) => text.startsWith("Voicepay:")).length,
        last: captions.filter((text) => text.startsWith("Voicepay:")).at(-1) ?? "",
        digits: root?.querySelector(".digits .number")?.textContent ?? "",
      };
    }, null);
    if (now.state === "over" || now.state === "blocked") return;
    if (now.state === "listening" && now.asked > asked) {
      asked = now.asked;
      await new Promise((done) => setTimeout(done, 350));
      if (/after me|these digits|other digits/i.test(now.last)) {
        if (answers.digits) await sayDigits(page, answers.digits, now.digits);
      } else if (/yes/i.test(now.last) && answers.answer) await say(page, answers.answer.voice, answers.answer.words);
    }
    await new Promise((done) => setTimeout(done, 60));
  }
  throw new Error("the call did not end in time");
}
