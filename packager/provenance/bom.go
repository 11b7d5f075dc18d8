package provenance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/spdx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// The parts of CycloneDX 1.7 (bom-1.7.schema.json) that a bill of ours has.
type (
	bom struct {
		Schema       string       `json:"$schema"`
		Format       string       `json:"bomFormat"`
		SpecVersion  string       `json:"specVersion"`
		SerialNumber string       `json:"serialNumber"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Timestamp  string      `json:"timestamp,omitempty"`
		Lifecycles []lifecycle `json:"lifecycles"`
		Tools      tools       `json:"tools"`
		Component  component   `json:"component"`
	}
	lifecycle struct {
		Phase string `json:"phase"`
	}
	tools struct {
		Components []component `json:"components"`
	}
	component struct {
		Type        string      `json:"type"`
		Ref         string      `json:"bom-ref,omitempty"`
		Authors     []author    `json:"authors,omitempty"`
		Name        string      `json:"name"`
		Version     string      `json:"version,omitempty"`
		Description string      `json:"description,omitempty"`
		Hashes      []hash      `json:"hashes,omitempty"`
		Licenses    []license   `json:"licenses,omitempty"`
		PURL        string      `json:"purl,omitempty"`
		References  []reference `json:"externalReferences,omitempty"`
		Components  []component `json:"components,omitempty"`
		Pedigree    *pedigree   `json:"pedigree,omitempty"`
		ModelCard   *modelCard  `json:"modelCard,omitempty"`
		Data        []data      `json:"data,omitempty"`
		Properties  []property  `json:"properties,omitempty"`
	}
	pedigree struct {
		Ancestors []component `json:"ancestors"`
	}
	author struct {
		Name string `json:"name"`
	}
	hash struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	}
	license struct {
		Expression string        `json:"expression,omitempty"`
		License    *namedLicense `json:"license,omitempty"`
	}
	namedLicense struct {
		Name string `json:"name"`
	}
	reference struct {
		Type string `json:"type"`
		URL  string `json:"url"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	data struct {
		Type      string    `json:"type"`
		Name      string    `json:"name,omitempty"`
		Contents  *contents `json:"contents,omitempty"`
		Sensitive []string  `json:"sensitiveData,omitempty"`
	}
	contents struct {
		URL string `json:"url"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn,omitempty"`
	}
	modelCard struct {
		Parameters     parameters      `json:"modelParameters"`
		Analysis       *analysis       `json:"quantitativeAnalysis,omitempty"`
		Considerations *considerations `json:"considerations,omitempty"`
		Properties     []property      `json:"properties,omitempty"`
	}
	parameters struct {
		Architecture string       `json:"modelArchitecture,omitempty"`
		Datasets     []datasetRef `json:"datasets,omitempty"`
		Inputs       []port       `json:"inputs,omitempty"`
		Outputs      []port       `json:"outputs,omitempty"`
	}
	datasetRef struct {
		Ref string `json:"ref"`
	}
	port struct {
		Format string `json:"format"`
	}
	analysis struct {
		Metrics []metric `json:"performanceMetrics"`
	}
	metric struct {
		Type       string    `json:"type"`
		Value      string    `json:"value"`
		Slice      string    `json:"slice,omitempty"`
		Confidence *interval `json:"confidenceInterval,omitempty"`
	}
	interval struct {
		Lower string `json:"lowerBound"`
		Upper string `json:"upperBound"`
	}
	considerations struct {
		Users       []string `json:"users,omitempty"`
		UseCases    []string `json:"useCases,omitempty"`
		Limitations []string `json:"technicalLimitations,omitempty"`
		Tradeoffs   []string `json:"performanceTradeoffs,omitempty"`
		Ethical     []risk   `json:"ethicalConsiderations,omitempty"`

		Environment *environment `json:"environmentalConsiderations,omitempty"`
		Fairness    []fairness   `json:"fairnessAssessments,omitempty"`
	}
	environment struct {
		Energy []energy `json:"energyConsumptions"`
	}
	energy struct {
		Activity  string        `json:"activity"`
		Providers []any         `json:"energyProviders"` // demanded; who they are is not asked
		Cost      energyMeasure `json:"activityEnergyCost"`
	}
	energyMeasure struct {
		Value float64 `json:"value"`
		Unit  string  `json:"unit"`
	}
	fairness struct {
		Group      string `json:"groupAtRisk"`
		Harms      string `json:"harms,omitempty"`
		Mitigation string `json:"mitigationStrategy,omitempty"`
	}
	risk struct {
		Name       string `json:"name"`
		Mitigation string `json:"mitigationStrategy,omitempty"`
	}
)

// References inside the bill.
const (
	refModel    = "model"
	refCompiler = "waybill"
)

// CycloneDX writes the bill of materials: the model with its card, every file of the artifact, the data sets, and Waybill
// with the Go modules that it is built from.
func CycloneDX(f Facts) ([]byte, error) {
	b := bom{
		Schema: "http://cyclonedx.org/schema/bom-1.7.schema.json", Format: "CycloneDX", SpecVersion: "1.7", Version: 1,
		SerialNumber: serial(f.Manifest),
		Metadata: metadata{
			Lifecycles: []lifecycle{{"build"}},
			Tools:      tools{[]component{compiler(f)}},
			Component:  model(f),
		},
		Components: []component{},
	}
	if t := f.SourceDateEpoch; t != nil {
		b.Metadata.Timestamp = t.UTC().Format(time.RFC3339)
	}
	of := dependency{Ref: refModel}
	for _, l := range f.Layers {
		c := layer(f, l)
		b.Components = append(b.Components, c)
		of.DependsOn = append(of.DependsOn, c.Ref)
	}
	if f.Datasets != nil {
		for i := range f.Datasets.Datasets {
			c := dataset(f, i)
			b.Components = append(b.Components, c)
			of.DependsOn = append(of.DependsOn, c.Ref)
		}
	}
	built := dependency{Ref: refCompiler}
	for _, m := range b.Metadata.Tools.Components[0].Components {
		built.DependsOn = append(built.DependsOn, m.Ref)
	}
	b.Dependencies = []dependency{of, built}
	return encode(b)
}

// serial makes the number of the bill out of the digest that it is about: a UUID of version 8 (RFC 9562, section 5.8).
func serial(d artifact.Digest) string {
	h := sha256.Sum256([]byte("waybill cyclonedx " + string(d)))
	u := h[:16]
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	x := hex.EncodeToString(u)
	return fmt.Sprintf("urn:uuid:%s-%s-%s-%s-%s", x[:8], x[8:12], x[12:16], x[16:20], x[20:])
}

func sha256Of(d artifact.Digest) []hash { return []hash{{"SHA-256", d.Hex()}} }

func model(f Facts) component {
	c := component{
		Type: "machine-learning-model", Ref: refModel, Name: f.Name, Version: f.Version, Hashes: sha256Of(f.Manifest), Licenses: licenses(f.License),
		PURL:      "pkg:oci/" + url.PathEscape(f.Name) + "@" + url.QueryEscape(string(f.Manifest)),
		ModelCard: card(f),
	}
	if f.Owner != "" {
		c.Authors = []author{{f.Owner}}
	}
	if f.Commit != nil && f.Commit.URI != "" {
		c.References = []reference{{"vcs", f.Commit.URI}}
	}
	declare(&c, f)
	return c
}

// declare writes what policies take as the author's word: properties of ours, and the ancestors. The owner stands among the authors.
func declare(c *component, f Facts) {
	trained := ""
	if f.Trained != nil {
		trained = f.Trained.UTC().Format(time.RFC3339)
	}
	oversight := ""
	if f.Considerations != nil {
		oversight = f.Considerations.Oversight
	}
	for _, p := range []property{{"risk", f.Risk}, {"status", f.Status}, {"trained", trained}, {"oversight", oversight}} {
		if p.Value != "" {
			c.Properties = append(c.Properties, property{"waybill:" + p.Name, p.Value})
		}
	}
	if len(f.BaseModels) == 0 {
		return
	}
	c.Pedigree = &pedigree{}
	for _, m := range f.BaseModels {
		a := component{Type: "machine-learning-model", Name: m.Name, Version: m.Version, Licenses: licenses(m.License)}
		if m.Digest != "" {
			a.Hashes = sha256Of(m.Digest)
		}
		if m.URI != "" {
			a.References = []reference{{"distribution", m.URI}}
		}
		c.Pedigree.Ancestors = append(c.Pedigree.Ancestors, a)
	}
}

// licenses takes an SPDX expression, and anything else as a name.
func licenses(s string) []license {
	if s == "" {
		return nil
	}
	if c, err := spdx.Canonical(s); err == nil {
		return []license{{Expression: c}}
	}
	return []license{{License: &namedLicense{s}}}
}

func card(f Facts) *modelCard {
	c := &modelCard{Parameters: parameters{Architecture: f.Model.Architecture, Inputs: ports(f.Inports), Outputs: ports(f.Outports)}}
	if f.Datasets != nil {
		for i := range f.Datasets.Datasets {
			c.Parameters.Datasets = append(c.Parameters.Datasets, datasetRef{datasetName(i)})
		}
	}
	for _, p := range []property{
		{"waybill:kind", f.Kind}, {"waybill:format", f.Model.Format}, {"waybill:parameters", f.Model.ParamSize},
		{"waybill:precision", f.Model.Precision}, {"waybill:quantization", f.Model.Quantization},
	} {
		if p.Value != "" {
			c.Properties = append(c.Properties, p)
		}
	}
	if m := f.Metrics; m != nil && len(m.Metrics) > 0 {
		c.Analysis = &analysis{}
		for _, x := range m.Metrics {
			y := metric{Type: x.Name, Value: number(x.Value), Slice: x.Slice}
			if len(x.CI) == 2 {
				y.Confidence = &interval{number(x.CI[0]), number(x.CI[1])}
			}
			c.Analysis.Metrics = append(c.Analysis.Metrics, y)
		}
	}
	if s := f.Source; s != nil {
		for _, x := range s.Metrics {
			if f.Metrics != nil { // the author's own, with data sets and directions
				break
			}
			if c.Analysis == nil {
				c.Analysis = &analysis{}
			}
			c.Analysis.Metrics = append(c.Analysis.Metrics, metric{Type: x.Name, Value: number(x.Value)})
		}
		c.Properties = append(c.Properties, property{"waybill:from", strings.TrimSuffix(s.System+" "+s.URI, " ")})
		for _, x := range s.Facts {
			c.Properties = append(c.Properties, property{"waybill:" + s.System + ":" + x.Name, x.Value})
		}
		for _, x := range s.Params {
			c.Properties = append(c.Properties, property{"waybill:" + s.System + ":parameter:" + x.Name, x.Value})
		}
	}
	if k := f.Considerations; k != nil {
		c.Considerations = &considerations{Users: k.Users, UseCases: k.UseCases, Limitations: k.Limitations, Tradeoffs: k.Tradeoffs}
		for _, r := range k.Risks {
			c.Considerations.Ethical = append(c.Considerations.Ethical, risk{r.Name, r.Mitigation})
		}
		for _, x := range k.Fairness {
			c.Considerations.Fairness = append(c.Considerations.Fairness, fairness(x))
		}
		if len(k.Energy) > 0 {
			c.Considerations.Environment = &environment{}
		}
		for _, x := range k.Energy {
			c.Considerations.Environment.Energy = append(c.Considerations.Environment.Energy, energy{x.Activity, []any{}, energyMeasure{x.KWh, "kWh"}})
		}
	}
	return c
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func ports(ps []artifact.Port) []port {
	var out []port
	for _, p := range ps {
		out = append(out, port{portText(p)})
	}
	return out
}

// portText writes a port as inspect does: "X f32[N,30]".
func portText(p artifact.Port) string {
	t := p.DType
	switch {
	case p.Kind != "tensor":
		t = p.Kind + " of " + p.DType
	case !p.Ranked:
		t += "[...]"
	default:
		dims := make([]string, len(p.Shape))
		for i, d := range p.Shape {
			switch {
			case d.Size >= 0:
				dims[i] = strconv.FormatInt(d.Size, 10)
			case d.Sym != "":
				dims[i] = d.Sym
			default:
				dims[i] = "?"
			}
		}
		t += "[" + strings.Join(dims, ",") + "]"
	}
	return strings.TrimSpace(p.Name + " " + t)
}

// layer describes one file of the artifact; a step by its name.
func layer(f Facts, l artifact.Layer) component {
	c := component{
		Type: "file", Ref: "file:" + l.Path, Name: l.Path, Hashes: sha256Of(l.Digest),
		Properties: []property{{"waybill:role", string(l.Role)}, {"waybill:size", strconv.FormatInt(l.Size, 10)}},
	}
	if l.Personal != "" {
		c.Properties = append(c.Properties, property{"waybill:personal-data", l.Personal})
	}
	for _, s := range f.Steps {
		if s.File.Path == l.Path {
			c.Type, c.Description = "library", "step "+s.Name+" around the model"
		}
	}
	return c
}

func datasetName(i int) string { return fmt.Sprintf("dataset:%d", i) }

func dataset(f Facts, i int) component {
	d := f.Datasets.Datasets[i]
	c := component{
		Type: "data", Ref: datasetName(i), Name: d.Name, Hashes: sha256Of(d.Digest), Licenses: licenses(d.License),
		Data:       []data{{Type: "dataset", Name: d.Name}},
		Properties: []property{{"waybill:role", d.Role}, {"waybill:personal-data", d.PersonalData}},
	}
	if d.URI != "" {
		c.Data[0].Contents = &contents{d.URI}
	}
	if d.PersonalData == artifact.PersonalYes {
		c.Data[0].Sensitive = []string{"personal data"}
	}
	if d.Rows > 0 {
		c.Properties = append(c.Properties, property{"waybill:rows", strconv.FormatInt(d.Rows, 10)})
	}
	return c
}

// compiler describes Waybill itself, and the modules that its build says it has.
func compiler(f Facts) component {
	c := component{Type: "application", Ref: refCompiler, Name: "waybill", Version: f.Tool, Licenses: licenses("Apache-2.0")}
	if f.Build == nil {
		return c
	}
	c.PURL = goPURL("github.com/waybill-ml/waybill", "v"+f.Tool)
	goVersion := strings.TrimPrefix(f.Build.GoVersion, "go")
	if i := strings.IndexByte(goVersion, ' '); i > 0 { // experiments of the toolchain
		goVersion = goVersion[:i]
	}
	c.Components = append(c.Components, component{Type: "library", Ref: "go:std", Name: "std", Version: goVersion, PURL: goPURL("std", goVersion)})
	var mods []component
	for _, m := range f.Build.Deps {
		if r := m.Replace; r != nil && r.Version != "" {
			m = r
		} else if r != nil { // by a folder of the machine that built it
			m = &debug.Module{Path: m.Path}
		}
		mods = append(mods, goModule(m))
	}
	sort.Slice(mods, func(i, j int) bool { return mods[i].Ref < mods[j].Ref })
	for i, m := range mods {
		if i == 0 || m.Ref != mods[i-1].Ref {
			c.Components = append(c.Components, m)
		}
	}
	return c
}

func goModule(m *debug.Module) component {
	c := component{Type: "library", Ref: "go:" + m.Path, Name: m.Path, Version: m.Version}
	if m.Version != "" && !strings.HasPrefix(m.Version, "(") {
		c.PURL = goPURL(m.Path, m.Version)
	}
	return c
}

// goPURL writes a package URL of type golang: path elements and version escaped each.
func goPURL(path, version string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return "pkg:golang/" + strings.Join(parts, "/") + "@" + strings.ReplaceAll(url.PathEscape(version), "+", "%2B")
}
