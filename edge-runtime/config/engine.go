package config

import (
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
)

// Engine bounds models and says how they are executed. What is not given has the defaults of docs/edge.md.
type Engine struct {
	Mode        string   `json:"mode,omitempty"` // auto, compiler, interpreter
	MemoryLimit uint64   `json:"memory_limit,omitempty"`
	TimeLimit   Duration `json:"time_limit,omitzero"` // of one call
	Instances   int      `json:"instances,omitempty"`
	Threads     int      `json:"threads,omitempty"`
	Weights     string   `json:"weights,omitempty"`    // map (default): pages of the file; copy: read once, for media that may go away
	CacheLimit  byteSize `json:"cache_limit,omitzero"` // of compiled models on disk; what was not used for longest goes first
	Integrity   string   `json:"integrity,omitempty"`  // of weights; start (default): hashed whenever they are loaded; install: when they arrive only
}

func (c *Engine) check() error {
	if _, err := engine.ParseMode(c.Mode); err != nil {
		return diag.Errorf("engine.mode: %w", err)
	}
	if c.Instances < 0 || c.Threads < 0 {
		return diag.Errorf("engine: instances or threads below 0")
	}
	if c.Weights != "" && c.Weights != "map" && c.Weights != "copy" {
		return diag.Errorf("engine.weights is %q: map or copy", c.Weights)
	}
	if c.Integrity != "" && c.Integrity != "start" && c.Integrity != "install" {
		return diag.Errorf("engine.integrity is %q: start or install", c.Integrity)
	}
	return nil
}

// Limits is the part of the engine's configuration that comes from the file.
func (c *Engine) Limits() (engine.Config, error) {
	mode, err := engine.ParseMode(c.Mode)
	return engine.Config{Mode: mode, MemoryLimit: c.MemoryLimit, TimeLimit: time.Duration(c.TimeLimit), Instances: c.Instances, Threads: c.Threads, CacheLimit: int64(min(c.CacheLimit, 1<<62))}, err
}

// Source is where the weights of a layer come from: a file of the agent's own directory.
func (c *Engine) Source(path string) engine.WeightsSource {
	return engine.WeightsSource{Path: path, Copy: c.Weights == "copy", Trusted: c.Integrity == "install", Private: true}
}
