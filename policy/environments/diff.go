package environments

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Effect is what a change does to the demands on a model.
type Effect string

// Effects. A change that cannot be weighed (another policy, another channel) is Different: it has to be looked at.
const (
	Stricter  Effect = "stricter"
	Looser    Effect = "looser"
	Different Effect = "different"
)

// Change is one difference between two documents. Before or After is "" where there was or is nothing.
type Change struct {
	Environment string `json:"environment"` // "" for the document itself
	Path        string `json:"path"`        // metrics[roc_auc on all].min
	Before      string `json:"before"`
	After       string `json:"after"`
	Effect      Effect `json:"effect"`
}

// Diff lists what changes for whoever goes from a to b, environments in the order of their names, fields in the order of the
// documentation. Nothing differs when it is empty.
func Diff(a, b *Document) []Change {
	out := []Change{}
	d := &differ{out: &out}
	if a.Version != b.Version {
		d.add("version", fmt.Sprint(a.Version), fmt.Sprint(b.Version), Different)
	}
	names := slices.Concat(a.Names(), b.Names())
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		x, inA := a.Environments[n]
		y, inB := b.Environments[n]
		d.env = n
		switch {
		case !inA:
			d.add("", "", "a new environment", Different)
		case !inB:
			d.add("", "the environment", "", Different)
		default:
			d.environment(x, y)
		}
	}
	return out
}

type differ struct {
	env string
	out *[]Change
}

func (d *differ) add(path, before, after string, e Effect) {
	*d.out = append(*d.out, Change{d.env, path, before, after, e})
}

func (d *differ) environment(a, b Environment) {
	d.text("registry", a.Registry, b.Registry)
	d.text("namespace", a.Namespace, b.Namespace)
	d.text("channel", a.Channel, b.Channel)
	d.text("lock", a.Lock, b.Lock)
	d.text("policy.digest", string(a.Policy.Digest), string(b.Policy.Digest))
	d.text("policy.source", a.Policy.Source, b.Policy.Source)
	d.flag("policy.signed", a.Policy.Signed, b.Policy.Signed)
	d.text("profile", a.Profile, b.Profile)
	d.number("trust.minVersion", a.Trust.MinVersion, b.Trust.MinVersion, +1)
	d.number("notAfterDays", a.NotAfterDays, b.NotAfterDays, -1)
	d.classes(a.DeviceClasses, b.DeviceClasses)
	d.metrics(a.Metrics, b.Metrics)
	d.demanded("slices", a.Slices, b.Slices)
	d.gaps(a.SliceGaps, b.SliceGaps)
	d.allowed("licenses.models", a.Licenses.Models, b.Licenses.Models, false)
	d.allowed("licenses.datasets", a.Licenses.Datasets, b.Licenses.Datasets, false)
	d.allowed("licenses.components", a.Licenses.Components, b.Licenses.Components, true)
	d.number("approvals.minimum", a.Approvals.Minimum, b.Approvals.Minimum, +1)
	d.demanded("approvals.roles", a.Approvals.Roles, b.Approvals.Roles)
	d.number("signers", a.Signers, b.Signers, +1)
	d.demanded("evidence", a.Evidence, b.Evidence)
	d.set("after", a.After, b.After, Stricter)
	d.limit("maxEvaluationAgeDays", a.MaxEvaluationAgeDays, b.MaxEvaluationAgeDays)
	d.set("privacyRole", a.PrivacyRole, b.PrivacyRole, Looser) // without a role personal data are never allowed
	d.allowed("exceptions.roles", a.Exceptions.Roles, b.Exceptions.Roles, false)
	d.allowed("exceptions.rules", a.Exceptions.Rules, b.Exceptions.Rules, false)
	d.limit("exceptions.maxDays", a.Exceptions.MaxDays, b.Exceptions.MaxDays)
	d.enforce(a.Enforce, b.Enforce)
	d.builders(a.Builders, b.Builders)
	d.allowed("sources", a.Sources, b.Sources, true)
	d.allowed("parameters", a.Parameters, b.Parameters, false)
	d.formats(a.Formats, b.Formats)
	d.demanded("tests", a.Tests, b.Tests)
	d.demanded("sections", a.Sections, b.Sections)
	d.limit("scan.maxAgeDays", a.Scan.MaxAgeDays, b.Scan.MaxAgeDays)
	d.limit("scan.maxDatabaseAgeDays", a.Scan.MaxDatabaseAgeDays, b.Scan.MaxDatabaseAgeDays)
	d.limit("maxModelAgeDays", a.MaxModelAgeDays, b.MaxModelAgeDays)
	d.limit("maxDataAgeDays", a.MaxDataAgeDays, b.MaxDataAgeDays)
	d.limit("maxApprovalAgeDays", a.MaxApprovalAgeDays, b.MaxApprovalAgeDays)
	d.limit("maxVerdictAgeDays", a.MaxVerdictAgeDays, b.MaxVerdictAgeDays)
	d.number("soakDays", a.SoakDays, b.SoakDays, +1)
	d.flag("shadow", a.Shadow, b.Shadow)
	if x, y := risk(a.MaxRisk), risk(b.MaxRisk); x != y {
		d.number("maxRisk", x, y, -1)
		(*d.out)[len(*d.out)-1].Before, (*d.out)[len(*d.out)-1].After = a.MaxRisk, b.MaxRisk
	} else {
		d.text("maxRisk", a.MaxRisk, b.MaxRisk)
	}
	d.tree("data", a.Data, b.Data)
	d.text("targets", compact(a.Targets), compact(b.Targets))
}

