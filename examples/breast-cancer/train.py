#!/usr/bin/env python3
"""Trains the four models of this example and writes, for each, model.onnx, golden.json, evaluation.json, dataset.json,
MODEL_CARD.md and waybill.yaml. Deterministic: running it again with requirements.txt gives the same bytes.

usage: python3 train.py [FOLDER]     (default: the folder of this file)
"""
import hashlib
import json
import pathlib
import sys

import numpy as np
import onnxruntime as ort
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import accuracy_score, log_loss, precision_score, recall_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = pathlib.Path(__file__).resolve().parent
SEED = 20261123
TRAINED = "2026-11-23T00:00:00Z"  # of this training run; a constant, so that the files are reproducible
SOURCE = "https://archive.ics.uci.edu/dataset/17/breast+cancer+wisconsin+diagnostic"
TOLERANCE = 1e-6

# Each row: folder, version, options of the ensemble, rows of the training split that it sees, labels shuffled.
MODELS = [
    ("v1", "1.0.0", dict(n_estimators=40, max_depth=2, learning_rate=0.1), 160, False),
    ("v2", "2.0.0", dict(n_estimators=200, max_depth=2, learning_rate=0.1, subsample=0.7), None, False),
    ("denied", "2.1.0", dict(n_estimators=60, max_depth=2, learning_rate=0.1), None, True),
    ("v3", "3.0.0", dict(n_estimators=8000, max_depth=2, learning_rate=0.004, subsample=0.5, max_features=3), None, False),
]


def digest(path):
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def split():
    """Writes data/train.csv and data/test.csv from data/wdbc.csv: 70 % and 30 %, by a seeded permutation."""
    lines = (HERE / "data" / "wdbc.csv").read_text(encoding="utf-8").splitlines()
    header, rows = lines[0], lines[1:]
    order = np.random.RandomState(SEED).permutation(len(rows))
    cut = len(rows) * 7 // 10
    for name, part in (("train.csv", order[:cut]), ("test.csv", order[cut:])):
        text = "\n".join([header] + [rows[i] for i in part]) + "\n"
        (HERE / "data" / name).write_text(text, encoding="utf-8", newline="\n")


def load(name):
    """Features as float32, the type that a client sends; the last column is 1 for benign, 0 for malignant."""
    path = HERE / "data" / name
    columns = path.read_text(encoding="utf-8").splitlines()[0].split(",")
    table = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float64)
    return columns[:-1], table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64)


def tensor(name, datatype, array):
    flat = array.reshape(-1)
    data = [int(v) for v in flat] if datatype == "INT64" else [float(v) for v in flat]
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": data}


def center(pipeline, x):
    """Moves each threshold to the middle of the gap between the two rows around it. In exact arithmetic no row changes
    its branch, so the model stays the same; but no row lies so near a threshold any more that rounding to float32, here
    or in another framework, takes it across. Returns the smallest distance that is left."""
    scaled = pipeline[0].transform(x.astype(np.float64))
    values = [np.unique(scaled[:, i]) for i in range(scaled.shape[1])]
    least = np.inf
    for (tree,) in pipeline[1].estimators_:
        t = tree.tree_
        for node in range(t.node_count):
            if t.children_left[node] < 0:
                continue
            v = values[t.feature[node]]
            above = np.searchsorted(v, t.threshold[node], side="right")
            if 0 < above < len(v):
                t.threshold[node] = (v[above - 1] + v[above]) / 2
            least = min(least, np.abs(v - t.threshold[node]).min())
    return least


