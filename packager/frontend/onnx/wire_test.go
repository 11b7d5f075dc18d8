package onnx

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/ir"
)

// Small encoders of protobuf messages, for models made by tests.

func pbBytes(num protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
}

func pbStr(num protowire.Number, s string) []byte { return pbBytes(num, []byte(s)) }

func pbInt(num protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), uint64(v))
}

func pbInts(num protowire.Number, v ...int64) []byte {
	var b []byte
	for _, x := range v {
		b = protowire.AppendVarint(b, uint64(x))
	}
	return pbBytes(num, b)
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// info makes a ValueInfoProto; a negative dim is left without a size.
func info(name string, elem int64, dims ...int64) []byte {
	var shape []byte
	for _, d := range dims {
		if d < 0 {
			shape = append(shape, pbBytes(1, nil)...)
		} else {
			shape = append(shape, pbBytes(1, pbInt(1, d))...)
		}
	}
	return cat(pbStr(1, name), pbBytes(2, pbBytes(1, cat(pbInt(1, elem), pbBytes(2, shape)))))
}

func attrI(name string, v int64) []byte {
	return pbBytes(5, cat(pbStr(1, name), pbInt(3, v), pbInt(20, attrInt)))
}

func attrS(name, v string) []byte {
	return pbBytes(5, cat(pbStr(1, name), pbStr(4, v), pbInt(20, attrString)))
}

func attrG(name string, g []byte) []byte {
	return pbBytes(5, cat(pbStr(1, name), pbBytes(6, g), pbInt(20, attrGraph)))
}

// node makes a NodeProto from "op in in -> out out".
func node(spec string, attrs ...[]byte) []byte {
	left, right, _ := strings.Cut(spec, "->")
	f := strings.Fields(left)
	name, dom := f[0], ""
	if i := strings.LastIndex(name, "."); i >= 0 {
		dom, name = name[:i], name[i+1:]
	}
	var b []byte
	for _, in := range f[1:] {
		if in == "_" {
			in = ""
		}
		b = append(b, pbStr(1, in)...)
	}
	for _, out := range strings.Fields(right) {
		b = append(b, pbStr(2, out)...)
	}
	b = cat(b, pbStr(4, name), pbStr(7, dom))
	return cat(b, cat(attrs...))
}

func tensor(name string, elem int64, raw []byte, dims ...int64) []byte {
	return cat(pbInts(1, dims...), pbInt(2, elem), pbStr(8, name), pbBytes(9, raw))
}

type graphParts struct{ nodes, inits, ins, outs [][]byte }

func (g graphParts) bytes() []byte {
	b := pbStr(2, "test")
	for _, l := range []struct {
		num protowire.Number
		l   [][]byte
	}{{1, g.nodes}, {5, g.inits}, {11, g.ins}, {12, g.outs}} {
		for _, x := range l.l {
			b = append(b, pbBytes(l.num, x)...)
		}
	}
	return b
}

func model(opset int64, g graphParts) []byte {
	return cat(pbInt(1, 8), pbStr(2, "waybill tests"), pbBytes(7, g.bytes()), pbBytes(8, cat(pbStr(1, ""), pbInt(2, opset))),
		pbBytes(8, cat(pbStr(1, "ai.onnx.ml"), pbInt(2, 3))), pbBytes(8, cat(pbStr(1, "com.microsoft"), pbInt(2, 1))))
}

// small is a model with a branch, a constant and a name that both branches use.
func small() []byte {
	branch := func(op string) []byte {
		return graphParts{nodes: [][]byte{node(op + " x -> t"), node("Add t w -> y")}, outs: [][]byte{info("y", 1, -1, 2)}}.bytes()
	}
	return model(17, graphParts{
		nodes: [][]byte{node("If c -> z", attrG("then_branch", branch("Relu")), attrG("else_branch", branch("Neg")))},
		inits: [][]byte{tensor("w", 1, []byte{0, 0, 128, 63, 0, 0, 0, 64}, 2)},
		ins:   [][]byte{info("x", 1, -1, 2), info("c", 9)},
		outs:  [][]byte{info("z", 1, -1, 2)},
	})
}

func TestParseSmall(t *testing.T) {
	g, err := Parse(small(), "")
	if err != nil {
		t.Fatal(err)
	}
	const want = `graph "test" {
  producer "waybill tests"
  opset "" 17
  opset "ai.onnx.ml" 3
  opset "com.microsoft" 1
  const w f32[2](1, 2)
  param x f32[x_0,2]
  param c bool[]
  z f32[x_0,2] = If(c) #4 "If_0"
    region (x) {
      t f32[x_0,2] = Relu(x) #0 "Relu_1"
      y f32[x_0,2] = Add(t, w) #1 "Add_2"
      result y
    }
    region (x) {
      t~1 f32[x_0,2] = Neg(x) #2 "Neg_3"
      y~1 f32[x_0,2] = Add(t~1, w) #3 "Add_4"
      result y~1
    }
  result z
}
`
	if got := ir.Print(g); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestTruncated cuts a model at every byte: each prefix is refused or is itself a whole message, and none panics.
func TestTruncated(t *testing.T) {
	b := small()
	graphEnd := bytes.Index(b, []byte("ai.onnx.ml")) - 10 // only operator sets follow
	for n := 0; n < len(b); n++ {
		_, err := Parse(b[:n:n], "")
		if err == nil && n < graphEnd {
			t.Errorf("%d of %d bytes parse", n, len(b))
		}
		var f *frontend.FormatError
		var u *frontend.UnsupportedError
		if err != nil && !errors.As(err, &f) && !errors.As(err, &u) {
			t.Errorf("%d bytes: %T %v", n, err, err)
		}
	}
}

func TestBadModels(t *testing.T) {
	x := [][]byte{info("x", 1, -1, 2)}
	y := [][]byte{info("y", 1, -1, 2)}
	deep := graphParts{nodes: [][]byte{node("Neg x -> y")}, outs: y}.bytes()
	for i := 0; i < 40; i++ {
		deep = graphParts{nodes: [][]byte{node("If c -> y", attrG("then_branch", deep), attrG("else_branch", deep[:0]))}, outs: y}.bytes()
	}
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"empty", nil, "empty"},
		{"text", []byte("this is not a model at all"), "not an ONNX model"},
		{"pickle", []byte("\x80\x04\x95\x10"), "not an ONNX model but pickle"},
		{"no graph", cat(pbInt(1, 8), pbStr(2, "p")), "no graph"},
		{"unknown op", model(17, graphParts{nodes: [][]byte{node("Frobnicate x -> y")}, ins: x, outs: y}), "Frobnicate (opset 17) of node"},
		{"unknown domain", model(17, graphParts{nodes: [][]byte{node("acme.Thing x -> y")}, ins: x, outs: y}), "acme.Thing"},
		{"future opset", model(99, graphParts{nodes: [][]byte{node("Relu x -> y")}, ins: x, outs: y}), "above 28"},
		{"unknown attribute", model(17, graphParts{nodes: [][]byte{node("Relu x -> y", attrI("what", 1))}, ins: x, outs: y}), "\"what\""},
		{"wrong attribute kind", model(17, graphParts{nodes: [][]byte{node("Flatten x -> y", attrS("axis", "1"))}, ins: x, outs: y}), "axis"},
		{"use before definition", model(17, graphParts{nodes: [][]byte{node("Relu q -> y")}, ins: x, outs: y}), "\"q\""},
		{"defined twice", model(17, graphParts{nodes: [][]byte{node("Relu x -> y"), node("Neg x -> y")}, ins: x, outs: y}), "twice"},
		{"missing output", model(17, graphParts{nodes: [][]byte{node("Relu x -> q")}, ins: x, outs: y}), "\"y\""},
		{"types", model(17, graphParts{nodes: [][]byte{node("Not x -> y")}, ins: x, outs: y}), "want bool"},
		{"shapes", model(17, graphParts{nodes: [][]byte{node("Add x w -> y")}, ins: x, outs: y,
			inits: [][]byte{tensor("w", 1, make([]byte, 12), 3)}}), "broadcast"},
		{"short tensor", model(17, graphParts{nodes: [][]byte{node("Add x w -> y")}, ins: x, outs: y,
			inits: [][]byte{tensor("w", 1, make([]byte, 7), 2)}}), "7 bytes"},
		{"huge tensor", model(17, graphParts{nodes: [][]byte{node("Add x w -> y")}, ins: x, outs: y,
			inits: [][]byte{tensor("w", 1, nil, 1<<40, 1<<40)}}), "overflow"},
		{"negative dim", model(17, graphParts{nodes: [][]byte{node("Add x w -> y")}, ins: x, outs: y,
			inits: [][]byte{tensor("w", 1, nil, -2)}}), "negative"},
		{"rank", model(17, graphParts{nodes: [][]byte{node("Relu x -> y")}, ins: [][]byte{info("x", 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)}, outs: y}), "rank 9"},
		{"nesting", model(17, graphParts{nodes: [][]byte{node("If c -> y", attrG("then_branch", deep), attrG("else_branch", deep))},
			ins: [][]byte{info("x", 1, 2), info("c", 9)}, outs: y}), "nested"},
	} {
		_, err := Parse(c.b, "")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestExternalData reads weights from a file beside the model, and nothing from outside its folder.
func TestExternalData(t *testing.T) {
	dir := t.TempDir()
	inside := filepath.Join(dir, "m")
	if err := os.Mkdir(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	weights := []byte{9, 9, 9, 9, 0, 0, 128, 63, 0, 0, 0, 64}
	for _, p := range []string{filepath.Join(inside, "w.bin"), filepath.Join(dir, "secret.bin")} {
		if err := os.WriteFile(p, weights, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	external := func(location, offset, length string) []byte {
		e := func(k, v string) []byte { return pbBytes(13, cat(pbStr(1, k), pbStr(2, v))) }
		w := cat(pbInts(1, 2), pbInt(2, 1), pbStr(8, "w"), e("location", location), e("offset", offset), e("length", length), pbInt(14, 1))
		return model(17, graphParts{nodes: [][]byte{node("Add x w -> y")}, ins: [][]byte{info("x", 1, -1, 2)}, outs: [][]byte{info("y", 1, -1, 2)},
			inits: [][]byte{w}})
	}
	path := filepath.Join(inside, "model.onnx")
	read := func(b []byte) (*ir.Graph, error) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return Read(context.Background(), path)
	}
	g, err := read(external("w.bin", "4", "8"))
	if err != nil {
		t.Fatal(err)
	}
	if w := g.Body.Nodes[0].Ins[1].Const.Floats(); w[0] != 1 || w[1] != 2 {
		t.Errorf("weights %v", w)
	}
	link := os.Symlink(filepath.Join(dir, "secret.bin"), filepath.Join(inside, "link.bin")) == nil
	for _, c := range []struct{ location, offset, length string }{
		{"../secret.bin", "4", "8"}, {filepath.Join(dir, "secret.bin"), "4", "8"}, {"link.bin", "4", "8"}, {"", "4", "8"}, {".", "0", "8"},
		{"missing.bin", "4", "8"}, {"w.bin", "5", "8"}, {"w.bin", "-1", "8"}, {"w.bin", "4", "4"}, {"w.bin", "9223372036854775807", "8"}, {"w.bin", "x", "8"},
	} {
		if c.location == "link.bin" && !link {
			continue
		}
		if _, err := read(external(c.location, c.offset, c.length)); err == nil {
			t.Errorf("%+v was read", c)
		}
	}
	if _, err := Parse(external("w.bin", "4", "8"), ""); err == nil {
		t.Error("external data was read without a folder")
	}
}

func TestReadTensor(t *testing.T) {
	name, d, err := ReadTensor(cat(pbInts(1, 2), pbInt(2, 8), pbStr(8, "s"), pbStr(6, "a"), pbStr(6, "b")))
	if err != nil || name != "s" || d.Strings[1] != "b" {
		t.Errorf("%q %+v %v", name, d, err)
	}
	_, d, err = ReadTensor(cat(pbInts(1, 3), pbInt(2, 3), pbInts(5, 1, -2, 127)))
	if err != nil || d.Int(1) != -2 {
		t.Errorf("%+v %v", d, err)
	}
	if _, _, err = ReadTensor(cat(pbInts(1, 3), pbInt(2, 3), pbInts(5, 1, -2))); err == nil {
		t.Error("two values for three elements")
	}
	if _, _, err = ReadTensor([]byte("\x08")); err == nil {
		t.Error("truncated")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(small())
	f.Add(model(9, graphParts{nodes: [][]byte{node("Softmax x -> y", attrI("axis", 0))}, ins: [][]byte{info("x", 1, 2, -1)}, outs: [][]byte{info("y", 1)}}))
	f.Add(model(17, graphParts{nodes: [][]byte{node("ai.onnx.ml.ZipMap x -> y", pbBytes(5, cat(pbStr(1, "classlabels_int64s"), pbInts(8, 1, 2), pbInt(20, attrInts))))},
		ins: [][]byte{info("x", 1, -1, 2)}, outs: [][]byte{info("y", 1)}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := Parse(b, "")
		if err != nil {
			return
		}
		// What was accepted has a text form that reads back.
		if _, err := ir.Parse(ir.Print(g)); err != nil {
			t.Fatalf("%v\n%s", err, ir.Print(g))
		}
	})
}

func FuzzReadValue(f *testing.F) {
	f.Add(tensor("w", 1, make([]byte, 8), 2), 0)
	f.Add(pbBytes(6, cat(pbInts(3, 1), pbBytes(5, pbBytes(3, tensor("", 1, make([]byte, 4)))))), 1)
	types := []ir.Type{ir.TensorOf(ir.F32, ir.Unranked()), ir.SequenceOf(ir.MapOf(ir.I64, ir.TensorOf(ir.F32, ir.StaticShape()))),
		ir.OptionalOf(ir.TensorOf(ir.F32, ir.Unranked()))}
	f.Fuzz(func(t *testing.T, b []byte, kind int) {
		_, _, _ = ReadValue(b, types[uint(kind)%uint(len(types))])
	})
}
