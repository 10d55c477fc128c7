"""Training strings: which voices say which digits, how they run together, and what is done to them. Everything is drawn from one seed."""
import csv
import os
from dataclasses import dataclass, field

import numpy as np
import soundfile as sf

import augment as aug

RATE = aug.RATE


@dataclass
class Voice:
    """Sounds of one speaker: digit clips for splicing, whole lines as (sound, tokens), and words that are to be read as nothing."""
    name: str
    clips: dict[str, list[np.ndarray]] = field(default_factory=dict)
    lines: list[tuple[np.ndarray, str]] = field(default_factory=list)
    foreign: list[np.ndarray] = field(default_factory=list)


def trimmed(x, floor_db=-38, keep=0.02):
    """Without the silence around."""
    n = RATE // 100
    m = len(x) // n
    if m < 4:
        return x
    e = 10 * np.log10((x[: m * n].reshape(m, n) ** 2).mean(1) + 1e-12)
    on = np.where(e > e.max() + floor_db)[0]
    pad = int(keep * RATE)
    return x[max(0, on[0] * n - pad) : (on[-1] + 1) * n + pad]


def fsdd(folder: str, without: set[str] = frozenset()) -> list[Voice]:
    voices: dict[str, Voice] = {}
    for f in sorted(os.listdir(os.path.join(folder, "recordings"))):
        digit, who, _ = f[:-4].split("_")
        if who not in without:
            v = voices.setdefault(who, Voice(who))
            v.clips.setdefault(digit, []).append(sf.read(os.path.join(folder, "recordings", f), dtype="float32")[0])
    return list(voices.values())


def rendered(folder: str, drop: set[str] = frozenset()) -> tuple[list[Voice], list[np.ndarray]]:
    """Voices of a folder made by kokoro_voices.py, other_voices.py or an4.py, and sentences that are no digits."""
    voices: dict[str, Voice] = {}
    prose = []
    for r in csv.DictReader(open(os.path.join(folder, "manifest.csv"))):
        path = os.path.join(folder, r["file"])
        if not os.path.exists(path) or path in drop:
            continue
        x = trimmed(sf.read(path, dtype="float32")[0])
        if not r["text"]:
            prose.append(x)
            continue
        v = voices.setdefault(r["voice"].split("+")[0] if r["accent"] != "espeak" else r["voice"], Voice(r["voice"]))
        if r["text"] == "-":
            v.foreign.append(x)
            continue
        v.lines.append((x, r["text"]))
        if len(r["text"]) == 1:
            v.clips.setdefault(r["text"], []).append(x)
    return list(voices.values()), prose


def merged(voices: list[Voice]) -> list[Voice]:
    """One voice for each name."""
    out: dict[str, Voice] = {}
    for v in voices:
        o = out.setdefault(v.name.split("+")[0], Voice(v.name.split("+")[0]))
        o.lines += v.lines
        o.foreign += v.foreign
        for d, c in v.clips.items():
            o.clips.setdefault(d, []).extend(c)
    return list(out.values())


