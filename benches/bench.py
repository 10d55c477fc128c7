"""Ours beside its peers, in turns, in one run, one thread each: embedding against onnxruntime on the same weights, card numbers against
faster-whisper int8 with the same Whisper; then end point to verdict, and resident memory. Called by scripts/bench.sh.

Ours is asked through `voicepay eval bench` (requests and answers are JSON lines). Writes benches/RESULTS.md.
"""
import argparse, csv, datetime, os, platform, statistics, sys, time

from common import Ours, cpu, digits_of, load, percentile, reader
import peer_embedding


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--voicepay", required=True)
    p.add_argument("--wavs", required=True, help="folder with index.csv (file,speaker,text,duration_s), 8 kHz WAV")
    p.add_argument("--what", required=True, help="what the utterances are, in words")
    p.add_argument("--weights", required=True, help="campplus.safetensors")
    p.add_argument("--whisper", required=True, help="folder of the CTranslate2 model")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--out", required=True)
    a = p.parse_args()

    with open(os.path.join(a.wavs, "index.csv")) as f:
        rows = [(os.path.join(a.wavs, r["file"]), r["text"]) for r in csv.DictReader(f)]
    rows = [r for r in rows if len(r[1]) == 16]
    if not rows:
        sys.exit(f"bench: {a.wavs}/index.csv names no 16-digit utterances")

    import ctranslate2, faster_whisper, onnxruntime

    peer_embed = peer_embedding.Peer(a.weights)
    transcribe = reader(a.whisper)
    ours = Ours(a.voicepay)
    load_before = load()

    per_second = {"ours": [], "onnxruntime": []}
    number = {"ours": [], "read": [], "score": [], "faster-whisper": []}
    exact = {"ours": 0, "faster-whisper": 0}
    verdict, skipped = [], 0
    for turn in range(a.rounds + 1):  # the first round warms up and isn't counted
        chosen = rows if turn else rows[:2]
        for i, (path, text) in enumerate(chosen):
            samples = peer_embedding.read_wav_16k(path)
            seconds = len(samples) / 16000

            def embed_ours():
                per_second["ours"].append(ours.ask(do="embed", file=path)["ms"] / seconds)

            def embed_peer():
                start = time.perf_counter()
                peer_embed.embed(samples)
                per_second["onnxruntime"].append((time.perf_counter() - start) * 1000 / seconds)

            def number_ours():
                answer = ours.ask(do="number", file=path, digits=text)
                number["ours"].append(answer["ms"])
                number["read"].append(answer["free_ms"])
                number["score"].append(answer["score_ms"])
                exact["ours"] += answer["exact"]

            def number_peer():
                start = time.perf_counter()
                said = digits_of(transcribe(samples))
                number["faster-whisper"].append((time.perf_counter() - start) * 1000)
                exact["faster-whisper"] += said == text

            # Who goes first changes, so that neither always finds the caches as the other left them.
            pairs = [(embed_ours, embed_peer), (number_ours, number_peer)]
            for one, other in pairs:
                for work in (one, other) if (i + turn) % 2 else (other, one):
                    work()
            answer = ours.ask(do="verdict", file=path, digits=text)
            if answer["judged"]:
                verdict.append(answer["ms"])
            else:
                skipped += 1
            print(f"bench: round {turn} of {a.rounds}, {i + 1} of {len(chosen)}", file=sys.stderr)
        if turn == 0:
            for values in (*per_second.values(), *number.values(), verdict):
                values.clear()
            exact, skipped = dict.fromkeys(exact, 0), 0
    memory = ours.ask(do="memory")
    ours.close()

    def line(name, mine, theirs, peer):
        m, t = statistics.median(mine), statistics.median(theirs)
        return f"| {name} | {m:.1f} | {percentile(mine, 0.95):.1f} | {peer} {t:.1f} | {percentile(theirs, 0.95):.1f} | {m / t:.2f} |"

    tried = len(number["ours"])
    out = [
        "# What `make bench` measured",
        "",
        "Written by `scripts/bench.sh`; don't edit. Ours and the peer work on the same utterances in turns within one run, one thread each.",
        "",
        f"- {datetime.date.today()}, {cpu()}, {os.cpu_count()} cores, load average {load_before} before and {load()} after, {platform.system()} {platform.machine()}",
        f"- {a.what}: {len(rows)} utterances of 16 digits, {a.rounds} rounds",
        f"- onnxruntime {onnxruntime.__version__}, faster-whisper {faster_whisper.__version__} (CTranslate2 {ctranslate2.__version__}, tiny.en int8, beam 5)",
        "",
        "| | ours, median | p95 | peer, median | p95 | ours / peer |",
        "|---|---|---|---|---|---|",
        line("embedding, ms per second of speech", per_second["ours"], per_second["onnxruntime"], "onnxruntime"),
        line("reading and scoring a number, ms", number["ours"], number["faster-whisper"], "faster-whisper"),
        line("reading alone, ms", number["read"], number["faster-whisper"], "faster-whisper"),
        line("scoring the authorised number alone, ms", number["score"], number["faster-whisper"], "faster-whisper (reads, can't score)"),
        "",
    ]
    if verdict:
        out.append(
            f"End point to verdict (embedding, voice judged, number scored and judged), one thread: p50 {percentile(verdict, 0.5):.0f} ms, p95 {percentile(verdict, 0.95):.0f} ms."
        )
    if skipped:
        out.append(f"{skipped} verdicts ended with the voice (too little speech) and are not counted.")
    out += [
        f"Resident memory with both models loaded: {memory['resident_mb']:.0f} MB, at its peak {memory['peak_mb']:.0f} MB (goal: 350 MB).",
        f"Read exactly: ours {exact['ours']} of {tried}, faster-whisper {exact['faster-whisper']} of {tried} (the same utterances {a.rounds} times).",
    ]
    text = "\n".join(out) + "\n"
    with open(a.out, "w") as f:
        f.write(text)
    print(text)


if __name__ == "__main__":
    main()
