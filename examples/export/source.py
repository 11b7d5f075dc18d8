"""What the export scripts share: what MODEL names, and writing a file whole or not at all."""
import os
import sys
import tempfile


def arguments(doc):
    """Gives MODEL and OUT of the command line."""
    if len(sys.argv) != 3 or sys.argv[1] in ("-h", "--help"):
        print(doc.strip(), file=sys.stderr)
        sys.exit(2)
    return sys.argv[1].removeprefix("mlflow:"), sys.argv[2]


def is_mlflow(model):
    """A registered version, a run's model, or a folder with MLmodel; anything else is a file of the framework's own."""
    return model.startswith(("models:/", "runs:/")) or os.path.exists(os.path.join(model, "MLmodel"))


def width(model):
    """The number of columns that the model's signature in MLflow declares."""
    from mlflow.models import get_model_info

    signature = get_model_info(model).signature
    if signature is None or signature.inputs is None:
        sys.exit("the model has no signature: log it again with mlflow.models.infer_signature, or pass its file")
    if signature.inputs.is_tensor_spec():
        return signature.inputs.inputs[0].shape[-1]
    return len(signature.inputs.inputs)


def save(onnx_model, out):
    """Checks the model and writes it in one step."""
    import onnx

    onnx.checker.check_model(onnx_model, full_check=True)
    folder = os.path.dirname(os.path.abspath(out))
    with tempfile.NamedTemporaryFile(dir=folder, prefix="." + os.path.basename(out), delete=False) as f:
        f.write(onnx_model.SerializeToString())
    os.chmod(f.name, 0o644)
    os.replace(f.name, out)
    print(out)
