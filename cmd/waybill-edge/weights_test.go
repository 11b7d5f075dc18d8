package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/examples"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/registry"
)

// exampleModel is an example by its folder, or weighted-HIDDEN-SEED: a network whose constants lie in a weights layer.
func exampleModel(name string) ([]byte, error) {
	var hidden, seed int
	if _, err := fmt.Sscanf(name, "weighted-%d-%d", &hidden, &seed); err == nil {
		return weightedONNX(hidden, uint64(seed)), nil
	}
	return examples.BreastCancer.ReadFile("breast-cancer/" + name + "/model.onnx")
}

// Protocol buffers, as far as an ONNX file of two products needs them.
func pbInt(field int, v uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field)<<3), v)
}

func pbBytes(field int, parts ...[]byte) []byte {
	b := bytes.Join(parts, nil)
	out := binary.AppendUvarint(nil, uint64(field)<<3|2)
	return append(binary.AppendUvarint(out, uint64(len(b))), b...)
}

func pbText(field int, s string) []byte { return pbBytes(field, []byte(s)) }

// deadWeight stands in row 0 of the second matrix, which is always multiplied by 0: the first column of the first matrix is
// negative, the inputs are not, and Relu is between them.
const deadWeight = 12345.678

// weightedONNX is y = Relu(x A) B with x of [N, 30], A of [30, hidden] and B of [hidden, 2].
func weightedONNX(hidden int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	matrix := func(name string, rows, cols int, at func(i, j int) float32) []byte {
		raw := make([]byte, 0, 4*rows*cols)
		for i := range rows {
			for j := range cols {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(at(i, j)))
			}
		}
		return pbBytes(5, pbInt(1, uint64(rows)), pbInt(1, uint64(cols)), pbInt(2, 1), pbText(8, name), pbBytes(9, raw))
	}
	node := func(op, out string, ins ...string) []byte {
		var b []byte
		for _, in := range ins {
			b = append(b, pbText(1, in)...)
		}
		return pbBytes(1, b, pbText(2, out), pbText(3, out), pbText(4, op))
	}
	port := func(field int, name string, cols uint64) []byte {
		shape := pbBytes(2, pbBytes(1, pbText(2, "N")), pbBytes(1, pbInt(1, cols)))
		return pbBytes(field, pbText(1, name), pbBytes(2, pbBytes(1, pbInt(1, 1), shape)))
	}
	graph := pbBytes(7,
		node("MatMul", "p", "x", "A"), node("Relu", "h", "p"), node("MatMul", "y", "h", "B"), pbText(2, "weighted"),
		matrix("A", 30, hidden, func(_, j int) float32 {
			if j == 0 {
				return -1 - r.Float32()
			}
			return r.Float32() - 0.4
		}),
		matrix("B", hidden, 2, func(i, _ int) float32 {
			if i == 0 {
				return deadWeight
			}
			return r.Float32() - 0.5
		}),
		port(11, "x", 30), port(12, "y", 2))
	return bytes.Join([][]byte{pbInt(1, 8), graph, pbBytes(8, pbInt(2, 17))}, nil)
}

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
func (d *edge) weightsFile(p *publisher, target channel.Target) string {
	d.t.Helper()
	m, _, err := registry.ReadModel(d.t.Context(), p.repo, string(target.Digest))
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
	data, err := engine.Values[float32](row(n))
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{"inputs": []any{map[string]any{"name": input, "shape": []int{1, 30}, "datatype": "FP32", "data": data}}})
	if err != nil {
		return nil, err
	}
	res, err := http.Post(d.addr+"/v2/models/"+modelName+"/infer", "application/json", bytes.NewReader(body))
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
	mapped(t)
	p := newPublisher(t)
	v1, v2 := p.pack(weighted+"1"), p.pack(weighted+"2")
	d := enrolled(t, p, trialConfig{Duration: duration(1), MinRequests: 5, MaxErrorRate: 0.01})
	d.start()
	p.publish(p.change(v1))
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
	p.publish(p.change(v2))
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
func committedPair(t *testing.T, settings map[string]any) (p *publisher, d *edge, v1, v2 channel.Target) {
	t.Helper()
	p = newPublisher(t)
	v1, v2 = p.pack(weighted+"1"), p.pack(weighted+"2")
	d = enrolled(t, p, trialConfig{Duration: duration(1), MinRequests: 5, MaxErrorRate: 0.01})
	if settings != nil {
		d.withEngine(settings)
	}
	d.start()
	for _, v := range []channel.Target{v1, v2} {
		p.publish(p.change(v))
		if _, err := d.do("poll"); err != nil {
			t.Fatal(err)
		}
	}
	return p, d, v1, v2
}

// What happens to the weights of the committed artifact is found by their hash at the next start, and the artifact before serves.
func TestCommittedWeightsDamaged(t *testing.T) {
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
	at := bytes.Index(b, binary.LittleEndian.AppendUint32(nil, math.Float32bits(deadWeight)))
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

func TestEngineConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  engineConfig
		want string
	}{
		{engineConfig{Weights: "mmap"}, "map or copy"},
		{engineConfig{Integrity: "never"}, "start or install"},
		{engineConfig{Mode: "jit"}, "engine.mode"},
		{engineConfig{Threads: -1}, "below 0"},
		{engineConfig{Weights: "copy", Integrity: "install", Mode: "interpreter"}, ""},
	} {
		err := c.cfg.check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
}
