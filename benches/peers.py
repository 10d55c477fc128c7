"""Peers on the very sounds that `voicepay eval` measures, in turns with ours, one thread each: faster-whisper tiny.en and base (int8, beam 5)
reading card numbers; CAM++ on onnxruntime and GE2E telling voices apart. Called by scripts/eval.sh; writes JSON for `voicepay eval all`.

Folders are made by `voicepay eval render`: index.csv with file,source,speaker,text,duration_s.
"""
import argparse, csv, datetime, json, os, sys, time

from common import Ours, cpu, digits_of, edit_distance, load, percentile, reader
import numpy as np
import peer_embedding, peer_ge2e


def index(folder):
    with open(os.path.join(folder, "index.csv")) as f:
        return [{**r, "path": os.path.join(folder, r["file"])} for r in csv.DictReader(f)]


def clock(work):
    began = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - began) * 1000


def figures(name, tried):
    """tried: (said, read, ms)"""
    edits = [edit_distance(said, read) for said, read, _ in tried]
    ms = [t[2] for t in tried]
    return {
        "name": name, "utterances": len(tried), "exact": edits.count(0), "edits": sum(edits), "digits": sum(len(t[0]) for t in tried),
        "p50_ms": percentile(ms, 0.5), "p95_ms": percentile(ms, 0.95),
    }


def recognition(folders, readers, ours):
    out = []
    for words, folder in folders:
        rows = index(folder)
        tried = {name: [] for name in ["voicepay", *readers]}
        for i, row in enumerate(rows):
            samples, said = peer_embedding.read_wav_16k(row["path"]), row["text"]

            def one(name):
                if name == "voicepay":
                    answer = ours.ask(do="number", file=row["path"], digits=said)
                    return answer["read"], answer["free_ms"]
                text, ms = clock(lambda: readers[name](samples))
                return digits_of(text), ms

            # Who goes first changes, so that nobody always finds the caches as another left them.
            names = list(tried)
            for name in names[i % len(names):] + names[: i % len(names)]:
                tried[name].append((said, *one(name)))
            if i % 20 == 19:
                print(f"peers: {words}: {i + 1} of {len(rows)}", file=sys.stderr)
        speakers = len({(r["source"], r["speaker"]) for r in rows})
        out.append({"condition": words, "speakers": speakers, "readers": [figures(n, t) for n, t in tried.items()]})
    return out


def eer(genuine, impostor):
    """Where false accepts and false rejects cross, linear in between, as eval/metrics.rs has it."""
    scores = np.concatenate([genuine, impostor])
    order = np.argsort(scores, kind="stable")
    label = np.concatenate([np.ones(len(genuine)), np.zeros(len(impostor))])[order]
    frr = np.concatenate([[0], np.cumsum(label) / len(genuine)])
    far = np.concatenate([[1], 1 - np.cumsum(1 - label) / len(impostor)])
    keep = np.concatenate([[True], np.diff(scores[order]) > 0, [True]])
    frr, far = frr[keep], far[keep]
    d = frr - far
    at = int(np.argmax(d >= 0))
    if d[at] == 0 or at == 0:
        return float(far[at])
    along = d[at - 1] / (d[at - 1] - d[at])
    return float(far[at - 1] + along * (far[at] - far[at - 1]))


def unit(v):
    return v / np.linalg.norm(v)


def tell_apart(enrolled, tested, centred):
    """All within-source pairs; centred: minus the mean of everybody else's enrolment."""
    people = sorted({(r["source"], r["speaker"]) for r, _ in enrolled})
    of = {who: [unit(e) for r, e in enrolled if (r["source"], r["speaker"]) == who] for who in people}
    total, count = sum(sum(v) for v in of.values()), sum(len(v) for v in of.values())
    genuine, impostor = [], []
    for row, e in tested:
        mine = (row["source"], row["speaker"])
        for who in (w for w in people if w[0] == mine[0]):
            mean = 0
            if centred:
                left_out = {who, mine} & set(of)
                mean = (total - sum(sum(of[w]) for w in left_out)) / (count - sum(len(of[w]) for w in left_out))
            template = unit(sum(unit(v - mean) for v in of[who]))
            (genuine if who == mine else impostor).append(float(template @ unit(unit(e) - mean)))
    return {"eer": eer(np.array(genuine), np.array(impostor)), "genuine": len(genuine), "impostor": len(impostor)}


