"""Golden numbers for speech::silero. Run: pip install onnxruntime==1.31.1 numpy silero-vad==6.2.3 --no-deps && python tests/golden/vad/make_silero.py

The input is a clip that lies in the repository, each sample twice: 16 kHz of a sort, without a resampler.
"""
import importlib.util, json, pathlib, wave
import numpy as np, onnxruntime as ort

here = pathlib.Path(__file__).parent
package = pathlib.Path(importlib.util.find_spec("silero_vad").submodule_search_locations[0])
session = ort.InferenceSession(str(package / "data/silero_vad_16k_op15.onnx"))
with wave.open(str(here / "../voiceprint/voiceprint_flite.wav")) as w:
    samples = np.frombuffer(w.readframes(w.getnframes()), np.int16).astype(np.float32) / 32768
samples = np.repeat(samples, 2)
state, context, out = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
for i in range(0, len(samples) - 511, 512):
    chunk = samples[i:i + 512]
    p, state = session.run(None, {"input": np.concatenate([context, chunk])[None], "state": state, "sr": np.array(16000, np.int64)})
    context = chunk[-64:]
    out.append(round(float(p[0, 0]), 6))
(here / "silero.json").write_text(json.dumps({"probabilities": out}) + "\n")
