package codegen

import (
	"encoding/binary"
	"math"
	"slices"
	"sort"
	"strings"
	"unicode"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

// Operators on strings. What only moves elements runs on references (kernel/strings.go): explode, move, implode.

func u64DT() kernel.DT { return dtypeOf(abi.U64) }

func dtypeOf(d abi.DType) kernel.DT {
	k, err := kernel.DTypeOf(d)
	if err != nil {
		panic(err)
	}
	return k
}

// temps collects slots of a lowering that die with its last step.
type temps struct {
	c     *compiler
	slots []int
}

func (t *temps) new() *operand {
	o := t.c.newSlot()
	t.slots = append(t.slots, o.slot)
	return o
}

// free releases all of them after s.
func (t *temps) free(s *step) { s.frees = append(s.frees, t.slots...) }

// explode gives references to the strings of o.
func (t *temps) explode(o *operand) *operand {
	r := t.new()
	t.c.step(kernel.Explode(), []*operand{r}, []*operand{o})
	return r
}

func isString(v *ir.Value) bool {
	return v != nil && v.Type.Kind == ir.Tensor && v.Type.DType == ir.String
}

// moved lowers an operator that moves elements of the inputs listed in data (nil: all): strings go as references.
// k is given the element type; the outputs are of the same type.
func (c *compiler) moved(n *ir.Node, data []int, k func(d kernel.DT) *kernel.Kernel, attrs ...attr) error {
	first := 0
	if len(data) > 0 {
		first = data[0]
	}
	if !isString(n.Ins[first]) {
		d, err := c.store(n, n.Ins[first])
		if err != nil {
			return err
		}
		c.step(k(d), c.outs(n), c.ins(n), attrs...)
		return nil
	}
	t := &temps{c: c}
	ins := c.ins(n)
	for i := range ins {
		if ins[i] != nil && isString(n.Ins[i]) && (data == nil || slices.Contains(data, i)) {
			ins[i] = t.explode(ins[i])
		}
	}
	outs := c.outs(n)
	var refs []*operand
	for range outs {
		refs = append(refs, t.new())
	}
	c.step(k(u64DT()), refs, ins, attrs...)
	s := c.steps[len(c.steps)-1]
	for i, o := range outs {
		if o != nil {
			s = c.step(kernel.Implode(), []*operand{o}, []*operand{refs[i]})
		}
	}
	t.free(s)
	return nil
}

// textBlob lays strings down and returns their text and the (offset, length) of each.
func (c *compiler) textBlob(ss []string) (*blob, [][2]uint32) {
	var text []byte
	var at [][2]uint32
	for _, s := range ss {
		at = append(at, [2]uint32{uint32(len(text)), uint32(len(s))})
		text = append(text, s...)
	}
	return c.blob(text, 16), at
}

// lookupStrings makes a lookup table from keys to values; value, when refs is set, is the address of that text instead.
func (c *compiler) lookupTable(keys *ir.Data, value func(i int) uint64, refs *blob) (*blob, int) {
	le := binary.LittleEndian
	n := int(keys.Len())
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	table := c.blob(make([]byte, n*kernel.LookupEntry), 16)
	if keys.DType == ir.String {
		text, at := c.textBlob(keys.Strings)
		sort.SliceStable(order, func(a, b int) bool { return keys.Strings[order[a]] < keys.Strings[order[b]] })
		table.fix = func(b []byte) {
			for j, i := range order {
				le.PutUint64(b[j*kernel.LookupEntry:], uint64(text.addr+at[i][0])|uint64(at[i][1])<<32)
				c.putValue(b[j*kernel.LookupEntry+8:], value(i), refs)
			}
		}
		return table, n
	}
	bits := make([]uint64, n)
	for i := range bits {
		bits[i] = keyBits(keys, i)
	}
	sort.SliceStable(order, func(a, b int) bool { return bits[order[a]] < bits[order[b]] })
	table.fix = func(b []byte) {
		for j, i := range order {
			le.PutUint64(b[j*kernel.LookupEntry:], bits[i])
			c.putValue(b[j*kernel.LookupEntry+8:], value(i), refs)
		}
	}
	return table, n
}

func (c *compiler) putValue(b []byte, v uint64, refs *blob) {
	if refs != nil {
		v += uint64(refs.addr)
	}
	binary.LittleEndian.PutUint64(b, v)
}

// keyBits is the lookup key of a number, as kernel.keyOf makes it: one NaN, one zero.
func keyBits(d *ir.Data, i int) uint64 {
	switch d.DType {
	case ir.F32:
		f := float32(d.Float(i))
		switch {
		case f == 0:
			return 0
		case f != f:
			return 0x7fc00000
		}
		return uint64(math.Float32bits(f))
	case ir.F64:
		f := d.Float(i)
		switch {
		case f == 0:
			return 0
		case f != f:
			return 0x7ff8000000000000
		}
		return math.Float64bits(f)
	}
	return uint64(d.Int(i))
}

// elemBits is element i of a numeric tensor as raw bits.
func elemBits(d *ir.Data, i int) uint64 {
	w := d.DType.Bits() / 8
	var b [8]byte
	copy(b[:], d.Bytes[i*w:(i+1)*w])
	return binary.LittleEndian.Uint64(b[:])
}

func textLowering() map[string]lowerer {
	return map[string]lowerer{
		"StringNormalizer": lowerStringNormalizer,
		"ms.Tokenizer":     lowerTokenizer,
		"TfIdfVectorizer":  lowerTfIdf,
	}
}

// caseTable is Unicode's simple mapping as sorted pairs.
func (c *compiler) caseTable(to func(rune) rune) (*blob, int) {
	var b []byte
	n := 0
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if m := to(r); m != r {
			b = binary.LittleEndian.AppendUint32(b, uint32(r))
			b = binary.LittleEndian.AppendUint32(b, uint32(m))
			n++
		}
	}
	return c.blob(b, 16), n
}

