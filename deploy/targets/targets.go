// Package targets reads the list of targets that an environment has. Which kinds there are is handed in; each has its settings, a
// struct whose JSON names are the keys. Unknown kinds and keys, keys of the wrong type, missing ones, and two targets of one name
// are errors that say where.
package targets

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/internal/diag"
)

// Runs is what a kind of target is given to run.
type Runs int

// What targets run.
const (
	Image  Runs = iota // by digest, from the repository that the key image names
	Bundle             // a folder of files
)

// Kind is a kind of target.
type Kind struct {
	Name string
	Runs Runs
	// Variant is the contract that its images follow, as deploy/image names it; empty: plain.
	Variant string
	// Settings gives a pointer to the kind's settings, filled with defaults. Fields are texts, whole numbers, finite numbers, true or
	// false, lists of texts, mappings from text to text, and structs of these. A field with the tag `need:"true"` must be given.
	Settings func() Settings
}

// Settings are those of one target.
type Settings interface {
	// Check looks at values; it contacts nobody. An *Error gives the key that is wrong, relative to the target.
	Check() error
	// Open makes the target. It contacts nobody; credentials come from where the platform's own tools have them.
	Open(ctx context.Context, log *slog.Logger) (deploy.Target, error)
}

// Entry is one target of an environment.
type Entry struct {
	Name     string        // unique in the environment
	Kind     string        //
	Runs     Runs          //
	Variant  string        // of its images
	Image    string        // repository of the images, for kinds that run them
	Weight   int           // percent for a new release at first; 0: everything at once
	Wait     time.Duration // for a new revision to be healthy; 0: the target's default
	Settings Settings
}

// Error is a mistake in the list. Path is relative to it: [1].memory.
type Error struct {
	Path  string
	Hints []string
	Err   error
}