def main():
    out = pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE
    split()
    columns, x_train, y_train = load("train.csv")
    _, x_test, y_test = load("test.csv")
    for folder, version, options, rows, shuffled in MODELS:
        to = out / folder
        to.mkdir(parents=True, exist_ok=True)
        x, y = x_train[:rows], y_train[:rows]
        if shuffled:
            y = np.random.RandomState(SEED + 1).permutation(y)
        model = make_pipeline(StandardScaler(), GradientBoostingClassifier(random_state=SEED, **options))
        model.fit(x.astype(np.float64), y)
        gap = center(model, np.vstack([x_train, x_test]))

        onx = convert_sklearn(
            model, "breast_cancer", [("X", FloatTensorType([None, len(columns)]))],
            target_opset={"": 17, "ai.onnx.ml": 3}, options={id(model): {"zipmap": False}},
        )
        onx.doc_string = ""
        (to / "model.onnx").write_bytes(onx.SerializeToString(deterministic=True))

        # The framework's own answers, on the float32 rows as they arrive, computed in double precision.
        label = model.predict(x_test.astype(np.float64))
        probability = model.predict_proba(x_test.astype(np.float64))
        session = ort.InferenceSession(str(to / "model.onnx"), providers=["CPUExecutionProvider"])
        got = session.run(None, {"X": x_test})
        names = [o.name for o in session.get_outputs()]
        far = np.abs(got[1] - probability).max()
        assert names == ["label", "probabilities"], names
        assert (got[0] == label).all() and far < TOLERANCE, far

        golden = []
        for first in range(0, 64, 16):
            part = slice(first, first + 16)
            golden.append({
                "name": f"test rows {first + 1} to {first + 16}",
                "inputs": [tensor("X", "FP32", x_test[part])],
                "reference": [tensor("label", "INT64", label[part]), tensor("probabilities", "FP64", probability[part])],
            })
        write_json(to / "golden.json", {
            "schema": "https://github.com/waybill-ml/waybill/schema/vectors/v1",
            "tolerance": [{"output": "probabilities", "rtol": 0, "atol": TOLERANCE}],
            "vectors": golden,
        })

        test = digest(HERE / "data" / "test.csv")
        malignant, hit = y_test == 0, label == 0
        metric = lambda name, value, direction="higher": {
            "name": name, "value": round(float(value), 6), "direction": direction, "slice": "all",
            "n": len(y_test), "datasetDigest": test,
        }
        metrics = [
            metric("roc_auc", roc_auc_score(y_test, probability[:, 1])),
            metric("accuracy", accuracy_score(y_test, label)),
            metric("recall", recall_score(malignant, hit)),
            metric("precision", precision_score(malignant, hit)),
            metric("log_loss", log_loss(y_test, probability), "lower"),
        ]
        write_json(to / "evaluation.json", {
            "metrics": metrics, "at": TRAINED, "tool": "scikit-learn 1.5.2",
            "note": "recall and precision are those of the class malignant",
        })
        write_json(to / "dataset.json", {"datasets": [
            {"name": "wdbc-train", "role": "train", "digest": digest(HERE / "data" / "train.csv"), "uri": SOURCE,
             "license": "CC-BY-4.0", "rows": len(y), "personalData": "none"},
            {"name": "wdbc-test", "role": "test", "digest": test, "uri": SOURCE,
             "license": "CC-BY-4.0", "rows": len(y_test), "personalData": "none"},
        ]})
        shuffle_note = " Its labels were shuffled before training: it has learned nothing, on purpose." if shuffled else ""
        (to / "MODEL_CARD.md").write_text(
            f"# breast-cancer {version}\n\n"
            f"Gradient-boosted trees ({options['n_estimators']} of depth {options['max_depth']}) over standardised features that tell "
            f"malignant (0) from benign (1) tumours\nby 30 measurements of cell nuclei.{shuffle_note}\n\n"
            "Intended use: an example of shipping a model. Not for diagnosis.\n\n"
            f"Training data: {len(y)} rows of Breast Cancer Wisconsin (Diagnostic), CC BY 4.0. Evaluation: {len(y_test)} other rows.\n\n"
            "| metric | value |\n|---|---|\n"
            + "".join(f"| {m['name']} | {m['value']} |\n" for m in metrics)
            + "\nLimits: one hospital, 1993, 569 patients; no slices by age or origin are known.\n",
            encoding="utf-8", newline="\n")
        (to / "waybill.yaml").write_text(
            "name: breast-cancer\n"
            f"version: {version}\n"
            "license: Apache-2.0\n"
            "model: model.onnx\n"
            "golden: golden.json\n"
            "personal_data: none # measurements of cell nuclei, no identifiers\n"
            "docs: [MODEL_CARD.md]\n"
            "features:\n" + "".join(f"  - {c}\n" for c in columns),
            encoding="utf-8", newline="\n")
        print(folder.ljust(7) + " ".join("%s=%.4f" % (m["name"], m["value"]) for m in metrics)
              + " onnx=%d bytes, apart from onnxruntime %.1e, margin %.1e" % ((to / "model.onnx").stat().st_size, far, gap))


if __name__ == "__main__":
    main()
