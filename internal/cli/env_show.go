package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/policy/environments"
)

// showEnvironment prints what an environment demands, and below each demand that somebody has to act for the command that
// meets it. What is not demanded has no line.
func showEnvironment(u *ui.UI, name string, e environments.Environment) {
	row := func(label, format string, args ...any) {
		u.Data("  %-12s %s", label, plain(fmt.Sprintf(format, args...)))
	}
	how := func(format string, args ...any) { u.Data("  %-12s   %s", "", u.Out.Dim(fmt.Sprintf(format, args...))) }
	u.Data("\n%s", u.Out.Bold(name))
	row("models", "waybill:%s/<model>", e.Namespace)
	if e.Registry != "" {
		row("registry", "%s", e.Registry)
	}
	row("channel", "%s", e.Channel)
	signed := ""
	if e.Policy.Signed {
		signed = ", signed by a policy key"
	}
	row("policy", "%s (%s)%s", e.Policy.Digest, e.Policy.Source, signed)
	row("profile", "%s", e.Profile)
	how("waybill policy list   shows each rule's level in it")
	if e.Trust.MinVersion > 1 {
		row("trust", "version %d or later", e.Trust.MinVersion)
	}
	row("release", "signed by %s", ui.Plural(e.Signers, "publisher"))
	how("waybill sign REF --key publisher.key")
	if e.After != "" {
		s := "the gate of " + e.After + " has let it pass"
		if e.SoakDays > 0 {
			s += fmt.Sprintf(", %s ago or longer", ui.Plural(e.SoakDays, "day"))
		}
		if e.MaxVerdictAgeDays > 0 {
			s += ", at most " + ui.Plural(e.MaxVerdictAgeDays, "day") + " ago"
		}
		row("after", "%s", s)
		how("waybill gate REF --env %s --key gate.key", e.After)
	}
	for _, m := range e.Metrics {
		bound, v := "at least", m.Min
		if v == nil {
			bound, v = "at most", m.Max
		}
		s := fmt.Sprintf("%s on %s %s %g, at most %g worse than the champion", m.Name, m.Slice, bound, *v, m.MaxRegression)
		if m.MinN > 0 {
			s += fmt.Sprintf(", on %d rows or more", m.MinN)
		}
		if m.Confidence {
			s += ", for the worse end of the confidence interval"
		}
		row("metric", "%s", s)
	}
	list := func(label, format string, l []string) {
		if len(l) > 0 {
			row(label, format, strings.Join(l, ", "))
		}
	}
	list("slices", "each metric on %s too", e.Slices)
	for _, g := range e.SliceGaps {
		row("fairness", "%s differs by at most %g between slices", g.Name, g.Max)
	}
	if e.Shadow {
		row("shadow", "figures of a shadow or canary run")
	}
	if len(e.Metrics)+len(e.Slices)+len(e.SliceGaps) > 0 || e.Shadow {
		how("waybill attest REF --type evaluation --predicate eval.json --key evaluator.key")
	}
	var types []string
	for _, t := range e.Evidence {
		if typ, ok := evidence.TypeByName(t); ok {
			t = evidence.NameOf(typ)
		}
		types = append(types, t)
	}
	row("evidence", "%s", orNone(types))
	list("tests", "passed: %s", e.Tests)
	list("model card", "says %s", e.Sections)
	for _, c := range e.DeviceClasses {
		s := ui.Bytes(int64(c.Memory)) + " of linear memory"
		if c.Storage > 0 {
			s += ", " + ui.Bytes(int64(c.Storage)) + " on disk"
		}
		if c.LatencyMs > 0 {
			s += fmt.Sprintf(", %g ms for a prediction at p99", c.LatencyMs)
		}
		if c.Runtime != "" {
			s += ", waybill-edge " + c.Runtime
		}
		row("class", "%s, %s", c.Name, s)
	}
	row("licenses", "models %s; data %s", orNone(e.Licenses.Models), orNone(e.Licenses.Datasets))
	list("", "components %s", e.Licenses.Components)
	for _, b := range e.Builders {
		row("builder", "%s, SLSA level %d, provenance signed by %s", b.ID, b.Level, orAny(b.Signers))
	}
	list("sources", "%s", e.Sources)
	list("parameters", "may be set: %s", e.Parameters)
	list("formats", "%s", e.Formats)
	for _, x := range []struct {
		label, what string
		days        int
	}{{"evaluation", "", e.MaxEvaluationAgeDays}, {"model", " since training", e.MaxModelAgeDays}, {"data", " since their newest record", e.MaxDataAgeDays},
		{"approval", "", e.MaxApprovalAgeDays}, {"scan", "", e.Scan.MaxAgeDays}, {"scan", " of its database", e.Scan.MaxDatabaseAgeDays}} {
		if x.days > 0 {
			row("age", "%s: at most %s%s", x.label, ui.Plural(x.days, "day"), x.what)
		}
	}
	row("approvals", "%d, roles %s", e.Approvals.Minimum, orNone(e.Approvals.Roles))
	if e.Approvals.Minimum > 0 || len(e.Approvals.Roles) > 0 {
		how("waybill approve REF --role %s --reason TEXT --key approver.key", firstOr(e.Approvals.Roles, "ROLE"))
	}
	if e.PrivacyRole != "" {
		row("privacy", "personal data need the approval of %s", e.PrivacyRole)
	} else {
		row("privacy", "no personal data")
	}
	if e.MaxRisk != "" {
		row("risk", "%s or lower", e.MaxRisk)
	}
	if len(e.Exceptions.Rules) > 0 {
		s := ""
		if e.Exceptions.MaxDays > 0 {
			s = ", for at most " + ui.Plural(e.Exceptions.MaxDays, "day")
		}
		row("exceptions", "%s may waive %s%s", orNone(e.Exceptions.Roles), strings.Join(e.Exceptions.Rules, ", "), s)
	}
	for _, r := range slices.Sorted(maps.Keys(e.Enforce)) {
		row("lowered", "%s to %s", r, e.Enforce[r])
	}
	for _, k := range slices.Sorted(maps.Keys(e.Data)) {
		row("data", "%s = %v", k, e.Data[k])
	}
	row("verdicts", "good for %d days", e.NotAfterDays)
	if len(e.Targets) > 0 {
		row("targets", "%s", ui.Plural(len(e.Targets), "target"))
	}
}

func orAny(s []string) string {
	if len(s) == 0 {
		return "anyone who may"
	}
	return strings.Join(s, ", ")
}

func firstOr(s []string, other string) string {
	if len(s) == 0 {
		return other
	}
	return s[0]
}
