package facts

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/input"
)

// The parts of CycloneDX 1.4 to 1.7 that facts are made of.
type (
	cdx struct {
		SpecVersion     string              `json:"specVersion,omitempty"`
		SerialNumber    string              `json:"serialNumber,omitempty"`
		Metadata        cdxMetadata         `json:"metadata,omitempty"`
		Components      []cdxComponent      `json:"components,omitempty"`
		Vulnerabilities *[]cdxVulnerability `json:"vulnerabilities,omitempty"`
	}
	cdxMetadata struct {
		Timestamp  string          `json:"timestamp,omitempty"`
		Component  *cdxComponent   `json:"component,omitempty"`
		Tools      json.RawMessage `json:"tools,omitempty"`
		Properties []cdxProperty   `json:"properties,omitempty"`
	}
	cdxProperty struct {
		Name  string `json:"name,omitempty"`
		Value string `json:"value,omitempty"`
	}
	cdxComponent struct {
		Type       string         `json:"type,omitempty"`
		Ref        string         `json:"bom-ref,omitempty"`
		Group      string         `json:"group,omitempty"`
		Name       string         `json:"name,omitempty"`
		Version    string         `json:"version,omitempty"`
		PURL       string         `json:"purl,omitempty"`
		Authors    []cdxContact   `json:"authors,omitempty"`
		Hashes     []cdxHash      `json:"hashes,omitempty"`
		Licenses   []cdxLicense   `json:"licenses,omitempty"`
		References []cdxReference `json:"externalReferences,omitempty"`
		Pedigree   cdxPedigree    `json:"pedigree,omitempty"`
		Properties []cdxProperty  `json:"properties,omitempty"`
		Card       *cdxCard       `json:"modelCard,omitempty"`
		Components []cdxComponent `json:"components,omitempty"`
	}
	cdxContact struct {
		Name  string `json:"name,omitempty"`
		Email string `json:"email,omitempty"`
	}
	cdxHash struct {
		Alg     string `json:"alg,omitempty"`
		Content string `json:"content,omitempty"`
	}
	cdxLicense struct {
		Expression string `json:"expression,omitempty"`
		License    struct {
			ID   string `json:"id,omitempty"`
			Name string `json:"name,omitempty"`
		} `json:"license,omitempty"`
	}
	cdxReference struct {
		Type string `json:"type,omitempty"`
		URL  string `json:"url,omitempty"`
	}
	cdxPedigree struct {
		Ancestors []cdxComponent `json:"ancestors,omitempty"`
	}
	cdxCard struct {
		Considerations *cdxConsiderations `json:"considerations,omitempty"`
	}
	cdxConsiderations struct {
		Users       []string  `json:"users,omitempty"`
		UseCases    []string  `json:"useCases,omitempty"`
		Limitations []string  `json:"technicalLimitations,omitempty"`
		Tradeoffs   []string  `json:"performanceTradeoffs,omitempty"`
		Ethical     []cdxRisk `json:"ethicalConsiderations,omitempty"`
		Fairness    []struct {
			Group      string `json:"groupAtRisk,omitempty"`
			Harms      string `json:"harms,omitempty"`
			Mitigation string `json:"mitigationStrategy,omitempty"`
		} `json:"fairnessAssessments,omitempty"`
		Environment struct {
			Energy []struct {
				Activity string `json:"activity,omitempty"`
				Cost     struct {
					Value float64 `json:"value,omitempty"`
					Unit  string  `json:"unit,omitempty"`
				} `json:"activityEnergyCost,omitempty"`
			} `json:"energyConsumptions,omitempty"`
		} `json:"environmentalConsiderations,omitempty"`
	}
	cdxRisk struct {
		Name       string `json:"name,omitempty"`
		Mitigation string `json:"mitigationStrategy,omitempty"`
	}
)

const cdxModel = "machine-learning-model"

