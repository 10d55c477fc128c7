#!/usr/bin/env python3
"""Says which prepared utterances still teach a head something: not those that it reads surely, nor those that nobody could read (drowned in noise,
garbled by the synthesiser). Writes the negative log-likelihood a digit of every utterance, in the order in which train.py loads them."""
import argparse
import json

import numpy as np
import torch

import features
import model as heads
import train
from lora import merge

q = argparse.ArgumentParser(description=__doc__)
q.add_argument("--data", nargs="+", required=True)
q.add_argument("--head", required=True)
q.add_argument("--model", default=features.default_model())
q.add_argument("--out", required=True)


def main() -> None:
    a = q.parse_args()
    torch.set_num_threads(1)
    head, about, changes = heads.load(a.head)
    encoder = features.Encoder(a.model)
    merge(encoder, changes)
    out = []
    with torch.no_grad():
        for i, (s, tokens, _) in enumerate(train.sounds(a.data, set(), encoder) if changes else train.load(a.data, set())):
            if changes:
                s = encoder.states(encoder.mel_of(features.to_16k(np.asarray(s.samples, np.float32) / 32768))[None], dtype=torch.bfloat16)[-1][0]
            with torch.autocast("cpu", torch.bfloat16):
                lp = head(s.float()[None])
            loss = torch.nn.functional.ctc_loss(lp.transpose(0, 1), torch.tensor([tokens]), torch.tensor([lp.shape[1]]), torch.tensor([len(tokens)]), reduction="sum")
            out.append(round(float(loss) / len(tokens), 4))
            if i % 500 == 499:
                print(i + 1, flush=True)
    json.dump(out, open(a.out, "w"))
    v = np.array(out)
    print("deciles", np.percentile(v, range(10, 100, 10)).round(3))


if __name__ == "__main__":
    main()
