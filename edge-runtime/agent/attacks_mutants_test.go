package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// What files would do without their digests: each function leaves checks of an agent out, so that a test can see the attack
// succeed that they stop.

// believeDownloads stores what comes under the name that it should have, whatever it is, and takes a part that does not come
// for there. Nothing of it is hashed when it is read.
func believeDownloads(a *Agent) {
	a.checks.fetch = func(b *state.Blobs, ctx context.Context, d artifact.Digest, _ int64, open func(context.Context, int64) (io.ReadCloser, error)) error {
		r, err := open(ctx, 0)
		if err != nil {
			return nil //nolint:nilerr // that is the mutant
		}
		defer r.Close()
		raw, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		return fsx.WriteFileAtomic(a.FS, b.Path(d), raw, 0o400)
	}
	believeFiles(a)
}

// believeFiles takes what lies in the store for what its name says; what does not lie there for empty.
func believeFiles(a *Agent) {
	a.checks.rehash = func(*state.Blobs, context.Context, artifact.Digest, int64) error { return nil }
	a.checks.read = func(b *state.Blobs, d artifact.Digest, _ int64) ([]byte, error) {
		raw, err := fsx.ReadFile(a.FS, b.Path(d), 1<<20)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return raw, err
	}
}

// believeManifests reads a manifest without any rule but that it is JSON: an unknown layer is a step of the model.
func believeManifests(a *Agent) {
	a.checks.manifest = func(raw []byte, _ artifact.Digest) (*artifact.Model, error) {
		m := &artifact.Model{}
		if err := json.Unmarshal(raw, &m.Manifest); err != nil {
			return nil, err
		}
		for _, d := range m.Manifest.Layers {
			l := artifact.Layer{
				Role: artifact.Role(d.Annotations[artifact.AnnotationRole]), Path: d.Annotations[artifact.AnnotationTitle],
				Digest: d.Digest, Size: d.Size, Target: d.Annotations[artifact.AnnotationTarget],
			}
			if l.Role == "" {
				l.Role = artifact.RoleStep
			}
			m.Layers = append(m.Layers, l)
		}
		return m, nil
	}
}

// runs is the text of the module that answers.
func (d *device) runs() string {
	d.server.mu.Lock()
	defer d.server.mu.Unlock()
	if d.server.live == nil {
		return ""
	}
	return d.server.live.text
}

// on1 boots a device that has committed 1.0.
func on1(t *testing.T, edit ...func(*Config)) (*world, *fsx.Mem, *device, channel.Target) {
	t.Helper()
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m, edit...)
	v1 := w.model("1.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	return w, m, d, v1
}

// Without the hashes each alteration of TestAlteredLayers would run.
func TestAlteredLayersWithoutHashes(t *testing.T) {
	for name, evil := range map[string]string{"one byte": "2.0 gOod", "another module": "6.6 evil", "truncated": "2.0 goo", "empty": ""} {
		t.Run(name, func(t *testing.T) {
			for _, open := range []bool{false, true} {
				w, _, d, v1 := on1(t)
				v2 := w.model("2.0 good")
				w.publish(w.change(v2))
				w.reg.blobs[artifact.DigestOf([]byte("2.0 good"))] = []byte(evil)
				if open {
					believeDownloads(d.Agent)
				}
				err := d.pollOnce()
				switch {
				case open && (err != nil || d.server.current() != v2.Digest || d.runs() != evil):
					t.Errorf("without the hashes the attack fails all the same: %q runs, %v", d.runs(), err)
				case !open && (err == nil || d.server.current() != v1.Digest || d.runs() != "1.0 good"):
					t.Errorf("%q runs, %v", d.runs(), err)
				}
			}
		})
	}
}

