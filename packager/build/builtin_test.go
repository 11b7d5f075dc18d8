package build

import (
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/project"
	"github.com/waybill-ml/waybill/packager/steps"
)

func tensor(name, dtype string, dims ...int64) artifact.Port {
	p := artifact.Port{Name: name, Kind: "tensor", DType: dtype, Ranked: dims != nil}
	for _, d := range dims {
		p.Shape = append(p.Shape, artifact.Dim{Size: d})
	}
	return p
}

func TestCheckBuiltin(t *testing.T) {
	topk := project.Step{TopK: &project.TopK{K: 2}}
	labelled := project.Step{TopK: &project.TopK{K: 2, Labels: []string{"a", "b", "c"}}}
	image := project.Step{Image: &steps.ImageConfig{Width: 4, Height: 6}}
	audio := project.Step{Audio: &steps.AudioConfig{}}
	text := project.Step{Tokenizer: "t.json"}
	values := tensor("", "f32")
	zip := artifact.Port{Name: "z", Kind: "sequence", Elem: &artifact.Port{Kind: "map", Key: "string", DType: "f32", Elem: &values}}
	ports := func(p ...artifact.Port) []artifact.Port { return p }
	for name, c := range map[string]struct {
		step project.Step
		ins  []artifact.Port
		outs []artifact.Port
		bad  string // part of the error; none: it fits
	}{
		"topk":                   {topk, ports(tensor("p", "f32", -1, 3)), ports(tensor("c", "i64", -1, 2), tensor("s", "f32", -1, 2)), ""},
		"topk of any rank":       {topk, ports(tensor("p", "f64")), ports(tensor("c", "i64"), tensor("s", "f64")), ""},
		"topk of maps":           {topk, ports(zip), ports(tensor("c", "string"), tensor("s", "f32")), ""},
		"labels":                 {labelled, ports(tensor("p", "bf16", 3)), ports(tensor("c", "string", 2), tensor("s", "f32", 2)), ""},
		"k above the classes":    {topk, ports(tensor("p", "f32", -1, 1)), ports(tensor("c", "i64"), tensor("s", "f32")), "k is 2"},
		"other labels":           {labelled, ports(tensor("p", "f32", -1, 4)), ports(tensor("c", "string"), tensor("s", "f32")), "3 labels"},
		"rank 3":                 {topk, ports(tensor("p", "f32", -1, 3, 3)), ports(tensor("c", "i64"), tensor("s", "f32")), "[N, C] or [C]"},
		"integers":               {topk, ports(tensor("p", "i64", -1, 3)), ports(tensor("c", "i64"), tensor("s", "f32")), "topk takes"},
		"strings without labels": {topk, ports(tensor("p", "f32", -1, 3)), ports(tensor("c", "string"), tensor("s", "f32")), "they are i64 and f32"},
		"another k declared":     {topk, ports(tensor("p", "f32", -1, 3)), ports(tensor("c", "i64", -1, 3), tensor("s", "f32")), "k is 2"},
		"one output":             {topk, ports(tensor("p", "f32", -1, 3)), ports(tensor("c", "i64")), "1 and 2"},
		"a sequence of tensors":  {topk, ports(artifact.Port{Name: "q", Kind: "sequence", Elem: &values}), ports(tensor("c", "i64"), tensor("s", "f32")), "maps from classes"},
		"image":                  {image, ports(tensor("f", "u8", -1)), ports(tensor("x", "f32", 1, 3, 6, 4)), ""},
		"image declared turned":  {image, ports(tensor("f", "u8", -1)), ports(tensor("x", "f32", 1, 3, 4, 6)), "[1 3 6 4]"},
		"image from floats":      {image, ports(tensor("f", "f32", -1)), ports(tensor("x", "f32", 1, 3, 6, 4)), "takes"},
		"image to bytes":         {image, ports(tensor("f", "u8", -1)), ports(tensor("x", "u8", 1, 3, 6, 4)), "gives f32"},
		"audio":                  {audio, ports(tensor("f", "i16", -1)), ports(tensor("x", "f32")), ""},
		"audio of texts":         {audio, ports(tensor("f", "string", -1)), ports(tensor("x", "f32")), "takes"},
		"audio of two":           {audio, ports(tensor("f", "u8"), tensor("g", "u8")), ports(tensor("x", "f32")), "2 inputs"},
		"text":                   {text, ports(tensor("t", "string", -1)), ports(tensor("i", "i32", -1, -1), tensor("m", "i64"), tensor("k", "i64", -1, 8)), ""},
		"text of a matrix":       {text, ports(tensor("t", "string", -1, 1)), ports(tensor("i", "i64", -1, -1)), "text takes"},
		"text of numbers":        {text, ports(tensor("t", "i64", -1)), ports(tensor("i", "i64", -1, -1)), "text takes"},
		"text to floats":         {text, ports(tensor("t", "string", -1)), ports(tensor("i", "i64"), tensor("m", "f32")), "text gives"},
		"text to rank 1":         {text, ports(tensor("t", "string", -1)), ports(tensor("i", "i32", -1)), "text gives"},
		"text to four":           {text, ports(tensor("t", "string", -1)), ports(tensor("i", "i64"), tensor("j", "i64"), tensor("k", "i64"), tensor("l", "i64")), "4 outputs"},
	} {
		err := checkBuiltin(c.step, &artifact.Step{Inputs: c.ins, Outputs: c.outs})
		if c.bad == "" && err != nil || c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)) {
			t.Errorf("%s: %v, want %q", name, err, c.bad)
		}
	}
}
