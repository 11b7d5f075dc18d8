package devicepolicy

import (
	"bytes"
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput/deviceinputtest"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
)

// module is a policy module written by hand: what a compiler that is broken, or an attacker whose module was pinned, could
// hand to a device.
type module struct {
	eval    []byte // body of opa_eval; its parameters are locals 0 to 6
	entries string // what entrypoints says
	needs   string // what builtins says
	result  string // text at resultAt
	heap    uint32 // what opa_heap_ptr_get returns
	pages   uint32
	start   []byte // body of a start function
	table   uint32 // size of a table
	minor   byte   // of the ABI
	skip    string // an export that is missing
	tail    string // text that ends with the first page
	imports []byte // further imports, encoded, one
}

const (
	entriesAt, needsAt, resultAt = 1024, 2048, 3072
	opI32Const, opEnd, opCall    = 0x41, 0x0b, 0x10
)

func sleb(v int32) []byte {
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

// constant is a body that returns v.
func constant(v uint32) []byte {
	return append(append([]byte{opI32Const}, sleb(int32(v))...), opEnd)
}

func good() module {
	return module{eval: constant(resultAt), entries: `{"waybill/device/allow":0,"waybill/device/reasons":1}`, needs: `{}`, result: `[{"result":true}]`, heap: 8192, pages: 1, minor: 3}
}

func (m module) encode() []byte {
	const i32 = 0x7f
	fn := func(params, results int) []byte {
		b := uleb([]byte{0x60}, uint32(params))
		b = append(b, bytes.Repeat([]byte{i32}, params)...)
		return append(uleb(b, uint32(results)), bytes.Repeat([]byte{i32}, results)...)
	}
	types := bytes.Join([][]byte{fn(0, 1), fn(1, 1), fn(7, 1), fn(1, 0), fn(2, 1), fn(0, 0)}, nil)
	// Functions 0 and 1 are opa_abort and opa_builtin0, then those of the module.
	imports := uleb(append(text(text(nil, "env"), "memory"), 2, 0), m.pages)
	imports = append(text(text(imports, "env"), "opa_abort"), 0, 3)
	imports = append(text(text(imports, "env"), "opa_builtin0"), 0, 4)
	count := uint32(3)
	if m.imports != nil {
		imports, count = append(imports, m.imports...), 4
	}
	first := byte(2)
	if m.imports != nil && m.imports[len(m.imports)-2] == 0 {
		first++
	}
	names := []string{"opa_eval", "entrypoints", "builtins", "opa_json_dump", "opa_malloc", "opa_heap_ptr_get"}
	kinds := []byte{2, 0, 0, 1, 1, 0}
	bodies := [][]byte{m.eval, constant(entriesAt), constant(needsAt), {0x20, 0, opEnd}, constant(0), constant(m.heap)}
	var exports []byte
	n := uint32(0)
	for i, name := range names {
		if name != m.skip {
			exports = append(text(exports, name), 0, first+byte(i))
			n++
		}
	}
	exports = append(text(exports, "opa_wasm_abi_version"), 3, 0)
	exports = append(text(exports, "opa_wasm_abi_minor_version"), 3, 1)
	if m.start != nil {
		kinds, bodies = append(kinds, 5), append(bodies, m.start)
	}
	var code []byte
	for _, b := range bodies {
		code = append(append(uleb(code, uint32(len(b)+1)), 0), b...)
	}
	var data []byte
	segments := uint32(0)
	put := func(at uint32, s string) {
		if s != "" {
			data = append(append(append(data, 0, opI32Const), sleb(int32(at))...), opEnd)
			data = text(data, s)
			segments++
		}
	}
	put(entriesAt, m.entries+"\x00")
	put(needsAt, m.needs+"\x00")
	put(resultAt, m.result+"\x00")
	put(1<<16-uint32(len(m.tail)), m.tail)
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = section(b, 1, 6, types)
	b = section(b, 2, count, imports)
	b = section(b, 3, uint32(len(kinds)), kinds)
	if m.table > 0 {
		b = section(b, 4, 1, uleb([]byte{0x70, 0}, m.table))
	}
	b = section(b, 6, 2, []byte{i32, 0, opI32Const, 1, opEnd, i32, 0, opI32Const, m.minor, opEnd})
	b = section(b, 7, n+2, exports)
	if m.start != nil {
		b = append(b, 8, 1, first+byte(len(names)))
	}
	b = section(b, 10, uint32(len(bodies)), code)
	return section(b, 11, segments, data)
}

var (
	forever = []byte{0x03, 0x40, 0x0c, 0, opEnd, 0x00, opEnd}                               // loop br 0 end unreachable
	growing = []byte{0x03, 0x40, opI32Const, 1, 0x40, 0, 0x1a, 0x0c, 0, opEnd, 0x00, opEnd} // loop (memory.grow 1) drop br 0 end
	trap    = []byte{0x00, opEnd}
	divide  = []byte{opI32Const, 1, opI32Const, 0, 0x6d, opEnd}
	recurse = []byte{0x20, 0, 0x20, 1, 0x20, 2, 0x20, 3, 0x20, 4, 0x20, 5, 0x20, 6, opCall, 2, opEnd}
	aborts  = append(append(append([]byte{opI32Const}, sleb(resultAt)...), opCall, 0), constant(resultAt)...)
	wild    = append(append(append([]byte{opI32Const}, sleb(-16)...), opCall, 0), constant(resultAt)...)
	asks    = []byte{opI32Const, 0, opI32Const, 0, opCall, 1, opEnd}
	// grabs asks for 64 MB at once and allows when it gets them.
	grabs = append(append(append([]byte{opI32Const}, sleb(1024)...), 0x40, 0, opI32Const, 0x7f, 0x47, 0x04, 0x40), append(append([]byte{opI32Const}, sleb(resultAt)...), 0x0f, opEnd, opI32Const, 0, opEnd)...)
)

func TestHostile(t *testing.T) {
	in := encode(t, deviceinputtest.Good())
	with := func(edit func(m *module)) module {
		m := good()
		edit(&m)
		return m
	}
	result := func(s string) module { return with(func(m *module) { m.result = s }) }
	body := func(b []byte) module { return with(func(m *module) { m.eval = b }) }
	for _, mode := range []engine.Mode{engine.Auto, engine.Interpreter} {
		e := newEngine(t, engine.Config{Mode: mode})
		if p, err := Load(t.Context(), e, good().encode(), WithTimeout(time.Minute)); err != nil {
			t.Fatal(err)
		} else if p.timeout = time.Minute; !p.Evaluate(t.Context(), in).Allow {
			t.Fatalf("the module written by hand does not work: %+v", p.Evaluate(t.Context(), in))
		}
		for name, c := range map[string]struct {
			m        module
			load     string // why it does not load
			evaluate string // why it does not allow
		}{
			"loops for ever":                {body(forever), "", "it ran longer than 300ms"},
			"grows for ever":                {body(growing), "", "it ran longer than 300ms"},
			"asks for more than there is":   {body(grabs), "", "neither true nor false"},
			"traps":                         {body(trap), "", "it failed: wasm error: unreachable"},
			"divides by zero":               {body(divide), "", "it failed: wasm error: integer divide by zero"},
			"calls itself for ever":         {body(recurse), "", "it failed: "},
			"aborts":                        {body(aborts), "", `the policy aborted: "[{\"result\":true}]"`},
			"aborts with a bad pointer":     {body(wild), "", `the policy aborted: ""`},
			"asks for a builtin":            {body(asks), "", "asked this device for a builtin"},
			"result outside of the memory":  {body(constant(1 << 30)), "", "outside of its memory"},
			"result that has no end":        {with(func(m *module) { m.eval, m.tail = constant(1<<16-8), "[{\"resul" }), "", "has no end"},
			"result at the very end":        {with(func(m *module) { m.eval, m.tail = constant(1<<16-18), "[{\"result\":true}] " }), "", "has no end"},
			"heap outside of the memory":    {with(func(m *module) { m.heap = 0xfffffff0 }), "", "its memory is full"},
			"heap at the limit":             {with(func(m *module) { m.heap = memory - 4 }), "", "its memory is full"},
			"true with a space":             {result(`[{"result":true}] `), "", "neither true nor false"},
			"two results":                   {result(`[{"result":true},{"result":true}]`), "", "neither true nor false"},
			"no result":                     {result(`[]`), "", "neither true nor false"},
			"empty":                         {result(``), "", "neither true nor false"},
			"a number":                      {result(`[{"result":1}]`), "", "neither true nor false"},
			"a text":                        {result(`[{"result":"true"}]`), "", "neither true nor false"},
			"another name":                  {result(`[{"x":true}]`), "", "neither true nor false"},
			"given twice":                   {result(`[{"result":false,"result":true}]`), "", "neither true nor false"},
			"false, and reasons of no form": {result(`[{"result":false}]`), "", "its reasons could not be read"},
			"loops in its start":            {with(func(m *module) { m.start = forever }), "it ran longer than", ""},
			"traps in its start":            {with(func(m *module) { m.start = trap }), "it ", ""},
			"needs a builtin":               {with(func(m *module) { m.needs = `{"http.send":0}` }), `it needs the builtin "http.send"`, ""},
			"needs what is no object":       {with(func(m *module) { m.needs = `[]` }), "builtins: ", ""},
			"no entrypoint":                 {with(func(m *module) { m.entries = `{"waybill/device/allow":0}` }), "no entrypoint waybill/device/reasons", ""},
			"entrypoints of another policy": {with(func(m *module) { m.entries = `{"main/allow":0}` }), "no entrypoint waybill/device/allow", ""},
			"entrypoint below zero":         {with(func(m *module) { m.entries = `{"waybill/device/allow":-1,"waybill/device/reasons":1}` }), "no entrypoint", ""},
			"an older ABI":                  {with(func(m *module) { m.minor = 1 }), "version 1.2 or later", ""},
			"no opa_eval":                   {with(func(m *module) { m.skip = "opa_eval" }), "exports no function opa_eval", ""},
			"starts with too much memory":   {with(func(m *module) { m.pages = memory>>16 + 1 }), "", "x"},
			"imports what is not there":     {with(func(m *module) { m.imports = append(text(text(nil, "env"), "fd_write"), 0, 3) }), "imports env.fd_write", ""},
			"a huge table":                  {with(func(m *module) { m.table = 1 << 26 }), "a table of it starts with 67108864 elements", ""},
			"imports WASI":                  {with(func(m *module) { m.imports = append(text(text(nil, "wasi_snapshot_preview1"), "proc_exit"), 0, 3) }), "imports wasi_snapshot_preview1.proc_exit", ""},
		} {
			t.Run(mode.String()+" "+name, func(t *testing.T) {
				if name == "starts with too much memory" {
					c.load, c.evaluate = "memory", ""
				}
				// A bound that is short only where it is what the test waits for: the machine may be busy.
				timeout := time.Minute
				if c.m.start != nil {
					timeout = 300 * time.Millisecond
				}
				p, err := Load(t.Context(), e, c.m.encode(), WithTimeout(timeout))
				if c.load != "" {
					if err == nil || !strings.Contains(err.Error(), c.load) {
						t.Fatalf("loaded: %v, want %q", err, c.load)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close(context.Background())
				if strings.Contains(c.evaluate, "ran longer") {
					p.timeout = 300 * time.Millisecond
				}
				for range 2 {
					d := p.Evaluate(t.Context(), in)
					if d.Allow || !strings.Contains(d.Why(), c.evaluate) {
						t.Fatalf("%+v, want %q", d, c.evaluate)
					}
				}
			})
		}
	}
}

// An evaluation that fails leaves nothing behind: neither instances nor their memory.
func TestNothingIsLeft(t *testing.T) {
	e := newEngine(t, engine.Config{})
	m := good()
	m.eval = trap
	p := load(t, e, m.encode())
	in := encode(t, deviceinputtest.Good())
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	run := func(n int) {
		for range n {
			p.Evaluate(t.Context(), in)
		}
	}
	run(10)
	before := heap()
	run(300) // 64 kB of memory each
	if after := heap(); after > before+8<<20 {
		t.Errorf("the heap went from %d to %d bytes", before, after)
	}
}

// Results of a module without the exact form are not read as true by anything less strict either.
func TestResultCheck(t *testing.T) {
	m := good()
	m.result = `[{"result":"true"}]`
	p := load(t, newEngine(t, engine.Config{}), m.encode())
	in := encode(t, deviceinputtest.Good())
	if d := p.Evaluate(t.Context(), in); d.Allow || d.Err == nil {
		t.Fatalf("%+v", d)
	}
	p.checks.result = func(raw []byte) (bool, error) { return bytes.Contains(raw, []byte("true")), nil }
	if d := p.Evaluate(t.Context(), in); !d.Allow {
		t.Errorf("without the check: %+v", d)
	}
}

func TestOversizedModule(t *testing.T) {
	if _, err := Load(t.Context(), newEngine(t, engine.Config{}), make([]byte, MaxModule+1)); err == nil || !strings.Contains(err.Error(), "the limit is") {
		t.Error(err)
	}
}

// A context that ends ends the evaluation, and is not taken for an answer.
func TestCancelled(t *testing.T) {
	m := good()
	m.eval = forever
	p := load(t, newEngine(t, engine.Config{}), m.encode())
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if d := p.Evaluate(ctx, encode(t, deviceinputtest.Good())); d.Allow || d.Err == nil {
		t.Errorf("%+v", d)
	}
}

func FuzzResult(f *testing.F) {
	for _, s := range []string{`[{"result":true}]`, `[{"result":["a"]}]`, `[{"result":[]}]`, `[{"result":[1]}]`, `[]`, `null`, "[{\"result\":[\"\\u0000\x7f\"]}]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if ok, err := isTrue(raw); ok && (err != nil || string(raw) != `[{"result":true}]`) {
			t.Fatal("not true")
		}
		rs, err := readReasons(raw)
		if err != nil {
			return
		}
		if len(rs) > maxReasons+1 {
			t.Fatalf("%d reasons", len(rs))
		}
		for _, r := range rs {
			if strings.ContainsFunc(r, func(c rune) bool { return c < ' ' || c == 0x7f }) || len([]rune(r)) > maxReason+3 {
				t.Fatalf("%q", r)
			}
		}
	})
}

// A module that is altered anywhere does not load, or says something that is no allowance, or allows what it did: it never
// panics, and never runs on.
func FuzzModule(f *testing.F) {
	f.Add(good().encode(), uint16(100), byte(1))
	e := newEngine(f, engine.Config{Mode: engine.Interpreter})
	in := encode(f, deviceinputtest.Good())
	f.Fuzz(func(t *testing.T, code []byte, at uint16, with byte) {
		if len(code) == 0 || len(code) > 1<<16 {
			return
		}
		code = bytes.Clone(code)
		code[int(at)%len(code)] ^= with
		p, err := Load(t.Context(), e, code, WithTimeout(200*time.Millisecond))
		if err != nil {
			return
		}
		defer p.Close(context.Background())
		if d := p.Evaluate(t.Context(), in); d.Allow && d.Err != nil {
			t.Fatalf("%+v", d)
		}
	})
}
