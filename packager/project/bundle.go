package project

import (
	"github.com/goccy/go-yaml/ast"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Considerations are what the author wants people to know before they use the model. They go into the bill of materials.
type Considerations struct {
	Users       []string
	UseCases    []string
	Limitations []string
	Tradeoffs   []string
	Risks       []Risk
	Fairness    []Fairness
	Energy      []Energy
	Oversight   string // how people watch over it and step in
}

// Fairness is what was found for one group of people that the model could put at a disadvantage.
type Fairness struct{ Group, Harms, Mitigation string }

// Energy is what an activity of the life cycle took, by CycloneDX's names of activities.
type Energy struct {
	Activity string
	KWh      float64
}

// Risk is an ethical or other risk and what is done about it.
type Risk struct {
	Name       string
	Mitigation string
}

// compiledOnly are the keys that say something about a compiled model, bundledOnly those about one that is not.
func compiledOnly() []string { return []string{"golden", "steps", "features", "state", "limits"} }
func bundledOnly() []string  { return []string{"config", "code"} }

// filesOf reads a list of paths. With allow, a path may be given here and elsewhere.
func (r *reader) filesOf(n ast.Node, what string) []File {
	var out []File
	seen := map[string]bool{}
	r.sequence(n, what, func(_ int, v ast.Node) {
		f := File{Path: r.path(v, what+" entry"), Loc: r.loc(v)}
		if r.err == nil && seen[f.Path] {
			r.fail(v, "%s: %s is given twice", what, f.Path)
		}
		seen[f.Path] = true
		out = append(out, f)
	})
	if r.err == nil && len(out) == 0 {
		r.fail(n, "%s is empty", what)
	}
	return out
}

// modes checks that no key stands that says nothing about what this project makes.
func (r *reader) modes(p *Project, at map[string]ast.Node) {
	keys, text := bundledOnly(), "%s goes with compile: false; a compiled model has no use for it"
	if !p.Compile {
		keys, text = compiledOnly(), "%s goes with a compiled model, and this project has compile: false"
	}
	for _, k := range keys {
		if n := at[k]; n != nil {
			r.fail(n, text, k)
		}
	}
	if p.Compile {
		return
	}
	seen := map[string]diag.Loc{}
	for _, list := range [][]File{p.Config, p.Code} {
		for _, f := range list {
			if l, dup := seen[f.Path]; dup && r.err == nil {
				r.err = diag.New(diag.Usage, "%s is given twice: in line %d too", f.Path, l.Line).At(f.Loc)
			}
			seen[f.Path] = f.Loc
		}
	}
}

func (r *reader) considerations(n ast.Node) *Considerations {
	c := &Considerations{}
	r.mapping(n, "considerations", []string{"users", "use_cases", "limitations", "tradeoffs", "risks", "fairness", "energy", "oversight"}, func(key string, v ast.Node) {
		switch key {
		case "users":
			c.Users = r.texts(v, key)
		case "use_cases":
			c.UseCases = r.texts(v, key)
		case "limitations":
			c.Limitations = r.texts(v, key)
		case "tradeoffs":
			c.Tradeoffs = r.texts(v, key)
		case "fairness":
			r.sequence(v, key, func(_ int, e ast.Node) { c.Fairness = append(c.Fairness, r.fairness(e)) })
		case "energy":
			r.sequence(v, key, func(_ int, e ast.Node) { c.Energy = append(c.Energy, r.energy(e)) })
		case "oversight":
			c.Oversight = r.text(v, key, false)
		case "risks":
			r.sequence(v, key, func(_ int, e ast.Node) {
				k := Risk{}
				if isText(e) {
					k.Name = r.text(e, "risk", false)
				} else {
					r.mapping(e, "risk", []string{"name", "mitigation"}, func(key string, v ast.Node) {
						if key == "name" {
							k.Name = r.text(v, key, false)
						} else {
							k.Mitigation = r.text(v, key, false)
						}
					})
					if r.err == nil && k.Name == "" {
						r.fail(e, "risk: key \"name\" is missing")
					}
				}
				c.Risks = append(c.Risks, k)
			})
		}
	})
	return c
}
