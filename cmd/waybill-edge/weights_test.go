package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/registry"
)

// weighted is the smallest hidden layer whose constants become a layer of their own.
const weighted = "weighted-9000-"

// withEngine writes engine settings into the configuration.
func (d *edge) withEngine(settings map[string]any) {
	d.t.Helper()
	raw, err := os.ReadFile(d.cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(raw, &c); err != nil {
		d.t.Fatal(err)
	}
	c["engine"] = settings
	if raw, err = json.Marshal(c); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(d.cfg, raw, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// weightsFile is where the weights of an artifact lie on the device.
func (d *edge) weightsFile(p *edgetest.Publisher, target channel.Target) string {
	d.t.Helper()
	m, _, err := registry.ReadModel(d.t.Context(), p.Repo, string(target.Digest))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, l := range m.Layers {
		if l.Role == artifact.RoleWeights {
			return filepath.Join(filepath.Dir(d.cfg), "state", "blobs", "sha256", l.Digest.Hex())
		}
	}
	d.t.Fatal("the artifact has no weights")
	return ""
}

// tamper opens a weights file for writing, as its owner can.
func tamper(t *testing.T, file string, do func(f *os.File) error) {
	t.Helper()
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = do(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		t.Fatal(err)
	}
}

// predict gives the bits of the first output, or an error when nobody answers.
func (d *edge) predict(n int) (string, error) { return d.predictAs("x", n) }

// predictAs is predict for a model whose input has that name.
func (d *edge) predictAs(input string, n int) (string, error) {
	b, err := d.v2(input, n)
	if err != nil {
		return "", err
	}
	var out struct {
		Outputs []json.RawMessage `json:"outputs"`
	}
	if err := json.Unmarshal(b, &out); err != nil || len(out.Outputs) == 0 {
		return "", fmt.Errorf("no outputs in %s: %w", b, err)
	}
	return string(out.Outputs[0]), nil
}

func (d *edge) v2(input string, n int) ([]byte, error) {
	data, err := engine.Values[float32](edgetest.Row(n))
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{"inputs": []any{map[string]any{"name": input, "shape": []int{1, 30}, "datatype": "FP32", "data": data}}})
	if err != nil {
		return nil, err
	}
	res, err := http.Post(d.addr+"/v2/models/"+edgetest.Model+"/infer", "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, b)
	}
	return b, err
}

// dies waits for the agent to end by itself.
func (d *edge) dies() {
	d.t.Helper()
	err := <-d.exit
	d.exit <- err
	if err == nil {
		d.t.Error("the agent ended without an error")
	}
}

// A weights file that is cut off under its mapping in a trial ends the process, and that is a failed trial: the model before
// serves after the restart, and the new one is not tried again.
func TestWeightsCutOffInTrial(t *testing.T) {
	once.Skip(t)
	mapped(t)
	p := edgetest.NewPublisher(t)
	v1, v2 := p.Pack(weighted+"1"), p.Pack(weighted+"2")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(1), MinRequests: 5, MaxErrorRate: 0.01})
	d.start()
	p.Publish(p.Change(v1))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(d.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.cfg, bytes.Replace(raw, []byte(`"duration": "1ns"`), []byte(`"duration": "1h0m0s"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Publish(p.Change(v2))
	d.start() // the first poll is at the start
	for got := artifact.Digest(""); got != v2.Digest; {
		if got, err = d.infer(); err != nil {
			t.Fatal(err)
		}
	}
	tamper(t, d.weightsFile(p, v2), func(f *os.File) error { return f.Truncate(0) })
	if out, err := d.predict(3); err == nil {
		t.Fatalf("answered from a file that is not there: %s", out)
	}
	d.dies()
	d.start()
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Errorf("after the restart: %s, %v", got, err)
	}
	s := d.status()
	if s.Current.Digest != v1.Digest || s.LastRollback == nil || s.LastRollback.Reason != "the device restarted during the trial" || len(s.Quarantine) != 1 {
		t.Errorf("status %+v, %+v", s, s.LastRollback)
	}
}

func mapped(t *testing.T) {
	if goruntime.GOOS == "windows" {
		t.Skip("weights are copied on Windows")
	}
}

// committedPair gives a device that has v1 behind it and serves v2, both with weights of their own.
func committedPair(t *testing.T, settings map[string]any) (p *edgetest.Publisher, d *edge, v1, v2 channel.Target) {
	t.Helper()
	p = edgetest.NewPublisher(t)
	v1, v2 = p.Pack(weighted+"1"), p.Pack(weighted+"2")
	d = enrolled(t, p, config.Trial{Duration: config.Duration(1), MinRequests: 5, MaxErrorRate: 0.01})
	if settings != nil {
		d.withEngine(settings)
	}
	d.start()
	for _, v := range []channel.Target{v1, v2} {
		p.Publish(p.Change(v))
		if _, err := d.do("poll"); err != nil {
			t.Fatal(err)
		}
	}
	return p, d, v1, v2
}

// What happens to the weights of the committed artifact is found by their hash at the next start, and the artifact before serves.
func TestCommittedWeightsDamaged(t *testing.T) {
	once.Skip(t)
	mapped(t)
	for _, c := range []struct {
		name string
		do   func(t *testing.T, file string)
		dies bool
	}{
		{"cut off", func(t *testing.T, file string) {
			tamper(t, file, func(f *os.File) error { return f.Truncate(4096) })
		}, true},
		{"rewritten in place", func(t *testing.T, file string) { tamper(t, file, dead) }, false},
		{"replaced by another file", func(t *testing.T, file string) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(file+".new", b, 0o400); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(file+".new", file); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"gone", func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"unreadable", func(t *testing.T, file string) { // read fails: it is a directory
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(file, 0o700); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"with another name", func(t *testing.T, file string) {
			if err := os.Link(file, filepath.Join(t.TempDir(), "mine")); err != nil {
				t.Skip(err)
			}
		}, false},
		{"writable by others", func(t *testing.T, file string) {
			if err := os.Chmod(file, 0o666); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, d, v1, v2 := committedPair(t, nil)
			if got, err := d.infer(); err != nil || got != v2.Digest {
				t.Fatalf("%s, %v", got, err)
			}
			c.do(t, d.weightsFile(p, v2))
			if c.dies {
				if out, err := d.predict(2); err == nil {
					t.Fatalf("answered: %s", out)
				}
				d.dies()
			} else {
				if _, err := d.predict(2); err != nil {
					t.Errorf("it does not answer any more: %v", err)
				}
				d.kill()
			}
			d.start()
			if got, err := d.infer(); err != nil || got != v1.Digest {
				t.Errorf("after the restart: %s, %v\n%s", got, err, d.log)
			}
			if out, err := d.do("history"); err != nil || !strings.Contains(out, "fallback") {
				t.Errorf("history does not tell: %s, %v", out, err)
			}
		})
	}
}

// dead changes a weight that no answer depends on.
func dead(f *os.File) error {
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	at := bytes.Index(b, binary.LittleEndian.AppendUint32(nil, math.Float32bits(edgetest.DeadWeight)))
	if at < 0 {
		return fmt.Errorf("the weight is not there")
	}
	_, err = f.WriteAt([]byte{b[at] ^ 1}, int64(at))
	return err
}

// With integrity "install" the hash at the start is left out: the changed file is served. So the hash is what finds it.
func TestIntegrityOfInstallation(t *testing.T) {
	mapped(t)
	p, d, _, v2 := committedPair(t, map[string]any{"integrity": "install"})
	d.kill()
	tamper(t, d.weightsFile(p, v2), dead)
	if err := os.Chmod(d.weightsFile(p, v2), 0o400); err != nil {
		t.Fatal(err)
	}
	d.start()
	if got, err := d.infer(); err != nil || got != v2.Digest {
		t.Errorf("%s, %v", got, err)
	}
}

// Copied weights do not care what becomes of their file.
func TestCopiedWeights(t *testing.T) {
	p, d, _, v2 := committedPair(t, map[string]any{"weights": "copy"})
	var before []string
	for n := range 4 {
		out, err := d.predict(n)
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, out)
	}
	file := d.weightsFile(p, v2)
	tamper(t, file, func(f *os.File) error { _, err := f.WriteAt(make([]byte, 4096), 0); return err })
	for round := range 2 {
		for n := range before {
			if out, err := d.predict(n); err != nil || out != before[n] {
				t.Errorf("round %d: %s, %v", round, out, err)
			}
		}
		tamper(t, file, func(f *os.File) error { return f.Truncate(0) })
	}
}
