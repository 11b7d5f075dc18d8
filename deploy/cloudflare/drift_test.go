package cloudflare

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/deploy"
)

// drifts is a Worker of which release n serves.
func drifts(t *testing.T, rs []deploy.Release, ns ...int) (*platform, *Target) {
	t.Helper()
	p := &platform{token: token}
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	to := target(t, srv.URL, slog.New(slog.DiscardHandler))
	for _, n := range ns {
		apply(t, to, rs[n])
	}
	return p, to
}

func apply(t *testing.T, to *Target, r deploy.Release) *deploy.Outcome {
	t.Helper()
	plan, err := to.Plan(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	o, err := to.Apply(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Code that was changed in the dashboard keeps Waybill's variables. It is shown, and set right by what was there before; a rollback does not bring it back.
func TestEditedCode(t *testing.T) {
	rs := releases(t)
	p, to := drifts(t, rs, 0)
	good := p.code("v2.mjs")
	p.edit("v2.mjs", "export", "/* edited */ export")
	if p.code("v2.mjs") == good {
		t.Fatal("nothing was edited")
	}
	plan, err := to.Plan(t.Context(), rs[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Drift) != 1 || plan.Drift[0].Field != "source" || plan.Drift[0].Old != "quick_editor" || len(plan.Changes) == 0 {
		t.Errorf("%+v, changes %+v", plan.Drift, plan.Changes)
	}
	if _, err := to.Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	if p.code("v2.mjs") != good || len(p.versions) != 2 {
		t.Errorf("after Apply the edited code serves, or the files were sent again: %d versions", len(p.versions))
	}
	if plan, err := to.Plan(t.Context(), rs[0]); err != nil || len(plan.Changes)+len(plan.Drift) > 0 {
		t.Errorf("%+v, %v", plan, err)
	}

	// By a rollback to its digest, and to what served before.
	for _, named := range []bool{true, false} {
		p, to = drifts(t, rs, 0)
		edited := p.edit("v2.mjs", "export", "/* edited */ export")
		digest := rs[0].Digest
		if !named {
			digest = ""
			apply(t, to, rs[1])
		}
		o, err := to.Rollback(t.Context(), digest, 0)
		if err != nil || !o.Changed || o.Digest != rs[0].Digest || o.IDs["version"] == edited || p.code("v2.mjs") != good {
			t.Errorf("rollback, named %v: %+v, %v", named, o, err)
		}
	}

	// What it was made of is gone.
	p, to = drifts(t, rs, 0)
	edited := p.edit("v2.mjs", "export", "/* edited */ export")
	apply(t, to, rs[1])
	for _, u := range p.versions {
		u.deleted = u.deleted || u.id != edited && u.runs() == rs[0].Digest
	}
	if _, err := to.Rollback(t.Context(), "", 0); !errors.Is(err, deploy.ErrGone) || !strings.Contains(err.Error(), edited) {
		t.Errorf("rollback to edited code alone: %v", err)
	}
}

// Variables that were changed or added by hand are shown; a version without Waybill's is none of Waybill's.
func TestEditedVariables(t *testing.T) {
	rs := releases(t)
	for _, c := range []struct {
		name   string
		change func(u *upload)
		field  string
		drift  bool
	}{
		{"another", func(u *upload) {
			u.meta.Bindings = append(u.meta.Bindings, apiBinding{Type: "plain_text", Name: "DEBUG", Text: "1"})
		}, "bindings.DEBUG", true},
		{"a flag", func(u *upload) { u.meta.CompatibilityFlags = []string{"nodejs_compat"} }, "compatibility_flags", true},
		{"the bundle", func(u *upload) {
			u.meta.Bindings = []apiBinding{u.meta.Bindings[0], {Type: "plain_text", Name: varBundle, Text: "x"}}
		}, "bundle", false},
		{"none", func(u *upload) { u.meta.Bindings = nil }, "traffic", false},
		{"the artifact", func(u *upload) {
			u.meta.Bindings = []apiBinding{{Type: "plain_text", Name: varDigest, Text: string(rs[2].Digest)}, u.meta.Bindings[1]}
		}, "traffic", false},
	} {
		p, to := drifts(t, rs, 0)
		p.mu.Lock()
		u := *p.versions[0]
		c.change(&u)
		p.add(&u)
		p.push(apiDeployment{Strategy: "percentage", Versions: []apiShare{{u.id, 100}}})
		p.mu.Unlock()
		plan, err := to.Plan(t.Context(), rs[0])
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, ch := range plan.Changes {
			found = found || ch.Field == c.field
		}
		if !found || (len(plan.Drift) > 0) != c.drift || c.drift && plan.Drift[0].Field != c.field {
			t.Errorf("%s: changes %+v, drift %+v", c.name, plan.Changes, plan.Drift)
		}
		s, err := to.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]bool{"none": true}[c.name]; (s.Running() == "") != want {
			t.Errorf("%s: Status says that %q runs", c.name, s.Running())
		}
		if _, err := to.Apply(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		if plan, err := to.Plan(t.Context(), rs[0]); err != nil || len(plan.Changes)+len(plan.Drift) > 0 || len(p.versions) != 2 {
			t.Errorf("%s, after Apply: %+v, %v, %d versions", c.name, plan, err, len(p.versions))
		}
	}
}
