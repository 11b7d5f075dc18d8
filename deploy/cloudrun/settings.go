package cloudrun

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/google"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// DigestVariable is the environment variable with the artifact's digest: waybill-serve holds what it serves against it.
const DigestVariable = "WAYBILL_DIGEST"

// Settings of one service. The keys are those of a target in an environment's file.
type Settings struct {
	Project        string            `json:"project" need:"true"`
	Region         string            `json:"region" need:"true"`
	Service        string            `json:"service" need:"true"`
	CPU            string            `json:"cpu"`             // cores: 1, 2, 4, 6, 8; empty: 1
	Memory         string            `json:"memory"`          // with Mi or Gi; empty: 512Mi
	Concurrency    int64             `json:"concurrency"`     // requests at once per instance, 1 to 1000; 0: 80
	Timeout        string            `json:"timeout"`         // of a request, up to 1h; empty: 60s
	MinInstances   int64             `json:"min-instances"`   //
	MaxInstances   int64             `json:"max-instances"`   // 0: 10
	Port           int64             `json:"port"`            // 0: 8080
	ServiceAccount string            `json:"service-account"` // that the revisions run as; empty: the project's default, and then not looked at
	Env            map[string]string `json:"env"`             // all variables but DigestVariable
	Ingress        string            `json:"ingress"`         // all, internal, internal-and-load-balancing; only read when the service is created; empty: all
	Endpoint       string            `json:"endpoint"`        // https URL; empty: the public one

	// Poll is between questions about a change under way, Backoff the longest between repetitions; 0: 1 s and 8 s.
	Poll    time.Duration `json:"-"`
	Backoff time.Duration `json:"-"`
	Log     *slog.Logger  `json:"-"` // nil discards
}

var (
	projects = regexp.MustCompile(`^[a-z0-9.:-]{1,100}$`)
	regions  = regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)+$`)
	services = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,47}[a-z0-9])?$`)
	memories = regexp.MustCompile(`^[1-9][0-9]{0,6}[MG]i$`)
	accounts = regexp.MustCompile(`^[^@\s]+@[a-z0-9.-]+$`)
	envNames = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

var ingresses = map[string]string{
	"all": "INGRESS_TRAFFIC_ALL", "internal": "INGRESS_TRAFFIC_INTERNAL_ONLY", "internal-and-load-balancing": "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER",
}

// filled gives s with its defaults.
func (s Settings) filled() Settings {
	def := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	num := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&s.CPU, "1")
	def(&s.Memory, "512Mi")
	def(&s.Timeout, "60s")
	def(&s.Ingress, "all")
	num(&s.Concurrency, 80)
	num(&s.MaxInstances, 10)
	num(&s.Port, 8080)
	if s.Poll <= 0 {
		s.Poll = time.Second
	}
	if s.Backoff <= 0 {
		s.Backoff = 8 * time.Second
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	s.Env = maps.Clone(s.Env)
	return s
}

// Check looks at values; it contacts nobody.
func (s *Settings) Check() error {
	f := s.filled()
	d, err := time.ParseDuration(f.Timeout)
	bad := func(key, format string, args ...any) error {
		return &targets.Error{Path: key, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case !projects.MatchString(f.Project):
		return bad("project", "%q is no id of a project", f.Project)
	case !regions.MatchString(f.Region):
		return bad("region", "%q is none, as europe-west4 is one", f.Region)
	case !services.MatchString(f.Service):
		return bad("service", "%q: small letters, digits and hyphens, at most 49, the first a letter", f.Service)
	case !strings.Contains(" 1 2 4 6 8 ", " "+f.CPU+" "):
		return bad("cpu", "%q: 1, 2, 4, 6 or 8", f.CPU)
	case !memories.MatchString(f.Memory):
		return bad("memory", "%q: a number with Mi or Gi is expected, as in 512Mi", f.Memory)
	case f.Concurrency < 1 || f.Concurrency > 1000:
		return bad("concurrency", "%d is not between 1 and 1000", f.Concurrency)
	case err != nil || d < time.Second || d > time.Hour || d%time.Second != 0:
		return bad("timeout", "%q is not in whole seconds between 1s and 1h", f.Timeout)
	case f.MinInstances < 0 || f.MaxInstances < 1 || f.MinInstances > f.MaxInstances:
		return bad("min-instances", "%d and max-instances %d do not go together", f.MinInstances, f.MaxInstances)
	case f.Port < 1 || f.Port > 65535:
		return bad("port", "%d is not between 1 and 65535", f.Port)
	case f.ServiceAccount != "" && !accounts.MatchString(f.ServiceAccount):
		return bad("service-account", "%q is no address of one", f.ServiceAccount)
	case ingresses[f.Ingress] == "":
		return bad("ingress", "%q: all, internal or internal-and-load-balancing", f.Ingress)
	}
	for k := range f.Env {
		switch {
		case k == DigestVariable:
			return bad("env", "the variable %s is the target's own", k)
		case !envNames.MatchString(k):
			return bad("env", "%q is no name of a variable", k)
		case k == "PORT" || strings.HasPrefix(k, "K_") || strings.HasPrefix(k, "X_GOOGLE_"):
			return bad("env", "%s is set by Cloud Run", k)
		}
	}
	if f.Endpoint != "" {
		if err := google.CheckURL(f.Endpoint); err != nil {
			return bad("endpoint", "%w", err)
		}
	}
	return nil
}

// Open implements targets.Settings; see google.Credentials.
func (s *Settings) Open(ctx context.Context, log *slog.Logger) (deploy.Target, error) {
	ts, err := google.Credentials(ctx, "Cloud Run")
	if err != nil {
		return nil, err
	}
	x := *s
	x.Log = log
	return New(ctx, ts, x)
}

// Kind is the row for targets.Parse.
func Kind() targets.Kind {
	return targets.Kind{Name: "cloudrun", Runs: targets.Image, Settings: func() targets.Settings { return &Settings{} }}
}
