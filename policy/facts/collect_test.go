package facts

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/policytest"
)

var somePolicy = artifact.DigestOf([]byte("policy"))

func ask(t testing.TB, w *policytest.World, d artifact.Digest) Request {
	t.Helper()
	env, err := w.EnvDoc.Facts("prod")
	if err != nil {
		t.Fatal(err)
	}
	env.Digest, env.Verified = string(w.Environments.Bundle), true
	return Request{Ref: "reg.example/ml/churn", Digest: d, Trust: w.Trust, Environment: env,
		Context: input.Context{Time: policytest.Now(), TimeSource: "pinned", Gate: evidence.GateID, GateVersion: "0.1.0", Action: "promote"}}
}

func collected(t testing.TB, w *policytest.World, d artifact.Digest, s seam) input.Input {
	t.Helper()
	r, err := collect(context.Background(), w, w, ask(t, w, d), s)
	if err != nil {
		t.Fatal(err)
	}
	return r.Input
}

// model is a world with one artifact that has the given statements by the publisher.
func model(t testing.TB, typ string, predicates ...any) (*policytest.World, artifact.Digest, input.Input) {
	t.Helper()
	w := policytest.New(t, somePolicy)
	d := w.Add(t, policytest.Default())
	for _, p := range predicates {
		w.Attach(t, trust.RolePublisher, typ, d, p)
	}
	return w, d, collected(t, w, d, seam{})
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is\n %+v\nwant\n %+v", what, got, want)
	}
}

func TestEverySectionIsFilled(t *testing.T) {
	w := policytest.New(t, somePolicy)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	w.Prove(t, d)
	in := collected(t, w, d, seam{})
	for _, a := range append(in.Attestations, in.Signatures...) {
		if !a.Verified {
			t.Errorf("%s: %s", a.PredicateType, a.Reason)
		}
	}
	pub := input.Signer{KeyID: w.Keys[trust.RolePublisher].ID, Name: "publisher team", Role: "publisher", Kind: "key"}
	if len(in.Provenance) != 1 {
		t.Fatalf("%d provenances", len(in.Provenance))
	}
	p := in.Provenance[0]
	same(t, "source", p.Source, input.Source{URI: "git+https://git.example/team/churn", Commit: policytest.Commit, Clean: "yes"})
	same(t, "signer", p.Signer, pub)
	same(t, "parameters", p.Parameters, []string{"options", "project"})
	same(t, "materials", p.Materials, []input.Material{{Name: "model.onnx", Digest: string(artifact.DigestOf([]byte("model")))}, {Name: "repository", URI: "git+https://git.example/team/churn"}})
	if p.Builder != "https://github.com/waybill-ml/waybill/pack/v1" || p.Invocation != "run-17" || p.Started != "2026-11-20T09:00:00Z" || p.Finished != "2026-11-20T10:00:00Z" {
		t.Errorf("%+v", p)
	}
	s := in.SBOM
	if !s.Present || s.Format != "cyclonedx" || s.SpecVersion != "1.7" || s.Components != 1+len(in.Artifact.Layers) {
		t.Errorf("%+v", s)
	}
	same(t, "licenses", s.Licenses, []string{"MIT"})
	same(t, "missing", s.Missing, []string{})
	same(t, "unlicensed", s.Unlicensed, []string{})
	m := in.Model
	if m.Declared != s.Bundle || m.Owner != "risk team <risk@example.com>" || m.Risk != "limited" || m.Status != "active" || m.Trained != "2026-10-23T09:00:00Z" {
		t.Errorf("%+v", m)
	}
	same(t, "base models", m.BaseModels, []input.BaseModel{{Name: "base", Version: "2", Digest: string(artifact.DigestOf([]byte("base model"))), License: "Apache-2.0", URI: "pkg:huggingface/example/base@2"}})
	k := in.ModelCard
	same(t, "card", k, input.ModelCard{Present: k.Present, Path: k.Path, Digest: k.Digest, Bundle: s.Bundle, Users: []string{"analysts"}, UseCases: []string{"ranking of offers"},
		Limitations: []string{"adults only"}, Tradeoffs: []string{"recall before precision"}, Risks: []input.Risk{{Name: "bias by region", Mitigation: "slices are measured"}},
		Fairness: []input.Fairness{{Group: "new customers", Harms: "fewer offers", Mitigation: "floor"}}, Energy: []input.Energy{{Activity: "training", KWh: 12.5}},
		Oversight: "an analyst looks at each refusal"})
	v := in.Vulnerabilities
	if !v.Scanned || v.Scanner != "pkg:golang/example.com/scanner@1.0" || v.ScannedAt != "2026-11-21T09:00:00Z" || v.DatabaseAt != "2026-11-20T09:00:00Z" || len(v.Findings) != 0 {
		t.Errorf("%+v", v)
	}
	if len(in.Tests) != 1 || in.Tests[0].Result != "PASSED" || !slices.Equal(in.Tests[0].Configuration, []string{"device-class:edge-s"}) || !slices.Equal(in.Tests[0].Passed, []string{"latency", "smoke"}) {
		t.Errorf("%+v", in.Tests)
	}
	if !in.VerdictChain.Complete || len(in.VerdictChain.Heads) != 0 {
		t.Errorf("%+v", in.VerdictChain)
	}
	if want := policytest.Now().Add(-time.Hour); !in.Context.Newest.Equal(want) {
		t.Errorf("newest is %s, want %s", in.Context.Newest, want)
	}
}

