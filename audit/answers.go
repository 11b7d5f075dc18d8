package audit

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/input"
)

func (a *auditor) line(section string, st Status, proof []artifact.Digest, format string, args ...any) {
	a.r.add(section, Line{Text: fmt.Sprintf(format, args...), Status: st, Proof: proof})
}

func one(d artifact.Digest) []artifact.Digest { return []artifact.Digest{d} }

func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

func (a *auditor) what() {
	art := a.in.Artifact
	a.line("WHAT", Proven, one(a.digest), "%s %s, files: %d, bytes: %d", a.in.Model.Name, a.in.Model.Version, len(art.Layers), art.Size)
	bad := 0
	for _, l := range art.Layers {
		if !l.DigestVerified {
			bad++
		}
	}
	if bad == 0 {
		a.line("WHAT", Proven, one(a.digest), "every file was read and has the digest that the manifest names")
	}
	for _, p := range art.Problems {
		a.line("WHAT", Contradicted, one(a.digest), "%s: %s", p.Code, p.Text)
	}
	if lic := a.in.Model.Licenses; len(lic) > 0 {
		a.line("WHAT", Claimed, one(a.digest), "license %s", strings.Join(lic, ", "))
	} else {
		a.line("WHAT", Missing, nil, "no license is stated")
	}
	if a.o.Trust.Expired(a.o.Now) {
		a.line("WHAT", Claimed, one(a.r.Trust.Digest), "trust document version %d expired on %s; evidence is verified as of that day", a.r.Trust.Version, day(a.o.Trust.Expires))
	}
	if a.in.Trust.Denied {
		a.line("WHAT", Contradicted, one(a.r.Trust.Digest), "trust document version %d denies this digest", a.r.Trust.Version)
	}
}

func (a *auditor) who() {
	releases := a.of(evidence.TypeRelease)
	for _, x := range releases {
		a.line("WHO", Proven, one(x.Bundle), "published by %s (key %s)", x.KeyName, short(x.KeyID))
	}
	if len(releases) == 0 {
		a.line("WHO", Missing, nil, "no publisher has signed this digest")
	}
	for _, x := range a.of(evidence.TypeEvaluation) {
		a.line("WHO", Proven, one(x.Bundle), "evaluated by %s (key %s)", x.KeyName, short(x.KeyID))
	}
	for _, x := range a.of(evidence.TypeApproval) {
		p, err := evidence.ParseApproval(x.e.Predicate)
		if err != nil {
			continue // it verified, so it parses
		}
		author := slices.ContainsFunc(releases, func(r item) bool { return r.KeyID == x.KeyID || r.KeyName == x.KeyName })
		st, who := Proven, "who is not the author"
		if author {
			st, who = Contradicted, "who is the author"
		}
		a.r.add("WHO", Line{Text: fmt.Sprintf("approved as %s by %s, %s: %s", p.Role, x.KeyName, who, p.Reason), Status: st, Proof: one(x.Bundle), Note: x.note})
	}
	for _, x := range a.of(evidence.TypeException) {
		p, err := evidence.ParseException(x.e.Predicate)
		if err != nil {
			continue
		}
		a.r.add("WHO", Line{Text: fmt.Sprintf("%s waived %s until %s: %s", x.KeyName, p.Rule, day(p.Expires), p.Reason), Status: Proven, Proof: one(x.Bundle), Note: x.note})
	}
	for _, x := range a.items {
		if x.Verified {
			continue
		}
		name := x.Name
		if name == "" {
			name = "statement"
		}
		switch x.why {
		case verify.WrongSigner, verify.WrongRole, verify.OutOfScope, verify.Expired, verify.TrustBehind:
			// Somebody said it who may not, or may not any more.
			a.line("WHO", Claimed, one(x.Bundle), "an attached %s is not proven: %s", name, x.Reason)
		default:
			a.line("WHO", Contradicted, one(x.Bundle), "an attached %s is false: %s", name, x.Reason)
		}
	}
}

// when: signatures with keys carry no trusted time, so times are what signers say.
func (a *auditor) when() {
	if c := a.in.Model.Created; c != "" {
		a.line("WHEN", Claimed, one(a.digest), "packed %s, says the model config", c)
	}
	type moment struct {
		at   time.Time
		text string
		by   artifact.Digest
	}
	var ms []moment
	for _, x := range a.of(evidence.TypeEvaluation) {
		if p, err := evidence.ParseEvaluation(x.e.Predicate); err == nil {
			ms = append(ms, moment{p.At, fmt.Sprintf("evaluated %s, says %s", minute(p.At), x.KeyName), x.Bundle})
		}
	}
	for _, x := range a.of(evidence.TypeVSA) {
		if p, err := evidence.ParseVSA(x.e.Predicate); err == nil {
			ms = append(ms, moment{p.TimeVerified, fmt.Sprintf("gated %s, says %s", minute(p.TimeVerified), x.KeyName), x.Bundle})
		}
	}
	for _, r := range a.records {
		if r.Target.Digest == a.digest {
			ms = append(ms, moment{r.Issued, fmt.Sprintf("put into channel %s %s, says %s", r.Channel, minute(r.Issued), r.by), r.bundle})
		}
	}
	slices.SortStableFunc(ms, func(x, y moment) int { return x.at.Compare(y.at) })
	for _, m := range ms {
		a.line("WHEN", Claimed, one(m.by), "%s", m.text)
	}
}

