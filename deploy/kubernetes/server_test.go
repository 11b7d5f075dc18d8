package kubernetes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// cluster is an API server with the controllers of Deployments, which work when a Deployment is read. Bodies of writes are held
// against the published OpenAPI definitions where they are at hand, with unknown properties refused.
type cluster struct {
	mu      sync.Mutex
	objects map[string]object // by path
	version int
	sick    map[artifact.Digest]error
	age     map[string]int                // reads that a ReplicaSet has seen, by path
	images  map[string]artifact.Digest    // whose code an image is
	schemas map[string]*jsonschema.Schema // by kind
	invalid []string                      // bodies that were refused
}

const (
	clusterToken = "eyJhbGciOi.kube-5d1f/token+x.c2ln"
	dPath        = "/apis/apps/v1/namespaces/ml/deployments/churn"
	rsPath       = "/apis/apps/v1/namespaces/ml/replicasets/"
)

// schemas compiles the definitions of Deployment and Service, once; nil without WAYBILL_SCHEMAS.
var schemas = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) {
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(filepath.Join(dir, "kubernetes", "definitions.json"))
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	defs, ok := doc.(map[string]any)["definitions"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("definitions.json has no definitions")
	}
	for _, d := range defs {
		m := d.(map[string]any)
		if _, ok := m["properties"]; ok {
			if _, ok := m["additionalProperties"]; !ok {
				m["additionalProperties"] = false
			}
		}
		if f, _ := m["format"].(string); f == "int-or-string" {
			m["type"] = []any{"integer", "string"}
			delete(m, "format")
		}
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("k8s.json", doc); err != nil {
		return nil, err
	}
	out := map[string]*jsonschema.Schema{}
	for kind, name := range map[string]string{"Deployment": "io.k8s.api.apps.v1.Deployment", "Service": "io.k8s.api.core.v1.Service"} {
		if out[kind], err = c.Compile("k8s.json#/definitions/" + name); err != nil {
			return nil, err
		}
	}
	return out, nil
})

func answer(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code})
}

func (c *cluster) store(path string, o object) {
	c.version++
	merge(o, object{"metadata": map[string]any{"resourceVersion": fmt.Sprint(c.version)}})
	c.objects[path] = o
}

func hashOf(v any) string {
	raw, _ := json.Marshal(v)
	h := fnv.New64a()
	_, _ = h.Write(raw)
	return fmt.Sprintf("%010x", h.Sum64())[:10]
}

