"""What a telephone and its caller do to speech, on 8 kHz floats. Nothing here reads a measuring set: noise is synthesised or mixed from training voices."""
import shutil
import subprocess

import numpy as np
from scipy.fft import next_fast_len
from scipy.signal import butter, fftconvolve, lfilter, resample_poly, sosfilt

RATE = 8_000


def active_rms(x: np.ndarray) -> float:
    n = RATE // 50
    m = len(x) // n
    if m == 0:
        return float(np.sqrt((x**2).mean() + 1e-12))
    e = (x[: m * n].reshape(m, n) ** 2).mean(1)
    return float(np.sqrt(e[e > e.max() * 1e-3].mean() + 1e-12))


def mulaw(x):
    s = np.clip(np.round(x * 32768), -32768, 32767).astype(np.int32)
    m = np.minimum(np.abs(s), 32635) + 132
    e = np.clip(np.floor(np.log2(m)).astype(int) - 7, 0, 7)
    y = (((((m >> (e + 3)) & 0xF) << 3) + 132) << e) - 132
    return np.where(s < 0, -y, y) / 32768.0


def alaw(x):
    s = np.clip(np.round(x * 32768), -32768, 32767).astype(np.int32)
    m = np.clip(np.where(s < 0, -s - 1, s) >> 3, 0, 4095)
    e = np.where(m >= 32, np.floor(np.log2(np.maximum(m, 1))).astype(int) - 4, 0)
    man = np.where(e > 0, (m >> np.maximum(e, 1)) & 0xF, (m >> 1) & 0xF)
    y = np.where(e > 0, ((man << 1) + 33) << np.maximum(e - 1, 0), (man << 1) + 1) << 3
    return np.where(s < 0, -y, y) / 32768.0


def through_ffmpeg(x, codec: list[str], container: str):
    """There and back through a real codec; the sound as it was if ffmpeg is not there or can't."""
    if not shutil.which("ffmpeg"):
        return x
    raw = np.clip(np.round(x * 32767), -32768, 32767).astype("<i2").tobytes()
    try:
        enc = subprocess.run(["ffmpeg", "-v", "error", "-f", "s16le", "-ar", "8000", "-ac", "1", "-i", "-", *codec, "-f", container, "-"], input=raw, capture_output=True, check=True, timeout=30).stdout
        dec = subprocess.run(["ffmpeg", "-v", "error", "-f", container, "-i", "-", "-f", "s16le", "-ar", "8000", "-ac", "1", "-"], input=enc, capture_output=True, check=True, timeout=30).stdout
    except subprocess.SubprocessError:
        return x
    y = np.frombuffer(dec, "<i2").astype(np.float64) / 32768
    return np.pad(y[: len(x)], (0, max(0, len(x) - len(y))))


def through_sox_gsm(x):
    if not shutil.which("sox"):
        return x
    raw = ["-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-c", "1", "-"]
    bits = np.clip(np.round(x * 32767), -32768, 32767).astype("<i2").tobytes()
    enc = subprocess.run(["sox", "-V0", *raw, "-t", "gsm", "-r", "8000", "-"], input=bits, capture_output=True, check=True, timeout=30).stdout
    dec = subprocess.run(["sox", "-V0", "-t", "gsm", "-r", "8000", "-", *raw], input=enc, capture_output=True, check=True, timeout=30).stdout
    y = np.frombuffer(dec, "<i2").astype(np.float64) / 32768
    return np.pad(y[: len(x)], (0, max(0, len(x) - len(y))))


def stretch(x, tempo: float):
    """Tempo without pitch: overlap-add with the best match within 5 ms (WSOLA)."""
    win, hop, seek = 240, 120, 40
    if abs(tempo - 1) < 0.02 or len(x) < 4 * win:
        return x
    w = np.hanning(win)
    frames = int((len(x) - win - seek) / (hop * tempo))
    out, norm = np.zeros(frames * hop + win), np.full(frames * hop + win, 1e-6)
    follow = x[:win]
    for i in range(frames):
        p = int(i * hop * tempo)
        lo = max(0, p - seek)
        region = x[lo : p + seek + win]
        at = int(np.argmax(np.correlate(region, follow, "valid"))) if i and len(region) >= win else 0
        q = lo + at if i else 0
        seg = x[q : q + win]
        if len(seg) < win:
            break
        out[i * hop : i * hop + win] += seg * w
        norm[i * hop : i * hop + win] += w
        follow = x[q + hop : q + hop + win]
        if len(follow) < win:
            break
    return out / norm


