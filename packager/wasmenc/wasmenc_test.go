package wasmenc

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
)

func TestLEB(t *testing.T) {
	for _, c := range []struct {
		v    int64
		want []byte
	}{{0, []byte{0}}, {-1, []byte{0x7f}}, {63, []byte{0x3f}}, {64, []byte{0xc0, 0}}, {-64, []byte{0x40}}, {-65, []byte{0xbf, 0x7f}}, {624485, []byte{0xe5, 0x8e, 0x26}}} {
		if got := AppendS(nil, c.v); !bytes.Equal(got, c.want) {
			t.Errorf("AppendS(%d) = %x, want %x", c.v, got, c.want)
		}
	}
	for _, v := range []uint64{0, 1, 127, 128, math.MaxUint32, math.MaxUint64} {
		if got := AppendU(nil, v); !bytes.Equal(got, binary.AppendUvarint(nil, v)) {
			t.Errorf("AppendU(%d) = %x", v, got)
		}
	}
	if got := AppendS(nil, math.MinInt64); len(got) != 10 || got[9] != 0x7f {
		t.Errorf("AppendS(MinInt64) = %x", got)
	}
}

func TestSmallModule(t *testing.T) {
	m := New()
	m.MemoryName, m.MinPages, m.MaxPages, m.Table = "memory", 1, 2, true
	f := m.Add(Func{Name: "one", Type: FuncType{Results: []ValType{I32}}, Locals: []ValType{I32, I32, F64}, Body: []byte{0x41, 1}})
	m.Export("one", f)
	m.Data = []Data{{Offset: 1024, Bytes: []byte("hi")}}
	got, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := []byte("\x00asm\x01\x00\x00\x00" +
		"\x01\x08\x02\x60\x00\x00\x60\x00\x01\x7f" + // types
		"\x03\x03\x02\x00\x01" + // functions
		"\x04\x05\x01\x70\x01\x02\x02" + // table
		"\x05\x04\x01\x01\x01\x02" + // memory
		"\x07\x10\x02\x06memory\x02\x00\x03one\x00\x01" + // exports
		"\x09\x07\x01\x00\x41\x01\x0b\x01\x01" + // elements
		"\x0a\x0e\x02\x03\x00\x00\x0b\x08\x02\x02\x7f\x01\x7c\x41\x01\x0b" + // code
		"\x0b\x09\x01\x00\x41\x80\x08\x0b\x02hi" + // data
		"\x00\x13\x04name\x01\x0c\x02\x00\x04none\x01\x03one")
	if !bytes.Equal(got, want) {
		t.Errorf("module\n%x, want\n%x", got, want)
	}
}

func TestLimits(t *testing.T) {
	m := New()
	m.Add(Func{Name: "long", Body: make([]byte, MaxBody+1)})
	if _, err := m.Encode(); err == nil {
		t.Error("a body over the limit was accepted")
	}
	m = New()
	m.Add(Func{Name: "wide", Locals: make([]ValType, MaxLocals+1)})
	if _, err := m.Encode(); err == nil {
		t.Error("too many locals were accepted")
	}
}
