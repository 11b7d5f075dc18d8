package emit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
	yaml3 "go.yaml.in/yaml/v3"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/awslambda"
	"github.com/waybill-ml/waybill/deploy/azureml"
	"github.com/waybill-ml/waybill/deploy/cloudflare"
	"github.com/waybill-ml/waybill/deploy/cloudrun"
	"github.com/waybill-ml/waybill/deploy/emit"
	"github.com/waybill-ml/waybill/deploy/kubernetes"
	"github.com/waybill-ml/waybill/deploy/sagemaker"
	"github.com/waybill-ml/waybill/deploy/targets"
	"github.com/waybill-ml/waybill/deploy/vertex"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

var (
	digest  = artifact.DigestOf([]byte("artifact"))
	release = deploy.Release{Digest: digest, Model: "churn", Ver: "1.2.0", Image: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/ml/churn@" + string(artifact.DigestOf([]byte("image"))), Arches: []string{"amd64"}}
	// nasty are texts that some reader of YAML, Terraform or CloudFormation takes for something else.
	nasty = []string{"yes", "NO", "null", "~", "1e3", "0x10", "0o7", "1_000", "12:30:45", "2010-09-09", ".inf", "- a", "a: b", "a #b", "#x", " lead", "trail ", "", "\"", "'", "two\nlines", "two\n",
		"tab\t", "&a", "*a", "!x", "%{ if true }", "${path.module}", "$${x}", "%%{x}", "{{x}}", "[1]", "{a: 1}", "@x", "`x`", "ü\u2028\u0085", "\u00a0", "=", "<<", "true", "? a", "| a", "> a", "\\n", "\r\n", "\x7f"}
)

func place(t testing.TB, m map[string]any) emit.Place {
	t.Helper()
	none := func(string) string { return "" }
	kinds := slices.Concat(awslambda.Kinds(), sagemaker.Kinds(), []targets.Kind{
		kubernetes.Kind(none), kubernetes.KnativeKind(none), kubernetes.KServeKind(none), cloudrun.Kind(), azureml.Kind(), vertex.Kind(), cloudflare.Kind(none),
	})
	es, err := targets.Parse([]map[string]any{m}, kinds)
	if err != nil {
		t.Fatal(err)
	}
	return emit.Place{Entry: es[0], Release: release}
}

func lambda(env map[string]any) map[string]any {
	return map[string]any{"name": "fn", "kind": "lambda", "image": "reg.example/ml/churn", "function": "churn", "region": "eu-west-1", "role": "arn:aws:iam::123456789012:role/churn", "env": env}
}

func run(env map[string]any) map[string]any {
	return map[string]any{"name": "run", "kind": "cloudrun", "image": "reg.example/ml/churn", "project": "acme-ml", "region": "europe-west4", "service": "churn", "env": env}
}

func endpoint(env map[string]any) map[string]any {
	return map[string]any{"name": "ep", "kind": "sagemaker", "image": "reg.example/ml/churn", "endpoint": "churn", "region": "eu-west-1", "role": "arn:aws:iam::123456789012:role/churn",
		"instance": "ml.c5.large", "count": 2, "traffic": "linear", "step": 20, "alarms": []any{"churn-5xx"}, "autoscaled": true, "env": env}
}

func functions(env map[string]any) map[string]any {
	return map[string]any{"name": "less", "kind": "sagemaker-serverless", "image": "reg.example/ml/churn", "endpoint": "churn-less", "region": "eu-west-1", "role": "arn:aws:iam::123456789012:role/churn",
		"memory": 3072, "concurrency": 5, "provisioned": 2, "env": env}
}

func azure(env map[string]any) map[string]any {
	return map[string]any{"name": "az", "kind": "azureml", "image": "reg.example/ml/churn", "subscription": "00000000-1111-2222-3333-444444444444", "resource-group": "acme-rg", "workspace": "acme-ml",
		"location": "westeurope", "endpoint": "churn", "env": env}
}

var kube = map[string]any{"name": "eu", "kind": "kubernetes", "image": "reg.example/ml/churn", "deployment": "churn", "namespace": "ml", "replicas": 3}

// decoded reads a file back the way its tool does.
func decoded(t *testing.T, f emit.File) []map[string]any {
	t.Helper()
	if f.Tool == targets.Terraform {
		var m map[string]any
		if err := json.Unmarshal(f.Data, &m); err != nil {
			t.Fatal(err)
		}
		return []map[string]any{m}
	}
	var a, b []map[string]any
	for d := yaml3.NewDecoder(bytes.NewReader(f.Data)); ; {
		var m map[string]any
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, f.Data)
		}
		a = append(a, m)
	}
	for d := yaml.NewDecoder(bytes.NewReader(f.Data)); ; {
		var m map[string]any
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		b = append(b, m)
	}
	if x, y := plain(t, a), plain(t, b); !reflect.DeepEqual(x, y) {
		t.Errorf("two readers of YAML see different things in\n%s\n%v\n%v", f.Data, x, y)
	}
	return a
}

