package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Asked is one request with where it came from.
type Asked struct {
	Where string
	Raw   []byte
}

// Rules of an operator for requests.
type Rules struct {
	Classes []string // that devices may have; nil: any
	Labels  *Table   // nil: none
	Secrets *Table   // credentials: registry, username, password, token; nil: none
	// Registry is whom credentials without a column of that name are for.
	Registry string
	// Partial allows rows of the tables for devices that have not asked yet.
	Partial bool
}

// Enrolled is one device with what it is given.
type Enrolled struct {
	Device
	Where      string
	Given      map[string]string // labels besides those that it has itself
	Credential *Credential       // its own; nil: none
}

// Problem is why a request is not served.
type Problem struct {
	Where string `json:"where"`
	Why   string `json:"why"`
}

// Enroll holds requests against the rules and the devices that are registered already. What it returns is ordered by id;
// problems are ordered as they were found. A request that is there twice counts once; two that differ are both refused,
// since one of them is by somebody else with the same key: a copied disk image.
func Enroll(asked []Asked, known Register, rules Rules) (out []Enrolled, bad []Problem) {
	type one struct {
		r     *Request
		where string
	}
	byID := map[string]one{}
	refused := map[string]bool{}
	note := func(where, format string, args ...any) {
		bad = append(bad, Problem{where, fmt.Sprintf(format, args...)})
	}
	for _, a := range asked {
		r, err := ParseRequest(a.Raw)
		if err != nil {
			note(a.Where, "%v", err)
			continue
		}
		was, twice := byID[r.Device]
		switch {
		case !twice:
			byID[r.Device] = one{r, a.Where}
		case was.r.Class != r.Class || !maps.Equal(was.r.Labels, r.Labels):
			note(a.Where, "device %s asks as something else in %s: two devices have one key", r.Device[:12], was.where)
			refused[r.Device] = true
		}
	}
	used, usedSecrets := map[string]string{}, map[string]string{}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		if refused[id] {
			continue
		}
		a := byID[id]
		e := Enrolled{Device: Device{ID: id, Public: a.r.Public, Class: a.r.Class, Labels: maps.Clone(a.r.Labels)}, Where: a.where, Given: map[string]string{}}
		if err := rules.apply(&e, used, usedSecrets); err != nil {
			note(a.where, "%v", err)
			continue
		}
		out = append(out, e)
	}
	bad = append(bad, rules.unused(rules.Labels, "labels", used, known)...)
	bad = append(bad, rules.unused(rules.Secrets, "credentials", usedSecrets, known)...)
	return out, bad
}

func (r Rules) apply(e *Enrolled, used, usedSecrets map[string]string) error {
	if r.Labels != nil {
		if key, row, ok := r.Labels.Of(e.ID, e.Labels); ok {
			if by := used[key]; by != "" {
				return diag.Errorf("%s %q is that of device %s too", r.Labels.Key, key, by[:12])
			}
			used[key] = e.ID
			for k, v := range row {
				if k == "class" {
					e.Class = v
					continue
				}
				e.Given[k], e.Labels[k] = v, v
			}
		} else if !r.Partial {
			return diag.Errorf("the table of labels has no row for it (%s %q)", r.Labels.Key, key)
		}
	}
	if err := CheckClass(e.Class); err != nil {
		return err
	}
	if err := CheckLabels(e.Labels); err != nil {
		return err
	}
	if r.Classes != nil && !slices.Contains(r.Classes, e.Class) {
		return diag.Errorf("class %q is not one of %s", e.Class, strings.Join(r.Classes, ", "))
	}
	if r.Secrets == nil {
		return nil
	}
	key, row, ok := r.Secrets.Of(e.ID, e.Labels)
	if !ok {
		if r.Partial {
			return nil
		}
		return diag.Errorf("the table of credentials has no row for it (%s %q)", r.Secrets.Key, key)
	}
	if by := usedSecrets[key]; by != "" {
		return diag.Errorf("the credential of %s %q is that of device %s too", r.Secrets.Key, key, by[:12])
	}
	usedSecrets[key] = e.ID
	c := Credential{Registry: row["registry"], Username: row["username"], Password: Secret(row["password"]), Token: Secret(row["token"])}
	if c.Registry == "" {
		c.Registry = r.Registry
	}
	if err := CheckCredentials([]Credential{c}); err != nil {
		return diag.Errorf("line %d of the table of credentials: %w", r.Secrets.Line[key], err)
	}
	e.Credential = &c
	return nil
}

// unused lists rows that no request and no registered device is for.
func (r Rules) unused(t *Table, what string, used map[string]string, known Register) (bad []Problem) {
	if t == nil || r.Partial {
		return nil
	}
	have := map[string]bool{}
	for id, d := range known {
		if t.Key == "device" {
			have[id] = true
		} else {
			have[d.Labels[t.Key]] = true
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(t.Rows), func(a, b string) int { return t.Line[a] - t.Line[b] }) {
		if used[key] == "" && !have[key] {
			bad = append(bad, Problem{fmt.Sprintf("%s, line %d", what, t.Line[key]), fmt.Sprintf("%s %q has not asked", t.Key, key)})
		}
	}
	return bad
}
