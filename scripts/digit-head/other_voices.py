#!/usr/bin/env python3
"""Renders digit words and strings with espeak-ng, flite, festival and (if given) Piper, and ordinary sentences for babble.

Writes <out>/<number>.wav (8 kHz, 16 bit) and <out>/manifest.csv with file, voice, accent, text; sentences have an empty text."""
import argparse
import csv
import os
import re
import shutil
import subprocess
import tempfile

import numpy as np
import soundfile as sf
import soxr

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ESPEAK = [f"{lang}+{kind}" for lang in ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-us-nyc", "en-gb-x-gbcwmd")
          for kind in ("m1", "m3", "m7", "f2", "f3", "f5")]
FLITE = ["slt", "rms", "awb", "kal16", "kal"]
FESTIVAL = ["voice_cmu_us_slt_arctic_hts", "voice_kal_diphone", "voice_ked_diphone"]


def say(engine, voice, text, path, rng, piper):
    if engine == "espeak":
        cmd = ["espeak-ng", "-v", voice, "-s", str(int(rng.integers(120, 230))), "-p", str(int(rng.integers(25, 75))), "-w", path, text]
    elif engine == "flite":
        cmd = ["flite", "-voice", voice, "--setf", f"duration_stretch={rng.uniform(0.75, 1.25):.2f}", "-t", text, "-o", path]
    elif engine == "festival":
        cmd = ["text2wave", "-o", path, "-eval", f"({voice})"]
    else:
        cmd = [piper[0], "-m", piper[1], "--length-scale", f"{rng.uniform(0.75, 1.25):.2f}", "-f", path]
    subprocess.run(cmd, input=text.encode(), check=True, capture_output=True, timeout=60)


def sentences(path: str) -> list[str]:
    plain = re.sub(r"[`*#|\[\]()<>_0-9]", " ", open(path, encoding="utf-8").read())
    out = [re.sub(r"\s+", " ", s).strip() for s in re.split(r"(?<=[.:;])\s", plain)]
    banned = re.compile(r"\b(" + "|".join(WORDS + ["oh", "to", "too", "for", "won", "ate"]) + r")\b", re.I)
    return [s for s in out if 40 < len(s) < 220 and not banned.search(s)]


def main() -> None:
    q = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    q.add_argument("--out", required=True)
    q.add_argument("--prose", required=True, nargs="+", help="text files whose sentences become babble (no digit words are taken)")
    q.add_argument("--piper", nargs=2, metavar=("PROGRAM", "VOICE.onnx"))
    q.add_argument("--sentences", type=int, default=240)
    q.add_argument("--extended", type=int, default=0, help="this many lines with double, triple, teens, tens, hundred and no, and nothing else")
    q.add_argument("--seed", type=int, default=1)
    a = q.parse_args()
    rng = np.random.default_rng(a.seed)
    voices = [("espeak", v) for v in ESPEAK] + [("flite", v) for v in FLITE] + ([("festival", v) for v in FESTIVAL] if shutil.which("text2wave") else [])
    if a.piper:
        voices.append(("piper", "piper-joe"))
    jobs = []
    for engine, voice in voices:
        strings = 6 if engine in ("espeak", "festival") else 40
        jobs += [(engine, voice, str(d)) for d in range(10) for _ in range(1 if engine == "espeak" else 3)]
        jobs += [(engine, voice, "".join(str(rng.integers(10)) for _ in range(rng.integers(2, 10)))) for _ in range(strings)]
    prose = [s for p in a.prose for s in sentences(p)]
    jobs += [(*voices[int(rng.integers(len(voices)))], "prose:" + str(rng.choice(prose))) for _ in range(a.sentences)]
    if a.extended:
        from kokoro_voices import NAME, extended_drawn

        jobs = [(*voices[i % len(voices)], extended_drawn(rng)) for i in range(a.extended)]
    os.makedirs(a.out, exist_ok=True)
    with open(f"{a.out}/manifest.csv", "w", newline="") as h, tempfile.TemporaryDirectory() as tmp:
        rows = csv.writer(h)
        rows.writerow(["file", "voice", "accent", "text"])
        for i, (engine, voice, text) in enumerate(jobs):
            if text.startswith("prose:"):
                spoken, label = text[6:], ""
            else:
                zero = "oh" if rng.random() < 0.2 else "zero"
                spoken, label = " ".join([zero if d == "0" else (WORDS[int(d)] if d.isdigit() else NAME[d]) + ("," if rng.random() < 0.2 else "") for d in text]).rstrip(",") + ".", text
            try:
                say(engine, voice, spoken, f"{tmp}/a.wav", rng, a.piper)
                x, rate = sf.read(f"{tmp}/a.wav", dtype="float32", always_2d=True)
            except (subprocess.SubprocessError, sf.LibsndfileError) as e:
                print(f"skipped {engine} {voice}: {e}", flush=True)
                continue
            x = soxr.resample(x.mean(1), rate, 8000, quality="HQ")
            if len(x) < 800:
                continue
            x = x / max(1e-4, float(np.abs(x).max())) * 0.6
            sf.write(f"{a.out}/{i:05d}.wav", x, 8000, subtype="PCM_16")
            rows.writerow([f"{i:05d}.wav", voice, engine, label])
            if i % 200 == 199:
                print(f"{i + 1} of {len(jobs)}", flush=True)


if __name__ == "__main__":
    main()
