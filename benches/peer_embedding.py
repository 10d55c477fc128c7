"""CAM++ on onnxruntime, from the very weights that voicepay runs: the peer for `make bench`. Needs numpy, onnx, onnxruntime, kaldi-native-fbank.

The graph is written node by node from campplus.safetensors, so no PyTorch is needed; it is independent of src/voiceprint.
`python benches/peer_embedding.py WEIGHTS.safetensors GOLDEN.json FOLDER` holds it to reference embeddings of the clips in FOLDER.
"""
import json, struct, sys, wave
import numpy as np, onnx, onnxruntime as ort, kaldi_native_fbank as knf
from onnx import TensorProto, helper, numpy_helper

BLOCKS = [(12, 1), (24, 2), (16, 2)]  # layers and dilation
SEGMENT = 100  # frames that the context of a layer is pooled over
OPSET = 21


def read_safetensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    tensors = {k: v for k, v in header.items() if k != "__metadata__" and v["dtype"] == "F32"}
    return {k: np.frombuffer(data[slice(*v["data_offsets"])], "<f4").reshape(v["shape"]).copy() for k, v in tensors.items()}


class Graph:
    def __init__(self, weights):
        self.w, self.nodes, self.constants, self.n = weights, [], {}, 0

    def constant(self, name, value):
        self.constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind, *inputs, **attributes):
        self.n += 1
        out = f"t{self.n}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def ints(self, *values):
        return self.constant("i" + "_".join(map(str, values)), np.array(values, np.int64))

    def conv(self, name, x, **k):
        inputs = [x, self.constant(name + ".weight", self.w[name + ".weight"])]
        if name + ".bias" in self.w:
            inputs.append(self.constant(name + ".bias", self.w[name + ".bias"]))
        return self.op("Conv", *inputs, **k)

    def norm(self, name, x):
        mean = self.w[name + ".running_mean"]
        scale, bias = self.w.get(name + ".weight", np.ones_like(mean)), self.w.get(name + ".bias", np.zeros_like(mean))
        parts = [(".weight", scale), (".bias", bias), (".running_mean", mean), (".running_var", self.w[name + ".running_var"])]
        return self.op("BatchNormalization", x, *[self.constant(name + k, v) for k, v in parts], epsilon=1e-5)

    def relu(self, x):
        return self.op("Relu", x)

    def residual(self, n, x, stride):
        y = self.relu(self.norm(n + ".bn1", self.conv(n + ".conv1", x, strides=[stride, 1], pads=[1, 1, 1, 1])))
        y = self.norm(n + ".bn2", self.conv(n + ".conv2", y, pads=[1, 1, 1, 1]))
        if stride != 1:
            x = self.norm(n + ".shortcut.1", self.conv(n + ".shortcut.0", x, strides=[stride, 1]))
        return self.relu(self.op("Add", y, x))

    def dense(self, n, x, dilation, frames):
        h = self.conv(n + ".linear1", self.relu(self.norm(n + ".nonlinear1.batchnorm", x)))
        h = self.relu(self.norm(n + ".nonlinear2.batchnorm", h))
        y = self.conv(n + ".cam_layer.linear_local", h, pads=[dilation, dilation], dilations=[dilation])
        pooled = self.op("AveragePool", h, kernel_shape=[SEGMENT], strides=[SEGMENT], ceil_mode=1)
        spread = self.op("Expand", self.op("Unsqueeze", pooled, self.ints(3)), self.ints(1, 1, 1, SEGMENT))
        spread = self.op("Reshape", spread, self.ints(1, 128, -1))
        spread = self.op("Slice", spread, self.ints(0), frames, self.ints(2))
        context = self.op("Add", self.op("ReduceMean", h, self.ints(2), keepdims=1), spread)
        context = self.relu(self.conv(n + ".cam_layer.linear1", context))
        mask = self.op("Sigmoid", self.conv(n + ".cam_layer.linear2", context))
        return self.op("Concat", x, self.op("Mul", y, mask), axis=1)

    def build(self):
        x = self.op("Unsqueeze", "mels", self.ints(1))  # 1 x 1 x 80 x frames
        x = self.relu(self.norm("head.bn1", self.conv("head.conv1", x, pads=[1, 1, 1, 1])))
        for layer in (1, 2):
            x = self.residual(f"head.layer{layer}.1", self.residual(f"head.layer{layer}.0", x, 2), 1)
        x = self.relu(self.norm("head.bn2", self.conv("head.conv2", x, strides=[2, 1], pads=[1, 1, 1, 1])))
        x = self.op("Reshape", x, self.ints(1, 320, -1))
        x = self.relu(self.norm("xvector.tdnn.nonlinear.batchnorm", self.conv("xvector.tdnn.linear", x, strides=[2], pads=[2, 2])))
        frames = self.op("Slice", self.op("Shape", x), self.ints(2), self.ints(3))
        for i, (layers, dilation) in enumerate(BLOCKS, 1):
            for j in range(1, layers + 1):
                x = self.dense(f"xvector.block{i}.tdnnd{j}", x, dilation, frames)
            x = self.conv(f"xvector.transit{i}.linear", self.relu(self.norm(f"xvector.transit{i}.nonlinear.batchnorm", x)))
        x = self.relu(self.norm("xvector.out_nonlinear.batchnorm", x))
        mean = self.op("ReduceMean", x, self.ints(2), keepdims=1)
        off = self.op("Sub", x, mean)
        count = self.op("Sub", self.op("Cast", frames, to=TensorProto.FLOAT), self.constant("one", np.array([1.0], np.float32)))
        variance = self.op("Div", self.op("ReduceSum", self.op("Mul", off, off), self.ints(2), keepdims=1), count)
        x = self.conv("xvector.dense.linear", self.op("Concat", mean, self.op("Sqrt", variance), axis=1))
        x = self.norm("xvector.dense.nonlinear.batchnorm", x)
        self.nodes.append(helper.make_node("Flatten", [x], ["embedding"]))
        mels = helper.make_tensor_value_info("mels", TensorProto.FLOAT, [1, 80, "frames"])
        out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 192])
        graph = helper.make_graph(self.nodes, "campplus", [mels], [out], list(self.constants.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


class Peer:
    """One thread, all of onnxruntime's graph optimisations."""

    def __init__(self, weights):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = Graph(read_safetensors(weights)).build()
        onnx.checker.check_model(model)
        self.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.fbank = knf.FbankOptions()
        self.fbank.frame_opts.dither = 0
        self.fbank.frame_opts.samp_freq = 16000
        self.fbank.mel_opts.num_bins = 80

    def embed(self, samples_16k):
        """Samples in [-1, 1] at 16 kHz: Kaldi filterbank, minus its mean over time, network."""
        bank = knf.OnlineFbank(self.fbank)
        bank.accept_waveform(16000, samples_16k)
        bank.input_finished()
        mels = np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])
        mels = (mels - mels.mean(0)).T[None].astype(np.float32)
        return self.session.run(None, {"mels": np.ascontiguousarray(mels)})[0][0]


