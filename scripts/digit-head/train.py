#!/usr/bin/env python3
"""Trains the digit head on prepared states (prepare.py) and writes it as safetensors (FORMAT.md). About 20 ms of one core an utterance and pass."""
import argparse
import glob
import json
import math
import time

import numpy as np
import torch
import torch.nn.functional as F

import features
import model as heads


def load(folders: list[str], without: set[str]) -> list[tuple[torch.Tensor, list[int], str]]:
    """Every utterance: its states (f16), its tokens, its voice. Voices in `without` are left out (FSDD speakers, to be scored on)."""
    out = []
    for folder in folders:
        for meta in sorted(glob.glob(f"{folder}/*.json")):
            states, at = torch.from_numpy(np.load(meta[:-5] + ".states.npy", mmap_mode="c")), 0
            for r in json.load(open(meta)):
                if r["voice"] not in without:
                    out.append((states[at : at + r["frames"]], [int(c) + 1 for c in r["text"]], r["voice"]))
                at += r["frames"]
    return out


def fits(frames: int, tokens: list[int]) -> bool:
    """CTC needs a frame a token and one more between two equal ones."""
    return frames >= len(tokens) + sum(a == b for a, b in zip(tokens, tokens[1:]))


def batches(items, size, rng):
    """Random batches of like lengths."""
    keys = sorted(range(len(items)), key=lambda i: len(items[i][0]) * math.exp(rng.normal(0, 0.1)))
    groups = [keys[i : i + size] for i in range(0, len(keys), size)]
    rng.shuffle(groups)
    return groups


def collate(items, rng, noise: float, masks: int):
    longest = max(len(s) for s, _, _ in items)
    x, mask = torch.zeros(len(items), longest, items[0][0].shape[1]), torch.zeros(len(items), longest, 1)
    for i, (s, _, _) in enumerate(items):
        x[i, : len(s)] = s.float()
        mask[i, : len(s)] = 1
        for _ in range(rng.integers(0, masks + 1)):  # SpecAugment in time, short enough to leave a digit its other half
            at, n = int(rng.integers(0, max(1, len(s) - 8))), int(rng.integers(1, 8))
            x[i, at : at + n] = 0
    if noise:
        x += noise * torch.randn(x.shape)
    return x, mask, torch.tensor([t for _, ts, _ in items for t in ts]), torch.tensor([len(s) for s, _, _ in items]), torch.tensor([len(ts) for _, ts, _ in items])


def main() -> None:
    q = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    q.add_argument("--data", nargs="+", required=True, help="folders made by prepare.py")
    q.add_argument("--out", required=True)
    q.add_argument("--without", default="", help="voices to leave out, with commas")
    q.add_argument("--width", type=int, default=256)
    q.add_argument("--kernel", type=int, default=5)
    q.add_argument("--dilations", default="1,2,4")
    q.add_argument("--dropout", type=float, default=0.15)
    q.add_argument("--feature-dropout", type=float, default=0.1)
    q.add_argument("--noise", type=float, default=0.1)
    q.add_argument("--masks", type=int, default=3)
    q.add_argument("--passes", type=int, default=10)
    q.add_argument("--batch", type=int, default=12)
    q.add_argument("--rate", type=float, default=1.5e-3)
    q.add_argument("--limit", type=int, default=0, help="train on this many utterances only")
    q.add_argument("--init", help="start from this head")
    q.add_argument("--threads", type=int, default=1)
    q.add_argument("--seed", type=int, default=1)
    q.add_argument("--model", default=features.default_model())
    a = q.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    rng = np.random.default_rng(a.seed)
    items = [i for i in load(a.data, set(a.without.split(",")) if a.without else set()) if fits(len(i[0]), i[1])]
    items = items[: a.limit or None]
    encoder = features.Encoder(a.model)
    about = {"name": "whisper-tiny.en", "sha256": encoder.sha256, "width": encoder.width, "layers": encoder.layers, "heads": encoder.heads,
             "sample_rate": features.RATE, "frame_samples": features.FRAME, "tail_samples": features.TAIL, "window_frames": features.WINDOW,
             "mel_max": features.MEL_MAX, "taps": ["post"]}
    head = heads.Head(heads.residual_head(encoder.width, len(heads.DIGITS), a.width, a.kernel, [int(d) for d in a.dilations.split(",")]), ["post"], a.dropout)
    if a.init:
        head.load_state_dict(heads.load(a.init)[0].state_dict())
    del encoder
    mean = {k: v.detach().clone() for k, v in head.p.items()}
    steps = a.passes * math.ceil(len(items) / a.batch)
    opt = torch.optim.AdamW(head.parameters(), lr=a.rate, weight_decay=0.01, betas=(0.9, 0.98))
    plan = torch.optim.lr_scheduler.OneCycleLR(opt, a.rate, total_steps=steps + 1, pct_start=0.15, final_div_factor=200)
    print(f"{len(items)} utterances, {sum(p.numel() for p in head.parameters())} parameters, {steps} steps", flush=True)
    begun, step = time.time(), 0
    for turn in range(a.passes):
        head.train()
        total = 0.0
        groups = batches(items, a.batch, rng)
        for group in groups:
            x, mask, tokens, frames, lengths = collate([items[i] for i in group], rng, a.noise, a.masks)
            with torch.autocast("cpu", torch.bfloat16):
                out = head(F.dropout1d(x.transpose(1, 2), a.feature_dropout).transpose(1, 2), mask)
            loss = (F.ctc_loss(out.transpose(0, 1), tokens, frames, lengths, reduction="none") / lengths.clamp(min=1)).mean()
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            opt.step()
            plan.step()
            step += 1
            keep = min(0.998, step / (step + 20))
            for k, v in head.p.items():
                mean[k].lerp_(v.detach(), 1 - keep)
            total += float(loss)
        print(f"pass {turn + 1} of {a.passes}: loss {total / len(groups):.4f} a digit, {time.time() - begun:.0f} s", flush=True)
    for k, v in head.p.items():
        v.data.copy_(mean[k])
    print(heads.save(head.eval(), a.out, about, heads.DIGITS), a.out)


if __name__ == "__main__":
    main()
