// Command transfer measures pack, push, pull and verify beside other tools, in one interleaved run: every tool once per
// round, so that what else the machine does hits all alike. Times are given as ratios to hashing the same bytes with
// SHA-256. See README.md.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

type bench struct {
	dir     string // scratch
	waybill string
	tools   map[string]string // name to path; absent when not found
	size    int64             // bytes of one model
	rounds  int
	home    string // DOCKER_CONFIG and HOME of all tools
	kinds   []string
	only    []string
	settle  bool
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "sha256" { // the yardstick, as a process of its own
		if err := hashFiles(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := realMain(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "transfer:", err)
		os.Exit(1)
	}
}

func realMain(ctx context.Context, out io.Writer) error {
	b := &bench{tools: map[string]string{}}
	mib := flag.Int64("mib", 1024, "size of a model in MiB")
	flag.IntVar(&b.rounds, "rounds", 5, "rounds")
	flag.StringVar(&b.waybill, "waybill", "", "the waybill binary (default: built now)")
	dir := flag.String("dir", "", "folder for scratch files, on the file system to measure (default: a temporary one)")
	kinds := flag.String("registries", "embedded,docker-registry,distribution", "registries to measure against, those that are installed")
	only := flag.String("only", "", "comma-separated words; only steps whose name has one of them")
	asJSON := flag.String("json", "", "write all single results to this file")
	flag.BoolVar(&b.settle, "settle", true, "before each step, wait until all that was written on this machine is on the disk")
	need := flag.Bool("require-tools", false, "fail when a tool is not installed")
	flag.Parse()
	b.size = *mib << 20
	if *only != "" {
		b.only = strings.Split(*only, ",")
	}
	for name, bins := range map[string][]string{"oras": {"oras"}, "skopeo": {"skopeo"}, "crane": {"crane"}, "cosign": {"cosign"}, "cosign3": {"cosign3"},
		"docker-registry": {"docker-registry"}, "distribution": {"registry"}} {
		if p, err := exec.LookPath(bins[0]); err == nil {
			b.tools[name] = p
		} else if *need {
			return fmt.Errorf("%s is not installed", bins[0])
		}
	}
	for _, k := range strings.Split(*kinds, ",") {
		if k == "embedded" || b.tools[k] != "" {
			b.kinds = append(b.kinds, k)
		} else {
			fmt.Fprintf(os.Stderr, "transfer: %s is not installed and left out\n", k)
		}
	}
	var err error
	if b.dir, err = os.MkdirTemp(*dir, "waybill-transfer-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	b.home = filepath.Join(b.dir, "home")
	if err := os.MkdirAll(b.home, 0o700); err != nil {
		return err
	}
	if b.waybill == "" {
		b.waybill = filepath.Join(b.dir, "waybill")
		c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.waybill, "./cmd/waybill")
		c.Stderr = os.Stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("build waybill: %w", err)
		}
	}
	if b.waybill, err = filepath.Abs(b.waybill); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, %s/%s, %d CPUs, %d MiB, %d rounds\n\n", time.Now().UTC().Format("2006-01-02"), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), *mib, b.rounds)
	b.versions(ctx, out)
	if err := b.models(); err != nil {
		return err
	}
	res, err := b.timings(ctx)
	if err != nil {
		return err
	}
	b.table(out, res)
	counts, err := b.bytes(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n| bytes over the wire | registry | tool | MB | of the model |\n|---|---|---|---|---|\n")
	for _, c := range counts {
		fmt.Fprintf(out, "| %s | %s | %s | %.2f | %.4f |\n", c.What, c.Registry, c.Tool, float64(c.Bytes)/1e6, float64(c.Bytes)/float64(b.size))
	}
	if *asJSON != "" {
		raw, err := json.MarshalIndent(map[string]any{"mib": *mib, "rounds": b.rounds, "steps": res, "bytes": counts}, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(*asJSON, append(raw, '\n'), 0o600)
	}
	return nil
}

// versions prints what is compared.
func (b *bench) versions(ctx context.Context, out io.Writer) {
	for _, v := range [][]string{{"waybill", b.waybill, "version"}, {"oras", b.tools["oras"], "version"}, {"skopeo", b.tools["skopeo"], "--version"},
		{"crane", b.tools["crane"], "version"}, {"cosign", b.tools["cosign"], "version"}, {"cosign3", b.tools["cosign3"], "version"},
		{"docker-registry", b.tools["docker-registry"], "--version"}, {"distribution", b.tools["distribution"], "--version"}} {
		if v[1] == "" {
			fmt.Fprintf(out, "- %s: not installed\n", v[0])
			continue
		}
		_, text, err := run(ctx, proc{args: v[1:], env: b.env()})
		if err != nil {
			text = err.Error()
		}
		fmt.Fprintf(out, "- %s: %s\n", v[0], firstVersionLine(text))
	}
	fmt.Fprintln(out)
}

func firstVersionLine(s string) string {
	first := ""
	for line := range strings.Lines(s) {
		line = strings.TrimSpace(line)
		if first == "" && line != "" && !strings.ContainsAny(line, "|_") {
			first = line
		}
		if strings.Contains(line, "ersion:") && strings.ContainsAny(line, "0123456789") {
			return strings.TrimSpace(line[strings.Index(line, ":")+1:])
		}
	}
	return strings.TrimPrefix(first, filepath.Dir(first)+"/")
}

func (b *bench) env() []string {
	return []string{"HOME=" + b.home, "DOCKER_CONFIG=" + b.home, "REGISTRY_AUTH_FILE=" + filepath.Join(b.home, "auth.json"), "XDG_RUNTIME_DIR=" + b.home,
		"WAYBILL_HOME=" + filepath.Join(b.dir, "waybill-home"), "COSIGN_PASSWORD=", "WAYBILL_KEY_PASSWORD=", "TZ=UTC"}
}

// hashFiles is the yardstick: crypto/sha256 over all bytes, one file after the other.
func hashFiles(files []string) error {
	buf := make([]byte, 1<<20)
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, buf)
		_ = f.Close()
		if err != nil {
			return err
		}
		fmt.Printf("%x  %s\n", h.Sum(nil), name)
	}
	return nil
}