// A bundle of which one part never comes is activated as a half when nothing asks for all parts.
func TestPartialBundleWithoutChecks(t *testing.T) {
	for name, part := range map[string]string{"module": "2.0 good", "interface document": `{"name":"churn"} `, "golden vectors": `{"vectors":[]} `} {
		t.Run(name, func(t *testing.T) {
			for _, open := range []bool{false, true} {
				w, m, d, v1 := on1(t)
				v2 := w.modelOf("2.0 good", map[string][]byte{"interface.json": []byte(`{"name":"churn"} `), "golden.json": []byte(`{"vectors":[]} `)})
				w.publish(w.change(v2))
				held := artifact.DigestOf([]byte(part))
				if _, ok := w.reg.blobs[held]; !ok {
					t.Fatal("there is no such part")
				}
				delete(w.reg.blobs, held)
				if open {
					believeDownloads(d.Agent)
				}
				err := d.pollOnce()
				if _, serr := m.Stat(d.blobs.Path(held)); serr == nil {
					t.Fatal("the part is here: the test shows nothing")
				}
				switch {
				case open && (err != nil || d.server.current() != v2.Digest):
					t.Errorf("without the checks a part is missed all the same: %v", err)
				case !open && (err == nil || d.server.current() != v1.Digest):
					t.Errorf("with a part missing: %v, %s serves", err, d.server.current().Short())
				}
			}
		})
	}
}

// A manifest that a publisher signed and that brings more than a model may have: it is fetched and run when nobody asks.
func TestExtraneousDependenciesWithoutChecks(t *testing.T) {
	for _, open := range []bool{false, true} {
		carrier := &asking{}
		w, _, d, v1 := on1(t, func(c *Config) {
			carrier.registry = c.Channels[0].Carrier.(*registry)
			c.Channels[0].Carrier = carrier
		})
		target := w.model("2.0 good")
		var man map[string]any
		if err := json.Unmarshal(w.reg.blobs[target.Digest], &man); err != nil {
			t.Fatal(err)
		}
		extra := w.reg.put([]byte("extra"))
		man["layers"] = append(man["layers"].([]any), map[string]any{"mediaType": "application/octet-stream", "digest": extra, "size": 5, "urls": []string{"http://203.0.113.1/more"}})
		raw, err := json.Marshal(man)
		if err != nil {
			t.Fatal(err)
		}
		evil := target
		evil.Digest, evil.Size = w.reg.put(raw), int64(len(raw))
		w.publish(w.change(evil))
		if open {
			believeManifests(d.Agent)
		}
		err = d.pollOnce()
		fetched := slices.Contains(carrier.seen, extra)
		switch {
		case open && (err != nil || !fetched || d.server.current() != evil.Digest):
			t.Errorf("without the rules of manifests the layer is missed all the same: fetched %v, %v", fetched, err)
		case !open && (err == nil || fetched || d.server.current() != v1.Digest):
			t.Errorf("fetched %v, %s serves, %v", fetched, d.server.current().Short(), err)
		}
	}
}

// A file that was altered on the device after it was verified: a loader that does not hash would run it, in a rollback by hand,
// in a record that goes back, and after a restart.
func TestPlantedLayerWithoutHashes(t *testing.T) {
	for name, back := range map[string]func(t *testing.T, w *world, m *fsx.Mem, d *device, v1 channel.Target) (*device, error){
		"rollback by hand": func(t *testing.T, _ *world, _ *fsx.Mem, d *device, v1 channel.Target) (*device, error) {
			_, err := d.Rollback(t.Context(), "prod", v1.Digest)
			return d, err
		},
		"rollback by record": func(_ *testing.T, w *world, _ *fsx.Mem, d *device, v1 channel.Target) (*device, error) {
			w.goBack(v1.Digest)
			w.reg.mu.Lock()
			delete(w.reg.blobs, artifact.DigestOf([]byte("1.0 good"))) // it is not fetched again either
			w.reg.mu.Unlock()
			return d, d.pollOnce()
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, open := range []bool{false, true} {
				w, m, d, v1 := on1(t)
				v2 := w.model("2.0 good")
				w.publish(w.change(v2))
				if err := d.pollOnce(); err != nil {
					t.Fatal(err)
				}
				swap(t, m, d.blobs.Path(artifact.DigestOf([]byte("1.0 good"))), "1.0 evil")
				if open {
					believeFiles(d.Agent)
				}
				d, err := back(t, w, m, d, v1)
				switch {
				case open && (err != nil || d.runs() != "1.0 evil"):
					t.Errorf("without the hashes the attack fails all the same: %q runs, %v", d.runs(), err)
				case !open && (err == nil || d.runs() != "2.0 good"):
					t.Errorf("%q runs, %v", d.runs(), err)
				}
			}
		})
	}
	t.Run("restart", func(t *testing.T) {
		for _, open := range []bool{false, true} {
			w, m, d, _ := on1(t)
			swap(t, m, d.blobs.Path(artifact.DigestOf([]byte("1.0 good"))), "1.0 evil")
			w.reg.down = true
			d, err := w.boot(m, w.reg)
			if err == nil || d.runs() != "" {
				t.Fatalf("%q runs after a restart: %v", d.runs(), err)
			}
			if open {
				believeFiles(d.Agent)
			}
			_ = d.pollOnce() // what can't be served is tried again with each poll
			if got := d.runs() == "1.0 evil"; got != open {
				t.Errorf("hashes left out %v: %q runs", open, d.runs())
			}
		}
	})
}

