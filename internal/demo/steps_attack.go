package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
)

// stepAttacks plays an attacker who can write to the registry, its disk included, and who has no key.
func stepAttacks(ctx context.Context, w *world) (string, error) {
	before, err := w.channelHead(ctx)
	if err != nil {
		return "", err
	}
	for i, a := range []struct {
		title string
		run   func(ctx context.Context, w *world) error
	}{
		{"an artifact that nobody signed", attackUnsigned},
		{"one byte of a layer altered in the registry", attackByte},
		{"the same, with the manifest rebuilt and the old signatures attached to it", attackRebuilt},
		{"an older channel record replayed", attackReplay},
		{"a verdict for staging taken for prod", attackStaging},
	} {
		w.printf("   %s\n", w.o.UI.Err.Bold(fmt.Sprintf("%c) %s", 'a'+i, a.title)))
		if err := a.run(ctx, w); err != nil {
			return "", fmt.Errorf("%s: %w", a.title, err)
		}
	}
	after, err := w.channelHead(ctx)
	if err != nil {
		return "", err
	}
	s, err := w.status(ctx)
	if err != nil {
		return "", err
	}
	if after != before || s.Current == nil || s.Current.Digest != w.digests["v2"] || s.State != "committed" {
		return "", fmt.Errorf("the channel was at %+v and is at %+v; the device runs %+v", before, after, s.Current)
	}
	return "five attacks, five refusals; channel and device are where they were", nil
}

// refused runs a command that must be refused with a code and a reason, which is shown.
func (w *world) refused(ctx context.Context, code int, reason string, args ...string) error {
	_, err := w.expect(ctx, code, regexp.MustCompile(reason), 4, args...)
	return err
}

func attackUnsigned(ctx context.Context, w *world) error {
	if err := copyTree(w.path(model, "v1"), w.path("attacker")); err != nil {
		return err
	}
	yaml := w.path("attacker", "waybill.yaml")
	b, err := os.ReadFile(yaml)
	if err != nil {
		return err
	}
	if err := os.WriteFile(yaml, bytes.Replace(b, []byte("version: 1.0.0"), []byte("version: 1.0.1"), 1), 0o600); err != nil {
		return err
	}
	o, err := w.run(ctx, 0, "pack", "attacker")
	if err != nil {
		return err
	}
	_, w.digests["unsigned"], _ = strings.Cut(o.last(), "@")
	if _, err := w.run(ctx, 0, "push", model+":1.0.1", w.repo()+":1.0.1"); err != nil {
		return err
	}
	if err := w.refused(ctx, 3, `release`, "verify", w.ref("unsigned")); err != nil {
		return err
	}
	return w.refused(ctx, 3, `released by 0 publisher keys`, "channel", "publish", "prod", w.ref("unsigned"), "--key", "deployer.key")
}

// layerOf finds the module layer of a version in the registry.
func (w *world) layerOf(ctx context.Context, v string) (*artifact.Model, artifact.Layer, *registry.Remote, error) {
	r, err := registry.NewRemote(w.host, namespace+"/"+model, registry.RemoteOptions{})
	if err != nil {
		return nil, artifact.Layer{}, nil, err
	}
	m, _, err := registry.ReadModel(ctx, r, w.digests[v])
	if err != nil {
		return nil, artifact.Layer{}, nil, err
	}
	l, err := m.Module(artifact.TargetAny)
	return m, l, r, err
}

// blobFile finds a blob in the registry's folder.
func (w *world) blobFile(d artifact.Digest) (string, error) {
	found := ""
	err := filepath.WalkDir(w.path("registry"), func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == d.Hex() {
			found = p
			return fs.SkipAll
		}
		return err
	})
	if err == nil && found == "" {
		err = fmt.Errorf("%s is not on the registry's disk", d)
	}
	return found, err
}

func attackByte(ctx context.Context, w *world) error {
	_, l, _, err := w.layerOf(ctx, "v2")
	if err != nil {
		return err
	}
	file, err := w.blobFile(l.Digest)
	if err != nil {
		return err
	}
	good, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	bad := bytes.Clone(good)
	bad[len(bad)/2] ^= 0x01
	w.say("byte %d of %s, the compiled model of version 2, is flipped on the registry's disk", len(bad)/2, l.Path)
	if err := overwrite(file, bad); err != nil {
		return err
	}
	err = w.refused(ctx, 3, `digest|content|`+l.Digest.Short(), "verify", w.ref("v2"))
	if err == nil {
		err = w.refused(ctx, 3, `digest|content|`+l.Digest.Short(), "pull", w.ref("v2"), "--out", "victim")
	}
	if _, serr := os.Stat(w.path("victim", filepath.FromSlash(l.Path))); err == nil && !errors.Is(serr, fs.ErrNotExist) {
		err = fmt.Errorf("the altered %s was written", l.Path)
	}
	return errors.Join(err, overwrite(file, good))
}

