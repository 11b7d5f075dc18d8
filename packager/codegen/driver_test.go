package codegen_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

// machine is the least host that a module needs: it lays memory out, feeds inputs, loops over resume.
type machine struct {
	t      testing.TB
	rt     wazero.Runtime
	mod    api.Module
	res    *codegen.Result
	g      *ir.Graph
	budget uint32
	arena  uint32 // first arena size
	// Counts of the last run.
	mores, parallels, needs int
	threads                 int       // that run parts, when more than one
	reverse                 bool      // run parts in reverse order
	poison                  bool      // fill memory beyond the inputs with what no kernel should rely on
	vals                    []*ir.Val // outputs of the last run, of any kind
	// watch is called after each resume, unless nil; false ends the run without outputs.
	watch func(ctx uint32) bool
}

func compile(t testing.TB, g *ir.Graph, opt codegen.Options) *machine {
	t.Helper()
	res, err := codegen.Compile(g, opt)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, g, res, runtimeConfig())
}

// runtimeConfig takes the compiler where there is one.
func runtimeConfig() wazero.RuntimeConfig { return wazero.NewRuntimeConfig() }

func load(t testing.TB, g *ir.Graph, res *codegen.Result, cfg wazero.RuntimeConfig) *machine {
	t.Helper()
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, cfg)
	t.Cleanup(func() { rt.Close(ctx) })
	mod, err := rt.Instantiate(ctx, res.Module)
	if err != nil {
		t.Fatal(err)
	}
	if res.Weights != nil && !mod.Memory().Write(res.WeightsBase, res.Weights) {
		t.Fatal("weights do not fit")
	}
	return &machine{t: t, rt: rt, mod: mod, res: res, g: g, arena: res.ArenaHint}
}

func (m *machine) call(name string, args ...uint64) uint32 {
	m.t.Helper()
	r, err := m.mod.ExportedFunction(name).Call(context.Background(), args...)
	if err != nil {
		m.t.Fatalf("%s: %v", name, err)
	}
	return uint32(r[0])
}

func (m *machine) grow(end uint32) {
	have := m.mod.Memory().Size()
	if end > have {
		if _, ok := m.mod.Memory().Grow((end - have + 65535) / 65536); !ok {
			m.t.Fatal("cannot grow")
		}
	}
}

// dirty fills memory with poison, when the machine does so.
func (m *machine) dirty(from, to uint32) {
	if m.poison && to > from && !m.mod.Memory().Write(from, bytes.Repeat([]byte{0xa5}, int(to-from))) {
		m.t.Fatal("poison does not fit")
	}
}

