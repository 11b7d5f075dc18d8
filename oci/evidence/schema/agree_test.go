package schema_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/evidence/schema"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

func compile(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	names, err := schema.Names()
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	out := map[string]*jsonschema.Schema{}
	for _, n := range names {
		raw, err := schema.Get(n)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		id := doc.(map[string]any)["$id"].(string)
		if want, _ := evidence.TypeByName(n); n != "vsa" && id != want {
			t.Errorf("schema %s has $id %s, want %s", n, id, want)
		}
		if err := c.AddResource(id, doc); err != nil {
			t.Fatal(err)
		}
		s, err := c.Compile(id)
		if err != nil {
			t.Fatalf("%s: %v", n, err)
		}
		out[n] = s
	}
	return out
}

func ours(name string, raw []byte) error {
	switch name {
	case "channel":
		_, err := channel.Parse(raw)
		return err
	case "trust":
		_, err := trust.Parse(raw)
		return err
	}
	typ, _ := evidence.TypeByName(name)
	return evidence.ValidatePredicate(typ, raw)
}

// Rules that a schema can't say; a mutation that the schema passes may be refused with one of these texts only.
var semantic = []string{
	"not after", "expires", "PASSED with", "are not [FAILED]", "is not the extension's policyDigest", "basis.champion",
	"prev", "not the target", "given twice", "verdicts", "epoch", "rollback.from", "is not that of the public key",
	"PUBLIC KEY", "parse public key", "cannot meet the threshold", "approverRoles on", "same key", "lower and an upper", "pattern", "rollout.id",
	"is not that of issuer and subject", "trustedRootJSON has digest",
	"not sorted", "while the state is", "before from", "rules[", "until is no time", "until on a root key",
}

// The strict decoders and the schemas say the same about every fixture and about every mutation of each: key dropped, key
// added, null, another type, empty string, negative number, key in another case.
func TestDecodersAgreeWithSchemas(t *testing.T) {
	schemas := compile(t)
	w := verifytest.New(t)
	seen := map[string]bool{}
	docs := map[string][]any{}
	for _, f := range fixtures(t, w) {
		if f.typ == evidence.TypeRelease {
			continue
		}
		n := evidence.NameOf(f.typ)
		docs[n] = append(docs[n], f.predicate)
	}
	docs["trust"] = []any{w.Doc, second(t, w), keyless(w), ruled(t, w)}
	for name, ps := range docs {
		s := schemas[name]
		if s == nil {
			t.Fatalf("no schema for %s", name)
		}
		seen[name] = true
		for i, p := range ps {
			t.Run(fmt.Sprintf("%s/%d", name, i), func(t *testing.T) { agree(t, name, s, p) })
		}
	}
	for n := range schemas {
		if !seen[n] {
			t.Errorf("schema %s has no fixture", n)
		}
	}
}

// keyless is a trust document with identities.
func keyless(w *verifytest.World) *trust.Document {
	d := *w.Doc
	const issuer, subject, pattern = "https://token.actions.githubusercontent.com", "release@example.com", "https://ci.example/ml/*@refs/tags/v*"
	all := trust.Scope{Models: []string{"*"}, Envs: []string{"prod"}, Channels: []string{"*"}}
	d.Identities = []trust.Identity{
		{ID: trust.IdentityID(issuer, subject, false), Name: "release", Role: trust.RolePublisher, Issuer: issuer, Subject: subject, Scope: all},
		{ID: trust.IdentityID(issuer, pattern, true), Name: "lead", Role: trust.RoleApprover, Issuer: issuer, SubjectPattern: pattern, Scope: all, ApproverRoles: []string{"ml-lead"}},
	}
	d.Keyless = &trust.Keyless{TrustedRoot: artifact.DigestOf([]byte("{}")), TrustedRootJSON: "{}", Logs: 1, Timestamps: 1}
	return &d
}

func agree(t *testing.T, name string, s *jsonschema.Schema, p any) {
	raw, err := artifact.Canonical(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := ours(name, raw); err != nil {
		t.Fatalf("decoder: %v", err)
	}
	mutations, refused := 0, 0
	try := func(what string, v any) {
		t.Helper()
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		inst, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		es, eo := s.Validate(inst), ours(name, raw)
		mutations++
		if eo != nil {
			refused++
		}
		switch {
		case es != nil && eo == nil:
			t.Errorf("%s: the schema refuses, the decoder accepts: %v", what, es)
		case es == nil && eo != nil:
			for _, m := range semantic {
				if strings.Contains(eo.Error(), m) {
					return
				}
			}
			t.Errorf("%s: the decoder refuses, the schema accepts: %v", what, eo)
		}
	}
	var doc any
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	try("unchanged", doc)
	walk(doc, "", func(path string, set func(any), v any) {
		for label, x := range map[string]any{
			"null": nil, "number": -1.5, "string": "x", "empty string": "", "list": []any{}, "object": map[string]any{}, "true": true,
		} {
			if free(name, path) {
				continue // the VSA is open, and decision/v1's parts belong to others
			}
			set(x)
			try(path+" = "+label, doc)
		}
		set(v)
		if o, ok := v.(map[string]any); ok && !free(name, path) {
			for k, was := range o {
				delete(o, k)
				try(path+"."+k+" dropped", doc)
				o[strings.ToUpper(k[:1])+k[1:]+"X"] = was
				if name != "vsa" && !freeMap(path) {
					try(path+"."+k+" renamed", doc)
				}
				delete(o, strings.ToUpper(k[:1])+k[1:]+"X")
				o[k] = was
			}
			if name != "vsa" && !freeMap(path) {
				o["x"] = 1
				try(path+".x added", doc)
				delete(o, "x")
			}
		}
	})
	if refused < mutations/2 {
		t.Errorf("only %d of %d mutations are refused", refused, mutations)
	}
}

// free are parts that other people's documents fill, freeMap objects with free keys.
func free(name, path string) bool {
	return name == "decision" && (strings.HasPrefix(path, ".input.") || strings.HasPrefix(path, ".decision."))
}

func freeMap(path string) bool {
	for _, s := range []string{".labels", ".ids", ".input", ".decision", ".version", ".digest"} {
		if strings.HasSuffix(path, s) {
			return true
		}
	}
	return false
}

func walk(v any, path string, visit func(path string, set func(any), v any)) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			visit(path+"."+k, func(x any) { v[k] = x }, e)
			walk(e, path+"."+k, visit)
		}
	case []any:
		for i, e := range v {
			visit(fmt.Sprintf("%s[%d]", path, i), func(x any) { v[i] = x }, e)
			walk(e, fmt.Sprintf("%s[%d]", path, i), visit)
		}
	}
}
