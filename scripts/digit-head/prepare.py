#!/usr/bin/env python3
"""Draws augmented utterances and keeps Whisper's states of them, so that training the head costs little.

<out>/<shard>.states.npy  (frames x width, f16, utterances one behind another)
<out>/<shard>.sound.npy   (what was encoded: 8 kHz, mu-law's values as i16)
<out>/<shard>.json        [{"frames", "samples", "text", "voice"}, ...]"""
import argparse
import json
import os
import time

import numpy as np
import torch

import data
import features


def main() -> None:
    q = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    q.add_argument("--fsdd", required=True, help="a checkout of the Free Spoken Digit Dataset")
    q.add_argument("--kokoro", nargs="*", default=[], help="folders made by kokoro_voices.py")
    q.add_argument("--other", nargs="*", default=[], help="folders made by other_voices.py")
    q.add_argument("--an4", nargs="*", default=[], help="folders made by an4.py")
    q.add_argument("--weights", type=float, nargs=4, default=[0.2, 0.28, 0.12, 0.4], help="how often FSDD, Kokoro, the others, AN4 are drawn")
    q.add_argument("--model", default=features.default_model(), help="Whisper in ggml form")
    q.add_argument("--out", required=True)
    q.add_argument("--shards", type=int, default=8)
    q.add_argument("--each", type=int, default=250, help="utterances a shard")
    q.add_argument("--seed", type=int, default=1)
    q.add_argument("--sounds-only", action="store_true", help="no states: for training that changes the encoder")
    q.add_argument("--tracks", type=int, default=40, help="so many tracks of babble to draw from")
    q.add_argument("--drop", help="a file naming rendered files that came out garbled, one a line")
    a = q.parse_args()
    torch.set_num_threads(1)
    os.makedirs(a.out, exist_ok=True)
    drop = set(open(a.drop).read().split("\n")) if a.drop else set()
    kokoro, other, an4, prose = [], [], [], []
    for folders, into in ((a.kokoro, kokoro), (a.other, other), (a.an4, an4)):
        for f in folders:
            vs, p = data.rendered(f, drop)
            into += vs
            prose += p
    maker = data.Maker([g for g in zip(a.weights, (data.fsdd(a.fsdd), data.merged(kokoro), other, an4)) if g[1]], prose, a.seed, a.tracks)
    encoder, begun = features.Encoder(a.model), time.time()
    for shard in range(a.shards):
        rng = np.random.default_rng([a.seed, shard])
        rows, states, sounds = [], [], []
        for _ in range(a.each):
            x, text, voice = maker.draw(rng)
            if a.sounds_only:
                rows.append({"frames": features.padded_length(2 * len(x)) // features.FRAME, "samples": len(x), "text": text, "voice": voice})
                sounds.append(np.round(x * 32768).clip(-32768, 32767).astype(np.int16))
                continue
            with torch.no_grad():
                s = encoder.states(encoder.mel_of(features.to_16k(x))[None], dtype=torch.bfloat16)[-1][0].to(torch.float16).numpy()
            rows.append({"frames": len(s), "samples": len(x), "text": text, "voice": voice})
            states.append(s)
            sounds.append(np.round(x * 32768).clip(-32768, 32767).astype(np.int16))
        name = f"{a.out}/{a.seed:03d}-{shard:03d}"
        if states:
            np.save(name + ".states.npy", np.concatenate(states))
        np.save(name + ".sound.npy", np.concatenate(sounds))
        json.dump(rows, open(name + ".json", "w"))
        print(f"shard {shard + 1} of {a.shards}, {time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
