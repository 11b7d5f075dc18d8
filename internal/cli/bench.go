package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/oip"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func benchCommand() Command {
	return Command{
		Name: "bench", Group: Build, Summary: "measure latency, throughput, load time and memory of a model",
		Args: "[MODEL|PROJECT|REF]", Max: 1,
		Long: `Runs the model on one golden vector, or on generated values where there is none, one call after the other. Times are
of the calls alone; loading is measured apart. With steps around the model, each one's share of the time is told.
peak_rss_bytes is of this whole process, compiler included: measure a REF to leave the compiler out.`,
		Examples: []string{
			"waybill bench churn:1.0",
			"waybill bench model.onnx --batch 64 --duration 5s --output json",
			"waybill bench model.onnx --profile",
		},
		Flags: []ucli.Flag{
			&ucli.Int64Flag{Name: "batch", Value: 1, Usage: "`N` rows per call, where the model takes any number"},
			&ucli.IntFlag{Name: "threads", Value: 1, Usage: "`N` threads within one call"},
			&ucli.DurationFlag{Name: "duration", Value: 3 * time.Second, Usage: "`TIME` to measure for"},
			&ucli.BoolFlag{Name: "profile", Usage: "tell which nodes take the time, the longest resume, and how late a ticker of the host gets"},
			engineFlag(),
		},
		Exits: []diag.Code{diag.Verification, diag.Unsupported, diag.Registry, diag.NotFound},
		See:   []string{"test", "predict"},
		Run:   runBench,
	}
}

type benchJSON struct {
	Schema          string       `json:"schema"`
	Model           string       `json:"model"`
	Engine          string       `json:"engine"`
	Batch           int64        `json:"batch"`
	Threads         int          `json:"threads"`
	Calls           int          `json:"calls"`
	Latency         benchLatency `json:"latency_ns"`
	PerSecond       float64      `json:"per_second"` // calls times batch
	LoadMS          float64      `json:"load_ms"`
	FirstPrediction float64      `json:"first_prediction_ms"` // load and first call
	Steps           []benchStep  `json:"steps,omitempty"`     // the chain, when there is more than the model
	PeakRSS         int64        `json:"peak_rss_bytes"`
	ModuleBytes     int          `json:"module_bytes"`
	WeightsBytes    int          `json:"weights_bytes"`

	Profile *benchProfile `json:"profile,omitempty"`
}

type benchStep struct {
	Name  string  `json:"name"`
	Kind  string  `json:"kind"`
	Mean  int64   `json:"mean_ns"` // of a call
	Share float64 `json:"share"`   // of the time that the chain's modules worked, 0 to 1
}

type benchLatency struct {
	Min int64 `json:"min"`
	P50 int64 `json:"p50"`
	P99 int64 `json:"p99"`
}