// risk orders the tiers; none means the highest.
func risk(s string) int {
	if i := slices.Index([]string{"minimal", "limited", "high"}, s); i >= 0 {
		return i
	}
	return 2
}

func (d *differ) text(path, a, b string) {
	if a != b {
		d.add(path, a, b, Different)
	}
}

// set is a text whose presence has the effect given.
func (d *differ) set(path, a, b string, present Effect) {
	e := Different
	switch {
	case a == b:
		return
	case a == "":
		e = present
	case b == "":
		e = opposite(present)
	}
	d.add(path, a, b, e)
}

func opposite(e Effect) Effect {
	switch e {
	case Stricter:
		return Looser
	case Looser:
		return Stricter
	}
	return e
}

func (d *differ) flag(path string, a, b bool) {
	if a != b {
		d.add(path, fmt.Sprint(a), fmt.Sprint(b), effect(b))
	}
}

func effect(stricter bool) Effect {
	if stricter {
		return Stricter
	}
	return Looser
}

// number compares values of which more is stricter (sign +1) or looser (-1).
func (d *differ) number(path string, a, b, sign int) {
	if a != b {
		d.add(path, fmt.Sprint(a), fmt.Sprint(b), effect((b-a)*sign > 0))
	}
}

// limit compares upper bounds of which 0 is none.
func (d *differ) limit(path string, a, b int) {
	if a != b {
		d.add(path, fmt.Sprint(a), fmt.Sprint(b), effect(b != 0 && (a == 0 || b < a)))
	}
}

func lower[T cmp.Ordered](a, b T) Effect { return effect(b < a) }

// demanded compares lists of what must be there.
func (d *differ) demanded(path string, a, b []string) { d.items(path, a, b, Stricter) }

// allowed compares lists of what may be there; empty allows everything when any is set, else nothing.
func (d *differ) allowed(path string, a, b []string, anyWhenEmpty bool) {
	switch {
	case anyWhenEmpty && len(a) == 0 && len(b) > 0:
		d.add(path, "any", strings.Join(b, ", "), Stricter)
	case anyWhenEmpty && len(b) == 0 && len(a) > 0:
		d.add(path, strings.Join(a, ", "), "any", Looser)
	default:
		d.items(path, a, b, Looser)
	}
}

func (d *differ) items(path string, a, b []string, more Effect) {
	for _, s := range slices.Sorted(slices.Values(a)) {
		if !slices.Contains(b, s) {
			d.add(path, s, "", opposite(more))
		}
	}
	for _, s := range slices.Sorted(slices.Values(b)) {
		if !slices.Contains(a, s) {
			d.add(path, "", s, more)
		}
	}
}

// formats: an empty list allows every format that holds no code, so that a list may allow more or less than none.
func (d *differ) formats(a, b []string) {
	if (len(a) == 0) != (len(b) == 0) {
		d.text("formats", compact(a), compact(b))
		return
	}
	d.items("formats", a, b, Looser)
}

// keyed pairs the elements of two lists by a key.
func keyed[T any](a, b []T, key func(T) string, each func(k string, x, y *T)) {
	x, y := map[string]*T{}, map[string]*T{}
	var keys []string
	for i := range a {
		x[key(a[i])] = &a[i]
		keys = append(keys, key(a[i]))
	}
	for i := range b {
		y[key(b[i])] = &b[i]
		keys = append(keys, key(b[i]))
	}
	slices.Sort(keys)
	for _, k := range slices.Compact(keys) {
		each(k, x[k], y[k])
	}
}

