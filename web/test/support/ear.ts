// Hears what a page hears: when the first sound of the service comes out of its connection.

import { PEERS } from "./peers.js";

/** Runs in the page before anything else, after MICROPHONE and WATCH: marks when the first sound is heard. */
export const EAR = `window.peerMade = (peer) => {
  const LOUD = 0.005, LOOK_MS = 5;
  peer.addEventListener("track", (event) => {
    const context = new AudioContext();
    const ear = context.createAnalyser();
    ear.fftSize = 512;
    const samples = new Float32Array(ear.fftSize);
    context.createMediaStreamSource(new MediaStream([event.track])).connect(ear);
    const looking = setInterval(() => {
      ear.getFloatTimeDomainData(samples);
      if (!samples.some((sample) => Math.abs(sample) > LOUD)) return;
      window.marks.heard ??= performance.now();
      clearInterval(looking);
      context.close();
    }, LOOK_MS);
  });
};${PEERS}`;
