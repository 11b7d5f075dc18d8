package mlflow

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/packager/lineage"
)

const good = `flavors:
  onnx: {data: model.onnx, onnx_version: 1.18.0}
  python_function: {loader_module: mlflow.onnx}
run_id: 4f1d2c3b4a5968778695a4b3c2d1e0f9
signature:
  inputs: '[{"name": "a", "type": "double", "required": true}, {"name": "b", "type": "long", "optional": true}]'
`

func TestDescribe(t *testing.T) {
	m, err := describe([]byte(good), "x")
	if err != nil {
		t.Fatal(err)
	}
	want := &lineage.Signature{Columns: []lineage.ColumnSpec{{Name: "a", Type: "double", Required: true}, {Name: "b", Type: "long"}}}
	if m.Entry != "model.onnx" || !reflect.DeepEqual(m.Signature, want) {
		t.Errorf("%+v, signature %+v", m, m.Signature)
	}
	m, err = describe([]byte("flavors: {xgboost: {data: model.ubj, model_class: xgboost.core.Booster}, lightgbm: {data: model.lgb, serialization_format: cloudpickle}}"), "x")
	if err != nil || m.Entry != "model.ubj" {
		t.Errorf("two flavours: %+v, %v", m, err)
	}
	for text, want := range map[string]diag.Code{
		"":                                diag.Usage,
		"flavors: 7":                      diag.Usage,
		"flavors: {}":                     diag.Usage,
		good + "---\n" + good:             diag.Usage,
		"flavors: {onnx: {data: /etc/x}}": diag.Usage,
		"flavors: {onnx: {data: a/../b}}": diag.Usage,
		"flavors: {onnx: {data: m.pkl}}":  diag.Unsupported,
		"flavors: {keras: {data: x}}":     diag.Unsupported,
		"flavors: {lightgbm: {data: model, serialization_format: cloudpickle}}":                                                                                  diag.Unsupported,
		"flavors: {onnx: {data: m}}\nsignature: {inputs: '[]'}":                                                                                                  diag.Usage,
		"flavors: {onnx: {data: m}}\nsignature: {inputs: '[{}]'}":                                                                                                diag.Usage,
		`flavors: {onnx: {data: m}}` + "\nsignature: {inputs: '[{\"type\":\"tensor\",\"tensor-spec\":{\"dtype\":\"f\",\"shape\":[-2]}}]'}":                       diag.Usage,
		`flavors: {onnx: {data: m}}` + "\nsignature: {inputs: '[{\"type\":\"tensor\",\"tensor-spec\":{\"dtype\":\"f\",\"shape\":[]}},{\"type\":\"long\"}]'}":     diag.Usage,
		"a: &a [1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\nflavors: [*d,*d,*d,*d,*d,*d,*d]": diag.Usage,
		strings.Repeat("[", 20000): diag.Usage,
	} {
		if _, err := describe([]byte(text), "x"); diag.CodeOf(err) != want || err == nil {
			t.Errorf("%.80q: %v", text, err)
		}
	}
}

// A link that leads out of the folder is not followed.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(t.TempDir(), "secret")
	for name, text := range map[string]string{filepath.Join(dir, File): good, out: "secret"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(out, filepath.Join(dir, "model.onnx")); err != nil {
		t.Skip("no links: ", err)
	}
	m, err := Folder(t.Context(), dir, "mlflow:x")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := m.Tree.Open(t.Context(), m.Entry); err == nil {
		r.Close()
		t.Error("a link out of the folder was followed")
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("flavors: {sklearn: {pickled_model: model.pkl}}"))
	f.Add([]byte("flavors: {onnx: {data: m}}\nsignature: {inputs: '[{\"type\":\"tensor\",\"tensor-spec\":{\"dtype\":\"f\",\"shape\":[-1]}}]'}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := describe(b, "x")
		if (m == nil) == (err == nil) {
			t.Fatalf("%v, %v", m, err)
		}
		if m != nil && (m.Entry == "" || unsafe(m.Entry)) {
			t.Errorf("entry %q", m.Entry)
		}
	})
}
