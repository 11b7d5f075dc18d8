# Registers an ONNX model made here with the tracking server, as a training job would: prints the run's id.
import mlflow
import numpy as np
import onnx
from onnx import TensorProto, helper
from mlflow.models import infer_signature

x = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", 4])
y = helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["N", 1])
w = helper.make_tensor("W", TensorProto.FLOAT, [4, 1], [0.5, -1.0, 2.0, 0.25])
graph = helper.make_graph([helper.make_node("MatMul", ["X", "W"], ["Y"])], "g", [x], [y], [w])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
mlflow.set_experiment("e")
with mlflow.start_run() as run:
    mlflow.log_param("C", 1.5)
    mlflow.log_metric("auc", 0.5, step=0)
    mlflow.log_metric("auc", 0.96875, step=1)
    mlflow.log_metric("broken", float("nan"))
    mlflow.onnx.log_model(model, name="model", signature=infer_signature({"X": np.zeros((2, 4), np.float32)}), registered_model_name="Churn Model")
client = mlflow.MlflowClient()
client.set_registered_model_alias("Churn Model", "champion", 1)
print(run.info.run_id)
