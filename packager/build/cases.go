package build

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/ir"
)

// Case is one ONNX-style test: the inputs and outputs of a folder test_data_set_N.
type Case struct {
	Name   string // of the folder
	Inputs []artifact.GoldenTensor
	Want   []*ir.Val        // nil entries are not compared
	Rows   map[int]*ir.Data // output_K.zipmap_values.pb: the values of the maps in output K, a row for each
}

// DataSets lists the folders test_data_set_* in dir, by their numbers.
func DataSets(dir string) ([]string, error) {
	es, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range es {
		if e.IsDir() && strings.HasPrefix(e.Name(), "test_data_set_") {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	sort.Slice(out, func(i, j int) bool { return number(out[i]) < number(out[j]) })
	return out, nil
}

func number(s string) int {
	s = strings.TrimSuffix(s, ".pb")
	n, err := strconv.Atoi(s[strings.LastIndexByte(s, '_')+1:])
	if err != nil {
		return math.MaxInt
	}
	return n
}

// ReadCase reads input_K.pb and output_K.pb of a test data set: by name where the file names a value of the graph, else
// the K-th one.
func ReadCase(dir string, g *ir.Graph) (*Case, error) {
	c := &Case{Name: filepath.Base(dir), Want: make([]*ir.Val, len(g.Body.Results))}
	ins, err := readValues(dir, "input", g.Body.Params)
	if err != nil {
		return nil, err
	}
	for i, p := range g.Body.Params {
		v, ok := ins[i]
		if !ok {
			return nil, fmt.Errorf("%s: no input_%d.pb for input %q", c.Name, i, p.Name)
		}
		t := fromVal(v)
		t.Name = p.Name
		c.Inputs = append(c.Inputs, t)
	}
	outs, err := readValues(dir, "output", g.Body.Results)
	if err != nil {
		return nil, err
	}
	if c.Rows, err = readRows(dir, len(c.Want)); err != nil {
		return nil, err
	}
	if len(outs)+len(c.Rows) == 0 {
		return nil, fmt.Errorf("%s: no output_*.pb", c.Name)
	}
	for i, v := range outs {
		c.Want[i] = v
	}
	return c, nil
}

// rowsSuffix marks reference files that hold the values of a list of maps as one matrix.
const rowsSuffix = ".zipmap_values.pb"

func readRows(dir string, outputs int) (map[int]*ir.Data, error) {
	names, err := filepath.Glob(filepath.Join(escapeGlob(dir), "output_*"+rowsSuffix))
	if err != nil {
		return nil, err
	}
	out := map[int]*ir.Data{}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			return nil, err
		}
		k := number(strings.TrimSuffix(n, rowsSuffix))
		if k >= outputs {
			return nil, fmt.Errorf("%s: the model has only %d outputs", filepath.Base(n), outputs)
		}
		if _, out[k], err = onnx.ReadTensor(b); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(n), err)
		}
	}
	return out, nil
}

// rows compares the values of a sequence of maps with a matrix.
func rows(got artifact.GoldenTensor, want *ir.Data, rtol, atol float64) error {
	if got.Kind != "sequence" || len(want.Dims) != 2 || int64(len(got.Elems)) != want.Dims[0] {
		return fmt.Errorf("%s of %d, want a sequence of maps for rows of %v", got.Kind, len(got.Elems), want.Dims)
	}
	all := artifact.GoldenTensor{Kind: "tensor", DType: want.DType.String(), Shape: want.Dims}
	for i, m := range got.Elems {
		if m.Kind != "map" || len(m.Elems) < 2 {
			return fmt.Errorf("element %d is a %s, want a map", i, m.Kind)
		}
		for _, v := range m.Elems[1:] {
			if v.DType != all.DType {
				return fmt.Errorf("element %d holds %s, want %s", i, v.DType, all.DType)
			}
			all.Data = append(all.Data, v.Data...)
		}
	}
	return near(all, ir.TensorVal(want), rtol, atol)
}

func readValues(dir, kind string, vals []*ir.Value) (map[int]*ir.Val, error) {
	names, err := filepath.Glob(filepath.Join(escapeGlob(dir), kind+"_*.pb"))
	if err != nil {
		return nil, err
	}
	out := map[int]*ir.Val{}
	for _, n := range names {
		if strings.HasSuffix(n, rowsSuffix) {
			continue
		}
		b, err := os.ReadFile(n)
		if err != nil {
			return nil, err
		}
		k := number(n)
		if k >= len(vals) {
			return nil, fmt.Errorf("%s: the model has only %d %ss", filepath.Base(n), len(vals), kind)
		}
		name, v, err := onnx.ReadValue(b, vals[k].Type)
		if err == nil && name != "" && name != vals[k].Name {
			for i, w := range vals {
				if w.Name == name {
					if name2, v2, err2 := onnx.ReadValue(b, w.Type); err2 == nil {
						name, v, k = name2, v2, i
					}
				}
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(n), err)
		}
		out[k] = v
	}
	return out, nil
}

