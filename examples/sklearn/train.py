#!/usr/bin/env python3
"""Trains small pipelines, exports them to ONNX, and stores inputs with ONNX Runtime's answers beside each: fixtures of the
compiler's tests for what exporters do and specifications do not say.

    python3 -m venv venv && venv/bin/pip install -r examples/sklearn/requirements.txt
    venv/bin/python examples/sklearn/train.py packager/frontend/onnx/testdata/sklearn

    columns            a data frame's columns, numbers and texts, one input each; probabilities as maps
    forest_leaves      a forest that also tells the leaf of each tree, whose number is repeated for each class
    forest_paths       a forest that also tells the decision path in each tree
    shared_branches    a tree with categorical splits, which become chains that share a branch

Each folder has model.onnx and test_data_set_N/{input,output}_K.pb. The random numbers are seeded; other versions of the
libraries give other models.
"""
import os
import shutil
import sys

import lightgbm as lgb
import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
from onnx import TensorProto, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as LightGBMFloats
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

ROWS = 200


def proto(name, value):
    if isinstance(value, list):  # of maps, as ZipMap gives them
        s = onnx.SequenceProto(name=name, elem_type=onnx.SequenceProto.MAP)
        for row in value:
            m = s.map_values.add()
            if isinstance(next(iter(row)), str):
                m.key_type = TensorProto.STRING
                m.string_keys.extend(k.encode() for k in row)
            else:
                m.key_type = TensorProto.INT64
                m.keys.extend(row)
            m.values.elem_type = onnx.SequenceProto.TENSOR
            m.values.tensor_values.extend(numpy_helper.from_array(np.array(v, dtype=np.float32)) for v in row.values())
        return s
    value = np.asarray(value)
    if value.dtype.kind in "OU":
        t = TensorProto(name=name, data_type=TensorProto.STRING, dims=value.shape)
        t.string_data.extend(str(v).encode() for v in value.ravel())
        return t
    return numpy_helper.from_array(value, name)


def store(folder, model, feeds):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(os.path.join(folder, "model.onnx"), "wb") as f:
        f.write(model.SerializeToString())
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for n, feed in enumerate(feeds):
        out = os.path.join(folder, f"test_data_set_{n}")
        os.makedirs(out)
        answers = session.run(None, feed)
        for kind, ports, values in (("input", session.get_inputs(), [feed[i.name] for i in session.get_inputs()]),
                                    ("output", session.get_outputs(), answers)):
            for k, (port, value) in enumerate(zip(ports, values)):
                with open(os.path.join(out, f"{kind}_{k}.pb"), "wb") as f:
                    f.write(proto(port.name, value).SerializeToString())


def columns(folder):
    ports, sexes, labels = ["S", "C", "Q", ""], ["m", "f"], np.array(["Lima", "alpha", "zürich"])

    def frame(rng, n, unknown=False):
        age = rng.integers(1, 90, (n, 1)).astype(np.float32)
        age[rng.random((n, 1)) < 0.2] = np.nan
        port = np.array(ports + ["XX"] if unknown else ports, dtype=object)[rng.integers(0, 4 + unknown, (n, 1))]
        return {"age": age, "fare": np.abs(rng.normal(size=(n, 1)) * 30).astype(np.float32), "class": rng.integers(1, 4 + 2 * unknown, (n, 1)),
                "sex": np.array(sexes, dtype=object)[rng.integers(0, 2, (n, 1))], "port": port}

    rng = np.random.default_rng(1)
    data = frame(rng, ROWS)
    y = labels[(np.nan_to_num(data["age"][:, 0]) > 40).astype(int) + (data["sex"][:, 0] == "f")]
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    model = make_pipeline(ColumnTransformer([("n", numbers, ["age", "fare"]), ("k", OneHotEncoder(handle_unknown="ignore"), ["class"]),
                                             ("c", OneHotEncoder(handle_unknown="ignore"), ["sex", "port"])]), LogisticRegression())
    model.fit(pd.DataFrame({k: v[:, 0] for k, v in data.items()}), y)
    types = [("age", FloatTensorType), ("fare", FloatTensorType), ("class", Int64TensorType), ("sex", StringTensorType), ("port", StringTensorType)]
    onx = convert_sklearn(model, initial_types=[(n, t([None, 1])) for n, t in types], target_opset={"": 17, "ai.onnx.ml": 3})
    store(folder, onx, [frame(rng, 24), frame(rng, 1), frame(rng, 0), frame(rng, 24, unknown=True)])


def forest(folder, option):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(ROWS, 4)).astype(np.float32)
    y = np.digitize(x[:, 0] + x[:, 1] * x[:, 2], [-0.5, 0.5])
    model = RandomForestClassifier(3, max_depth=4, random_state=0).fit(x, y)
    onx = convert_sklearn(model, initial_types=[("X", FloatTensorType([None, 4]))], options={id(model): {"zipmap": False, option: True}},
                          target_opset={"": 17, "ai.onnx.ml": 3})
    store(folder, onx, [{"X": rng.normal(size=(n, 4)).astype(np.float32)} for n in (24, 1)])


def shared_branches(folder):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS, 3)).astype(np.float32)
    x[:, 0] = rng.integers(0, 9, ROWS)
    y = np.sin(x[:, 0] * 2.3) * 2 + x[:, 1]
    model = lgb.LGBMRegressor(n_estimators=3, num_leaves=6, min_child_samples=5, min_data_per_group=5, cat_smooth=1, max_cat_to_onehot=1,
                              random_state=0, verbose=-1).fit(x, y, categorical_feature=[0])
    onx = convert_lightgbm(model, initial_types=[("X", LightGBMFloats([None, 3]))], target_opset=15)
    a = {a.name: onnx.helper.get_attribute_value(a) for a in onx.graph.node[0].attribute}
    children = [(t, c) for t, y, n, m in zip(a["nodes_treeids"], a["nodes_truenodeids"], a["nodes_falsenodeids"], a["nodes_modes"]) if m != b"LEAF" for c in (y, n)]
    assert len(set(children)) < len(children), "no branch is shared: the fixture shows nothing"
    feeds = []
    for n in (40, 1, 0):
        t = rng.normal(size=(n, 3)).astype(np.float32)
        t[:, 0] = rng.integers(0, 11, n)
        feeds.append({"X": t})
    store(folder, onx, feeds)


def main(out):
    columns(os.path.join(out, "columns"))
    forest(os.path.join(out, "forest_leaves"), "decision_leaf")
    forest(os.path.join(out, "forest_paths"), "decision_path")
    shared_branches(os.path.join(out, "shared_branches"))


if __name__ == "__main__":
    main(sys.argv[1])
