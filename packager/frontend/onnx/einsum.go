package onnx

import (
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/packager/ir"
)

func einsumOps() map[string]handler { return map[string]handler{"Einsum": einsum} }

// term is an operand whose dims carry labels.
type term struct {
	v      *ir.Value
	labels []rune
}

// ellipsis labels: the i-th dim from the right of an ellipsis is dots+i.
const dots = 0x10000

// einsum multiplies the operands from left to right: each pair is one MatMul over batch, kept and summed labels.
func einsum(o *op) []*ir.Value {
	eq := strings.Join(strings.Fields(o.attrStr("equation", "")), "")
	lhs, rhs, explicit := strings.Cut(eq, "->")
	subs := strings.Split(lhs, ",")
	if len(subs) != len(o.ins) {
		return o.fail("equation %q with %d operands", eq, len(o.ins))
	}
	var terms []term
	seen := map[rune]int{}
	wide := 0
	for i, s := range subs {
		v := o.need(i)
		r := o.needRank(v)
		if o.err != nil {
			return nil
		}
		head, tail, dotted := strings.Cut(s, "...")
		n := r - len(head) - len(tail)
		if n < 0 || !dotted && n != 0 {
			return o.fail("equation %q: operand %d has rank %d", eq, i, r)
		}
		var ls []rune
		for _, c := range head {
			ls = append(ls, c)
		}
		for k := n - 1; k >= 0; k-- {
			ls = append(ls, dots+rune(k))
		}
		for _, c := range tail {
			ls = append(ls, c)
		}
		for _, c := range ls {
			if c < dots && !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
				return o.fail("equation %q: label %q", eq, c)
			}
			seen[c]++
		}
		wide = max(wide, n)
		terms = append(terms, term{v, ls})
	}
	var out []rune
	ell := func() {
		for k := wide - 1; k >= 0; k-- {
			out = append(out, dots+rune(k))
		}
	}
	if explicit {
		head, tail, dotted := strings.Cut(rhs, "...")
		out = append(out, []rune(head)...)
		if dotted {
			ell()
		}
		out = append(out, []rune(tail)...)
	} else {
		ell()
		var once []rune
		for c, n := range seen {
			if c < dots && n == 1 {
				once = append(once, c)
			}
		}
		slices.Sort(once)
		out = append(out, once...)
	}
	used := map[rune]bool{}
	for _, c := range out {
		if seen[c] == 0 || used[c] {
			return o.fail("equation %q: output label %q", eq, c)
		}
		used[c] = true
	}
	for i := range terms {
		terms[i] = o.diagonals(terms[i])
	}
	cur := terms[0]
	for i := 1; i <= len(terms); i++ {
		needed := map[rune]bool{}
		for c := range used {
			needed[c] = true
		}
		for _, t := range terms[min(i+1, len(terms)):] {
			for _, c := range t.labels {
				needed[c] = true
			}
		}
		if i == len(terms) {
			cur = o.sumOut(cur, needed)
			break
		}
		cur = o.contract(cur, terms[i], needed)
		if o.err != nil {
			return nil
		}
	}
	return one(o.arranged(cur, out).v)
}

// arranged transposes t to the order of ls.
func (o *op) arranged(t term, ls []rune) term {
	perm := make([]int64, len(ls))
	for i, c := range ls {
		perm[i] = int64(slices.Index(t.labels, c))
	}
	return term{o.permuted(t.v, perm), ls}
}

// sumOut sums over the labels that nobody needs.
func (o *op) sumOut(t term, needed map[rune]bool) term {
	var axes []int64
	var keep []rune
	for i, c := range t.labels {
		if needed[c] {
			keep = append(keep, c)
		} else {
			axes = append(axes, int64(i))
		}
	}
	if len(axes) == 0 {
		return t
	}
	return term{o.emit("ReduceSum", ir.Attrs{"keepdims": 0}, t.v, o.ints(axes...)), keep}
}

// diagonals merges labels that an operand has twice.
func (o *op) diagonals(t term) term {
	for i := 0; i < len(t.labels); i++ {
		j := i + 1 + slices.Index(t.labels[i+1:], t.labels[i])
		if j == i {
			continue
		}
		perm := []int64{}
		var ls []rune
		for k, c := range t.labels {
			if k != i && k != j {
				perm, ls = append(perm, int64(k)), append(ls, c)
			}
		}
		r := len(t.labels)
		v := o.permuted(t.v, append(perm, int64(i), int64(j)))
		n := o.sizes(v, r-1, r)
		// The two sizes must agree: reshaping to n by n checks it. Then every (n+1)-th element.
		v = o.shaped(v, o.sizes(v, 0, r-2), o.calc("Mul", n, n))
		v = o.emit("Slice", nil, v, o.ints(0), o.calc("Mul", n, n), o.ints(int64(r-2)), o.calc("Add", n, o.ints(1)))
		t = term{v, append(ls, t.labels[i])}
		i = -1
	}
	return t
}

// contract multiplies two terms and sums over the labels that nobody needs any more.
func (o *op) contract(a, b term, needed map[rune]bool) term {
	has := func(ls []rune, c rune) bool { return slices.Contains(ls, c) }
	inA, inB := map[rune]bool{}, map[rune]bool{}
	for c := range needed {
		inA[c], inB[c] = true, true
	}
	for _, c := range b.labels {
		inA[c] = true
	}
	for _, c := range a.labels {
		inB[c] = true
	}
	a, b = o.sumOut(a, inA), o.sumOut(b, inB)
	var batch, left, right, sum []rune
	for _, c := range a.labels {
		switch {
		case !has(b.labels, c):
			left = append(left, c)
		case needed[c]:
			batch = append(batch, c)
		default:
			sum = append(sum, c)
		}
	}
	for _, c := range b.labels {
		if !has(a.labels, c) {
			right = append(right, c)
		}
	}
	a = o.arranged(a, slices.Concat(batch, left, sum))
	b = o.arranged(b, slices.Concat(batch, sum, right))
	nb, nl, ns, nr := len(batch), len(left), len(sum), len(right)
	if nb+2 > ir.MaxRank {
		o.lacks("%d shared dims", nb)
		return a
	}
	lead := func(t term) *ir.Value { return o.sizes(t.v, 0, nb) }
	ld, rd := o.sizes(a.v, nb, nb+nl), o.sizes(b.v, nb+ns, nb+ns+nr)
	x, y := a.v, b.v
	if nl != 1 || ns != 1 {
		x = o.shaped(x, lead(a), o.product(ld), o.product(o.sizes(a.v, nb+nl, nb+nl+ns)))
	}
	if nr != 1 || ns != 1 {
		y = o.shaped(y, lead(b), o.product(o.sizes(b.v, nb, nb+ns)), o.product(rd))
	}
	z := o.emit("MatMul", nil, x, y)
	if nl != 1 || nr != 1 {
		z = o.shaped(z, o.sizes(z, 0, nb), ld, rd)
	}
	return term{z, slices.Concat(batch, left, right)}
}
