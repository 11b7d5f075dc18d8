package azureml_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// What the module says is sent as azapi sends it: location, tags and identity are members of the body again. The server holds it against
// the published schemas, and the target finds nothing left to do.
func TestManifests(t *testing.T) {
	s := serve(t, func(h http.Handler) http.Handler { return h })
	x := settings(s.url)
	ms, err := x.Manifests(release(1))
	if err != nil || len(ms) != 1 || ms[0].Tool != targets.Terraform {
		t.Fatal(ms, err)
	}
	raw, err := json.Marshal(ms[0].Docs[0])
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Resource map[string]map[string]map[string]any
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	put := func(id string, r map[string]any) {
		t.Helper()
		body := maps.Clone(r["body"].(map[string]any))
		for _, k := range []string{"location", "tags", "identity"} {
			if r[k] != nil {
				body[k] = r[k]
			}
		}
		raw, _ := json.Marshal(body)
		req, err := http.NewRequestWithContext(t.Context(), "PUT", s.url+id+"?api-version="+version, bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token(audience))
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 300 {
			var text bytes.Buffer
			_, _ = text.ReadFrom(resp.Body)
			t.Fatalf("%s: %s %s", id, resp.Status, &text)
		}
		if typ := r["type"].(string); !strings.HasSuffix(typ, "@"+version) {
			t.Errorf("%s is of type %s", id, typ)
		}
		s.rest()
	}
	all := doc.Resource["azapi_resource"]
	env, ep, dep := all["environment"], all["endpoint"], all["deployment"]
	put(env["parent_id"].(string)+"/versions/"+env["name"].(string), env)
	id := ep["parent_id"].(string) + "/onlineEndpoints/" + ep["name"].(string)
	put(id, ep)
	put(id+"/deployments/"+dep["name"].(string), dep)
	// azapi_update_resource reads what is there, and writes it with its own members.
	traffic := doc.Resource["azapi_update_resource"]["traffic"]
	whole := maps.Clone(ep)
	whole["type"] = traffic["type"]
	props := maps.Clone(ep["body"].(map[string]any)["properties"].(map[string]any))
	maps.Copy(props, traffic["body"].(map[string]any)["properties"].(map[string]any))
	whole["body"] = map[string]any{"properties": props}
	put(id, whole)
	p, err := open(t, cred{}, x).Plan(t.Context(), release(1))
	if err != nil || len(p.Changes) != 0 || p.From != release(1).Digest {
		t.Errorf("%+v, %v", p, err)
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
