package cloudrun

import (
	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// Manifests implements targets.Emitter: a module of Terraform with the service, its traffic pinned to the revision's name.
func (s *Settings) Manifests(r deploy.Release) ([]targets.Manifest, error) {
	if err := targets.Whole(r); err != nil {
		return nil, err
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	t := &Target{s: s.filled()}
	if err := t.check(r); err != nil {
		return nil, err
	}
	tmpl := t.choose(&state{}, r).tmpl
	c := tmpl.Containers[0]
	env := []any{}
	for _, v := range c.Env {
		env = append(env, map[string]any{"name": v.Name, "value": v.Value})
	}
	labels, limits := map[string]any{}, map[string]any{}
	for k, v := range tmpl.Labels {
		labels[k] = v
	}
	for k, v := range c.Resources.Limits {
		limits[k] = v
	}
	revision := map[string]any{
		"revision": tmpl.Revision, "labels": labels, "timeout": tmpl.Timeout, "max_instance_request_concurrency": tmpl.MaxInstanceRequestConcurrency,
		"scaling": map[string]any{"min_instance_count": tmpl.Scaling.MinInstanceCount, "max_instance_count": tmpl.Scaling.MaxInstanceCount},
		"containers": map[string]any{
			"image": c.Image, "env": env,
			"ports":     map[string]any{"container_port": c.Ports[0].ContainerPort},
			"resources": map[string]any{"limits": limits, "cpu_idle": c.Resources.CpuIdle, "startup_cpu_boost": c.Resources.StartupCpuBoost},
			"startup_probe": map[string]any{
				"period_seconds": c.StartupProbe.PeriodSeconds, "timeout_seconds": c.StartupProbe.TimeoutSeconds, "failure_threshold": c.StartupProbe.FailureThreshold,
				"http_get": map[string]any{"path": c.StartupProbe.HttpGet.Path, "port": c.StartupProbe.HttpGet.Port},
			},
		},
	}
	if tmpl.ServiceAccount != "" {
		revision["service_account"] = tmpl.ServiceAccount
	}
	return []targets.Manifest{{Tool: targets.Terraform, Docs: []map[string]any{{
		"terraform": map[string]any{"required_providers": map[string]any{"google": map[string]any{"source": "hashicorp/google", "version": ">= 6.0.0"}}},
		"resource": map[string]any{"google_cloud_run_v2_service": map[string]any{"service": map[string]any{
			"project": t.s.Project, "location": t.s.Region, "name": t.s.Service, "ingress": ingresses[t.s.Ingress], "template": revision,
			"traffic": map[string]any{"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": tmpl.Revision, "percent": 100},
		}}},
		"output": map[string]any{"uri": map[string]any{"value": targets.Expr("google_cloud_run_v2_service.service.uri")}},
	}}}}, nil
}