def read_wav_16k(path):
    """8 or 16 kHz 16-bit mono, at 16 kHz."""
    with wave.open(path) as w:
        rate, x = w.getframerate(), np.frombuffer(w.readframes(w.getnframes()), "<i2").astype(np.float32) / 32768
    if rate == 16000:
        return x
    assert rate == 8000, path
    half = 20  # scipy.signal.resample_poly(x, 2, 1): Kaiser beta 5, 10 zero crossings a side
    t = np.arange(-half, half + 1)
    taps = np.sinc(t / 2) * np.kaiser(2 * half + 1, 5.0)
    taps *= 2 / taps.sum()
    up = np.zeros(2 * len(x))
    up[::2] = x
    return np.convolve(up, taps)[half : half + 2 * len(x)].astype(np.float32)


def main():
    weights, golden, folder = sys.argv[1:4]
    peer, worst = Peer(weights), 1.0
    for name, clip in json.load(open(golden))["clips"].items():
        a, b = peer.embed(read_wav_16k(f"{folder}/{name}")), np.array(clip["embedding"])
        worst = min(worst, float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    print(f"least cosine to the reference: {worst:.6f}")
    if not worst > 0.9999:
        sys.exit("the peer's graph is not the reference network")


if __name__ == "__main__":
    main()
