package compare_test

import (
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/compare"
)

func dim(n int64) artifact.Dim  { return artifact.Dim{Size: n} }
func sym(s string) artifact.Dim { return artifact.Dim{Size: -1, Sym: s} }
func upTo(n int64) artifact.Dim { return artifact.Dim{Size: -1, Sym: "N", Max: n} }
func f32(ds ...artifact.Dim) artifact.Port {
	return artifact.Port{Name: "x", Kind: "tensor", DType: "f32", Ranked: true, Shape: ds}
}
func f64(ds ...artifact.Dim) artifact.Port { p := f32(ds...); p.DType = "f64"; return p }

func TestPorts(t *testing.T) {
	anyRank := artifact.Port{Name: "x", Kind: "tensor", DType: "f32"}
	optional := artifact.Port{Name: "x", Kind: "optional", Elem: &artifact.Port{Kind: "tensor", DType: "f32", Ranked: true, Shape: []artifact.Dim{dim(3)}}}
	cols := f32(sym("N"), dim(2))
	cols.Columns = []string{"a", "b"}
	cols2 := cols
	cols2.Columns = []string{"b", "a"}
	const no, quiet, breaks = "no change", "compatible", "breaking"
	for name, c := range map[string]struct {
		a, b          artifact.Port
		input, output string
	}{
		"same":                   {f32(sym("N"), dim(30)), f32(sym("N"), dim(30)), no, no},
		"another name of a dim":  {f32(sym("N"), dim(30)), f32(sym("batch"), dim(30)), no, no},
		"another size":           {f32(sym("N"), dim(30)), f32(sym("N"), dim(31)), breaks, breaks},
		"another type":           {f32(dim(3)), f64(dim(3)), breaks, breaks},
		"another rank":           {f32(dim(3)), f32(dim(1), dim(3)), breaks, breaks},
		"takes more":             {f32(dim(1), dim(30)), f32(sym("N"), dim(30)), quiet, breaks},
		"takes less":             {f32(sym("N"), dim(30)), f32(dim(1), dim(30)), breaks, quiet},
		"a bound where was none": {f32(sym("N")), f32(upTo(8)), breaks, quiet},
		"a higher bound":         {f32(upTo(8)), f32(upTo(16)), quiet, breaks},
		"two dims now equal":     {f32(sym("N"), sym("M")), f32(sym("N"), sym("N")), breaks, quiet},
		"any rank":               {f32(dim(3)), anyRank, quiet, breaks},
		"may be left out":        {f32(dim(3)), optional, quiet, breaks},
		"columns in other order": {cols, cols2, breaks, breaks},
	} {
		got := func(cs []compare.Change) string {
			switch {
			case len(cs) == 0:
				return no
			case cs[0].Breaking && cs[0].Why == "":
				return "breaking without a reason"
			case cs[0].Breaking:
				return breaks
			}
			return quiet
		}
		in := func(p artifact.Port) *artifact.Interface { return &artifact.Interface{Inputs: []artifact.Port{p}} }
		out := func(p artifact.Port) *artifact.Interface { return &artifact.Interface{Outputs: []artifact.Port{p}} }
		if g := got(compare.Interfaces(in(c.a), in(c.b))); g != c.input {
			t.Errorf("%s, input: %s, want %s", name, g, c.input)
		}
		if g := got(compare.Interfaces(out(c.a), out(c.b))); g != c.output {
			t.Errorf("%s, output: %s, want %s", name, g, c.output)
		}
	}
}

func TestInterfaces(t *testing.T) {
	y := f32(dim(1))
	y.Name = "y"
	opt := artifact.Port{Name: "o", Kind: "optional", Elem: &y}
	a := &artifact.Interface{Inputs: []artifact.Port{f32(dim(3))}, Outputs: []artifact.Port{y}, Limits: artifact.Limits{MaxBatch: 8}}
	b := &artifact.Interface{Inputs: []artifact.Port{f32(dim(3)), y, opt}, Outputs: []artifact.Port{f32(dim(2))}, State: []artifact.StateVar{{Input: "h", Output: "g"}}, Limits: artifact.Limits{MaxBatch: 4}}
	var got []string
	for _, c := range compare.Interfaces(a, b) {
		s := c.Kind + " " + c.What
		if c.Breaking {
			s += "!"
		}
		got = append(got, s)
	}
	if want := "added input y!, added input o, removed output y!, added output x, added state h!, changed limit maxBatch!"; strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
	if cs := compare.Interfaces(a, a); len(cs) != 0 {
		t.Errorf("%+v", cs)
	}
}

func TestFiles(t *testing.T) {
	f := func(path string, role artifact.Role, content string) compare.File {
		x := compare.File{Path: path, Role: role, Digest: artifact.DigestOf([]byte(content)), Size: int64(len(content))}
		if role == artifact.RoleModule {
			x.Target = artifact.TargetAny
		}
		return x
	}
	web := f("web.wasm", artifact.RoleModule, "for browsers")
	web.Target = artifact.TargetWeb
	a := []compare.File{f("m.wasm", artifact.RoleModule, "one"), f("w.bin", artifact.RoleWeights, "weights"), f("src", artifact.RoleSource, "source"), f("old", artifact.RoleDoc, "old")}
	b := []compare.File{f("m.wasm", artifact.RoleModule, "two!"), f("moved.bin", artifact.RoleWeights, "weights"), f("src", artifact.RoleSource, "source"),
		f("step.wasm", artifact.RoleStep, "step!"), f("again.wasm", artifact.RoleStep, "step!"), web}
	cs, n := compare.Files(a, b)
	if n != int64(len("two!")+len("step!")) {
		t.Errorf("a device downloads %d bytes", n)
	}
	var got []string
	for _, c := range cs {
		got = append(got, c.Kind+" "+c.Path)
	}
	if want := "added again.wasm, changed m.wasm, added moved.bin, removed old, same src, added step.wasm, removed w.bin, added web.wasm"; strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
	ops := compare.Counts(map[string]int{"MatMul": 1, "Relu": 2}, map[string]int{"MatMul": 1, "Relu": 1, "Tanh": 1})
	if len(ops) != 2 || ops[0] != (compare.Count{Name: "Relu", Before: 2, After: 1}) || ops[1].Name != "Tanh" {
		t.Errorf("%+v", ops)
	}
}
