package codegen_test

import (
	"slices"

	"github.com/waybill-ml/waybill/packager/ir"
)

// list takes a sequence that there is, or makes one of tensors of one type.
func (g *generator) sequence() (made, bool) {
	var have []made
	for _, m := range g.lists {
		if m.v.Type.Kind == ir.Sequence && m.v.Type.Elem.Kind == ir.Tensor {
			have = append(have, m)
		}
	}
	if len(have) > 0 && !g.one(3) {
		return have[g.n(len(have))], true
	}
	if !g.inside && g.bit() == 0 {
		dt := g.dtype()
		v := &ir.Val{Kind: ir.Sequence}
		for range g.n(4) {
			v.Elems = append(v.Elems, ir.TensorVal(g.data(dt, g.somedims(g.n(3))...)))
		}
		return g.listParam(ir.SequenceOf(ir.TensorOf(dt, ir.Unranked())), v), true
	}
	x := g.thing(1)
	ins := []made{x}
	for range g.n(3) {
		ins = append(ins, g.like(x.d))
	}
	if !g.on("SequenceConstruct", 1, nil, ins...) || g.failed {
		return made{}, false
	}
	return g.lists[len(g.lists)-1], true
}

// listParam makes a parameter of the graph that is no tensor.
func (g *generator) listParam(t ir.Type, v *ir.Val) made {
	m := made{v: &ir.Value{Name: g.name("p"), Type: t}, val: v}
	g.params, g.ins, g.lists = append(g.params, m.v), append(g.ins, v), append(g.lists, m)
	return m
}

// ofSequence is a recipe over a sequence; at gives a position in it.
func ofSequence(f func(g *generator, s made, at func() made) bool) recipe {
	return func(g *generator) bool {
		s, ok := g.sequence()
		if !ok {
			return false
		}
		n := int64(len(s.val.Elems))
		return f(g, s, func() made { return g.wholes(nil, g.between(1, -n, max(n-1, 0))...) })
	}
}

// listRecipes are sequences and optionals.
func listRecipes() map[string]recipe {
	optional := func(g *generator) (made, bool) {
		if !g.inside && g.one(3) {
			d := g.data(g.dtype(), g.somedims(g.n(3))...)
			v := &ir.Val{Kind: ir.Optional}
			if g.bit() == 0 {
				v.Elems = []*ir.Val{ir.TensorVal(d)}
			}
			return g.listParam(ir.OptionalOf(ir.TensorOf(d.DType, ir.Unranked())), v), true
		}
		switch g.n(3) {
		case 0:
			ty := ir.TensorOf(g.dtype(), ir.Unranked())
			if !g.on("Optional", 1, attrs{"type": onnxType(ty)}) {
				return made{}, false
			}
		case 1:
			s, ok := g.sequence()
			if !ok || !g.on("Optional", 1, nil, s) {
				return made{}, false
			}
		default:
			if !g.on("Optional", 1, nil, g.thing(0)) {
				return made{}, false
			}
		}
		return g.lists[len(g.lists)-1], !g.failed
	}
	return map[string]recipe{
		"SequenceConstruct": func(g *generator) bool {
			x := g.thing(0)
			ins := []made{x}
			for range g.n(3) {
				ins = append(ins, g.of(x.d.DType, g.somedims(g.n(3))...))
			}
			return g.on("SequenceConstruct", 1, nil, ins...)
		},
		"SequenceEmpty": func(g *generator) bool { return g.on("SequenceEmpty", 1, g.some(attrs{"dtype": g.dtype()})) },
		"SequenceInsert": ofSequence(func(g *generator, s made, at func() made) bool {
			dt := s.v.Type.Elem.DType
			return g.on("SequenceInsert", 1, nil, s, g.of(dt, g.somedims(g.n(3))...), g.maybe(at))
		}),
		"SequenceErase":  ofSequence(func(g *generator, s made, at func() made) bool { return g.on("SequenceErase", 1, nil, s, g.maybe(at)) }),
		"SequenceAt":     ofSequence(func(g *generator, s made, at func() made) bool { return g.on("SequenceAt", 1, nil, s, at()) }),
		"SequenceLength": ofSequence(func(g *generator, s made, _ func() made) bool { return g.on("SequenceLength", 1, nil, s) }),
		"ConcatFromSequence": func(g *generator) bool {
			x := g.thing(1)
			r := len(x.d.Dims)
			a, fresh := g.n(r), g.bit()
			ins := []made{x}
			for range g.n(3) {
				d := slices.Clone(x.d.Dims)
				if fresh == 0 {
					d[a] = g.dim()
				}
				ins = append(ins, g.of(x.d.DType, d...))
			}
			if !g.on("SequenceConstruct", 1, nil, ins...) || g.failed {
				return false
			}
			return g.on("ConcatFromSequence", 1, attrs{"axis": a - r*g.bit()*(1-fresh), "new_axis": fresh}, g.lists[len(g.lists)-1])
		},
		"SplitToSequence": func(g *generator) bool {
			x := g.thing(1)
			r := len(x.d.Dims)
			a := g.n(r)
			at := g.some(attrs{"keepdims": g.bit()})
			at["axis"] = a - r*g.bit()
			var split made
			switch g.n(3) {
			case 0:
				split = g.wholes(nil, int64(1+g.n(3)))
			case 1:
				n := x.d.Dims[a]
				k := int64(g.n(int(n) + 1))
				split = g.wholes([]int64{2}, k, n-k)
			}
			return g.on("SplitToSequence", 1, at, x, split)
		},
		"SequenceMap": ofSequence(func(g *generator, s made, _ func() made) bool {
			el := *s.v.Type.Elem
			op := "Identity"
			switch {
			case el.DType.IsFloat():
				op = choose(g, "Neg", "Exp", "Shape")
			case el.DType != ir.String:
				op = choose(g, "Identity", "Shape", "NonZero")
			}
			if op == "NonZero" && el.DType.IsStored() {
				op = "Shape"
			}
			body := pbBody([][]byte{pbNode(op, nil, []string{"e"}, []string{"f"})}, map[string]ir.Type{"e": ir.TensorOf(el.DType, ir.Unranked())}, []string{"e"}, []string{"f"}, nil)
			return g.on("SequenceMap", 1, attrs{"body": body}, s)
		}),
		"Optional": func(g *generator) bool {
			n := len(g.region.Nodes)
			_, ok := optional(g)
			return (ok || g.failed) && len(g.region.Nodes) > n
		},
		"OptionalHasElement": func(g *generator) bool {
			o, ok := optional(g)
			return ok && g.on("OptionalHasElement", 1, nil, o)
		},
		"OptionalGetElement": func(g *generator) bool {
			o, ok := optional(g)
			return ok && g.on("OptionalGetElement", 1, nil, o)
		},
	}
}

