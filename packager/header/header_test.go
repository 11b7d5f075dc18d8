package header

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// st makes a safetensors file: a header of that JSON and as many bytes of data.
func st(head string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(head)))
	b = append(b, head...)
	return append(b, make([]byte, data)...)
}

// gg writes GGUF files.
type gg struct {
	bytes.Buffer
	order binary.ByteOrder
}

func (g *gg) u32(v uint32) { _ = binary.Write(&g.Buffer, g.order, v) }
func (g *gg) u64(v uint64) { _ = binary.Write(&g.Buffer, g.order, v) }
func (g *gg) str(s string) { g.u64(uint64(len(s))); g.WriteString(s) }
func (g *gg) text(k, v string) {
	g.str(k)
	g.u32(8)
	g.str(v)
}
func (g *gg) num(k string, v uint32) {
	g.str(k)
	g.u32(4)
	g.u32(v)
}

type ggTensor struct {
	name  string
	shape []uint64
	typ   uint32
	at    uint64
}

// ggufFile makes a file with an architecture, a file type, an array of strings and the tensors; size bytes of data.
func ggufFile(order binary.ByteOrder, arch string, fileType uint32, size int, ts ...ggTensor) []byte {
	g := &gg{order: order}
	g.WriteString("GGUF")
	g.u32(3)
	g.u64(uint64(len(ts)))
	g.u64(3)
	g.text("general.architecture", arch)
	g.num("general.file_type", fileType)
	g.str("tokenizer.ggml.tokens")
	g.u32(9)
	g.u32(8)
	g.u64(2)
	g.str("a")
	g.str("b")
	for _, t := range ts {
		g.str(t.name)
		g.u32(uint32(len(t.shape)))
		for _, d := range t.shape {
			g.u64(d)
		}
		g.u32(t.typ)
		g.u64(t.at)
	}
	b := g.Bytes()
	for len(b)%32 != 0 {
		b = append(b, 0)
	}
	return append(b, make([]byte, size)...)
}

func TestSafeTensors(t *testing.T) {
	f, err := SafeTensors(bytes.NewReader(st(`{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}  `, 16)), 8+int64(len(`{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}  `))+16)
	if err != nil {
		t.Fatal(err)
	}
	if f.Parameters != 7 || f.Tensors != 2 || strings.Join(f.Precision, ",") != "float16,float32" || !slices.Equal(f.Names, []string{"a", "b"}) || f.Quantization != "" {
		t.Errorf("%+v", f)
	}
	for _, c := range []struct {
		name, head string
		data       int
		err        string
	}{
		{"empty", `{}`, 0, ""},
		{"zero elements", `{"a":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]}}`, 0, ""},
		{"gap", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2, "the one before it ends at 0"},
		{"overlap", `{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3, "ends at 2"},
		{"backwards", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, 1, "lies at 1 to 0"},
		{"wrong size", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,7]}}`, 7, "make 8"},
		{"cut", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 7, "the file has 7"},
		{"more", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 9, "the file has 9"},
		{"type", `{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}`, 8, "unknown type"},
		{"overflow", `{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}`, 8, "too large"},
		{"overflow of the sum", `{"a":{"dtype":"F4","shape":[9223372036854775807],"data_offsets":[0,8]}}`, 8, "too large"},
		{"negative", `{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}}`, 8, "tensor"},
		{"twice", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2, "stands twice"},
		{"no offsets", `{"a":{"dtype":"U8","shape":[1]}}`, 1, "lacks"},
		{"text behind", `{} x`, 0, "data after"},
		{"no object", `[]`, 0, "begin with {"},
		{"not JSON", `{"a":`, 0, "tensor \"a\": EOF"},
		{"rank", `{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}`, 1, "17 dimensions"},
	} {
		b := st(c.head, c.data)
		_, err := SafeTensors(bytes.NewReader(b), int64(len(b)))
		var fe *FormatError
		if c.err == "" && err != nil || c.err != "" && (!errors.As(err, &fe) || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.err)
		}
	}
	big := binary.LittleEndian.AppendUint64(nil, 1<<40)
	if _, err := SafeTensors(bytes.NewReader(big), 1<<50); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a header of a terabyte: %v", err)
	}
	if _, err := SafeTensors(bytes.NewReader(big[:7]), 7); err == nil || !strings.Contains(err.Error(), "ends inside") {
		t.Errorf("seven bytes: %v", err)
	}
	want := errors.New("disk")
	if _, err := SafeTensors(iotest.ErrReader(want), 100); !errors.Is(err, want) {
		t.Errorf("a read error: %v", err)
	}
}

