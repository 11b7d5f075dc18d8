package engine

import "testing"

// BenchmarkRun is the host's own cost: a model of almost no work.
func BenchmarkRun(b *testing.B) {
	e, err := New(b.Context(), Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = e.Close(b.Context()) }()
	code := variant(con(0), cat(putOut(cat(in(), load(80)), cat(in(), load(84))), con(0)), con(0))
	m, err := e.Load(b.Context(), code, WeightsSource{}, vectorIface(code))
	if err != nil {
		b.Fatal(err)
	}
	ins := []Tensor{Of(ramp(30))}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Run(b.Context(), ins); err != nil {
			b.Fatal(err)
		}
	}
}
