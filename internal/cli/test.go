package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
)

func testCommand() Command {
	return Command{
		Name: "test", Group: Build, Summary: "run test cases through the compiled model",
		Args: "[MODEL|PROJECT|REF]", Max: 1,
		Long: `Of a model file: the ONNX-style cases beside it (test_data_set_*/{input,output}_*.pb), or those of --data. Of a
project or REF: its golden vectors, bit for bit and against the framework's own outputs. With --suite: every folder
below DIR that holds a model with cases. Exit code 1 when a case failed, 5 when none failed but the compiler lacks
something for some.`,
		Examples: []string{
			"waybill test                                  # the golden vectors of the project in this folder",
			"waybill test model.onnx --data cases/",
			"waybill test --suite onnx/backend/test/data/node --output json",
			"waybill test reg.example/ml/churn:1.0",
		},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "data", Usage: "`DIR` with test_data_set_* folders for the model"},
			&ucli.StringFlag{Name: "suite", Usage: "`DIR` whose subfolders are cases"},
			&ucli.Float64Flag{Name: "rtol", Value: 1e-3, Usage: "relative `TOLERANCE` of floats"},
			&ucli.Float64Flag{Name: "atol", Value: 1e-5, Usage: "absolute `TOLERANCE` of floats"},
			&ucli.DurationFlag{Name: "case-timeout", Value: time.Minute, Usage: "`TIME` after which a case has failed"},
			&ucli.IntFlag{Name: "jobs", Usage: "`N` cases of a suite at once (default: the number of cores)"},
			engineFlag(),
		},
		Exits: []diag.Code{diag.Verification, diag.Unsupported, diag.Registry, diag.NotFound},
		See:   []string{"pack", "predict", "bench"},
		Run:   runTest,
	}
}

type testJSON struct {
	Schema      string     `json:"schema"`
	Passed      int        `json:"passed"`
	Failed      int        `json:"failed"`
	Unsupported int        `json:"unsupported"`
	Cases       []testCase `json:"cases"`
}

type testCase struct {
	Name   string `json:"name"`
	Status string `json:"status"` // passed, failed, unsupported
	Detail string `json:"detail"`
}

func runTest(ctx context.Context, c *Call) error {
	cfg, err := engineConfig(c)
	if err != nil {
		return err
	}
	if c.IsSet("suite") && (len(c.Args) > 0 || c.IsSet("data")) {
		return diag.New(diag.Usage, "test: --suite goes without MODEL and --data").Hint("waybill test --suite %s", c.String("suite"))
	}
	if c.Float("rtol") < 0 || c.Float("atol") < 0 || c.Int("jobs") < 0 || c.Duration("case-timeout") <= 0 {
		return diag.New(diag.Usage, "test: --rtol, --atol, --jobs and --case-timeout can't be negative or zero time")
	}
	t := tester{rtol: c.Float("rtol"), atol: c.Float("atol"), timeout: c.Duration("case-timeout")}
	if t.engine, err = newEngine(ctx, cfg); err != nil {
		return diag.Wrap(diag.Failure, err, "start the engine")
	}
	defer t.engine.Close(context.WithoutCancel(ctx))
	out := testJSON{Schema: schemaBase + "test/v1", Cases: []testCase{}}
	if c.IsSet("suite") {
		if out.Cases, err = t.suite(ctx, c); err != nil {
			return err
		}
	} else if out.Cases, err = t.one(ctx, c); err != nil {
		return err
	}
	for _, x := range out.Cases {
		switch x.Status {
		case "passed":
			out.Passed++
		case "failed":
			out.Failed++
		default:
			out.Unsupported++
		}
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(out); err != nil {
			return err
		}
	} else {
		for _, x := range out.Cases {
			switch x.Status {
			case "failed":
				c.UI.Data("%s  %s: %s", c.UI.Out.Red("failed     "), x.Name, x.Detail)
			case "unsupported":
				c.UI.Data("%s  %s: %s", c.UI.Out.Yellow("unsupported"), x.Name, x.Detail)
			default:
				c.UI.Why("passed       %s", x.Name)
			}
		}
		c.UI.Data("%d passed, %d failed, %d unsupported", out.Passed, out.Failed, out.Unsupported)
	}
	switch {
	case out.Failed > 0:
		return diag.New(diag.Failure, "test: %s failed", ui.Plural(out.Failed, "case"))
	case out.Unsupported > 0:
		return diag.New(diag.Unsupported, "test: %s need what the compiler does not support", ui.Plural(out.Unsupported, "case"))
	}
	return nil
}

