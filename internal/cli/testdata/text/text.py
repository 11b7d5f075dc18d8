"""Makes a small chain that the tests run: a byte-level BPE tokenizer trained here in front of a transformer with random weights, whose inputs are
ids and mask alone: i64, i32, or one of each.

    pip install numpy onnx onnxruntime tokenizers
    python3 text.py
"""
import json
import os

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T, helper as h, numpy_helper as nh
from tokenizers import Tokenizer, models, pre_tokenizers as P, processors, trainers

here = os.path.dirname(os.path.abspath(__file__))
t = Tokenizer(models.BPE())
t.pre_tokenizer = P.ByteLevel(add_prefix_space=False)
t.train_from_iterator(["the pump runs well", "the valve leaks again", "well done, the leak is closed"] * 3, trainers.BpeTrainer(
    vocab_size=320, show_progress=False, special_tokens=["<s>", "<pad>", "</s>"], initial_alphabet=P.ByteLevel.alphabet()))
t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
t.enable_padding(pad_id=1, pad_token="<pad>")
t.enable_truncation(24)
t.save(os.path.join(here, "tokenizer.json"))

V, D, H, F = t.get_vocab_size(), 8, 2, 16
r = np.random.default_rng(7)
init, nodes = [], []


def weight(name, *shape):
    init.append(nh.from_array((r.standard_normal(shape) / np.sqrt(shape[0])).astype("f4"), name))
    return name


def const(name, value, dtype):
    init.append(nh.from_array(np.array(value, dtype), name))
    return name


def node(op, inputs, output, **attributes):
    nodes.append(h.make_node(op, inputs, [output], **attributes))
    return output


def heads(x, name):
    node("MatMul", [x, weight("w" + name, D, D)], name + "0")
    node("Reshape", [name + "0", const("split", [0, 0, H, D // H], "i8") if name == "q" else "split"], name + "1")
    return node("Transpose", [name + "1"], name, perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3])


init.append(nh.from_array((r.standard_normal((V, D))).astype("f4"), "embedding"))
x = node("Gather", ["embedding", "input_ids"], "x0")
init.append(nh.from_array((r.standard_normal((24, D)) / 4).astype("f4"), "positions"))
node("Shape", ["input_ids"], "shape")
node("Slice", ["positions", const("zero", [0], "i8"), node("Slice", ["shape", const("one", [1], "i8"), const("two", [2], "i8")], "length")], "here")
x = node("Add", [x, "here"], "x")
q, k, v = heads(x, "q"), heads(x, "k"), heads(x, "v")
node("Cast", ["attention_mask"], "mask", to=T.FLOAT)
node("Mul", [node("Sub", ["mask", const("unit", 1, "f4")], "off"), const("far", 10000, "f4")], "bias")
node("Unsqueeze", ["bias", const("axes", [1, 2], "i8")], "bias4")
node("Add", [node("Div", [node("MatMul", [q, k], "qk"), const("root", 2, "f4")], "scaled"), "bias4"], "logits")
node("Transpose", [node("MatMul", [node("Softmax", ["logits"], "attention", axis=-1), v], "mixed")], "back", perm=[0, 2, 1, 3])
node("Add", [x, node("MatMul", [node("Reshape", ["back", const("join", [0, 0, D], "i8")], "joined"), weight("wo", D, D)], "out")], "x1")
node("LayerNormalization", ["x1", const("g1", [1] * D, "f4"), const("b1", [0] * D, "f4")], "n1")
node("MatMul", [node("Relu", [node("MatMul", ["n1", weight("wf", D, F)], "f0")], "f1"), weight("wg", F, D)], "f2")
node("LayerNormalization", [node("Add", ["n1", "f2"], "x2"), "g1", "b1"], "n2")
node("Gather", ["n2", const("first", 0, "i8")], "cls", axis=1)
node("Softmax", [node("MatMul", ["cls", weight("wc", D, 3)], "scores")], "probabilities", axis=-1)
for name, ids, mask in ("model32.onnx", T.INT32, T.INT32), ("mixed.onnx", T.INT32, T.INT64), ("model.onnx", T.INT64, T.INT64):
    g = h.make_graph(nodes, "text", [h.make_tensor_value_info("input_ids", ids, ["N", "L"]), h.make_tensor_value_info("attention_mask", mask, ["N", "L"])],
                     [h.make_tensor_value_info("probabilities", T.FLOAT, ["N", 3])], init)
    m = h.make_model(g, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(m)
    onnx.save(m, os.path.join(here, name))
s = onnxruntime.InferenceSession(m.SerializeToString())

doc = dict(schema="https://github.com/waybill-ml/waybill/schema/vectors/v1", tolerance=[dict(output="probabilities", rtol=1e-4, atol=1e-5)], vectors=[])
for name, texts in (("one", ["the pump leaks"]), ("several", ["the valve leaks again, well done", "", "caf\u00e9 \u4f60\u597d \U0001f600 don't  stop", "word " * 40])):
    e = t.encode_batch(texts)
    p = s.run(None, {"input_ids": np.array([x.ids for x in e]), "attention_mask": np.array([x.attention_mask for x in e])})[0]
    doc["vectors"].append(dict(name=name, inputs=[dict(name="text", datatype="BYTES", shape=[len(texts)], data=texts)],
                               reference=[dict(name="probabilities", datatype="FP32", shape=list(p.shape), data=p.ravel().tolist())]))
with open(os.path.join(here, "golden.json"), "w") as f:
    json.dump(doc, f, indent=1)
    f.write("\n")
