package ir

import "testing"

func TestParseType(t *testing.T) {
	for _, s := range []string{"f32[*]", "i64[]", "seq(f32[2,?])", "optional(seq(string[N]))", "map(i64,f32[])"} {
		got, err := ParseType(s)
		if err != nil || got.String() != s {
			t.Errorf("%s: %s, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "f32", "seq(", "f32[] x", "blob[]"} {
		if got, err := ParseType(s); err == nil {
			t.Errorf("%q gives %s", s, got)
		}
	}
}
