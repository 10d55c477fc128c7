#!/usr/bin/env python3
"""CMU's AN4 database (83 people who spelled names and read numbers at a microphone, about 1991) as a folder of voices like those of other_voices.py.

Writes <out>/<number>.wav (8 kHz, 16 bit) and <out>/manifest.csv with file, voice, accent, text: number words singly and natural runs of them
(`an4_cuts.csv` says where they are), words that are no number (text "-": to be read as nothing), and whole utterances without a number for
babble (empty text). The ten people of AN4's own test part are kept out of training for good: --part test writes them, to be measured on."""
import argparse
import collections
import csv
import hashlib
import os
import re
from dataclasses import dataclass

import numpy as np
import soundfile as sf
import soxr

from model import LETTER

DIGIT = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]
WORDS = {"OH": "0"} | {w: str(i) for i, w in enumerate(DIGIT)} | {t.upper(): letter for t, letter in LETTER.items() if not t.isdigit()}
# Said at the ends of a number, these must be read as nothing. Not among them: words that hold a digit's sound (the letters O, A, H, T, X, S, "go").
FOREIGN = {"ENTER", "ERASE", "RUBOUT", "YES", "HELP", "START", "STOP", "REPEAT", "B", "C", "D", "G", "J", "L", "M", "P", "R", "W", "AND"}
# All of AN4's transcriptions and sounds as CMU gives them ("an4_sphere"), 1,078 files.
SHA256 = "74d6c2b35f875812adeb9d4c844ef50ad9bb7225b739e04a81736f6e05891a81"


@dataclass
class Utterance:
    id: str
    path: str
    part: str
    speaker: str
    words: list[str]


def utterances(root: str) -> list[Utterance]:
    out = []
    for part, folder in (("train", "an4_clstk"), ("test", "an4test_clstk")):
        for line in open(f"{root}/etc/an4_{part}.transcription"):
            if m := re.match(r"(.*)\((\S+)\)", line):
                speaker = m[2].split("-")[1]
                words = [w for w in m[1].split() if not w.startswith("<")]
                out.append(Utterance(m[2], f"{root}/wav/{folder}/{speaker}/{m[2]}.sph", part, speaker, words))
    return [u for u in out if u.words]


def sphere(path: str) -> np.ndarray:
    """A NIST SPHERE file of 16-bit PCM as 8 kHz floats."""
    raw = open(path, "rb").read()
    head = raw[: int(raw.split(b"\n", 2)[1])].decode("ascii", "ignore")
    fields = dict(re.findall(r"^(\w+) -\w+ (\S+)$", head, re.M))
    order = {"01": "<i2", "10": ">i2"}[fields["sample_byte_format"]]
    x = np.frombuffer(raw[len(head) :], order)[: int(fields["sample_count"])].astype(np.float32) / 32768
    x = soxr.resample(x, int(fields["sample_rate"]), 8000, quality="HQ")
    return x - x.mean()


def digest(root: str) -> str:
    """Of every sound and transcription that is used, in a fixed order."""
    h = hashlib.sha256()
    for u in utterances(root):
        h.update(f"{u.id} {' '.join(u.words)}\n".encode() + hashlib.sha256(open(u.path, "rb").read()).digest())
    return h.hexdigest()


def main() -> None:
    q = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    q.add_argument("--an4", required=True, help="AN4's folder, with etc/ and wav/")
    q.add_argument("--cuts", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "an4_cuts.csv"))
    q.add_argument("--part", choices=["train", "test"], default="train")
    q.add_argument("--out", required=True)
    a = q.parse_args()
    if digest(a.an4) != SHA256:
        raise SystemExit(f"{a.an4} is not the AN4 that an4_cuts.csv was made for")
    os.makedirs(a.out, exist_ok=True)
    cuts = collections.defaultdict(list)
    for r in csv.DictReader(open(a.cuts)):
        cuts[r["utterance"]].append(r)
    with open(f"{a.out}/manifest.csv", "w", newline="") as h:
        rows, made = csv.writer(h), 0
        rows.writerow(["file", "voice", "accent", "text"])
        for u in utterances(a.an4):
            if u.part != a.part:
                continue
            x = sphere(u.path)
            x = x / max(1e-4, float(np.abs(x).max())) * 0.6
            pieces = [(x[int(r["from"]) : int(r["to"])], r["text"]) for r in cuts[u.id]]
            if not any(w in WORDS for w in u.words):
                pieces.append((x, ""))
            for y, text in pieces:
                sf.write(f"{a.out}/{made:05d}.wav", y, 8000, subtype="PCM_16")
                rows.writerow([f"{made:05d}.wav", f"an4-{u.speaker}", "an4", text])
                made += 1
    print(f"{made} pieces", flush=True)


if __name__ == "__main__":
    main()
