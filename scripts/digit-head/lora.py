"""Small changes to the frozen encoder: a low-rank matrix beside each weight of its blocks, merged into it at loading."""
import torch

NAMES = ("attn.query", "attn.key", "attn.value", "attn.out", "mlp.0", "mlp.2")


class Lora(torch.nn.Module):
    def __init__(self, encoder, rank: int, blocks: list[int]):
        super().__init__()
        self.p = torch.nn.ParameterDict()
        for b in blocks:
            for n in NAMES:
                out, inp = encoder.w[f"blocks.{b}.{n}.weight"].shape
                self.p[self.key(f"blocks.{b}.{n}", "a")] = torch.nn.Parameter(torch.randn(rank, inp) / inp**0.5)
                self.p[self.key(f"blocks.{b}.{n}", "b")] = torch.nn.Parameter(torch.zeros(out, rank))

    @staticmethod
    def key(name: str, which: str) -> str:
        return f"{name}.weight.lora_{which}".replace(".", "/")

    def forward(self, name: str, y: torch.Tensor) -> torch.Tensor:
        if self.key(name, "a") not in self.p:
            return 0.0
        a, b = self.p[self.key(name, "a")], self.p[self.key(name, "b")]
        return (y @ a.to(y.dtype).T) @ b.to(y.dtype).T

    def tensors(self) -> dict[str, torch.Tensor]:
        return {k.replace("/", "."): v for k, v in self.p.items()}


def merge(encoder, tensors: dict[str, torch.Tensor]) -> None:
    """Puts a head file's encoder tensors (model.load) into the encoder."""
    for k, v in tensors.items():
        if k.endswith(".lora_a"):
            encoder.w[k[:-7]] = encoder.w[k[:-7]] + tensors[k[:-1] + "b"] @ v
        elif not k.endswith(".lora_b"):
            encoder.w[k] = v
    encoder.__dict__.pop("low", None)
