// Package sagemaker deploys to Amazon SageMaker: real-time and serverless endpoints. An endpoint is the place; what runs there is an
// endpoint configuration, which names models; a model is an image by digest with the artifact's digest in its environment.
//
// Models are named after what they are. Endpoint configurations are named after what they follow: the one after churn-5f3c...-000007 is
// churn-5f3c...-000008, whatever it holds. SageMaker's calls take no revision, but it creates a name once only, so of two deploys that start
// from the same state only one's configuration exists, and UpdateEndpoint, whoever calls it, moves the endpoint to that one. The names are
// the history too: what served before is the number before.
package sagemaker

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	sdk "github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"

	"github.com/waybill-ml/waybill/deploy"
)

// DigestVariable is the environment variable with the artifact's digest: the label of a model, and what waybill-serve demands.
const DigestVariable = "WAYBILL_DIGEST"

// Settings of one endpoint. Those of Serverless and those of instances exclude each other.
type Settings struct {
	Endpoint string // name
	Role     string // ARN of the execution role, which pulls the image and writes logs

	Serverless  bool
	Memory      int32 // MB: 1024, 2048 ... 6144; 0: 2048
	Concurrency int32 // most requests at once, 1 to 200; 0: 20
	Provisioned int32 // of these kept warm; 0: none

	Instance   string        // type, as in ml.c7g.large
	Count      int32         // 0: 1
	Autoscaled bool          // the count belongs to an autoscaler: kept by updates, no drift
	Traffic    string        // how the platform moves it: all-at-once (also when empty), canary, linear
	Step       int32         // percent of the fleet that canary begins with and linear adds, 1 to 50; 0: 10
	Interval   time.Duration // between steps, whole seconds up to an hour; 0: 5 minutes
	Alarms     []string      // of CloudWatch, up to 10: one that rings during an update takes it back

	Env map[string]string // all variables of the model but DigestVariable
	API string            // URL; empty: that of the region
	// Poll and Backoff are between questions about a change under way, and the longest between repetitions; 0: 5 s and 8 s.
	Poll, Backoff time.Duration
	Log           *slog.Logger // nil discards
}

// Target implements deploy.Target, and for an endpoint with instances is what Realtime adds Promote to.
type Target struct {
	s      Settings
	c      *sdk.Client
	creds  aws.CredentialsProvider
	region string
	naming func(current string) string // in tests of what names are good for: gives the next configuration's name; nil: next
}

// Realtime is a Target whose endpoint can have two variants.
type Realtime struct{ *Target }

