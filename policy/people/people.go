// Package people says who is who in a facts document: who the authors of a model are, whose approval counts for the
// environment and why another does not, and which exceptions have effect. The default policy says the same in Rego
// (policy/library/rego/people.rego), and decides; this is for whoever has to know before a gate is asked.
//
// Light: policy/input only. Functions of values; nothing is shared or mutable.
package people

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/policy/input"
)

// marks are the names that a text gives to somebody: "Ada <ada@example.com>" is the text, Ada and ada@example.com.
func marks(text string) []string {
	var out []string
	for _, p := range append([]string{text}, strings.Split(strings.TrimSuffix(strings.TrimSpace(text), ">"), "<")...) {
		if m := strings.ToLower(strings.TrimSpace(p)); m != "" {
			out = append(out, m)
		}
	}
	return out
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(m string) bool { return slices.Contains(b, m) })
}

func who(s input.Signer) []string { return append(marks(s.Name), marks(s.Subject)...) }

// Same tells whether two signers are one person: the same key or identity, or a name in common.
func Same(a, b input.Signer) bool { return a.KeyID == b.KeyID || overlap(who(a), who(b)) }

// Author tells why a signer is an author of the model: it has released this digest, or is named among its authors. ""
// when neither is so.
func Author(in input.Input, s input.Signer) string {
	for _, r := range in.Signatures {
		if r.Verified && r.Subject == in.Artifact.Digest && r.Signer.Role == "publisher" && Same(r.Signer, s) {
			return fmt.Sprintf("%s has signed the release (as %s)", name(s), name(r.Signer))
		}
	}
	for _, a := range in.Model.Authors {
		if overlap(marks(a), who(s)) {
			return fmt.Sprintf("%s is named as an author (%s)", name(s), a)
		}
	}
	return ""
}

func name(s input.Signer) string { return cmp.Or(s.Name, s.Subject, s.KeyID) }

// Approval is one that is attached, with why it does not count; Why is empty when it does.
type Approval struct {
	input.Approval
	Counts bool     `json:"counts"`
	Why    []string `json:"why"`
}

// Role is a role that the environment demands, and the names of who fill it.
type Role struct {
	Role string   `json:"role"`
	By   []string `json:"by"`
}

// Tally is what the approvals of a digest come to in an environment.
type Tally struct {
	Approvals []Approval       `json:"approvals"`
	Rejected  []input.Approval `json:"rejected"` // noes that stand: one denies
	People    int              `json:"people"`   // different people whose approval counts
	Minimum   int              `json:"minimum"`  // demanded
	Roles     []Role           `json:"roles"`    // demanded
	Enough    bool             `json:"enough"`   // nothing is missing, and nobody rejects
}

// Count tallies the approvals in a document for its environment at its time.
func Count(in input.Input) Tally {
	t := Tally{Approvals: []Approval{}, Rejected: []input.Approval{}, Minimum: in.Environment.Approvals.Minimum, Roles: []Role{}}
	var yes []input.Approval
	for _, a := range in.Approvals {
		if a.Rejected {
			if stands(in, a) {
				t.Rejected = append(t.Rejected, a)
			}
			continue
		}
		x := Approval{Approval: a, Why: why(in, a)}
		if x.Counts = len(x.Why) == 0; x.Counts {
			yes = append(yes, a)
		}
		t.Approvals = append(t.Approvals, x)
	}
	t.People = distinct(yes)
	t.Enough = t.People >= t.Minimum && len(t.Rejected) == 0
	for _, r := range in.Environment.Approvals.Roles {
		role := Role{Role: r, By: []string{}}
		for _, a := range yes {
			if a.Role == r {
				role.By = append(role.By, name(a.Signer))
			}
		}
		slices.Sort(role.By)
		role.By = slices.Compact(role.By)
		t.Enough = t.Enough && len(role.By) > 0
		t.Roles = append(t.Roles, role)
	}
	return t
}

func here(in input.Input, env string) bool { return env == "" || env == in.Environment.Name }

// valid tells whether trust stands behind what an approver says, for this environment.
func valid(in input.Input, a input.Approval) bool {
	return a.Granted && a.Signer.Role == "approver" && here(in, a.Environment)
}

func inForce(at, expires, now time.Time) bool { return !at.After(now) && now.Before(expires) }

func why(in input.Input, a input.Approval) []string {
	out := []string{}
	now := in.Context.Time
	if !a.Granted {
		out = append(out, "trust does not give the signer this role")
	}
	if a.Signer.Role != "approver" {
		out = append(out, "the signer is no approver")
	}
	if !here(in, a.Environment) {
		out = append(out, "it is for environment "+a.Environment)
	}
	if !now.Before(a.Expires) {
		out = append(out, "it expired at "+stamp(a.Expires))
	}
	if a.At.After(now) {
		out = append(out, fmt.Sprintf("it is dated %s, which is in the future", stamp(a.At)))
	}
	if Author(in, a.Signer) != "" {
		out = append(out, "the signer is an author of the model")
	}
	if slices.ContainsFunc(in.Approvals, func(r input.Approval) bool {
		return r.Rejected && here(in, r.Environment) && Same(a.Signer, r.Signer) && !r.At.Before(a.At)
	}) {
		out = append(out, "the same person has rejected it since")
	}
	return out
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// stands tells whether a no denies: until it ends, or the same person says yes in the same role later. One that is dated
// in the future stands, too.
func stands(in input.Input, r input.Approval) bool {
	return valid(in, r) && in.Context.Time.Before(r.Expires) && !slices.ContainsFunc(in.Approvals, func(a input.Approval) bool {
		return !a.Rejected && valid(in, a) && inForce(a.At, a.Expires, in.Context.Time) && a.Role == r.Role && Same(a.Signer, r.Signer) && a.At.After(r.At)
	})
}

// distinct counts people. Being one carries over: two keys with one name, and another name for one of the keys, are one.
func distinct(as []input.Approval) int {
	group := make([]int, len(as))
	for i := range group {
		group[i] = i
	}
	for i := range as {
		for j := range i {
			if group[i] != group[j] && Same(as[i].Signer, as[j].Signer) {
				from, to := group[i], group[j]
				for k := range group {
					if group[k] == from {
						group[k] = to
					}
				}
			}
		}
	}
	slices.Sort(group)
	return len(slices.Compact(group))
}

// Waives tells why an exception has no effect in the document's environment at its time; "" when it waives its rule,
// unless that rule is mandatory, which only the policy knows.
func Waives(in input.Input, x input.Exception) string {
	e := in.Environment.Exceptions
	switch {
	case !slices.Contains(e.Rules, x.Rule):
		return fmt.Sprintf("%s lets rule %s not be waived", in.Environment.Name, x.Rule)
	case !slices.ContainsFunc(x.Roles, func(r string) bool { return slices.Contains(e.Roles, r) }):
		return fmt.Sprintf("%s may not waive rules in %s", name(x.Signer), in.Environment.Name)
	case strings.TrimSpace(x.Reason) == "":
		return "it gives no reason"
	case !here(in, x.Environment):
		return "it is for environment " + x.Environment
	case !inForce(x.At, x.Expires, in.Context.Time):
		return fmt.Sprintf("it counts from %s to %s", stamp(x.At), stamp(x.Expires))
	case e.MaxDays > 0 && x.Expires.Sub(x.At) > time.Duration(e.MaxDays)*24*time.Hour:
		return fmt.Sprintf("it lives longer than the %d days that %s allows", e.MaxDays, in.Environment.Name)
	}
	if w := Author(in, x.Signer); w != "" {
		return w
	}
	return ""
}
