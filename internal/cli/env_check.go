package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy/targets"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/rego"
)

// readEnvironmentsYAML parses a file of the user, with the files of dataFiles beside it.
func (c *Call) readEnvironmentsYAML(path string) (*environments.Document, error) {
	raw, err := readSmall(c.Abs(path), environments.MaxBytes)
	if err != nil {
		return nil, fileError(err, "environments file", path, "waybill env init")
	}
	return environments.ParseTargets(path, raw, func(name string) ([]byte, error) {
		root, err := os.OpenRoot(filepath.Dir(c.Abs(path))) // a link that leads out of the folder is refused
		if err != nil {
			return nil, err
		}
		defer root.Close()
		f, err := root.Open(filepath.FromSlash(name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no file %s beside %s", name, filepath.Base(path))
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readLimited(f, environments.MaxBytes)
	}, func(list []map[string]any) error {
		_, err := targets.Parse(list, targetKinds())
		return err
	})
}

// readLimited reads a whole file of at most limit bytes.
func readLimited(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", filepath.Base(f.Name()))
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", filepath.Base(f.Name()), limit)
	}
	return b, err
}

// openEnvironments reads environments in either form, to compare them: YAML, or a signed file, which is verified where a trust
// document is at hand. One that does not verify is warned of.
func (c *Call) openEnvironments(path string) (d *environments.Document, signed bool, err error) {
	raw, err := readSmall(c.Abs(path), 2*environments.MaxBytes*environments.MaxSignatures)
	if err != nil {
		return nil, false, fileError(err, "environments file", path, "waybill env init")
	}
	if !strings.HasPrefix(strings.TrimSpace(string(raw)), "{\"") {
		d, err = c.readEnvironmentsYAML(path)
		return d, false, err
	}
	if d, err = environments.Unverified(raw); err != nil {
		return nil, true, diag.Wrap(diag.Usage, err, "%s", path)
	}
	doc, err := c.trustAtHand()
	if err != nil {
		return nil, true, err
	}
	// What is compared may be half signed still, or signed long ago: it is said, and no reason not to look at it.
	if doc == nil {
		c.UI.Warn("the signatures of %s were not checked: there is no trust document here (--trust FILE)", path)
	} else if _, err := environments.Verify(raw, doc, c.Env.Now()); err != nil {
		c.UI.Warn("%s does not verify under trust document version %d: %v", path, doc.Version, err)
	}
	return d, true, nil
}

// checkEnvironments refuses what would be signed in vain, and warns of what is odd: signatures of roots are expensive. old is what
// stands in the output file, nil for nothing.
func (c *Call) checkEnvironments(ctx context.Context, d, old *environments.Document) error {
	doc, err := c.trustAtHand()
	if err != nil {
		return err
	}
	if err := risesFrom(d, old); err != nil {
		return err
	}
	if doc != nil {
		if p := doc.Environments; p != nil && d.Version < p.Version {
			return diag.New(diag.Usage, "environments version %d is below version %d, which trust document version %d pins: nobody would accept it", d.Version, p.Version, doc.Version).
				Hint("raise version to %d or more", p.Version+1)
		}
		if days := int(doc.Expires.Sub(c.Env.Now()) / (24 * time.Hour)); days < 30 {
			c.UI.Warn("trust document version %d expires in %s; after that nothing verifies", doc.Version, ui.Plural(max(days, 0), "day"))
		}
	}
	for _, name := range d.Names() {
		e := d.Environments[name]
		if doc != nil {
			c.checkAgainstTrust(doc, name, e)
		}
		c.checkMetrics(name, e)
		if err := c.checkAgainstPolicy(ctx, doc, d, name); err != nil {
			return err
		}
	}
	return nil
}

// risesFrom refuses to sign other content under a version that was signed already: two documents of one version are a fork.
func risesFrom(d, old *environments.Document) error {
	if old == nil || d.Version > old.Version {
		return nil
	}
	x, err := d.Digest()
	if err != nil {
		return err
	}
	y, err := old.Digest()
	if err != nil {
		return err
	}
	if x == y {
		return nil // another root signs the same
	}
	return diag.New(diag.Usage, "version %d is signed already, with other content", old.Version).
		Line("version rises with every change, so that an older document can be told from the one in force").
		Hint("set version: %d, then sign again", old.Version+1).Hint("waybill env diff %s %s", environmentsSigned, environmentsYAML)
}

// checkAgainstTrust warns of demands that nobody could meet.
func (c *Call) checkAgainstTrust(doc *trust.Document, name string, e environments.Environment) {
	if e.Trust.MinVersion > doc.Version {
		c.UI.Warn("%s: trust.minVersion is %d, the trust document here is version %d", name, e.Trust.MinVersion, doc.Version)
	}
	held := map[string]int{}
	publishers := 0
	for _, k := range doc.Keys {
		switch {
		case doc.IsRevoked(k.ID):
		case k.Role == trust.RoleApprover:
			for _, r := range k.ApproverRoles {
				held[r]++
			}
		case k.Role == trust.RolePublisher:
			publishers++
		}
	}
	for _, i := range doc.Identities {
		switch {
		case doc.IsRevoked(i.ID):
		case i.Role == trust.RoleApprover:
			for _, r := range i.ApproverRoles {
				held[r]++
			}
		case i.Role == trust.RolePublisher:
			publishers++
		}
	}
	for _, r := range slices.Concat(e.Approvals.Roles, e.Exceptions.Roles, []string{e.PrivacyRole}) {
		if r != "" && held[r] == 0 {
			c.UI.Warn("%s: nobody in trust document version %d may approve as %s", name, doc.Version, r)
		}
	}
	if e.Signers > publishers {
		c.UI.Warn("%s: signers is %d, trust document version %d names %s", name, e.Signers, doc.Version, ui.Plural(publishers, "publisher"))
	}
	if len(e.Exceptions.Rules) > 0 && len(e.Exceptions.Roles) == 0 {
		c.UI.Warn("%s: exceptions.rules can be waived by nobody: exceptions.roles is empty", name)
	}
}

// checkMetrics warns of bounds on the wrong side, and of fractions that are no fractions.
func (c *Call) checkMetrics(name string, e environments.Environment) {
	fraction := []string{"accuracy", "balanced_accuracy", "roc_auc", "average_precision", "f1", "precision", "recall", "specificity", "jaccard"}
	loss := []string{"log_loss", "brier", "brier_score", "rmse", "mse", "mae", "mape", "max_error", "ece"}
	for _, m := range e.Metrics {
		switch {
		case slices.Contains(fraction, m.Name) && m.Max != nil:
			c.UI.Warn("%s: of %s more is better; max bounds it from above", name, m.Name)
		case slices.Contains(loss, m.Name) && m.Min != nil:
			c.UI.Warn("%s: of %s less is better; min bounds it from below", name, m.Name)
		case slices.Contains(fraction, m.Name) && (*m.Min > 1 || *m.Min <= 0):
			c.UI.Warn("%s: %s lies between 0 and 1; min is %g", name, m.Name, *m.Min)
		}
	}
}

// checkAgainstPolicy holds an environment against the policy that it pins, where that is at hand.
func (c *Call) checkAgainstPolicy(ctx context.Context, doc *trust.Document, d *environments.Document, name string) error {
	e := d.Environments[name]
	if doc == nil {
		doc = &trust.Document{}
	}
	b, err := c.findPolicy(ctx, &environments.Signed{Document: d, Trust: doc}, e.Policy, "")
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.UI.Warn("%s: rules and profile were not checked: %v", name, err)
		return nil
	}
	p, err := rego.Compile(ctx, b)
	if err != nil {
		return diag.Wrap(diag.Usage, err, "the policy of environment %s cannot be applied by a gate", name)
	}
	rules := map[string]rego.RuleInfo{}
	for _, r := range p.Rules() {
		rules[r.ID] = r
	}
	bad := func(key, format string, args ...any) error {
		err := diag.New(diag.Usage, "environments.%s.%s: %s", name, key, fmt.Sprintf(format, args...))
		return err.Hint("waybill policy list %s", map[bool]string{true: "", false: e.Policy.Source}[e.Policy.Source == environments.Builtin])
	}
	if ps := p.Profiles(); !slices.Contains(ps, e.Profile) && (len(ps) > 0 || e.Profile != environments.DefaultProfile) {
		return bad("profile", "policy %s has no profile %q; it has: %s", policyName(b), e.Profile, orNone(ps))
	}
	for _, id := range slices.Sorted(maps.Keys(e.Enforce)) {
		switch r, ok := rules[id]; {
		case !ok:
			return bad("enforce."+id, "policy %s has no such rule%s", policyName(b), didYouMean(id, rules))
		case r.Mandatory:
			return bad("enforce."+id, "the rule is mandatory: nothing lowers it")
		}
	}
	for _, id := range e.Exceptions.Rules {
		switch r, ok := rules[id]; {
		case !ok:
			return bad("exceptions.rules", "policy %s has no rule %s%s", policyName(b), id, didYouMean(id, rules))
		case r.Mandatory:
			return bad("exceptions.rules", "%s is mandatory: nothing waives it", id)
		}
	}
	return nil
}

func didYouMean(id string, rules map[string]rego.RuleInfo) string {
	if near := diag.Nearest(strings.ToUpper(id), slices.Sorted(maps.Keys(rules))); near != "" {
		return ", did you mean " + near + "?"
	}
	return ""
}
