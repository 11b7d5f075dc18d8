package project

import (
	"github.com/goccy/go-yaml/ast"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/steps"
)

// Step is a pre- or postprocessing module. Its guest sees inputs and outputs by position; their names are those of the
// chain's values, so that naming a value is all the wiring there is.
type Step struct {
	Name      string
	File      string             // path of the .wasm module; empty for a built-in step
	TopK      *TopK              // the built-in topk
	Image     *steps.ImageConfig // the built-in image
	Audio     *steps.AudioConfig // the built-in audio
	Tokenizer string             // the built-in text: path of its tokenizer.json
	After     bool               // it runs after the model
	Reentrant bool               // an instance may serve several calls
	Inputs    []StepPort
	Outputs   []StepPort
	Keep      []string // inputs that stay outputs of the artifact though this step reads them
	Loc       diag.Loc
}

// TopK configures the built-in topk: the K best of each row of scores, with the classes' names where they are known.
type TopK struct {
	K          int64
	Labels     []string // in the model's order
	LabelsFile string   // instead of Labels: a file with one a line
}

// StepPort is one input or output of a step.
type StepPort struct {
	Name   string
	DType  string // as ir prints it; empty for an input that takes the type of the value it names, and for a tokenizer's output that takes that of the model's input
	Ranked bool   // false: any rank, Shape is empty
	Shape  []artifact.Dim
	Loc    diag.Loc
}

// maxRank is the largest rank of the ABI.
const maxRank = 8

func stepTypes() []string {
	return []string{"f32", "f64", "f16", "bf16", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "bool", "string"}
}

func (r *reader) steps(n ast.Node) []Step {
	var out []Step
	seen := map[string]bool{}
	r.sequence(n, "steps", func(_ int, v ast.Node) {
		s := r.step(v)
		switch {
		case r.err != nil:
		case seen[s.Name]:
			r.fail(v, "steps: two are named %q", s.Name)
		case !s.After && len(out) > 0 && out[len(out)-1].After:
			r.fail(v, "step %q runs before the model and stands behind one that runs after it", s.Name)
		}
		seen[s.Name] = true
		out = append(out, s)
	})
	return out
}

func (r *reader) step(n ast.Node) Step {
	s := Step{Loc: r.loc(n)}
	set := map[string]bool{}
	builtin := ""
	var config ast.Node
	r.mapping(n, "step", []string{"name", "file", "builtin", "config", "when", "reentrant", "inputs", "outputs", "keep"}, func(key string, v ast.Node) {
		set[key] = true
		switch key {
		case "name":
			s.Name = r.checked(v, "step name", true, CheckName)
		case "file":
			s.File, s.Loc = r.path(v, "step file"), r.loc(v)
		case "builtin":
			builtin, s.Loc = r.choice(v, "builtin", "topk", "image", "text", "audio"), r.loc(v)
		case "config":
			config = v
		case "when":
			switch w := r.text(v, "when", false); {
			case r.err != nil:
			case w == "after":
				s.After = true
			case w != "before":
				r.fail(v, "when is %q, allowed are before and after", w)
			}
		case "reentrant":
			s.Reentrant = r.boolean(v, "reentrant")
		case "inputs":
			s.Inputs = r.stepPorts(v, "inputs", "input")
		case "outputs":
			s.Outputs = r.stepPorts(v, "outputs", "output")
		case "keep":
			s.Keep = r.texts(v, "keep")
		}
	})
	if set["builtin"] {
		r.builtin(n, &s, builtin, config, set)
		set["file"] = true
	} else if r.err == nil && config != nil {
		r.fail(config, "config goes with builtin")
	}
	for _, k := range []string{"name", "file", "inputs", "outputs"} {
		if r.err == nil && !set[k] {
			r.fail(n, "step: key %q is missing", k)
		}
	}
	for _, p := range s.Outputs {
		if r.err == nil && p.DType == "" && (s.Tokenizer == "" || s.After) {
			r.err = diag.New(diag.Usage, "output %q needs a type: {name: %s, type: f32, shape: [N]}", p.Name, p.Name).At(p.Loc)
		}
	}
	for _, k := range s.Keep {
		found := false
		for _, p := range s.Inputs {
			found = found || p.Name == k
		}
		if r.err == nil && !found {
			r.fail(n, "keep: %q is no input of the step", k)
		}
	}
	return s
}