func plain(t *testing.T, v any) (out any) {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func at(v any, path ...any) any {
	for _, k := range path {
		switch k := k.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[k]
		case int:
			l, _ := v.([]any)
			if k >= len(l) {
				return nil
			}
			v = l[k]
		}
	}
	return v
}

func TestRender(t *testing.T) {
	env := map[string]any{"LOG": "debug"}
	places := []emit.Place{place(t, lambda(env)), place(t, kube), place(t, run(env)), place(t, endpoint(env)), place(t, functions(env)), place(t, azure(env))}
	files, err := emit.Render("prod", places)
	if err != nil {
		t.Fatal(err)
	}
	again, err := emit.Render("prod", places)
	if err != nil || !reflect.DeepEqual(files, again) {
		t.Errorf("not the same files twice: %v", err)
	}
	docs := map[string][]map[string]any{}
	var names []string
	for _, f := range files {
		names = append(names, f.Path)
		docs[f.Path] = decoded(t, f)
		if !strings.Contains(string(f.Data[:200]), string(digest)) {
			t.Errorf("%s does not begin with the digest:\n%s", f.Path, f.Data)
		}
		if !strings.Contains(string(f.Data), release.Image) {
			t.Errorf("%s does not name the image by digest", f.Path)
		}
		if strings.Contains(string(f.Data), ":latest") {
			t.Errorf("%s has a tag", f.Path)
		}
	}
	if want := []string{"cloudformation/ep.yaml", "cloudformation/less.yaml", "kubernetes/eu.yaml", "sam/fn.yaml", "terraform/az/main.tf.json", "terraform/fn/main.tf.json", "terraform/run/main.tf.json"}; !reflect.DeepEqual(names, want) {
		t.Fatalf("%q, not %q", names, want)
	}
	for _, c := range []struct {
		file string
		doc  int
		path []any
		want any
	}{
		{"kubernetes/eu.yaml", 0, []any{"spec", "replicas"}, 3.0},
		{"kubernetes/eu.yaml", 0, []any{"spec", "template", "metadata", "annotations", "waybill.dev/digest"}, string(digest)},
		{"kubernetes/eu.yaml", 0, []any{"spec", "template", "spec", "containers", 0, "image"}, release.Image},
		{"kubernetes/eu.yaml", 1, []any{"kind"}, "Service"},
		{"sam/fn.yaml", 0, []any{"AWSTemplateFormatVersion"}, "2010-09-09"},
		{"sam/fn.yaml", 0, []any{"Resources", "Function", "Properties", "Environment", "Variables", "WAYBILL_DIGEST"}, string(digest)},
		{"sam/fn.yaml", 0, []any{"Resources", "Function", "Properties", "AutoPublishAlias"}, "live"},
		{"terraform/fn/main.tf.json", 0, []any{"resource", "aws_lambda_alias", "alias", "function_version"}, "${aws_lambda_function.function.version}"},
		{"terraform/fn/main.tf.json", 0, []any{"resource", "aws_lambda_function", "function", "publish"}, true},
		{"cloudformation/ep.yaml", 0, []any{"Resources", "Model", "Properties", "PrimaryContainer", "Environment", "WAYBILL_DIGEST"}, string(digest)},
		{"cloudformation/ep.yaml", 0, []any{"Resources", "Endpoint", "Properties", "RetainAllVariantProperties"}, true},
		{"cloudformation/less.yaml", 0, []any{"Resources", "EndpointConfig", "Properties", "ProductionVariants", 0, "ServerlessConfig", "MemorySizeInMB"}, 3072.0},
		{"terraform/az/main.tf.json", 0, []any{"resource", "azapi_resource", "deployment", "parent_id"}, "${azapi_resource.endpoint.id}"},
		{"terraform/run/main.tf.json", 0, []any{"resource", "google_cloud_run_v2_service", "service", "traffic", "percent"}, 100.0},
	} {
		if got := at(plain(t, docs[c.file][c.doc]), c.path...); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v is %v, not %v", c.file, c.path, got, c.want)
		}
	}
	tf := plain(t, docs["terraform/run/main.tf.json"][0])
	service := at(tf, "resource", "google_cloud_run_v2_service", "service")
	if a, b := at(service, "template", "revision"), at(service, "traffic", "revision"); a == nil || a != b {
		t.Errorf("traffic goes to %v, the revision is %v", b, a)
	}
}

