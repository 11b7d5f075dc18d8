# Writes the models of this folder, with random weights, and their test cases, whose outputs are ONNX Runtime's.
# needs: numpy, onnx, onnxruntime. Run it in this folder.
import os

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T, helper as h, numpy_helper as nh

rng = np.random.RandomState(7)


def f32(*shape):
    return (rng.randn(*shape) * 0.5).astype(np.float32)


def value(name, shape, t=T.FLOAT):
    return h.make_tensor_value_info(name, t, shape)


def write(name, nodes, inputs, outputs, inits, feeds, opset=17, imports=True, extra=()):
    graph = h.make_graph(nodes, name, inputs, outputs, [nh.from_array(v, k) for k, v in inits.items()])
    ops = [h.make_opsetid("", opset)] + [h.make_opsetid(d, 1) for d in extra]
    model = h.make_model(graph, opset_imports=ops, ir_version=8)
    os.makedirs(name, exist_ok=True)
    onnx.save(model, f"{name}/model.onnx")
    so = ort.SessionOptions()
    so.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    so.log_severity_level = 3
    session = ort.InferenceSession(f"{name}/model.onnx", so)
    for k, feed in enumerate(feeds):
        d = f"{name}/test_data_set_{k}"
        os.makedirs(d, exist_ok=True)
        for i, info in enumerate(inputs):
            open(f"{d}/input_{i}.pb", "wb").write(nh.from_array(feed[info.name], info.name).SerializeToString())
        for i, out in enumerate(session.run(None, feed)):
            open(f"{d}/output_{i}.pb", "wb").write(nh.from_array(out, outputs[i].name).SerializeToString())


# An LSTM that hands its hidden and cell state to the next call of a stream.
H, I = 4, 3
write("lstm",
      [h.make_node("LSTM", ["x", "W", "R", "B", "", "h", "c"], ["Y", "h_out", "c_out"], hidden_size=H),
       h.make_node("Squeeze", ["Y", "one"], ["y3"]),
       h.make_node("MatMul", ["y3", "P"], ["y"])],
      [value("x", ["frames", "streams", I]), value("h", [1, "streams", H]), value("c", [1, "streams", H])],
      [value("y", ["frames", "streams", 2]), value("h_out", [1, "streams", H]), value("c_out", [1, "streams", H])],
      {"W": f32(1, 4 * H, I), "R": f32(1, 4 * H, H), "B": f32(1, 8 * H), "P": f32(H, 2), "one": np.array([1], np.int64)},
      [{"x": f32(n, b, I), "h": f32(1, b, H), "c": f32(1, b, H)} for n, b in ((1, 1), (5, 1), (3, 2))])

# unbind as PyTorch's exporter writes it: a split of 1 with keepdims 0.
write("unbind",
      [h.make_node("SplitToSequence", ["x", "one"], ["s"], axis=0, keepdims=0),
       h.make_node("SequenceAt", ["s", "i"], ["y"])],
      [value("x", ["a", "b"]), value("i", [], T.INT64)], [value("y", ["b"])], {"one": np.array(1, np.int64)},
      [{"x": f32(a, b), "i": np.array(i, np.int64)} for a, b, i in ((3, 4, 1), (1, 2, 0), (5, 1, -1))])

# A pool of which only the indices are used.
write("pool_indices", [h.make_node("MaxPool", ["x"], ["unused", "y"], kernel_shape=[2, 2], strides=[2, 2])],
      [value("x", ["n", 2, "h", "w"])], [value("y", ["n", 2, "h2", "w2"], T.INT64)], {},
      [{"x": f32(*s)} for s in ((1, 2, 4, 6), (3, 2, 5, 3))])

# Nodes out of order, as float16 converters leave them: the casts stand at the end.
write("unsorted",
      [h.make_node("Mul", ["x16", "w"], ["y16"]),
       h.make_node("Cast", ["y16"], ["y"], to=T.FLOAT),
       h.make_node("Cast", ["x"], ["x16"], to=T.FLOAT16)],
      [value("x", ["n", 3])], [value("y", ["n", 3])], {"w": f32(3).astype(np.float16)}, [{"x": f32(4, 3)}, {"x": f32(1, 3)}])

# A fused operator whose operator set the optimiser forgot to import.
write("no_import", [h.make_node("FastGelu", ["x", "b"], ["y"], domain="com.microsoft")],
      [value("x", ["n", 3])], [value("y", ["n", 3])], {"b": f32(3)}, [{"x": f32(4, 3)}])
