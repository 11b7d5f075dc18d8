package project

import (
	"github.com/goccy/go-yaml/ast"

	"github.com/waybill-ml/waybill/packager/steps"
)

// audio reads the configuration of the built-in step audio. Settings that depend on each other are checked when the step is made.
func (r *reader) audio(config ast.Node) *steps.AudioConfig {
	c := &steps.AudioConfig{}
	set := map[string]bool{}
	r.mapping(config, "config", []string{"rate", "source_rate", "channel", "scale", "length", "max_samples", "resample", "preemphasis", "preemphasis_of",
		"remove_dc", "frame", "hop", "fft", "window", "symmetric", "align", "frames", "pad", "drop_last", "output", "power", "scaling", "mel", "mfcc",
		"log", "floor", "add", "range", "reference", "normalize", "mean", "std", "layout"}, func(key string, v ast.Node) {
		set[key] = true
		switch key {
		case "rate":
			c.Rate = r.integer(v, key, steps.MinRate, steps.MaxRate)
		case "source_rate":
			c.SourceRate = r.integer(v, key, steps.MinRate, steps.MaxRate)
		case "channel":
			c.Channel = r.integer(v, key, 0, 65534) + 1
		case "scale":
			c.Scale = r.above(v, key)
		case "length":
			c.Length = r.integer(v, key, 1, steps.MaxSamples)
		case "max_samples":
			c.MaxSamples = r.integer(v, key, 1, steps.MaxSamples)
		case "resample":
			r.mapping(v, key, []string{"zeros", "rolloff"}, func(key string, v ast.Node) {
				if key == "zeros" {
					c.Zeros = r.integer(v, key, 1, 64)
				} else {
					c.Rolloff = r.above(v, key)
				}
			})
		case "preemphasis":
			c.PreEmphasis = r.signed(v, key)
		case "preemphasis_of":
			c.PreEmphasisFrame = r.choice(v, key, "signal", "frame") == "frame"
		case "remove_dc":
			c.RemoveDC = r.boolean(v, key)
		case "frame":
			c.Frame = r.integer(v, key, 1, steps.MaxFFT)
		case "hop":
			c.Hop = r.integer(v, key, 1, steps.MaxSamples)
		case "fft":
			c.FFT = r.integer(v, key, 1, steps.MaxFFT)
		case "symmetric":
			c.Symmetric = r.boolean(v, key)
		case "align":
			c.AlignStart = r.choice(v, key, "center", "start") == "start"
		case "drop_last":
			c.DropLast = r.boolean(v, key)
		case "window":
			c.Window = r.choice(v, key, steps.AudioChoices(key)...)
		case "frames":
			c.Frames = r.choice(v, key, steps.AudioChoices(key)...)
		case "pad":
			c.Pad = r.choice(v, key, steps.AudioChoices(key)...)
		case "output":
			c.Output = r.choice(v, key, steps.AudioChoices(key)...)
		case "scaling":
			c.Scaling = r.choice(v, key, steps.AudioChoices(key)...)
		case "log":
			c.Log = r.choice(v, key, steps.AudioChoices(key)...)
		case "layout":
			c.Layout = r.choice(v, key, steps.AudioChoices(key)...)
		case "power":
			c.Power = r.integer(v, key, 1, 2)
		case "mel":
			r.mel(v, c)
		case "mfcc":
			r.mapping(v, key, []string{"count", "norm", "lifter"}, func(key string, v ast.Node) {
				switch key {
				case "count":
					c.Coefs = r.integer(v, key, 1, steps.MaxCoefs)
				case "norm":
					c.NoOrtho = r.choice(v, key, "ortho", "none") == "none"
				case "lifter":
					c.Lifter = r.above(v, key)
				}
			})
		case "floor":
			c.Floor = r.above(v, key)
		case "add":
			c.Add = r.above(v, key)
		case "range":
			c.Range = r.above(v, key)
		case "reference":
			if isText(v) {
				c.RefMax = r.choice(v, key, "max") == "max"
			} else {
				c.Reference = r.above(v, key)
			}
		case "normalize":
			r.normalize(v, c)
		case "mean":
			c.Mean = r.signed(v, key)
		case "std":
			c.Std = r.above(v, key)
		}
	})
	need := []string{"rate", "output"}
	if c.Output != "waveform" {
		need = append(need, "frame", "hop")
	}
	for _, k := range need {
		if r.err == nil && !set[k] {
			r.fail(config, "config: key %q is missing", k)
		}
	}
	return c
}

func (r *reader) mel(n ast.Node, c *steps.AudioConfig) {
	r.mapping(n, "mel", []string{"count", "fmin", "fmax", "scale", "norm", "shape"}, func(key string, v ast.Node) {
		switch key {
		case "count":
			c.Mels = r.integer(v, key, 1, steps.MaxMels)
		case "fmin":
			c.FMin = r.signed(v, key)
		case "fmax":
			c.FMax = r.above(v, key)
		case "scale":
			c.MelScale = r.choice(v, key, "htk", "slaney")
		case "norm":
			c.MelArea = r.choice(v, key, "none", "slaney") == "slaney"
		case "shape":
			c.MelStraight = r.choice(v, key, "hz", "mel") == "mel"
		}
	})
}

func (r *reader) normalize(n ast.Node, c *steps.AudioConfig) {
	c.Normalize = "feature"
	r.mapping(n, "normalize", []string{"of", "variance", "ddof", "epsilon", "epsilon_of"}, func(key string, v ast.Node) {
		switch key {
		case "of":
			c.Normalize = r.choice(v, key, "feature", "all")
		case "variance":
			c.MeanOnly = !r.boolean(v, key)
		case "ddof":
			c.DDof = r.integer(v, key, 0, 1)
		case "epsilon":
			c.Epsilon = r.above(v, key)
		case "epsilon_of":
			c.EpsilonStd = r.choice(v, key, "variance", "std") == "std"
		}
	})
}

// above reads a number above zero.
func (r *reader) above(n ast.Node, what string) float64 {
	v := r.signed(n, what)
	if r.err == nil && v <= 0 {
		r.fail(n, "%s is %v, it must be above zero", what, v)
	}
	return v
}
