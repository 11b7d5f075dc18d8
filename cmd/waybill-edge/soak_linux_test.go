package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/registry"
)

// variants makes any number of artifacts with files of their own out of a packed one: the module gets a custom section, the
// golden vectors other names. wrong makes them demand what no model gives.
type variants struct {
	p *edgetest.Publisher
	m *artifact.Model
	n int
}

func newVariants(p *edgetest.Publisher, example string) *variants {
	p.T.Helper()
	target := p.Pack(example)
	m, _, err := registry.ReadModel(p.T.Context(), p.Repo, string(target.Digest))
	if err != nil {
		p.T.Fatal(err)
	}
	return &variants{p: p, m: m}
}

func (v *variants) next(wrong bool) (target channel.Target, golden artifact.Digest) {
	t, ctx := v.p.T, v.p.T.Context()
	t.Helper()
	v.n++
	version := fmt.Sprintf("%d.0.0", v.n)
	ls := slices.Clone(v.m.Layers)
	var module artifact.Digest
	for _, role := range []artifact.Role{artifact.RoleModule, artifact.RoleInterface, artifact.RoleGolden} {
		i := slices.IndexFunc(ls, func(l artifact.Layer) bool { return l.Role == role })
		data, err := registry.ReadBlob(ctx, v.p.Repo, artifact.Descriptor{MediaType: "application/octet-stream", Digest: ls[i].Digest, Size: ls[i].Size}, ls[i].Size)
		if err != nil {
			t.Fatal(err)
		}
		switch role {
		case artifact.RoleModule:
			name := "soak." + version
			section := append([]byte{byte(len(name))}, name...)
			data = append(append(data, 0, byte(len(section))), section...)
			module = artifact.DigestOf(data)
		case artifact.RoleInterface:
			var iface artifact.Interface
			if err := json.Unmarshal(data, &iface); err != nil {
				t.Fatal(err)
			}
			iface.Module.Digest = module
			if data, err = artifact.Canonical(iface); err != nil {
				t.Fatal(err)
			}
		case artifact.RoleGolden:
			var g artifact.Golden
			if err := json.Unmarshal(data, &g); err != nil {
				t.Fatal(err)
			}
			for j := range g.Vectors {
				g.Vectors[j].Name = fmt.Sprintf("row %d of %s", j, version)
			}
			if wrong {
				g.Vectors[0].Expected, g.Vectors[1].Expected = g.Vectors[1].Expected, g.Vectors[0].Expected
			}
			if data, err = artifact.Canonical(g); err != nil {
				t.Fatal(err)
			}
		}
		d, err := registry.PushBytes(ctx, v.p.Repo, "application/octet-stream", data)
		if err != nil {
			t.Fatal(err)
		}
		ls[i].Digest, ls[i].Size = d.Digest, d.Size
		if role == artifact.RoleGolden {
			golden = d.Digest
		}
	}
	manifest, cfg, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: edgetest.Model, Version: version}}, ls, nil)
	if err == nil {
		_, err = registry.PushBytes(ctx, v.p.Repo, artifact.MediaTypeConfig, cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := v.p.Repo.PushManifest(ctx, manifest, artifact.MediaTypeManifest, "soak-"+version)
	if err != nil {
		t.Fatal(err)
	}
	return channel.Target{Name: edgetest.Model, Repo: "ml/churn", Digest: d.Digest, Size: d.Size, Version: version}, golden
}

// load asks the served model all the time. While paused nobody asks.
type load struct {
	gate          sync.RWMutex
	addr          atomic.Pointer[string]
	asked, failed atomic.Int64
	first         atomic.Pointer[error]
	done          chan struct{}
	wait          sync.WaitGroup
	body          []byte
	allowed       sync.Map // digests that may answer
	stranger      atomic.Int64
}

func (l *load) run() {
	client := &http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	for {
		select {
		case <-l.done:
			return
		case <-time.After(2 * time.Millisecond):
		}
		l.gate.RLock()
		err := l.ask(client)
		l.gate.RUnlock()
		l.asked.Add(1)
		if err != nil {
			l.failed.Add(1)
			l.first.CompareAndSwap(nil, &err)
		}
	}
}

func (l *load) ask(c *http.Client) error {
	resp, err := c.Post(*l.addr.Load()+"/v2/models/"+edgetest.Model+"/infer", "application/json", bytes.NewReader(l.body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %.200s %w", resp.Status, raw, err)
	}
	if _, ok := l.allowed.Load(resp.Header.Get("Waybill-Digest")); !ok {
		l.stranger.Add(1)
	}
	return nil
}

// sample is what the process holds at one moment.
type sample struct {
	update                           int
	rss, heap, goroutines, fds, disk int64
	journal, threads                 int64
}

func (d *edge) sample(update int) sample {
	d.t.Helper()
	s := sample{update: update}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		switch f[0] {
		case "VmRSS:":
			n, _ := strconv.ParseInt(f[1], 10, 64)
			s.rss = n << 10
		case "Threads:":
			s.threads, _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	s.fds = int64(len(open))
	resp, err := http.Get(d.addr + "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		name, value, _ := strings.Cut(sc.Text(), " ")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		switch name {
		case "go_goroutines":
			s.goroutines = int64(v)
		case "go_memstats_heap_inuse_bytes", "go_memstats_heap_alloc_bytes":
			s.heap = int64(v)
		}
	}
	err = filepath.WalkDir(filepath.Join(filepath.Dir(d.cfg), "state"), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case strings.HasPrefix(e.Name(), "journal."):
			s.journal += info.Size()
		default:
			s.disk += info.Size()
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// TestSoak makes WAYBILL_SOAK_UPDATES updates under load, with failed trials, corrupt downloads, a full disk, rollbacks and restarts in
// between. No request may fail, every answer comes from an artifact that was released, and memory, descriptors, goroutines and disk
// use of the last process, which makes seven of ten updates, stay flat.
func TestSoak(t *testing.T) {
	updates := 12
	if v := os.Getenv("WAYBILL_SOAK_UPDATES"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 10 {
			t.Fatalf("WAYBILL_SOAK_UPDATES=%q is not a number above 9", v)
		}
		updates = n
	} else if testing.Short() {
		t.Skip("takes long")
	}
	p := edgetest.NewPublisher(t)
	vs := newVariants(p, "v1")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(5 * time.Millisecond), MaxErrorRate: 0.5})
	if os.Geteuid() == 0 {
		onTmpfs(t, d, "size=32m,mode=700")
	}
	d.configure(func(c *config.Config) { c.Engine.CacheLimit = 1 << 20 })
	d.start()
	l := &load{done: make(chan struct{})}
	data, err := engine.Values[float32](edgetest.Row(1))
	if err != nil {
		t.Fatal(err)
	}
	publish := func(wrong bool) artifact.Digest {
		target, _ := vs.next(wrong)
		if !wrong {
			l.allowed.Store(string(target.Digest), true)
		}
		p.Publish(p.Change(target))
		return target.Digest
	}
	publish(false)
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	if l.body, err = json.Marshal(map[string]any{"inputs": []any{map[string]any{"name": inputName(t, d), "datatype": "FP32", "shape": []int{1, 30}, "data": data}}}); err != nil {
		t.Fatal(err)
	}
	addr := d.addr
	l.addr.Store(&addr)
	for range 2 {
		l.wait.Go(l.run)
	}
	counts := map[string]int{}
	restart := func(how string, end func()) {
		l.gate.Lock() // who asks while no process listens is no client of this test
		defer l.gate.Unlock()
		end()
		d.start()
		addr := d.addr
		l.addr.Store(&addr)
		counts[how]++
	}
	disk := ""
	if os.Geteuid() == 0 {
		disk = filepath.Dir(filepath.Dir(d.cfg)) // a file system of its own, which can be filled
	}
	var samples []sample
	began := time.Now()
	last := updates * 3 / 10 // the last restart
	every := max(updates/20, 1)
	for n := 1; n <= updates; n++ {
		switch {
		case n%max(updates/4, 10) == 3: // fails on the device: golden vectors that it can't reproduce; the fifth in an hour would stop it
			before := d.status().Current.Digest
			publish(true)
			if _, err := d.do("poll"); err == nil {
				t.Fatalf("update %d: a model that gives other answers was taken", n)
			}
			if s := d.status(); s.Current.Digest != before || s.LastRollback == nil {
				t.Fatalf("update %d: %s runs after a failed one", n, s.Current.Digest)
			}
			counts["failed on the device"]++
		case n%10 == 6: // one byte of a download is wrong, then it is right
			target, golden := vs.next(false)
			l.allowed.Store(string(target.Digest), true)
			p.Publish(p.Change(target))
			p.Mu.Lock()
			p.Alter = golden
			p.Mu.Unlock()
			if _, err := d.do("poll"); err == nil {
				t.Fatalf("update %d: a corrupt download was taken", n)
			}
			p.Mu.Lock()
			p.Alter = ""
			p.Mu.Unlock()
			if _, err := d.do("poll"); err != nil {
				t.Fatalf("update %d, second try: %v\n%s", n, err, tail(d.log))
			}
			counts["corrupt download"]++
		default:
			want := publish(false)
			if _, err := d.do("poll"); err != nil {
				t.Fatalf("update %d: %v\n%s", n, err, tail(d.log))
			}
			if s := d.status(); s.Current.Digest != want {
				t.Fatalf("update %d: %s runs", n, s.Current.Digest)
			}
			counts["update"]++
		}
		if n%10 == 9 && disk != "" {
			empty := fill(t, disk)
			before := d.status().Current.Digest
			publish(false)
			if _, err := d.do("poll"); err == nil {
				t.Fatalf("after update %d: one more on a full disk", n)
			}
			if s := d.status(); s.Current.Digest != before {
				t.Fatalf("after update %d: %s runs on a full disk", n, s.Current.Digest)
			}
			empty()
			if _, err := d.do("poll"); err != nil {
				t.Fatalf("after update %d, with space again: %v\n%s", n, err, tail(d.log))
			}
			counts["full disk"]++
		}
		if n%10 == 8 {
			if _, err := d.do("rollback"); err != nil {
				t.Fatalf("rollback after update %d: %v", n, err)
			}
			counts["rollback by hand"]++
		}
		switch n {
		case max(updates/10, 1):
			restart("kill", d.kill)
		case max(updates/5, 2), last:
			restart("restart", func() {
				if err := d.stop(); err != nil {
					t.Errorf("stop: %v", err)
				}
			})
		}
		if n > last && n%every == 0 {
			samples = append(samples, d.sample(n))
		}
	}
	close(l.done)
	l.wait.Wait()
	if l.failed.Load() > 0 || l.stranger.Load() > 0 {
		t.Errorf("%d of %d requests failed, %d were answered by something else: %v", l.failed.Load(), l.asked.Load(), l.stranger.Load(), *l.first.Load())
	}
	if out, err := d.do("verify-journal"); err != nil {
		t.Errorf("the journal: %v %s", err, out)
	}
	t.Logf("%d updates in %s, %d requests, %d failed: %v", updates, time.Since(began).Round(time.Second), l.asked.Load(), l.failed.Load(), counts)
	for _, s := range samples {
		t.Logf("after %4d: resident %5.1f MB, heap %5.1f MB, %d goroutines, %d threads, %d descriptors, state %6.2f MB, journal %.2f MB", s.update,
			mb(s.rss), mb(s.heap), s.goroutines, s.threads, s.fds, mb(s.disk), mb(s.journal))
	}
	third := len(samples) / 3
	if third < 1 {
		return
	}
	median := func(of []sample, value func(sample) int64) int64 {
		var v []int64
		for _, s := range of {
			v = append(v, value(s))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	for _, c := range []struct {
		what   string
		value  func(sample) int64
		factor float64
		extra  int64
	}{
		{"resident memory", func(s sample) int64 { return s.rss }, 1.25, 6 << 20},
		{"heap", func(s sample) int64 { return s.heap }, 1.5, 4 << 20},
		{"goroutines", func(s sample) int64 { return s.goroutines }, 1, 8},
		{"threads", func(s sample) int64 { return s.threads }, 1, 8},
		{"descriptors", func(s sample) int64 { return s.fds }, 1, 8},
		{"state directory", func(s sample) int64 { return s.disk }, 1.25, 1 << 20},
	} {
		early, late := median(samples[:third], c.value), median(samples[len(samples)-third:], c.value)
		if float64(late) > float64(early)*c.factor+float64(c.extra) {
			t.Errorf("%s grew from %d to %d", c.what, early, late)
		}
	}
}

func mb(n int64) float64 { return float64(n) / 1e6 }

func tail(b *bytes.Buffer) string {
	s := b.String()
	return s[max(len(s)-3000, 0):]
}

// inputName asks the served model what its input is called.
func inputName(t *testing.T, d *edge) string {
	t.Helper()
	resp, err := http.Get(d.addr + "/v2/models/" + edgetest.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var m struct {
		Inputs []struct{ Name string } `json:"inputs"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil || len(m.Inputs) != 1 {
		t.Fatalf("metadata: %v", err)
	}
	return m.Inputs[0].Name
}
