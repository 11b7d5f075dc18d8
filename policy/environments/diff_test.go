package environments

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// effects are the changes of one document into another: what is taken from the left, what stands on the right, and its effect.
func TestDiffEffects(t *testing.T) {
	const head = "version: 1\nenvironments:\n  prod:\n    namespace: ml\n    policy: {digest: \"sha256:91ab000000000000000000000000000000000000000000000000000000000000\", source: ./p}\n"
	parse := func(more string) *Document {
		t.Helper()
		d, err := ParseYAML("e.yaml", []byte(head+"    "+strings.ReplaceAll(more, "\n", "\n    ")+"\n  staging: {namespace: ml, policy: {digest: \"sha256:91ab000000000000000000000000000000000000000000000000000000000000\"}}\n"))
		if err != nil {
			t.Fatalf("%s: %v", more, err)
		}
		return d
	}
	for _, c := range []struct{ a, b, want string }{ // from a to b
		{"trust: {minVersion: 3}", "trust: {minVersion: 2}", "trust.minVersion looser"},
		{"lock: \"s3://locks/a\"", "lock: \"registry:\"", "lock different"},
		{"notAfterDays: 30", "notAfterDays: 90", "notAfterDays looser"},
		{"deviceClasses: [{name: a, memory: 1MiB}]", "deviceClasses: [{name: a, memory: 2MiB}]", "deviceClasses[a].memory looser"},
		{"deviceClasses: [{name: a, memory: 1MiB, storage: 1MiB}]", "deviceClasses: [{name: a, memory: 1MiB}]", "deviceClasses[a].storage looser"},
		{"deviceClasses: [{name: a, memory: 1MiB, latencyMs: 2}]", "deviceClasses: [{name: a, memory: 1MiB, latencyMs: 3}]", "deviceClasses[a].latencyMs looser"},
		{"deviceClasses: [{name: a, memory: 1MiB, runtime: \"1\"}]", "deviceClasses: [{name: a, memory: 1MiB}]", "deviceClasses[a].runtime different"},
		{"deviceClasses: [{name: a, memory: 1MiB}]", "deviceClasses: []", "deviceClasses[a] different"},
		{"metrics: [{name: auc, min: 0.9}]", "metrics: [{name: auc, min: 0.8}]", "metrics[auc on all].min looser"},
		{"metrics: [{name: loss, max: 0.1}]", "metrics: [{name: loss, max: 0.2}]", "metrics[loss on all].max looser"},
		{"metrics: [{name: auc, min: 0.9}]", "metrics: []", "metrics[auc on all] looser"},
		{"metrics: [{name: auc, min: 0.9}]", "metrics: [{name: auc, max: 0.9}]", "metrics[auc on all] different"},
		{"metrics: [{name: auc, min: 0.9, maxRegression: 0.1}]", "metrics: [{name: auc, min: 0.9, maxRegression: 0.2}]", "metrics[auc on all].maxRegression looser"},
		{"metrics: [{name: auc, min: 0.9, minN: 10}]", "metrics: [{name: auc, min: 0.9}]", "metrics[auc on all].minN looser"},
		{"metrics: [{name: auc, min: 0.9, confidence: true}]", "metrics: [{name: auc, min: 0.9}]", "metrics[auc on all].confidence looser"},
		{"slices: [a]", "slices: []", "slices looser"},
		{"sliceGaps: [{name: auc, max: 0.1}]", "sliceGaps: [{name: auc, max: 0.2}]", "sliceGaps[auc].max looser"},
		{"sliceGaps: [{name: auc, max: 0.1}]", "sliceGaps: []", "sliceGaps[auc] looser"},
		{"licenses: {models: [MIT]}", "licenses: {models: [MIT, GPL-3.0-only]}", "licenses.models looser"},
		{"licenses: {datasets: []}", "licenses: {datasets: [CC0-1.0]}", "licenses.datasets looser"},
		{"licenses: {components: [MIT]}", "licenses: {}", "licenses.components looser"},
		{"licenses: {components: [MIT]}", "licenses: {components: [MIT, X]}", "licenses.components looser"},
		{"approvals: {minimum: 2}", "approvals: {minimum: 1}", "approvals.minimum looser"},
		{"approvals: {minimum: 1, roles: [lead]}", "approvals: {minimum: 1}", "approvals.roles looser"},
		{"signers: 2", "signers: 1", "signers looser"},
		{"evidence: [evaluation]", "evidence: []", "evidence looser"},
		{"after: staging", "after: \"\"", "after looser"},
		{"maxEvaluationAgeDays: 10", "maxEvaluationAgeDays: 0", "maxEvaluationAgeDays looser"},
		{"maxEvaluationAgeDays: 10", "maxEvaluationAgeDays: 20", "maxEvaluationAgeDays looser"},
		{"privacyRole: \"\"", "privacyRole: dpo", "privacyRole looser"},
		{"privacyRole: dpo", "privacyRole: other", "privacyRole different"},
		{"exceptions: {}", "exceptions: {roles: [lead]}", "exceptions.roles looser"},
		{"exceptions: {}", "exceptions: {rules: [MET-001]}", "exceptions.rules looser"},
		{"exceptions: {maxDays: 5}", "exceptions: {}", "exceptions.maxDays looser"},
		{"enforce: {}", "enforce: {MET-001: warn}", "enforce.MET-001 looser"},
		{"enforce: {MET-001: warn}", "enforce: {MET-001: \"off\"}", "enforce.MET-001 looser"},
		{"builders: [{id: a}]", "builders: []", "builders looser"},
		{"builders: [{id: a}]", "builders: [{id: a}, {id: b}]", "builders[b] looser"},
		{"builders: [{id: a, level: 1}]", "builders: [{id: a, level: 3}]", "builders[a].level looser"},
		{"builders: [{id: a, signers: [x]}]", "builders: [{id: a}]", "builders[a].signers looser"},
		{"sources: [a]", "sources: []", "sources looser"},
		{"parameters: []", "parameters: [x]", "parameters looser"},
		{"formats: [onnx]", "formats: [onnx, pickle]", "formats looser"},
		{"formats: []", "formats: [pickle]", "formats different"},
		{"tests: [a]", "tests: []", "tests looser"},
		{"sections: [risks]", "sections: []", "sections looser"},
		{"scan: {maxAgeDays: 1}", "scan: {maxAgeDays: 2}", "scan.maxAgeDays looser"},
		{"scan: {maxDatabaseAgeDays: 1}", "scan: {}", "scan.maxDatabaseAgeDays looser"},
		{"maxModelAgeDays: 1", "maxModelAgeDays: 2", "maxModelAgeDays looser"},
		{"maxDataAgeDays: 1", "maxDataAgeDays: 2", "maxDataAgeDays looser"},
		{"maxApprovalAgeDays: 1", "maxApprovalAgeDays: 2", "maxApprovalAgeDays looser"},
		{"maxVerdictAgeDays: 1", "maxVerdictAgeDays: 2", "maxVerdictAgeDays looser"},
		{"soakDays: 2", "soakDays: 1", "soakDays looser"},
		{"shadow: true", "shadow: false", "shadow looser"},
		{"maxRisk: limited", "maxRisk: \"\"", "maxRisk looser"},
		{"maxRisk: high", "maxRisk: \"\"", "maxRisk different"},
		{"data: {a: {b: 1}}", "data: {a: {b: 2, c: 3}}", "data.a.b different; data.a.c different"},
		{"targets: [{kind: x}]", "targets: []", "targets different"},
		{"registry: a", "registry: b", "registry different"},
		{"profile: strict", "profile: baseline", "profile different"},
		{"channel: a", "channel: b", "channel different"},
	} {
		a, b := parse(c.a), parse(c.b)
		text := func(cs []Change) string {
			var out []string
			for _, x := range cs {
				out = append(out, x.Path+" "+string(x.Effect))
			}
			return strings.Join(out, "; ")
		}
		if got := text(Diff(a, b)); got != c.want {
			t.Errorf("%s -> %s: %q, want %q", c.a, c.b, got, c.want)
		}
		back := strings.ReplaceAll(c.want, "looser", "stricter")
		if got := text(Diff(b, a)); !strings.Contains(c.want, "data") && got != back {
			t.Errorf("%s -> %s: %q, want %q", c.b, c.a, got, back)
		}
		if got := Diff(a, a); len(got) != 0 {
			t.Errorf("%s: differs from itself: %+v", c.a, got)
		}
	}
}

