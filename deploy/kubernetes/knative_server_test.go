package kubernetes

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// serving is an API server with Knative's controllers, which work when something is read: a configuration makes revisions of
// templates, revisions become ready after some reads, routes follow the spec once all that it names is ready. Its webhook refuses
// what Knative's does, as far as this target could do it.
type serving struct {
	mu      sync.Mutex
	svc     object
	revs    map[string]object
	age     map[string]int
	version int
	sick    map[artifact.Digest]error
	images  map[string]artifact.Digest
	refused []string
}

const (
	knServices  = "/apis/serving.knative.dev/v1/namespaces/ml/services"
	knRevisions = "/apis/serving.knative.dev/v1/namespaces/ml/revisions"
)

func condition(typ, status, reason, message string) map[string]any {
	return map[string]any{"type": typ, "status": status, "reason": reason, "message": message}
}

func (k *serving) runs(rev object) artifact.Digest {
	if c := rev.list("spec", "containers"); len(c) > 0 {
		return k.images[object(c[0]).text("image")]
	}
	return ""
}

func ready(rev object) string {
	for _, c := range rev.list("status", "conditions") {
		if object(c).text("type") == "Ready" {
			return object(c).text("status")
		}
	}
	return "Unknown"
}

// step is one round of the controllers.
func (k *serving) step() {
	if k.svc == nil {
		return
	}
	template := k.svc.object("spec", "template")
	name := template.text("metadata", "name")
	if name == "" {
		name = fmt.Sprintf("churn-%05d", k.svc.number("metadata", "generation"))
		if k.svc.text("status", "latestCreatedRevisionName") != "" && hashOf(template) == k.svc.text("status", "templateHash") {
			name = k.svc.text("status", "latestCreatedRevisionName")
		}
	}
	config := condition("ConfigurationsReady", "Unknown", "", "")
	switch rev := k.revs[name]; {
	case rev == nil:
		k.version++
		notes := clone(template.object("metadata", "annotations"))
		merge(notes, object{"serving.knative.dev/creator": "system:admin", "serving.knative.dev/routes": "churn"})
		k.revs[name] = clone(object{
			"metadata": map[string]any{"name": name, "annotations": map[string]any(notes), "labels": map[string]any{"serving.knative.dev/service": "churn"}, "creationTimestamp": fmt.Sprintf("2026-01-02T03:%02d:%02dZ", k.version/60%60, k.version%60)},
			"spec":     map[string]any(template.object("spec")),
		})
		if app := template.text("metadata", "labels", labelApp); app != "" {
			merge(k.revs[name], object{"metadata": map[string]any{"labels": map[string]any{labelApp: app}}})
		}
		k.age[name] = 0
	case hashOf(rev["spec"]) != hashOf(template["spec"]):
		config = condition("ConfigurationsReady", "False", "RevisionNameTaken", fmt.Sprintf("the revision name %q is already in use by another spec", name))
	}
	for n, rev := range k.revs {
		if ready(rev) != "Unknown" {
			continue
		}
		k.age[n]++
		c := condition("Ready", "Unknown", "Deploying", "")
		sick := k.sick[k.runs(rev)]
		switch {
		case k.age[n] < 2:
		case sick == nil:
			c = condition("Ready", "True", "", "")
		case sick == deploy.ErrUnhealthy:
			c = condition("Ready", "False", "ExitCode3", "Container failed with: the artifact does not verify")
		case sick == deploy.ErrQuota:
			c = condition("Ready", "False", "FailedCreate", `pods "churn" is forbidden: exceeded quota: gpu`)
		case sick == deploy.ErrPlatform:
			c = condition("Ready", "False", "ImagePullBackOff", "no match for platform in manifest: not found")
		}
		rev["status"] = map[string]any{"conditions": []any{c}}
	}
	rev := k.revs[name]
	latestReady := k.svc.text("status", "latestReadyRevisionName")
	if config["status"] == "Unknown" {
		switch ready(rev) {
		case "True":
			config, latestReady = condition("ConfigurationsReady", "True", "", ""), name
		case "False":
			config = condition("ConfigurationsReady", "False", "RevisionFailed", fmt.Sprintf("Revision %q failed", name))
		}
	}
	route, given := condition("RoutesReady", "True", "", ""), []any{}
	for _, x := range k.svc.list("spec", "traffic") {
		to := object(x).text("revisionName")
		if to == "" {
			to = latestReady
		}
		r := k.revs[to]
		switch {
		case r == nil:
			route = condition("RoutesReady", "False", "RevisionMissing", fmt.Sprintf("Revision %q referenced in traffic not found.", to))
		case ready(r) == "False":
			route = condition("RoutesReady", "False", "RevisionFailed", fmt.Sprintf("Revision %q failed to become ready.", to))
		case ready(r) != "True" && route["status"] == "True":
			route = condition("RoutesReady", "Unknown", "RevisionMissing", "")
		}
		given = append(given, map[string]any{"revisionName": to, "percent": x["percent"], "latestRevision": object(x).text("revisionName") == ""})
	}
	if route["status"] != "True" {
		given, _ = k.svc.at("status", "traffic").([]any)
	}
	all := condition("Ready", "True", "", "")
	for _, c := range []map[string]any{config, route} {
		if c["status"] == "False" || c["status"] == "Unknown" && all["status"] == "True" {
			all = condition("Ready", c["status"].(string), c["reason"].(string), c["message"].(string))
		}
	}
	status := clone(object{
		"observedGeneration": k.svc.at("metadata", "generation"), "url": "http://churn.ml.example.com", "latestCreatedRevisionName": name, "latestReadyRevisionName": latestReady,
		"templateHash": hashOf(template), "traffic": given, "conditions": []any{all, config, route},
	})
	if hashOf(status) != hashOf(k.svc["status"]) {
		k.svc["status"] = map[string]any(status)
		k.bump()
	}
}

