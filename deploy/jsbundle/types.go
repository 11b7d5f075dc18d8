package jsbundle

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// types is model.d.mts: the inputs and outputs of one artifact.
func types(i *artifact.Interface) []byte {
	var b strings.Builder
	b.WriteString("// The inputs and outputs of this artifact. Written by waybill.\nimport type { Composite, Tensor } from './types.d.mts';\n")
	for _, g := range []struct {
		name  string
		ports []artifact.Port
	}{{"Inputs", i.Inputs}, {"Outputs", i.Outputs}} {
		fmt.Fprintf(&b, "\nexport interface %s {\n", g.name)
		for _, p := range g.ports {
			fmt.Fprintf(&b, "  /** %s */\n  %s: %s;\n", shapeText(p), quote(p.Name), typeOf(p))
		}
		b.WriteString("}\n")
	}
	return []byte(b.String())
}

// quote writes a JSON string, which is also one of TypeScript.
func quote(s string) string {
	b, _ := json.Marshal(s) // a string always encodes
	return string(b)
}

func typeOf(p artifact.Port) string {
	if p.Kind != "" && p.Kind != "tensor" {
		return fmt.Sprintf("Composite<%s>", quote(p.Kind))
	}
	return fmt.Sprintf("Tensor<%s>", quote(p.DType))
}

func shapeText(p artifact.Port) string {
	if p.Kind != "" && p.Kind != "tensor" {
		return p.Kind
	}
	if !p.Ranked {
		return "any shape"
	}
	var dims []string
	for _, d := range p.Shape {
		s := fmt.Sprint(d.Size)
		if d.Size < 0 {
			s = "?"
			if d.Sym != "" {
				s = d.Sym
			}
		}
		dims = append(dims, s)
	}
	return strings.ReplaceAll(fmt.Sprintf("shape [%s]", strings.Join(dims, ", ")), "*/", "* /")
}

var (
	notInName = regexp.MustCompile(`[^a-z0-9._-]+`)
	semver    = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)
)

// packageJSON lets import find the entry of the host. The version is there when it is one of npm's.
func packageJSON(i *artifact.Interface, hosts []string) ([]byte, error) {
	exports := []string{}
	entry := func(cond, file string) { exports = append(exports, fmt.Sprintf("%q: %q", cond, "./"+file)) }
	if slices.Contains(hosts, Workers) {
		entry("workerd", "worker.mjs")
	}
	if slices.Contains(hosts, Node) {
		exports = append(exports, `"node": {"types": "./node.d.mts", "default": "./node.mjs"}`)
	}
	if slices.Contains(hosts, Browser) {
		exports = append(exports, `"default": {"types": "./browser.d.mts", "default": "./browser.mjs"}`)
	}
	ver := ""
	if semver.MatchString(i.Version) {
		ver = i.Version
	}
	return artifact.Canonical(struct {
		Name    string                     `json:"name"`
		Version string                     `json:"version,omitempty"`
		Private bool                       `json:"private"`
		Type    string                     `json:"type"`
		Exports map[string]json.RawMessage `json:"exports"`
	}{strings.Trim(notInName.ReplaceAllString(strings.ToLower(i.Name), "-"), "-._"), ver, true, "module",
		map[string]json.RawMessage{".": json.RawMessage("{" + strings.Join(exports, ", ") + "}")}})
}
