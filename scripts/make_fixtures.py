#!/usr/bin/env python3
"""Makes audio-fixtures/: callers with synthetic voices, 8 kHz mono 16-bit WAV, and their manifest.

Run it by `make fixtures` (scripts/make-fixtures.sh), which brings flite, espeak-ng and the Piper voice. Nobody's voice is
recorded here: every persona is a speech synthesiser. The recordings are committed, so that tests need none of these tools.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "audio-fixtures"
RATE_HZ = 8_000
LEVEL_DBFS = -20.0  # of speech, pauses not counted
LEAD_S, TAIL_S = 0.15, 0.25
GROUP_PAUSE_S = 0.5
LONG_PAUSE_S = 2.4
YES_TAKEN_BACK_PAUSE_S = 0.35
PIPER_SEED = 20

WORDS = "zero one two three four five six seven eight nine".split()
# As digits are said one by one on a telephone: 1 is 幺.
MANDARIN = "零 幺 二 三 四 五 六 七 八 九".split()

# No bank's number: Luhn-valid, its digits well mixed (no neighbours alike), the sandbox gateway approves it.
CARD = "4929173058162749"
CARDS = {
    "card": (CARD, "the customer's card number"),
    "card_one_digit_off": ("4929173058162748", "last digit 8 for 9: not Luhn-valid"),
    "card_two_digits_off_luhn": ("4929173658162743", "0 -> 6 and 9 -> 3: two digits off and Luhn-valid again"),
    "card_swapped": ("4929173085162749", "the neighbours 5 and 8 swapped: not Luhn-valid"),
    "card_swapped_luhn": ("4920173958162749", "0 and 9 (four apart) swapped: Luhn-valid"),
    "card_one_missing": ("492917305816749", "the digit 2 left out: 15 digits"),
    "card_one_extra": ("49291730581627419", "a digit 1 put in: 17 digits"),
    "card_other": ("4716392850174929", "another Luhn-valid number"),
}
ENROL = ["3950271846", "8261490735", "6047385192"]
# Fresh digits: tests make the service ask for just these.
CHALLENGES = ["50271946", "83610527"]

PERSONAS = {
    # name: (engine, voice, length of running speech, length of one or two words, licence)
    "alice": ("flite", "slt", 1.15, 1.0, "flite"),
    "bob": ("piper", "en_US-joe-medium", 1.2, 1.2, "piper"),
    "mallory": ("flite", "rms", 1.0, 1.3, "flite"),
    "dave": ("flite", "awb", 1.05, 1.3, "flite"),
    "erin": ("espeak-ng", "en-us+f3", 1.2, 1.4, "espeak-ng"),
    "mei": ("espeak-ng", "cmn+f3", 1.0, 1.4, "espeak-ng"),
}
# Those who can answer with any digits: one recording a digit, which our softphone joins.
SAYS_ANY_DIGITS = ("alice", "mallory")
# Mei says yes in English: espeak-ng's Mandarin is too little like speech for Whisper to read a yes in it.
OTHER_VOICE = {("mei", "yes"): "en-us+f3"}
# A synthetic voice says one word the same way each time, and audio that was heard before is taken for a recording (as it should be). What a
# persona says in a further call of the demo is therefore spoken at another pace.
OTHER_PACE = {("alice", "card_other"): 1.03}
# What answers instead of a person: (engine, voice, what is said, pause between its parts in seconds). A pause after the first word is what
# is most easily taken for a person who waits.
MACHINES = {
    "standard": ("espeak-ng", "en-us+f3", ["the person you are calling is not available", "at the tone please record your message"], 0.45),
    "hello_first": ("espeak-ng", "en-gb", ["hello", "you have reached the Smiths", "we can not come to the phone right now"], 0.5),
    "slow": ("espeak-ng", "en-us+m3", ["hi this is Bob", "sorry I missed your call", "please leave your name and number"], 0.7),
    "carrier": ("flite", "rms", ["your call has been forwarded to an automatic voice message system"], 0),
    "menu": ("flite", "slt", ["welcome to City Water", "for bills press one", "for anything else press two"], 0.4),
    "german": ("espeak-ng", "de+f2", ["der gewünschte Gesprächspartner ist zur Zeit nicht erreichbar", "bitte sprechen Sie nach dem Ton"], 0.5),
    "mandarin": ("espeak-ng", "cmn+f3", ["您好，您拨打的电话暂时无人接听", "请在提示音后留言"], 0.5),
}
LICENCES = {
    "flite": "CMU-Flite (BSD-like) voice and engine",
    "piper": "CC0-1.0 voice",
    "espeak-ng": "GPL-3.0-or-later engine; its output is not covered by it",
    "none": "CC0-1.0, computed",
}


def luhn(digits):
    total = 0
    for i, c in enumerate(reversed(digits)):
        n = int(c) * (2 if i % 2 else 1)
        total += n - 9 if n > 9 else n
    return total % 10 == 0


def spoken(digits, words=WORDS):
    return " ".join(words[int(c)] for c in digits)


def groups(digits, size=4):
    return [digits[i : i + size] for i in range(0, len(digits), size)]


class Piper:
    def __init__(self, path):
        self.path = path

    def say(self, text, pace):
        import onnxruntime
        from piper import PiperVoice
        from piper.config import SynthesisConfig

        onnxruntime.set_seed(PIPER_SEED)
        voice = PiperVoice.load(self.path)
        chunks = voice.synthesize(text, syn_config=SynthesisConfig(length_scale=pace))
        return np.concatenate([c.audio_float_array for c in chunks]), voice.config.sample_rate


def synthesise(piper, engine, voice, pace, text):
    """Samples at 8 kHz, silence trimmed off."""
    if engine == "piper":
        x, rate = piper.say(text + ".", pace)
    else:
        with tempfile.TemporaryDirectory() as folder:
            wav = str(Path(folder) / "x.wav")
            if engine == "flite":
                command = ["flite", "-voice", voice, "--setf", f"duration_stretch={pace}", "-t", text + ".", "-o", wav]
            else:
                command = ["espeak-ng", "-v", voice, "-s", str(round(160 / pace)), "-w", wav, text + "."]
            subprocess.run(command, check=True, capture_output=True)
            x, rate = soundfile.read(wav, dtype="float64")
    g = gcd(rate, RATE_HZ)
    x = resample_poly(np.asarray(x, dtype=np.float64), RATE_HZ // g, rate // g)
    loud = np.nonzero(np.abs(x) > np.abs(x).max() * 0.02)[0]
    return x[max(0, loud[0] - 160) : loud[-1] + 320]


def levelled(parts, pause_s, lead_s=LEAD_S, tail_s=TAIL_S):
    """Parts joined with pauses; speech at LEVEL_DBFS; lead and tail; no clipping."""
    speech = np.concatenate(parts)
    gain = 10 ** (LEVEL_DBFS / 20) / np.sqrt(np.mean(speech**2))
    gain = min(gain, 0.9 / np.abs(speech).max())
    # A telephone is never digitally silent: -70 dBFS of noise, the same in every run.
    joined = [np.zeros(int(lead_s * RATE_HZ))]
    for i, part in enumerate(parts):
        if i:
            joined.append(np.zeros(int(pause_s * RATE_HZ)))
        joined.append(part * gain)
    joined.append(np.zeros(int(tail_s * RATE_HZ)))
    x = np.concatenate(joined)
    x = x + np.random.default_rng(1).normal(0, 10 ** (-70 / 20), len(x))
    return np.round(np.clip(x, -1, 1) * 32767).astype(np.int16)


def in_mandarin():
    """As `utterances`, of the caller who speaks Mandarin."""

    def said(digits):
        return "，".join(spoken(digits, MANDARIN).split())

    for n, digits in enumerate(ENROL, 1):
        yield f"enrol_{n}", [said(digits[:5]), said(digits[5:])], 0.3, f"enrolment: {digits}"
    yield "yes", ["yes"], 0, ""
    yield "counting", ["一，二，三", "四，五，六", "七，八，九，十"], 0.35, "one to ten"
    yield "card", [said(g) for g in groups(CARD)], GROUP_PAUSE_S, f"{CARD}: the customer's card number"


def utterances(persona):
    """(name, texts of the groups, pause between them, note)"""
    if persona == "mei":
        yield from in_mandarin()
        return
    for n, digits in enumerate(ENROL, 1):
        yield f"enrol_{n}", [spoken(digits[:5]), spoken(digits[5:])], 0.3, f"enrolment: {digits}"
    yield "yes", ["yes"], 0, ""
    yield "no", ["no"], 0, ""
    yield "cancel", ["please cancel"], 0, ""
    counting = ["one two three", "four five six", "seven eight nine ten"]
    yield "counting", counting, 0.35, "one to ten"
    for name, (digits, note) in CARDS.items():
        if persona != "alice" and name not in ("card", "card_other"):
            continue
        yield name, [spoken(g) for g in groups(digits)], GROUP_PAUSE_S, f"{digits}: {note}"
    for n, digits in enumerate(CHALLENGES, 1):
        if persona in ("alice", "bob", "mallory"):
            yield f"fresh_{n}", [spoken(g) for g in groups(digits)], GROUP_PAUSE_S, f"fresh digits: {digits}"
    if persona == "alice":
        yield "yes_please", ["yes please"], 0, ""
        # A further call's: the demo has said the other two by then, and would be known again.
        yield "yes_thank_you", ["yes thank you"], 0, ""
        yield "not_yes", ["not yes"], 0, "no yes"
        yield "yes_no_wait", ["yes", "no wait"], YES_TAKEN_BACK_PAUSE_S, "a yes that is taken back"
        yield "card_long_pauses", [spoken(g) for g in groups(CARD)], LONG_PAUSE_S, f"{CARD} with pauses of 2.4 s"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voice", type=Path, required=True, help="en_US-joe-medium.onnx")
    parser.add_argument("--missing", action="store_true", help="speak only what is not there yet")
    args = parser.parse_args()
    for name, (digits, note) in CARDS.items():
        says_valid = "Luhn-valid" in note and "not Luhn" not in note or name == "card"
        if len(digits) == 16 and luhn(digits) != says_valid:
            sys.exit(f"{name}: {digits} is not what its note says")
    piper = Piper(args.voice)
    entries = []
    began = time.monotonic()

    def write(path, samples, **facts):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (args.missing and path.exists()):
            soundfile.write(path, samples(), RATE_HZ, subtype="PCM_16")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        seconds = round(soundfile.info(path).frames / RATE_HZ, 2)
        entries.append({"file": str(path.relative_to(OUT)), **facts, "seconds": seconds, "sha256": digest})

    for persona, (engine, usual, running, single, licence) in PERSONAS.items():
        for name, texts, pause, note in utterances(persona):

            voice = OTHER_VOICE.get((persona, name), usual)

            def samples(texts=texts, pause=pause, voice=voice, long=OTHER_PACE.get((persona, name), running)):
                parts = [synthesise(piper, engine, voice, single if len(t.split()) < 3 else long, t) for t in texts]
                return levelled(parts, pause)

            facts = {"engine": engine, "voice": voice, "licence": LICENCES[licence], "text": " | ".join(texts), "note": note}
            write(OUT / persona / f"{name}.wav", samples, **facts)
        for digit, word in enumerate(WORDS) if persona in SAYS_ANY_DIGITS else ():

            def samples(word=word, pace=running):
                return levelled([synthesise(piper, engine, usual, pace, word)], 0, lead_s=0, tail_s=0)

            facts = {"engine": engine, "voice": usual, "licence": LICENCES[licence], "text": word, "note": "one digit"}
            write(OUT / persona / f"digit_{digit}.wav", samples, **facts)
        print(f"  {persona}: done ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    for name, (engine, voice, texts, pause) in MACHINES.items():

        def samples(texts=texts, pause=pause, engine=engine, voice=voice):
            return levelled([synthesise(piper, engine, voice, 1.0, text) for text in texts], pause)

        facts = {"engine": engine, "voice": voice, "licence": LICENCES[engine], "text": " | ".join(texts), "note": "a machine's greeting"}
        write(OUT / "machine" / f"{name}.wav", samples, **facts)
    nobody = {"engine": "none", "voice": "none", "licence": LICENCES["none"], "text": ""}
    quiet = np.zeros(5 * RATE_HZ, dtype=np.int16)
    write(OUT / "nobody" / "silence.wav", lambda: quiet, **nobody, note="5 s of digital silence")
    noise = np.random.default_rng(2).normal(0, 10 ** (-35 / 20), 5 * RATE_HZ)
    noise = np.round(np.clip(noise, -1, 1) * 32767).astype(np.int16)
    write(OUT / "nobody" / "noise.wav", lambda: noise, **nobody, note="5 s of white noise at -35 dBFS")

    lines = [
        "# Made by scripts/make_fixtures.py (`make fixtures`). Synthetic voices only; see LICENCES.md.",
        "# `text` shows what is spoken, `|` a pause. The card numbers belong to nobody's account.",
        f"sample_rate_hz = {RATE_HZ}",
        f'card = "{CARD}"',
        f'card_other = "{CARDS["card_other"][0]}"',
        f"fresh = {CHALLENGES}".replace("'", '"'),
        "",
    ]
    for entry in entries:
        lines.append("[[clip]]")
        for key, value in entry.items():
            lines.append(f"{key} = {value}" if isinstance(value, float) else f'{key} = "{value}"')
        lines.append("")
    (OUT / "manifest.toml").write_text("\n".join(lines))
    size = sum(p.stat().st_size for p in OUT.rglob("*.wav"))
    print(f"{len(entries)} clips, {size / 1e6:.2f} MB in {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
