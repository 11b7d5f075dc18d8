package library_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

// shuffleLists mixes every list of a value, whatever its type. Intervals of two numbers have an order and stay.
func shuffleLists(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				shuffleLists(r, v.Field(i))
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Float64 {
			return
		}
		swap := reflect.Swapper(v.Interface())
		r.Shuffle(v.Len(), swap)
		for i := range v.Len() {
			shuffleLists(r, v.Index(i))
		}
	}
}

// shuffledKeys writes JSON with the keys of every object in another order.
func shuffledKeys(r *rand.Rand, v any) string {
	switch x := v.(type) {
	case map[string]any:
		var parts []string
		for k, e := range x {
			name, _ := json.Marshal(k)
			parts = append(parts, string(name)+": "+shuffledKeys(r, e))
		}
		r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		return "{" + strings.Join(parts, ", ") + "}"
	case []any:
		var parts []string
		for _, e := range x {
			parts = append(parts, shuffledKeys(r, e))
		}
		return "[" + strings.Join(parts, ",\n") + "]"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(b)
}

// withoutDigest is a decision apart from the digest of the document that it is about.
func withoutDigest(t testing.TB, d decision.Decision) []byte {
	t.Helper()
	d.InputDigest = ""
	b, err := d.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every list of the document in another order, and every key: the facts become the same bytes again, and a document whose
// lists stay in another order is decided the same.
func TestDecisionDoesNotDependOnOrder(t *testing.T) {
	p := compile(t)
	r := rand.New(rand.NewPCG(1, 2))
	same, decided, shuffles := 0, 0, 1
	if full() {
		shuffles = 5
	}
	for i, c := range fixtures(t) {
		in, err := input.Parse(c.Doc)
		if err != nil || c.Rule == rego.SchemaRule {
			continue
		}
		for range shuffles {
			shuffled, err := input.Parse([]byte(shuffledKeys(r, decode(t, c.Doc))))
			if err != nil {
				t.Fatal(err)
			}
			shuffleLists(r, reflect.ValueOf(&shuffled).Elem())
			shuffled.Normalize()
			b, err := shuffled.Canonical()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, c.Doc) {
				t.Fatalf("%s/%s: facts in another order are other bytes", c.Rule, c.Name)
			}
			same++
		}
		if !full() && i%9 != 0 {
			continue
		}
		want := withoutDigest(t, c.decision)
		shuffleLists(r, reflect.ValueOf(&in).Elem())
		b, err := in.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		if got := withoutDigest(t, p.Evaluate(context.Background(), b)); !bytes.Equal(got, want) {
			t.Errorf("%s/%s: decided otherwise in another order", c.Rule, c.Name)
		}
		decided++
	}
	t.Logf("%d documents in another order have the same bytes, %d were decided in another order", same, decided)
	if same < 500 || decided < 40 {
		t.Errorf("only %d and %d documents", same, decided)
	}
}

// Keys in another order are other bytes, which another reader may take for another document: they are not evaluated at all.
func TestKeysInAnotherOrderAreRefused(t *testing.T) {
	p := compile(t)
	base, err := library.Base(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	d := p.Evaluate(context.Background(), []byte(shuffledKeys(rand.New(rand.NewPCG(3, 4)), decode(t, base))))
	if d.Allow || len(d.Violations) != 1 || !strings.Contains(d.Violations[0].Message, "canonical form") {
		t.Errorf("%+v", d.Violations)
	}
}

// Evidence that failed, or that is about something else, never helps: added to a denied document it stays denied, by the same
// rules at least.
func TestFailedEvidenceNeverHelps(t *testing.T) {
	p := compile(t)
	n := 0
	for i, c := range fixtures(t) {
		if c.Want != decision.Fail || c.Rule == rego.SchemaRule || !full() && i%9 != 0 {
			continue
		}
		in, err := input.Parse(c.Doc)
		if err != nil {
			t.Fatal(err)
		}
		before := c.decision
		var junk []input.Attestation
		for k, a := range append(append([]input.Attestation{}, in.Signatures...), in.Attestations...) {
			failed := a
			failed.Verified, failed.Reason, failed.Bundle = false, "the signature does not verify", digestOf(k, 'f')
			other := a
			other.Subject, other.Bundle = digestOf(0, 'b'), digestOf(k, 'e')
			junk = append(junk, failed, other)
		}
		for _, a := range junk {
			if a.PredicateType == "https://sigstore.dev/cosign/sign/v1" {
				in.Signatures = append(in.Signatures, a)
			} else {
				in.Attestations = append(in.Attestations, a)
			}
		}
		in.Normalize()
		b, err := in.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		after := p.Evaluate(context.Background(), b)
		if after.Allow && !before.Allow {
			t.Errorf("%s/%s: allowed with evidence that fails", c.Rule, c.Name)
		}
		if status(after, c.Rule) != decision.Fail {
			t.Errorf("%s/%s: with evidence that fails the rule says %s", c.Rule, c.Name, status(after, c.Rule))
		}
		n += len(junk)
	}
	t.Logf("%d pieces of failed or foreign evidence were added", n)
	if n < 400 {
		t.Errorf("only %d pieces", n)
	}
}

func digestOf(n int, c byte) string {
	return fmt.Sprintf("sha256:%s%04x", strings.Repeat(string(c), 60), n)
}
