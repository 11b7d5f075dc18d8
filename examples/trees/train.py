#!/usr/bin/env python3
"""Trains a tiny model for every booster, objective and treatment of missing values and categories of XGBoost and
LightGBM, and stores rows with the library's own predictions beside each: the fixtures of the compiler's tests.

    python3 -m venv venv && venv/bin/pip install xgboost lightgbm numpy scipy
    venv/bin/python examples/trees/train.py packager/frontend/xgboost/testdata packager/frontend/lightgbm/testdata

With --formats, a few models go into every format that the installed versions write, named after the version: run it with
old versions of XGBoost (1.0 to 3.0) and LightGBM (2.1 to 3.3).

NAME.json, NAME.ubj or NAME.txt is the model; NAME.cases.json holds rows (null is NaN, "inf" infinity), the raw margin
and the prediction of Booster.predict. The random numbers are seeded; other versions of the libraries give other trees.
"""
import json
import math
import os
import sys

import lightgbm as lgb
import numpy as np
import xgboost as xgb

N, TEST = 300, 24


def cell(v):
    v = float(v)
    if math.isnan(v):
        return None
    if math.isinf(v):
        return "inf" if v > 0 else "-inf"
    return v


def store(path, library, rows, margin, prediction):
    doc = {
        "library": library,
        "rows": [[cell(v) for v in r] for r in rows],
        "margin": [float(v) for v in np.asarray(margin).ravel()],
        "prediction": [float(v) for v in np.asarray(prediction).ravel()],
    }
    with open(path + ".cases.json", "w", encoding="utf-8", newline="\n") as f:
        json.dump(doc, f, separators=(",", ":"))
        f.write("\n")


def features(rng, n, missing=0.0, zeros=0.0, cats=0):
    x = rng.normal(size=(n, 5)).astype(np.float32)
    if zeros:
        x[rng.random(x.shape) < zeros] = 0
    if cats:
        x[:, 0] = rng.integers(0, cats, n)
        x[:, 1] = rng.integers(0, 5, n)
    if missing:
        x[rng.random(x.shape) < missing] = np.nan
    return x


def signal(x, cats=0):
    z = np.nan_to_num(x)
    first = np.sin(z[:, 0] * 2.3) * 2 if cats else z[:, 0]
    return first + z[:, 1] * z[:, 2] * 0.5 - np.abs(z[:, 3]) + 0.3 * (z[:, 4] > 0)


def odd(x, cats=0):
    """Rows with the values at which trees go wrong: NaN, zeros, tiny values, infinities, unseen categories."""
    e = np.array([[np.nan] * 5, [0] * 5, [1e-36] * 5, [-1e-36, 2e-35, -2e-35, 1e-30, -1e-30], [1e30] * 5, [-1e30] * 5,
                  [np.nan, 0, np.nan, 0, 1], [0, np.nan, 0, np.nan, -1]], dtype=np.float32)
    if cats:
        e = np.vstack([e, np.array([[-1, -2, 0, 0, 0], [0.5, 1.9, 0, 0, 0], [-0.5, -0.9, 0, 0, 0], [cats + 5, 99, 0, 0, 0],
                                    [40, 64, 0, 0, 0], [cats - 1, 4, 0, 0, 0]], dtype=np.float32)])
    return np.vstack([x, e])


def labels(kind, rng, x, cats=0):
    s, z = signal(x, cats), np.nan_to_num(x)
    noise = rng.normal(size=len(s)) * 0.2
    if kind == "real":
        return s + noise
    if kind == "unit":
        return 1 / (1 + np.exp(-s))
    if kind == "binary":
        return (s + noise > 0).astype(np.float32)
    if kind == "class3":
        return np.digitize(s + noise, [-0.8, 0.6]).astype(np.float32)
    if kind == "count":
        return rng.poisson(np.exp(np.clip(s * 0.4, -2, 2))).astype(np.float32)
    if kind == "positive":
        return np.exp(np.clip(s * 0.5, -3, 3)) + 0.01
    if kind == "rank":
        return np.clip(np.digitize(s, [-1.5, -0.5, 0.5]), 0, 3).astype(np.float32)
    if kind == "binary_rank":
        return (s + noise > 0).astype(np.float32)
    if kind == "labels":
        return np.stack([s > 0, z[:, 0] + noise > 0, s + z[:, 4] > 1], axis=1).astype(np.float32)
    if kind == "multi":
        return np.stack([s, -s * 0.5 + noise, s * s], axis=1)
    raise ValueError(kind)