def voices(enrolment, tests, peers, ours, timed):
    enrolled_rows = index(enrolment)
    result, speed = {n: {"name": n, "figures": []} for n in peers}, {n: [] for n in ["voicepay", *peers]}
    enrolled = {n: [] for n in peers}
    for i, row in enumerate(enrolled_rows):
        samples = peer_embedding.read_wav_16k(row["path"])
        for n in peers:
            enrolled[n].append((row, peers[n].embed(samples)))
    for words, folder in tests:
        rows, tested = index(folder), {n: [] for n in peers}
        for i, row in enumerate(rows):
            samples = peer_embedding.read_wav_16k(row["path"])
            seconds = len(samples) / 16000
            names = list(speed)
            for n in names[i % len(names):] + names[: i % len(names)]:
                if n == "voicepay":
                    if i < timed:
                        speed[n].append(ours.ask(do="embed", file=row["path"])["ms"] / seconds)
                else:
                    e, ms = clock(lambda: peers[n].embed(samples))
                    tested[n].append((row, e))
                    if i < timed:
                        speed[n].append(ms / seconds)
            if i % 50 == 49:
                print(f"peers: voices, {words}: {i + 1} of {len(rows)}", file=sys.stderr)
        for n in peers:
            for centred in (False, True):
                result[n]["figures"].append({"condition": words, "centred": centred, **tell_apart(enrolled[n], tested[n], centred)})
    per_second = [{"name": n, "p50_ms_per_s": percentile(v, 0.5), "p95_ms_per_s": percentile(v, 0.95), "utterances": len(v)} for n, v in speed.items()]
    return {"speed": per_second, "peers": list(result.values())}


def pairs(values):
    return [tuple(v.split("=", 1)) for v in values]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--voicepay", required=True)
    p.add_argument("--weights", required=True, help="campplus.safetensors")
    p.add_argument("--ge2e", required=True, help="Resemblyzer's pretrained.pt")
    p.add_argument("--whisper", nargs="+", required=True, metavar="NAME=FOLDER", help="CTranslate2 models")
    p.add_argument("--numbers", nargs="+", required=True, metavar="CONDITION=FOLDER")
    p.add_argument("--enrolment", required=True, metavar="FOLDER")
    p.add_argument("--voices", nargs="+", required=True, metavar="CONDITION=FOLDER")
    p.add_argument("--timed", type=int, default=60, help="utterances of each condition whose embedding is timed in turns")
    p.add_argument("--out", required=True)
    a = p.parse_args()

    import ctranslate2, faster_whisper, onnxruntime

    before = load()
    ours = Ours(a.voicepay)
    readers = {f"faster-whisper {n}": reader(f) for n, f in pairs(a.whisper)}
    read = recognition(pairs(a.numbers), readers, ours)
    peers = {"CAM++ on onnxruntime": peer_embedding.Peer(a.weights), "GE2E": peer_ge2e.Peer(a.ge2e)}
    heard = voices(a.enrolment, pairs(a.voices), peers, ours, a.timed)
    ours.close()
    versions = {"onnxruntime": onnxruntime.__version__, "faster-whisper": faster_whisper.__version__, "CTranslate2": ctranslate2.__version__}
    machine = {"cpu": cpu(), "cores": os.cpu_count(), "load_before": before, "load_after": load()}
    with open(a.out, "w") as f:
        json.dump({"date": str(datetime.date.today()), "machine": machine, "versions": versions, "recognition": read, "voices": heard}, f, indent=1)


if __name__ == "__main__":
    main()
