package kubernetes

import (
	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// Manifests implements targets.Emitter: the Deployment and the Service that Apply creates. One replica is left out, which is Kubernetes'
// own default: an autoscaler may then have it.
func (s *Settings) Manifests(r deploy.Release) ([]targets.Manifest, error) {
	if err := targets.Whole(r); err != nil {
		return nil, err
	}
	t := &Target{c: Config{Namespace: s.Namespace, Name: s.Deployment, Replicas: s.Replicas, Arch: s.Arch, Memory: s.Memory, CPU: s.CPU, Port: s.Port}}
	if err := t.check(r); err != nil {
		return nil, err
	}
	d := t.deployment(r)
	if s.Replicas > 1 {
		merge(d, object{"spec": map[string]any{"replicas": s.Replicas}})
	}
	return []targets.Manifest{{Tool: targets.Kubectl, Docs: []map[string]any{d, t.service()}}}, nil
}
