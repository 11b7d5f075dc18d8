package engine

import (
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// A tiny assembler, so that these tests need no compiler: code is bytes, helpers make them.

func uleb(v uint64) []byte {
	var b []byte
	for {
		c := byte(v & 0x7f)
		if v >>= 7; v == 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func sleb(v int64) []byte {
	var b []byte
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func cat(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func get(i int) []byte       { return append([]byte{0x20}, uleb(uint64(i))...) }
func set(i int) []byte       { return append([]byte{0x21}, uleb(uint64(i))...) }
func con(v int64) []byte     { return append([]byte{0x41}, sleb(v)...) }
func conL(v int64) []byte    { return append([]byte{0x42}, sleb(v)...) }
func load(o int) []byte      { return cat([]byte{0x28, 2}, uleb(uint64(o))) }
func loadL(o int) []byte     { return cat([]byte{0x29, 3}, uleb(uint64(o))) }
func store(o int) []byte     { return cat([]byte{0x36, 2}, uleb(uint64(o))) }
func storeL(o int) []byte    { return cat([]byte{0x37, 3}, uleb(uint64(o))) }
func loadF(o int) []byte     { return cat([]byte{0x2a, 2}, uleb(uint64(o))) }
func storeF(o int) []byte    { return cat([]byte{0x38, 2}, uleb(uint64(o))) }
func ifThen(b []byte) []byte { return cat([]byte{0x04, 0x40}, b, end) }
func ret(v int64) []byte     { return cat(con(v), []byte{0x0f}) }

var (
	end   = []byte{0x0b}
	add   = []byte{0x6a}
	mul   = []byte{0x6c}
	eq    = []byte{0x46}
	ne    = []byte{0x47}
	ltu   = []byte{0x49}
	wrap  = []byte{0xa7}
	addF  = []byte{0x92}
	trap  = []byte{0x00}
	local = 2 // first local of a function with two parameters
)

type fn struct {
	name    string
	params  int
	results int
	locals  int // of type i32
	body    []byte
}

type mod struct {
	fns      []fn
	imports  [][2]string // functions () -> ()
	min, max int         // pages; max 0: none
	start    bool        // start section naming the first function
	noMemory bool
	data     []byte // at address 512
	table    int    // entries of a table of functions, 0: none
}

func vec(items ...[]byte) []byte { return cat(append([][]byte{uleb(uint64(len(items)))}, items...)...) }

func section(id byte, b []byte) []byte { return cat([]byte{id}, uleb(uint64(len(b))), b) }

func name(s string) []byte { return cat(uleb(uint64(len(s))), []byte(s)) }

func (m mod) bytes() []byte {
	var types, imps, funcs, exps, codes [][]byte
	typ := func(p, r int) []byte {
		t := cat([]byte{0x60}, uleb(uint64(p)))
		for range p {
			t = append(t, 0x7f)
		}
		t = append(t, byte(r))
		for range r {
			t = append(t, 0x7f)
		}
		types = append(types, t)
		return uleb(uint64(len(types) - 1))
	}
	for _, i := range m.imports {
		imps = append(imps, cat(name(i[0]), name(i[1]), []byte{0}, typ(0, 0)))
	}
	for i, f := range m.fns {
		funcs = append(funcs, typ(f.params, f.results))
		exps = append(exps, cat(name(f.name), []byte{0}, uleb(uint64(i+len(m.imports)))))
		body := cat(vec(cat(uleb(uint64(f.locals)), []byte{0x7f})), f.body, end)
		codes = append(codes, cat(uleb(uint64(len(body))), body))
	}
	out := cat([]byte("\x00asm\x01\x00\x00\x00"), section(1, vec(types...)))
	if len(imps) > 0 {
		out = cat(out, section(2, vec(imps...)))
	}
	out = cat(out, section(3, vec(funcs...)))
	if m.table > 0 {
		out = cat(out, section(4, vec(cat([]byte{0x70, 0}, uleb(uint64(m.table))))))
	}
	if !m.noMemory {
		lim := cat([]byte{0}, uleb(uint64(m.min)))
		if m.max > 0 {
			lim = cat([]byte{1}, uleb(uint64(m.min)), uleb(uint64(m.max)))
		}
		out = cat(out, section(5, vec(lim)))
		exps = append(exps, cat(name("memory"), []byte{2, 0}))
	}
	out = cat(out, section(7, vec(exps...)))
	if m.start {
		out = cat(out, section(8, uleb(uint64(len(m.imports)))))
	}
	out = cat(out, section(10, vec(codes...)))
	if m.data != nil {
		out = cat(out, section(11, vec(cat([]byte{0}, con(512), end, uleb(uint64(len(m.data))), m.data))))
	}
	return out
}

const (
	testHeap = 1024
	testCtx  = 128
	stState  = abi.CtxHeader // state word of the test guests
)

// header of every test guest.
func frame(heap int64, bind, resume, part []byte) []fn {
	return []fn{
		{abi.ExportABI, 0, 1, 0, con(abi.Version)},
		{abi.ExportCtx, 0, 1, 0, con(testCtx)},
		{abi.ExportHeap, 0, 1, 0, con(heap)},
		{abi.ExportBind, 1, 1, 2, bind},
		{abi.ExportResume, 1, 1, 3, resume},
		{abi.ExportPart, 2, 1, 4, part},
	}
}

// in and out are the addresses of the first input's and output's descriptors, n the number of elements.
func in() []byte  { return cat(get(0), load(abi.CtxInputs)) }
func out() []byte { return cat(get(0), load(abi.CtxOutputs)) }
func n() []byte   { return cat(in(), loadL(abi.DescDims), wrap) }

func fail(code, node int64, a, b []byte) []byte {
	return cat(get(0), con(code), store(abi.CtxErrCode), get(0), con(node), store(abi.CtxErrNode),
		get(0), a, storeL(abi.CtxErrA), get(0), b, storeL(abi.CtxErrB), ret(int64(abi.Failed)))
}

func putOut(data, bytes []byte) []byte {
	return cat(
		out(), con(0), store(abi.DescKind), out(), con(int64(abi.F32)), store(abi.DescDType), out(), con(1), store(abi.DescRank),
		out(), in(), loadL(abi.DescDims), storeL(abi.DescDims), out(), data, store(abi.DescData), out(), bytes, store(abi.DescBytes))
}

// doubler returns 2*x for a vector of f32: it asks for memory when the arena is small, works in four parts, then takes
// one more turn. A rank other than 1 is its error at node 1.
func doubler() mod {
	bytes := cat(n(), con(4), mul)
	bind := cat(
		in(), load(abi.DescRank), con(1), ne, ifThen(fail(int64(abi.ErrRank), 1, conL(0), cat(in(), loadL(abi.DescRank), conL(0xff), []byte{0x83}))),
		get(0), con(0), store(stState), con(0))
	resume := cat(
		get(0), load(stState), con(0), eq, ifThen(cat(
			get(0), load(abi.CtxArenaSize), bytes, ltu, ifThen(cat(get(0), bytes, store(abi.CtxWant), ret(int64(abi.NeedMemory)))),
			get(0), con(1), store(stState), get(0), con(4), store(abi.CtxWant), ret(int64(abi.Parallel)))),
		get(0), load(stState), con(1), eq, ifThen(cat(
			get(0), con(2), store(stState),
			putOut(cat(get(0), load(abi.CtxArenaBase)), bytes), ret(int64(abi.More)))),
		con(0))
	// part i: j = i; while j < n { out[j] = in[j] + in[j]; j += 4 }
	elem := func(base []byte) []byte { return cat(base, get(local), con(4), mul, add) }
	part := cat(
		get(1), set(local),
		[]byte{0x02, 0x40, 0x03, 0x40}, // block loop
		get(local), n(), ltu, []byte{0x45, 0x0d, 1},
		elem(cat(get(0), load(abi.CtxArenaBase))),
		elem(cat(in(), load(abi.DescData))), loadF(0), elem(cat(in(), load(abi.DescData))), loadF(0), addF, storeF(0),
		get(local), con(4), add, set(local), []byte{0x0c, 0}, end, end,
		con(0))
	return mod{fns: frame(testHeap, bind, resume, part), min: 2}
}

func port(name, dtype string, dims ...int64) artifact.Port {
	p := artifact.Port{Name: name, Kind: "tensor", DType: dtype, Ranked: true}
	for _, d := range dims {
		p.Shape = append(p.Shape, artifact.Dim{Size: d})
	}
	return p
}

// iface describes a one-model artifact of code.
func iface(code []byte, ins, outs []artifact.Port) *artifact.Interface {
	ref := artifact.FileRef{Path: "model.wasm", Digest: artifact.DigestOf(code), Size: int64(len(code))}
	return &artifact.Interface{
		Schema: artifact.InterfaceSchema, Name: "test", Version: "1", ABI: abi.Version, Inputs: ins, Outputs: outs, Module: ref,
		Steps:  []artifact.Step{{Kind: "model", Name: "test", File: ref, Inputs: ins, Outputs: outs}},
		Memory: artifact.Memory{Heap: testHeap, Context: testCtx, Arena: 1 << 16, Max: 64 << 20},
		Nodes:  []string{"Add first", "Mul second"},
	}
}

func vectorIface(code []byte) *artifact.Interface {
	return iface(code, []artifact.Port{port("x", "f32", -1)}, []artifact.Port{port("y", "f32", -1)})
}

func newEngine(t *testing.T, cfg Config) *Engine {
	t.Helper()
	e, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return e
}

func mustLoad(t *testing.T, e *Engine, code []byte, ifc *artifact.Interface) *Model {
	t.Helper()
	m, err := e.Load(t.Context(), code, WeightsSource{}, ifc)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
