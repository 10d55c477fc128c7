"""Golden numbers for speech::silero. Run: pip install onnx onnxruntime==1.31.1 numpy && pip install --no-deps silero-vad==6.2.3 &&
python tests/golden/vad/make_silero.py

The weights in the wheel's safetensors file are of another training than those of its ONNX files (the largest difference in the last layer
is 1.2), so that onnxruntime can't be asked about them. The forward below is written after the wheel's own definition of the network
(tinygrad_model.py), proven on the ONNX file's weights against onnxruntime, and then run on the safetensors.
The input is a clip that lies in the repository, each sample twice: 16 kHz of a sort, without a resampler.
"""
import importlib.util, json, pathlib, struct, wave
import numpy as np, onnx, onnxruntime as ort
from onnx import numpy_helper

here = pathlib.Path(__file__).parent
data = pathlib.Path(importlib.util.find_spec("silero_vad").submodule_search_locations[0]) / "data"

raw = (data / "silero_vad_16k.safetensors").read_bytes()
head = struct.unpack("<Q", raw[:8])[0]
ours = {name: np.frombuffer(raw, np.float32, offset=8 + head + t["data_offsets"][0], count=int(np.prod(t["shape"]))).reshape(t["shape"])
        for name, t in json.loads(raw[8:8 + head]).items() if name != "__metadata__"}

graph = onnx.load(data / "silero_vad_16k_op15.onnx").graph
there = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
names = {"stft_conv.weight": "stft.forward_basis_buffer", "final_conv.weight": "decoder.decoder.2.weight", "final_conv.bias": "decoder.decoder.2.bias"}
names |= {f"conv{n + 1}.{p}": f"encoder.{n}.reparam_conv.{p}" for n in range(4) for p in ("weight", "bias")}
names |= {f"lstm_cell.{p}": f"decoder.rnn.{p}" for p in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
theirs = {k: there["model." + v] for k, v in names.items()}

with wave.open(str(here / "../voiceprint/voiceprint_flite.wav")) as w:
    samples = np.repeat(np.frombuffer(w.readframes(w.getnframes()), np.int16).astype(np.float32) / 32768, 2)


def chunks():
    context = np.zeros(64, np.float32)
    for i in range(0, len(samples) - 511, 512):
        yield np.concatenate([context, samples[i:i + 512]])
        context = samples[i + 448:i + 512]


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def conv(x, w, b, stride):
    x = np.pad(x, ((0, 0), (1, 1)))
    at = range(0, x.shape[1] - 2, stride)
    return np.maximum(np.stack([np.tensordot(w, x[:, t:t + 3], ([1, 2], [0, 1])) + b for t in at], 1), 0)


def forward(W):
    h, c, out = np.zeros(128), np.zeros(128), []
    for x in chunks():
        x = np.pad(x, (0, 64), "reflect")
        f = np.stack([W["stft_conv.weight"][:, 0] @ x[t * 128:t * 128 + 256] for t in range(4)], 1)
        m = np.sqrt(f[:129] ** 2 + f[129:] ** 2)
        for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
            m = conv(m, W[name + ".weight"], W[name + ".bias"], stride)
        gates = W["lstm_cell.weight_ih"] @ m[:, 0] + W["lstm_cell.bias_ih"] + W["lstm_cell.weight_hh"] @ h + W["lstm_cell.bias_hh"]
        i, forget, g, o = np.split(gates, 4)
        c = sigmoid(forget) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(float(sigmoid(W["final_conv.weight"][0, :, 0] @ np.maximum(h, 0) + W["final_conv.bias"][0])))
    return np.array(out)


session, state, asked = ort.InferenceSession(str(data / "silero_vad_16k_op15.onnx")), np.zeros((2, 1, 128), np.float32), []
for x in chunks():
    p, state = session.run(None, {"input": x[None], "state": state, "sr": np.array(16000, np.int64)})
    asked.append(float(p[0, 0]))
apart = np.abs(forward(theirs) - np.array(asked)).max()
assert apart < 1e-5, apart
(here / "silero.json").write_text(json.dumps({"probabilities": [round(p, 6) for p in forward(ours).tolist()]}) + "\n")
print(f"the forward is onnxruntime's to {apart:.1e} on the ONNX file's weights")