// result is all runs of one step.
type result struct {
	Step     string
	Registry string
	Tool     string
	Runs     []cost
}

func (r result) pick(f func(cost) float64) (best, median float64) {
	var v []float64
	for _, c := range r.Runs {
		v = append(v, f(c))
	}
	slices.Sort(v)
	return v[0], v[len(v)/2]
}

func (b *bench) table(out io.Writer, all []result) {
	var sha float64
	for _, r := range all {
		if r.Step == "sha256" {
			_, sha = r.pick(func(c cost) float64 { return c.Wall.Seconds() })
		}
	}
	fmt.Fprintf(out, "sha256 of the model: %.3f s (median)\n\n", sha)
	fmt.Fprintln(out, "| step | registry | tool | ratio, median | best | seconds | CPU s | peak MiB | read | written |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|---|")
	for _, r := range all {
		best, med := r.pick(func(c cost) float64 { return c.Wall.Seconds() })
		_, cpu := r.pick(func(c cost) float64 { return c.CPU.Seconds() })
		_, rss := r.pick(func(c cost) float64 { return float64(c.PeakRSS) / (1 << 20) })
		_, rd := r.pick(func(c cost) float64 { return float64(c.Read) / float64(b.size) })
		_, wr := r.pick(func(c cost) float64 { return float64(c.Wrote) / float64(b.size) })
		if strings.HasPrefix(r.Step, "verify") {
			fmt.Fprintf(out, "| %s | %s | %s | | | %.4f (best %.4f) | %.3f | %.0f | | |\n", r.Step, r.Registry, r.Tool, med, best, cpu, rss)
			continue
		}
		fmt.Fprintf(out, "| %s | %s | %s | %.2f | %.2f | %.2f | %.2f | %.0f | %.2f | %.2f |\n", r.Step, r.Registry, r.Tool, med/sha, best/sha, med, cpu, rss, rd, wr)
	}
}
