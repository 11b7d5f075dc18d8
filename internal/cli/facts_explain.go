package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/policy/input"
)

// explainFacts sums the document up for people, on stderr.
func (c *Call) explainFacts(in *input.Input, digest artifact.Digest) {
	say := func(label, format string, args ...any) { c.UI.Field(label, "%s", plain(fmt.Sprintf(format, args...))) }
	m, e := in.Model, in.Environment
	c.UI.Say("%s %s  %s for %s, policy %s", c.UI.Err.Bold(plain(m.Name)), plain(m.Version), artifact.Digest(in.Artifact.Digest).Short(), e.Name, artifact.Digest(e.PolicyDigest).Short())
	whole := 0
	for _, l := range in.Artifact.Layers {
		if l.DigestVerified {
			whole++
		}
	}
	say("layers", "%d of %s read and right, %s", whole, ui.Plural(len(in.Artifact.Layers), "layer"), ui.Bytes(in.Artifact.Size))
	for _, p := range in.Artifact.Problems {
		say("problem", "%s: %s", p.Code, p.Text)
	}
	say("declared", "%s", words("owner "+m.Owner, "risk "+m.Risk, "status "+m.Status, "trained "+m.Trained, ui.Plural(len(m.BaseModels), "base model")))
	for _, p := range in.Provenance {
		source := "no commit"
		if p.Source.Commit != "" {
			source = p.Source.URI + "@" + p.Source.Commit[:12]
		}
		say("provenance", "%s, %s, %s", p.Builder, source, p.Signer.Name)
	}
	if s := in.SBOM; s.Present {
		say("bill", "%s %s, %s, %s, %s", s.Format, s.SpecVersion, ui.Plural(s.Components, "component"), fmt.Sprintf("%d without a license", len(s.Unlicensed)), ui.Plural(len(s.Missing), "layer")+" missing")
	} else {
		say("bill", "none")
	}
	if v := in.Vulnerabilities; v.Scanned {
		say("scan", "%s, %s", cmp.Or(v.ScannedAt, "at no stated time"), ui.Plural(len(v.Findings), "finding"))
	} else {
		say("scan", "none")
	}
	say("measured", "%s, %s, %s", ui.Plural(len(in.Metrics), "figure"), ui.Plural(len(in.Datasets), "data set"), ui.Plural(len(in.Tests), "test report"))
	say("people", "%s, %s", ui.Plural(len(in.Approvals), "approval"), ui.Plural(len(in.Exceptions), "exception"))
	switch ch := in.Champion; {
	case !ch.Verified:
		say("champion", "not known: %s", ch.Reason)
	case ch.Seq == 0:
		say("champion", "none, channel %s has no record yet", ch.Channel)
	default:
		say("champion", "%s %s, channel %s record %d", ch.Version, artifact.Digest(ch.Digest).Short(), ch.Channel, ch.Seq)
	}
	if n := len(in.VerdictChain.Missing); n > 0 {
		say("verdicts", "%s missing from the chain", ui.Plural(n, "verdict"))
	}
	all := slices.Concat(in.Signatures, in.Attestations)
	for _, ok := range []bool{true, false} {
		head := "counts"
		if !ok {
			head = "does not count"
		}
		for i, a := range slices.DeleteFunc(slices.Clone(all), func(a input.Attestation) bool { return a.Verified != ok }) {
			if i == 0 {
				c.UI.Say("%s", head)
			}
			name := evidence.NameOf(a.PredicateType)
			if name == a.PredicateType {
				name = fmt.Sprintf("%.60q", name)
			}
			says := a.Reason
			if ok {
				says = words(a.Signer.Name, a.Signer.Role, a.At)
			}
			c.UI.Say("  %-12s %s  %s", name, artifact.Digest(a.Bundle).Short(), plain(says))
		}
	}
	c.UI.Say("input digest %s", digest)
}

// words joins what says something: an empty text, or a label without its value, does not.
func words(list ...string) string {
	list = slices.DeleteFunc(list, func(s string) bool { return s == "" || strings.HasSuffix(s, " ") })
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}