func TestQuantizationNames(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"l.qweight", "l.qzeros", "l.scales"}, "awq"},
		{[]string{"l.g_idx", "l.qweight", "l.qzeros"}, "gptq"},
		{[]string{"l.weight", "l.SCB"}, "bitsandbytes-8bit"},
		{[]string{"l.weight"}, ""},
	} {
		if got := quantizationOf(c.names, nil); got != c.want {
			t.Errorf("%v: %q, want %q", c.names, got, c.want)
		}
	}
}

func TestGGUF(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		b := ggufFile(order, "llama", 15, 32+144, ggTensor{"norm", []uint64{8}, 0, 0}, ggTensor{"w", []uint64{256, 1}, 12, 32})
		f, err := GGUF(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(order, err)
		}
		if f.Architecture != "llama" || f.Quantization != "q4_k_m" || f.Parameters != 264 || !slices.Equal(f.Precision, []string{"float32"}) || f.Tensors != 2 {
			t.Errorf("%+v", f)
		}
		// Cut anywhere it is an error, and never a panic.
		for n := range b {
			if _, err := GGUF(bytes.NewReader(b[:n]), int64(n)); err == nil {
				t.Fatalf("%v: %d of %d bytes are a whole file", order, n, len(b))
			}
		}
	}
	f16 := ggTensor{"w", []uint64{4}, 1, 0}
	for _, c := range []struct {
		name string
		size int
		ts   []ggTensor
		err  string
	}{
		{"fine", 8, []ggTensor{f16}, ""},
		{"cut", 7, []ggTensor{f16}, "it is cut off"},
		{"twice", 64, []ggTensor{f16, f16}, "stands twice"},
		{"alignment", 64, []ggTensor{{"w", []uint64{4}, 1, 4}}, "no multiple of 32"},
		{"overlap", 512, []ggTensor{{"a", []uint64{40}, 0, 0}, {"b", []uint64{4}, 0, 32}}, "overlaps"},
		{"type", 64, []ggTensor{{"w", []uint64{4}, 99, 0}}, "unknown type 99"},
		{"blocks", 64, []ggTensor{{"w", []uint64{33}, 2, 0}}, "whole blocks"},
		{"overflow", 64, []ggTensor{{"w", []uint64{1 << 40, 1 << 40}, 0, 0}}, "too large"},
		{"overflow of bytes", 64, []ggTensor{{"w", []uint64{1 << 62}, 28, 0}}, "too large"},
		{"rank", 64, []ggTensor{{"w", make([]uint64, 17), 0, 0}}, "17 dimensions"},
	} {
		b := ggufFile(binary.LittleEndian, "x", 1, c.size, c.ts...)
		f, err := GGUF(bytes.NewReader(b), int64(len(b)))
		if c.err == "" && (err != nil || f.Quantization != "") || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.err)
		}
	}
	// A length that lies costs no memory and no time.
	g := &gg{order: binary.LittleEndian}
	g.WriteString("GGUF")
	g.u32(3)
	g.u64(1 << 62)
	g.u64(0)
	if _, err := GGUF(bytes.NewReader(g.Bytes()), 1<<40); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("2^62 tensors: %v", err)
	}
}

