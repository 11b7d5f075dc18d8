package enroll

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/fleet"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// Every file operation of enrolment fails, or is the last one before the power goes: there is never half a key, a device
// that was announced never becomes another one, no file is half there, and running it again completes it. Both for a
// first enrolment and for one that brings a new trust document and another credential.
func TestEnrollPowerCuts(t *testing.T) {
	p := verifytest.New(t)
	const dir = "etc/waybill"
	ref := p.TrustRef()
	first := enrolment{class: "edge-s", labels: map[string]string{"site": "a"}, source: "provisioning.json", trust: p.Trust(),
		given: &config.Provisioning{
			Trust:       config.ProvisionedTrust{Version: ref.Version, Digest: ref.Digest},
			Channels:    []config.Channel{{Name: "prod", Env: "prod", Registry: "reg.example", Repo: "ml/churn", Model: "churn", ResourceURI: "waybill:ml/churn"}},
			Credentials: []fleet.Credential{{Registry: "reg.example", Username: "d", Password: "first-pw"}},
		}}
	second := first
	g := *first.given
	g.Credentials = []fleet.Credential{{Registry: "reg.example", Username: "d", Password: "second-pw"}}
	g.Labels = map[string]string{"site": "b"}
	p.Doc.Version = 2
	second.trust, g.Trust.Version, g.Trust.Digest = p.Trust(), 2, p.TrustRef().Digest
	second.given = &g

	fresh := func() *fsx.Mem {
		m := fsx.NewMem()
		for _, err := range []error{m.MkdirAll("etc", 0o755), m.SyncDir(".")} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return m
	}
	run := func(fsys fsx.FS, in enrolment) (*result, error) {
		given := *in.given // install writes into its channels
		given.Channels = append([]config.Channel{}, in.given.Channels...)
		in.given = &given
		return in.install(context.Background(), fsys, dir)
	}
	enrolledOnce := fresh()
	if _, err := run(enrolledOnce, first); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	runs := 0
	// whole reads a file that must be whole or absent.
	whole := func(fsys fsx.FS, name string) []byte {
		b, err := fsx.ReadFile(fsys, filepath.Join(dir, name), 1<<20)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	// look checks what must hold at any moment and gives the device that the folder belongs to, "" for none yet.
	look := func(what string, fsys fsx.FS) string {
		id := ""
		if raw := whole(fsys, KeyFile); raw != nil {
			k, err := devicekey.Parse(raw)
			if err != nil {
				t.Errorf("%s: half a key: %v", what, err)
				return ""
			}
			id = k.KeyID()
		}
		if raw := whole(fsys, RequestFile); raw != nil {
			if r, err := fleet.ParseRequest(raw); err != nil || r.Device != id {
				t.Errorf("%s: the request is of %+v, the key of %.12s: %v", what, r, id, err)
			}
		}
		if raw := whole(fsys, ConfigFile); raw != nil {
			var c config.Config
			if err := json.Unmarshal(raw, &c); err != nil {
				t.Errorf("%s: configuration: %v", what, err)
				return id
			}
			if _, err := verify.TrustPinned(whole(fsys, c.Trust.File), c.Trust.Version, c.Trust.Digest); err != nil {
				t.Errorf("%s: the configuration names a trust document that is not there: %v", what, err)
			}
			if cs, err := fleet.ParseCredentials(whole(fsys, c.Channels[0].Credential)); err != nil || len(cs.Credentials) != 1 {
				t.Errorf("%s: credential: %v", what, err)
			}
		}
		return id
	}
	for name, s := range map[string]struct {
		base *fsx.Mem
		in   enrolment
	}{"first": {fresh(), first}, "again": {enrolledOnce, second}} {
		was := look(name, s.base)
		for _, kind := range []fsx.Fault{fsx.EIO, fsx.ENOSPC, fsx.ShortWrite, fsx.Kill, fsx.KillAfter} {
			for at := 1; ; at++ {
				mem := s.base.CrashClone(100, rng)
				f := fsx.NewFaulty(mem)
				f.Arm(at, kind)
				res, err := run(f, s.in)
				if f.Fired() == "" {
					if err != nil {
						t.Fatalf("%s without a fault: %v", name, err)
					}
					break
				}
				for _, percent := range []int{0, 50, 100} {
					runs++
					what := fmt.Sprintf("%s, %s at %d (%s), %d %%", name, kind, at, f.Fired(), percent)
					after := mem.CrashClone(percent, rng)
					id := look(what, after)
					if was != "" && id != was {
						t.Errorf("%s: device %.12s became %.12s", what, was, id)
					}
					if err == nil && id != res.Request.Device {
						t.Errorf("%s: announced as %.12s, it is %.12s", what, res.Request.Device, id)
					}
					done, err := run(after, s.in)
					if err != nil {
						t.Errorf("%s: run again: %v", what, err)
						continue
					}
					if id != "" && done.Request.Device != id {
						t.Errorf("%s: device %.12s became %.12s when it was run again", what, id, done.Request.Device)
					}
					final := after.CrashClone(0, rng) // all of it is durable
					if look(what, final) != done.Request.Device || !bytes.Contains(whole(final, config.CredentialFile), []byte(s.in.given.Credentials[0].Password)) {
						t.Errorf("%s: not complete", what)
					}
					es, err := final.ReadDir(dir)
					if err != nil {
						t.Fatal(err)
					}
					for _, e := range es {
						if fsx.IsTemp(e.Name()) || e.Name() == "trust-1.jsonl" && s.in.given.Trust.Version == 2 {
							t.Errorf("%s: %s is left", what, e.Name())
						}
					}
				}
			}
		}
	}
	// Where nothing is made durable, the device that was announced is another one after a power cut: the test would see it.
	lazy := fresh()
	lazy.IgnoreSyncs(true)
	res, err := run(lazy, first)
	if err != nil {
		t.Fatal(err)
	}
	cut := lazy.CrashClone(0, rng)
	if err := cut.MkdirAll("etc", 0o755); err != nil {
		t.Fatal(err)
	}
	if again, err := run(cut, first); err == nil && again.Request.Device == res.Request.Device {
		t.Error("without a single sync the device survives a power cut: this shows nothing")
	}
	if runs < 300 {
		t.Errorf("only %d runs", runs)
	}
	t.Logf("%d power cuts and failures", runs)
}
