package trust

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// MaxRules bounds the rules of a document, MaxRequire the signers that one may demand.
const (
	MaxRules   = 64
	MaxRequire = 16
)

// maxAge bounds a rule's age: a hundred years.
const maxAge = 100 * 365 * 24 * time.Hour

// CustomRoles are the roles that a document may let sign statements of types that Waybill does not know. What gates,
// deployers, devices and roots say is acted upon; they say nothing that Waybill does not understand.
func CustomRoles() []Role { return []Role{RolePublisher, RoleEvaluator, RoleApprover} }

// MaySign lists the roles whose keys may sign a predicate type at all. For a custom type a document must allow it too
// (Document.RolesFor); nil: nobody may.
func MaySign(predicateType string) []Role {
	if r := RolesFor(predicateType); r != nil {
		return r
	}
	if evidence.CustomType(predicateType) == nil {
		return CustomRoles()
	}
	return nil
}

// RolesFor is who may sign a predicate type under this document: the closed table, and for a custom type the roles that
// its rule names. Without a rule nobody may.
func (d *Document) RolesFor(predicateType string) []Role {
	if r := RolesFor(predicateType); r != nil {
		return r
	}
	if r, ok := d.Rule(predicateType); ok {
		return r.Roles
	}
	return nil
}

// Rule is the rule for a predicate type.
func (d *Document) Rule(predicateType string) (Rule, bool) {
	for _, r := range d.Rules {
		if r.PredicateType == predicateType {
			return r, true
		}
	}
	return Rule{}, false
}

// Age is the parsed MaxAge, 0 when there is no limit.
func (r Rule) Age() time.Duration {
	d, err := ParseAge(r.MaxAge) // checked by Validate
	if err != nil {
		return 0
	}
	return d
}

// ParseAge reads an age: a whole number of days (90d), hours (12h) or minutes (30m). "" is 0, no limit.
func ParseAge(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	unit := map[byte]time.Duration{'d': 24 * time.Hour, 'h': time.Hour, 'm': time.Minute}[s[len(s)-1]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if unit == 0 || err != nil || n == 0 || s[0] == '+' || s[0] == '0' || n > uint64(maxAge/unit) {
		return 0, diag.Errorf("age %q is not a number of days, hours or minutes such as 90d, 12h, 30m", s)
	}
	return time.Duration(n) * unit, nil
}

// governed are the types that a rule may be about: what is said about an artifact. Channel records, trust documents and the
// like have rules of their own in code.
func governed(predicateType string) bool {
	switch predicateType {
	case evidence.TypeChannel, evidence.TypeStatus, evidence.TypeDeployment, evidence.TypeDecision, evidence.TypeTrust, evidence.TypeEnvironments, evidence.TypePolicy:
		return false
	}
	return true
}

func (d *Document) validateRules() error {
	if len(d.Rules) > MaxRules {
		return diag.Errorf("%d rules are more than %d", len(d.Rules), MaxRules)
	}
	seen := map[string]bool{}
	for i, r := range d.Rules {
		at := fmt.Sprintf("rules[%d]", i)
		if seen[r.PredicateType] {
			return diag.Errorf("%s: a second rule for %s", at, r.PredicateType)
		}
		seen[r.PredicateType] = true
		if err := d.validateRule(r); err != nil {
			return diag.Errorf("%s (%s): %w", at, evidence.NameOf(r.PredicateType), err)
		}
	}
	if p := d.Environments; p != nil {
		if p.Version < 1 {
			return diag.Errorf("environments: version %d is below 1", p.Version)
		}
		if p.Digest != "" {
			if _, err := artifact.ParseDigest(string(p.Digest)); err != nil {
				return diag.Errorf("environments: %w", err)
			}
		}
	}
	return nil
}

func (d *Document) validateRule(r Rule) error {
	known := RolesFor(r.PredicateType)
	switch {
	case known != nil && len(r.Roles) != 0:
		return diag.Errorf("roles are fixed for this type: %v", known)
	case known == nil && len(r.Roles) == 0:
		return errors.New("roles are missing: a custom type needs one of publisher, evaluator, approver")
	case !governed(r.PredicateType):
		return errors.New("this type takes no rule")
	case r.Require < 0 || r.Require > MaxRequire:
		return diag.Errorf("require %d is not between 0 and %d", r.Require, MaxRequire)
	case r.Require > 1 && r.PredicateType == evidence.TypeVSA:
		return errors.New("require is above 1: a channel record carries one verdict")
	}
	if known == nil {
		if err := evidence.CustomType(r.PredicateType); err != nil {
			return err
		}
		known = r.Roles
	}
	for i, role := range r.Roles {
		if !slices.Contains(CustomRoles(), role) || slices.Contains(r.Roles[:i], role) {
			return diag.Errorf("roles: %q is not one of %v, or given twice", role, CustomRoles())
		}
	}
	if _, err := ParseAge(r.MaxAge); err != nil {
		return diag.Errorf("maxAge: %w", err)
	}
	for i, id := range r.Signers {
		if err := d.validateSigner(id, known); err != nil {
			return diag.Errorf("signers[%d]: %w", i, err)
		}
		if slices.Contains(r.Signers[:i], id) {
			return diag.Errorf("signers[%d]: %q is given twice", i, short(id))
		}
	}
	if n := len(r.Signers); n > 0 && r.Require > n {
		return diag.Errorf("require %d of %d signers", r.Require, n)
	}
	return nil
}

func (d *Document) validateSigner(id string, roles []Role) error {
	k, ok := d.Signer(id)
	switch {
	case !ok:
		return diag.Errorf("%q is neither a key nor an identity of the document", short(id))
	case !slices.Contains(roles, k.Role):
		return diag.Errorf("key %s (%s) is %s key, which may not sign this type", short(id), k.Name, k.Role.Article())
	}
	return nil
}

// validName keeps what people read on one line and in view.
func validName(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if len(s) > 200 || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return diag.Errorf("%.40q is longer than 200 bytes or holds an unprintable character", s)
	}
	return nil
}

// Ready tells whether a key may sign something new: Allows, the predicate's rule, and not retired. What was signed in
// time goes on to verify (oci/verify looks at its time).
func (d *Document) Ready(predicateType string, a Ask) error {
	if err := d.Allows(a); err != nil {
		return err
	}
	k, _ := d.Signer(a.KeyID)
	if k.Until != nil && !a.At.Before(*k.Until) {
		return diag.Errorf("%w: key %s (%s), since %s", ErrRetired, short(k.ID), k.Name, k.Until.Format(time.RFC3339))
	}
	if !slices.Contains(d.RolesFor(predicateType), k.Role) {
		return diag.Errorf("%w: version %d lets no %s key sign %s", ErrRole, d.Version, k.Role, evidence.NameOf(predicateType))
	}
	if r, ok := d.Rule(predicateType); ok && len(r.Signers) > 0 && !slices.Contains(r.Signers, k.ID) {
		return diag.Errorf("%w: the rule for %s of version %d names %d signers, key %s (%s) is none of them", ErrSigner,
			evidence.NameOf(predicateType), d.Version, len(r.Signers), short(k.ID), k.Name)
	}
	return nil
}

// More reasons why a key may not speak.
var (
	ErrRetired = errors.New("key is retired")
	ErrSigner  = errors.New("key is not among the signers of the rule")
)