// tester runs cases on one engine; safe for concurrent use.
type tester struct {
	engine     *engine.Engine
	rtol, atol float64
	timeout    time.Duration
}

func (t tester) suite(ctx context.Context, c *Call) ([]testCase, error) {
	root := c.Abs(c.String("suite"))
	dirs, err := build.FindCases(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, diag.New(diag.NotFound, "suite %s does not exist", c.String("suite"))
	}
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "test")
	}
	if len(dirs) == 0 {
		return nil, diag.New(diag.NotFound, "suite %s holds no folder with a model file and test_data_set_*", c.String("suite"))
	}
	jobs := c.Int("jobs")
	if jobs == 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	results := make([]testCase, len(dirs))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(jobs, len(dirs)) {
		wg.Go(func() {
			for i := range next {
				name, err := filepath.Rel(root, dirs[i])
				if err != nil {
					name = dirs[i]
				}
				results[i] = t.folder(ctx, filepath.ToSlash(name), dirs[i], dirs[i])
			}
		})
	}
	for i := range dirs {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	return results, ctx.Err()
}

// one runs the cases of one model, project or artifact; each data set or golden vector is a case.
func (t tester) one(ctx context.Context, c *Call) ([]testCase, error) {
	target, err := openTarget(ctx, c, c.Arg(0))
	if err != nil {
		return nil, err
	}
	if target.Model != nil && target.Input == nil || c.IsSet("data") {
		dir := c.Abs(c.String("data"))
		if dir == "" {
			dir = filepath.Dir(c.Abs(c.Arg(0)))
			if info, err := os.Stat(c.Abs(c.Arg(0))); err == nil && info.IsDir() {
				dir = c.Abs(c.Arg(0))
			}
		}
		if target.Model == nil {
			return nil, diag.New(diag.Usage, "test: --data goes with a model file or a project")
		}
		sets, err := build.DataSets(dir)
		if errors.Is(err, os.ErrNotExist) {
			return nil, diag.New(diag.NotFound, "%s does not exist", dir)
		}
		if err != nil {
			return nil, diag.Wrap(diag.Failure, err, "test")
		}
		if len(sets) == 0 {
			return nil, diag.New(diag.NotFound, "%s holds no test_data_set_* folder", dir).Hint("waybill test %s --data DIR", c.Arg(0))
		}
		var out []testCase
		for _, s := range sets {
			x := testCase{Name: filepath.Base(s), Status: "passed"}
			if err := t.dataSet(ctx, target.Model, s); err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				x.Status, x.Detail = "failed", err.Error()
			}
			out = append(out, x)
		}
		return out, nil
	}
	if target.Input != nil {
		v, err := target.Input.Vectors()
		if err != nil {
			return nil, err
		}
		if v == nil {
			return nil, diag.New(diag.NotFound, "test: the project has no golden vectors").Hint("name them in waybill.yaml: golden: golden.json")
		}
		var out []testCase
		for i := range v.Vectors {
			one := &build.Vectors{Tolerance: v.Tolerance, Vectors: v.Vectors[i : i+1]}
			x := testCase{Name: v.Vectors[i].Name, Status: "passed"}
			err := t.timed(ctx, func(ctx context.Context) error {
				_, err := build.Record(ctx, target.Model, one, target.Input.Project.Golden.Tolerance, runner{t.engineConfig(c)})
				return err
			})
			if err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				if diag.CodeOf(err) == diag.Usage {
					return nil, err
				}
				x.Status, x.Detail = "failed", err.Error()
			}
			out = append(out, x)
		}
		return out, nil
	}
	return t.golden(ctx, target)
}

func (t tester) engineConfig(c *Call) engine.Config {
	cfg, _ := engineConfig(c) // runTest has checked it
	return cfg
}

