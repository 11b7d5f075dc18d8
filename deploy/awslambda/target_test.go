package awslambda_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/awslambda"
	"github.com/waybill-ml/waybill/deploy/awslambda/lambdatest"
)

func apply(t *testing.T, tg *awslambda.Target, r deploy.Release) (*deploy.Outcome, error) {
	t.Helper()
	r.Wait = time.Minute
	p, err := tg.Plan(t.Context(), r)
	if err != nil {
		return nil, err
	}
	return tg.Apply(t.Context(), p)
}

func deployed(t *testing.T, s *site, ns ...int) {
	t.Helper()
	for _, n := range ns {
		if _, err := apply(t, s.target(), s.release(n)); err != nil {
			t.Fatalf("release %d: %v", n, err)
		}
	}
}

func serves(t *testing.T, s *site, n int) {
	t.Helper()
	if got := s.Shares("live"); len(got) != 1 || got[s.shaOf(n)] != 100 {
		t.Errorf("%v serves, want release %d", got, n)
	}
}

// Over a real connection; and with credentials that are wrong in every way, which the server finds by computing the signature anew.
func TestSignatures(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	srv := httptest.NewServer(s.Server)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	target := func(cfg aws.Config) *awslambda.Target {
		tg, err := awslambda.New(cfg, s.settings())
		if err != nil {
			t.Fatal(err)
		}
		return tg
	}
	good := s.config()
	good.HTTPClient = nil
	if _, err := apply(t, target(good), s.release(1)); err != nil {
		t.Fatal(err)
	}
	serves(t, s, 1)
	c := s.Creds
	for name, cfg := range map[string]aws.Config{
		"another secret": {Region: c.Region, Credentials: credentials.NewStaticCredentialsProvider(c.ID, c.Secret+"x", c.Token)},
		"another token":  {Region: c.Region, Credentials: credentials.NewStaticCredentialsProvider(c.ID, c.Secret, "other-token")},
		"another id":     {Region: c.Region, Credentials: credentials.NewStaticCredentialsProvider("AKIDOTHER", c.Secret, c.Token)},
		"another region": {Region: "us-east-1", Credentials: good.Credentials},
		"none":           {Region: c.Region},
		"anonymous":      {Region: c.Region, Credentials: aws.AnonymousCredentials{}},
		"no source": {Region: c.Region, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{}, errors.New("the session has ended")
		})},
	} {
		_, err := apply(t, target(cfg), s.release(2))
		if !errors.Is(err, deploy.ErrUnauthorized) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A request that was altered on its way.
	cfg := good
	cfg.HTTPClient = altered{}
	if _, err := apply(t, target(cfg), s.release(2)); !errors.Is(err, deploy.ErrUnauthorized) {
		t.Errorf("an altered body: %v", err)
	}
	serves(t, s, 1)
}

// altered changes the memory in bodies after they were signed.
type altered struct{}

