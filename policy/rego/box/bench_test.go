package box_test

import (
	"context"
	"testing"

	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
	"github.com/waybill-ml/waybill/policy/rego/box"
)

// What the gate pays: the whole default policy, started, compiled and evaluated in a process of its own, or compiled and
// evaluated here.
func BenchmarkGate(b *testing.B) {
	pol, err := library.Default()
	if err != nil {
		b.Fatal(err)
	}
	doc := base(b, pol)
	b.Run("box", func(b *testing.B) {
		x := box.New(self(b), pol, box.Limits{})
		for b.Loop() {
			if d := x.Evaluate(context.Background(), doc); !d.Allow {
				b.Fatalf("%+v", d)
			}
		}
	})
	b.Run("in-process", func(b *testing.B) {
		for b.Loop() {
			p, err := rego.Compile(context.Background(), pol)
			if err != nil {
				b.Fatal(err)
			}
			if d := p.Evaluate(context.Background(), doc); !d.Allow {
				b.Fatalf("%+v", d)
			}
		}
	})
	b.Run("in-process-compiled", func(b *testing.B) {
		p, err := rego.Compile(context.Background(), pol)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if d := p.Evaluate(context.Background(), doc); !d.Allow {
				b.Fatalf("%+v", d)
			}
		}
	})
}
