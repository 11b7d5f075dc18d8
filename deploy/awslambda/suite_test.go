package awslambda_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/awslambda"
	"github.com/waybill-ml/waybill/deploy/awslambda/lambdatest"
	"github.com/waybill-ml/waybill/deploy/awstest"
	"github.com/waybill-ml/waybill/deploy/targettest"
	"github.com/waybill-ml/waybill/oci/artifact"
)

const role = "arn:aws:iam::123456789012:role/churn"

// site is one platform with a target in front of it.
type site struct {
	*lambdatest.Server
	handler http.Handler
	url     string
	tb      testing.TB
	zip     bool
	dir     string
	sha     map[string]artifact.Digest // CodeSha256 to artifact, of releases that were asked for
}

func newSite(tb testing.TB, m *awstest.Model, zip bool, wrap func(http.Handler) http.Handler) *site {
	s := &site{Server: lambdatest.New(m), tb: tb, zip: zip, dir: tb.TempDir(), sha: map[string]artifact.Digest{}}
	var h http.Handler = s.Server
	if wrap != nil {
		h = wrap(h)
	}
	s.handler, s.url = h, "http://lambda.test"
	for n := 1; n <= 4; n++ {
		r := s.release(n)
		s.sha[s.shaOf(n)] = r.Digest
	}
	return s
}

// inProcess is a client whose server is a function call away: the suite makes tens of thousands of them.
type inProcess struct{ h http.Handler }

// Do implements aws.HTTPClient. A handler that aborts is a connection that ends.
func (c inProcess) Do(r *http.Request) (resp *http.Response, err error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	in := r.Clone(r.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	w := httptest.NewRecorder()
	defer func() {
		if v := recover(); v != nil {
			if v != any(http.ErrAbortHandler) {
				panic(v)
			}
			resp, err = nil, io.ErrUnexpectedEOF
		}
		if e := r.Context().Err(); e != nil {
			resp, err = nil, e
		}
	}()
	c.h.ServeHTTP(w, in)
	return w.Result(), nil
}

func digest(what string, n int) artifact.Digest {
	return artifact.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(fmt.Appendf(nil, "%s %d", what, n))))
}

func (s *site) release(n int) deploy.Release {
	r := deploy.Release{Digest: digest("artifact", n), Model: "churn", Ver: fmt.Sprintf("1.%d", n), Arches: []string{"amd64"}}
	if !s.zip {
		r.Image = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/churn@" + string(digest("image", n))
		return r
	}
	r.Bundle = filepath.Join(s.dir, fmt.Sprint(n))
	if _, err := os.Stat(r.Bundle); err == nil {
		return r
	}
	for name, text := range map[string]string{"bootstrap": "#!/bin/sh\n", "artifact/index.json": fmt.Sprint(n)} {
		path := filepath.Join(r.Bundle, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			s.tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			s.tb.Fatal(err)
		}
	}
	return r
}

// shaOf is Lambda's CodeSha256 of a release.
func (s *site) shaOf(n int) string {
	if !s.zip {
		return strings.TrimPrefix(string(digest("image", n)), "sha256:")
	}
	return awslambda.BundleSha(s.tb, s.release(n).Bundle)
}

func (s *site) shaBy(d artifact.Digest) string {
	for sha, x := range s.sha {
		if x == d {
			return sha
		}
	}
	s.tb.Fatalf("no release %s", d)
	return ""
}

func (s *site) config() aws.Config {
	return aws.Config{Region: s.Creds.Region, HTTPClient: inProcess{s.handler}, Credentials: credentials.NewStaticCredentialsProvider(s.Creds.ID, s.Creds.Secret, s.Creds.Token)}
}

func (s *site) settings() awslambda.Settings {
	return awslambda.Settings{
		Function: "churn", Role: role, Memory: 512, Env: map[string]string{"WAYBILL_LOG": "json"}, Endpoint: s.url,
		Poll: time.Millisecond, Backoff: time.Millisecond,
	}
}

