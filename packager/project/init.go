package project

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// Facts is what a look at a model tells the author who starts a project.
type Facts struct {
	Kind    string   // "ONNX, opset 17"
	Inputs  []string // "X f32[N,30]"
	Outputs []string
}

// NameFor makes a model name from a file name: "My Model.v2.onnx" gives "my-model.v2".
func NameFor(file string) string {
	base := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	s := regexp.MustCompile(`[^a-z0-9._-]+`).ReplaceAllString(strings.ToLower(base), "-")
	s = regexp.MustCompile(`[._-]{2,}`).ReplaceAllString(s, "-")
	if s = strings.Trim(s, "._-"); s == "" {
		return "model"
	}
	return s
}

// Init returns the text of a first waybill.yaml for the model at the slash-separated path model, relative to the project
// folder. golden may be empty: the key is then left as a comment.
func Init(name, version, license, model, golden string, f Facts) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\nversion: %s\nlicense: %s\n", name, quote(version), license)
	fmt.Fprintf(&b, "model: %s # %s\n", model, f.Kind)
	for _, l := range f.Inputs {
		fmt.Fprintf(&b, "#   input  %s\n", l)
	}
	for _, l := range f.Outputs {
		fmt.Fprintf(&b, "#   output %s\n", l)
	}
	if golden != "" {
		fmt.Fprintf(&b, "golden: %s\n", golden)
	} else {
		b.WriteString("# golden: golden.json # test vectors with the framework's own outputs; devices reproduce them\n")
	}
	b.WriteString("# personal_data: none # or yes: do golden vectors or the model hold data about people?\n")
	b.WriteString("# owner: team <team@example.com> # who answers for it; policies may also ask for:\n")
	b.WriteString("# risk: limited       # minimal, limited, high or prohibited\n")
	b.WriteString("# trained: 2026-01-31  # when training ended\n")
	b.WriteString("# base_models: [{name: base, version: 1, license: Apache-2.0}] # what it was derived from\n")
	b.WriteString("# considerations: {users: [], use_cases: [], limitations: [], risks: [], oversight: \"\"} # for the model card\n")
	return b.String()
}

// quote keeps versions that YAML would read as numbers readable as text; Parse accepts both.
func quote(s string) string {
	if regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`).MatchString(s) {
		return `"` + s + `"`
	}
	return s
}

// Rel returns file as a slash-separated path below dir, or an error when it lies elsewhere.
func Rel(dir, file string) (string, error) {
	r, err := filepath.Rel(dir, file)
	if err != nil {
		return "", err
	}
	return clean(path.Clean(filepath.ToSlash(r)))
}
