package provenance

import (
	"bytes"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/lineage"
)

// What another system says of a model stands in both documents, and in neither without it.
func TestSource(t *testing.T) {
	digest := strings.Repeat("a", 64)
	f := Facts{Name: "churn", Version: "3"}
	f.Manifest, f.Project.Digest = "sha256:"+"b", "sha256:b"
	write := func() string {
		t.Helper()
		var all [][]byte
		for _, w := range []func(Facts) ([]byte, error){SLSA, CycloneDX} {
			b, err := w(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b)
		}
		return string(bytes.Join(all, []byte("\n")))
	}
	want := []string{
		`"from":"mlflow"`, `"uri":"models:/churn/3","digest":{"sha256":"` + digest + `"},"name":"mlflow","annotations":{"metrics":{"auc":0.5},"parameters":{"lr":"0.1"},"run-id":"r"}`,
		`{"digest":{"md5":"m","sha256":"` + digest + `"},"name":"mlflow:model.onnx"}`,
		`{"name":"waybill:from","value":"mlflow models:/churn/3"}`, `{"name":"waybill:mlflow:run-id","value":"r"}`, `{"name":"waybill:mlflow:parameter:lr","value":"0.1"}`,
		`{"type":"auc","value":"0.5"}`,
	}
	before := write()
	f.Source = &lineage.Source{
		System: "mlflow", URI: "models:/churn/3", Document: lineage.File{SHA256: digest}, Files: []lineage.File{{Path: "model.onnx", SHA256: digest, MD5: "m"}},
		Facts: []lineage.Fact{{Name: "run-id", Value: "r"}}, Params: []lineage.Fact{{Name: "lr", Value: "0.1"}}, Metrics: []lineage.Metric{{Name: "auc", Value: 0.5}},
	}
	after := write()
	for _, w := range want {
		if strings.Contains(before, w) || !strings.Contains(after, w) {
			t.Errorf("%s: without %v, with %v\n%s", w, strings.Contains(before, w), strings.Contains(after, w), after)
		}
	}
}
