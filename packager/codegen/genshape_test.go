package codegen_test

import (
	"slices"

	"github.com/waybill-ml/waybill/packager/ir"
)

// shapeRecipes move elements without looking at them.
func shapeRecipes() map[string]recipe {
	wrap := func(g *generator, a int64, r int) int64 { return a - int64(r*g.bit()) }
	return map[string]recipe{
		"Shape": func(g *generator) bool {
			return g.on("Shape", 1, g.some(attrs{"start": g.n(9) - 4, "end": g.n(9) - 4}), g.thing(0))
		},
		"Size": func(g *generator) bool { return g.on("Size", 1, nil, g.thing(0)) },
		"Reshape": func(g *generator) bool {
			x := g.thing(0)
			to := slices.Clone(x.d.Dims)
			if len(to) > 0 {
				for i, p := range g.perm(len(to)) {
					to[i] = x.d.Dims[p]
				}
				to[g.n(len(to))] = choose[int64](g, -1, -1, 0)
			}
			return g.on(g.ver("Reshape", 5, 28), 1, nil, x, g.list(to...))
		},
		"Flatten": func(g *generator) bool {
			x := g.thing(0)
			return g.on("Flatten", 1, g.some(attrs{"axis": g.n(len(x.d.Dims) + 1)}), x)
		},
		"Squeeze": func(g *generator) bool {
			x := g.thing(0)
			if g.one(4) {
				return g.on("Squeeze@11", 1, nil, x)
			}
			for i, n := range x.d.Dims {
				if n == 1 {
					return g.on("Squeeze", 1, nil, x, g.list(wrap(g, int64(i), len(x.d.Dims))))
				}
			}
			return g.on("Squeeze", 1, nil, x)
		},
		"Unsqueeze": func(g *generator) bool {
			x := g.thing(0)
			r := len(x.d.Dims)
			if g.one(4) {
				return g.on("Unsqueeze@11", 1, attrs{"axes": []int64{int64(g.n(r + 1))}}, x)
			}
			return g.on("Unsqueeze", 1, nil, x, g.list(g.perm(r + 2)[:2]...))
		},
		"Concat": func(g *generator) bool {
			x := g.thing(1)
			r := len(x.d.Dims)
			a, ins := g.n(r), []made{x}
			for range g.n(4) {
				d := slices.Clone(x.d.Dims)
				d[a] = g.dim()
				ins = append(ins, g.of(x.d.DType, d...))
			}
			return g.on("Concat", 1, attrs{"axis": wrap(g, int64(a), r)}, ins...)
		},
		"Slice": func(g *generator) bool {
			x := g.thing(1)
			r := len(x.d.Dims)
			axes := g.perm(r)[:1+g.n(r)]
			n := len(axes)
			if g.one(4) {
				return g.on("Slice@9", 1, g.some(attrs{"starts": g.between(n, -4, 4), "ends": g.between(n, -4, 6), "axes": axes}), x)
			}
			var steps made
			if g.bit() == 0 {
				s := g.between(n, 1, 3)
				for i := range s {
					s[i] *= choose[int64](g, 1, 1, -1)
				}
				steps = g.list(s...)
			}
			return g.on("Slice", 1, nil, x, g.list(g.between(n, -5, 5)...), g.list(g.between(n, -5, 7)...), g.list(axes...), steps)
		},
		"Expand": func(g *generator) bool {
			x := g.thing(0)
			to := slices.Clone(x.d.Dims)
			for i := range to {
				if g.one(3) {
					to[i] = 1
				} else if to[i] == 1 {
					to[i] = g.dim()
				}
			}
			return g.on("Expand", 1, nil, x, g.list(append(g.somedims(g.n(2)), to...)...))
		},
		"Transpose": func(g *generator) bool {
			x := g.thing(0)
			return g.on("Transpose", 1, g.some(attrs{"perm": g.perm(len(x.d.Dims))}), x)
		},
		"Pad": func(g *generator) bool {
			x := g.thing(1)
			r := len(x.d.Dims)
			at := g.some(attrs{"mode": choose(g, "constant", "reflect", "edge", "wrap")})
			if g.one(4) && x.d.DType.IsFloat() {
				return g.on("Pad@2", 1, attrs{"pads": g.between(2*r, 0, 2), "value": g.float()}, x)
			}
			axes := g.perm(r)[:1+g.n(r)]
			n := len(axes)
			return g.on("Pad", 1, at, x, g.list(g.between(2*n, -2, 3)...), g.maybe(func() made { return g.fresh(x.d.DType) }), g.list(axes...))
		},
		"Split": func(g *generator) bool {
			x := g.thing(1)
			r := len(x.d.Dims)
			a, parts := g.n(r), 1+g.n(3)
			at := attrs{"axis": wrap(g, int64(a), r)}
			if g.bit() == 0 {
				at["num_outputs"] = parts
				return g.on("Split", -parts, at, x)
			}
			left, sizes := x.d.Dims[a], []int64{}
			for i := range parts {
				n := int64(g.n(int(left) + 1))
				if i == parts-1 {
					n = left
				}
				sizes, left = append(sizes, n), left-n
			}
			if g.one(4) {
				at["split"] = sizes
				return g.on("Split@11", parts, at, x)
			}
			return g.on("Split", -parts, at, x, g.list(sizes...))
		},
		"Tile": func(g *generator) bool {
			x := g.thing(0)
			return g.on("Tile", 1, nil, x, g.list(g.between(len(x.d.Dims), 0, 3)...))
		},
		"Range": func(g *generator) bool {
			dt := choose(g, ir.F32, ir.F64, ir.I16, ir.I32, ir.I64)
			return g.on("Range", 1, nil, g.real(dt, float64(g.n(9)-4)), g.real(dt, float64(g.n(30)-9)), g.real(dt, choose(g, 1.0, 2, -1, 3, 1, 0.5)))
		},
		"ConstantOfShape": func(g *generator) bool {
			return g.on("ConstantOfShape", 1, g.some(attrs{"value": g.data(g.dtype(), 1)}), g.list(g.dims()...))
		},
		"EyeLike": func(g *generator) bool {
			x := g.fresh(g.dtype(), g.somedims(2)...)
			return g.on("EyeLike", 1, g.some(attrs{"k": g.n(7) - 3, "dtype": g.dtype()}), x)
		},
		"Trilu": func(g *generator) bool {
			return g.on("Trilu", 1, g.some(attrs{"upper": g.bit()}), g.thing(2), g.maybe(func() made { return g.scalar(int64(g.n(9) - 4)) }))
		},
		"CenterCropPad": func(g *generator) bool {
			x := g.thing(1)
			r := len(x.d.Dims)
			if g.bit() == 0 {
				return g.on("CenterCropPad", 1, nil, x, g.wholes([]int64{int64(r)}, g.between(r, 0, 6)...))
			}
			axes := g.perm(r)[:1+g.n(r)]
			return g.on("CenterCropPad", 1, attrs{"axes": axes}, x, g.wholes([]int64{int64(len(axes))}, g.between(len(axes), 0, 6)...))
		},
		"DepthToSpace": func(g *generator) bool {
			b, d := 1+int64(g.n(3)), g.somedims(4)
			return g.on("DepthToSpace", 1, attrs{"blocksize": b, "mode": choose(g, "DCR", "CRD")}, g.of(g.dtype(), d[0], b*b*choose[int64](g, 1, 2), d[2], d[3]))
		},
		"SpaceToDepth": func(g *generator) bool {
			b, d := 1+int64(g.n(3)), g.somedims(4)
			return g.on("SpaceToDepth", 1, attrs{"blocksize": b}, g.of(g.dtype(), d[0], d[1], b*choose[int64](g, 1, 2), b*choose[int64](g, 1, 3)))
		},
		"Col2Im": func(g *generator) bool {
			dims := 1 + g.n(3)
			img, blk, dil, pads, str := g.between(dims, 2, 6), g.between(dims, 1, 2), g.between(dims, 1, 2), g.between(2*dims, 0, 1), g.between(dims, 1, 2)
			l, k := int64(1), int64(1)
			for i := range dims {
				l *= max((img[i]+pads[i]+pads[i+dims]-dil[i]*(blk[i]-1)-1)/str[i]+1, 0)
				k *= blk[i]
			}
			return g.on("Col2Im", 1, attrs{"dilations": dil, "pads": pads, "strides": str}, g.of(g.dtype(), g.dim(), k*choose[int64](g, 1, 2), l), g.list(img...), g.list(blk...))
		},
		"ReverseSequence": func(g *generator) bool {
			x := g.thing(2)
			b := g.bit()
			n, t := x.d.Dims[b], x.d.Dims[1-b]
			if t == 0 {
				return false
			}
			return g.on("ReverseSequence", 1, attrs{"batch_axis": b, "time_axis": 1 - b}, x, g.list(g.between(int(n), 1, t)...))
		},
	}
}