func lowerStringNormalizer(c *compiler, n *ir.Node) error {
	t := &temps{c: c}
	x := c.ins(n)[0]
	out := c.outs(n)[0]
	action, stop := n.Str("case_change_action"), n.Strs("stopwords")
	// mapped writes refs with another case to out.
	mapped := func(refs, out *operand, to func(rune) rune) *step {
		table, cnt := c.caseTable(to)
		lens := t.new()
		c.step(kernel.MapTextLens(), []*operand{lens}, []*operand{refs}, ab(table), ai(int64(cnt)))
		return c.step(kernel.MapText(), []*operand{out}, []*operand{refs, lens}, ab(table), ai(int64(cnt)))
	}
	refs := t.explode(x)
	if len(stop) > 0 {
		words, seen := refs, map[string]bool{}
		fold := n.Int("is_case_sensitive") == 0
		if fold {
			low := t.new()
			mapped(refs, low, unicode.ToLower)
			words = t.explode(low)
		}
		keys := &ir.Data{DType: ir.String}
		for _, s := range stop {
			if fold {
				s = strings.Map(unicode.ToLower, s)
			}
			if !seen[s] {
				seen[s] = true
				keys.Strings = append(keys.Strings, s)
			}
		}
		keys.Dims = []int64{int64(len(keys.Strings))}
		table, cnt := c.lookupTable(keys, func(int) uint64 { return 0 }, nil)
		kept := t.new()
		c.step(kernel.Filter(), []*operand{kept}, []*operand{refs, words}, ab(table), ai(int64(cnt)))
		refs = kept
	}
	var s *step
	switch action {
	case "LOWER":
		s = mapped(refs, out, unicode.ToLower)
	case "UPPER":
		s = mapped(refs, out, unicode.ToUpper)
	default:
		s = c.step(kernel.Implode(), []*operand{out}, []*operand{refs})
	}
	t.free(s)
	return nil
}

func lowerTokenizer(c *compiler, n *ir.Node) error {
	exp, seps := n.Str("tokenexp"), n.Strs("separators")
	split := exp == ""
	pats := seps
	if !split {
		pats = []string{exp}
	}
	if split && len(seps) == 1 && seps[0] == "" {
		pats = nil
	}
	var heads []*blob
	for _, p := range pats {
		if p == "" {
			return unsupported(n, "an empty separator among others")
		}
		d, err := compileDFA(p)
		if err != nil {
			return unsupported(n, "%v", err)
		}
		if d.classes > 255 {
			return unsupported(n, "pattern %q tells %d classes of characters apart, at most 255", p, d.classes)
		}
		heads = append(heads, d.lay(c))
		c.note(n, "pattern %q: %d states, %d classes", p, len(d.accept)/d.classes, d.classes)
	}
	list := c.blob(make([]byte, 4*len(heads)), 16)
	list.fix = func(b []byte) {
		for i, h := range heads {
			binary.LittleEndian.PutUint32(b[4*i:], h.addr)
		}
	}
	text, at := c.textBlob([]string{n.Str("pad_value"), "\x02", "\x03"})
	ref := func(i int) attr { return attr{v: uint64(at[i][0]) | uint64(at[i][1])<<32, b: text} }
	as := []attr{ab(list), ai(int64(len(heads))), ai(n.Int("mincharnum")), ai(n.Int("mark")), ref(0), ref(1), ref(2)}
	t := &temps{c: c}
	refs := t.explode(c.ins(n)[0])
	cnt, toks := t.new(), t.new()
	c.step(kernel.TokenCount(split), []*operand{cnt}, []*operand{refs}, as...)
	c.step(kernel.Tokens(split), []*operand{toks}, []*operand{refs, cnt}, as...)
	t.free(c.step(kernel.Implode(), c.outs(n), []*operand{toks}))
	return nil
}

