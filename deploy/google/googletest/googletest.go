// Package googletest holds what local servers of Google's services have in common: Google's own descriptions of its APIs, which the
// clients' module ships, to hold requests and answers against, and its form of errors. For tests only.
package googletest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Discovery is Google's own description of the API, which the client's module ships.
type Discovery struct {
	Schemas    map[string]*schema
	Parameters map[string]any
	Resources  map[string]resource
	methods    []method
}

type resource struct {
	Methods   map[string]method
	Resources map[string]resource
}

type method struct {
	ID, HTTPMethod, FlatPath string
	Parameters               map[string]struct{ Location, Type string }
	Request, Response        struct {
		Ref string `json:"$ref"`
	}
	path  *regexp.Regexp
	parts int // of the path: most methods are told apart by it, without the slower expression
}

type schema struct {
	Ref                  string `json:"$ref"`
	Type, Format         string
	Properties           map[string]*schema
	Items                *schema
	AdditionalProperties *schema
	Enum                 []string
	ReadOnly             bool
}

var module = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "google.golang.org/api").Output()
	if err != nil {
		return "", fmt.Errorf("go list -m google.golang.org/api: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
})

// Load reads the document of an API, as in run/v2/run-api.json. It takes a while for a large one: a test does it once.
func Load(path string) (*Discovery, error) {
	dir, err := module()
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(path)))
	if err != nil {
		return nil, err
	}
	d := &Discovery{}
	if err := json.Unmarshal(raw, d); err != nil {
		return nil, err
	}
	var walk func(rs map[string]resource)
	walk = func(rs map[string]resource) {
		for _, r := range rs {
			for _, m := range r.Methods {
				m.path = regexp.MustCompile("^/" + regexp.MustCompile(`\\\{[A-Za-z0-9]+\\\}`).ReplaceAllString(regexp.QuoteMeta(m.FlatPath), "[^/:]+") + "$")
				m.parts = strings.Count("/"+m.FlatPath, "/")
				d.methods = append(d.methods, m)
			}
			walk(r.Resources)
		}
	}
	walk(d.Resources)
	return d, nil
}

// Problem answers with an error in Google's form.
func Problem(w http.ResponseWriter, code int, status, message string, reasons ...string) {
	details := []any{}
	for _, r := range reasons {
		details = append(details, map[string]any{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": r, "domain": "googleapis.com"})
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "status": status, "message": message, "details": details}})
}

// Request finds the method of a request, and holds its parameters and body against it. It gives the method's id and its answer's schema.
func (d *Discovery) Request(r *http.Request, body []byte) (id, answer string, err error) {
	parts := strings.Count(r.URL.Path, "/")
	i := slices.IndexFunc(d.methods, func(m method) bool {
		return m.HTTPMethod == r.Method && m.parts == parts && m.path.MatchString(r.URL.Path)
	})
	if i < 0 {
		return "", "", fmt.Errorf("the API has no %s %s", r.Method, r.URL.Path)
	}
	m := d.methods[i]
	for k, vs := range r.URL.Query() {
		p, ok := m.Parameters[k]
		if _, global := d.Parameters[k]; !global && (!ok || p.Location != "query") {
			return "", "", fmt.Errorf("%s has no parameter %s", m.ID, k)
		}
		if p.Type == "boolean" && vs[0] != "true" && vs[0] != "false" {
			return "", "", fmt.Errorf("%s: %s=%s", m.ID, k, vs[0])
		}
		if k == "updateMask" {
			for _, f := range strings.Split(vs[0], ",") {
				if d.Schemas[m.Request.Ref].Properties[f] == nil {
					return "", "", fmt.Errorf("%s: updateMask names %q", m.ID, f)
				}
			}
		}
	}
	if m.Request.Ref == "" {
		if len(body) > 0 {
			return "", "", fmt.Errorf("%s has no body", m.ID)
		}
		return m.ID, m.Response.Ref, nil
	}
	return m.ID, m.Response.Ref, d.Check(m.Request.Ref, body, false)
}

// Check holds a document against a schema; answer allows what only the platform writes.
func (d *Discovery) Check(name string, raw []byte, answer bool) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return err
	}
	return d.value(&schema{Ref: name}, v, name, answer)
}

var durations = regexp.MustCompile(`^[0-9]+(\.[0-9]{1,9})?s$`)

func (d *Discovery) value(s *schema, v any, at string, answer bool) error {
	if s.Ref != "" {
		if s = d.Schemas[s.Ref]; s == nil {
			return fmt.Errorf("%s: no schema", at)
		}
	}
	bad := func() error { return fmt.Errorf("%s: %v is no %s %s", at, v, s.Type, s.Format) }
	switch s.Type {
	case "object":
		m, ok := v.(map[string]any)
		if !ok {
			return bad()
		}
		for k, x := range m {
			p := s.Properties[k]
			if p == nil {
				p = s.AdditionalProperties
			}
			if p == nil {
				return fmt.Errorf("%s has no field %q", at, k)
			}
			if p.ReadOnly && !answer {
				return fmt.Errorf("%s.%s is written by the platform only", at, k)
			}
			if err := d.value(p, x, at+"."+k, answer); err != nil {
				return err
			}
		}
	case "array":
		l, ok := v.([]any)
		if !ok {
			return bad()
		}
		for i, x := range l {
			if err := d.value(s.Items, x, fmt.Sprintf("%s[%d]", at, i), answer); err != nil {
				return err
			}
		}
	case "string":
		x, ok := v.(string)
		if !ok || s.Enum != nil && !slices.Contains(s.Enum, x) || s.Format == "google-duration" && !durations.MatchString(x) {
			return bad()
		}
		if s.Format == "int64" {
			if _, err := strconv.ParseInt(x, 10, 64); err != nil {
				return bad()
			}
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			return bad()
		}
	case "integer", "number":
		n, ok := v.(json.Number)
		if !ok {
			return bad()
		}
		if _, err := strconv.ParseInt(n.String(), 10, 32); s.Type == "integer" && err != nil {
			return bad()
		}
	}
	return nil
}
