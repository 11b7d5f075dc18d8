package cloudflare

import (
	"errors"
	"log/slog"
	"maps"
	"testing"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
)

func TestKind(t *testing.T) {
	env := map[string]string{}
	kinds := []targets.Kind{Kind(func(k string) string { return env[k] })}
	entry := func(more map[string]any) map[string]any {
		m := map[string]any{"name": "edge", "kind": "cloudflare", "account": "0123456789abcdef0123456789abcdef", "script": "churn"}
		maps.Copy(m, more)
		return m
	}
	es, err := targets.Parse([]map[string]any{entry(nil)}, kinds)
	if err != nil {
		t.Fatal(err)
	}
	if es[0].Runs != targets.Bundle {
		t.Errorf("%+v", es[0])
	}
	if _, err := es[0].Settings.Open(t.Context(), slog.New(slog.DiscardHandler)); !errors.Is(err, deploy.ErrUnauthorized) {
		t.Errorf("without a token: %v", err)
	}
	env["CLOUDFLARE_API_TOKEN"] = "secret"
	if _, err := es[0].Settings.Open(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	for key, v := range map[string]any{
		"account": "acme", "script": "Churn!", "preview": "https://churn.example.workers.dev", "url": "http://x", "endpoint": "http://api.example.com", "image": "reg.example/x",
	} {
		_, err := targets.Parse([]map[string]any{entry(map[string]any{key: v})}, kinds)
		var e *targets.Error
		if !errors.As(err, &e) || e.Path != "[0]."+key {
			t.Errorf("%s: %v", key, err)
		}
	}
}
