#!/usr/bin/env python3
"""Averages heads of one line of training (weights each), which reads unseen callers better than any of them; their encoder changes are added up and
brought back to one rank by SVD."""
import argparse

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

q = argparse.ArgumentParser(description=__doc__)
q.add_argument("--out", required=True)
q.add_argument("--rank", type=int, default=20)
q.add_argument("--of", nargs="+", required=True, metavar="WEIGHT:HEAD")
a = q.parse_args()
parts = [(float(p.split(":", 1)[0]), p.split(":", 1)[1]) for p in a.of]
files = [(w, load_file(f)) for w, f in parts]
longest = max(range(len(files)), key=lambda i: len(files[i][1]["out.proj.bias"]))  # the one with most tokens gives those that others lack
out = {}
for k, v in files[longest][1].items():
    if k.startswith("encoder."):
        continue
    same = [(w, f[k].float()) for w, f in files]
    rows = min(len(x) for _, x in same)
    out[k] = v.float()
    out[k][:rows] = sum(w * x[:rows] for w, x in same) / sum(w for w, _ in same)
total = sum(w for w, _ in files)
for k in sorted({k for _, f in files for k in f if k.endswith(".lora_a")}):
    b = k[:-1] + "b"
    change = sum(w / total * f[b].float() @ f[k].float() for w, f in files if k in f)
    u, s, vt = torch.linalg.svd(change, full_matrices=False)
    root = s[: a.rank].sqrt()
    out[k], out[b] = root[:, None] * vt[: a.rank], u[:, : a.rank] * root
    lost = float((s[a.rank :] ** 2).sum() / (s**2).sum())
    if lost > 0.05:
        print(f"{k}: {100 * lost:.0f} % of the change's energy is lost")
with safe_open(parts[longest][1], "pt") as f:
    save_file({k: v.to(torch.float16).contiguous() for k, v in out.items()}, a.out, metadata=f.metadata())
