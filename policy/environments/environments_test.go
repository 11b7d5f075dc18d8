package environments

import (
	"errors"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
)

const good = `# what prod demands
version: 1
environments:
  staging:
    namespace: ml
    policy: {digest: "sha256:91ab000000000000000000000000000000000000000000000000000000000000"}
    deviceClasses: [{name: edge-s, memory: 256MiB}]
    metrics:
      - {name: roc_auc, min: 0.9}
  prod:
    namespace: ml
    policy:
      digest: sha256:91ab000000000000000000000000000000000000000000000000000000000000
    after: staging
    deviceClasses:
      - {name: edge-s, memory: 268435456, runtime: "0.1.0"}
    metrics:
      - {name: roc_auc, min: 0.95, maxRegression: 0.005, minN: 100}
      - {name: log_loss, max: 0.2}
    licenses: {models: [Apache-2.0], datasets: [CC-BY-4.0]}
    approvals: {minimum: 1, roles: [ml-lead]}
    evidence: [evaluation, dataset]
    enforce: {MET-004: warn}
    targets:
      - {kind: lambda, name: churn, memory: 512}
`

func TestParse(t *testing.T) {
	d, err := ParseYAML("environments.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Facts("prod")
	if err != nil {
		t.Fatal(err)
	}
	if f.Channel != "prod" || f.NotAfterDays != 90 || f.Signers != 1 || f.DeviceClasses[0].MemoryBytes != 256<<20 {
		t.Errorf("defaults: %+v", f)
	}
	if f.Metrics[0].Direction != "higher" || f.Metrics[0].Slice != "all" || f.Metrics[1].Direction != "lower" || f.Metrics[1].Bound != 0.2 {
		t.Errorf("metrics: %+v", f.Metrics)
	}
	if !strings.HasSuffix(f.Evidence[0], "/evaluation/v1") {
		t.Errorf("evidence: %v", f.Evidence)
	}
	if _, err := d.Facts("qa"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown environment: %v", err)
	}
	b, err := d.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseJSON(b)
	if err != nil {
		t.Fatal(err)
	}
	b2, _ := again.Canonical()
	if string(b) != string(b2) {
		t.Errorf("canonical form changes:\n%s\n%s", b, b2)
	}
}

func TestBadYAML(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown key", "after: staging", "aftr: staging", `14:5: environments.prod.aftr: unknown key`},
		{"hint", "licenses:", "licences:", `did you mean "licenses"`},
		{"twice", "after: staging", "namespace: ml", `14:5: environments.prod.namespace: given twice (first on line 11)`},
		{"list expected", "roles: [ml-lead]", "roles: ml-lead", `a list is expected, this is "ml-lead" (str)`},
		{"text expected", `runtime: "0.1.0"`, "runtime: 0.1", `16:52: environments.prod.deviceClasses[0].runtime: a text is expected, this is "0.1" (float); put it in quotes`},
		{"number expected", "min: 0.95", "min: high", "a finite number is expected"},
		{"not finite", "min: 0.95", "min: .nan", "a finite number is expected"},
		{"min and max", "min: 0.95", "min: 0.95, max: 1", "18:9: environments: environments.prod.metrics[0]: give exactly one of min"},
		{"size", "256MiB", "256 parsecs", "a size like 256MiB"},
		{"digest", "    policy:\n      digest: sha256:91ab", "    policy:\n      digest: sha256:91xx", "environments.prod.policy.digest"},
		{"after nobody", "after: staging", "after: qa", `there is no environment "qa"`},
		{"circle", "  staging:\n", "  staging:\n    after: prod\n", "circle"},
		{"enforce", "MET-004: warn", "MET-004: maybe", "neither warn nor off"},
		{"evidence", "[evaluation, dataset]", "[evaluation, horoscope]", `unknown predicate type "horoscope"`},
		{"alias", "targets:", "targets: &x", "anchors"},
		{"negative", "maxRegression: 0.005", "maxRegression: -1", "maxRegression: negative"},
		{"no version", "version: 1\n", "", "version: must be 1 or more"},
		{"null", "after: staging", "after:", "a text is expected, this is nothing"},
		{"two documents", "    targets:\n", "---\nversion: 2\nx:\n", "only one YAML document"},
		{"broken", "after: staging", "after: [", "not valid YAML"},
		{"second metric", "name: log_loss, max", "name: roc_auc, max", "a second threshold for roc_auc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			y := strings.Replace(good, c.old, c.new, 1)
			if y == good {
				t.Fatal("the case changes nothing")
			}
			_, err := ParseYAML("environments.yaml", []byte(y))
			if err == nil {
				t.Fatal("accepted")
			}
			if got := diag.Render(err); !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if diag.CodeOf(err) != diag.Usage {
				t.Errorf("code %d", diag.CodeOf(err))
			}
			if c.name != "no version" && !strings.Contains(err.Error(), "environments.yaml:") {
				t.Errorf("no position: %v", err)
			}
		})
	}
}

func FuzzParseYAML(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("version: 1\nenvironments: {}\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseYAML("e.yaml", b)
		if err != nil {
			return
		}
		c, err := d.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseJSON(c); err != nil {
			t.Fatalf("accepted as YAML, not as JSON: %v\n%s", err, c)
		}
	})
}