// parts runs the n parts of a section on several threads and tells whether all succeeded.
func (m *machine) parts(ctx, n uint32) bool {
	m.t.Helper()
	var next, failed atomic.Uint32
	errs := make([]error, m.threads)
	var wg sync.WaitGroup
	for w := range m.threads {
		fn := m.mod.ExportedFunction(abi.ExportPart) // of this thread alone
		wg.Go(func() {
			for i := next.Add(1) - 1; i < n; i = next.Add(1) - 1 {
				r, err := fn.Call(context.Background(), uint64(ctx), uint64(i))
				if err != nil {
					errs[w] = err
					return
				}
				if r[0] != 0 {
					failed.Store(1)
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		m.t.Fatalf("part: %v", err)
	}
	return failed.Load() == 0
}

// guestError is an error record.
type guestError struct {
	code abi.Code
	node string
	a, b int64
}

func (e *guestError) Error() string {
	return fmt.Sprintf("code %d in %q: %d, %d", e.code, e.node, e.a, e.b)
}

// run feeds the inputs and gives the outputs; vals has those that are no tensors.
func (m *machine) run(ins ...*ir.Data) ([]*ir.Data, error) {
	m.t.Helper()
	vals := make([]*ir.Val, len(ins))
	for i, d := range ins {
		vals[i] = ir.TensorVal(d)
	}
	return m.runVals(vals)
}

// placed is what goes to an address of the guest's memory.
type placed struct {
	at uint32
	b  []byte
}

// place lays v out from pos on and fills its descriptor; it gives the position behind.
func place(v *ir.Val, desc []byte, pos uint32, out *[]placed) uint32 {
	le := binary.LittleEndian
	le.PutUint32(desc[abi.DescKind:], uint32(v.Kind))
	pos = (pos + 15) &^ 15
	if v.Kind != ir.Tensor {
		le.PutUint32(desc[abi.DescRank:], 1)
		le.PutUint64(desc[abi.DescDims:], uint64(len(v.Elems)))
		block := make([]byte, len(v.Elems)*abi.DescSize)
		le.PutUint32(desc[abi.DescData:], pos)
		le.PutUint32(desc[abi.DescBytes:], uint32(len(block)))
		*out = append(*out, placed{pos, block})
		pos += uint32(len(block))
		for i, e := range v.Elems {
			pos = place(e, block[i*abi.DescSize:][:abi.DescSize], pos, out)
		}
		return pos
	}
	d := v.Tensor
	raw, aux := d.Bytes, uint32(0)
	if d.DType == ir.String {
		raw, aux = packStrings(d.Strings)
	}
	le.PutUint32(desc[abi.DescDType:], uint32(d.DType))
	le.PutUint32(desc[abi.DescRank:], uint32(len(d.Dims)))
	for j, n := range d.Dims {
		le.PutUint64(desc[abi.DescDims+8*j:], uint64(n))
	}
	le.PutUint32(desc[abi.DescData:], pos)
	le.PutUint32(desc[abi.DescBytes:], uint32(len(raw)))
	le.PutUint32(desc[abi.DescAux:], aux)
	*out = append(*out, placed{pos, raw})
	return pos + uint32(len(raw))
}

// runVals is run with inputs of any kind but maps.
func (m *machine) runVals(ins []*ir.Val) ([]*ir.Data, error) {
	m.t.Helper()
	le := binary.LittleEndian
	ctx := m.call(abi.ExportHeap)
	size := m.call(abi.ExportCtx)
	ind := ctx + (size+15)&^15
	outd := ind + uint32(len(ins)*abi.DescSize)
	pos := outd + uint32(len(m.g.Body.Results)*abi.DescSize)
	desc := make([]byte, len(ins)*abi.DescSize)
	var data []placed
	for i, v := range ins {
		pos = place(v, desc[i*abi.DescSize:][:abi.DescSize], pos, &data)
	}
	arena := (pos + 63) &^ 63
	asize := m.arena
	m.grow(arena + asize)
	mem := m.mod.Memory()
	mem.Write(ind, desc)
	for _, p := range data {
		mem.Write(p.at, p.b)
	}
	m.dirty(ctx, ind)
	m.dirty(outd, outd+uint32(len(m.g.Body.Results)*abi.DescSize))
	m.dirty(arena, arena+asize)
	head := make([]byte, abi.CtxHeader)
	le.PutUint32(head[abi.CtxMagic:], abi.CtxMagicValue)
	le.PutUint32(head[abi.CtxArenaBase:], arena)
	le.PutUint32(head[abi.CtxArenaSize:], asize)
	le.PutUint32(head[abi.CtxNumInputs:], uint32(len(ins)))
	le.PutUint32(head[abi.CtxInputs:], ind)
	le.PutUint32(head[abi.CtxNumOutputs:], uint32(len(m.g.Body.Results)))
	le.PutUint32(head[abi.CtxOutputs:], outd)
	le.PutUint32(head[abi.CtxBudget:], m.budget)
	mem.Write(ctx, head)
	m.mores, m.parallels, m.needs = 0, 0, 0
	st := m.call(abi.ExportBind, uint64(ctx))
	for turns := 0; ; turns++ {
		switch abi.Status(st) {
		case abi.Failed:
			return nil, m.errorAt(ctx)
		case abi.NeedMemory:
			m.needs++
			want, _ := mem.ReadUint32Le(ctx + abi.CtxWant)
			asize += want
			m.grow(arena + asize)
			m.dirty(arena+asize-want, arena+asize)
			mem.WriteUint32Le(ctx+abi.CtxArenaSize, asize)
		case abi.More:
			m.mores++
		case abi.Parallel:
			m.parallels++
			n, _ := mem.ReadUint32Le(ctx + abi.CtxWant)
			if m.threads > 1 {
				if !m.parts(ctx, n) {
					return nil, m.errorAt(ctx)
				}
				break
			}
			for i := uint32(0); i < n; i++ {
				j := i
				if m.reverse {
					j = n - 1 - i
				}
				if s := m.call(abi.ExportPart, uint64(ctx), uint64(j)); s != 0 {
					return nil, m.errorAt(ctx)
				}
			}
		case abi.Done:
			if turns > 0 {
				m.exact(ctx)
				return m.outputs(outd), nil
			}
		}
		if m.watch != nil && turns > 0 && !m.watch(ctx) {
			return nil, nil
		}
		if turns > 2_000_000 {
			m.t.Fatal("no end")
		}
		st = m.call(abi.ExportResume, uint64(ctx))
	}
}

// exact checks that a run whose plan is exact took nothing from the heap.
func (m *machine) exact(ctx uint32) {
	m.t.Helper()
	heap, _ := m.mod.Memory().ReadUint32Le(ctx + kernel.CtxHeap)
	top, _ := m.mod.Memory().ReadUint32Le(ctx + kernel.CtxTop)
	if m.res.Memory.Exact && (heap != top || m.needs > 1) {
		m.t.Errorf("%d bytes of heap and %d need-memory where the plan is exact", top-heap, m.needs)
	}
	base, _ := m.mod.Memory().ReadUint32Le(ctx + abi.CtxArenaBase)
	if int64(heap-base) != m.res.Memory.Size {
		m.t.Errorf("the heap begins at %d of the arena, the plan takes %d", heap-base, m.res.Memory.Size)
	}
}

func (m *machine) errorAt(ctx uint32) error {
	b, _ := m.mod.Memory().Read(ctx, abi.CtxHeader)
	le := binary.LittleEndian
	e := &guestError{code: abi.Code(le.Uint32(b[abi.CtxErrCode:])), a: int64(le.Uint64(b[abi.CtxErrA:])), b: int64(le.Uint64(b[abi.CtxErrB:]))}
	if n := int(le.Uint32(b[abi.CtxErrNode:])); n < len(m.res.Nodes) {
		e.node = m.res.Nodes[n]
	}
	return e
}

func (m *machine) outputs(outd uint32) []*ir.Data {
	var out []*ir.Data
	m.vals = nil
	for i := range m.g.Body.Results {
		v := m.val(outd + uint32(i*abi.DescSize))
		m.vals = append(m.vals, v)
		out = append(out, v.Tensor)
	}
	return out
}

// value reads a tensor; a sequence or map gives its children's data one after the other in Strings-free form: see values.
func (m *machine) value(at uint32) *ir.Data {
	le := binary.LittleEndian
	b, ok := m.mod.Memory().Read(at, abi.DescSize)
	if !ok {
		m.t.Fatalf("descriptor at %d is out of memory", at)
	}
	d := &ir.Data{DType: ir.DType(le.Uint32(b[abi.DescDType:]))}
	for j := 0; j < int(le.Uint32(b[abi.DescRank:])); j++ {
		d.Dims = append(d.Dims, int64(le.Uint64(b[abi.DescDims+8*j:])))
	}
	raw, ok := m.mod.Memory().Read(le.Uint32(b[abi.DescData:]), le.Uint32(b[abi.DescBytes:]))
	if !ok {
		m.t.Fatalf("data of descriptor at %d is out of memory", at)
	}
	raw = append([]byte(nil), raw...)
	if d.DType == ir.String {
		n := d.Len()
		text := raw[4*(n+1):]
		for i := int64(0); i < n; i++ {
			d.Strings = append(d.Strings, string(text[le.Uint32(raw[4*i:]):le.Uint32(raw[4*i+4:])]))
		}
		return d
	}
	d.Bytes = raw
	return d
}

func packStrings(ss []string) ([]byte, uint32) {
	var off, text []byte
	for _, s := range ss {
		off = binary.LittleEndian.AppendUint32(off, uint32(len(text)))
		text = append(text, s...)
	}
	off = binary.LittleEndian.AppendUint32(off, uint32(len(text)))
	return append(off, text...), uint32(len(text))
}

// rng is a small deterministic generator (xorshift64*).
type rng uint64

func (r *rng) u() uint64 {
	x := uint64(*r)
	x ^= x >> 12
	x ^= x << 25
	x ^= x >> 27
	*r = rng(x)
	return x * 0x2545f4914f6cdd1d
}

func (r *rng) float() float64 { return float64(int64(r.u()>>11)-(1<<52)) / (1 << 51) }

func (r *rng) f32s(dims ...int64) *ir.Data {
	n, _ := ir.Elements(dims)
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.float())
	}
	return ir.F32s(dims, v)
}

func f32At(d *ir.Data, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(d.Bytes[4*i:]))
}
