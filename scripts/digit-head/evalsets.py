"""The measuring sets: speechdata's trial lists rendered as telephone sound once and kept; and the ten people of AN4's test part, who are
never trained on either."""
import argparse
import csv
import importlib.util
import json
import os
import types

import numpy as np
import torch

import data
import features

CONDITIONS = {"clean": None, "babble15": 15.0, "babble10": 10.0, "babble5": 5.0}


def renderer(speechdata: str):
    spec = importlib.util.spec_from_file_location("render", os.path.join(speechdata, "render.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pieces(x: np.ndarray, rate: int, longest: float) -> list[np.ndarray]:
    """Cut at the quietest fifth of a second of the middle half until nothing is longer than `longest` seconds."""
    if len(x) <= longest * rate:
        return [x]
    n, w = len(x), int(0.2 * rate)
    e = np.convolve(x.astype(np.float64) ** 2, np.ones(w), "same")
    cut = n // 4 + int(np.argmin(e[n // 4 : 3 * n // 4]))
    return pieces(x[:cut], rate, longest) + pieces(x[cut:], rate, longest)


def an4_numbers(folder: str, words: bool):
    """(id, speaker, text, sound): 12 numbers of 16 digits a speaker, spliced of single clips as speechdata's are; or, `words`, natural runs with tens,
    teens or hundreds among others of the same speaker, two to four of them joined."""
    voices, _ = data.rendered(folder)
    for v in sorted(voices, key=lambda v: v.name):
        rng = np.random.default_rng([7, *v.name.encode()])
        known = sorted(d for d in v.clips if d.isdigit())
        runs, tens = [l for l in v.lines if len(l[1]) > 1], [l for l in v.lines if not l[1].isdigit()]
        for i in range(12):
            if words:
                parts = [tens[int(rng.integers(len(tens)))]] + [runs[int(rng.integers(len(runs)))] for _ in range(int(rng.integers(1, 4)))] if tens and runs else []
                order = rng.permutation(len(parts))
                parts = [parts[k] for k in order]
            else:
                parts = [(v.clips[d][int(rng.integers(len(v.clips[d])))], d) for d in (known[int(rng.integers(len(known)))] for _ in range(16))]
            if not parts:
                continue
            gaps = rng.uniform(0.03, 0.25, len(parts) - 1) + (rng.random(len(parts) - 1) < 0.15) * rng.uniform(0.2, 0.6, len(parts) - 1)
            out = [rng.standard_normal(int(8000 * rng.uniform(0.1, 0.6))) * 1e-4]
            for (x, _), gap in zip(parts, [*gaps, rng.uniform(0.1, 0.6)]):
                out += [x, rng.standard_normal(int(8000 * gap)) * 1e-4]
            yield f"{v.name}-{i}", v.name, "".join(t for _, t in parts), np.concatenate(out)


def sounds(speechdata: str, split: str, name: str, an4: str | None = None):
    """(id, source, speaker, text, 8 kHz sound) of a set such as `confirmed/babble15`, `hyke_strings`, `an4/clean` or `an4words/babble10`."""
    r, root = renderer(speechdata), speechdata
    if name.startswith("an4"):
        kind, condition = name.split("/")
        snr = CONDITIONS[condition]
        for uid, speaker, text, x in an4_numbers(an4, kind == "an4words"):
            args = types.SimpleNamespace(seed="0", rir=None, band=False, level=-23, noise=f"{split}/noise/babble8" if snr else None, snr=snr, codec="mulaw")
            yield uid, kind, speaker, text, r.finish(x.astype(np.float64), args, uid, 8000)
        return
    if name.startswith("hyke_strings"):
        for row in csv.DictReader(open(f"{root}/{split}/trials/hyke_strings.csv")):
            args = types.SimpleNamespace(seed="0", rir=None, band=False, level=-23, noise=None, snr=15, codec="mulaw")
            if "/" in name:
                args.noise, args.snr = f"{split}/noise/babble8", CONDITIONS[name.split("/")[1]]
            yield row["path"], "hyke_lines", row["speaker"], row["text"], r.finish(r.load(f"{root}/{row['path']}", 8000), args, row["path"], 8000)
        return
    which, condition = name.split("/")
    file = {"confirmed": "card_utterances_confirmed.csv", "cards": "card_utterances.csv"}[which]
    for row in csv.DictReader(open(f"{root}/{split}/trials/{file}")):
        if row["language"] != "en" or row["role"] != "genuine":
            continue
        rng = np.random.default_rng(int(__import__("hashlib").sha256(row["utt_id"].encode()).hexdigest()[:12], 16))
        x = r.splice(root, row["clips"].split(";"), [int(v) for v in row["gaps_ms"].split(";") if v], int(row["lead_ms"]), int(row["tail_ms"]), 8000, rng)
        snr = CONDITIONS[condition]
        args = types.SimpleNamespace(seed="0", rir=None, band=False, level=-23, noise=f"{split}/noise/babble8" if snr else None, snr=snr, codec="mulaw")
        yield row["utt_id"], row["source"], row["speaker"], row["text"], r.finish(x, args, row["utt_id"], 8000)


def encoded(speechdata: str, split: str, name: str, cache: str, model: str, longest: float = 28.0, changed=None, every: int = 1, an4: str | None = None):
    """`changed`: an encoder to use on the kept sounds instead of the frozen one. [(id, source, speaker, text, [states of each piece])], from the cache if it is there."""
    base = f"{cache}/{split}-{name.replace('/', '-')}-{longest:g}"
    if not os.path.exists(base + ".json"):
        os.makedirs(cache, exist_ok=True)
        rows, heard = [], []
        for uid, source, speaker, text, x in sounds(speechdata, split, name, an4):
            cut = pieces(x, 8000, longest)
            heard += [np.round(p * 32768).clip(-32768, 32767).astype(np.int16) for p in cut]
            rows.append([uid, source, speaker, text, [[features.padded_length(2 * len(p)) // features.FRAME, len(p)] for p in cut]])
        np.save(base + ".sound.npy", np.concatenate(heard))
        json.dump(rows, open(base + ".json", "w"))
    sound, at, out = np.load(base + ".sound.npy", mmap_mode="r"), 0, []
    encoder = changed or features.Encoder(model)
    for i, (uid, source, speaker, text, lengths) in enumerate(json.load(open(base + ".json"))):
        parts = []
        for _, samples in lengths:
            if i % every == 0:
                x = features.to_16k(sound[at : at + samples].astype(np.float32) / 32768)
                with torch.no_grad():
                    parts.append(encoder.states(encoder.mel_of(x)[None])[-1][0].numpy())
            at += samples
        if i % every == 0:
            out.append((uid, source, speaker, text, parts))
    return out


if __name__ == "__main__":
    q = argparse.ArgumentParser(description=__doc__)
    q.add_argument("--speechdata", required=True)
    q.add_argument("--split", default="dev")
    q.add_argument("--cache", required=True)
    q.add_argument("--model", default=features.default_model())
    q.add_argument("--longest", type=float, default=28.0)
    q.add_argument("--an4", help="an4.py's folder of AN4's test part, for the sets an4/... and an4words/...")
    q.add_argument("sets", nargs="+")
    a = q.parse_args()
    torch.set_num_threads(1)
    for s in a.sets:
        print(s, len(encoded(a.speechdata, a.split, s, a.cache, a.model, a.longest, an4=a.an4)), flush=True)
