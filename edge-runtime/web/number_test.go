package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// numbers runs number.mjs over texts and bits.
func numbers(t *testing.T, script string, in any, out any) {
	t.Helper()
	raw, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node(t), "--input-type=module", "-e", `
import * as n from './number.mjs';
let text = '';
for await (const c of process.stdin) text += c;
const f = new Float32Array(1), u = new Uint32Array(f.buffer), d = new Float64Array(1), l = new BigUint64Array(d.buffer);
const bits = (v) => ((f[0] = v), u[0]), of = (b) => ((u[0] = b), f[0]), of64 = (b) => ((l[0] = BigInt(b)), d[0]);
process.stdout.write(JSON.stringify(JSON.parse(text).map((x) => `+script+`)));`)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(raw), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	if err := json.Unmarshal(stdout.Bytes(), out); err != nil {
		t.Fatal(err)
	}
}

// hardTexts are decimals that a detour by doubles rounds twice: halfway between floats, and a last digit beside it; and ordinary ones.
func hardTexts() (out []string) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 4000 {
		b := r.Uint32() & 0x7fffffff
		if r.IntN(4) == 0 {
			b &= 0x00ffffff // small and subnormal
		}
		v := math.Float32frombits(b)
		if v != v || math.IsInf(float64(v), 0) || math.Float32frombits(b+1) != math.Float32frombits(b+1) {
			continue
		}
		lo, hi := new(big.Float).SetPrec(400).SetFloat64(float64(v)), new(big.Float).SetPrec(400).SetFloat64(float64(math.Float32frombits(b+1)))
		if math.IsInf(float64(math.Float32frombits(b+1)), 0) {
			hi.SetFloat64(math.Ldexp(1, 128))
		}
		mid := lo.Add(lo, hi)
		mid.Quo(mid, big.NewFloat(2))
		exact := mid.Text('e', 180)
		m, e, _ := strings.Cut(exact, "e")
		sign := ""
		if r.IntN(2) == 0 {
			sign = "-"
		}
		out = append(out, sign+exact, sign+m+"0000001e"+e, sign+strconv.FormatFloat(float64(v), 'g', 1+r.IntN(17), 64))
		// Just below: the last digit that is not 0 less by one, and nines after it.
		trimmed := strings.TrimRight(m, "0")
		if last := trimmed[len(trimmed)-1]; last > '0' && last <= '9' {
			out = append(out, sign+trimmed[:len(trimmed)-1]+string(last-1)+"9999999e"+e)
		}
	}
	return append(out, "0", "-0", "1e-400", "1e400", "-1e39", "3.4028235677973366e38", "3.4028235677973365e38", "3.40282356779733661637539395458142568447e38",
		"3.40282356779733661637539395458142568448e38", "7.006492321624085e-46", "7.0064923216240853546186479164495806564013097093825788587853e-46", "16777217", "16777217.0000000000000000000001",
		"16777217."+strings.Repeat("0", 5000)+"1", "0."+strings.Repeat("0", 5000)+"16777217e5008")
}

func TestParseF32(t *testing.T) {
	texts := hardTexts()
	var got []uint32
	numbers(t, "bits(n.parseF32(x))", texts, &got)
	twice := 0
	for i, s := range texts {
		v, _ := strconv.ParseFloat(s, 32) // out of range: infinite, as there
		if want := math.Float32bits(float32(v)); got[i] != want {
			t.Errorf("%.60s gives %08x, want %08x", s, got[i], want)
		}
		d, _ := strconv.ParseFloat(s, 64)
		if float32(d) != float32(v) {
			twice++
		}
	}
	if twice < 100 {
		t.Errorf("only %d of %d texts would be rounded twice", twice, len(texts))
	}
}

// Every float is written so that it reads back as the same, and but for a rare one as Go writes it.
func TestFormatF32(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	var in []uint32
	for range 20000 {
		if b := r.Uint32(); b>>23&0xff != 0xff {
			in = append(in, b)
		}
	}
	for _, v := range []float32{0, float32(math.Copysign(0, -1)), 1, 0.1, 1e-6, 9.999999e-7, 1e21, 1e20, 16777216, 33554432, 268435456, math.MaxFloat32, math.SmallestNonzeroFloat32} {
		in = append(in, math.Float32bits(v))
	}
	var got []string
	numbers(t, "n.formatF32(of(x))", in, &got)
	differ := 0
	for i, b := range in {
		v, err := strconv.ParseFloat(got[i], 32)
		if err != nil || math.Float32bits(float32(v)) != b {
			t.Errorf("%08x is written %s", b, got[i])
		}
		f := byte('f')
		if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
			f = 'e'
		}
		if want := strconv.FormatFloat(v, f, -1, 32); got[i] != want {
			differ++
			t.Logf("%08x is written %s, by Go %s", b, got[i], want)
			if len(got[i]) > len(want)+1 && !strings.HasPrefix(got[i], "0.0000") {
				t.Errorf("%08x is written %s, by Go %s", b, got[i], want)
			}
		}
	}
	if differ > len(in)/5000 {
		t.Errorf("%d of %d are written otherwise than by Go", differ, len(in))
	}
}

// Halves and bfloat16: all bits widen and come back, and doubles between them round to the nearest, ties to even.
func TestHalves(t *testing.T) {
	var all []int
	for h := range 1 << 16 {
		all = append(all, h)
	}
	var got [][2]int
	numbers(t, "[n.toF16(n.fromF16(x)), n.toBF16(n.fromBF16(x))]", all, &got)
	for h, g := range got {
		f16NaN, bf16NaN := h&0x7c00 == 0x7c00 && h&0x3ff != 0, h&0x7f80 == 0x7f80 && h&0x7f != 0
		if !f16NaN && g[0] != h || f16NaN && g[0] != 0x7e00 || !bf16NaN && g[1] != h || bf16NaN && g[1] != 0x7fc0 {
			t.Fatalf("%04x comes back as %04x", h, g)
		}
	}
	widen := func(h int) float64 {
		e, m := h>>10, float64(h&0x3ff)
		if e == 0 {
			return math.Ldexp(m, -24)
		}
		return math.Ldexp(m+1024, e-25)
	}
	var in []string
	var want []int
	for h := 0; h < 0x7bff; h += 3 {
		a, b := widen(h), widen(h+1)
		mid := (a + b) / 2
		even := h + h&1
		for _, c := range []struct {
			v float64
			h int
		}{{mid, even}, {math.Nextafter(mid, 0), h}, {math.Nextafter(mid, math.Inf(1)), h + 1}} {
			in, want = append(in, fmt.Sprint(math.Float64bits(c.v))), append(want, c.h)
		}
	}
	in, want = append(in, fmt.Sprint(math.Float64bits(65519.99)), fmt.Sprint(math.Float64bits(65520))), append(want, 0x7bff, 0x7c00)
	var halves []int
	numbers(t, "n.toF16(of64(x))", in, &halves)
	for i := range want {
		if halves[i] != want[i] {
			t.Fatalf("double %s gives %04x, want %04x", in[i], halves[i], want[i])
		}
	}
}
