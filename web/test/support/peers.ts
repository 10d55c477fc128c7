// A page's connections, kept for their statistics.

/** Runs in the page before anything else. */
export const PEERS = `(() => {
  const Real = RTCPeerConnection;
  window.peers = [];
  window.RTCPeerConnection = class extends Real {
    constructor(configuration, ...more) {
      super({ ...configuration, ...window.peersAre }, ...more);
      window.peers.push(this);
      window.peerMade?.(this);
    }
  };
})();`;

/** The same, and they go through a relay or nowhere. */
export const RELAYED_PEERS = `window.peersAre = { iceTransportPolicy: "relay" };${PEERS}`;

declare global {
  interface Window {
    peers: RTCPeerConnection[];
  }
}
