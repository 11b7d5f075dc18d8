# Trains a small scikit-learn pipeline, keeps it with joblib, and writes what it answers as golden vectors.
import json

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

rng = np.random.default_rng(7)
x = rng.normal(size=(200, 5)).astype(np.float32)
y = (x @ np.array([1.0, -2.0, 0.5, 0.0, 1.5]) + 0.3 * rng.normal(size=200) > 0.2).astype(np.int64)
model = make_pipeline(StandardScaler(), LogisticRegression(C=0.7)).fit(x, y)
joblib.dump(model, "model.joblib")
rows = x[:16]
tensor = lambda name, kind, a: {"name": name, "datatype": kind, "shape": list(a.shape), "data": a.ravel().tolist()}
golden = {
    "schema": "https://github.com/waybill-ml/waybill/schema/vectors/v1",
    "tolerance": [{"output": "probabilities", "rtol": 0, "atol": 1e-6}],
    "vectors": [{
        "name": "training rows 1 to 16",
        "inputs": [tensor("X", "FP32", rows)],
        "reference": [tensor("label", "INT64", model.predict(rows)), tensor("probabilities", "FP32", model.predict_proba(rows).astype(np.float32))],
    }],
}
json.dump(golden, open("golden.json", "w"))
