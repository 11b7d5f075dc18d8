package cli

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/targets.md has a table "key of `kind`" for every kind, with a row for every key that its settings have and none that is not there.
func TestDocsNameTargetKeys(t *testing.T) {
	raw, err := os.ReadFile("../../docs/targets.md")
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	names := func(cell string) (out []string) {
		for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
			out = append(out, m[1])
		}
		return out
	}
	got := map[string][]string{}
	var kinds []string // of the table that is being read
	for line := range strings.Lines(string(raw)) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		switch {
		case !strings.HasPrefix(line, "|"):
			kinds = nil
		case strings.HasPrefix(line, "| key of "):
			kinds = names(cell)
		default:
			for _, k := range kinds {
				got[k] = append(got[k], names(cell)...)
			}
		}
	}
	for _, k := range targetKinds() {
		have := got[k.Name]
		if len(have) == 0 {
			t.Errorf("docs/targets.md has no table with the head \"| key of `%s` |\"", k.Name)
			continue
		}
		var want []string
		for st, i := reflect.TypeOf(k.Settings()).Elem(), 0; i < st.NumField(); i++ {
			if name, _, _ := strings.Cut(st.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
				want = append(want, name)
			}
		}
		for _, n := range want {
			if !slices.Contains(have, n) {
				t.Errorf("%s: docs/targets.md has no row for the key `%s`", k.Name, n)
			}
		}
		for _, n := range have {
			if !slices.Contains(want, n) {
				t.Errorf("%s: docs/targets.md has a row for `%s`, which is no key", k.Name, n)
			}
		}
	}
}
