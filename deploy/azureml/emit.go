package azureml

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// Manifests implements targets.Emitter: a module of Terraform for the provider azapi, which sends bodies of Azure Resource Manager as they
// are: the environment, the endpoint, the deployment, and the endpoint again with its traffic once the deployment is there. Of two releases
// the next one's deployment comes first, then its traffic, and then the old deployment goes.
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
	deployment := *d
	deployment.Name = ""
	resource := func(typ, parent, name any, body any, more map[string]any) map[string]any {
		whole := plain(body)
		out := map[string]any{
			"type": fmt.Sprintf("Microsoft.MachineLearningServices/workspaces/%s@%s", typ, apiVersion), "parent_id": parent, "name": name,
			// The provider may not know this version of the API yet, which is asked for what Waybill checks bodies against.
			"schema_validation_enabled": false,
		}
		for _, k := range []string{"location", "tags"} { // arguments of their own
			if whole[k] != nil {
				out[k] = whole[k]
			}
			delete(whole, k)
		}
		if whole["identity"] != nil {
			identity := map[string]any{"type": "SystemAssigned"}
			if t.s.Identity != "" {
				identity = map[string]any{"type": "UserAssigned", "identity_ids": []any{t.s.Identity}}
			}
			out["identity"] = identity
			delete(whole, "identity")
		}
		out["body"] = whole
		maps.Copy(out, more)
		return out
	}
	served := plain(t.endpointBody())
	served["properties"].(map[string]any)["traffic"] = map[string]any{name: 100}
	successor := map[string]any{"lifecycle": map[string]any{"create_before_destroy": true}}
	return []targets.Manifest{{Tool: targets.Terraform, Docs: []map[string]any{{
		"terraform": map[string]any{"required_providers": map[string]any{"azapi": map[string]any{"source": "Azure/azapi", "version": ">= 2.0.0"}}},
		"resource": map[string]any{
			"azapi_resource": map[string]any{
				"environment": resource("environments/versions", t.workspace()+"/environments/waybill-"+t.s.Endpoint, t.version(r), t.environmentBody(r), successor),
				// Whatever it writes has no traffic, so it makes the endpoint, and never writes it again.
				"endpoint": resource("onlineEndpoints", t.workspace(), t.s.Endpoint, t.endpointBody(), map[string]any{"lifecycle": map[string]any{"ignore_changes": "all"}}),
				"deployment": resource("onlineEndpoints/deployments", targets.Expr("azapi_resource.endpoint.id"), name, deployment,
					map[string]any{"depends_on": []any{"azapi_resource.environment"}, "lifecycle": successor["lifecycle"]}),
			},
			// Not an azapi_update_resource: that merges maps, and the deployment before would keep its share.
			"azapi_resource_action": map[string]any{"traffic": map[string]any{
				"type": "Microsoft.MachineLearningServices/workspaces/onlineEndpoints@" + apiVersion, "resource_id": targets.Expr("azapi_resource.endpoint.id"),
				"method": "PUT", "body": served, "depends_on": []any{"azapi_resource.deployment"},
			}},
		},
		"output": map[string]any{"endpoint": map[string]any{"value": targets.Expr("azapi_resource.endpoint.id")}},
	}}}}, nil
}

// plain is a body as JSON has it.
func plain(v any) map[string]any {
	var m map[string]any
	raw, _ := json.Marshal(v) // of texts and numbers: it cannot fail
	_ = json.Unmarshal(raw, &m)
	return m
}

var _ targets.Emitter = (*Settings)(nil)
