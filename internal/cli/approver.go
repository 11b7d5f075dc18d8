package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/people"
	"github.com/waybill-ml/waybill/policy/rego"
	"github.com/waybill-ml/waybill/policy/rego/box"
)

// waiver is an exception with the roles that may sign it in its environment.
type waiver struct {
	evidence.Exception
	roles []string
}

// said is what approve signs, as far as it decides who may sign it.
type said struct {
	what   string   // for people: "approves", "rejects", "waives a rule for"
	role   string   // "" for an exception
	env    string   // "" for any
	author bool     // an author may say it, too: a no
	waive  []string // roles that may waive in env; nil: not known here
}

// approval reads what an approval or exception says; false for other statements.
func approval(predicate any) (said, bool) {
	switch p := predicate.(type) {
	case evidence.Approval:
		if p.Rejects() {
			return said{what: "rejects", role: p.Role, env: p.Environment, author: true}, true
		}
		return said{what: "approves", role: p.Role, env: p.Environment}, true
	case evidence.Exception:
		return said{what: "waives a rule for", env: p.Environment}, true
	case *waiver:
		return said{what: "waives a rule for", env: p.Environment, waive: p.roles}, true
	}
	return said{}, false
}

// typed gives the predicate of an approval or exception as a value, so that what approve refuses attest refuses too.
func typed(predicateType string, raw json.RawMessage) (any, error) {
	switch predicateType {
	case evidence.TypeApproval:
		a, err := evidence.ParseApproval(raw)
		if err != nil {
			return nil, err
		}
		return *a, nil
	case evidence.TypeException:
		x, err := evidence.ParseException(raw)
		if err != nil {
			return nil, err
		}
		return *x, nil
	}
	return raw, nil
}

// mayApprove refuses, before anything is signed, what would not count: a role that trust does not give to the signer, and
// a yes by an author of the model. For an identity, whom only the certificate names, it is asked before anything is
// attached.
func (c *Call) mayApprove(ctx context.Context, doc *trust.Document, k author, s *subject, what said) error {
	if s.Ref.Digest == "" {
		c.UI.Field("resolved", "%s is %s", s.Ref, s.Desc.Digest)
	}
	if doc == nil {
		return nil
	}
	if g, ok := k.(*guest); ok {
		g.env = what.env
		// What is signed is logged for all to see, so what the token tells already is asked first.
		if err := c.notAuthor(ctx, doc, s, what, input.Signer{KeyID: "token", Subject: g.token.Subject}, "signed"); err != nil {
			return err
		}
		g.may = func(e *verify.Evidence) error {
			if err := mayWaive(what, e.KeyName, e.ApproverRoles, "attached"); err != nil {
				return err
			}
			return c.notAuthor(ctx, doc, s, what, input.Signer{KeyID: e.KeyID, Name: e.KeyName, Issuer: e.Certified.Issuer, Subject: e.Certified.Subject}, "attached")
		}
		return nil
	}
	e, ok := doc.Signer(k.KeyID())
	if !ok {
		return nil // warned about already
	}
	if what.role != "" && !slices.Contains(e.ApproverRoles, what.role) {
		return diag.New(diag.Verification, "trust document version %d lets key %s (%s) approve as %s, not as %s", doc.Version, k.KeyID()[:12], e.Name,
			orDash(e.ApproverRoles), what.role).Line("nothing was signed").Hint("waybill trust show --role approver")
	}
	if err := mayWaive(what, e.Name, e.ApproverRoles, "signed"); err != nil {
		return err
	}
	return c.notAuthor(ctx, doc, s, what, input.Signer{KeyID: e.ID, Name: e.Name}, "signed")
}

// mayWaive refuses an exception by somebody who has none of the roles that may waive rules in its environment.
func mayWaive(what said, name string, roles []string, done string) error {
	if what.waive == nil || slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(what.waive, r) }) {
		return nil
	}
	return diag.New(diag.Verification, "in environment %s rules are waived by %s; %s is %s", what.env, orDash(what.waive), name, orDash(roles)).
		Line("nothing was %s", done).Hint("waybill env show %s", what.env)
}

// notAuthor refuses an author's yes: who has signed a verified release of the digest, or is named in its configuration.
func (c *Call) notAuthor(ctx context.Context, doc *trust.Document, s *subject, what said, who input.Signer, done string) error {
	if what.author {
		return nil
	}
	in := input.Input{Artifact: input.Artifact{Digest: string(s.Desc.Digest)}, Model: input.Model{Authors: s.Authors}}
	raws, err := publish.Bundles(ctx, s.Place, s.Desc.Digest)
	if err != nil {
		return err
	}
	certs, err := c.certificates()
	if err != nil {
		return err
	}
	for _, raw := range raws {
		e, err := verify.Bundle(raw, doc, verify.Want{PredicateType: evidence.TypeRelease, Subject: s.Desc.Digest, Model: s.Name, AnyScope: true, Now: c.Env.Now(), Certificates: certs})
		if err != nil {
			continue // not a release that counts
		}
		r := input.Attestation{Verified: true, Subject: in.Artifact.Digest, Signer: input.Signer{KeyID: e.KeyID, Name: e.KeyName, Role: string(e.Role)}}
		if e.Certified != nil {
			r.Signer.Issuer, r.Signer.Subject = e.Certified.Issuer, e.Certified.Subject
		}
		in.Signatures = append(in.Signatures, r)
	}
	why := people.Author(in, who)
	if why == "" {
		return nil
	}
	return diag.New(diag.Verification, "an author never %s the own model: %s", what.what, why).Line("nothing was %s", done).
		Hint("somebody else has to: waybill trust show --role approver")
}