var (
	names     = regexp.MustCompile(`^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$`)
	roles     = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/?[a-zA-Z0-9_+=,.@/-]+$`)
	variables = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	instances = regexp.MustCompile(`^ml\.[a-z0-9-]+\.[a-z0-9-]+$`)
	graviton  = regexp.MustCompile(`^ml\.[a-z]+[0-9]+g[a-z]*\.`)
	registry  = regexp.MustCompile(`^[0-9]{12}\.dkr[.-]ecr[a-z0-9.-]*\.(amazonaws\.com|amazonaws\.com\.cn|on\.aws)/`)
)

// New makes a target of the account, region and credentials in cfg: a *Target for a serverless endpoint, else a *Realtime. It calls nothing.
func New(cfg aws.Config, s Settings) (deploy.Target, error) {
	def := func(v *int32, d int32) {
		if *v == 0 {
			*v = d
		}
	}
	switch {
	case !names.MatchString(s.Endpoint):
		return nil, fmt.Errorf("endpoint %q is not a name of 1 to 63 letters, digits and -", s.Endpoint)
	case !roles.MatchString(s.Role):
		return nil, fmt.Errorf("role %q is not the ARN of an IAM role", s.Role)
	case cfg.Region == "" && s.API == "":
		return nil, errors.New("there is no region")
	}
	if _, ok := s.Env[DigestVariable]; ok {
		return nil, fmt.Errorf("the variable %s is the target's own", DigestVariable)
	}
	for k, v := range s.Env {
		if !variables.MatchString(k) || len(k) > 1024 || len(v) > 1024 {
			return nil, fmt.Errorf("variable %q is not a name of letters, digits and _ with a value of at most 1024 bytes", k)
		}
	}
	if len(s.Env) > 99 {
		return nil, fmt.Errorf("%d variables are more than 99", len(s.Env))
	}
	if s.Serverless {
		def(&s.Memory, 2048)
		def(&s.Concurrency, 20)
		switch {
		case s.Memory%1024 != 0 || s.Memory < 1024 || s.Memory > 6144:
			return nil, fmt.Errorf("memory of %d MB is not 1024, 2048, 3072, 4096, 5120 or 6144", s.Memory)
		case s.Concurrency < 1 || s.Concurrency > 200:
			return nil, fmt.Errorf("concurrency of %d is not between 1 and 200", s.Concurrency)
		case s.Provisioned < 0 || s.Provisioned > s.Concurrency:
			return nil, fmt.Errorf("provisioned concurrency of %d is not between 0 and the concurrency, %d", s.Provisioned, s.Concurrency)
		case s.Instance != "" || s.Count != 0 || s.Autoscaled || s.Traffic != "" || s.Step != 0 || s.Interval != 0 || len(s.Alarms) > 0:
			return nil, errors.New("a serverless endpoint has no instances, and no shifting of traffic")
		}
	} else {
		def(&s.Count, 1)
		if s.Traffic == "" {
			s.Traffic = "all-at-once"
		}
		if s.Traffic != "all-at-once" {
			def(&s.Step, 10)
			if s.Interval == 0 {
				s.Interval = 5 * time.Minute
			}
		}
		switch {
		case !instances.MatchString(s.Instance) || !slices.Contains(types.ProductionVariantInstanceType("").Values(), types.ProductionVariantInstanceType(s.Instance)):
			return nil, fmt.Errorf("instance %q is not a type that hosts models, as in ml.c7g.large", s.Instance)
		case s.Count < 1:
			return nil, fmt.Errorf("a count of %d instances", s.Count)
		case s.Traffic != "all-at-once" && s.Traffic != "canary" && s.Traffic != "linear":
			return nil, fmt.Errorf("traffic %q is not all-at-once, canary or linear", s.Traffic)
		case s.Traffic == "all-at-once" && (s.Step != 0 || s.Interval != 0):
			return nil, errors.New("traffic that moves all at once has no step and no interval")
		case s.Step < 0 || s.Step > 50 || s.Traffic == "linear" && s.Step < 10:
			return nil, fmt.Errorf("a step of %d%% is not between 1 and 50 for canary, 10 and 50 for linear", s.Step)
		case s.Interval < 0 || s.Interval > time.Hour || s.Interval%time.Second != 0:
			return nil, fmt.Errorf("interval of %s is not in whole seconds up to an hour", s.Interval)
		case len(s.Alarms) > 10 || slices.ContainsFunc(s.Alarms, func(a string) bool { return strings.TrimSpace(a) == "" || len(a) > 255 }):
			return nil, errors.New("alarms are at most 10 names of at most 255 characters")
		case s.Memory != 0 || s.Concurrency != 0 || s.Provisioned != 0:
			return nil, errors.New("memory and concurrency are settings of a serverless endpoint")
		}
	}
	if s.Poll <= 0 {
		s.Poll = 5 * time.Second
	}
	if s.Backoff <= 0 {
		s.Backoff = 8 * time.Second
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	s.Env, s.Alarms = maps.Clone(s.Env), slices.Clone(s.Alarms)
	t := &Target{s: s, creds: cfg.Credentials, region: cfg.Region}
	t.c = sdk.NewFromConfig(cfg, func(o *sdk.Options) {
		if s.API != "" {
			o.BaseEndpoint = aws.String(s.API)
		}
		o.Retryer = retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts, r.MaxBackoff, r.RateLimiter = 6, s.Backoff, ratelimit.None
			r.Backoff = retry.NewExponentialJitterBackoff(s.Backoff)
		})
	})
	if s.Serverless {
		return t, nil
	}
	return &Realtime{t}, nil
}

// arch of the machines, as Go names it.
func (t *Target) arch() string {
	if graviton.MatchString(t.s.Instance) {
		return "arm64"
	}
	return "amd64"
}

var (
	_ deploy.Target   = (*Target)(nil)
	_ deploy.Promoter = (*Realtime)(nil)
)
