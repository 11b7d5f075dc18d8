package config

import (
	"strings"
	"testing"
)

func TestEngineConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  Engine
		want string
	}{
		{Engine{Weights: "mmap"}, "map or copy"},
		{Engine{Integrity: "never"}, "start or install"},
		{Engine{Mode: "jit"}, "engine.mode"},
		{Engine{Threads: -1}, "below 0"},
		{Engine{Weights: "copy", Integrity: "install", Mode: "interpreter"}, ""},
	} {
		err := c.cfg.check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
}
