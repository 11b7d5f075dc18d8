package facts

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/spdx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/input"
)

// bill is one verified bill of materials, of either format.
type bill struct {
	bundle          string
	at              time.Time // as it says or as a timestamp proves; zero when nothing tells
	format, version string
	parts           []part
	model           *declared // what it says of the model itself; nil when it does not describe it
}

// part is one component.
type part struct {
	name     string
	digests  []string // sha256:...
	licenses []string // SPDX expressions, or names of other licenses
	// exempt parts need no license of their own: files, data sets (dataset/v1 speaks of them) and the models themselves.
	exempt bool
}

// declared is what a bill says of the model that it is about.
type declared struct {
	owner, risk, status, trained string
	baseModels                   []input.BaseModel
	card                         *input.ModelCard // without the file's fields; nil when there is none
}

// license brings an SPDX expression into the list's spelling; anything else stays as it is. "" for what says nothing.
func license(s string) string {
	s = strings.TrimSpace(s)
	if s == "" || strings.EqualFold(s, "NOASSERTION") || strings.EqualFold(s, "NONE") {
		return ""
	}
	if c, err := spdx.Canonical(s); err == nil {
		return c
	}
	return s
}

func named(name, version string) string {
	if version != "" {
		return name + "@" + version
	}
	return name
}

// missing lists the paths of the artifact's layers whose digest no part of the bill has.
func (b *bill) missing(layers []artifact.Layer) []string {
	has := map[string]bool{}
	for _, p := range b.parts {
		for _, d := range p.digests {
			has[d] = true
		}
	}
	out := []string{}
	for _, l := range layers {
		if !has[string(l.Digest)] {
			out = append(out, l.Path)
		}
	}
	return out
}

// facts gives the section sbom. A part that is a layer of the artifact is covered by the model's own license.
func (b *bill) facts(layers []artifact.Layer) input.SBOM {
	own := map[string]bool{}
	for _, l := range layers {
		own[string(l.Digest)] = true
	}
	s := input.SBOM{Present: true, Format: b.format, SpecVersion: b.version, Bundle: b.bundle, Components: len(b.parts), Missing: b.missing(layers),
		Licenses: []string{}, Unlicensed: []string{}}
	for _, p := range b.parts {
		if p.exempt || slices.ContainsFunc(p.digests, func(d string) bool { return own[d] }) {
			continue
		}
		s.Licenses = append(s.Licenses, p.licenses...)
		if len(p.licenses) == 0 {
			s.Unlicensed = append(s.Unlicensed, p.name)
		}
	}
	s.Licenses, s.Unlicensed = set(s.Licenses), set(s.Unlicensed)
	return s
}

func set(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// settleBills picks, from every verified bill, the one that counts as the bill of materials: the one that lists most of the
// artifact's layers, of these the newest, of these the one with the lowest digest.
//
// What the model's author declares comes from the newest bill that describes the model. Of several that are equally new, as
// those without a time are, the cautious reading counts: the highest risk, retired, the oldest training, all base models.
func (c *collector) settleBills() {
	if len(c.bills) == 0 {
		return
	}
	newest := func(a, b *bill) int { return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.bundle, b.bundle)) }
	best := slices.MinFunc(c.bills, func(a, b *bill) int {
		return cmp.Or(cmp.Compare(len(a.missing(c.layers)), len(b.missing(c.layers))), newest(a, b))
	})
	c.in.SBOM = best.facts(c.layers)
	about := slices.DeleteFunc(slices.Clone(c.bills), func(b *bill) bool { return b.model == nil })
	if len(about) == 0 {
		return
	}
	slices.SortFunc(about, newest)
	m, k := &c.in.Model, &c.in.ModelCard
	m.Declared = about[0].bundle
	tiers := []string{"", "minimal", "limited", "high", "prohibited"}
	for _, b := range about {
		if !b.at.Equal(about[0].at) {
			break
		}
		d := b.model
		m.Owner = cmp.Or(m.Owner, d.owner)
		if slices.Index(tiers, d.risk) > slices.Index(tiers, m.Risk) {
			m.Risk = d.risk
		}
		if m.Status != "retired" && d.status != "" {
			m.Status = d.status
		}
		if d.trained != "" && (m.Trained == "" || d.trained < m.Trained) {
			m.Trained = d.trained
		}
		for _, x := range d.baseModels {
			if !slices.Contains(m.BaseModels, x) {
				m.BaseModels = append(m.BaseModels, x)
			}
		}
		if d.card != nil && k.Bundle == "" {
			file := *k
			*k = *d.card
			k.Present, k.Path, k.Digest, k.Bundle = file.Present, file.Path, file.Digest, b.bundle
		}
	}
}