func lowerTfIdf(c *compiler, n *ir.Node) error {
	pool, counts, idx, w := n.Data("pool"), n.Ints("ngram_counts"), n.Ints("ngram_indexes"), n.Data("weights")
	// Items get numbers in order of first appearance.
	items := &ir.Data{DType: pool.DType}
	strs, nums := map[string]uint32{}, map[int64]uint32{}
	id := func(i int) uint32 {
		if pool.DType == ir.String {
			s := pool.Strings[i]
			v, ok := strs[s]
			if !ok {
				v = uint32(len(strs))
				strs[s] = v
				items.Strings = append(items.Strings, s)
			}
			return v
		}
		x := pool.Int(i)
		v, ok := nums[x]
		if !ok {
			v = uint32(len(nums))
			nums[x] = v
			items.Bytes = binary.LittleEndian.AppendUint64(items.Bytes, uint64(x))
		}
		return v
	}
	type node struct {
		col  int32
		kids map[uint32]int
	}
	trie := []node{{col: -1, kids: map[uint32]int{}}}
	cols := int64(0)
	for _, i := range idx {
		cols = max(cols, i+1)
	}
	weights := make([]byte, 4*cols)
	gram := 0
	for l, begin := range counts {
		end := pool.Len()
		if l+1 < len(counts) {
			end = counts[l+1]
		}
		for p := begin; p < end; p += int64(l + 1) {
			at := 0
			for j := int64(0); j <= int64(l); j++ {
				it := id(int(p + j))
				next, ok := trie[at].kids[it]
				if !ok {
					next = len(trie)
					trie[at].kids[it] = next
					trie = append(trie, node{col: -1, kids: map[uint32]int{}})
				}
				at = next
			}
			trie[at].col = int32(idx[gram])
			copy(weights[4*idx[gram]:], w.Bytes[4*gram:4*gram+4])
			gram++
		}
	}
	le := binary.LittleEndian
	var nodes, edges []byte
	for _, t := range trie {
		var its []uint32
		for it := range t.kids {
			its = append(its, it)
		}
		slices.Sort(its)
		nodes = le.AppendUint32(nodes, uint32(t.col))
		nodes = le.AppendUint32(nodes, uint32(len(edges)/8))
		nodes = le.AppendUint32(nodes, uint32(len(edges)/8+len(its)))
		for _, it := range its {
			edges = le.AppendUint32(edges, it)
			edges = le.AppendUint32(edges, uint32(t.kids[it]))
		}
	}
	items.Dims = []int64{int64(max(len(strs), len(nums)))}
	table, cnt := c.lookupTable(items, func(i int) uint64 { return uint64(i) }, nil)
	t := &temps{c: c}
	x := c.ins(n)[0]
	in, str := u64DT(), pool.DType == ir.String
	if str {
		x = t.explode(x)
	} else {
		in = dtypeOf(abi.I64)
	}
	ids := t.new()
	c.step(kernel.Lookup(in, str, dtypeOf(abi.U32)), []*operand{ids}, []*operand{x}, ab(table), ai(int64(cnt)), ai(-1))
	mode := map[string]int64{"TF": 0, "IDF": 1, "TFIDF": 2}[n.Str("mode")]
	t.free(c.step(kernel.TfIdf(), c.outs(n), []*operand{ids}, ab(c.blob(nodes, 16)), ab(c.blob(edges, 16)), ai(cols),
		ab(c.blob(weights, 16)), ai(mode), ai(n.Int("min_gram_length")), ai(n.Int("max_gram_length")), ai(n.Int("max_skip_count"))))
	c.note(n, "%d items, %d trie nodes", cnt, len(trie))
	return nil
}
