package fleet_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/fleet"
)

var (
	now      = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	v1, v2   = artifact.DigestOf([]byte("1")), artifact.DigestOf([]byte("2"))
	headA    = artifact.DigestOf([]byte("a"))
	headB    = artifact.DigestOf([]byte("b"))
	northern = map[string]string{"serial": "n-1"}
)

func newKey(t testing.TB) *devicekey.Key {
	t.Helper()
	k, err := devicekey.Generate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func request(t testing.TB, k *devicekey.Key, class string, labels map[string]string) []byte {
	t.Helper()
	r, err := fleet.NewRequest(k, class, labels, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := artifact.Canonical(r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestRequest(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := devicekey.Parse(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"Waybill-Role": "device"}, Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	k, other := newKey(t), newKey(t)
	for _, key := range []*devicekey.Key{k, p256} {
		r, err := fleet.ParseRequest(request(t, key, "edge-s", northern))
		if err != nil || r.Device != key.KeyID() {
			t.Fatalf("%+v, %v", r, err)
		}
		again, err := fleet.NewRequest(key, "edge-s", northern, r)
		if err != nil || again != r {
			t.Errorf("the same question is another request: %v", err)
		}
		if again, err = fleet.NewRequest(key, "edge-m", northern, r); err != nil || again.Class != "edge-m" {
			t.Errorf("%+v, %v", again, err)
		}
	}
	good := string(request(t, k, "edge-s", northern))
	var o fleet.Request
	if err := json.Unmarshal(request(t, other, "edge-s", northern), &o); err != nil {
		t.Fatal(err)
	}
	pub, err := json.Marshal(o.Public)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := k.Public()
	if err != nil {
		t.Fatal(err)
	}
	quoted, err := json.Marshal(string(mine))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ raw, want string }{
		"another class":          {strings.Replace(good, "edge-s", "edge-m", 1), "proof"},
		"another label":          {strings.Replace(good, "n-1", "n-2", 1), "proof"},
		"the id of another":      {strings.Replace(good, k.KeyID(), other.KeyID(), 1), "not that of the public key"},
		"the key of another":     {strings.Replace(strings.Replace(good, string(quoted), string(pub), 1), k.KeyID(), other.KeyID(), 1), "proof"},
		"half written":           {good[:len(good)/2], "damaged"},
		"nothing":                {"", "damaged"},
		"a key that nobody says": {strings.Replace(good, `"class"`, `"klass"`, 1), "damaged"},
		"another schema":         {strings.Replace(good, "edge-request/v1", "edge-request/v9", 1), "schema"},
		"a control character":    {strings.Replace(good, "n-1", `n\u0007`, 1), "cannot be shown"},
	} {
		if c.raw == good {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, err := fleet.ParseRequest([]byte(c.raw)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	tab, err := fleet.ParseTable([]byte("\ufeffserial,site,note\r\nn-1,north,\"a, b\"\r\nn-2,,\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, row, ok := tab.Of("x", northern); !ok || row["site"] != "north" || row["note"] != "a, b" {
		t.Errorf("%v", row)
	}
	if _, row, ok := tab.Of("x", map[string]string{"serial": "n-2"}); !ok || len(row) != 0 {
		t.Errorf("empty cells are labels: %v", row)
	}
	if _, _, ok := tab.Of("x", nil); ok {
		t.Error("a device without a serial number has a row")
	}
	for name, c := range map[string]struct{ raw, want string }{
		"bad UTF-8":       {"serial,site\nn-1,ok\nn-2,\xff\n", "line 3: not UTF-8"},
		"a row twice":     {"serial,site\nn-1,a\nn-1,b\n", "line 3: serial \"n-1\" is in line 2"},
		"a column twice":  {"serial,site,site\n", "twice"},
		"too few columns": {"serial,site\nn-1\n", "line 2"},
		"no header":       {"", "no header"},
		"an empty name":   {"serial,\nn-1,a\n", "missing"},
		"an empty key":    {"serial,site\n,a\n", "line 2"},
		"a quote":         {"serial,password\nn-1,S3cret\"x\n", "line 2"},
	} {
		_, err := fleet.ParseTable([]byte(c.raw))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzTable(f *testing.F) {
	for _, s := range []string{"serial,site\nn-1,a\n", "device\n", "a,b\n\"x\ny\",z\n", "\xff", "a,a\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		tab, err := fleet.ParseTable(raw)
		if err != nil {
			return
		}
		for key := range tab.Rows {
			if _, _, ok := tab.Of(key, map[string]string{tab.Key: key}); !ok {
				t.Errorf("row %q is not found", key)
			}
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(request(f, newKey(f), "edge-s", northern))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := fleet.ParseRequest(raw); err == nil && (len(r.Device) != 64 || r.Class == "") {
			t.Errorf("%+v", r)
		}
	})
}

func TestEnroll(t *testing.T) {
	a, b, c := newKey(t), newKey(t), newKey(t)
	table := func(s string) *fleet.Table {
		t.Helper()
		tab, err := fleet.ParseTable([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return tab
	}
	serial := func(s string) map[string]string { return map[string]string{"serial": s} }
	asked := []fleet.Asked{
		{Where: "a", Raw: request(t, a, "edge-s", serial("1"))}, {Where: "b", Raw: request(t, b, "edge-s", serial("2"))},
		{Where: "a again", Raw: request(t, a, "edge-s", serial("1"))},
	}
	out, bad := fleet.Enroll(asked, nil, fleet.Rules{
		Labels:  table("serial,site,class\n1,north,edge-s\n2,south,edge-m\n"),
		Secrets: table("serial,username,password\n1,d1,p1\n2,d2,p2\n"), Registry: "reg.example", Classes: []string{"edge-s", "edge-m"},
	})
	if len(bad) != 0 || len(out) != 2 {
		t.Fatalf("%v %v", out, bad)
	}
	for _, e := range out {
		want := map[string]string{a.KeyID(): "north edge-s d1", b.KeyID(): "south edge-m d2"}[e.ID]
		if got := e.Labels["site"] + " " + e.Class + " " + e.Credential.Username; got != want || e.Credential.Registry != "reg.example" {
			t.Errorf("%s, want %s", got, want)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v", *e.Credential, *e.Credential, *e.Credential), "p1") {
			t.Error("a printed credential tells its password")
		}
	}
	for name, x := range map[string]struct {
		asked []fleet.Asked
		rules fleet.Rules
		want  string
		left  int
	}{
		"a device that the table does not know": {asked, fleet.Rules{Labels: table("serial,site\n1,north\n")}, "no row for it", 1},
		"a row of a device that has not asked":  {asked, fleet.Rules{Labels: table("serial,site\n1,n\n2,s\n3,w\n")}, "line 4: serial \"3\" has not asked", 2},
		"a class that is not allowed":           {asked, fleet.Rules{Classes: []string{"edge-m"}}, "is not one of edge-m", 0},
		"one key in two devices": {append(asked[:2:2], fleet.Asked{Where: "c", Raw: request(t, a, "edge-s", serial("9"))}), fleet.Rules{},
			"two devices have one key", 1},
		"one serial number in two devices": {append(asked[:2:2], fleet.Asked{Where: "c", Raw: request(t, c, "edge-s", serial("1"))}),
			fleet.Rules{Labels: table("serial,site\n1,n\n2,s\n")}, "is that of device", 2},
		"half a request":           {append(asked[:2:2], fleet.Asked{Where: "c", Raw: asked[0].Raw[:100]}), fleet.Rules{}, "damaged", 2},
		"half a credential":        {asked, fleet.Rules{Secrets: table("serial,username,password\n1,d,p\n2,d,\n"), Registry: "r"}, "line 3 of the table of credentials", 1},
		"a credential for nowhere": {asked[:1], fleet.Rules{Secrets: table("serial,username,password\n1,d,p\n")}, "registry is missing", 0},
	} {
		out, bad := fleet.Enroll(x.asked, nil, x.rules)
		if len(out) != x.left || !slices.ContainsFunc(bad, func(p fleet.Problem) bool {
			return strings.Contains(p.Where+": "+p.Why, x.want) || strings.Contains(p.Where+" "+p.Why, x.want)
		}) {
			t.Errorf("%s: %d enrolled, %v; want %d and %q", name, len(out), bad, x.left, x.want)
		}
	}
	if out, bad := fleet.Enroll(asked, nil, fleet.Rules{Partial: true, Labels: table("serial,site\n1,n\n3,w\n")}); len(out) != 2 || len(bad) != 0 {
		t.Errorf("partial: %v %v", out, bad)
	}
}

func TestRegister(t *testing.T) {
	r := fleet.Register{}
	for range 3 {
		k := newKey(t)
		pub, err := k.Public()
		if err != nil {
			t.Fatal(err)
		}
		r[k.KeyID()] = fleet.Device{ID: k.KeyID(), Public: string(pub), Class: "edge-s", Labels: map[string]string{"x": "<é>"}}
	}
	raw, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := fleet.ParseRegister(raw)
	if err != nil || len(back) != 3 {
		t.Fatalf("%v %v", back, err)
	}
	if again, err := back.Encode(); err != nil || string(again) != string(raw) {
		t.Errorf("another text: %v", err)
	}
	lines := strings.SplitAfter(string(raw), "\n")
	for name, text := range map[string]string{
		"half a line": string(raw[:len(raw)-30]), "a line twice": string(raw) + lines[0],
		"the key of another": strings.Replace(lines[0], lines[0][11:75], lines[1][11:75], 1),
	} {
		if _, err := fleet.ParseRegister([]byte(text)); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// status signs a report of k.
func status(t testing.TB, k *devicekey.Key, edit func(*evidence.Status)) []byte {
	t.Helper()
	s := evidence.Status{
		Device: k.KeyID(), Class: "edge-s", Labels: map[string]string{}, Channel: "prod", Model: "churn", Seq: 1, State: "committed", Running: v1, Version: "1.0",
		At: now.Add(-time.Hour), Runtime: "0.1.0", Events: []evidence.StatusEvent{}, Journal: evidence.JournalHead{Entries: 10, Head: headA}, Trust: 1,
	}
	edit(&s)
	st, err := evidence.NewStatement(evidence.TypeStatus, "churn", s.Subject(), s)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := k.Sign(st)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func registerOf(t testing.TB, keys ...*devicekey.Key) fleet.Register {
	t.Helper()
	r := fleet.Register{}
	for _, k := range keys {
		pub, err := k.Public()
		if err != nil {
			t.Fatal(err)
		}
		r[k.KeyID()] = fleet.Device{ID: k.KeyID(), Public: string(pub), Class: "edge-s", Labels: map[string]string{}}
	}
	return r
}

// Reports that must not count, each refused for its reason, and each counting once the one check against it is left out.
func TestReportAttacks(t *testing.T) {
	mine, stranger := newKey(t), newKey(t)
	same := func(*evidence.Status) {}
	genuine := status(t, mine, same)
	newest := status(t, mine, func(s *evidence.Status) { s.At, s.Journal.Entries, s.Running = now.Add(-time.Minute), 20, v2 })
	b, err := evidence.ParseBundle(genuine)
	if err != nil {
		t.Fatal(err)
	}
	payload := strings.Replace(string(b.DSSEEnvelope.Payload), `"seq":1`, `"seq":9`, 1)
	altered, err := evidence.EncodeBundle(mine.KeyID(), []byte(payload), b.DSSEEnvelope.Signatures[0].Sig)
	if err != nil || payload == string(b.DSSEEnvelope.Payload) {
		t.Fatal(err)
	}
	theirs, err := evidence.ParseBundle(status(t, stranger, func(s *evidence.Status) { s.Device = mine.KeyID() }))
	if err != nil {
		t.Fatal(err)
	}
	posed, err := evidence.EncodeBundle(mine.KeyID(), theirs.DSSEEnvelope.Payload, theirs.DSSEEnvelope.Signatures[0].Sig)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []struct {
		name, check, want string
		raw               []byte
		before            []byte
	}{
		{"of a stranger", "stranger", "no device of the register", status(t, stranger, same), nil},
		{"of a stranger, under the name of a device", "signature", "altered", posed, nil},
		{"altered", "signature", "altered", altered, nil},
		{"about another device", "device", "a report about device", status(t, mine, func(s *evidence.Status) { s.Device = stranger.KeyID() }), nil},
		{"from the future", "future", "in the future", status(t, mine, func(s *evidence.Status) { s.At = now.Add(24 * time.Hour) }), nil},
		{"an older one, played back", "order", "a newer report", genuine, newest},
	} {
		t.Run(a.name, func(t *testing.T) {
			for _, off := range []string{"", a.check} {
				tally := fleet.NewTally(registerOf(t, mine, newKey(t)), nil, now)
				if a.check == "stranger" {
					tally = fleet.NewTally(registerOf(t, mine), nil, now)
				}
				fleet.Without(tally, off)
				if a.before != nil {
					if _, err := tally.Add(a.before); err != nil {
						t.Fatal(err)
					}
				}
				_, err := tally.Add(a.raw)
				if off == "" && (err == nil || !strings.Contains(err.Error(), a.want)) {
					t.Errorf("%v, want %q", err, a.want)
				}
				if off != "" && err != nil {
					t.Errorf("without check %q it is refused too: %v", off, err)
				}
				if p := tally.Picture("prod", "", 48*time.Hour); a.before != nil && off == "" && p.Running[0].Digest != v2 {
					t.Errorf("the older report stands: %+v", p.Running)
				} else if a.before != nil && off != "" && p.Running[0].Digest != v1 {
					t.Error("without the check the older report does not stand either: this shows nothing")
				}
			}
		})
	}
	// What was seen at an earlier look keeps a played back report out, too.
	tally := fleet.NewTally(registerOf(t, mine), nil, now)
	if _, err := tally.Add(newest); err != nil {
		t.Fatal(err)
	}
	later := fleet.NewTally(registerOf(t, mine), tally.Lines(), now)
	if _, err := later.Add(genuine); !errors.Is(err, fleet.ErrOlder) {
		t.Errorf("%v", err)
	}
	if p := later.Picture("prod", "", 48*time.Hour); p.Reported != 1 || p.Running[0].Digest != v2 {
		t.Errorf("%+v", p)
	}
	if _, err := later.Add(newest); err != nil {
		t.Errorf("the same report again: %v", err)
	}
	for name, raw := range map[string][]byte{"nothing": nil, "junk": []byte("{"), "half": genuine[:len(genuine)/2]} {
		if _, err := later.Add(raw); err == nil {
			t.Errorf("%s counts", name)
		}
	}
}

func TestAlarms(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*evidence.Status)
		want string
	}{
		"copied":      {func(s *evidence.Status) { s.Journal.Head, s.At = headB, s.At.Add(time.Minute) }, "two journals"},
		"put back":    {func(s *evidence.Status) { s.Journal.Entries, s.At = 3, s.At.Add(time.Minute) }, "disk put back"},
		"seq fell":    {func(s *evidence.Status) { s.Seq, s.Journal.Entries, s.At = 0, 12, s.At.Add(time.Minute) }, "seq fell"},
		"other class": {func(s *evidence.Status) { s.Class, s.Journal.Entries, s.At = "edge-xl", 12, s.At.Add(time.Minute) }, "enrolled as"},
	} {
		k := newKey(t)
		tally := fleet.NewTally(registerOf(t, k), nil, now)
		for _, raw := range [][]byte{status(t, k, func(*evidence.Status) {}), status(t, k, c.edit)} {
			if _, err := tally.Add(raw); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		p := tally.Picture("prod", "", 48*time.Hour)
		if len(p.Alarms) != 1 || !strings.Contains(p.Alarms[0].What, c.want) {
			t.Errorf("%s: %+v", name, p.Alarms)
		}
	}
}

func TestPicture(t *testing.T) {
	var keys []*devicekey.Key
	for range 8 {
		keys = append(keys, newKey(t))
	}
	tally := fleet.NewTally(registerOf(t, keys...), nil, now)
	back := func(ms int) func(*evidence.Status) {
		return func(s *evidence.Status) {
			s.State, s.Rollback = "rolled-back", &evidence.StatusNote{At: s.At, From: v2, To: v1, Reason: fmt.Sprintf("latency budget: p99 %dms over 5ms", ms)}
		}
	}
	for i, edit := range []func(*evidence.Status){
		func(s *evidence.Status) { s.Running, s.Version = v2, "2.0" },
		func(s *evidence.Status) { s.Running, s.Version, s.State = v2, "2.0", "trial" },
		func(s *evidence.Status) { s.Running, s.Version = v2, "2.0" },
		back(41), back(77),
		func(s *evidence.Status) {
			s.Running, s.Version, s.State, s.Refusal = "", "", "empty", &evidence.StatusNote{At: s.At, Seq: 1, Reason: "no verdict for class edge-s"}
		},
		func(s *evidence.Status) { s.At = now.Add(-72 * time.Hour) },
	} {
		if _, err := tally.Add(status(t, keys[i], edit)); err != nil {
			t.Fatal(err)
		}
	}
	p := tally.Picture("prod", "", 48*time.Hour)
	if p.Devices != 8 || p.Reported != 6 || p.Silent != 2 || p.Never != 1 {
		t.Errorf("%+v", p)
	}
	if p.Running[0].Digest == "" || len(p.Running) != 4 {
		t.Errorf("%+v", p.Running)
	}
	if len(p.Reasons) != 2 || p.Reasons[0].Kind != "rolled-back" || p.Reasons[0].Devices != 2 || p.Reasons[0].Digest != v2 || p.Reasons[1].Kind != "refused" {
		t.Errorf("%+v", p.Reasons)
	}
	if len(p.Quiet) != 2 || p.Quiet[0].Device != keys[7].KeyID() || p.Quiet[1].Device != keys[6].KeyID() {
		t.Errorf("%+v", p.Quiet)
	}
	if p := tally.Picture("other", "", time.Hour); p.Silent != 8 {
		t.Errorf("%+v", p)
	}
	if p := tally.Picture("prod", "edge-xl", time.Hour); p.Devices != 0 {
		t.Errorf("%+v", p)
	}
}

func FuzzReport(f *testing.F) {
	k := newKey(f)
	good := status(f, k, func(*evidence.Status) {})
	f.Add(good)
	f.Add([]byte("{}"))
	reg := registerOf(f, k)
	f.Fuzz(func(t *testing.T, raw []byte) {
		st, err := fleet.NewTally(reg, nil, now).Add(raw)
		if err == nil && st.Device != k.KeyID() {
			t.Error("a report of somebody else counts")
		}
	})
}

// What 20,000 devices cost an operator: checking their requests, and their reports.
func BenchmarkEnroll20000(b *testing.B) {
	var asked []fleet.Asked
	for i := range 20_000 {
		asked = append(asked, fleet.Asked{Raw: request(b, newKey(b), "edge-s", map[string]string{"serial": fmt.Sprint(i)})})
	}
	b.ReportAllocs()
	for b.Loop() {
		if out, bad := fleet.Enroll(asked, nil, fleet.Rules{}); len(out) != 20_000 || len(bad) != 0 {
			b.Fatal(len(out), bad)
		}
	}
}

func BenchmarkTally20000(b *testing.B) {
	var keys []*devicekey.Key
	var raws [][]byte
	for range 20_000 {
		k := newKey(b)
		keys, raws = append(keys, k), append(raws, status(b, k, func(*evidence.Status) {}))
	}
	reg := registerOf(b, keys...)
	b.ReportAllocs()
	for b.Loop() {
		t := fleet.NewTally(reg, nil, now)
		for _, raw := range raws {
			if _, err := t.Add(raw); err != nil {
				b.Fatal(err)
			}
		}
		if p := t.Picture("prod", "", 48*time.Hour); p.Reported != 20_000 {
			b.Fatal(p.Reported)
		}
	}
}
