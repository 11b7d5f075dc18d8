package build_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/project"
)

// digestsOf packs a project that is compiled and one that is not.
func digestsOf(t *testing.T, compiled, plain string) map[string]artifact.Digest {
	t.Helper()
	in, m, v := load(t, compiled)
	rec, err := build.Record(t.Context(), m, v, nil, oracleRunner{t: t, graph: &m.Source})
	if err != nil {
		t.Fatal(err)
	}
	a, err := build.Pack(t.Context(), in, m, rec.Doc(), openStore(t, false), build.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle(t.Context(), plain, openStore(t, false), build.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]artifact.Digest{"compiled": a.Digest, "plain": b.Digest}
}

// How many cores work on a pack is not in the digest.
func TestProcessors(t *testing.T) {
	was := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(was)
	got := map[string]artifact.Digest{}
	for _, n := range []int{1, 2, 7} {
		runtime.GOMAXPROCS(n)
		for what, d := range digestsOf(t, example, filepath.Join(bundles, "folder")) {
			if got[what] == "" {
				got[what] = d
			}
			if got[what] != d {
				t.Errorf("%s: %s on %d cores, else %s", what, d, n, got[what])
			}
		}
	}
}

func field(n protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), bytes.Join(parts, nil))
}

func number(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

// beside is a tensor of two float32 whose content lies in a file (TensorProto.external_data).
func beside(name, file string, offset int) []byte {
	entry := func(k, v string) []byte { return field(13, field(1, []byte(k)), field(2, []byte(v))) }
	return bytes.Join([][]byte{
		number(1, 2), number(2, 1), field(8, []byte(name)),
		entry("location", file), entry("offset", strconv.Itoa(offset)), entry("length", "8"), number(14, 1),
	}, nil)
}

// externalModel is y = x * a + b, whose a and b lie in two files.
func externalModel() []byte {
	value := func(name string) []byte {
		dims := field(2, field(1, number(1, 2)))
		return bytes.Join([][]byte{field(1, []byte(name)), field(2, field(1, number(1, 1), dims))}, nil)
	}
	node := func(op string, x, y, out string) []byte {
		return bytes.Join([][]byte{field(1, []byte(x)), field(1, []byte(y)), field(2, []byte(out)), field(4, []byte(op))}, nil)
	}
	graph := bytes.Join([][]byte{
		field(1, node("Mul", "x", "a", "t")), field(1, node("Add", "t", "b", "y")), field(2, []byte("g")),
		field(5, beside("a", "tensors/a.bin", 4)), field(5, beside("b", "b.bin", 0)), field(11, value("x")), field(12, value("y")),
	}, nil)
	return bytes.Join([][]byte{number(1, 8), field(7, graph), field(8, field(1), number(2, 17))}, nil)
}

func floats(v ...float32) string {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return string(b)
}

// A model whose tensors lie in files beside it is compiled with them, and they go into the bundle as its source.
func TestExternalData(t *testing.T) {
	project1 := func(a string) string {
		dir := mk(t, "", map[string]string{"m/model.onnx": string(externalModel()), "m/tensors/a.bin": a, "m/b.bin": floats(10, 20), "m/other.bin": "not part of it"})
		text := "name: x\nversion: 1.0.0\nlicense: MIT\nmodel: m/model.onnx\n"
		if err := os.WriteFile(filepath.Join(dir, project.FileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	pack := func(dir string, st build.Store, o build.PackOptions) (*build.Packed, *build.Model) {
		t.Helper()
		in, m, _ := load(t, dir)
		packed, err := build.Pack(t.Context(), in, m, nil, st, o)
		if err != nil {
			t.Fatal(err)
		}
		return packed, m
	}
	paths := func(p *build.Packed) string {
		var out []string
		for _, l := range p.Layers {
			out = append(out, l.Path)
		}
		return strings.Join(out, " ")
	}
	a := floats(7, 2, 3)
	st := openStore(t, false)
	var total, done int64
	packed, m := pack(project1(a), st, build.PackOptions{Begin: func(n int64) { total = n }, Progress: func(n int64) { done += n }})
	if got := paths(packed); !strings.HasSuffix(got, "source/m/b.bin source/m/model.onnx source/m/tensors/a.bin") || strings.Contains(got, "other") {
		t.Errorf("layers: %s", got)
	}
	if total != done {
		t.Errorf("progress: %d of %d bytes", done, total)
	}
	for _, l := range packed.Layers {
		if want := artifact.DigestOf([]byte(a)); l.Path == "source/m/tensors/a.bin" && (l.Digest != want || l.Role != artifact.RoleSource) {
			t.Errorf("%+v, want %s", l, want)
		}
	}
	out, err := oracleRunner{t: t, graph: &m.Source}.Run(t.Context(), m.Module, [][]artifact.GoldenTensor{
		{{Name: "x", Kind: "tensor", DType: "f32", Shape: []int64{2}, Data: []byte(floats(100, 1000))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(out[0][0].Data); got != floats(210, 3020) {
		t.Errorf("y = %x", got)
	}

	again, _ := pack(project1(a), openStore(t, false), build.PackOptions{})
	if again.Digest != packed.Digest {
		t.Errorf("two folders: %s and %s", packed.Digest, again.Digest)
	}
	other, _ := pack(project1(floats(7, 2, 4)), st, build.PackOptions{})
	if other.Digest == packed.Digest {
		t.Error("other tensors, the same digest")
	}
	bare, _ := pack(project1(a), st, build.PackOptions{WithoutSource: true})
	if got := paths(bare); strings.Contains(got, "source/") {
		t.Errorf("without the source: %s", got)
	}

	// A missing file stops the pack before anything is stored.
	dir := project1(a)
	if err := os.Remove(filepath.Join(dir, "m", "b.bin")); err != nil {
		t.Fatal(err)
	}
	p, err := project.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	in, err := build.Read(t.Context(), p)
	if err == nil {
		_, err = in.Compile(t.Context(), codegen.Options{})
	}
	if err == nil || diag.CodeOf(err) == 0 || !strings.Contains(diag.Render(err), "b.bin") {
		t.Errorf("without b.bin: %v", err)
	}
}
