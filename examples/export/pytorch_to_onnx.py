"""Exports a PyTorch module with one input of shape [batch, columns] to ONNX.

  python pytorch_to_onnx.py MODEL OUT.onnx

MODEL is models:/name/version, runs:/id/path or a folder with MLmodel, whose signature says how many columns there are. To load
it runs the code in it: do this where the model was trained, with models that you made. Modules with other inputs are
exported as PyTorch's documentation says; what counts is one file.onnx at the end.
Needs: pip install torch onnx onnxscript mlflow.
"""
import sys

import source


def main():
    model, out = source.arguments(__doc__)
    if not source.is_mlflow(model):
        sys.exit("MODEL must be one that MLflow keeps: a file of PyTorch alone does not say what inputs the module takes")
    import mlflow
    import torch

    module = mlflow.pytorch.load_model(model, map_location="cpu").eval()
    example = torch.zeros(2, source.width(model))
    batch = torch.export.Dim("N")
    program = torch.onnx.export(
        module, (example,), input_names=["X"], output_names=["Y"], dynamic_shapes=({0: batch},), dynamo=True, opset_version=18
    )
    source.save(program.model_proto, out)


if __name__ == "__main__":
    main()
