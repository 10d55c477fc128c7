"""GE2E d-vectors (Resemblyzer 0.1.4, Apache-2.0) in numpy, from its published weights: a peer for `make eval`. Needs numpy and webrtcvad.

Follows Resemblyzer step by step: level, long silences out, 40 mel bands (power, not log), three LSTM layers over windows of 1.6 s at 1.3 a
second, ReLU, mean of the windows' unit vectors. `python benches/peer_ge2e.py WEIGHTS.pt` checks the file and that a tone has an embedding.
"""
import collections, hashlib, io, pickle, struct, sys
import numpy as np, webrtcvad

SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
RATE, WINDOW, HOP, BANDS, PARTIAL = 16000, 400, 160, 40, 160


def read_weights(path):
    """A checkpoint of torch before zip files: three pickles, the state, the storages' keys, then each storage. No code in it is run."""
    with open(path, "rb") as f:
        data = f.read()
    if hashlib.sha256(data).hexdigest() != SHA256:
        sys.exit(f"{path} is not the published GE2E model")

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            if (module, name) == ("collections", "OrderedDict"):
                return collections.OrderedDict
            return (lambda *a: a) if name.startswith("_rebuild") else name

        def persistent_load(self, what):
            return what

    stream = io.BytesIO(data)
    read = lambda: Reader(stream).load()
    read(), read(), read()
    state, keys, storages = read()["model_state"], read(), {}
    at = stream.tell()
    for key in keys:
        (count,) = struct.unpack_from("<q", data, at)
        storages[key] = np.frombuffer(data, "<f4", count, at + 8)
        at += 8 + 4 * count
    out = {}
    for name, ((_, _, key, *_), offset, shape, *_) in state.items():
        out[name] = storages[key][offset : offset + int(np.prod(shape))].reshape(shape).astype(np.float32)
    return out


def slaney_filters():
    """librosa's mel filters: Slaney's scale, each of unit area."""
    def to_mel(hz):
        return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1e-9) / 1000) / np.log(6.4))

    def to_hz(mel):
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    hz = to_hz(np.linspace(0, to_mel(np.array(RATE / 2.0)), BANDS + 2))
    bins = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    up = (bins[None] - hz[:-2, None]) / (hz[1:-1] - hz[:-2])[:, None]
    down = (hz[2:, None] - bins[None]) / (hz[2:] - hz[1:-1])[:, None]
    return np.maximum(0, np.minimum(up, down)) * (2 / (hz[2:] - hz[:-2]))[:, None]


FILTERS = slaney_filters()
HANN = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)


def mels(x):
    x = np.pad(x, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(x, WINDOW)[::HOP]
    return ((np.abs(np.fft.rfft(frames * HANN)) ** 2) @ FILTERS.T).astype(np.float32)


def prepared(x):
    """Not quieter than -30 dBFS, and without long silences."""
    rms = 20 * np.log10(np.sqrt((x**2).mean()) + 1e-12)
    x = x * 10 ** (max(0.0, -30 - rms) / 20)
    step = 30 * RATE // 1000
    x = x[: len(x) // step * step]
    pcm = np.round(np.clip(x, -1, 1) * 32767).astype("<i2")
    vad = webrtcvad.Vad(3)
    flags = np.array([vad.is_speech(pcm[i : i + step].tobytes(), RATE) for i in range(0, len(x), step)], float)
    mean = np.convolve(np.pad(flags, (3, 4)), np.ones(8) / 8, "valid")
    mask = np.convolve(np.round(mean), np.ones(7), "same") > 0
    kept = x[np.repeat(mask, step)]
    return kept if len(kept) >= RATE // 2 else x


class Peer:
    def __init__(self, path):
        self.w = read_weights(path)

    def embed(self, samples_16k):
        x = prepared(samples_16k)
        frames, step = int(np.ceil((len(x) + 1) / HOP)), int(np.round(RATE / 1.3 / HOP))
        starts = list(range(0, max(1, frames - PARTIAL + step + 1), step))
        if len(starts) > 1 and (len(x) - starts[-1] * HOP) / (PARTIAL * HOP) < 0.75:
            starts.pop()
        x = np.pad(x, (0, max(0, (starts[-1] + PARTIAL) * HOP - len(x))))
        bank = mels(x)
        y = np.stack([bank[s : s + PARTIAL] for s in starts])
        for layer in range(3):
            y = self.lstm(layer, y)
        e = np.maximum(0, y[:, -1] @ self.w["linear.weight"].T + self.w["linear.bias"])
        e = (e / np.linalg.norm(e, axis=1, keepdims=True)).mean(0)
        return e / np.linalg.norm(e)

    def lstm(self, n, x):
        own, back = self.w[f"lstm.weight_ih_l{n}"].T, self.w[f"lstm.weight_hh_l{n}"].T
        gates = x @ own + (self.w[f"lstm.bias_ih_l{n}"] + self.w[f"lstm.bias_hh_l{n}"])
        h = c = np.zeros((len(x), 256), np.float32)
        out = np.empty((*x.shape[:2], 256), np.float32)
        sigmoid = lambda v: 1 / (1 + np.exp(-v))
        for t in range(x.shape[1]):
            i, f, g, o = np.split(gates[:, t] + h @ back, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            out[:, t] = h
        return out


if __name__ == "__main__":
    tone = np.sin(np.arange(2 * RATE) * 0.1) * 0.1
    print(f"norm of a tone's embedding: {np.linalg.norm(Peer(sys.argv[1]).embed(tone)):.3f}")
