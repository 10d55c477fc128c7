#!/usr/bin/env python3
"""Renders what the service says: prompts/en.toml -> prompts/en/*.flac (16 kHz, mono, 16 bit) and prompts/en/manifest.toml; the
same for zh.

    scripts/render-prompts.py            render what is missing or stale
    scripts/render-prompts.py --all      render everything
    scripts/render-prompts.py --check    tell what is stale, change nothing; exit 1 if anything is

The English voice is Piper's en_US-joe-medium (CC0), from a wheel pinned below; `piper-tts` is a tool here, nothing links it.
The Mandarin voice is espeak-ng's cmn: a formant synthesiser, plainly a machine. Its GPL covers the program, not what it says.
Rendering needs the packages of scripts/voice-venv.sh (`make prompts` sees to it); --check needs Python 3.11 alone.
The same text, voice and seed give the same samples on one machine: Piper's noise comes from a seeded generator that starts
anew for each clip. Another onnxruntime or processor may differ in the last bits.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ROOT / "prompts"
VOICE_SHA256 = "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06"
RATE_HZ = 16_000
LEVEL_DBFS = -20.0  # of the loud half of a clip
PEAK_DBFS = -2.0
SEED = 20
# Bump when the sound of a clip changes though its text does not: everything is stale then.
RECIPES = {"en": "joe-medium/1", "zh": "espeak-ng-cmn/2"}
VOICES = {"en": "Piper en_US-joe-medium, CC0", "zh": "espeak-ng cmn"}
ESPEAK_WORDS_A_MINUTE = {False: 220, True: 180}  # a syllable is a word to it
# Short words come out clearer a little slower than running speech.
PACE_PHRASE = 1.0
PACE_PIECE = 1.08


def texts_under(value, path=""):
    if isinstance(value, str):
        yield path, value
    else:
        for key, inner in value.items():
            yield from texts_under(inner, f"{path}.{key}" if path else key)


def clips(language):
    """Recording id -> (text to speak, is it a piece). Cuts phrases as src/prompts/catalogue.rs does."""
    catalogue = tomllib.loads((PROMPTS / f"{language}.toml").read_text())
    out = {}
    for ident, wording in texts_under(catalogue["phrases"]):
        if "{" not in wording:
            out[ident] = (wording, False)
            continue
        recorded = 0
        for literal in re.split(r"\{[a-z0-9]+\}", wording):
            if any(c.isalpha() for c in literal):
                text = literal.strip(" ,.，。")
                ended = literal.rstrip()[-1] in ".?!。？！"
                # A comma keeps the voice up where more is to come.
                stops = (".", ",") if language == "en" else ("。", "，")
                out[f"{ident}.{recorded}"] = (text + stops[0 if ended else 1], False)
                recorded += 1
    for ident, wording in texts_under(catalogue["pieces"]):
        out[ident] = (wording, True)
    return out


def digest(language, text):
    return hashlib.sha256(f"{RECIPES[language]}\n{text}".encode()).hexdigest()


def known(language):
    manifest = PROMPTS / language / "manifest.toml"
    return tomllib.loads(manifest.read_text()).get("clip", {}) if manifest.exists() else {}


def stale(language, wanted):
    have = known(language)
    folder = PROMPTS / language
    out = []
    for ident, (text, _) in wanted.items():
        entry = have.get(ident)
        path = folder / f"{ident}.flac"
        if not entry or entry["text_sha256"] != digest(language, text) or not path.exists():
            out.append(ident)
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry["flac_sha256"]:
            out.append(ident)
    leftover = [p.stem for p in folder.glob("*.flac") if p.stem not in wanted]
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


def speak_mandarin(text, piece):
    """Samples from espeak-ng, as floats. What lies above 4 kHz is its buzz, and much of the bytes."""
    import soundfile
    from scipy.signal import butter, sosfiltfilt

    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "x.wav"
        pace = str(ESPEAK_WORDS_A_MINUTE[piece])
        subprocess.run(["espeak-ng", "-v", "cmn", "-s", pace, "-w", str(wav), text], check=True, capture_output=True)
        x, rate = soundfile.read(wav, dtype="float64")
    return sosfiltfilt(butter(8, 4_000, "lowpass", fs=rate, output="sos"), x), rate


def master(x, rate, step=4):
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
    return (np.round(samples / step) * step).astype(np.int16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="tell what is stale, change nothing")
    parser.add_argument("--all", action="store_true", help="render everything, stale or not")
    parser.add_argument("--voice", type=Path, help="en_US-joe-medium.onnx (its .json beside it)")
    args = parser.parse_args()
    stale_at_all = False
    for language in RECIPES:
        stale_at_all |= render(language, args)
    sys.exit(1 if args.check and stale_at_all else 0)


def render(language, args):
    """Brings one language up to date; tells whether it was not."""
    wanted, out = clips(language), PROMPTS / language
    todo, leftover = stale(language, wanted)
    if args.check:
        for ident in todo:
            print(f"stale: {language}/{ident}")
        for ident in leftover:
            print(f"no longer in the catalogue: {language}/{ident}")
        print(f"{language}: {len(wanted)} clips, {len(todo)} stale, {len(leftover)} left over")
        return bool(todo or leftover)
    if args.all:
        todo = list(wanted)
    for ident in leftover:
        (out / f"{ident}.flac").unlink()
    entries = {k: v for k, v in known(language).items() if k in wanted}
    if todo:
        import soundfile

        if language == "en" and (not args.voice or hashlib.sha256(args.voice.read_bytes()).hexdigest() != VOICE_SHA256):
            sys.exit("--voice must be the pinned en_US-joe-medium.onnx; `make prompts` fetches it")
        out.mkdir(parents=True, exist_ok=True)
        began = shown = time.monotonic()
        for n, ident in enumerate(todo, 1):
            text, piece = wanted[ident]
            if language == "en":
                samples = master(*speak(args.voice, text, PACE_PIECE if piece else PACE_PHRASE))
            else:
                samples = master(*speak_mandarin(text, piece), step=64)  # 46 dB below it: mu-law does no better
            path = out / f"{ident}.flac"
            soundfile.write(path, samples, RATE_HZ, format="FLAC", subtype="PCM_16", compression_level=1.0)
            entries[ident] = {
                "text_sha256": digest(language, text),
                "flac_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            if time.monotonic() - shown > 2 or n == len(todo):
                shown = time.monotonic()
                print(f"  {language}: rendered {n} of {len(todo)} clips ({shown - began:.0f} s)", file=sys.stderr, flush=True)
    lines = [
        f"# Made by scripts/render-prompts.py: which text each recording was made from. Voice: {VOICES[language]}.",
        f'recipe = "{RECIPES[language]}"',
    ]
    lines += [f'voice_sha256 = "{VOICE_SHA256}"', ""] if language == "en" else [""]
    for ident in sorted(entries):
        e = entries[ident]
        lines += [f'[clip."{ident}"]', f'text_sha256 = "{e["text_sha256"]}"', f'flac_sha256 = "{e["flac_sha256"]}"', ""]
    (out / "manifest.toml").write_text("\n".join(lines))
    size = sum(p.stat().st_size for p in out.glob("*.flac"))
    print(f"{language}: {len(wanted)} clips, {size / 1e6:.2f} MB in {out.relative_to(ROOT)}")
    return bool(todo or leftover)


if __name__ == "__main__":
    main()
