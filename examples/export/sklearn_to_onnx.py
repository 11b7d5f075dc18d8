"""Exports a scikit-learn model or pipeline to ONNX.

  python sklearn_to_onnx.py MODEL OUT.onnx

MODEL is models:/name/version, runs:/id/path, a folder with MLmodel, or a file written by joblib. To load it runs the code in
it: do this where the model was trained, with files that you made.
Needs: pip install scikit-learn skl2onnx onnx, and mlflow for what MLflow keeps.
"""
import source


def main():
    model, out = source.arguments(__doc__)
    if source.is_mlflow(model):
        import mlflow

        estimator = mlflow.sklearn.load_model(model)
    else:
        import joblib

        estimator = joblib.load(model)
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.base import is_classifier
    from sklearn.pipeline import Pipeline

    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    # Without zipmap the probabilities are one tensor, not a list of maps.
    options = {id(last): {"zipmap": False}} if is_classifier(last) else None
    inputs = [("X", FloatTensorType([None, int(estimator.n_features_in_)]))]
    source.save(to_onnx(estimator, initial_types=inputs, options=options, target_opset={"": 17, "ai.onnx.ml": 3}), out)


if __name__ == "__main__":
    main()
