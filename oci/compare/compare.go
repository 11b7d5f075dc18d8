// Package compare tells what differs between two artifacts: interface, operators, files. Data in, data out.
package compare

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Kinds of change.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
	Same    = "same"
)

// Change is one difference. Before is empty for what was added, After for what was removed.
type Change struct {
	What     string `json:"what"` // "input X"
	Kind     string `json:"kind"` // added, removed, changed
	Before   string `json:"before,omitempty"`
	After    string `json:"after,omitempty"`
	Breaking bool   `json:"breaking"`      // whoever relies on the interface of the first may fail with the second
	Why      string `json:"why,omitempty"` // what breaks
}

// Interfaces lists how b differs from a, in the order of the document. A change breaks when a request that a takes could be
// refused by b, or when an answer of b could be one that a never gives: an input that must now be given, an input that takes
// less, an output that is gone, is of another type or has shapes or labels that it did not have.
func Interfaces(a, b *artifact.Interface) []Change {
	out := []Change{}
	out = append(out, ports("input", a.Inputs, b.Inputs, true)...)
	out = append(out, ports("output", a.Outputs, b.Outputs, false)...)
	out = append(out, states(a.State, b.State)...)
	add := func(what string, x, y any, breaking bool, why string) {
		before, after := fmt.Sprint(x), fmt.Sprint(y)
		if before != after {
			c := Change{What: what, Kind: Changed, Before: before, After: after, Breaking: breaking}
			if breaking {
				c.Why = why
			}
			out = append(out, c)
		}
	}
	add("ABI", a.ABI, b.ABI, true, "a runtime speaks one ABI")
	add("lowest runtime", a.MinRuntime, b.MinRuntime, false, "")
	less := func(x, y int64) bool { return y != 0 && (x == 0 || y < x) }
	add("limit maxBatch", limit(a.Limits.MaxBatch), limit(b.Limits.MaxBatch), less(a.Limits.MaxBatch, b.Limits.MaxBatch), "larger batches are refused")
	add("limit timeout ms", limit(a.Limits.TimeoutMS), limit(b.Limits.TimeoutMS), false, "")
	return out
}

func limit(n int64) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprint(n)
}

func ports(kind string, a, b []artifact.Port, input bool) []Change {
	var out []Change
	for i, p := range a {
		what := kind + " " + nameOf(p, i)
		j := slices.IndexFunc(b, func(q artifact.Port) bool { return q.Name == p.Name })
		if j < 0 {
			why := "requests that give it are refused"
			if !input {
				why = "who reads it finds nothing"
			}
			out = append(out, Change{What: what, Kind: Removed, Before: Type(p), Breaking: true, Why: why})
			continue
		}
		if why, differs := port(p, b[j], input); differs {
			out = append(out, Change{What: what, Kind: Changed, Before: Type(p), After: Type(b[j]), Breaking: why != "", Why: why})
		}
		if !slices.Equal(p.Columns, b[j].Columns) {
			c := Change{What: what + " columns", Kind: Changed, Before: strings.Join(p.Columns, ","), After: strings.Join(b[j].Columns, ",")}
			if len(p.Columns) > 0 {
				c.Breaking, c.Why = true, "rows with the former columns mean something else"
			}
			out = append(out, c)
		}
		if !reflect.DeepEqual(p.Labels, b[j].Labels) && len(p.Labels)+len(b[j].Labels) > 0 {
			c := Change{What: what + " labels", Kind: Changed, Before: fmt.Sprint(p.Labels...), After: fmt.Sprint(b[j].Labels...)}
			if len(p.Labels) > 0 {
				c.Breaking, c.Why = true, "an answer means something else"
			}
			out = append(out, c)
		}
	}
	for i, q := range b {
		if slices.ContainsFunc(a, func(p artifact.Port) bool { return p.Name == q.Name }) {
			continue
		}
		c := Change{What: kind + " " + nameOf(q, i), Kind: Added, After: Type(q)}
		if input && q.Kind != "optional" {
			c.Breaking, c.Why = true, "requests without it are refused"
		}
		out = append(out, c)
	}
	return out
}

func nameOf(p artifact.Port, i int) string {
	if p.Name == "" {
		return fmt.Sprintf("#%d", i)
	}
	return p.Name
}

// port compares two ports of one name: whether they differ, and why that breaks. For an input b must take all that a took,
// for an output a's readers must be ready for all that b gives.
func port(a, b artifact.Port, input bool) (why string, differs bool) {
	switch {
	case a.Kind != b.Kind:
		if input && b.Kind == "optional" && b.Elem != nil && Type(*b.Elem) == Type(a) {
			return "", true
		}
		return "another kind of value", true
	case a.Elem != nil && b.Elem != nil:
		if a.Key != b.Key {
			return "another type of key", true
		}
		return port(*a.Elem, *b.Elem, input)
	case a.DType != b.DType:
		return "another type of element", true
	}
	from, to := a, b // every value of from must be one of to
	if !input {
		from, to = b, a
	}
	if !within(from, to) {
		if input {
			return "takes fewer shapes", true
		}
		return "gives shapes that it did not give", true
	}
	return "", !sameShape(a, b)
}