// Whatever stands in a variable arrives as it is.
func TestTextsAreLiteral(t *testing.T) {
	for _, s := range nasty {
		env := map[string]any{"VALUE": s}
		files, err := emit.Render("prod", []emit.Place{place(t, lambda(env)), place(t, run(env)), place(t, functions(env)), place(t, azure(env))})
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		escaped := strings.NewReplacer("${", "$${", "%{", "%%{").Replace(s)
		for _, f := range files {
			doc := plain(t, decoded(t, f)[0])
			switch f.Path {
			case "sam/fn.yaml":
				if got := at(doc, "Resources", "Function", "Properties", "Environment", "Variables", "VALUE"); got != s {
					t.Errorf("SAM: %q became %q", s, got)
				}
			case "cloudformation/less.yaml":
				if got := at(doc, "Resources", "Model", "Properties", "PrimaryContainer", "Environment", "VALUE"); got != s {
					t.Errorf("CloudFormation: %q became %q", s, got)
				}
			case "terraform/az/main.tf.json":
				if got := at(doc, "resource", "azapi_resource", "deployment", "body", "properties", "environmentVariables", "VALUE"); got != escaped {
					t.Errorf("Terraform: %q became %q", s, got)
				}
			case "terraform/fn/main.tf.json":
				if got := at(doc, "resource", "aws_lambda_function", "function", "environment", "variables", "VALUE"); got != escaped {
					t.Errorf("Terraform: %q became %q", s, got)
				}
			case "terraform/run/main.tf.json":
				if got := at(doc, "resource", "google_cloud_run_v2_service", "service", "template", "containers", "env", 0, "value"); got != escaped {
					t.Errorf("Terraform: %q became %q", s, got)
				}
			}
		}
	}
}

func TestRefused(t *testing.T) {
	with := func(p emit.Place, change func(*deploy.Release)) emit.Place {
		change(&p.Release)
		return p
	}
	noRole := lambda(nil)
	delete(noRole, "role")
	zip := map[string]any{"name": "z", "kind": "lambda-zip", "function": "churn", "region": "eu-west-1"}
	for name, c := range map[string]struct {
		p    emit.Place
		want error
		text string
	}{
		"weight kubernetes": {with(place(t, kube), func(r *deploy.Release) { r.Weight = 10 }), deploy.ErrRelease, "10%"},
		"weight lambda":     {with(place(t, lambda(nil)), func(r *deploy.Release) { r.Weight = 10 }), deploy.ErrRelease, "10%"},
		"weight cloudrun":   {with(place(t, run(nil)), func(r *deploy.Release) { r.Weight = 10 }), deploy.ErrRelease, "10%"},
		"tag":               {with(place(t, kube), func(r *deploy.Release) { r.Image = "reg.example/ml/churn:v1" }), deploy.ErrRelease, "digest"},
		"arch kubernetes":   {with(place(t, kube), func(r *deploy.Release) { r.Arches = []string{"arm64"} }), deploy.ErrPlatform, "arm64"},
		"arch lambda":       {with(place(t, lambda(nil)), func(r *deploy.Release) { r.Arches = []string{"arm64"} }), deploy.ErrPlatform, "arm64"},
		"arch cloudrun":     {with(place(t, run(nil)), func(r *deploy.Release) { r.Arches = []string{"arm64"} }), deploy.ErrPlatform, "arm64"},
		"too large":         {with(place(t, lambda(nil)), func(r *deploy.Release) { r.Size = 11 << 30 }), deploy.ErrTooLarge, ""},
		"no role":           {place(t, noRole), nil, "role"},
		"zip":               {place(t, zip), emit.ErrKind, "lambda-zip"},
		"vertex":            {place(t, map[string]any{"name": "v", "kind": "vertex", "image": "reg.example/ml/churn", "project": "acme-ml", "region": "europe-west4", "endpoint": "1234567890"}), emit.ErrKind, "no resource"},
		"workers":           {place(t, map[string]any{"name": "w", "kind": "cloudflare", "account": "0123456789abcdef0123456789abcdef", "script": "churn"}), emit.ErrKind, "upload"},
		"dynamic reference": {place(t, lambda(map[string]any{"A1": "x{{resolve:ssm:p}}"})), nil, "resolve"},
	} {
		files, err := emit.Render("prod", []emit.Place{place(t, kube), c.p})
		if err == nil || files != nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %d files, %v", name, len(files), err)
		}
	}
}