def voice_changed(x, rng, strength=1.0):
    """Another speaker: pitch and formants together by resampling, then tempo on its own."""
    r = float(np.exp(rng.normal(0, 0.09 * strength)))
    r = min(1.25, max(0.8, r))
    k = int(round(100 * r))
    y = resample_poly(x, 100, k) if k != 100 else x
    if rng.random() < 0.4:
        return y
    return stretch(y, float(np.clip(np.exp(rng.normal(0, 0.13 * strength)) / r, 0.7, 1.45)))


def coloured(n, rng, slope):
    m = next_fast_len(n, real=True)
    f = np.fft.rfft(rng.standard_normal(m))
    f /= np.maximum(1, np.arange(len(f))) ** (slope / 2)
    y = np.fft.irfft(f, m)[:n]
    return y / (y.std() + 1e-9)


def wander(n, rng, hz):
    """A slow random envelope, mean about 1."""
    k = max(4, int(n / RATE * hz) + 3)
    return np.exp(0.5 * np.interp(np.linspace(0, k - 1, n), np.arange(k), rng.standard_normal(k)))


def street(n, rng):
    y = coloured(n, rng, rng.uniform(0.8, 2.0)) * wander(n, rng, 0.7)
    t = np.arange(n) / RATE
    for _ in range(rng.integers(0, 3)):  # engines
        f0 = rng.uniform(40, 140) * wander(n, rng, 0.4)
        phase = 2 * np.pi * np.cumsum(f0) / RATE
        y += rng.uniform(0.1, 0.6) * sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(2, 12))
    for _ in range(rng.poisson(n / RATE / 4)):  # knocks, horns
        at, m = int(rng.integers(n)), int(rng.integers(200, 5000))
        m = min(m, n - at)
        if rng.random() < 0.5:
            y[at : at + m] += rng.uniform(1, 5) * rng.standard_normal(m) * np.exp(-np.arange(m) / rng.uniform(60, 900))
        else:
            y[at : at + m] += rng.uniform(0.5, 2) * np.sin(2 * np.pi * rng.uniform(300, 2500) * t[:m])
    return y


def music(n, rng):
    y, at, t = np.zeros(n), 0, np.arange(n) / RATE
    beat = int(RATE * rng.uniform(0.15, 0.6))
    scale = 110 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12], 8) / 12) * rng.uniform(0.8, 1.8)
    while at < n:
        m = min(n - at, int(beat * rng.choice([1, 2, 4])))
        for f in rng.choice(scale, rng.integers(1, 4)) * rng.choice([1, 2, 4]):
            y[at : at + m] += sum(np.sin(2 * np.pi * k * f * t[:m]) / k for k in range(1, 6) if k * f < 3800) * np.exp(-t[:m] * rng.uniform(0.5, 6))
        if rng.random() < 0.6:
            y[at : at + m] += rng.uniform(0.3, 1.5) * rng.standard_normal(m) * np.exp(-t[:m] * 40)
        at += beat
    return y + 0.02 * rng.standard_normal(n)


def babble_pool(rng, speech, count=40, seconds=25):
    """Tracks of people talking at once, made once and drawn from often."""
    return [babble(seconds * RATE, rng, speech) for _ in range(count)]


def babble(n, rng, speech):
    """1 to 12 others talking, each at its own loudness."""
    y = np.zeros(n)
    for _ in range(int(rng.choice([1, 2, 3, 4, 5, 6, 8, 8, 8, 10, 12]))):
        parts, have = [], 0
        while have < n + RATE:
            s = speech[int(rng.integers(len(speech)))]
            k = int(round(100 * np.clip(np.exp(rng.normal(0, 0.1)), 0.8, 1.25)))
            s = resample_poly(s, 100, k)
            parts.append(s / active_rms(s))
            have += len(s)
            if rng.random() < 0.3:
                gap = int(rng.uniform(0, 0.6) * RATE)
                parts.append(np.zeros(gap))
                have += gap
        o = int(rng.integers(0, RATE))
        y += np.concatenate(parts)[o : o + n] * 10 ** (rng.normal(0, 3) / 20)
    return y