// builtin reads the configuration of a built-in step.
func (r *reader) builtin(n ast.Node, s *Step, name string, config ast.Node, set map[string]bool) {
	if r.err != nil {
		return
	}
	if set["file"] {
		r.fail(n, "a step has either the key \"file\" or \"builtin\"")
		return
	}
	if config == nil {
		r.fail(n, "step: builtin %s needs the key \"config\"", name)
		return
	}
	s.Reentrant = true
	if name == "topk" {
		s.TopK = &TopK{}
		r.mapping(config, "config", []string{"k", "labels"}, func(key string, v ast.Node) {
			switch {
			case key == "k":
				s.TopK.K = r.integer(v, "k", 1, steps.MaxK)
			case isText(v):
				s.TopK.LabelsFile = r.path(v, "labels")
				s.Loc = r.loc(v)
			default:
				s.TopK.Labels = r.texts(v, "labels")
			}
		})
		if r.err == nil && s.TopK.K == 0 {
			r.fail(config, "config: key \"k\" is missing")
		}
		return
	}
	if name == "audio" {
		s.Audio = r.audio(config)
		return
	}
	if name == "text" {
		r.mapping(config, "config", []string{"tokenizer"}, func(_ string, v ast.Node) {
			s.Tokenizer, s.Loc = r.path(v, "tokenizer"), r.loc(v)
		})
		if r.err == nil && s.Tokenizer == "" {
			r.fail(config, "config: key \"tokenizer\" is missing")
		}
		return
	}
	c := &steps.ImageConfig{Std: [3]float64{1, 1, 1}}
	s.Image = c
	r.mapping(config, "config", []string{"width", "height", "mean", "std", "layout", "channels", "orientation", "max_pixels"}, func(key string, v ast.Node) {
		switch key {
		case "width":
			c.Width = r.integer(v, key, 1, steps.MaxSide)
		case "height":
			c.Height = r.integer(v, key, 1, steps.MaxSide)
		case "mean":
			c.Mean = r.three(v, key)
		case "std":
			c.Std = r.three(v, key)
			for _, x := range c.Std {
				if r.err == nil && x <= 0 {
					r.fail(v, "std is %v, each must be above zero", c.Std)
				}
			}
		case "layout":
			c.ChannelsLast = r.choice(v, key, "nchw", "nhwc") == "nhwc"
		case "channels":
			c.BGR = r.choice(v, key, "rgb", "bgr") == "bgr"
		case "orientation":
			c.Turn = r.choice(v, key, "stored", "exif") == "exif"
		case "max_pixels":
			c.MaxPixels = r.integer(v, key, 1, 1<<27)
		}
	})
	if r.err == nil && (c.Width == 0 || c.Height == 0) {
		r.fail(config, "config: the keys \"width\" and \"height\" are needed")
	}
}

// three reads one number for each channel.
func (r *reader) three(n ast.Node, what string) [3]float64 {
	var out [3]float64
	count := 0
	r.sequence(n, what, func(i int, v ast.Node) {
		if count++; i < 3 {
			out[i] = r.signed(v, what)
		}
	})
	if r.err == nil && count != 3 {
		r.fail(n, "%s has %d numbers, one for each of 3 channels is needed", what, count)
	}
	return out
}

func isText(n ast.Node) bool {
	_, ok := n.(*ast.StringNode)
	return ok
}

func (r *reader) boolean(n ast.Node, what string) bool {
	if r.err != nil {
		return false
	}
	b, ok := n.(*ast.BoolNode)
	if !ok {
		r.fail(n, "%s must be true or false, not %s", what, kind(n))
		return false
	}
	return b.Value
}

// stepPorts reads a list of names, or of mappings {name, type, shape}.
func (r *reader) stepPorts(n ast.Node, what, one string) []StepPort {
	out := []StepPort{}
	seen := map[string]bool{}
	r.sequence(n, what, func(_ int, v ast.Node) {
		p := StepPort{Loc: r.loc(v)}
		switch v.(type) {
		case *ast.MappingNode, *ast.MappingValueNode:
			r.mapping(v, one, []string{"name", "type", "shape"}, func(key string, w ast.Node) {
				switch key {
				case "name":
					p.Name, p.Loc = r.text(w, "name", true), r.loc(w)
				case "type":
					p.DType = r.text(w, "type", false)
					if r.err == nil && !contains(stepTypes(), p.DType) {
						e := r.fail(w, "type is %q, which is no element type", p.DType)
						e.Line("types: %v", stepTypes())
					}
				case "shape":
					p.Ranked, p.Shape = true, r.shape(w)
				}
			})
			switch {
			case r.err != nil:
			case p.Name == "":
				r.fail(v, "%s: key \"name\" is missing", one)
			case p.DType == "" && p.Ranked:
				r.fail(v, "%s %q: a shape needs a type", one, p.Name)
			}
		default:
			p.Name = r.text(v, one, true)
		}
		if r.err == nil && seen[p.Name] {
			r.fail(v, "%s: %q is given twice", what, p.Name)
		}
		seen[p.Name] = true
		out = append(out, p)
	})
	if r.err == nil && len(out) == 0 {
		r.fail(n, "%s is empty", what)
	}
	return out
}

// shape reads a list of sizes: a number, -1 for one that varies, or a symbol that stands for one size per call.
func (r *reader) shape(n ast.Node) []artifact.Dim {
	out := []artifact.Dim{}
	r.sequence(n, "shape", func(_ int, v ast.Node) {
		switch v.(type) {
		case *ast.IntegerNode:
			out = append(out, artifact.Dim{Size: r.integer(v, "size", -1, 1<<40)})
		default:
			out = append(out, artifact.Dim{Size: -1, Sym: r.text(v, "size", false)})
		}
	})
	if r.err == nil && len(out) > maxRank {
		r.fail(n, "shape has %d dimensions, at most %d dimensions are possible", len(out), maxRank)
	}
	return out
}
