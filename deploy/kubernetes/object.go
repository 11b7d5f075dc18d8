package kubernetes

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/deploy"
)

// object is a Kubernetes object as JSON has it. Reading a path that is not there gives the zero value; a nil object has no paths.
type object map[string]any

func (o object) at(path ...string) any {
	var v any = map[string]any(o)
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

func (o object) text(path ...string) string { s, _ := o.at(path...).(string); return s }
func (o object) object(path ...string) object {
	m, _ := o.at(path...).(map[string]any)
	return m
}

func (o object) number(path ...string) int {
	switch n := o.at(path...).(type) {
	case float64:
		return int(n)
	case int:
		return n
	}
	return 0
}

func (o object) list(path ...string) []map[string]any {
	l, _ := o.at(path...).([]any)
	out := make([]map[string]any, 0, len(l))
	for _, x := range l {
		m, _ := x.(map[string]any)
		out = append(out, m)
	}
	return out
}

// clone copies deeply, into the types of JSON.
func clone(o object) object {
	raw, err := json.Marshal(o)
	if err != nil {
		panic(err) // it came from JSON
	}
	out := object{}
	if err := json.Unmarshal(raw, &out); err != nil || out == nil {
		return object{}
	}
	return out
}

// merge sets in o what from has, mapping by mapping; anything else is replaced.
func merge(o, from object) {
	for k, v := range from {
		if m, ok := v.(map[string]any); ok {
			if into, ok := o[k].(map[string]any); ok {
				merge(into, m)
				continue
			}
			v = map[string]any(clone(m))
		}
		o[k] = v
	}
}

// diff is where live does not have what want says. Members that want does not name are others' business; lists are compared whole,
// member by member.
func diff(want, live object, prefix string) (out []deploy.Change) {
	for _, k := range slices.Sorted(maps.Keys(want)) {
		out = append(out, differ(want[k], live[k], prefix+k)...)
	}
	return out
}

func differ(want, live any, path string) []deploy.Change {
	switch w := want.(type) {
	case map[string]any:
		l, _ := live.(map[string]any)
		return diff(w, l, path+".")
	case []any:
		l, _ := live.([]any)
		if len(l) == len(w) {
			var out []deploy.Change
			for i := range w {
				out = append(out, differ(w[i], l[i], fmt.Sprintf("%s[%d]", path, i))...)
			}
			return out
		}
	}
	if a, b := word(want), word(live); a != b {
		return []deploy.Change{{Field: path, Old: b, New: a}}
	}
	return nil
}

func word(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	raw, _ := json.Marshal(v)
	return string(raw)
}

// ofRelease tells whether a field follows from the release instead of the settings.
func ofRelease(field string) bool {
	return strings.HasSuffix(field, ".image") || strings.Contains(field, annDigest) || strings.Contains(field, annModel)
}

func revisionOf(set object) int {
	n, _ := strconv.Atoi(set.text("metadata", "annotations", "deployment.kubernetes.io/revision"))
	return n
}

var (
	nameRE     = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
	quantityRE = regexp.MustCompile(`^([1-9][0-9]{0,9})(m|Ki|Mi|Gi)?$`)
)

// quantity brings an amount into the form in which the API server gives it back, or each plan would show it as changed.
func quantity(s string) (string, error) {
	m := quantityRE.FindStringSubmatch(s)
	if m == nil {
		return "", fmt.Errorf("%q: a whole number with m, Ki, Mi or Gi is expected", s)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return "", err
	}
	unit := m[2]
	if unit == "m" && n%1000 == 0 {
		return strconv.Itoa(n / 1000), nil
	}
	for _, up := range [][2]string{{"Ki", "Mi"}, {"Mi", "Gi"}} {
		if unit == up[0] && n%1024 == 0 {
			n, unit = n/1024, up[1]
		}
	}
	if unit == "Gi" && n%1024 == 0 {
		return strconv.Itoa(n/1024) + "Ti", nil
	}
	return strconv.Itoa(n) + unit, nil
}
