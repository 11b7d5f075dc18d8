package cloudflare

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// platform stands for the API of one account, and for the previews of its versions.
type platform struct {
	mu       sync.Mutex
	token    string
	versions []*upload // oldest first
	history  []apiDeployment
	sick     map[artifact.Digest]error
	late     int // so many reads of a version find it absent
}

// upload is a version with its files.
type upload struct {
	meta    metadata
	id      string
	number  int
	files   map[string]string // content by name
	kinds   map[string]string
	deleted bool
	source  string // empty: api
}

// runs is the artifact that the uploaded code is of: the digest of its manifest, which the Worker's own chain of checks begins with.
func (u *upload) runs() artifact.Digest {
	return artifact.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(u.files["manifest.json"]))))
}

func (p *platform) find(id string) *upload {
	for _, u := range p.versions {
		if u.id == id && !u.deleted {
			return u
		}
	}
	return nil
}

// contentTypes are those that the API takes for a module.
func contentTypes() []string {
	return []string{"application/javascript+module", "text/javascript+module", "application/javascript", "text/javascript", "application/wasm", "text/plain", "application/octet-stream", "application/source-map"}
}

func answer(w http.ResponseWriter, result any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "errors": []any{}, "messages": []any{}, "result": result})
}

func refuse(w http.ResponseWriter, status, code int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cf-Ray", "8c0ffee")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"success": false, "errors": []apiError{{Code: code, Message: text}}, "messages": []any{}, "result": nil})
}

// ServeHTTP implements http.Handler.
func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	mux := http.NewServeMux()
	const script = "/client/v4/accounts/acc/workers/scripts/churn"
	known := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if len(p.history) == 0 {
				refuse(w, http.StatusNotFound, 10007, "This Worker does not exist on your account.")
				return
			}
			h(w, r)
		}
	}
	mux.HandleFunc("PUT "+script, func(w http.ResponseWriter, r *http.Request) {
		if u := p.upload(w, r); u != nil {
			p.push(apiDeployment{Strategy: "percentage", Versions: []apiShare{{u.id, 100}}, Annotations: map[string]string{"workers/triggered_by": "upload"}})
			answer(w, map[string]any{"id": "churn", "etag": u.id, "startup_time_ms": 3})
		}
	})
	mux.HandleFunc("POST "+script+"/versions", known(func(w http.ResponseWriter, r *http.Request) {
		if u := p.upload(w, r); u != nil {
			answer(w, p.show(u))
		}
	}))
	mux.HandleFunc("GET "+script+"/versions", known(func(w http.ResponseWriter, r *http.Request) {
		items := []any{}
		for _, u := range slices.Backward(p.versions) {
			if !u.deleted {
				items = append(items, map[string]any{"id": u.id, "number": u.number})
			}
		}
		answer(w, map[string]any{"items": items})
	}))
	mux.HandleFunc("GET "+script+"/versions/{id}", known(func(w http.ResponseWriter, r *http.Request) {
		if u := p.find(r.PathValue("id")); u != nil && p.late <= 0 {
			answer(w, p.show(u))
			return
		}
		p.late--
		refuse(w, http.StatusNotFound, 100146, "The version does not exist.")
	}))
	mux.HandleFunc("GET "+script+"/deployments", known(func(w http.ResponseWriter, _ *http.Request) {
		h := slices.Clone(p.history)
		slices.Reverse(h)
		answer(w, map[string]any{"deployments": h})
	}))
	mux.HandleFunc("POST "+script+"/deployments", known(func(w http.ResponseWriter, r *http.Request) {
		var d apiDeployment
		dec := json.NewDecoder(r.Body)
		dec.DisallowUnknownFields()
		if err := dec.Decode(&d); err != nil || d.ID != "" || d.Strategy != "percentage" || len(d.Versions) == 0 || len(d.Versions) > 2 {
			refuse(w, http.StatusBadRequest, 10001, fmt.Sprintf("the deployment is malformed: %v", err))
			return
		}
		sum := 0.0
		for _, x := range d.Versions {
			if sum += x.Percentage; p.find(x.VersionID) == nil || x.Percentage < 0.01 {
				refuse(w, http.StatusBadRequest, 10001, "a version does not exist, or its percentage is none")
				return
			}
		}
		if sum != 100 {
			refuse(w, http.StatusBadRequest, 10001, "percentages must sum to 100")
			return
		}
		answer(w, p.push(d))
	}))
	mux.HandleFunc("GET /preview/{id}/v2/health/ready", func(w http.ResponseWriter, r *http.Request) {
		for _, u := range p.versions {
			if strings.HasPrefix(u.id, r.PathValue("id")) && !u.deleted && !errors.Is(p.sick[u.runs()], deploy.ErrUnavailable) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(`{"ready":true}`))
				return
			}
		}
		http.NotFound(w, r)
	})
	if strings.HasPrefix(r.URL.Path, "/client/") && r.Header.Get("Authorization") != "Bearer "+p.token {
		refuse(w, http.StatusForbidden, 10000, "Authentication error")
		return
	}
	if strings.HasPrefix(r.URL.Path, "/preview/") && r.Header.Get("Authorization") != "" {
		refuse(w, http.StatusBadRequest, 1, "the preview was given the token")
		return
	}
	mux.ServeHTTP(w, r)
}

func (p *platform) push(d apiDeployment) apiDeployment {
	d.ID = fmt.Sprintf("%08x-1111-4111-8111-%012x", len(p.history)+1, len(p.history)+1)
	d.CreatedOn = time.Date(2026, 1, 1, 0, len(p.history), 0, 0, time.UTC)
	p.history = append(p.history, d)
	return d
}

