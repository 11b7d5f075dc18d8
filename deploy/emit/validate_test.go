package emit_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/deploy/emit"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// tool is Terraform or OpenTofu, with the schemas of the published providers in the providers' place (TestMain).
type tool struct {
	program, config string
}

func findTools(t *testing.T) []tool {
	t.Helper()
	miss := func(what string) {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatalf("%s is not installed", what)
		}
		t.Skipf("%s is not installed", what)
	}
	var programs []string
	for _, name := range []string{"terraform", "tofu"} {
		if p, err := exec.LookPath(name); err == nil {
			programs = append(programs, p)
		}
	}
	if len(programs) == 0 {
		miss("terraform or tofu")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := "provider_installation {\n  dev_overrides {\n"
	for _, source := range []string{"hashicorp/aws", "hashicorp/google", "Azure/azapi"} {
		if err := os.Symlink(self, filepath.Join(dir, "terraform-provider-"+filepath.Base(source))); err != nil {
			t.Fatal(err)
		}
		config += fmt.Sprintf("    %q = %q\n", source, dir)
	}
	file := filepath.Join(dir, "cli.tfrc")
	if err := os.WriteFile(file, []byte(config+"  }\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out []tool
	for _, p := range programs {
		out = append(out, tool{p, file})
	}
	return out
}

// validate is empty, or what the tool says against a module.
func (x tool) validate(t *testing.T, module []byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.tf.json"), module, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), x.program, "validate", "-json")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+x.config, "CHECKPOINT_DISABLE=1", "TF_DATA_DIR="+filepath.Join(dir, ".data"))
	raw, err := cmd.Output()
	var out struct {
		Valid       bool
		Diagnostics []struct{ Severity, Summary, Detail string }
	}
	if jerr := json.Unmarshal(raw, &out); jerr != nil {
		t.Fatalf("%v, %v: %s", err, jerr, raw)
	}
	var said []string
	for _, d := range out.Diagnostics {
		if d.Severity == "error" {
			said = append(said, d.Summary+": "+d.Detail)
		}
	}
	if out.Valid != (len(said) == 0) {
		t.Fatalf("%s", raw)
	}
	return strings.Join(said, "\n")
}

// Terraform itself takes each module, against the schemas of the published providers.
func TestValidate(t *testing.T) {
	for _, x := range findTools(t) {
		t.Run(filepath.Base(x.program), func(t *testing.T) { validates(t, x) })
	}
}

func validates(t *testing.T, x tool) {
	env := map[string]any{"LOG": "debug", "TEMPLATE": "${path.module} %{ if true }"}
	full := run(env)
	full["service-account"] = "churn@acme-ml.iam.gserviceaccount.com"
	user := azure(env)
	user["identity"] = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/acme-rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller"
	worse := map[string][][2]string{
		"fn":  {{`"memory_size"`, `"memory_sizes"`}, {`"role"`, `"tags"`}, {"aws_lambda_function.function.version", "aws_lambda_function.other.version"}, {"aws_lambda_function.function.version", "aws_lambda_function.function.versions"}},
		"run": {{`"http_get"`, `"http_gets"`}, {`"location"`, `"project_location"`}, {`"percent": 100`, `"percent": "all"`}},
		"az":  {{`"schema_validation_enabled"`, `"schema_validation"`}, {`"ignore_changes": "all"`, `"ignore_changes": "everything"`}, {`"azapi_resource.deployment"`, `"azapi_resource.deployments"`}, {`"create_before_destroy": true`, `"create_before_destroyed": true`}},
	}
	modules := 0
	for _, m := range []map[string]any{lambda(env), full, azure(env), user} {
		files, err := emit.Render("prod", []emit.Place{place(t, m)})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if f.Tool != targets.Terraform {
				continue
			}
			modules++
			if said := x.validate(t, f.Data); said != "" {
				t.Errorf("%s: %s\n%s", f.Path, said, f.Data)
			}
			for _, w := range worse[m["name"].(string)] {
				bad := strings.Replace(string(f.Data), w[0], w[1], 1)
				if bad == string(f.Data) {
					t.Errorf("%s has no %s", f.Path, w[0])
				}
				if x.validate(t, []byte(bad)) == "" {
					t.Errorf("%s: %s passes", f.Path, w[1])
				}
			}
		}
	}
	if modules != 4 {
		t.Errorf("%d modules", modules)
	}
}
