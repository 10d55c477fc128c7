// Hears what a page hears: when the first sound of the service comes out of its connection.

/** Runs in the page before anything else, after MICROPHONE and WATCH: keeps the page's connections, and marks when the first sound is heard in one. */
export const EAR = `(() => {
  const LOUD = 0.005, LOOK_MS = 5;
  const Real = RTCPeerConnection;
  window.peers = [];
  window.RTCPeerConnection = class extends Real {
    constructor(...all) {
      super(...all);
      window.peers.push(this);
      this.addEventListener("track", (event) => {
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
    }
  };
})();`;

declare global {
  interface Window {
    peers: RTCPeerConnection[];
  }
}
