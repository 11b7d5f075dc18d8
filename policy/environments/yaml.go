package environments

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/waybill-ml/waybill/internal/diag"
)

// ParseYAML reads environments.yaml. file stands in messages. Unknown keys, a key twice, values of another kind and
// anchors are errors with line and column; defaults are filled in.
//
// Without read a document with dataFiles is refused: nobody could say what is in them.
func ParseYAML(file string, raw []byte) (*Document, error) { return ParseFiles(file, raw, nil) }

// ParseFiles is ParseYAML with the files of dataFiles, which read gives by their names: slash-separated, relative to the folder
// that the document lies in, never outside of it.
func ParseFiles(file string, raw []byte, read func(name string) ([]byte, error)) (*Document, error) {
	return ParseTargets(file, raw, read, nil)
}

// ParseTargets is ParseFiles with a look at the targets of each environment, which this package takes as they are. An error of check
// that has a Field method, which names a place relative to the list ([1].memory), gets its position; one with a Hint method its hints.
func ParseTargets(file string, raw []byte, read func(name string) ([]byte, error), check func(targets []map[string]any) error) (*Document, error) {
	if len(raw) > MaxBytes {
		return nil, diag.New(diag.Usage, "%s has %d bytes, limit %d", file, len(raw), MaxBytes)
	}
	var root, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&root); err != nil && !errors.Is(err, io.EOF) {
		return nil, yamlError(file, err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, yamlError(file, err)
		}
		return nil, diag.New(diag.Usage, "only one YAML document is allowed").At(diag.Loc{File: file, Line: more.Line, Col: more.Column})
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) != 1 {
		return nil, diag.New(diag.Usage, "%s is empty", file).Hint("waybill env init")
	}
	d := &Document{Schema: Schema}
	w := &walker{file: file, at: map[string]diag.Loc{}}
	if err := w.decode(root.Content[0], reflect.ValueOf(d).Elem(), ""); err != nil {
		return nil, err
	}
	if err := w.targets(d, check); err != nil {
		return nil, err
	}
	if err := w.dataFiles(d, read); err != nil {
		return nil, err
	}
	d.fill()
	if err := d.Validate(); err != nil {
		var fe *fieldError
		e := diag.Wrap(diag.Usage, err, "environments")
		if errors.As(err, &fe) {
			return nil, e.At(w.nearest(fe.path))
		}
		return nil, e.At(diag.Loc{File: file})
	}
	return d, nil
}

// yamlError puts the position, which the YAML library only writes into its text, where it belongs.
func yamlError(file string, err error) error {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	loc := diag.Loc{File: file}
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if n, m, ok := strings.Cut(rest, ": "); ok {
			if l, e := strconv.Atoi(n); e == nil {
				loc.Line, msg = l, m
			}
		}
	}
	return diag.Wrap(diag.Usage, errors.New(msg), "not valid YAML").At(loc)
}

// walker decodes nodes into values and remembers where each path stands.
type walker struct {
	file string
	at   map[string]diag.Loc
}

func (w *walker) loc(n *yaml.Node) diag.Loc {
	return diag.Loc{File: w.file, Line: n.Line, Col: n.Column}
}

// nearest gives the position of a path, or of the closest one above it that was written.
func (w *walker) nearest(path string) diag.Loc {
	for p := path; p != ""; {
		if l, ok := w.at[p]; ok {
			return l
		}
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return diag.Loc{File: w.file}
}

func (w *walker) fail(n *yaml.Node, path, format string, args ...any) error {
	if path == "" {
		path = "document"
	}
	return diag.Wrap(diag.Usage, fmt.Errorf(format, args...), "%s", path).At(w.loc(n))
}

func (w *walker) decode(n *yaml.Node, v reflect.Value, path string) error {
	w.at[path] = w.loc(n)
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return w.fail(n, path, "anchors and aliases are not used here")
	}
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		if err := w.decode(n, p.Elem(), path); err != nil {
			return err
		}
		v.Set(p)
		return nil
	}
	if v.Type() == reflect.TypeFor[Bytes]() {
		b, err := parseBytes(n)
		if err != nil {
			return w.fail(n, path, "%w", err)
		}
		v.SetInt(b)
		return nil
	}
	switch v.Kind() {
	case reflect.Struct:
		return w.object(n, v, path)
	case reflect.Map:
		if v.Type().Elem().Kind() == reflect.Interface {
			return w.opaque(n, v, path)
		}
		return w.dict(n, v, path)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return w.fail(n, path, "a list is expected, this is %s", what(n))
		}
		s := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
		for i, c := range n.Content {
			if err := w.decode(c, s.Index(i), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		v.Set(s)
		return nil
	}
	return w.scalar(n, v, path)
}