func runBench(ctx context.Context, c *Call) error {
	cfg, err := engineConfig(c)
	if err != nil {
		return err
	}
	if c.Int64("batch") < 1 || c.Int("threads") < 1 || c.Duration("duration") <= 0 {
		return diag.New(diag.Usage, "bench: --batch, --threads and --duration must be above zero")
	}
	cfg.Threads, cfg.Instances = c.Int("threads"), 1
	t, err := openTarget(ctx, c, c.Arg(0))
	if err != nil {
		return err
	}
	ins, made, batched, err := benchInputs(t, c.Int64("batch"))
	if err != nil {
		return diag.Wrap(diag.Usage, err, "bench")
	}
	if !batched && c.Int64("batch") != 1 {
		return diag.New(diag.Usage, "bench: --batch %d, and the artifact takes one at a time", c.Int64("batch"))
	}
	tensors, err := ordered(t.Interface.Inputs, ins)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "bench")
	}
	out := benchJSON{
		Schema: schemaBase + "bench/v1", Model: t.Name, Batch: c.Int64("batch"), Threads: c.Int("threads"),
		ModuleBytes: len(t.Code), WeightsBytes: len(t.Weights),
	}
	start := time.Now() // a measurement, not a fact: the injected clock need not be a fine one
	l, err := runner{cfg}.load(ctx, t.Module)
	if err != nil {
		return err
	}
	defer l.Close(context.WithoutCancel(ctx))
	out.Engine = l.engine.Mode().String()
	out.LoadMS = ms(time.Since(start))
	if _, err := l.Run(ctx, tensors); err != nil {
		if d, ok := errors.AsType[*diag.Error](runError(ctx, err, "bench")); ok && made {
			return d.Hint("bench a project with golden vectors: the values were made up")
		}
		return runError(ctx, err, "bench")
	}
	out.FirstPrediction = ms(time.Since(start))
	warm := time.Now()
	for i := 0; i < 1000 && time.Since(warm) < c.Duration("duration")/10; i++ {
		if _, err := l.Run(ctx, tensors); err != nil {
			return runError(ctx, err, "bench")
		}
	}
	var times []int64
	spent := make([]time.Duration, len(t.Interface.Steps))
	begin := time.Now()
	for len(times) < 1 || time.Since(begin) < c.Duration("duration") {
		s := time.Now()
		if _, err := l.RunEach(ctx, tensors, spent); err != nil {
			return runError(ctx, err, "bench")
		}
		times = append(times, time.Since(s).Nanoseconds())
	}
	total := time.Since(begin)
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	out.Calls = len(times)
	out.Latency = benchLatency{times[0], times[len(times)/2], times[min(len(times)-1, int(math.Ceil(float64(len(times))*0.99))-1)]}
	out.PerSecond = float64(len(times)) * float64(out.Batch) / total.Seconds()
	out.Steps = benchSteps(t.Interface.Steps, spent, len(times))
	out.PeakRSS = peakRSS()
	if c.Bool("profile") {
		if out.Profile, err = profile(ctx, cfg, t.Module, tensors, c.Duration("duration")); err != nil {
			return runError(ctx, err, "bench")
		}
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	d := func(n int64) string { return ui.Duration(time.Duration(n)) }
	c.UI.Say("%s  %s, batch %d, %s, %s calls", c.UI.Err.Bold(t.Name), out.Engine, out.Batch, ui.Plural(out.Threads, "thread"), ui.Count(int64(out.Calls)))
	table := [][]string{
		{"latency", fmt.Sprintf("min %s, p50 %s, p99 %s", d(out.Latency.Min), d(out.Latency.P50), d(out.Latency.P99))},
		{"rate", fmt.Sprintf("%s rows/s", ui.Count(int64(out.PerSecond)))},
		{"load", fmt.Sprintf("%.1f ms, first prediction after %.1f ms", out.LoadMS, out.FirstPrediction)},
		{"memory", fmt.Sprintf("peak %s of this process", ui.Bytes(out.PeakRSS))},
		{"size", fmt.Sprintf("module %s, weights %s", ui.Bytes(int64(out.ModuleBytes)), ui.Bytes(int64(out.WeightsBytes)))},
	}
	for _, st := range out.Steps {
		table = append(table, []string{st.Kind, fmt.Sprintf("%s: %s, %.1f %% of the time", st.Name, d(st.Mean), st.Share*100)})
	}
	ui.Table(c.UI.Out, false, table)
	if out.Profile != nil {
		out.Profile.print(c.UI)
	}
	return nil
}

