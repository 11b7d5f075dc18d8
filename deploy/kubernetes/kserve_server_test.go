package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// inference is an API server with KServe's controllers and Knative's behind them, which work when something is read. How KServe splits
// traffic and what it takes for rolled out is in split and propagate, which are held against KServe's own code in a module apart.
type inference struct {
	mu      sync.Mutex
	svc     object
	ksvc    object // template, traffic, status
	config  int    // generation of the template
	revs    map[string]object
	age     map[string]int
	version int
	hasty   bool // routes follow before the configuration, as Knative's may
	sick    map[artifact.Digest]error
	images  map[string]artifact.Digest
	refused []string
}

const (
	ksServices = "/apis/serving.kserve.io/v1beta1/namespaces/ml/inferenceservices"
	ksRevision = "churn-predictor-%05d"
)

// ksRolled is what KServe remembers of a component.
type ksRolled struct {
	Latest   string `json:"latestRolledoutRevision,omitempty"`
	Previous string `json:"previousRolledoutRevision,omitempty"`
}

// ksRoute is one entry of a Knative Service's traffic.
type ksRoute struct {
	Revision string `json:"revisionName,omitempty"`
	Latest   bool   `json:"latestRevision"`
	Percent  int    `json:"percent"`
	Tag      string `json:"tag,omitempty"`
}

// split is the traffic that KServe writes.
func split(percent *int, rolled ksRolled) []ksRoute {
	if percent == nil || rolled.Latest == "" {
		return []ksRoute{{Latest: true, Percent: 100}}
	}
	out := []ksRoute{{Latest: true, Percent: *percent}}
	if *percent < 100 {
		out = append(out, ksRoute{Revision: rolled.Latest, Percent: 100 - *percent, Tag: "prev"})
	}
	return out
}

// propagate is what KServe takes for rolled out after a look at its Knative Service.
func propagate(rolled ksRolled, created, ready string, traffic []ksRoute) ksRolled {
	sum := map[string]int{}
	for _, x := range traffic {
		sum[x.Revision] += x.Percent
	}
	for _, x := range traffic {
		switch {
		case x.Revision != ready || !x.Latest:
		case rolled.Latest != ready:
			if x.Percent == 100 {
				rolled = ksRolled{Latest: ready, Previous: rolled.Latest}
			}
		case ready == created && x.Percent < 100 && sum[x.Revision] == 100 && rolled.Previous != "":
			rolled.Latest = rolled.Previous // taken back by its percentage
		}
	}
	return rolled
}

func as[T any](v any) (out T) {
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		panic(err)
	}
	return out
}

func (k *inference) runs(rev object) artifact.Digest {
	if c := rev.list("spec", "containers"); len(c) > 0 {
		return k.images[object(c[0]).text("image")]
	}
	return ""
}

