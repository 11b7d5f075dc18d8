"""Makes the two small chains that the tests run: a picture, and a sound, in front of a model with random weights.

    pip install numpy onnx onnxruntime pillow librosa soundfile
    python3 chain.py
"""
import io, json, os
import librosa, numpy as np, onnx, onnxruntime, soundfile
from onnx import TensorProto as T, helper as h, numpy_helper as nh
from PIL import Image

here = os.path.dirname(os.path.abspath(__file__))
r = np.random.default_rng(5)


def model(name, shape, axes):
    n = int(np.prod([d for d in shape if isinstance(d, int)])) if axes is None else shape[1]
    w = (r.standard_normal((n, 4)) / np.sqrt(n)).astype("f4")
    nodes = [h.make_node("Flatten", ["x"], ["flat"])] if axes is None else [h.make_node("ReduceMean", ["x"], ["flat"], axes=axes, keepdims=0)]
    nodes += [h.make_node("Gemm", ["flat", "w", "b"], ["scores"]), h.make_node("Softmax", ["scores"], ["probabilities"])]
    g = h.make_graph(nodes, name, [h.make_tensor_value_info("x", T.FLOAT, shape)], [h.make_tensor_value_info("probabilities", T.FLOAT, ["N", 4])],
                     [nh.from_array(w, "w"), nh.from_array(np.linspace(-0.1, 0.1, 4).astype("f4"), "b")])
    m = h.make_model(g, opset_imports=[h.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(m)
    onnx.save(m, f"{here}/{name}.onnx")
    return onnxruntime.InferenceSession(m.SerializeToString())


def write(name, vectors):
    doc = dict(schema="https://github.com/waybill-ml/waybill/schema/vectors/v1", tolerance=[dict(output="probabilities", rtol=1e-4, atol=1e-5)], vectors=[])
    for title, b, x, s in vectors:
        p = s.run(None, {"x": x.astype("f4")})[0]
        doc["vectors"].append(dict(name=title, inputs=[dict(name="file", datatype="UINT8", shape=[len(b)], data=list(b))],
                                   reference=[dict(name="probabilities", datatype="FP32", shape=list(p.shape), data=p.ravel().tolist())]))
    open(f"{here}/{name}.json", "w").write(json.dumps(doc, separators=(",", ":")))


s = model("picture", ["N", 3, 8, 8], None)
list_ = []
for i, fmt in enumerate(("JPEG", "PNG")):
    im = Image.fromarray(r.integers(0, 256, (8, 8, 3)).astype("u1"))
    b = io.BytesIO()
    im.save(b, fmt, quality=90)
    im = Image.open(io.BytesIO(b.getvalue())).convert("RGB")
    x = (np.asarray(im).astype(float) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    list_.append((fmt, b.getvalue(), x.transpose(2, 0, 1)[None], s))
    open(f"{here}/picture.{fmt.lower()}", "wb").write(b.getvalue())
write("picture", list_)

s = model("sound", ["N", 20, "T"], [2])
t = np.arange(1000) / 8000
y = np.round(0.5 * np.sin(2 * np.pi * (300 + 2000 * t) * t) * 32767) / 32768
b = io.BytesIO()
soundfile.write(b, y, 8000, subtype="PCM_16", format="WAV")
S = np.abs(librosa.stft(y, n_fft=256, hop_length=80, pad_mode="reflect", dtype=np.complex128)) ** 2
m = np.log(np.maximum(librosa.filters.mel(sr=8000, n_fft=256, n_mels=20, dtype=np.float64) @ S, 1e-10))
write("sound", [("chirp", b.getvalue(), m[None], s)])
open(f"{here}/sound.wav", "wb").write(b.getvalue())


# A classifier whose answer is named probabilities.
w = r.standard_normal((2, 3)).astype("f4")
g = h.make_graph([h.make_node("Gemm", ["x", "w"], ["scores"]), h.make_node("Softmax", ["scores"], ["p"]),
                  h.make_node("ZipMap", ["p"], ["named"], domain="ai.onnx.ml", classlabels_strings=["low", "middle", "high"])], "named",
                 [h.make_tensor_value_info("x", T.FLOAT, ["N", 2])],
                 [h.make_value_info("named", h.make_sequence_type_proto(h.make_map_type_proto(T.STRING, h.make_tensor_type_proto(T.FLOAT, []))))], [nh.from_array(w, "w")])
onnx.save(h.make_model(g, opset_imports=[h.make_opsetid("", 13), h.make_opsetid("ai.onnx.ml", 1)], ir_version=8), f"{here}/named.onnx")