// indexRecipes pick and place by positions.
func indexRecipes() map[string]recipe {
	at := func(g *generator, n int64, dims ...int64) made {
		if g.one(4) {
			c, _ := ir.Elements(dims)
			v := make([]int64, c)
			if n > 0 {
				v = g.between(int(c), -n, n-1)
			}
			return g.value(ir.IntData(ir.I32, dims, v))
		}
		return g.indices(n, dims...)
	}
	reduction := func(g *generator) string { return choose(g, "none", "add", "mul", "max", "min") }
	scatter := func(g *generator, op string) bool {
		x := g.thing(1)
		r := len(x.d.Dims)
		a := g.n(r)
		sub := slices.Clone(x.d.Dims)
		sub[a] = int64(g.n(5))
		when := attrs{"axis": a - r*g.bit()}
		if op == "ScatterElements" {
			when["reduction"] = reduction(g)
		}
		return g.on(map[string]string{"Scatter": "Scatter@10", "ScatterElements": "ScatterElements"}[op], 1, when, x, at(g, x.d.Dims[a], sub...), g.of(x.d.DType, sub...))
	}
	return map[string]recipe{
		"Gather": func(g *generator) bool {
			x := g.thing(1)
			a := g.n(len(x.d.Dims))
			return g.on("Gather", 1, attrs{"axis": a - len(x.d.Dims)*g.bit()}, x, at(g, x.d.Dims[a], g.ranked(g.n(3))...))
		},
		"GatherElements": func(g *generator) bool {
			x := g.thing(1)
			a := g.n(len(x.d.Dims))
			sub := slices.Clone(x.d.Dims)
			sub[a] = int64(g.n(5))
			return g.on("GatherElements", 1, attrs{"axis": a}, x, at(g, x.d.Dims[a], sub...))
		},
		"GatherND": func(g *generator) bool {
			x := g.thing(1)
			r := len(x.d.Dims)
			b := g.n(min(r, 2))
			k := 1 + g.n(r-b)
			least := slices.Min(x.d.Dims)
			return g.on("GatherND", 1, attrs{"batch_dims": b}, x, at(g, least, append(slices.Clone(x.d.Dims[:b]), int64(g.n(4)), int64(k))...))
		},
		"Scatter":         func(g *generator) bool { return scatter(g, "Scatter") },
		"ScatterElements": func(g *generator) bool { return scatter(g, "ScatterElements") },
		"ScatterND": func(g *generator) bool {
			x := g.thing(1)
			r, n := len(x.d.Dims), int64(g.n(4))
			k := 1 + g.n(r)
			return g.on("ScatterND", 1, g.some(attrs{"reduction": reduction(g)}), x, at(g, slices.Min(x.d.Dims), n, int64(k)), g.of(x.d.DType, append([]int64{n}, x.d.Dims[k:]...)...))
		},
		"NonZero": func(g *generator) bool { return g.on("NonZero", 1, nil, g.thing(0)) },
		"Compress": func(g *generator) bool {
			x := g.thing(1)
			if g.bit() == 0 {
				return g.on("Compress", 1, nil, x, g.fresh(ir.Bool, min(x.d.Len(), int64(g.n(9)))))
			}
			a := g.n(len(x.d.Dims))
			return g.on("Compress", 1, attrs{"axis": a}, x, g.fresh(ir.Bool, min(x.d.Dims[a], int64(g.n(6)))))
		},
		"Unique": func(g *generator) bool {
			x := g.thing(1)
			return g.on("Unique", -4, g.some(attrs{"axis": g.axis(len(x.d.Dims)), "sorted": g.bit()}), x)
		},
		"OneHot": func(g *generator) bool {
			x := g.num(0)
			depth := int64(1 + g.n(5))
			d := g.value(ir.IntData(choose(g, ir.I64, ir.I32), choose(g, []int64{}, []int64{1}), []int64{depth}))
			if g.bit() == 0 {
				x = g.wholes([]int64{3, 2}, g.between(6, -depth-1, depth)...)
			}
			return g.on("OneHot", 1, g.some(attrs{"axis": g.axis(len(x.d.Dims) + 1)}), x, d, g.fresh(g.dtype(), 2))
		},
		"TensorScatter": func(g *generator) bool {
			dt, b, n := g.dtype(), 1+int64(g.n(3)), 1+int64(g.n(5))
			up := 1 + int64(g.n(int(n)))
			mode := choose(g, "linear", "circular")
			d := g.somedims(g.n(2))
			start := g.maybe(func() made { return g.list(g.between(int(b), 0, n-up)...) })
			return g.on("TensorScatter", 1, attrs{"mode": mode, "axis": 1}, g.of(dt, append([]int64{b, n}, d...)...), g.of(dt, append([]int64{b, up}, d...)...), start)
		},
	}
}
