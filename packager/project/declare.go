package project

import (
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// word reads one of a few words.
func (r *reader) word(n ast.Node, what string, allowed ...string) string {
	s := r.text(n, what, false)
	if r.err == nil && !slices.Contains(allowed, s) {
		r.fail(n, "%s is %q, allowed are %s", what, s, strings.Join(allowed, ", "))
	}
	return s
}

// day reads a date, or a date and time as RFC 3339 has it; a date alone is its midnight in UTC.
func (r *reader) day(n ast.Node, what string) *time.Time {
	s := r.text(n, what, false)
	if r.err != nil {
		return nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil && t.UTC().Year() > 0 && t.UTC().Year() <= 9999 {
			t = t.UTC().Truncate(time.Second)
			return &t
		}
	}
	r.fail(n, "%s is %q, not a date like 2026-11-23 or a time like 2026-11-23T09:00:00Z", what, s)
	return nil
}

func (r *reader) baseModel(n ast.Node) BaseModel {
	var m BaseModel
	r.mapping(n, "base model", []string{"name", "version", "digest", "license", "uri"}, func(key string, v ast.Node) {
		switch key {
		case "name":
			m.Name = r.text(v, key, false)
		case "version":
			m.Version = r.text(v, key, true)
		case "digest":
			d, err := artifact.ParseDigest(r.text(v, key, false))
			if r.err == nil && err != nil {
				r.fail(v, "digest: %v", err)
			}
			m.Digest = d
		case "license":
			m.License = r.license(v)
		case "uri":
			m.URI = r.text(v, key, false)
		}
	})
	if r.err == nil && m.Name == "" {
		r.fail(n, "base model: key \"name\" is missing")
	}
	return m
}

// activities are those of CycloneDX's energyConsumption.
func activities() []string {
	return []string{"design", "data-collection", "data-preparation", "training", "fine-tuning", "validation", "deployment", "inference", "other"}
}

func (r *reader) fairness(n ast.Node) Fairness {
	var f Fairness
	r.mapping(n, "fairness entry", []string{"group", "harms", "mitigation"}, func(key string, v ast.Node) {
		switch key {
		case "group":
			f.Group = r.text(v, key, false)
		case "harms":
			f.Harms = r.text(v, key, false)
		case "mitigation":
			f.Mitigation = r.text(v, key, false)
		}
	})
	if r.err == nil && f.Group == "" {
		r.fail(n, "fairness entry: key \"group\" is missing")
	}
	return f
}

func (r *reader) energy(n ast.Node) Energy {
	e, given := Energy{}, false
	r.mapping(n, "energy entry", []string{"activity", "kwh"}, func(key string, v ast.Node) {
		if key == "activity" {
			e.Activity = r.word(v, key, activities()...)
		} else {
			e.KWh, given = r.number(v, key), true
		}
	})
	if r.err == nil && (e.Activity == "" || !given) {
		r.fail(n, "an energy entry needs the keys \"activity\" and \"kwh\"")
	}
	return e
}
