"""Exports a LightGBM model to ONNX. LightGBM's own text files need no export: Waybill compiles them as they are.

  python lightgbm_to_onnx.py MODEL OUT.onnx

MODEL is models:/name/version, runs:/id/path, a folder with MLmodel, a file of LightGBM's own, or one written by joblib. To load
the last runs the code in it: do this where the model was trained, with files that you made.
Needs: pip install lightgbm onnxmltools skl2onnx onnx packaging, and mlflow for what MLflow keeps.
"""
import source


def main():
    model, out = source.arguments(__doc__)
    import lightgbm

    if source.is_mlflow(model):
        import mlflow

        booster = mlflow.lightgbm.load_model(model)
    elif model.endswith((".txt", ".lgb")):
        booster = lightgbm.Booster(model_file=model)
    else:
        import joblib

        booster = joblib.load(model)
    booster = getattr(booster, "booster_", booster)
    from onnxmltools.convert import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    inputs = [("X", FloatTensorType([None, booster.num_feature()]))]
    source.save(convert_lightgbm(booster, initial_types=inputs, zipmap=False, target_opset=15), out)


if __name__ == "__main__":
    main()