func TestProvenanceOfOthers(t *testing.T) {
	base := func() map[string]any { return policytest.Provenance() }
	sha := strings.Repeat("ab", 20)
	def := func(params map[string]any, deps ...any) map[string]any {
		p := base()
		policytest.At(t, p, "https://actions.github.io/buildtypes/workflow/v1", "buildDefinition", "buildType")
		policytest.At(t, p, params, "buildDefinition", "externalParameters")
		if deps == nil {
			deps = []any{}
		}
		return policytest.At(t, p, deps, "buildDefinition", "resolvedDependencies")
	}
	git := func(uri, alg, commit string, notes map[string]any) any {
		m := map[string]any{"uri": uri, "digest": map[string]any{alg: commit}}
		if notes != nil {
			m["annotations"] = notes
		}
		return m
	}
	workflow := map[string]any{"workflow": map[string]any{"ref": "refs/heads/main", "repository": "https://github.com/o/r", "path": ".github/workflows/x.yml"}}
	ours := input.Source{URI: "git+https://github.com/o/r", Commit: sha}
	with := func(s input.Source, clean string) input.Source { s.Clean = clean; return s }
	for name, c := range map[string]struct {
		doc  map[string]any
		want input.Source
	}{
		"GitHub":                                {def(workflow, git("git+https://github.com/o/r@refs/heads/main", "gitCommit", sha, nil)), ours},
		"GitHub with a reused workflow":         {def(workflow, git("git+https://github.com/o/tools@refs/tags/v1", "gitCommit", policytest.Commit, nil), git("git+https://github.com/o/r@refs/heads/main", "gitCommit", sha, nil)), ours},
		"sha1 and .git":                         {def(workflow, git("https://github.com/o/r.git", "sha1", sha, nil)), ours},
		"one repository, not in the parameters": {def(map[string]any{"x": "y"}, git("git+https://github.com/o/r", "gitCommit", sha, nil)), ours},
		"two repositories, none asked for":      {def(map[string]any{"x": "y"}, git("git+https://github.com/o/r", "gitCommit", sha, nil), git("git+https://github.com/o/s", "gitCommit", sha, nil)), input.Source{}},
		"two commits of the repository":         {def(workflow, git("git+https://github.com/o/r", "gitCommit", sha, nil), git("git+https://github.com/o/r", "gitCommit", policytest.Commit, nil)), input.Source{}},
		"in the parameters":                     {def(map[string]any{"source": git("git+https://github.com/o/r@refs/tags/v1", "sha1", sha, nil)}), ours},
		"no commit":                             {def(workflow, git("git+https://github.com/o/r", "gitCommit", "main", nil)), input.Source{}},
		"a file with a SHA-1":                   {def(workflow, git("pkg:npm/x@1", "sha1", sha, nil)), input.Source{}},
		"dirty":                                 {def(workflow, git("git+https://github.com/o/r", "gitCommit", sha, map[string]any{"dirty": true})), with(ours, "no")},
		"clean":                                 {def(workflow, git("git+https://github.com/o/r", "gitCommit", sha, map[string]any{"clean": true})), with(ours, "yes")},
		"clean and modified":                    {def(workflow, git("git+https://github.com/o/r", "gitCommit", sha, map[string]any{"clean": true, "modified": true})), with(ours, "no")},
		"ssh with a user":                       {def(map[string]any{}, git("git+ssh://git@github.com/o/r.git@main", "gitCommit", sha, nil)), input.Source{URI: "git+ssh://git@github.com/o/r", Commit: sha}},
		"nothing":                               {def(workflow), input.Source{}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, in := model(t, evidence.TypeProvenance, c.doc)
			if len(in.Provenance) != 1 {
				t.Fatalf("%+v", in.Attestations)
			}
			same(t, "source", in.Provenance[0].Source, c.want)
		})
	}
	for name, doc := range map[string]map[string]any{
		"no builder":      policytest.At(t, base(), "", "runDetails", "builder", "id"),
		"a time in words": policytest.At(t, base(), "yesterday", "runDetails", "metadata", "startedOn"),
		"another case":    policytest.At(t, base(), map[string]any{"id": "https://evil.example"}, "runDetails", "Builder"),
		"a broken digest": policytest.At(t, base(), map[string]any{"sha256": "abc"}, "buildDefinition", "resolvedDependencies", 1, "digest"),
		"too much text":   policytest.At(t, base(), strings.Repeat("x", input.MaxText+1), "buildDefinition", "buildType"),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, in := model(t, evidence.TypeProvenance, doc)
			if len(in.Provenance) != 0 || len(in.Attestations) != 1 || in.Attestations[0].Verified || in.Attestations[0].Reason == "" {
				t.Errorf("%+v %+v", in.Provenance, in.Attestations)
			}
		})
	}
	doc := policytest.At(t, base(), nil, "runDetails", "metadata")
	policytest.At(t, doc, map[string]any{"invocationId": nil}, "runDetails", "metadata") // null is absent
	if _, _, in := model(t, evidence.TypeProvenance, doc); len(in.Provenance) != 1 || in.Provenance[0].Started != "" {
		t.Errorf("%+v", in.Attestations)
	}
}

