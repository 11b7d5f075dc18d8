package facts

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
)

func sniff(b []byte) string {
	head := b
	if len(head) > headBytes {
		head = head[:headBytes]
	}
	return format(head, newTail(b).last, int64(len(b)))
}

func TestFormat(t *testing.T) {
	for _, c := range []struct{ content, want string }{
		{"", "empty"},
		{"\x00asm\x01\x00\x00\x00", "wasm"},
		{"\x80\x04\x95\x10\x00", "pickle"},
		{"\x80\x02}q\x00.", "pickle"},
		{"cos\nsystem\n(S'id'\ntR.", "pickle"},
		{"(dp0\nS'a'\np1\nI1\ns.", "pickle"},
		{"PK\x03\x04 archive/data.pkl", "pickle-archive"},
		{"PK\x03\x04 x.npy", "zip"},
		{"\x1f\x8b\x08", "gzip"},
		{"x\x9c\xff\xfe\xfd", "zlib"},
		{"\x7fELF\x02", "elf"},
		{"MZ\x90\x00", "pe"},
		{"\xcf\xfa\xed\xfe", "macho"},
		{"\x89HDF\r\n\x1a\n", "hdf5"},
		{strings.Repeat("\x00", 257) + "ustar\x00", "tar"},
		{"#!/bin/sh\n", "script"},
		{"{\"a\":1}", "json"},
		{"  [1]", "json"},
		{"{L\x00\x00\x00\x01", "ubjson"},
		{"# Churn\n\nWhat it is for.", "text"},
		{"In this model there is nothing.", "text"},
		{"tree\nversion=v4\n", "text"},
		{"\x08\x08\x12\x07skl2onnx", "onnx"},
		{"GGUF\x03\x00", "gguf"},
		{"\x1c\x00\x00\x00TFL3", "tflite"},
		{"\x10\x00\x00\x00\x00\x00\x00\x00{\"a\":{}}       xxxxxxxx", "safetensors"},
		{"\x01\x02\x03", "binary"},
		{"text with a \x00 in it", "binary"},
		{"caf\xc3", "binary"},
	} {
		if got := sniff([]byte(c.content)); got != c.want {
			t.Errorf("%q: %s, want %s", c.content, got, c.want)
		}
	}
}