// swap puts other content at path, as somebody who can write there does.
func swap(t *testing.T, m *fsx.Mem, path, content string) {
	t.Helper()
	if err := fsx.WriteFileAtomic(m, path, []byte(content), 0o400); err != nil {
		t.Fatal(err)
	}
}

// The time of check and the time of use: a file is exchanged while the runtime loads, after the agent hashed it. What Read gives
// the runtime is what was hashed, never a second look at the path.
func TestSwappedBetweenCheckAndUse(t *testing.T) {
	for _, open := range []bool{false, true} {
		w, m, d, v1 := on1(t)
		v2 := w.model("2.0 good")
		w.publish(w.change(v2))
		module := artifact.DigestOf([]byte("2.0 good"))
		checked := false
		if open { // the mutant hashes the file, and then opens it again by its name
			d.checks.read = func(b *state.Blobs, dg artifact.Digest, most int64) ([]byte, error) {
				raw, err := b.Read(dg, most)
				if err != nil || dg != module {
					return raw, err
				}
				checked = true
				swap(t, m, b.Path(dg), "6.6 evil")
				return fsx.ReadFile(m, b.Path(dg), 100)
			}
		} else {
			d.checks.read = func(b *state.Blobs, dg artifact.Digest, most int64) ([]byte, error) {
				raw, err := b.Read(dg, most)
				if err == nil && dg == module {
					checked = true
					swap(t, m, b.Path(dg), "6.6 evil")
				}
				return raw, err
			}
		}
		err := d.pollOnce()
		if !checked {
			t.Fatal("the module was never read")
		}
		switch {
		case open && (err != nil || d.runs() != "6.6 evil"):
			t.Errorf("with two looks at the path the attack fails all the same: %q runs, %v", d.runs(), err)
		case !open && (err != nil || d.runs() != "2.0 good"):
			t.Errorf("%q runs, %v", d.runs(), err)
		}
		if !open { // and the exchanged file is found out with the next use
			if _, err := d.Rollback(t.Context(), "prod", v1.Digest); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Rollback(t.Context(), "prod", v2.Digest); err == nil || d.runs() != "1.0 good" {
				t.Errorf("the exchanged file: %q runs, %v", d.runs(), err)
			}
		}
	}
}

