package header

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

const safetensors = "safetensors"

// SafeTensors reads the header of a safetensors file of size bytes from its start. It leaves r behind the header. As the
// format demands, tensors lie behind each other without gap or overlap up to the end of the file, and no name stands twice.
func SafeTensors(r io.Reader, size int64) (Facts, error) {
	f := Facts{Format: safetensors}
	fail := func(format string, args ...any) (Facts, error) {
		return Facts{}, &FormatError{safetensors, false, fmt.Errorf(format, args...)}
	}
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Facts{}, short(safetensors, err)
	}
	n := binary.LittleEndian.Uint64(head[:])
	if n > MaxHeader {
		return fail("it has %d bytes, more than %d", n, MaxHeader)
	}
	if int64(n) > size-8 {
		return fail("it has %d bytes, the file only %d", n, size)
	}
	// Read piece by piece: a length that lies must not cost its memory.
	var buf bytes.Buffer
	if _, err := io.CopyN(&buf, r, int64(n)); err != nil {
		return Facts{}, short(safetensors, err)
	}
	entries, meta, err := tensorEntries(buf.Bytes())
	if err != nil {
		return fail("%w", err)
	}
	slices.SortFunc(entries, func(a, b entry) int {
		if c := compare(a.Begin, b.Begin); c != 0 {
			return c
		}
		return compare(a.End, b.End)
	})
	at := uint64(0)
	for _, e := range entries {
		name, bits := e.precision()
		if name == "" {
			return fail("tensor %q has the unknown type %q", e.name, e.DType)
		}
		count, ok := elements(e.Shape)
		if !ok || uint64(count) > math.MaxInt64/bits {
			return fail("tensor %q has a shape %v that is too large", e.name, e.Shape)
		}
		if e.Begin != at || e.End < e.Begin {
			return fail("tensor %q lies at %d to %d, the one before it ends at %d", e.name, e.Begin, e.End, at)
		}
		if want := (uint64(count)*bits + 7) / 8; e.End-e.Begin != want {
			return fail("tensor %q has %d bytes, its type and shape make %d", e.name, e.End-e.Begin, want)
		}
		at = e.End
		if f.Parameters, ok = add(f.Parameters, count); !ok {
			return fail("more parameters than 64 bits can count")
		}
		f.Names = append(f.Names, e.name)
		if name != quantised {
			f.Precision = append(f.Precision, name)
		} else {
			f.Quantization = strings.ToLower(e.DType)
		}
	}
	if want := uint64(size) - 8 - n; at != want {
		return fail("the tensors take %d bytes, the file has %d for them", at, want)
	}
	slices.Sort(f.Names)
	f.Tensors, f.Precision = len(entries), sorted(f.Precision)
	if f.Quantization == "" {
		f.Quantization = quantizationOf(f.Names, meta)
	}
	return f, nil
}

// entry is one tensor of the header.
type entry struct {
	name  string
	DType string
	Shape []uint64
	Begin uint64
	End   uint64
}

// quantised stands for types of fewer than eight bits, which ModelPack has no name for.
const quantised = "-"

// precision gives ModelPack's name of the element type and its bits.
func (e entry) precision() (string, uint64) {
	switch e.DType {
	case "BOOL":
		return boolName, 8
	case "F4", "F4_E2M1":
		return quantised, 4
	case "F6_E2M3", "F6_E3M2":
		return quantised, 6
	case "U8":
		return uint8Name, 8
	case "I8":
		return int8Name, 8
	case "F8_E5M2", "F8_E5M2FNUZ":
		return float8e5m2, 8
	case "F8_E4M3", "F8_E4M3FNUZ":
		return float8e4m3, 8
	case "F8_E8M0":
		return quantised, 8 // scales of micro formats
	case "I16":
		return int16Name, 16
	case "U16":
		return uint16Name, 16
	case "F16":
		return float16Name, 16
	case "BF16":
		return bfloat16Name, 16
	case "I32":
		return int32Name, 32
	case "U32":
		return uint32Name, 32
	case "F32":
		return float32Name, 32
	case "C64":
		return complex64Name, 64
	case "F64":
		return float64Name, 64
	case "I64":
		return int64Name, 64
	case "U64":
		return uint64Name, 64
	}
	return "", 0
}

// tensorEntries reads the JSON of the header: an object from tensor names to entries, and __metadata__ with texts.
func tensorEntries(b []byte) ([]entry, map[string]string, error) {
	if len(b) == 0 || b[0] != '{' {
		return nil, nil, errors.New("it does not begin with {")
	}
	var out []entry
	var meta map[string]string
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return nil, nil, fmt.Errorf("not valid JSON: %w", err)
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, nil, fmt.Errorf("not valid JSON: %w", err)
		}
		name, _ := t.(string)
		if len(name) > maxName {
			return nil, nil, fmt.Errorf("a name has %d bytes, more than %d", len(name), maxName)
		}
		if seen[name] {
			return nil, nil, fmt.Errorf("tensor %q stands twice", name)
		}
		seen[name] = true
		if name == "__metadata__" {
			if err := d.Decode(&meta); err != nil {
				return nil, nil, fmt.Errorf("__metadata__: %w", err)
			}
			continue
		}
		var v struct {
			DType   *string   `json:"dtype"`
			Shape   *[]uint64 `json:"shape"`
			Offsets *[]uint64 `json:"data_offsets"`
		}
		if err := d.Decode(&v); err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		if v.DType == nil || v.Shape == nil || v.Offsets == nil || len(*v.Offsets) != 2 {
			return nil, nil, fmt.Errorf("tensor %q lacks dtype, shape or two data_offsets", name)
		}
		if len(*v.Shape) > maxRank {
			return nil, nil, fmt.Errorf("tensor %q has %d dimensions, more than %d", name, len(*v.Shape), maxRank)
		}
		if len(out) == MaxTensors {
			return nil, nil, fmt.Errorf("more than %d tensors", MaxTensors)
		}
		out = append(out, entry{name, *v.DType, *v.Shape, (*v.Offsets)[0], (*v.Offsets)[1]})
	}
	if _, err := d.Token(); err != nil {
		return nil, nil, fmt.Errorf("not valid JSON: %w", err)
	}
	// Behind the object only the spaces that align the data.
	rest := b[d.InputOffset():]
	if len(bytes.Trim(rest, " \t\r\n\x00")) != 0 {
		return nil, nil, errors.New("data after its JSON object")
	}
	return out, meta, nil
}

// quantizationOf knows schemes by the names that their tensors have; a name that fits none says nothing.
func quantizationOf(names []string, meta map[string]string) string {
	if q := meta["quantization"]; q != "" && len(q) <= 32 {
		return strings.ToLower(q)
	}
	has := func(suffix string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, suffix) })
	}
	switch {
	case has(".qweight") && has(".g_idx"):
		return "gptq"
	case has(".qweight") && has(".qzeros"):
		return "awq"
	case has(".weight.quant_state.bitsandbytes__nf4"), has(".weight.absmax") && has(".weight.quant_map"):
		return "bitsandbytes-4bit"
	case has(".SCB"):
		return "bitsandbytes-8bit"
	case has(".weight_packed"):
		return "compressed-tensors"
	}
	return ""
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