// within tells whether every shape of x is one of y, as far as the document says. A name of a dimension says nothing by
// itself, but two dimensions that have one name are equal.
func within(x, y artifact.Port) bool {
	if !y.Ranked {
		return true
	}
	if !x.Ranked || len(x.Shape) != len(y.Shape) {
		return false
	}
	names := map[string]artifact.Dim{}
	for i, d := range y.Shape {
		e := x.Shape[i]
		if d.Size >= 0 {
			if e.Size != d.Size {
				return false
			}
			continue
		}
		if top := max(e.Size, e.Max); d.Max > 0 && (top <= 0 || top > d.Max) {
			return false
		}
		if d.Sym == "" {
			continue
		}
		if was, ok := names[d.Sym]; ok && (was.Size != e.Size || was.Sym != e.Sym || e.Size < 0 && e.Sym == "") {
			return false
		}
		names[d.Sym] = e
	}
	return true
}

// sameShape compares shapes but for the names of their dimensions.
func sameShape(a, b artifact.Port) bool { return within(a, b) && within(b, a) }

func states(a, b []artifact.StateVar) []Change {
	var out []Change
	text := func(s artifact.StateVar) string { return fmt.Sprintf("%s <- %s %v", s.Input, s.Output, s.Shape) }
	find := func(l []artifact.StateVar, in string) *artifact.StateVar {
		for i := range l {
			if l[i].Input == in {
				return &l[i]
			}
		}
		return nil
	}
	const why = "a stream cannot go on with the other model"
	for _, s := range a {
		t := find(b, s.Input)
		switch {
		case t == nil:
			out = append(out, Change{What: "state " + s.Input, Kind: Removed, Before: text(s), Breaking: true, Why: why})
		case text(s) != text(*t) || !slices.Equal(s.Init, t.Init):
			out = append(out, Change{What: "state " + s.Input, Kind: Changed, Before: text(s), After: text(*t), Breaking: true, Why: why})
		}
	}
	for _, t := range b {
		if find(a, t.Input) == nil {
			out = append(out, Change{What: "state " + t.Input, Kind: Added, After: text(t), Breaking: true, Why: why})
		}
	}
	return out
}

// Type writes the type of a port: "f32[N,30]".
func Type(p artifact.Port) string {
	switch {
	case p.Kind == "map" && p.Elem != nil:
		return "map<" + p.Key + "," + Type(*p.Elem) + ">"
	case p.Elem != nil:
		return p.Kind + "<" + Type(*p.Elem) + ">"
	case !p.Ranked:
		return p.DType + "[...]"
	}
	dims := make([]string, len(p.Shape))
	for i, d := range p.Shape {
		switch {
		case d.Size >= 0:
			dims[i] = fmt.Sprint(d.Size)
		case d.Sym != "":
			dims[i] = d.Sym
		default:
			dims[i] = "?"
		}
		if d.Max > 0 {
			dims[i] += fmt.Sprintf("<=%d", d.Max)
		}
	}
	return p.DType + "[" + strings.Join(dims, ",") + "]"
}

// Count is how often something stands in each of two artifacts.
type Count struct {
	Name   string `json:"name"`
	Before int    `json:"before"`
	After  int    `json:"after"`
}

// Counts gives what stands in two artifacts differently often, by name.
func Counts(a, b map[string]int) []Count {
	names := map[string]bool{}
	for _, m := range []map[string]int{a, b} {
		for n := range m {
			names[n] = true
		}
	}
	diff := []Count{}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if a[n] != b[n] {
			diff = append(diff, Count{n, a[n], b[n]})
		}
	}
	return diff
}

// File is a file of an artifact.
type File struct {
	Path   string
	Role   artifact.Role
	Target string // of a module
	Digest artifact.Digest
	Size   int64
}

// FileChange is one file in one or both artifacts.
type FileChange struct {
	Path   string          `json:"path"`
	Role   artifact.Role   `json:"role"`
	Kind   string          `json:"kind"` // added, removed, changed, same
	Before artifact.Digest `json:"before,omitempty"`
	After  artifact.Digest `json:"after,omitempty"`
	Bytes  int64           `json:"bytes"` // of the second's, or of one that was removed
	Device bool            `json:"device"`
	Load   bool            `json:"download"` // a device that has the first downloads it for the second
}

// Files compares by path. download is what a device that has a fetches for b: the files of the roles that devices pull and
// whose content a does not have under any path.
func Files(a, b []File) (changes []FileChange, download int64) {
	onDevice := func(f File) bool {
		i := slices.IndexFunc(artifact.Roles(), func(r artifact.RoleInfo) bool { return r.Role == f.Role })
		return i >= 0 && artifact.Roles()[i].OnDevice && (f.Role != artifact.RoleModule || f.Target == artifact.TargetAny)
	}
	has := map[artifact.Digest]bool{}
	for _, f := range a {
		if onDevice(f) {
			has[f.Digest] = true
		}
	}
	changes = []FileChange{}
	for _, f := range b {
		c := FileChange{Path: f.Path, Role: f.Role, Kind: Added, After: f.Digest, Bytes: f.Size, Device: onDevice(f)}
		if i := slices.IndexFunc(a, func(g File) bool { return g.Path == f.Path }); i >= 0 {
			c.Kind, c.Before = Changed, a[i].Digest
			if a[i].Digest == f.Digest {
				c.Kind = Same
			}
		}
		if c.Device && !has[f.Digest] {
			has[f.Digest], c.Load = true, true
			download += f.Size
		}
		changes = append(changes, c)
	}
	for _, f := range a {
		if !slices.ContainsFunc(b, func(g File) bool { return g.Path == f.Path }) {
			changes = append(changes, FileChange{Path: f.Path, Role: f.Role, Kind: Removed, Before: f.Digest, Bytes: f.Size, Device: onDevice(f)})
		}
	}
	slices.SortStableFunc(changes, func(x, y FileChange) int { return cmp.Compare(x.Path, y.Path) })
	return changes, download
}
