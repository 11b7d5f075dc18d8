package agent

import (
	"encoding/json"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// Attacks with signed bytes in the place of others: documents that are one thing to one reader and another to the next, records of
// another channel, old orders, and documents that are made to be expensive.

// otherPlaces are the rows in which every signature is good and stands for something else.
func otherPlaces(t *testing.T) []attack {
	// evidence publishes a record whose evidence of one type is another bundle.
	evidenceOf := func(w *world, evil channel.Target, typ string, make func(v *evidence.VSA) []byte) {
		c := w.change(evil)
		v := w.VSA()
		v.Waybill.Basis = evidence.Basis{Channel: "prod", Seq: w.head.Record.Seq, Champion: w.head.Record.Target.Digest}
		b := make(v)
		w.reg.put(b)
		for i, e := range c.Evidence {
			if e.PredicateType == typ {
				c.Evidence[i] = verifytest.Ref(typ, evil.Digest, b)
			}
		}
		r, err := channel.Next(w.head, c)
		if err != nil {
			t.Fatal(err)
		}
		w.push(trust.RoleDeployer, r)
	}
	return []attack{
		{"the record of another channel of the same model and environment under this one's tag", func(w *world, _ *device, evil channel.Target) {
			r, err := channel.Next(w.head, w.change(evil))
			if err != nil {
				t.Fatal(err)
			}
			r.Channel = "canary"
			_, raw := w.SignRecord(trust.RoleDeployer, r)
			w.tag(raw, channel.Tag("prod"))
		}, `of channel "canary"`, func(a *Agent) {
			a.checks.place = func(*channel.Record, *Channel) error { return nil }
			noEvidence(a) // the verdict is bound to the channel as well
			a.checks.follows = func(*channel.Head, *channel.Head, bool) (channel.Step, error) {
				return channel.Step{Kind: channel.Update}, nil
			}
		}},
		{"a verdict in the place of the release", func(w *world, _ *device, evil channel.Target) {
			evidenceOf(w, evil, evidence.TypeRelease, func(v *evidence.VSA) []byte {
				v.TimeVerified = v.TimeVerified.Add(time.Second) // another one than the verdict that stands in its own place
				return w.SignVSA(evil.Digest, v)
			})
		}, "wrong-predicate", noEvidence},
		{"a release in the place of the verdict", func(w *world, _ *device, evil channel.Target) {
			evidenceOf(w, evil, evidence.TypeVSA, func(*evidence.VSA) []byte {
				return w.Keys[trust.RolePublisher].Sign(t, evidence.TypeRelease, "churn", evil.Digest, struct {
					Notes string `json:"notes"`
				}{"another one than the release that stands in its own place"})
			})
		}, "wrong-predicate", noEvidence},
		{"a verdict that was reached when the channel was further", func(w *world, _ *device, evil channel.Target) {
			evidenceOf(w, evil, evidence.TypeVSA, func(v *evidence.VSA) []byte {
				v.Waybill.Basis.Seq += 5
				return w.SignVSA(evil.Digest, v)
			})
		}, "can't stand behind", noEvidence},
	}
}

// A manifest that a publisher signed and that is not what it should be: one reader takes it for an index, another for an image, a
// third for a model. The strict reader takes it for nothing.
func TestMediaTypeConfusion(t *testing.T) {
	type object = map[string]any
	role := func(m object, r artifact.Role) object {
		for _, l := range m["layers"].([]any) {
			if x := l.(object); x["annotations"].(object)[artifact.AnnotationRole] == string(r) {
				return x
			}
		}
		t.Fatalf("no layer of role %s", r)
		return nil
	}
	for name, c := range map[string]struct {
		edit   func(m object)
		raw    func(s string) string
		reason string
	}{
		"an index that is a manifest too": {edit: func(m object) {
			m["mediaType"], m["manifests"] = artifact.MediaTypeIndex, []any{}
		}, reason: "media type"},
		"config of an image":             {edit: func(m object) { m["config"].(object)["mediaType"] = "application/vnd.oci.image.config.v1+json" }, reason: "config has media type"},
		"artifact type of a record":      {edit: func(m object) { m["artifactType"] = artifact.MediaTypeChannel }, reason: "artifactType"},
		"no artifact type":               {edit: func(m object) { delete(m, "artifactType") }, reason: "artifactType"},
		"the module's media type":        {edit: func(m object) { role(m, artifact.RoleModule)["mediaType"] = artifact.MediaTypeDoc }, reason: "has media type"},
		"golden vectors as a step":       {edit: func(m object) { role(m, artifact.RoleGolden)["annotations"].(object)[artifact.AnnotationRole] = "step" }, reason: "has media type"},
		"a referrer that is a model":     {edit: func(m object) { m["subject"] = m["config"] }, reason: "no subject"},
		"another schema":                 {edit: func(m object) { m["schemaVersion"] = 1 }, reason: "schemaVersion"},
		"layers twice, in two spellings": {raw: func(s string) string { return `{"Layers":[],` + s[1:] }, reason: "twice"},
		"the file under a path that leads out": {edit: func(m object) {
			a := role(m, artifact.RoleModule)["annotations"].(object)
			a[artifact.AnnotationTitle], a[artifact.AnnotationFilepath] = "../../model.wasm", "../../model.wasm"
		}, reason: "file path"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, open := range []bool{false, true} {
				w, _, d, v1 := on1(t)
				evil := w.model("6.6 evil")
				raw := w.reg.blobs[evil.Digest]
				if c.edit != nil {
					var m object
					if err := json.Unmarshal(raw, &m); err != nil {
						t.Fatal(err)
					}
					c.edit(m)
					var err error
					if raw, err = json.Marshal(m); err != nil {
						t.Fatal(err)
					}
				} else {
					raw = []byte(c.raw(string(raw)))
				}
				evil.Digest, evil.Size = w.reg.put(raw), int64(len(raw))
				w.publish(w.change(evil))
				if open {
					believeManifests(d.Agent)
				}
				err := d.pollOnce()
				switch {
				case open && (err != nil || d.server.current() != evil.Digest):
					t.Errorf("read without the rules it is refused all the same: %v", err)
				case !open && (err == nil || !strings.Contains(err.Error(), c.reason) || d.server.current() != v1.Digest):
					t.Errorf("%v, %s serves", err, d.server.current().Short())
				}
			}
		})
	}
}

