package evidence_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// named gives a digest that stands for a name.
func named(s string) artifact.Digest { return artifact.DigestOf([]byte(s)) }

// verdicts reads "time:name:prev+merged:result".
func verdicts(t *testing.T, lines []string) []evidence.Verdict {
	t.Helper()
	var vs []evidence.Verdict
	for _, w := range lines {
		f := strings.Split(w, ":")
		v := &evidence.VSA{VerificationResult: f[3]}
		for i, p := range strings.Split(f[2], "+") {
			switch {
			case p == "":
			case i == 0:
				v.Waybill.Prev = named(p)
			default:
				v.Waybill.Merges = append(v.Waybill.Merges, named(p))
			}
		}
		var sec int
		if _, err := fmt.Sscan(f[0], &sec); err != nil {
			t.Fatal(err)
		}
		v.TimeVerified = time.Unix(int64(sec), 0)
		vs = append(vs, evidence.Verdict{Bundle: named(f[1]), VSA: v})
	}
	return vs
}

func digestsOf(names string) []artifact.Digest {
	out := []artifact.Digest{}
	for _, n := range strings.Fields(names) {
		out = append(out, named(n))
	}
	return out
}

// TestChainOf names each verdict time:name:prev:result, in the order that is wanted, and follows random orders of them.
func TestChainOf(t *testing.T) {
	cases := map[string]struct {
		verdicts []string
		heads    string
		missing  string
		forks    int
	}{
		"nothing":                       {},
		"by time":                       {[]string{"1:c::FAILED", "2:b:c:PASSED", "3:a:b:FAILED"}, "a", "", 0},
		"chain within one second":       {[]string{"1:c::FAILED", "1:b:c:FAILED", "1:d:b:PASSED", "1:a:d:FAILED"}, "a", "", 0},
		"a denial of two at once":       {[]string{"1:c::PASSED", "1:b:c:PASSED", "1:a:c:FAILED"}, "a b", "", 1},
		"a denial beside a later pass":  {[]string{"1:c::PASSED", "9:b:c:PASSED", "2:a:c:FAILED"}, "a b", "", 1},
		"a denial beside a longer road": {[]string{"1:c::PASSED", "1:b:c:PASSED", "1:e:b:PASSED", "1:a::FAILED"}, "a e", "", 1},
		"two passes at once":            {[]string{"1:a::PASSED", "2:b::PASSED"}, "b a", "", 1},
		"joined":                        {[]string{"1:c::PASSED", "1:b:c:PASSED", "1:a:c:FAILED", "2:d:a+b:PASSED"}, "d", "", 1},
		"a clock behind":                {[]string{"9:c::PASSED", "5:b:c:FAILED", "1:a:b:PASSED"}, "a", "", 0},
		"a clock ahead, then a denial":  {[]string{"9:c::PASSED", "5:b:c:FAILED"}, "b", "", 0},
		"joined by a clock behind":      {[]string{"9:c::PASSED", "10:b:c:PASSED", "11:a:c:PASSED", "1:d:a+b:PASSED"}, "d", "", 1},
		"one removed":                   {[]string{"1:c::PASSED", "3:a:b:PASSED"}, "a c", "b", 0},
		"the first removed":             {[]string{"2:b:c:PASSED", "3:a:b:PASSED"}, "a", "c", 0},
		"a joined one removed":          {[]string{"1:a::PASSED", "3:c:a+b:PASSED"}, "c", "b", 0},
		"named by two":                  {[]string{"1:a:q:PASSED", "2:b:q:PASSED"}, "b a", "q", 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			want := verdicts(t, c.verdicts)
			in := slices.Clone(want)
			for range 50 {
				rand.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
				got := evidence.ChainOf(in, nil)
				if len(got.Verdicts) != len(want) || got.Complete() != (c.missing == "") || len(got.Forks) != c.forks {
					t.Fatalf("%+v", got)
				}
				if name != "one removed" { // the two parts stand in no order
					for i := range want {
						if got.Verdicts[i].Bundle != want[i].Bundle {
							t.Fatalf("place %d: another verdict than %s", i, c.verdicts[i])
						}
					}
				}
				if !slices.Equal(got.Heads, digestsOf(c.heads)) && len(got.Heads)+len(c.heads) > 0 {
					t.Fatalf("heads %v, want %s", got.Heads, c.heads)
				}
				if !slices.Equal(got.MissingDigests(), digestsOf(c.missing)) {
					t.Fatalf("missing %v, want %q", got.Missing, c.missing)
				}
				if n := got.Newest(); len(want) == 0 != (n == nil) || n != nil && n.Bundle != got.Heads[0] {
					t.Fatalf("newest %v", n)
				}
			}
		})
	}
}

