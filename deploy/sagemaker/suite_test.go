package sagemaker_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/awstest"
	"github.com/waybill-ml/waybill/deploy/sagemaker"
	"github.com/waybill-ml/waybill/deploy/sagemaker/sagemakertest"
	"github.com/waybill-ml/waybill/deploy/targettest"
	"github.com/waybill-ml/waybill/oci/artifact"
)

const role = "arn:aws:iam::123456789012:role/churn"

// site is one platform with a target in front of it.
type site struct {
	*sagemakertest.Server
	handler    http.Handler
	url        string
	tb         testing.TB
	serverless bool
}

func newSite(tb testing.TB, m *awstest.Model, serverless bool, wrap func(http.Handler) http.Handler) *site {
	s := &site{Server: sagemakertest.New(m), tb: tb, serverless: serverless, url: "http://sagemaker.test"}
	s.handler = s.Server
	if wrap != nil {
		s.handler = wrap(s.Server)
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

func release(n int) deploy.Release {
	return deploy.Release{
		Digest: digest("artifact", n), Model: "churn", Ver: fmt.Sprintf("1.%d", n), Arches: []string{"amd64"},
		Image: "123456789012.dkr.ecr.eu-central-1.amazonaws.com/churn@" + string(digest("image", n)),
	}
}

// imageOf is the digest of the image of an artifact's release.
func imageOf(tb testing.TB, d artifact.Digest) string {
	for n := 1; n <= 4; n++ {
		if digest("artifact", n) == d {
			return string(digest("image", n))
		}
	}
	tb.Fatalf("no release %s", d)
	return ""
}

func (s *site) config() aws.Config {
	return aws.Config{Region: s.Creds.Region, HTTPClient: inProcess{s.handler}, Credentials: credentials.NewStaticCredentialsProvider(s.Creds.ID, s.Creds.Secret, s.Creds.Token)}
}

func (s *site) settings() sagemaker.Settings {
	x := sagemaker.Settings{Endpoint: "churn", Role: role, Env: map[string]string{"WAYBILL_LOG": "json"}, API: s.url, Poll: time.Millisecond, Backoff: time.Millisecond}
	if s.serverless {
		x.Serverless, x.Memory, x.Concurrency = true, 3072, 5
	} else {
		x.Instance, x.Count = "ml.c5.large", 2
	}
	return x
}

func (s *site) target(edit ...func(*sagemaker.Settings)) deploy.Target {
	set := s.settings()
	for _, e := range edit {
		e(&set)
	}
	t, err := sagemaker.New(s.config(), set)
	if err != nil {
		s.tb.Fatal(err)
	}
	return t
}

const noPing = "The primary container for production variant main did not pass the ping health check. Please check CloudWatch logs for this endpoint."

func (s *site) sick(d artifact.Digest, cause error) {
	s.Fate(imageOf(s.tb, d), map[error]sagemakertest.Fate{
		deploy.ErrUnhealthy:   {Fail: noPing},
		deploy.ErrUnavailable: {Stuck: true},
		deploy.ErrPlatform:    {Reject: "Unsupported manifest media type application/vnd.oci.image.index.v1+json for image. Ensure that valid manifest media type is used for specified image."},
		deploy.ErrTooLarge:    {Fail: "Image size 15255139283 is greater than supported size 10737418240"},
		deploy.ErrQuota:       {Limit: "The account-level service limit 'ml.c5.large for endpoint usage' is 2 Instances, with current utilization of 2 Instances and a request delta of 2 Instances."},
	}[cause])
}

func fixture(m *awstest.Model, serverless bool) func(tb testing.TB, w *targettest.Wire) *targettest.Fixture {
	return func(tb testing.TB, w *targettest.Wire) *targettest.Fixture {
		s := newSite(tb, m, serverless, w.Handler)
		more := 10
		return &targettest.Fixture{
			Target:  func(log *slog.Logger) deploy.Target { return s.target(func(x *sagemaker.Settings) { x.Log = log }) },
			Release: release,
			Serving: func() map[artifact.Digest]int {
				out := map[artifact.Digest]int{}
				for image, w := range s.Shares("churn") {
					for n := 1; n <= 4; n++ {
						if string(digest("image", n)) == image {
							out[digest("artifact", n)] += w
						}
					}
				}
				return out
			},
			Rest:   s.Rest,
			Dump:   s.Dump,
			Sick:   s.sick,
			Forget: func(d artifact.Digest) { s.Delete(imageOf(tb, d)) },
			Meddle: func() {
				more++
				s.Edit("churn", func(e *sagemakertest.Endpoint) {
					if serverless {
						e.Live[0].Serverless = &sagemakertest.Serverless{MemorySizeInMB: e.Live[0].Serverless.MemorySizeInMB, MaxConcurrency: more}
					} else {
						e.Live[0].Count = more
					}
				})
			},
			Fail: func(w http.ResponseWriter, r *http.Request, cause error, message string) {
				switch {
				case errors.Is(cause, deploy.ErrThrottled):
					sagemakertest.Problem(w, 400, "ThrottlingException", "Rate exceeded: "+message)
				case errors.Is(cause, deploy.ErrUnavailable):
					sagemakertest.Problem(w, 503, "ServiceUnavailable", message)
				case errors.Is(cause, deploy.ErrForbidden):
					sagemakertest.Problem(w, 400, "AccessDeniedException", "User is not authorized to perform this operation: "+message)
				case errors.Is(cause, deploy.ErrUnauthorized):
					sagemakertest.Problem(w, 400, "ExpiredTokenException", "The security token included in the request is expired: "+message)
				}
			},
			Secrets: []string{s.Creds.Secret, s.Creds.Token},
		}
	}
}

// model is SageMaker's published one where WAYBILL_SCHEMAS is set; without it bodies are checked by the SDK's types alone.
func model(tb testing.TB) *awstest.Model {
	tb.Helper()
	m, err := sagemakertest.LoadModel(os.Getenv("WAYBILL_SCHEMAS"))
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func TestRealtime(t *testing.T) { targettest.Run(t, targettest.Harness{New: fixture(model(t), false)}) }

func TestServerless(t *testing.T) {
	h := targettest.Harness{New: fixture(model(t), true)}
	if os.Getenv("WAYBILL_NIGHTLY") == "" {
		same := "the moves are those of an endpoint with instances, which TestRealtime disturbs; `make nightly` does it here too"
		h.Without = map[string]string{"faults": same, "lost": same, "interleaved": same}
	}
	targettest.Run(t, h)
}
