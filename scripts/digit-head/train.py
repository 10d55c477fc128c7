#!/usr/bin/env python3
"""Trains the digit head on prepared states (prepare.py) and writes it as safetensors (FORMAT.md). About 20 ms of one core an utterance and pass."""
import argparse
import glob
import json
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F

import features
import model as heads
from lora import Lora


def load(folders: list[str], without: set[str]) -> list[tuple[torch.Tensor, list[int], str]]:
    """Every utterance: its states (f16), its tokens, its voice. Voices in `without` are left out (FSDD speakers, to be scored on)."""
    out = []
    for folder in folders:
        for meta in sorted(glob.glob(f"{folder}/*.json")):
            states, at = torch.from_numpy(np.load(meta[:-5] + ".states.npy", mmap_mode="c")), 0
            for r in json.load(open(meta)):
                if r["voice"] not in without:
                    out.append((states[at : at + r["frames"]], [heads.TOKEN[c] for c in r["text"]], r["voice"]))
                at += r["frames"]
    return out


def sounds(folders: list[str], without: set[str], encoder) -> list[tuple[np.ndarray, list[int], str]]:
    """Like `load`, but what was heard, for training the encoder too."""
    out = []
    for folder in folders:
        for meta in sorted(glob.glob(f"{folder}/*.json")):
            sound, at = np.load(meta[:-5] + ".sound.npy", mmap_mode="r"), 0
            for r in json.load(open(meta)):
                if r["voice"] not in without:
                    out.append((Sound(sound[at : at + r["samples"]], r["frames"]), [heads.TOKEN[c] for c in r["text"]], r["voice"]))
                at += r["samples"]
    return out


class Sound:
    """8 kHz samples that know how many states they make."""

    def __init__(self, samples, frames):
        self.samples, self.frames = samples, frames

    def __len__(self):
        return self.frames


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


def heard(items, encoder, lora, rng, warp: float):
    """States of a batch of sounds through the encoder with its changes, with gradients."""
    longest = max(len(s) for s, _, _ in items)
    mel, mask = torch.zeros(len(items), 80, 2 * longest), torch.zeros(len(items), longest, dtype=torch.bool)
    for i, (s, _, _) in enumerate(items):
        m = encoder.mel_of(features.to_16k(np.asarray(s.samples, np.float32) / 32768))
        if rng.random() < 0.6:  # another vocal tract: mel bands shifted
            m = warped(m, float(np.clip(rng.normal(1, warp), 0.85, 1.15)))
        if rng.random() < 0.4:
            at, n = int(rng.integers(0, 50)), int(rng.integers(1, 8))
            m[at : at + n] = m.mean()
        mel[i, :, : m.shape[1]] = m
        mask[i, : len(s)] = True
    states = encoder.states(mel, lora, torch.bfloat16, mask)[-1].float() * mask[:, :, None]
    return (states, mask[:, :, None].float(), torch.tensor([t for _, ts, _ in items for t in ts]), torch.tensor([len(s) for s, _, _ in items]),
            torch.tensor([len(ts) for _, ts, _ in items]))


