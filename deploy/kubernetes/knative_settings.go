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

// KnativeSettings are the keys of a target of kind knative.
type KnativeSettings struct {
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

// KnativeKind is the row for targets.Parse; getenv is as for Kind.
func KnativeKind(getenv func(string) string) targets.Kind {
	return targets.Kind{Name: "knative", Runs: targets.Image, Settings: func() targets.Settings {
		return &KnativeSettings{Arch: "amd64", Memory: "512Mi", CPU: "500m", getenv: getenv}
	}}
}

// Check implements targets.Settings.
func (s *KnativeSettings) Check() error { return s.check(maxKnativeName) }

// check is that of every target that has revisions; their names leave longest for the service's.
func (s *KnativeSettings) check(longest int) error {
	bad := func(key, format string, args ...any) error {
		return &targets.Error{Path: key, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case !nameRE.MatchString(s.Service) || len(s.Service) > longest:
		return bad("service", "%q: small letters, digits and hyphens, a letter first, at most %d, since revisions are named after it", s.Service, longest)
	case !nameRE.MatchString(s.Namespace):
		return bad("namespace", "%q: small letters, digits and hyphens, a letter first, at most 63", s.Namespace)
	case s.Arch != "amd64" && s.Arch != "arm64":
		return bad("arch", "%q: amd64 or arm64", s.Arch)
	case s.Min < 0 || s.Min > 1000:
		return bad("min_instances", "%d: from 0 to 1000", s.Min)
	case s.Max < 0 || s.Max > 1000:
		return bad("max_instances", "%d: from 0 to 1000", s.Max)
	case s.Max > 0 && s.Min > s.Max:
		return bad("min_instances", "%d is more than max_instances, %d", s.Min, s.Max)
	}
	for key, amount := range map[string]string{"memory": s.Memory, "cpu": s.CPU} {
		if _, err := quantity(amount); err != nil {
			return bad(key, "%w", err)
		}
	}
	return nil
}

// Open implements targets.Settings.
func (s *KnativeSettings) Open(_ context.Context, log *slog.Logger) (deploy.Target, error) {
	if s.getenv == nil {
		return nil, errors.New("settings that KnativeKind did not make")
	}
	a, err := findAccess(s.getenv, s.Context)
	if err != nil {
		return nil, err
	}
	return NewKnative(Config{
		URL: a.server, Client: &http.Client{Transport: a.transport, CheckRedirect: noRedirect}, Token: a.token,
		Namespace: s.Namespace, Name: s.Service, Arch: s.Arch, Memory: s.Memory, CPU: s.CPU, Log: log,
	}, s.Min, s.Max)
}

// Manifests implements targets.Emitter: the Service whose traffic names the release's revision. Knative leaves the traffic where it is
// until that is ready.
func (s *KnativeSettings) Manifests(r deploy.Release) ([]targets.Manifest, error) {
	if err := targets.Whole(r); err != nil {
		return nil, err
	}
	memory, err := quantity(s.Memory)
	if err != nil {
		return nil, err
	}
	cpu, err := quantity(s.CPU)
	if err != nil {
		return nil, err
	}
	k := &Knative{t: &Target{c: Config{Namespace: s.Namespace, Name: s.Service, Arch: s.Arch, Memory: memory, CPU: cpu}}, min: s.Min, max: s.Max}
	if err := k.t.checkImage(r); err != nil {
		return nil, err
	}
	o := k.skeleton()
	template := k.template(r)
	write(o, template, traffic(template.text("metadata", "name"), 100, ""))
	return []targets.Manifest{{Tool: targets.Kubectl, Docs: []map[string]any{clone(o)}}}, nil
}