// environmentAtHand loads the signed environments for --env. Without a trust document, or without the file where no flag
// names it, there are none: nil.
func (c *Call) environmentAtHand() (*environments.Signed, error) {
	doc, err := c.trustAtHand()
	if err != nil || doc == nil {
		return nil, err
	}
	if _, err := os.Stat(c.Abs(c.String("environments"))); err != nil && !c.IsSet("environments") {
		c.UI.Why("no %s here: the gate checks what %s demands", environmentsSigned, c.String("env"))
		return nil, nil
	}
	return c.loadEnvironments(doc)
}

// roleDemanded warns about an approval in a role that the environment does not ask for; --env that is no environment is an
// error.
func (c *Call) roleDemanded(a evidence.Approval) error {
	if a.Environment == "" {
		return nil
	}
	s, err := c.environmentAtHand()
	if err != nil || s == nil {
		return err
	}
	e := s.Document.Environments[a.Environment]
	if !slices.Contains(e.Approvals.Roles, a.Role) && a.Role != e.PrivacyRole {
		c.UI.Warn("environment %s demands approvals as %s, not as %s", a.Environment, orDash(e.Approvals.Roles), a.Role)
	}
	if m := e.MaxApprovalAgeDays; m > 0 && a.Expires.Sub(a.At) > time.Duration(m)*24*time.Hour && !a.Rejects() {
		c.UI.Warn("environment %s counts approvals for %d days", a.Environment, m)
	}
	return nil
}

// waivable refuses an exception that would have no effect in its environment: the rule is not in its pinned policy, is
// mandatory or may not be waived there, or it would live too long.
func (c *Call) waivable(ctx context.Context, x evidence.Exception) (*waiver, error) {
	doc, err := c.loadTrust()
	if err != nil {
		return nil, err
	}
	s, err := c.loadEnvironments(doc)
	if err != nil {
		return nil, err
	}
	b, err := c.fetchPolicy(ctx, s, x.Environment)
	if err != nil {
		return nil, err
	}
	var rules []rego.RuleInfo
	if c.Env.Box != nil {
		d, err := box.New(*c.Env.Box, b, box.Limits{}).Describe(ctx)
		if err != nil {
			return nil, diag.Wrap(diag.Failure, err, "the policy of environment %s", x.Environment)
		}
		rules = d.Rules
	} else {
		p, err := rego.Compile(ctx, b)
		if err != nil {
			return nil, diag.Wrap(diag.Failure, err, "the policy of environment %s", x.Environment)
		}
		rules = p.Rules()
	}
	var ids []string
	at := -1
	for i, r := range rules {
		ids = append(ids, r.ID)
		if r.ID == x.Rule {
			at = i
		}
	}
	may := s.Document.Environments[x.Environment].Exceptions
	switch {
	case at < 0:
		e := diag.New(diag.NotFound, "the policy of environment %s, %s, has no rule %s", x.Environment, policyName(b), x.Rule)
		if near := diag.Nearest(x.Rule, ids); near != "" {
			return nil, e.Hint("did you mean --exception %s?", near)
		}
		return nil, e.Hint("waybill policy list")
	case rules[at].Mandatory:
		return nil, diag.New(diag.Verification, "rule %s is mandatory: nobody waives it", x.Rule).Line("nothing was signed").Hint("waybill policy explain %s", x.Rule)
	case !slices.Contains(may.Rules, x.Rule):
		return nil, diag.New(diag.Verification, "environment %s lets rule %s not be waived; it lets %s", x.Environment, x.Rule, orDash(may.Rules)).
			Line("nothing was signed").Hint("waybill env show %s", x.Environment)
	case may.MaxDays > 0 && x.Expires.Sub(x.At) > time.Duration(may.MaxDays)*24*time.Hour:
		return nil, diag.New(diag.Verification, "environment %s lets an exception live %d days at most", x.Environment, may.MaxDays).
			Line("nothing was signed").Hint("--expires %dd", may.MaxDays)
	}
	return &waiver{x, may.Roles}, nil
}

// heading writes a list for a sentence.
func heading(n int, roles []string) string {
	s := fmt.Sprintf("%d people", n)
	if n == 1 {
		s = "1 person"
	}
	if len(roles) > 0 {
		s += ", with " + strings.Join(roles, " and ") + " among them"
	}
	return s
}
