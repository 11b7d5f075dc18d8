// Package mlflow reads models that MLflow has: a folder with an MLmodel file, or through the REST interface of a tracking
// server. It loads no model: a flavour whose file runs code when it is loaded is refused with the command that exports it.
package mlflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/lineage"
)

// File is the name of the document that describes a model.
const File = "MLmodel"

// flavour is how one framework's model is kept. The members are those that safe formats need.
type flavour struct {
	Data          string `yaml:"data"`
	PickledModel  string `yaml:"pickled_model"`
	Serialization string `yaml:"serialization_format"`
	Format        string `yaml:"model_format"`
	Class         string `yaml:"model_class"`
	ONNXVersion   string `yaml:"onnx_version"`
	XGBVersion    string `yaml:"xgb_version"`
	LGBVersion    string `yaml:"lgb_version"`
}

// document is what is read of MLmodel.
type document struct {
	ArtifactPath string             `yaml:"artifact_path"`
	Flavours     map[string]flavour `yaml:"flavors"`
	Version      string             `yaml:"mlflow_version"`
	UUID         string             `yaml:"model_uuid"`
	ModelID      string             `yaml:"model_id"`
	RunID        string             `yaml:"run_id"`
	Created      string             `yaml:"utc_time_created"`
	Signature    *struct {
		Inputs string `yaml:"inputs"`
	} `yaml:"signature"`
}

// packed are the flavours whose files are compiled, the one that says most of the model first.
var packed = []string{"onnx", "xgboost", "lightgbm"}

// exporters are the scripts of examples/export, by the flavour that they read.
var exporters = map[string]string{
	"sklearn": "sklearn_to_onnx.py", "xgboost": "xgboost_to_onnx.py", "lightgbm": "lightgbm_to_onnx.py", "pytorch": "pytorch_to_onnx.py",
}

// describe turns MLmodel into what is known of the model without its files. from is what the user named it by.
func describe(b []byte, from string) (*lineage.Model, error) {
	var doc document
	if err := lineage.YAML(b, &doc); err != nil {
		return nil, damaged(err)
	}
	if len(doc.Flavours) == 0 {
		return nil, damaged(errors.New("it has no flavors"))
	}
	name, f, err := choose(doc.Flavours, from)
	if err != nil {
		return nil, err
	}
	m := &lineage.Model{Entry: f.Data}
	m.System = "mlflow"
	if doc.Signature != nil && doc.Signature.Inputs != "" {
		if m.Signature, err = signature(doc.Signature.Inputs); err != nil {
			return nil, damaged(fmt.Errorf("signature: %w", err))
		}
	}
	m.Add("flavour", name)
	m.Add("framework-version", f.ONNXVersion+f.XGBVersion+f.LGBVersion) // one of them
	m.Add("model-class", f.Class)
	m.Add("mlflow-version", doc.Version)
	m.Add("model-uuid", doc.UUID)
	m.Add("model-id", doc.ModelID)
	m.Add("run-id", doc.RunID)
	m.Add("created", doc.Created)
	return m, nil
}

func damaged(err error) error {
	return diag.Wrap(diag.Usage, err, "%s can't be read", File).Hint("log the model again with mlflow.onnx.log_model")
}

// choose takes the first flavour that is kept in a safe format. What the file really is, its content says later.
func choose(all map[string]flavour, from string) (string, flavour, error) {
	for _, name := range packed {
		f, ok := all[name]
		if !ok || f.Data == "" || unsafe(f.Data) || f.Serialization != "" && unsafeFormat(f) {
			continue
		}
		if err := artifact.CheckPath(f.Data); err != nil {
			return "", f, damaged(fmt.Errorf("flavors: %s: %w", name, err))
		}
		return name, f, nil
	}
	var names []string
	for n := range all {
		names = append(names, n)
	}
	slices.Sort(names)
	e := diag.New(diag.Unsupported, "this MLflow model has no flavour in a safe format: it has %s", strings.Join(names, ", "))
	e.Line("what is loaded to be used, a pickle or the like, runs whatever code is in it: Waybill never does")
	for _, n := range names {
		if script := exporters[n]; script != "" {
			return "", flavour{}, e.Line("export it to ONNX where it was trained; the script is in Waybill's repository").
				Hint("python examples/export/%s %s model.onnx", script, lineage.ShellWord(from))
		}
	}
	return "", flavour{}, e.Hint("export it to ONNX where it was trained, then: python -c 'import mlflow, onnx; mlflow.onnx.save_model(onnx.load(\"model.onnx\"), \"model\")'")
}

// unsafeFormat tells whether a flavour that can be kept in several ways is kept in one that loads code. A booster is kept in
// its own format whatever MLflow would do with other classes.
func unsafeFormat(f flavour) bool {
	return strings.Contains(f.Serialization, "pickle") && !strings.HasSuffix(f.Class, ".Booster") && !ownFormat(f.Data)
}

func ownFormat(name string) bool {
	for _, ext := range []string{".onnx", ".lgb", ".txt", ".xgb", ".json", ".ubj"} {
		if strings.HasSuffix(name, ext) {
			return true
		}
	}
	return false
}

func unsafe(name string) bool {
	for _, ext := range []string{".pkl", ".pickle", ".skops", ".joblib", ".cloudpickle", ".dill", ".pth", ".pt"} {
		if strings.HasSuffix(strings.ToLower(name), ext) {
			return true
		}
	}
	return false
}

// maxInputs bounds a signature: a row of a table.
const maxInputs = 1 << 16

// signature reads the JSON in which MLflow declares inputs: a list of tensors or of columns.
func signature(text string) (*lineage.Signature, error) {
	var list []struct {
		Name     string `json:"name"`
		Type     string `json:"type"`
		Required *bool  `json:"required"`
		Optional bool   `json:"optional"`
		Tensor   *struct {
			DType string  `json:"dtype"`
			Shape []int64 `json:"shape"`
		} `json:"tensor-spec"`
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, err
	}
	if len(list) == 0 || len(list) > maxInputs {
		return nil, fmt.Errorf("%d inputs", len(list))
	}
	s := &lineage.Signature{}
	for _, e := range list {
		switch {
		case e.Type == "tensor" && e.Tensor != nil:
			for _, d := range e.Tensor.Shape {
				if d < -1 {
					return nil, fmt.Errorf("input %q: size %d", e.Name, d)
				}
			}
			s.Tensors = append(s.Tensors, lineage.TensorSpec{Name: e.Name, DType: e.Tensor.DType, Shape: e.Tensor.Shape})
		case e.Type != "" && e.Type != "tensor":
			s.Columns = append(s.Columns, lineage.ColumnSpec{Name: e.Name, Type: e.Type, Required: e.Required == nil && !e.Optional || e.Required != nil && *e.Required})
		default:
			return nil, fmt.Errorf("input %q has no type", e.Name)
		}
	}
	if len(s.Tensors) > 0 && len(s.Columns) > 0 {
		return nil, errors.New("tensors and columns are mixed")
	}
	return s, nil
}