func TestBills(t *testing.T) {
	w := policytest.New(t, somePolicy)
	d := w.Add(t, policytest.Default())
	bom := func(change func(map[string]any)) map[string]any {
		b := w.BOM(t, d)
		if change != nil {
			change(b)
		}
		return b
	}
	lib := func(name string, licenses ...any) map[string]any {
		return map[string]any{"type": "library", "name": name, "version": "1", "licenses": licenses}
	}
	try := func(t *testing.T, typ string, docs ...map[string]any) input.Input {
		t.Helper()
		w.Attached[d] = nil
		for _, x := range docs {
			w.Attach(t, trust.RolePublisher, typ, d, x)
		}
		return collected(t, w, d, seam{})
	}
	add := func(parts ...any) func(map[string]any) {
		return func(b map[string]any) { b["components"] = append(b["components"].([]any), parts...) }
	}
	prop := func(name, value string) func(map[string]any) {
		return func(b map[string]any) {
			c := b["metadata"].(map[string]any)["component"].(map[string]any)
			c["properties"] = slices.DeleteFunc(c["properties"].([]any), func(p any) bool { return p.(map[string]any)["name"] == "waybill:"+name })
			if value != "" {
				c["properties"] = append(c["properties"].([]any), map[string]any{"name": "waybill:" + name, "value": value})
			}
		}
	}
	untimed := func(b map[string]any) { policytest.At(t, b, nil, "metadata", "timestamp") }

	t.Run("licenses", func(t *testing.T) {
		in := try(t, evidence.TypeCycloneDX, bom(add(
			lib("a", map[string]any{"expression": "apache-2.0 OR mit"}),
			lib("b"), lib("c", map[string]any{"license": map[string]any{"name": "Our terms"}}), lib("d", map[string]any{"expression": "NOASSERTION"}),
			map[string]any{"type": "data", "name": "rows"},
			map[string]any{"type": "application", "name": "app", "licenses": []any{map[string]any{"license": map[string]any{"id": "MIT"}}}, "components": []any{lib("nested")}},
		)))
		same(t, "licenses", in.SBOM.Licenses, []string{"Apache-2.0 OR MIT", "MIT", "Our terms"})
		same(t, "unlicensed", in.SBOM.Unlicensed, []string{"b@1", "d@1", "nested@1"})
	})
	t.Run("a layer that is a library needs no license of its own", func(t *testing.T) {
		l := w.Layer(t, d, artifact.RoleModule)
		x := lib("step")
		x["hashes"] = []any{map[string]any{"alg": "SHA-256", "content": l.Digest.Hex()}}
		if in := try(t, evidence.TypeCycloneDX, bom(add(x))); len(in.SBOM.Unlicensed) != 0 {
			t.Errorf("%+v", in.SBOM)
		}
	})
	t.Run("missing layers", func(t *testing.T) {
		in := try(t, evidence.TypeCycloneDX, bom(func(b map[string]any) {
			b["components"] = slices.DeleteFunc(b["components"].([]any), func(c any) bool { return c.(map[string]any)["name"] == "module.wasm" })
		}))
		same(t, "missing", in.SBOM.Missing, []string{"module.wasm"})
	})
	t.Run("the bill that lists the layers counts, not a newer one of something else", func(t *testing.T) {
		other := map[string]any{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": map[string]any{"timestamp": "2026-11-22T00:00:00Z"}, "components": []any{lib("gpl", map[string]any{"expression": "GPL-3.0-only"})}}
		in := try(t, evidence.TypeCycloneDX, other, bom(nil))
		same(t, "version", in.SBOM.SpecVersion, "1.7")
		same(t, "missing", in.SBOM.Missing, []string{})
	})
	t.Run("the newest of equals counts", func(t *testing.T) {
		old := bom(prop("owner", "the former team"))
		policytest.At(t, old, "2026-01-01T00:00:00Z", "metadata", "timestamp")
		in := try(t, evidence.TypeCycloneDX, old, bom(nil))
		if !strings.HasPrefix(in.Model.Owner, "risk team") || in.Model.Declared != in.SBOM.Bundle {
			t.Errorf("%+v", in.Model)
		}
	})
	t.Run("bills without a time are read with caution", func(t *testing.T) {
		a, b := bom(untimed), bom(untimed)
		prop("risk", "high")(a)
		prop("status", "retired")(b)
		prop("trained", "2020-01-01T00:00:00+01:00")(b)
		in := try(t, evidence.TypeCycloneDX, a, b)
		if in.Model.Risk != "high" || in.Model.Status != "retired" || in.Model.Trained != "2019-12-31T23:00:00Z" {
			t.Errorf("%+v", in.Model)
		}
	})
	t.Run("of another model", func(t *testing.T) {
		in := try(t, evidence.TypeCycloneDX, bom(func(b map[string]any) {
			policytest.At(t, b, strings.Repeat("0", 64), "metadata", "component", "hashes", 0, "content")
		}))
		if in.Model.Declared != "" || in.ModelCard.Bundle != "" || !in.SBOM.Present {
			t.Errorf("%+v %+v", in.Model, in.SBOM)
		}
	})
	t.Run("the owner of older bills is the author", func(t *testing.T) {
		in := try(t, evidence.TypeCycloneDX, bom(func(b map[string]any) {
			prop("owner", "")(b)
			policytest.At(t, b, []any{map[string]any{"name": "team", "email": "team@example.com"}}, "metadata", "component", "authors")
		}))
		same(t, "owner", in.Model.Owner, "team <team@example.com>")
	})
	for name, change := range map[string]func(map[string]any){
		"risk":    prop("risk", "harmless"),
		"status":  prop("status", "on"),
		"trained": prop("trained", "spring"),
		"unit": func(b map[string]any) {
			policytest.At(t, b, "kcal", "metadata", "component", "modelCard", "considerations", "environmentalConsiderations", "energyConsumptions", 0, "activityEnergyCost", "unit")
		},
		"time": func(b map[string]any) { policytest.At(t, b, "now", "metadata", "timestamp") },
		"ancestor": func(b map[string]any) {
			policytest.At(t, b, "xyz", "metadata", "component", "pedigree", "ancestors", 0, "hashes", 0, "content")
		},
		"long": prop("owner", strings.Repeat("ä", input.MaxText+1)),
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			in := try(t, evidence.TypeCycloneDX, bom(change))
			if in.SBOM.Present || in.Model.Declared != "" || in.ModelCard.Bundle != "" || len(in.Attestations) != 1 || in.Attestations[0].Verified {
				t.Errorf("%+v %+v", in.SBOM, in.Attestations)
			}
		})
	}
	t.Run("SPDX 2.3", func(t *testing.T) {
		for _, typ := range []string{evidence.TypeSPDX, evidence.TypeSPDX23} {
			in := try(t, typ, w.SPDX(t, d))
			same(t, "bill", in.SBOM, input.SBOM{Present: true, Format: "spdx", SpecVersion: "2.3", Bundle: in.SBOM.Bundle, Components: 3 + len(in.Artifact.Layers),
				Licenses: []string{"MIT"}, Unlicensed: []string{"liby@2"}, Missing: []string{}})
		}
	})
	t.Run("SPDX 3", func(t *testing.T) {
		l := w.Layer(t, d, artifact.RoleModule)
		in := try(t, evidence.TypeSPDX, map[string]any{"@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld", "@graph": []any{
			map[string]any{"type": "CreationInfo", "@id": "_:c", "specVersion": "3.0.1", "created": "2026-11-20T00:00:00Z", "createdBy": []any{"urn:a"}},
			map[string]any{"type": "software_Sbom", "spdxId": "urn:sbom", "rootElement": []any{"urn:model"}},
			map[string]any{"type": "ai_AIPackage", "spdxId": "urn:model", "name": "churn"},
			map[string]any{"type": "software_Package", "spdxId": "urn:x", "name": "libx", "software_packageVersion": "1"},
			map[string]any{"type": "software_Package", "spdxId": "urn:y", "name": "liby"},
			map[string]any{"type": "software_Package", "spdxId": "urn:z", "name": "libz"},
			map[string]any{"type": "software_File", "spdxId": "urn:f", "name": "module.wasm", "verifiedUsing": []any{map[string]any{"type": "Hash", "algorithm": "sha256", "hashValue": l.Digest.Hex()}}},
			map[string]any{"type": "simplelicensing_LicenseExpression", "spdxId": "urn:l", "simplelicensing_licenseExpression": "mit"},
			map[string]any{"type": "Relationship", "from": "urn:x", "relationshipType": "hasDeclaredLicense", "to": []any{"urn:l"}},
			map[string]any{"type": "Relationship", "from": "urn:y", "relationshipType": "hasConcludedLicense", "to": []any{"https://spdx.org/rdf/3.0.1/terms/ExpandedLicensing/NoAssertionLicense"}},
			map[string]any{"type": "Relationship", "from": "urn:z", "relationshipType": "hasConcludedLicense", "to": []any{"https://spdx.org/licenses/Apache-2.0"}},
		}})
		s := in.SBOM
		same(t, "licenses", s.Licenses, []string{"Apache-2.0", "MIT"})
		same(t, "unlicensed", s.Unlicensed, []string{"liby"})
		if s.SpecVersion != "3.0.1" || slices.Contains(s.Missing, "module.wasm") || len(s.Missing) != len(in.Artifact.Layers)-1 {
			t.Errorf("%+v", s)
		}
	})
}