// golden reproduces the golden vectors of an artifact, as a device does, and compares them with the references.
func (t tester) golden(ctx context.Context, target *target) ([]testCase, error) {
	if target.Golden == nil {
		return nil, diag.New(diag.NotFound, "test: %s has no golden vectors", target.Name)
	}
	m, err := t.engine.Load(ctx, target.Code, engine.WeightsSource{Bytes: target.Weights}, target.Interface, stepModules(target.Module)...)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "load %s", target.Name)
	}
	defer m.Close(context.WithoutCancel(ctx))
	var out []testCase
	for i, v := range target.Golden.Vectors {
		one := &artifact.Golden{Schema: target.Golden.Schema, Vectors: target.Golden.Vectors[i : i+1]}
		x := testCase{Name: v.Name, Status: "passed"}
		err := t.timed(ctx, func(ctx context.Context) error {
			rep, err := probe.Run(ctx, m, one)
			if err != nil {
				return err
			}
			return rep.Err()
		})
		if err == nil {
			err = references(v)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			x.Status, x.Detail = "failed", err.Error()
		}
		out = append(out, x)
	}
	return out, nil
}

// references compares what a vector expects with what the framework said.
func references(v artifact.GoldenVector) error {
	for _, ref := range v.Reference {
		tol := artifact.Tolerance{Output: ref.Name}
		for _, x := range v.Tolerance {
			if x.Output == ref.Name {
				tol = x
			}
		}
		for _, e := range v.Expected {
			if e.Name != ref.Name {
				continue
			}
			cmp, err := build.Compare(e, ref, tol)
			if err != nil {
				return err
			}
			if cmp.Exceeds {
				return fmt.Errorf("output %s: element %d is %s, the framework says %s", ref.Name, cmp.Where, cmp.Got, cmp.Want)
			}
		}
	}
	return nil
}

// folder compiles the model of a case's folder and runs its data sets. A crash of the compiler is a failed case.
func (t tester) folder(ctx context.Context, name, dir, data string) (x testCase) {
	x = testCase{Name: name, Status: "passed"}
	fail := func(err error) testCase {
		x.Status, x.Detail = "failed", err.Error()
		var g *engine.GuestError
		if diag.CodeOf(err) == diag.Unsupported || errors.As(err, &g) && g.Code == abi.ErrUnsupported {
			x.Status = "unsupported"
		}
		return x
	}
	defer func() {
		if p := recover(); p != nil {
			fail(fmt.Errorf("the compiler crashed: %v", p))
		}
	}()
	src, err := build.OpenSource(ctx, build.ModelIn(dir))
	if err != nil {
		return fail(err)
	}
	m, err := build.Compile(ctx, src, build.Options{Name: "case", Version: "0"})
	if err != nil {
		return fail(err)
	}
	sets, err := build.DataSets(data)
	if err != nil {
		return fail(err)
	}
	for _, s := range sets {
		if err := t.dataSet(ctx, m, s); err != nil {
			return fail(fmt.Errorf("%s: %w", filepath.Base(s), err))
		}
	}
	return x
}

// timed runs a case and ends it after --case-timeout.
func (t tester) timed(ctx context.Context, run func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	err := run(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("not done after %s, the time that --case-timeout gives a case", t.timeout)
	}
	return err
}

func (t tester) dataSet(ctx context.Context, m *build.Model, dir string) error {
	return t.timed(ctx, func(ctx context.Context) error { return t.runDataSet(ctx, m, dir) })
}

func (t tester) runDataSet(ctx context.Context, m *build.Model, dir string) error {
	cs, err := build.ReadCase(dir, &m.Source)
	if err != nil {
		return err
	}
	model, err := t.engine.Load(ctx, m.Code, engine.WeightsSource{Bytes: m.Weights}, m.Interface)
	if err != nil {
		return err
	}
	l := &loaded{Model: model}
	got, err := l.call(ctx, cs.Inputs)
	cerr := model.Close(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	if cerr != nil {
		return cerr
	}
	var names []string
	for _, o := range m.Interface.Outputs {
		names = append(names, o.Name)
	}
	return build.CompareCase(cs, got, names, t.rtol, t.atol)
}
