// The microphone: asking for it, and how loud it is.

import { Fault, faultOfMicrophone } from "./fault.js";

/** Below this nobody speaks and nothing rustles: the microphone is muted, or it is none. */
export const DEAD_LEVEL = 0.02;
/** What the meter spans, in dB below full scale. */
const METER_SPAN_DB = 54;
/** How often it is drawn, in milliseconds: the style carries the bar from one to the next. */
const METER_DRAW_MS = 60;

/** Asks for the microphone. The prompt's own sound is taken out of it by the browser. */
export async function openMicrophone(): Promise<MediaStream> {
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, autoGainControl: true, noiseSuppression: true, channelCount: 1 },
    });
  } catch (error) {
    throw new Fault(faultOfMicrophone(error), `the microphone: ${error instanceof Error ? error.name : "unknown"}`);
  }
}

/** Loudness of samples, 0 to 1 over the meter's span. */
export function levelOf(samples: Float32Array): number {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  if (sum === 0) return 0;
  const db = 10 * Math.log10(sum / samples.length);
  return Math.min(1, Math.max(0, 1 + db / METER_SPAN_DB));
}

/** Hears a stream and tells its level again and again, until it is stopped. */
export class Meter {
  readonly #context: AudioContext;
  readonly #analyser: AnalyserNode;
  readonly #samples: Float32Array<ArrayBuffer>;
  readonly #drawing: ReturnType<typeof setInterval>;

  constructor(stream: MediaStream, told: (level: number, nowMs: number) => void) {
    this.#context = new AudioContext();
    this.#analyser = this.#context.createAnalyser();
    this.#analyser.fftSize = 1024;
    this.#samples = new Float32Array(this.#analyser.fftSize);
    this.#context.createMediaStreamSource(stream).connect(this.#analyser);
    this.#drawing = setInterval(() => {
      this.#analyser.getFloatTimeDomainData(this.#samples);
      told(levelOf(this.#samples), performance.now());
    }, METER_DRAW_MS);
  }

  stop(): void {
    clearInterval(this.#drawing);
    void this.#context.close().catch(() => undefined);
  }
}
