package ir

import (
	"strings"
	"testing"
)

const sample = `graph "sample" {
  producer "hand"
  opset "" 17
  const w f32[2,3](1, -2.5, 0.1, 1e-10, 3, 4)
  const idx i64[1](0)
  const shape i64[2](-1, 3)
  param x f32[N<=8,2]
  param c bool[]
  y f32[N<=8,3] = MatMul(x, w) #0 "mm"
  z f32[?,3] = If(c) #1 "if \"quoted\""
    region (y) {
      a f32[N<=8,3] = Relu(y) #2 "relu"
      result a
    }
    region (y) {
      s i64[2] = Shape(y) {end=9223372036854775807, start=0} #3 "shape"
      g i64[1] = Gather(s, idx) {axis=0} #4 "g"
      b f32[?,3] = Reshape(y, shape) {allowzero=0} #5 "r"
      result b
    }
  "result" f32[?,3] = LSTMish(z) #6 "no"
  result "result"
}
`

func TestTextRoundTrip(t *testing.T) {
	text := strings.Replace(sample, "LSTMish(z)", "Sigmoid(z)", 1)
	g, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := Print(g); got != text {
		t.Errorf("printed\n%s\nwant\n%s", got, text)
	}
}

func TestParseRefuses(t *testing.T) {
	good := strings.Replace(sample, "LSTMish(z)", "Sigmoid(z)", 1)
	for _, c := range []struct{ old, new, want string }{
		{"LSTMish(z)", "LSTMish(z)", "not in the table"},
		{"MatMul(x, w)", "MatMul(x, nope)", "not defined"},
		{"MatMul(x, w)", "MatMul(x)", "input 1 (B) is missing"},
		{"region (y) {\n      a", "region () {\n      a", "captures"},
		{"y f32[N<=8,3] = MatMul", "y f32[N<=8,4] = MatMul", "declared"},
		{"y f32[N<=8,3] = MatMul", "x f32[N<=8,3] = MatMul", "twice"},
		{"#1 ", "#0 ", "id 0"},
		{"axis=0", "axis=float:0", "kind"},
		{"axis=0", "axis=0, what=1", "what"},
		{"f32[2,3](1, ", "f32[2,3](", "bytes"},
		{"graph \"sample\" {", "graph \"sample\" {}", "want"},
		{"Relu(y)", "Not(y)", "want bool"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		if c.old == c.new {
			text = sample
		}
		_, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s -> %s: %v, want %q", c.old, c.new, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(strings.Replace(sample, "LSTMish(z)", "Sigmoid(z)", 1))
	f.Add(`graph "" { param x seq(map(i64,f32[])) result x }`)
	f.Add(`graph "g" { const a string[2]("x", "\x00") const "b c" f64[1](hex:000000000000f87f) result a, "b c" state q from r }`)
	f.Fuzz(func(t *testing.T, text string) {
		g, err := Parse(text)
		if err != nil {
			return
		}
		once := Print(g)
		g2, err := Parse(once)
		if err != nil {
			t.Fatalf("%v\n%s", err, once)
		}
		if twice := Print(g2); twice != once {
			t.Fatalf("not stable:\n%s\n%s", once, twice)
		}
	})
}

func TestOpsAreDocumented(t *testing.T) {
	for _, name := range OpNames() {
		d, _ := Op(name)
		if d.Doc == "" || d.infer == nil || len(d.Outs) == 0 {
			t.Errorf("%s has no doc, inference or outputs", name)
		}
	}
}
