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

// Settings are the keys of a target of kind kubernetes.
type Settings struct {
	Deployment string `json:"deployment" need:"true"` // name of Deployment and Service
	Namespace  string `json:"namespace" need:"true"`
	Context    string `json:"context"` // of the kubeconfig; default: its current one
	Replicas   int    `json:"replicas"`
	Arch       string `json:"arch"`
	Memory     string `json:"memory"`
	CPU        string `json:"cpu"`
	Port       int    `json:"port"`

	getenv func(string) string
}

// Kind is the row for targets.Parse. getenv tells where the kubeconfig is (KUBECONFIG, HOME), or that the process runs in a cluster.
func Kind(getenv func(string) string) targets.Kind {
	return targets.Kind{Name: "kubernetes", Runs: targets.Image, Settings: func() targets.Settings {
		return &Settings{Replicas: 1, Arch: "amd64", Memory: "512Mi", CPU: "500m", Port: 80, getenv: getenv}
	}}
}

// Check implements targets.Settings.
func (s *Settings) Check() error {
	bad := func(key, format string, args ...any) error {
		return &targets.Error{Path: key, Err: fmt.Errorf(format, args...)}
	}
	for key, name := range map[string]string{"deployment": s.Deployment, "namespace": s.Namespace} {
		if !nameRE.MatchString(name) {
			return bad(key, "%q: small letters, digits and hyphens, a letter first, at most 63", name)
		}
	}
	if s.Replicas < 1 || s.Replicas > 10000 {
		return bad("replicas", "%d: from 1 to 10000", s.Replicas)
	}
	if s.Port < 1 || s.Port > 65535 {
		return bad("port", "%d is no port", s.Port)
	}
	if s.Arch != "amd64" && s.Arch != "arm64" {
		return bad("arch", "%q: amd64 or arm64", s.Arch)
	}
	for key, amount := range map[string]string{"memory": s.Memory, "cpu": s.CPU} {
		if _, err := quantity(amount); err != nil {
			return bad(key, "%w", err)
		}
	}
	return nil
}

// Open implements targets.Settings.
func (s *Settings) Open(_ context.Context, log *slog.Logger) (deploy.Target, error) {
	if s.getenv == nil {
		return nil, errors.New("settings that Kind did not make")
	}
	a, err := findAccess(s.getenv, s.Context)
	if err != nil {
		return nil, err
	}
	return New(Config{
		URL: a.server, Client: &http.Client{Transport: a.transport, CheckRedirect: noRedirect}, Token: a.token,
		Namespace: s.Namespace, Name: s.Deployment, Replicas: s.Replicas, Arch: s.Arch, Memory: s.Memory, CPU: s.CPU, Port: s.Port, Log: log,
	})
}

// noRedirect: an API server does not redirect, and a token must not follow to another host.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
