package explain

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/pass"
	"github.com/waybill-ml/waybill/packager/plan"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares with a committed file, or writes it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n")); !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s", path, got)
	}
}

const small = `graph "a <b> & c" {
  const w f32[3,4](1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
  const one f32[](1)
  param x f32[N,3]
  s i64[2] = Shape(x) {end=9223372036854775807, start=0} #0 "s"
  p f32[N,4] = MatMul(x, w) {} #1 "p"
  q f32[N,4] = Identity(p) #2 "q"
  dead f32[N,3] = Neg(x) #3 "dead"
  r f32[N,4] = Add(q, one) #4 "<r>"
  y f32[N,4] = Relu(r) #5 "y"
  result y, s
}
`

// somePlan is a plan with all that one can have: spans with a hole, a value laid over another one, a name that is not XML, a value
// that no step needs.
func somePlan() *plan.Map {
	return &plan.Map{Size: 176, Bound: 160, Peak: 1, Values: []plan.Value{
		{Name: "b", Offset: 64, Bytes: 48, Turns: 2, Live: []plan.Span{{First: 1, Last: 2}}},
		{Name: "a <&>\x01", Bytes: 64, Turns: 1, Live: []plan.Span{{First: 0, Last: 1}, {First: 3, Last: 3}}},
		{Name: "c", Offset: 64, Bytes: 96, Turns: 1, Live: []plan.Span{{First: 2, Last: 3}}, Over: "b"},
		{Name: "dead", Offset: 160, Bytes: 16, Turns: 1, Live: []plan.Span{}},
	}, Loose: []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"}, Steps: []string{"p", "<r>", "r", "outputs"}}
}

func report(t *testing.T, text string) (*Report, *ir.Graph) {
	t.Helper()
	g, err := ir.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := ir.Verify(g); err != nil {
		t.Fatal(err)
	}
	var rec Recorder
	rec.Watch(0, "", true, g)
	if err := pass.RunWatched(context.Background(), g, rec.Watch); err != nil {
		t.Fatal(err)
	}
	return rec.Report(g, 65536, somePlan()), g
}

func TestReport(t *testing.T) {
	rep, g := report(t, small)
	var text, svg bytes.Buffer
	if err := rep.Text(&text); err != nil {
		t.Fatal(err)
	}
	golden(t, "small.txt", text.Bytes())
	doc, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "small.json", append(doc, '\n'))
	if err := SVG(&svg, g, rep.Plan); err != nil {
		t.Fatal(err)
	}
	golden(t, "small.svg", svg.Bytes())

	// By hand: MatMul 2*3*4 per row, Add and Relu 4 each. At the Add, x (12 bytes a row), p and r (16 each) are held, and the
	// two i64 of s.
	if got := rep.FLOPs.String(); got != "32*N" {
		t.Errorf("FLOPs %s", got)
	}
	if got := rep.Memory.Peak.String(); got != "44*N + 16" {
		t.Errorf("peak %s", got)
	}
	if got := rep.Memory.Constants.String(); got != "52" {
		t.Errorf("constants %s", got)
	}
	fired := map[string]bool{}
	for _, p := range rep.Passes {
		if p.Changed != (p.Graph != "") {
			t.Errorf("round %d, %s: changed %v, graph of %d bytes", p.Round, p.Name, p.Changed, len(p.Graph))
		}
		fired[p.Name] = fired[p.Name] || p.Changed
	}
	if !fired["identity"] || !fired["dce"] || fired["branch"] {
		t.Errorf("fired: %v", fired)
	}
}

func TestSVGIsXML(t *testing.T) {
	b := ir.NewBuilder()
	x := b.Param("x\x01</text><script>", ir.TensorOf(ir.F32, ir.StaticShape(2)))
	g, err := b.Graph(`"'<&>`, b.Op("y]]>", "Neg", nil, x))
	if err != nil {
		t.Fatal(err)
	}
	var svg bytes.Buffer
	if err := SVG(&svg, g, somePlan()); err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(&svg)
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := tok.(xml.StartElement); ok && s.Name.Local == "script" {
			t.Error("a name of the model became an element")
		}
	}
}

func TestCount(t *testing.T) {
	n, m := dim(ir.Symbol("N")), dim(ir.Symbol("M"))
	for want, c := range map[string]Count{
		"0":               Exactly(0).Times(n),
		"?":               Exactly(1 << 62).Times(Exactly(2)),
		"N*N + M*N + 3*N": n.Times(n.Plus(m).Plus(Exactly(3))),
		"M + 2":           m.Plus(Exactly(2)),
		"12":              Exactly(3).Times(Exactly(4)),
	} {
		if want == "N*N + M*N + 3*N" {
			want = "M*N + N*N + 3*N"
		}
		if got := c.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if dim(ir.Unknown()).Plus(n).Known() || Exactly(-1).Known() {
		t.Error("an unknown count is known")
	}
	if n.covers(Exactly(1)) || !n.Plus(Exactly(1)).covers(n) {
		t.Error("N may be 0")
	}
}

func TestFLOPs(t *testing.T) {
	b := ir.NewBuilder()
	f32 := func(d ...int64) ir.Type { return ir.TensorOf(ir.F32, ir.StaticShape(d...)) }
	x, w := b.Param("x", f32(1, 4, 8, 8)), b.Param("w", f32(6, 2, 3, 3))
	conv := b.Op("conv", "Conv", ir.Attrs{"kernel_shape": []int64{3, 3}, "strides": []int64{1, 1}, "pads": []int64{1, 1, 1, 1},
		"dilations": []int64{1, 1}, "group": 2}, x, w)
	pool := b.Op("pool", "MaxPool", ir.Attrs{"kernel_shape": []int64{2, 2}, "strides": []int64{2, 2}, "pads": []int64{0, 0, 0, 0},
		"dilations": []int64{1, 1}}, conv)
	nz := b.Op("nz", "NonZero", nil, pool)
	g, err := b.Graph("g", pool, nz)
	if err != nil {
		t.Fatal(err)
	}
	var rec Recorder
	rep := rec.Report(g, 0, nil)
	// 6*8*8 outputs of 2*3*3 multiply-adds each; 6*4*4 windows of 4; NonZero depends on the data.
	for i, want := range []string{"13824", "384", "?"} {
		if got := rep.Nodes[i].FLOPs.String(); got != want {
			t.Errorf("%s: %s FLOPs, want %s", rep.Nodes[i].Op, got, want)
		}
	}
	if rep.FLOPs.String() != "14208" || rep.Uncounted != 1 || rep.Memory.Peak.Known() {
		t.Errorf("in all %s, uncounted %d, peak %s", rep.FLOPs, rep.Uncounted, rep.Memory.Peak)
	}
}

func TestOutline(t *testing.T) {
	b := ir.NewBuilder()
	x := b.Param("x", ir.TensorOf(ir.F32, ir.StaticShape(17)))
	g, err := b.Graph("g", b.Op("y", "Add", nil, x, b.Const("c", ir.F32s([]int64{17}, make([]float32, 17)))))
	if err != nil {
		t.Fatal(err)
	}
	if s := ir.Outline(g); !strings.Contains(s, "const c f32[17](...)") || strings.Contains(s, "hex") {
		t.Error(s)
	}
}
