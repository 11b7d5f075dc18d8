package ecslog

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
)

// CheckLine tells what is wrong with a line of the log: a field that is not one of the schema's that this program writes, a
// value of another type, a category or type of event that the schema does not allow together. Tests of other packages use it.
func CheckLine(raw []byte) error {
	m, err := checkFields(raw)
	if err != nil {
		return err
	}
	return checkEvent(m)
}

func checkFields(raw []byte) (map[string]any, error) {
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	for _, k := range []string{"@timestamp", "log.level", "ecs.version"} {
		if _, ok := m[k]; !ok {
			return nil, fmt.Errorf("%s is missing", k)
		}
	}
	for k, v := range m {
		if k == "labels" {
			o, ok := v.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("labels is no object")
			}
			for l, x := range o {
				if _, ok := x.(string); !ok {
					return nil, fmt.Errorf("labels.%s is no string", l)
				}
			}
			continue
		}
		t, ok := fields[k]
		if !ok {
			return nil, fmt.Errorf("%s is no field of the schema that is written here", k)
		}
		if !fits(t, v) {
			return nil, fmt.Errorf("%s: %v is of another type", k, v)
		}
	}
	return m, nil
}

func fits(t kind, v any) bool {
	s, isString := v.(string)
	switch t {
	case long:
		n, ok := v.(float64)
		return ok && n == math.Trunc(n)
	case date:
		_, err := time.Parse(time.RFC3339Nano, s)
		return isString && err == nil
	case ip:
		_, err := netip.ParseAddr(s)
		return isString && err == nil
	case list:
		l, ok := v.([]any)
		return ok && !slices.ContainsFunc(l, func(x any) bool { _, ok := x.(string); return !ok })
	}
	return isString
}

// eventTypes are the types that the schema expects with the categories used here.
var eventTypes = map[string][]string{
	"configuration": {"access", "change", "creation", "deletion", "info"},
	"package":       {"access", "change", "deletion", "info", "installation", "start"},
	"process":       {"access", "change", "end", "info", "start"},
	"web":           {"access", "error", "info"},
}

func checkEvent(m map[string]any) error {
	if k, ok := m["event.kind"]; ok && k != "event" && k != "alert" && k != "state" && k != "metric" {
		return fmt.Errorf("event.kind %v", k)
	}
	if o, ok := m["event.outcome"]; ok && o != "success" && o != "failure" && o != "unknown" {
		return fmt.Errorf("event.outcome %v", o)
	}
	categories, _ := m["event.category"].([]any)
	types, _ := m["event.type"].([]any)
	for _, c := range categories {
		expected, ok := eventTypes[fmt.Sprint(c)]
		if !ok {
			return fmt.Errorf("event.category %v", c)
		}
		for _, t := range types {
			if !slices.Contains(expected, fmt.Sprint(t)) {
				return fmt.Errorf("event.type %v in category %v", t, c)
			}
		}
	}
	return nil
}