// cyclonedx reads one verified document: a bill of materials, a scan, statements about vulnerabilities (VEX), or several of these.
func (c *collector) cyclonedx(e *verify.Evidence) error {
	var doc cdx
	if err := foreign(e.Predicate, &doc); err != nil {
		return fmt.Errorf("CycloneDX document: %w", err)
	}
	at, err := c.documentTime(doc.Metadata.Timestamp, e)
	if err != nil {
		return fmt.Errorf("CycloneDX document: metadata.timestamp: %w", err)
	}
	b := &bill{bundle: string(e.Bundle), at: at, format: "cyclonedx", version: doc.SpecVersion}
	walkComponents(doc.Components, func(x *cdxComponent) { b.parts = append(b.parts, x.part()) })
	if about := doc.about(c.in.Artifact.Digest, c.layers); about != nil {
		if b.model, err = about.declared(); err != nil {
			return fmt.Errorf("CycloneDX document: %s: %w", about.Name, err)
		}
	}
	s, vex, err := doc.scan(b)
	if err != nil {
		return fmt.Errorf("CycloneDX document: %w", err)
	}
	if err := input.Fits(b.facts(c.layers), b.model, s); err != nil {
		return fmt.Errorf("CycloneDX document: %w", err)
	}
	// Nothing failed: now it counts.
	if len(doc.Components) > 0 || doc.Vulnerabilities == nil {
		c.bills = append(c.bills, b)
	}
	if s != nil {
		c.scans = append(c.scans, s)
	}
	c.vex = append(c.vex, vex...)
	return nil
}

// documentTime is what a document says of its own time, else what its signature's timestamp proves; zero when neither does.
func (c *collector) documentTime(text string, e *verify.Evidence) (time.Time, error) {
	if text == "" {
		if e.TimeSource.Verified() {
			return e.At, nil
		}
		return time.Time{}, nil
	}
	s, err := timeText(text)
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339, s)
}

func walkComponents(list []cdxComponent, f func(*cdxComponent)) {
	for i := range list {
		f(&list[i])
		walkComponents(list[i].Components, f)
	}
}

// about finds the component that is the model: that of the metadata, or the only model among the others. One with SHA-256
// hashes that are neither the artifact's nor one of its layers' is another model.
func (d *cdx) about(subject string, layers []artifact.Layer) *cdxComponent {
	x := d.Metadata.Component
	if x == nil || x.Type != cdxModel {
		var models []*cdxComponent
		walkComponents(d.Components, func(x *cdxComponent) {
			if x.Type == cdxModel {
				models = append(models, x)
			}
		})
		if len(models) != 1 {
			return nil
		}
		x = models[0]
	}
	digests := x.digests()
	if len(digests) > 0 && !slices.ContainsFunc(digests, func(d string) bool {
		return d == subject || slices.ContainsFunc(layers, func(l artifact.Layer) bool { return string(l.Digest) == d })
	}) {
		return nil
	}
	return x
}

func (x *cdxComponent) digests() []string {
	var out []string
	for _, h := range x.Hashes {
		if h.Alg == "SHA-256" {
			out = append(out, "sha256:"+strings.ToLower(h.Content))
		}
	}
	return out
}

func (x *cdxComponent) licenses() []string {
	var out []string
	for _, l := range x.Licenses {
		for _, s := range []string{l.Expression, l.License.ID, l.License.Name} {
			if s = license(s); s != "" {
				out = append(out, s)
				break
			}
		}
	}
	return out
}

func (x *cdxComponent) part() part {
	p := part{name: named(x.fullName(), x.Version), digests: x.digests(), licenses: x.licenses()}
	p.exempt = x.Type == "file" || x.Type == "data" || x.Type == cdxModel
	return p
}

func (x *cdxComponent) fullName() string {
	name := x.Name
	if x.Group != "" {
		name = x.Group + "/" + name
	}
	for _, s := range []string{name, x.PURL, x.Ref} {
		if s != "" {
			return s
		}
	}
	return "unnamed"
}

func (x *cdxComponent) property(name string) string {
	for _, p := range x.Properties {
		if p.Name == "waybill:"+name {
			return strings.TrimSpace(p.Value)
		}
	}
	return ""
}

