package spdx

import (
	"errors"
	"testing"
)

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"Apache-2.0":        "Apache-2.0",
		"apache-2.0":        "Apache-2.0",
		"MIT OR Apache-2.0": "MIT OR Apache-2.0",
		" (MIT  AND BSD-3-Clause)OR LicenseRef-own ":    "(MIT AND BSD-3-Clause) OR LicenseRef-own",
		"GPL-2.0-or-later WITH Classpath-exception-2.0": "GPL-2.0-or-later WITH Classpath-exception-2.0",
		"EPL-2.0+": "EPL-2.0+",
	} {
		if got, err := Canonical(in); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "MIT OR", "OR MIT", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH", "()", "MIT WITH MIT", "Apache 2.0"} {
		if got, err := Canonical(in); err == nil {
			t.Errorf("%q accepted as %q", in, got)
		}
	}
	var u *UnknownError
	if _, err := Canonical("MIT OR Apache2"); !errors.As(err, &u) || u.ID != "Apache2" {
		t.Errorf("%v", err)
	}
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"MIT", "(MIT OR Apache-2.0) AND EPL-2.0+", "((((", "MIT WITH LLVM-exception", "LicenseRef-a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Canonical(s)
		if err != nil {
			return
		}
		again, err := Canonical(c)
		if err != nil || again != c {
			t.Errorf("%q -> %q -> %q, %v", s, c, again, err)
		}
	})
}
