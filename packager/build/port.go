package build

import (
	"fmt"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/ir"
)

func port(name string, t ir.Type) artifact.Port {
	p := artifact.Port{Name: name, Shape: []artifact.Dim{}}
	switch t.Kind {
	case ir.Tensor:
		p.Kind, p.DType, p.Ranked = "tensor", t.DType.String(), t.Shape.Ranked
		for _, d := range t.Shape.Dims {
			switch {
			case d.Any:
				p.Shape = append(p.Shape, artifact.Dim{Size: -1, Max: d.Max})
			case d.Sym != "":
				p.Shape = append(p.Shape, artifact.Dim{Size: -1, Sym: d.Sym, Max: d.Max})
			default:
				p.Shape = append(p.Shape, artifact.Dim{Size: d.N})
			}
		}
	case ir.Sequence, ir.Optional:
		p.Kind = "sequence"
		if t.Kind == ir.Optional {
			p.Kind = "optional"
		}
		e := port("", *t.Elem)
		p.Elem, p.DType = &e, e.DType
	case ir.Map:
		p.Kind, p.Key = "map", t.Key.String()
		e := port("", *t.Elem)
		p.Elem, p.DType = &e, e.DType
	}
	return p
}

// PortText formats a port for people: "X f32[N,30]".
func PortText(p artifact.Port) string {
	if p.Kind != "tensor" && p.Kind != "" {
		if p.Elem != nil {
			return fmt.Sprintf("%s %s of %s", p.Name, p.Kind, PortText(*p.Elem))
		}
		return p.Name + " " + p.Kind
	}
	if !p.Ranked {
		return fmt.Sprintf("%s %s of any rank", p.Name, p.DType)
	}
	s := p.Name + " " + p.DType + "["
	for i, d := range p.Shape {
		if i > 0 {
			s += ","
		}
		switch {
		case d.Size >= 0:
			s += fmt.Sprint(d.Size)
		case d.Sym != "":
			s += d.Sym
		default:
			s += "?"
		}
		if d.Size < 0 && d.Max > 0 {
			s += fmt.Sprintf("<=%d", d.Max)
		}
	}
	return s + "]"
}

// SetColumns gives the names of its columns to the only two-dimensional input that can have them.
func SetColumns(f *artifact.Interface, names []string) error {
	if len(names) == 0 {
		return nil
	}
	var fits []int
	for i, p := range f.Inputs {
		if p.Kind == "tensor" && len(p.Shape) == 2 && (p.Shape[1].Size == int64(len(names)) || p.Shape[1].Size < 0) {
			fits = append(fits, i)
		}
	}
	if len(fits) != 1 {
		return fmt.Errorf("%d features are listed, and %d inputs of the model are two-dimensional with as many columns, want 1", len(names), len(fits))
	}
	f.Inputs[fits[0]].Columns = names
	if len(f.Steps) == 1 {
		f.Steps[0].Inputs = f.Inputs
	}
	return nil
}