// declared reads what the model's author says of it.
func (x *cdxComponent) declared() (*declared, error) {
	d := &declared{owner: x.property("owner"), risk: x.property("risk"), status: x.property("status")}
	if d.owner == "" {
		var names []string
		for _, a := range x.Authors {
			switch {
			case a.Name != "" && a.Email != "":
				names = append(names, a.Name+" <"+a.Email+">")
			case a.Name+a.Email != "":
				names = append(names, a.Name+a.Email)
			}
		}
		d.owner = strings.Join(names, ", ")
	}
	if !slices.Contains([]string{"", "minimal", "limited", "high", "prohibited"}, d.risk) {
		return nil, fmt.Errorf("waybill:risk is %q, not minimal, limited, high or prohibited", d.risk)
	}
	if !slices.Contains([]string{"", "active", "retired"}, d.status) {
		return nil, fmt.Errorf("waybill:status is %q, not active or retired", d.status)
	}
	var err error
	if d.trained, err = timeText(x.property("trained")); err != nil {
		return nil, fmt.Errorf("waybill:trained: %w", err)
	}
	for _, a := range x.Pedigree.Ancestors {
		m := input.BaseModel{Name: a.fullName(), Version: a.Version, License: strings.Join(a.licenses(), " AND "), URI: a.PURL}
		if ds := a.digests(); len(ds) > 0 {
			if _, err := artifact.ParseDigest(ds[0]); err != nil {
				return nil, fmt.Errorf("ancestor %s: %w", m.Name, err)
			}
			m.Digest = ds[0]
		}
		for _, r := range a.References {
			if r.URL != "" && (m.URI == "" || r.Type == "distribution") {
				m.URI = r.URL
			}
		}
		d.baseModels = append(d.baseModels, m)
	}
	d.card, err = x.card()
	return d, err
}

// card reads the considerations of the model card.
func (x *cdxComponent) card() (*input.ModelCard, error) {
	k := &input.ModelCard{Oversight: x.property("oversight")}
	if x.Card == nil || x.Card.Considerations == nil {
		if k.Oversight == "" {
			return nil, nil
		}
		return k, nil
	}
	s := x.Card.Considerations
	k.Users, k.UseCases, k.Limitations, k.Tradeoffs = filled(s.Users), filled(s.UseCases), filled(s.Limitations), filled(s.Tradeoffs)
	for _, r := range s.Ethical {
		if strings.TrimSpace(r.Name) != "" {
			k.Risks = append(k.Risks, input.Risk{Name: r.Name, Mitigation: r.Mitigation})
		}
	}
	for _, f := range s.Fairness {
		if strings.TrimSpace(f.Group) != "" {
			k.Fairness = append(k.Fairness, input.Fairness{Group: f.Group, Harms: f.Harms, Mitigation: f.Mitigation})
		}
	}
	for _, y := range s.Environment.Energy {
		if y.Activity == "" {
			continue
		}
		kwh, err := kilowattHours(y.Cost.Value, y.Cost.Unit)
		if err != nil {
			return nil, fmt.Errorf("energy of %s: %w", y.Activity, err)
		}
		k.Energy = append(k.Energy, input.Energy{Activity: y.Activity, KWh: kwh})
	}
	return k, nil
}

// filled leaves out what says nothing.
func filled(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.TrimSpace(s) == "" })
}

// kilowattHours converts; CycloneDX itself knows kWh only.
func kilowattHours(v float64, unit string) (float64, error) {
	if !(v >= 0) {
		return 0, fmt.Errorf("%g is no amount", v)
	}
	switch unit {
	case "kWh":
		return v, nil
	case "Wh":
		return v / 1e3, nil
	case "MWh":
		return v * 1e3, nil
	case "GWh":
		return v * 1e6, nil
	case "J":
		return v / 3.6e6, nil
	case "MJ":
		return v / 3.6, nil
	}
	return 0, fmt.Errorf("the unit %q is not known", unit)
}

// purl gives name and version of a package URL; ok is false when s is none.
func purl(s string) (name, version string, ok bool) {
	rest, ok := strings.CutPrefix(s, "pkg:")
	if !ok {
		return "", "", false
	}
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		rest = rest[:i]
	}
	if i := strings.LastIndexByte(rest, '@'); i > strings.LastIndexByte(rest, '/') {
		rest, version = rest[:i], rest[i+1:]
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		rest = rest[i+1:]
	}
	for _, p := range []*string{&rest, &version} {
		if u, err := url.PathUnescape(*p); err == nil {
			*p = u
		}
	}
	return rest, version, rest != ""
}
