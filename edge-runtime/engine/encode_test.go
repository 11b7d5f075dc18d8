package engine

import (
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
)

// encodeOne lays t out as the host does for an input and returns memory and descriptor address.
func encodeOne(tb testing.TB, t *Tensor) ([]byte, uint64) {
	tb.Helper()
	n, err := inputSize(t)
	if err != nil {
		tb.Fatal(err)
	}
	mem := make([]byte, 1024+n+2*abi.TensorLine)
	l := layout{next: 128}
	desc := l.take(abi.DescSize, abi.Align)
	if err := putValue(nil, mem, desc, &l, t); err != nil {
		tb.Fatal(err)
	}
	if l.next > uint64(len(mem)) {
		tb.Fatalf("inputSize says %d, %d were used", n, l.next)
	}
	return mem, desc
}

func values() []Tensor {
	m := Tensor{Kind: abi.Map, DType: abi.I64, Elems: []Tensor{Of([]int64{1, 2}), OfStrings([]string{"a", "long é text"})}}
	return []Tensor{
		Of([]float32{1, 2, 3}), Of([]float64{}, 0, 4), {DType: abi.I64, Shape: []int64{}, Data: make([]byte, 8)},
		Of([]bool{true, false}, 2, 1), {DType: abi.U4, Shape: []int64{3}, Data: []byte{0x21, 0x03}},
		{DType: abi.BF16, Shape: []int64{1}, Data: []byte{1, 2}},
		OfStrings([]string{"", "x", "日本"}, 1, 3), OfStrings(nil, 0),
		{Kind: abi.Optional, DType: abi.F32}, {Kind: abi.Optional, DType: abi.F32, Elems: []Tensor{Of([]float32{1})}},
		{Kind: abi.Sequence, DType: abi.I64, Elems: []Tensor{m, m, Of([]float32{4})}}, m,
	}
}

func TestEncodeRoundTrip(t *testing.T) {
	for _, v := range values() {
		if err := v.Check(); err != nil {
			t.Fatal(err)
		}
		mem, desc := encodeOne(t, &v)
		r := reader{mem: mem, budget: 1 << 20}
		got, err := r.value(desc, 0)
		if err != nil {
			t.Fatalf("%s: %v", describe(&v), err)
		}
		if !Equal(got, v) {
			t.Errorf("%s came back as %s", describe(&v), describe(&got))
		}
	}
}

// Overlapping descriptors cannot make the host copy more than its budget, and nesting is bounded.
func TestReaderBudget(t *testing.T) {
	mem := make([]byte, 1<<16)
	// A sequence whose 100 children are one tensor of 32 KiB.
	put := func(at int, kind abi.Kind, dt abi.DType, dim uint64, data, n uint32) {
		le.PutUint32(mem[at+abi.DescKind:], uint32(kind))
		le.PutUint32(mem[at+abi.DescDType:], uint32(dt))
		le.PutUint32(mem[at+abi.DescRank:], 1)
		le.PutUint64(mem[at+abi.DescDims:], dim)
		le.PutUint32(mem[at+abi.DescData:], data)
		le.PutUint32(mem[at+abi.DescBytes:], n)
	}
	put(0, abi.Sequence, 0, 100, 96, 100*abi.DescSize)
	for i := range 100 {
		put(96+i*abi.DescSize, abi.Tensor, abi.U8, 32768, 32768, 32768)
	}
	r := reader{mem: mem, budget: 1 << 20}
	if _, err := r.value(0, 0); err == nil || !strings.Contains(err.Error(), "larger than the limit") {
		t.Errorf("error %v", err)
	}
	put(0, abi.Sequence, 0, 1, 0, abi.DescSize) // its own child
	r = reader{mem: mem, budget: 1 << 20}
	if _, err := r.value(0, 0); err == nil || !strings.Contains(err.Error(), "nests deeper") {
		t.Errorf("error %v", err)
	}
}

func TestInvalidUTF8Input(t *testing.T) {
	v := OfStrings([]string{"ok", "\xff"})
	mem := make([]byte, 4096)
	l := layout{next: 128}
	if err := putValue(nil, mem, 0, &l, &v); err == nil || !strings.Contains(err.Error(), "string 1") {
		t.Errorf("error %v", err)
	}
}

// FuzzReader feeds guest memory to the output reader: whatever it accepts is well formed.
func FuzzReader(f *testing.F) {
	for _, v := range values() {
		mem, desc := encodeOne(f, &v)
		f.Add(mem[desc:])
	}
	f.Fuzz(func(t *testing.T, mem []byte) {
		// Addresses in the seeds start at 128.
		full := append(make([]byte, 128), mem...)
		r := reader{mem: full, budget: 1 << 20}
		v, err := r.value(128, 0)
		if err != nil {
			return
		}
		if err := v.Check(); err != nil {
			t.Errorf("accepted a malformed value: %v", err)
		}
	})
}

// FuzzHasStart: any bytes give an answer.
func FuzzHasStart(f *testing.F) {
	m := doubler()
	f.Add(m.bytes())
	m.fns = append([]fn{{"go", 0, 0, 0, nil}}, m.fns...)
	m.start = true
	f.Add(m.bytes())
	f.Fuzz(func(_ *testing.T, code []byte) { _, _ = hasStart(code) })
}

// describe names a value's type for error messages.
func describe(t *Tensor) string {
	if t.Kind != abi.Tensor {
		return t.Kind.String()
	}
	return strings.TrimSpace(t.DType.String() + " " + ShapeString(t.Shape))
}
