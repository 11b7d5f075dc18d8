package azureml

import (
	"encoding/json"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// Manifests implements targets.Emitter: a module of Terraform for the provider azapi, which sends bodies of Azure Resource Manager as they
// are: the environment, the endpoint, the deployment, and the endpoint's traffic once the deployment is there.
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
	d, _ := t.choose(&state{}, r)
	name := d.Name
	endpoint, env, deployment := t.endpointBody(), t.environmentBody(r), *d
	deployment.Name = ""
	const kind = "Microsoft.MachineLearningServices/workspaces/"
	// Location, tags and identity are arguments of their own.
	part := func(v any) map[string]any {
		var m map[string]any
		raw, _ := json.Marshal(v) // of texts and numbers: it cannot fail
		_ = json.Unmarshal(raw, &m)
		for _, k := range []string{"location", "tags", "identity"} {
			delete(m, k)
		}
		return m
	}
	identity := map[string]any{"type": "SystemAssigned"}
	if t.s.Identity != "" {
		identity = map[string]any{"type": "UserAssigned", "identity_ids": []any{t.s.Identity}}
	}
	return []targets.Manifest{{Tool: targets.Terraform, Docs: []map[string]any{{
		"terraform": map[string]any{"required_providers": map[string]any{"azapi": map[string]any{"source": "Azure/azapi", "version": ">= 2.0.0"}}},
		"resource": map[string]any{
			"azapi_resource": map[string]any{
				"environment": map[string]any{
					"type": kind + "environments/versions@" + apiVersion, "parent_id": t.workspace() + "/environments/waybill-" + t.s.Endpoint, "name": t.version(r), "body": part(env),
					"lifecycle": map[string]any{"create_before_destroy": true},
				},
				"endpoint": map[string]any{
					"type": kind + "onlineEndpoints@" + apiVersion, "parent_id": t.workspace(), "name": t.s.Endpoint, "location": t.s.Location, "identity": identity, "body": part(endpoint),
				},
				"deployment": map[string]any{
					"type": kind + "onlineEndpoints/deployments@" + apiVersion, "parent_id": targets.Expr("azapi_resource.endpoint.id"), "name": name, "location": t.s.Location,
					"tags": texts(d.Tags), "body": part(deployment), "depends_on": []any{"azapi_resource.environment"},
					// The next release is another deployment: it has the traffic before this one goes.
					"lifecycle": map[string]any{"create_before_destroy": true},
				},
			},
			"azapi_update_resource": map[string]any{"traffic": map[string]any{
				"type": kind + "onlineEndpoints@" + apiVersion, "resource_id": targets.Expr("azapi_resource.endpoint.id"),
				"body":       map[string]any{"properties": map[string]any{"traffic": map[string]any{name: 100}}},
				"depends_on": []any{"azapi_resource.deployment"},
			}},
		},
		"output": map[string]any{"endpoint": map[string]any{"value": targets.Expr("azapi_resource.endpoint.id")}},
	}}}}, nil
}

func texts(m map[string]string) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

var _ targets.Emitter = (*Settings)(nil)
