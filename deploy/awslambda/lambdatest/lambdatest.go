// Package lambdatest is a local server of AWS Lambda's API for tests: as much of it as deploys need. It recomputes each request's
// signature, validates bodies, and keeps the platform's state machine: a change is under way for a few reads, each one gives the thing a
// new revision id, versions are immutable, and a version equal to the newest one is not published twice.
package lambdatest

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/waybill-ml/waybill/deploy/awstest"
)

// LoadModel reads Lambda's published model below dir; without dir bodies are checked by the SDK's types alone.
func LoadModel(dir string) (*awstest.Model, error) {
	return awstest.LoadModel(dir, "lambda-2015-03-31.json", "com.amazonaws.lambda", map[string]any{
		"CreateFunction": lambda.CreateFunctionInput{}, "UpdateFunctionCode": lambda.UpdateFunctionCodeInput{}, "UpdateFunctionConfiguration": lambda.UpdateFunctionConfigurationInput{},
		"PublishVersion": lambda.PublishVersionInput{}, "CreateAlias": lambda.CreateAliasInput{}, "UpdateAlias": lambda.UpdateAliasInput{},
	})
}

// Steps is for how many reads a change is under way, StuckReads how long one that does not come to a good end.
const (
	Steps      = 1
	StuckReads = 800
)

// Function is what Lambda keeps of $LATEST, and of each version.
type Function struct {
	Version, Image, Sha, Package, Role, Arch, Runtime, Handler, Description, Revision string
	Memory, Timeout, Ephemeral                                                        int
	Env                                                                               map[string]string
	State, StateCode, StateReason                                                     string // of the version
	Update, UpdateCode, UpdateReason                                                  string // of $LATEST
	left                                                                              int    // reads until the change ends
	fate                                                                              Fate   // at its end
}

// Alias is what Lambda keeps of one.
type Alias struct {
	Version, Description, Revision string
	Weights                        map[string]float64
}

// Fate is what becomes of code on the platform, by CodeSha256.
type Fate struct {
	Reject       string // message of an InvalidParameterValueException at the call
	Code         string // or another exception
	Fail, Reason string // state reason code and text at the end of the change
	Stuck        bool   // the change does not end for StuckReads reads, then fails
	Unready      string // error type that an invocation gives
}

// Server is one account in one region with one function name in use. It is safe for concurrent use.
type Server struct {
	Model *awstest.Model
	Creds awstest.Credentials

	mu       sync.Mutex
	name     string
	latest   *Function
	versions []*Function
	aliases  map[string]*Alias
	last     int // version number that was given last
	rev      int
	fates    map[string]Fate
}

// New makes an empty account whose requests m validates.
func New(m *awstest.Model) *Server {
	return &Server{
		Model: m, Creds: awstest.Known("lambda"),
		aliases: map[string]*Alias{}, fates: map[string]Fate{},
	}
}

// revision is a new revision id; s.mu is held.
func (s *Server) revision() string {
	s.rev++
	return fmt.Sprintf("%08d-0000-4000-8000-000000000000", s.rev)
}

// Fate decides what becomes of code with this CodeSha256 from now on.
func (s *Server) Fate(sha string, f Fate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fates[sha] = f
}

// Rest ends every change that is under way.
func (s *Server) Rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.all() {
		if f.left > 0 {
			f.left = 0
			s.end(f)
		}
	}
}

func (s *Server) all() []*Function {
	if s.latest == nil {
		return nil
	}
	return append([]*Function{s.latest}, s.versions...)
}

// Shares is who gets the traffic of an alias, by CodeSha256.
func (s *Server) Shares(alias string) map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int{}
	a := s.aliases[alias]
	if a == nil {
		return out
	}
	rest := 100
	for v, w := range a.Weights {
		p := int(w*100 + 0.5)
		rest -= p
		out[s.version(v).Sha] += p
	}
	if rest > 0 {
		out[s.version(a.Version).Sha] += rest
	}
	return out
}

// Dump is the state as text.
func (s *Server) Dump() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, f := range s.all() {
		x := *f
		x.left = 0
		fmt.Fprintf(&b, "%+v\n", x)
	}
	for _, name := range slices.Sorted(maps.Keys(s.aliases)) {
		fmt.Fprintf(&b, "alias %s %+v\n", name, *s.aliases[name])
	}
	return b.String()
}

