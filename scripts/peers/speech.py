"""What the caller says, and when. Most telephones here can't hear: they play one file from the moment of the answer, so the file
carries the timing. How long our prompts last is learnt once, with our own softphone, and kept beside the Debian trees."""

import array
import hashlib
import json
import math
import wave
from pathlib import Path

from proc import Failed

RATE_HZ = 8000
# After the question: people breathe before they answer.
BREATH_S = 2.0
# The verdict takes half a second on an idle machine; the question that follows waits six.
VERDICT_S = 4.0
# The second "yes" is for the case that the first came while the read-back was still being spoken.
AGAIN_S = 9.0
TAIL_S = 45.0
# A twentieth of a second is heard as speech from this level on.
HEARD_DBFS = -45.0


def read(path):
    """Samples of a WAV of 16 bits, the first channel, and their rate."""
    with wave.open(str(path)) as w:
        if w.getsampwidth() != 2:
            raise Failed(f"{path}: not of 16 bits")
        return array.array("h", w.readframes(w.getnframes()))[:: w.getnchannels()], w.getframerate()


def write(path, samples, rate=RATE_HZ):
    """Writes a mono WAV of 16 bits."""
    with wave.open(str(path), "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(rate)
        w.writeframes(array.array("h", samples).tobytes())
    return Path(path)


def silence(seconds):
    return array.array("h", bytes(2 * int(seconds * RATE_HZ)))


def resampled(samples, rate):
    """To a multiple of 8 kHz, in straight lines: what is then above 4 kHz is faint, good enough for a caller's side."""
    times = rate // RATE_HZ
    if times == 1:
        return samples
    out = array.array("h")
    for a, b in zip(samples, [*samples[1:], 0], strict=True):
        out.extend(a + (b - a) * k // times for k in range(times))
    return out


def ulaw(samples):
    """G.711 mu-law (ITU-T G.711), one byte a sample."""

    def one(s):
        sign, s = (0x80, -s) if s < 0 else (0, s)
        s = min(s, 32635) + 132
        exponent = max(s.bit_length() - 8, 0)
        return ~(sign | exponent << 4 | s >> (exponent + 3) & 0x0F) & 0xFF

    table = bytes(one(s) for s in range(-32768, 32768))
    return bytes(table[s + 32768] for s in samples)


def heard_s(path):
    """Seconds of sound in a recording that are louder than a quiet line."""
    samples, rate = read(path)
    step = rate // 20
    floor = 32768 * 10 ** (HEARD_DBFS / 20)
    loud = 0
    for at in range(0, len(samples) - step, step):
        piece = samples[at : at + step]
        loud += math.sqrt(sum(s * s for s in piece) / step) > floor
    return loud / 20


class Prompts:
    """How long the service speaks before it listens, in seconds."""

    def __init__(self, asked_s, read_back_s):
        self.asked_s, self.read_back_s = asked_s, read_back_s

    @classmethod
    def learn(cls, cache, root, call):
        """From the cache, or by `call()`: the events of one paying call with the product's own softphone."""
        digest = hashlib.sha256()
        for path in sorted((root / "prompts").rglob("*.*")):
            digest.update(path.read_bytes())
        kept = Path(cache) / f"prompts-{digest.hexdigest()[:16]}.json"
        if kept.exists():
            return cls(**json.loads(kept.read_text()))
        events = call()
        said = [e["at_ms"] for e in events if e["event"] == "saying"]
        quiet = [e["at_ms"] for e in events if e["event"] == "heard_silence"]
        spoke = [e["at_ms"] for e in events if e["event"] == "said"]
        asked = max(q for q in quiet if q < said[0])
        read_back = max(q for q in quiet if q < said[-1]) - spoke[0]
        found = {"asked_s": asked / 1000, "read_back_s": read_back / 1000}
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found))
        return cls(**found)

    def timeline(self, voice, *, before_s=0.0):
        """The whole caller: card number, yes, and another yes, with silence for as long as the service speaks."""
        card, _ = read(voice / "card.wav")
        yes, _ = read(voice / "yes.wav")
        # Another take: a yes that was heard before is a recording. Not every voice has one.
        other = voice / "yes_please.wav"
        again = silence(AGAIN_S) + read(other)[0] if other.exists() else silence(0)
        return (
            silence(before_s + self.asked_s + BREATH_S)
            + card
            + silence(self.read_back_s + VERDICT_S)
            + yes
            + again
            + silence(TAIL_S)
        )