// textRecipes are about strings.
func textRecipes() map[string]recipe {
	tokens := func(g *generator) attrs {
		at := g.some(attrs{"mark": g.bit(), "pad_value": choose(g, "", "#"), "mincharnum": 1 + g.n(2)})
		at["mark"], at["mincharnum"] = g.bit(), 1+g.n(2)
		if _, ok := at["pad_value"]; !ok {
			at["pad_value"] = "pad"
		}
		if g.bit() == 0 {
			at["tokenexp"] = choose(g, "[a-z]+", "\\w+|[^ ]", "[^ ,]+", "a|ab|é")
		} else {
			at["separators"] = choose(g, []string{" "}, []string{" ", ","}, []string{""}, []string{"x", " "})
		}
		return at
	}
	return map[string]recipe{
		"StringConcat": func(g *generator) bool {
			x := g.of(ir.String, g.dims()...)
			return g.on("StringConcat", 1, nil, x, g.like(x.d))
		},
		"StringSplit": func(g *generator) bool {
			return g.on("StringSplit", -2, g.some(attrs{"delimiter": choose(g, "", " ", ",", "a", "--"), "maxsplit": g.n(4)}), g.of(ir.String, g.dims()...))
		},
		"RegexFullMatch": func(g *generator) bool {
			return g.on("RegexFullMatch", 1, attrs{"pattern": choose(g, "a.*", "[a-z]+", "", "(a|b|cat)", "\\d*", ".*@.*\\.org", "[^a]*", "\\p{L}+", "(?i)DOG")}, g.of(ir.String, g.dims()...))
		},
		"StringNormalizer": func(g *generator) bool {
			at := g.some(attrs{"case_change_action": choose(g, "NONE", "LOWER", "UPPER"), "is_case_sensitive": g.bit(), "stopwords": []string{"the", "A", "äÖß"}, "locale": "en_US"})
			return g.on("StringNormalizer", 1, at, g.of(ir.String, choose(g, []int64{1 + int64(g.n(5))}, []int64{1, int64(g.n(5))})...))
		},
		"com.microsoft.Tokenizer": func(g *generator) bool {
			return g.on("com.microsoft.Tokenizer", 1, tokens(g), g.of(ir.String, g.somedims(1+g.n(2))...))
		},
		"TfIdfVectorizer": func(g *generator) bool {
			at := attrs{"mode": choose(g, "TF", "IDF", "TFIDF"), "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": g.n(3), "ngram_counts": []int64{0, 3}, "ngram_indexes": []int64{0, 2, 1, 3, 4}}
			if g.bit() == 0 {
				at["weights"] = g.reals(5)
			}
			d := choose(g, []int64{g.dim()}, g.somedims(2))
			if g.bit() == 0 {
				at["pool_int64s"] = []int64{1, 2, 3, 1, 2, 2, 3}
				n, _ := ir.Elements(d)
				return g.on("TfIdfVectorizer", 1, at, g.wholes(d, g.between(int(n), 0, 4)...))
			}
			at["pool_strings"] = []string{"a", "b", "cat", "a", "b", "b", "cat"}
			return g.on("TfIdfVectorizer", 1, at, g.of(ir.String, d...))
		},
	}
}

// bodyRecipes are those with bodies; their nodes come from other recipes.
func bodyRecipes() map[string]recipe {
	inner := func(g *generator, op string) bool {
		if g.inside {
			return false
		}
		return g.controlOf(op)
	}
	return map[string]recipe{
		"If":   func(g *generator) bool { return inner(g, "If") },
		"Loop": func(g *generator) bool { return inner(g, "Loop") },
		"Scan": func(g *generator) bool { return inner(g, "Scan") },
	}
}