func (altered) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r.Body)
		body := strings.Replace(b.String(), `"RevisionId":"0`, `"RevisionId":"1`, 1)
		r.Body, r.ContentLength = http.NoBody, 0
		if body != "" {
			r.Body, r.ContentLength = readCloser{strings.NewReader(body)}, int64(len(body))
		}
	}
	return http.DefaultClient.Do(r)
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// The server refuses what Lambda refuses: else the suite would prove nothing.
func TestServerValidates(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	for body, ok := range map[string]bool{
		`{"FunctionName":"f","Role":"` + role + `","Code":{"ImageUri":"x@sha256:0"}}`:                          true,
		`{"FunctionName":"f","Role":"` + role + `","Code":{},"Memory":1}`:                                      false,
		`{"FunctionName":"f","Role":"` + role + `","Code":{"imageUri":"x"}}`:                                   false,
		`{"FunctionName":"f","Role":"` + role + `","Code":{},"Environment":{"Variables":{"A":"b"},"Vars":{}}}`: false,
		`[]`: false,
	} {
		if err := s.Model.Check("CreateFunction", []byte(body), nil); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
	if !s.Model.Full() {
		t.Skip("WAYBILL_SCHEMAS is not set: lengths, patterns, ranges and enums are not checked")
	}
	for _, body := range []string{
		`{"FunctionName":"f","Role":"` + role + `"}`, `{"FunctionName":"f","Role":"x","Code":{}}`,
		`{"FunctionName":"f","Role":"` + role + `","Code":{},"MemorySize":64}`, `{"FunctionName":"f","Role":"` + role + `","Code":{},"MemorySize":"64"}`,
		`{"FunctionName":"f","Role":"` + role + `","Code":{},"PackageType":"Tar"}`, `{"FunctionName":"f","Role":"` + role + `","Code":{},"Architectures":["x86_64","arm64"]}`,
		`{"FunctionName":"f","Role":"` + role + `","Code":{},"Environment":{"Variables":{"1A":"b"}}}`, `{"FunctionName":"f","Role":"` + role + `","Code":{"ZipFile":"?"}}`,
	} {
		if err := s.Model.Check("CreateFunction", []byte(body), nil); err == nil {
			t.Errorf("%s is taken", body)
		}
	}
}

// The server's own state machine, asked by the SDK.
func TestServerStates(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	deployed(t, s, 1)
	c := lambda.NewFromConfig(s.config(), func(o *lambda.Options) { o.BaseEndpoint, o.RetryMaxAttempts = &s.url, 1 })
	f := aws.String("churn")
	out, err := c.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{FunctionName: f, MemorySize: aws.Int32(256)})
	if err != nil || out.LastUpdateStatus != types.LastUpdateStatusInProgress {
		t.Fatalf("%v, %v", out, err)
	}
	var busy *types.ResourceConflictException
	if _, err := c.PublishVersion(t.Context(), &lambda.PublishVersionInput{FunctionName: f}); !errors.As(err, &busy) {
		t.Errorf("publish during an update: %v", err)
	}
	s.Rest()
	var stale *types.PreconditionFailedException
	if _, err := c.PublishVersion(t.Context(), &lambda.PublishVersionInput{FunctionName: f, RevisionId: out.RevisionId}); !errors.As(err, &stale) {
		t.Errorf("publish of an old revision: %v", err)
	}
	for range 2 { // the second is the same version
		v, err := c.PublishVersion(t.Context(), &lambda.PublishVersionInput{FunctionName: f})
		if err != nil || *v.Version != "2" {
			t.Errorf("%+v, %v", v, err)
		}
		s.Rest()
	}
	if _, err := c.UpdateAlias(t.Context(), &lambda.UpdateAliasInput{FunctionName: f, Name: aws.String("live"), RevisionId: aws.String("old")}); !errors.As(err, &stale) {
		t.Errorf("alias with an old revision: %v", err)
	}
	if _, err := c.UpdateAlias(t.Context(), &lambda.UpdateAliasInput{FunctionName: f, Name: aws.String("live"), RoutingConfig: &types.AliasRoutingConfiguration{AdditionalVersionWeights: map[string]float64{"9": 0.1}}}); err == nil {
		t.Error("traffic to a version that does not exist")
	}
}

// A version that Lambda calls active, and whose server refuses to start, gets no traffic; without the question it would.
func TestProbe(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	deployed(t, s, 1)
	s.Fate(s.shaOf(2), lambdatest.Fate{Unready: "Waybill.NotVerified"})
	_, err := apply(t, s.target(), s.release(2))
	if !errors.Is(err, deploy.ErrUnhealthy) || !strings.Contains(err.Error(), "Waybill.NotVerified") {
		t.Errorf("%v", err)
	}
	serves(t, s, 1)
	if _, err := apply(t, s.target(func(x *awslambda.Settings) { x.NoProbe = true }), s.release(2)); err != nil {
		t.Fatal(err)
	}
	serves(t, s, 2) // so it is the question that kept it away
	if _, err := s.target().Rollback(t.Context(), "", time.Minute); err != nil {
		t.Fatal(err)
	}
	serves(t, s, 1)
	if _, err := s.target().Rollback(t.Context(), s.release(2).Digest, time.Minute); !errors.Is(err, deploy.ErrUnhealthy) {
		t.Errorf("rollback to what does not serve: %v", err)
	}
	serves(t, s, 1)
}

// A version that says that it is release 2 and runs other code is not taken for it.
func TestForgedLabel(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	deployed(t, s, 1)
	s.Edit(func(f *lambdatest.Function) { // a version by hand: code of 1, label of 2
		f.Env = map[string]string{"WAYBILL_LOG": "json", awslambda.DigestVariable: string(s.release(2).Digest)}
	})
	c := lambda.NewFromConfig(s.config(), func(o *lambda.Options) { o.BaseEndpoint = &s.url })
	v, err := c.PublishVersion(t.Context(), &lambda.PublishVersionInput{FunctionName: aws.String("churn")})
	if err != nil {
		t.Fatal(err)
	}
	s.Rest()
	o, err := apply(t, s.target(), s.release(2))
	if err != nil || o.IDs["version"] == *v.Version {
		t.Fatalf("%+v, %v", o, err)
	}
	serves(t, s, 2)
}

// A version that slept is woken up before it gets the traffic back.
func TestInactive(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	deployed(t, s, 1, 2)
	s.Sleep(s.shaOf(1))
	if _, err := s.target().Rollback(t.Context(), "", time.Minute); err != nil {
		t.Fatal(err)
	}
	serves(t, s, 1)
	st, err := s.target().Status(t.Context())
	if err != nil || st.State != "Active" || !st.Healthy {
		t.Errorf("%+v, %v", st, err)
	}
}