// Delete removes the versions with this CodeSha256, empty for any, that no alias names.
func (s *Server) Delete(sha string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions = slices.DeleteFunc(s.versions, func(f *Function) bool {
		for _, a := range s.aliases {
			if _, ok := a.Weights[f.Version]; ok || a.Version == f.Version {
				return false
			}
		}
		return sha == "" || f.Sha == sha
	})
}

// Touch is somebody's update of an alias to what it is.
func (s *Server) Touch(alias string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.aliases[alias]; a != nil {
		a.Revision = s.revision()
	}
}

// Edit changes $LATEST by hand.
func (s *Server) Edit(f func(*Function)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.latest)
	s.latest.Revision = s.revision()
}

// Sleep makes the version with this CodeSha256 inactive, as Lambda does with what nobody calls for weeks.
func (s *Server) Sleep(sha string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.versions {
		if f.Sha == sha {
			f.State, f.StateCode, f.StateReason = "Inactive", "Idle", "The function has not been invoked for an extended period of time."
		}
	}
}

func (s *Server) version(v string) *Function {
	for _, f := range s.versions {
		if f.Version == v {
			return f
		}
	}
	if v == "$LATEST" {
		return s.latest
	}
	return nil
}

// read is one look at a function: time passes.
func (s *Server) read(f *Function) {
	if f.left > 0 {
		if f.left--; f.left == 0 {
			s.end(f)
		}
	}
}

// end is the end of a change: it gives the function another revision id.
func (s *Server) end(f *Function) {
	f.Revision = s.revision()
	code, reason := f.fate.Fail, f.fate.Reason
	if f.fate.Stuck {
		code, reason = "InternalError", "The service encountered an internal error."
	}
	if code != "" {
		if f.State == "Pending" {
			f.State, f.StateCode, f.StateReason = "Failed", code, reason
		}
		if f.Update == "InProgress" {
			f.Update, f.UpdateCode, f.UpdateReason = "Failed", code, reason
		}
		return
	}
	f.State, f.StateCode, f.StateReason, f.UpdateCode, f.UpdateReason = "Active", "", "", "", ""
	if f.Update != "" {
		f.Update = "Successful"
	}
}

