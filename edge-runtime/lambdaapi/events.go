package lambdaapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

// form is who sent an event, and so how the answer looks.
type form int

const (
	formPlain   form = iota // a request of the inference protocol, through Invoke
	formGateway             // API Gateway, payload 1.0
	formV2                  // API Gateway, payload 2.0, and function URLs
	formALB                 // Application Load Balancer, one value per header
	formALBMany             // and several
)

// What the platform takes of an answer: Lambda's own limit for all, and the load balancer's.
const (
	maxAnswer    = 6291556
	maxAnswerALB = 1 << 20
)

// httpEvent has what the events of all senders have in common; each fills its part.
type httpEvent struct {
	Version    string              `json:"version"`
	Method     string              `json:"httpMethod"`
	Path       string              `json:"path"`
	Headers    map[string]string   `json:"headers"`
	MultiHead  map[string][]string `json:"multiValueHeaders"`
	Query      map[string]string   `json:"queryStringParameters"`
	MultiQuery map[string][]string `json:"multiValueQueryStringParameters"`
	RawPath    string              `json:"rawPath"`
	RawQuery   string              `json:"rawQueryString"`
	Cookies    []string            `json:"cookies"`
	Body       *string             `json:"body"`
	Base64     bool                `json:"isBase64Encoded"`
	Context    struct {
		ELB        *json.RawMessage `json:"elb"`
		Stage      string           `json:"stage"`
		DomainName string           `json:"domainName"`
		HTTP       *struct {
			Method   string `json:"method"`
			SourceIP string `json:"sourceIp"`
		} `json:"http"`
		Identity struct {
			SourceIP string `json:"sourceIp"`
		} `json:"identity"`
	} `json:"requestContext"`
}

// mapEvent makes an HTTP request of an event. The form is known as soon as the event says it, also with an error.
func mapEvent(ctx context.Context, ev *event, model func() (string, error)) (form, *http.Request, error) {
	// A plain request may be megabytes of numbers: what it is shows in its outermost members.
	var top struct {
		Inputs     json.RawMessage `json:"inputs"`
		HTTPMethod json.RawMessage `json:"httpMethod"`
		Context    json.RawMessage `json:"requestContext"`
		Model      string          `json:"model_name"`
		Version    string          `json:"model_version"`
	}
	if err := json.Unmarshal(ev.payload, &top); err != nil {
		return formPlain, nil, fmt.Errorf("the event is no JSON object that this function understands: %w", err)
	}
	if top.Inputs != nil && top.HTTPMethod == nil && top.Context == nil {
		r, err := plainRequest(ctx, ev, top.Model, top.Version, model)
		return formPlain, r, err
	}
	var e httpEvent
	if err := json.Unmarshal(ev.payload, &e); err != nil {
		return formPlain, nil, fmt.Errorf("the event is no HTTP request: %w", err)
	}
	switch {
	case e.Context.HTTP != nil && e.Version == "2.0":
		r, err := e.v2(ctx, ev)
		return formV2, r, err
	case e.Method != "" && e.Context.ELB != nil:
		f := formALB
		if e.MultiHead != nil {
			f = formALBMany
		}
		r, err := e.v1(ctx, ev, true)
		return f, r, err
	case e.Method != "" && e.Path != "":
		r, err := e.v1(ctx, ev, false)
		return formGateway, r, err
	}
	return formPlain, nil, errors.New(`the event is neither {"inputs": [...]} of the inference protocol nor a request of API Gateway, a function URL or a load balancer`)
}

// plainRequest: the event is the body.
func plainRequest(ctx context.Context, ev *event, name, version string, model func() (string, error)) (*http.Request, error) {
	if name == "" {
		if model == nil {
			return nil, errors.New("the event has no model_name")
		}
		var err error
		if name, err = model(); err != nil {
			return nil, fmt.Errorf("the event has no model_name: %w", err)
		}
	}
	path := "/v2/models/" + url.PathEscape(name)
	if version != "" {
		path += "/versions/" + url.PathEscape(version)
	}
	r, err := newRequest(ctx, http.MethodPost, path+"/infer", "", ev.payload)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	ev.mark(r)
	return r, nil
}

