// Package header reads what the header of a weight file says: how many parameters the tensors have, in which types they are
// stored, how they were quantised, which architecture they belong to. It reads safetensors and GGUF, in one pass from the
// front and never the tensors themselves, and believes nothing: every length is bounded, every sum checked.
package header

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// Limits on a header. They are well above what exists: models of 10^12 parameters have some 10^5 tensors.
const (
	MaxHeader  = 100 << 20 // bytes of a safetensors header (the format's own limit), and of what is read of a GGUF header
	MaxTensors = 1 << 20
	maxRank    = 16
	maxName    = 4096 // bytes of a tensor's name or a key
)

// Facts are what one weight file says of itself.
type Facts struct {
	Format       string   // "safetensors" or "gguf"
	Tensors      int      // tensors in this file
	Parameters   int64    // elements of all of them
	Precision    []string // ModelPack's names of the element types that are not quantised, sorted; never nil
	Quantization string   // as people write it: "q4_k_m", "gptq"; empty when nothing is quantised
	Architecture string   // as the file says: "llama"; empty when it does not
	Shard        int      // number of this file in a GGUF split, from 0
	Shards       int      // files in the split; 0 or 1 when it is no split
	Names        []string // names of the tensors, sorted
}

// FormatError says that a file is not what its first bytes promise, or is damaged.
type FormatError struct {
	Format string
	Short  bool // the content ended inside the header
	Err    error
}

// Error names the format.
func (e *FormatError) Error() string { return e.Format + " header: " + e.Err.Error() }

// Unwrap gives the cause.
func (e *FormatError) Unwrap() error { return e.Err }

// ModelPack's names of precisions (model-spec, config.md, property "precision").
const (
	float64Name   = "float64"
	float32Name   = "float32"
	float16Name   = "float16"
	bfloat16Name  = "bfloat16"
	float8e4m3    = "float8_e4m3"
	float8e5m2    = "float8_e5m2"
	complex64Name = "complex64"
	int8Name      = "int8"
	int16Name     = "int16"
	int32Name     = "int32"
	int64Name     = "int64"
	uint8Name     = "uint8"
	uint16Name    = "uint16"
	uint32Name    = "uint32"
	uint64Name    = "uint64"
	boolName      = "bool"
)

// Sum adds up the files of one model: shards of one set. The parts must be of one format.
func Sum(parts []Facts) (Facts, error) {
	var out Facts
	for i, p := range parts {
		if i == 0 {
			out = p
			out.Precision, out.Names = slices.Clone(p.Precision), nil
			out.Shard, out.Shards = 0, 0
			continue
		}
		if p.Format != out.Format {
			return Facts{}, fmt.Errorf("files of different formats, %s and %s", out.Format, p.Format)
		}
		out.Tensors += p.Tensors
		n, ok := add(out.Parameters, p.Parameters)
		if !ok {
			return Facts{}, errors.New("more parameters than 64 bits can count")
		}
		out.Parameters = n
		out.Precision = append(out.Precision, p.Precision...)
		if out.Quantization == "" {
			out.Quantization = p.Quantization
		}
		if out.Architecture == "" {
			out.Architecture = p.Architecture
		}
	}
	out.Precision = sorted(out.Precision)
	return out, nil
}

// ParamSize writes a number of parameters as ModelPack does: at most one digit after the point and a letter, "6.7B". It
// is empty for 0.
func ParamSize(n int64) string {
	if n <= 0 {
		return ""
	}
	for _, u := range []struct {
		unit  int64
		scale string
	}{{1e3, "K"}, {1e6, "M"}, {1e9, "B"}, {1e12, "T"}, {1e15, "Q"}} {
		// Tenths, rounded half up in integers: floats would round differently near the half.
		tenths := n / (u.unit / 10)
		if n%(u.unit/10)*2 >= u.unit/10 {
			tenths++
		}
		if tenths < 10_000 || u.scale == "Q" {
			tenths = max(tenths, 1)
			if tenths%10 == 0 {
				return fmt.Sprintf("%d%s", tenths/10, u.scale)
			}
			return fmt.Sprintf("%d.%d%s", tenths/10, tenths%10, u.scale)
		}
	}
	return ""
}

// sorted sorts a set of names; the result is never nil.
func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	if s = slices.Compact(s); s == nil {
		s = []string{}
	}
	return s
}

// elements multiplies the sizes of a shape; false when it overflows.
func elements(shape []uint64) (int64, bool) {
	n := uint64(1)
	for _, d := range shape {
		if d == 0 {
			return 0, true
		}
	}
	for _, d := range shape {
		if d > math.MaxInt64/n {
			return 0, false
		}
		n *= d
	}
	return int64(n), true
}

func add(a, b int64) (int64, bool) {
	if a > math.MaxInt64-b {
		return 0, false
	}
	return a + b, true
}

// short turns the end of the file into a clear error; other read errors stay what they are.
func short(format string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &FormatError{format, true, errors.New("the file ends inside it")}
	}
	return err
}
