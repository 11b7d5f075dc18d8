package xgboost

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/packager/frontend/trees"
)

// binReader reads the binary format of XGBoost before 2.0: C structures in little-endian order.
type binReader struct {
	b   []byte
	err error
}

func (r *binReader) take(n int64) []byte {
	if r.err != nil || n < 0 || n > int64(len(r.b)) {
		if r.err == nil {
			r.err = errShort
		}
		return nil
	}
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}

func (r *binReader) i32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.LittleEndian.Uint32(b))
	}
	return 0
}

func (r *binReader) f32() float32 { return math.Float32frombits(uint32(r.i32())) }

// size reads a count of things of width bytes each, which must be there.
func (r *binReader) size(width int64) int64 {
	b := r.take(8)
	if b == nil {
		return 0
	}
	n := binary.LittleEndian.Uint64(b)
	if n > uint64(len(r.b))/uint64(width) {
		r.err = errShort
		return 0
	}
	return int64(n)
}

func (r *binReader) text() string { return string(r.take(r.size(1))) }

func (r *binReader) f32s() []float32 {
	out := make([]float32, r.size(4))
	for i := range out {
		out[i] = r.f32()
	}
	return out
}

func decodeBinary(data []byte) (*model, error) {
	if t, ok := bytes.CutPrefix(data, []byte("bs64\t")); ok {
		raw, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(t)))
		if err != nil {
			return nil, fmt.Errorf("base64: %w", err)
		}
		data = raw
	}
	data = bytes.TrimPrefix(data, []byte("binf"))
	r := &binReader{b: data}
	m := &model{}
	base, features, classes := r.f32(), r.i32(), r.i32()
	r.take(8) // contain_extra_attrs, contain_eval_metrics
	major, minor, targets := r.i32(), r.i32(), r.i32()
	r.take(136 - 32)
	m.objective, m.booster = r.text(), r.text()
	if r.err != nil {
		return nil, r.err
	}
	if features < 1 || features > trees.MaxFeatures || classes < 0 || classes > trees.MaxOutputs || major < 0 || major > 1 || minor < 0 || minor > 1000 ||
		len(m.objective) > 100 || len(m.booster) > 100 {
		return nil, errors.New("this is no JSON, no UBJ, and the parameters of the old binary format make no sense")
	}
	m.features, m.base = int(features), []float32{base}
	// Before 1.0 the base score was stored as a margin, and no version.
	m.margin = major == 0
	m.version = [3]int{int(major), int(minor)}
	m.outputs = max(int(classes), 1)
	if major == 1 && minor >= 6 && targets > 1 && targets <= trees.MaxOutputs {
		m.outputs = max(m.outputs, int(targets))
	}
	switch m.booster {
	case "gbtree", "dart":
		m.binaryTrees(r)
		if r.err == nil && m.booster == "dart" {
			if m.drop = r.f32s(); r.err == nil && len(m.drop) != len(m.trees) {
				r.err = fmt.Errorf("%d weights of %d trees", len(m.drop), len(m.trees))
			}
		}
	case "gblinear":
		r.take(136)
		if m.linear = r.f32s(); r.err == nil && len(m.linear) != (m.features+1)*m.outputs {
			r.err = fmt.Errorf("%d weights for %d features and %d outputs", len(m.linear), m.features, m.outputs)
		}
	}
	return m, r.err
}

// Sizes of the structures.
const (
	binNode = 20 // parent, left, right, feature and default direction, threshold or value
	binStat = 16
)

func (m *model) binaryTrees(r *binReader) {
	n := r.i32()
	r.take(160 - 4)
	if r.err == nil && (n < 0 || int64(n)*(148+binNode+binStat) > int64(len(r.b))) {
		r.err = errShort
	}
	for i := int32(0); i < n && r.err == nil; i++ {
		r.i32() // number of roots
		nodes := r.i32()
		r.take(3 * 4)
		vector := r.i32()
		r.take(31 * 4)
		if r.err != nil {
			return
		}
		if nodes < 1 || int64(nodes)*(binNode+binStat) > int64(len(r.b)) {
			r.err = fmt.Errorf("tree %d: %d nodes in %d bytes", i, nodes, len(r.b))
			return
		}
		if vector > 1 {
			r.err = fmt.Errorf("tree %d: leaves of %d values", i, vector)
			return
		}
		t := tree{vector: 1, left: make([]int32, nodes), right: make([]int32, nodes), feature: make([]int32, nodes),
			defaultLeft: make([]int32, nodes), cond: make([]float32, nodes)}
		for j := range t.left {
			r.i32() // parent
			t.left[j], t.right[j] = r.i32(), r.i32()
			f := uint32(r.i32())
			t.feature[j], t.defaultLeft[j], t.cond[j] = int32(f&^(1<<31)), int32(f>>31), r.f32()
		}
		r.take(int64(nodes) * binStat)
		m.trees = append(m.trees, t)
	}
	m.info = make([]int32, len(m.trees))
	for i := range m.info {
		m.info[i] = r.i32()
	}
}
