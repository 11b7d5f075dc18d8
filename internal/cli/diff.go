package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/compare"
	"github.com/waybill-ml/waybill/oci/evidence"
)

func diffCommand() Command {
	return Command{
		Name: "diff", Group: Ship, Summary: "compare two models: interface, operators, metrics, data, verdicts, files",
		Args: "A B", Min: 2, Max: 2,
		Long: `Shows what changes for whoever goes from A to B. Each is a reference, a file made by save, a model file or a project. A
change of the interface is marked BREAKING when a request that A takes could be refused by B, or an answer of B could be one
that A never gives. Metrics, data sets and verdicts come from the attached statements: with --trust only from those that
verify, else they are marked as not verified. At the end stands what a device that has A downloads for B.

Two policy artifacts are compared by their rules and files.

The exit code is 0 also when they differ, unless --exit-code (1 when anything differs) or --breaking (1 when the
interface breaks) is given.`,
		Examples: []string{
			"waybill diff churn:1.0 churn:2.0",
			"waybill diff reg.example/ml/churn:1.0 churn:2.0 --trust trust.signed",
			"waybill diff reg.example/ml/churn:1.0 . --breaking          # this project, before it is packed",
		},
		Flags: placeFlags(optionalTrustFlag(), trustDigestFlag(), trustedRootFlag(),
			&ucli.BoolFlag{Name: "exit-code", Usage: "exit code 1 when anything differs"},
			&ucli.BoolFlag{Name: "breaking", Usage: "exit code 1 when the interface breaks"},
		),
		Exits: []diag.Code{diag.Verification, diag.Unsupported, diag.Registry, diag.NotFound},
		See:   []string{"inspect", "gate"},
		Run:   runDiff,
	}
}

type diffJSON struct {
	Schema         string               `json:"schema"`
	A              diffSideJSON         `json:"a"`
	B              diffSideJSON         `json:"b"`
	Same           bool                 `json:"same"` // nothing differs
	Breaking       bool                 `json:"breaking"`
	TrustVersion   int                  `json:"trustVersion"` // 0: statements are not verified
	Interface      []compare.Change     `json:"interface"`
	Compiled       []compare.Change     `json:"compiled"`       // compiler, memory
	Operators      []compare.Count      `json:"operators"`      // of the models as trained
	OperatorsKnown bool                 `json:"operatorsKnown"` // false: one of them is not at hand
	Config         []compare.Change     `json:"config"`
	Metrics        []metricDiff         `json:"metrics"`
	Data           []dataDiff           `json:"data"`
	Verdicts       []verdictDiff        `json:"verdicts"`
	Files          []compare.FileChange `json:"files"`
	Download       int64                `json:"downloadBytes"` // by a device that has A
}

type diffSideJSON struct {
	Target  string          `json:"target"`
	Ref     string          `json:"ref,omitempty"`
	Digest  artifact.Digest `json:"digest,omitempty"`
	Name    string          `json:"name"`
	Version string          `json:"version,omitempty"`
}

// metricDiff is one metric on one slice of one data set. A side that does not state it is null.
type metricDiff struct {
	Name      string          `json:"name"`
	Slice     string          `json:"slice"`
	Dataset   artifact.Digest `json:"datasetDigest"`
	Direction string          `json:"direction"`
	Before    *float64        `json:"before"`
	After     *float64        `json:"after"`
	Verdict   string          `json:"verdict"` // better, worse, same, only before, only after
}

type dataDiff struct {
	Name   string          `json:"name"`
	Role   string          `json:"role"`
	Kind   string          `json:"kind"`
	Before artifact.Digest `json:"before,omitempty"`
	After  artifact.Digest `json:"after,omitempty"`
}

type verdictDiff struct {
	Env    string `json:"env"`
	Before string `json:"before"` // PASSED, FAILED, or "" for none
	After  string `json:"after"`
}

func runDiff(ctx context.Context, c *Call) error {
	a, err := c.look(ctx, c.Args[0], true)
	if err != nil {
		return err
	}
	b, err := c.look(ctx, c.Args[1], true)
	if err != nil {
		return err
	}
	if a.Policy != nil || b.Policy != nil {
		return diffPolicies(c, a, b)
	}
	for i, o := range []*inspectJSON{a, b} {
		if !o.Model {
			return diag.New(diag.Usage, "diff: %s is not a model artifact that this version reads: %s", c.Args[i], o.Reason).Hint("waybill inspect %s", c.Args[i])
		}
	}
	d := diffOf(a, b)
	if c.UI.JSON {
		if err := c.UI.PrintJSON(d); err != nil {
			return err
		}
	} else {
		d.print(c.UI)
	}
	switch {
	case c.Bool("breaking") && d.Breaking:
		return diag.New(diag.Failure, "diff: the interface of %s breaks that of %s", c.Args[1], c.Args[0])
	case c.Bool("exit-code") && !d.Same:
		return diag.New(diag.Failure, "diff: %s and %s differ", c.Args[0], c.Args[1])
	}
	return nil
}