func vulnerable(at string, vs ...any) map[string]any {
	return map[string]any{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"metadata": map[string]any{"timestamp": at, "tools": map[string]any{"components": []any{map[string]any{"type": "application", "name": "scanner", "version": "3"}}},
			"properties": []any{map[string]any{"name": "waybill:database-at", "value": "2026-11-01T00:00:00Z"}}},
		"components":      []any{map[string]any{"type": "library", "bom-ref": "x", "name": "libx", "version": "1.2.3", "purl": "pkg:golang/example.com/libx@1.2.3"}},
		"vulnerabilities": vs}
}

func vulnerability(id, severity, state string, refs ...string) map[string]any {
	v := map[string]any{"id": id}
	if severity != "" {
		v["ratings"] = []any{map[string]any{"severity": severity}}
	}
	if state != "" {
		v["analysis"] = map[string]any{"state": state}
	}
	var affects []any
	for _, r := range refs {
		affects = append(affects, map[string]any{"ref": r})
	}
	if affects != nil {
		v["affects"] = affects
	}
	return v
}

func TestScans(t *testing.T) {
	ids := func(v input.Vulnerabilities) string {
		var s []string
		for _, f := range v.Findings {
			s = append(s, f.ID+":"+f.Severity+":"+f.State)
		}
		return strings.Join(s, " ")
	}
	t.Run("every finding stays, with its state", func(t *testing.T) {
		var vs []any
		for i, s := range []string{"", "resolved", "resolved_with_pedigree", "exploitable", "in_triage", "false_positive", "not_affected", "whatever"} {
			vs = append(vs, vulnerability("CVE-"+string(rune('0'+i)), "high", s, "x"))
		}
		_, _, in := model(t, evidence.TypeCycloneDX, vulnerable("2026-11-20T00:00:00Z", vs...))
		same(t, "findings", ids(in.Vulnerabilities), "CVE-0:high: CVE-1:high:fixed CVE-2:high:fixed CVE-3:high:affected CVE-4:high:under_investigation CVE-5:high:not_affected CVE-6:high:not_affected CVE-7:high:")
		f := in.Vulnerabilities.Findings[0]
		if f.Package != "libx" || f.Version != "1.2.3" || in.Vulnerabilities.Scanner != "scanner@3" || in.Vulnerabilities.DatabaseAt != "2026-11-01T00:00:00Z" {
			t.Errorf("%+v", in.Vulnerabilities)
		}
	})
	t.Run("severities", func(t *testing.T) {
		scored := func(id string, score float64, method string) map[string]any {
			return map[string]any{"id": id, "ratings": []any{map[string]any{"score": score, "method": method}}}
		}
		_, _, in := model(t, evidence.TypeCycloneDX, vulnerable("2026-11-20T00:00:00Z", scored("a", 9.8, "CVSSv31"), scored("b", 3, "OWASP"), scored("c", 11, "CVSSv3"),
			vulnerability("d", "info", ""), vulnerability("e", "unknown", ""), vulnerability("f", "", ""),
			map[string]any{"id": "g", "ratings": []any{map[string]any{"severity": "low"}, map[string]any{"severity": "critical"}}}))
		same(t, "findings", ids(in.Vulnerabilities), "a:critical: b:unknown: c:unknown: d:low: e:unknown: f:unknown: g:critical:")
		for s, want := range map[string]string{"9.0": "critical", "7": "high", "6.9": "medium", "0.1": "low", "0": "low", "-1": "unknown", "NaN": "unknown", "Important": "high", "MODERATE": "medium", "": "unknown", "1e400": "unknown"} {
			if got := severity(s); got != want {
				t.Errorf("%q is %s, want %s", s, got, want)
			}
		}
	})
	t.Run("the newest scan counts", func(t *testing.T) {
		now := policytest.Now()
		w := policytest.New(t, somePolicy)
		d := w.Add(t, policytest.Default())
		w.Attach(t, trust.RolePublisher, evidence.TypeCycloneDX, d, vulnerable("2026-01-01T00:00:00Z", vulnerability("CVE-OLD", "critical", "", "x")))
		w.Attach(t, trust.RoleEvaluator, evidence.TypeVulns, d, policytest.Scan(now.AddDate(0, 0, -1), "CVE-NEW"))
		in := collected(t, w, d, seam{})
		same(t, "findings", ids(in.Vulnerabilities), "CVE-NEW:medium:")
		same(t, "finding", in.Vulnerabilities.Findings[0], input.Finding{ID: "CVE-NEW", Severity: "medium", Package: "libx", Version: "1.2.3", FixedIn: "1.2.4"})
		w.Attach(t, trust.RolePublisher, evidence.TypeCycloneDX, d, vulnerable("2026-11-22T09:00:00Z", vulnerability("CVE-SAME", "high", "", "x")))
		in = collected(t, w, d, seam{})
		same(t, "findings of scans at the same time", ids(in.Vulnerabilities), "CVE-NEW:medium: CVE-SAME:high:")
		same(t, "database", in.Vulnerabilities.DatabaseAt, "2026-11-01T00:00:00Z")
		same(t, "time", in.Vulnerabilities.ScannedAt, "2026-11-22T09:00:00Z")
	})
	t.Run("scans without a time are one", func(t *testing.T) {
		a, b := vulnerable("", vulnerability("A", "low", "", "x")), vulnerable("", vulnerability("B", "low", "", "x"))
		policytest.At(t, a, nil, "metadata", "timestamp")
		policytest.At(t, b, nil, "metadata", "timestamp")
		_, _, in := model(t, evidence.TypeCycloneDX, a, b)
		same(t, "findings", ids(in.Vulnerabilities), "A:low: B:low:")
	})
	t.Run("opinions give a state and hide nothing", func(t *testing.T) {
		vex := func(at string, vs ...any) map[string]any {
			d := vulnerable(at, vs...)
			delete(d, "components")
			return d
		}
		scan := vulnerable("2026-11-20T00:00:00Z", vulnerability("A", "high", "", "x"), vulnerability("B", "high", "", "x"), vulnerability("C", "high", "", "x"), vulnerability("D", "high", ""))
		const ref = "pkg:golang/example.com/libx@1.2.3"
		ranged := vulnerability("C", "", "not_affected", ref)
		policytest.At(t, ranged, []any{map[string]any{"version": "9", "status": "unaffected"}}, "affects", 0, "versions")
		_, _, in := model(t, evidence.TypeCycloneDX, scan,
			vex("2026-11-21T00:00:00Z", vulnerability("A", "", "not_affected", "urn:cdx:3e671687-395b-41f5-a30f-a58921a69b79/1#"+ref), vulnerability("B", "", "not_affected", "pkg:golang/other@1"), ranged, vulnerability("D", "", "exploitable")),
			vex("2026-11-22T00:00:00Z", vulnerability("D", "", "resolved")))
		same(t, "findings", ids(in.Vulnerabilities), "A:high:not_affected B:high: C:high: D:high:fixed")
		same(t, "time", in.Vulnerabilities.ScannedAt, "2026-11-20T00:00:00Z")
		if in.SBOM.SpecVersion != "1.6" {
			t.Errorf("%+v", in.SBOM)
		}
		_, _, in = model(t, evidence.TypeCycloneDX, vex("2026-11-21T00:00:00Z", vulnerability("A", "", "not_affected", ref)))
		if in.Vulnerabilities.Scanned || in.SBOM.Present {
			t.Error("an opinion is taken for a scan or a bill")
		}
	})
	t.Run("no vulnerabilities is a scan when the document says so", func(t *testing.T) {
		_, _, in := model(t, evidence.TypeCycloneDX, policytest.At(t, vulnerable("2026-11-20T00:00:00Z"), []any{}, "vulnerabilities"))
		if !in.Vulnerabilities.Scanned || len(in.Vulnerabilities.Findings) != 0 {
			t.Errorf("%+v", in.Vulnerabilities)
		}
		_, _, in = model(t, evidence.TypeCycloneDX, policytest.At(t, vulnerable("2026-11-20T00:00:00Z"), nil, "vulnerabilities"))
		if in.Vulnerabilities.Scanned {
			t.Error("a bill without vulnerabilities is taken for a scan")
		}
	})
	t.Run("publishers and evaluators may sign a scan, others not", func(t *testing.T) {
		for _, r := range trust.Roles() {
			w := policytest.New(t, somePolicy)
			d := w.Add(t, policytest.Default())
			w.Attach(t, r, evidence.TypeVulns, d, policytest.Scan(policytest.Now()))
			want := r == trust.RolePublisher || r == trust.RoleEvaluator
			if in := collected(t, w, d, seam{}); in.Vulnerabilities.Scanned != want {
				t.Errorf("%s: %+v", r, in.Attestations)
			}
		}
	})
}

// BenchmarkCollect is the collection of everything that stands behind a release, signatures included.
func BenchmarkCollect(b *testing.B) {
	w := policytest.New(b, somePolicy)
	d := w.Release(b, policytest.Default(), 0.98, 0.1)
	w.Prove(b, d)
	rq := ask(b, w, d)
	for b.Loop() {
		if _, err := Collect(context.Background(), w, w, rq); err != nil {
			b.Fatal(err)
		}
	}
}