// Taking any verdict away shows, except the one that nothing follows; in chains that split and join at random.
func TestARemovedVerdictShows(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 5))
	n := 0
	for range 300 {
		var vs []evidence.Verdict
		for i := range 2 + rng.IntN(8) {
			v := &evidence.VSA{VerificationResult: []string{evidence.Passed, evidence.Failed}[rng.IntN(2)], TimeVerified: time.Unix(int64(rng.IntN(5)), 0)}
			seen := slices.Clone(vs) // a gate that decides at the same time as others does not see them
			if rng.IntN(3) == 0 && len(seen) > 0 {
				seen = seen[:rng.IntN(len(seen))]
			}
			if heads := evidence.ChainOf(seen, nil).Heads; len(heads) > 0 {
				v.Waybill.Prev, v.Waybill.Merges = heads[0], slices.Sorted(slices.Values(heads[1:]))
			}
			vs = append(vs, evidence.Verdict{Bundle: named(fmt.Sprint("v", i)), VSA: v})
		}
		whole := evidence.ChainOf(vs, nil)
		if !whole.Complete() {
			t.Fatalf("an untouched chain misses %v", whole.Missing)
		}
		for i, v := range vs {
			left := evidence.ChainOf(slices.Delete(slices.Clone(vs), i, i+1), nil)
			if isHead := slices.Contains(whole.Heads, v.Bundle); left.Complete() != isHead {
				t.Fatalf("without %d of %d (head %t): complete %t", i, len(vs), isHead, left.Complete())
			}
			n++
		}
	}
	t.Logf("%d removals", n)
}

// A verdict whose key no longer counts is no verdict, but the chain goes on through it, and it is not missing.
func TestChainThroughWhatNoLongerVerifies(t *testing.T) {
	full := func(prev artifact.Digest) *evidence.VSA {
		at := time.Unix(1, 0).UTC()
		return &evidence.VSA{Verifier: evidence.Verifier{ID: evidence.GateID, Version: map[string]string{}}, TimeVerified: at, ResourceURI: "waybill:ml/churn",
			Policy: evidence.PolicyRef{URI: "p", Digest: map[string]string{"sha256": named("p").Hex()}}, InputAttestations: []evidence.Reference{},
			VerificationResult: evidence.Passed, VerifiedLevels: []string{}, SLSAVersion: "1.0",
			Waybill: evidence.VSAExtension{Environment: "prod", DeviceClasses: []string{}, NotAfter: at.Add(time.Hour), PolicyDigest: named("p"), InputDigest: named("i"),
				DecisionDigest: named("d"), Basis: evidence.Basis{Channel: "prod"}, Violations: []string{}, Warnings: []string{}, Exceptions: []string{}, Prev: prev}}
	}
	bundle := func(v *evidence.VSA) []byte {
		st, err := evidence.NewStatement(evidence.TypeVSA, "churn", named("model"), v)
		if err != nil {
			t.Fatal(err)
		}
		p, err := st.Encode()
		if err != nil {
			t.Fatal(err)
		}
		b, err := evidence.EncodeBundle(named("key").Hex(), p, []byte("signature"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	v0 := full("")
	b0 := bundle(v0)
	b1 := bundle(full(artifact.DigestOf(b0)))
	v2 := full(artifact.DigestOf(b1))
	b2 := bundle(v2)
	vs := []evidence.Verdict{{Bundle: artifact.DigestOf(b2), VSA: v2}, {Bundle: artifact.DigestOf(b0), VSA: v0}}
	c := evidence.ChainOf(vs, [][]byte{b0, b1, b2, []byte("junk")})
	if !c.Complete() || len(c.Heads) != 1 || c.Newest().Bundle != artifact.DigestOf(b2) {
		t.Errorf("%+v", c)
	}
	c = evidence.ChainOf(vs, [][]byte{b0, b2})
	if c.Complete() || c.Missing[0] != (evidence.Gap{Digest: artifact.DigestOf(b1), By: artifact.DigestOf(b2)}) {
		t.Errorf("%+v", c.Missing)
	}
	// What stands before it and is gone is missed through it.
	c = evidence.ChainOf(vs[:1], [][]byte{b1, b2})
	if c.Complete() || c.Missing[0] != (evidence.Gap{Digest: artifact.DigestOf(b0), By: artifact.DigestOf(b1)}) {
		t.Errorf("%+v", c.Missing)
	}
	// Nobody vouches for a verdict that does not verify and that no verified one names.
	if c = evidence.ChainOf(vs[1:], [][]byte{b0, b1}); !c.Complete() || c.Newest().Bundle != artifact.DigestOf(b0) {
		t.Errorf("%+v", c)
	}
}

func TestParseVSAChecksTheChain(t *testing.T) {
	for name, text := range map[string]string{
		"merges without prev": `"merges":["` + string(named("a")) + `"]`,
		"merges its prev":     `"prev":"` + string(named("a")) + `","merges":["` + string(named("a")) + `"]`,
		"merges twice":        `"prev":"` + string(named("b")) + `","merges":["` + string(named("a")) + `","` + string(named("a")) + `"]`,
		"no digest":           `"missing":["x"]`,
	} {
		raw := `{"verifier":{"id":"g","version":{}},"timeVerified":"2026-11-23T09:00:00Z","resourceUri":"waybill:ml/churn","policy":{"uri":"p","digest":{"sha256":"` +
			named("p").Hex() + `"}},"inputAttestations":[],"verificationResult":"PASSED","verifiedLevels":[],"slsaVersion":"1.0",` +
			`"https://github.com/waybill-ml/waybill/vsa/v1":{"environment":"prod","deviceClasses":[],"notAfter":"2026-11-24T09:00:00Z","policyDigest":"` + string(named("p")) +
			`","inputDigest":"` + string(named("i")) + `","decisionDigest":"` + string(named("d")) + `","basis":{"channel":"prod","seq":0},"violations":[],"warnings":[],"exceptions":[]%s}}`
		if _, err := evidence.ParseVSA([]byte(fmt.Sprintf(raw, ""))); err != nil {
			t.Fatal(err)
		}
		if _, err := evidence.ParseVSA([]byte(fmt.Sprintf(raw, ","+text))); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
