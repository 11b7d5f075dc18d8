package lightgbm

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/packager/frontend/trees"
)

// section is a block of "key=value" lines with unique keys. where names it in messages.
type section struct {
	where string
	keys  map[string]string
}

func (s section) fail(format string, args ...any) error {
	return fmt.Errorf("%s: %s", s.where, fmt.Sprintf(format, args...))
}

func (s section) int(key string, lo, hi int64) (int, error) {
	t, ok := s.keys[key]
	if !ok {
		return 0, s.fail("%s is missing", key)
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil || n < lo || n > hi {
		return 0, s.fail("%s=%s is no whole number from %d to %d", key, short(t), lo, hi)
	}
	return int(n), nil
}

func (s section) intOr(key string, def int, lo, hi int64) (int, error) {
	if _, ok := s.keys[key]; !ok {
		return def, nil
	}
	return s.int(key, lo, hi)
}

// ints reads exactly n numbers.
func (s section) ints(key string, n int, lo, hi int64) ([]int64, error) {
	return numbers(s, key, n, func(t string) (int64, bool) {
		x, err := strconv.ParseInt(t, 10, 64)
		return x, err == nil && x >= lo && x <= hi
	})
}

// reals reads exactly n numbers. "nan" and "inf" are numbers in some positions; the caller refuses them elsewhere.
func (s section) reals(key string, n int) ([]float64, error) {
	return numbers(s, key, n, func(t string) (float64, bool) {
		x, err := strconv.ParseFloat(t, 64)
		return x, err == nil || errors.Is(err, strconv.ErrRange)
	})
}

func numbers[T any](s section, key string, n int, parse func(string) (T, bool)) ([]T, error) {
	t, ok := s.keys[key]
	if !ok {
		if n == 0 {
			return nil, nil
		}
		return nil, s.fail("%s is missing", key)
	}
	if n > len(t) { // each takes a character at least
		return nil, s.fail("%s has fewer than %d numbers", key, n)
	}
	fields := strings.Fields(t)
	if len(fields) != n {
		return nil, s.fail("%s has %d numbers, want %d", key, len(fields), n)
	}
	out := make([]T, n)
	for i, f := range fields {
		x, ok := parse(f)
		if !ok {
			return nil, s.fail("%s: number %d is %s, out of range or no number", key, i, short(f))
		}
		out[i] = x
	}
	return out, nil
}

func short(s string) string {
	if len(s) > 40 {
		s = s[:40] + "..."
	}
	return strconv.Quote(s)
}

// model is a file in memory.
type model struct {
	objective []string // name and parameters; empty for a custom one
	features  int
	classes   int
	perRound  int // trees per iteration: number of outputs
	average   bool
	version   string
	trees     []tree
	names     []string
	sizes     int // number of trees that the header announces, or -1
}

// tree has arrays per split and per leaf. Children are splits, or ^leaf.
type tree struct {
	leaves      int
	feature     []int64
	threshold   []float64
	decision    []int64
	left, right []int64
	value       []float64
	catBegin    []int64
	catBits     []int64
	linear      bool
	constant    []float64
	coefs       []int64 // number of coefficients of each leaf
	coefFeature []int64
	coef        []float64
}

const (
	maxLeaves = 1 << 24
	maxTrees  = 1 << 22
)

// decode reads the text of save_model. What follows "end of trees" (importances, training parameters) is not needed.
func decode(data []byte) (*model, error) {
	if !bytes.HasPrefix(data, []byte("tree\n")) && !bytes.HasPrefix(data, []byte("tree\r\n")) {
		return nil, errors.New("the first line is not \"tree\"")
	}
	head := section{"header", map[string]string{}}
	cur := head
	m := &model{}
	var done bool
	first := true
	for rest := data; len(rest) > 0 && !done; {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		t := strings.TrimSuffix(string(line), "\r")
		switch {
		case t == "end of trees", t == "feature importances:": // 2.1 and older have no line for the end
			done = true
			continue
		case strings.TrimSpace(t) == "" || first:
			first = false
			continue
		}
		key, value, has := strings.Cut(t, "=")
		if key == "Tree" && has {
			if err := m.section(cur); err != nil {
				return nil, err
			}
			n, err := strconv.Atoi(value)
			if err != nil || n != len(m.trees) || n >= maxTrees {
				return nil, fmt.Errorf("Tree=%s where tree %d belongs", short(value), len(m.trees))
			}
			cur = section{fmt.Sprintf("tree %d", n), map[string]string{}}
			m.trees = append(m.trees, tree{})
			continue
		}
		if _, twice := cur.keys[key]; twice {
			return nil, cur.fail("%s is there twice", short(key))
		}
		cur.keys[key] = value
	}
	if !done {
		return nil, errors.New("the file ends too early: \"end of trees\" is missing")
	}
	if err := m.section(cur); err != nil {
		return nil, err
	}
	if m.sizes >= 0 && m.sizes != len(m.trees) {
		return nil, fmt.Errorf("there are %d trees, tree_sizes has %d entries", len(m.trees), m.sizes)
	}
	return m, nil
}

func (m *model) section(s section) error {
	if len(m.trees) == 0 {
		return m.header(s)
	}
	return m.trees[len(m.trees)-1].read(s)
}

func (m *model) header(s section) (err error) {
	m.version = s.keys["version"]
	if m.classes, err = s.int("num_class", 1, trees.MaxOutputs); err != nil {
		return err
	}
	if m.perRound, err = s.intOr("num_tree_per_iteration", m.classes, 1, trees.MaxOutputs); err != nil {
		return err
	}
	last, err := s.int("max_feature_idx", 0, trees.MaxFeatures-1)
	if err != nil {
		return err
	}
	m.features = last + 1
	_, m.average = s.keys["average_output"]
	m.objective = strings.Fields(s.keys["objective"])
	m.names = strings.Fields(s.keys["feature_names"])
	m.sizes = -1
	if t, ok := s.keys["tree_sizes"]; ok {
		m.sizes = len(strings.Fields(t))
	}
	return nil
}

func (t *tree) read(s section) (err error) {
	if t.leaves, err = s.int("num_leaves", 1, maxLeaves); err != nil {
		return err
	}
	n := t.leaves - 1
	cats, err := s.intOr("num_cat", 0, 0, maxLeaves)
	if err != nil {
		return err
	}
	if t.value, err = s.reals("leaf_value", t.leaves); err != nil {
		return err
	}
	if n > 0 {
		if t.feature, err = s.ints("split_feature", n, 0, trees.MaxFeatures); err != nil {
			return err
		}
		if t.threshold, err = s.reals("threshold", n); err != nil {
			return err
		}
		if t.decision, err = s.ints("decision_type", n, -128, 127); err != nil {
			return err
		}
		if t.left, err = s.ints("left_child", n, -maxLeaves, maxLeaves); err != nil {
			return err
		}
		if t.right, err = s.ints("right_child", n, -maxLeaves, maxLeaves); err != nil {
			return err
		}
	}
	if cats > 0 {
		if err := t.readCategories(s, cats); err != nil {
			return err
		}
	}
	if lin, err := s.intOr("is_linear", 0, 0, 1); err != nil || lin == 0 {
		return err
	}
	return t.readLinear(s)
}

func (t *tree) readCategories(s section, cats int) (err error) {
	if t.catBegin, err = s.ints("cat_boundaries", cats+1, 0, math.MaxInt32); err != nil {
		return err
	}
	for i, b := range t.catBegin {
		if i == 0 && b != 0 || i > 0 && b < t.catBegin[i-1] {
			return s.fail("cat_boundaries: number %d is %d", i, b)
		}
	}
	t.catBits, err = s.ints("cat_threshold", int(t.catBegin[cats]), 0, math.MaxUint32)
	return err
}

func (t *tree) readLinear(s section) (err error) {
	t.linear = true
	if t.constant, err = s.reals("leaf_const", t.leaves); err != nil {
		return err
	}
	if t.coefs, err = s.ints("num_features", t.leaves, 0, trees.MaxFeatures); err != nil {
		return err
	}
	total := 0
	for _, c := range t.coefs {
		if total += int(c); total > math.MaxInt32 {
			return s.fail("num_features: too many")
		}
	}
	if t.coefFeature, err = s.ints("leaf_features", total, 0, trees.MaxFeatures); err != nil {
		return err
	}
	t.coef, err = s.reals("leaf_coeff", total)
	return err
}