// benchSteps tells how the time is shared among the members of a chain; nil for a model alone.
func benchSteps(steps []artifact.Step, spent []time.Duration, calls int) []benchStep {
	if len(steps) < 2 {
		return nil
	}
	var total time.Duration
	for _, s := range spent {
		total += s
	}
	var out []benchStep
	for i, s := range steps {
		out = append(out, benchStep{s.Name, s.Kind, int64(spent[i]) / int64(calls), float64(spent[i]) / float64(max(total, 1))})
	}
	return out
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// benchInputs takes the first golden vector, its rows repeated or cut to the batch, else makes values up. made tells
// that it did, batched that an input has rows.
func benchInputs(t *target, batch int64) (out []artifact.GoldenTensor, made, batched bool, err error) {
	var given []artifact.GoldenTensor
	if t.Golden != nil && len(t.Golden.Vectors) > 0 {
		given = t.Golden.Vectors[0].Inputs
	} else if t.Input != nil {
		if v, err := t.Input.Vectors(); err != nil {
			return nil, false, false, err
		} else if v != nil {
			given = v.Vectors[0].Inputs
		}
	}
	seed := uint64(1)
	for _, p := range t.Interface.Inputs {
		rows := hasRows(t.Interface, p)
		batched = batched || rows
		var from *artifact.GoldenTensor
		for i := range given {
			if given[i].Name == p.Name {
				from = &given[i]
			}
		}
		if from != nil {
			g := *from
			if rows && len(g.Shape) > 0 && g.Shape[0] > 0 {
				g = rowsOf(g, batch)
			}
			out = append(out, g)
			continue
		}
		made = true
		g, err := makeUp(p, batch, &seed)
		if err != nil {
			return nil, false, false, err
		}
		out = append(out, g)
	}
	return out, made, batched, nil
}

// hasRows tells whether the first dimension of an input is the batch: it is open, and the model itself is the first to read the
// input, or a step that gives something by the same symbol. The length of a file or a sound is no batch.
func hasRows(f *artifact.Interface, p artifact.Port) bool {
	if len(p.Shape) == 0 || p.Shape[0].Size >= 0 {
		return false
	}
	for _, s := range f.Steps {
		if !slices.ContainsFunc(s.Inputs, func(in artifact.Port) bool { return in.Name == p.Name }) {
			continue
		}
		sym := p.Shape[0].Sym
		return s.Kind == "model" || sym != "" &&
			slices.ContainsFunc(s.Outputs, func(o artifact.Port) bool { return len(o.Shape) > 0 && o.Shape[0].Sym == sym })
	}
	return false
}

// rowsOf repeats or cuts the rows of a tensor to n.
func rowsOf(g artifact.GoldenTensor, n int64) artifact.GoldenTensor {
	have := g.Shape[0]
	out := g
	out.Shape = append([]int64{n}, g.Shape[1:]...)
	out.Data, out.Strings = nil, nil
	for r := range n {
		i := r % have
		if g.DType == "string" {
			per := int64(len(g.Strings)) / have
			out.Strings = append(out.Strings, g.Strings[i*per:(i+1)*per]...)
		} else {
			per := int64(len(g.Data)) / have
			out.Data = append(out.Data, g.Data[i*per:(i+1)*per]...)
		}
	}
	return out
}

// makeUp fills an input with values from 0 to 1, integers with zeros. The first open dimension is the batch, the others 1.
func makeUp(p artifact.Port, batch int64, seed *uint64) (artifact.GoldenTensor, error) {
	if p.Kind != "tensor" || !p.Ranked {
		return artifact.GoldenTensor{}, fmt.Errorf("input %q has no fixed form to make values for: bench a project with golden vectors", p.Name)
	}
	g := artifact.GoldenTensor{Name: p.Name, Kind: "tensor", DType: p.DType, Shape: []int64{}}
	for i, d := range p.Shape {
		switch {
		case d.Size >= 0:
			g.Shape = append(g.Shape, d.Size)
		case i == 0:
			g.Shape = append(g.Shape, batch)
		default:
			g.Shape = append(g.Shape, 1)
		}
	}
	n, err := oip.Elements(g.Shape)
	if err != nil {
		return g, err
	}
	if g.DType == "string" {
		g.Strings = make([]string, n)
		return g, nil
	}
	for range n {
		*seed = *seed*6364136223846793005 + 1442695040888963407
		v := "0"
		if g.DType == "f32" || g.DType == "f64" {
			v = fmt.Sprintf("%.6f", float64(*seed>>40)/float64(1<<24))
		}
		if oip.Datatype(g.DType) == "" {
			return g, fmt.Errorf("input %q of %s: bench a project with golden vectors", p.Name, g.DType)
		}
		if err := oip.AppendNumber(&g, v); err != nil {
			return g, err
		}
	}
	return g, nil
}
