package project

import (
	"errors"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/spdx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func keys() []string {
	return []string{
		"name", "version", "license", "model", "golden", "personal_data", "owner", "risk", "status", "trained", "base_models",
		"epoch", "steps", "features",
		"metrics", "datasets", "state", "docs", "limits", "compile", "config", "code", "allow_pickle", "considerations",
	}
}

// Parse reads the bytes of a project file; file is how messages call it. It opens nothing.
func Parse(file string, b []byte) (*Project, error) {
	r := &reader{file: file}
	p := &Project{File: file, Compile: true}
	root := r.document(b)
	if r.err != nil {
		return nil, r.err
	}
	personal := ""
	set := map[string]ast.Node{}
	r.mapping(root, "the project", keys(), func(key string, v ast.Node) {
		set[key] = v
		switch key {
		case "name":
			p.Name = r.checked(v, key, false, CheckName)
		case "version":
			p.Version = r.checked(v, key, true, CheckVersion)
		case "license":
			p.License = r.license(v)
		case "model":
			p.Model = r.fileNode(v, key)
		case "golden":
			p.Golden = r.golden(v)
		case "personal_data":
			personal = r.personal(v)
		case "owner":
			p.Owner = r.text(v, key, false)
		case "risk":
			p.Risk = r.word(v, key, "minimal", "limited", "high", "prohibited")
		case "status":
			p.Status = r.word(v, key, "active", "retired")
		case "trained":
			p.Trained = r.day(v, key)
		case "base_models":
			r.sequence(v, key, func(_ int, n ast.Node) { p.BaseModels = append(p.BaseModels, r.baseModel(n)) })
		case "epoch":
			p.Epoch = r.integer(v, key, 0, 1<<53)
		case "steps":
			p.Steps = r.steps(v)
		case "features":
			r.features(v, p)
		case "metrics":
			p.Metrics = r.path(v, key)
			p.files = append(p.files, File{Path: p.Metrics, Loc: r.loc(v)})
		case "datasets":
			p.Datasets = r.path(v, key)
			p.files = append(p.files, File{Path: p.Datasets, Loc: r.loc(v)})
		case "state":
			r.sequence(v, key, func(_ int, n ast.Node) {
				s := r.state(n)
				p.State = append(p.State, s)
				if s.File != "" {
					p.files = append(p.files, File{Path: s.File, Loc: s.Loc})
				}
			})
		case "docs":
			seen := map[string]bool{}
			r.sequence(v, key, func(_ int, n ast.Node) {
				f := r.path(n, "docs entry")
				if seen[f] {
					r.fail(n, "%s is given twice", f)
				}
				seen[f] = true
				p.Docs = append(p.Docs, f)
				p.files = append(p.files, File{Path: f, Loc: r.loc(n)})
			})
		case "limits":
			p.Limits = r.limits(v)
		case "compile":
			p.Compile = r.boolean(v, key)
		case "config":
			p.Config = r.filesOf(v, key)
			p.files = append(p.files, p.Config...)
		case "code":
			p.Code = r.filesOf(v, key)
			p.files = append(p.files, p.Code...)
		case "allow_pickle":
			p.AllowPickle = r.filesOf(v, key)
			p.files = append(p.files, p.AllowPickle...)
		case "considerations":
			p.Considerations = r.considerations(v)
		}
	})
	if r.err == nil {
		r.modes(p, set)
	}
	if r.err != nil {
		return nil, r.err
	}
	for _, k := range []string{"name", "version", "license", "model"} {
		if set[k] == nil {
			return nil, diag.New(diag.Usage, "key %q is missing", k).At(diag.Loc{File: file, Line: 1, Col: 1})
		}
	}
	if p.Model.PersonalData == "" {
		p.Model.PersonalData = personal
	}
	if p.Compile {
		p.files = append(p.files, p.Model)
	}
	if p.Golden != nil {
		if p.Golden.PersonalData == "" {
			p.Golden.PersonalData = personal
		}
		p.files = append(p.files, p.Golden.File)
	}
	for _, s := range p.Steps {
		switch {
		case s.Tokenizer != "":
			p.files = append(p.files, File{Path: s.Tokenizer, Loc: s.Loc})
		case s.Image != nil, s.Audio != nil:
		case s.TopK == nil:
			p.files = append(p.files, File{Path: s.File, Loc: s.Loc})
		case s.TopK.LabelsFile != "":
			p.files = append(p.files, File{Path: s.TopK.LabelsFile, Loc: s.Loc})
		}
	}
	return p, nil
}

func (r *reader) checked(n ast.Node, what string, numbers bool, check func(string) error) string {
	s := r.text(n, what, numbers)
	if r.err == nil {
		if err := check(s); err != nil {
			r.fail(n, "%s: %v", what, err)
		}
	}
	return s
}

func (r *reader) license(n ast.Node) string {
	s := r.text(n, "license", false)
	if r.err != nil {
		return ""
	}
	c, err := spdx.Canonical(s)
	if err != nil {
		e := r.fail(n, "license: %v", err)
		var u *spdx.UnknownError
		if errors.As(err, &u) {
			if near := diag.Nearest(u.ID, spdx.Licenses()); near != "" {
				e.Line("did you mean %q?", near)
			}
		}
	}
	return c
}

func (r *reader) path(n ast.Node, what string) string {
	s := r.text(n, what, false)
	if r.err != nil {
		return ""
	}
	c, err := clean(s)
	if err != nil {
		r.fail(n, "%s: %v", what, err)
	}
	return c
}

func (r *reader) personal(n ast.Node) string {
	s := r.text(n, "personal_data", false)
	if r.err == nil && s != artifact.PersonalNone && s != artifact.PersonalYes {
		r.fail(n, "personal_data is %q, allowed are %s and %s", s, artifact.PersonalNone, artifact.PersonalYes)
	}
	return s
}

func (r *reader) texts(n ast.Node, what string) []string {
	var out []string
	seen := map[string]bool{}
	r.sequence(n, what, func(_ int, v ast.Node) {
		s := r.text(v, what+" entry", true)
		if seen[s] {
			r.fail(v, "%s: %q is given twice", what, s)
		}
		seen[s] = true
		out = append(out, s)
	})
	return out
}

// fileNode reads "model: model.onnx" or the mapping form {file, personal_data}.
func (r *reader) fileNode(n ast.Node, what string) File {
	if _, ok := n.(*ast.StringNode); ok {
		return File{Path: r.path(n, what), Loc: r.loc(n)}
	}
	f := File{Loc: r.loc(n)}
	r.mapping(n, what, []string{"file", "personal_data"}, func(key string, v ast.Node) {
		if key == "file" {
			f.Path, f.Loc = r.path(v, what+".file"), r.loc(v)
		} else {
			f.PersonalData = r.personal(v)
		}
	})
	if r.err == nil && f.Path == "" {
		r.fail(n, "%s: key \"file\" is missing", what)
	}
	return f
}

func (r *reader) golden(n ast.Node) *Golden {
	if _, ok := n.(*ast.StringNode); ok {
		return &Golden{File: r.fileNode(n, "golden")}
	}
	g := &Golden{File: File{Loc: r.loc(n)}}
	r.mapping(n, "golden", []string{"file", "personal_data", "tolerance"}, func(key string, v ast.Node) {
		switch key {
		case "file":
			g.Path, g.Loc = r.path(v, "golden.file"), r.loc(v)
		case "personal_data":
			g.PersonalData = r.personal(v)
		case "tolerance":
			r.sequence(v, "tolerance", func(_ int, e ast.Node) {
				var t artifact.Tolerance
				r.mapping(e, "tolerance entry", []string{"output", "rtol", "atol"}, func(key string, v ast.Node) {
					switch key {
					case "output":
						t.Output = r.text(v, "output", true)
					case "rtol":
						t.RTol = r.number(v, "rtol")
					case "atol":
						t.ATol = r.number(v, "atol")
					}
				})
				if r.err == nil && t.Output == "" {
					r.fail(e, "tolerance entry: key \"output\" is missing")
				}
				g.Tolerance = append(g.Tolerance, t)
			})
		}
	})
	if r.err == nil && g.Path == "" {
		r.fail(n, "golden: key \"file\" is missing")
	}
	return g
}

func (r *reader) state(n ast.Node) State {
	s := State{Loc: r.loc(n)}
	r.mapping(n, "state entry", []string{"input", "output", "init"}, func(key string, v ast.Node) {
		switch key {
		case "input":
			s.Input = r.text(v, "input", true)
		case "output":
			s.Output = r.text(v, "output", true)
		default:
			if x, ok := parseNumber(v); ok {
				s.Fill = x
			} else {
				s.File = r.path(v, "init")
			}
		}
	})
	if r.err == nil && (s.Input == "" || s.Output == "") {
		r.fail(n, "a state entry needs the keys \"input\" and \"output\"")
	}
	return s
}

func (r *reader) limits(n ast.Node) Limits {
	var l Limits
	r.mapping(n, "limits", []string{"timeout", "max_batch", "memory", "dims"}, func(key string, v ast.Node) {
		switch key {
		case "timeout":
			l.Timeout = r.duration(v, "timeout", time.Hour)
		case "max_batch":
			l.MaxBatch = r.integer(v, "max_batch", 1, 1<<31-1)
		case "memory":
			l.Memory, l.MemoryAt = r.bytes(v, "memory", 4<<30), r.loc(v)
		default:
			r.open(v, "dims", func(symbol string, v ast.Node) {
				l.Dims = append(l.Dims, DimBound{symbol, r.integer(v, "dims."+symbol, 1, 1<<31-1), r.loc(v)})
			})
		}
	})
	return l
}
