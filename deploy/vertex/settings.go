package vertex

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

// variantVariable tells waybill-serve which platform it speaks to.
const variantVariable = "WAYBILL_VARIANT"

// Settings of one endpoint. The keys are those of a target in an environment's file.
type Settings struct {
	Project        string            `json:"project" need:"true"`
	Region         string            `json:"region" need:"true"`
	Endpoint       string            `json:"endpoint" need:"true"` // its id
	Model          string            `json:"model"`                // id of the model whose versions run; empty: that of the endpoint
	Machine        string            `json:"machine"`              // type of the machines; empty: n1-standard-2
	MinReplicas    int64             `json:"min-replicas"`         // of each deployed model; 0: 1
	MaxReplicas    int64             `json:"max-replicas"`         // 0: as min-replicas
	Port           int64             `json:"port"`                 // 0: 8080
	ServiceAccount string            `json:"service-account"`      // that the containers run as; empty: one without rights, and then not looked at
	Env            map[string]string `json:"env"`                  // all variables but DigestVariable and WAYBILL_VARIANT
	Dedicated      bool              `json:"dedicated"`            // a DNS name of its own; only read when the endpoint is created
	API            string            `json:"api"`                  // https URL; empty: the region's

	// Poll is the shortest time between questions about a change under way, Backoff the longest between repetitions; 0: 2 s and 8 s.
	Poll    time.Duration `json:"-"`
	Backoff time.Duration `json:"-"`
	Log     *slog.Logger  `json:"-"` // nil discards
}

var (
	projects  = regexp.MustCompile(`^[a-z0-9.:-]{1,100}$`)
	regions   = regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)+$`)
	endpoints = regexp.MustCompile(`^([a-z]([a-z0-9-]{0,61}[a-z0-9])?|[1-9][0-9]{0,18})$`)
	models    = regexp.MustCompile(`^([a-z_][a-z0-9_-]{0,62}|[1-9][0-9]{0,18})$`)
	machines  = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)+$`)
	accounts  = regexp.MustCompile(`^[^@\s]+@[a-z0-9.-]+$`)
	envNames  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// filled gives s with its defaults.
func (s Settings) filled() Settings {
	if s.Model == "" {
		s.Model = s.Endpoint
	}
	if s.Machine == "" {
		s.Machine = "n1-standard-2"
	}
	if s.MinReplicas == 0 {
		s.MinReplicas = 1
	}
	if s.MaxReplicas == 0 {
		s.MaxReplicas = s.MinReplicas
	}
	if s.Port == 0 {
		s.Port = 8080
	}
	if s.API == "" {
		s.API = "https://" + s.Region + "-aiplatform.googleapis.com/"
	}
	if s.Poll <= 0 {
		s.Poll = 2 * time.Second
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

// Check implements targets.Settings.
func (s *Settings) Check() error {
	f := s.filled()
	bad := func(key, format string, args ...any) error {
		return &targets.Error{Path: key, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case !projects.MatchString(f.Project):
		return bad("project", "%q is no id of a project", f.Project)
	case !regions.MatchString(f.Region):
		return bad("region", "%q is none, as europe-west4 is one", f.Region)
	case !endpoints.MatchString(f.Endpoint):
		return bad("endpoint", "%q: small letters, digits and hyphens, at most 63, the first a letter; or a number", f.Endpoint)
	case !models.MatchString(f.Model):
		return bad("model", "%q: small letters, digits, hyphens and _, at most 63, the first no digit or hyphen; or a number", f.Model)
	case !machines.MatchString(f.Machine):
		return bad("machine", "%q is no type of machine, as n1-standard-2 is one", f.Machine)
	case f.MinReplicas < 1 || f.MinReplicas > f.MaxReplicas || f.MaxReplicas > 1000:
		return bad("min-replicas", "%d and max-replicas %d do not go together: from 1 to 1000", f.MinReplicas, f.MaxReplicas)
	case f.Port < 1 || f.Port > 65535:
		return bad("port", "%d is not between 1 and 65535", f.Port)
	case f.ServiceAccount != "" && !accounts.MatchString(f.ServiceAccount):
		return bad("service-account", "%q is no address of one", f.ServiceAccount)
	}
	for k := range f.Env {
		switch {
		case k == DigestVariable || k == variantVariable:
			return bad("env", "the variable %s is the target's own", k)
		case !envNames.MatchString(k):
			return bad("env", "%q is no name of a variable", k)
		case strings.HasPrefix(k, "AIP_"):
			return bad("env", "%s is set by Vertex AI", k)
		}
	}
	if err := google.CheckURL(f.API); err != nil {
		return bad("api", "%w", err)
	}
	return nil
}

// Open implements targets.Settings; see google.Credentials.
func (s *Settings) Open(ctx context.Context, log *slog.Logger) (deploy.Target, error) {
	ts, err := google.Credentials(ctx, platform)
	if err != nil {
		return nil, err
	}
	x := *s
	x.Log = log
	return New(ctx, ts, x)
}

// Kind is the row for targets.Parse.
func Kind() targets.Kind {
	return targets.Kind{Name: "vertex", Variant: "vertex", Runs: targets.Image, Settings: func() targets.Settings { return &Settings{} }}
}

// Unwritten implements targets.Silent.
func (s *Settings) Unwritten() string {
	return "Terraform's provider for Google Cloud has endpoints, but no resource that gives an uploaded model to one"
}

var _ targets.Silent = (*Settings)(nil)