func diffOf(a, b *inspectJSON) *diffJSON {
	side := func(o *inspectJSON) diffSideJSON { return diffSideJSON{o.Target, o.Ref, o.Digest, o.Name, o.Version} }
	d := &diffJSON{Schema: schemaBase + "diff/v1", A: side(a), B: side(b), TrustVersion: b.TrustVersion,
		Interface: []compare.Change{}, Compiled: []compare.Change{}, Operators: []compare.Count{}, Config: []compare.Change{}}
	switch {
	case a.Interface != nil && b.Interface != nil:
		d.Interface = compare.Interfaces(a.Interface, b.Interface)
		d.Compiled = compiledDiff(a.Interface, b.Interface)
	case a.Interface != nil:
		d.Interface = []compare.Change{{What: "interface", Kind: compare.Removed, Before: "compiled", Breaking: true, Why: "the second is not compiled"}}
	case b.Interface != nil:
		d.Interface = []compare.Change{{What: "interface", Kind: compare.Added, After: "compiled"}}
	}
	for _, c := range d.Interface {
		d.Breaking = d.Breaking || c.Breaking
	}
	if d.OperatorsKnown = a.ops != nil && b.ops != nil; d.OperatorsKnown {
		d.Operators = compare.Counts(a.ops, b.ops)
	}
	if a.Config != nil && b.Config != nil {
		d.Config = configDiff(a.Config, b.Config)
	}
	d.Metrics, d.Data, d.Verdicts = []metricDiff{}, []dataDiff{}, []verdictDiff{}
	if a.Digest != "" && b.Digest != "" { // nothing can have been said yet about what is not packed
		d.Metrics, d.Data, d.Verdicts = metricsDiff(a, b), datasetsDiff(a, b), verdictsDiff(a, b)
	}
	d.Files = []compare.FileChange{}
	if len(a.Layers) > 0 && len(b.Layers) > 0 { // a model file or a project has none yet
		d.Files, d.Download = compare.Files(filesOf(a), filesOf(b))
		if a.Digest != b.Digest {
			d.Download += b.manifest // each digest has a manifest of its own
		}
	}
	same := func(k string) bool { return k == compare.Same }
	d.Same = len(d.Interface)+len(d.Operators)+len(d.Compiled)+len(d.Config) == 0 && a.Digest == b.Digest &&
		!slices.ContainsFunc(d.Files, func(f compare.FileChange) bool { return !same(f.Kind) }) &&
		!slices.ContainsFunc(d.Metrics, func(m metricDiff) bool { return !same(m.Verdict) }) &&
		!slices.ContainsFunc(d.Data, func(x dataDiff) bool { return !same(x.Kind) }) &&
		!slices.ContainsFunc(d.Verdicts, func(v verdictDiff) bool { return v.Before != v.After })
	return d
}

func filesOf(o *inspectJSON) []compare.File {
	var out []compare.File
	for _, l := range o.Layers {
		out = append(out, compare.File{Path: l.Path, Role: l.Role, Target: l.Target, Digest: l.Digest, Size: l.Size})
	}
	return out
}

func compiledDiff(a, b *artifact.Interface) []compare.Change {
	out := []compare.Change{}
	add := func(what, x, y string) {
		if x != y {
			out = append(out, compare.Change{What: what, Kind: compare.Changed, Before: x, After: y})
		}
	}
	size := func(n int64) string { return ui.Bytes(n) }
	weights := func(w *artifact.Weights) int64 {
		if w == nil {
			return 0
		}
		return w.Size
	}
	add("compiler", a.Compiler, b.Compiler)
	add("nodes", fmt.Sprint(len(a.Nodes)), fmt.Sprint(len(b.Nodes)))
	add("module", size(a.Module.Size), size(b.Module.Size))
	add("weights", size(weights(a.Weights)), size(weights(b.Weights)))
	add("memory at most", size(int64(a.Memory.Max)), size(int64(b.Memory.Max)))
	return out
}

