"""Exports an XGBoost model to ONNX. XGBoost's own JSON and UBJ files need no export: Waybill compiles them as they are.

  python xgboost_to_onnx.py MODEL OUT.onnx

MODEL is models:/name/version, runs:/id/path, a folder with MLmodel, a file of XGBoost's own, or one written by joblib. To load
the last runs the code in it: do this where the model was trained, with files that you made.
Needs: pip install xgboost onnxmltools skl2onnx onnx packaging, and mlflow for what MLflow keeps.
"""
import source


def main():
    model, out = source.arguments(__doc__)
    import xgboost

    if source.is_mlflow(model):
        import mlflow

        booster = mlflow.xgboost.load_model(model)
    elif model.endswith((".json", ".ubj")):
        booster = xgboost.Booster(model_file=model)
    else:
        import joblib

        booster = joblib.load(model)
    if not isinstance(booster, xgboost.Booster):
        booster = booster.get_booster()
    from onnxmltools.convert import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    width = booster.num_features()
    booster.feature_names = None  # the converter wants f0, f1 ...
    source.save(convert_xgboost(booster, initial_types=[("X", FloatTensorType([None, width]))], target_opset=15), out)


if __name__ == "__main__":
    main()