// pairs lists the keys and values of a mapping; a key twice is an error.
func (w *walker) pairs(n *yaml.Node, path string, each func(k, v *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return w.fail(n, path, "keys and values are expected, this is %s", what(n))
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
			return w.fail(k, path, "a key must be plain text")
		}
		if l, dup := seen[k.Value]; dup {
			return w.fail(k, join(path, k.Value), "given twice (first on line %d)", l)
		}
		seen[k.Value] = k.Line
		if err := each(k, n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func (w *walker) object(n *yaml.Node, v reflect.Value, path string) error {
	fields := map[string]int{}
	var names []string
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if name == "-" { // only in YAML
			name = v.Type().Field(i).Tag.Get("yaml")
		}
		fields[name] = i
		names = append(names, name)
	}
	return w.pairs(n, path, func(k, c *yaml.Node) error {
		i, ok := fields[k.Value]
		if !ok {
			err := diag.New(diag.Usage, "%s: unknown key", join(path, k.Value)).At(w.loc(k))
			if s := diag.Nearest(k.Value, names); s != "" {
				return err.Hint("did you mean %q?", s)
			}
			return err.Hint("known keys here: %s", strings.Join(names, ", "))
		}
		return w.decode(c, v.Field(i), join(path, k.Value))
	})
}

func (w *walker) dict(n *yaml.Node, v reflect.Value, path string) error {
	m := reflect.MakeMap(v.Type())
	v.Set(m)
	return w.pairs(n, path, func(k, c *yaml.Node) error {
		x := reflect.New(v.Type().Elem()).Elem()
		if err := w.decode(c, x, join(path, k.Value)); err != nil {
			return err
		}
		m.SetMapIndex(reflect.ValueOf(k.Value), x)
		return nil
	})
}

// targets has check look at the targets of each environment.
func (w *walker) targets(d *Document, check func(targets []map[string]any) error) error {
	if check == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(d.Environments)) {
		err := check(d.Environments[name].Targets)
		if err == nil {
			continue
		}
		path := join("environments", name) + ".targets"
		if x, ok := errors.AsType[interface {
			error
			Field() string
		}](err); ok {
			path += x.Field()
		}
		e := diag.Wrap(diag.Usage, err, "environments.%s", name).At(w.nearest(path))
		if x, ok := errors.AsType[interface {
			error
			Hint() []string
		}](err); ok {
			for _, h := range x.Hint() {
				e = e.Hint("%s", h)
			}
		}
		return e
	}
	return nil
}

// opaque takes any plain tree: deploy targets, which this package does not read.
func (w *walker) opaque(n *yaml.Node, v reflect.Value, path string) error {
	var plain func(n *yaml.Node, path string) error
	plain = func(n *yaml.Node, path string) error {
		w.at[path] = w.loc(n)
		if n.Kind == yaml.AliasNode || n.Anchor != "" {
			return w.fail(n, path, "anchors and aliases are not used here")
		}
		if n.Kind == yaml.MappingNode {
			return w.pairs(n, path, func(k, c *yaml.Node) error { return plain(c, join(path, k.Value)) })
		}
		if n.Kind == yaml.ScalarNode {
			switch n.Tag {
			case "!!str", "!!int", "!!bool":
			case "!!float":
				if f, err := strconv.ParseFloat(n.Value, 64); err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
					return w.fail(n, path, "%q is not a finite number", n.Value)
				}
			default:
				return w.fail(n, path, "a text, a number, true or false is expected, this is %s", what(n))
			}
		}
		for i, c := range n.Content {
			if err := plain(c, fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := plain(n, path); err != nil {
		return err
	}
	m := map[string]any{}
	if err := n.Decode(&m); err != nil {
		return w.fail(n, path, "%w", err)
	}
	v.Set(reflect.ValueOf(m))
	return nil
}

func (w *walker) scalar(n *yaml.Node, v reflect.Value, path string) error {
	if n.Kind != yaml.ScalarNode {
		return w.fail(n, path, "one value is expected, this is %s", what(n))
	}
	switch v.Kind() {
	case reflect.String:
		if n.Tag != "!!str" {
			return w.fail(n, path, "a text is expected, this is %s; put it in quotes", what(n))
		}
		v.SetString(n.Value)
		return nil
	case reflect.Bool:
		if n.Tag == "!!bool" {
			v.SetBool(slices.Contains([]string{"true", "True", "TRUE"}, n.Value))
			return nil
		}
		return w.fail(n, path, "true or false is expected, this is %s", what(n))
	case reflect.Int, reflect.Int64:
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if n.Tag != "!!int" || err != nil {
			return w.fail(n, path, "a whole number is expected, this is %s", what(n))
		}
		v.SetInt(i)
		return nil
	case reflect.Float64:
		f, err := strconv.ParseFloat(n.Value, 64)
		if n.Tag != "!!int" && n.Tag != "!!float" || err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return w.fail(n, path, "a finite number is expected, this is %s", what(n))
		}
		v.SetFloat(f)
		return nil
	}
	return w.fail(n, path, "cannot hold %s", what(n))
}

func what(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if n.Tag == "!!null" {
		return "nothing"
	}
	return fmt.Sprintf("%q (%s)", n.Value, strings.TrimPrefix(n.Tag, "!!"))
}

func parseBytes(n *yaml.Node) (int64, error) {
	s := strings.TrimSpace(n.Value)
	unit := int64(1)
	for _, u := range []struct {
		suffix string
		size   int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}} {
		if t, ok := strings.CutSuffix(s, u.suffix); ok {
			s, unit = strings.TrimSpace(t), u.size
			break
		}
	}
	i, err := strconv.ParseInt(s, 10, 64)
	if n.Kind != yaml.ScalarNode || err != nil || i <= 0 || i > math.MaxInt64/unit {
		return 0, fmt.Errorf("a size like 256MiB is expected, this is %s", what(n))
	}
	return i * unit, nil
}