// escapeGlob keeps the folder's own characters out of the pattern. On Windows there is no escape, nor any of these
// characters but brackets, which filepath.Glob reads as a class there too.
func escapeGlob(s string) string {
	if filepath.Separator == '\\' {
		return s
	}
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// fromVal turns an interpreter's value into the form of golden documents.
func fromVal(v *ir.Val) artifact.GoldenTensor {
	if v.Kind == ir.Tensor {
		t := v.Tensor
		return artifact.GoldenTensor{Kind: "tensor", DType: t.DType.String(), Shape: append([]int64{}, t.Dims...), Data: t.Bytes, Strings: t.Strings}
	}
	g := artifact.GoldenTensor{Kind: "sequence", Shape: []int64{int64(len(v.Elems))}}
	switch v.Kind {
	case ir.Optional:
		g.Kind = "optional"
	case ir.Map:
		g.Kind = "map"
		g.Elems = append(g.Elems, fromVal(ir.TensorVal(v.Keys)))
		g.DType = v.Keys.DType.String()
	}
	for _, e := range v.Elems {
		g.Elems = append(g.Elems, fromVal(e))
		if g.DType == "" {
			g.DType = g.Elems[0].DType
		}
	}
	return g
}

// CompareCase compares what a module gave with what the case wants: floats within rtol and atol, everything else
// exactly. The error describes the first difference.
func CompareCase(c *Case, got []artifact.GoldenTensor, names []string, rtol, atol float64) error {
	if len(got) != len(c.Want) {
		return fmt.Errorf("%d outputs, want %d", len(got), len(c.Want))
	}
	for i, w := range c.Want {
		if d := c.Rows[i]; d != nil {
			if err := rows(got[i], d, rtol, atol); err != nil {
				return fmt.Errorf("output %s: %w", names[i], err)
			}
		}
		if w == nil {
			continue
		}
		if err := near(got[i], w, rtol, atol); err != nil {
			return fmt.Errorf("output %s: %w", names[i], err)
		}
	}
	return nil
}

func near(got artifact.GoldenTensor, want *ir.Val, rtol, atol float64) error {
	if want.Kind != ir.Tensor {
		w := fromVal(want)
		if got.Kind == "map" && w.Kind == "map" {
			return nearMap(got, want, rtol, atol)
		}
		if got.Kind != w.Kind || len(got.Elems) != len(w.Elems) {
			return fmt.Errorf("%s of %d, want %s of %d", got.Kind, len(got.Elems), w.Kind, len(w.Elems))
		}
		for j, e := range want.Elems {
			if err := near(got.Elems[j], e, rtol, atol); err != nil {
				return fmt.Errorf("element %d: %w", j, err)
			}
		}
		return nil
	}
	w := want.Tensor
	if got.Kind != "" && got.Kind != "tensor" {
		return fmt.Errorf("a %s, want a tensor", got.Kind)
	}
	if got.DType != w.DType.String() {
		return fmt.Errorf("element type %s, want %s", got.DType, w.DType)
	}
	if fmt.Sprint(got.Shape) != fmt.Sprint(append([]int64{}, w.Dims...)) {
		return fmt.Errorf("shape %v, want %v", got.Shape, w.Dims)
	}
	if w.DType == ir.String {
		for i, s := range w.Strings {
			if i >= len(got.Strings) || got.Strings[i] != s {
				return fmt.Errorf("element %d differs from %q", i, s)
			}
		}
		return nil
	}
	if len(got.Data) != len(w.Bytes) {
		return errors.New("another length")
	}
	if w.DType.IsInt() || w.DType == ir.Bool {
		for i := range w.Bytes {
			if got.Data[i] != w.Bytes[i] {
				return fmt.Errorf("byte %d is %d, want %d", i, got.Data[i], w.Bytes[i])
			}
		}
		return nil
	}
	n := elements(w.Dims)
	bad, first, worst := 0, "", 0.0
	for i := range n {
		g, x := floatAt(w.DType, got.Data, i), floatAt(w.DType, w.Bytes, i)
		if g == x || math.IsNaN(g) && math.IsNaN(x) {
			continue
		}
		d := math.Abs(g - x)
		if d <= atol+float64(rtol*math.Abs(x)) && !math.IsInf(x, 0) {
			continue
		}
		if bad == 0 {
			first = fmt.Sprintf("element %d is %.7g, want %.7g", i, g, x)
		}
		worst = math.Max(worst, d)
		bad++
	}
	if bad > 0 {
		return fmt.Errorf("%s; %d of %d elements differ, by up to %.3g", first, bad, n, worst)
	}
	return nil
}

// nearMap compares maps; the keys are in the order of the class labels.
func nearMap(got artifact.GoldenTensor, want *ir.Val, rtol, atol float64) error {
	if len(got.Elems) == 0 {
		return errors.New("a map without keys")
	}
	if err := near(got.Elems[0], ir.TensorVal(want.Keys), 0, 0); err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	vals := mapValues(got)
	if len(vals) != len(want.Elems) {
		return fmt.Errorf("%d values, want %d", len(vals), len(want.Elems))
	}
	for i, e := range want.Elems {
		if err := near(vals[i], e, rtol, atol); err != nil {
			return fmt.Errorf("value of key %d: %w", i, err)
		}
	}
	return nil
}

// floatAt decodes element i of a float tensor.
func floatAt(t ir.DType, b []byte, i int) float64 {
	u16 := func() uint16 { return uint16(b[2*i]) | uint16(b[2*i+1])<<8 }
	u32 := func(o int) uint32 {
		return uint32(b[o]) | uint32(b[o+1])<<8 | uint32(b[o+2])<<16 | uint32(b[o+3])<<24
	}
	switch t {
	case ir.F32:
		return float64(math.Float32frombits(u32(4 * i)))
	case ir.F64:
		return math.Float64frombits(uint64(u32(8*i)) | uint64(u32(8*i+4))<<32)
	case ir.BF16:
		return float64(math.Float32frombits(uint32(u16()) << 16))
	case ir.F16:
		return small(uint32(u16()), 5, 10, 15, true, false)
	case ir.F8E4M3FN:
		return small(uint32(b[i]), 4, 3, 7, false, false)
	case ir.F8E5M2:
		return small(uint32(b[i]), 5, 2, 15, true, false)
	case ir.F8E4M3FNUZ:
		return small(uint32(b[i]), 4, 3, 8, false, true)
	case ir.F8E8M0:
		if b[i] == 0xff {
			return math.NaN()
		}
		return math.Ldexp(1, int(b[i])-127)
	case ir.F4E2M1:
		v := uint32(b[i/2]) >> (4 * (i & 1)) & 15
		if x := small(v&7, 2, 1, 1, false, true); v&8 != 0 {
			return -x
		} else {
			return x
		}
	case ir.F8E5M2FNUZ:
		return small(uint32(b[i]), 5, 2, 16, false, true)
	}
	return math.NaN()
}

// small decodes a float of few bits. ieee: the highest exponent means infinity or NaN; uz: minus zero is the only NaN.
func small(v uint32, ebits, mbits uint, bias int, ieee, uz bool) float64 {
	sign := 1.0
	if v>>(ebits+mbits) != 0 {
		sign = -1
	}
	e := int(v >> mbits & (1<<ebits - 1))
	m := v & (1<<mbits - 1)
	switch {
	case uz && sign < 0 && e == 0 && m == 0:
		return math.NaN()
	case ieee && e == 1<<ebits-1 && m == 0:
		return math.Inf(int(sign))
	case ieee && e == 1<<ebits-1, !ieee && !uz && e == 1<<ebits-1 && m == 1<<mbits-1:
		return math.NaN()
	case e == 0:
		return sign * math.Ldexp(float64(m), 1-bias-int(mbits))
	}
	return sign * math.Ldexp(float64(m|1<<mbits), e-bias-int(mbits))
}

// ModelExts are the extensions of model files that the compiler reads.
func ModelExts() []string { return []string{".onnx", ".json", ".ubj", ".txt", ".model"} }

// ModelIn gives the model file of a folder: model.onnx, else model with another extension of ModelExts, else the path that
// a model.onnx would have.
func ModelIn(dir string) string {
	for _, ext := range ModelExts() {
		p := filepath.Join(dir, "model"+ext)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
			return p
		}
	}
	return filepath.Join(dir, "model.onnx")
}

// IsCase tells whether dir is a test case: a model as ModelIn finds it, and data sets.
func IsCase(dir string) bool {
	if _, err := os.Stat(ModelIn(dir)); err != nil {
		return false
	}
	sets, err := DataSets(dir)
	return err == nil && len(sets) > 0
}

// FindCases lists the folders below root that are test cases, sorted by path.
func FindCases(root string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && IsCase(p) {
			out = append(out, p)
			return filepath.SkipDir
		}
		return nil
	})
	return out, err
}
