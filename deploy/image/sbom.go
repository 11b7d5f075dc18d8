package image

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
)

type bom struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     bomMeta      `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type bomMeta struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	PURL       string     `json:"purl,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// sbom lists what an image is made of: the runtime with the Go modules that its build recorded, and the artifact. The artifact's own
// bill of materials says what that is made of.
func sbom(s *Staged, r Runtime, image artifact.Digest, o Options) ([]byte, error) {
	const self, runtime, model = "image", "runtime", "artifact"
	sha := func(d artifact.Digest) []hash { return []hash{{"SHA-256", d.Hex()}} }
	h := image.Hex()
	b := bom{
		Schema: "http://cyclonedx.org/schema/bom-1.7.schema.json", Format: "CycloneDX", SpecVersion: "1.7", Version: 1,
		// A UUID of version 8: of the image's digest, so that the same image has the same bill.
		Serial: "urn:uuid:" + h[:8] + "-" + h[8:12] + "-8" + h[13:16] + "-a" + h[17:20] + "-" + h[20:32],
		Metadata: bomMeta{
			Timestamp: o.Created.UTC().Format(time.RFC3339),
			Component: component{Type: "container", Ref: self, Name: s.Model, Version: s.Version, Hashes: sha(image), Properties: []property{{"dev.waybill:platform", r.Platform.String()}}},
		},
		Components: []component{
			{Type: "application", Ref: runtime, Name: "waybill-serve", Version: version.Number, Hashes: sha(r.Digest), Properties: []property{{"dev.waybill:go", r.info.GoVersion}}},
			{Type: "machine-learning-model", Ref: model, Name: s.Model, Version: s.Version, Hashes: sha(s.Digest)},
		},
	}
	var deps []string
	for _, m := range r.info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		ref := "go:" + m.Path + "@" + m.Version
		b.Components = append(b.Components, component{Type: "library", Ref: ref, Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + strings.ReplaceAll(m.Version, "+", "%2B")})
		deps = append(deps, ref)
	}
	// The standard library is in every Go program and has weaknesses of its own.
	std := component{Type: "library", Ref: "go:stdlib", Name: "stdlib", Version: strings.TrimPrefix(r.info.GoVersion, "go")}
	std.PURL = "pkg:golang/stdlib@" + std.Version
	b.Components = append(b.Components, std)
	deps = append(deps, std.Ref)
	slices.Sort(deps)
	slices.SortStableFunc(b.Components[2:], func(x, y component) int { return cmp.Compare(x.Ref, y.Ref) })
	b.Dependencies = []dependency{{self, []string{model, runtime}}, {Ref: model}, {runtime, deps}}
	for _, d := range deps {
		b.Dependencies = append(b.Dependencies, dependency{Ref: d})
	}
	return artifact.Canonical(b)
}