// step is one round of the controllers.
func (k *inference) step() {
	if k.svc == nil {
		return
	}
	was := hashOf([]any{k.svc["status"], k.ksvc, k.revs})
	component := clone(k.svc.object("status", "components", "predictor"))
	rolled := as[ksRolled](component)
	pred := clone(k.svc.object("spec", "predictor"))
	// KServe: all annotations of the InferenceService come into the template, too.
	notes := clone(k.svc.object("metadata", "annotations"))
	merge(notes, object{"autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev", "autoscaling.knative.dev/min-scale": "1"})
	if v := pred.at("minReplicas"); v != nil {
		notes[annScale+"min-scale"] = fmt.Sprint(v)
	}
	if n := pred.number("maxReplicas"); n != 0 {
		notes[annScale+"max-scale"] = fmt.Sprint(n)
	}
	merge(notes, pred.object("annotations"))
	labels := object{"serving.kserve.io/inferenceservice": "churn", "component": "predictor"}
	merge(labels, pred.object("labels"))
	containers := as[[]any](pred["containers"])
	merge(object(containers[0].(map[string]any)), object{"name": kserveContainer, "terminationMessagePath": "/dev/termination-log"})
	template := clone(object{"metadata": map[string]any{"annotations": map[string]any(notes), "labels": map[string]any(labels)}, "spec": map[string]any{"containers": containers, "timeoutSeconds": 300}})
	if k.ksvc == nil || hashOf(template) != hashOf(k.ksvc["template"]) {
		k.config++
	}
	var percent *int
	if pred.at("canaryTrafficPercent") != nil {
		percent = new(pred.number("canaryTrafficPercent"))
	}
	if k.ksvc == nil {
		k.ksvc = object{}
	}
	k.ksvc["template"], k.ksvc["traffic"] = map[string]any(template), split(percent, rolled)

	// Knative
	name := fmt.Sprintf(ksRevision, k.config)
	configure := func() {
		if k.revs[name] == nil {
			k.version++
			k.revs[name] = clone(object{
				"metadata": map[string]any{"name": name, "annotations": map[string]any(notes), "labels": map[string]any(labels), "creationTimestamp": fmt.Sprintf("2026-01-02T03:%02d:%02dZ", k.version/60%60, k.version%60)},
				"spec":     map[string]any(template.object("spec")),
			})
			k.age[name] = 0
			k.ksvc["created"] = name
		}
		for n, rev := range k.revs {
			if ready(rev) != "Unknown" {
				continue
			}
			k.age[n]++
			c := condition("Ready", "Unknown", "Deploying", "")
			switch sick := k.sick[k.runs(rev)]; {
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
			if at, _ := k.ksvc["ready"].(string); c["status"] == "True" && n > at {
				k.ksvc["ready"] = n
			}
		}
	}
	route := func() {
		at, _ := k.ksvc["ready"].(string)
		var given []ksRoute
		for _, x := range k.ksvc["traffic"].([]ksRoute) {
			if x.Latest {
				x.Revision = at
			}
			if k.revs[x.Revision] == nil {
				return // RevisionMissing: the routes stay
			}
			given = append(given, x)
		}
		k.ksvc["given"] = given
	}
	if k.hasty {
		route()
		k.propagate(rolled)
		configure()
	} else {
		configure()
		route()
		k.propagate(rolled)
	}
	if hashOf([]any{k.svc["status"], k.ksvc, k.revs}) != was {
		k.bump()
	}
}

func (k *inference) propagate(rolled ksRolled) {
	created, _ := k.ksvc["created"].(string)
	at, _ := k.ksvc["ready"].(string)
	given, _ := k.ksvc["given"].([]ksRoute)
	rolled = propagate(rolled, created, at, given)
	component := as[object](rolled)
	merge(component, object{"latestCreatedRevision": created, "latestReadyRevision": at, "traffic": as[[]any](given)})
	status := map[string]string{"True": "True", "False": "False"}[ready(k.revs[created])]
	k.svc["status"] = map[string]any{
		"components": map[string]any{"predictor": map[string]any(component)}, "observedGeneration": float64(k.config), "url": "http://churn.ml.example.com",
		"conditions": []any{condition("Ready", map[bool]string{true: status, false: "Unknown"}[status != ""], "", "")},
	}
	k.svc = clone(k.svc)
}

func (k *inference) bump() {
	k.version++
	merge(k.svc, object{"metadata": map[string]any{"resourceVersion": fmt.Sprint(k.version)}})
}

func (k *inference) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
	absent := `inferenceservices.serving.kserve.io "churn" not found`
	switch {
	case r.Method == http.MethodGet && r.URL.Path == ksServices+"/churn":
		if k.step(); k.svc == nil {
			answer(w, 404, "NotFound", absent)
			return
		}
		give(200, k.svc)
	case r.Method == http.MethodGet && r.URL.Path == knRevisions && r.URL.Query().Get("labelSelector") == "serving.kserve.io/inferenceservice=churn":
		items := []any{}
		for _, name := range k.names() {
			items = append(items, map[string]any(k.revs[name]))
		}
		give(200, map[string]any{"items": items})
	case r.Method == http.MethodPost && r.URL.Path == ksServices, r.Method == http.MethodPut && r.URL.Path == ksServices+"/churn":
		raw, _ := io.ReadAll(r.Body)
		var o object
		err := json.Unmarshal(raw, &o)
		switch {
		case err != nil:
			answer(w, 400, "BadRequest", err.Error())
			return
		case r.Method == http.MethodPost && k.svc != nil:
			answer(w, 409, "AlreadyExists", `inferenceservices.serving.kserve.io "churn" already exists`)
			return
		case r.Method == http.MethodPut && k.svc == nil:
			answer(w, 404, "NotFound", absent)
			return
		case r.Method == http.MethodPut && o.text("metadata", "resourceVersion") != k.svc.text("metadata", "resourceVersion"):
			answer(w, 409, "Conflict", "the object has been modified; please apply your changes to the latest version and try again")
			return
		}
		if err := k.admit(o); err != nil {
			k.refused = append(k.refused, err.Error())
			answer(w, 400, "BadRequest", `admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: `+err.Error())
			return
		}
		k.set(o)
		give(map[string]int{"POST": 201, "PUT": 200}[r.Method], k.svc)
	default:
		answer(w, 405, "MethodNotAllowed", r.Method+" "+r.URL.String())
	}
}

// admit is what a webhook, or Knative after it, would not take.
func (k *inference) admit(o object) error {
	p := o.object("spec", "predictor")
	if n := p.number("canaryTrafficPercent"); n < 0 || n > 100 {
		return fmt.Errorf("canaryTrafficPercent %d", n)
	}
	if c := p.list("containers"); len(c) != 1 || object(c[0]).text("name") != kserveContainer {
		return errors.New("exactly one of its containers must be named kserve-container")
	}
	return nil
}

func (k *inference) set(o object) {
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
	k.svc = clone(o)
	k.bump()
}

func (k *inference) names() []string {
	var out []string
	for n := range k.revs {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// serves is by the images of the revisions that the routes name.
func (k *inference) serves() map[artifact.Digest]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[artifact.Digest]int{}
	given, _ := k.ksvc["given"].([]ksRoute)
	for _, x := range given {
		if x.Percent > 0 {
			out[k.runs(k.revs[x.Revision])] += x.Percent
		}
	}
	return out
}
