package cli_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/sign"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/facts"
)

// governScriptCommands make, with the packages that the verbs use, what scripts about the gate start from:
//
//	trustkit DIGEST...             ROLE.key for every role, and trust.signed which pins the policies
//	attach KEY TYPE REF FILE       sign the predicate in FILE about REF, and attach it
//	setenvjson NAME FILE PATH      set NAME to the value at PATH (a.b.0.c) of the JSON in FILE ("stdout" too)
//	setdigest NAME REF             set NAME to the digest of REF
//	fill FILE OLD NEW              replace OLD by NEW in FILE
//	reattach REF OTHER             attach every bundle of REF to OTHER as well
//	nextsecond                     wait until the clock shows another second: statements are dated in whole ones
//	same A B                       fail unless the two texts are equal
//	publish KEY CHANNEL SEQ REF    put a channel record for REF where the model lives
func governScriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"trustkit": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg {
				ts.Fatalf("usage: trustkit DIGEST...")
			}
			all := []string{"*"}
			d := &trust.Document{Schema: trust.Schema, Version: 1, Generation: 1, Threshold: 1, Issued: time.Now().Add(-time.Hour).UTC().Truncate(time.Second),
				Expires: time.Now().AddDate(1, 0, 0).UTC().Truncate(time.Second), Revoked: []string{}, Denied: []artifact.Digest{}}
			for _, a := range args {
				d.Policies = append(d.Policies, artifact.Digest(a))
			}
			for _, r := range []trust.Role{trust.RoleRoot, trust.RolePublisher, trust.RoleEvaluator, trust.RoleApprover, trust.RoleGate, trust.RoleDeployer} {
				k, err := scriptKey(r, ts.Getenv("WAYBILL_PASSWORD"), ts.Getenv("TRUSTKIT"))
				ts.Check(err)
				ts.Check(os.WriteFile(ts.MkAbs(string(r)+".key"), k.Private, 0o600))
				e := trust.Key{ID: k.ID, Name: string(r) + "@example", Role: r, Public: string(k.Public), Scope: trust.Scope{Models: all, Envs: all, Channels: all}}
				if r == trust.RoleApprover {
					e.ApproverRoles = []string{"ml-lead"}
				}
				d.Keys = append(d.Keys, e)
			}
			ts.Setenv("TRUSTKIT", ts.Getenv("TRUSTKIT")+"+")
			digest, err := d.Digest()
			ts.Check(err)
			s, err := evidence.NewStatement(evidence.TypeTrust, "trust", digest, d)
			ts.Check(err)
			ts.Check(os.WriteFile(ts.MkAbs("trust.signed"), append(signWith(ts, "root.key", s), '\n'), 0o600))
		},
		"setenvjson": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 3 {
				ts.Fatalf("usage: setenvjson NAME FILE PATH")
			}
			var v any
			ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &v))
			got, err := walk(v, strings.Split(args[2], "."))
			ts.Check(err)
			ts.Setenv(args[0], got)
		},
		"nextsecond": func(ts *testscript.TestScript, neg bool, args []string) {
			time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second + time.Millisecond)))
		},
		"same": func(ts *testscript.TestScript, neg bool, args []string) {
			if len(args) != 2 || (args[0] == args[1]) == neg {
				ts.Fatalf("%q", args)
			}
		},
		"setdigest": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 2 {
				ts.Fatalf("usage: setdigest NAME REF")
			}
			ref, err := registry.ParseRef(args[1])
			ts.Check(err)
			ts.Setenv(args[0], string(ref.Digest))
		},
		"fill": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 3 {
				ts.Fatalf("usage: fill FILE OLD NEW")
			}
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(ts.ReadFile(args[0]), args[1], args[2])), 0o600))
		},
		"reattach": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 2 {
				ts.Fatalf("usage: reattach REF OTHER")
			}
			from, d := placeOf(ts, args[0])
			raws, err := facts.FromRepository(from).Bundles(context.Background(), d.Digest)
			ts.Check(err)
			ts.Check(closePlace(from))
			to, other := placeOf(ts, args[1])
			for _, raw := range raws {
				_, err := to.Attach(context.Background(), other, raw, evidence.TypeRelease)
				ts.Check(err)
			}
			ts.Check(closePlace(to))
		},
		"attach": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 4 {
				ts.Fatalf("usage: attach KEY TYPE REF FILE")
			}
			typ, ok := evidence.TypeByName(args[1])
			if !ok {
				ts.Fatalf("unknown type %s", args[1])
			}
			place, d := placeOf(ts, args[2])
			s, err := evidence.NewStatement(typ, "model", d.Digest, json.RawMessage(ts.ReadFile(args[3])))
			ts.Check(err)
			_, err = place.Attach(context.Background(), d, signWith(ts, args[0], s), typ)
			ts.Check(err)
			ts.Check(closePlace(place))
		},
		"publish": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 4 {
				ts.Fatalf("usage: publish KEY CHANNEL SEQ REF")
			}
			seq, err := strconv.ParseInt(args[2], 10, 64)
			ts.Check(err)
			place, d := placeOf(ts, args[3])
			ref, err := registry.ParseRef(args[3])
			ts.Check(err)
			s, err := evidence.NewStatement(evidence.TypeChannel, channel.SubjectName(args[1]), d.Digest, record(ts, args[1], seq, ref.Repo, d))
			ts.Check(err)
			ctx := context.Background()
			layer, err := registry.PushBytes(ctx, place, artifact.MediaTypeBundle, signWith(ts, args[0], s))
			ts.Check(err)
			cfg, err := registry.PushBytes(ctx, place, artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig))
			ts.Check(err)
			m, err := json.Marshal(artifact.Manifest{SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: artifact.MediaTypeChannel, Config: cfg, Layers: []artifact.Descriptor{layer}})
			ts.Check(err)
			_, err = place.PushManifest(ctx, m, artifact.MediaTypeManifest, channel.Tag(args[1]))
			ts.Check(err)
			_, err = place.PushManifest(ctx, m, artifact.MediaTypeManifest, channel.SeqTag(args[1], seq))
			ts.Check(err)
			ts.Check(closePlace(place))
		},
	}
}