// Whatever changes in a document shows: no field is forgotten by Diff.
func TestDiffSeesEveryField(t *testing.T) {
	d, err := ParseYAML("e.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	full := d.Environments["prod"]
	full.Slices, full.Evidence, full.SliceGaps = []string{"s"}, []string{"evaluation"}, []SliceGap{{"m", 0.1}}
	full.Builders, full.Data = []Builder{{"b", []string{"s"}, 1}}, map[string]any{"k": "v"}
	n, changed := 0, full
	var visit func(v reflect.Value, path string)
	visit = func(v reflect.Value, path string) {
		was := reflect.New(v.Type()).Elem()
		was.Set(v)
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				if f := v.Type().Field(i); f.Name != "DataFiles" { // gone once it is read
					visit(v.Field(i), path+"."+f.Name)
				}
			}
			return
		case reflect.Pointer:
			if !v.IsNil() {
				x := reflect.New(v.Type().Elem())
				x.Elem().Set(v.Elem())
				v.Set(x)
				visit(x.Elem(), path)
				v.Set(was)
			}
			return
		case reflect.Slice:
			c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			reflect.Copy(c, v)
			v.Set(c)
			for i := range c.Len() {
				visit(c.Index(i), fmt.Sprintf("%s[%d]", path, i))
			}
			v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
		case reflect.Map:
			c := reflect.MakeMap(v.Type())
			for _, k := range v.MapKeys() {
				c.SetMapIndex(k, v.MapIndex(k))
			}
			c.SetMapIndex(reflect.ValueOf("new"), reflect.ValueOf("warn"))
			v.Set(c)
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Int, reflect.Int64:
			v.SetInt(v.Int() + 1)
		case reflect.Float64:
			v.SetFloat(v.Float() + 1)
		case reflect.Bool:
			v.SetBool(!v.Bool())
		default:
			return
		}
		n++
		a, b := *d, *d
		a.Environments = map[string]Environment{"prod": full}
		b.Environments = map[string]Environment{"prod": changed}
		if len(Diff(&a, &b)) == 0 {
			t.Errorf("Diff does not see %s", path)
		}
		v.Set(was)
	}
	visit(reflect.ValueOf(&changed).Elem(), "prod")
	if n < 60 {
		t.Errorf("only %d changes were tried", n)
	}
}

