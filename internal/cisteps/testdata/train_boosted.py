# Trains an XGBoost and a LightGBM classifier, keeps each with joblib and in the library's own format, and writes what it answers as golden vectors.
import json

import joblib
import lightgbm
import numpy as np
import xgboost

rng = np.random.default_rng(7)
x = rng.normal(size=(400, 5)).astype(np.float32)
y = (x[:, 0] * x[:, 1] - x[:, 2] + 0.3 * rng.normal(size=400) > 0.2).astype(np.int64)
rows = x[:16]
tensor = lambda name, kind, a: {"name": name, "datatype": kind, "shape": list(a.shape), "data": a.ravel().tolist()}
for name, model in {
    "xgboost": xgboost.XGBClassifier(n_estimators=20, max_depth=4, random_state=0, n_jobs=1),
    "lightgbm": lightgbm.LGBMClassifier(n_estimators=20, max_depth=4, random_state=0, n_jobs=1, verbose=-1),
}.items():
    model.fit(x, y)
    joblib.dump(model, name + ".joblib")
    if name == "xgboost":
        model.get_booster().save_model("xgboost.json")
    else:
        model.booster_.save_model("lightgbm.txt")
    golden = {
        "schema": "https://github.com/waybill-ml/waybill/schema/vectors/v1",
        "tolerance": [{"output": "probabilities", "rtol": 0, "atol": 1e-6}],
        "vectors": [{
            "name": "training rows 1 to 16",
            "inputs": [tensor("X", "FP32", rows)],
            "reference": [tensor("label", "INT64", model.predict(rows).astype(np.int64)), tensor("probabilities", "FP32", model.predict_proba(rows).astype(np.float32))],
        }],
    }
    json.dump(golden, open(name + "-golden.json", "w"))