// sets are the paths of the ReplicaSets.
func (c *cluster) sets() (out []string) {
	for p := range c.objects {
		if strings.HasPrefix(p, rsPath) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

func (c *cluster) runs(set object) artifact.Digest { return c.images[imageOf(set)] }

// step is one round of the controllers.
func (c *cluster) step() {
	d := c.objects[dPath]
	if d == nil {
		return
	}
	template := clone(d.object("spec", "template"))
	hash := hashOf(template)
	path := rsPath + "churn-" + hash
	replicas := d.number("spec", "replicas")
	newest := 0
	for _, p := range c.sets() {
		newest = max(newest, revisionOf(c.objects[p]))
	}
	set := c.objects[path]
	if set == nil {
		merge(template, object{"metadata": map[string]any{"labels": map[string]any{"pod-template-hash": hash}}})
		set = object{
			"metadata": map[string]any{"name": "churn-" + hash, "labels": map[string]any{labelApp: "churn"}, "creationTimestamp": "2026-01-02T03:04:05Z",
				"annotations":     map[string]any{"deployment.kubernetes.io/revision": fmt.Sprint(newest + 1)},
				"ownerReferences": []any{map[string]any{"uid": d.text("metadata", "uid")}}},
			"spec": map[string]any{"template": map[string]any(template)}, "status": map[string]any{"availableReplicas": 0.0},
		}
		c.age[path] = 0
		c.store(path, set)
	} else if revisionOf(set) < newest {
		merge(set, object{"metadata": map[string]any{"annotations": map[string]any{"deployment.kubernetes.io/revision": fmt.Sprint(newest + 1)}}})
		c.age[path] = 0
	}
	c.age[path]++
	status := map[string]any{"observedGeneration": d.at("metadata", "generation"), "conditions": []any{}}
	sick := c.sick[c.runs(set)]
	available := set.number("status", "availableReplicas")
	switch {
	case sick == nil && c.age[path] >= 2:
		available = replicas
	case sick == deploy.ErrUnhealthy && c.age[path] >= 2:
		status["conditions"] = []any{map[string]any{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "has timed out progressing"}}
	case sick == deploy.ErrQuota && c.age[path] >= 2:
		status["conditions"] = []any{map[string]any{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": `pods "churn" is forbidden: exceeded quota: gpu`}}
	}
	set["status"] = map[string]any{"availableReplicas": float64(available)}
	total := available
	for _, p := range c.sets() {
		if p == path {
			continue
		}
		if available == replicas { // the old ones go when the new ones answer
			c.objects[p]["status"] = map[string]any{"availableReplicas": 0.0}
		}
		total += c.objects[p].number("status", "availableReplicas")
	}
	status["updatedReplicas"], status["availableReplicas"], status["replicas"] = float64(replicas), float64(total), float64(total)
	if available < replicas {
		status["replicas"] = float64(total + replicas)
	}
	if hashOf(status) != hashOf(d["status"]) {
		d["status"] = status
		c.store(dPath, d)
	}
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+clusterToken {
		answer(w, 401, "Unauthorized", "Unauthorized")
		return
	}
	path := r.URL.Path
	named := strings.Contains(path, "/deployments/") || strings.Contains(path, "/services/")
	give := func(code int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	switch {
	case r.Method == "GET" && named:
		if path == dPath {
			c.step()
		}
		if o := c.objects[path]; o != nil {
			give(200, o)
			return
		}
		answer(w, 404, "NotFound", path+" not found")
	case r.Method == "GET":
		if r.URL.Query().Get("labelSelector") != labelApp+"=churn" {
			answer(w, 400, "BadRequest", "labelSelector")
			return
		}
		items := []any{}
		for _, p := range c.sets() {
			if strings.HasPrefix(rsPath, path+"/") {
				items = append(items, c.objects[p])
			}
			if strings.HasSuffix(path, "/pods") && c.sick[c.runs(c.objects[p])] == deploy.ErrPlatform {
				items = append(items, map[string]any{
					"metadata": map[string]any{"name": "churn-x", "annotations": c.objects[p].at("spec", "template", "metadata", "annotations")},
					"status":   map[string]any{"containerStatuses": []any{map[string]any{"state": map[string]any{"waiting": map[string]any{"reason": "ErrImagePull", "message": "no match for platform in manifest: not found"}}}}},
				})
			}
		}
		give(200, map[string]any{"items": items})
	case r.Method == "POST" || r.Method == "PUT":
		raw, _ := io.ReadAll(r.Body)
		var o object
		if err := json.Unmarshal(raw, &o); err != nil {
			answer(w, 400, "BadRequest", err.Error())
			return
		}
		if s := c.schemas[o.text("kind")]; s != nil {
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
			if err == nil {
				err = s.Validate(doc)
			}
			if err != nil {
				c.invalid = append(c.invalid, err.Error())
				answer(w, 422, "Invalid", err.Error())
				return
			}
		}
		if r.Method == "POST" {
			path += "/" + o.text("metadata", "name")
		}
		was := c.objects[path]
		switch {
		case r.Method == "POST" && was != nil:
			answer(w, 409, "AlreadyExists", path+" already exists")
			return
		case r.Method == "PUT" && was == nil:
			answer(w, 404, "NotFound", path+" not found")
			return
		case r.Method == "PUT" && o.text("metadata", "resourceVersion") != was.text("metadata", "resourceVersion"):
			answer(w, 409, "Conflict", "the object has been modified; please apply your changes to the latest version and try again")
			return
		}
		if was == nil {
			merge(o, object{"metadata": map[string]any{"uid": fmt.Sprintf("uid-%d", c.version), "generation": 1.0}})
		} else {
			if d := was["status"]; d != nil {
				o["status"] = d
			}
			n := float64(was.number("metadata", "generation"))
			if hashOf(was["spec"]) != hashOf(defaulted(o)["spec"]) {
				n++
			}
			merge(o, object{"metadata": map[string]any{"generation": n}})
		}
		c.store(path, defaulted(o))
		give(map[string]int{"POST": 201, "PUT": 200}[r.Method], c.objects[path])
	default:
		answer(w, 405, "MethodNotAllowed", r.Method)
	}
}

// defaulted sets some of what the API server sets, which a target must not take for a change.
func defaulted(o object) object {
	for _, c := range o.list("spec", "template", "spec", "containers") {
		if c["imagePullPolicy"] == nil {
			c["imagePullPolicy"], c["terminationMessagePath"] = "IfNotPresent", "/dev/termination-log"
		}
	}
	if o.text("kind") == "Deployment" {
		merge(o, object{"spec": map[string]any{"progressDeadlineSeconds": 600.0}})
	} else {
		merge(o, object{"spec": map[string]any{"type": "ClusterIP", "clusterIP": "10.0.0.7"}})
	}
	return o
}

// serving is by the images whose pods are available.
func (c *cluster) serving() map[artifact.Digest]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out, total := map[artifact.Digest]int{}, 0
	for _, p := range c.sets() {
		if n := c.objects[p].number("status", "availableReplicas"); n > 0 {
			out[c.runs(c.objects[p])] += n
			total += n
		}
	}
	for d := range maps.Keys(out) {
		out[d] = out[d] * 100 / total
	}
	return out
}