// A digest is the name of a file on the device. One that leads out of the store is none.
func TestDigestThatLeadsOut(t *testing.T) {
	const outside = artifact.Digest("sha256:../../../outside")
	for _, open := range []bool{false, true} {
		w, m, d, v1 := on1(t)
		evil := w.model("6.6 evil")
		module := artifact.DigestOf([]byte("6.6 evil"))
		raw := []byte(strings.ReplaceAll(string(w.reg.blobs[evil.Digest]), string(module), string(outside)))
		w.reg.blobs[outside] = []byte("6.6 evil")
		evil.Digest, evil.Size = w.reg.put(raw), int64(len(raw))
		w.publish(w.change(evil))
		if open {
			believeManifests(d.Agent)
			believeDownloads(d.Agent)
		}
		err := d.pollOnce()
		_, serr := m.Stat(path.Join(path.Dir(stateDir), "outside"))
		switch {
		case open && (err != nil || serr != nil):
			t.Errorf("without the rules nothing is written outside all the same: %v, %v", err, serr)
		case !open && (err == nil || serr == nil || d.server.current() != v1.Digest):
			t.Errorf("%v; outside of the store: %v", err, serr)
		}
	}
}

// A freeze and its end are orders of their time: neither counts again.
func TestFreezeReplay(t *testing.T) {
	replay := func(w *world, tag artifact.Digest) {
		w.reg.tags[channel.Tag("prod")] = tag
	}
	now := func(w *world) artifact.Digest { return w.reg.tags[channel.Tag("prod")] }
	believeAll := func(d *device) {
		d.checks.follows = func(*channel.Head, *channel.Head, bool) (channel.Step, error) {
			return channel.Step{Kind: channel.Same}, nil // "whatever is signed is news"
		}
	}
	for _, open := range []bool{false, true} {
		// The record before the freeze, while the channel is frozen.
		w, _, d, v1 := on1(t)
		v2 := w.model("2.0 good")
		w.publish(w.change(v2))
		before := now(w)
		w.freeze("stop")
		d.poll(t)
		d.serves(t, v1)
		replay(w, before)
		if open {
			believeAll(d)
		}
		err := d.pollOnce()
		if got := d.server.current() == v2.Digest; got != open || (err == nil) != open {
			t.Errorf("the record before the freeze, check left out %v: %s serves, %v", open, d.server.current().Short(), err)
		}

		// The end of an earlier freeze, while the channel is frozen again.
		w, _, d, v1 = on1(t)
		v2 = w.model("2.0 good")
		w.publish(w.change(v2))
		w.freeze("stop")
		w.lift()
		lifted := now(w)
		w.freeze("stop again")
		d.poll(t)
		d.serves(t, v1)
		replay(w, lifted)
		if open {
			believeAll(d)
		}
		err = d.pollOnce()
		if got := d.server.current() == v2.Digest; got != open || (err == nil) != open {
			t.Errorf("the end of an earlier freeze, check left out %v: %s serves, %v", open, d.server.current().Short(), err)
		}

		// The freeze itself, after its end: to hold up what comes next. The floor in the document would refuse it as well.
		w, _, d, _ = on1(t)
		w.freeze("stop")
		frozen := now(w)
		d.poll(t)
		w.lift()
		d.poll(t)
		replay(w, frozen)
		if open {
			d.checks.follows = func(*channel.Head, *channel.Head, bool) (channel.Step, error) {
				return channel.Step{Kind: channel.Update}, nil
			}
			if err := d.Store.Update(func(s *state.Doc) error { s.Channel("prod").Seq = 0; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		err = d.pollOnce()
		if got := d.channel().Frozen != nil; got != open || (err == nil) != open {
			t.Errorf("the freeze after its end, check left out %v: frozen %v, %v", open, got, err)
		}
	}
}

// Documents nested as deep as their size allows, wherever a device reads one: refused before anything follows the nesting.
func TestDeepDocuments(t *testing.T) {
	deep := func(n int64, open, end string) []byte {
		k := int(n) / (len(open) + len(end))
		return []byte(strings.Repeat(open, k) + strings.Repeat(end, k))
	}
	for _, nest := range [][2]string{{"[", "]"}, {`{"a":`, "}"}, {"[", ""}} {
		small, large := deep(maxRecordBundle-10, nest[0], nest[1]), deep(artifact.MaxManifest-10, nest[0], nest[1])
		for name, stage := range map[string]func(w *world){
			"the record's manifest": func(w *world) { w.reg.tags[channel.Tag("prod")] = w.reg.put(large) },
			"the record":            func(w *world) { w.tag(small, channel.Tag("prod")) },
			"the payload of the record": func(w *world) {
				w.tag(w.Keys[trust.RoleDeployer].SignPayload(w.t, deep(artifact.MaxRecord-10, nest[0], nest[1])), channel.Tag("prod"))
			},
			"the model's manifest": func(w *world) {
				target := channel.Target{Name: "churn", Repo: "ml/churn", Digest: w.reg.put(large), Size: int64(len(large)), Version: "2.0"}
				w.publish(w.change(target))
			},
			"evidence": func(w *world) {
				target := w.model("2.0 good")
				c := w.change(target)
				b := deep(artifact.MaxBundle-10, nest[0], nest[1])
				w.reg.put(b)
				c.Evidence[0] = verifytest.Ref(c.Evidence[0].PredicateType, target.Digest, b)
				w.publish(c)
			},
			"the next trust document": func(w *world) {
				w.tag(deep(artifact.MaxBundle-10, nest[0], nest[1]), TrustTag(2))
				w.Doc = version(t, w.Doc, nil)
				w.publish(w.change(w.model("2.0 good")))
			},
		} {
			w, _, d, v1 := on1(t)
			stage(w)
			if err := d.pollOnce(); err == nil || d.server.current() != v1.Digest {
				t.Errorf("%s of %q: %v", name, nest[0], err)
			}
		}
	}
}

// Chains that are made long: one poll walks so many links and no more.
func TestLongChains(t *testing.T) {
	for _, open := range []bool{false, true} {
		w, _, d, _ := on1(t)
		for range 3 * maxWalk {
			w.refresh()
		}
		if open {
			d.checks.walk = 1 << 20
		}
		before := w.reg.opens
		_ = d.pollOnce()
		if n := w.reg.opens - before; (n > 2*maxWalk+10) != open {
			t.Errorf("records, bound left out %v: %d fetches in one poll", open, n)
		}

		w, _, d, _ = on1(t)
		for range 3 * maxWalk {
			w.Doc = version(t, w.Doc, func(d *trust.Document) { d.Issued = d.Issued.Add(time.Second - time.Hour) })
			w.tag(w.Trust(), TrustTag(w.Doc.Version))
		}
		v2 := w.model("2.0 good")
		w.publish(w.change(v2))
		if open {
			d.checks.walk = 1 << 20
		}
		_ = d.pollOnce()
		if n := d.Trust().Version - 1; (n > 2*maxWalk) != open {
			t.Errorf("trust documents, bound left out %v: %d in one poll", open, n)
		}
		for range 3 { // an honest chain of that length is walked in a few polls
			_ = d.pollOnce()
		}
		d.serves(t, v2)
	}
}
