"""The head as a list of layers, the same list that the file's metadata carries and that Rust reads (FORMAT.md)."""
import hashlib
import json

import torch
import torch.nn.functional as F
from safetensors.torch import save_file, safe_open

FORMAT = "voicepay-digit-head/1"
DIGITS = ["blank", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
EXTENDED = DIGITS + ["double", "triple", "hundred", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
                     "nineteen", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "no"]
# How manifests and prepared states write a token: digits as themselves, the others as letters.
LETTER = {t: (t if t.isdigit() else chr(ord("a") + i - len(DIGITS))) for i, t in enumerate(EXTENDED) if i}
TOKEN = {letter: i for i, letter in enumerate(LETTER.values(), 1)}


def residual_head(width_in: int, vocab: int, width: int = 256, kernel: int = 5, dilations=(1, 2, 4)) -> list[dict]:
    """LayerNorm, a projection, residual dilated convolutions, LayerNorm, the tokens."""
    ops = [{"op": "layer_norm", "name": "in.norm", "width": width_in}, {"op": "linear", "name": "in.proj", "in": width_in, "out": width}]
    for i, d in enumerate(dilations):
        ops.append({"op": "residual", "ops": [
            {"op": "layer_norm", "name": f"{i}.norm", "width": width},
            {"op": "conv1d", "name": f"{i}.conv", "in": width, "out": width, "kernel": kernel, "dilation": d, "groups": 1},
            {"op": "gelu"},
            {"op": "linear", "name": f"{i}.proj", "in": width, "out": width},
        ]})
    return ops + [{"op": "layer_norm", "name": "out.norm", "width": width}, {"op": "linear", "name": "out.proj", "in": width, "out": vocab},
                  {"op": "log_softmax"}]


class Head(torch.nn.Module):
    def __init__(self, ops: list[dict], taps: list[str], dropout: float = 0.0):
        super().__init__()
        self.ops, self.taps, self.dropout, self.p = ops, taps, dropout, torch.nn.ParameterDict()
        if len(taps) > 1:
            self.p["taps"] = torch.nn.Parameter(torch.zeros(len(taps)))
        self._make(ops)

    def _make(self, ops):
        for o in ops:
            if o["op"] == "residual":
                self._make(o["ops"])
            elif o["op"] == "layer_norm":
                self._add(o["name"], torch.ones(o["width"]), torch.zeros(o["width"]))
            elif o["op"] == "linear":
                m = torch.nn.Linear(o["in"], o["out"])
                self._add(o["name"], m.weight.data, m.bias.data)
            elif o["op"] == "conv1d":
                m = torch.nn.Conv1d(o["in"], o["out"], o["kernel"], groups=o["groups"])
                self._add(o["name"], m.weight.data, m.bias.data)

    def _add(self, name, weight, bias):
        self.p[name.replace(".", "/") + "/weight"], self.p[name.replace(".", "/") + "/bias"] = torch.nn.Parameter(weight), torch.nn.Parameter(bias)

    def mix(self, states: list[torch.Tensor]) -> torch.Tensor:
        if len(self.taps) == 1:
            return states[0]
        normed = [F.layer_norm(s, s.shape[-1:]) for s in states]
        return sum(w * s for w, s in zip(F.softmax(self.p["taps"], 0), normed))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, t, width) to log-probabilities (batch, t, vocabulary). `mask` (batch, t, 1): 0 where a shorter utterance of the batch has ended, so
        that its last frames see zeros behind them as they do alone."""
        return self._run(self.ops, x, mask)

    def _run(self, ops, x, mask):
        for o in ops:
            k = o.get("name", "").replace(".", "/")
            if o["op"] == "layer_norm":
                x = F.layer_norm(x, (o["width"],), self.p[k + "/weight"], self.p[k + "/bias"])
            elif o["op"] == "linear":
                x = F.linear(x, self.p[k + "/weight"], self.p[k + "/bias"])
            elif o["op"] == "conv1d":
                x = x if mask is None else x * mask
                pad = o["dilation"] * (o["kernel"] - 1) // 2
                x = F.conv1d(x.transpose(1, 2), self.p[k + "/weight"], self.p[k + "/bias"], padding=pad, dilation=o["dilation"], groups=o["groups"]).transpose(1, 2)
            elif o["op"] == "gelu":
                x = F.gelu(x)
            elif o["op"] == "residual":
                x = x + F.dropout(self._run(o["ops"], x, mask), self.dropout, self.training)
            elif o["op"] == "log_softmax":
                x = F.log_softmax(x.float(), -1)
        return x


def save(head: Head, path: str, encoder: dict, vocabulary: list[str], extra: dict | None = None, lora: dict | None = None) -> str:
    tensors = {k.replace("/", "."): v.detach().to(torch.float16).contiguous() for k, v in head.p.items()}
    tensors |= {f"encoder.{k}": v.detach().to(torch.float16).contiguous() for k, v in (lora or {}).items()}
    about = {"format": FORMAT, "encoder": encoder, "vocabulary": vocabulary, "ops": head.ops, **(extra or {})}
    save_file(tensors, path, metadata={"voicepay": json.dumps(about, sort_keys=True)})
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


def load(path: str) -> tuple[Head, dict, dict]:
    """The head, what its file says of itself, and replaced encoder tensors (empty but for LoRA)."""
    with safe_open(path, "pt") as f:
        about = json.loads(f.metadata()["voicepay"])
        head, lora = Head(about["ops"], about["encoder"]["taps"]), {}
        for k in f.keys():
            v = f.get_tensor(k).float()
            if k.startswith("encoder."):
                lora[k[8:]] = v
            else:
                head.p[k.replace(".", "/")].data.copy_(v)
    return head.eval(), about, lora
