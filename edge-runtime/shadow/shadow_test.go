package shadow

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func port(name, dtype string) artifact.Port {
	return artifact.Port{Name: name, Kind: "tensor", DType: dtype}
}

func iface(ins, outs []artifact.Port) *artifact.Interface {
	return &artifact.Interface{Inputs: ins, Outputs: outs}
}

var oneIn = []artifact.Port{port("x", "f32")}

// fake answers with run.
type fake struct {
	iface *artifact.Interface
	run   func(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, error)
	took  time.Duration
}

func (f *fake) Interface() *artifact.Interface { return f.iface }

func (f *fake) RunTimed(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, time.Duration, error) {
	outs, err := f.run(ctx, ins)
	return outs, f.took, err
}

func echo(_ context.Context, ins []engine.Tensor) ([]engine.Tensor, error) { return ins, nil }

func wait(t *testing.T, r *Run, ok func(Result) bool) Result {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if res := r.Result(); ok(res) {
			return res
		}
	}
	t.Fatalf("it never came to be: %+v", r.Result())
	return Result{}
}

func start(t *testing.T, f *fake, cfg Config) *Run {
	t.Helper()
	if f.iface == nil {
		f.iface = iface(oneIn, []artifact.Port{port("y", "f32")})
	}
	r, err := Start(f, f.iface, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return r
}

func TestComparesInTheBackground(t *testing.T) {
	n := 0
	f := &fake{took: 3 * time.Millisecond, run: func(_ context.Context, ins []engine.Tensor) ([]engine.Tensor, error) {
		switch n++; n {
		case 5:
			return nil, errors.New("trap")
		case 6:
			return []engine.Tensor{engine.Of([]float32{2})}, nil
		}
		return ins, nil
	}}
	r := start(t, f, Config{Sample: 1})
	for i := range 20 {
		x := []engine.Tensor{engine.Of([]float32{1.5})}
		r.Offer(t.Context(), x, x, time.Millisecond) // this context never ends: nothing is looked at
		ctx, cancel := context.WithCancel(t.Context())
		r.Offer(ctx, x, x, time.Millisecond)
		cancel()
		want := int64(i + 1)
		wait(t, r, func(res Result) bool { return res.Compared == want })
	}
	res := r.Result()
	if res.Seen != 40 || res.Compared != 20 || res.Different != 2 || res.Failed != 1 || res.Dropped != 0 || res.Largest != 0.5 || res.First != "it gave an error: trap" ||
		res.P50 != 3*time.Millisecond || res.P99 != 3*time.Millisecond || res.LiveP99 != time.Millisecond {
		t.Errorf("%+v", res)
	}
}

// One call at a time, a bounded queue that counts what it drops, and an Offer that never waits.
func TestBounds(t *testing.T) {
	var mu sync.Mutex
	running, most := 0, 0
	gate := make(chan struct{})
	f := &fake{run: func(_ context.Context, ins []engine.Tensor) ([]engine.Tensor, error) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		<-gate
		mu.Lock()
		running--
		mu.Unlock()
		return ins, nil
	}}
	r := start(t, f, Config{Sample: 1, QueueLen: 4, QueueBytes: 1 << 20})
	x := []engine.Tensor{engine.Of([]float32{1})}
	big := []engine.Tensor{engine.Of(make([]float32, 1<<20))}
	r.Offer(context.Background(), big, x, 0) // larger than the queue, and alone in it
	for range 9 {
		r.Offer(context.Background(), x, x, 0)
	}
	if res := r.Result(); res.Seen != 10 || res.Dropped != 9 {
		t.Errorf("behind a large request: %+v", res)
	}
	close(gate)
	wait(t, r, func(res Result) bool { return res.Compared == 1 })
	for range 100 {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { r.Offer(context.Background(), x, x, 0) })
		}
		wg.Wait()
	}
	res := wait(t, r, func(res Result) bool { return res.Compared+res.Dropped == res.Seen })
	if res.Seen != 1010 || most != 1 {
		t.Errorf("%+v, %d at once", res, most)
	}
	r.Stop()
	r.Offer(context.Background(), x, x, 0)
	if res := r.Result(); res.Seen != 1010 {
		t.Errorf("after Stop: %+v", res)
	}
}

