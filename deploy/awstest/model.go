package awstest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
)

// Model validates bodies: always by the members of the SDK's types, and by the service's published Smithy model where there is a copy.
type Model struct {
	space  string         // of the model's shapes, as in com.amazonaws.lambda
	inputs map[string]any // by operation: the SDK's own types, whose fields are the members that a body may have (and those of path and query)
	shapes map[string]shape
	res    map[string]*regexp.Regexp
}

type member struct {
	Target string                     `json:"target"`
	Traits map[string]json.RawMessage `json:"traits"`
}

type shape struct {
	Type    string                     `json:"type"`
	Members map[string]member          `json:"members"`
	Member  *member                    `json:"member"`
	Key     *member                    `json:"key"`
	Value   *member                    `json:"value"`
	Traits  map[string]json.RawMessage `json:"traits"`
	Input   *member                    `json:"input"`
}

// LoadModel reads file, a Smithy model of the namespace space, below dir/aws-smithy; without dir only the members are checked.
// inputs are the SDK's input types by operation.
func LoadModel(dir, file, space string, inputs map[string]any) (*Model, error) {
	m := &Model{space: space, inputs: inputs, res: map[string]*regexp.Regexp{}}
	if dir == "" {
		return m, nil
	}
	raw, err := os.ReadFile(filepath.Join(dir, "aws-smithy", file))
	if err != nil {
		return nil, fmt.Errorf("Smithy model: %w", err)
	}
	var doc struct {
		Shapes map[string]shape `json:"shapes"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("Smithy model %s: %w", file, err)
	}
	m.shapes = doc.Shapes
	for _, s := range m.shapes {
		if p := text(s.Traits["smithy.api#pattern"]); p != "" {
			re, err := regexp.Compile(plain(p))
			if err != nil {
				return nil, fmt.Errorf("pattern %q: %w", p, err)
			}
			m.res[p] = re
		}
	}
	return m, nil
}

// many is a repetition of more than Go's expressions have.
var many = regexp.MustCompile(`\{([0-9]+),(100[1-9]|10[1-9][0-9]|1[1-9][0-9]{2}|[2-9][0-9]{3}|[0-9]{5,})\}`)

// plain takes the groups that look around and upper bounds above 1000 out of a pattern, which Go's expressions do not have: it then
// allows a little more.
func plain(p string) string {
	p = many.ReplaceAllString(p, "{$1,}")
	for {
		at := strings.Index(p, "(?!")
		if i := strings.Index(p, "(?<!"); i >= 0 && (at < 0 || i < at) {
			at = i
		}
		if at < 0 {
			return p
		}
		depth, end := 0, at
		for ; end < len(p); end++ {
			switch p[end] {
			case '\\':
				end++
				continue
			case '(':
				depth++
			case ')':
				depth--
			}
			if depth == 0 {
				break
			}
		}
		p = p[:at] + p[min(end+1, len(p)):]
	}
}

func text(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
}

// Full tells whether the published model is there.
func (m *Model) Full() bool { return m.shapes != nil }

// Check validates the body of an operation, with the members of its path.
func (m *Model) Check(op string, body []byte, path map[string]string) error {
	var v map[string]any
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Errorf("Could not parse request body into json: %w", err)
	}
	if in, ok := m.inputs[op]; ok {
		if err := fields(op, reflect.TypeOf(in), v); err != nil {
			return err
		}
	}
	for k, s := range path {
		v[k] = s
	}
	if m.shapes == nil {
		return nil
	}
	s, ok := m.shapes[m.space+"#"+op]
	if !ok || s.Input == nil {
		return fmt.Errorf("no operation %s", op)
	}
	return m.check(op, s.Input.Target, nil, v)
}

// fields: no member that the SDK's newest type does not have.
func fields(at string, t reflect.Type, v any) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	object, ok := v.(map[string]any)
	if t.Kind() != reflect.Struct || !ok {
		return nil
	}
	for k, x := range object {
		f, ok := t.FieldByName(k)
		if !ok {
			return fmt.Errorf("%s has no member %q", at, k)
		}
		if err := fields(at+"."+k, f.Type, x); err != nil {
			return err
		}
	}
	return nil
}

// check compares v with a shape. Members that the copy of the model does not know were looked at in fields: it is older than the SDK.
func (m *Model) check(at, target string, traits map[string]json.RawMessage, v any) error {
	s := m.shapes[target]
	kind := s.Type
	if kind == "" {
		kind = strings.ToLower(strings.TrimPrefix(target, "smithy.api#"))
	}
	bad := func(want string) error {
		return fmt.Errorf("1 validation error detected: Value %v at '%s' failed to satisfy constraint: %s", v, at, want)
	}
	for _, tr := range []map[string]json.RawMessage{s.Traits, traits} {
		if err := m.constraints(tr, v, bad); err != nil {
			return err
		}
	}
	switch kind {
	case "structure":
		object, ok := v.(map[string]any)
		if !ok {
			return bad("an object")
		}
		for name, mem := range s.Members {
			x, ok := object[name]
			_, required := mem.Traits["smithy.api#required"]
			if !ok || x == nil {
				if required {
					return fmt.Errorf("1 validation error detected: Value null at '%s.%s' failed to satisfy constraint: Member must not be null", at, name)
				}
				continue
			}
			if err := m.check(at+"."+name, mem.Target, mem.Traits, x); err != nil {
				return err
			}
		}
	case "list":
		list, ok := v.([]any)
		if !ok {
			return bad("a list")
		}
		for i, x := range list {
			if err := m.check(fmt.Sprintf("%s.%d", at, i), s.Member.Target, s.Member.Traits, x); err != nil {
				return err
			}
		}
	case "map":
		object, ok := v.(map[string]any)
		if !ok {
			return bad("a map")
		}
		for k, x := range object {
			if err := m.check(at+".key", s.Key.Target, nil, k); err != nil {
				return err
			}
			if err := m.check(at+"."+k, s.Value.Target, nil, x); err != nil {
				return err
			}
		}
	case "enum":
		str, ok := v.(string)
		if !ok {
			return bad("a string")
		}
		for _, mem := range s.Members {
			if text(mem.Traits["smithy.api#enumValue"]) == str {
				return nil
			}
		}
		return bad("Member must satisfy enum value set")
	case "string":
		if _, ok := v.(string); !ok {
			return bad("a string")
		}
	case "blob":
		str, ok := v.(string)
		if _, err := base64.StdEncoding.DecodeString(str); !ok || err != nil {
			return bad("base64")
		}
	case "boolean", "primitiveboolean":
		if _, ok := v.(bool); !ok {
			return bad("a boolean")
		}
	case "integer", "long", "double", "float":
		if _, ok := v.(float64); !ok {
			return bad("a number")
		}
	}
	return nil
}

// constraints are length, range and pattern.
func (m *Model) constraints(traits map[string]json.RawMessage, v any, bad func(string) error) error {
	type bounds struct{ Min, Max *float64 }
	size, isSize := -1.0, false
	switch x := v.(type) {
	case string:
		size, isSize = float64(len(x)), true
		if p := text(traits["smithy.api#pattern"]); p != "" && !m.res[p].MatchString(x) {
			return bad("Member must satisfy regular expression pattern: " + p)
		}
	case []any:
		size, isSize = float64(len(x)), true
	case map[string]any:
		size, isSize = float64(len(x)), true
	}
	for name, n := range map[string]any{"smithy.api#length": size, "smithy.api#range": v} {
		raw, ok := traits[name]
		x, number := n.(float64)
		if !ok || !number || name == "smithy.api#length" && !isSize {
			continue
		}
		var b bounds
		if err := json.Unmarshal(raw, &b); err != nil {
			return err
		}
		if b.Min != nil && x < *b.Min || b.Max != nil && x > *b.Max {
			return bad(name + " " + string(raw))
		}
	}
	return nil
}