func (e *httpEvent) v1(ctx context.Context, ev *event, escaped bool) (*http.Request, error) {
	q := url.Values{}
	for k, v := range e.Query {
		q[k] = []string{v}
	}
	for k, v := range e.MultiQuery {
		q[k] = v
	}
	if escaped { // a load balancer hands names and values on as the client wrote them
		plain := url.Values{}
		for k, vs := range q {
			for _, v := range vs {
				plain.Add(unescaped(k), unescaped(v))
			}
		}
		q = plain
	}
	body, err := e.body()
	if err != nil {
		return nil, err
	}
	r, err := newRequest(ctx, e.Method, e.Path, q.Encode(), body)
	if err != nil {
		return nil, err
	}
	many := e.MultiHead
	if many == nil {
		many = map[string][]string{}
		for k, v := range e.Headers {
			many[k] = []string{v}
		}
	}
	for k, vs := range many {
		for _, v := range vs {
			addHeader(r, k, v)
		}
	}
	r.RemoteAddr = e.Context.Identity.SourceIP
	e.finish(r, ev)
	return r, nil
}

func (e *httpEvent) v2(ctx context.Context, ev *event) (*http.Request, error) {
	body, err := e.body()
	if err != nil {
		return nil, err
	}
	// A stage other than the default is the first part of the path, unless a custom domain takes it away.
	path := e.RawPath
	if s := e.Context.Stage; s != "" && s != "$default" {
		if rest, ok := strings.CutPrefix(path, "/"+s); ok && (rest == "" || rest[0] == '/') {
			path = rest
		}
	}
	r, err := newRequest(ctx, e.Context.HTTP.Method, path, e.RawQuery, body)
	if err != nil {
		return nil, err
	}
	for k, v := range e.Headers {
		addHeader(r, k, v)
	}
	if len(e.Cookies) > 0 {
		r.Header.Set("Cookie", strings.Join(e.Cookies, "; "))
	}
	r.RemoteAddr = e.Context.HTTP.SourceIP
	e.finish(r, ev)
	return r, nil
}

func (e *httpEvent) body() ([]byte, error) {
	if e.Body == nil {
		return nil, nil
	}
	if !e.Base64 {
		return []byte(*e.Body), nil
	}
	b, err := base64.StdEncoding.DecodeString(*e.Body)
	if err != nil {
		return nil, fmt.Errorf("the body of the event is no base64, and isBase64Encoded says that it is: %w", err)
	}
	return b, nil
}

func (e *httpEvent) finish(r *http.Request, ev *event) {
	if h := r.Header.Get("Host"); h != "" {
		r.Host = h
	} else if e.Context.DomainName != "" {
		r.Host = e.Context.DomainName
	}
	r.Header.Del("Host")
	ev.mark(r)
}

// mark hands the platform's names of the call to the server's log.
func (e *event) mark(r *http.Request) {
	if r.Header.Get("X-Amzn-Trace-Id") == "" && e.trace != "" {
		r.Header.Set("X-Amzn-Trace-Id", e.trace)
	}
	if r.Header.Get("X-Request-Id") == "" {
		r.Header.Set("X-Request-Id", e.id)
	}
}

