// Package google is what targets on Google Cloud have in common: access tokens that are taken out of texts again, calls that are made
// again where the platform asks for it, and the named causes of what it answers. It knows no target.
package google

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	oauth "golang.org/x/oauth2/google"
	"google.golang.org/api/option"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// scope is what Google's own clients of these services ask for.
const scope = "https://www.googleapis.com/auth/cloud-platform"

// Causes beside those of deploy. ErrImage is wrapped, beside deploy.ErrRelease, when the platform does not find the image or may not
// read it; ErrStale is an etag that is no longer the resource's; ErrExists a name that is taken.
var (
	ErrImage  = errors.New("the platform cannot fetch the image")
	ErrStale  = errors.New("the etag is not that of the resource")
	ErrExists = errors.New("it exists already")
)

// Caller calls one of Google's services. It is safe for concurrent use.
type Caller struct {
	platform string
	tokens   *tokens
	backoff  time.Duration
	log      *slog.Logger
}

// New makes a caller with the tokens of ts, which is safe for concurrent use and caches. platform is how errors name the service; backoff
// is the longest time between repetitions.
func New(platform string, ts oauth2.TokenSource, backoff time.Duration, log *slog.Logger) *Caller {
	return &Caller{platform: platform, tokens: &tokens{source: ts}, backoff: backoff, log: log}
}

// Options are those of the service's client. endpoint is the URL of the API; empty: the public one.
func (c *Caller) Options(endpoint string) []option.ClientOption {
	opts := []option.ClientOption{option.WithTokenSource(c.tokens), option.WithTelemetryDisabled()}
	if endpoint != "" {
		opts = append(opts, option.WithEndpoint(endpoint))
	}
	return opts
}

// Redact takes credentials out of a text.
func (c *Caller) Redact(s string) string { return c.tokens.redact(s) }

// Policy is that of repetitions.
func (c *Caller) Policy() retry.Policy {
	return retry.Policy{Base: min(c.backoff, 250*time.Millisecond), Max: c.backoff}
}

// Call does one request, again where the platform asks for it. f is given the time for one attempt, and must be safe to repeat.
func (c *Caller) Call(ctx context.Context, what string, f func(ctx context.Context) error) error {
	return retry.Do(ctx, c.Policy(), func(ctx context.Context) error { return c.Once(ctx, what, f) })
}

// Once does one request. Its error tells retry.Do when the platform wants to be asked again.
func (c *Caller) Once(ctx context.Context, what string, f func(ctx context.Context) error) error {
	one, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := f(one)
	if err == nil {
		return nil
	}
	after, err := c.fail(ctx, what, err)
	c.log.Debug("call failed", "platform", c.platform, "what", what, "error", err.Error())
	return retry.Later(err, after)
}

// Pause waits, or ends with ctx.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Operation is what a client's type of long-running operation says.
type Operation struct {
	Name    string
	Done    bool
	Failed  bool
	Code    int64 // of google.rpc.Code, when it failed
	Message string
}

// Await asks for an operation until it is done or the time is over; get gives it. The longer it takes, the rarer it is asked for: from
// poll to 16 times poll, at most 30 s, apart. An operation that the platform has forgotten counts as done.
func (c *Caller) Await(ctx context.Context, op Operation, poll time.Duration, end time.Time, get func(ctx context.Context, name string) (Operation, error)) (Operation, error) {
	for wait := poll; !op.Done && op.Name != "" && time.Now().Before(end); wait = min(wait*3/2, 16*poll, max(poll, 30*time.Second)) {
		if err := Pause(ctx, min(wait, max(time.Until(end), time.Millisecond))); err != nil {
			return op, err
		}
		var now Operation
		err := c.Call(ctx, "read the operation", func(ctx context.Context) (err error) {
			now, err = get(ctx, op.Name)
			return err
		})
		if errors.Is(err, deploy.ErrGone) {
			op.Done = true
			return op, nil
		}
		if err != nil {
			return op, err
		}
		op.Done, op.Failed, op.Code, op.Message = now.Done, now.Failed, now.Code, c.Redact(now.Message)
	}
	if op.Failed {
		c.log.Debug("operation ended with an error", "platform", c.platform, "operation", op.Name, "code", op.Code, "message", c.Redact(op.Message))
	}
	return op, nil
}

// Until is when waiting ends that begins now; usual is for a wait that is not given.
func Until(wait, usual time.Duration) time.Time {
	if wait <= 0 {
		wait = usual
	}
	return time.Now().Add(wait)
}

// Credentials are those that Google's own tools find (GOOGLE_APPLICATION_CREDENTIALS, those of gcloud, the metadata server of the machine).
func Credentials(ctx context.Context, platform string) (oauth2.TokenSource, error) {
	c, err := oauth.FindDefaultCredentials(ctx, scope)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: no credentials are found; run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS", deploy.ErrUnauthorized, platform)
	}
	return c.TokenSource, nil
}

// CheckURL refuses what is no https URL of an API, or http one of this machine.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !(u.Scheme == "http" && (u.Hostname() == "127.0.0.1" || u.Hostname() == "::1" || u.Hostname() == "localhost")) {
		return errors.New("it is no https URL without a user")
	}
	return nil
}

// A label's value has at most 63 characters, a digest has 64 digits: so there are two labels, KEY with sha256- and the first 32 digits, and
// KEY-rest with the others.

// Label writes a digest into labels.
func Label(labels map[string]string, key string, d artifact.Digest) {
	hexes := strings.TrimPrefix(string(d), "sha256:")
	labels[key], labels[key+"-rest"] = "sha256-"+hexes[:32], hexes[32:]
}

// Labelled reads what Label wrote; empty when there is no digest.
func Labelled(labels map[string]string, key string) artifact.Digest {
	head, ok := strings.CutPrefix(labels[key], "sha256-")
	raw, err := hex.DecodeString(head + labels[key+"-rest"])
	if !ok || err != nil || len(raw) != 32 {
		return ""
	}
	d, err := artifact.ParseDigest("sha256:" + head + labels[key+"-rest"])
	if err != nil {
		return ""
	}
	return d
}