class Maker:
    """Draws augmented telephone utterances."""

    def __init__(self, groups: list[tuple[float, list[Voice]]], prose: list[np.ndarray], seed: int, tracks: int = 40):
        # A speaker of AN4 said most digits, seldom all ten.
        self.splice = [(w, [v for v in vs if sum(d.isdigit() for d in v.clips) >= 6]) for w, vs in groups]
        self.line = [(w, [v for v in vs if v.lines]) for w, vs in groups]
        self.splice, self.line = ([g for g in gs if g[1]] for gs in (self.splice, self.line))
        talk = prose + [c for _, vs in groups for v in vs for c, t in v.lines[:2] if len(t) > 3]
        self.babble = aug.babble_pool(np.random.default_rng(seed), talk, tracks)

    @staticmethod
    def _pick(groups, rng) -> Voice:
        w = np.array([g[0] for g in groups])
        vs = groups[int(rng.choice(len(groups), p=w / w.sum()))][1]
        return vs[int(rng.integers(len(vs)))]

    @staticmethod
    def _digits(n, rng, known):
        style, out = rng.random(), []
        for i in range(n):
            p = 0.12 if style < 0.7 else 0.45
            out.append(out[-1] if out and rng.random() < p else known[int(rng.integers(len(known)))])
        return out

    def _gaps(self, n, rng):
        """Seconds between digits; negative: they overlap."""
        style = rng.choice(["hurried", "short", "usual", "slow"], p=[0.3, 0.2, 0.35, 0.15])
        lo, hi = {"hurried": (-0.05, 0.03), "short": (0.0, 0.12), "usual": (0.06, 0.26), "slow": (0.2, 0.9)}[style]
        g = rng.uniform(lo, hi, n)
        group = int(rng.choice([0, 3, 4, 4, 5]))
        if group:
            g[group - 1 :: group] = rng.uniform(0.2, 0.9, len(g[group - 1 :: group]))
        if rng.random() < 0.1 and n:
            g[int(rng.integers(n))] = rng.uniform(0.8, 2.0)
        return g, style

    def _join(self, parts, gaps, rng, floor):
        total = sum(len(p) for p in parts) + int(RATE * (np.maximum(gaps, 0).sum() + 0.1))
        y, at = np.zeros(total), 0
        for i, p in enumerate(parts):
            p, f = p.copy(), min(len(p) // 4, int(RATE * (0.004 if i and gaps[i - 1] >= 0 else 0.02)))
            if f:
                p[:f] *= np.linspace(0, 1, f)
                p[-f:] *= np.linspace(1, 0, f)
            y[at : at + len(p)] += p[: total - at]
            at += len(p) + (int(gaps[i] * RATE) if i < len(gaps) else 0)
        y = y[: max(at, RATE // 5)]
        return y + rng.standard_normal(len(y)) * floor * 0.5

    def spliced(self, n, rng):
        v = self._pick(self.splice, rng)
        known = sorted(d for d in v.clips if d.isdigit())
        text = self._digits(n, rng, known)
        if (more := sorted(d for d in v.clips if not d.isdigit())) and rng.random() < 0.3:  # tens, teens, hundreds among them
            text = [more[int(rng.integers(len(more)))] if rng.random() < 0.25 else d for d in text]
        gaps, style = self._gaps(max(0, n - 1), rng)
        chosen = [v.clips[d][int(rng.integers(len(v.clips[d])))] for d in text]
        if style == "hurried":
            chosen = [trimmed(c, rng.uniform(-32, -22), 0.0) for c in chosen]
        elif rng.random() < 0.5:
            chosen = [trimmed(c, -40, 0.03) for c in chosen]
        if rng.random() < 0.6:  # each digit at its own loudness
            chosen = [c * 10 ** (rng.normal(0, 2.7) / 20) for c in chosen]
        if rng.random() < 0.12:  # a false start, a cut-off breath of a word: not a digit
            at = int(rng.integers(n))
            c = trimmed(v.clips[known[int(rng.integers(len(known)))]][0], -30, 0.0)
            k = int(len(c) * rng.uniform(0.15, 0.4))
            piece = c[:k] if rng.random() < 0.5 else c[-k:]
            quiet = np.zeros(int(RATE * rng.uniform(0.02, 0.15)))
            chosen[at] = np.concatenate([piece, quiet, chosen[at]] if rng.random() < 0.5 else [chosen[at], quiet, piece])
        floor = float(np.median([np.sqrt(np.percentile(c[: len(c) // 160 * 160].reshape(-1, 160).var(1), 8) + 1e-10) if len(c) >= 160 else 1e-4 for c in chosen]))
        return self._join(chosen, gaps, rng, min(floor, 0.01)), "".join(text), v

    def lined(self, n, rng):
        v, parts, text = self._pick(self.line, rng), [], ""
        wide = rng.random() < 0.4  # with tens, teens, "double" and so on, if the voice has any
        usual, more = [l for l in v.lines if l[1].isdigit()], [l for l in v.lines if not l[1].isdigit()]
        while len(text) < n and len(parts) < 12:
            lines = (more if wide and rng.random() < 0.4 else usual) or usual or more
            fits = [l for l in lines if len(text) + len(l[1]) <= n] or lines
            x, t = fits[int(rng.integers(len(fits)))]
            parts.append(x)
            text += t
        gaps = rng.choice([rng.uniform(0, 0.1, len(parts)), rng.uniform(0.1, 0.6, len(parts)), rng.uniform(0.3, 1.5, len(parts))])[: len(parts) - 1]
        return self._join(parts, gaps, rng, 10 ** rng.uniform(-5, -2.5)), text, v

    def _among_words(self, x, v, rng):
        """With a word or two that are no number before or behind, said by the same voice."""
        for before in (True, False):
            if rng.random() < 0.6:
                words = [v.foreign[int(rng.integers(len(v.foreign)))] for _ in range(int(rng.integers(1, 3)))]
                gap = np.zeros(int(RATE * rng.uniform(0.05, 0.5)))
                x = np.concatenate([*words, gap, x] if before else [x, gap, *words])
        return x

    def draw(self, rng) -> tuple[np.ndarray, str, str]:
        """One utterance as the far end hears it (8 kHz), its digits and whose voice."""
        n = 16 if rng.random() < 0.2 else int(rng.integers(1, 21))
        x, text, v = self.spliced(n, rng) if rng.random() < 0.6 else self.lined(n, rng)
        if v.foreign and rng.random() < 0.15:
            x = self._among_words(x, v, rng)
        x = aug.voice_changed(x, rng)
        lead, tail = rng.uniform(0, 1.0) * (rng.random() < 0.85), rng.uniform(0, 1.5) * (rng.random() < 0.85)
        quiet = 10 ** rng.uniform(-5.5, -3.0)
        x = np.concatenate([rng.standard_normal(int(lead * RATE)) * quiet, x, rng.standard_normal(int(tail * RATE)) * quiet])
        return aug.telephone(x, rng, self.babble), text, v.name
