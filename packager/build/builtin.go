package build

import (
	"fmt"
	"slices"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/project"
	"github.com/waybill-ml/waybill/packager/steps"
)

// checkBuiltin compares the ports of a built-in step, wired already, with what its module takes and gives: what could only fail
// on each call is said when the project is packed.
func checkBuiltin(s project.Step, st *artifact.Step) error {
	switch {
	case s.TopK != nil:
		return checkTopK(s.TopK, st)
	case s.Image != nil:
		c := s.Image
		shape := []int64{1, 3, c.Height, c.Width}
		if c.ChannelsLast {
			shape = []int64{1, c.Height, c.Width, 3}
		}
		return checkPorts(st, []string{"u8"}, []string{"f32"}, shape)
	case s.Audio != nil:
		return checkPorts(st, []string{"u8", "f32", "i16"}, []string{"f32"}, nil)
	case s.Tokenizer != "":
		return checkText(st)
	}
	return nil
}

func checkText(st *artifact.Step) error {
	if n := len(st.Outputs); len(st.Inputs) != 1 || n < 1 || n > steps.TextOutputs {
		return fmt.Errorf("it has %d inputs and %d outputs, text has 1, and ids, mask and types, of which the last ones may be left out", len(st.Inputs), n)
	}
	if in := st.Inputs[0]; in.Kind != "tensor" || in.DType != "string" || in.Ranked && len(in.Shape) != 1 {
		return fmt.Errorf("its input %q is %s, text takes string [N]", in.Name, PortText(in))
	}
	for _, o := range st.Outputs {
		if o.DType != "i64" && o.DType != "i32" || o.Ranked && len(o.Shape) != 2 {
			return fmt.Errorf("its output %q is %s, text gives i64 or i32 [N, L]", o.Name, PortText(o))
		}
	}
	return nil
}

// checkPorts demands one input of a type in ins, and outputs of the types outs; the first one's sizes are those of shape when it is given.
func checkPorts(st *artifact.Step, ins, outs []string, shape []int64) error {
	if len(st.Inputs) != 1 || len(st.Outputs) != len(outs) {
		return fmt.Errorf("it has %d inputs and %d outputs, this built-in has 1 and %d", len(st.Inputs), len(st.Outputs), len(outs))
	}
	in := st.Inputs[0]
	if in.Kind != "tensor" || !slices.Contains(ins, in.DType) {
		return fmt.Errorf("its input %q is %s, this built-in takes %q", in.Name, PortText(in), ins)
	}
	for i, t := range outs {
		if o := st.Outputs[i]; o.DType != t {
			return fmt.Errorf("its output %q is declared as %s, this built-in gives %s", o.Name, PortText(o), t)
		}
	}
	o := st.Outputs[0]
	if shape == nil || !o.Ranked {
		return nil
	}
	ok := len(o.Shape) == len(shape)
	for i := 0; ok && i < len(shape); i++ {
		ok = o.Shape[i].Size < 0 || o.Shape[i].Size == shape[i]
	}
	if !ok {
		return fmt.Errorf("its output %q is declared as %s, with this configuration it has the shape %v", o.Name, PortText(o), shape)
	}
	return nil
}

func checkTopK(t *project.TopK, st *artifact.Step) error {
	if len(st.Inputs) != 1 || len(st.Outputs) != 2 {
		return fmt.Errorf("it has %d inputs and %d outputs, topk has 1 and 2: classes and scores", len(st.Inputs), len(st.Outputs))
	}
	in, classes, scores := st.Inputs[0], st.Outputs[0], st.Outputs[1]
	labelled := len(t.Labels) > 0 || t.LabelsFile != ""
	want, of := "i64", in.DType
	switch in.Kind {
	case "tensor":
		if in.Ranked {
			n := len(in.Shape)
			if n != 1 && n != 2 {
				return fmt.Errorf("its input %q is %s, topk takes [N, C] or [C]", in.Name, PortText(in))
			}
			if c := in.Shape[n-1].Size; c >= 0 && (c < t.K || len(t.Labels) > 0 && c != int64(len(t.Labels))) {
				return fmt.Errorf("its input %q is %s: k is %d, and there are %d labels", in.Name, PortText(in), t.K, len(t.Labels))
			}
		}
	case "sequence":
		if in.Elem == nil || in.Elem.Kind != "map" {
			return fmt.Errorf("its input %q is %s, topk takes scores, or maps from classes to scores", in.Name, PortText(in))
		}
		want, of = in.Elem.Key, in.Elem.DType
	default:
		return fmt.Errorf("its input %q is %s, topk takes scores, or maps from classes to scores", in.Name, PortText(in))
	}
	if labelled {
		want = "string"
	}
	give := "f32"
	switch of {
	case "f64":
		give = "f64"
	case "f32", "f16", "bf16":
	default:
		return fmt.Errorf("its input %q is %s, topk takes f32, f64, f16 or bf16 scores", in.Name, PortText(in))
	}
	if classes.DType != want || scores.DType != give {
		return fmt.Errorf("its outputs are declared as %s and %s, for this input they are %s and %s", PortText(classes), PortText(scores), want, give)
	}
	for _, o := range st.Outputs {
		if n := len(o.Shape); o.Ranked && n > 0 && o.Shape[n-1].Size >= 0 && o.Shape[n-1].Size != t.K {
			return fmt.Errorf("its output %q is declared as %s, and k is %d", o.Name, PortText(o), t.K)
		}
	}
	return nil
}
