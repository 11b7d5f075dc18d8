package engine

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// maxStateElements bounds what a few bytes of an interface document can ask for.
const maxStateElements = 1 << 28

// InitialState gives the values of a stream's state before its first call, in the order of f.State. The runtime keeps no state: whoever
// drives a stream passes these, and then what the outputs of the same entries gave.
func InitialState(f *artifact.Interface) ([]Tensor, error) {
	out := make([]Tensor, len(f.State))
	for i, s := range f.State {
		var p *artifact.Port
		for j := range f.Inputs {
			if f.Inputs[j].Name == s.Input {
				p = &f.Inputs[j]
			}
		}
		if p == nil {
			return nil, diag.Errorf("state of input %q: the interface document has no such input", s.Input)
		}
		d, ok := abi.ParseDType(p.DType)
		if !ok || d == abi.String || p.Kind != "tensor" {
			return nil, diag.Errorf("state of input %q: a %s of %s can't be carried", s.Input, p.Kind, p.DType)
		}
		t := Tensor{DType: d, Shape: append([]int64{}, s.Shape...), Data: s.Init}
		if len(t.Data) == 0 {
			n, err := Count(t.Shape)
			if err != nil || n > maxStateElements {
				return nil, diag.Errorf("state of input %q: its shape %s is none, or too large", s.Input, ShapeString(t.Shape))
			}
			t.Data = make([]byte, (n*int64(d.Bits())+7)/8)
		}
		if err := t.Check(); err != nil {
			return nil, diag.Errorf("state of input %q: %w", s.Input, err)
		}
		out[i] = t
	}
	return out, nil
}