// Only the header is read, never the tensors.
func TestReadsHeaderOnly(t *testing.T) {
	b := ggufFile(binary.LittleEndian, "x", 1, 1<<20, ggTensor{"w", []uint64{1 << 19}, 1, 0})
	r := &counter{r: bytes.NewReader(b)}
	if _, err := GGUF(r, int64(len(b))); err != nil || r.n > len(b)-1<<20 {
		t.Errorf("GGUF read %d bytes, %v", r.n, err)
	}
	s := st(`{"a":{"dtype":"U8","shape":[1048576],"data_offsets":[0,1048576]}}`, 1<<20)
	r = &counter{r: bytes.NewReader(s)}
	if _, err := SafeTensors(r, int64(len(s))); err != nil || r.n != len(s)-1<<20 {
		t.Errorf("safetensors read %d bytes, %v", r.n, err)
	}
}

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func TestParamSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "", 7: "0.1K", 817: "0.8K", 1000: "1K", 1449: "1.4K", 1450: "1.5K", 999_949: "999.9K", 999_950: "1M", 6_700_000_000: "6.7B",
		8_030_261_248: "8B", 70_553_706_496: "70.6B", 1_000_000_000_000: "1T", 9_223_372_036_854_775_807: "9223.4Q",
	} {
		if got := ParamSize(n); got != want {
			t.Errorf("ParamSize(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestSum(t *testing.T) {
	s, err := Sum([]Facts{
		{Format: gguf, Tensors: 1, Parameters: 5, Precision: []string{"float32"}, Architecture: "llama", Shards: 2},
		{Format: gguf, Tensors: 2, Parameters: 6, Precision: []string{"float16", "float32"}, Quantization: "q8_0", Shard: 1, Shards: 2},
	})
	if err != nil || s.Parameters != 11 || s.Tensors != 3 || s.Quantization != "q8_0" || s.Architecture != "llama" || !slices.Equal(s.Precision, []string{"float16", "float32"}) {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := Sum([]Facts{{Format: gguf}, {Format: safetensors}}); err == nil {
		t.Error("two formats were added")
	}
	if _, err := Sum([]Facts{{Parameters: 1 << 62}, {Parameters: 1 << 62}}); err == nil {
		t.Error("an overflow was added")
	}
}

// Files that their own projects publish.
func TestCorpora(t *testing.T) {
	dir := os.Getenv("WAYBILL_CORPORA")
	if dir == "" {
		t.Skip("WAYBILL_CORPORA is not set: the shared corpora are not here")
	}
	files, err := filepath.Glob(filepath.Join(dir, "formats", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range files {
		var read func(io.Reader, int64) (Facts, error)
		switch filepath.Ext(p) {
		case ".gguf":
			read = GGUF
		case ".safetensors":
			read = SafeTensors
		default:
			continue
		}
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		f, err := read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(p), err)
			continue
		}
		n++
		j, _ := json.Marshal(f)
		t.Logf("%s: %s", filepath.Base(p), j)
	}
	if n < 5 {
		t.Errorf("only %d files", n)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(st(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4))
	f.Add(st(`{}`, 0))
	f.Add(ggufFile(binary.LittleEndian, "llama", 15, 64, ggTensor{"w", []uint64{8, 1}, 0, 0}))
	f.Add(ggufFile(binary.BigEndian, "x", 1, 8, ggTensor{"w", []uint64{4}, 1, 0}))
	f.Add([]byte("GGUF\x02\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, read := range []func(io.Reader, int64) (Facts, error){SafeTensors, GGUF} {
			x, err := read(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				var fe *FormatError
				if !errors.As(err, &fe) {
					t.Fatalf("%T: %v", err, err)
				}
				continue
			}
			if x.Parameters < 0 || x.Tensors != len(x.Names) || x.Precision == nil || !slices.IsSorted(x.Names) {
				t.Fatalf("%+v", x)
			}
		}
	})
}
