package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/gate"
)

// digestRef is the reference by digest, which the next command takes.
func digestRef(ref string, d artifact.Digest) string {
	if name, _, ok := strings.Cut(ref, "@"); ok {
		return name + "@" + string(d)
	}
	slash := strings.LastIndex(ref, "/")
	if i := strings.LastIndex(ref, ":"); i > slash {
		ref = ref[:i]
	}
	return ref + "@" + string(d)
}

// gateColumns is the width that the report keeps to, references and commands excepted: those are for copying.
const gateColumns = 100

// reportDecision tells the decision on stderr.
func (c *Call) reportDecision(o *gate.Outcome, out gateJSON, attachErr error) {
	u, d := c.UI, o.Decision
	basis := fmt.Sprintf("channel %s, no record yet", o.Basis.Channel)
	if o.Basis.Seq > 0 {
		basis = fmt.Sprintf("channel %s seq %d (%s)", o.Basis.Channel, o.Basis.Seq, o.Basis.Champion.Short())
	}
	u.Say("environment %s  policy %s  basis %s", out.Environment, policyName(o.Policy.Bundle()), basis)
	u.Say("")
	failed := decision.IDs(d.Violations)
	switch {
	case d.Allow:
		u.Say("  %s  %d rules", u.Err.Green("ALLOWED"), len(d.Rules))
	case len(d.Rules) == 0:
		u.Say("  %s  no rule could be evaluated", u.Err.Red("DENIED"))
	default:
		u.Say("  %s  %d of %d rules", u.Err.Red("DENIED"), len(failed), len(d.Rules))
	}
	if d.Error != "" {
		c.sayFolded("  error: ", d.Error)
	}
	c.reportErrors(d)
	for _, g := range o.Chain.Missing {
		c.sayFolded("  "+u.Err.Yellow("broken chain")+"  ", fmt.Sprintf("the verdict sha256:%s is not attached any more; sha256:%s came after it", g.Digest.Short(), g.By.Short()))
	}
	c.reportResults(d.Violations, o, out, u.Err.Red)
	c.reportResults(d.Warnings, o, out, u.Err.Yellow)
	c.reportResults(d.Exceptions, o, out, u.Err.Yellow)
	u.Say("")
	c.sayFolded("  ", tally(d))
	switch {
	case attachErr != nil:
		u.Say("  The verdict could %s be attached.", u.Err.Red("NOT"))
	case out.Verdict != "":
		u.Say("  The verdict is attached: %s", out.Verdict)
		if d.Allow {
			u.Say("  It counts until %s.", out.NotAfter.Format("2006-01-02 15:04 UTC"))
		}
	case out.Out != "":
		u.Say("  The verdict is in %s and not attached.", out.Out)
	default:
		u.Say("  Dry run: nothing was signed.")
	}
}

// reportErrors tells the rules that could not be evaluated and are told nowhere else.
func (c *Call) reportErrors(d decision.Decision) {
	told := decision.IDs(d.Violations)
	for _, r := range d.Rules {
		if r.Status == decision.Errored && !slices.Contains(told, r.ID) {
			c.UI.Say("")
			c.sayFolded("  "+c.UI.Err.Red(fmt.Sprintf("%-9s", r.ID))+"  ", fmt.Sprintf("%-8s  could not be evaluated: %s", r.Severity, r.Detail))
		}
	}
}

// tally counts in words: "41 rules passed, 1 skipped, 1 warning (CARD-001)."
func tally(d decision.Decision) string {
	count := map[decision.Status]int{}
	for _, r := range d.Rules {
		count[r.Status]++
	}
	line := ui.Plural(count[decision.Pass], "rule") + " passed"
	if n := count[decision.Skipped]; n > 0 {
		line += fmt.Sprintf(", %d skipped", n)
	}
	if w := decision.IDs(d.Warnings); len(w) > 0 {
		line += fmt.Sprintf(", %s (%s)", ui.Plural(len(w), "warning"), strings.Join(w, ", "))
	}
	if x := decision.IDs(d.Exceptions); len(x) > 0 {
		line += fmt.Sprintf(", %s (%s)", ui.Plural(len(x), "exception"), strings.Join(x, ", "))
	}
	return line + "."
}

// sayFolded prints text behind a prefix, with what does not fit on a line below its beginning.
func (c *Call) sayFolded(prefix, text string) {
	indent := ui.Width(prefix)
	for i, l := range ui.Fold(text, gateColumns-indent) {
		if i > 0 {
			prefix = strings.Repeat(" ", indent)
		}
		c.UI.Say("%s%s", prefix, l)
	}
}

func (c *Call) reportResults(rs []decision.Result, o *gate.Outcome, out gateJSON, colour func(string) string) {
	said := map[string]string{}
	for _, a := range slices.Concat(o.Input.Signatures, o.Input.Attestations) {
		s := evidence.NameOf(a.PredicateType) + ", not verified"
		if a.Verified {
			s = evidence.NameOf(a.PredicateType) + " by " + a.Signer.Name
			if day, _, ok := strings.Cut(a.At, "T"); ok {
				s += ", " + day
			}
		}
		said[a.Bundle] = s
	}
	for i, r := range rs {
		if i == 0 || rs[i-1].ID != r.ID {
			c.UI.Say("")
		}
		c.sayFolded("  "+colour(fmt.Sprintf("%-9s", r.ID))+"  "+fmt.Sprintf("%-8s  ", r.Severity), r.Message)
		for _, e := range r.Evidence {
			who := ""
			if s := said[e]; s != "" {
				who = " (" + s + ")"
			}
			c.UI.Say("  %-9s  evidence  sha256:%s%s", "", artifact.Digest(e).Short(), who)
		}
		if i+1 == len(rs) || rs[i+1].ID != r.ID {
			c.UI.Say("  %-9s  fix       %s", "", remedy(r.Remediation, out))
		}
	}
}

// remedy fills in what is known here.
func remedy(s string, out gateJSON) string {
	words := strings.Fields(s)
	for i, w := range words {
		switch w {
		case "REF":
			words[i] = digestRef(out.Ref, out.Digest)
		case "ENV":
			words[i] = out.Environment
		case "CHAMPION":
			words[i] = digestRef(out.Ref, out.Basis.Champion)
		}
	}
	return strings.Join(words, " ")
}

// deniedError is what ends a denial: the rules in one line, since the report has told them in full.
func deniedError(o *gate.Outcome, rq gate.Request, attachErr error) error {
	ids := decision.IDs(o.Decision.Violations)
	cause := fmt.Errorf("policy denies %s %s: %s", o.Input.Model.Name, o.Input.Model.Version, strings.Join(ids, ", "))
	if o.Decision.Error != "" {
		cause = fmt.Errorf("the policy could not be evaluated: %s", o.Decision.Error)
	}
	if attachErr != nil {
		cause = fmt.Errorf("%w; the denial could not be attached: %w", cause, attachErr)
	}
	e := diag.Wrap(diag.Denied, cause, "gate for %s", rq.Environment)
	if len(ids) > 0 {
		e.Hint("waybill policy explain %s", ids[0])
	}
	return e
}

// warnedError is what ends a permission under --fail-on-warn. The verdict stays what it is: the policy's own answer.
func warnedError(o *gate.Outcome, rq gate.Request) error {
	ids := decision.IDs(o.Decision.Warnings)
	return diag.New(diag.Denied, "gate for %s: allowed with %s (%s), and --fail-on-warn was given", rq.Environment, ui.Plural(len(ids), "warning"), strings.Join(ids, ", ")).
		Hint("waybill policy explain %s", ids[0])
}