func (s *site) target(edit ...func(*awslambda.Settings)) *awslambda.Target {
	set := s.settings()
	for _, e := range edit {
		e(&set)
	}
	t, err := awslambda.New(s.config(), set)
	if err != nil {
		s.tb.Fatal(err)
	}
	return t
}

// sick gives code a fate. What fails does so in Lambda's hands for images, and in its own, at the first call, for uploaded code.
func (s *site) sick(d artifact.Digest, cause error) {
	f := map[error]lambdatest.Fate{
		deploy.ErrUnhealthy:   {Fail: "InvalidImage", Reason: "UnsupportedImageLayerDetected"},
		deploy.ErrUnavailable: {Stuck: true},
		deploy.ErrPlatform:    {Reject: "The image manifest, config or layer media type for the source image is not supported."},
		deploy.ErrTooLarge:    {Reject: "Uncompressed container image size exceeds the maximum size of 10737418240 bytes"},
		deploy.ErrQuota:       {Code: "CodeStorageExceededException", Reject: "Code storage limit exceeded."},
	}[cause]
	if s.zip && cause == deploy.ErrUnhealthy {
		f = lambdatest.Fate{Unready: "Waybill.NotVerified"}
	}
	if s.zip && cause == deploy.ErrTooLarge {
		f.Reject = "Unzipped size must be smaller than 262144000 bytes"
	}
	s.Fate(s.shaBy(d), f)
}

func fixture(m *awstest.Model, zip bool) func(tb testing.TB, w *targettest.Wire) *targettest.Fixture {
	return func(tb testing.TB, w *targettest.Wire) *targettest.Fixture {
		s := newSite(tb, m, zip, w.Handler)
		memory := 1000
		return &targettest.Fixture{
			Target: func(log *slog.Logger) deploy.Target {
				return s.target(func(x *awslambda.Settings) { x.Log = log })
			},
			Release: s.release,
			Serving: func() map[artifact.Digest]int {
				out := map[artifact.Digest]int{}
				for sha, w := range s.Shares("live") {
					out[s.sha[sha]] += w
				}
				return out
			},
			Rest:   s.Rest,
			Dump:   s.Dump,
			Sick:   s.sick,
			Forget: func(d artifact.Digest) { s.Delete(s.shaBy(d)) },
			Meddle: func() { memory++; s.Edit(func(f *lambdatest.Function) { f.Memory = memory }) },
			Fail: func(w http.ResponseWriter, r *http.Request, cause error, message string) {
				switch {
				case errors.Is(cause, deploy.ErrThrottled):
					lambdatest.Problem(w, 429, "TooManyRequestsException", "Rate exceeded: "+message)
				case errors.Is(cause, deploy.ErrUnavailable):
					lambdatest.Problem(w, 500, "ServiceException", message)
				case errors.Is(cause, deploy.ErrForbidden):
					lambdatest.Problem(w, 403, "AccessDeniedException", "User is not authorized to perform this operation: "+message)
				case errors.Is(cause, deploy.ErrUnauthorized):
					lambdatest.Problem(w, 403, "ExpiredTokenException", "The security token included in the request is expired: "+message)
				}
			},
			Secrets: []string{s.Creds.Secret, s.Creds.Token},
		}
	}
}

// model is Lambda's published one where WAYBILL_SCHEMAS is set; without it bodies are checked by the SDK's types alone.
func model(tb testing.TB) *awstest.Model {
	tb.Helper()
	m, err := lambdatest.LoadModel(os.Getenv("WAYBILL_SCHEMAS"))
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func TestImage(t *testing.T) { targettest.Run(t, targettest.Harness{New: fixture(model(t), false)}) }

func TestZip(t *testing.T) {
	h := targettest.Harness{New: fixture(model(t), true)}
	if os.Getenv("WAYBILL_NIGHTLY") == "" {
		same := "the moves are those of an image, which TestImage disturbs; `make nightly` does it here too"
		h.Without = map[string]string{"faults": same, "lost": same, "interleaved": same, "canary": same}
	}
	targettest.Run(t, h)
}
