package awslambda_test

import (
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/deploy/awslambda"
	"github.com/waybill-ml/waybill/deploy/targets"
)

func TestKinds(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	srv := httptest.NewServer(s.Server)
	t.Cleanup(srv.Close)
	none := filepath.Join(t.TempDir(), "none")
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": s.Creds.ID, "AWS_SECRET_ACCESS_KEY": s.Creds.Secret, "AWS_SESSION_TOKEN": s.Creds.Token,
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_LAMBDA": "",
	} {
		t.Setenv(k, v)
	}
	m := map[string]any{
		"name": "fn", "kind": "lambda", "image": "reg.example/ml/churn", "function": "churn", "region": s.Creds.Region, "role": role, "memory": 512, "timeout": "45s",
		"env": map[string]any{"WAYBILL_LOG": "json"}, "endpoint": srv.URL,
	}
	es, err := targets.Parse([]map[string]any{m}, awslambda.Kinds())
	if err != nil {
		t.Fatal(err)
	}
	tg, err := es[0].Settings.Open(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r := s.release(1)
	r.Wait = time.Minute
	p, err := tg.Plan(t.Context(), r)
	if err != nil || !p.Create {
		t.Fatalf("%+v, %v", p, err)
	}
	for key, v := range map[string]any{"memory": 64, "tmp": -1, "timeout": "soon", "arch": "riscv64", "role": "me", "function": "a b", "colour": "red", "env": map[string]any{"WAYBILL_DIGEST": "x"}} {
		bad := map[string]any{}
		for k, x := range m {
			bad[k] = x
		}
		bad[key] = v
		if _, err := targets.Parse([]map[string]any{bad}, awslambda.Kinds()); err == nil {
			t.Errorf("%s: %v is taken", key, v)
		}
	}
}
