package policytest

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// Commit is the one that Provenance names.
const Commit = "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d"

// Provenance is SLSA provenance v1 as pack writes it, about a commit.
func Provenance() map[string]any {
	return map[string]any{
		"buildDefinition": map[string]any{
			"buildType":          "https://github.com/waybill-ml/waybill/buildtypes/pack/v1",
			"externalParameters": map[string]any{"project": map[string]any{"name": "waybill.yaml", "digest": map[string]any{"sha256": artifact.DigestOf([]byte("project")).Hex()}}, "options": map[string]any{"compile": true, "withoutSource": false}},
			"resolvedDependencies": []any{
				map[string]any{"name": "repository", "uri": "git+https://git.example/team/churn", "digest": map[string]any{"gitCommit": Commit}},
				map[string]any{"name": "model.onnx", "digest": map[string]any{"sha256": artifact.DigestOf([]byte("model")).Hex()}},
			},
		},
		"runDetails": map[string]any{
			"builder":  map[string]any{"id": "https://github.com/waybill-ml/waybill/pack/v1", "version": map[string]any{"waybill": "0.1.0"}},
			"metadata": map[string]any{"invocationId": "run-17", "startedOn": Now().Add(-72 * time.Hour).Format(time.RFC3339), "finishedOn": Now().Add(-71 * time.Hour).Format(time.RFC3339)},
		},
	}
}

// BOM is a CycloneDX bill of materials of an artifact of the world: every layer, one library, the card, and what the author
// declares.
func (w *World) BOM(t testing.TB, d artifact.Digest) map[string]any {
	t.Helper()
	m, err := artifact.ParseModel(w.Manifests[d])
	must(t, err)
	hash := func(d artifact.Digest) []any {
		return []any{map[string]any{"alg": "SHA-256", "content": d.Hex()}}
	}
	parts := []any{map[string]any{"type": "library", "bom-ref": "libx", "name": "libx", "version": "1.2.3", "purl": "pkg:golang/example.com/libx@1.2.3",
		"licenses": []any{map[string]any{"license": map[string]any{"id": "MIT"}}}}}
	for _, l := range m.Layers {
		parts = append(parts, map[string]any{"type": "file", "bom-ref": "file:" + l.Path, "name": l.Path, "hashes": hash(l.Digest)})
	}
	props := func(kv ...string) []any {
		var out []any
		for i := 0; i < len(kv); i += 2 {
			out = append(out, map[string]any{"name": "waybill:" + kv[i], "value": kv[i+1]})
		}
		return out
	}
	return map[string]any{
		"bomFormat": "CycloneDX", "specVersion": "1.7", "version": 1,
		"metadata": map[string]any{
			"timestamp": Now().Add(-70 * time.Hour).Format(time.RFC3339),
			"component": map[string]any{
				"type": "machine-learning-model", "bom-ref": "model", "name": "churn", "version": "1.0.0", "hashes": hash(d),
				"properties": props("owner", "risk team <risk@example.com>", "risk", "limited", "status", "active",
					"trained", Now().AddDate(0, -1, 0).Format(time.RFC3339), "oversight", "an analyst looks at each refusal"),
				"pedigree": map[string]any{"ancestors": []any{map[string]any{"type": "machine-learning-model", "name": "base", "version": "2", "hashes": hash(artifact.DigestOf([]byte("base model"))),
					"licenses": []any{map[string]any{"expression": "Apache-2.0"}}, "purl": "pkg:huggingface/example/base@2"}}},
				"modelCard": map[string]any{"considerations": map[string]any{
					"users": []any{"analysts"}, "useCases": []any{"ranking of offers"}, "technicalLimitations": []any{"adults only"}, "performanceTradeoffs": []any{"recall before precision"},
					"ethicalConsiderations": []any{map[string]any{"name": "bias by region", "mitigationStrategy": "slices are measured"}},
					"fairnessAssessments":   []any{map[string]any{"groupAtRisk": "new customers", "harms": "fewer offers", "mitigationStrategy": "floor"}},
					"environmentalConsiderations": map[string]any{"energyConsumptions": []any{map[string]any{"activity": "training", "energyProviders": []any{},
						"activityEnergyCost": map[string]any{"value": 12.5, "unit": "kWh"}}}},
				}},
			},
		},
		"components": parts,
	}
}