// overwrite changes a read-only file in place, as an attacker on the disk would.
func overwrite(file string, b []byte) error {
	if err := os.Chmod(file, 0o600); err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

func attackRebuilt(ctx context.Context, w *world) error {
	m, l, r, err := w.layerOf(ctx, "v2")
	if err != nil {
		return err
	}
	code, err := registry.ReadBlob(ctx, r, l.Descriptor(), 64<<20)
	if err != nil {
		return err
	}
	code[len(code)/2] ^= 0x01
	bad, err := registry.PushBytes(ctx, r, l.Descriptor().MediaType, code)
	if err != nil {
		return err
	}
	layers := append([]artifact.Layer{}, m.Layers...)
	for i := range layers {
		if layers[i].Path == l.Path {
			layers[i].Digest = bad.Digest
		}
	}
	raw, err := registry.ReadBlob(ctx, r, m.Manifest.Config, artifact.MaxConfig)
	if err != nil {
		return err
	}
	cfg, err := artifact.ParseConfig(raw, m)
	if err != nil {
		return err
	}
	manifest, config, err := artifact.BuildModel(cfg, layers, m.Manifest.Annotations)
	if err != nil {
		return err
	}
	if _, err := registry.PushBytes(ctx, r, artifact.MediaTypeConfig, config); err != nil {
		return err
	}
	d, err := r.PushManifest(ctx, manifest, artifact.MediaTypeManifest, "2.0.1")
	if err != nil {
		return err
	}
	w.digests["forged"] = string(d.Digest)
	refs, err := r.Referrers(ctx, artifact.Digest(w.digests["v2"]))
	if err != nil {
		return err
	}
	n := 0
	for _, ref := range refs {
		b, _, err := r.Manifest(ctx, ref.Digest)
		if err != nil {
			return err
		}
		rm, err := artifact.ParseManifest(b)
		if err != nil {
			return err
		}
		if len(rm.Layers) != 1 || rm.Layers[0].MediaType != artifact.MediaTypeBundle {
			continue
		}
		bundle, err := registry.ReadBlob(ctx, r, rm.Layers[0], artifact.MaxBundle)
		if err != nil {
			return err
		}
		if _, err := r.Attach(ctx, d, bundle, ref.Annotations[artifact.AnnotationBundlePredicate]); err != nil {
			return err
		}
		n++
	}
	if n < 4 {
		return fmt.Errorf("version 2 had only %d statements to steal", n)
	}
	w.say("a new manifest names the altered file, and carries all %d statements of version 2", n)
	if err := w.refused(ctx, 3, `release`, "verify", w.ref("forged")); err != nil {
		return err
	}
	return w.refused(ctx, 3, `released by 0 publisher keys`, "channel", "publish", "prod", w.ref("forged"), "--key", "deployer.key")
}

func attackReplay(ctx context.Context, w *world) error {
	s, err := w.status(ctx)
	if err != nil {
		return err
	}
	w.say("the channel's tag is moved back to its first record, which is genuine and signed")
	if _, err := w.run(ctx, 0, "copy", w.repo()+":channel-prod.1", w.repo()+":channel-prod"); err != nil {
		return err
	}
	err = w.wait(ctx, 20*time.Second, "the device to refuse the old record", w.edge, func() bool {
		now, serr := w.status(ctx)
		if serr == nil {
			s = now
		}
		return serr == nil && s.LastRefusal != nil && s.LastRefusal.Seq == 1
	})
	if err == nil {
		if s.Current == nil || s.Current.Digest != w.digests["v2"] || s.Seq != 2 {
			err = fmt.Errorf("the device took it: it is at seq %d with %+v", s.Seq, s.Current)
		} else if _, err = w.device(ctx, 0, "status", "--config", w.config); err == nil {
			w.printf("     last refusal: %s\n", s.LastRefusal.Reason)
		}
	}
	o := w.quiet(ctx, "copy", w.repo()+":channel-prod.2", w.repo()+":channel-prod")
	if o.code != 0 && err == nil {
		err = fmt.Errorf("put the tag back: %s", firstLines(o.stderr, 2))
	}
	return err
}

func attackStaging(ctx context.Context, w *world) error {
	if err := w.release(ctx, "v3", "3.0.0"); err != nil {
		return err
	}
	if _, err := w.expect(ctx, 0, regexp.MustCompile(`ALLOWED`), 0, "gate", w.ref("v3"), "--env", "staging", "--key", "gate.key"); err != nil {
		return err
	}
	return w.refused(ctx, 4, `prod`, "channel", "publish", "prod", w.ref("v3"), "--key", "deployer.key")
}
