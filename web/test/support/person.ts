// A person before a page: they hear through the page what they are asked (its captions and digits), and answer with recordings of one voice, played into the
// page's microphone by Web Audio. Digits are put together from single ones, with pauses, pitch and length that differ a little each time: nobody says a word
// twice alike, and what was heard before is refused.

import { readFileSync } from "node:fs";

const VOICES = new URL("../../../audio-fixtures/", import.meta.url).pathname;

declare global {
  interface Window {
    /** Plays WAV files (base64) one after another, each after a pause in seconds and at a speed; resolves when the last is over. */
    speak(words: { wav: string; pause: number; speed: number }[]): Promise<void>;
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
  window.speak = async (words) => {
    await context.resume();
    let at = context.currentTime + 0.05;
    let last = null;
    for (const { wav, pause, speed } of words) {
      const bytes = Uint8Array.from(atob(wav), (c) => c.charCodeAt(0));
      const source = context.createBufferSource();
      source.buffer = await context.decodeAudioData(bytes.buffer);
      source.playbackRate.value = speed;
      source.connect(out);
      at = Math.max(at + pause, context.currentTime);
      source.start(at);
      at += source.buffer.duration / speed;
      last = source;
    }
    await new Promise((done) => (last ? last.addEventListener("ended", done) : done()));
    window.marks.spoke = performance.now();
  };
})();`;

/** A page, whichever library drives it. */
export interface Page {
  evaluate<A, R>(work: (argument: A) => R | Promise<R>, argument: A): Promise<R>;
}

/** What a person does when asked. */
export interface Answers {
  /** Who says the digits. */
  readonly digits: string;
  /** Folder and file that answers the question of yes or no; null: nothing. */
  readonly answer: string | null;
}

const wav = (file: string): string => readFileSync(`${VOICES}${file}.wav`).toString("base64");
const between = (least: number, most: number): number => least + Math.random() * (most - least);

/** Says these digits in a voice. */
export function sayDigits(page: Page, voice: string, digits: string): Promise<void> {
  const speed = between(0.94, 1.07);
  const words = [...digits.replace(/\D/g, "")].map((digit, n) => ({
    wav: wav(`${voice}/digit_${digit}`),
    pause: n > 0 && n % 4 === 0 ? between(0.25, 0.4) : between(0.02, 0.12),
    speed: speed * between(0.98, 1.02),
  }));
  return page.evaluate((words) => window.speak(words), words);
}

/** Says a recording. */
export function say(page: Page, file: string): Promise<void> {
  return page.evaluate((words) => window.speak(words), [{ wav: wav(file), pause: 0, speed: between(0.97, 1.03) }]);
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
      if (/after me|these digits|other digits/i.test(now.last)) await sayDigits(page, answers.digits, now.digits);
      else if (/yes/i.test(now.last) && answers.answer) await say(page, answers.answer);
    }
    await new Promise((done) => setTimeout(done, 60));
  }
  throw new Error("the call did not end in time");
}
