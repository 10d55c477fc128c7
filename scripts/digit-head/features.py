"""Sound to Whisper's encoder states, exactly as the Rust side makes them (FORMAT.md says how, step by step).

The encoder's weights come from the ggml file that `voicepay models fetch` makes, so that both sides run the same numbers."""
import hashlib
import math
import os
import struct

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import resample_poly

RATE = 16_000
FRAME = 320  # samples of one encoder state: 20 ms
TAIL = 4_800  # zeros behind the utterance: 0.3 s
WINDOW = 1_500  # states at most: Whisper's 30 s
MEL_MAX = 1.5  # the loudest log-mel value is moved here: level does not matter


def to_16k(x8: np.ndarray) -> np.ndarray:
    """8 kHz to 16 kHz as `media::resample` does it: polyphase, Kaiser beta 5."""
    return resample_poly(x8.astype(np.float32), 2, 1).astype(np.float32)


def padded_length(samples: int) -> int:
    return min(WINDOW, -(-(samples + TAIL) // FRAME)) * FRAME


class Encoder(torch.nn.Module):
    """Whisper's encoder. `states(...)` gives the residual stream behind each block and, last, the normed output."""

    def __init__(self, path: str):
        super().__init__()
        self.sha256 = hashlib.sha256(open(path, "rb").read()).hexdigest()
        with open(path, "rb") as h:
            magic, vocab, _, width, heads, layers, *_rest = struct.unpack("<12i", h.read(48))
            if magic != 0x67676D6C:
                raise SystemExit(f"{path} is not a ggml model: run `voicepay models fetch`")
            rows, cols = struct.unpack("<2i", h.read(8))
            self.register_buffer("filters", torch.tensor(np.frombuffer(h.read(4 * rows * cols), "<f4").reshape(rows, cols).copy()))
            for _ in range(struct.unpack("<i", h.read(4))[0]):
                h.read(struct.unpack("<i", h.read(4))[0])
            self.width, self.heads, self.layers, self.w = width, heads, layers, {}
            while head := h.read(12):
                rank, length, kind = struct.unpack("<3i", head)
                shape = struct.unpack(f"<{rank}i", h.read(4 * rank))[::-1]
                name = h.read(length).decode()
                raw = h.read((2 if kind == 1 else 4) * math.prod(shape))
                if name.startswith("encoder."):
                    v = np.frombuffer(raw, "<f2" if kind == 1 else "<f4").astype(np.float32).reshape(shape)
                    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
                        v = v.reshape(-1)
                    self.w[name[8:]] = torch.tensor(v)
        self.window = torch.hann_window(400)

    def log_mel(self, x: torch.Tensor) -> torch.Tensor:
        """Padded samples (n) to log-mel (80, n / 160)."""
        s = torch.stft(x, 400, 160, window=self.window, center=True, pad_mode="reflect", return_complex=True)[..., :-1].abs() ** 2
        m = (self.filters @ s).clamp(min=1e-10).log10()
        m = torch.maximum(m, m.max() - 8.0)
        return (m - m.max() + MEL_MAX + 4.0) / 4.0

    def mel_of(self, x16: np.ndarray) -> torch.Tensor:
        n = padded_length(len(x16))
        x = torch.zeros(n)
        x[: min(n, len(x16))] = torch.from_numpy(np.ascontiguousarray(x16[:n]))
        return self.log_mel(x)

    def states(self, mel: torch.Tensor, lora=None, dtype=torch.float32, mask=None) -> list[torch.Tensor]:
        """(batch, 80, 2t) to a list of (batch, t, width). `mask` (batch, t): true where a state is of the utterance and not of padding."""
        w = self.weights(dtype)
        x = mel.to(dtype)
        x = F.gelu(F.conv1d(x, w["conv1.weight"], w["conv1.bias"], padding=1))
        x = F.gelu(F.conv1d(x, w["conv2.weight"], w["conv2.bias"], stride=2, padding=1)).transpose(1, 2)
        t = x.shape[1]
        x = x + w["positional_embedding"][:t]
        out = []
        for i in range(self.layers):
            x = self.block(x, w, f"blocks.{i}.", lora, None if mask is None else mask[:, None, None, :])
            out.append(x)
        out.append(F.layer_norm(x, (self.width,), w["ln_post.weight"], w["ln_post.bias"]))
        return out

    def weights(self, dtype):
        if dtype == torch.float32:
            return self.w
        if not hasattr(self, "low"):
            self.low = {k: v.to(dtype) for k, v in self.w.items()}
        return self.low

    def block(self, x, w, p, lora, mask):
        def linear(y, name, bias=True):
            z = F.linear(y, w[p + name + ".weight"], w[p + name + ".bias"] if bias else None)
            return z if lora is None else z + lora(p + name, y)

        b, t, d = x.shape
        y = F.layer_norm(x, (d,), w[p + "attn_ln.weight"], w[p + "attn_ln.bias"])
        q, k, v = (linear(y, f"attn.{n}", n != "key").view(b, t, self.heads, -1).transpose(1, 2) for n in ("query", "key", "value"))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(b, t, d)
        x = x + linear(y, "attn.out")
        y = F.layer_norm(x, (d,), w[p + "mlp_ln.weight"], w[p + "mlp_ln.bias"])
        return x + linear(F.gelu(linear(y, "mlp.0")), "mlp.2")


def default_model(name: str = "whisper-tiny.en") -> str:
    cache = os.environ.get("VOICEPAY_MODELS") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "voicepay", "models")
    return os.path.join(cache, f"{name}.ggml.bin")
