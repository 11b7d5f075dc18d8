package azureml_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/azureml"
	"github.com/waybill-ml/waybill/deploy/targets"
)

type tfResources map[string]map[string]map[string]any

func emitted(t *testing.T, x azureml.Settings, r deploy.Release) tfResources {
	t.Helper()
	ms, err := x.Manifests(r)
	if err != nil || len(ms) != 1 || ms[0].Tool != targets.Terraform {
		t.Fatal(ms, err)
	}
	raw, err := json.Marshal(ms[0].Docs[0])
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Resource tfResources }
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Resource
}

// azapi does with the local server what the provider does with Azure.
type azapi struct {
	t *testing.T
	s *server
}

func (a azapi) call(method, id string, body any) (int, string) {
	a.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		a.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.s.url+id+"?api-version="+version, bytes.NewReader(raw))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token(audience))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	_, _ = text.ReadFrom(resp.Body)
	a.s.rest()
	return resp.StatusCode, text.String()
}

func (a azapi) must(method, id string, body any) {
	a.t.Helper()
	if code, text := a.call(method, id, body); code >= 300 {
		a.t.Fatalf("%s %s: %d %s", method, id, code, text)
	}
}

// body of an azapi_resource: location, tags and identity are its members again.
func (a azapi) body(r map[string]any) map[string]any {
	body := maps.Clone(r["body"].(map[string]any))
	for _, k := range []string{"location", "tags"} {
		if r[k] != nil {
			body[k] = r[k]
		}
	}
	if id, ok := r["identity"].(map[string]any); ok {
		full := map[string]any{"type": id["type"]}
		if ids, ok := id["identity_ids"].([]any); ok {
			all := map[string]any{}
			for _, x := range ids {
				all[x.(string)] = map[string]any{}
			}
			full["userAssignedIdentities"] = all
		}
		body["identity"] = full
	}
	return body
}

// id is what an azapi_resource is under, its reference to the endpoint resolved.
func (a azapi) id(all tfResources, name string) string {
	r := all["azapi_resource"][name]
	typ, is := strings.CutSuffix(r["type"].(string), "@"+version)
	if !is {
		a.t.Fatalf("%s is of another version: %s", name, r["type"])
	}
	parent := r["parent_id"].(string)
	if parent == "azapi_resource.endpoint.id" {
		parent = a.id(all, "endpoint")
	}
	return parent + typ[strings.LastIndex(typ, "/"):] + "/" + r["name"].(string)
}

// apply brings the server from a module's state (nil: nothing) to another's, in the order that Terraform keeps where the old one is destroyed
// last, and each new one after what it depends on.
func (a azapi) apply(old, now tfResources) {
	a.t.Helper()
	var gone []string
	for _, name := range []string{"environment", "endpoint", "deployment"} {
		r, id := now["azapi_resource"][name], a.id(now, name)
		life, _ := r["lifecycle"].(map[string]any)
		if old != nil {
			was := a.id(old, name)
			if was == id {
				if name != "endpoint" || life["ignore_changes"] != "all" {
					a.t.Errorf("%s is written again", name)
				}
				continue
			}
			if life["create_before_destroy"] != true {
				a.t.Errorf("%s is destroyed before its successor is there", name)
			}
			gone = append(gone, was)
		}
		if code, _ := a.call("GET", id, nil); code != 404 {
			a.t.Fatalf("%s exists: azapi would not take it", id)
		}
		a.must("PUT", id, a.body(r))
	}
	act := now["azapi_resource_action"]["traffic"]
	if act["resource_id"] != "azapi_resource.endpoint.id" || !slices.Contains(act["depends_on"].([]any), any("azapi_resource.deployment")) {
		a.t.Errorf("%v", act)
	}
	a.must(act["method"].(string), a.id(now, "endpoint"), act["body"])
	for _, id := range slices.Backward(gone) {
		if strings.Contains(id, "/deployments/") { // the local server keeps environments
			a.must("DELETE", id, nil)
		}
	}
}

// What the modules of two releases say is sent as azapi sends it. The server holds it against the published schemas, refuses traffic that
// does not sum up and the deletion of a deployment that has some, and the target finds nothing left to do.
func TestManifests(t *testing.T) {
	for name, edit := range map[string]func(*azureml.Settings){
		"system identity": func(*azureml.Settings) {},
		"user identity": func(s *azureml.Settings) {
			s.Identity = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/acme-rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller"
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(h http.Handler) http.Handler { return h })
			x := settings(s.url)
			edit(&x)
			a := azapi{t, s}
			var old tfResources
			for n := 1; n <= 2; n++ {
				now := emitted(t, x, release(n))
				a.apply(old, now)
				old = now
				if got := s.traffic(); len(got) != 1 || got[now["azapi_resource"]["deployment"]["name"].(string)] != 100 {
					t.Errorf("release %d: traffic is %v", n, got)
				}
				p, err := open(t, cred{}, x).Plan(t.Context(), release(n))
				if err != nil || len(p.Changes) != 0 || p.From != release(n).Digest {
					t.Errorf("release %d: %+v, %v", n, p, err)
				}
			}
			// A deployment without a tool goes on from there, and back.
			if err := apply(t, open(t, cred{}, x), release(3)); err != nil {
				t.Fatal(err)
			}
			if o, err := open(t, cred{}, x).Rollback(t.Context(), "", time.Minute); err != nil || o.Digest != release(2).Digest {
				t.Errorf("%+v, %v", o, err)
			}
		})
	}
}

func TestManifestsRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*deploy.Release)
		want error
	}{
		"weight": {func(r *deploy.Release) { r.Weight = 10 }, deploy.ErrRelease},
		"arch":   {func(r *deploy.Release) { r.Arches = []string{"arm64"} }, deploy.ErrPlatform},
		"tag":    {func(r *deploy.Release) { r.Image = "acme.azurecr.io/models/churn:1" }, deploy.ErrRelease},
	} {
		r := release(1)
		c.edit(&r)
		x := settings("https://management.azure.com")
		if _, err := x.Manifests(r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