def train_xgboost(out):
    version = "xgboost " + xgb.__version__

    def one(name, kind, params, ubj=False, missing=0.0, cats=0, rounds=4, odds=True):
        rng = np.random.default_rng(7)
        x = features(rng, N, missing=missing, cats=cats)
        y = labels(kind, rng, x, cats)
        types = (["c", "c"] + ["q"] * 3) if cats else None
        p = {"max_depth": 3, "eta": 0.6, "seed": 1, "nthread": 1, "verbosity": 0, **params}
        kw = {"feature_types": types, "enable_categorical": bool(cats)}
        d = xgb.DMatrix(x, label=y, **kw)
        if kind.endswith("rank"):
            d.set_group([10] * (N // 10))
        if p["objective"] == "survival:aft":
            d.set_float_info("label_lower_bound", y)
            d.set_float_info("label_upper_bound", np.where(rng.random(N) < 0.3, np.inf, y))
        if p["objective"] == "survival:cox":
            d.set_label(np.where(rng.random(N) < 0.3, -y, y))
        b = xgb.train(p, d, rounds)
        path = os.path.join(out, name)
        b.save_model(path + (".ubj" if ubj else ".json"))
        test = odd(x[:TEST], cats) if odds else x[:TEST]
        t = xgb.DMatrix(test, **kw)
        store(path, version, test, b.predict(t, output_margin=True), b.predict(t))

    one("squarederror", "real", {"objective": "reg:squarederror"})
    one("squarederror_ubj", "real", {"objective": "reg:squarederror"}, ubj=True, missing=0.2)
    one("squarederror_base", "real", {"objective": "reg:squarederror", "base_score": 2.5})
    one("missing", "real", {"objective": "reg:squarederror"}, missing=0.3, rounds=6)
    one("depth0", "real", {"objective": "reg:squarederror", "gamma": 1e9})
    one("squaredlogerror", "positive", {"objective": "reg:squaredlogerror"})
    one("pseudohuber", "real", {"objective": "reg:pseudohubererror"})
    one("absoluteerror", "real", {"objective": "reg:absoluteerror"})
    one("quantile", "real", {"objective": "reg:quantileerror", "quantile_alpha": [0.2, 0.5, 0.8]})
    one("reg_logistic", "unit", {"objective": "reg:logistic"})
    one("binary_logistic", "binary", {"objective": "binary:logistic"}, missing=0.1)
    one("binary_logistic_base", "binary", {"objective": "binary:logistic", "base_score": 0.2})
    one("binary_logitraw", "binary", {"objective": "binary:logitraw"})
    one("binary_hinge", "binary", {"objective": "binary:hinge"})
    one("softmax", "class3", {"objective": "multi:softmax", "num_class": 3})
    one("softprob", "class3", {"objective": "multi:softprob", "num_class": 3}, missing=0.1)
    one("softprob_ubj", "class3", {"objective": "multi:softprob", "num_class": 3}, ubj=True)
    one("softprob_forest", "class3", {"objective": "multi:softprob", "num_class": 3, "num_parallel_tree": 2, "subsample": 0.6}, rounds=2)
    one("poisson", "count", {"objective": "count:poisson"})
    one("gamma", "positive", {"objective": "reg:gamma"})
    one("tweedie", "positive", {"objective": "reg:tweedie", "tweedie_variance_power": 1.4})
    one("cox", "positive", {"objective": "survival:cox"})
    one("aft", "positive", {"objective": "survival:aft", "aft_loss_distribution": "normal", "aft_loss_distribution_scale": 1.2})
    for r in ("pairwise", "ndcg"):
        one("rank_" + r, "rank", {"objective": "rank:" + r})
    one("rank_map", "binary_rank", {"objective": "rank:map"})
    one("dart", "real", {"booster": "dart", "objective": "reg:squarederror", "rate_drop": 0.5, "one_drop": 1}, rounds=8, missing=0.1)
    one("dart_softprob_ubj", "class3", {"booster": "dart", "objective": "multi:softprob", "num_class": 3, "rate_drop": 0.5, "one_drop": 1},
        ubj=True, rounds=6)
    one("gblinear", "real", {"booster": "gblinear", "objective": "reg:squarederror"}, missing=0.1, odds=False)
    one("gblinear_softprob", "class3", {"booster": "gblinear", "objective": "multi:softprob", "num_class": 3}, missing=0.1, odds=False)
    one("gblinear_logistic_ubj", "binary", {"booster": "gblinear", "objective": "binary:logistic"}, ubj=True, odds=False)
    one("categorical", "real", {"objective": "reg:squarederror", "max_cat_to_onehot": 1}, cats=12, missing=0.15, rounds=6)
    one("categorical_onehot_ubj", "binary", {"objective": "binary:logistic", "max_cat_to_onehot": 100}, cats=6, missing=0.1, ubj=True)
    one("categorical_wide", "real", {"objective": "reg:squarederror", "max_cat_to_onehot": 1}, cats=40)
    one("multi_target", "multi", {"objective": "reg:squarederror"})
    one("multi_output_tree", "multi", {"objective": "reg:squarederror", "multi_strategy": "multi_output_tree"}, missing=0.1)
    one("multi_output_softprob_ubj", "class3", {"objective": "multi:softprob", "num_class": 3, "multi_strategy": "multi_output_tree"}, ubj=True)
    one("multi_label", "labels", {"objective": "binary:logistic"})
    one("pruned", "real", {"objective": "reg:squarederror", "tree_method": "exact", "gamma": 8, "max_depth": 5}, missing=0.1)
    one("quantile_one", "real", {"objective": "reg:quantileerror", "quantile_alpha": 0.3})
    one("many_rounds", "real", {"objective": "reg:squarederror", "eta": 0.05, "max_depth": 2}, rounds=60)


def train_lightgbm(out):
    version = "lightgbm " + lgb.__version__

    def one(name, kind, params, missing=0.0, zeros=0.0, cats=0, rounds=4, odds=True):
        rng = np.random.default_rng(11)
        x = features(rng, N, missing=missing, zeros=zeros, cats=cats)
        y = labels(kind, rng, x, cats)
        p = {"num_leaves": 6, "learning_rate": 0.3, "min_data_in_leaf": 5, "seed": 1, "num_threads": 1, "deterministic": True, "verbosity": -1,
             **params}
        d = lgb.Dataset(x.astype(np.float64), label=y, group=[10] * (N // 10) if kind == "rank" else None,
                        categorical_feature=[0, 1] if cats else "auto", params=p, free_raw_data=False)
        b = lgb.train(p, d, rounds)
        path = os.path.join(out, name)
        b.save_model(path + ".txt")
        test = (odd(x[:TEST], cats) if odds else x[:TEST]).astype(np.float64)
        store(path, version, test, b.predict(test, raw_score=True), b.predict(test))

    cat = {"min_data_per_group": 2, "cat_smooth": 1, "cat_l2": 1, "max_cat_to_onehot": 1}
    for o in ("regression", "regression_l1", "huber", "fair", "quantile", "mape"):
        one(o, "real", {"objective": o})
    one("regression_sqrt", "real", {"objective": "regression", "reg_sqrt": True})
    one("missing_nan", "real", {"objective": "regression"}, missing=0.3, rounds=6)
    one("missing_none", "real", {"objective": "regression", "use_missing": False}, zeros=0.3)
    one("missing_zero", "real", {"objective": "regression", "zero_as_missing": True}, zeros=0.4, rounds=6)
    one("sparse_zeros", "real", {"objective": "regression"}, zeros=0.6, rounds=6)
    one("poisson", "count", {"objective": "poisson"})
    one("gamma", "positive", {"objective": "gamma"})
    one("tweedie", "positive", {"objective": "tweedie"})
    one("binary", "binary", {"objective": "binary"}, missing=0.1)
    one("binary_sigmoid", "binary", {"objective": "binary", "sigmoid": 2.5})
    one("multiclass", "class3", {"objective": "multiclass", "num_class": 3})
    one("multiclassova", "class3", {"objective": "multiclassova", "num_class": 3, "sigmoid": 1.5})
    one("cross_entropy", "unit", {"objective": "cross_entropy"})
    one("cross_entropy_lambda", "unit", {"objective": "cross_entropy_lambda"})
    one("lambdarank", "rank", {"objective": "lambdarank"})
    one("rank_xendcg", "rank", {"objective": "rank_xendcg"})
    one("dart", "real", {"objective": "regression", "boosting": "dart", "drop_rate": 0.5}, rounds=8)
    rf = {"boosting": "rf", "bagging_fraction": 0.6, "bagging_freq": 1}
    one("rf", "real", {"objective": "regression", **rf})
    one("rf_binary", "binary", {"objective": "binary", **rf})
    one("rf_multiclass", "class3", {"objective": "multiclass", "num_class": 3, **rf})
    one("goss", "real", {"objective": "regression", "data_sample_strategy": "goss"})
    one("categorical", "real", {"objective": "regression", **cat}, cats=12, missing=0.15, rounds=6)
    one("categorical_wide", "binary", {"objective": "binary", **cat}, cats=70, rounds=6)
    one("categorical_onehot", "real", {"objective": "regression", **cat, "max_cat_to_onehot": 100}, cats=6, missing=0.1)
    one("linear", "real", {"objective": "regression", "linear_tree": True}, odds=False, rounds=5)
    one("linear_missing", "real", {"objective": "regression", "linear_tree": True}, missing=0.2, rounds=5)
    one("linear_binary", "binary", {"objective": "binary", "linear_tree": True}, odds=False)
    one("linear_categorical", "real", {"objective": "regression", "linear_tree": True, **cat}, cats=8, missing=0.1)
    one("monotone", "real", {"objective": "regression", "monotone_constraints": [1, 0, 0, -1, 0], "extra_trees": True})
    one("categorical_zero", "real", {"objective": "regression", "zero_as_missing": True, **cat}, cats=8, zeros=0.1, missing=0.1)
    one("stump", "real", {"objective": "regression", "min_data_in_leaf": 200})
    one("custom", "real", {"objective": custom_l2})


def formats(out_xgboost, out_lightgbm):
    version = tuple(int(v) for v in xgb.__version__.split(".")[:2])
    suffixes = ["json"] + (["ubj"] if version >= (1, 6) else []) + (["model"] if version < (2, 0) else [])
    runs = {
        "tree": ("real", {"objective": "reg:squarederror", "base_score": 0.3}),
        "logistic": ("binary", {"objective": "binary:logistic", "base_score": 0.3}),
        "logitraw": ("binary", {"objective": "binary:logitraw", "base_score": 0.3}),
        "softprob": ("class3", {"objective": "multi:softprob", "num_class": 3}),
        "poisson": ("count", {"objective": "count:poisson"}),
        "dart": ("real", {"booster": "dart", "objective": "reg:squarederror", "rate_drop": 0.5, "one_drop": 1}),
        "linear": ("class3", {"booster": "gblinear", "objective": "multi:softprob", "num_class": 3}),
    }
    if version >= (1, 7):
        runs["categorical"] = ("real", {"objective": "reg:squarederror", "max_cat_to_onehot": 1, "tree_method": "hist"})
    if version >= (2, 0):
        runs["vectors"] = ("multi", {"objective": "reg:squarederror", "multi_strategy": "multi_output_tree", "tree_method": "hist"})
    for name, (kind, params) in runs.items():
        cats = 12 if name == "categorical" else 0
        rng = np.random.default_rng(3)
        x = features(rng, 200, missing=0.15, cats=cats)
        kw = {"feature_types": ["c", "c", "q", "q", "q"], "enable_categorical": True} if cats else {}
        d = xgb.DMatrix(x, label=labels(kind, rng, x, cats), **kw)
        b = xgb.train({"max_depth": 2, "eta": 0.6, "seed": 1, "nthread": 1, "verbosity": 0, **params}, d, 3)
        test = odd(x[:6], cats) if name != "linear" else x[:12]
        t = xgb.DMatrix(test, **kw)
        path = os.path.join(out_xgboost, "v%d.%d_%s" % (*version, name))
        for s in suffixes:
            if not (s == "model" and name == "categorical"):
                b.save_model(path + "." + s)
        store(path, "xgboost " + xgb.__version__, test, b.predict(t, output_margin=True), b.predict(t))
    for name, kind, params in (("tree", "real", {"objective": "regression"}), ("binary", "binary", {"objective": "binary"}),
                               ("multiclass", "class3", {"objective": "multiclass", "num_class": 3}),
                               ("rf", "binary", {"objective": "binary", "boosting": "rf", "bagging_fraction": 0.6, "bagging_freq": 1,
                                                 "feature_fraction": 0.9})):
        rng = np.random.default_rng(3)
        x = features(rng, 200, missing=0.15, zeros=0.1).astype(np.float64)
        p = {"num_leaves": 4, "min_data_in_leaf": 5, "learning_rate": 0.4, "seed": 1, "num_threads": 1, "verbosity": -1, **params}
        b = lgb.train(p, lgb.Dataset(x, label=labels(kind, rng, x), params=p), 3)
        path = os.path.join(out_lightgbm, "v%s_%s" % (".".join(lgb_version().split(".")[:3]), name))
        b.save_model(path + ".txt")
        test = odd(x[:6]).astype(np.float64)
        store(path, "lightgbm " + lgb_version(), test, b.predict(test, raw_score=True), b.predict(test))


def lgb_version():
    from importlib.metadata import version
    return version("lightgbm")


def custom_l2(pred, data):
    return pred - data.get_label(), np.ones_like(pred)


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "--formats":
        formats(*sys.argv[2:])
        sys.exit()
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for folder, train in zip(sys.argv[1:], (train_xgboost, train_lightgbm)):
        os.makedirs(folder, exist_ok=True)
        train(folder)
