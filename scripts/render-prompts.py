#!/usr/bin/env python3
"""Renders what the service says: prompts/en.toml -> prompts/en/*.flac (16 kHz, mono, 16 bit) and prompts/en/manifest.toml.

    scripts/render-prompts.py            render what is missing or stale
    scripts/render-prompts.py --all      render everything
    scripts/render-prompts.py --check    tell what is stale, change nothing; exit 1 if anything is

The voice is Piper's en_US-joe-medium (CC0), from a wheel pinned below; `piper-tts` is a tool here, nothing links it.
Rendering needs the packages of scripts/voice-venv.sh (`make prompts` sees to it); --check needs Python 3.11 alone.
The same text, voice and seed give the same samples on one machine: Piper's noise comes from a seeded generator that starts
anew for each clip. Another onnxruntime or processor may differ in the last bits.
"""

import argparse
import hashlib
import re
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "prompts" / "en.toml"
OUT = ROOT / "prompts" / "en"
MANIFEST = OUT / "manifest.toml"
VOICE_SHA256 = "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06"
RATE_HZ = 16_000
LEVEL_DBFS = -20.0  # of the loud half of a clip
PEAK_DBFS = -2.0
SEED = 20
# Bump when the sound of a clip changes though its text does not: everything is stale then.
RECIPE = "joe-medium/1"
# Short words come out clearer a little slower than running speech.
PACE_PHRASE = 1.0
PACE_PIECE = 1.08


def texts_under(value, path=""):
    if isinstance(value, str):
        yield path, value
    else:
        for key, inner in value.items():
            yield from texts_under(inner, f"{path}.{key}" if path else key)


def clips():
    """Recording id -> (text to speak, is it a piece). Cuts phrases as src/prompts/catalogue.rs does."""
    catalogue = tomllib.loads(CATALOGUE.read_text())
    out = {}
    for ident, wording in texts_under(catalogue["phrases"]):
        if "{" not in wording:
            out[ident] = (wording, False)
            continue
        recorded = 0
        for literal in re.split(r"\{[a-z0-9]+\}", wording):
            if any(c.isalpha() for c in literal):
                text = literal.strip(" ,.")
                ended = literal.rstrip()[-1] in ".?!"
                # A comma keeps the voice up where more is to come.
                out[f"{ident}.{recorded}"] = (text + ("." if ended else ","), False)
                recorded += 1
    for ident, wording in texts_under(catalogue["pieces"]):
        out[ident] = (wording, True)
    return out


def digest(text):
    return hashlib.sha256(f"{RECIPE}\n{text}".encode()).hexdigest()


def known():
    return tomllib.loads(MANIFEST.read_text()).get("clip", {}) if MANIFEST.exists() else {}


def stale(wanted):
    have = known()
    out = []
    for ident, (text, _) in wanted.items():
        entry = have.get(ident)
        path = OUT / f"{ident}.flac"
        if not entry or entry["text_sha256"] != digest(text) or not path.exists():
            out.append(ident)
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry["flac_sha256"]:
            out.append(ident)
    leftover = [p.stem for p in OUT.glob("*.flac") if p.stem not in wanted]
    return out, leftover


def speak(voice_path, text, pace):
    """Samples at Piper's rate, as floats. The session is made anew so that its noise starts at the seed."""
    import numpy as np
    import onnxruntime
    from piper import PiperVoice
    from piper.config import SynthesisConfig

    onnxruntime.set_seed(SEED)
    voice = PiperVoice.load(voice_path)
    config = SynthesisConfig(length_scale=pace, noise_scale=0.5, noise_w_scale=0.6, normalize_audio=False)
    chunks = [c.audio_float_array for c in voice.synthesize(text, syn_config=config)]
    gap = np.zeros(int(0.22 * voice.config.sample_rate), dtype=np.float32)
    joined = []
    for i, chunk in enumerate(chunks):
        joined += [gap, chunk] if i else [chunk]
    return np.concatenate(joined), voice.config.sample_rate


