package cloudflare

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/jsbundle"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/redact"
)

// maxAnswer bounds an answer of the API.
const maxAnswer = 8 << 20

// apiDeployment is a deployment as the API writes it.
type apiDeployment struct {
	ID          string            `json:"id,omitempty"`
	CreatedOn   time.Time         `json:"created_on,omitzero"`
	Strategy    string            `json:"strategy"`
	Versions    []apiShare        `json:"versions"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type apiShare struct {
	VersionID  string  `json:"version_id"`
	Percentage float64 `json:"percentage"`
}

// apiVersion is a version as the API writes it.
type apiVersion struct {
	ID       string `json:"id"`
	Number   int64  `json:"number"`
	Metadata struct {
		CreatedOn time.Time `json:"created_on"`
		Source    string    `json:"source"` // api, dash, quick_editor, wrangler ...
	} `json:"metadata"`
	Resources struct {
		Bindings      []apiBinding `json:"bindings"`
		ScriptRuntime struct {
			CompatibilityDate  string   `json:"compatibility_date"`
			CompatibilityFlags []string `json:"compatibility_flags"`
		} `json:"script_runtime"`
	} `json:"resources"`
}

type apiBinding struct {
	Type string `json:"type"`
	Name string `json:"name"`
	Text string `json:"text,omitempty"`
}

// metadata is the part of that name of an upload.
type metadata struct {
	MainModule         string            `json:"main_module"`
	CompatibilityDate  string            `json:"compatibility_date"`
	CompatibilityFlags []string          `json:"compatibility_flags,omitempty"`
	Bindings           []apiBinding      `json:"bindings"`
	Annotations        map[string]string `json:"annotations"`
}

type apiError struct {
	Code    int        `json:"code"`
	Message string     `json:"message"`
	Chain   []apiError `json:"error_chain,omitempty"` // what is behind it
}

// call does one request of the API, again when it is worth it, and reads its result into out. body is given anew each time.
func (t *Target) call(ctx context.Context, method, path string, contentType string, body []byte, out any) error {
	where := fmt.Sprintf("%s %s", method, path)
	return retry.Do(ctx, t.cfg.Retry, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, method, t.cfg.Endpoint+"/accounts/"+url.PathEscape(t.cfg.Account)+path, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+t.cfg.Token)
		req.Header.Set("Accept", "application/json")
		if contentType != "" {
			req.Header.Set("Content-Type", contentType)
		}
		status, header, raw, err := t.send(req)
		if err != nil {
			return diag.Errorf("%s: %w", where, err)
		}
		t.cfg.Log.DebugContext(ctx, "cloudflare", "request", where, "status", status)
		var answer struct {
			Success bool            `json:"success"`
			Errors  []apiError      `json:"errors"`
			Result  json.RawMessage `json:"result"`
		}
		jerr := json.Unmarshal(raw, &answer)
		if status/100 == 2 && jerr == nil && answer.Success {
			if out == nil {
				return nil
			}
			if err := json.Unmarshal(answer.Result, out); err != nil {
				return diag.Errorf("%s: the answer is not what the API promises: %w", where, err)
			}
			return nil
		}
		return t.failure(where, status, header, answer.Errors)
	})
}

// send does the exchange. What goes wrong on the way is ErrUnavailable: whether the platform acted is not known.
func (t *Target) send(req *http.Request) (status int, header http.Header, raw []byte, err error) {
	res, err := t.cfg.HTTP.Do(req)
	if err == nil {
		defer func() { _ = res.Body.Close() }()
		raw, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	}
	switch ctx := req.Context(); {
	case err != nil && ctx.Err() != nil:
		return 0, nil, nil, context.Cause(ctx)
	case err != nil:
		return 0, nil, nil, diag.Errorf("%w: %s", deploy.ErrUnavailable, t.clean(err.Error()))
	}
	return res.StatusCode, res.Header, raw, nil
}

// failure turns an answer into one of the errors of package deploy.
func (t *Target) failure(where string, status int, header http.Header, errs []apiError) error {
	text := t.said(status, errs)
	if ray := header.Get("Cf-Ray"); ray != "" {
		text += ", ray " + t.clean(ray)
	}
	m := meant(status, errs)
	if m.hint != "" {
		text += ": " + m.hint
	}
	if m.is == nil {
		return diag.Errorf("%s: %d %s", where, status, text)
	}
	err := diag.Errorf("%s: %d %s: %w", where, status, text, m.is)
	if errors.Is(m.is, deploy.ErrThrottled) || errors.Is(m.is, deploy.ErrUnavailable) {
		return retry.Later(err, retry.After(header, time.Now()))
	}
	return err
}

// clean takes the token out of what the platform, or a proxy before it, says.
func (t *Target) clean(s string) string {
	for _, form := range []string{t.cfg.Token, url.QueryEscape(t.cfg.Token), base64.StdEncoding.EncodeToString([]byte(t.cfg.Token)), base64.RawURLEncoding.EncodeToString([]byte(t.cfg.Token))} {
		s = strings.ReplaceAll(s, form, redact.Mask)
	}
	if len(s) > 300 {
		s = s[:300] + " ..."
	}
	return s
}

func (t *Target) script() string { return "/workers/scripts/" + url.PathEscape(t.cfg.Script) }

// deployments lists what served, newest first; errAbsent when there is no script.
func (t *Target) deployments(ctx context.Context) ([]apiDeployment, error) {
	var out struct {
		Deployments []apiDeployment `json:"deployments"`
	}
	return out.Deployments, t.call(ctx, http.MethodGet, t.script()+"/deployments", "", nil, &out)
}

// versions lists the ids of all versions, newest first.
func (t *Target) versions(ctx context.Context) ([]string, error) {
	var ids []string
	for page := 1; page <= 20; page++ {
		var out struct {
			Items []struct {
				ID string `json:"id"`
			} `json:"items"`
		}
		if err := t.call(ctx, http.MethodGet, fmt.Sprintf("%s/versions?page=%d&per_page=%d", t.script(), page, perPage), "", nil, &out); err != nil {
			return nil, err
		}
		for _, v := range out.Items {
			ids = append(ids, v.ID)
		}
		if len(out.Items) < perPage {
			break
		}
	}
	return ids, nil
}

const perPage = 50

func (t *Target) version(ctx context.Context, id string) (*apiVersion, error) {
	var v apiVersion
	if err := t.call(ctx, http.MethodGet, t.script()+"/versions/"+url.PathEscape(id), "", nil, &v); err != nil {
		return nil, err
	}
	return &v, nil
}

// deploy makes versions serve.
func (t *Target) deploy(ctx context.Context, shares []apiShare, annotations map[string]string) (*apiDeployment, error) {
	body, err := json.Marshal(apiDeployment{Strategy: "percentage", Versions: shares, Annotations: annotations})
	if err != nil {
		return nil, err
	}
	var d apiDeployment
	if err := t.call(ctx, http.MethodPost, t.script()+"/deployments", "application/json", body, &d); err != nil {
		return nil, err
	}
	return &d, nil
}

// form is the multipart body of an upload. The boundary is fixed by the bundle, so that equal uploads are equal bytes.
func form(b *jsbundle.Bundle, m metadata, boundary string) (contentType string, body []byte, err error) {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	if err := w.SetBoundary(boundary); err != nil {
		return "", nil, err
	}
	part := func(name, file, kind string, raw []byte) error {
		h := textproto.MIMEHeader{}
		disposition := fmt.Sprintf("form-data; name=%q", name)
		if file != "" {
			disposition += fmt.Sprintf("; filename=%q", file)
		}
		h.Set("Content-Disposition", disposition)
		h.Set("Content-Type", kind)
		p, err := w.CreatePart(h)
		if err == nil {
			_, err = p.Write(raw)
		}
		return err
	}
	meta, err := json.Marshal(m)
	if err != nil {
		return "", nil, err
	}
	if err := part("metadata", "", "application/json", meta); err != nil {
		return "", nil, err
	}
	kinds := map[string]string{jsbundle.ESModule: "application/javascript+module", jsbundle.Wasm: "application/wasm", jsbundle.Data: "application/octet-stream", jsbundle.Text: "text/plain"}
	for _, f := range b.WorkerFiles() {
		raw, err := b.Read(f)
		if err != nil {
			return "", nil, err
		}
		if err := part(f.Path, f.Path, kinds[f.Kind], raw); err != nil {
			return "", nil, err
		}
	}
	if err := w.Close(); err != nil {
		return "", nil, err
	}
	return w.FormDataContentType(), buf.Bytes(), nil
}