func (p *platform) add(u *upload) {
	u.number = len(p.versions) + 1
	u.id = fmt.Sprintf("%08x-2222-4222-8222-%012x", u.number*7919, u.number)
	p.versions = append(p.versions, u)
}

// upload reads and checks an upload as the API does, and makes a version of it.
func (p *platform) upload(w http.ResponseWriter, r *http.Request) *upload {
	u := &upload{files: map[string]string{}, kinds: map[string]string{}}
	bad := func(format string, args ...any) *upload {
		refuse(w, http.StatusBadRequest, 10002, fmt.Sprintf(format, args...))
		return nil
	}
	t, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || t != "multipart/form-data" {
		return bad("content type %q", t)
	}
	form := multipart.NewReader(r.Body, params["boundary"])
	for {
		part, err := form.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return bad("form: %v", err)
		}
		raw, err := io.ReadAll(part)
		if err != nil {
			return bad("form: %v", err)
		}
		if part.FormName() == "metadata" {
			dec := json.NewDecoder(strings.NewReader(string(raw)))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&u.meta); err != nil {
				return bad("metadata: %v", err)
			}
			continue
		}
		kind := part.Header.Get("Content-Type")
		if !slices.Contains(contentTypes(), kind) || part.FormName() != part.FileName() || u.files[part.FileName()] != "" {
			return bad("part %q of type %q", part.FormName(), kind)
		}
		u.files[part.FileName()], u.kinds[part.FileName()] = string(raw), kind
	}
	if u.kinds[u.meta.MainModule] != "application/javascript+module" {
		return bad("there is no main module %q", u.meta.MainModule)
	}
	if _, err := time.Parse(time.DateOnly, u.meta.CompatibilityDate); err != nil {
		return bad("compatibility date: %v", err)
	}
	if len(u.meta.Annotations["workers/tag"]) > 100 || len(u.meta.Annotations["workers/message"]) > 1000 {
		return bad("an annotation is too long")
	}
	switch cause := p.sick[u.runs()]; {
	case errors.Is(cause, deploy.ErrUnhealthy):
		refuse(w, http.StatusBadRequest, 10021, "Script startup exceeded CPU time limit.")
		return nil
	case errors.Is(cause, deploy.ErrTooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, 10027, "Your Worker exceeded the size limit of 64 MiB.")
		return nil
	case errors.Is(cause, deploy.ErrQuota):
		refuse(w, http.StatusForbidden, 10037, "You have exceeded the limit of 100 Workers on the free plan.")
		return nil
	}
	p.add(u)
	return u
}

func (p *platform) show(u *upload) any {
	return map[string]any{
		"id": u.id, "number": u.number, "metadata": map[string]any{"created_on": "2026-01-01T00:00:00Z", "source": cmp.Or(u.source, "api")}, "annotations": u.meta.Annotations,
		"resources": map[string]any{
			"bindings":       u.meta.Bindings,
			"script":         map[string]any{"etag": u.id, "handlers": []string{"fetch"}},
			"script_runtime": map[string]any{"compatibility_date": u.meta.CompatibilityDate, "compatibility_flags": u.meta.CompatibilityFlags, "usage_model": "standard"},
		}, "startup_time_ms": 3,
	}
}

// serving is who gets traffic, by the code.
func (p *platform) serving() map[artifact.Digest]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[artifact.Digest]int{}
	if len(p.history) == 0 {
		return out
	}
	for _, x := range p.history[len(p.history)-1].Versions {
		for _, u := range p.versions {
			if u.id == x.VersionID {
				out[u.runs()] += int(x.Percentage)
			}
		}
	}
	return out
}

func (p *platform) dump() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, u := range p.versions {
		fmt.Fprintf(&b, "%s deleted=%v %+v %v\n", u.id, u.deleted, u.meta, slices.Sorted(maps.Keys(u.files)))
	}
	fmt.Fprintf(&b, "%+v\n", p.history)
	return b.String()
}

// forget deletes the versions of d that get no traffic.
func (p *platform) forget(d artifact.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.versions {
		used := slices.ContainsFunc(p.history[len(p.history)-1].Versions, func(x apiShare) bool { return x.VersionID == u.id })
		u.deleted = u.deleted || u.runs() == d && !used
	}
}

// meddle changes a setting of what serves, which makes a new version of the same code.
func (p *platform) meddle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := *p.find(p.history[len(p.history)-1].Versions[0].VersionID)
	u.meta.CompatibilityDate = fmt.Sprintf("2024-01-%02d", len(p.history)%28+1)
	p.add(&u)
	p.push(apiDeployment{Strategy: "percentage", Versions: []apiShare{{u.id, 100}}, Annotations: map[string]string{"workers/triggered_by": "version_upload"}})
}

// edit changes the code of what serves in the dashboard's editor, which keeps the variables. It gives the id of the new version.
func (p *platform) edit(file, from, to string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := *p.find(p.history[len(p.history)-1].Versions[0].VersionID)
	u.source, u.files = "quick_editor", maps.Clone(u.files)
	u.files[file] = strings.ReplaceAll(u.files[file], from, to)
	p.add(&u)
	p.push(apiDeployment{Strategy: "percentage", Versions: []apiShare{{u.id, 100}}})
	return u.id
}

// code is a file of the version that has most of the traffic.
func (p *platform) code(file string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.find(p.history[len(p.history)-1].Versions[0].VersionID).files[file]
}