func (k *serving) bump() {
	k.version++
	merge(k.svc, object{"metadata": map[string]any{"resourceVersion": fmt.Sprint(k.version)}})
}

// webhook says what Knative's admission does not take.
func (k *serving) webhook(o object) string {
	sum := 0
	for _, x := range o.list("spec", "traffic") {
		e := object(x)
		sum += e.number("percent")
		if latest, _ := e.at("latestRevision").(bool); latest == (e.text("revisionName") != "") {
			return "may not set revisionName and latestRevision: spec.traffic"
		}
	}
	if sum != 100 {
		return fmt.Sprintf("Traffic targets sum to %d, want 100: spec.traffic", sum)
	}
	name := o.text("spec", "template", "metadata", "name")
	switch {
	case name != "" && !strings.HasPrefix(name, "churn-"):
		return fmt.Sprintf("%q must have prefix \"churn-\": spec.template.metadata.name", name)
	case len(name) > 63:
		return "name or generateName is not valid: spec.template.metadata.name"
	case k.svc != nil && name != "" && name == k.svc.text("spec", "template", "metadata", "name") && hashOf(o.at("spec", "template", "spec")) != hashOf(k.svc.at("spec", "template", "spec")):
		return "Saw the following changes without a name change: spec.template.metadata.name"
	}
	for n := range o.object("spec", "template", "metadata", "annotations") {
		if strings.HasPrefix(n, "serving.knative.dev/") {
			return "invalid key name " + n
		}
	}
	containers := o.list("spec", "template", "spec", "containers")
	if len(containers) != 1 || len(object(containers[0]).list("ports")) != 1 {
		return "expected exactly one container with one port"
	}
	for _, e := range object(containers[0]).list("env") {
		if object(e).text("name") == "PORT" {
			return `"PORT" is a reserved environment variable`
		}
	}
	return ""
}

func (k *serving) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+clusterToken {
		answer(w, 401, "Unauthorized", "Unauthorized")
		return
	}
	give := func(code int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	switch {
	case r.Method == http.MethodGet && r.URL.Path == knServices+"/churn":
		k.step()
		if k.svc == nil {
			answer(w, 404, "NotFound", `services.serving.knative.dev "churn" not found`)
			return
		}
		give(200, k.svc)
	case r.Method == http.MethodGet && r.URL.Path == knRevisions && r.URL.Query().Get("labelSelector") == "serving.knative.dev/service=churn":
		items := []any{}
		for _, name := range k.names() {
			items = append(items, map[string]any(k.revs[name]))
		}
		give(200, map[string]any{"items": items})
	case r.Method == http.MethodPost && r.URL.Path == knServices, r.Method == http.MethodPut && r.URL.Path == knServices+"/churn":
		raw, _ := io.ReadAll(r.Body)
		var o object
		if err := json.Unmarshal(raw, &o); err != nil {
			answer(w, 400, "BadRequest", err.Error())
			return
		}
		switch {
		case r.Method == http.MethodPost && k.svc != nil:
			answer(w, 409, "AlreadyExists", "services.serving.knative.dev \"churn\" already exists")
			return
		case r.Method == http.MethodPut && k.svc == nil:
			answer(w, 404, "NotFound", "services.serving.knative.dev \"churn\" not found")
			return
		case r.Method == http.MethodPut && o.text("metadata", "resourceVersion") != k.svc.text("metadata", "resourceVersion"):
			answer(w, 409, "Conflict", "the object has been modified; please apply your changes to the latest version and try again")
			return
		}
		// Defaults come into new templates only: one of the same name must be the one that is there.
		if name := o.text("spec", "template", "metadata", "name"); name == "" || name != k.svc.text("spec", "template", "metadata", "name") {
			merge(o, object{"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"containerConcurrency": 0.0, "timeoutSeconds": 300.0}}}})
		}
		if text := k.webhook(o); text != "" {
			k.refused = append(k.refused, text)
			answer(w, 400, "BadRequest", `admission webhook "validation.webhook.serving.knative.dev" denied the request: validation failed: `+text)
			return
		}
		k.set(o)
		give(map[string]int{"POST": 201, "PUT": 200}[r.Method], k.svc)
	case r.Method == http.MethodDelete && strings.HasPrefix(r.URL.Path, knRevisions+"/"):
		name := strings.TrimPrefix(r.URL.Path, knRevisions+"/")
		for _, x := range k.svc.list("status", "traffic") {
			if object(x).text("revisionName") == name {
				k.refused = append(k.refused, name+" has traffic and is deleted")
			}
		}
		delete(k.revs, name)
		give(200, map[string]any{"kind": "Status", "status": "Success"})
	default:
		answer(w, 405, "MethodNotAllowed", r.Method+" "+r.URL.String())
	}
}

func (k *serving) set(o object) {
	generation := 1.0
	if k.svc != nil {
		generation = float64(k.svc.number("metadata", "generation"))
		if hashOf(k.svc["spec"]) != hashOf(o["spec"]) {
			generation++
		}
		if st := k.svc["status"]; st != nil {
			o["status"] = st
		}
	}
	merge(o, object{"metadata": map[string]any{"generation": generation, "uid": "7d1c"}})
	k.svc = o
	k.bump()
}

func (k *serving) names() []string {
	var out []string
	for n := range k.revs {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// serves is by the images of the revisions that the routes name.
func (k *serving) serves() map[artifact.Digest]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[artifact.Digest]int{}
	for _, x := range k.svc.list("status", "traffic") {
		if n := object(x).number("percent"); n > 0 {
			out[k.runs(k.revs[object(x).text("revisionName")])] += n
		}
	}
	return out
}