// What cuts an answer that never ends: without it everything that is sent ends in memory, or on the disk.
func TestEndlessDataWithoutLimits(t *testing.T) {
	const much = 8 << 20
	w := newWorld(t)
	target := w.model("1.0 good")
	head := w.publish(w.change(target))
	for name, victim := range map[string]artifact.Digest{
		"the record's manifest": w.reg.tags[channel.Tag("prod")], "the record": head.Bundle,
		"evidence": head.Record.Evidence[1].Digest, "the manifest": target.Digest, "a layer": artifact.DigestOf([]byte("1.0 good")),
	} {
		t.Run(name, func(t *testing.T) {
			for _, open := range []bool{false, true} {
				e := &endless{registry: w.reg, victim: victim, most: much}
				d := w.mustBoot(newDeviceFS(t), func(cfg *Config) { cfg.Channels[0].Carrier = e })
				if open {
					d.checks.cut = func(r io.Reader, _ int64) io.Reader { return r }
					d.checks.fetch = func(b *state.Blobs, ctx context.Context, dg artifact.Digest, size int64, open func(context.Context, int64) (io.ReadCloser, error)) error {
						r, err := open(ctx, 0)
						if err != nil {
							return err
						}
						defer r.Close()
						raw, err := io.ReadAll(r)
						return errors.Join(err, fsx.WriteFileAtomic(d.FS, b.Path(dg), raw[:size], 0o400))
					}
				}
				_ = d.pollOnce()
				if got := e.given >= much; got != open {
					t.Errorf("limits left out %v: %d bytes were taken", open, e.given)
				}
			}
		})
	}
}

// A place that answers nothing, or shows for ever what it showed once, hides nothing that another place shows. Where it is the only
// one, the end of the record is what tells: without that the device would never know.
func TestWithheldByOnePlace(t *testing.T) {
	for name, hostile := range map[string]func(w *world) *shown{
		"drops every request": func(*world) *shown { r := newRegistry(); r.down = true; return &shown{registry: r} },
		"frozen":              func(w *world) *shown { return &shown{registry: w.past()} },
		"knows of nothing":    func(*world) *shown { return &shown{registry: newRegistry()} },
	} {
		t.Run(name, func(t *testing.T) {
			for _, alone := range []bool{false, true} { // alone: nobody else is asked
				for _, endless := range []bool{false, true} { // endless: the record has no end
					w := newWorld(t)
					v1, v2 := w.model("1.0 good"), w.model("2.0 good")
					c := w.change(v1)
					if endless {
						c.Expires = w.Now.Add(300 * 24 * time.Hour)
					}
					w.publish(c)
					honest := &shown{registry: w.reg}
					bad := hostile(w)
					d := w.mustBoot(newDeviceFS(t), func(c *Config) { c.Channels[0].Carrier = set(bad, honest) })
					if err := d.pollOnce(); err != nil {
						t.Fatal(err)
					}
					w.publish(w.change(v2))
					if alone {
						d.followers[0].places = placesOf(set(bad))
					}
					_ = d.pollOnce()
					want := v2.Digest
					if alone {
						want = v1.Digest
					}
					if d.server.current() != want {
						t.Errorf("alone %v: %s serves", alone, d.server.current().Short())
					}
					d.clock.advance(8 * 24 * time.Hour)
					if stale := d.Status().Channels[0].Stale; stale == (alone && endless) {
						t.Errorf("alone %v, record without an end %v: a week later stale is %v", alone, endless, stale)
					}
				}
			}
		})
	}
}

// A mirror that gives altered content is found out by the digests alone: without them its bytes run, although an honest place is
// there.
func TestMaliciousMirrorWithoutHashes(t *testing.T) {
	for _, open := range []bool{false, true} {
		w := newWorld(t)
		target := w.model("1.0 good")
		w.publish(w.change(target))
		evil, honest := &shown{registry: w.past()}, &shown{registry: w.past()}
		evil.blobs[artifact.DigestOf([]byte("1.0 good"))] = []byte("1.0 evil")
		s := set(evil, honest)
		d := w.mustBoot(newDeviceFS(t), func(c *Config) { c.Channels[0].Carrier = s })
		if open {
			believeDownloads(d.Agent)
		}
		err := d.pollOnce()
		want, blamed := "1.0 good", true
		if open {
			want, blamed = "1.0 evil", false
		}
		if err != nil || d.runs() != want || (s.States()[0].After > 0) != blamed {
			t.Errorf("hashes left out %v: %q runs, the mirror is put back by %d, %v", open, d.runs(), s.States()[0].After, err)
		}
	}
}
