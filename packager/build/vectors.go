package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/internal/oip"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// VectorsSchema is the value of the field schema of a project's golden file.
const VectorsSchema = "https://github.com/waybill-ml/waybill/schema/vectors/v1"

// Vectors is the golden file of a project: calls in the Open Inference Protocol's spelling, with the outputs of the
// framework that trained the model where they are known. docs/format.md describes it.
type Vectors struct {
	Tolerance []artifact.Tolerance
	Vectors   []Vector
}

// Vector is one call.
type Vector struct {
	Name      string
	Inputs    []artifact.GoldenTensor
	Reference []artifact.GoldenTensor // empty: unknown
}

type vectorsFile struct {
	Schema    string               `json:"schema"`
	Tolerance []artifact.Tolerance `json:"tolerance,omitempty"`
	Vectors   []vectorFile         `json:"vectors"`
}

type vectorFile struct {
	Name      string       `json:"name"`
	Inputs    []oip.Tensor `json:"inputs"`
	Reference []oip.Tensor `json:"reference,omitempty"`
}

// ParseVectors reads a golden file strictly.
func ParseVectors(b []byte) (*Vectors, error) {
	if len(b) > artifact.MaxGolden {
		return nil, fmt.Errorf("golden file of %d bytes is larger than %d", len(b), artifact.MaxGolden)
	}
	var head struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("golden file: %w", err)
	}
	if head.Schema != VectorsSchema {
		return nil, fmt.Errorf("golden file: schema is %q, want %q", head.Schema, VectorsSchema)
	}
	var f vectorsFile
	if err := strictjson.Decode(b, &f); err != nil {
		return nil, fmt.Errorf("golden file: %w", err)
	}
	if len(f.Vectors) == 0 {
		return nil, errors.New("golden file: no vectors")
	}
	out := &Vectors{Tolerance: f.Tolerance}
	seen := map[string]bool{}
	for _, t := range f.Tolerance {
		if t.ATol < 0 || t.RTol < 0 {
			return nil, fmt.Errorf("golden file: tolerance of %q is negative", t.Output)
		}
	}
	for i, v := range f.Vectors {
		if v.Name == "" {
			v.Name = fmt.Sprintf("vector %d", i+1)
		}
		if seen[v.Name] {
			return nil, fmt.Errorf("golden file: two vectors are named %q", v.Name)
		}
		seen[v.Name] = true
		w := Vector{Name: v.Name}
		for _, part := range []struct {
			from []oip.Tensor
			to   *[]artifact.GoldenTensor
		}{{v.Inputs, &w.Inputs}, {v.Reference, &w.Reference}} {
			names := map[string]bool{}
			for _, t := range part.from {
				if names[t.Name] {
					return nil, fmt.Errorf("golden file: vector %q has %q twice", v.Name, t.Name)
				}
				names[t.Name] = true
				g, err := oip.Decode(t)
				if err != nil {
					return nil, fmt.Errorf("golden file: vector %q: %w", v.Name, err)
				}
				*part.to = append(*part.to, g)
			}
		}
		out.Vectors = append(out.Vectors, w)
	}
	return out, nil
}

// Comparison tells how far an output is from its reference.
type Comparison struct {
	Output    string
	MaxAbs    float64 // largest |got-want|; 0 for outputs that must be equal
	Exceeds   bool
	Where     int // index of the first element that exceeds
	Got, Want string
}

// DefaultTolerance is used for float outputs whose tolerance nobody stated.
func DefaultTolerance(output string) artifact.Tolerance {
	return artifact.Tolerance{Output: output, RTol: 1e-5, ATol: 1e-6}
}

// Compare compares an output with its reference: floats within tol, everything else exactly. Shapes must be equal; the
// element types may differ, since frameworks compute in double precision. NaN equals NaN.
func Compare(got, want artifact.GoldenTensor, tol artifact.Tolerance) (Comparison, error) {
	c := Comparison{Output: want.Name}
	if fmt.Sprint(got.Shape) != fmt.Sprint(want.Shape) {
		return c, fmt.Errorf("output %q has shape %v, the reference %v", want.Name, got.Shape, want.Shape)
	}
	if (got.DType == "string") != (want.DType == "string") {
		return c, fmt.Errorf("output %q is %s, the reference %s", want.Name, got.DType, want.DType)
	}
	if got.DType == "string" {
		if len(got.Strings) != len(want.Strings) {
			return c, fmt.Errorf("output %q has %d strings, the reference %d", want.Name, len(got.Strings), len(want.Strings))
		}
		for i := range got.Strings {
			if got.Strings[i] != want.Strings[i] {
				c.Exceeds, c.Where, c.Got, c.Want = true, i, got.Strings[i], want.Strings[i]
				return c, nil
			}
		}
		return c, nil
	}
	g, err := oip.Floats(got)
	if err != nil {
		return c, err
	}
	w, err := oip.Floats(want)
	if err != nil {
		return c, err
	}
	float := got.DType == "f32" || got.DType == "f64" || got.DType == "f16" || got.DType == "bf16"
	for i := range g {
		if math.IsNaN(g[i]) && math.IsNaN(w[i]) || g[i] == w[i] {
			continue
		}
		d := math.Abs(g[i] - w[i])
		ok := float && d <= tol.ATol+float64(tol.RTol*math.Abs(w[i]))
		if !(d <= c.MaxAbs) {
			c.MaxAbs = d
		}
		if !ok && !c.Exceeds {
			c.Exceeds, c.Where = true, i
			c.Got, c.Want = fmt.Sprintf("%.9g", g[i]), fmt.Sprintf("%.9g", w[i])
		}
	}
	return c, nil
}
