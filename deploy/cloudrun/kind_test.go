package cloudrun_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/waybill-ml/waybill/deploy/cloudrun"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// An environment's file gives every setting, and a mistake names its key.
func TestKind(t *testing.T) {
	entry := func(edit map[string]any) map[string]any {
		m := map[string]any{"name": "eu", "kind": "cloudrun", "image": "europe-west4-docker.pkg.dev/acme-ml/models/churn", "project": "acme-ml", "region": "europe-west4", "service": "churn",
			"cpu": "2", "memory": "1Gi", "concurrency": 20, "timeout": "2m", "min-instances": 1, "max-instances": 3, "port": 9000, "service-account": "run@acme-ml.iam.gserviceaccount.com",
			"env": map[string]any{"A": "1"}, "ingress": "internal", "endpoint": "https://run.example"}
		for k, v := range edit {
			m[k] = v
		}
		return m
	}
	got, err := targets.Parse([]map[string]any{entry(nil)}, []targets.Kind{cloudrun.Kind()})
	if err != nil {
		t.Fatal(err)
	}
	want := &cloudrun.Settings{Project: "acme-ml", Region: "europe-west4", Service: "churn", CPU: "2", Memory: "1Gi", Concurrency: 20, Timeout: "2m", MinInstances: 1, MaxInstances: 3, Port: 9000,
		ServiceAccount: "run@acme-ml.iam.gserviceaccount.com", Env: map[string]string{"A": "1"}, Ingress: "internal", Endpoint: "https://run.example"}
	if got[0].Runs != targets.Image || !reflect.DeepEqual(got[0].Settings, want) {
		t.Errorf("%+v", got[0].Settings)
	}
	for key, v := range map[string]any{"region": "europe", "cpu": "3", "memory": "1", "concurrency": 2000, "timeout": "soon", "min-instances": 9, "env": map[string]any{"K_SERVICE": "x"}, "endpoint": "ftp://x"} {
		_, err := targets.Parse([]map[string]any{entry(map[string]any{key: v})}, []targets.Kind{cloudrun.Kind()})
		var e *targets.Error
		if !errors.As(err, &e) || e.Path != "[0]."+key {
			t.Errorf("%s: %v", key, err)
		}
	}
}