// Settings that changed are changes, not drift, and make a new version of the same artifact.
func TestSettingsChange(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	deployed(t, s, 1)
	more := func(x *awslambda.Settings) {
		x.Memory, x.Timeout, x.Env = 2048, time.Minute, map[string]string{"KEY": "secret-value"}
	}
	p, err := s.target(more).Plan(t.Context(), s.release(1))
	if err != nil || len(p.Drift) > 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	text := ""
	for _, ch := range p.Changes {
		text += ch.Field + ": " + ch.Old + " to " + ch.New + "\n"
	}
	for _, want := range []string{"memory: 512 MB to 2048 MB", "timeout: 30 s to 60 s", "variable KEY:  to the value", "variable WAYBILL_LOG: a value to \n", "traffic of live: version 1 100% to version new 100%"} {
		if !strings.Contains(text, want) {
			t.Errorf("the plan does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "secret-value") {
		t.Error("the plan shows a variable's value")
	}
	if _, err := apply(t, s.target(more), s.release(1)); err != nil {
		t.Fatal(err)
	}
	serves(t, s, 1)
	if p, err := s.target(more).Plan(t.Context(), s.release(1)); err != nil || len(p.Changes) > 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if !strings.Contains(s.Dump(), "Memory:2048") || !strings.Contains(s.Dump(), "Version:2 ") {
		t.Error(s.Dump())
	}
}

func TestRefusedReleases(t *testing.T) {
	image, zip := newSite(t, model(t), false, nil), newSite(t, model(t), true, nil)
	deployed(t, image, 1)
	if _, err := image.target().Plan(t.Context(), zip.release(1)); !errors.Is(err, deploy.ErrRelease) {
		t.Errorf("a zip for a function of images: %v", err)
	}
	r := image.release(2)
	r.Size = 11 << 30
	if _, err := image.target().Plan(t.Context(), r); !errors.Is(err, deploy.ErrTooLarge) {
		t.Errorf("11 GB: %v", err)
	}
	if _, err := zip.target(func(x *awslambda.Settings) { x.Role = "" }).Plan(t.Context(), zip.release(1)); !errors.Is(err, deploy.ErrRelease) {
		t.Errorf("no role: %v", err)
	}
	if _, err := image.target().Apply(t.Context(), &deploy.Plan{Release: image.release(2)}); !errors.Is(err, deploy.ErrRelease) {
		t.Errorf("another's plan: %v", err)
	}
	// A bundle that changes between plan and apply.
	r = zip.release(1)
	p, err := zip.target().Plan(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Bundle, "more"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := zip.target().Apply(t.Context(), p); !errors.Is(err, deploy.ErrRelease) {
		t.Errorf("an altered bundle: %v", err)
	}
	if zip.Dump() != "" {
		t.Errorf("it is there: %s", zip.Dump())
	}
}

func TestBundles(t *testing.T) {
	s := newSite(t, model(t), true, nil)
	dir := t.TempDir()
	plan := func() error {
		_, err := s.target().Plan(t.Context(), deploy.Release{Digest: s.release(1).Digest, Bundle: dir})
		return err
	}
	if err := plan(); !errors.Is(err, deploy.ErrRelease) || !strings.Contains(err.Error(), "bootstrap") {
		t.Errorf("an empty folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bootstrap"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := awslambda.BundleSha(t, dir)
	if err := os.Chtimes(filepath.Join(dir, "bootstrap"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if b := awslambda.BundleSha(t, dir); a != b {
		t.Error("the same files at another time have another digest")
	}
	big := filepath.Join(dir, "big")
	f, err := os.Create(big)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(251<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := plan(); !errors.Is(err, deploy.ErrTooLarge) {
		t.Errorf("251 MB: %v", err)
	}
	if err := os.Remove(big); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Skip("no symbolic links here")
	}
	if err := plan(); !errors.Is(err, deploy.ErrRelease) {
		t.Errorf("a link out of the bundle: %v", err)
	}
}

func TestSettings(t *testing.T) {
	cfg := aws.Config{Region: "eu-central-1"}
	good := awslambda.Settings{Function: "churn", Role: role}
	if _, err := awslambda.New(cfg, good); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*awslambda.Settings){
		"function": func(s *awslambda.Settings) { s.Function = "a b" }, "none": func(s *awslambda.Settings) { s.Function = "" },
		"alias": func(s *awslambda.Settings) { s.Alias = "12" }, "latest": func(s *awslambda.Settings) { s.Alias = "$LATEST" },
		"role": func(s *awslambda.Settings) { s.Role = "me" }, "memory": func(s *awslambda.Settings) { s.Memory = 64 },
		"tmp": func(s *awslambda.Settings) { s.Ephemeral = 11000 }, "timeout": func(s *awslambda.Settings) { s.Timeout = 1500 * time.Millisecond },
		"arch": func(s *awslambda.Settings) { s.Arch = "riscv64" }, "variable": func(s *awslambda.Settings) { s.Env = map[string]string{"A": "x"} }, "label": func(s *awslambda.Settings) { s.Env = map[string]string{awslambda.DigestVariable: "x"} },
	} {
		s := good
		edit(&s)
		if _, err := awslambda.New(cfg, s); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := awslambda.New(aws.Config{}, good); err == nil {
		t.Error("no region is taken")
	}
}