// without is ^(?!prefix).+$, which Go's expressions cannot say.
type without struct{ prefix string }

func (w without) MatchString(s string) bool { return s != "" && !strings.HasPrefix(s, w.prefix) }
func (w without) String() string            { return "^(?!" + w.prefix + ").+$" }

// What Kubernetes and SAM publish about their documents holds.
func TestSchemas(t *testing.T) {
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		t.Skip("WAYBILL_SCHEMAS is not set: the published schemas are not here")
	}
	files, err := emit.Render("prod", []emit.Place{place(t, lambda(map[string]any{"LOG": "debug"})), place(t, kube)})
	if err != nil {
		t.Fatal(err)
	}
	check := func(file, pointer string, closed bool, doc any) error {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		if closed {
			for _, d := range at(schema, "definitions").(map[string]any) {
				m := d.(map[string]any)
				if _, ok := m["properties"]; ok {
					m["additionalProperties"] = false
				}
				if m["format"] == "int-or-string" {
					m["type"] = []any{"integer", "string"}
					delete(m, "format")
				}
			}
		}
		c := jsonschema.NewCompiler()
		c.UseRegexpEngine(func(p string) (jsonschema.Regexp, error) {
			if x, ok := strings.CutPrefix(p, "^(?!"); ok && strings.HasSuffix(x, ").+$") {
				return without{strings.TrimSuffix(x, ").+$")}, nil
			}
			return regexp.Compile(p)
		})
		if err := c.AddResource("s.json", schema); err != nil {
			t.Fatal(err)
		}
		s, err := c.Compile("s.json" + pointer)
		if err != nil {
			t.Fatal(err)
		}
		return s.Validate(doc)
	}
	for _, f := range files {
		if f.Tool == targets.Terraform {
			continue
		}
		for _, d := range decoded(t, f) {
			file, pointer, closed := "aws-sam/sam.schema.json", "", false
			if f.Tool == targets.Kubectl {
				file, closed = "kubernetes/definitions.json", true
				pointer = map[string]string{"Deployment": "#/definitions/io.k8s.api.apps.v1.Deployment", "Service": "#/definitions/io.k8s.api.core.v1.Service"}[d["kind"].(string)]
			}
			if err := check(file, pointer, closed, plain(t, d)); err != nil {
				t.Errorf("%s: %v", f.Path, err)
			}
			// The schema sees a key that is none.
			bad := plain(t, d)
			where, _ := at(bad, "spec").(map[string]any)
			if f.Tool == targets.SAM {
				where = at(bad, "Resources", "Function", "Properties").(map[string]any)
			}
			where["memorySizes"] = 1
			if check(file, pointer, closed, bad) == nil {
				t.Errorf("%s: the schema lets an unknown key pass", f.Path)
			}
		}
	}
}