func (d *differ) metrics(a, b []Threshold) {
	keyed(a, b, func(t Threshold) string { return t.Name + " on " + t.Slice }, func(k string, x, y *Threshold) {
		path := "metrics[" + k + "]"
		if x == nil || y == nil {
			t, e := y, Stricter
			if y == nil {
				t, e = x, Looser
			}
			before, after := "", compact(t)
			if y == nil {
				before, after = after, before
			}
			d.add(path, before, after, e)
			return
		}
		switch {
		case (x.Min == nil) != (y.Min == nil):
			d.add(path, compact(x), compact(y), Different)
		case x.Min != nil && *x.Min != *y.Min:
			d.add(path+".min", fmt.Sprint(*x.Min), fmt.Sprint(*y.Min), effect(*y.Min > *x.Min))
		case x.Max != nil && *x.Max != *y.Max:
			d.add(path+".max", fmt.Sprint(*x.Max), fmt.Sprint(*y.Max), lower(*x.Max, *y.Max))
		}
		if x.MaxRegression != y.MaxRegression {
			d.add(path+".maxRegression", fmt.Sprint(x.MaxRegression), fmt.Sprint(y.MaxRegression), lower(x.MaxRegression, y.MaxRegression))
		}
		if x.MinN != y.MinN {
			d.add(path+".minN", fmt.Sprint(x.MinN), fmt.Sprint(y.MinN), effect(y.MinN > x.MinN))
		}
		d.flag(path+".confidence", x.Confidence, y.Confidence)
	})
}

func (d *differ) gaps(a, b []SliceGap) {
	keyed(a, b, func(g SliceGap) string { return g.Name }, func(k string, x, y *SliceGap) {
		path := "sliceGaps[" + k + "]"
		switch {
		case x == nil:
			d.add(path, "", fmt.Sprint(y.Max), Stricter)
		case y == nil:
			d.add(path, fmt.Sprint(x.Max), "", Looser)
		case x.Max != y.Max:
			d.add(path+".max", fmt.Sprint(x.Max), fmt.Sprint(y.Max), lower(x.Max, y.Max))
		}
	})
}

func (d *differ) classes(a, b []DeviceClass) {
	keyed(a, b, func(c DeviceClass) string { return c.Name }, func(k string, x, y *DeviceClass) {
		path := "deviceClasses[" + k + "]"
		if x == nil || y == nil { // a verdict covers one more or one less, and a model has to fit it or not
			before, after := "", compact(y)
			if y == nil {
				before, after = compact(x), ""
			}
			d.add(path, before, after, Different)
			return
		}
		if x.Memory != y.Memory {
			d.add(path+".memory", fmt.Sprint(int64(x.Memory)), fmt.Sprint(int64(y.Memory)), lower(x.Memory, y.Memory))
		}
		d.text(path+".runtime", x.Runtime, y.Runtime)
		bound := func(name string, p, q float64) {
			if p != q {
				d.add(path+"."+name, fmt.Sprint(p), fmt.Sprint(q), effect(q != 0 && (p == 0 || q < p)))
			}
		}
		bound("storage", float64(x.Storage), float64(y.Storage))
		bound("latencyMs", x.LatencyMs, y.LatencyMs)
	})
}

func (d *differ) enforce(a, b map[string]string) {
	weight := map[string]int{"": 2, "warn": 1, "off": 0}
	keys := slices.Collect(maps.Keys(a))
	keys = slices.AppendSeq(keys, maps.Keys(b))
	slices.Sort(keys)
	for _, k := range slices.Compact(keys) {
		if x, y := a[k], b[k]; x != y {
			d.add("enforce."+k, x, y, effect(weight[y] > weight[x]))
		}
	}
}

func (d *differ) builders(a, b []Builder) {
	id := func(b Builder) string { return b.ID }
	ids := func(l []Builder) (out []string) {
		for _, x := range l {
			out = append(out, x.ID)
		}
		return out
	}
	if len(a) == 0 || len(b) == 0 {
		d.allowed("builders", ids(a), ids(b), true)
		return
	}
	keyed(a, b, id, func(k string, x, y *Builder) {
		path := "builders[" + k + "]"
		switch {
		case x == nil:
			d.add(path, "", compact(y), Looser)
		case y == nil:
			d.add(path, compact(x), "", Stricter)
		default:
			d.number(path+".level", x.Level, y.Level, -1) // it is the platform team's word: more is believed of the builder
			d.allowed(path+".signers", x.Signers, y.Signers, true)
		}
	})
}

// tree compares free data leaf by leaf: what they mean only the policy knows.
func (d *differ) tree(path string, a, b map[string]any) {
	keys := slices.Collect(maps.Keys(a))
	keys = slices.AppendSeq(keys, maps.Keys(b))
	slices.Sort(keys)
	for _, k := range slices.Compact(keys) {
		x, inA := a[k]
		y, inB := b[k]
		mx, okX := x.(map[string]any)
		my, okY := y.(map[string]any)
		switch {
		case inA && inB && okX && okY:
			d.tree(join(path, k), mx, my)
		case !inA:
			d.add(join(path, k), "", compact(y), Different)
		case !inB:
			d.add(join(path, k), compact(x), "", Different)
		default:
			d.text(join(path, k), compact(x), compact(y))
		}
	}
}

func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil { // plain trees that came from YAML or JSON: cannot be
		return fmt.Sprint(v)
	}
	return string(b)
}