def master(x, rate):
    """Resampled to 16 kHz, silence trimmed to 20 ms before and 40 ms after, faded, levelled, no clipping."""
    import numpy as np
    from math import gcd
    from scipy.signal import butter, resample_poly, sosfiltfilt

    g = gcd(rate, RATE_HZ)
    x = resample_poly(x.astype(np.float64), RATE_HZ // g, rate // g)
    x = sosfiltfilt(butter(2, 70, "highpass", fs=RATE_HZ, output="sos"), x)
    frame = RATE_HZ // 100
    power = np.array([np.mean(x[i : i + frame] ** 2) for i in range(0, len(x) - frame, frame)])
    loud = np.nonzero(power > power.max() * 10 ** (-42 / 10))[0]
    start = max(0, loud[0] * frame - RATE_HZ // 50)
    end = min(len(x), (loud[-1] + 1) * frame + RATE_HZ // 25)
    x = x[start:end]
    fade = RATE_HZ // 200
    x[:fade] *= np.linspace(0, 1, fade)
    x[-2 * fade :] *= np.linspace(1, 0, 2 * fade)
    active = np.sqrt(np.mean(np.sort(power)[len(power) // 2 :]))
    gain = 10 ** (LEVEL_DBFS / 20) / active
    gain = min(gain, 10 ** (PEAK_DBFS / 20) / np.abs(x).max())
    samples = np.round(x * gain * 32767)
    # 14 bits are what mu-law resolves at its finest: FLAC stores the two zero bits for nothing, a quarter of the size.
    return (np.round(samples / 4) * 4).astype(np.int16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="tell what is stale, change nothing")
    parser.add_argument("--all", action="store_true", help="render everything, stale or not")
    parser.add_argument("--voice", type=Path, help="en_US-joe-medium.onnx (its .json beside it)")
    args = parser.parse_args()
    wanted = clips()
    todo, leftover = stale(wanted)
    if args.check:
        for ident in todo:
            print(f"stale: {ident}")
        for ident in leftover:
            print(f"no longer in the catalogue: {ident}")
        print(f"{len(wanted)} clips, {len(todo)} stale, {len(leftover)} left over")
        sys.exit(1 if todo or leftover else 0)
    if args.all:
        todo = list(wanted)
    for ident in leftover:
        (OUT / f"{ident}.flac").unlink()
    entries = {k: v for k, v in known().items() if k in wanted}
    if todo:
        import soundfile

        if not args.voice or hashlib.sha256(args.voice.read_bytes()).hexdigest() != VOICE_SHA256:
            sys.exit("--voice must be the pinned en_US-joe-medium.onnx; `make prompts` fetches it")
        OUT.mkdir(parents=True, exist_ok=True)
        began = shown = time.monotonic()
        for n, ident in enumerate(todo, 1):
            text, piece = wanted[ident]
            samples = master(*speak(args.voice, text, PACE_PIECE if piece else PACE_PHRASE))
            path = OUT / f"{ident}.flac"
            soundfile.write(path, samples, RATE_HZ, format="FLAC", subtype="PCM_16", compression_level=1.0)
            entries[ident] = {
                "text_sha256": digest(text),
                "flac_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            if time.monotonic() - shown > 2 or n == len(todo):
                shown = time.monotonic()
                print(f"  rendered {n} of {len(todo)} clips ({shown - began:.0f} s)", file=sys.stderr, flush=True)
    lines = [
        "# Made by scripts/render-prompts.py: which text each recording was made from. Voice: Piper en_US-joe-medium, CC0.",
        f'recipe = "{RECIPE}"',
        f'voice_sha256 = "{VOICE_SHA256}"',
        "",
    ]
    for ident in sorted(entries):
        e = entries[ident]
        lines += [f'[clip."{ident}"]', f'text_sha256 = "{e["text_sha256"]}"', f'flac_sha256 = "{e["flac_sha256"]}"', ""]
    MANIFEST.write_text("\n".join(lines))
    size = sum(p.stat().st_size for p in OUT.glob("*.flac"))
    print(f"{len(wanted)} clips, {size / 1e6:.2f} MB in {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
