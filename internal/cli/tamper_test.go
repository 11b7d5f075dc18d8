package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Whatever blob of an artifact was altered, in the local store or on a registry, every command that reads it ends with code 3,
// names the digest that was wanted and the one that came, and leaves nothing under a final name.
func TestTamperedContentIsRefused(t *testing.T) {
	base := newTrial(t, "")
	model, err := os.ReadFile("../../examples/breast-cancer/v1/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base.dir, "model.onnx"), model, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"k.key": "", "in.json": "[]"} { // trials are copied with keys
		if err := os.WriteFile(filepath.Join(base.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base.must("init", "model.onnx", "--name", "churn", "--version", "1.0", "--license", "Apache-2.0")
	base.must("pack")
	base.must("push", "churn:1.0", "{REG}/ml/churn:1.0")
	var facts struct {
		Digest artifact.Digest
		Layers []struct {
			Role   string
			Digest artifact.Digest
		}
	}
	if err := json.Unmarshal([]byte(base.must("inspect", "churn:1.0", "--output", "json")), &facts); err != nil {
		t.Fatal(err)
	}
	victims := map[string]artifact.Digest{"manifest": facts.Digest}
	for _, l := range facts.Layers {
		victims[l.Role] = l.Digest
	}
	if len(victims) < 4 || facts.Digest == "" {
		t.Fatalf("victims %v", victims)
	}
	// What reads which content; "" reads all of it. {FROM} is the artifact where it was altered.
	lines := map[string]string{
		"copy {FROM} layout:stick:1":                       "",
		"copy {FROM} {REG}/ml/copied:1":                    "",
		"save {FROM} --out saved.tar":                      "",
		"pull {FROM} --out files":                          "",
		"pull {FROM} --out files --jobs 1 --limit-rate 1G": "",
		"pull {FROM} pulled:1":                             "",
		"test {FROM} --engine interpreter":                 "manifest interface module",
		"bench {FROM} --duration 1ms --engine interpreter": "manifest interface module",
		"predict {FROM} in.json --engine interpreter":      "manifest interface module",
		"inspect {FROM}":                                   "manifest interface",
		"pull {FROM} --out files --role module":            "manifest module",
	}
	for _, place := range []string{"store", "registry"} {
		from, dir := "churn:1.0", filepath.Join("home", "store")
		if place == "registry" {
			from, dir = "{REG}/ml/churn:1.0", filepath.Join("registry", "repo-ml+churn")
		}
		for role, d := range victims {
			x := newTrial(t, base.dir)
			if place == "registry" { // else the right content is here already, and nothing is fetched
				if err := os.RemoveAll(filepath.Join(x.dir, "home", "store")); err != nil {
					t.Fatal(err)
				}
			}
			name := filepath.Join(x.dir, dir, "blobs", "sha256", d.Hex())
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.Chmod(name, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			for line, reads := range lines {
				if place == "store" && line == "pull {FROM} pulled:1" || reads != "" && !strings.Contains(reads, role) {
					continue
				}
				t.Run(place+"/"+role+"/"+strings.Fields(line)[0], func(t *testing.T) {
					x.t = t
					code, out, errs := x.run(strings.Fields(strings.ReplaceAll(line, "{FROM}", from))...)
					if code != 3 {
						t.Fatalf("waybill %s: exit code %d\n%s%s", line, code, out, errs)
					}
					if got := artifact.DigestOf(b); !strings.Contains(errs, string(d)) || !strings.Contains(errs, string(got)) {
						t.Errorf("waybill %s does not name %s and %s:\n%s", line, d, got, errs)
					}
					for _, none := range []string{"saved.tar", "stick/blobs/sha256/" + d.Hex(), "registry/repo-ml+copied/blobs/sha256/" + d.Hex(), "files/module.wasm", "files/model.onnx"} {
						if role != "module" && strings.HasSuffix(none, "module.wasm") || role != "source" && strings.HasSuffix(none, "model.onnx") {
							continue
						}
						if _, err := os.Stat(filepath.Join(x.dir, filepath.FromSlash(none))); err == nil {
							t.Errorf("waybill %s left %s", line, none)
						}
					}
					if code, out, errs := x.run("inspect", "pulled:1"); code == 0 {
						t.Errorf("the tag was set: %s%s", out, errs)
					}
				})
			}
		}
	}
}