// configDiff compares every field of the two configs but the digests of the files, which are told as files.
func configDiff(a, b *artifact.Config) []compare.Change {
	flat := func(c *artifact.Config) map[string]string {
		out := map[string]string{}
		raw, err := json.Marshal(struct {
			D artifact.ModelDescriptor
			C artifact.ModelConfig
		}{c.Descriptor, c.Model})
		var v map[string]map[string]any
		if err != nil || json.Unmarshal(raw, &v) != nil {
			return out // of two structs that were read from JSON: cannot be
		}
		for _, part := range v {
			for k, x := range part {
				t, err := json.Marshal(x)
				if err == nil {
					out[k] = strings.Trim(string(t), `"`)
				}
			}
		}
		return out
	}
	x, y := flat(a), flat(b)
	keys := map[string]bool{}
	for _, m := range []map[string]string{x, y} {
		for k := range m {
			keys[k] = true
		}
	}
	out := []compare.Change{}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if x[k] == y[k] {
			continue
		}
		kind := compare.Changed
		switch {
		case x[k] == "":
			kind = compare.Added
		case y[k] == "":
			kind = compare.Removed
		}
		out = append(out, compare.Change{What: k, Kind: kind, Before: x[k], After: y[k]})
	}
	return out
}

func metricsDiff(a, b *inspectJSON) []metricDiff {
	type key struct {
		name, slice string
		data        artifact.Digest
	}
	out := map[key]*metricDiff{}
	for i, o := range []*inspectJSON{a, b} {
		for _, e := range o.said {
			if e.PredicateType != evidence.TypeEvaluation {
				continue
			}
			ev, err := evidence.ParseEvaluation(e.Predicate)
			if err != nil {
				continue // a claim that is none
			}
			for _, m := range ev.Metrics {
				k := key{m.Name, m.Slice, m.DatasetDigest}
				if out[k] == nil {
					out[k] = &metricDiff{Name: m.Name, Slice: m.Slice, Dataset: m.DatasetDigest, Direction: m.Direction}
				}
				v := m.Value
				if i == 0 {
					out[k].Before = &v
				} else {
					out[k].After = &v
				}
			}
		}
	}
	list := []metricDiff{}
	for _, m := range out {
		switch {
		case m.Before == nil:
			m.Verdict = "only after"
		case m.After == nil:
			m.Verdict = "only before"
		case *m.Before == *m.After:
			m.Verdict = compare.Same
		case (*m.After > *m.Before) == (m.Direction == "higher"):
			m.Verdict = "better"
		default:
			m.Verdict = "worse"
		}
		list = append(list, *m)
	}
	slices.SortFunc(list, func(x, y metricDiff) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.Slice, y.Slice), strings.Compare(string(x.Dataset), string(y.Dataset)))
	})
	return list
}

func datasetsDiff(a, b *inspectJSON) []dataDiff {
	type key struct{ name, role string }
	out := map[key]*dataDiff{}
	for i, o := range []*inspectJSON{a, b} {
		for _, e := range o.said {
			if e.PredicateType != evidence.TypeDataset {
				continue
			}
			ds, err := evidence.ParseDatasets(e.Predicate)
			if err != nil {
				continue
			}
			for _, d := range ds.Datasets {
				k := key{d.Name, d.Role}
				if out[k] == nil {
					out[k] = &dataDiff{Name: d.Name, Role: d.Role}
				}
				if i == 0 {
					out[k].Before = d.Digest
				} else {
					out[k].After = d.Digest
				}
			}
		}
	}
	list := []dataDiff{}
	for _, d := range out {
		switch {
		case d.Before == "":
			d.Kind = compare.Added
		case d.After == "":
			d.Kind = compare.Removed
		case d.Before == d.After:
			d.Kind = compare.Same
		default:
			d.Kind = compare.Changed
		}
		list = append(list, *d)
	}
	slices.SortFunc(list, func(x, y dataDiff) int {
		return cmp.Or(strings.Compare(x.Role, y.Role), strings.Compare(x.Name, y.Name))
	})
	return list
}

// verdictsDiff takes the newest verdict of each side for each environment.
func verdictsDiff(a, b *inspectJSON) []verdictDiff {
	newest := func(o *inspectJSON) map[string]*evidence.VSA {
		out := map[string]*evidence.VSA{}
		for _, e := range o.said {
			if e.PredicateType != evidence.TypeVSA {
				continue
			}
			v, err := evidence.ParseVSA(e.Predicate)
			if err != nil {
				continue
			}
			env := v.Waybill.Environment
			if was := out[env]; was == nil || v.TimeVerified.After(was.TimeVerified) || v.TimeVerified.Equal(was.TimeVerified) && v.VerificationResult == evidence.Failed {
				out[env] = v
			}
		}
		return out
	}
	x, y := newest(a), newest(b)
	envs := map[string]bool{}
	for _, m := range []map[string]*evidence.VSA{x, y} {
		for e := range m {
			envs[e] = true
		}
	}
	out := []verdictDiff{}
	for _, e := range slices.Sorted(maps.Keys(envs)) {
		d := verdictDiff{Env: e}
		if x[e] != nil {
			d.Before = x[e].VerificationResult
		}
		if y[e] != nil {
			d.After = y[e].VerificationResult
		}
		out = append(out, d)
	}
	return out
}