func (e *Error) Error() string { return "targets" + e.Path + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Field is where in a document the mistake is, relative to its list of targets.
func (e *Error) Field() string { return e.Path }

// Hint is what would be right.
func (e *Error) Hint() []string { return e.Hints }

func fail(path string, hints []string, format string, args ...any) *Error {
	return &Error{Path: path, Hints: hints, Err: fmt.Errorf(format, args...)}
}

// common are the keys that every target has.
type common struct {
	Name   string `json:"name" need:"true"`
	Kind   string `json:"kind" need:"true"`
	Image  string `json:"image"`
	Weight int    `json:"weight"`
	Wait   string `json:"wait"`
}

// MaxTargets bounds a list.
const MaxTargets = 64

var (
	nameRE  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	imageRE = regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$`)
)

// Parse reads a list in the order in which its targets are deployed to. The list comes from YAML or JSON: numbers may be of any type.
func Parse(list []map[string]any, kinds []Kind) ([]Entry, error) {
	if len(list) > MaxTargets {
		return nil, fail("", nil, "%d targets, limit %d", len(list), MaxTargets)
	}
	out := make([]Entry, 0, len(list))
	seen := map[string]int{}
	for i, m := range list {
		e, err := entry(m, fmt.Sprintf("[%d]", i), kinds)
		if err != nil {
			return nil, err
		}
		if j, ok := seen[e.Name]; ok {
			return nil, fail(fmt.Sprintf("[%d].name", i), nil, "%q is the name of targets[%d] too", e.Name, j)
		}
		seen[e.Name] = i
		out = append(out, *e)
	}
	return out, nil
}

func entry(m map[string]any, path string, kinds []Kind) (*Entry, error) {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Name
	}
	// The kind comes first: only it tells which other keys there are.
	raw, ok := m["kind"]
	if !ok {
		return nil, fail(path, []string{"kinds: " + strings.Join(names, ", ")}, "it has no kind")
	}
	name, ok := raw.(string)
	if !ok {
		return nil, fail(path+".kind", nil, "a text is expected, this is %s", what(raw))
	}
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return nil, fail(path+".kind", nearest(name, names, "kinds"), "there is no kind %q", name)
	}
	kind := kinds[i]
	var c common
	s := kind.Settings()
	if err := fill(m, path, []reflect.Value{reflect.ValueOf(&c).Elem(), reflect.ValueOf(s).Elem()}); err != nil {
		return nil, err
	}
	e := &Entry{Name: c.Name, Kind: c.Kind, Runs: kind.Runs, Variant: cmp.Or(kind.Variant, "plain"), Image: c.Image, Weight: c.Weight, Settings: s}
	if !nameRE.MatchString(c.Name) {
		return nil, fail(path+".name", nil, "%q: small letters, digits and hyphens, at most 63", c.Name)
	}
	switch {
	case kind.Runs == Bundle && c.Image != "":
		return nil, fail(path+".image", nil, "targets of kind %s run no images", kind.Name)
	case kind.Runs == Image && c.Image == "":
		return nil, fail(path, nil, "image is missing: the repository that its images are in")
	case c.Image != "" && strings.Contains(c.Image, "@"):
		return nil, fail(path+".image", nil, "%s: a repository without digest is expected; which image runs follows from the artifact", c.Image)
	case c.Image != "" && !imageRE.MatchString(c.Image):
		return nil, fail(path+".image", nil, "%s: a repository with its host and without tag is expected, as in reg.example/ml/churn", c.Image)
	case c.Weight < 0 || c.Weight > 100:
		return nil, fail(path+".weight", nil, "%d is no percentage", c.Weight)
	}
	if c.Wait != "" {
		d, err := time.ParseDuration(c.Wait)
		if err != nil || d <= 0 || d > 24*time.Hour {
			return nil, fail(path+".wait", nil, "%q: a length of time up to 24h is expected, as in 5m", c.Wait)
		}
		e.Wait = d
	}
	if err := s.Check(); err != nil {
		if x, ok := err.(*Error); ok {
			return nil, &Error{Path: path + "." + x.Path, Hints: x.Hints, Err: x.Err}
		}
		return nil, fail(path, nil, "%w", err)
	}
	return e, nil
}

func nearest(name string, known []string, of string) []string {
	if s := diag.Nearest(name, known); s != "" {
		return []string{fmt.Sprintf("did you mean %q?", s)}
	}
	return []string{of + ": " + strings.Join(known, ", ")}
}

// fill sets the fields of vs, which are structs, from m; each key belongs to one of them.
func fill(m map[string]any, path string, vs []reflect.Value) error {
	fields := map[string]reflect.Value{}
	var names, needed []string
	for _, v := range vs {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name == "-" {
				continue
			}
			fields[name] = v.Field(i)
			names = append(names, name)
			if f.Tag.Get("need") == "true" {
				needed = append(needed, name)
			}
		}
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		f, ok := fields[k]
		if !ok {
			return fail(path+"."+k, nearest(k, names, "known keys here"), "unknown key")
		}
		if err := set(f, m[k], path+"."+k); err != nil {
			return err
		}
	}
	for _, n := range needed {
		if fields[n].IsZero() {
			return fail(path, nil, "%s is missing", n)
		}
	}
	return nil
}

func set(f reflect.Value, v any, path string) error {
	bad := func(want string) error { return fail(path, nil, "%s is expected, this is %s", want, what(v)) }
	switch f.Kind() {
	case reflect.String:
		s, ok := v.(string)
		if !ok {
			return bad("a text")
		}
		f.SetString(s)
	case reflect.Bool:
		b, ok := v.(bool)
		if !ok {
			return bad("true or false")
		}
		f.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, ok := number(v)
		if !ok || n != math.Trunc(n) || math.Abs(n) > 1<<53 {
			return bad("a whole number")
		}
		f.SetInt(int64(n))
	case reflect.Float64:
		n, ok := number(v)
		if !ok || math.IsNaN(n) || math.IsInf(n, 0) {
			return bad("a number")
		}
		f.SetFloat(n)
	case reflect.Slice:
		l, ok := v.([]any)
		if !ok {
			return bad("a list")
		}
		s := reflect.MakeSlice(f.Type(), len(l), len(l))
		for i, x := range l {
			if err := set(s.Index(i), x, fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		f.Set(s)
	case reflect.Map:
		m, ok := v.(map[string]any)
		if !ok {
			return bad("a mapping")
		}
		out := reflect.MakeMap(f.Type())
		for k, x := range m {
			e := reflect.New(f.Type().Elem()).Elem()
			if err := set(e, x, path+"."+k); err != nil {
				return err
			}
			out.SetMapIndex(reflect.ValueOf(k), e)
		}
		f.Set(out)
	case reflect.Struct:
		m, ok := v.(map[string]any)
		if !ok {
			return bad("a mapping")
		}
		return fill(m, path, []reflect.Value{f})
	default:
		return fail(path, nil, "the settings hold a %s, which nobody can write", f.Kind())
	}
	return nil
}

// number takes what YAML and JSON decoders make of numbers.
func number(v any) (float64, bool) {
	x := reflect.ValueOf(v)
	switch {
	case !x.IsValid():
		return 0, false
	case x.CanInt():
		return float64(x.Int()), true
	case x.CanUint():
		return float64(x.Uint()), true
	case x.CanFloat():
		return x.Float(), true
	}
	if n, ok := v.(interface{ Float64() (float64, error) }); ok { // json.Number
		f, err := n.Float64()
		return f, err == nil
	}
	return 0, false
}

func what(v any) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case string:
		return fmt.Sprintf("the text %q", v)
	case bool:
		return fmt.Sprint(v)
	case []any:
		return "a list"
	case map[string]any:
		return "a mapping"
	}
	return fmt.Sprintf("the number %v", v)
}