// The linter of CloudFormation expands the template as SAM does.
func TestCfnLint(t *testing.T) {
	lint, err := exec.LookPath("cfn-lint")
	if err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatal("cfn-lint is not installed")
		}
		t.Skip("cfn-lint is not installed")
	}
	env := map[string]any{"LOG": "debug"}
	files, err := emit.Render("prod", []emit.Place{place(t, lambda(env)), place(t, endpoint(env)), place(t, functions(env))})
	if err != nil {
		t.Fatal(err)
	}
	f := filepath.Join(t.TempDir(), "template.yaml")
	checked := 0
	for _, x := range files {
		worse := map[string][2]string{
			"sam/fn.yaml": {"MemorySize: 1024", "MemorySize: 11"}, "cloudformation/ep.yaml": {"Type: LINEAR", "Type: SIDEWAYS"}, "cloudformation/less.yaml": {"MemorySizeInMB: 3072", "MemoryInMB: 3072"},
		}[x.Path]
		if worse[0] == "" {
			continue
		}
		checked++
		if err := os.WriteFile(f, x.Data, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), lint, f).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s\n%s", x.Path, err, out, x.Data)
		}
		bad := bytes.Replace(x.Data, []byte(worse[0]), []byte(worse[1]), 1)
		if err := os.WriteFile(f, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := exec.CommandContext(t.Context(), lint, f).Run(); err == nil {
			t.Errorf("%s: it lets %s pass", x.Path, worse[1])
		}
	}
	if checked != 3 {
		t.Errorf("%d templates were checked", checked)
	}
}

// Whichever operation fails, the folder has the old files or the new ones.
func TestWriteAllOrNothing(t *testing.T) {
	old := []emit.File{{Path: "a/x.yaml", Data: []byte("1")}, {Path: "b/y.yaml", Data: []byte("2")}}
	files := []emit.File{{Path: "a/x.yaml", Data: []byte("one")}, {Path: "b/y.yaml", Data: []byte("2")}, {Path: "c/d/z.yaml", Data: []byte("three")}}
	read := func(fsys fsx.FS) string {
		s := ""
		for _, p := range []string{"a/x.yaml", "b/y.yaml", "c/d/z.yaml", "other"} {
			if b, err := fsx.ReadFile(fsys, filepath.Join("out", p), 100); err == nil {
				s += p + "=" + string(b) + " "
			}
		}
		if _, err := fsys.Stat("out/c"); err == nil {
			s += "c"
		}
		return s
	}
	const was, is = "a/x.yaml=1 b/y.yaml=2 other=o ", "a/x.yaml=one b/y.yaml=2 c/d/z.yaml=three other=o c"
	fresh := func() fsx.FS {
		m := fsx.NewMem()
		if err := emit.Write(m, "out", old); err != nil {
			t.Fatal(err)
		}
		if err := fsx.WriteFileAtomic(m, "out/other", []byte("o"), 0o600); err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := fresh()
	if err := emit.Write(m, "out", files); err != nil || read(m) != is {
		t.Fatalf("%v: %s", err, read(m))
	}
	runs := 0
	for _, kind := range []fsx.Fault{fsx.EIO, fsx.ENOSPC, fsx.ShortWrite, fsx.EIOAfter} {
		for n := 1; ; n++ {
			m := fresh()
			f := fsx.NewFaulty(m)
			f.Arm(n, kind)
			err := emit.Write(f, "out", files)
			if f.Fired() == "" {
				break
			}
			runs++
			got := read(m)
			if kind == fsx.EIOAfter {
				got = strings.TrimSuffix(got, "c") // a temporary file that was made, says the disk, and was not, says the error
			}
			switch {
			case err == nil && kind == fsx.EIOAfter && got+"c" == is:
			case err == nil && got != is, err != nil && got != was:
				t.Errorf("%s at %s: %v, and there is %s", kind, f.Fired(), err, got)
			}
		}
	}
	if runs < 60 {
		t.Errorf("only %d faults were tried", runs)
	}
	if err := emit.Write(fresh(), "out", []emit.File{{Path: "new/1", Data: []byte("n")}, {Path: "other/x", Data: nil}}); err == nil {
		t.Error("a file in the way of a folder is no error")
	}
}