func unescaped(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

// newRequest takes the path as it came: escaped where that reads, else literally.
func newRequest(ctx context.Context, method, path, query string, body []byte) (*http.Request, error) {
	if path == "" {
		path = "/"
	}
	if path[0] != '/' {
		return nil, fmt.Errorf("the event's path %q does not begin with /", path)
	}
	u := &url.URL{Scheme: "http", Host: "lambda", Path: path, RawQuery: query}
	if p, err := url.PathUnescape(path); err == nil {
		u.Path, u.RawPath = p, path
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://lambda/", bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the event is no HTTP request: %w", err)
	}
	r.URL, r.RequestURI = u, u.RequestURI()
	return r, nil
}

// addHeader leaves out what is of a connection that ended at the sender.
func addHeader(r *http.Request, k, v string) {
	if !ofConnection(http.CanonicalHeaderKey(k)) {
		r.Header.Add(k, v)
	}
}

// ofConnection tells headers that are of one connection, or that whoever writes the answer out sets itself.
func ofConnection(canonical string) bool {
	switch canonical {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length":
		return true
	}
	return false
}

// recorder holds an answer of the handler.
type recorder struct {
	header http.Header
	sent   http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (w *recorder) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status, w.sent = status, w.header.Clone()
	}
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// answer of an event: one of the two.
type answer struct {
	body  []byte
	fault *failure
}

// httpAnswer is what the senders of HTTP events read.
type httpAnswer struct {
	Status      int                 `json:"statusCode"`
	Description string              `json:"statusDescription,omitempty"`
	Headers     map[string]string   `json:"headers,omitempty"`
	MultiHead   map[string][]string `json:"multiValueHeaders,omitempty"`
	Cookies     []string            `json:"cookies,omitempty"`
	Body        string              `json:"body"`
	Base64      bool                `json:"isBase64Encoded"`
}

// answer puts what the handler wrote into the form.
func (f form) answer(w *recorder, head bool) answer {
	w.WriteHeader(http.StatusOK)
	if f == formPlain {
		return plainAnswer(w)
	}
	if head {
		w.body.Reset()
	}
	b := f.encode(w.status, w.sent, w.body.Bytes())
	if limit := f.limit(); len(b) > limit {
		return f.text(http.StatusInternalServerError, fmt.Sprintf("the answer is %d bytes in this form and the platform takes %d; ask for fewer outputs or smaller batches", len(b), limit))
	}
	return answer{body: b}
}

func (f form) limit() int {
	if f == formALB || f == formALBMany {
		return maxAnswerALB
	}
	return maxAnswer
}

func (f form) encode(status int, head http.Header, body []byte) []byte {
	a := httpAnswer{Status: status, Base64: !isText(head, body)}
	if a.Base64 {
		a.Body = base64.StdEncoding.EncodeToString(body)
	} else {
		a.Body = string(body)
	}
	if f == formALB || f == formALBMany {
		a.Description = strconv.Itoa(status) + " " + http.StatusText(status)
	}
	for k, vs := range head {
		if ofConnection(k) {
			continue
		}
		switch {
		case f == formGateway || f == formALBMany:
			if a.MultiHead == nil {
				a.MultiHead = map[string][]string{}
			}
			a.MultiHead[k] = vs
		case f == formV2 && k == "Set-Cookie":
			a.Cookies = vs
		default:
			if a.Headers == nil {
				a.Headers = map[string]string{}
			}
			a.Headers[k] = strings.Join(vs, ", ")
		}
	}
	b, err := marshal(a)
	if err != nil { // strings and numbers only
		panic(err)
	}
	return b
}

// marshal is json.Marshal without the escapes for HTML: they make JSON within JSON larger.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// isText tells whether a body may stand in JSON as it is.
func isText(head http.Header, body []byte) bool {
	if e := head.Get("Content-Encoding"); e != "" && e != "identity" {
		return false
	}
	t, _, err := mime.ParseMediaType(head.Get("Content-Type"))
	text := len(body) == 0 || err == nil && (t == "application/json" || strings.HasSuffix(t, "+json") || strings.HasPrefix(t, "text/"))
	return text && utf8.Valid(body)
}

// plainAnswer: the body as it is, or an error of the function.
func plainAnswer(w *recorder) answer {
	if w.status < 300 {
		body := w.body.Bytes()
		switch {
		case len(body) > maxAnswer:
			return answer{fault: &failure{Type: "Function.ResponseSizeTooLarge", Message: fmt.Sprintf("the answer is %d bytes and Lambda takes %d; ask for fewer outputs or smaller batches", len(body), maxAnswer)}}
		case !json.Valid(body):
			return answer{fault: &failure{Type: "Waybill.BinaryAnswer", Message: "the answer is not JSON; ask for outputs without binary_data, or through an HTTP event"}}
		}
		return answer{body: body}
	}
	var e struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(w.body.Bytes(), &e) != nil || e.Error == "" {
		e.Error = strings.TrimSpace(w.body.String())
	}
	return answer{fault: &failure{Type: statusType(w.status), Message: e.Error}}
}

// statusType writes a status as an error type: Waybill.BadRequest.
func statusType(status int) string {
	t := strings.NewReplacer(" ", "", "-", "", "'", "").Replace(http.StatusText(status))
	if t == "" {
		t = "Status" + strconv.Itoa(status)
	}
	return "Waybill." + t
}

// refuse answers an event that could not be mapped.
func (f form) refuse(err error) answer {
	if f == formPlain {
		return answer{fault: &failure{Type: statusType(http.StatusBadRequest), Message: err.Error()}}
	}
	return f.text(http.StatusBadRequest, err.Error())
}

// text is an error in the inference protocol's form.
func (f form) text(status int, text string) answer {
	b, err := marshal(map[string]string{"error": text})
	if err != nil {
		panic(err)
	}
	return answer{body: f.encode(status, http.Header{"Content-Type": {"application/json"}}, b)}
}