// Stop interrupts a candidate that never ends, and that is no verdict on it; one that takes too long is.
func TestEndless(t *testing.T) {
	began := make(chan struct{}, 2)
	hang := func(ctx context.Context, _ []engine.Tensor) ([]engine.Tensor, error) {
		began <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	x := []engine.Tensor{engine.Of([]float32{1})}
	r := start(t, &fake{run: hang}, Config{Sample: 1, Timeout: time.Hour})
	r.Offer(context.Background(), x, x, 0)
	<-began
	r.Stop()
	if res := r.Result(); res.Compared != 0 || res.Failed != 0 {
		t.Errorf("stopped: %+v", res)
	}
	r = start(t, &fake{run: hang}, Config{Sample: 1, Timeout: time.Millisecond})
	r.Offer(context.Background(), x, x, 0)
	wait(t, r, func(res Result) bool { return res.Failed == 1 && res.Different == 1 })
}

func TestSample(t *testing.T) {
	r := start(t, &fake{run: echo}, Config{Sample: 0.25, QueueLen: 1000})
	x := []engine.Tensor{engine.Of([]float32{1})}
	for range 400 {
		r.Offer(context.Background(), x, x, 0)
	}
	wait(t, r, func(res Result) bool { return res.Compared+res.Dropped == 100 && res.Seen == 400 })
}

func TestPairsThatCannotBeCompared(t *testing.T) {
	live := iface(oneIn, []artifact.Port{port("y", "f32")})
	for want, i := range map[string]*artifact.Interface{
		`an input "z"`:              iface([]artifact.Port{port("z", "f32")}, live.Outputs),
		`its input "x" is a tensor`: iface([]artifact.Port{port("x", "f64")}, live.Outputs),
		`no output "y"`:             iface(oneIn, []artifact.Port{port("other", "f32")}),
	} {
		if _, err := Start(&fake{iface: i, run: echo}, live, Config{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	// Inputs in another order, and one that the candidate no longer wants, are fine.
	two := iface([]artifact.Port{port("a", "f32"), port("x", "f32")}, live.Outputs)
	r, err := Start(&fake{iface: live, run: echo}, two, Config{Sample: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	x := engine.Of([]float32{7})
	r.Offer(context.Background(), []engine.Tensor{engine.Of([]float32{1}), x}, []engine.Tensor{x}, 0)
	if res := wait(t, r, func(res Result) bool { return res.Compared == 1 }); res.Different != 0 {
		t.Errorf("%+v", res)
	}
}

func TestCompare(t *testing.T) {
	f32 := func(v ...float32) engine.Tensor { return engine.Of(v) }
	nan, other := math.Float32frombits(0x7fc00000), math.Float32frombits(0x7fc00001)
	raw := func(d abi.DType, b ...byte) engine.Tensor {
		return engine.Tensor{DType: d, Shape: []int64{int64(len(b) * 8 / d.Bits())}, Data: b}
	}
	for name, c := range map[string]struct {
		live, got  engine.Tensor
		rtol, atol float64
		want       string
	}{
		"equal":                   {f32(1, 2), f32(1, 2), 0, 0, ""},
		"a bit":                   {f32(1, 2), f32(1, 2.0000002), 0, 0, "output y, element 1: 2.000000238418579 against 2"},
		"within rtol":             {f32(100), f32(101), 0.01, 0, ""},
		"past rtol":               {f32(100), f32(101.01), 0.01, 0, "element 0"},
		"within atol":             {f32(0), f32(1e-6), 0, 1e-5, ""},
		"zero and its negative":   {f32(0), f32(float32(math.Copysign(0, -1))), 0, 0, "element 0"},
		"the same, with atol":     {f32(0), f32(float32(math.Copysign(0, -1))), 0, 1e-9, ""},
		"NaN for a number":        {f32(1), f32(nan), 1, 1, "NaN against 1"},
		"a number for NaN":        {f32(nan), f32(1), 1, 1, "1 against NaN"},
		"two NaNs, bit for bit":   {f32(nan), f32(other), 0, 0, "NaN against NaN"},
		"two NaNs, tolerated":     {f32(nan), f32(other), 0, 1e-9, ""},
		"infinite":                {f32(1), f32(float32(math.Inf(1))), 1, 1, "+Inf against 1"},
		"classes are never near":  {engine.Of([]int64{3}), engine.Of([]int64{4}), 1, 10, "4 against 3"},
		"flags are never near":    {engine.Of([]bool{true}), engine.Of([]bool{false}), 1, 10, "0 against 1"},
		"labels":                  {engine.OfStrings([]string{"a", "b"}), engine.OfStrings([]string{"a", "c"}), 0, 0, "element 1: another text"},
		"shape":                   {f32(1, 2), engine.Of([]float32{1, 2}, 1, 2), 0, 0, "shape [1 2] against [2]"},
		"element type":            {f32(1), engine.Of([]float64{1}), 1, 1, "f64 against a tensor of f32"},
		"halves":                  {raw(abi.F16, 0x00, 0x3c), raw(abi.F16, 0x01, 0x3c), 0.01, 0, ""},
		"halves, bit for bit":     {raw(abi.F16, 0x00, 0x3c), raw(abi.F16, 0x01, 0x3c), 0, 0, "1.0009765625 against 1"},
		"bfloat16":                {raw(abi.BF16, 0x80, 0x3f), raw(abi.BF16, 0x81, 0x3f), 0.01, 0, ""},
		"small types are bytes":   {raw(abi.U4, 0x21), raw(abi.U4, 0x31), 1, 1, "other bytes"},
		"sequence, other length":  {engine.Tensor{Kind: abi.Sequence, Elems: []engine.Tensor{f32(1)}}, engine.Tensor{Kind: abi.Sequence}, 0, 0, "0 elements against 1"},
		"sequence, other element": {engine.Tensor{Kind: abi.Sequence, Elems: []engine.Tensor{f32(1)}}, engine.Tensor{Kind: abi.Sequence, Elems: []engine.Tensor{f32(2)}}, 0, 0, "output y[0], element 0"},
	} {
		cmp, err := newComparer([]artifact.Port{port("y", "")}, []artifact.Port{port("more", ""), port("y", "")}, c.rtol, c.atol)
		if err != nil {
			t.Fatal(err)
		}
		d := cmp.compare([]engine.Tensor{c.live}, []engine.Tensor{{}, c.got})
		if (c.want == "") != (d.what == "") || !strings.Contains(d.what, c.want) {
			t.Errorf("%s: %q, want %q", name, d.what, c.want)
		}
		if math.IsNaN(d.largest) || math.IsInf(d.largest, 0) {
			t.Errorf("%s: largest is %v, which no JSON can hold", name, d.largest)
		}
	}
}

func BenchmarkOffer(b *testing.B) {
	f := &fake{iface: iface(oneIn, oneIn), run: echo}
	r, err := Start(f, f.iface, Config{Sample: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Stop()
	x := []engine.Tensor{engine.Of(make([]float32, 100))}
	for b.Loop() {
		r.Offer(context.Background(), x, x, time.Millisecond)
	}
}