// Every real model is known for what it is.
func TestFormatOfRealModels(t *testing.T) {
	dir := os.Getenv("WAYBILL_CORPORA")
	if dir == "" {
		t.Skip("WAYBILL_CORPORA is not set: no real models to look at")
	}
	n := 0
	for _, sub := range []string{"models", "models-sklearn", "native", "formats"} {
		err := filepath.WalkDir(filepath.Join(dir, sub), func(p string, d os.DirEntry, err error) error {
			want := map[string]string{".onnx": "onnx", ".safetensors": "safetensors", ".gguf": "gguf", ".ubj": "ubjson", ".pkl": "pickle"}[filepath.Ext(p)]
			if err != nil || d.IsDir() || want == "" {
				return err
			}
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if strings.HasPrefix(string(b), "version https://git-lfs") {
				return nil // a pointer, not the file
			}
			if got := sniff(b); got != want {
				t.Errorf("%s: %s, want %s", p, got, want)
			}
			n++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d files", n)
	if n < 40 {
		t.Errorf("only %d files", n)
	}
}

func TestImports(t *testing.T) {
	head := "\x00asm\x01\x00\x00\x00"
	imp := func(body string) string { return head + "\x02" + string(rune(len(body))) + body }
	for _, c := range []struct{ name, module, want, err string }{
		{"none", head, "", ""},
		{"custom section", head + "\x00\x03\x01ab", "", ""},
		{"function", imp("\x01\x03env\x03run\x00\x00"), "env.run", ""},
		{"memory", imp("\x01\x03env\x03mem\x02\x01\x01\x10"), "env.mem", ""},
		{"table and global", imp("\x02\x01a\x01b\x01\x70\x00\x01\x01a\x01c\x03\x7f\x00"), "a.b a.c", ""},
		{"no module", "\x7fELF", "", "not a WebAssembly"},
		{"cut", head + "\x02\x20\x01", "", "ends early"},
		{"entries beyond the section", imp("\x02\x01a\x01b\x00\x00"), "", "ends early"},
		{"bytes after the entries", imp("\x01\x01a\x01b\x00\x00\x00"), "", "longer than its entries"},
		{"unknown kind", imp("\x01\x01a\x01b\x09\x00"), "", "unknown import kind"},
		{"two sections", imp("\x00") + "\x02\x01\x00", "", "two import sections"},
		{"large integer", head + "\x02\xff\xff\xff\xff\xff\x01", "", "too large"},
		{"unknown section", head + "\x0e\x00", "", "unknown section"},
	} {
		got, err := wasmImports([]byte(c.module))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v %v", c.name, got, err)
		}
	}
}

func FuzzImports(f *testing.F) {
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x02\x0b\x01\x03env\x03run\x00\x00"))
	f.Add([]byte("\x00asm\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := wasmImports(b); err == nil && len(b) < 8 {
			t.Fatal("a module shorter than its header")
		}
		sniff(b)
	})
}

func f32s(vs ...float32) artifact.GoldenTensor {
	g := artifact.GoldenTensor{Name: "y", DType: "f32", Shape: []int64{int64(len(vs))}}
	for _, v := range vs {
		g.Data = binary.LittleEndian.AppendUint32(g.Data, math.Float32bits(v))
	}
	return g
}

func TestAgree(t *testing.T) {
	nan := float32(math.NaN())
	inf := float32(math.Inf(1))
	tol := []artifact.Tolerance{{Output: "y", RTol: 1e-3, ATol: 1e-6}}
	str := func(s ...string) artifact.GoldenTensor {
		return artifact.GoldenTensor{Name: "y", DType: "string", Shape: []int64{int64(len(s))}, Strings: s}
	}
	i64 := artifact.GoldenTensor{Name: "y", DType: "i64", Shape: []int64{1}, Data: []byte{1, 0, 0, 0, 0, 0, 0, 0}}
	for _, c := range []struct {
		name      string
		got, want artifact.GoldenTensor
		tol       []artifact.Tolerance
		err       string
	}{
		{"equal", f32s(1, 2), f32s(1, 2), nil, ""},
		{"within", f32s(1.0005), f32s(1), tol, ""},
		{"without tolerance", f32s(1.0005), f32s(1), nil, "over the tolerance"},
		{"beyond", f32s(1.01), f32s(1), tol, "over the tolerance"},
		{"NaN", f32s(nan), f32s(nan), tol, ""},
		{"NaN and number", f32s(nan), f32s(1), tol, "over the tolerance"},
		{"number and NaN", f32s(1), f32s(nan), tol, "over the tolerance"},
		{"infinite reference", f32s(1), f32s(inf), tol, "over the tolerance"},
		{"shape", f32s(1), f32s(1, 1), tol, "shape"},
		{"strings", str("a"), str("a"), nil, ""},
		{"other strings", str("a"), str("b"), nil, "strings differ"},
		{"string and number", str("a"), f32s(1), tol, "strings differ"},
		{"other name", func() artifact.GoldenTensor { g := f32s(1); g.Name = "z"; return g }(), f32s(1), tol, "does not give"},
		{"int and float", i64, f32s(1), tol, ""},
		{"short data", artifact.GoldenTensor{Name: "y", DType: "f32", Shape: []int64{2}, Data: []byte{0, 0, 0, 0}}, f32s(1, 2), tol, "bytes of data"},
		{"negative tolerance", f32s(1), f32s(1), []artifact.Tolerance{{Output: "y", ATol: -1}}, "tolerance"},
		{"infinite tolerance", f32s(1), f32s(9), []artifact.Tolerance{{Output: "y", ATol: math.Inf(1)}}, "tolerance"},
		{"huge shape", artifact.GoldenTensor{Name: "y", DType: "f32", Shape: []int64{1 << 25, 1 << 25}}, artifact.GoldenTensor{Name: "y", DType: "f32", Shape: []int64{1 << 25, 1 << 25}}, tol, "more elements"},
	} {
		err := agree(artifact.GoldenVector{Name: "v", Expected: []artifact.GoldenTensor{c.got}, Reference: []artifact.GoldenTensor{c.want}, Tolerance: c.tol})
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.err)
		}
	}
	if h := half(0x3c00); h != 1 {
		t.Errorf("half 1 is %g", h)
	}
	if h := half(0x0001); h != math.Ldexp(1, -24) {
		t.Errorf("smallest half is %g", h)
	}
}
