package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// KServeSettings are the keys of a target of kind kserve.
type KServeSettings struct {
	Service   string `json:"service" need:"true"`
	Namespace string `json:"namespace" need:"true"`
	Context   string `json:"context"` // of the kubeconfig; default: its current one
	Arch      string `json:"arch"`
	Memory    string `json:"memory"`
	CPU       string `json:"cpu"`
	Min       int    `json:"min_instances"` // 0: down to none
	Max       int    `json:"max_instances"` // 0: Knative's default

	getenv func(string) string
}

// KServeKind is the row for targets.Parse; getenv is as for Kind.
func KServeKind(getenv func(string) string) targets.Kind {
	return targets.Kind{Name: "kserve", Runs: targets.Image, Settings: func() targets.Settings {
		return &KServeSettings{Arch: "amd64", Memory: "512Mi", CPU: "500m", getenv: getenv}
	}}
}

// Check implements targets.Settings.
func (s *KServeSettings) Check() error {
	k := KnativeSettings(*s)
	return k.check(maxKServeName)
}

// Open implements targets.Settings.
func (s *KServeSettings) Open(_ context.Context, log *slog.Logger) (deploy.Target, error) {
	if s.getenv == nil {
		return nil, errors.New("settings that KServeKind did not make")
	}
	a, err := findAccess(s.getenv, s.Context)
	if err != nil {
		return nil, err
	}
	return NewKServe(Config{
		URL: a.server, Client: &http.Client{Transport: a.transport, CheckRedirect: noRedirect}, Token: a.token,
		Namespace: s.Namespace, Name: s.Service, Arch: s.Arch, Memory: s.Memory, CPU: s.CPU, Log: log,
	}, s.Min, s.Max)
}

// Manifests implements targets.Emitter: the InferenceService. KServe leaves the traffic where it is until the new revision is ready.
func (s *KServeSettings) Manifests(r deploy.Release) ([]targets.Manifest, error) {
	if err := targets.Whole(r); err != nil {
		return nil, err
	}
	memory, err := quantity(s.Memory)
	if err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	cpu, err := quantity(s.CPU)
	if err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	k := &KServe{t: &Target{c: Config{Namespace: s.Namespace, Name: s.Service, Arch: s.Arch, Memory: memory, CPU: cpu}}, min: s.Min, max: s.Max}
	if err := k.t.checkImage(r); err != nil {
		return nil, err
	}
	o := k.skeleton()
	o["spec"] = map[string]any{"predictor": map[string]any(k.template(r))}
	return []targets.Manifest{{Tool: targets.Kubectl, Docs: []map[string]any{o}}}, nil
}
