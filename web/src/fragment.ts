// Candidates between page and service: SDP fragments (RFC 8840) as WHIP sends them (RFC 9725, section 4.3).

/** More candidates than this from one side are not real. */
const CANDIDATES_LIMIT = 64;

/** What a fragment says. */
export interface Fragment {
  readonly ufrag: string;
  readonly pwd: string;
  /** Attribute lines without `a=`: `candidate:…`. */
  readonly candidates: readonly string[];
}

function lines(sdp: string): string[] {
  return sdp.split(/\r\n|\n|\r/).filter((line) => line !== "");
}

function valueOf(all: readonly string[], name: string): string {
  const begin = `a=${name}:`;
  return all.find((line) => line.startsWith(begin))?.slice(begin.length) ?? "";
}

/** The fragment that tells candidates of a description of ours; `last` when no more will come. */
export function writeFragment(sdp: string, candidates: readonly string[], last: boolean): string {
  const all = lines(sdp);
  const media = all.find((line) => line.startsWith("m=")) ?? "m=audio 9 UDP/TLS/RTP/SAVPF 0";
  const out = [`a=ice-ufrag:${valueOf(all, "ice-ufrag")}`, `a=ice-pwd:${valueOf(all, "ice-pwd")}`, media, `a=mid:${valueOf(all, "mid") || "0"}`];
  for (const candidate of candidates.slice(0, CANDIDATES_LIMIT)) out.push(`a=${candidate}`);
  if (last) out.push("a=end-of-candidates");
  return out.join("\r\n") + "\r\n";
}

/** What a fragment says; null when it lacks the credentials without which nothing can be restarted. */
export function readFragment(text: string): Fragment | null {
  const all = lines(text);
  const ufrag = valueOf(all, "ice-ufrag");
  const pwd = valueOf(all, "ice-pwd");
  if (!/^[A-Za-z0-9+/]{4,256}$/.test(ufrag) || !/^[A-Za-z0-9+/]{22,256}$/.test(pwd)) return null;
  const candidates = all.filter((line) => line.startsWith("a=candidate:")).map((line) => line.slice(2));
  return { ufrag, pwd, candidates: candidates.slice(0, CANDIDATES_LIMIT) };
}

/** The service's answer as it stands after a restart: all but ICE's own lines stays. */
export function restartedAnswer(answer: string, fragment: Fragment): string {
  const kept = lines(answer).filter((line) => !/^a=(ice-ufrag|ice-pwd|candidate|end-of-candidates)(:|$)/.test(line));
  const ice = [`a=ice-ufrag:${fragment.ufrag}`, `a=ice-pwd:${fragment.pwd}`, ...fragment.candidates.map((candidate) => `a=${candidate}`)];
  // One m-line is all there is, so the end of the description is the end of it.
  return [...kept, ...ice].join("\r\n") + "\r\n";
}
