#!/usr/bin/env python3
"""Measures heads on encoded trial lists (evalsets.py): free reading by source, and what a threshold on
logP(authorised) - logP(best free string) lets through."""
import argparse
import collections
import json

import numpy as np
import torch

import decode
import evalsets
import features
import model as heads
from lora import merge


def log_probs(models, parts) -> np.ndarray:
    """The heads' mean probabilities, pieces one behind another (a blank between: two equal digits at a cut stay two)."""
    out = []
    for s in parts:
        x = torch.from_numpy(np.array(s)).float()[None]
        with torch.no_grad():
            ps = torch.stack([m(x)[0] for m in models])
        out.append((ps.logsumexp(0) - np.log(len(models))).numpy())
        out.append(np.log(np.where(np.arange(out[0].shape[1]) == 0, 1.0, 1e-9))[None].astype(np.float32))
    return np.concatenate(out[:-1])


def main() -> None:
    q = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    q.add_argument("--head", nargs="+", required=True, help="several: their probabilities are averaged")
    q.add_argument("--speechdata", required=True)
    q.add_argument("--split", default="dev")
    q.add_argument("--cache", required=True)
    q.add_argument("--model", help="Whisper in ggml form; default: the one the head names, from the cache")
    q.add_argument("--digits", action="store_true", help="only the digits' tokens of a head that has more")
    q.add_argument("--sets", nargs="+", default=["confirmed/clean", "confirmed/babble15", "confirmed/babble10", "hyke_strings"])
    q.add_argument("--an4", help="an4.py's folder of AN4's test part, for the sets an4/... and an4words/...")
    q.add_argument("--longest", type=float, default=28.0)
    q.add_argument("--every", type=int, default=1, help="measure on every so many-th utterance only")
    q.add_argument("--beam", type=int, default=0, help="read by prefix search of this width; 0: greedily")
    q.add_argument("--neighbours", action="store_true", help="score the number and all its neighbours too")
    q.add_argument("--only", default="", help="sources, with commas")
    q.add_argument("--speakers", default="", help="speakers, with commas")
    q.add_argument("--errors", action="store_true", help="print what was misread")
    q.add_argument("--dump", help="keep the scores as JSON")
    a = q.parse_args()
    torch.set_num_threads(1)
    loaded = [heads.load(h) for h in a.head]
    model = a.model or features.default_model(loaded[0][1]["encoder"]["name"])
    models, encoder = [l[0] for l in loaded], features.Encoder(model)
    assert encoder.sha256 == loaded[0][1]["encoder"]["sha256"], f"{model} is not what the head was trained on"
    merge(encoder, loaded[0][2])
    dumped = {}
    for name in a.sets:
        by = collections.defaultdict(lambda: [0, 0, 0, 0])
        own, near = [], collections.defaultdict(list)
        kept = evalsets.encoded(a.speechdata, a.split, name, a.cache, model, a.longest, encoder, a.every, a.an4)
        for uid, source, speaker, text, parts in kept:
            if (a.only and source not in a.only.split(",")) or (a.speakers and speaker not in a.speakers.split(",")):
                continue
            lp = log_probs(models, parts)
            few = lp[:, : len(heads.DIGITS)] - np.logaddexp.reduce(lp[:, : len(heads.DIGITS)], 1, keepdims=True)
            if a.digits:
                lp = few
            elif lp.shape[1] > few.shape[1] and text.isdigit():  # what the tokens beside digits cost
                plain = decode.greedy(few)
                k = ("fsdd_en" if source == "fsdd_en" else "unseen") + ", digits' tokens alone"
                by[k] = [x + y for x, y in zip(by[k], (1, plain == text, decode.edits(text, plain), len(text)))]
            free = decode.greedy(lp) if not a.beam else decode.beam(lp, a.beam)[0][0]
            wrong = decode.edits(text, free)
            for k in (source, "all") if source == "fsdd_en" else (source, "unseen", "all"):
                by[k] = [x + y for x, y in zip(by[k], (1, free == text, wrong, len(text)))]
            if a.errors and wrong:
                print(f"  {uid} {text} read {free}")
            if a.neighbours:
                own_p, kinds = decode.neighbour_likelihoods(few, text)
                best = max(own_p, decode.beam(few, 8)[0][1], *(v.max() for _, v in kinds.values()))
                own.append((uid, source, own_p - best))
                for kind, (_, v) in kinds.items():
                    near[kind].append((v - best).tolist())
        print(f"{name}: " + "; ".join(f"{k} {v[1]}/{v[0]} exact = {100 * v[1] / v[0]:.1f} %, DER {100 * v[2] / v[3]:.3f} %" for k, v in sorted(by.items())), flush=True)
        if a.neighbours:
            scores = np.array([o[2] for o in own])
            flat = {k: np.concatenate(v) for k, v in near.items()}
            for tau in (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0):
                worst = np.mean([any(max(near[k][i], default=-99.0) >= -tau for k in near) for i in range(len(own))])
                print(f"  score >= -{tau:<4}: accepted {100 * (scores >= -tau).mean():.1f} %; near " + ", ".join(f"{k} {100 * (v >= -tau).mean():.3f} %" for k, v in flat.items()) + f"; utterances with any {100 * worst:.1f} %")
            dumped[name] = {"own": own, "near": {k: [sorted(x, reverse=True)[:5] for x in v] for k, v in near.items()}}
    if a.dump:
        json.dump(dumped, open(a.dump, "w"))


if __name__ == "__main__":
    main()