// Scan is in-toto's vulns v0.2 of a scan at a time, with one finding for each id, of severity medium.
func Scan(at time.Time, ids ...string) map[string]any {
	results := []any{}
	for _, id := range ids {
		results = append(results, map[string]any{"id": id, "severity": []any{map[string]any{"method": "CVSS_V3", "score": "5.0"}},
			"annotations": []any{map[string]any{"package": "libx", "version": "1.2.3", "fixedIn": "1.2.4", "purl": "pkg:golang/example.com/libx@1.2.3"}}})
	}
	return map[string]any{
		"scanner": map[string]any{"uri": "pkg:golang/example.com/scanner", "version": "1.0",
			"db": map[string]any{"lastUpdate": at.AddDate(0, 0, -1).Format(time.RFC3339)}, "result": results},
		"metadata": map[string]any{"scanStartedOn": at.Add(-time.Minute).Format(time.RFC3339), "scanFinishedOn": at.Format(time.RFC3339)},
	}
}

// TestsOn is in-toto's test-result v0.1: passed on a device class.
func TestsOn(class string, passed ...string) evidence.TestResult {
	return evidence.TestResult{Result: "PASSED", PassedTests: passed, Configuration: []evidence.ResourceDescriptor{
		{Name: "device-class:" + class, Digest: map[string]string{"sha256": artifact.DigestOf([]byte(class)).Hex()}}}}
}

// SPDX is a bill of materials of version 2.3 that lists every layer of an artifact of the world.
func (w *World) SPDX(t testing.TB, d artifact.Digest) map[string]any {
	t.Helper()
	m, err := artifact.ParseModel(w.Manifests[d])
	must(t, err)
	sum := func(d artifact.Digest) []any {
		return []any{map[string]any{"algorithm": "SHA256", "checksumValue": d.Hex()}}
	}
	files := []any{}
	for _, l := range m.Layers {
		files = append(files, map[string]any{"SPDXID": "SPDXRef-" + l.Digest.Hex()[:12], "fileName": l.Path, "checksums": sum(l.Digest)})
	}
	return map[string]any{
		"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "churn", "dataLicense": "CC0-1.0", "documentNamespace": "https://example.com/churn",
		"creationInfo":      map[string]any{"created": Now().Add(-70 * time.Hour).Format(time.RFC3339), "creators": []any{"Tool: example"}},
		"documentDescribes": []any{"SPDXRef-model"},
		"packages": []any{
			map[string]any{"SPDXID": "SPDXRef-model", "name": "churn", "versionInfo": "1.0.0", "downloadLocation": "NOASSERTION", "licenseConcluded": "NOASSERTION"},
			map[string]any{"SPDXID": "SPDXRef-libx", "name": "libx", "versionInfo": "1.2.3", "downloadLocation": "NOASSERTION", "licenseDeclared": "MIT"},
			map[string]any{"SPDXID": "SPDXRef-liby", "name": "liby", "versionInfo": "2", "downloadLocation": "NOASSERTION", "licenseConcluded": "NONE"},
		},
		"files": files,
	}
}

// Prove attaches provenance, a bill of materials, a scan without findings and tests to an artifact, beside what Release does.
func (w *World) Prove(t testing.TB, d artifact.Digest) {
	t.Helper()
	w.Attach(t, trust.RolePublisher, evidence.TypeProvenance, d, Provenance())
	w.Attach(t, trust.RolePublisher, evidence.TypeCycloneDX, d, w.BOM(t, d))
	w.Attach(t, trust.RoleEvaluator, evidence.TypeVulns, d, Scan(Now().AddDate(0, 0, -2)))
	w.Attach(t, trust.RoleEvaluator, evidence.TypeTestResult, d, TestsOn("edge-s", "smoke", "latency"))
}

// At changes one member of a document of nested maps and lists: path elements are names and indexes. It returns doc.
func At(t testing.TB, doc map[string]any, value any, path ...any) map[string]any {
	t.Helper()
	var v any = doc
	for i, p := range path {
		last := i == len(path)-1
		switch x := v.(type) {
		case map[string]any:
			k := p.(string)
			if last && value == nil {
				delete(x, k)
			} else if last {
				x[k] = value
			}
			v = x[k]
		case []any:
			if last {
				x[p.(int)] = value
			}
			v = x[p.(int)]
		default:
			t.Fatalf("nothing at %v of %v", path[:i+1], path)
		}
	}
	return doc
}

// Copy gives a document of its own.
func Copy(t testing.TB, doc map[string]any) map[string]any {
	t.Helper()
	b, err := json.Marshal(doc)
	must(t, err)
	var out map[string]any
	must(t, json.Unmarshal(b, &out))
	return out
}