func (d *diffJSON) print(u *ui.UI) {
	title := func(s diffSideJSON) string {
		t := strings.TrimSpace(s.Name + " " + s.Version)
		if s.Digest != "" {
			t += " sha256:" + s.Digest.Short()
		}
		return t
	}
	u.Data("%s -> %s", u.Out.Bold(title(d.A)), u.Out.Bold(title(d.B)))
	if d.Same {
		u.Data("  the same")
		return
	}
	section := func(name, note string, rows [][]string) {
		if len(rows) == 0 {
			return
		}
		u.Data("")
		u.Data("  %s%s", u.Out.Bold(name), note)
		for i := range rows {
			rows[i][0] = "  " + rows[i][0]
		}
		ui.Table(u.Out, false, rows)
	}
	changes := func(cs []compare.Change) [][]string {
		var rows [][]string
		for _, c := range cs {
			mark, text := diffSign(c.Kind), c.Before+" -> "+c.After
			switch c.Kind {
			case compare.Added:
				text = c.After
			case compare.Removed:
				text = c.Before
			}
			why := ""
			if c.Breaking {
				why = u.Out.Red("BREAKING") + "  " + c.Why
			}
			rows = append(rows, []string{mark + " " + plain(c.What), plain(text), why})
		}
		return rows
	}
	note := ""
	if !d.Breaking {
		note = "  compatible"
	}
	if len(d.Interface) == 0 && len(d.Compiled)+len(d.Operators) > 0 {
		u.Data("")
		u.Data("  %s  the same", u.Out.Bold("interface"))
	}
	section("interface", note, changes(d.Interface))
	section("config", "", changes(d.Config))
	section("compiled", "", changes(d.Compiled))
	var rows [][]string
	for _, o := range d.Operators {
		rows = append(rows, []string{"~ " + plain(o.Name), fmt.Sprintf("%d -> %d", o.Before, o.After)})
	}
	section("operators", "", rows)
	if !d.OperatorsKnown {
		u.Data("")
		u.Data("  %s  not known: the model as trained is not in both, or is large or of no known format", u.Out.Bold("operators"))
	}
	claimed := ""
	if d.TrustVersion == 0 {
		claimed = "  " + u.Out.Yellow("not verified") + " (--trust FILE verifies)"
	}
	rows = nil
	for _, m := range d.Metrics {
		num := func(v *float64) string {
			if v == nil {
				return "-"
			}
			return fmt.Sprintf("%.6g", *v)
		}
		verdict := m.Verdict
		switch verdict {
		case "better":
			verdict = u.Out.Green(verdict)
		case "worse":
			verdict = u.Out.Red(verdict)
		}
		delta := ""
		if m.Before != nil && m.After != nil && *m.Before != *m.After {
			delta = fmt.Sprintf("%+.3g", *m.After-*m.Before)
		}
		rows = append(rows, []string{"~ " + plain(m.Name), plain(m.Slice), num(m.Before) + " -> " + num(m.After), delta, verdict})
	}
	section("metrics", claimed, rows)
	rows = nil
	for _, x := range d.Data {
		text := "sha256:" + x.Before.Short() + " -> sha256:" + x.After.Short()
		switch x.Kind {
		case compare.Same, compare.Removed:
			text = "sha256:" + x.Before.Short()
		case compare.Added:
			text = "sha256:" + x.After.Short()
		}
		rows = append(rows, []string{diffSign(x.Kind) + " " + plain(x.Name), x.Role, x.Kind, text})
	}
	section("data", claimed, rows)
	rows = nil
	for _, v := range d.Verdicts {
		rows = append(rows, []string{"~ " + plain(v.Env), cmp.Or(v.Before, "none") + " -> " + cmp.Or(v.After, "none")})
	}
	section("verdicts", claimed, rows)
	rows = nil
	for _, f := range d.Files {
		load := ""
		if f.Load {
			load = "a device downloads it"
		}
		rows = append(rows, []string{diffSign(f.Kind) + " " + plain(f.Path), string(f.Role), f.Kind, ui.Bytes(f.Bytes), load})
	}
	section("files", "", rows)
	if len(d.Files) > 0 {
		u.Data("")
		u.Data("  a device that has the first downloads %s", ui.Bytes(d.Download))
	}
}

func diffSign(kind string) string {
	switch kind {
	case compare.Added:
		return "+"
	case compare.Removed:
		return "-"
	case compare.Same:
		return "="
	}
	return "~"
}
