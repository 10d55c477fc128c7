#!/usr/bin/env python3
"""Numbers to hold another forward against: one utterance's samples' head, log-mel, states and log-probabilities, a few rows of each."""
import argparse
import json

import numpy as np
import soundfile as sf
import torch
from scipy.signal import resample_poly

import decode
import features
import model as heads
from lora import merge

q = argparse.ArgumentParser(description=__doc__)
q.add_argument("--head", required=True)
q.add_argument("--wav", required=True, help="a fixture: 8 or 16 kHz, mono")
q.add_argument("--name", required=True, help="how the fixture is called in the golden file")
q.add_argument("--text", required=True, help="what is said")
q.add_argument("--model", help="Whisper in ggml form; default: the one the head names, from the cache")
q.add_argument("--out", required=True)
a = q.parse_args()
torch.set_num_threads(1)
x, rate = sf.read(a.wav, dtype="float32")
x8 = x if rate == 8000 else resample_poly(x, 8000, rate).astype(np.float32)
x16 = features.to_16k(x8)
head, about, changes = heads.load(a.head)
encoder = features.Encoder(a.model or features.default_model(about["encoder"]["name"]))
merge(encoder, changes)
with torch.no_grad():
    mel = encoder.mel_of(x16)
    states = encoder.states(mel[None])[-1]
    out = head(states)[0].numpy()
rows = [0, 1, 40, len(out) // 2, len(out) - 2, len(out) - 1]
near = [s for k in decode.neighbours(a.text).values() for s in k]
scores = decode.likelihoods(out, [a.text, *near])
short = lambda v: [round(float(f), 5) for f in v]
json.dump({
    "sound": a.name, "rate": rate, "says": a.text, "samples_16k": len(x16), "frames": len(out), "rows": rows,
    "samples_16k_4000_to_4016": short(x16[4000:4016]), "mel_columns": {str(2 * r): short(mel[:, 2 * r]) for r in rows},
    "states": [short(states[0, r]) for r in rows], "log_probs": [short(out[r]) for r in rows], "free": decode.greedy(out),
    "log_likelihood": round(float(scores[0]), 4), "best_neighbour": near[int(np.argmax(scores[1:]))], "best_neighbour_log_likelihood": round(float(max(scores[1:])), 4),
    "head_alone": {"states": [short(r) for r in states[0, 40:56]], "log_probs": [short(r) for r in head(states[:, 40:56])[0].detach()]},
}, open(a.out, "w"), indent=None, separators=(",", ":"))
print(decode.greedy(out), float(scores[0]), float(max(scores[1:])))