// docs/environments.md has a row for every key, and none that is not there.
func TestDocsNameEveryKey(t *testing.T) {
	raw, err := os.ReadFile("../../docs/environments.md")
	if err != nil {
		t.Fatal(err)
	}
	// The keys of a target are those of its kind: TestDocsNameEveryTargetKey.
	_, keys, ok := strings.Cut(string(raw), "\n## Keys of an environment\n")
	if !ok {
		t.Fatal("docs/environments.md has no chapter on the keys of an environment")
	}
	keys, _, _ = strings.Cut(keys, "\n## ")
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Za-z.\\[\\]]+)` \\|").FindAllStringSubmatch(keys, -1) {
		got = append(got, m[1])
	}
	var want []string
	var visit func(t reflect.Type, path string)
	visit = func(t reflect.Type, path string) {
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "-" {
				name = f.Tag.Get("yaml")
			}
			p := strings.TrimPrefix(path+"."+name, ".")
			switch ft := f.Type; {
			case ft.Kind() == reflect.Struct:
				visit(ft, p)
			case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct:
				visit(ft.Elem(), p+"[]")
			default:
				want = append(want, p)
			}
		}
	}
	visit(reflect.TypeFor[Environment](), "")
	slices.Sort(want)
	for _, k := range want {
		if !slices.Contains(got, k) {
			t.Errorf("docs/environments.md has no row for `%s`", k)
		}
	}
	for _, k := range got {
		if !slices.Contains(want, k) {
			t.Errorf("docs/environments.md has a row for `%s`, which is no key", k)
		}
	}
}
