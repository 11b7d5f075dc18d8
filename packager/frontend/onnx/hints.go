package onnx

import (
	"fmt"
	"strings"

	"github.com/waybill-ml/waybill/packager/ir"
)

// Hints say what to run, or to write in the exporting code, so that a model gets by without what is missing. MODEL stands
// for the model's path.

// convertHint is the way to another operator set.
func convertHint(to int64) string {
	return fmt.Sprintf(`convert the model: python -c "import onnx; from onnx import version_converter as v; onnx.save(v.convert_version(onnx.load('MODEL'), %d), 'converted.onnx')"`, to)
}

// hintOf names the nearest way out for a node.
func hintOf(p *nodeProto, reason string) string {
	switch {
	case p.op == "ImageDecoder":
		return "decode images in a step in front of the model (waybill.yaml: steps: - use: image) and give the model their pixels"
	case strings.Contains(reason, "run time") || strings.Contains(reason, "not constant") || strings.Contains(reason, "not a constant"):
		return "fix the input sizes and fold constants: python -m onnxsim MODEL simplified.onnx --overwrite-input-shape INPUT:1,3,224,224"
	case p.domain == "com.microsoft" || strings.HasPrefix(p.domain, "com.microsoft."):
		return "export the model without ONNX Runtime's own operators: optimum-cli export onnx --model MODEL OUT (without --optimize), or save it with " +
			"session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC"
	case strings.HasPrefix(p.domain, "ai.onnx.contrib"):
		return "leave the tokenizer of onnxruntime-extensions out of the model, and use the step of waybill.yaml: steps: - use: text"
	case strings.HasPrefix(p.domain, "ai.onnx.preview") || strings.HasPrefix(p.domain, "ai.onnx.training"):
		return "export the model for inference: torch.onnx.export(model.eval(), args, 'model.onnx')"
	case p.op == "ATen" || strings.HasPrefix(p.domain, "org.pytorch"):
		return "export without ATen fallback: torch.onnx.export(model.eval(), args, 'model.onnx', operator_export_type=torch.onnx.OperatorExportTypes.ONNX, opset_version=18)"
	}
	return "write the node in other operators: " + convertHint(18) + ", or replace it in the exporting code"
}

// draws refuses an operator that draws random numbers; the hint cuts it out of the model and makes its result an input.
func (o *op) draws(reason string) []*ir.Value {
	if o.err != nil {
		return nil
	}
	quoted := func(names []string) string {
		out := make([]string, len(names))
		for i, n := range names {
			out[i] = fmt.Sprintf("%q", n)
		}
		return strings.ReplaceAll("["+strings.Join(out, ", ")+"]", `"`, "'")
	}
	noise := []string{}
	if len(o.p.outs) > 0 {
		noise = o.p.outs[:1]
	}
	o.err = o.unsupported(reason, fmt.Sprintf(`export in evaluation mode (PyTorch: model.eval()), or make the draw an input of the model: python -c "import onnx.utils; onnx.utils.extract_model('MODEL', 'noise-in.onnx', %s, %s)"`,
		quoted(append(append([]string{}, o.im.ends[0]...), noise...)), quoted(o.im.ends[1])))
	return nil
}