// Problem answers with an error as Lambda does.
func Problem(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Amzn-Errortype", code)
	w.Header().Set("X-Amzn-Requestid", "b0e91dc8-3807-11e2-83c6-5912bf8ad066")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"Type": "User", "message": message, "Message": message})
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		Problem(w, 400, "InvalidRequestContentException", err.Error())
		return
	}
	if code, message := s.Creds.Verify(r, body, time.Now()); code != "" {
		Problem(w, 403, code, message)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) < 2 || parts[0] != "2015-03-31" || parts[1] != "functions" {
		Problem(w, 404, "UnknownOperationException", "no such operation")
		return
	}
	parts = parts[2:]
	if len(parts) == 0 || parts[0] == "" {
		s.create(w, r, body)
		return
	}
	path := map[string]string{"FunctionName": parts[0]}
	if s.latest == nil || s.name != parts[0] {
		Problem(w, 404, "ResourceNotFoundException", "Function not found: arn:aws:lambda:"+s.Creds.Region+":123456789012:function:"+parts[0])
		return
	}
	if len(parts) == 3 {
		path["Name"] = parts[2]
	}
	switch route := r.Method + " " + strings.Join(append([]string{""}, parts[1:min(len(parts), 2)]...), "/"); {
	case route == "GET " && len(parts) == 1, route == "GET /configuration":
		s.get(w, r, route == "GET ")
	case route == "PUT /code":
		s.update(w, "UpdateFunctionCode", body, path)
	case route == "PUT /configuration":
		s.update(w, "UpdateFunctionConfiguration", body, path)
	case route == "GET /versions":
		s.list(w, r)
	case route == "POST /versions":
		s.publish(w, body, path)
	case route == "POST /aliases" && len(parts) == 2:
		s.alias(w, "CreateAlias", body, path)
	case route == "PUT /aliases" && len(parts) == 3:
		s.alias(w, "UpdateAlias", body, path)
	case route == "GET /aliases" && len(parts) == 3:
		if a := s.aliases[parts[2]]; a != nil {
			answer(w, 200, s.showAlias(parts[2], a))
		} else {
			Problem(w, 404, "ResourceNotFoundException", "Cannot find alias arn: "+parts[2])
		}
	case route == "POST /invocations":
		s.invoke(w, r)
	default:
		Problem(w, 404, "UnknownOperationException", r.Method+" "+r.URL.Path)
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// document is the members of bodies that the server understands.
type document struct {
	FunctionName, Role, PackageType, Runtime, Handler, Description, RevisionId, CodeSha256, ImageUri, FunctionVersion, Name *string
	ZipFile                                                                                                                 []byte
	MemorySize, Timeout                                                                                                     *int
	Architectures                                                                                                           []string
	EphemeralStorage                                                                                                        *struct{ Size int }
	Environment                                                                                                             *struct{ Variables map[string]string }
	Code                                                                                                                    *struct {
		ImageUri *string
		ZipFile  []byte
	}
	RoutingConfig *struct{ AdditionalVersionWeights map[string]float64 }
}

// decode validates and reads a body.
func (s *Server) decode(w http.ResponseWriter, op string, body []byte, path map[string]string) (*document, bool) {
	if err := s.Model.Check(op, body, path); err != nil {
		Problem(w, 400, "ValidationException", err.Error())
		return nil, false
	}
	var d document
	if err := json.Unmarshal(body, &d); err != nil {
		Problem(w, 400, "SerializationException", err.Error())
		return nil, false
	}
	return &d, true
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// code puts an image or a zip into f.
func (s *Server) code(w http.ResponseWriter, f *Function, image *string, archive []byte) bool {
	switch {
	case image != nil && f.Package == "Image":
		_, digest, ok := strings.Cut(*image, "@sha256:")
		if !ok { // a tag is resolved; tests see it in the dump
			sum := sha256.Sum256([]byte(*image))
			digest = fmt.Sprintf("%x", sum)
		}
		f.Image, f.Sha = *image, digest
	case archive != nil && f.Package == "Zip":
		z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
		if err != nil {
			Problem(w, 400, "InvalidParameterValueException", "Could not unzip uploaded file. Please check your file, then try to upload again.")
			return false
		}
		ok := false
		for _, x := range z.File {
			ok = ok || x.Name == "bootstrap" && x.Mode()&0o111 != 0
		}
		sum := sha256.Sum256(archive)
		f.Image, f.Sha = "", base64.StdEncoding.EncodeToString(sum[:])
		if !ok {
			f.fate = Fate{Fail: "InvalidRuntime", Reason: "no bootstrap"}
		}
	default:
		Problem(w, 400, "InvalidParameterValueException", "Please provide the code in the form of the package type "+f.Package)
		return false
	}
	x := s.fates[f.Sha]
	if x.Reject != "" {
		if x.Code == "" {
			x.Code = "InvalidParameterValueException"
		}
		Problem(w, 400, x.Code, x.Reject)
		return false
	}
	f.fate = x
	f.left = Steps
	if x.Stuck {
		f.left = StuckReads
	}
	return true
}

func (s *Server) create(w http.ResponseWriter, r *http.Request, body []byte) {
	if r.Method != http.MethodPost {
		Problem(w, 404, "UnknownOperationException", "no such operation")
		return
	}
	d, ok := s.decode(w, "CreateFunction", body, nil)
	if !ok {
		return
	}
	if s.latest != nil && s.name == *d.FunctionName {
		Problem(w, 409, "ResourceConflictException", "Function already exist: "+s.name)
		return
	}
	f := &Function{Version: "$LATEST", Package: "Zip", Memory: 128, Timeout: 3, Ephemeral: 512, Arch: "x86_64", State: "Pending", StateCode: "Creating", StateReason: "The function is being created.", Update: "InProgress"}
	set(&f.Package, d.PackageType)
	f.apply(d)
	if d.Code == nil || !s.code(w, f, d.Code.ImageUri, d.Code.ZipFile) {
		return
	}
	f.Revision = s.revision()
	s.name, s.latest = *d.FunctionName, f
	answer(w, 201, s.show(f))
}

// apply takes settings over.
func (f *Function) apply(d *document) {
	set(&f.Role, d.Role)
	set(&f.Runtime, d.Runtime)
	set(&f.Handler, d.Handler)
	set(&f.Description, d.Description)
	set(&f.Memory, d.MemorySize)
	set(&f.Timeout, d.Timeout)
	if d.EphemeralStorage != nil {
		f.Ephemeral = d.EphemeralStorage.Size
	}
	if d.Environment != nil {
		f.Env = d.Environment.Variables
	}
	if len(d.Architectures) == 1 {
		f.Arch = d.Architectures[0]
	}
}

// free refuses a change while another is under way, or for another revision.
func (s *Server) free(w http.ResponseWriter, d *document) bool {
	if s.latest.State == "Pending" || s.latest.Update == "InProgress" {
		Problem(w, 409, "ResourceConflictException", "The operation cannot be performed at this time. An update is in progress for resource: arn:aws:lambda:"+s.Creds.Region+":123456789012:function:"+s.name)
		return false
	}
	if d.RevisionId != nil && *d.RevisionId != s.latest.Revision {
		Problem(w, 412, "PreconditionFailedException", "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id")
		return false
	}
	return true
}

func (s *Server) update(w http.ResponseWriter, op string, body []byte, path map[string]string) {
	d, ok := s.decode(w, op, body, path)
	if !ok || !s.free(w, d) {
		return
	}
	f := *s.latest
	f.apply(d)
	if op == "UpdateFunctionCode" {
		if !s.code(w, &f, d.ImageUri, d.ZipFile) {
			return
		}
	} else {
		f.left, f.fate = Steps, Fate{}
	}
	f.Update, f.UpdateCode, f.UpdateReason, f.Revision = "InProgress", "", "", s.revision()
	s.latest = &f
	answer(w, 200, s.show(&f))
}

func (s *Server) publish(w http.ResponseWriter, body []byte, path map[string]string) {
	d, ok := s.decode(w, "PublishVersion", body, path)
	if !ok || !s.free(w, d) {
		return
	}
	if d.CodeSha256 != nil && *d.CodeSha256 != s.latest.Sha {
		Problem(w, 400, "InvalidParameterValueException", "CodeSHA256 does not match")
		return
	}
	v := *s.latest
	v.State, v.StateCode, v.StateReason, v.Update, v.fate = "Pending", "Creating", "The function is being created.", "", s.fates[s.latest.Sha]
	if n := len(s.versions); n > 0 {
		a := s.versions[n-1]
		if a.Version == strconv.Itoa(s.last) && a.Sha == v.Sha && maps.Equal(a.Env, v.Env) && a.Memory == v.Memory && a.Timeout == v.Timeout && a.Role == v.Role && a.Ephemeral == v.Ephemeral && a.Arch == v.Arch {
			answer(w, 201, s.show(a)) // nothing changed: no new one
			return
		}
	}
	s.last++
	v.Version, v.left, v.Revision = strconv.Itoa(s.last), Steps, s.revision()
	v.fate.Stuck = false
	set(&v.Description, d.Description)
	s.versions = append(s.versions, &v)
	answer(w, 201, s.show(&v))
}

func (s *Server) get(w http.ResponseWriter, r *http.Request, withCode bool) {
	f := s.latest
	if q := r.URL.Query().Get("Qualifier"); q != "" {
		if a := s.aliases[q]; a != nil {
			q = a.Version
		}
		f = s.version(q)
	}
	if f == nil {
		Problem(w, 404, "ResourceNotFoundException", "Function not found: "+r.URL.RequestURI())
		return
	}
	s.read(f)
	if !withCode {
		answer(w, 200, s.show(f))
		return
	}
	code := map[string]any{"RepositoryType": "S3", "Location": "https://example.invalid/code?X-Amz-Signature=abc"}
	if f.Package == "Image" {
		repo, _, _ := strings.Cut(f.Image, "@")
		code = map[string]any{"RepositoryType": "ECR", "ImageUri": f.Image, "ResolvedImageUri": repo + "@sha256:" + f.Sha}
	}
	answer(w, 200, map[string]any{"Configuration": s.show(f), "Code": code})
}

// list gives two versions a page.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	at, _ := strconv.Atoi(r.URL.Query().Get("Marker"))
	all := s.all()
	out := map[string]any{}
	var page []any
	for i := at; i < len(all) && i < at+2; i++ {
		s.read(all[i])
		page = append(page, s.show(all[i]))
	}
	out["Versions"] = page
	if at+2 < len(all) {
		out["NextMarker"] = strconv.Itoa(at + 2)
	}
	answer(w, 200, out)
}

func (s *Server) alias(w http.ResponseWriter, op string, body []byte, path map[string]string) {
	d, ok := s.decode(w, op, body, path)
	if !ok {
		return
	}
	name := path["Name"]
	set(&name, d.Name)
	old := s.aliases[name]
	switch {
	case op == "CreateAlias" && old != nil:
		Problem(w, 409, "ResourceConflictException", "Alias already exists: "+name)
		return
	case op == "UpdateAlias" && old == nil:
		Problem(w, 404, "ResourceNotFoundException", "Cannot find alias arn: "+name)
		return
	case op == "UpdateAlias" && d.RevisionId != nil && *d.RevisionId != old.Revision:
		Problem(w, 412, "PreconditionFailedException", "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id")
		return
	}
	a := Alias{}
	if old != nil {
		a = *old
	}
	set(&a.Version, d.FunctionVersion)
	set(&a.Description, d.Description)
	if d.RoutingConfig != nil {
		a.Weights = d.RoutingConfig.AdditionalVersionWeights
	}
	for v := range a.Weights {
		if v == a.Version || v == "$LATEST" || len(a.Weights) > 1 || s.version(v) == nil {
			Problem(w, 400, "InvalidParameterValueException", "Invalid function version in the routing config: "+v)
			return
		}
	}
	if f := s.version(a.Version); f == nil {
		Problem(w, 404, "ResourceNotFoundException", "Function not found: "+a.Version)
		return
	}
	a.Revision = s.revision()
	s.aliases[name] = &a
	status := 200
	if op == "CreateAlias" {
		status = 201
	}
	answer(w, status, s.showAlias(name, &a))
}

func (s *Server) showAlias(name string, a *Alias) map[string]any {
	out := map[string]any{"AliasArn": s.arn() + ":" + name, "Name": name, "FunctionVersion": a.Version, "Description": a.Description, "RevisionId": a.Revision}
	if len(a.Weights) > 0 {
		out["RoutingConfig"] = map[string]any{"AdditionalVersionWeights": a.Weights}
	}
	return out
}

func (s *Server) arn() string {
	return "arn:aws:lambda:" + s.Creds.Region + ":123456789012:function:" + s.name
}

// invoke answers readiness as the server in a version does; a version that sleeps is woken up.
func (s *Server) invoke(w http.ResponseWriter, r *http.Request) {
	f := s.version(r.URL.Query().Get("Qualifier"))
	switch {
	case f == nil:
		Problem(w, 404, "ResourceNotFoundException", "Function not found")
	case f.State == "Inactive":
		f.State, f.StateCode, f.StateReason, f.left = "Pending", "Restoring", "The function is being restored.", Steps
		Problem(w, 409, "ResourceConflictException", "The operation cannot be performed at this time. The function is currently in the following state: Inactive")
	case f.State != "Active":
		Problem(w, 409, "ResourceConflictException", "The operation cannot be performed at this time. The function is currently in the following state: "+f.State)
	case s.fates[f.Sha].Unready != "":
		w.Header().Set("X-Amz-Function-Error", "Unhandled")
		answer(w, 200, map[string]any{"errorType": s.fates[f.Sha].Unready, "errorMessage": "the process exits"})
	default:
		answer(w, 200, map[string]any{"statusCode": 200, "body": `{"ready":true}`})
	}
}

func (s *Server) show(f *Function) map[string]any {
	out := map[string]any{
		"FunctionName": s.name, "FunctionArn": s.arn() + ":" + f.Version, "Version": f.Version, "CodeSha256": f.Sha, "PackageType": f.Package, "Role": f.Role, "Architectures": []string{f.Arch},
		"Description": f.Description, "RevisionId": f.Revision, "MemorySize": f.Memory, "Timeout": f.Timeout, "EphemeralStorage": map[string]int{"Size": f.Ephemeral},
		"State": f.State, "LastModified": "2026-01-02T03:04:05.000+0000",
	}
	for k, v := range map[string]string{"StateReason": f.StateReason, "StateReasonCode": f.StateCode, "LastUpdateStatus": f.Update, "LastUpdateStatusReason": f.UpdateReason, "LastUpdateStatusReasonCode": f.UpdateCode, "Runtime": f.Runtime, "Handler": f.Handler} {
		if v != "" {
			out[k] = v
		}
	}
	if f.Env != nil {
		out["Environment"] = map[string]any{"Variables": f.Env}
	}
	return out
}