func (a *auditor) data() {
	seen := map[string]input.Dataset{}
	for _, d := range a.in.Datasets {
		personal := map[string]string{"none": "no personal data", "yes": "personal data", "noAssertion": "personal data not stated"}[d.PersonalData]
		st := Proven
		note := ""
		if old, ok := seen[d.Name+"/"+d.Role]; ok && old.Digest != d.Digest {
			st, note = Contradicted, "another statement gives "+old.Digest
		}
		seen[d.Name+"/"+d.Role] = d
		rows := ""
		if d.Rows > 0 {
			rows = fmt.Sprintf(", %d rows", d.Rows)
		}
		a.r.add("DATA", Line{Text: fmt.Sprintf("%s: %s sha256:%s, %s, %s%s", d.Role, d.Name, artifact.Digest(d.Digest).Short(), d.License, personal, rows),
			Status: st, Proof: one(artifact.Digest(d.Bundle)), Refs: one(artifact.Digest(d.Digest)), Note: note})
	}
	if len(a.in.Datasets) == 0 {
		a.line("DATA", Missing, nil, "no data set is recorded")
	}
	for _, l := range a.in.Artifact.Layers {
		switch l.Role {
		case "golden", "baseline", "source":
			if l.PersonalData == "" {
				a.line("DATA", Missing, nil, "%s (%s) does not say whether it holds personal data", l.Path, l.Role)
			} else {
				a.line("DATA", Claimed, one(a.digest), "%s (%s): personal data %s", l.Path, l.Role, l.PersonalData)
			}
		}
	}
}

func (a *auditor) quality() {
	for _, m := range a.in.Metrics {
		n := ""
		if m.N > 0 {
			n = fmt.Sprintf(", %d samples", m.N)
		}
		slice := ""
		if m.Slice != "all" {
			slice = " on " + m.Slice
		}
		a.r.add("QUALITY", Line{Text: fmt.Sprintf("%s%s %v (%s is better%s) on data sha256:%s", m.Name, slice, m.Value, m.Direction, n, artifact.Digest(m.Dataset).Short()),
			Status: Proven, Proof: one(artifact.Digest(m.Bundle)), Refs: one(artifact.Digest(m.Dataset))})
	}
	if len(a.in.Metrics) == 0 {
		a.line("QUALITY", Missing, nil, "nobody has attested a measurement of this digest")
	}
	g := a.in.Build.Golden
	switch {
	case !g.Present:
		a.line("QUALITY", Missing, nil, "no golden vectors: devices cannot prove the model on themselves")
	case g.Agree:
		a.line("QUALITY", Proven, one(a.digest), "golden vectors: %d, of which %d hold the training framework's outputs; the module's agree", g.Vectors, g.References)
	default:
		a.line("QUALITY", Contradicted, one(a.digest), "golden vectors: %s", g.Note)
	}
}

func (a *auditor) code() {
	b := a.in.Build
	if b.Compiler != "" {
		a.line("CODE", Claimed, one(a.digest), "compiled by %s, ABI %d, for runtimes from %s", b.Compiler, b.ABI, b.MinRuntime)
	}
	if b.InterfaceNote != "" {
		a.line("CODE", Contradicted, one(a.digest), "interface document: %s", b.InterfaceNote)
	}
	for _, m := range b.Modules {
		switch {
		case !m.Valid:
			a.line("CODE", Contradicted, one(a.digest), "%s is no readable WebAssembly module", m.Path)
		case len(m.Imports) == 0:
			a.line("CODE", Proven, one(artifact.Digest(m.Digest)), "%s imports nothing: it can only compute", m.Path)
		default:
			a.line("CODE", Proven, one(artifact.Digest(m.Digest)), "%s imports %s", m.Path, strings.Join(m.Imports, ", "))
		}
	}
	prov := a.of(evidence.TypeProvenance)
	for _, x := range prov {
		a.line("CODE", Proven, one(x.Bundle), "SLSA provenance by %s", x.KeyName)
	}
	if len(prov) == 0 {
		a.line("CODE", Missing, nil, "no SLSA provenance: which source and which builder")
	}
	if s := a.in.SBOM; s.Present {
		a.line("CODE", Proven, one(artifact.Digest(s.Bundle)), "bill of materials (%s)", s.Format)
	}
}

// gaps are what nobody has shown, whatever the policy asked for.
func (a *auditor) gaps() {
	gap := func(there bool, format string, args ...any) {
		if !there {
			a.line("GAPS", Missing, nil, format, args...)
		}
	}
	gap(a.in.SBOM.Present, "no bill of materials (CycloneDX)")
	gap(a.in.Vulnerabilities.Scanned, "no scan for vulnerabilities")
	gap(slices.ContainsFunc(a.in.Metrics, func(m input.Metric) bool { return m.Slice != "all" }), "no figures by group: no fairness assessment (EU AI Act Annex IV 2(g))")
	gap(a.in.ModelCard.Present, "no model card: purpose and limits (EU AI Act Annex IV 1(a))")
	gap(len(a.of(evidence.TypeApproval)) > 0, "no person has approved it (EU AI Act Annex IV 2(e))")
	gap(len(a.of(evidence.TypeTestResult)) > 0, "no test report by a responsible person (EU AI Act Annex IV 2(g))")
	for _, f := range a.failed {
		a.r.add("GAPS", Line{Text: f, Status: Missing})
	}
}