func record(ts *testscript.TestScript, name string, seq int64, model string, d artifact.Descriptor) *channel.Record {
	raw := ts.ReadFile("trust.signed")
	b, err := evidence.ParseBundle([]byte(strings.TrimSpace(raw)))
	ts.Check(err)
	s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	ts.Check(err)
	now := time.Now().UTC().Truncate(time.Second)
	r := &channel.Record{Schema: channel.Schema, Channel: name, Generation: 1, Seq: seq, Env: name, Issued: now, Expires: now.AddDate(0, 1, 0),
		Audience: channel.Audience{Classes: []string{}, Labels: map[string]string{}}, Keep: []channel.Target{},
		Target: channel.Target{Name: model, Repo: model, Digest: d.Digest, Size: d.Size, Version: "1.0.0"}, Trust: channel.TrustRef{Version: 1, Digest: s.SubjectDigest()}}
	for _, t := range []string{evidence.TypeRelease, evidence.TypeVSA} {
		r.Evidence = append(r.Evidence, channel.EvidenceRef{PredicateType: t, Subject: d.Digest, Digest: artifact.DigestOf([]byte(t)), Size: 9})
	}
	if seq > 1 {
		r.Prev = artifact.DigestOf([]byte("before"))
	}
	return r
}

func signWith(ts *testscript.TestScript, key string, s *evidence.Statement) []byte {
	k, err := sign.Load(ts.MkAbs(key), []byte(ts.Getenv("WAYBILL_PASSWORD")))
	ts.Check(err)
	b, err := k.Sign(context.Background(), s)
	ts.Check(err)
	return b
}

func placeOf(ts *testscript.TestScript, arg string) (registry.Place, artifact.Descriptor) {
	ref, err := registry.ParseRef(arg)
	ts.Check(err)
	p, err := registry.Open(context.Background(), ref, registry.Options{StoreDir: filepath.Join(ts.Getenv("WAYBILL_HOME"), "store")})
	ts.Check(err)
	d, err := p.Resolve(context.Background(), ref.Target())
	ts.Check(err)
	return p, d
}

func closePlace(p registry.Place) error {
	if c, ok := p.(interface{ Close() error }); ok {
		return c.Close()
	}
	return nil
}

// scriptKeys are the keys of trustkit, made once for all scripts: sealing a key takes a fifth of a second by design.
var scriptKeys sync.Map // role and password to func() (*sign.KeyPair, error)

// scriptKey gives the key of a role; another kit in the same script has other keys.
func scriptKey(r trust.Role, password, kit string) (*sign.KeyPair, error) {
	once, _ := scriptKeys.LoadOrStore(string(r)+"\x00"+password+"\x00"+kit, sync.OnceValues(func() (*sign.KeyPair, error) {
		return sign.Generate(sign.ECDSA, r, string(r)+"@example", []byte(password))
	}))
	return once.(func() (*sign.KeyPair, error))()
}