def from_pool(n, rng, tracks):
    v = tracks[int(rng.integers(len(tracks)))]
    if n >= len(v):
        v = np.tile(v, n // len(v) + 2)
    o = int(rng.integers(0, len(v) - n))
    return v[o : o + n]


def room(x, rng):
    """A made-up room: a direct path, a few early echoes, an exponential tail darker than its start."""
    t60, n = rng.uniform(0.1, 0.8), int(RATE * 0.6)
    t = np.arange(n) / RATE
    h = rng.standard_normal(n) * np.exp(-6.9 * t / t60) * 10 ** (-rng.uniform(12, 26) / 20)
    h = lfilter([1 - (a := rng.uniform(0, 0.6))], [1, -a], h)
    h[: int(0.002 * RATE)] = 0
    h[0] = 1
    for _ in range(rng.integers(0, 8)):
        h[int(rng.uniform(0.001, 0.04) * RATE)] += rng.uniform(-0.5, 0.5)
    y = fftconvolve(x, h / np.sqrt((h**2).sum()))[: len(x)]
    return y


def coloured_line(x, rng):
    """The handset's and line's frequency response."""
    if rng.random() < 0.65:
        lo, hi = rng.uniform(150, 420), rng.uniform(2900, 3850)
        x = sosfilt(butter(int(rng.integers(1, 4)), [lo, hi], "bandpass", fs=RATE, output="sos"), x)
    if rng.random() < 0.5:  # dark and bright lines: callers' spectra at 2 kHz differ by 20 dB, and noise does not follow them
        n = next_fast_len(len(x), real=True)
        f = np.fft.rfft(x, n)
        octaves = np.log2(np.maximum(np.fft.rfftfreq(n, 1 / RATE), 150) / 500)
        x = np.fft.irfft(f * 10 ** (rng.uniform(-6, 3) * octaves / 20), n)[: len(x)]
    if rng.random() < 0.6:
        n = next_fast_len(len(x), real=True)
        f = np.fft.rfft(x, n)
        points = np.cumsum(rng.normal(0, 2.5, 9))
        gain = np.interp(np.linspace(0, 8, len(f)), np.arange(9), points - points.mean())
        x = np.fft.irfft(f * 10 ** (np.clip(gain, -12, 12) / 20), n)[: len(x)]
    return x


def lost_packets(x, rng):
    """Bursts of lost 20 ms packets: silence, or the last packet again, fading."""
    n, y, bad, run = 160, x.copy(), False, 0
    enter, leave, repeat = rng.uniform(0.004, 0.04), rng.uniform(0.4, 0.9), rng.random() < 0.7
    for p in range(n, len(x) - n, n):
        bad = rng.random() > leave if bad else rng.random() < enter
        run = run + 1 if bad else 0
        if bad:
            y[p : p + n] = y[p - n : p] * (0.6**run) if repeat else 0.0
    return y


def telephone(x, rng, tracks, hard=1.0):
    """From clean speech to what the far end hears. `tracks`: babble_pool's."""
    if rng.random() < 0.35:
        x = room(x, rng)
    x = coloured_line(x, rng) if rng.random() < 0.8 else x
    if rng.random() < 0.3:
        x = x * np.clip(wander(len(x), rng, 0.5) ** 0.6, 0.3, 3)
    x = x / max(active_rms(x), 1e-6) * 10 ** (-23 / 20)
    kind = rng.choice(["none", "babble", "hiss", "street", "music"], p=[0.18, 0.52, 0.11, 0.12, 0.07])
    if kind != "none":
        n = len(x)
        v = {"babble": lambda: from_pool(n, rng, tracks), "hiss": lambda: coloured(n, rng, rng.uniform(0, 1.6)), "street": lambda: street(n, rng), "music": lambda: music(n, rng)}[kind]()
        v = coloured_line(v, rng) if rng.random() < 0.3 else v
        snr = rng.triangular(4, 11, 24) if kind == "babble" else rng.uniform(3, 26)
        x = x + v / (v.std() + 1e-9) * active_rms(x) * 10 ** (-snr * hard / 20)
    level = rng.uniform(-38, -10)
    x = x * 10 ** ((level + 23) / 20)
    if rng.random() < 0.06:
        top = np.abs(x).max() * rng.uniform(0.2, 0.7)
        x = np.clip(x, -top, top)
    x = np.clip(x, -0.97, 0.97)
    for _ in range(1 + (rng.random() < 0.12)):
        c = rng.random()
        if c < 0.66:
            x = mulaw(x)
        elif c < 0.80:
            x = alaw(x)
        elif c < 0.86:
            x = through_sox_gsm(x)
        elif c < 0.89:
            x = through_ffmpeg(x, ["-c:a", "libopus", "-b:a", str(int(rng.choice([6000, 8000, 12000, 16000]))), "-application", "voip"], "ogg")
        elif c < 0.92:
            x = through_ffmpeg(x, ["-c:a", "libopencore_amrnb", "-b:a", str(rng.choice(["4.75k", "5.9k", "7.95k", "12.2k"]))], "amr")
    if rng.random() < 0.12:
        x = lost_packets(x, rng)
    return mulaw(x).astype(np.float32)
