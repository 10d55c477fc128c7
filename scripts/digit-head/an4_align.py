#!/usr/bin/env python3
"""Finds where in CMU's AN4 recordings the words are: made `an4_cuts.csv` once, which `an4.py` reads. Needs not be run to train the head.

AN4 is mostly spelled names and commands, with digits among them, so a reader of digits cannot align it: letter "O" is digit "oh", "A" is half an "eight".
A head for all of AN4's words is trained on AN4 itself, every utterance is aligned by CTC, and a boundary is put where it is quietest between
two words. A digit head that never heard AN4 then says whether a cut holds its digits and nothing else."""
import argparse
import csv
import os

import numpy as np
import torch
import torch.nn.functional as F

import decode
import features
import model as heads
import train
from an4 import FOREIGN, WORDS, sphere, utterances

BLANK = 0


def aligned(lp: np.ndarray, tokens: list[int]) -> list[tuple[int, int]]:
    """The likeliest path through the tokens: each one's first and last frame."""
    n = 2 * len(tokens) + 1
    labels = np.zeros(n, int)
    labels[1::2] = tokens
    skip = np.zeros(n, bool)
    skip[2:] = (labels[2:] != BLANK) & (labels[2:] != labels[:-2])
    a, back = np.full(n, -np.inf), np.zeros((len(lp), n), np.int8)
    a[:2] = lp[0, labels[:2]]
    for t in range(1, len(lp)):
        ways = np.stack([a, np.r_[-np.inf, a[:-1]], np.where(skip, np.r_[-np.inf, -np.inf, a[:-2]], -np.inf)])
        back[t] = ways.argmax(0)
        a = ways.max(0) + lp[t, labels]
    s, where = (n - 1 if a[n - 1] > a[n - 2] else n - 2), {}
    for t in range(len(lp) - 1, -1, -1):
        if s % 2:
            lo, hi = where.get(s // 2, (t, t))
            where[s // 2] = (t, hi)
        s -= int(back[t, s])
    return [where[i] for i in range(len(tokens))]


def boundaries(x: np.ndarray, spans: list[tuple[int, int]]) -> list[int]:
    """Samples (8 kHz) between the words and at both ends: the quietest 30 ms between one word's peak and the next one's."""
    w = 240
    e = np.convolve(x.astype(np.float64) ** 2, np.ones(w) / w, "same")
    peaks = [int((lo + hi + 1) / 2 * 160) for lo, hi in spans]
    out = [0]
    for p, q in zip(peaks, peaks[1:]):
        lo, hi = p + (q - p) // 5, q - (q - p) // 5
        out.append(lo + int(np.argmin(e[lo : max(hi, lo + 1)])))
    return out + [len(x)]


def main() -> None:
    q = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    q.add_argument("--an4", required=True, help="AN4's folder, with etc/ and wav/")
    q.add_argument("--head", required=True, help="a digit head that never heard AN4")
    q.add_argument("--passes", type=int, default=12)
    q.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "an4_cuts.csv"))
    q.add_argument("--model", default=features.default_model())
    a = q.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    encoder, (judge, about, _) = features.Encoder(a.model), heads.load(a.head)
    said = utterances(a.an4)
    words = sorted({w for u in said for w in u.words})
    number = {w: i for i, w in enumerate(words, 1)}

    def states(x):
        with torch.no_grad():
            return encoder.states(encoder.mel_of(features.to_16k(x))[None], dtype=torch.bfloat16)[-1][0].float()

    heard = {u.id: sphere(u.path) for u in said}
    items = [(states(heard[u.id]), [number[w] for w in u.words], u.id) for u in said]
    kept = [i for i, u in zip(items, said) if u.part == "train" and train.fits(len(i[0]), i[1])]
    head = heads.Head(heads.residual_head(encoder.width, len(words) + 1), ["post"], 0.1)
    for k, v in judge.p.items():
        if not k.startswith("out/proj"):
            head.p[k].data.copy_(v)
    opt = torch.optim.AdamW(head.parameters(), lr=1e-3)
    steps = a.passes * -(-len(kept) // 12)
    plan = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-3, total_steps=steps + 1)
    head.train()
    for turn in range(a.passes):
        total = []
        for group in train.batches(kept, 12, rng):
            x, mask, tokens, frames, lengths = train.collate([kept[i] for i in group], rng, 0.1, 2)
            with torch.autocast("cpu", torch.bfloat16):
                out = head(x, mask)
            loss = F.ctc_loss(out.transpose(0, 1), tokens, frames, lengths)
            opt.zero_grad()
            loss.backward()
            opt.step()
            plan.step()
            total.append(float(loss.detach()))
        print(f"pass {turn + 1} of {a.passes}: loss {np.mean(total):.3f}", flush=True)
    head.eval()
    rows, right, doubtful = [], 0, 0
    quiet = np.random.default_rng(2).standard_normal(1600).astype(np.float32) * 1e-4
    for u, (s, tokens, _) in zip(said, items):
        x = heard[u.id]
        with torch.no_grad():
            lp = head(s[None])[0].numpy()
        best = lp.argmax(1)
        read = [int(b) for b, c in zip(best, [-1, *best]) if b != c and b != BLANK]
        right += read == tokens
        edges = boundaries(x, aligned(lp, tokens))
        at = 0
        while at < len(u.words):
            n = 1
            if u.words[at] in WORDS:
                while at + n < len(u.words) and u.words[at + n] in WORDS:
                    n += 1
            # A run is cut out whole, and each word of it singly too; what is no number only singly.
            pieces = [(at, at + n)] + ([(i, i + 1) for i in range(at, at + n)] if n > 1 else [])
            for lo, hi in pieces:
                if not all(w in WORDS or w in FOREIGN for w in u.words[lo:hi]):
                    continue
                text = "".join(WORDS.get(w, "-") for w in u.words[lo:hi])
                cut = x[edges[lo] : edges[hi]]
                with torch.no_grad():
                    p = judge(states(np.concatenate([quiet, cut / max(1e-4, np.abs(cut).max()) * 0.5, quiet]))[None])[0].numpy()
                free = decode.greedy(p)
                # Tens and foreign words have no token in the judge: theirs is the word head's reading of the whole utterance.
                if text.isdigit():
                    score = float(decode.likelihoods(p, [text])[0] - max(decode.beam(p, 8)[0][1], -1e9))
                    good = len(free) == len(text) and score > -3.0
                else:
                    score, good = 0.0, read == tokens
                if good and (edges[hi] - edges[lo]) > 800:
                    rows.append([u.id, edges[lo], edges[hi], " ".join(u.words[lo:hi]), text])
                else:
                    doubtful += 1
            at += n
    print(f"{right} of {len(said)} utterances read by the word head; {len(rows)} cuts kept, {doubtful} doubtful ones dropped")
    with open(a.out, "w", newline="") as h:
        w = csv.writer(h, lineterminator="\n")
        w.writerow(["utterance", "from", "to", "words", "text"])
        w.writerows(rows)


if __name__ == "__main__":
    main()
