package kubernetes

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/waybill-ml/waybill/deploy"
)

// deployment is what the target sets for a release, and nothing else: the replicas are set at creation only.
func (t *Target) deployment(r deploy.Release) object {
	o := t.bare()
	notes := map[string]any{annDigest: string(r.Digest)}
	if r.Model != "" {
		notes[annModel] = r.Model + " " + r.Ver
	}
	merge(o, object{
		"metadata": map[string]any{"annotations": map[string]any{annDigest: string(r.Digest), annSettings: t.settings()}},
		"spec":     map[string]any{"template": map[string]any{"metadata": map[string]any{"annotations": notes}}},
	})
	o.list("spec", "template", "spec", "containers")[0]["image"] = r.Image
	return clone(o)
}

// settings is the hash of what follows from the settings alone.
func (t *Target) settings() string {
	raw, _ := json.Marshal(t.bare())
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:12])
}

func (t *Target) selector() map[string]any { return map[string]any{labelApp: t.c.Name} }

func (t *Target) bare() object {
	probe := func(path string, failures int) map[string]any {
		return map[string]any{"httpGet": map[string]any{"path": path, "port": servePort, "scheme": "HTTP"}, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": failures}
	}
	return object{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"name": t.c.Name, "namespace": t.c.Namespace, "labels": map[string]any{labelApp: t.c.Name, "app.kubernetes.io/managed-by": "waybill"}},
		"spec": map[string]any{
			"selector":             map[string]any{"matchLabels": t.selector()},
			"revisionHistoryLimit": 10,
			"strategy":             map[string]any{"type": "RollingUpdate", "rollingUpdate": map[string]any{"maxUnavailable": 0, "maxSurge": 1}},
			"template": map[string]any{
				"metadata": map[string]any{"labels": t.selector()},
				"spec": map[string]any{
					"automountServiceAccountToken": false,
					"nodeSelector":                 map[string]any{"kubernetes.io/arch": t.c.Arch},
					"securityContext":              map[string]any{"runAsNonRoot": true, "seccompProfile": map[string]any{"type": "RuntimeDefault"}},
					"containers": []any{map[string]any{
						"name":           container,
						"image":          "",
						"env":            []any{map[string]any{"name": "PORT", "value": "8080"}},
						"ports":          []any{map[string]any{"name": "http", "containerPort": servePort, "protocol": "TCP"}},
						"resources":      map[string]any{"requests": map[string]any{"cpu": t.c.CPU, "memory": t.c.Memory}, "limits": map[string]any{"memory": t.c.Memory}},
						"startupProbe":   probe("/v2/health/ready", 60),
						"readinessProbe": probe("/v2/health/ready", 2),
						"livenessProbe":  probe("/v2/health/live", 6),
						"securityContext": map[string]any{
							"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": map[string]any{"drop": []any{"ALL"}},
						},
					}},
				},
			},
		},
	}
}

func (t *Target) service() object {
	return clone(object{
		"apiVersion": "v1", "kind": "Service",
		"metadata": map[string]any{"name": t.c.Name, "namespace": t.c.Namespace, "labels": map[string]any{labelApp: t.c.Name, "app.kubernetes.io/managed-by": "waybill"}},
		"spec": map[string]any{
			"selector": t.selector(),
			"ports":    []any{map[string]any{"name": "http", "port": t.c.Port, "targetPort": servePort, "protocol": "TCP"}},
		},
	})
}
