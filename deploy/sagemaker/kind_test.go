package sagemaker_test

import (
	"log/slog"
	"maps"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/sagemaker"
	"github.com/waybill-ml/waybill/deploy/targets"
)

func TestKinds(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	srv := httptest.NewServer(s.Server)
	t.Cleanup(srv.Close)
	none := filepath.Join(t.TempDir(), "none")
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": s.Creds.ID, "AWS_SECRET_ACCESS_KEY": s.Creds.Secret, "AWS_SESSION_TOKEN": s.Creds.Token,
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_SAGEMAKER": "",
	} {
		t.Setenv(k, v)
	}
	common := map[string]any{"name": "ep", "image": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/churn", "endpoint": "churn", "region": s.Creds.Region, "role": role, "env": map[string]any{"WAYBILL_LOG": "json"}, "api": srv.URL}
	with := func(m map[string]any, more map[string]any) map[string]any {
		out := maps.Clone(m)
		maps.Copy(out, more)
		return out
	}
	real := with(common, map[string]any{"kind": "sagemaker", "instance": "ml.c5.large", "count": 2, "traffic": "linear", "step": 20, "interval": "2m", "alarms": []any{"churn-5xx"}})
	less := with(common, map[string]any{"kind": "sagemaker-serverless", "memory": 4096, "concurrency": 10, "provisioned": 2})
	for _, m := range []map[string]any{real, less} {
		es, err := targets.Parse([]map[string]any{m}, sagemaker.Kinds())
		if err != nil {
			t.Fatal(err)
		}
		tg, err := es[0].Settings.Open(t.Context(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		r := release(1)
		r.Wait = time.Minute
		p, err := tg.Plan(t.Context(), r)
		if err != nil || !p.Create {
			t.Fatalf("%+v, %v", p, err)
		}
		if _, ok := tg.(deploy.Promoter); ok != (m["kind"] == "sagemaker") {
			t.Errorf("%s promotes: %v", m["kind"], ok)
		}
	}
	for key, v := range map[string]any{
		"count": -1, "step": 60, "interval": "soon", "traffic": "now", "role": "me", "endpoint": "a b", "instance": "ml.huge.size", "memory": 1024, "colour": "red",
		"alarms": []any{" "}, "env": map[string]any{"WAYBILL_DIGEST": "x"}, "region": "",
	} {
		if _, err := targets.Parse([]map[string]any{with(real, map[string]any{key: v})}, sagemaker.Kinds()); err == nil {
			t.Errorf("%s: %v is taken", key, v)
		}
	}
	for key, v := range map[string]any{"memory": 1000, "concurrency": 201, "provisioned": 11, "instance": "ml.c5.large", "count": 1, "traffic": "canary", "env": map[string]any{"A B": "x"}} {
		if _, err := targets.Parse([]map[string]any{with(less, map[string]any{key: v})}, sagemaker.Kinds()); err == nil {
			t.Errorf("serverless %s: %v is taken", key, v)
		}
	}
}
