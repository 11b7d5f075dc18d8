package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// step is one measured command. setup and clean are not measured; check looks at what the command left.
type step struct {
	step, registry, tool string
	setup                func(ctx context.Context) error
	proc                 func() proc
	check                func() error
	clean                func()
}

const mediaType = "application/vnd.cncf.model.weight.v1.raw"

// models writes the two models: the same random bytes as one file and as eight.
func (b *bench) models() error {
	for _, m := range []string{"one", "eight"} {
		if err := os.MkdirAll(b.filesDir(m), 0o700); err != nil {
			return err
		}
		n := len(b.files(m))
		r := rand.NewChaCha8([32]byte{1})
		for _, name := range b.files(m) {
			f, err := os.Create(filepath.Join(b.filesDir(m), name))
			if err != nil {
				return err
			}
			_, err = io.CopyN(f, r, b.size/int64(n))
			if cerr := f.Close(); err == nil {
				err = cerr
			}
			if err != nil {
				return err
			}
		}
		y := fmt.Sprintf("name: %s\nversion: 1.0.0\nlicense: Apache-2.0\ncompile: false\npersonal_data: none\nmodel: files\n", m)
		if err := os.WriteFile(filepath.Join(b.model(m), "waybill.yaml"), []byte(y), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) model(m string) string    { return filepath.Join(b.dir, "model-"+m) }
func (b *bench) filesDir(m string) string { return filepath.Join(b.model(m), "files") }

func (b *bench) files(m string) []string {
	if m == "one" {
		return []string{"weights.bin"}
	}
	var out []string
	for i := range 8 {
		out = append(out, fmt.Sprintf("weights-%d.bin", i))
	}
	return out
}

func (b *bench) wants(s step) bool {
	for _, w := range b.only {
		if strings.Contains(s.step+" "+s.registry+" "+s.tool, w) {
			return true
		}
	}
	return len(b.only) == 0
}

// timings runs every step once per round.
func (b *bench) timings(ctx context.Context) ([]result, error) {
	seeds := map[string]*server{}
	defer func() {
		for _, s := range seeds {
			s.stop()
		}
	}()
	if err := b.seed(ctx); err != nil {
		return nil, err
	}
	for _, k := range b.kinds {
		s, err := b.startServer(ctx, k)
		if err != nil {
			return nil, err
		}
		seeds[k] = s
		for _, m := range []string{"one", "eight"} {
			if _, _, err := run(ctx, b.waybillProc("copy", "layout:"+b.layout(m)+":1", s.addr+"/seed/"+m+":1")); err != nil {
				return nil, fmt.Errorf("fill %s: %w", k, err)
			}
		}
	}
	steps := []step{{step: "sha256", tool: "crypto/sha256", proc: func() proc {
		return proc{args: []string{self(), "sha256", filepath.Join(b.filesDir("one"), "weights.bin")}}
	}}}
	for _, m := range []string{"one", "eight"} {
		steps = append(steps, b.packSteps(m)...)
		for _, k := range b.kinds {
			steps = append(steps, b.pushSteps(m, k)...)
		}
		for _, k := range b.kinds {
			steps = append(steps, b.pullSteps(m, seeds[k])...)
		}
	}
	if len(b.kinds) > 0 {
		v, err := b.verifySteps(ctx, seeds[b.kinds[0]])
		if err != nil {
			return nil, err
		}
		steps = append(steps, v...)
	}
	var all []result
	for _, s := range steps {
		if s.step == "sha256" || b.wants(s) {
			all = append(all, result{Step: s.step, Registry: s.registry, Tool: s.tool})
		}
	}
	for round := range b.rounds {
		i := 0
		for _, s := range steps {
			if s.step != "sha256" && !b.wants(s) {
				continue
			}
			c, err := b.one(ctx, s)
			if err != nil {
				return nil, fmt.Errorf("%s %s %s, round %d: %w", s.step, s.registry, s.tool, round+1, err)
			}
			all[i].Runs = append(all[i].Runs, c)
			i++
		}
		fmt.Fprintf(os.Stderr, "transfer: round %d of %d done\n", round+1, b.rounds)
	}
	return all, nil
}

func (b *bench) one(ctx context.Context, s step) (cost, error) {
	if s.clean != nil {
		defer s.clean()
	}
	if s.setup != nil {
		if err := s.setup(ctx); err != nil {
			return cost{}, err
		}
	}
	if b.settle {
		settle()
	}
	c, _, err := run(ctx, s.proc())
	if err == nil && s.check != nil {
		err = s.check()
	}
	return c, err
}

func self() string {
	p, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return p
}

func (b *bench) waybillProc(args ...string) proc {
	return proc{args: append([]string{b.waybill}, args...), env: b.env()}
}

func (b *bench) toolProc(tool, dir string, args ...string) proc {
	return proc{args: append([]string{b.tools[tool]}, args...), env: b.env(), dir: dir}
}

// layout is an OCI layout with the model m under the tag 1, for tools that push from one.
func (b *bench) layout(m string) string { return filepath.Join(b.dir, "layout-"+m) }

// seed packs both models into waybill's store and writes them as plain layouts of one manifest, which is all that crane pushes.
func (b *bench) seed(ctx context.Context) error {
	for _, m := range []string{"one", "eight"} {
		if _, _, err := run(ctx, b.waybillProc("pack", b.model(m))); err != nil {
			return err
		}
		if _, _, err := run(ctx, b.waybillProc("copy", "--no-evidence", m+":1.0.0", "layout:"+b.layout(m)+":1")); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) scratch(name string) string { return filepath.Join(b.dir, "scratch-"+name) }

func (b *bench) remover(path string) func() { return func() { _ = os.RemoveAll(path) } }

func (b *bench) packSteps(m string) []step {
	store := b.scratch("pack")
	out := []step{{
		step: "pack " + m, tool: "waybill", clean: b.remover(store),
		proc: func() proc {
			p := b.waybillProc("pack", b.model(m))
			p.env = append(p.env, "WAYBILL_HOME="+store)
			return p
		},
	}}
	if b.tools["oras"] != "" {
		out = append(out, step{
			step: "pack " + m, tool: "oras", clean: b.remover(store),
			proc: func() proc { return b.toolProc("oras", b.filesDir(m), b.orasPush(m, "--oci-layout", store+":1")...) },
		})
	}
	return out
}

func (b *bench) orasPush(m string, args ...string) []string {
	a := append([]string{"push"}, args...)
	for _, f := range b.files(m) {
		a = append(a, f+":"+mediaType)
	}
	return a
}

// pushSteps push into an empty registry each time.
func (b *bench) pushSteps(m, kind string) []step {
	var s *server
	var err error
	mk := func(tool string, p func() proc) step {
		return step{step: "push " + m, registry: kind, tool: tool, proc: p,
			setup: func(ctx context.Context) error { s, err = b.startServer(ctx, kind); return err },
			clean: func() {
				if s != nil {
					s.stop()
				}
			}}
	}
	out := []step{mk("waybill", func() proc { return b.waybillProc("push", m+":1.0.0", s.addr+"/bench/"+m+":1") })}
	if b.tools["oras"] != "" {
		out = append(out,
			mk("oras push", func() proc {
				return b.toolProc("oras", b.filesDir(m), b.orasPush(m, "--plain-http", s.addr+"/bench/"+m+":1")...)
			}),
			mk("oras cp", func() proc {
				return b.toolProc("oras", "", "cp", "--from-oci-layout", b.layout(m)+":1", "--to-plain-http", s.addr+"/bench/"+m+":1")
			}))
	}
	if b.tools["skopeo"] != "" {
		out = append(out, mk("skopeo", func() proc {
			return b.toolProc("skopeo", "", "--insecure-policy", "copy", "--dest-tls-verify=false", "oci:"+b.layout(m)+":1", "docker://"+s.addr+"/bench/"+m+":1")
		}))
	}
	if b.tools["crane"] != "" {
		out = append(out, mk("crane", func() proc {
			return b.toolProc("crane", "", "push", "--insecure", b.layout(m), s.addr+"/bench/"+m+":1")
		}))
	}
	return out
}

func (b *bench) pullSteps(m string, s *server) []step {
	dir := b.scratch("pull")
	ref := s.addr + "/seed/" + m + ":1"
	mk := func(step_, tool string, usable bool, p func() proc) step {
		st := step{step: step_ + " " + m, registry: s.name, tool: tool, proc: p, clean: b.remover(dir),
			setup: func(context.Context) error { return os.RemoveAll(dir) }}
		if usable {
			st.check = func() error { return b.complete(dir, m) }
		}
		return st
	}
	out := []step{
		mk("pull to files", "waybill", true, func() proc { return b.waybillProc("pull", ref, "--out", dir) }),
		mk("pull to a store", "waybill", false, func() proc {
			p := b.waybillProc("pull", ref, "pulled:1")
			p.env = append(p.env, "WAYBILL_HOME="+dir)
			return p
		}),
	}
	if b.tools["oras"] != "" {
		out = append(out, mk("pull to files", "oras", true, func() proc { return b.toolProc("oras", "", "pull", "--plain-http", ref, "-o", dir) }),
			mk("pull to a store", "oras cp", false, func() proc {
				return b.toolProc("oras", "", "cp", "--from-plain-http", ref, "--to-oci-layout", dir+":1")
			}))
	}
	if b.tools["skopeo"] != "" {
		out = append(out, mk("pull to a store", "skopeo", false, func() proc {
			return b.toolProc("skopeo", "", "--insecure-policy", "copy", "--src-tls-verify=false", "docker://"+ref, "oci:"+dir+":1")
		}))
	}
	if b.tools["crane"] != "" {
		out = append(out, mk("pull to a store", "crane", false, func() proc {
			return b.toolProc("crane", "", "pull", "--insecure", "--format", "oci", ref, dir)
		}))
	}
	return out
}

// complete looks for the model's files, wherever a tool puts them below dir, and at their sizes.
func (b *bench) complete(dir, m string) error {
	want := map[string]bool{}
	for _, f := range b.files(m) {
		want[f] = true
	}
	n := int64(len(want))
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		fi, err := e.Info()
		if err == nil && want[e.Name()] && fi.Size() == b.size/n {
			delete(want, e.Name())
		}
		return err
	})
	if err == nil && len(want) > 0 {
		err = fmt.Errorf("%d files are missing or have another size", len(want))
	}
	return err
}