def warped(mel: torch.Tensor, by: float) -> torch.Tensor:
    """Bands below the telephone's edge moved along the mel axis by a factor."""
    at = (torch.arange(80) * by).clamp(max=79)
    lo = at.floor().long()
    hi = (lo + 1).clamp(max=79)
    y = mel[lo] * (1 - (at - lo))[:, None] + mel[hi] * (at - lo)[:, None]
    y[60:] = mel[60:]  # nothing is heard above 4 kHz
    return y


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
    q.add_argument("--extended", action="store_true", help="tokens for double, triple, hundred, ten to ninety and no, too")
    q.add_argument("--limit", type=int, default=0, help="train on this many utterances only")
    q.add_argument("--mined", help="mine.py's file: train on those only that lie between the next two")
    q.add_argument("--surely", type=float, default=0.015)
    q.add_argument("--hopeless", type=float, default=1.2)
    q.add_argument("--longest", type=int, default=0, help="leave out utterances of more states than this")
    q.add_argument("--recent", type=int, default=0, help="train on the last so many utterances only")
    q.add_argument("--init", help="start from this head")
    q.add_argument("--lora", type=int, default=0, help="change the encoder too, by matrices of this rank; trains on the sounds, five times slower")
    q.add_argument("--lora-blocks", default="0,1,2,3")
    q.add_argument("--lora-rate", type=float, default=1e-3)
    q.add_argument("--warp", type=float, default=0.04)
    q.add_argument("--threads", type=int, default=1)
    q.add_argument("--seed", type=int, default=1)
    q.add_argument("--model", default=features.default_model())
    a = q.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    rng = np.random.default_rng(a.seed)
    without = set(a.without.split(",")) if a.without else set()
    encoder = features.Encoder(a.model)
    items = sounds(a.data, set(), encoder) if a.lora else load(a.data, set())
    if a.mined:
        items = [i for i, v in zip(items, json.load(open(a.mined))) if a.surely <= v <= a.hopeless]
    items = [i for i in items if fits(len(i[0]), i[1]) and i[2] not in without]
    vocabulary = heads.EXTENDED if a.extended else heads.DIGITS
    items = [i for i in items if max(i[1]) < len(vocabulary)][: a.limit or None]
    if a.longest:
        items = [i for i in items if len(i[0]) <= a.longest]
    if a.recent:
        items = items[-a.recent :]
    about = {"name": os.path.basename(a.model).split(".ggml")[0], "sha256": encoder.sha256, "width": encoder.width, "layers": encoder.layers, "heads": encoder.heads,
             "sample_rate": features.RATE, "frame_samples": features.FRAME, "tail_samples": features.TAIL, "window_frames": features.WINDOW,
             "mel_max": features.MEL_MAX, "taps": ["post"]}
    head = heads.Head(heads.residual_head(encoder.width, len(vocabulary), a.width, a.kernel, [int(d) for d in a.dilations.split(",")]), ["post"], a.dropout)
    if a.init:
        for k, v in heads.load(a.init)[0].p.items():
            head.p[k].data[: len(v)] = v  # a longer vocabulary keeps the tokens it had
        had = len(heads.load(a.init)[0].p["out/proj/bias"])
        head.p["out/proj/bias"].data[had:] = -4.0  # tokens it had not
    lora = Lora(encoder, a.lora, [int(b) for b in a.lora_blocks.split(",")]) if a.lora else None
    if lora and a.init:
        for k, v in heads.load(a.init)[2].items():
            lora.p[k.replace(".", "/")].data.copy_(v)
    groups_of = [{"params": head.parameters(), "lr": a.rate}] + ([{"params": lora.parameters(), "lr": a.lora_rate}] if lora else [])
    learnt = [*head.p.items()] + ([("lora/" + k, v) for k, v in lora.p.items()] if lora else [])
    mean = {k: v.detach().clone() for k, v in learnt}
    steps = a.passes * math.ceil(len(items) / a.batch)
    opt = torch.optim.AdamW(groups_of, lr=a.rate, weight_decay=0.01, betas=(0.9, 0.98))
    plan = torch.optim.lr_scheduler.OneCycleLR(opt, [g["lr"] for g in groups_of], total_steps=steps + 1, pct_start=0.15, final_div_factor=200)
    print(f"{len(items)} utterances, {sum(p.numel() for p in head.parameters())} parameters, {steps} steps", flush=True)
    begun, step = time.time(), 0

    def kept(path):
        """Writes the mean of the last steps' weights."""
        now = {k: v.detach().clone() for k, v in learnt}
        for k, v in learnt:
            v.data.copy_(mean[k])
        digest = heads.save(head, path, about, vocabulary, lora=lora and lora.tensors())
        for k, v in learnt:
            v.data.copy_(now[k])
        return digest

    for turn in range(a.passes):
        head.train()
        total = 0.0
        groups = batches(items, a.batch, rng)
        for group in groups:
            chosen = [items[i] for i in group]
            x, mask, tokens, frames, lengths = heard(chosen, encoder, lora, rng, a.warp) if lora else collate(chosen, rng, a.noise, a.masks)
            with torch.autocast("cpu", torch.bfloat16):
                out = head(F.dropout1d(x.transpose(1, 2), a.feature_dropout).transpose(1, 2), mask)
            loss = (F.ctc_loss(out.transpose(0, 1), tokens, frames, lengths, reduction="none") / lengths.clamp(min=1)).mean()
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([v for _, v in learnt], 1.0)
            opt.step()
            plan.step()
            step += 1
            keep = min(0.998, step / (step + 20))
            for k, v in learnt:
                mean[k].lerp_(v.detach(), 1 - keep)
            if step % 50 == 0:
                print(f"  step {step}: loss {float(loss.detach()):.3f}, {time.time() - begun:.0f} s", flush=True)
            if lora and step % 100 == 0:
                kept(a.out + ".partial")
            total += float(loss.detach())
        print(f"pass {turn + 1} of {a.passes}: loss {total / len(groups):.4f} a digit, {time.time() - begun:.0f} s", flush=True)
    print(kept(a.out), a.out)


if __name__ == "__main__":
    main()
