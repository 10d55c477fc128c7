"""Golden numbers for media::resample. Run: pip install scipy==1.17.1 && python tests/golden/make_resample.py

The input is a formula that the Rust test repeats, so only outputs are stored.
"""
import json, pathlib
from math import gcd
import numpy as np
from scipy.signal import resample_poly

def signal(n):
    return np.array([((i * i * 7919 + i * 104729) % 2001 - 1000) / 1000 for i in range(n)])

cases = []
for source, target, n in [(8000, 16000, 60), (16000, 8000, 61), (16000, 48000, 40), (48000, 16000, 151),
                          (48000, 8000, 301), (8000, 48000, 25), (44000, 16000, 131), (16000, 8000, 1)]:
    g = gcd(source, target)
    out = resample_poly(signal(n), target // g, source // g)
    cases.append({"from": source, "to": target, "n": n, "out": [round(float(v), 9) for v in out]})
rows = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
pathlib.Path(__file__).with_name("resample.json").write_text("[" + rows + "]\n")
